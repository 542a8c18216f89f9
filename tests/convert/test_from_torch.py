"""A checkpoint as a model directory: the same numbers as the original's classes, and the right statistics."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import selfpab_jax
from selfpab_jax.cli.main import main
from selfpab_jax.convert.to_torch import require_torch
from selfpab_jax.errors import ModelError
from selfpab_jax.model.functional import make_functional
from selfpab_jax.model_dir import read_model
from selfpab_jax.signal.normalization import Statistics

LIMIT = 1e-5


def relative(found, wanted) -> float:
    return float(np.abs(np.asarray(found) - wanted).max() / np.abs(wanted).max())


def forward_agrees(model, golden, family):
    """Embedding, layers, attention and reconstruction of a model directory against the original's classes."""
    config, arrays, _ = read_model(model)
    wanted = np.load(golden / f"tiny_{family}_forward.npz")
    network = make_functional(config.model, config.features, config.outputs).build(
        {name: jnp.asarray(array) for name, array in arrays.items()}
    )
    given = [jnp.asarray(wanted["x"])]
    given += [jnp.asarray(wanted["timestamps"].astype(np.int32))] if "timestamps" in wanted else []
    traced = network.encoder.trace(*given)
    assert relative(traced.embedding, wanted["embedding"]) < LIMIT
    for found, layer in zip(traced.layers, wanted["layers"], strict=True):
        assert relative(found, layer) < LIMIT
    if "attention" in wanted:
        for found, attention in zip(traced.attention, wanted["attention"], strict=True):
            assert relative(found[: len(attention)], attention) < LIMIT
    assert relative(network(*given), wanted["reconstruction"]) < LIMIT


@pytest.mark.parametrize("family", ["selfpab", "monoselfpab"])
def test_forward_passes_are_the_original_classes(torch, golden, golden_network, content, tmp_path, family):
    path = tmp_path / "upstream_model.ckpt"
    torch.save(content(golden_network(family)), path)
    assert main(["convert", "from-torch", str(path), str(tmp_path / "m"), "--no-statistics"]) == 0
    assert json.loads((tmp_path / "m" / "config.json").read_text())["family"] == family
    forward_agrees(tmp_path / "m", golden, family)


def test_calendar_positions_are_the_original_classes(torch, golden, lta2v_content, tmp_path):
    path = tmp_path / "upstream_model.ckpt"
    torch.save(lta2v_content, path)
    assert main(["convert", "from-torch", str(path), str(tmp_path / "m"), "--no-statistics"]) == 0
    forward_agrees(tmp_path / "m", golden, "lta2v")
    with pytest.warns(UserWarning, match="no normalization statistics"):
        encoder = selfpab_jax.load_encoder(tmp_path / "m")
    wanted = np.load(golden / "tiny_lta2v_forward.npz")
    with pytest.raises(ModelError, match="needs timestamps"):
        encoder.encode(wanted["x"], normalized=True)
    found = encoder.encode(wanted["x"], wanted["timestamps"], normalized=True)
    assert relative(found, wanted["encoder"]) < LIMIT


@pytest.mark.parametrize("family", ["selfpab", "monoselfpab", "lta2v"])
def test_genuine_files(shared, golden, tmp_path, family):
    path = shared / "golden" / f"tiny_{family}.ckpt"
    assert main(["convert", "from-torch", str(path), str(tmp_path / "m"), "--no-statistics"]) == 0
    forward_agrees(tmp_path / "m", golden, family)


def test_statistics_are_found_in_a_clone_by_features(checkpoint, clone, tmp_path, capsys):
    sets = {"HUNT4": 156, "HUNT4_B": 78, "HUNT4_T": 78, "OTHER": 52}
    path = clone(checkpoint, sets)
    assert main(["convert", "from-torch", str(path), str(tmp_path / "m")]) == 0
    assert "statistics: of the original, HUNT4\n" in capsys.readouterr().out
    found = Statistics.load(tmp_path / "m" / "statistics.npz")
    assert np.array_equal(found.mean, np.float32([5 + feature / 7 for feature in range(156)]))
    frames = np.random.default_rng(0).random((1, 9, 156), np.float32)
    encoder = selfpab_jax.load_encoder(tmp_path / "m")
    same = encoder.encode((frames - found.mean) / found.std, normalized=True)
    assert np.array_equal(encoder.encode(frames), same)


def test_statistics_of_two_sensors_are_put_together(
    torch, golden_network, content, checkpoint, clone, tmp_path, capsys
):
    torch.save(content(golden_network("monoselfpab")), checkpoint)
    path = clone(checkpoint, {"HUNT4": 156, "HUNT4_B": 78, "HUNT4_T": 78})
    assert main(["convert", "from-torch", str(path), str(tmp_path / "m")]) == 0
    assert "HUNT4_B and HUNT4_T" in capsys.readouterr().out
    found = Statistics.load(tmp_path / "m" / "statistics.npz")
    assert found.mean.shape == (156,)
    for sensor, part in (("back", slice(0, 78)), ("thigh", slice(78, 156))):
        encoder = selfpab_jax.load_encoder(tmp_path / "m", sensor=sensor)
        frames = np.random.default_rng(0).random((1, 9, 78), np.float32)
        same = encoder.encode((frames - found.mean[part]) / found.std[part], normalized=True)
        assert np.array_equal(encoder.encode(frames), same)


