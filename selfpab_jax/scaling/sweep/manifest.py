"""The folder of a sweep: its plan, one line per run in plan.jsonl, and where its runs are.

A folder holds `sweep.yaml` (the sweep file as given), `plan.jsonl`, `sweep.json` (its name and number of runs),
`runs/NAME` (ordinary runs of `selfpab-jax pretrain`), `failures/NAME.json` and `leases/`.
"""

import hashlib
import json
import sys
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from selfpab_jax.config import parse_settings, update_names
from selfpab_jax.errors import ConfigError, RunError
from selfpab_jax.io import atomic_path, write_json, write_text
from selfpab_jax.train.config import PretrainSettings, as_json
from selfpab_jax.train.run_dir import DATA_MAY_CHANGE, MAY_CHANGE, SETTINGS_FILE, comparable, differences

PLAN_FILE, SWEEP_FILE, INFO_FILE = "plan.jsonl", "sweep.yaml", "sweep.json"
TRUNK = "trunk"
"""The length of a run that others are branched off."""
LISTED = 4
"""Items of a list that a message names."""


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep: a line of plan.jsonl.

    Attributes:
        index: its number, from 0.
        name: of its directory, made from its axes.
        axes: value of each axis.
        hours, subjects, windows: what it actually trains on: hours of recording, subjects in them, windows.
        parameters, steps, tokens, flops, memory_bytes, device_seconds: estimates; memory is of one device, tokens are
            frames seen, device-seconds are None where no rate is known.
        settings: all settings of the run as JSON, perhaps with the names of an earlier version.
        final: settings of the final measurement, as JSON.
        probe: of the downstream measurement, or None.
        records: fingerprint of the records that it was planned on.
        hash: of everything that determines its result, except the probe.
        trunk: name of the run that it is branched off, or "".
        trunk_steps: steps that it shares with that run; they are in `steps`, `tokens` and `flops`, but not in
            `device_seconds`.
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
    trunk: str = ""
    trunk_steps: int = 0

    @property
    def is_trunk(self) -> bool:
        """Whether it only serves others, and is no point of a fit."""
        return self.axes.get("length") == TRUNK

    @property
    def own_share(self) -> float:
        """Share of its steps that no other run does."""
        return 1 - self.trunk_steps / self.steps

    @property
    def seed(self) -> int:
        """Seed of the subset and the model."""
        return self.settings["seed"]

    def pretrain_settings(self) -> PretrainSettings:
        """The settings of the run under the names of this version.

        Raises:
            ConfigError: they are not valid.
        """
        return parse_settings(PretrainSettings, self.settings)


