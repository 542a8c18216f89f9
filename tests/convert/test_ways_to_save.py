"""One network, saved in every way that training loops have: the same weights bit for bit, or a reason in a line."""

import argparse
import collections
import dataclasses
import datetime
import enum
import functools
import gzip
import io
import pathlib
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.convert.checkpoint import read_checkpoint
from selfpab_jax.convert.to_torch import write_torch
from selfpab_jax.model_dir import read_model

PE, WEIGHT = "emb.pos_encoder.pe", "transformer_encoder.layers.0.linear1.weight"
CAST, HEADS = ("--cast", "float32"), ("--heads", "1")


class Mode(enum.Enum):
    FAST = 1


@dataclasses.dataclass
class Config:
    lr: float = 0.1
    modes: tuple = (Mode.FAST,)


class Attributes(dict):
    """Like Lightning's `AttributeDict`."""


class Node:
    """Like a node of OmegaConf."""

    def __init__(self, value: Any, parent: Any):
        self._val, self._parent = value, parent


class Tree:
    """Like a `DictConfig` of OmegaConf, whose nodes refer to it."""

    def __init__(self, values):
        self._content = {name: Node(value, self) for name, value in values.items()}


class Way(NamedTuple):
    """A way to save the network.

    Args:
        change: from what Lightning writes to what is saved.
        options: of the command.
        refused: a word of the message, where the file is refused with these options.
        without: a word of the message without the options, where there are any.
        printed: a word of the output.
        change_weights: from the plain conversion's tensors to the expected ones.
    """

    change: Callable[[Any, dict[str, Any]], Any]
    options: tuple[str, ...] = ()
    refused: str = ""
    without: str = ""
    printed: str = ""
    change_weights: Callable[[Any, Any], Any] | None = None


def renamed(new: Callable[[str], str]) -> Callable:
    return lambda torch, content: {**content, "state_dict": {new(n): t for n, t in content["state_dict"].items()}}


def prefixed(prefix: str) -> Way:
    return Way(renamed(lambda name: prefix + name), printed=f"prefix `{prefix}` stripped")


def mapped(change: Callable[[Any, str, Any], Any]) -> Callable:
    return lambda torch, content: {
        **content,
        "state_dict": {n: change(torch, n, t) for n, t in content["state_dict"].items()},
    }


def in_dtype(name: str, *, table: bool = True) -> Way:
    change = mapped(lambda torch, n, t: t if n == PE and not table else t.to(getattr(torch, name)))
    count = 17 if table else 16
    expected = None if name == "float64" else (lambda torch, t: t.to(getattr(torch, name)).float())
    return Way(change, CAST, without=f"{count} of its 17 tensors are {name}", printed=name, change_weights=expected)


def with_arguments(change: Callable[[Any, dict], Any]) -> Way:
    return Way(
        lambda torch, content: {**content, "hyper_parameters": change(torch, content["hyper_parameters"]["args"])}
    )


def with_more(**more: Callable[[Any], Any]) -> Way:
    """Further arguments, made with torch."""
    return with_arguments(lambda torch, args: {"args": {**args, **{name: make(torch) for name, make in more.items()}}})


def bare(wrap: Callable[[dict], Any], **more: Any) -> Way:
    return Way(lambda torch, content: wrap(content["state_dict"]), HEADS, without="--heads N", **more)


def averaged(state: dict) -> dict:
    return {name: tensor if name == PE else tensor / 2 for name, tensor in state.items()}


def halved(torch: Any, tensor: Any) -> Any:
    return tensor / 2


def parameters(torch: Any, name: str, tensor: Any) -> Any:
    return tensor if name == PE else torch.nn.Parameter(tensor)


def in_one_storage(torch: Any, content: dict) -> dict:
    state = content["state_dict"]
    flat = torch.cat([torch.zeros(5), *(tensor.reshape(-1) for tensor in state.values())])
    parts = flat[5:].split([tensor.numel() for tensor in state.values()])
    return {**content, "state_dict": {n: p.view(t.shape) for (n, t), p in zip(state.items(), parts, strict=True)}}


