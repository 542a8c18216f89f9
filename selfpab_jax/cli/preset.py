"""`--config` of a preset by its name, wherever the command is started."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path


def with_preset(arguments: Sequence[str]) -> list[str]:
    """The arguments with the file after `--config` found, where it is one that is shipped."""
    words = []
    for argument in arguments:
        words += argument.split("=", 1) if argument.startswith("--config=") else [argument]
    if "--config" in words[:-1]:
        at = words.index("--config") + 1
        words[at] = str(preset(Path(words[at])))
    return words


def preset(path: Path) -> Path:
    """The file itself, or the shipped preset of that name: `probe/harth`, `configs/probe/harth.yaml`, `selfpab`."""
    if path.exists():
        return path
    parts = path.with_suffix(".yaml").parts
    parts = parts[parts.index("configs") + 1 :] if "configs" in parts else parts
    shipped = Path(str(resources.files("selfpab_jax.configs"))).joinpath(*parts)
    return shipped if parts and shipped.exists() else path
