"""What reading a file used, cut, bridged and found doubtful."""

from dataclasses import dataclass, field, replace
from typing import Any

from selfpab_jax.data.sources.base import UnusableError

MOST_SPANS = 2000
"""Spans that a report keeps for its picture."""
READ_AS = "read as: "
"""Begins the note about how a table is written, which is not a loss."""


@dataclass
class FileReport:
    """The account of one file; readers add to it.

    Args:
        file: path.
        subject: whose recording it is.
        strict: the first thing that would be cut or doubted is an error instead.
        rate_hz: declared sampling rate.
        measured_hz: rate by the timestamps, where they could be used.
        in_s: seconds of samples in the file.
        used_s: seconds of signal that came out, gaps that were bridged included.
        cut_s: seconds of samples that were not used, by reason.
        bridged_s: seconds without usable samples that were filled by interpolation.
        flagged_s: seconds that were used although doubtful (non-wear), by reason.
        gap_s: seconds between the first and the last timestamp without samples, beyond those bridged.
        stopped: a fault ended the file before its end; a note says where and why.
        notes: remarks that a user should read.
        spans: (start, end, kind) in seconds since 1970, or from the first sample; `kind` is `used` or a reason.
    """

    file: str
    subject: str = ""
    strict: bool = False
    rate_hz: float = 0.0
    measured_hz: float | None = None
    in_s: float = 0.0
    used_s: float = 0.0
    cut_s: dict[str, float] = field(default_factory=dict)
    bridged_s: float = 0.0
    flagged_s: dict[str, float] = field(default_factory=dict)
    gap_s: float = 0.0
    stopped: bool = False
    notes: list[str] = field(default_factory=list)
    spans: list[tuple[float, float, str]] = field(default_factory=list)

    def cut(self, reason: str, seconds: float, details: str = "") -> None:
        """Samples are not used.

        Args:
            reason: short, the same for all of its kind.
            seconds: how much.
            details: for the message where `strict` is set.

        Raises:
            UnusableError: `strict` is set.
        """
        if self.strict:
            raise UnusableError(f"{reason}: {details or f'{seconds:.4g} s'}")
        self.cut_s[reason] = self.cut_s.get(reason, 0.0) + seconds

    def note(self, text: str) -> None:
        """A remark, once.

        Raises:
            UnusableError: `strict` is set.
        """
        if self.strict:
            raise UnusableError(text)
        if text not in self.notes:
            self.notes.append(text)

    def span(self, start: float, end: float, kind: str) -> None:
        """Add to the picture; spans that continue the one before become one."""
        if self.spans and self.spans[-1][2] == kind and abs(self.spans[-1][1] - start) < 1.0:
            self.spans[-1] = (self.spans[-1][0], end, kind)
        elif len(self.spans) < MOST_SPANS:
            self.spans.append((start, end, kind))

    @property
    def drift_ppm(self) -> float | None:
        """How much faster the samples came than declared, in parts per million."""
        return None if self.measured_hz is None else 1e6 * (self.measured_hz / self.rate_hz - 1)

    def summary(self) -> str:
        """One line, the largest loss first; empty where everything was used."""
        cut = sorted((item for item in self.cut_s.items() if item[1] > 0), key=lambda item: -item[1])
        line = f"cut {', '.join(f'{reason} {seconds:.4g} s' for reason, seconds in cut)}" if cut else ""
        if self.bridged_s > 0:
            line += ("; " if line else "") + f"bridged {self.bridged_s:.4g} s"
        notes = sorted(self.notes, key=lambda note: note.startswith(READ_AS))
        if not line and all(note.startswith(READ_AS) for note in notes):
            return ""
        return "; ".join([part for part in (line, *notes) if part])

    def failure(self) -> str:
        """Why nothing at all could be used: the main cause, what explains it, and then all else; empty if unknown."""
        if not any(seconds > 0 for seconds in self.cut_s.values()):
            return self.summary()
        main = max(self.cut_s, key=self.cut_s.__getitem__)
        causes = [note for note in self.notes if note.startswith(f"{main}: ")]
        rest = replace(self, notes=[note for note in self.notes if note not in causes])
        return "; ".join([*causes, rest.summary()]) if causes else f"{main}: {rest.summary()}"

    def as_json(self) -> dict[str, Any]:
        """Everything but the spans, hours instead of seconds for the totals."""
        return {
            "file": self.file,
            "subject": self.subject,
            "rate_hz": self.rate_hz,
            "measured_hz": self.measured_hz,
            "drift_ppm": None if self.drift_ppm is None else round(self.drift_ppm, 1),
            "hours_in": round(self.in_s / 3600, 5),
            "hours_used": round(self.used_s / 3600, 5),
            "cut_s": {reason: round(seconds, 3) for reason, seconds in self.cut_s.items()},
            "flagged_s": {reason: round(seconds, 3) for reason, seconds in self.flagged_s.items()},
            "bridged_s": round(self.bridged_s, 3),
            "gap_s": round(self.gap_s, 3),
            "notes": self.notes,
        }
