"""What a probe found: arms, their confusion matrices, and what a reader must know of how they came about."""

import csv
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from selfpab_jax.errors import DataError
from selfpab_jax.probe.metrics import Scores, score_subjects
from selfpab_jax.probe.report.summary import Summary, summarize

# What a probe found: arms, their confusion matrices, and what a reader must know of how they came about.

SELECTED_ON_TEST = (
    "selected on the test subject: each test subject doubled as its fold's validation subject (the original's habit), "
    "so these scores flatter"
)
Confusions = Mapping[str, Int64[np.ndarray, "Y Y"]]


@dataclass(frozen=True)
class Budget:
    """How much of the labels an arm may train on.

    Attributes:
        kind: `windows` per activity, a `share` of the windows of each activity (0 to 1), or training `subjects`.
        amount: of them.
    """

    kind: Literal["windows", "share", "subjects"]
    amount: float

    def __str__(self) -> str:
        if self.kind == "share":
            return f"{100 * self.amount:g}% of the windows of each activity"
        one = self.amount == 1
        if self.kind == "subjects":
            return "1 training subject" if one else f"{self.amount:g} training subjects"
        return "1 window per activity" if one else f"{self.amount:g} windows per activity"


@dataclass(frozen=True)
class EncoderFacts:
    """The frozen encoder of the probes; hours of pre-training None where its card does not tell."""

    directory: str
    family: str
    width: int
    layers: int
    pretraining_hours: float | None
    subjects_known: bool


@dataclass(frozen=True)
class Published:
    """A macro-F1 in per cent that somebody else reported on this data set."""

    what: str
    percent: float
    source: str


