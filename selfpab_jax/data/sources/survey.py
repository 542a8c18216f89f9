"""What only a whole recording shows: times in which it was not worn, and its calibration by gravity.

Both need epochs of ten seconds from all of it. Non-wear is flagged while the signal passes through; to cut it, or to
calibrate, the file is read twice, so that memory does not depend on its length.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal

import numpy as np
from jaxtyping import Float32

from selfpab_jax.data.sources.base import EPOCH, sensors_of
from selfpab_jax.data.sources.blocks import SignalBlock
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.segments import runs
from selfpab_jax.data.sources.wear import Interval, non_wear
from selfpab_jax.signal.calibration import Calibration, calibrate
from selfpab_jax.signal.epochs import EPOCH_SECONDS, EpochMoments, epoch_moments

NonWear = Literal["keep", "cut"]
"""What is done with times in which a sensor was not worn; either way they are reported."""


@dataclass
class _Epochs:
    """Epoch moments of one recording, block by block."""

    rate_hz: float
    start_s: float
    channels: int
    held_NxC: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    parts: list[EpochMoments] = field(default_factory=list)

    def add(self, signal_NxC: Float32[np.ndarray, "N C"]) -> None:
        held_NxC = np.concatenate([self.held_NxC, signal_NxC]) if len(self.held_NxC) else signal_NxC
        length = max(1, round(EPOCH_SECONDS * self.rate_hz))
        whole = len(held_NxC) // length * length
        if whole:
            self.parts.append(epoch_moments([held_NxC[:whole]], self.rate_hz))
        self.held_NxC = held_NxC[whole:].copy()

    def of(self, columns: list[int]) -> EpochMoments:
        """The moments of a sensor."""
        if not self.parts:
            return EpochMoments(np.empty((0, 3), np.float32), np.empty((0, 3), np.float32), np.empty(0, bool))
        mean, std = (
            np.concatenate([getattr(part, name) for part in self.parts])[:, columns] for name in ("mean_ExC", "std_ExC")
        )
        return EpochMoments(mean, std, (std == 0).all(axis=1))


@dataclass(frozen=True)
class Survey:
    """What a first reading found.

    Attributes:
        non_wear: by recording, intervals in seconds from its start in which some sensor was not worn.
        calibrations: by sensor.
    """

    non_wear: dict[str, list[Interval]]
    calibrations: dict[str, Calibration]


def flagged(blocks: Iterable[SignalBlock], channels: tuple[str, ...], report: FileReport) -> Iterator[SignalBlock]:
    """The blocks as they are; non-wear is reported at the end of each recording.

    Args:
        blocks: of a file.
        channels: a name per column.
        report: gets what was not worn.
    """
    epochs: _Epochs | None = None
    for block in blocks:
        if block.begins:
            _flag(epochs, channels, report)
            epochs = _begin(block)
        assert epochs is not None
        epochs.add(block.signal_NxC)
        yield block
    _flag(epochs, channels, report)


def survey(blocks: Iterable[SignalBlock], channels: tuple[str, ...]) -> Survey:
    """Read a file for its non-wear and its calibration.

    Args:
        blocks: of the file.
        channels: a name per column.
    """
    recordings: dict[str, _Epochs] = {}
    for block in blocks:
        if block.begins:
            recordings[block.recording] = _begin(block)
        recordings[block.recording].add(block.signal_NxC)
    columns = _columns(channels)
    calibrations = {}
    for sensor, places in columns.items():
        if len(places) == 3:
            moments = [each.of(places) for each in recordings.values() if each.parts]
            joined = EpochMoments(*(np.concatenate(each) for each in zip(*moments, strict=True))) if moments else None
            if joined is not None:
                calibrations[sensor] = calibrate(joined)
    worn = {
        name: [interval for places in columns.values() for interval in non_wear(epochs.of(places))]
        for name, epochs in recordings.items()
    }
    return Survey(worn, calibrations)


def improved(
    blocks: Iterable[SignalBlock], found: Survey, channels: tuple[str, ...], report: FileReport, *, cut: bool
) -> Iterator[SignalBlock]:
    """The blocks, calibrated, and without non-wear where it is to be cut.

    Args:
        blocks: of the second reading.
        found: by the first one.
        channels: a name per column.
        report: gets what was cut, and how the calibration went.
        cut: leave out non-wear; a recording ends before it, and another one begins behind.
    """
    columns = _columns(channels)
    for sensor, calibration in found.calibrations.items():
        before, after = calibration.error_before_mg, calibration.error_after_mg
        report.notes.append(
            f"{sensor} not calibrated: {calibration.reason}"
            if calibration.reason
            else f"{sensor} calibrated: error {before:.1f} mg before, {after:.1f} mg after"
        )
    position, open_recording = 0, ""
    for block in blocks:
        position = 0 if block.begins else position
        signal_NxC = block.signal_NxC
        for sensor, calibration in found.calibrations.items():
            if calibration.reason is None:
                signal_NxC = signal_NxC if signal_NxC is not block.signal_NxC else signal_NxC.copy()
                signal_NxC[:, columns[sensor]] = calibration.apply(signal_NxC[:, columns[sensor]])
        kept_N = np.ones(len(signal_NxC), bool)
        if cut:
            times_N = (position + np.arange(len(signal_NxC))) / block.rate_hz
            for start, end in found.non_wear.get(block.recording, []):
                kept_N &= (times_N < start) | (times_N >= end)
            if not kept_N.all():
                report.cut("non-wear", (~kept_N).sum() / block.rate_hz)
                report.used_s -= float((~kept_N).sum() / block.rate_hz)
        firsts, lasts = runs(kept_N)
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            begins = (block.begins and first == 0) or first > 0 or not open_recording
            if begins:
                at = position + first
                open_recording = f"{block.recording}+{at}" if at else block.recording
            start = block.start
            if start is not None and "+" in open_recording.removeprefix(block.recording):
                offset = int(open_recording.removeprefix(block.recording).removeprefix("+"))
                start += timedelta(seconds=offset / block.rate_hz)
            yield replace(
                block,
                recording=open_recording,
                start=start,
                begins=begins,
                signal_NxC=signal_NxC[first:last],
                labels_N=None if block.labels_N is None else block.labels_N[first:last],
            )
        if len(kept_N) and not kept_N[-1]:
            open_recording = ""
        position += len(signal_NxC)


def read_twice(
    read: Callable[[FileReport], Iterator[SignalBlock]],
    channels: tuple[str, ...],
    report: FileReport,
    *,
    non_wear: NonWear,
    calibrates: bool,
) -> Iterator[SignalBlock]:
    """The blocks of a file with what a survey of it allows.

    Args:
        read: gives the blocks, from the beginning at each call.
        channels: a name per column.
        report: of the file.
        non_wear: keep or cut what was not worn.
        calibrates: whether to calibrate each sensor by gravity.
    """
    if non_wear == "keep" and not calibrates:
        yield from flagged(read(report), channels, report)
        return
    found = survey(read(FileReport(report.file, report.subject)), channels)
    found = found if calibrates else replace(found, calibrations={})
    blocks = improved(read(report), found, channels, report, cut=non_wear == "cut")
    yield from blocks if non_wear == "cut" else flagged(blocks, channels, report)


def _begin(block: SignalBlock) -> _Epochs:
    start_s = 0.0 if block.start is None else (block.start - EPOCH).total_seconds()
    return _Epochs(block.rate_hz, start_s, block.signal_NxC.shape[1])


def _flag(epochs: _Epochs | None, channels: tuple[str, ...], report: FileReport) -> None:
    if epochs is None:
        return
    for sensor, places in _columns(channels).items():
        for start, end in non_wear(epochs.of(places), epochs.start_s):
            name = f"non-wear ({sensor})"
            report.flagged_s[name] = report.flagged_s.get(name, 0.0) + end - start
            report.span(start, end, "non-wear")


def _columns(channels: tuple[str, ...]) -> dict[str, list[int]]:
    return {
        sensor: [c for c, name in enumerate(channels) if (name.rpartition("_")[0] or name) == sensor]
        for sensor in sensors_of(channels)
    }
