"""What frozen features are worth on HARTH, beside everything else that could be done with the same labels.

    python benchmarks/har_comparison.py --harth HARTH --har70plus HAR70PLUS --out OUT
    python benchmarks/har_comparison.py ... --steps 3000 --only records pretrain_recipe recipe   # some stages only
    python benchmarks/har_comparison.py ... --table                                  # what there is so far

HARTH and HAR70PLUS: folders of the published CSVs (the reader of HARTH wants `S???.csv`; pre-training reads Parquet,
too). One split of subjects: encoders are pre-trained without labels on 16, 3 give the held-out loss, 8 of HARTH are
scored. Every stage is skipped where it is done, and continues where it was killed. OUT/comparison.json has every score
by subject, OUT/comparison.md the tables. Stages: records, pretrain (of all encoders) or pretrain_NAME, and the names of
`PROBINGS`.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from selfpab_jax.probe.report.results import RESULT_FILE, MethodResult, load_result
from selfpab_jax.probe.report.summary import compare, subject_macro_f1

CONFIG = "configs/probe/har_comparison.yaml"
SCORED = "S023,S025,S028,S029,S032,S034,S036,S038"
HELD_OUT = "503,510,516"
RARE = ("cycling (stand)", "cycling (sit, inactive)", "cycling (stand, inactive)")
"""Classes with 19 minutes in all, in 3 subjects or fewer: near 0 for every method."""
SIZE = ["--model.width", "128", "--model.heads", "4", "--model.feedforward", "512", "--model.layers", "3"]
ONE_SENSOR = ["--heads", '["linear"]', "--budgets.windows", "[5]", "--random_encoder", "true", "--spectrogram", "true"]
CROSS_SENSOR = ["--task.kind", "cross_sensor"]
ENCODERS = {
    "recipe": [],
    "published": ["--data.scale", "linear"],
    "back": [*CROSS_SENSOR, "--task.input_sensor", "back"],
    "thigh": [*CROSS_SENSOR, "--task.input_sensor", "thigh"],
}
"""Names of encoders, and what they change of configs/har.yaml; `back` and `thigh` are MonoSelfPAB."""
REFERENCES = ("recipe encoder, linear head", "cross-sensor encoder, linear head")
"""What the others are compared with; each choice of sensors has one of them."""
RANDOM, SPECTROGRAM = ["--random_encoder", "true"], ["--spectrogram", "true"]
FOREST = ["--baselines", '["forest"]', "--baseline.forest.jobs", "-1"]
FEW = ["--budgets.windows", "[5]"]
ONE_SEED = ["--seeds", "[0]"]


@dataclass(frozen=True)
class Probing:
    """One call of `selfpab-jax probe`.

    Attributes:
        model: name of the encoder.
        more: arguments beside the preset.
        sensors: what is read, in words; what can be compared has the same.
        data: which of the data sets.
    """

    model: str
    more: list[str]
    sensors: str = "HARTH, back and thigh"
    data: str = "harth"


PROBINGS = {
    "recipe": Probing("recipe", [*RANDOM, *SPECTROGRAM, *FOREST]),
    "published": Probing("published", []),
    "one_frame": Probing(
        "recipe", ["--features.context_seconds", "[]", "--budgets.windows", "[5]", *RANDOM, *SPECTROGRAM],
        "HARTH, back and thigh, no context",
    ),
    "one_frame_published": Probing(
        "published", ["--features.context_seconds", "[]", "--budgets.windows", "[5]"],
        "HARTH, back and thigh, no context",
    ),
    "temporal": Probing(
        "recipe",
        ["--heads", '["temporal"]', "--features.context_seconds", "[]", "--budgets.windows", "[]", *ONE_SEED, *RANDOM],
    ),
    "back": Probing("back", ["--dataset.sensors", '["back"]', *ONE_SENSOR, *FOREST], "HARTH, back alone"),
    "thigh": Probing("thigh", ["--dataset.sensors", '["thigh"]', *ONE_SENSOR, *FOREST], "HARTH, thigh alone"),
    "finetuned": Probing(
        "recipe", ["--heads", "[]", "--finetuned", "true", "--finetune.steps", "400", "--finetune.batch_size", "32",
                   "--finetune.learning_rate", "1e-3", "--finetune.frozen_share", "0.5", *FEW, *ONE_SEED],
    ),
    "selfback": Probing(
        "thigh", ["--dataset.name", "selfback", "--dataset.version", "null", "--dataset.only", "[]",
                  "--dataset.sensors", '["thigh"]', *ONE_SENSOR, *FOREST], "selfBACK, thigh", "selfback",
    ),
    "uschad": Probing(
        "thigh", ["--dataset.name", "uschad", "--dataset.version", "null", "--dataset.only", "[]",
                  "--dataset.roles", "{hip: thigh}", *ONE_SENSOR, *FOREST], "USC-HAD, hip for thigh", "uschad",
    ),
    "networks": Probing("recipe", ["--heads", "[]", "--baselines", '["cnn", "transformer"]', *FEW, *ONE_SEED]),
}  # fmt: skip


@dataclass(frozen=True)
class Score:
    """One method with one label budget.

    Attributes:
        method: in words.
        sensors: that it saw.
        budget: windows of each activity, or `all`.
        seeds: how many.
        subjects: macro-F1 of each subject, mean over seeds.
        frequent: the same without the rare classes.
        macro_f1, macro_f1_frequent, accuracy: means over subjects.
        ahead: the recipe's linear head minus this method with the same labels, paired by subject.
    """

    method: str
    sensors: str
    budget: str
    seeds: int
    subjects: dict[str, float]
    frequent: dict[str, float]
    macro_f1: float
    macro_f1_frequent: float
    accuracy: float
    ahead: dict[str, float] = field(default_factory=dict)


def command(*words: str | Path) -> None:
    """Run the project's command line; what it prints is the log."""
    print("$ selfpab-jax", *words, flush=True)
    subprocess.run([sys.executable, "-m", "selfpab_jax.cli.main", *map(str, words)], check=True)


