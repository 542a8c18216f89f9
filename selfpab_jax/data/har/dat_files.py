"""`.dat` files of PAMAP2 and Opportunity: numbers separated by spaces, no header."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64

from selfpab_jax.data.har.resync import SampleStream, Span, sample_stream, unrounded_times
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.segments import check_rate, continuous_segments


@dataclass(frozen=True)
class DatLayout:
    """The columns of a data set's `.dat` files, counted from 0.

    Attributes:
        title: title of the data set, for messages.
        width: number of columns.
        time: column of the time.
        ticks_per_second: unit of the time.
        rate_hz: rows per second.
        first_columns: by sensor, the column of its x; y and z follow.
    """

    title: str
    width: int
    time: int
    ticks_per_second: float
    rate_hz: float
    first_columns: Mapping[str, int]


@dataclass(frozen=True)
class DatSession:
    """Times of the rows in seconds, labels (NaN where missing), and the samples of the selected sensors."""

    times_N: Float64[np.ndarray, " N"]
    labels_N: Float64[np.ndarray, " N"]
    streams: tuple[SampleStream, ...]

    @property
    def span(self) -> Span:
        """Times of the first and the last row."""
        return float(self.times_N[0]), float(self.times_N[-1])


def read_session(
    path: Path, layout: DatLayout, label_column: int, sensors: Sequence[str], gap_limit: float
) -> DatSession:
    """The selected sensors of a file; rows without a time are left out.

    Args:
        path: the file.
        layout: its columns.
        label_column: column of the labels.
        sensors: names of the sensors, in order.
        gap_limit: seconds; a longer step in time is not counted when the sampling rate is measured.

    Raises:
        UnusableError: not such a file, times out of order or of another rate, or a sensor without any value.
    """
    columns = [layout.first_columns[sensor] + axis for sensor in sensors for axis in range(3)]
    table_NxK = read_columns(path, [layout.time, label_column, *columns], layout)
    table_NxK = table_NxK[np.isfinite(table_NxK[:, 0])]
    if len(table_NxK) < 2:
        raise UnusableError(f"too short: {len(table_NxK)} rows with a time")
    times_N = table_NxK[:, 0] / layout.ticks_per_second
    check_rate(times_N, continuous_segments(len(times_N), times_N, None, gap_limit), layout.rate_hz)
    times_N = unrounded_times(times_N, layout.rate_hz)
    streams = []
    for position, sensor in enumerate(sensors):
        try:
            streams.append(sample_stream(times_N, table_NxK[:, 2 + 3 * position : 5 + 3 * position]))
        except UnusableError as error:
            raise UnusableError(f"no {sensor}: {error}") from None
    return DatSession(times_N, table_NxK[:, 1], tuple(streams))


def read_columns(path: Path, columns: list[int], layout: DatLayout) -> Float64[np.ndarray, "N K"]:
    """The given columns of a file; missing values are NaN.

    Args:
        path: the file.
        columns: columns to read, in order.
        layout: all columns of the file.

    Raises:
        UnusableError: unreadable, another number of columns, or text in one of the given columns.
    """
    try:
        with open(path, encoding="ascii") as lines:
            width = len(lines.readline().split())
        if width != layout.width:
            raise UnusableError(f"{width} columns; a file of {layout.title} has {layout.width}, separated by spaces")
        table = pd.read_csv(path, sep=r"\s+", header=None, usecols=sorted(columns), low_memory=False)
    except (OSError, ValueError) as error:  # pandas raises ValueErrors for files that are not tables
        raise UnusableError(f"not a file of {layout.title}: {str(error).splitlines()[0]}") from None
    for column in columns:
        if table[column].dtype.kind not in "fiu":
            raise UnusableError(f"wrong type: column {column + 1} does not hold numbers")
    return table[columns].to_numpy(np.float64)
