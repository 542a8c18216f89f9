"""Presets, settings from YAML and the command line: the one place that resolves them."""

import difflib
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse

from selfpab_jax.errors import ConfigError

# `--config` of a preset by its name, wherever the command is started.


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


# The argument parser of every command: jsonargparse, with errors of one line that name the nearest field.


class Parser(jsonargparse.ArgumentParser):
    """Raises `ConfigError` where jsonargparse would print its usage and end the program."""

    def __init__(self, command: str = "", description: str = "", **options: Any):
        # jsonargparse makes further parsers of this class for nested fields, and gives them options of its own.
        options = {"exit_on_error": False, **options}
        super().__init__(prog=f"selfpab-jax {command}".strip(), description=description, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong in a line, with the nearest name where a name is unknown."""
        raise ConfigError(f"{_in_a_line(message)}{self._nearest(message)} (see {self.prog} --help)") from ex

    def _nearest(self, message: str) -> str:
        unknown = re.search(r"nrecognized arguments: --([\w.]+)|[Oo]ption '([\w.]+)'", message)
        if not unknown:
            return ""
        name = unknown.group(1) or unknown.group(2)
        group = re.search(r"Group '([\w.]+)'", message)
        name = f"{group.group(1)}.{name}" if group else name
        near = difflib.get_close_matches(name, sorted(set(self._names()) - {name}), 1, 0.6)
        return f"; did you mean {near[0]}?" if near else ""

    def _names(self) -> Iterable[str]:
        for action in self._actions:
            yield from (option.removeprefix("--") for option in action.option_strings if option.startswith("--"))


def _in_a_line(message: str) -> str:
    line = re.sub(r"\s+", " ", message).strip()
    line = re.sub(r"Parser key \"([\w.]+)\": ", r"\1: ", line)
    line = re.sub(r"Expected an? <class '(\w+)'>\. Got value: ", r"expected \1, got ", line)
    line = re.sub(r"Expected an? typing\.Literal\[(.+?)\]\. Got value: ", r"expected one of \1, got ", line)
    return line[:400]