def hash_of(settings: dict[str, Any], final: dict[str, Any], records: str) -> str:
    """Hash of what determines the result of a run, without the settings that may change when it is resumed.

    Args:
        settings: of the run, as JSON.
        final: settings of the final measurement, as JSON.
        records: fingerprint of the records.
    """
    text = json.dumps([comparable(settings), final, records], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_lines(lines: list[PlannedRun], path: Path) -> None:
    """Write plan.jsonl completely or not at all."""
    write_text(path, "".join(json.dumps(asdict(line)) + "\n" for line in lines))


def read_lines(path: Path) -> list[PlannedRun]:
    """Read plan.jsonl.

    Raises:
        RunError: there is no plan, or a line is damaged or was edited; names the line.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise RunError(
            f"{path.parent} is not a sweep: it has no {path.name} (selfpab-jax sweep plan writes it)"
        ) from None
    lines = [_line(text, f"{path} line {number}") for number, text in enumerate(texts, 1)]
    if not lines or [line.index for line in lines] != list(range(len(lines))):
        raise RunError(f"{path}: lines are missing or not in order; give the sweep file to `sweep plan` again")
    return lines


def _line(text: str, where: str) -> PlannedRun:
    remedy = "give the sweep file to `sweep plan` again; finished runs are kept"
    try:
        stored = json.loads(text)
        known = [each for each in fields(PlannedRun) if each.name in stored or each.default is MISSING]
        line = PlannedRun(**{each.name: stored[each.name] for each in known})
        now = hash_of(line.settings, line.final, line.records)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RunError(f"{where} is damaged; {remedy}") from None
    if now != line.hash:
        raise RunError(f"{where} ({line.name}) was edited; {remedy}")
    return line


@dataclass(frozen=True)
class Sweep:
    """A planned sweep.

    Attributes:
        folder: of the sweep.
        lines: its runs in the order of the plan.
    """

    folder: Path
    lines: list[PlannedRun]

    def line(self, index: int) -> PlannedRun:
        """The run with this number.

        Raises:
            ConfigError: there is none.
        """
        if not 0 <= index < len(self.lines):
            raise ConfigError(f"--index is {index}; {self.folder} has the runs 0 to {len(self.lines) - 1}")
        return self.lines[index]

    def named(self, name: str) -> PlannedRun:
        """The run with this name.

        Raises:
            ConfigError: there is none.
        """
        for line in self.lines:
            if line.name == name:
                return line
        raise ConfigError(f"{self.folder} has no run {name}; selfpab-jax sweep status lists its runs")

    def run(self, line: PlannedRun) -> Path:
        """Directory of a run."""
        return self.folder / "runs" / line.name

    def failure(self, line: PlannedRun) -> Path:
        """File with the reason why a run failed; not in its directory, which may be missing."""
        return self.folder / "failures" / f"{line.name}.json"

    @property
    def leases(self) -> Path:
        """Folder of the leases; version 0.1 called it `claims`, and workers of a sweep must agree on one."""
        old = self.folder / "claims"
        return old if old.is_dir() else self.folder / "leases"


def open_sweep(folder: Path) -> Sweep:
    """Open a sweep; warns if its sweep.yaml was edited after planning, which has no effect by itself.

    Raises:
        RunError: it is not a sweep, or its plan is damaged.
    """
    lines = _whole_plan(folder)
    info, given = _info(folder), _yaml(folder / SWEEP_FILE)
    edited = differences(info.get("given"), given) if info and given is not None else []
    if edited:
        print(
            f"selfpab-jax: {folder / SWEEP_FILE} was edited after planning ({_few(edited)}), which has no effect. "
            f"To apply it: selfpab-jax sweep plan {folder / SWEEP_FILE} --out {folder}",
            file=sys.stderr,
        )
    return Sweep(folder, lines)


def write_sweep(folder: Path, source: Path, name: str, planned: list[PlannedRun]) -> tuple[Sweep, list[str]]:
    """Write a plan to a new folder, or a plan with other runs to the folder of the same sweep.

    Runs that were started must stay as they are; others may be dropped. Kept runs keep their names and their order;
    new ones come after them.

    Args:
        folder: of the sweep.
        source: the sweep file.
        name: of the sweep.
        planned: its runs.

    Returns:
        The sweep, and remarks to print.

    Raises:
        RunError: the folder holds something else, or runs that were started would change; nothing is written then.
        StorageError: the folder cannot be written.
    """
    given = source.read_bytes()
    try:
        old = _old_lines(folder, name)
    except RunError:
        if (folder / INFO_FILE).exists() and _info(folder).get("name") == name and (folder / PLAN_FILE).exists():
            old = _lines_of_runs(folder, planned)
        else:
            raise
    lines, remarks = _joined(folder, old, planned)
    if source.absolute() != (folder / SWEEP_FILE).absolute():
        with atomic_path(folder / SWEEP_FILE) as temporary:
            temporary.write_bytes(given)
    write_json(folder / INFO_FILE, {"name": name, "runs": len(lines), "given": _yaml(folder / SWEEP_FILE)})
    write_lines(lines, folder / PLAN_FILE)
    return Sweep(folder, lines), remarks


def edits(sweep: Sweep, line: PlannedRun) -> list[str]:
    """Differences between the planned settings of a run and those in its directory; empty if there are none."""
    path = sweep.run(line) / SETTINGS_FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError:
        return [f"{SETTINGS_FILE} cannot be read"]
    if not isinstance(stored, dict):
        return [f"{SETTINGS_FILE} is not a mapping"]
    found = differences(comparable(line.settings), comparable(stored))
    try:  # one of them may have the names of an earlier version
        planned, started = (as_json(parse_settings(PretrainSettings, each)) for each in (line.settings, stored))
        return found and differences(comparable(planned), comparable(started))
    except ConfigError:
        return found


def was_started(sweep: Sweep, line: PlannedRun) -> bool:
    """Whether the run has a directory with something in it."""
    run = sweep.run(line)
    return run.is_dir() and any(run.iterdir())


def _old_lines(folder: Path, name: str) -> list[PlannedRun]:
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise RunError(f"{folder} is a file; choose another --out")
    if not (folder / PLAN_FILE).exists():
        foreign = [p.name for p in folder.iterdir() if p.name.lstrip(".").split(".")[0] not in ("sweep", "plan")]
        if foreign:
            raise RunError(f"{folder} holds other files ({_few(foreign)}) and is not a sweep; choose another --out")
        return []
    other = _info(folder).get("name", name)
    if other != name:
        raise RunError(f"{folder} holds the sweep {other}, this is {name}; choose another --out")
    return _whole_plan(folder)


def _whole_plan(folder: Path) -> list[PlannedRun]:
    lines = read_lines(folder / PLAN_FILE)
    planned = _info(folder).get("runs", len(lines))
    if planned != len(lines):
        raise RunError(
            f"{folder / PLAN_FILE} has {len(lines)} of {planned} runs; give the sweep file to `sweep plan` again; "
            "finished runs are kept"
        )
    return lines


def _lines_of_runs(folder: Path, planned: list[PlannedRun]) -> list[PlannedRun]:
    """The lines of the runs that were started, from a new plan in place of a damaged one.

    Raises:
        RunError: the new plan does not have one of them.
    """
    sweep = Sweep(folder, planned)
    known = {line.name for line in planned}
    runs = folder / "runs"
    lost = [run.name for run in sorted(runs.iterdir()) if run.name not in known] if runs.is_dir() else []
    changed = [line.name for line in planned if edits(sweep, line)]
    if lost or changed:
        raise RunError(
            f"{folder / PLAN_FILE} is damaged, and this sweep file does not have the runs {_few(lost + changed)} "
            "that were started; give the sweep file that they are from"
        )
    return [line for line in planned if was_started(sweep, line)]


def _joined(folder: Path, old: list[PlannedRun], planned: list[PlannedRun]) -> tuple[list[PlannedRun], list[str]]:
    new = {line.hash: line for line in planned}
    by_name = {line.name: line for line in planned}
    sweep = Sweep(folder, old)
    kept, dropped, changed = [], [], []
    for line in old:
        key = line.hash if line.hash in new else _current_hash(line)
        if key in new:
            kept.append(_kept(line, new.pop(key)))
        elif not was_started(sweep, line):
            dropped.append(line.name)
        elif line.name in by_name:
            changed.append(f"{line.name}: {_few(_changes(line, by_name[line.name]))}")
        else:
            changed.append(f"{line.name} would be gone")
    if changed:
        raise RunError(
            f"{folder}: {len(changed)} runs that were started would change ({_few(changed)}); nothing was written. "
            "Undo the edit, or choose another --out; new runs may be added"
        )
    lines = [replace(line, index=index) for index, line in enumerate([*kept, *new.values()])]
    names = [line.name for line in lines]
    repeated = [name for name in set(names) if names.count(name) > 1]
    if repeated:
        raise RunError(f"{folder}: two runs have the name {repeated[0]}; choose another --out")
    remarks = [f"{len(kept)} runs stay as planned, {len(new)} are new"] if old else []
    if dropped:
        remarks.append(f"{len(dropped)} runs that were not started are no longer planned ({_few(dropped)})")
    return lines, remarks


def _current_hash(line: PlannedRun) -> str:
    """The hash under the names of this version, for a line that an earlier version wrote."""
    try:
        return hash_of(as_json(line.pretrain_settings()), line.final, line.records)
    except ConfigError:
        return line.hash


def _kept(old: PlannedRun, new: PlannedRun) -> PlannedRun:
    """The new line under the name of the old one; with its hash and the settings that it is of, which runs refer to."""
    if old.hash == new.hash:
        return replace(new, name=old.name, axes=old.axes)
    data = {**old.settings["data"], **{name: new.settings["data"][name] for name in DATA_MAY_CHANGE}}
    changed = {group: value for group, value in new.settings.items() if group in MAY_CHANGE}
    settings = {**{group: value for group, value in old.settings.items() if group not in MAY_CHANGE}, **changed}
    settings["data"] = data
    return replace(new, name=old.name, axes=old.axes, settings=settings, hash=old.hash)


def _changes(old: PlannedRun, new: PlannedRun) -> list[str]:
    before, after = ({**comparable(update_names(each.settings)), "final": each.final} for each in (old, new))
    return differences(before, after) or ["its records changed"]


def _info(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / INFO_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _yaml(path: Path) -> Any:
    try:
        return json.loads(json.dumps(yaml.safe_load(path.read_text(encoding="utf-8")), default=str))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _few(texts: list[str]) -> str:
    more = len(texts) - LISTED
    return ", ".join(texts[:LISTED]) + (f" and {more} more" if more > 0 else "")