def every_second(torch: Any, name: str, tensor: Any) -> Any:
    return torch.stack([tensor, -tensor], -1)[..., 0]


def transposed(torch: Any, name: str, tensor: Any) -> Any:
    return tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor


def bytes_of(torch: Any, content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def repacked(torch: Any, content: dict, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bytes_of(torch, content))) as old, zipfile.ZipFile(file, "w", compression) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    return file.getvalue()


def zipped(torch: Any, content: dict) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("upstream_model.ckpt", bytes_of(torch, content))
    return file.getvalue()


def safetensors_of(torch: Any, content: dict) -> bytes:
    save = pytest.importorskip("safetensors.torch").save
    return save({name: tensor.contiguous() for name, tensor in content["state_dict"].items()})


def moved(torch: Any, content: dict) -> bytes:
    """As saved on a GPU: every storage has a location."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        return bytes_of(torch, content)


def fully_sharded(name: str) -> str:
    """Names of FSDP with activation checkpointing."""
    inner = name.replace("layers.0.", "layers.0._fsdp_wrapped_module._checkpoint_wrapped_module.")
    return f"_fsdp_wrapped_module.{inner}"


def ema(key: str, kept: str = "state_dict") -> Way:
    return Way(
        lambda torch, content: {**content, key: averaged(content["state_dict"])}, printed=f"--weights {key} converts"
    )


WAYS = {
    "plain": Way(lambda torch, content: content),
    "protocol 1": Way(lambda torch, content: bytes_of(torch, content, pickle_protocol=1)),
    "protocol 4": Way(lambda torch, content: bytes_of(torch, content, pickle_protocol=4)),
    "protocol 5": Way(lambda torch, content: bytes_of(torch, content, pickle_protocol=5)),
    "cuda": Way(moved),
    "lightning 2": Way(
        lambda torch, content: {**content, "pytorch-lightning_version": "2.2.1", "hparams_type": None},
        ("--any-version",),
        without="--any-version",
    ),
    # dtypes
    "bfloat16": in_dtype("bfloat16"),
    "bfloat16, table in float32": in_dtype("bfloat16", table=False),
    "float16": in_dtype("float16"),
    "float16, table in float32": in_dtype("float16", table=False),
    "float64": in_dtype("float64"),
    "int8": Way(mapped(lambda torch, n, t: t if n == PE else t.char()), CAST, refused="is int8, not float32"),
    "beyond float32": Way(
        mapped(lambda torch, n, t: t.double() * (1e300 if n == WEIGHT else 1)), CAST, refused="not finite"
    ),
    # prefixes
    "DDP": prefixed("module."),
    "torch.compile": prefixed("_orig_mod."),
    "compiled DDP": prefixed("_orig_mod.module."),
    "Fabric": prefixed("_forward_module."),
    "module of a module": prefixed("model."),
    "another module": prefixed("network."),
    "deep": prefixed("lightning_module.upstream_model._orig_mod."),
    "FSDP": Way(renamed(fully_sharded), printed="wrappers left out of"),
    "compiled layers": Way(
        renamed(lambda name: name.replace("transformer_encoder.", "transformer_encoder._orig_mod.")),
        printed="wrappers left out of",
    ),
    "two networks": Way(
        lambda torch, content: {
            **content,
            "state_dict": {
                f"{who}.{n}": t.clone() for who in ("student", "teacher") for n, t in content["state_dict"].items()
            },
        },
        ("--weights", "student"),
        without="state_dict.student, state_dict.teacher",
    ),
    "a name twice": Way(
        lambda torch, content: {
            **content,
            "state_dict": content["state_dict"] | {f"transformer_encoder.module{WEIGHT[19:]}": torch.zeros(1)},
        },
        refused="could both be",
    ),
    "a loss with weights": Way(
        lambda torch, content: {
            **content,
            "state_dict": {
                **{f"model.{n}": t for n, t in content["state_dict"].items()},
                "loss.scale": torch.ones(3),
                "steps": torch.tensor(3),
            },
        },
        ("--weights", "model"),
        without="loss.scale is unexpected",
        printed="skipped: 2 other tensors",
    ),
    # keys
    "bare": bare(lambda state: state),
    "wrong heads": Way(lambda torch, content: content, ("--heads", "2"), refused="not 2"),
    "safetensors": Way(safetensors_of, HEADS, without="--heads N"),
    "model": bare(lambda state: {"model": state, "epoch": 3}, printed="under `model`"),
    "net": bare(lambda state: {"net": state}),
    "DeepSpeed": bare(lambda state: {"module": state, "dp_world_size": 2}),
    "nested keys": bare(
        lambda state: {"checkpoint": {"model_state_dict": {f"module.{n}": t for n, t in state.items()}}}
    ),
    "one set under two keys": bare(lambda state: {"model": dict(state), "state_dict": state}),
    "only EMA": bare(lambda state: {"ema": state}, printed="averaged weights: 17 tensors"),
    "best and last": Way(
        lambda torch, content: {**content, "best": averaged(content["state_dict"])},
        ("--weights", "state_dict"),
        without="(state_dict, best)",
        printed="other weights in `best`",
    ),
    "EMA": ema("ema_state_dict"),
    "EMA of timm": ema("state_dict_ema"),
    "EMA in capitals": ema("modelEMA"),
    "EMA, chosen": Way(
        lambda torch, content: {**content, "model_ema": averaged(content["state_dict"])},
        ("--weights", "model_ema"),
        printed="other weights in `state_dict`",
        change_weights=halved,
    ),
    "no such weights": Way(lambda torch, content: content, ("--weights", "mean"), refused="fits none"),
    "EMA inside": Way(
        lambda torch, content: {
            **content,
            "state_dict": content["state_dict"]
            | {f"ema_model.{n}": t for n, t in averaged(content["state_dict"]).items()},
        },
        printed="--weights state_dict.ema_model converts",
    ),
    "EMA without names": Way(
        lambda torch, content: {
            **content,
            "state_dict": content["state_dict"]
            | {"model_ema.embweight": torch.ones(2), "model_ema.decay": torch.ones(())},
        },
        printed="skipped: 2 other tensors",
    ),
    "AveragedModel": Way(
        lambda torch, content: {
            **content,
            "averaged_model": {"n_averaged": torch.tensor(4)}
            | {f"module.{n}": t for n, t in averaged(content["state_dict"]).items()},
        },
        printed="--weights averaged_model.module converts",
    ),
    "WeightAveraging of Lightning": Way(
        lambda torch, content: {
            **content,
            "state_dict": averaged(content["state_dict"]),
            "current_model_state": content["state_dict"],
            "averaging_state": {"n_averaged": torch.tensor(4)},
        },
        printed="averaged (EMA) weights in `state_dict`",
    ),
    "a callback's weights": Way(
        lambda torch, content: {**content, "callbacks": {"Keep": {"best": averaged(content["state_dict"])}}},
        printed="--weights callbacks.Keep.best converts",
    ),
    # tensors
    "parameters": Way(mapped(parameters)),
    "gradients": Way(mapped(lambda torch, name, tensor: tensor.clone().requires_grad_(True))),
    "views of one storage": Way(in_one_storage),
    "transposed": Way(mapped(transposed)),
    "every second value": Way(mapped(every_second)),
    "expanded": Way(
        mapped(lambda torch, n, t: torch.ones(1).expand(t.shape) if "norm1.weight" in n else t),
        change_weights=lambda torch, tensor: tensor,
    ),
    "arrays of NumPy": Way(mapped(lambda torch, name, tensor: tensor.numpy())),
    "arrays in Fortran's order": Way(mapped(lambda torch, name, tensor: np.asfortranarray(tensor.numpy()))),
    "negated views": Way(
        mapped(lambda torch, n, t: torch._neg_view(t) if n == WEIGHT else t), refused="which is not read"
    ),
    "sparse": Way(mapped(lambda torch, n, t: t.to_sparse() if n == WEIGHT else t), refused="which is not read"),
    # objects
    "NumPy scalars": with_more(lr=lambda _: np.float64(1e-4), nhead=lambda _: np.int64(1), flag=lambda _: np.True_),
    "a number as a tensor": with_more(nhead=lambda torch: torch.tensor(1), d_model=lambda _: np.array([2])),
    "an array of a callback": Way(
        lambda torch, content: {**content, "callbacks": {"x": {"best": np.array([1.0, 2.0])}}}
    ),
    "a path": with_more(data=lambda _: pathlib.PosixPath("/data"), other=lambda _: pathlib.PureWindowsPath("C:/x")),
    "a namespace": with_arguments(lambda _, args: argparse.Namespace(**args)),
    "a simple namespace": with_arguments(lambda _, args: {"args": types.SimpleNamespace(**args)}),
    "another class of dictionary": with_arguments(lambda _, args: Attributes(args)),
    "OmegaConf": with_arguments(lambda _, args: Tree(args)),
    "under args": Way(
        lambda torch, content: {
            "model_state_dict": content["state_dict"],
            "args": argparse.Namespace(**content["hyper_parameters"]["args"]),
        }
    ),
    "types and devices": with_more(
        dtype=lambda torch: torch.float32,
        device=lambda torch: torch.device("cuda", 0),
        size=lambda torch: torch.Size([2]),
    ),
    "objects": with_more(
        config=lambda _: Config(),
        mode=lambda _: Mode.FAST,
        at=lambda _: datetime.datetime(2024, 1, 2),
        activation=lambda torch: torch.nn.functional.gelu,
        layer=lambda torch: torch.nn.Linear(2, 2),
        factory=lambda _: functools.partial(dict, a=1),
        kinds=lambda _: {1, 2},
        sizes=lambda _: {(1, 2): range(3), Mode.FAST: 1j},
        generator=lambda _: np.random.default_rng(0),
        texts=lambda _: np.array(["a", "bc"]),
    ),
    "a defaultdict": Way(
        lambda torch, content: {**content, "callbacks": {"m": collections.defaultdict(list, {"a": [1]})}}
    ),
    # files
    "legacy": Way(
        lambda torch, content: bytes_of(torch, content, _use_new_zipfile_serialization=False), refused="write it anew"
    ),
    "stored by a zip tool": Way(lambda torch, content: repacked(torch, content, zipfile.ZIP_STORED)),
    "compressed by a zip tool": Way(repacked, refused="write it anew"),
    "in a zip file": Way(zipped, refused="upstream_model.ckpt"),
    "gzip": Way(lambda torch, content: gzip.compress(bytes_of(torch, content)), refused="gunzip"),
    "sharded": Way(lambda torch, content: None, refused="zero_to_fp32.py"),
    "a whole module": Way(lambda torch, content: torch.nn.Linear(2, 2), refused="state_dict()"),
}


@pytest.fixture(scope="module")
def saved(torch: Any, network: Any, content: Any) -> dict[str, Any]:
    """What Lightning writes of a small network of random weights, norms included."""
    torch.manual_seed(0)
    model = network(156, width=2, heads=1, feedforward=4, layers=1)
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn_like(parameter) if "norm1.weight" not in name else torch.ones_like(parameter)
    return content(model)


@pytest.fixture(scope="module")
def convert(torch: Any, tmp_path_factory: Any) -> Callable[..., dict[str, np.ndarray] | None]:
    """Convert what is saved with the command; the tensors under their names in torch, or None where it is refused."""

    def run(made: Any, *options: str) -> dict[str, np.ndarray] | None:
        folder = tmp_path_factory.mktemp("way")
        path, model = folder / "saved.ckpt", folder / "model"
        if made is None:
            path.mkdir()
        else:
            path.write_bytes(made if isinstance(made, bytes) else bytes_of(torch, made))
        if main(["convert", "from-torch", str(path), str(model), "--no-statistics", *options]) != 0:
            assert not model.exists()
            return None
        read_model(model)
        assert write_torch(model, folder / "back.ckpt") == []
        back = torch.load(folder / "back.ckpt", weights_only=True)["state_dict"]
        return {name: tensor.numpy() for name, tensor in back.items()}

    return run


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_every_way(torch, saved, convert, capsys, way):
    made = way.change(torch, saved)
    if way.without:
        assert convert(made) is None
        message = capsys.readouterr().err.strip()
        assert way.without in message
        assert message.count("\n") <= 1
    found = convert(made, *way.options)
    output = capsys.readouterr()
    if way.refused:
        assert found is None
        assert way.refused in output.err
        assert output.err.strip().count("\n") <= 1
        return
    assert found is not None, output.err
    assert way.printed in output.out
    expected = {
        name: (tensor if name == PE or not way.change_weights else way.change_weights(torch, tensor)).numpy()
        for name, tensor in saved["state_dict"].items()
    }
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert array.tobytes() == found[name].tobytes(), name


def test_hyper_parameters_of_other_types_are_kept_as_text_and_numbers(torch, saved, tmp_path):
    more = {"data": pathlib.PosixPath("/data"), "dtype": torch.float32, "lr": np.float32(0.5), "object": Config()}
    args = argparse.Namespace(**{**saved["hyper_parameters"]["args"], **more})
    saved = {**saved, "hyper_parameters": args}
    torch.save(saved, tmp_path / "saved.ckpt")
    assert main(["convert", "from-torch", str(tmp_path / "saved.ckpt"), str(tmp_path / "m"), "--no-statistics"]) == 0
    kept = read_model(tmp_path / "m")[0].provenance["torch"]["args"]
    assert {name: kept[name] for name in more} == {
        "data": "/data",
        "dtype": "torch.float32",
        "lr": 0.5,
        "object": None,
    }


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_verify_takes_the_same_options(torch, saved, tmp_path, dtype):
    model, path = tmp_path / "model", tmp_path / "saved.ckpt"
    state = {f"module.{name}": tensor.to(getattr(torch, dtype)) for name, tensor in saved["state_dict"].items()}
    torch.save({"net": state}, path)
    options = ["--cast", "float32", "--heads", "1", "--weights", "net"]
    assert main(["convert", "from-torch", str(path), str(model), "--no-statistics", *options]) == 0
    assert main(["convert", "verify", str(model), str(path), "--frames", "20", "--windows", "1", *options]) == 0
    assert main(["convert", "inspect", str(path), *options]) == 0


def test_rounding_from_float64_is_reported(torch, saved, tmp_path, capsys):
    state = {name: tensor.double() * (1 if name == PE else 1 + 1e-9) for name, tensor in saved["state_dict"].items()}
    torch.save({**saved, "state_dict": state}, tmp_path / "saved.ckpt")
    command = ["convert", "from-torch", str(tmp_path / "saved.ckpt"), str(tmp_path / "m"), "--no-statistics"]
    assert main([*command, "--cast", "float32"]) == 0
    assert "rounded by at most" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        lambda content: {**content, "hyper_parameters": {}},
        lambda content: {**content, "ema": content["state_dict"]},
        lambda content: {**content, "state_dict": {n: t.double() for n, t in content["state_dict"].items()}},
    ],
)
def test_only_the_models_own_float32_weights_are_continued(torch, saved, tmp_path, refused, change):
    changed = change(saved)
    if "ema" in changed:
        changed["ema"] = averaged(changed["ema"])
    torch.save(changed, tmp_path / "saved.ckpt")
    np.savez(tmp_path / "s.npz", mean=np.zeros(156, np.float32), std=np.ones(156, np.float32))
    options = ["--cast", "float32", "--heads", "1", *(["--weights", "ema"] if "ema" in changed else [])]
    run = tmp_path / "run"
    message = refused(
        "convert", "from-torch", tmp_path / "saved.ckpt", "--run", run, "--statistics", tmp_path / "s.npz", *options
    )
    assert any(word in message for word in ("weights only", "without --run"))
    assert not run.exists()


def test_weights_in_float32_stay_views_of_the_file(torch, saved, tmp_path):
    torch.save(saved, tmp_path / "saved.ckpt")
    arrays = read_checkpoint(Path(tmp_path / "saved.ckpt")).parameters().values()
    assert not any(array.flags.owndata or array.flags.writeable for array in arrays)
