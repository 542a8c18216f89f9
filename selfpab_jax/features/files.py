"""Files of features: one table, as Parquet of any length, or as npz for small ones.

Each row is a frame or a window, with the file and recording that it is from, its time, and its features. The file also
holds a description of the encoder that the features are from.
"""

import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Float64, Int, Int64, Shaped

from selfpab_jax.errors import ConfigError, DataError, ModelError
from selfpab_jax.features.encoder import load_encoder
from selfpab_jax.io import atomic_path, remove_leftovers

METADATA_KEY = "selfpab_jax"
ROW_GROUP_BYTES = 2**25
LARGEST_NPZ = 2**30
FORMATS = (".parquet", ".npz")


@dataclass(frozen=True)
class FeatureRows:
    """Consecutive rows of one recording.

    Attributes:
        file: name of the file that the recording is from.
        recording: its name.
        start_ms: start of each row in milliseconds since 1970 on the recorder's clock; None where it is unknown.
        start_s: start of each row in seconds since the recording began.
        frames: number of frames that each row covers.
        features_RxE: one column for each feature name of the file.
    """

    file: str
    recording: str
    start_ms: Int64[np.ndarray, " R"] | None
    start_s: Float64[np.ndarray, " R"]
    frames: Int[np.ndarray, " R"]
    features_RxE: Shaped[np.ndarray, "R E"]


@contextmanager
def write_features(path: Path, names: tuple[str, ...], description: dict[str, Any]) -> Iterator["FeatureWriter"]:
    """Write a file of features, which appears when the block ends; nothing remains after an error.

    Args:
        path: `.parquet` or `.npz`.
        names: of the feature columns.
        description: of the encoder; it is kept in the file.

    Raises:
        ConfigError: another ending.
        StorageError: the file cannot be written.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: features are written as .parquet or .npz")
    remove_leftovers(path)
    with atomic_path(path) as temporary:
        writer = (ParquetFeatureWriter if path.suffix == ".parquet" else NpzFeatureWriter)(
            temporary, names, description
        )
        try:
            yield writer
            writer.close()
        except BaseException:
            writer.discard()
            raise


class FeatureWriter(ABC):
    """Writes rows to a file.

    Attributes:
        rows: number of rows so far.
    """

    def __init__(self, path: Path, names: tuple[str, ...], description: dict[str, Any]):
        self.path, self.names, self.description = path, names, description
        self.rows = 0
        self._waiting: list[FeatureRows] = []
        self._waiting_bytes = 0

    def write(self, rows: FeatureRows) -> None:
        """Add rows; they may be kept in memory for a while."""
        self._waiting.append(rows)
        self._waiting_bytes += rows.features_RxE.nbytes
        self.rows += len(rows.start_s)

    @abstractmethod
    def close(self) -> None:
        """Write the rest."""

    @abstractmethod
    def discard(self) -> None:
        """Let go of the file after an error."""


class ParquetFeatureWriter(FeatureWriter):
    """Writes each row group as soon as it is full."""

    _writer: pyarrow.parquet.ParquetWriter | None = None

    def write(self, rows: FeatureRows) -> None:
        """Add rows."""
        super().write(rows)
        if self._waiting_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the rest."""
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def discard(self) -> None:
        """Let go of the file after an error."""
        with suppress(OSError):  # a full disk has been reported already
            if self._writer is not None:
                self._writer.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        features_RxE = np.asfortranarray(np.concatenate([rows.features_RxE for rows in self._waiting]))
        columns = _row_columns(self._waiting)
        columns |= {name: pa.array(features_RxE[:, column]) for column, name in enumerate(self.names)}
        table = pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(self.description)})
        if self._writer is None:
            # Features hardly compress, and dictionaries of them would only cost time.
            texts: Any = ["file", "recording"]
            self._writer = pyarrow.parquet.ParquetWriter(
                self.path, table.schema, compression="none", use_dictionary=texts
            )
        self._writer.write_table(table)
        self._waiting, self._waiting_bytes = [], 0


class NpzFeatureWriter(FeatureWriter):
    """Keeps all rows in memory, then writes one npz."""

    def write(self, rows: FeatureRows) -> None:
        """Add rows.

        Raises:
            ConfigError: too many for this format.
        """
        super().write(rows)
        if self._waiting_bytes > LARGEST_NPZ:
            raise ConfigError(
                f"{self.path.name}: more than {LARGEST_NPZ / 2**30:g} GiB of features; write .parquet, or one row per "
                "window (--level window)"
            )

    def close(self) -> None:
        """Write the npz: the same columns as in Parquet, but the features as one matrix."""
        columns: dict[str, Any] = {}
        for name, column in pa.table(_row_columns(self._waiting)).to_pandas().items():
            columns[str(name)] = column.to_numpy(str) if name in ("file", "recording") else column.to_numpy()
        columns["features"] = np.concatenate([rows.features_RxE for rows in self._waiting])
        columns |= {"feature_names": np.array(self.names), "description": np.array(json.dumps(self.description))}
        # numpy.savez cannot be used: it takes no array with the name `file`.
        with zipfile.ZipFile(self.path, "w") as archive:
            for name, array in columns.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)

    def discard(self) -> None:
        """Nothing to let go of."""


def _row_columns(waiting: list[FeatureRows]) -> dict[str, pa.Array]:
    """The columns beside the features."""
    counts = [len(rows.start_s) for rows in waiting]
    times = [
        np.full(len(rows.start_s), np.datetime64("NaT", "ms"))
        if rows.start_ms is None
        else rows.start_ms.astype("datetime64[ms]")
        for rows in waiting
    ]
    return {
        "file": pa.array(np.repeat(np.array([rows.file for rows in waiting], object), counts), pa.string()),
        "recording": pa.array(np.repeat(np.array([rows.recording for rows in waiting], object), counts), pa.string()),
        "timestamp": pa.array(np.concatenate(times), pa.timestamp("ms")),
        "start_s": pa.array(np.concatenate([rows.start_s for rows in waiting])),
        "frames": pa.array(np.concatenate([rows.frames for rows in waiting]), pa.int32()),
    }


def read_features(path: Path | str, model: Path | str | None = None) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a file of features and its description.

    Args:
        path: what `selfpab-jax embed` wrote.
        model: model directory that the features are expected to be from; None to take any.

    Raises:
        DataError: it is not such a file.
        ModelError: the features are from another encoder.
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                description = json.loads(str(archive["description"]))
                names = [str(name) for name in archive["feature_names"]]
                table = pd.DataFrame({n: archive[n] for n in ("file", "recording", "timestamp", "start_s", "frames")})
                table = pd.concat([table, pd.DataFrame(archive["features"], columns=pd.Index(names))], axis=1)
        else:
            description = json.loads((pyarrow.parquet.read_schema(path).metadata or {})[METADATA_KEY.encode()])
            table = pd.read_parquet(path)
    except (OSError, EOFError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{path} is not a file of features from `selfpab-jax embed` ({error})") from None
    if model is not None and description["digests"] != _expected_digests(model, description):
        raise ModelError(
            f"{path} holds features from another encoder ({description['model']}) than {model}; embed again, or give "
            "the right model"
        )
    return table, description


def _expected_digests(model: Path | str, description: dict[str, Any]) -> list[str]:
    """The digests that features of this kind would have if they were from this model."""
    digests = []
    for sensor in description["model_sensors"]:
        encoder = load_encoder(model, sensor=sensor, compute=description["compute"])
        if description["random_seed"] is not None:
            encoder = encoder.with_random_weights(description["random_seed"])
        digests.append((encoder if description.get("calendar") else encoder.without_calendar()).digest)
    return digests
