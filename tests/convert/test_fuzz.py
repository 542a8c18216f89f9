"""2,000 damaged files: no crash, nothing runs, and the result is a complete model or nothing."""

import io
import sys
import zipfile
import zlib

import numpy as np
import pytest

from selfpab_jax.convert.checkpoint import read_checkpoint
from selfpab_jax.convert.from_torch import write_converted
from selfpab_jax.convert.inspection import summarize
from selfpab_jax.errors import SelfPABError
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import read_model

CASES = 2_000
WATCHED = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class")
ran: list[str] = []
watching: list[bool] = []


def watch(event: str, arguments: tuple) -> None:
    if watching and event in WATCHED:
        ran.append(f"{event} {arguments}")


@pytest.fixture(scope="module")
def smallest(torch, network, content) -> bytes:
    """A whole checkpoint of 156 features and width 2, with the state of an optimizer."""
    model = network(156, width=2, heads=1, feedforward=1, layers=1)
    optimizer = torch.optim.AdamW(model.parameters())
    model.emb.lin_proj_layer.weight.sum().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save(content(model, optimizer), file)
    return file.getvalue()


def scattered(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed where the tensors are not: headers, names, pickle, directory; or anywhere."""
    changed = bytearray(data)
    areas = [(0, 12_000), (len(data) - 8_000, len(data)), (0, len(data))]
    start, end = areas[rng.integers(len(areas))]
    for place in rng.integers(start, end, rng.integers(1, 9)):
        changed[place] = rng.integers(256)
    return bytes(changed)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """A piece missing at the end or within."""
    start, length = rng.integers(len(data)), rng.integers(1, 5_000)
    return data[:start] if rng.random() < 0.5 else data[:start] + data[start + length :]


def resealed(data: bytes, rng: np.random.Generator) -> bytes:
    """A pickle with changed bytes under a right checksum: only its reader can notice."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    info = archive.getinfo("archive/data.pkl")
    pickle = bytearray(archive.read(info))
    for place in rng.integers(0, len(pickle), rng.integers(1, 5)):
        # Often another opcode or small number, which goes further than any byte does.
        pickle[place] = (
            rng.choice(bytearray(b"().}]tqhKMRX\x85\x86\x87Qsueb\x00\x01\x02\x82\x93"))
            if rng.random() < 0.5
            else rng.integers(256)
        )
    start = data.index(pickle_start := archive.read(info)[:64])
    assert data.count(pickle_start) == 1
    changed = bytearray(data)
    changed[start : start + len(pickle)] = pickle
    old, new = (zlib.crc32(part).to_bytes(4, "little") for part in (archive.read(info), bytes(pickle)))
    return bytes(changed).replace(old, new)


def attempt(path, model) -> SelfPABError | None:
    watching.append(True)
    try:
        summarize(path)
        write_converted(read_checkpoint(path), model, None)
    except SelfPABError as error:
        return error
    finally:
        watching.clear()
    return None


@pytest.mark.slow
def test_damaged_files_are_refused_or_read_completely(smallest, tmp_path):
    sys.addaudithook(watch)
    path, out = tmp_path / "upstream_model.ckpt", tmp_path / "out"
    out.mkdir()
    path.write_bytes(smallest)
    write_converted(read_checkpoint(path), out / "model", None)
    converted = refused = 0
    for case in range(CASES):
        rng = np.random.default_rng(case)
        path.write_bytes((scattered, cut, resealed)[case % 3](smallest, rng))
        model = out / f"model{case}"
        error = attempt(path, model)
        if error is None:
            converted += 1
            config, arrays, _ = read_model(model)
            abstract = make_functional(config.model, config.features, config.outputs).abstract
            assert {n: a.shape for n, a in arrays.items()} == {n: s.shape for n, s in abstract.items()}, case
            assert all(np.isfinite(array).all() for array in arrays.values()), case
        else:
            refused += 1
            assert str(error).count("\n") <= 1
            assert not model.exists(), f"case {case} left a part of a model"
    assert ran == []
    assert [entry for entry in out.iterdir() if entry.name.startswith(".")] == []
    assert converted + refused == CASES
    assert refused > CASES / 2
    assert converted > CASES / 50  # what is not read may well be damaged