def build(harth: Path, har70plus: Path, out: Path) -> None:
    """The records of all subjects, split once."""
    if not (out / "records").exists():
        command(
            "records", "build", "--source", "recordings", harth, har70plus, "--label_column", "label",
            "--out", out / "records", "--window_seconds", "60", "--shift_seconds", "20",
            "--validation_subjects", HELD_OUT, "--test_subjects", SCORED,
        )  # fmt: skip


def pretrain(out: Path, name: str, steps: int) -> None:
    """Train and export one encoder."""
    if (out / "models" / name).exists():
        return
    command(
        "pretrain", "--config", "configs/har.yaml", "--data.path", out / "records", "--run", out / "runs" / name,
        "--resume", *SIZE, "--optimizer.steps", str(steps), "--validation.every_steps", str(steps // 6),
        *ENCODERS[name],
    )  # fmt: skip
    command("export", out / "runs" / name, out / "models" / name, "--subjects", "named")


def probe(out: Path, name: str, folders: dict[str, Path | None]) -> None:
    """Score the methods of one probing, if its data set is there."""
    probing = PROBINGS[name]
    data = folders[probing.data]
    if data is None:
        print(f"{name}: left out, no --{probing.data}")
    elif not (out / "probes" / name / RESULT_FILE).exists():
        command(
            "probe", "--config", CONFIG, "--model", out / "models" / probing.model, "--data", data,
            "--out", out / "probes" / name, "--cache", out / "cache", *probing.more,
        )  # fmt: skip


def scores(out: Path) -> Iterator[Score]:
    """Of every probing that is done."""
    for name, probing in PROBINGS.items():
        if not (out / "probes" / name / RESULT_FILE).exists():
            continue
        for method in load_result(out / "probes" / name).methods:
            title = method.title
            if method.kind == "probe":
                encoder = "cross-sensor" if probing.model in ("back", "thigh") else probing.model
                title = title.replace("pre-trained encoder", f"{encoder} encoder")
            whole, frequent = _of_subjects(method, ()), _of_subjects(method, RARE)
            accuracy = np.mean([
                np.trace(matrix) / np.sum(matrix) for of_seed in method.confusions for matrix in of_seed.values()
            ])  # fmt: skip
            yield Score(
                method=title,
                sensors=probing.sensors,
                budget="all" if method.budget is None else f"{method.budget.amount:g}",
                seeds=len(method.seeds),
                subjects=whole,
                frequent=frequent,
                macro_f1=float(np.nanmean(list(whole.values()))),
                macro_f1_frequent=float(np.nanmean(list(frequent.values()))),
                accuracy=float(accuracy),
            )


def _of_subjects(method: MethodResult, without: tuple[str, ...]) -> dict[str, float]:
    return subject_macro_f1(method.confusions, np.array([name not in without for name in method.classes]))


def with_differences(found: list[Score]) -> list[Score]:
    """The recipe's linear head (of both sensors, or of the same one) against each other method with the same labels."""
    result = []
    for score in found:
        ours = [s for s in found if s.method in REFERENCES and (s.sensors, s.budget) == (score.sensors, score.budget)]
        ahead = asdict(compare(ours[0].subjects, score.subjects)) if ours and ours[0] is not score else {}
        result.append(Score(**{**asdict(score), "ahead": ahead}))
    return result


def table(found: list[Score]) -> str:
    """Markdown: a table for each choice of sensors."""
    lines = []
    for sensors in dict.fromkeys(score.sensors for score in found):
        of_sensors = [score for score in found if score.sensors == sensors]
        budgets = sorted({score.budget for score in of_sensors}, key=lambda b: float(b) if b != "all" else np.inf)
        lines += [f"{sensors}: macro-F1 by labeled windows of each activity, and more with all labels", ""]
        lines += [f"| method | {' | '.join(budgets)} | without rare | accuracy | linear head ahead by | seeds |"]
        lines += ["|" + " --- |" * (len(budgets) + 5)]
        rows = {method: [s for s in of_sensors if s.method == method] for method in {s.method for s in of_sensors}}
        order = sorted(rows, key=lambda method: -max(s.macro_f1 for s in rows[method] if s.budget == budgets[-1]))
        for method in order:
            of_budget = {score.budget: score for score in rows[method]}
            cells = [f"{100 * of_budget[b].macro_f1:.1f}" if b in of_budget else "" for b in budgets]
            last = of_budget["all"]
            ahead = last.ahead
            behind = (
                f"{100 * ahead['mean']:.1f} ({100 * ahead['low']:.1f} to {100 * ahead['high']:.1f})" if ahead else ""
            )
            more = [f"{100 * last.macro_f1_frequent:.1f}", f"{100 * last.accuracy:.1f}", behind, str(last.seeds)]
            lines.append(f"| {' | '.join([method, *cells, *more])} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """All stages, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harth", type=Path, required=True)
    parser.add_argument("--har70plus", type=Path, required=True)
    parser.add_argument("--selfback", type=Path)
    parser.add_argument("--uschad", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000, help="of pre-training")
    parser.add_argument("--only", nargs="+", default=[], help="some of the stages")
    parser.add_argument("--table", action="store_true", help="only the tables of what is done")
    options = parser.parse_args()
    stages = [] if options.table else options.only or ["records", "pretrain", *PROBINGS]
    folders = {"harth": options.harth, "selfback": options.selfback, "uschad": options.uschad}
    options.out.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        if stage == "records":
            build(options.harth, options.har70plus, options.out)
        elif stage == "pretrain":
            for name in ENCODERS:
                pretrain(options.out, name, options.steps)
        elif stage.startswith("pretrain_"):
            pretrain(options.out, stage.removeprefix("pretrain_"), options.steps)
        else:
            probe(options.out, stage, folders)
    found = with_differences(list(scores(options.out)))
    (options.out / "comparison.json").write_text(json.dumps([asdict(score) for score in found], indent=1) + "\n")
    (options.out / "comparison.md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    main()
