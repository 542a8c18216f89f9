"""One file on its way from blocks of samples to its folder of results."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from jaxtyping import Float32

from selfpab_jax.data.sources.base import SkippedLog, sensors_of
from selfpab_jax.data.sources.blocks import SignalBlock
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.data.sources.streaming import read_signal, resample_blocks
from selfpab_jax.data.tables.format import TableFormat
from selfpab_jax.data.tables.recordings import RecordingPath
from selfpab_jax.features.cutting import FrameWindow, cut_windows
from selfpab_jax.features.sensors import SensorEncoder
from selfpab_jax.io import write_json
from selfpab_jax.probe.heads.saved import SavedHead, package_version
from selfpab_jax.probe.predict.clock import SECOND, Clock, ClockKind
from selfpab_jax.probe.predict.files import SUMMARY_FILE, SecondsWriter, clear_folder, describe_source
from selfpab_jax.probe.predict.minutes import MovementByMinute
from selfpab_jax.probe.predict.seconds import RecordingSeconds


@dataclass(frozen=True)
class PredictSetup:
    """What all files share.

    Attributes:
        head: that classifies.
        encoders: as `encoders_for` returns them.
        table_format: how files are read.
        zone: that times are written in, or None.
        clock: see `Clock.of_file`.
        out: folder of the results.
        pictures: draw each day.
        strict: stop at the first thing that would be skipped.
    """

    head: SavedHead
    encoders: tuple[SensorEncoder, ...]
    table_format: TableFormat
    zone: ZoneInfo | None
    clock: ClockKind
    out: Path
    pictures: bool
    strict: bool


@dataclass
class FileReading:
    """A file on its way: one thread reads it (`windows`), the caller of `add` and `finish` writes its results.

    Recordings without a start time are counted end to end.
    """

    setup: PredictSetup
    name: str
    path: RecordingPath
    skipped: SkippedLog = field(init=False)
    report: FileReport = field(init=False)
    short_seconds: list[float] = field(default_factory=list)
    clock: Clock | None = None
    instants: dict[str, int] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    movement: MovementByMinute | None = None
    writer: SecondsWriter | None = None
    current: RecordingSeconds | None = None
    summary: dict[str, Any] | None = None
    used_samples: int = 0

    def __post_init__(self) -> None:
        self.skipped = SkippedLog(self.setup.strict)
        self.report = FileReport(str(self.path), self.name, self.setup.strict)
        channels = self.setup.table_format.channels
        first = sensors_of(channels)[0]
        self.sensor_columns = [place for place, name in enumerate(channels) if name.rpartition("_")[0] == first]
        if self.setup.pictures and len(self.sensor_columns) == 3:
            self.movement = MovementByMinute()

    @property
    def rate_hz(self) -> float:
        """Of the encoder."""
        return self.setup.head.spectrogram.rate_hz

    def windows(self) -> Iterator[FrameWindow]:
        """The windows of all recordings of the file."""
        read = read_signal(self.path, self.setup.table_format, self.skipped.add, report=self.report)
        blocks = resample_blocks(read, self.rate_hz)
        return cut_windows(self.name, self._observed(blocks), self.setup.encoders, self.short_seconds.append)

    def _observed(self, blocks: Iterator[SignalBlock]) -> Iterator[SignalBlock]:
        """The same blocks; notes when recordings start, how long they are, and how much the sensor moves."""
        end = 0
        for block in blocks:
            if self.clock is None:
                self.clock = Clock.of_file(block.start, self.setup.zone, self.setup.clock)
            if block.begins:
                known = self.clock.known and block.start is not None
                self.instants[block.recording] = self.clock.instant(block.start) if known else end  # pyright: ignore
                self.samples[block.recording] = 0
            before = self.samples[block.recording]
            instant = self.instants[block.recording] + round(before * SECOND / self.rate_hz)
            if self.movement is not None and len(block.signal_NxC):
                self.movement.add(instant, block.signal_NxC[:, self.sensor_columns], self.rate_hz)
            self.samples[block.recording] = before + len(block.signal_NxC)
            end = instant + round(len(block.signal_NxC) * SECOND / self.rate_hz)
            yield block

    def add(self, window: FrameWindow, probability_TxY: Float32[np.ndarray, "T Y"]) -> None:
        """Write the seconds that a window completes."""
        if self.writer is None:
            assert self.clock is not None
            self.writer = SecondsWriter(self.setup.out / self.name, self.name, self.setup.head.classes, self.clock)
        if self.current is None or self.current.recording != window.recording:
            self._finish_recording()
            head = self.setup.head
            self.current = RecordingSeconds(
                window.recording, self.instants[window.recording], head.spectrogram, len(head.classes)
            )
        self.writer.write(self.current.add(probability_TxY[window.skip :]))

    def finish(self) -> None:
        """Write what remains; called when the file was read to its end."""
        self._finish_recording()
        hours = 1 / self.rate_hz / 3600
        clock = self.clock or Clock(known=False)
        short = {"recordings": len(self.short_seconds), "seconds": round(sum(self.short_seconds), 2)}
        content = {
            "file": self.name,
            "source": describe_source(self.path),
            "start": clock.texts(np.array([min(self.instants.values())]))[0] if clock.known and self.instants else None,
            "zone": None if clock.zone is None else clock.zone.key,
            "recordings": len(self.samples),
            "hours_in": round(sum(self.samples.values()) * hours, 6),
            "hours_used": round(self.used_samples * hours, 6),
            "shorter_than_a_frame": short,
            "skipped": [asdict(entry) for entry in self.skipped.entries],
            "quality": self.report.as_json() | {"spans": self.report.spans},
            "version": package_version(),
        }
        if self.writer is None:  # not a single frame
            clear_folder(self.setup.out / self.name)
            self.summary = {**content, "seconds": 0, "minutes": dict.fromkeys(self.setup.head.classes, 0.0)}
            write_json(self.setup.out / self.name / SUMMARY_FILE, self.summary)
        else:
            self.summary = self.writer.finish(self.movement, self.setup.pictures, content)
        self.movement = self.writer = None

    def close(self) -> None:
        """Let go of what is open, after an error."""
        if self.writer is not None:
            self.writer.close()

    def _finish_recording(self) -> None:
        if self.current is not None and self.writer is not None:
            samples = self.samples[self.current.recording]
            self.writer.write(self.current.finish(samples))
            self.used_samples += samples
        self.current = None
