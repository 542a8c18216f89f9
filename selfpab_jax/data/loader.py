"""Batches from records: global batch k is a pure function of (seed, k), whoever reads it and however.

Grain shuffles an endless list of row numbers, anew every epoch, by computing each position, so that nothing is held
in memory and any step can be the first; where windows have shares, each position is drawn by them instead. The rows of
a step are divided into one slice per process; threads and workers only read ahead. The position in training is
therefore the step alone, also when the number of hosts changes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np
from absl import flags
from jaxtyping import Float64, Int64

from selfpab_jax.data.records.format import VALID_FRAMES
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.signal.calendar import UNKNOWN_START, frame_timestamps

TIMESTAMPS = "timestamps"
LARGEST_SEED = 2**32 - 1
Batch = dict[str, np.ndarray]


@runtime_checkable
class RandomAccess(Protocol):
    """Records by position, e.g. `RecordSource`; it is pickled for worker processes.

    Where it has an attribute `padded` that is true, batches carry the valid frames of their records; where it has
    `calendar`, settings of spectrograms, they carry the times of their frames.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> dict[str, Any]: ...


def batches(
    source: RandomAccess,
    rows: Int64[np.ndarray, " R"],
    *,
    seed: int,
    batch_size: int,
    first_step: int,
    last_step: int,
    shares: Float64[np.ndarray, " R"] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    threads: int = 2,
    buffer: int = 4,
) -> Iterator[Batch]:
    """This process's part of the global batches first_step .. last_step - 1.

    Args:
        source: the records of a split.
        rows: the positions to train on, from `subsets.select`.
        seed: seed of the order, 0 to 2^32 - 1.
        batch_size: B, records of a global batch; process p of P takes records p * B / P to (p + 1) * B / P - 1 of it.
        first_step, last_step: the first step, and one past the last.
        shares: probability of each row, for drawing with replacement; where not given, every row once per epoch.
        process_index, process_count: which process this is, of how many.
        workers: processes that read (0: threads of this process); they never use JAX's devices.
        threads: reading threads in each of them.
        buffer: batches read ahead in each of them: memory is (workers or 1) * buffer batches, whatever the data's size.

    Yields:
        `spectrogram` (b, T, X) float16 and `row` (b,) int64, positions in the split; `frames` (b,) int32, valid
        frames, where some records of the split are padded; and `timestamps` (b, T, 5) int32 where they are asked for.

    Raises:
        DataError: there are no rows.
        ConfigError: the batch does not divide among the processes, or the seed is out of range.
    """
    part = _part(batch_size, process_index, process_count)
    dataset = _endless(rows, seed, batch_size, shares)[first_step:last_step].map(ReadRows(source, part))
    return _read_ahead(dataset, workers, threads, buffer)


def rows_of_batch(
    rows: Int64[np.ndarray, " R"],
    *,
    seed: int,
    batch_size: int,
    step: int,
    shares: Float64[np.ndarray, " R"] | None = None,
) -> Int64[np.ndarray, " B"]:
    """The positions in the split that global batch `step` holds, without reading them; arguments as for `batches`."""
    return np.asarray(_endless(rows, seed, batch_size, shares)[step])


