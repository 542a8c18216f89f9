"""The result of a probe: its methods with their confusion matrices, in memory and as files.

`probe.json` holds everything, so that tables, figures and the report can be made again; three CSV tables hold the
scores for other programs.
"""

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from selfpab_jax.errors import DataError
from selfpab_jax.io import write_text
from selfpab_jax.probe.budgets import Budget
from selfpab_jax.probe.config import ReferenceScore
from selfpab_jax.probe.metrics import Confusions, Scores, score_subjects
from selfpab_jax.probe.report.summary import Summary, summarize

FORMAT = 2
"""Format 1, of version 0.1, is still read."""
RESULT_FILE = "probe.json"
SELECTED_ON_TEST = (
    "selected on the test subject: each test subject was its fold's validation subject too (the original's habit), "
    "so these scores are too optimistic"
)

Kind = Literal["probe", "baseline", "random"]


@dataclass(frozen=True)
class EncoderInfo:
    """The frozen encoder; `pretraining_hours` is None where its model card does not give them."""

    directory: str
    family: str
    width: int
    layers: int
    pretraining_hours: float | None
    subjects_known: bool


@dataclass(frozen=True, eq=False)
class MethodResult:
    """One method (an encoder with a head, or a baseline) under the protocol, with one label budget.

    Attributes:
        name: in files, e.g. `linear`.
        title: human-readable, e.g. `pre-trained encoder, linear head`.
        kind: `probe` on the pre-trained encoder, the same with `random` weights, or a supervised `baseline`.
        seeds: one or more.
        classes: of the data set.
        confusions: for each seed the matrix of each test subject, rows are true classes; the same subjects for each.
        budget: None for all labels.
        chosen: for each seed, by fold: the hyper-parameters that were selected.
        duration_errors: for each seed, by subject: see `duration_error`; empty where durations are not scored.

    Raises:
        DataError: the parts do not fit each other.
    """

    name: str
    title: str
    kind: Kind
    seeds: tuple[int, ...]
    classes: tuple[str, ...]
    confusions: tuple[Confusions, ...]
    budget: Budget | None = None
    chosen: tuple[Mapping[str, Any], ...] = ()
    duration_errors: tuple[Mapping[str, float], ...] = ()

    def __post_init__(self) -> None:
        where = f"method {self.name!r}"
        if not self.seeds or len(self.confusions) != len(self.seeds):
            raise DataError(f"{where}: {len(self.confusions)} sets of confusion matrices for {len(self.seeds)} seeds")
        for part, name in ((self.chosen, "choices"), (self.duration_errors, "sets of duration errors")):
            if part and len(part) != len(self.seeds):
                raise DataError(f"{where}: {len(part)} {name} for {len(self.seeds)} seeds")
        if not self.confusions[0] or any(set(c) != set(self.confusions[0]) for c in self.confusions):
            raise DataError(f"{where}: every seed needs the same test subjects, at least one")
        shape = (len(self.classes), len(self.classes))
        if wrong := [s for c in self.confusions for s, matrix in c.items() if np.shape(matrix) != shape]:
            raise DataError(f"{where}: the confusion matrix of subject {wrong[0]} does not fit {shape[0]} classes")

    @cached_property
    def scores(self) -> tuple[Scores, ...]:
        """Scores of each seed."""
        return tuple(score_subjects(confusions, self.classes) for confusions in self.confusions)

    @cached_property
    def summary(self) -> Summary:
        """Scores over all seeds."""
        return summarize(self.confusions)

    @property
    def duration_error(self) -> float | None:
        """Mean over subjects and seeds; None where durations are not scored."""
        values = [value for errors in self.duration_errors for value in errors.values()]
        return sum(values) / len(values) if values else None

    @property
    def subjects(self) -> tuple[str, ...]:
        """Sorted names of the test subjects."""
        return tuple(sorted(self.confusions[0]))

    @property
    def full_title(self) -> str:
        """Title with the label budget."""
        return self.title if self.budget is None else f"{self.title}, {self.budget}"


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """All methods on one data set under one protocol.

    Attributes:
        dataset: name of the data set.
        title: human-readable.
        version: of the data set.
        classes: names by index.
        channels: that were used.
        encoder: None where no method has one.
        protocol: window, shift, folds, features, ...: names and values, human-readable and in order.
        selection: subjects on which hyper-parameters and stopping were selected: `inner` ones held out of the training
            subjects, the `test` subject itself (the original's habit), or none (`fixed`).
        methods: in the order in which they are shown; `headline` is the first probe with all labels.
        leakage: warnings about test subjects that the encoder was pre-trained on; repeated under every table.
        skipped: data that were not used, and why.
        notes: what else a reader of the scores should know, e.g. classes that a fold lacks, budgets not filled.
        published: scores to compare with.
        seconds: duration of the probe.
        device: kind of the device that computed it.

    Raises:
        DataError: there is no method, two have the same name and budget, or one has other classes.
    """

    dataset: str
    title: str
    version: str
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    encoder: EncoderInfo | None
    protocol: Mapping[str, Any]
    selection: Literal["inner", "test", "fixed"]
    methods: tuple[MethodResult, ...]
    leakage: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    published: tuple[ReferenceScore, ...] = ()
    seconds: float = 0.0
    device: str = ""

    def __post_init__(self) -> None:
        if not self.methods:
            raise DataError(f"{self.dataset}: no method was scored, so there is nothing to report")
        if other := [method.name for method in self.methods if method.classes != self.classes]:
            raise DataError(f"method {other[0]!r} has other classes than the data set")
        keys = [(method.name, method.budget) for method in self.methods]
        if twice := [name for name, budget in keys if keys.count((name, budget)) > 1]:
            raise DataError(f"method {twice[0]!r} occurs twice with the same budget; give each its own name")

    @property
    def headline(self) -> MethodResult:
        """The first probe with all labels (or the first method): its place in the list decides, not its score."""
        return next((m for m in self.methods if m.kind == "probe" and m.budget is None), self.methods[0])

    @property
    def fully_labeled(self) -> tuple[MethodResult, ...]:
        """The methods that train on all labels; all methods if each has a budget."""
        return tuple(method for method in self.methods if method.budget is None) or self.methods

    @property
    def warnings(self) -> tuple[str, ...]:
        """What every table of scores must mention: selection on the test subject, and leakage."""
        return (*((SELECTED_ON_TEST,) if self.selection == "test" else ()), *self.leakage)


