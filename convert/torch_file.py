"""A file of `torch.save`, or of safetensors: read as data, and its tensors stay on disk until they are needed."""

import json
import math
import mmap
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
from jaxtyping import Shaped

from selfpab_jax.convert.pickle_objects import Opaque, Storage, StoredTensor
from selfpab_jax.convert.pickle_reader import DAMAGED, read_pickle
from selfpab_jax.errors import ModelError

PUBLISHED_BYTES = {"selfpab": 793_353_563, "monoselfpab": 790_544_539}
"""Sizes of the published files, for the message about a truncated one."""
LFS_HEAD = b"version https://git-lfs"
LARGEST_PICKLE = 2**26
"""The pickle of a full-size checkpoint has 30 kB; tensors are not in it."""
COMPRESSED = (b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"BZh", b"7z\xbc\xaf")
"""How files of gzip, xz, zstd, bzip2 and 7z start."""
LEGACY_MAGIC = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""The number that files of torch.save before 1.6, and of its old format since, start with."""
SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
RESAVE = "`torch.save(torch.load(FILE, weights_only=True), NEW)`"
SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "BOOL": "bool",
    **{f"{sign}{bits}": f"{name}{bits}" for sign, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)},
}
"""Names of the dtypes in safetensors files."""
LOCAL_HEADER = struct.Struct("<4s22xHH")
UNREADABLE_ZIP = (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, OSError, *DAMAGED)


class Entry(NamedTuple):
    """A part of a file: where it starts, its size in bytes, and its CRC-32 where the file has one."""

    start: int
    size: int
    checksum: int | None


class TorchFile:
    """A memory-mapped zip file of one pickle and one entry per tensor.

    Args:
        path: of the file.
        mapping: its bytes.
        content: the pickle's value, with a `StoredTensor` for every tensor.
        entries: place of each storage.
    """

    def __init__(self, path: Path, mapping: mmap.mmap, content: dict[Any, Any], entries: Mapping[str, Entry]):
        self.path, self.content = path, content
        self._mapping, self._entries = mapping, entries

    def array(self, tensor: StoredTensor) -> Shaped[np.ndarray, "..."]:
        """A read-only view of the file; its pages are read when its values are.

        Raises:
            ModelError: the tensor is not in the file as its pickle describes it.
        """
        storage, shape = tensor.storage, tensor.shape
        try:
            dtype = jnp.dtype(tensor.dtype)
        except TypeError:
            raise ModelError(f"{self.path}: a tensor is {tensor.dtype}, which cannot be read") from None
        if storage.data is None:
            buffer, (start, size, _) = self._mapping, self._entry(tensor)
        else:
            buffer, start, size = storage.data, 0, len(storage.data)
        reach = sum((length - 1) * stride for length, stride in zip(shape, tensor.stride, strict=True))
        end = tensor.offset + (reach + 1 if math.prod(shape) else 0)
        # A view may repeat values (stride 0), but a file that asks for more than it has bytes only wants memory.
        if size < storage.count * dtype.itemsize or end > storage.count or math.prod(shape) > len(self._mapping):
            raise ModelError(f"{self.path} is damaged: a tensor is larger than its bytes; download it again")
        if not math.prod(shape):
            return np.zeros(shape, dtype)
        values = np.frombuffer(buffer, dtype, storage.count, start)[tensor.offset :]
        strides = [stride * dtype.itemsize for stride in tensor.stride]
        return np.lib.stride_tricks.as_strided(values, shape, strides, writeable=False)

    def check(self, tensor: StoredTensor) -> None:
        """Compare the checksum of a tensor's bytes, where the file has one.

        Raises:
            ModelError: the bytes are not those that were written.
        """
        if tensor.storage.data is not None:
            return
        start, size, expected = self._entry(tensor)
        with memoryview(self._mapping) as whole, whole[start : start + size] as part:
            if expected is not None and zlib.crc32(part) != expected:
                raise ModelError(f"{self.path} is damaged: the checksum of a tensor is wrong; download it again")

    def release(self, tensor: StoredTensor) -> None:
        """Release the memory of a tensor's pages; they are read again when needed."""
        start, size, _ = self._entry(tensor) if tensor.storage.data is None else (0, 0, None)
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and size:
            self._mapping.madvise(mmap.MADV_DONTNEED, first, start + size - first)

    def release_all(self) -> None:
        """Release the memory of the whole file's pages."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)

    def _entry(self, tensor: StoredTensor) -> Entry:
        try:
            return self._entries[tensor.storage.key]
        except KeyError:
            raise ModelError(f"{self.path} is damaged: the bytes of a tensor are missing; download it again") from None


def open_torch_file(path: Path) -> TorchFile:
    """Open a checkpoint: its pickle is read as data, its tensors stay on disk.

    Raises:
        ModelError: it is a Git LFS pointer, truncated, compressed, not a checkpoint, or its pickle is refused.
    """
    if path.is_dir():
        raise ModelError(
            f"{path} cannot be read: it is a directory. Merge a sharded checkpoint into one file first: DeepSpeed's "
            "with zero_to_fp32.py, FSDP's with `python -m torch.distributed.checkpoint.format_utils dcp_to_torch`"
        )
    try:
        with open(path, "rb") as file:
            head = file.read(512)
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if head else None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if head.startswith(LFS_HEAD):
        raise ModelError(_pointer(path, head))
    if head.startswith(COMPRESSED):
        raise ModelError(f"{path} is a compressed file, not a checkpoint: unpack it first (gunzip, unxz, unzstd)")
    if mapping is not None and head[8:9] == b"{":
        return _open_safetensors(path, mapping)
    if mapping is None or not head.startswith(b"PK"):
        hint = f": write it anew with {RESAVE}" if LEGACY_MAGIC in head else ""
        raise ModelError(
            f"{path} is not a checkpoint of PyTorch 1.6 or newer (those are zip files); nothing was run{hint}"
        )
    return _open_zip(path, mapping)


def _open_zip(path: Path, mapping: mmap.mmap) -> TorchFile:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
        names = [info.filename for info in infos]
        pickles = [name for name in names if name.endswith("/data.pkl")]
        packed = next((name for name in names if name.endswith(SUFFIXES)), None)
        if not pickles and packed:
            raise ModelError(f"{path} is a zip file that holds {packed[-80:]!r}: unpack it first (unzip)")
        if pickles and any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise ModelError(
                f"{path} was compressed by a zip tool, which torch.save does not do: write it anew with {RESAVE}"
            )
        entries = {info.filename: _located(info, mapping) for info in infos}
    except UNREADABLE_ZIP as error:
        raise ModelError(
            f"{path} is truncated or damaged ({len(mapping):,} bytes; {str(error)[:80]}); download it again (of the "
            f"published ones, {' and '.join(f'{name} has {size:,} bytes' for name, size in PUBLISHED_BYTES.items())})"
        ) from None
    if len(pickles) != 1:
        raise ModelError(f"{path} is a zip file but not a checkpoint of PyTorch: it has no data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    content = _content(path, mapping, entries[pickles[0]])
    order = entries.get(f"{root}byteorder")
    if order and bytes(mapping[order.start : order.start + order.size]) != b"little":
        raise ModelError(f"{path} was written on a big-endian machine, which is not supported")
    prefix = f"{root}data/"
    return TorchFile(
        path, mapping, content, {n.removeprefix(prefix): entry for n, entry in entries.items() if n.startswith(prefix)}
    )


def _content(path: Path, mapping: mmap.mmap, entry: Entry) -> dict[Any, Any]:
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
    if isinstance(content, Opaque) and content.items:  # a dictionary of another class
        content = content.items
    if isinstance(content, Opaque):
        raise ModelError(
            f"{path} is not a checkpoint but a whole pickled {content.name[:200]}, which is refused; nothing was run. "
            "Save its state_dict() instead"
        )
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a checkpoint: it holds no dictionary")
    return content


def _located(info: zipfile.ZipInfo, mapping: mmap.mmap) -> Entry:
    signature, name, extra = LOCAL_HEADER.unpack_from(mapping, info.header_offset)
    start = info.header_offset + LOCAL_HEADER.size + name + extra
    if signature != b"PK\x03\x04" or info.compress_type != zipfile.ZIP_STORED or info.header_offset < 0:
        raise ValueError(f"entry {info.filename[:40]!r} is not stored as torch.save stores it")
    if start + info.file_size > len(mapping):
        raise ValueError(f"entry {info.filename[:40]!r} ends beyond the file")
    return Entry(start, info.file_size, info.CRC)


def _open_safetensors(path: Path, mapping: mmap.mmap) -> TorchFile:
    """A safetensors file as a `state_dict`; the library checks its header, sizes and offsets."""
    content, entries = {}, {}
    try:
        with safetensors.safe_open(path, framework="numpy"):
            pass
        (length,) = struct.unpack_from("<Q", mapping)
        header = json.loads(bytes(mapping[8 : 8 + length]))
        header.pop("__metadata__", None)
        for name, stored in header.items():
            shape, (start, end) = tuple(stored["shape"]), stored["data_offsets"]
            dtype = SAFETENSORS.get(stored["dtype"]) or str(stored["dtype"]).lower()
            stride = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
            content[name] = StoredTensor(Storage(name, dtype, math.prod(shape)), 0, shape, stride)
            entries[name] = Entry(8 + length + start, end - start, None)
    except (safetensors.SafetensorError, OSError, *DAMAGED) as error:
        raise ModelError(f"{path} is damaged, or not a checkpoint: {str(error)[:80]}") from None
    return TorchFile(path, mapping, content, entries)


def _pointer(path: Path, head: bytes) -> str:
    size = re.search(rb"^size (\d{1,15})$", head, re.MULTILINE)
    should = f"the checkpoint itself has {int(size.group(1)):,} bytes" if size else "the checkpoint itself is large"
    return f"{path} is a Git LFS pointer, not the checkpoint: {should}; `git lfs pull` in its clone fetches it"
