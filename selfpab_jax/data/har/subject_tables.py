"""Data sets of one table a subject, with HARTH's columns: `timestamp`, `<sensor>_x`, `_y`, `_z`, `label`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from selfpab_jax.data.har.base import Published, published_folder, with_notes
from selfpab_jax.data.har.card import AXES, Label, Sensor, column_class_indices
from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError
from selfpab_jax.data.sources.segments import check_rate, continuous_segments
from selfpab_jax.data.sources.tables import (
    TimestampUnit,
    estimated_rows,
    numbers,
    read_table,
    seconds,
    segment_codes,
    to_datetime,
)
from selfpab_jax.errors import DataError


@dataclass(frozen=True)
class SubjectTables(Published):
    """`<subject>.csv`, each one recording except where time jumps.

    Attributes:
        gap_limit: seconds; a longer step between timestamps ends a continuous recording, as does a step backwards.
            (The original looks at no timestamps.)
    """

    gap_limit: float = 1.0

    PATTERN: ClassVar[str] = "*.csv"
    MERGED: ClassVar[Mapping[Label, Label]] = {}

    def files(self) -> Iterator[SourceFile]:
        """Every table, by subject.

        Raises:
            DataError: not the data set's folder, or more subjects than the version has.
        """
        paths = sorted(published_folder(self.path, self.PATTERN, self.card.title).glob(self.PATTERN))
        if self.card.subjects and len(paths) > self.card.subjects:
            others = ", ".join(card.version for card in self.CARDS if card.version != self.card.version)
            raise DataError(
                f"{self.path}: {len(paths)} subjects, where {self.name} {self.card.version} has {self.card.subjects}"
                + (f"; is it version {others}? Say so with version=" if others else "")
            )
        for path in paths:
            yield SourceFile(path.stem, path.stem, str(path), estimated_rows(path))

    def read(self, file: SourceFile) -> list[Recording]:
        """The continuous recordings of a table.

        Raises:
            UnusableError: unreadable, a column missing or of a wrong type, no labels, or another rate than declared.
        """
        return self.recordings(file, timestamp="timestamp", label="label")

    def columns_of(self, sensor: Sensor) -> list[str]:
        """The columns of a sensor's published x, y and z."""
        return [f"{sensor.name}_{axis}" for axis in AXES]

    def recordings(
        self,
        file: SourceFile,
        *,
        timestamp: str | None,
        label: str,
        segment: str | None = None,
        timestamp_unit: TimestampUnit = "text",
    ) -> list[Recording]:
        """`read` with the columns' names."""
        columns = [column for sensor in self.chosen for column in self.columns_of(sensor)]
        table = read_table(Path(file.path), columns + [name for name in (timestamp, label, segment) if name])
        signal_NxC = self.converted(
            np.stack([numbers(table, column) for column in self.columns_of(sensor)], axis=1) for sensor in self.chosen
        )
        notes = self.doubts(signal_NxC)
        labels_N, unknown = column_class_indices(table, label, self.card.classes, merged=self.MERGED)
        times_N = None if timestamp is None else seconds(table, timestamp, timestamp_unit)
        pieces, breaks = self._pieces(table, times_N, segment)
        if times_N is not None:
            try:
                check_rate(times_N, pieces, self.card.rate_hz)
            except UnusableError as wrong:
                raise UnusableError(str(wrong).removesuffix(" (--rate)")) from None
        recordings = [
            Recording(
                subject=file.subject,
                name=file.name if len(pieces) == 1 else f"{file.name}:{first}",
                start=None if times_N is None else to_datetime(float(times_N[first]), timestamp_unit),
                rate_hz=self.card.rate_hz,
                signal_NxC=signal_NxC[first:last],
                labels_N=labels_N[first:last],
            )
            for first, last in pieces
        ]
        return with_notes(recordings, notes + unknown + breaks)

    def _pieces(
        self, table: pa.Table, times_N: np.ndarray | None, segment: str | None
    ) -> tuple[list[tuple[int, int]], tuple[str, ...]]:
        """Where the table is continuous. Time that runs backwards loses no subject: it ends a stretch."""
        codes_N = np.zeros(table.num_rows, np.int64) if segment is None else segment_codes(table, segment)
        changes_n = np.diff(codes_N) != 0
        notes: tuple[str, ...] = ()
        if times_N is not None:
            backwards_n = (np.diff(times_N) < 0) & ~changes_n
            if backwards_n.any():
                rows = ", ".join(str(row + 1) for row in np.flatnonzero(backwards_n)[:3])
                notes = (f"time runs backwards {int(backwards_n.sum())} times (at row {rows}): recordings end there",)
                changes_n |= backwards_n
        codes_N = np.concatenate([[0], np.cumsum(changes_n)])[: table.num_rows]
        return continuous_segments(table.num_rows, times_N, codes_N, self.gap_limit), notes