# Files.


def save_result(result: ProbeResult, folder: Path) -> None:
    """Write probe.json, scores.csv, subjects.csv and classes.csv into a folder, which is created if it is missing.

    Raises:
        StorageError: a file cannot be written.
    """
    text = json.dumps(as_dict(result), indent=1, ensure_ascii=False, allow_nan=False)
    # One matrix row per line instead of one number (JSON strings contain no bare newline, so none of them matches).
    text = re.sub(r"\[\n[\d\s,]*\]", lambda row: "[" + ", ".join(row[0][1:-1].replace(",", " ").split()) + "]", text)
    write_text(folder / RESULT_FILE, text + "\n")
    for name, rows in csv_tables(result).items():
        table = StringIO(newline="")
        writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(folder / name, table.getvalue())


def load_result(path: Path) -> ProbeResult:
    """Read what `save_result` wrote, from the folder or its probe.json; scores are recomputed from the matrices.

    Raises:
        DataError: the file is missing, damaged or of an unknown format.
    """
    path = path / RESULT_FILE if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] == 1:
            content = _from_format_1(content)
        if content["format"] != FORMAT:
            raise DataError(f"{path}: unknown format {content['format']!r}; it was written by a newer version")
        return _from_dict(content)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; `selfpab-jax probe --out` writes it") from None
    except KeyError as error:
        raise DataError(f"{path}: field {error} is missing; it was not written by `selfpab-jax probe`") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error})") from None


