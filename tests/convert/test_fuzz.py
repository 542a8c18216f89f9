"""Damaged files, and files saved in drawn ways: nothing runs, and the result is a complete model or none."""

import argparse
import io
import pathlib
import sys
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfpab_jax.convert.checkpoint import ReadOptions, read_checkpoint
from selfpab_jax.convert.from_torch import write_converted
from selfpab_jax.convert.inspection import summarize
from selfpab_jax.errors import ModelError, SelfPABError
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


EMA, PE = "ema_model", "emb.pos_encoder.pe"
PREFIXES = (
    "module",
    "_orig_mod",
    "_forward_module",
    "_fsdp_wrapped_module",
    "model",
    "network",
    "upstream_model",
    "net",
)
KEYS = ("state_dict", "model_state_dict", "model", "net", "checkpoint", "weights", "a key")
LAYOUTS = {
    "as it is": lambda torch, tensor: tensor,
    "transposed": lambda torch, tensor: tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor,
    "with an offset": lambda torch, tensor: torch.cat([tensor.new_zeros(3), tensor.reshape(-1)])[3:].view(tensor.shape),
    "with steps": lambda torch, tensor: torch.stack([tensor, tensor + 1], -1)[..., 0],
    "parameter": lambda torch, tensor: torch.nn.Parameter(tensor),
    "array": lambda torch, tensor: tensor.numpy(),
}
EXTRAS = {
    "path": lambda torch: pathlib.PurePosixPath("/data"),
    "namespace": lambda torch: argparse.Namespace(a=1, b=[2]),
    "dtype": lambda torch: {torch.float32: torch.device("cpu")},
    "number": lambda torch: np.float64(0.5),
    "array": lambda torch: np.arange(6).reshape(2, 3),
    "layer": lambda torch: torch.nn.Linear(2, 2),
    "tensors": lambda torch: [torch.ones(2), torch.tensor(3)],
    "set": lambda torch: {"a", "b"},
    "type": lambda torch: torch.nn.ReLU,
}


@st.composite
def ways(draw) -> dict:
    """How a network is saved, and the options that it is converted with."""
    prefixes = st.lists(st.sampled_from(PREFIXES), max_size=3)
    return {
        "prefix": "".join(f"{part}." for part in draw(prefixes)),
        "wrapped": draw(st.booleans()),  # torch.compile of one part
        "keys": draw(st.lists(st.sampled_from(KEYS), max_size=3)),
        "dtype": draw(st.sampled_from(["float32", "float32", "float64", "float16"])),
        "layouts": draw(st.lists(st.sampled_from(sorted(LAYOUTS)), min_size=1, max_size=4)),
        "extras": draw(st.sets(st.sampled_from(sorted(EXTRAS)))),
        "average": draw(st.sampled_from(["", "beside", "within"])),
        "arguments": draw(st.sampled_from(["", "lightning", "namespace"])),
        "protocol": draw(st.integers(1, 5)),
        "cast": draw(st.sampled_from(["float32", None])),
        "heads": draw(st.sampled_from([1, None])),
    }


def save(torch, saved: dict, way: dict) -> bytes:
    """The bytes of a file; the tensors hold values that every drawn dtype holds exactly."""
    state, name = {}, way["prefix"]
    for place, (own, tensor) in enumerate(saved["state_dict"].items()):
        inner = own.replace("layers.0.", "layers.0._orig_mod.") if way["wrapped"] else own
        layout = LAYOUTS[way["layouts"][place % len(way["layouts"])]]
        state[name + inner] = layout(torch, tensor if own == PE else tensor.to(getattr(torch, way["dtype"])))
    mean = {own: tensor if own.endswith(PE) else tensor / 2 for own, tensor in saved["state_dict"].items()}
    if way["average"] == "within":
        state |= {f"{EMA}.{own}": tensor for own, tensor in mean.items()}
    content: dict = state
    for key in reversed(way["keys"]):
        content = {key: content}
    extras = way["extras"] - (set() if way["keys"] else {"array"})  # which would be one more tensor
    content |= {f"extra {name}": EXTRAS[name](torch) for name in sorted(extras)}
    content |= {EMA: mean} if way["average"] == "beside" else {}
    arguments = saved["hyper_parameters"]["args"]
    if way["arguments"]:
        is_plain = way["arguments"] == "lightning"
        content["hyper_parameters"] = {"args": arguments} if is_plain else argparse.Namespace(**arguments)
    file = io.BytesIO()
    torch.save(content, file, pickle_protocol=way["protocol"])
    return file.getvalue()


@pytest.fixture(scope="module")
def exact(torch, network, content) -> dict:
    """What Lightning writes of a network whose weights are multiples of 1/8."""
    torch.manual_seed(0)
    model = network(156, width=2, heads=1, feedforward=4, layers=1)
    for parameter in model.parameters():
        parameter.data = torch.randint(-64, 64, parameter.shape) / 8
    return content(model)


@pytest.mark.slow
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(way=ways())
def test_drawn_ways_to_save_give_the_same_weights(torch, exact, tmp_path, way):
    path = tmp_path / "saved.ckpt"
    torch.save(exact, path)
    expected = {name: array.copy() for name, array in read_checkpoint(path).parameters().items()}
    path.write_bytes(save(torch, exact, way))
    options = ReadOptions(cast=way["cast"], heads=way["heads"])
    wrong = (way["dtype"] != "float32" and not way["cast"]) or not (way["arguments"] or way["heads"])
    if wrong:
        with pytest.raises(ModelError, match=r"--cast float32|--heads N") as refusal:
            read_checkpoint(path, options)
        assert str(refusal.value).count("\n") <= 1
        return
    checkpoint = read_checkpoint(path, options)
    checkpoint.check_weights()
    found = checkpoint.parameters()
    assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in expected.items()}
    assert bool(way["average"]) == any(EMA in note for note in checkpoint.notes)
    assert all(prefix in "".join(checkpoint.notes) for prefix in way["prefix"].split("."))
