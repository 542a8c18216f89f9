"""Runs of a sweep ranked by their probes: differences of macro-F1, paired by subject, with intervals.

Losses of different pretext tasks cannot be compared; scores of the same probe can.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.probe.report.results import MethodResult, load_result
from selfpab_jax.probe.report.summary import PairedDifference, compare, subject_macro_f1
from selfpab_jax.probe.report.tables import ScoreTable, percent
from selfpab_jax.scaling.sweep.manifest import PlannedRun, Sweep
from selfpab_jax.scaling.sweep.result import macro_f1_of, read_result


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only.

    Attributes:
        name: of the runs, without the seed.
        seeds: of those that are probed.
        subjects: macro-F1 of each subject, mean over seeds.
        mean: over subjects.
        difference: to the reference, or None for the reference itself.
    """

    name: str
    seeds: tuple[int, ...]
    subjects: dict[str, float]
    mean: float
    difference: PairedDifference | None


@dataclass(frozen=True)
class Comparison:
    """Groups of a sweep, the best first.

    Attributes:
        groups: those with a probed run.
        reference: name of the group that the others are compared with.
        unprobed: names of runs that are left out, because they have no score by the sweep's present probe.
        without: classes that do not count.
    """

    groups: tuple[Group, ...]
    reference: str
    unprobed: tuple[str, ...]
    without: tuple[str, ...]

    def table(self) -> ScoreTable:
        """For the terminal and for Markdown."""
        rows = []
        for group in self.groups:
            ahead = ("reference", "", "")
            if (d := group.difference) is not None:
                ahead = (
                    f"{100 * d.mean:+.1f}",
                    f"{100 * d.low:+.1f} to {100 * d.high:+.1f}",
                    f"{d.better} of {d.subjects}",
                )
            rows.append((group.name, percent(group.mean), *ahead, str(len(group.seeds))))
        names = ", ".join(sorted(self.groups[0].subjects))
        notes = [f"macro-F1 per subject, mean over seeds and {len(self.groups[0].subjects)} subjects: {names}"]
        notes += [
            "these subjects have chosen whatever is taken from this table: score it on others",
        ]
        notes += [f"classes left out: {', '.join(self.without)}"] if self.without else []
        notes += [f"not probed, left out: {', '.join(self.unprobed)}"] if self.unprobed else []
        header = ("runs", "macro-F1", f"ahead of {self.reference}", "95% interval", "better for", "seeds")
        return ScoreTable("Probes of the sweep, percent", header, tuple(rows), tuple(notes), ())

    def as_json(self) -> str:
        """All numbers, per subject."""
        return json.dumps(asdict(self), indent=1, allow_nan=True)


def compare_runs(sweep: Sweep, reference: str | None = None, without: Sequence[str] = ()) -> Comparison:
    """Rank the runs of a sweep by the macro-F1 of their probes.

    Args:
        sweep: with a probe.
        reference: name of the runs that the others are compared with, without the seed; those of the first run where
            not given.
        without: classes of the probe that do not count.

    Raises:
        ConfigError: no such runs or classes.
        DataError: no run is probed, or the probes scored different subjects or classes.
    """
    names = list(dict.fromkeys(_group_name(line) for line in sweep.lines if not line.is_trunk))
    reference = names[0] if reference is None else reference
    if reference not in names:
        raise ConfigError(f"--reference {reference}: no such runs; there are {', '.join(names)}")
    scores: dict[str, dict[int, dict[str, float]]] = {}
    classes: tuple[str, ...] | None = None
    unprobed = []
    for line in sweep.lines:
        if line.is_trunk:
            continue
        result = read_result(sweep.run(line))
        if result is None or result.hash != line.hash or line.probe is None or macro_f1_of(line, result) is None:
            unprobed.append(line.name)
            continue
        method = load_result(sweep.run(line) / "probe").headline
        if classes is not None and method.classes != classes:
            raise DataError(f"{line.name} was probed on other classes than the runs before; probe the sweep again")
        classes = method.classes
        scores.setdefault(_group_name(line), {})[line.seed] = _macro_f1(method, without)
    if reference not in scores:
        raise DataError(
            f"no run of {reference} is probed yet; `selfpab-jax sweep run` does it, if the sweep has a probe"
        )
    subjects = {name: _mean_over_seeds(of_seeds, name) for name, of_seeds in scores.items()}
    if len({frozenset(of_subjects) for of_subjects in subjects.values()}) > 1:
        raise DataError("the probes of the runs scored different subjects; probe the sweep again")
    groups = [
        Group(
            name=name,
            seeds=tuple(sorted(scores[name])),
            subjects=of_subjects,
            mean=float(np.nanmean(list(of_subjects.values()))),
            difference=None if name == reference else compare(of_subjects, subjects[reference]),
        )
        for name, of_subjects in subjects.items()
    ]
    groups.sort(key=lambda group: -group.mean)
    return Comparison(tuple(groups), reference, tuple(unprobed), tuple(without))


def _group_name(line: PlannedRun) -> str:
    """The name without the seed."""
    return line.name.removesuffix(f"-s{line.seed}") if "seed" in line.axes else line.name


def _macro_f1(method: MethodResult, without: Sequence[str]) -> dict[str, float]:
    """Of each subject, mean over the seeds of the probe; classes that do not count are left out of the mean."""
    if unknown := [name for name in without if name not in method.classes]:
        raise ConfigError(f"--without_classes {unknown[0]}: no such class; there are {', '.join(method.classes)}")
    return subject_macro_f1(method.confusions, np.array([name not in without for name in method.classes]))


def _mean_over_seeds(of_seeds: Mapping[int, Mapping[str, float]], name: str) -> dict[str, float]:
    first = next(iter(of_seeds.values()))
    if any(set(scores) != set(first) for scores in of_seeds.values()):
        raise DataError(f"the probes of {name} scored different subjects with different seeds; probe the sweep again")
    return {subject: float(np.mean([scores[subject] for scores in of_seeds.values()])) for subject in first}
