"""How recordings are cut into windows, and what becomes of their hours: in records, or left out and why."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import pyarrow as pa

from selfpab_jax.progress import duration

USAGE_FILE = "usage.parquet"
"""One row per file that was read: seconds, see `SegmentUsage`."""


@dataclass(frozen=True)
class Windowing:
    """How recordings are cut into windows.

    Attributes:
        window_samples: length of a window.
        shift_samples: from the start of one window to the start of the next.
        shortest_samples: a recording shorter than a window is one short window if it has this many samples, and a
            window that is moved back holds the end of a longer one. None: both are left out.
        least_samples: an end with fewer new samples than these is left out.
        move_back: whether the end of a longer recording is in such a window.
    """

    window_samples: int
    shift_samples: int
    shortest_samples: int | None = None
    least_samples: int = 1
    move_back: bool = True

    def spans(self, samples: int) -> list[tuple[int, int]]:
        """First and last + 1 sample of every window of a recording, in order.

        Windows that are apart on purpose (a shift longer than a window) get none that holds the end.
        """
        shortest = self.shortest_samples
        if samples < self.window_samples:
            long_enough = shortest is not None and samples >= max(shortest, self.least_samples)
            return [(0, samples)] if long_enough else []
        firsts = list(range(0, samples - self.window_samples + 1, self.shift_samples))
        left = samples - firsts[-1] - self.window_samples
        overlapping = self.shift_samples <= self.window_samples
        if self.move_back and shortest is not None and overlapping and left >= self.least_samples:
            firsts.append(samples - self.window_samples)
        return [(first, first + self.window_samples) for first in firsts]


@dataclass(frozen=True)
class SegmentUsage:
    """Continuous segments and what became of them, in one unit of time: `recorded` is the sum of all others.

    Attributes:
        recorded: in continuous segments.
        used: in records, overlaps counted once.
        too_short: in segments too short for a record.
        ends: at the ends of segments, beyond their last record.
        between: between records that are apart (a shift longer than a window).
        before: before the hour that windows start at.
    """

    recorded: float = 0.0
    used: float = 0.0
    too_short: float = 0.0
    ends: float = 0.0
    between: float = 0.0
    before: float = 0.0

    def scaled(self, factor: float) -> "SegmentUsage":
        """In another unit of time."""
        return SegmentUsage(**{name: value * factor for name, value in asdict(self).items()})


USAGE = pa.schema(
    {name: pa.string() for name in ("file", "subject", "split")}
    | {field.name: pa.float64() for field in fields(SegmentUsage)}
)


def segment_usage(samples: Iterable[int], rate_hz: float, windowing: Windowing) -> SegmentUsage:
    """What becomes of continuous segments, in seconds.

    Args:
        samples: of each segment.
        rate_hz: their rate.
        windowing: how they are cut into windows.
    """
    return total_usage(_one(each, windowing).scaled(1 / rate_hz) for each in samples)


def total_usage(parts: Iterable[SegmentUsage]) -> SegmentUsage:
    """The sum."""
    parts, names = list(parts), [field.name for field in fields(SegmentUsage)]
    return SegmentUsage(**{name: math.fsum(getattr(part, name) for part in parts) for name in names})


def _one(samples: int, windowing: Windowing) -> SegmentUsage:
    spans = windowing.spans(samples)
    if not spans:
        return SegmentUsage(samples, too_short=samples)
    used = end = 0
    for first, last in spans:
        used += last - max(first, end)
        end = last
    return SegmentUsage(samples, used, ends=samples - end, between=end - used)


def usage_text(usage: SegmentUsage, skipped_hours: float) -> list[str]:
    """The hours as lines of text.

    Args:
        usage: in hours.
        skipped_hours: in files that were skipped, an estimate; 0 where unknown.
    """
    share = f" ({usage.used / usage.recorded:.1%})" if usage.recorded else ""
    lines = [f"{usage.used:.1f} of {usage.recorded:.1f} h in continuous segments are in records{share}"]
    for hours, what in (
        (usage.too_short, "in segments shorter than --shortest_seconds and a window"),
        (usage.ends, "at the ends of segments, beyond the last record"),
        (usage.between, "between records, because the shift is longer than a window"),
        (usage.before, "before the first --start_hour of a segment"),
    ):
        if round(hours * 3600):
            lines.append(f"  {duration(hours * 3600)} left out: {what}")
    if skipped_hours:
        lines.append(f"  about {skipped_hours:.1f} h more in files that were skipped")
    return lines
