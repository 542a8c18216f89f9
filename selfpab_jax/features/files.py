"""Features of recordings as one table in a file: Parquet of any length, or npz for small ones."""

import json
import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Shaped

from selfpab_jax.errors import ConfigError, DataError, ModelError
from selfpab_jax.features.encoder import load_encoder

METADATA_KEY = "selfpab_jax"
ROW_GROUP_BYTES = 2**25
LARGEST_NPZ = 2**30
ENDINGS = (".parquet", ".npz")


@dataclass(frozen=True)
class Rows:
    """Rows of the table: which file and recording, where in it, and the features.

    Attributes:
        file, recording: names.
        start_ms: of each row, milliseconds since 1970 on the recorder's clock; None where it is not known.
        start_s: of each row, seconds since the recording began.
        frames: how many frames each row is made of.
        features_RxE: a column for each name in the file's description.
    """

    file: str
    recording: str
    start_ms: np.ndarray | None
    start_s: np.ndarray
    frames: np.ndarray
    features_RxE: Shaped[np.ndarray, "R E"]


class FeatureFile(Protocol):
    """Takes rows, and is there only once it is whole."""

    rows: int

    def write(self, rows: Rows) -> None:
        """More rows."""
        ...

    def close(self) -> None:
        """All rows are written: the file appears."""
        ...

    def abandon(self) -> None:
        """Nothing is left."""
        ...


def open_feature_file(path: Path, names: tuple[str, ...], description: dict[str, Any]) -> FeatureFile:
    """A file to write.

    Args:
        path: `.parquet` or `.npz`.
        names: of the feature columns.
        description: of the encoder, kept in the file.

    Raises:
        ConfigError: another ending, or a folder that cannot be written to.
    """
    if path.suffix not in ENDINGS:
        raise ConfigError(f"{path}: features are written as .parquet or .npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.touch()
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    return (ParquetFeatures if path.suffix == ".parquet" else NpzFeatures)(path, part, names, description)


@dataclass
class ParquetFeatures:
    """Row groups written as they fill up."""

    path: Path
    part: Path
    names: tuple[str, ...]
    description: dict[str, Any]
    rows: int = 0
    _waiting: list[Rows] = field(default_factory=list)
    _bytes: int = 0
    _writer: pyarrow.parquet.ParquetWriter | None = None

    def write(self, rows: Rows) -> None:
        """Keeps them until a row group is full."""
        self._waiting.append(rows)
        self.rows += len(rows.start_s)
        self._bytes += rows.features_RxE.nbytes
        if self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Writes the rest."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
        os.replace(self.part, self.path)

    def abandon(self) -> None:
        """Removes what was written."""
        with suppress(OSError):  # of a full disk, which was told already
            if self._writer is not None:
                self._writer.close()
        self.part.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = _arrow_table(self._waiting, self.names, self.description)
        if self._writer is None:
            # Features hardly compress, and dictionaries of them would only cost time.
            words: Any = ["file", "recording"]
            self._writer = pyarrow.parquet.ParquetWriter(
                self.part, table.schema, compression="none", use_dictionary=words
            )
        self._writer.write_table(table)
        self._waiting, self._bytes = [], 0


@dataclass
class NpzFeatures:
    """All rows in memory, then one npz."""

    path: Path
    part: Path
    names: tuple[str, ...]
    description: dict[str, Any]
    rows: int = 0
    _waiting: list[Rows] = field(default_factory=list)
    _bytes: int = 0

    def write(self, rows: Rows) -> None:
        """Keeps them.

        Raises:
            ConfigError: too many for a file of this kind.
        """
        self._waiting.append(rows)
        self.rows += len(rows.start_s)
        self._bytes += rows.features_RxE.nbytes
        if self._bytes > LARGEST_NPZ:
            raise ConfigError(
                f"{self.path}: more than {LARGEST_NPZ / 2**30:g} GiB of features; write .parquet, or --level window"
            )

    def close(self) -> None:
        """Writes the npz: columns as in Parquet, but the features as one matrix."""
        table = _arrow_table(self._waiting, (), {}, features=False)
        columns: dict[str, Any] = {name: np.asarray(table.column(name).to_pandas()) for name in table.column_names}
        columns = {name: array.astype(str) if array.dtype == object else array for name, array in columns.items()}
        columns["features"] = np.concatenate([rows.features_RxE for rows in self._waiting])
        columns |= {"feature_names": np.array(self.names), "description": np.array(json.dumps(self.description))}
        # Not by numpy.savez, to which no array can be given that is called file.
        with zipfile.ZipFile(self.part, "w") as archive:
            for name, array in columns.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)
        os.replace(self.part, self.path)

    def abandon(self) -> None:
        """Removes what was begun."""
        self.part.unlink(missing_ok=True)


