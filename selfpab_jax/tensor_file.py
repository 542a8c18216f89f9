"""Writing safetensors piece by piece: arrays that are views of a file, or turned around, are never copied whole."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32

PIECE_BYTES = 2**22


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
