"""One planned run, as a line of plan.jsonl."""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from selfpab_jax.errors import ConfigError, RunError
from selfpab_jax.train.run_dir import SETTINGS_FILE, changes, comparable, write_json

# One planned run, as a line of plan.jsonl.


@dataclass(frozen=True)
class Line:
    """A run of a sweep.

    Attributes:
        index: its number, from 0.
        name: of its run directory, told by its axes.
        axes: value of each axis.
        hours, subjects, windows: that it really trains on: hours of recording, people in them.
        parameters, steps, tokens, flops, memory_bytes, device_seconds: estimates; memory is of one device, tokens are
            frames seen, device seconds None where no rate is known.
        settings: of the run, whole, as JSON.
        final: of the measurement after training, as JSON.
        probe: of the downstream measurement, or None.
        records: fingerprint of the records that it was planned on.
        hash: of everything that decides its result but the probe.
    """

    index: int
    name: str
    axes: dict[str, Any]
    hours: float
    subjects: int
    windows: int
    parameters: int
    steps: int
    tokens: float
    flops: float
    memory_bytes: int
    device_seconds: float | None
    settings: dict[str, Any]
    final: dict[str, Any]
    probe: dict[str, Any] | None
    records: str
    hash: str

    @property
    def seed(self) -> int:
        """Of subset and model."""
        return self.settings["seed"]