def read_features(path: Path | str, model: Path | str | None = None) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A file of features and what it says of itself.

    Args:
        path: what `selfpab-jax embed` wrote.
        model: model directory that the features are expected to come from; None to take any.

    Raises:
        DataError: not such a file.
        ModelError: the features come from another encoder.
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                description = json.loads(str(archive["description"]))
                names = [str(name) for name in archive["feature_names"]]
                frame = pd.DataFrame({n: archive[n] for n in ("file", "recording", "timestamp", "start_s", "frames")})
                frame = pd.concat([frame, pd.DataFrame(archive["features"], columns=pd.Index(names))], axis=1)
        else:
            description = json.loads((pyarrow.parquet.read_schema(path).metadata or {})[METADATA_KEY.encode()])
            frame = pd.read_parquet(path)
    except (OSError, EOFError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{path}: no features of `selfpab-jax embed` ({error})") from None
    if model is not None and description["digests"] != expected_digests(model, description):
        raise ModelError(
            f"{path} holds features from another encoder ({description['model']}) than {model}; embed again, or give "
            "the right model"
        )
    return frame, description


def expected_digests(model: Path | str, description: dict[str, Any]) -> list[str]:
    """What features of this kind would say of their encoder if they came from this model.

    Raises:
        ModelError: no such model, or one without their sensors.
    """
    digests = []
    for sensor in description["model_sensors"]:
        encoder = load_encoder(model, sensor=sensor, compute=description["compute"])
        if description["random_seed"] is not None:
            encoder = encoder.with_random_weights(description["random_seed"])
        digests.append(encoder.without_calendar().digest)
    return digests


def _arrow_table(
    waiting: list[Rows], names: tuple[str, ...], description: dict[str, Any], features: bool = True
) -> pa.Table:
    counts = [len(rows.start_s) for rows in waiting]
    unknown = [np.full(count, np.datetime64("NaT"), "datetime64[ms]") for count in counts]
    times = [
        nothing if rows.start_ms is None else rows.start_ms.astype("datetime64[ms]")
        for rows, nothing in zip(waiting, unknown, strict=True)
    ]
    columns: dict[str, pa.Array] = {
        "file": pa.array(np.repeat(np.array([rows.file for rows in waiting], object), counts), pa.string()),
        "recording": pa.array(np.repeat(np.array([rows.recording for rows in waiting], object), counts), pa.string()),
        "timestamp": pa.array(np.concatenate(times), pa.timestamp("ms")),
        "start_s": pa.array(np.concatenate([rows.start_s for rows in waiting])),
        "frames": pa.array(np.concatenate([rows.frames for rows in waiting]), pa.int32()),
    }
    if features:
        features_RxE = np.asfortranarray(np.concatenate([rows.features_RxE for rows in waiting]))
        columns |= {name: pa.array(features_RxE[:, place]) for place, name in enumerate(names)}
    metadata = {METADATA_KEY: json.dumps(description)}
    return pa.table(columns).replace_schema_metadata(metadata)
