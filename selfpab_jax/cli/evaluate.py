"""`selfpab-jax evaluate`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from selfpab_jax.config import Parser
from selfpab_jax.errors import ConfigError

# `selfpab-jax evaluate`.


def evaluate_parser() -> Parser:
    """Arguments of the command."""
    parser = Parser("evaluate", "Held-out loss of a run beside two baselines, with pictures.")
    parser.add_argument("run", type=Path, help="directory of the run")
    parser.add_argument("--data", type=Path, required=True, help="directory that `records build` wrote")
    parser.add_argument("--checkpoint", type=str, default="best", help="best, latest, or the step of a kept state")
    parser.add_argument("--split", type=str, default="validation", help="split to measure on")
    parser.add_argument("--windows", type=int | None, default=None, help="so many windows, evenly spaced; all if unset")
    parser.add_argument("--batch_size", type=int, default=32, help="windows at a time")
    parser.add_argument("--examples", type=int, default=3, help="windows in the picture")
    parser.add_argument("--out", type=Path | None, default=None, help="where results go; RUN/evaluation if unset")
    return parser


def run_evaluate(options: Namespace) -> int:
    """Run the command."""
    for name, least in (("windows", 1), ("batch_size", 1), ("examples", 0)):
        if options[name] is not None and options[name] < least:
            raise ConfigError(f"--{name} is {options[name]}; it must be at least {least}")
    from selfpab_jax.data.records.dataset import open_records
    from selfpab_jax.data.subsets import evenly
    from selfpab_jax.train.evaluate import evaluate as measure
    from selfpab_jax.train.export import read_checkpoint
    from selfpab_jax.train.figures import draw_loss_curve, draw_reconstructions
    from selfpab_jax.train.logging import read_log

    records = open_records(options.data)
    objective, parameters, facts = read_checkpoint(options.run, options.checkpoint)
    records.info.check_fits(facts["records"], records.folder)
    there = records.info.splits[options.split].records if options.split in records.info.splits else 0
    scores, examples = measure(
        objective,
        parameters,
        records,
        split=options.split,
        seed=facts["settings"]["seed"],
        rows=evenly(there, options.windows),
        batch_size=options.batch_size,
        examples=options.examples,
    )
    out = options.out or options.run / "evaluation"
    out.mkdir(parents=True, exist_ok=True)
    result = {"split": options.split, "checkpoint": options.checkpoint, "step": facts["step"], **asdict(scores)}
    (out / "scores.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    print(report(result, facts["settings"]["task"]["loss"]))
    baselines = {"feature mean": scores.feature_mean, "linear interpolation": scores.interpolation}
    draw_loss_curve(read_log(options.run), out / "loss_curve.png", baselines)
    pictures = ["loss_curve.png"]
    if examples:
        draw_reconstructions(examples, out / "reconstructions.png", facts["records"])
        pictures.append("reconstructions.png")
    print(f"scores.json, {', '.join(pictures)} in {out}")
    return 0


def report(result: dict[str, Any], loss: str) -> str:
    """The scores as people read them."""
    best = min(result["feature_mean"], result["interpolation"])
    gain = 1 - result["model"] / best
    verdict = (
        f"{gain:.1%} less than the better baseline"
        if gain > 0
        else f"{-gain:.1%} more than the better baseline, so worse"
    )
    return "\n".join(
        [
            f"held-out {loss.replace('_', ' ')} over {result['windows']:,} windows of the {result['split']} split "
            f"({result['checkpoint']} checkpoint, step {result['step']})",
            f"  model                  {result['model']:.4f}   {verdict}",
            f"  feature mean           {result['feature_mean']:.4f}",
            f"  linear interpolation   {result['interpolation']:.4f}",
        ]
    )


# `selfpab-jax export`.


def export_parser() -> Parser:
    """Arguments of the command."""
    parser = Parser("export", "Write a run's model for use: weights, configuration, statistics, model card.")
    parser.add_argument("run", type=Path, help="directory of the run")
    parser.add_argument("model", type=Path, help="directory to write")
    parser.add_argument("--checkpoint", type=str, default="best", help="best, latest, or the step of a kept state")
    parser.add_argument("--overwrite", action="store_true", help="replace a model directory that is there")
    return parser


def run_export(options: Namespace) -> int:
    """Run the command."""
    from selfpab_jax.train.export import export_run

    config = export_run(options.run, options.model, options.checkpoint, overwrite=options.overwrite)
    print(
        f"{options.model}: {config.family}, width {config.model.width}, trained for {config.provenance['steps']} steps"
    )
    sensor = f', sensor="{config.sensors[0]}"' if config.family == "monoselfpab" else ""
    print(f'use it: selfpab_jax.load_encoder("{options.model}"{sensor}).encode_signal(signal, rate_hz=...)')
    return 0
