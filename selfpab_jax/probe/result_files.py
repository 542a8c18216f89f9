"""A probe's result as files: probe.json, from which all else can be made again, and three CSV tables."""

import csv
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from selfpab_jax.errors import DataError
from selfpab_jax.probe.results import Arm, Budget, EncoderFacts, ProbeResult, Published

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