def in_order(
    source: RandomAccess,
    rows: Int64[np.ndarray, " R"],
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
    threads: int = 2,
    buffer: int = 4,
) -> Iterator[Batch]:
    """This process's part of every row once, in order, for validation.

    Args:
        source: the records of a split.
        rows: the positions to read.
        batch_size: records of a global batch.
        process_index, process_count, workers, threads, buffer: see `batches`.

    Yields:
        As `batches`. Rows beyond len(rows) in the last global batch only fill it up: they repeat the first row, and
        the caller leaves them out.

    Raises:
        DataError: there are no rows.
        ConfigError: the batch does not divide among the processes.
    """
    part = _part(batch_size, process_index, process_count)
    _check_rows(rows)
    filled_rows = np.full(-(-len(rows) // batch_size) * batch_size, rows[0], np.int64)
    filled_rows[: len(rows)] = rows
    dataset = grain.MapDataset.source(_Rows(filled_rows)).batch(batch_size).map(ReadRows(source, part))
    return _read_ahead(dataset, workers, threads, buffer)


@dataclass(frozen=True)
class ReadRows:
    """Reads one process's part of a global batch.

    Attributes:
        source: the records.
        part: which rows of the batch.
    """

    source: RandomAccess
    part: slice

    def __call__(self, rows_B: Int64[np.ndarray, " B"]) -> Batch:
        """Stack the records of rows_B[part]."""
        rows_b = rows_B[self.part]
        first = self.source[int(rows_b[0])]
        shape, dtype = first["spectrogram"].shape, first["spectrogram"].dtype
        spectrogram, frames = np.empty((len(rows_b), *shape), dtype), np.empty(len(rows_b), np.int32)
        start_ms = np.empty(len(rows_b), np.int64)
        for i, row in enumerate(rows_b):
            record = self.source[int(row)] if i else first
            spectrogram[i], frames[i] = record["spectrogram"], record.get(VALID_FRAMES, shape[0])
            start_ms[i] = record.get("start", UNKNOWN_START)
        batch = {"spectrogram": spectrogram, "row": rows_b}
        if getattr(self.source, "padded", False):
            batch[VALID_FRAMES] = frames
        if calendar := getattr(self.source, "calendar", None):
            batch[TIMESTAMPS] = frame_timestamps(start_ms, shape[0], calendar)
        return batch


@dataclass(frozen=True)
class _Rows:
    """Row numbers as a data source: as an array they take 8 bytes per row, also on the way to worker processes."""

    rows: Int64[np.ndarray, " R"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.int64:
        return self.rows[index]


@dataclass(frozen=True)
class _Draw(grain.transforms.RandomMap):
    """Draws a row by its share; Grain seeds the generator from the seed and the position alone."""

    rows: Int64[np.ndarray, " R"]
    cumulative_R: Float64[np.ndarray, " R"]

    def random_map(self, element: object, rng: np.random.Generator) -> np.int64:
        row = np.searchsorted(self.cumulative_R, rng.random() * self.cumulative_R[-1], side="right")
        return self.rows[min(int(row), len(self.rows) - 1)]


def _endless(
    rows: Int64[np.ndarray, " R"], seed: int, batch_size: int, shares: Float64[np.ndarray, " R"] | None
) -> grain.MapDataset:
    _check_rows(rows)
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"seed is {seed}: give 0 to {LARGEST_SEED}")
    ordered = grain.MapDataset.source(_Rows(np.asarray(rows, np.int64))).seed(seed)
    if shares is None:
        return ordered.shuffle().repeat().batch(batch_size)
    return ordered.repeat().random_map(_Draw(np.asarray(rows, np.int64), np.cumsum(shares))).batch(batch_size)


def _check_rows(rows: Int64[np.ndarray, " R"]) -> None:
    if not len(rows):
        raise DataError("there are no rows to read: the subset is empty")


def _part(batch_size: int, process_index: int, process_count: int) -> slice:
    if batch_size < 1 or batch_size % process_count:
        raise ConfigError(f"a batch of {batch_size} does not divide among {process_count} processes")
    if not 0 <= process_index < process_count:
        raise ConfigError(f"process_index is {process_index}: give 0 to {process_count - 1}")
    each = batch_size // process_count
    return slice(process_index * each, (process_index + 1) * each)


def _read_ahead(dataset: grain.MapDataset, workers: int, threads: int, buffer: int) -> Iterator[Batch]:
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer if threads else 0)
    reading = dataset.to_iter_dataset(options)
    if not workers:
        return iter(reading)
    if not flags.FLAGS.is_parsed():  # Grain reads defaults from absl's flags, which must be parsed first
        flags.FLAGS.mark_as_parsed()
    processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=max(1, buffer))
    return _unpacked(reading.map(_pack).mp_prefetch(processes))


def _pack(batch: Batch) -> dict[str, tuple[bytes, str, tuple[int, ...]]]:
    # Grain passes arrays in shared memory, and leaves the last ones behind when a program ends. Bytes go through a pipe
    # instead, at more than 1 GB/s.
    return {name: (array.tobytes(), array.dtype.str, array.shape) for name, array in batch.items()}


def _unpacked(packed: grain.IterDataset) -> Iterator[Batch]:
    iterator = iter(packed)
    try:
        for batch in iterator:
            yield {name: np.frombuffer(data, dtype).reshape(shape) for name, (data, dtype, shape) in batch.items()}
    finally:
        iterator.close()
