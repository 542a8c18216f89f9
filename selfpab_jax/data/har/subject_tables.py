"""Data sets of one table per subject, with HARTH's columns: `timestamp`, `<sensor>_x`, `_y`, `_z`, `label`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int

from selfpab_jax.data.har.base import PublishedDataset, find_published_folder, with_notes
from selfpab_jax.data.har.labels import Label, column_class_indices
from selfpab_jax.data.sources.base import Recording, SourceFile
from selfpab_jax.data.sources.segments import Segment, check_rate, continuous_segments
from selfpab_jax.data.tables.columns import estimated_rows
from selfpab_jax.data.tables.format import TableFormat
from selfpab_jax.data.tables.timestamps import to_datetime
from selfpab_jax.errors import DataError


@dataclass(frozen=True)
class SubjectTables(PublishedDataset):
    """`<subject>.csv`, each one recording except where time jumps.

    Attributes:
        gap_limit: seconds; a longer step between timestamps ends a continuous recording, as does a step backwards.
            (The original does not look at timestamps.)
    """

    gap_limit: float = 1.0

    PATTERN: ClassVar[str] = "*.csv"
    MERGED: ClassVar[Mapping[Label, Label]] = {}
    """Labels that count as another one."""
    SEGMENT_COLUMN: ClassVar[str | None] = None

    def files(self) -> Iterator[SourceFile]:
        """Every table, by subject.

        Raises:
            DataError: not the data set's folder, or more subjects than the version has.
        """
        paths = sorted(find_published_folder(self.path, self.PATTERN, self.card.title).glob(self.PATTERN))
        if self.card.subjects and len(paths) > self.card.subjects:
            others = ", ".join(card.version for card in self.CARDS if card.version != self.card.version)
            raise DataError(
                f"{self.path}: {len(paths)} subjects, where {self.name} {self.card.version} has {self.card.subjects}"
                + (f"; if it is version {others}, set version={others}" if others else "")
            )
        for path in paths:
            yield SourceFile(path.stem, path.stem, str(path), estimated_rows(path))

    @property
    def table_format(self) -> TableFormat:
        """How the tables are read."""
        return TableFormat(
            columns=self.table_columns,
            unit=self.card.unit,
            rate_hz=self.card.rate_hz,
            timestamp_column="timestamp",
            segment_column=self.SEGMENT_COLUMN,
            label_column="label",
            gap_limit=self.gap_limit,
        )

    @property
    def table_columns(self) -> tuple[tuple[str, str], ...]:
        """(channel, column) of the selected sensors' published x, y and z."""
        return tuple((channel, channel) for channel in self.channels)

    def read(self, file: SourceFile) -> list[Recording]:
        """The continuous recordings of a table.

        Raises:
            UnusableError: unreadable, a column missing or of a wrong type, no labels, or another rate than declared.
        """
        layout = self.table_format
        assert layout.label_column is not None
        table = layout.load(Path(file.path))
        values_NxC = layout.values(table)
        signal_NxC = self.convert(np.split(values_NxC, len(self.selected_sensors), axis=1))
        notes = self.quality_notes(signal_NxC)
        labels_N, unknown = column_class_indices(table, layout.label_column, self.card.classes, merged=self.MERGED)
        times_N = layout.times(table)
        segments, breaks = split_at_breaks(table.num_rows, times_N, layout.codes(table), layout.gap_limit)
        if times_N is not None:
            check_rate(times_N, segments, layout.rate_hz)
        recordings = [
            Recording(
                subject=file.subject,
                name=file.name if len(segments) == 1 else f"{file.name}:{first}",
                start=None if times_N is None else to_datetime(float(times_N[first]), layout.timestamp_unit),
                rate_hz=layout.rate_hz,
                signal_NxC=signal_NxC[first:last],
                labels_N=labels_N[first:last],
            )
            for first, last in segments
        ]
        return with_notes(recordings, notes + unknown + breaks)


def split_at_breaks(
    rows: int, times_N: Float64[np.ndarray, " N"] | None, codes_N: Int[np.ndarray, " N"] | None, gap_limit: float
) -> tuple[list[Segment], tuple[str, ...]]:
    """`continuous_segments`, but time that runs backwards only ends a segment, with a note: no subject is lost.

    Args:
        rows: number of rows.
        times_N: seconds of each row, where known.
        codes_N: a number per row that changes where a new segment begins, or None.
        gap_limit: seconds; a longer step in time ends a segment.
    """
    changes_n = np.zeros(max(rows - 1, 0), bool) if codes_N is None else np.diff(codes_N) != 0
    notes: tuple[str, ...] = ()
    if times_N is not None:
        backwards_n = (np.diff(times_N) < 0) & ~changes_n
        if backwards_n.any():
            first = ", ".join(str(row + 1) for row in np.flatnonzero(backwards_n)[:3])
            notes = (f"time runs backwards {int(backwards_n.sum())} times (at row {first}): recordings end there",)
            changes_n |= backwards_n
    codes_N = np.concatenate([[0], np.cumsum(changes_n)])[:rows]
    return continuous_segments(rows, times_N, codes_N, gap_limit), notes
