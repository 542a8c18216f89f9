"""Files of settings: what YAML itself would drop without a word, and presets outside of a checkout."""

from pathlib import Path

import pytest

from selfpab_jax.cli.main import main
from selfpab_jax.config import find_preset, load_settings, preset_names, read_yaml
from selfpab_jax.errors import ConfigError
from selfpab_jax.probe.config import ProbeSettings
from selfpab_jax.train.config import PretrainSettings

TWICE = {
    "a block": ("model:\n  width: 64\nseed: 1\nmodel:\n  layers: 2\n", "model appears twice, in lines 1 and 4"),
    "a field": ("model:\n  width: 64\n  width: 32\n", "width appears twice, in lines 2 and 3"),
}


@pytest.mark.parametrize("name", TWICE)
@pytest.mark.parametrize("command", ["pretrain", "probe"])
def test_a_key_that_appears_twice_is_refused(
    name: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content, message = TWICE[name]
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_settings(PretrainSettings, str(tmp_path / "mine.yaml"))
    assert main([command, "--config", str(tmp_path / "mine.yaml")]) == 2
    assert message in capsys.readouterr().err


def test_every_preset_is_found_outside_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert {"demo", "ladder/1b", "probe/harth", "sweeps/data_scaling"} <= set(preset_names())
    for name in preset_names():
        assert read_yaml(find_preset(name))
        if name.startswith("probe/"):
            assert load_settings(ProbeSettings, name).heads
    assert load_settings(PretrainSettings, "ladder/1m").model.width


@pytest.mark.parametrize("command", ["records build", "probe"])
def test_the_help_shows_types_in_words(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "list of str" in shown
    for raw in ("Union[", "Optional[", "Literal[", "tuple[", "<class", "--linear.kind", "--mlp.kind"):
        assert raw not in shown


def test_the_help_of_a_group_lists_its_commands(capsys: pytest.CaptureFixture) -> None:
    assert main(["records", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "records build" in shown
    assert "records describe" in shown
    assert "pretrain" not in shown