def as_dict(result: ProbeResult) -> dict[str, Any]:
    """Plain values for JSON. The scores of each method are included, for readers without this package."""
    fields = {name: getattr(result, name) for name in ProbeResult.__dataclass_fields__ if name != "classes"}
    fields |= {
        "encoder": None if result.encoder is None else asdict(result.encoder),
        "published": [asdict(published) for published in result.published],
        "protocol": dict(result.protocol),
        "methods": [
            {
                "name": method.name, "title": method.title, "kind": method.kind, "seeds": method.seeds,
                "budget": None if method.budget is None else asdict(method.budget),
                "scores": [scores.as_dict() for scores in method.scores],
                "duration_errors": [dict(errors) for errors in method.duration_errors],
                "chosen": [dict(chosen) for chosen in method.chosen],
                "confusions": [{s: np.asarray(c[s]).tolist() for s in method.subjects} for c in method.confusions],
            }
            for method in result.methods
        ],
    }  # fmt: skip
    fields["methods"] = fields.pop("methods")  # last, because it is long
    return {"format": FORMAT, "classes": result.classes, **fields}


def _from_format_1(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a file of version 0.1 with the names of today."""
    methods = []
    for arm in content.pop("arms"):
        budget = arm["budget"]
        if budget is not None and budget["kind"] == "share":
            arm["budget"] = {**budget, "kind": "fraction"}
        methods.append({**arm, "duration_errors": arm.pop("share_errors")})
    return {**content, "format": 2, "methods": methods, "skipped": content.pop("set_aside")}


def _from_dict(content: Mapping[str, Any]) -> ProbeResult:
    classes = tuple(content["classes"])
    methods = tuple(
        MethodResult(
            name=method["name"], title=method["title"], kind=method["kind"], seeds=tuple(method["seeds"]),
            classes=classes,
            confusions=tuple({s: np.array(m, np.int64) for s, m in c.items()} for c in method["confusions"]),
            budget=None if method["budget"] is None else Budget(**method["budget"]),
            chosen=tuple(method["chosen"]), duration_errors=tuple(method["duration_errors"]),
        )
        for method in content["methods"]
    )  # fmt: skip
    return ProbeResult(
        dataset=content["dataset"], title=content["title"], version=content["version"], classes=classes,
        channels=tuple(content["channels"]),
        encoder=None if content["encoder"] is None else EncoderInfo(**content["encoder"]),
        protocol=content["protocol"], selection=content["selection"], methods=methods,
        leakage=tuple(content["leakage"]), skipped=tuple(content["skipped"]), notes=tuple(content["notes"]),
        published=tuple(ReferenceScore(**published) for published in content["published"]),
        seconds=content["seconds"], device=content["device"],
    )  # fmt: skip


def csv_tables(result: ProbeResult) -> dict[str, list[dict[str, Any]]]:
    """Rows of scores.csv (one per method, budget and seed), subjects.csv and classes.csv; scores are from 0 to 1."""
    scores, subjects, classes = [], [], []
    for method in result.methods:
        for i, (seed, of) in enumerate(zip(method.seeds, method.scores, strict=True)):
            key = {
                "dataset": result.dataset, "method": method.name, "kind": method.kind,
                "budget": "all" if method.budget is None else str(method.budget), "seed": seed,
                "selection": result.selection, "leakage": " ".join(result.leakage),
            }  # fmt: skip
            errors = method.duration_errors[i] if method.duration_errors else {}
            scores.append(
                {
                    **key, "subjects": len(of.subjects),
                    "macro_f1_mean": of.macro_f1_mean, "macro_f1_std_over_subjects": of.macro_f1_std,
                    "macro_f1_low": of.macro_f1_interval[0], "macro_f1_high": of.macro_f1_interval[1],
                    "pooled_macro_f1": of.pooled_macro_f1, "pooled_macro_f1_low": of.pooled_macro_f1_interval[0],
                    "pooled_macro_f1_high": of.pooled_macro_f1_interval[1], "accuracy": of.accuracy,
                    "balanced_accuracy": of.balanced_accuracy, "kappa": of.kappa,
                    "duration_error": float(np.mean(list(errors.values()))) if errors else None,
                }
            )  # fmt: skip
            for name, subject in sorted(of.subjects.items()):
                subjects.append(
                    {
                        **key, "subject": name, "samples": sum(subject.samples), "macro_f1": subject.macro_f1,
                        "accuracy": subject.accuracy, "balanced_accuracy": subject.balanced_accuracy,
                        "duration_error": errors.get(name),
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
    return {name: [{k: _csv_value(v) for k, v in row.items()} for row in rows] for name, rows in tables.items()}


def _csv_value(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and np.isnan(value)) else value
