"""Safetensors piece by piece: arrays that are views of a file, or turned around, are never copied whole."""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
from jaxtyping import Float32

from selfpab_jax.errors import ModelError

PIECE_BYTES = 2**22
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def write_tensors(path: Path, arrays: Mapping[str, Float32[np.ndarray, "..."]]) -> None:
    """Write float32 arrays as a safetensors file, in the order given.

    Raises:
        OSError: the disk is full, say.
    """
    header: dict[str, dict] = {}
    end = 0
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise ValueError(f"{name} is {array.dtype}; only float32 is written")
        start, end = end, end + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors then start at a multiple of 8 bytes, as the format asks
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            rows = array.reshape(1) if array.ndim == 0 else array
            step = max(1, PIECE_BYTES // max(1, rows[:1].nbytes))
            for first in range(0, len(rows), step):
                file.write(np.ascontiguousarray(rows[first : first + step], "<f4").data)


@dataclass(frozen=True)
class TensorOnDisk:
    """An array that has not been read.

    Args:
        path: of the file.
        start: its first byte there.
        shape, dtype: of the array; only float32 can be read.
    """

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> Float32[np.ndarray, "..."]:
        """The array in memory; nothing of the file stays mapped."""
        return np.fromfile(self.path, "<f4", math.prod(self.shape), offset=self.start).reshape(self.shape)


def open_tensors(path: Path) -> dict[str, TensorOnDisk]:
    """Names, shapes and places of the arrays in a safetensors file.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        with safetensors.safe_open(path, framework="numpy"):
            pass  # checks that sizes and places add up to the file
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; copy the whole model directory again") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path} is damaged ({error}); copy it again") from None
    header.pop("__metadata__", None)
    return {
        name: TensorOnDisk(
            path,
            8 + size + each["data_offsets"][0],
            tuple(each["shape"]),
            DTYPES.get(str(each["dtype"]), str(each["dtype"])),
        )
        for name, each in header.items()
    }
