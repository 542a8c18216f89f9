"""What was skipped while recordings were read, and why."""

from dataclasses import dataclass, field

from selfpab_jax.errors import DataError


@dataclass(frozen=True)
class Skipped:
    """Something that was not used.

    Attributes:
        what: a file, rows of a file, a recording or a subject.
        reason: why, and what to do about it.
    """

    what: str
    reason: str


@dataclass
class SkippedLog:
    """Collects what is skipped; readers in several threads may add to it.

    Args:
        strict: raise an error instead.
        entries: what was skipped so far.
    """

    strict: bool = False
    entries: list[Skipped] = field(default_factory=list)

    def add(self, what: str, reason: str) -> None:
        """Record one.

        Raises:
            DataError: `strict` is set.
        """
        if self.strict:
            raise DataError(f"{what}: {reason}")
        self.entries.append(Skipped(what, reason))
