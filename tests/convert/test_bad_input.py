"""Every bad file is refused in a line or two, with an exit code that is not 0, and nothing is left behind."""

import io
import os
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from selfpab_jax.cli.main import main

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:85177d\nsize 793353563\n"


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def rejected(tmp_path, refused):
    """Both commands refuse a file, and neither leaves anything; returns the message of from-torch."""

    def check(path: Path) -> str:
        out = tmp_path / "out"
        out.mkdir()
        message = refused("convert", "from-torch", path, out / "model", "--no-statistics")
        assert list(out.iterdir()) == []
        return message

    return check


@pytest.fixture
def changed(torch, tmp_path, checkpoint, rejected):
    """The message of from-torch about `tiny_selfpab` after a change to its content."""

    def check(change) -> str:
        content = torch.load(checkpoint, weights_only=True)
        change(content)
        path = tmp_path / "changed.ckpt"
        torch.save(content, path)
        return rejected(path)

    return check


def test_the_error_for_an_lfs_pointer_has_the_size_of_the_file(tmp_path, rejected):
    path = tmp_path / "upstream_model.ckpt"
    path.write_text(POINTER)
    message = rejected(path)
    assert "Git LFS pointer" in message
    assert "793,353,563 bytes" in message


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_truncated(checkpoint, rejected, share):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(share * len(whole))])
    message = rejected(checkpoint)
    assert "truncated or damaged" in message
    assert "selfpab has 793,353,563 bytes" in message


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."])
def test_no_zip(tmp_path, rejected, content):
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    assert "not a checkpoint" in rejected(path)


def test_missing_file_and_directory(tmp_path, rejected, refused):
    assert "cannot be read" in rejected(tmp_path / "nothing.ckpt")
    assert "cannot be read" in refused("convert", "inspect", tmp_path)


def test_a_zip_that_is_no_checkpoint(tmp_path, rejected):
    path = tmp_path / "archive.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert "a zip file but not a checkpoint" in rejected(path)


def test_a_pickle_that_names_another_callable(torch, tmp_path, rejected, refused):
    ran, path = tmp_path / "ran", tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"emb.lin_proj_layer.weight": Evil(ran)}}, path)
    assert "names posix.system, which is refused; nothing was run" in rejected(path)
    assert "names posix.system" in refused("convert", "inspect", path)
    assert "names posix.system" in refused("convert", "verify", path, path)
    assert not ran.exists()


def test_a_whole_pickled_module(torch, tmp_path, rejected):
    path = tmp_path / "module.ckpt"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "torch.nn.modules.linear.Linear, which is refused" in rejected(path)


def test_values_that_are_not_finite_are_named(changed):
    def change(content):
        content["state_dict"]["transformer_encoder.layers.1.linear1.bias"][3] = np.nan
        content["state_dict"]["prediction_head.mlp.out_layer.bias"][0] = np.inf

    message = changed(change)
    assert "not finite in transformer_encoder.layers.1.linear1.bias, prediction_head.mlp.out_layer.bias" in message


def test_damaged_weights_are_detected(checkpoint, rejected):
    data = bytearray(checkpoint.read_bytes())
    with zipfile.ZipFile(checkpoint) as archive:
        entry = next(info for info in archive.infolist() if info.filename.endswith("/data/5"))
    data[entry.header_offset + 200] ^= 1
    checkpoint.write_bytes(data)
    assert "checksum" in rejected(checkpoint)


def test_a_downstream_mlp(changed):
    def change(content):
        tensors = content["state_dict"]
        content["state_dict"] = {f"upstream_models.0.model.{name}": tensor for name, tensor in tensors.items()}

    assert "is a DownstreamMLP" in changed(change)


def test_a_downstream_mlp_by_its_arguments(changed):
    args = {"upstream_algorithm": "TransformerEncoderNetwork"}
    assert "is a DownstreamMLP" in changed(lambda content: content["hyper_parameters"]["args"].update(args))


