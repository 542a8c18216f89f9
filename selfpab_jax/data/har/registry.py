"""The labeled data sets by name: the only list of them."""

import difflib
import importlib
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from selfpab_jax.data.har.base import PublishedDataset
from selfpab_jax.data.har.prepared import PreparedDataset, find_prepared_folder
from selfpab_jax.errors import ConfigError

OWN_TABLES = "tables"
"""Name of a user's own tables."""
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
    OWN_TABLES: ("own_tables", "OwnTables"),
}
"""Module in `datasets` and class of each data set; imported when it is opened."""


def dataset_names() -> tuple[str, ...]:
    """Names of all data sets, with `tables` for a user's own."""
    return tuple(DATASETS)


def public_dataset_names() -> tuple[str, ...]:
    """Names of the public data sets."""
    return tuple(name for name in DATASETS if name != OWN_TABLES)


def check_dataset_name(name: str) -> None:
    """Check that a data set exists.

    Raises:
        ConfigError: it does not; with the nearest name.
    """
    if name not in DATASETS:
        raise ConfigError(f"no data set {name!r}{_hint(name, DATASETS)}; there are {', '.join(DATASETS)}")


def dataset_class(name: str) -> type[PublishedDataset]:
    """The reader of a data set's published files.

    Raises:
        ConfigError: no such data set.
    """
    check_dataset_name(name)
    module, class_name = DATASETS[name]
    return getattr(importlib.import_module(f"selfpab_jax.data.har.datasets.{module}"), class_name)


def open_dataset(
    name: str, path: str | Path, *, sensors: tuple[str, ...] = (), version: str | None = None, **options: Any
) -> PublishedDataset | PreparedDataset:
    """Open a labeled data set.

    Args:
        name: name of the data set, see `dataset_names`.
        path: folder of the files as published, or of the data set as its TFDS builder prepared it (`data_dir`, or
            the folder of the version).
        sensors: names of the sensors to read, in order; empty: those that stand for lower back and thigh.
        version: version of the data set, where there are several; None: the default one.
        options: further fields of the data set's class; for published files only.

    Raises:
        ConfigError: no such data set, sensor, version or option.
        DataError: a prepared folder is damaged or holds another data set.
    """
    published = dataset_class(name)
    if folder := find_prepared_folder(name, str(path), version, tuple(sensors)):
        if options:
            raise ConfigError(f"{', '.join(options)}: only for files as published; {folder} is prepared")
        return PreparedDataset(folder, tuple(sensors))
    known = sorted({field.name for field in fields(published)} - {"path", "sensors", "version"})
    if unknown := [option for option in options if option not in known]:
        quotes = "; put a value with commas in quotes" if "=" in unknown[0] else ""
        names = ", ".join(known) or "none"
        raise ConfigError(f"{name} has no option {unknown[0]!r}{_hint(unknown[0], known)}{quotes}; it has {names}")
    try:
        return published(path=str(path), sensors=tuple(sensors), version=version, **options)
    except TypeError as error:
        raise ConfigError(f"{name}: {error}") from None


def _hint(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return f" (did you mean {nearest[0]}?)" if nearest else ""
