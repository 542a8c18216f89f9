"""A file of `torch.save`: its content is read as data, and its tensors stay on disk until they are needed."""

import math
import mmap
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from selfpab_jax.convert.pickle_reader import DAMAGED, StoredTensor, read_pickle
from selfpab_jax.errors import ModelError

PUBLISHED_BYTES = {"selfpab": 793_353_563, "monoselfpab": 790_544_539}
"""Sizes of the published files, for the message about a truncated one."""
LFS_HEAD = b"version https://git-lfs"
LARGEST_PICKLE = 2**26
"""The pickle of a full-size checkpoint has 30 kB; tensors are not in it."""
LOCAL_HEADER = struct.Struct("<4s22xHH")
UNREADABLE_ZIP = (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, OSError, *DAMAGED)


class TorchFile:
    """A memory-mapped zip file of one pickle and one entry per tensor.

    Args:
        path: of the file.
        mapping: its bytes.
        content: the pickle's value, with a `StoredTensor` for every tensor.
        entries: offset in the file, size and checksum of each storage.
    """

    def __init__(
        self, path: Path, mapping: mmap.mmap, content: dict[Any, Any], entries: Mapping[str, tuple[int, int, int]]
    ):
        self.path, self.content = path, content
        self._mapping, self._entries = mapping, entries

    def array(self, tensor: StoredTensor) -> Shaped[np.ndarray, "..."]:
        """A read-only view of the file; its pages are read when its values are.

        Raises:
            ModelError: the tensor is not in the file as its pickle describes it.
        """
        start, size, _ = self._entry(tensor)
        try:
            dtype = np.dtype(tensor.dtype)
        except TypeError:
            raise ModelError(f"{self.path}: a tensor is {tensor.dtype}, which cannot be read") from None
        count = math.prod(tensor.shape)
        begin = start + tensor.offset * dtype.itemsize
        contiguous = [math.prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape))]
        strides = zip(tensor.shape, tensor.stride, contiguous, strict=True)
        if any(length > 1 and stride != wanted for length, stride, wanted in strides):
            raise ModelError(f"{self.path}: a tensor is not contiguous; save its `.contiguous()` instead")
        if size < tensor.storage.count * dtype.itemsize or begin + count * dtype.itemsize > start + size:
            raise ModelError(f"{self.path} is damaged: a tensor is larger than its bytes; download it again")
        return np.frombuffer(self._mapping, dtype, count, begin).reshape(tensor.shape)

    def checksum(self, tensor: StoredTensor) -> int:
        """The checked CRC-32 of a tensor's bytes.

        Raises:
            ModelError: the bytes are not those that were written.
        """
        start, size, expected = self._entry(tensor)
        with memoryview(self._mapping) as whole, whole[start : start + size] as part:
            if zlib.crc32(part) != expected:
                raise ModelError(f"{self.path} is damaged: the checksum of a tensor is wrong; download it again")
        return expected

    def release(self, tensor: StoredTensor) -> None:
        """Release the memory of a tensor's pages; they are read again when needed."""
        start, size, _ = self._entry(tensor)
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and size:
            self._mapping.madvise(mmap.MADV_DONTNEED, first, start + size - first)

    def release_all(self) -> None:
        """Release the memory of the whole file's pages."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)

    def _entry(self, tensor: StoredTensor) -> tuple[int, int, int]:
        try:
            return self._entries[tensor.storage.key]
        except KeyError:
            raise ModelError(f"{self.path} is damaged: the bytes of a tensor are missing; download it again") from None


def open_torch_file(path: Path) -> TorchFile:
    """Open a checkpoint: its pickle is read as data, its tensors stay on disk.

    Raises:
        ModelError: it is a Git LFS pointer, truncated, not a checkpoint, or its pickle names any other callable.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(512)
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if head else None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if head.startswith(LFS_HEAD):
        raise ModelError(_pointer(path, head))
    if mapping is None or not head.startswith(b"PK"):
        raise ModelError(f"{path} is not a checkpoint of PyTorch 1.6 or newer (those are zip files); nothing was run")
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
        entries = {info.filename: _located(info, mapping) for info in infos}
    except UNREADABLE_ZIP as error:
        raise ModelError(
            f"{path} is truncated or damaged ({len(mapping):,} bytes; {str(error)[:80]}); download it again (of the "
            f"published ones, {' and '.join(f'{name} has {size:,} bytes' for name, size in PUBLISHED_BYTES.items())})"
        ) from None
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ModelError(f"{path} is a zip file but not a checkpoint of PyTorch: it has no data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    content = _content(path, mapping, entries[pickles[0]])
    order = entries.get(f"{root}byteorder")
    if order and bytes(mapping[order[0] : order[0] + order[1]]) != b"little":
        raise ModelError(f"{path} was written on a big-endian machine, which is not supported")
    prefix = f"{root}data/"
    return TorchFile(
        path, mapping, content, {n.removeprefix(prefix): entry for n, entry in entries.items() if n.startswith(prefix)}
    )


def _content(path: Path, mapping: mmap.mmap, entry: tuple[int, int, int]) -> dict[Any, Any]:
    start, size, checksum = entry
    if size > LARGEST_PICKLE:
        raise ModelError(f"{path} is not a checkpoint of tensors: its pickle alone has {size:,} bytes")
    data = bytes(mapping[start : start + size])
    try:
        if zlib.crc32(data) != checksum:
            raise ModelError("its pickle is damaged; download it again")
        content = read_pickle(data)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a checkpoint: it holds no dictionary")
    return content


def _located(info: zipfile.ZipInfo, mapping: mmap.mmap) -> tuple[int, int, int]:
    signature, name, extra = LOCAL_HEADER.unpack_from(mapping, info.header_offset)
    start = info.header_offset + LOCAL_HEADER.size + name + extra
    if signature != b"PK\x03\x04" or info.compress_type != zipfile.ZIP_STORED or info.header_offset < 0:
        raise ValueError(f"entry {info.filename[:40]!r} is not stored as torch.save stores it")
    if start + info.file_size > len(mapping):
        raise ValueError(f"entry {info.filename[:40]!r} ends beyond the file")
    return start, info.file_size, info.CRC


def _pointer(path: Path, head: bytes) -> str:
    size = re.search(rb"^size (\d{1,15})$", head, re.MULTILINE)
    should = f"the checkpoint itself has {int(size.group(1)):,} bytes" if size else "the checkpoint itself is large"
    return f"{path} is a Git LFS pointer, not the checkpoint: {should}; `git lfs pull` in its clone fetches it"
