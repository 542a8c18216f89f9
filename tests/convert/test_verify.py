"""Two models of either kind on the same windows: a table, a verdict and an exit code."""

import pytest

from selfpab_jax.cli.main import main


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
    assert "no model directory" in refused("convert", "verify", tmp_path, model)
    assert "no records here" in refused("convert", "verify", model, model, "--data", tmp_path)
