"""From rows of a file to continuous recordings on an even clock, in blocks; the one way for every kind of file.

Rows that cannot be used become gaps in time. A gap of up to `gap_limit` is bridged, a longer one ends the recording and
another one begins behind it. Time is that of the timestamps: where they stay within `TIME_TOLERANCE` of an even clock
at the declared rate, the samples are taken as they are; elsewhere (drift, lost samples) they are resampled
by time.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.blocks import Rows, SignalBlock, equal_blocks
from selfpab_jax.data.sources.checks import usable_rows
from selfpab_jax.data.sources.clock import EvenClock
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.segments import Segment, check_rate, repeated_rows, runs, time_order

TIME_TOLERANCE = 0.1
"""Seconds that samples may be off the timestamps before they are resampled; a published frame is every half second."""
REORDERED_SECONDS = 1.0
"""A step back in time of up to this is sorted, or cut where the clock was set back; a longer one ends a recording."""
COARSE_TICKS = 1.5
"""A clock that ticks less often than once in this many samples is coarse: several samples share a time."""
MISSING_TIMES = "rows have no timestamp: they lie evenly between their neighbors"
COARSEST_SECONDS = 90.0
"""Timestamps that stand still for longer say nothing about rate and gaps (Unix seconds in float32 do, for 128 s)."""


def continuous_blocks(
    rows: Iterable[Rows],
    channels: tuple[str, ...],
    rate_hz: float,
    gap_limit: float,
    report: FileReport,
    name: str,
    start_of: Callable[[float], datetime | None],
) -> Iterator[SignalBlock]:
    """The continuous recordings of a file.

    Args:
        rows: of the file, in blocks of any size.
        channels: a name per column.
        rate_hz: declared sampling rate.
        gap_limit: seconds; longest gap that is bridged.
        report: gets what is cut, bridged and doubted.
        name: of the file, for the names of its recordings.
        start_of: date and time of seconds of the timestamps.

    Raises:
        UnusableError: nothing can be used, or the timestamps show another rate; or the report is strict.
    """
    report.rate_hz = rate_hz
    cleaner = _Cleaner(channels, rate_hz, gap_limit, report, name, start_of)
    count, yielded = 0, False
    for block in equal_blocks(rows):
        for each in cleaner.add(block):
            yielded = True
            yield each
        count += len(block.signal_NxC)
    for each in cleaner.finish():
        yielded = True
        yield each
    if not count:
        raise UnusableError("too short: it has no rows")
    if not yielded:
        raise UnusableError(report.failure() or "no row can be used")


class _Run:
    """A recording that is being read: its clock, and how many samples it has had.

    Args:
        name: of the recording.
        start_s: time of its first sample.
    """

    def __init__(self, name: str, start_s: float):
        self.name, self.start_s, self.count = name, start_s, 0
        self.clock: EvenClock | None = None
        self.offset_s, self.last_s = 0.0, -np.inf
        self.label_times: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []


class _Cleaner:
    def __init__(
        self,
        channels: tuple[str, ...],
        rate_hz: float,
        gap_limit: float,
        report: FileReport,
        name: str,
        start_of: Callable[[float], datetime | None],
    ):
        self.channels, self.rate_hz, self.gap_limit, self.report = channels, rate_hz, gap_limit, report
        self.name, self.start_of = name, start_of
        self.run: _Run | None = None
        self.bridge = _Bridge(rate_hz, gap_limit, report, start_of)
        self.first = 0  # row number of the block in the file
        self.last_s, self.last_code = -np.inf, None
        self.tick_s: float | None = None
        self.is_tick_judged = False
        self.missing_times = 0
        self.is_standing: float | None = None  # where timestamps cannot be used: the time of row 0

    def add(self, block: Rows) -> Iterator[SignalBlock]:
        """The samples that became certain with another block."""
        rate, report = self.rate_hz, self.report
        if block.times_N is not None:
            # Without a time and without a number, as a repeated header has: no row at all.
            empty_N = ~np.isfinite(block.times_N) & np.isnan(block.signal_NxC).all(axis=1)
            block = block.part(~empty_N) if empty_N.any() else block
            if not len(block.signal_NxC):
                return
        report.in_s += len(block.signal_NxC) / rate
        block = self._without_repeated(block)
        usable_N = usable_rows(block.signal_NxC, self.channels, rate, report)
        signal_NxC = block.signal_NxC if usable_N.all() else np.where(usable_N[:, None], block.signal_NxC, np.nan)
        block = Rows(signal_NxC, self._times(block), block.codes_N, block.labels_N)
        assert block.times_N is not None
        for first, last in zip(*runs(~usable_N), strict=True):
            if last - first >= rate:  # what is shorter cannot be seen in a picture
                report.span(float(block.times_N[first]), float(block.times_N[last - 1]), "cut")
        numbers_N = self.first + np.arange(len(signal_NxC))
        self.first += len(signal_NxC)
        yield from self._timed(block, numbers_N)

    def _without_repeated(self, block: Rows) -> Rows:
        times_N = block.times_N
        if times_N is None:
            return block
        if self.tick_s is None and np.isfinite(times_N).any():
            steps_n = np.diff(times_N[np.isfinite(times_N)])
            positive_n = steps_n[steps_n > 0]
            if (steps_n < 0).sum() > len(steps_n) / 2:
                raise UnusableError(
                    "timestamps run backwards throughout: the newest row is the first; sort the rows by time"
                )
            self.tick_s = float(np.median(positive_n)) if len(positive_n) else len(times_N) / self.rate_hz
        if (self.tick_s or 0.0) > COARSE_TICKS / self.rate_hz:  # equal times are the rule there
            return block
        repeated_N = repeated_rows(times_N, block.signal_NxC)
        if not repeated_N.any():
            return block
        self.report.cut(
            "repeated rows", repeated_N.sum() / self.rate_hz, "rows with the time and values of the row before"
        )
        return block.part(~repeated_N)

    def finish(self) -> Iterator[SignalBlock]:
        """The rest."""
        if self.run is not None:
            yield from self._end()
        yield from self.bridge.finish()

    def _times(self, block: Rows) -> Float64[np.ndarray, " N"]:
        count, times_N = len(block.signal_NxC), block.times_N
        rows_N = (self.first + np.arange(count)) / self.rate_hz
        if times_N is None:
            return rows_N
        if not self.is_tick_judged and self.tick_s is not None:
            self.is_tick_judged = True
            if self.tick_s > COARSEST_SECONDS and count > COARSEST_SECONDS * self.rate_hz:
                self.is_standing = float(times_N[np.isfinite(times_N)][0]) - rows_N[0]
                self.report.note(
                    f"rate and gaps not checked: timestamps stand still for {self.tick_s:.4g} s at a time (stored as "
                    "float32?); time is counted from the first by the rate"
                )
        return rows_N + self.is_standing if self.is_standing is not None else self._filled(times_N)

    def _filled(self, times_N: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
        """Rows without a time lie evenly between their neighbors."""
        known = np.flatnonzero(np.isfinite(times_N))
        if len(known) == len(times_N):
            return times_N
        if not len(known) and np.isfinite(self.last_s) and len(times_N) < COARSEST_SECONDS * self.rate_hz:
            times_N = times_N.copy()
            times_N[0], known = self.last_s + 1 / self.rate_hz, np.zeros(1, int)
        elif not len(known):
            raise UnusableError(f"timestamps: {len(times_N)} rows in a row have none")
        missing = len(times_N) - len(known)
        self.missing_times += missing
        self.report.notes = [note for note in self.report.notes if not note.endswith(MISSING_TIMES)]
        self.report.note(f"{self.missing_times} {MISSING_TIMES}")
        rows = np.arange(len(times_N))
        filled_N = np.interp(rows, known, times_N[known])
        filled_N[: known[0]] = times_N[known[0]] - (known[0] - rows[: known[0]]) / self.rate_hz
        filled_N[known[-1] :] = times_N[known[-1]] + (rows[known[-1] :] - known[-1]) / self.rate_hz
        return filled_N

    def _timed(self, block: Rows, numbers_N: Int64[np.ndarray, " N"]) -> Iterator[SignalBlock]:
        assert block.times_N is not None
        times_N, codes_N = block.times_N, block.codes_N
        limit = max(self.gap_limit, 1.5 * (self.tick_s or 0.0))
        steps_N = np.diff(times_N, prepend=self.last_s if np.isfinite(self.last_s) else times_N[0])
        change_N = np.zeros(len(times_N), bool)
        if codes_N is not None:
            before = codes_N[0] if self.last_code is None else self.last_code
            change_N = np.diff(codes_N, prepend=before) != 0
            self.last_code = int(codes_N[-1])
        back_N = (steps_N < -REORDERED_SECONDS) & ~change_N
        if back_N.any():
            row = int(numbers_N[int(back_N.argmax())])
            self.report.note(
                f"time runs backwards {int(back_N.sum())} times, first by {-steps_N[back_N][0]:.4g} s at row {row}: "
                "another recording begins there"
            )
        breaks_N = change_N | back_N | (steps_N > limit)
        self.last_s = float(times_N[-1])
        if self.run is None:
            breaks_N[0] = True
        edges = [0, *(np.flatnonzero(breaks_N[1:]) + 1).tolist(), len(times_N)]
        segments = list(pairwise(edges))
        if self.is_standing is None and self.tick_s is not None:
            self._measure(times_N, segments)
        for first, last in segments:
            begins = bool(breaks_N[first])
            if begins and self.run is not None:
                if not change_N[first] and not back_N[first]:
                    self.report.gap_s += float(steps_N[first])
                    self.report.span(times_N[first] - steps_N[first], times_N[first], "gap")
                yield from self._end()
            piece = block.part(slice(first, last))
            if self.run is None:
                self.run = _Run(f"{self.name}:{int(numbers_N[first])}", float(times_N[first]))
            yield from self._piece(piece)

    def _measure(self, times_N: Float64[np.ndarray, " N"], segments: list[Segment]) -> None:
        check_rate(times_N, segments, self.rate_hz, option="--rate")
        first, last = max(segments, key=lambda segment: segment[1] - segment[0])
        span = times_N[last - 1] - times_N[first]
        if self.report.measured_hz is None and span > 60:
            self.report.measured_hz = float((last - 1 - first) / span)

    def _piece(self, piece: Rows) -> Iterator[SignalBlock]:
        """Rows without a break, which continue the run or begin it."""
        run, rate = self.run, self.rate_hz
        assert run is not None
        piece = self._in_order(piece)
        times_N = piece.times_N
        assert times_N is not None
        if run.clock is None:
            offsets_N = times_N - run.start_s - (run.count + np.arange(len(times_N))) / rate
            ticks_N = np.diff(times_N, prepend=-np.inf) > 0
            coarse = (self.tick_s or 0.0) > COARSE_TICKS / rate
            if coarse and run.count == 0 and ticks_N.sum() > 1:
                # The first row of a tick is at its time, and the first row of all anywhere within its tick.
                shift = float(np.median(offsets_N[ticks_N][1:]))
                run.start_s, offsets_N = run.start_s + shift, offsets_N - shift
                ticks_N[0] = False
            off_n = offsets_N[ticks_N] if coarse else offsets_N
            if len(off_n) and np.abs(off_n).max() > TIME_TOLERANCE:
                run.offset_s = float(off_n[0]) if run.count else 0.0
                run.clock = EvenClock(rate, self.gap_limit, run.start_s + run.count / rate, from_hz=rate)
                self.report_resampled()
        if run.clock is None:
            run.count += len(times_N)
            yield from self._emit(piece.signal_NxC, piece.labels_N)
            return
        finite_N = np.asarray(np.isfinite(piece.signal_NxC).all(axis=1))
        times_N = times_N - run.offset_s
        if piece.labels_N is not None:
            run.label_times.append(times_N)
            run.labels.append(piece.labels_N)
        steps_n = np.diff(times_N[finite_N])
        lost_n = steps_n[(steps_n > 1.5 / rate) & (steps_n > 1.5 * (self.tick_s or 0)) & (steps_n <= self.gap_limit)]
        self.report.bridged_s += float((lost_n - 1 / rate).sum())
        even = run.clock.add(times_N, piece.signal_NxC)
        yield from self._even(even.signal_MxC)

    def report_resampled(self) -> None:
        """Say once that the samples are not where an even clock has them."""
        text = f"resampled by time: lost samples or drift of more than {TIME_TOLERANCE:g} s"
        if text not in self.report.notes:  # no doubt, so no error where the report is strict
            self.report.notes.append(text)

    def _in_order(self, piece: Rows) -> Rows:
        assert piece.times_N is not None
        run = self.run
        assert run is not None
        before_s, times_N = run.last_s, piece.times_N
        run.last_s = max(before_s, float(times_N.max()))
        back = int((np.diff(times_N, prepend=before_s) < 0).sum())
        if not back:
            return piece
        order_M, set_back_s = time_order(times_N, self.rate_hz, before_s)
        if set_back_s:
            lost_s = (len(times_N) - len(order_M)) / self.rate_hz
            self.report.cut("clock set back", lost_s, f"by up to {max(set_back_s):.4g} s")
            self.report.note(
                f"the clock was set back {len(set_back_s)} times, by up to {max(set_back_s):.4g} s: what it counted a "
                "second time is cut"
            )
        if back > len(set_back_s):
            self.report.note(f"{back - len(set_back_s)} rows were earlier than the row before: sorted by time")
        return piece.part(order_M)

    def _even(self, signal_MxC: Float32[np.ndarray, "M C"]) -> Iterator[SignalBlock]:
        run = self.run
        assert run is not None
        if not len(signal_MxC):
            return
        labels_M = None
        if run.labels:
            at_M = run.start_s + (run.count + np.arange(len(signal_MxC))) / self.rate_hz
            times, labels = np.concatenate(run.label_times), np.concatenate(run.labels)
            right_M = np.clip(np.searchsorted(times, at_M), 1, max(len(times) - 1, 1))
            nearer_M = np.abs(times[right_M - 1] - at_M) <= np.abs(times[np.minimum(right_M, len(times) - 1)] - at_M)
            labels_M = labels[np.where(nearer_M, right_M - 1, np.minimum(right_M, len(times) - 1))].astype(np.int32)
            kept = max(0, int(right_M[-1]) - 2)
            run.label_times, run.labels = [times[kept:]], [labels[kept:]]
        run.count += len(signal_MxC)
        yield from self._emit(signal_MxC, labels_M)

    def _emit(
        self, signal_NxC: Float32[np.ndarray, "N C"], labels_N: Int32[np.ndarray, " N"] | None
    ) -> Iterator[SignalBlock]:
        run = self.run
        assert run is not None
        yield from self.bridge.add(run.name, run.start_s, run.count - len(signal_NxC), signal_NxC, labels_N)

    def _end(self) -> Iterator[SignalBlock]:
        run = self.run
        assert run is not None
        if run.clock is not None:
            try:
                even = run.clock.finish()
            except UnusableError:  # not a single sample
                pass
            else:
                yield from self._even(even.signal_MxC)
        self.run = None


class _Bridge:
    """Fills short gaps on an even clock along straight lines, and ends recordings at longer ones."""

    def __init__(
        self, rate_hz: float, gap_limit: float, report: FileReport, start_of: Callable[[float], datetime | None]
    ):
        self.rate_hz, self.limit, self.report, self.start_of = rate_hz, gap_limit * rate_hz, report, start_of
        self.run = ""  # the recording that samples come from
        self.open: SignalBlock | None = None  # the recording that is given on, without its samples
        self.last_C: np.ndarray | None = None  # its last sample
        self.missing = 0  # rows since then
        self.missing_labels: list[np.ndarray] = []

    def add(
        self,
        run: str,
        start_s: float,
        position: int,
        signal_NxC: Float32[np.ndarray, "N C"],
        labels_N: Int32[np.ndarray, " N"] | None,
    ) -> Iterator[SignalBlock]:
        """More samples of a run; `position` is the number of the first in it."""
        if run != self.run:
            self.run, self.open, self.last_C, self.missing, self.missing_labels = run, None, None, 0, []
        is_good_N = np.asarray(np.isfinite(signal_NxC).all(axis=1))
        firsts, lasts = runs(is_good_N)
        end = 0
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            gap = self.missing + first - end
            blocks, labels = [signal_NxC[first:last]], [None if labels_N is None else labels_N[first:last]]
            if self.open is not None and self.last_C is not None and 0 < gap <= self.limit:
                fraction_M = (np.arange(gap, dtype=np.float32)[:, None] + 1) / np.float32(gap + 1)
                blocks.insert(0, self.last_C + fraction_M * (signal_NxC[first] - self.last_C))
                if labels_N is not None:
                    labels.insert(0, np.concatenate([*self.missing_labels, labels_N[end:first]]))
                self.report.bridged_s += gap / self.rate_hz
            elif gap and self.open is not None:
                self.open = None
            begins = self.open is None
            if self.open is None:
                at_s = start_s + (position + first) / self.rate_hz
                name = f"{run}+{position + first}" if position + first else run
                self.open = SignalBlock(name, self.start_of(at_s), True, self.rate_hz, signal_NxC[:0])
            joined_NxC = np.concatenate(blocks) if len(blocks) > 1 else blocks[0]
            kept = [each for each in labels if each is not None]
            joined_labels_N = np.concatenate(kept) if kept else None
            self.report.used_s += len(joined_NxC) / self.rate_hz
            begin_s = start_s + (position + last - len(joined_NxC)) / self.rate_hz
            self.report.span(begin_s, start_s + (position + last) / self.rate_hz, "used")
            yield replace(self.open, begins=begins, signal_NxC=joined_NxC, labels_N=joined_labels_N)
            self.last_C, self.missing, self.missing_labels, end = signal_NxC[last - 1], 0, [], last
        self.missing += len(signal_NxC) - end
        if labels_N is not None and self.missing <= self.limit:
            self.missing_labels.append(labels_N[end:])

    def finish(self) -> Iterator[SignalBlock]:
        """Nothing is held back but missing rows, which have no end."""
        return iter(())
