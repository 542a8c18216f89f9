"""Two models of either kind on the same windows: a table, a verdict and an exit code."""

import shutil

import numpy as np
import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.signal.normalization import Statistics


@pytest.fixture
def model(checkpoint, tmp_path):
    assert main(["convert", "from-torch", str(checkpoint), str(tmp_path / "m"), "--no-statistics"]) == 0
    return tmp_path / "m"


def verify(*words) -> int:
    return main(["convert", "verify", *map(str, words), "--frames", "59"])


def test_every_pair_of_kinds(model, checkpoint, capsys):
    for pair in ((model, checkpoint), (checkpoint, model), (model, model), (checkpoint, checkpoint)):
        assert verify(*pair, "--attention") == 0
        said = capsys.readouterr().out
        for part in ("embedding", "layer 2", "attention 2", "reconstruction", "the same"):
            assert part in said


def test_calendar_positions(torch, lta2v_content, tmp_path):
    path = tmp_path / "lta2v.ckpt"
    torch.save(lta2v_content, path)
    assert main(["convert", "from-torch", str(path), str(tmp_path / "l"), "--no-statistics"]) == 0
    assert verify(path, tmp_path / "l", "--tolerance", "1e-5") == 0


def test_a_small_difference_is_found(torch, model, checkpoint, capsys):
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["transformer_encoder.layers.1.linear2.bias"][7] += 0.01
    torch.save(content, checkpoint)
    capsys.readouterr()
    assert verify(model, checkpoint) == 1
    said = capsys.readouterr().out
    assert "DIFFERENT" in said
    errors = {line.rsplit(maxsplit=3)[0].strip(): float(line.split()[-1]) for line in said.splitlines()[1:-1]}
    assert errors["layer 0"] < 1e-5 < 1e-3 < errors["layer 1"]


def test_bfloat16_is_near_but_not_the_same(model, checkpoint):
    assert verify(model, checkpoint, "--compute", "bfloat16") == 0
    assert verify(model, checkpoint, "--compute", "bfloat16", "--tolerance", "1e-4") == 1


def test_models_of_different_shape(torch, network, content, model, tmp_path, refused):
    torch.save(content(network(156, layers=2)), tmp_path / "other.ckpt")
    assert "layers 3 and 2" in refused("convert", "verify", model, tmp_path / "other.ckpt")
    assert "not a model directory" in refused("convert", "verify", tmp_path, model)
    assert "no records here" in refused("convert", "verify", model, model, "--data", tmp_path)


@pytest.mark.parametrize("part", ["mean", "std"])
def test_statistics_of_model_directories_are_compared(checkpoint, model, tmp_path, capsys, part):
    given = tmp_path / "statistics.npz"
    parts = {"mean": np.zeros(156, np.float32), "std": np.ones(156, np.float32)}
    Statistics(**parts, kind="given").save(given)
    with_them, others = tmp_path / "with", tmp_path / "others"
    assert main(["convert", "from-torch", str(checkpoint), str(with_them), "--statistics", str(given)]) == 0
    shutil.copytree(with_them, others)
    for pair, said in (
        ((with_them, others), "statistics: the same"),
        ((with_them, model), "statistics: only the first has any"),
        ((model, with_them), "statistics: only the second has any"),
        ((model, model), "statistics: neither has any"),
    ):
        assert verify(*pair) == 0
        assert said in capsys.readouterr().out
    assert verify(with_them, checkpoint) == 0
    assert "statistics" not in capsys.readouterr().out
    parts[part][7] += 0.5
    Statistics(**parts, kind="given").save(others / "statistics.npz")
    assert verify(with_them, others) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-2] == f"statistics: DIFFERENT: {part} in 1 of 156 features, by at most 5.0e-01"
    assert said[-1].startswith("DIFFERENT: ")
    assert said[-1].endswith("their statistics differ")
