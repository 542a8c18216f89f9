"""Settings from presets, YAML files, earlier runs and the command line: the one place that resolves them.

Settings are frozen dataclasses. What is written later wins: the defaults of the class, then each `--config` file, then
the options of the command line. Names that an earlier version used are still read, with a warning.
"""

import argparse
import difflib
import itertools
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

import jsonargparse
import yaml

from selfpab_jax.errors import ConfigError

Settings = TypeVar("Settings")

RENAMED = {
    # name in version 0.1 -> name now, both from the root of the settings; read until version 0.3
    "optimiser": "optimizer",
    "linear.optimiser": "linear.optimizer",
    "mlp.optimiser": "mlp.optimizer",
    "linear.standardise": "linear.standardize",
    "mlp.standardise": "mlp.standardize",
    "baseline.transformer.rematerialise": "baseline.transformer.rematerialize",
    "model.rematerialise": "model.rematerialize",
    "task.alteration": "task.masking",
    "features.surroundings_seconds": "features.context_seconds",
    "dataset.options.rate_hz": "dataset.options.rate",
    "protocol.share_minutes": "protocol.duration_minutes",
    "budgets.shares": "budgets.fractions",
}


def find_preset(name: str | Path) -> Path:
    """The file of that name, or the preset that ships with the package: `probe/harth`, `configs/selfpab.yaml`.

    Only files count: a folder that happens to have the name of a preset is skipped.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    parts = path.with_suffix(".yaml").parts
    parts = parts[parts.index("configs") + 1 :] if "configs" in parts else parts
    shipped = _presets_folder().joinpath(*parts)
    if parts and not path.is_absolute() and shipped.is_file():
        return shipped
    near = difflib.get_close_matches(str(path.with_suffix("")).removeprefix("configs/"), preset_names(), 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"presets are {', '.join(preset_names())}"
    raise ConfigError(f"{name}: no such file and no preset of this name; {hint}")


def preset_names() -> list[str]:
    """Every preset that ships with the package, as `--config` takes it."""
    folder = _presets_folder()
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def _presets_folder() -> Path:
    return Path(str(resources.files("selfpab_jax.configs")))


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a YAML (or JSON) file of settings, with old names brought up to date.

    Raises:
        ConfigError: it cannot be read, is not a mapping, or has a key twice.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_UniqueKeyLoader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())[:300]}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold fields with values (name: value)")
    # JSON is what this program wrote itself: nobody needs to rename anything there.
    return update_names(content, None if path.suffix == ".json" else str(path))


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that appears twice in a mapping, where YAML itself would drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if key in lines:
                raise yaml.YAMLError(f"{key} appears twice, in lines {lines[key]} and {line}; keep one of them")
            lines[key] = line
        return super().construct_mapping(node, deep)


def update_names(content: Mapping[str, Any], where: str | None = None) -> dict[str, Any]:
    """Settings with the names of this version.

    Args:
        content: nested settings, perhaps with names of an earlier version.
        where: file for the warning about old names; none is printed where not given.

    Raises:
        ConfigError: an old and a new name of the same field are both set.
    """
    updated = json_copy(content)
    for old, new in RENAMED.items():
        *groups, name = old.split(".")
        *_, new_name = new.split(".")
        holder: Any = updated
        for group in groups:
            holder = holder.get(group) if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or name not in holder:
            continue
        if new_name in holder:
            raise ConfigError(f"{where or 'settings'}: {old} and {new} are the same field; keep {new}")
        holder[new_name] = holder.pop(name)
        if where is not None:
            print(f"selfpab-jax: {where}: {old} is now called {new}; please rename it", file=sys.stderr)
    return updated


def json_copy(content: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of nested mappings and lists; other values are shared."""

    def copy(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: copy(item) for key, item in value.items()}
        return [copy(item) for item in value] if isinstance(value, list) else value

    return copy(content)


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings as one; values of `over` win.

    Raises:
        ConfigError: a group of fields is given a single value.
    """
    merged = dict(under)
    for name, value in over.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and value is not None and not isinstance(value, Mapping):
            raise ConfigError(
                f"{name} is {value!r}, but it is a group of fields: {', '.join(map(str, old)) or 'name them'}"
            )
        merged[name] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


class _HelpFormatter(jsonargparse.DefaultHelpFormatter):
    """Shows types in words: `list of int or null` instead of `Optional[tuple[int, ...]]`."""

    def _get_type_str(self, action: argparse.Action) -> str | None:
        text, kind = super()._get_type_str(action), getattr(action, "_typehint", None)
        return text if text is None or kind is None else _type_name(kind)


def _type_name(kind: Any) -> str:
    origin, of = get_origin(kind), get_args(kind)
    if kind is type(None):
        return "null"
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_type_name, of)))
    if origin is Literal:
        return " or ".join(filter(None, (", ".join(map(str, of[:-1])), str(of[-1]))))
    if origin in (tuple, list):
        return f"list of {_type_name(of[0])}"
    return getattr(kind, "__name__", str(kind))


class Parser(jsonargparse.ArgumentParser):
    """The argument parser of every command.

    It finds presets by name, knows the option names of earlier versions, and raises `ConfigError` with one line where
    jsonargparse would print its usage and exit.
    """

    def __init__(self, command: str = "", description: str = "", **options: Any):
        # jsonargparse makes further parsers of this class for nested fields, with options of its own.
        options = {"exit_on_error": False, "formatter_class": _HelpFormatter, **options}
        super().__init__(prog=f"selfpab-jax {command}".strip(), description=description, **options)

    def parse_args(self, args: Sequence[str] | None = None, **options: Any) -> jsonargparse.Namespace:
        """Parse the words of a command line."""
        words = [self._current_name(word) for word in (sys.argv[1:] if args is None else args)]
        return super().parse_args(_with_current_groups(with_config_files(words)), **options)

    def format_help(self) -> str:
        """The help, with types by their plain names: `Path` instead of `<class 'Path'>`."""
        return re.sub(r"<class\s+'(?:\w+\.)*(\w+)'>", r"\1", super().format_help())

    def hide(self, *names: str) -> None:
        """Leave options out of the help: those that a file of settings may hold, but nobody should change."""
        for action in self._actions:
            if {f"--{name}" for name in names} & set(action.option_strings):
                action.help = argparse.SUPPRESS

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Report what is wrong in one line, with the nearest name where a name is unknown."""
        raise ConfigError(f"{_one_line(message)}{self._nearest(message)} (see {self.prog} --help)") from ex

    def _current_name(self, word: str) -> str:
        option, equals, value = word.partition("=")
        for old, new in RENAMED.items():
            if option == f"--{old}" or option.startswith(f"--{old}."):
                current = f"--{new}{option.removeprefix(f'--{old}')}"
                print(f"selfpab-jax: {option} is now called {current}", file=sys.stderr)
                return current + equals + value
        return word

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