@pytest.mark.parametrize(
    ("encoding", "known"),
    [
        ("RotaryEncoding", False),
        (["TemporalPositionalEncoding"], False),
        (["AbsolutePositionalEncoding"], True),
        (7, False),
    ],
)
def test_unknown_positional_encodings_by_name(changed, encoding, known):
    message = changed(lambda content: content["hyper_parameters"]["args"].update(positional_encoding=encoding))
    # The known one numbers its table, which this file does not.
    assert ("its tables are emb.pos_encoder.pe" if known else "is unknown") in message
    assert "positional encoding" in message


def test_an_unknown_positional_table(changed):
    def change(content):
        content["state_dict"]["emb.pos_encoder.pe"] *= 1.001

    assert "emb.pos_encoder.pe is an unknown positional encoding" in changed(change)


def test_a_table_of_another_shape(changed):
    def change(content):
        content["state_dict"]["emb.pos_encoder.pe"] = content["state_dict"]["emb.pos_encoder.pe"][:, :5000].clone()

    assert "unknown positional encoding" in changed(change)


@pytest.mark.parametrize("version", ["2.1.0", "1.5.10", None])
def test_another_lightning_needs_an_option(changed, version):
    message = changed(lambda content: content.update({"pytorch-lightning_version": version}))
    assert "PyTorch Lightning" in message
    assert "--any-version" in message


def test_another_lightning_with_the_same_layout_converts_with_the_option(torch, tmp_path, checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "pytorch-lightning_version": "2.1.0"}, checkpoint)
    command = ["convert", "from-torch", str(checkpoint), str(tmp_path / "m"), "--no-statistics"]
    assert main([*command, "--any-version"]) == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("nhead", "six", "nhead is 'six'"),
        ("nhead", None, "nhead is None"),
        ("nhead", 7, "not a multiple"),
        ("d_model", 66, "not 66 x 156"),
        ("n_encoder_layers", 4, "layers.3.norm1.weight is missing"),
        ("n_encoder_layers", "2", "layers.2.norm1.weight is unexpected"),
        ("n_prediction_head_layers", 2, "n_prediction_head_layers is 2"),
        ("output_activation", "softmax", "output_activation is 'softmax'"),
        ("input_dim", 155, "has shape 60 x 156, not 60 x 155"),
        ("dropout", float("nan"), "dropout is nan"),
        ("n_encoder_layers", "2000000", "too few for a model of 2000000 layers"),
        ("n_encoder_layers", "1e18", "too few"),
        ("n_encoder_layers", "1e400", "n_encoder_layers is '1e400'; a number is needed"),
        ("n_encoder_layers", 2.5, "n_encoder_layers is 2.5"),
        ("nhead", 0, "nhead is 0; it must be at least 1"),
        ("nhead", "-6", "nhead is -6; it must be at least 1"),
        pytest.param("nhead", 10**70, "not a multiple", id="large"),
        pytest.param("nhead", 10**2000, "damaged (ValueError: an impossible number)", id="huge"),
        ("d_model", 0, "d_model is 0; it must be at least 1"),
        ("d_model", -60, "d_model is -60; it must be at least 1"),
        ("d_model", "6e17", "not 600000000000000000 x 156"),
        ("d_model", "wide", "d_model is 'wide'; a number is needed"),
        ("dim_feedforward", 0, "dim_feedforward is 0; it must be at least 1"),
        ("input_dim", 0, "input_dim is 0; it must be at least 1"),
        ("input_dim", -156, "input_dim is -156; it must be at least 1"),
        ("output_dim", "many", "output_dim is 'many'; a number is needed"),
        pytest.param("batch_size", "9" * 70_000, "hyper_parameters is damaged or hostile", id="long"),
    ],
)
def test_hyper_parameters_that_do_not_fit(changed, name, value, message):
    assert message in changed(lambda content: content["hyper_parameters"]["args"].update({name: value}))


def own_loop() -> dict:
    loop: dict = {}
    loop["self"] = loop
    return loop


def doubling() -> list:
    value: list = ["lol"]
    for _ in range(30):
        value = [value, value]
    return value


