"""One planned run, as a line of plan.jsonl."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from selfpab_jax.errors import RunError
from selfpab_jax.train.run_directory import comparable


@dataclass(frozen=True)
class Line:
    """A run of a sweep.

    Attributes:
        index: its number, from 0.
        name: of its run directory, told by its axes.
        axes: value of each axis.
        hours, subjects, windows: that it really trains on: hours of recording, people in them.
        parameters, steps, tokens, flops, memory_bytes, device_seconds: estimates; memory is of one device, tokens are
            frames seen, device seconds None where no rate is known.
        settings: of the run, whole, as JSON.
        final: of the measurement after training, as JSON.
        probe: of the downstream measurement, or None.
        records: fingerprint of the records that it was planned on.
        hash: of everything that decides its result but the probe.
    """

    index: int
    name: str
    axes: dict[str, Any]
    hours: float
    subjects: int
    windows: int
    parameters: int
    steps: int
    tokens: float
    flops: float
    memory_bytes: int
    device_seconds: float | None
    settings: dict[str, Any]
    final: dict[str, Any]
    probe: dict[str, Any] | None
    records: str
    hash: str

    @property
    def seed(self) -> int:
        """Of subset and model."""
        return self.settings["seed"]


def hash_of(settings: dict[str, Any], final: dict[str, Any], records: str) -> str:
    """Of what decides a run's result: its settings without those a resumed run may change, and what it is judged by."""
    text = json.dumps([comparable(settings), final, records], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_lines(lines: list[Line], path: Path) -> None:
    """Write plan.jsonl; it is whole or as it was."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines), encoding="utf-8")
    temporary.replace(path)


def read_lines(path: Path) -> list[Line]:
    """Read plan.jsonl.

    Raises:
        RunError: there is none, or a line is damaged or was changed by hand; names the line.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise RunError(f"{path.parent} is no sweep: it has no {path.name} (selfpab-jax sweep plan makes it)") from None
    lines = [_line(text, f"{path} line {number}") for number, text in enumerate(texts, 1)]
    if not lines or [line.index for line in lines] != list(range(len(lines))):
        raise RunError(f"{path}: lines are missing or not in order; give the sweep file to `sweep plan` again")
    return lines


def _line(text: str, where: str) -> Line:
    mend = "give the sweep file to `sweep plan` again; finished runs are kept"
    try:
        told = json.loads(text)
        line = Line(**{each.name: told[each.name] for each in fields(Line)})
        now = hash_of(line.settings, line.final, line.records)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RunError(f"{where} is damaged; {mend}") from None
    if now != line.hash:
        raise RunError(f"{where} ({line.name}) was changed by hand; {mend}")
    return line
