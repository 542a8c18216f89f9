"""Back to a checkpoint: every bit of every tensor, under the original's keys, for plain PyTorch and its classes."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from selfpab_jax.cli.main import main
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import ModelConfig, write_model
from selfpab_jax.signal.stft import SpectrogramSettings

OLD = Path(__file__).parents[1] / "artifacts" / "v0.1.tar.xz"
KEYS = ["epoch", "global_step", "pytorch-lightning_version", "state_dict", "hparams_name", "hyper_parameters"]


def there_and_back(torch, path, tmp_path):
    for words in (
        ("from-torch", path, tmp_path / "m", "--no-statistics"),
        ("to-torch", tmp_path / "m", tmp_path / "b.ckpt"),
    ):
        assert main(["convert", *map(str, words)]) == 0
    return torch.load(path, weights_only=True), torch.load(tmp_path / "b.ckpt", weights_only=True)


def same(torch, before, after):
    assert list(after) == KEYS
    assert list(after["state_dict"]) == list(before["state_dict"])
    for name, tensor in before["state_dict"].items():
        assert after["state_dict"][name].numpy().tobytes() == tensor.numpy().tobytes(), name
    assert after["hyper_parameters"] == before["hyper_parameters"]
    assert after["hparams_name"] == "kwargs"
    assert [after[key] for key in KEYS[:3]] == [before[key] for key in KEYS[:3]]


def test_there_and_back(torch, checkpoint, tmp_path, capsys):
    same(torch, *there_and_back(torch, checkpoint, tmp_path))
    assert capsys.readouterr().err == ""


def test_a_model_directory_of_version_0_1(torch, tmp_path):
    with tarfile.open(OLD) as archive:
        archive.extractall(tmp_path, filter="data")
    model, back = tmp_path / "v0.1" / "model", tmp_path / "back.ckpt"
    packed = safetensors.numpy.load_file(model / "model.safetensors")
    assert main(["convert", "to-torch", str(model), str(back)]) == 0
    tensors = torch.load(back, weights_only=True)["state_dict"]
    for layer in range(2):
        attention, prefix = f"encoder.layers.{layer}.attention.", f"transformer_encoder.layers.{layer}.self_attn."
        weight = packed[f"{attention}qkv_kernel"].reshape(16, 48).T
        assert np.array_equal(tensors[f"{prefix}in_proj_weight"], weight)
        assert np.array_equal(tensors[f"{prefix}in_proj_bias"], packed[f"{attention}qkv_bias"].reshape(48))
    assert main(["convert", "verify", str(model), str(back), "--frames", "39"]) == 0


def test_there_and_back_with_calendar_positions(torch, lta2v_content, tmp_path):
    path = tmp_path / "upstream_model.ckpt"
    torch.save(lta2v_content, path)
    before, after = there_and_back(torch, path, tmp_path)
    assert list(after["state_dict"])[2].endswith("minute_embed.emb.weight")
    for name, tensor in before["state_dict"].items():
        assert torch.equal(after["state_dict"][name], tensor)


@pytest.mark.parametrize("family", ["selfpab", "monoselfpab", "lta2v"])
def test_genuine_files_there_and_back(torch, shared, tmp_path, family):
    same(torch, *there_and_back(torch, shared / "golden" / f"tiny_{family}.ckpt", tmp_path))


def test_a_model_of_our_own_opens_strictly_in_torch(torch, network, tmp_path):
    import jax

    settings = ModelSettings(width=12, heads=3, feedforward=8, layers=2, compute="float32")
    parameters = make_functional(settings, 156, 156).initialize(jax.random.key(0))
    config = ModelConfig("selfpab", settings, 156, 156, ("back_x",), ("back",), SpectrogramSettings(), 599)
    write_model(tmp_path / "m", config, {name: np.asarray(array) for name, array in parameters.items()}, None)
    assert main(["convert", "to-torch", str(tmp_path / "m"), str(tmp_path / "b.ckpt")]) == 0
    content = torch.load(tmp_path / "b.ckpt", weights_only=True)
    model = network(156, width=12, heads=3, feedforward=8, layers=2)
    assert list(model.state_dict()) == list(content["state_dict"])
    model.load_state_dict(content["state_dict"], strict=True)
    assert content["hyper_parameters"]["args"]["nhead"] == 3
    assert main(["convert", "verify", str(tmp_path / "m"), str(tmp_path / "b.ckpt"), "--frames", "40"]) == 0


def test_a_table_with_other_last_bits_is_reported(torch, checkpoint, tmp_path, capsys):
    content = torch.load(checkpoint, weights_only=True)
    table = content["state_dict"]["emb.pos_encoder.pe"]
    table[0, 3, 1] = float(np.nextafter(table[0, 3, 1].numpy(), np.float32(0)))
    torch.save(content, checkpoint)
    there_and_back(torch, checkpoint, tmp_path)
    assert "last bits differ" in capsys.readouterr().err