def hash_of(settings: dict[str, Any], final: dict[str, Any], records: str) -> str:
    """Of what decides a run's result: its settings without those a resumed run may change, and what it is judged by."""
    text = json.dumps([comparable(settings), final, records], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_lines(lines: list[Line], path: Path) -> None:
    """Write plan.jsonl; it is whole or as it was."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines), encoding="utf-8")
    temporary.replace(path)


def read_lines(path: Path) -> list[Line]:
    """Read plan.jsonl.

    Raises:
        RunError: there is none, or a line is damaged or was changed by hand; names the line.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise RunError(f"{path.parent} is no sweep: it has no {path.name} (selfpab-jax sweep plan makes it)") from None
    lines = [_line(text, f"{path} line {number}") for number, text in enumerate(texts, 1)]
    if not lines or [line.index for line in lines] != list(range(len(lines))):
        raise RunError(f"{path}: lines are missing or not in order; give the sweep file to `sweep plan` again")
    return lines


def _line(text: str, where: str) -> Line:
    mend = "give the sweep file to `sweep plan` again; finished runs are kept"
    try:
        told = json.loads(text)
        line = Line(**{each.name: told[each.name] for each in fields(Line)})
        now = hash_of(line.settings, line.final, line.records)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RunError(f"{where} is damaged; {mend}") from None
    if now != line.hash:
        raise RunError(f"{where} ({line.name}) was changed by hand; {mend}")
    return line


# The folder of a sweep: its file as given, its plan, and where its runs lie.

PLAN_FILE, SWEEP_FILE, FACTS_FILE = "plan.jsonl", "sweep.yaml", "sweep.json"
TOLD = 4  # of many things, so many are told


@dataclass(frozen=True)
class Sweep:
    """A planned sweep."""

    folder: Path
    lines: list[Line]

    def line(self, index: int) -> Line:
        """The run of a number.

        Raises:
            ConfigError: there is none.
        """
        if not 0 <= index < len(self.lines):
            raise ConfigError(f"--index is {index}; {self.folder} has the runs 0 to {len(self.lines) - 1}")
        return self.lines[index]

    def named(self, name: str) -> Line:
        """The run of a name.

        Raises:
            ConfigError: there is none.
        """
        for line in self.lines:
            if line.name == name:
                return line
        raise ConfigError(f"{self.folder} has no run {name} (any more); selfpab-jax sweep status tells which there are")

    def run(self, line: Line) -> Path:
        """Directory of a run."""
        return self.folder / "runs" / line.name

    def failure(self, line: Line) -> Path:
        """Where the reason of a failed run lies: not in its directory, which it may not have."""
        return self.folder / "failures" / f"{line.name}.json"

    @property
    def claims(self) -> Path:
        """Folder of the claims."""
        return self.folder / "claims"


def open_sweep(folder: Path) -> Sweep:
    """Open a sweep; says so if its sweep.yaml was edited after planning, which changes nothing by itself.

    Raises:
        RunError: not a sweep, or its plan is damaged.
    """
    lines = _whole_plan(folder)
    facts, given = _facts(folder), _yaml(folder / SWEEP_FILE)
    edited = changes(facts.get("given"), given) if facts and given is not None else []
    if edited:
        print(
            f"selfpab-jax: {folder / SWEEP_FILE} was edited after planning ({_few(edited)}); runs go by the plan. "
            f"To take the change over: selfpab-jax sweep plan {folder / SWEEP_FILE} --out {folder}",
            file=sys.stderr,
        )
    return Sweep(folder, lines)


def write_sweep(folder: Path, source: Path, name: str, planned: list[Line]) -> tuple[Sweep, list[str]]:
    """Write a plan into a new folder, or one with more runs into the folder of the same sweep.

    Runs that were started must stay as they are; those that were not may go. Kept runs keep their names and their
    order, new ones come after them.

    Args:
        folder: of the sweep.
        source: the sweep file.
        name: of the sweep.
        planned: its lines.

    Returns:
        The sweep, and remarks for people.

    Raises:
        RunError: the folder holds something else, or runs that were started would change; nothing is written then.
    """
    given = source.read_bytes()
    try:
        old = _old_lines(folder, name)
    except RunError:
        if (folder / FACTS_FILE).exists() and _facts(folder).get("name") == name and (folder / PLAN_FILE).exists():
            old = _lines_of_runs(folder, planned)
        else:
            raise
    lines, remarks = _joined(folder, old, planned)
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(lines, folder / (PLAN_FILE + ".next"))
    if source.absolute() != (folder / SWEEP_FILE).absolute():
        (folder / SWEEP_FILE).write_bytes(given)
    write_json(folder / FACTS_FILE, {"name": name, "runs": len(lines), "given": _yaml(folder / SWEEP_FILE)})
    (folder / (PLAN_FILE + ".next")).replace(folder / PLAN_FILE)
    return Sweep(folder, lines), remarks


def changed_by_hand(sweep: Sweep, line: Line) -> list[str]:
    """What differs between the settings a run's directory holds and those that were planned; empty where nothing."""
    path = sweep.run(line) / SETTINGS_FILE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (ValueError, UnicodeDecodeError):
        return [f"{SETTINGS_FILE} cannot be read"]
    if not isinstance(told, Mapping):
        return [f"{SETTINGS_FILE} is no mapping"]
    return changes(comparable(line.settings), comparable(dict(told)))


def was_started(sweep: Sweep, line: Line) -> bool:
    """Whether the run has a directory with something in it."""
    run = sweep.run(line)
    return run.is_dir() and any(run.iterdir())


def _old_lines(folder: Path, name: str) -> list[Line]:
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise RunError(f"{folder} is a file; choose another --out")
    if not (folder / PLAN_FILE).exists():
        foreign = [p.name for p in folder.iterdir() if p.name.split(".")[0] not in ("sweep", "plan")]
        if foreign:
            raise RunError(f"{folder} holds other files ({_few(foreign)}) and is no sweep; choose another --out")
        return []
    there = _facts(folder).get("name", name)
    if there != name:
        raise RunError(f"{folder} holds the sweep {there}, this is {name}; choose another --out")
    return _whole_plan(folder)


def _whole_plan(folder: Path) -> list[Line]:
    lines = read_lines(folder / PLAN_FILE)
    planned = _facts(folder).get("runs", len(lines))
    if planned != len(lines):
        raise RunError(
            f"{folder / PLAN_FILE} has {len(lines)} of {planned} runs; give the sweep file to `sweep plan` again; "
            "finished runs are kept"
        )
    return lines


def _lines_of_runs(folder: Path, planned: list[Line]) -> list[Line]:
    """For a damaged plan: what the new one says of the runs that are there; those it does not know are refused."""
    sweep = Sweep(folder, planned)
    known = {line.name for line in planned}
    runs = folder / "runs"
    lost = [run.name for run in sorted(runs.iterdir()) if run.name not in known] if runs.is_dir() else []
    changed = [line.name for line in planned if changed_by_hand(sweep, line)]
    if lost or changed:
        raise RunError(
            f"{folder / PLAN_FILE} is damaged, and this sweep file does not make the runs {_few(lost + changed)} "
            "that were started with it; give the sweep file that made them"
        )
    return [line for line in planned if was_started(sweep, line)]


def _joined(folder: Path, old: list[Line], planned: list[Line]) -> tuple[list[Line], list[str]]:
    new = {line.hash: line for line in planned}
    by_name = {line.name: line for line in planned}
    sweep = Sweep(folder, old)
    kept, gone, told = [], [], []
    for line in old:
        if line.hash in new:
            kept.append(replace(new.pop(line.hash), name=line.name, axes=line.axes))
        elif not was_started(sweep, line):
            gone.append(line.name)
        elif line.name in by_name:
            told.append(f"{line.name}: {_few(_differences(line, by_name[line.name]))}")
        else:
            told.append(f"{line.name} would be gone")
    if told:
        raise RunError(
            f"{folder}: {len(told)} runs that were started would change ({_few(told)}); nothing was written. Undo the "
            "edit, or choose another --out; new runs may be added"
        )
    lines = [replace(line, index=index) for index, line in enumerate([*kept, *new.values()])]
    names = [line.name for line in lines]
    twice = [name for name in set(names) if names.count(name) > 1]
    if twice:
        raise RunError(f"{folder}: two runs would be called {twice[0]}; choose another --out")
    remarks = [f"{len(kept)} runs stay as they were planned, {len(new)} are new"] if old else []
    if gone:
        remarks.append(f"{len(gone)} runs that were not started are no longer planned ({_few(gone)})")
    return lines, remarks


def _differences(old: Line, new: Line) -> list[str]:
    found = changes({**comparable(old.settings), "final": old.final}, {**comparable(new.settings), "final": new.final})
    return found or ["its records are others"]


def _facts(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / FACTS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _yaml(path: Path) -> Any:
    try:
        return json.loads(json.dumps(yaml.safe_load(path.read_text(encoding="utf-8")), default=str))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _few(texts: list[str]) -> str:
    more = len(texts) - TOLD
    return ", ".join(texts[:TOLD]) + (f" and {more} more" if more > 0 else "")