def with_config_files(words: Sequence[str]) -> list[str]:
    """The words of a command line with the content of each `--config` file in place of its name.

    Raises:
        ConfigError: a file is missing or damaged.
    """
    expanded: list[str] = []
    for word in words:
        expanded += word.split("=", 1) if word.startswith("--config=") else [word]
    for place, word in enumerate(expanded[:-1]):
        if word == "--config":
            expanded[place + 1] = json.dumps(read_yaml(find_preset(expanded[place + 1])), default=str)
    return expanded


def _with_current_groups(words: Sequence[str]) -> list[str]:
    """The words with old names brought up to date inside of values like `--model '{width: 64}'`."""
    current = list(words)
    for place, (option, value) in enumerate(itertools.pairwise(words)):
        group = option.removeprefix("--")
        if option.startswith("--") and value.startswith("{") and group != "config":
            try:
                content = yaml.safe_load(value)
            except yaml.YAMLError:
                continue  # jsonargparse reports it
            for name in reversed(group.split(".")):
                content = {name: content}
            updated: Any = update_names(content, option)
            for name in group.split("."):
                updated = updated[name]
            current[place + 1] = json.dumps(updated, default=str)
    return current


def settings_from(parser: Parser, parsed: jsonargparse.Namespace, of_class: type[Settings]) -> Settings:
    """The settings that were parsed, as an instance of their class.

    Args:
        parser: with the arguments of `of_class`.
        parsed: its result; fields that are not of the class are left out.
        of_class: a dataclass of settings.

    Raises:
        ConfigError: a value makes no sense.
    """
    try:
        fields = parser.instantiate(parsed).as_dict()
    except ValueError as error:
        raise ConfigError(str(error)) from None
    names = of_class.__dataclass_fields__  # pyright: ignore[reportAttributeAccessIssue]
    return of_class(**{name: value for name, value in fields.items() if name in names})


def load_settings(of_class: type[Settings], *sources: str | Path | Mapping[str, Any]) -> Settings:
    """Settings from presets, YAML files and nested values, later ones over earlier ones.

    For example `load_settings(PretrainSettings, "demo", {"data": {"path": "my_records"}})`.

    Args:
        of_class: a dataclass of settings.
        sources: names of presets or files (see `find_preset`), or nested values.

    Raises:
        ConfigError: a file is missing, a field is unknown, or its value makes no sense.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        merged = merge(merged, update_names(source) if isinstance(source, Mapping) else read_yaml(find_preset(source)))
    return parse_settings(of_class, merged)


def parse_settings(of_class: type[Settings], content: Mapping[str, Any]) -> Settings:
    """Settings from nested plain values, as YAML or JSON holds them; fields that are missing take their defaults.

    Args:
        of_class: a dataclass of settings.
        content: nested values; names of earlier versions are understood.

    Raises:
        ConfigError: a field is unknown, or its value makes no sense.
    """
    parser = _parser_of(of_class)
    current = update_names(content)
    foreign = [name for name in current if name not in of_class.__dataclass_fields__]  # pyright: ignore
    if foreign:
        near = difflib.get_close_matches(foreign[0], of_class.__dataclass_fields__, 1, 0.6)  # pyright: ignore
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{foreign[0]} is not a field of {of_class.__name__}{hint}")
    # As text, so that values are read as in a file: PyYAML alone takes 5e-4 for a text.
    return settings_from(
        parser, parser.parse_string(yaml.safe_dump(json.loads(json.dumps(current, default=str)))), of_class
    )


@cache
def _parser_of(of_class: type) -> Parser:
    parser = Parser()
    parser.add_class_arguments(of_class)
    return parser


def _one_line(message: str) -> str:
    line = re.sub(r"\s+", " ", message).strip()
    line = re.sub(r"Parser key \"([\w.]+)\": ", r"\1: ", line)
    line = re.sub(r"Expected an? <class '(\w+)'>\. Got value: ", r"expected \1, got ", line)
    line = re.sub(r"Expected an? typing\.Literal\[(.+?)\]\. Got value: ", r"expected one of \1, got ", line)
    return line[:400]