@pytest.mark.parametrize("make", [own_loop, doubling])
@pytest.mark.parametrize("place", ["args", "loops", "optimizer_states"])
def test_a_file_that_refers_to_itself_is_refused_by_both_commands(torch, tmp_path, checkpoint, refused, make, place):
    content = torch.load(checkpoint, weights_only=True)
    (content["hyper_parameters"]["args"] if place == "args" else content)[place] = make()
    torch.save(content, checkpoint)
    for command in (["inspect", checkpoint], ["from-torch", checkpoint, tmp_path / "m", "--no-statistics"]):
        assert "damaged or hostile" in refused("convert", *command)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(("name", "value"), [("n_encoder_layers", "2000000"), ("nhead", 0), ("input_dim", -1)])
def test_inspect_gives_the_reason_why_sizes_are_impossible(torch, checkpoint, capsys, name, value):
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["args"][name] = value
    torch.save(content, checkpoint)
    assert main(["convert", "inspect", str(checkpoint)]) == 1
    assert str(value) in capsys.readouterr().out.splitlines()[-1]


def test_the_list_of_inspect_is_cut(torch, checkpoint, capsys):
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content | {f"key\n{number}": number for number in range(5_000)}, checkpoint)
    assert main(["convert", "inspect", str(checkpoint)]) == 0
    message = capsys.readouterr().out
    assert "and 4,900 more" in message
    assert len(message) < 5_000
    assert "key\n" not in message


@pytest.mark.parametrize("key", ["state_dict", "hyper_parameters"])
def test_missing_parts(changed, key):
    assert key in changed(lambda content: content.pop(key))


def test_extras_are_ignored_only_if_the_table_names_them(torch, changed, checkpoint, tmp_path):
    message = changed(lambda content: content["state_dict"].update({"extra.counter": torch.zeros(2)}))
    assert "extra.counter is unexpected" in message
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["val_metrics.0.confmat"] = torch.zeros(3, 3, dtype=torch.int64)
    torch.save(content, checkpoint)
    assert main(["convert", "from-torch", str(checkpoint), str(tmp_path / "m"), "--no-statistics"]) == 0


def test_too_little_disk(tmp_path, checkpoint, rejected, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "free space" in rejected(checkpoint)


def test_a_disk_that_fills_up_while_writing(checkpoint, rejected, monkeypatch):
    def full(path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("selfpab_jax.model_dir.write_tensors", full)
    assert "no space left" in rejected(checkpoint)


def test_to_torch_leaves_nothing_when_the_disk_fills_up(torch, tmp_path, checkpoint, refused, monkeypatch):
    model, out = tmp_path / "model", tmp_path / "out"
    out.mkdir()
    assert main(["convert", "from-torch", str(checkpoint), str(model), "--no-statistics"]) == 0

    class Full(io.FileIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, warnings.catch_warnings():
        patch.setattr("builtins.open", lambda path, mode: Full(path, mode))
        assert "no space left" in refused("convert", "to-torch", model, out / "back.ckpt")
    assert list(out.iterdir()) == []


def test_what_exists_is_not_overwritten(checkpoint, tmp_path, refused):
    command = ["convert", "from-torch", str(checkpoint), str(tmp_path / "model"), "--no-statistics"]
    assert main(command) == 0
    assert "exists" in refused(*command)
    assert main([*command, "--overwrite"]) == 0
    assert "exists" in refused("convert", "to-torch", tmp_path / "model", checkpoint)
    assert "is a file" in refused("convert", "from-torch", checkpoint, checkpoint, "--no-statistics")


def test_damaged_model_directory(checkpoint, tmp_path, refused):
    model = tmp_path / "model"
    assert main(["convert", "from-torch", str(checkpoint), str(model), "--no-statistics"]) == 0
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "damaged" in refused("convert", "to-torch", model, tmp_path / "back.ckpt")
    config = model / "config.json"
    config.write_text(config.read_text().replace('"layers": 3', '"layers": 2000000'))
    assert "damaged" in refused("convert", "verify", model, model)
    weights.unlink()
    assert "missing" in refused("convert", "to-torch", model, tmp_path / "back.ckpt")
    assert not (tmp_path / "back.ckpt").exists()
