"""Public labelled data sets, as published, in g and on HUNT4's axes.

Importing this package makes their builders known to TensorFlow Datasets: `tfds.builder("harth", ...)`. It does not
import TensorFlow Datasets, which reading published files does without: the builders are defined when, and if, that is
imported.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

TFDS = "tensorflow_datasets"


class _Registering(Loader):
    """Imports TensorFlow Datasets as ever, then has the builders defined."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        sys.meta_path.remove(FINDER)
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader  # as if we had not been here
        self.loader.exec_module(module)
        _register()


class _Finder(MetaPathFinder):
    """Finds TensorFlow Datasets alone, where others would."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != TFDS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


def _register() -> None:
    # Defines the builders; where it is the builder's own import that brings us here, it goes on to do so by itself.
    importlib.import_module(f"{__name__}.builder")


FINDER = _Finder()
if TFDS in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, FINDER)