@dataclass(frozen=True, eq=False)
class Arm:
    """One way from signals to classes under the protocol, with one label budget.

    Attributes:
        name: in files: `linear`.
        title: for people: `SelfPAB, linear head`.
        kind: `probe` on the pre-trained encoder, the same with `random` weights, or a supervised `baseline`.
        seeds: one or more.
        classes: of the data set.
        confusions: for each seed the matrix of each test subject, rows truth; the same subjects for every seed.
        budget: None for all labels.
        chosen: for each seed, by fold: the hyper-parameters that selection chose.
        share_errors: for each seed, by subject: mean absolute error of the class shares per minute; empty where the
            task is not scored by them.
    """

    name: str
    title: str
    kind: Literal["probe", "baseline", "random"]
    seeds: tuple[int, ...]
    classes: tuple[str, ...]
    confusions: tuple[Confusions, ...]
    budget: Budget | None = None
    chosen: tuple[Mapping[str, Any], ...] = ()
    share_errors: tuple[Mapping[str, float], ...] = ()

    def __post_init__(self) -> None:
        where = f"arm {self.name!r}"
        if not self.seeds or len(self.confusions) != len(self.seeds):
            raise DataError(f"{where}: {len(self.confusions)} sets of confusion matrices for {len(self.seeds)} seeds")
        for part, name in ((self.chosen, "choices"), (self.share_errors, "share errors")):
            if part and len(part) != len(self.seeds):
                raise DataError(f"{where}: {len(part)} {name} for {len(self.seeds)} seeds")
        if not self.confusions[0] or any(set(c) != set(self.confusions[0]) for c in self.confusions):
            raise DataError(f"{where}: every seed needs the same test subjects, at least one")
        shape = (len(self.classes), len(self.classes))
        if wrong := [s for c in self.confusions for s, matrix in c.items() if np.shape(matrix) != shape]:
            raise DataError(f"{where}: the confusion matrix of subject {wrong[0]} does not fit {shape[0]} classes")

    @cached_property
    def scores(self) -> tuple[Scores, ...]:
        """Of each seed."""
        return tuple(score_subjects(confusions, self.classes) for confusions in self.confusions)

    @cached_property
    def summary(self) -> Summary:
        """Over all seeds."""
        return summarize(self.confusions)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Sorted names of the test subjects."""
        return tuple(sorted(self.confusions[0]))

    @property
    def full_title(self) -> str:
        """With its budget."""
        return self.title if self.budget is None else f"{self.title}, {self.budget}"


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """All arms on one data set under one protocol.

    Attributes:
        dataset: name of the builder.
        title: of the data set.
        version: of it.
        classes: names by index.
        channels: that were used.
        encoder: None where no arm has one.
        protocol: window, shift, alignment, folds, heads: names and values for people, in order.
        selection: by which subjects hyper-parameters and stopping were chosen: `inner` ones held out of the training
            subjects, the `test` subject itself (the original's habit), or nobody (`fixed`).
        arms: in the order in which they are shown; `headline` is the first probe with all labels.
        leakage: lines about what the encoder saw of these subjects in pre-training; repeated in every table.
        set_aside: lines about data that were not used.
        notes: other lines that a reader of the scores should know: classes missing in a fold, budgets not filled.
        published: figures to compare with.
        seconds: that it took.
        device: that computed.
    """

    dataset: str
    title: str
    version: str
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    encoder: EncoderFacts | None
    protocol: Mapping[str, Any]
    selection: Literal["inner", "test", "fixed"]
    arms: tuple[Arm, ...]
    leakage: tuple[str, ...] = ()
    set_aside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    seconds: float = 0.0
    device: str = ""

    def __post_init__(self) -> None:
        if not self.arms:
            raise DataError(f"{self.dataset}: no arm was scored, so there is nothing to report")
        if other := [arm.name for arm in self.arms if arm.classes != self.classes]:
            raise DataError(f"arm {other[0]!r} has other classes than the data set")
        keys = [(arm.name, arm.budget) for arm in self.arms]
        if twice := [name for name, budget in keys if keys.count((name, budget)) > 1]:
            raise DataError(f"arm {twice[0]!r} is there twice with the same budget; give each a name of its own")

    @property
    def headline(self) -> Arm:
        """The first probe with all labels (else the first arm): the place in the list, not the score, decides."""
        return next((arm for arm in self.arms if arm.kind == "probe" and arm.budget is None), self.arms[0])

    @property
    def full(self) -> tuple[Arm, ...]:
        """The arms that train on all labels; all arms where each has a budget."""
        return tuple(arm for arm in self.arms if arm.budget is None) or self.arms

    @property
    def warnings(self) -> tuple[str, ...]:
        """What every table of scores has to say: how the choice was made if not honestly, and leakage."""
        return (*((SELECTED_ON_TEST,) if self.selection == "test" else ()), *self.leakage)


# A probe's result as files: probe.json, from which all else can be made again, and three CSV tables.

FORMAT = 1
RESULT_FILE = "probe.json"


def save(result: ProbeResult, folder: Path) -> None:
    """Write probe.json, scores.csv, subjects.csv and classes.csv into a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_dict(result), indent=1, ensure_ascii=False, allow_nan=False)
    # a matrix row a line, not a number a line (strings in JSON hold no bare newline, so none is touched)
    text = re.sub(r"\[\n[\d\s,]*\]", lambda row: "[" + ", ".join(row[0][1:-1].replace(",", " ").split()) + "]", text)
    _write(folder / RESULT_FILE, text + "\n")
    for name, rows in csv_tables(result).items():
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        _write(folder / name, table.getvalue())


def load(path: Path) -> ProbeResult:
    """Read what `save` wrote, from the folder or its probe.json; scores are computed again from the matrices.

    Raises:
        DataError: the file is missing, damaged or of another format.
    """
    path = path / RESULT_FILE if path.is_dir() else path
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise DataError(f"{path}: format {facts['format']!r} is not {FORMAT}; it was written by another version")
        return _from_dict(facts)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; it is written by `selfpab-jax probe --out`") from None
    except KeyError as error:
        raise DataError(f"{path}: field {error} is missing; it was not written by `selfpab-jax probe`") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error})") from None


def as_dict(result: ProbeResult) -> dict[str, Any]:
    """Plain values for JSON. Each arm carries its scores too, for readers without this package."""
    facts = {
        name: getattr(result, name) for name in ProbeResult.__dataclass_fields__ if name not in ("arms", "classes")
    }
    facts |= {
        "encoder": None if result.encoder is None else asdict(result.encoder),
        "published": [asdict(published) for published in result.published],
        "protocol": dict(result.protocol),
    }
    arms = [
        {
            "name": arm.name, "title": arm.title, "kind": arm.kind, "seeds": arm.seeds,
            "budget": None if arm.budget is None else asdict(arm.budget),
            "scores": [scores.as_dict() for scores in arm.scores],
            "share_errors": [dict(errors) for errors in arm.share_errors],
            "chosen": [dict(chosen) for chosen in arm.chosen],
            "confusions": [{s: np.asarray(c[s]).tolist() for s in arm.subjects} for c in arm.confusions],
        }
        for arm in result.arms
    ]  # fmt: skip
    return {"format": FORMAT, "classes": result.classes, **facts, "arms": arms}