def test_statistics_that_are_missing_or_ambiguous_are_asked_for(checkpoint, clone, tmp_path, refused):
    target = tmp_path / "m"
    assert "--statistics DIR" in refused("convert", "from-torch", checkpoint, target)
    path = clone(checkpoint, {"HUNT4": 156, "MINE": 156})
    assert "several statistics that fit" in refused("convert", "from-torch", path, target)
    folder = tmp_path / "clone/params/norm_params/MINE/normalization_params_STFT_feats156_seqlen599"
    (folder / "std.csv").write_text("1.0\n" * 155)
    assert "std.csv has 155" in refused("convert", "from-torch", path, target, "--statistics", folder)
    (folder / "std.csv").write_text("one\n")
    assert "std.csv cannot be read" in refused("convert", "from-torch", path, target, "--statistics", folder)
    np.save(tmp_path / "a.npy", np.ones((2, 156)))
    assert "a.npy" in refused("convert", "from-torch", path, target, "--statistics", tmp_path / "a.npy")
    assert not target.exists()


def test_given_statistics(checkpoint, tmp_path, refused, capsys):
    for features in (156, 78):
        folder = tmp_path / str(features)
        folder.mkdir()
        (folder / "mean.csv").write_text("\ufeff" + "0.5\n" * features, encoding="utf-8")
        (folder / "std.csv").write_text("0.0\n" * features)
    assert (
        main(["convert", "from-torch", str(checkpoint), str(tmp_path / "m"), "--statistics", str(tmp_path / "156")])
        == 0
    )
    assert (Statistics.load(tmp_path / "m" / "statistics.npz").std == np.float32(1e-10)).all()
    message = refused("convert", "from-torch", checkpoint, tmp_path / "n", "--statistics", tmp_path / "78")
    assert "statistics of 78 features" in message
    assert (
        main(
            [
                "convert",
                "from-torch",
                str(checkpoint),
                str(tmp_path / "k"),
                "--statistics",
                str(tmp_path / "m/statistics.npz"),
            ]
        )
        == 0
    )


def test_published_statistics(shared, checkpoint, tmp_path):
    given = shared / "published" / "selfpab_hunt4_statistics.npz"
    assert main(["convert", "from-torch", str(checkpoint), str(tmp_path / "m"), "--statistics", str(given)]) == 0
    assert np.array_equal(Statistics.load(tmp_path / "m" / "statistics.npz").mean, np.load(given)["mean"])


def test_a_model_without_statistics_reports_it(checkpoint, tmp_path, capsys):
    assert main(["convert", "from-torch", str(checkpoint), str(tmp_path / "m"), "--no-statistics"]) == 0
    assert "WITHOUT statistics" in capsys.readouterr().out
    assert "none in this directory" in (tmp_path / "m" / "README.md").read_text()
    with pytest.warns(UserWarning, match="no normalization statistics"):
        encoder = selfpab_jax.load_encoder(tmp_path / "m")
    with pytest.raises(ModelError, match="no normalization statistics"):
        encoder.encode(np.zeros((1, 9, 156)))


def test_inspect_summarizes_a_file(checkpoint, capsys, monkeypatch):
    def never(*_):
        raise AssertionError("a weight was read")

    monkeypatch.setattr("selfpab_jax.convert.torch_file.TorchFile.array", never)
    assert main(["convert", "inspect", str(checkpoint)]) == 0
    message = capsys.readouterr().out
    for part in ("family: selfpab", "156 -> 156", "6 heads", "parameters: 98,604", "epoch 1, step 2", "1.6.4"):
        assert part in message
    assert "optimizer state: no" in message
    assert "unknown: nothing" in message


def test_inspect_lists_what_is_unknown(torch, checkpoint, capsys):
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["extra.weight"] = torch.zeros(2)
    torch.save({**content, "my_key": 1}, checkpoint)
    assert main(["convert", "inspect", str(checkpoint)]) == 1
    message = capsys.readouterr().out
    assert "unknown: key my_key, tensor extra.weight" in message
    assert "extra.weight is unexpected" in message


def test_without_pytorch_the_message_has_the_command_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match=r"pip install torch --index-url https://download\.pytorch\.org/whl/cpu"):
        require_torch()


def test_optimizer_state_that_nobody_asked_for_is_not_read(shared, tmp_path, monkeypatch):
    from selfpab_jax.convert.torch_file import TorchFile, open_torch_file

    path, read = shared / "golden" / "tiny_selfpab.ckpt", set()
    locate = TorchFile._entry
    monkeypatch.setattr(TorchFile, "_entry", lambda file, tensor: read.add(tensor.storage.key) or locate(file, tensor))
    assert main(["convert", "from-torch", str(path), str(tmp_path / "m"), "--no-statistics"]) == 0
    content = open_torch_file(path).content
    weights = {tensor.storage.key for tensor in content["state_dict"].values()}
    assert weights < read
    states = content["optimizer_states"][0]["state"].values()
    assert not read & {state[moment].storage.key for state in states for moment in ("step", "exp_avg", "exp_avg_sq")}
