"""Checkpoints in Lightning 1.6's layout, written by torch.save from torch.nn modules with the original's names."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfpab_jax.cli.main import main

PUBLISHED_NORMS = "params/norm_params/{name}/normalization_params_STFT_feats{features}_seqlen599"


@pytest.fixture(scope="session")
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed (extra `convert`)")


@pytest.fixture(scope="session")
def network(torch: Any) -> Callable[..., Any]:
    """The original's network under its names, of torch.nn's modules."""

    def make(features: int, width: int = 60, heads: int = 6, feedforward: int = 96, layers: int = 3) -> Any:
        from selfpab_jax.convert.positions import build_tables

        nn = torch.nn
        layer = nn.TransformerEncoderLayer(width, heads, feedforward, 0.0, batch_first=True)
        model = nn.Module()
        model.emb = nn.Module()
        model.emb.lin_proj_layer = nn.Linear(features, width)
        model.emb.pos_encoder = nn.Module()
        model.emb.pos_encoder.register_buffer(
            "pe", build_tables(torch, "AbsolutePositionalEncoding", width).popitem()[1]
        )
        model.transformer_encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        model.prediction_head = nn.Module()
        model.prediction_head.mlp = nn.Sequential()
        model.prediction_head.mlp.add_module("out_layer", nn.Linear(width, features))
        return model

    return make


@pytest.fixture(scope="session")
def content() -> Callable[..., dict[str, Any]]:
    """What Lightning 1.6.4 writes of such a network; numbers as texts where YAML made them so."""

    def make(
        model: Any, optimizer: Any = None, schedule: dict[str, Any] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        layers = model.transformer_encoder.layers
        args = {
            "batch_size": 8,
            "d_model": model.emb.lin_proj_layer.out_features,
            "dim_feedforward": layers[0].linear1.out_features,
            "dim_prediction_head": None,
            "dropout": "0.1",
            "epochs": 2,
            "lr": "1e-4",
            "lr_scheduler": "LinearWUSchedule",
            "n_encoder_layers": len(layers),
            "n_prediction_head_layers": 1,
            "nhead": str(layers[0].self_attn.num_heads),
            "optimizer": "AdamW",
            "output_activation": None,
            "positional_encoding": "AbsolutePositionalEncoding",
            "seq_operation": None,
            "weight_decay": "1e-5",
            "input_dim": model.emb.lin_proj_layer.in_features,
            "output_dim": model.prediction_head.mlp.out_layer.out_features,
            "total_step_count": 8,
            "_epochs": 2,
        }
        return {
            "epoch": 1,
            "global_step": 2,
            "pytorch-lightning_version": "1.6.4",
            "state_dict": model.state_dict(),
            "loops": {"fit_loop": {"state_dict": {}}},
            "callbacks": {},
            "optimizer_states": [optimizer.state_dict()] if optimizer else [],
            "lr_schedulers": [schedule] if schedule else [],
            "hparams_name": "kwargs",
            "hyper_parameters": {"args": {**args, **arguments}},
        }

    return make


@pytest.fixture(scope="session")
def golden_network(torch: Any, network: Callable[..., Any], golden: Path) -> Callable[[str], Any]:
    """`tiny_selfpab` or `tiny_monoselfpab` as a torch network."""

    def make(family: str) -> Any:
        weights = np.load(golden / f"tiny_{family}_weights.npz")
        model = network(weights["emb.lin_proj_layer.weight"].shape[1])
        model.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files}, strict=False)
        return model

    return make


@pytest.fixture(scope="session")
def lta2v_content(torch: Any, golden: Path, content: Callable[..., Any], network: Callable[..., Any]) -> dict[str, Any]:
    """`tiny_lta2v` in the checkpoint's layout."""
    from selfpab_jax.convert.positions import build_tables

    encodings = ["TemporalPositionalEncoding", "AbsolutePositionalEncoding"]
    weights = np.load(golden / "tiny_lta2v_weights.npz")
    tensors = {name: torch.from_numpy(weights[name]) for name in weights.files}
    made = content(network(96, layers=2), positional_encoding=encodings)
    return {**made, "state_dict": tensors | build_tables(torch, encodings, 60)}


@pytest.fixture
def checkpoint(torch: Any, tmp_path: Path, golden_network: Callable[[str], Any], content: Any) -> Path:
    """`tiny_selfpab` as a file."""
    path = tmp_path / "upstream_model.ckpt"
    torch.save(content(golden_network("selfpab")), path)
    return path


@pytest.fixture
def clone(tmp_path: Path) -> Callable[[Path, dict[str, int]], Path]:
    """A checkpoint inside something like a clone of the original's repository."""

    def make(checkpoint: Path, sets: dict[str, int]) -> Path:
        root = tmp_path / "clone"
        for name, features in sets.items():
            folder = root / PUBLISHED_NORMS.format(name=name, features=features)
            folder.mkdir(parents=True)
            for part, start in (("mean", len(name)), ("std", 1)):
                numbers = "".join(f"{start + feature / 7!r}\n" for feature in range(features))
                (folder / f"{part}.csv").write_text(numbers)
        path = root / "params" / "selfPAB_upstream" / checkpoint.name
        path.parent.mkdir(parents=True)
        shutil.copy(checkpoint, path)
        return path

    return make


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail with a message of one or two lines; returns the message."""

    def run(*words: object) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) not in (0, None)
        message = capsys.readouterr().err.strip()
        assert message.count("\n") <= 1
        assert "Traceback" not in message
        return message

    return run
