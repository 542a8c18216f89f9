"""`selfpab-jax export`."""

from pathlib import Path

from jsonargparse import Namespace

from selfpab_jax.cli.parser import Parser


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
    from selfpab_jax.evaluation.export import export_run

    config = export_run(options.run, options.model, options.checkpoint, overwrite=options.overwrite)
    print(
        f"{options.model}: {config.family}, width {config.model.width}, trained for {config.provenance['steps']} steps"
    )
    sensor = f', sensor="{config.sensors[0]}"' if config.family == "monoselfpab" else ""
    print(f'use it: selfpab_jax.load_encoder("{options.model}"{sensor}).encode_signal(signal, rate_hz=...)')
    return 0