def _from_dict(facts: Mapping[str, Any]) -> ProbeResult:
    classes = tuple(facts["classes"])
    arms = tuple(
        Arm(
            name=arm["name"], title=arm["title"], kind=arm["kind"], seeds=tuple(arm["seeds"]), classes=classes,
            confusions=tuple({s: np.array(m, np.int64) for s, m in c.items()} for c in arm["confusions"]),
            budget=None if arm["budget"] is None else Budget(**arm["budget"]),
            chosen=tuple(arm["chosen"]), share_errors=tuple(arm["share_errors"]),
        )
        for arm in facts["arms"]
    )  # fmt: skip
    return ProbeResult(
        dataset=facts["dataset"], title=facts["title"], version=facts["version"], classes=classes,
        channels=tuple(facts["channels"]),
        encoder=None if facts["encoder"] is None else EncoderFacts(**facts["encoder"]),
        protocol=facts["protocol"], selection=facts["selection"], arms=arms, leakage=tuple(facts["leakage"]),
        set_aside=tuple(facts["set_aside"]), notes=tuple(facts["notes"]),
        published=tuple(Published(**published) for published in facts["published"]),
        seconds=facts["seconds"], device=facts["device"],
    )  # fmt: skip


def csv_tables(result: ProbeResult) -> dict[str, list[dict[str, Any]]]:
    """Rows of scores.csv (an arm, budget and seed a row), subjects.csv and classes.csv; shares from 0 to 1."""
    scores, subjects, classes = [], [], []
    for arm in result.arms:
        for i, (seed, of) in enumerate(zip(arm.seeds, arm.scores, strict=True)):
            key = {
                "dataset": result.dataset, "arm": arm.name, "kind": arm.kind,
                "budget": "all" if arm.budget is None else str(arm.budget), "seed": seed, "selection": result.selection,
                "leakage": " ".join(result.leakage),
            }  # fmt: skip
            errors = arm.share_errors[i] if arm.share_errors else {}
            scores.append(
                {
                    **key, "subjects": len(of.subjects),
                    "macro_f1_mean": of.macro_f1_mean, "macro_f1_std_over_subjects": of.macro_f1_std,
                    "macro_f1_low": of.macro_f1_interval[0], "macro_f1_high": of.macro_f1_interval[1],
                    "pooled_macro_f1": of.pooled_macro_f1, "pooled_macro_f1_low": of.pooled_macro_f1_interval[0],
                    "pooled_macro_f1_high": of.pooled_macro_f1_interval[1], "accuracy": of.accuracy,
                    "balanced_accuracy": of.balanced_accuracy, "kappa": of.kappa,
                    "share_error": float(np.mean(list(errors.values()))) if errors else None,
                }
            )  # fmt: skip
            for name, subject in sorted(of.subjects.items()):
                subjects.append(
                    {
                        **key, "subject": name, "samples": sum(subject.samples), "macro_f1": subject.macro_f1,
                        "accuracy": subject.accuracy, "balanced_accuracy": subject.balanced_accuracy,
                        "share_error": errors.get(name),
                    }
                )  # fmt: skip
            for y, name in enumerate(result.classes):
                classes.append(
                    {
                        **key, "class": name, "samples": of.samples[y], "f1": of.f1[y], "f1_low": of.f1_interval[y][0],
                        "f1_high": of.f1_interval[y][1], "precision": of.precision[y], "recall": of.recall[y],
                    }
                )  # fmt: skip
    tables = {"scores.csv": scores, "subjects.csv": subjects, "classes.csv": classes}
    return {name: [{k: _cell(v) for k, v in row.items()} for row in rows] for name, rows in tables.items()}


def _cell(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and np.isnan(value)) else value


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
