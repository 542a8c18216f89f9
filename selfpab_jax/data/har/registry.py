"""The labeled data sets by name."""

import difflib
import importlib
from dataclasses import fields
from pathlib import Path
from typing import Any

from selfpab_jax.data.har.base import Published
from selfpab_jax.data.har.prepared import Prepared, prepared_folder
from selfpab_jax.errors import ConfigError

DATASETS: dict[str, tuple[str, str]] = {
    "harth": ("harth", "Harth"),
    "har70plus": ("har70plus", "Har70Plus"),
    "pamap2": ("pamap2", "Pamap2"),
    "opportunity": ("opportunity", "Opportunity"),
    "realworld": ("realworld", "RealWorld"),
    "uschad": ("uschad", "UscHad"),
    "mobiact": ("mobiact", "MobiAct"),
    "dualsleep": ("dualsleep", "DualSleep"),
    "selfback": ("selfback", "SelfBack"),
    "tables": ("own_tables", "OwnTables"),
}
"""Module and class of each, imported when asked for; `tables` are a user's own files."""


def dataset_class(name: str) -> type[Published]:
    """The reader of a data set's published files.

    Raises:
        ConfigError: no such data set; names the nearest.
    """
    if name not in DATASETS:
        nearest = difflib.get_close_matches(name.lower(), DATASETS, n=1, cutoff=0.5)
        hint = f" (did you mean {nearest[0]}?)" if nearest else ""
        raise ConfigError(f"no data set {name!r}{hint}; there are {', '.join(DATASETS)}")
    module, of_class = DATASETS[name]
    return getattr(importlib.import_module(f"selfpab_jax.data.har.datasets.{module}"), of_class)


def open_dataset(
    name: str, path: str | Path, *, sensors: tuple[str, ...] = (), version: str | None = None, **options: Any
) -> Published | Prepared:
    """A data set's recordings with labels: a `LabeledSource`.

    Args:
        name: of `DATASETS`.
        path: folder of the files as published, or of the data set as its TFDS builder prepared it (`data_dir`, or
            the versioned folder itself).
        sensors: names of those wanted, in order; empty: those that stand for lower back and thigh.
        version: of the data set, where there are several; None: the usual one.
        options: further fields of the data set's class.

    Raises:
        ConfigError: no such data set, sensor, version or option.
        DataError: a prepared folder that is damaged or holds another data set.
    """
    of_class = dataset_class(name)
    if folder := prepared_folder(name, str(path), version, tuple(sensors)):
        if options:
            raise ConfigError(f"{', '.join(options)}: only for files as published; {folder} is prepared")
        return Prepared(folder, tuple(sensors))
    known = sorted({field.name for field in fields(of_class)} - {"path", "sensors", "version"})
    if unknown := [option for option in options if option not in known]:
        nearest = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.5)
        quotes = "; put a value with commas into quotes" if "=" in unknown[0] else ""
        hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(known) or 'none'}"
        raise ConfigError(f"{name} has no option {unknown[0]!r}{quotes}; {hint}")
    try:
        return of_class(path=str(path), sensors=tuple(sensors), version=version, **options)
    except TypeError as error:
        raise ConfigError(f"{name}: {error}") from None
