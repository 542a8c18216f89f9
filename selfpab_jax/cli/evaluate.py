"""`selfpab-jax evaluate` and `selfpab-jax export`: what becomes of a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import Namespace

from selfpab_jax.config import Parser
from selfpab_jax.errors import ExitCode

if TYPE_CHECKING:
    from selfpab_jax.train.evaluate import Evaluation


def evaluate_parser() -> Parser:
    """Arguments of `evaluate`."""
    parser = Parser("evaluate", "Held-out loss of a run beside two baselines, with figures.")
    parser.add_argument("run", type=Path, help="directory of the run")
    parser.add_argument("--data", type=Path, required=True, help="directory that `records build` wrote")
    parser.add_argument("--checkpoint", type=str, default="best", help="best, latest, or the step of a kept state")
    parser.add_argument(
        "--split", type=str, default="validation", help="split to measure on; each has files of its own"
    )
    parser.add_argument(
        "--windows", type=int | None, default=None, help="number of windows, evenly spaced; default all"
    )
    parser.add_argument("--batch_size", type=int, default=32, help="windows at a time")
    parser.add_argument("--examples", type=int, default=3, help="windows in the figure")
    parser.add_argument("--out", type=Path | None, default=None, help="folder for results; default RUN/evaluation")
    return parser


def run_evaluate(options: Namespace) -> int:
    """Run `evaluate`."""
    from selfpab_jax.train.evaluate import evaluate

    names = ("checkpoint", "split", "windows", "batch_size", "examples", "out")
    evaluation = evaluate(options.run, options.data, **{name: options[name] for name in names})
    print(summary(evaluation))
    print(f"{evaluation.scores}, {', '.join(evaluation.figures)} in {evaluation.out}")
    return ExitCode.OK


def summary(evaluation: "Evaluation") -> str:
    """The losses as text."""
    losses = evaluation.losses
    best = min(losses.feature_mean, losses.interpolation)
    gain = 1 - losses.model / best
    comparison = (
        f"{gain:.1%} lower than the better baseline"
        if gain > 0
        else f"{-gain:.1%} higher than the better baseline, so worse"
    )
    return "\n".join(
        [
            f"held-out {evaluation.loss.replace('_', ' ')} over {losses.windows:,} windows of the {evaluation.split} "
            f"split ({evaluation.checkpoint} checkpoint, step {evaluation.step})",
            f"  model                  {losses.model:.4f}   {comparison}",
            f"  feature mean           {losses.feature_mean:.4f}",
            f"  linear interpolation   {losses.interpolation:.4f}",
        ]
    )


def export_parser() -> Parser:
    """Arguments of `export`."""
    parser = Parser("export", "Write a run's model as a directory: weights, configuration, statistics, model card.")
    parser.add_argument("run", type=Path, help="directory of the run")
    parser.add_argument("model", type=Path, help="directory to write")
    parser.add_argument("--checkpoint", type=str, default="best", help="best, latest, or the step of a kept state")
    parser.add_argument(
        "--subjects",
        type=Literal["hashed", "named", "none"],
        default="hashed",
        help="how the model lists the subjects it was trained on; hashes can be compared, but not read",
    )
    parser.add_argument(
        "--weights",
        type=Literal["float32", "bfloat16"],
        default="float32",
        help="dtype of the file with the weights; bfloat16 halves its size and rounds them",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model directory")
    return parser


def run_export(options: Namespace) -> int:
    """Run `export`."""
    from selfpab_jax.train.export import export_run

    config = export_run(
        options.run,
        options.model,
        options.checkpoint,
        subjects=options.subjects,
        weights=options.weights,
        overwrite=options.overwrite,
    )
    print(
        f"{options.model}: {config.family}, width {config.model.width}, trained for {config.provenance['steps']} steps"
    )
    sensor = f', sensor="{config.sensors[0]}"' if config.family == "monoselfpab" else ""
    print(f'to use it: selfpab_jax.load_encoder("{options.model}"{sensor}).encode_signal(signal, rate_hz=...)')
    return ExitCode.OK
