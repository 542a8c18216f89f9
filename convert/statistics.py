"""The original's normalization statistics: found in its repository, or read from a given folder."""

import re
from pathlib import Path

import numpy as np

from selfpab_jax.convert.checkpoint import Checkpoint, Family
from selfpab_jax.errors import DataError, ModelError
from selfpab_jax.signal.normalization import SMALLEST_STD, Statistics

FOLDER = re.compile(r"normalization_params_STFT_feats(\d+)_seqlen(\d+)")
NAME_OF_SENSOR = {"back": "_B", "thigh": "_T"}
"""Suffixes of the original's folders with one sensor's statistics: `HUNT4_B`, `HUNT4_T`; `HUNT4` holds both."""


def statistics_for(checkpoint: Checkpoint, given: Path | None) -> Statistics:
    """The given statistics, or those of the clone that the checkpoint is in.

    Raises:
        ModelError: none fit.
    """
    path, family, features = checkpoint.file.path, checkpoint.family, checkpoint.features
    found = read_statistics(given, family, features) if given else find_statistics(path, family, features)
    if found is None:
        raise ModelError(
            f"{path} comes without statistics, and no params/norm_params above it has any that fit: "
            f"add --statistics DIR ({_needed(family, features)}) or --no-statistics"
        )
    return found


def find_statistics(checkpoint: Path, family: Family, features: int) -> Statistics | None:
    """The statistics in the clone of the original's repository that a checkpoint is in, or None.

    Args:
        checkpoint: the file.
        family: which of the published ones.
        features: of an input frame.

    Raises:
        ModelError: several sets fit.
    """
    for folder in checkpoint.absolute().parents:
        root = folder / "params" / "norm_params"
        if root.is_dir():
            return _search(root, family, features)
    return None


def read_statistics(path: Path, family: Family, features: int) -> Statistics:
    """The statistics in a folder with `mean.csv` and `std.csv`, in one above such folders, or in an npz file.

    Args:
        path: folder or file.
        family: which of the published ones.
        features: of an input frame.

    Raises:
        ModelError: none fit, or they cannot be read.
    """
    if path.is_file():
        try:
            found = Statistics.load(path)
        except DataError as error:
            raise ModelError(str(error)) from None
    elif (path / "mean.csv").exists():
        published = FOLDER.fullmatch(path.absolute().name)
        found = _statistics([path], _published(path.absolute().parent.name) if published else "given")
    else:
        searched = _search(path, family, features)
        if searched is None:
            raise ModelError(f"{path} has no statistics of {features} features: {_needed(family, features)}")
        return searched
    wanted = _records_features(family, features)
    if len(found.mean) != wanted:
        raise ModelError(f"{path} has statistics of {len(found.mean)} features: {_needed(family, features)}")
    return found


def _search(root: Path, family: Family, features: int) -> Statistics | None:
    suffixes = [""] if family.channels_in == len(family.channels) else [NAME_OF_SENSOR[s] for s in family.sensors]
    chosen = []
    for suffix in suffixes:
        fitting = [
            folder for folder in sorted(root.glob("*/normalization_params_*")) if _fits(folder, features, suffix)
        ]
        if len(fitting) > 1:
            names = ", ".join(str(folder.relative_to(root)) for folder in fitting)
            raise ModelError(f"{root} has several statistics that fit ({names}): choose one with --statistics")
        chosen += fitting
    if len(chosen) < len(suffixes):
        return None
    return _statistics(chosen, _published(" and ".join(folder.parent.name for folder in chosen)))


def _published(name: str) -> str:
    return f"of the original, {name}"


def _fits(folder: Path, features: int, suffix: str) -> bool:
    found = FOLDER.fullmatch(folder.name)
    one_sensor = folder.parent.name.endswith(tuple(NAME_OF_SENSOR.values()))
    right = folder.parent.name.endswith(suffix) if suffix else not one_sensor
    return found is not None and int(found.group(1)) == features and right and (folder / "mean.csv").exists()


def _statistics(folders: list[Path], kind: str) -> Statistics:
    mean, std = (np.concatenate([_column(folder / f"{part}.csv") for folder in folders]) for part in ("mean", "std"))
    if len(mean) != len(std):
        raise ModelError(f"{folders[0]}: mean.csv has {len(mean)} numbers, but std.csv has {len(std)}")
    try:
        return Statistics(mean, np.where(std == 0, np.float32(SMALLEST_STD), std), kind)
    except DataError as error:
        raise ModelError(f"{folders[0]}: {error}") from None


def _column(path: Path) -> np.ndarray:
    try:
        return np.array([float(line) for line in path.read_text(encoding="utf-8-sig").split()], np.float32)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as one number per line: {error}") from None


def _records_features(family: Family, features: int) -> int:
    return features // family.channels_in * len(family.channels)


def _needed(family: Family, features: int) -> str:
    wanted = _records_features(family, features)
    if wanted == features:
        return f"this model needs {features}"
    back, thigh = family.sensors
    return f"this model needs {wanted}, or a folder with both {back}'s (…_B) and {thigh}'s (…_T)"
