"""Whether the files of a checkpoint are whole: paths that Orbax can write to, damage on the disk, and checksums."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore
from jax.experimental import multihost_utils

from selfpab_jax.errors import RunError

UNWRITABLE = "[*?\\"
"""Orbax merges the files of all processes by a pattern that includes the path, so these find no or foreign files."""
ARRAY_DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3"}
"""TensorStore's driver by the name of an array's own metadata."""
UNSIGNED = {1: "uint8", 2: "uint16", 4: "uint32"}


def require_writable_path(run: Path) -> None:
    """Check that checkpoints that are written below a path can be read afterwards.

    Args:
        run: directory of a run; it need not exist.

    Raises:
        RunError: the path has characters that Orbax reads as a pattern, or that are not UTF-8.
    """
    path = str(run.absolute())
    found = [character for character in UNWRITABLE if character in path]
    if found:
        raise RunError(
            f"{path}: checkpoints below a path with {' '.join(found)} cannot be read afterwards (Orbax takes it for a "
            "pattern); choose another --run, or start from a folder without"
        )
    if "gs:" in run.absolute().parts or any("\ud800" <= character <= "\udfff" for character in path):
        raise RunError(f"{path!r}: Orbax cannot write below this path; choose a --run with plain characters")


def damage(step: Path, items: Iterable[str]) -> str:
    """What is wrong with the files of a checkpoint: missing, truncated or unreadable ones.

    Every array is read once, one at a time. A changed number is not found here, but by `checksum`.

    Args:
        step: folder of the checkpoint.
        items: names of its folders; one without arrays holds JSON.

    Returns:
        The reason in a few words; empty if the files are whole.
    """
    for item in items:
        folder = step / item
        if not folder.is_dir():
            return f"{item} is missing"
        try:
            _read_json_files(folder)
            if not (folder / "metadata").is_file():
                _read_values(folder)
        except FileNotFoundError as error:
            return f"{item}: {Path(error.filename).name} is missing"
        except (OSError, ValueError) as error:  # also what TensorStore raises
            return f"{item}: {_short(error)}"
    return ""


def agreed_damage(step: Path, items: tuple[str, ...]) -> str:
    """What `damage` finds in the first process, for all of them, so that they take the same way."""
    if jax.process_count() == 1:
        return damage(step, items)
    found = damage(step, items) if jax.process_index() == 0 else ""
    text = np.frombuffer(found.encode()[:200].ljust(200), np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(text)).decode(errors="replace").strip()


def listed(problems: Mapping[int, str]) -> str:
    """Damaged steps with what is wrong, for a message."""
    return "; ".join(f"step {step} is damaged: {problem}" for step, problem in problems.items())


def first_line(error: Exception) -> str:
    """The first line of an error of Orbax or TensorStore, without its dump of settings."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text.partition(" See full TensorStore details")[0][:200]


@jax.jit
def checksum(arrays: Any) -> jax.Array:
    """A uint32 over the bits of all arrays, the same for every sharding; any single changed bit changes it.

    Args:
        arrays: a tree of arrays.
    """
    total = jnp.uint32(0)
    for leaf in jax.tree.leaves(arrays):
        bits = jax.lax.bitcast_convert_type(leaf, UNSIGNED[leaf.dtype.itemsize]).astype("uint32")
        mixed = bits ^ (jnp.arange(bits.size, dtype="uint32") * jnp.uint32(0x9E3779B9)).reshape(bits.shape)
        for factor in (0x85EBCA6B, 0xC2B2AE35):  # the steps of MurmurHash3's finalizer can be undone: no bit is lost
            mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(factor)
        total = total * jnp.uint32(31) + (mixed ^ (mixed >> 16)).sum(dtype="uint32")
    return total


def _read_json_files(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.name in ("_METADATA", "_sharding", "metadata") or path.parent.name == "array_metadatas":
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                raise ValueError(f"{path.name} is damaged") from None


def _read_values(folder: Path) -> None:
    for name in ("manifest.ocdbt", "_METADATA"):
        if not (folder / name).is_file():
            raise FileNotFoundError(2, "missing", str(folder / name))
    files = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}}
    for key in tensorstore.KvStore.open(files).result().list().result():
        name, _, kind = key.decode().rpartition("/")
        if kind in ARRAY_DRIVERS:
            store = {"driver": ARRAY_DRIVERS[kind], "kvstore": {**files, "path": f"{name}/"}}
            tensorstore.open({**store, "fill_missing_data_reads": False}, open=True).result().read().result()


def _short(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    kinds = {
        "OUT_OF_RANGE": "a file is truncated",
        "NOT_FOUND": "a file is missing",
        "FAILED_PRECONDITION": "a file is missing",  # of an array that the manifest lists
        "DATA_LOSS": "a file is damaged",
    }
    return next((words for code, words in kinds.items() if text.startswith(code)), text.splitlines()[0][:100])
