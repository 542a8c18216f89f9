"""`selfpab-jax convert inspect`, `from-torch`, `to-torch` and `verify`."""

import sys
from pathlib import Path
from typing import Literal, get_args

from jsonargparse import Namespace

from selfpab_jax.config import Parser
from selfpab_jax.convert.checkpoint import FamilyName, ReadOptions
from selfpab_jax.errors import ConfigError, ExitCode

TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-1}
"""Largest relative error that passes, by dtype of our matrix products."""
FAMILY_HELP = f"{', '.join(get_args(FamilyName))}; needed where its features are not a published family's"
VERSION_HELP = "accept files of other releases of PyTorch Lightning than 1.6"


def _add_reading(parser: Parser) -> None:
    """Options of `ReadOptions`: what a checkpoint does not show, or leaves to choose."""
    parser.add_argument("--family", type=FamilyName | None, help=FAMILY_HELP)
    parser.add_argument("--any-version", action="store_true", help=VERSION_HELP)
    parser.add_argument("--weights", type=str | None, help="the set of weights to take, where a file holds several")
    parser.add_argument("--cast", type=Literal["float32"] | None, help="take weights of another dtype, in this one")
    parser.add_argument("--heads", type=int | None, help="attention heads, where a file has no hyper-parameters")


def _reading(options: Namespace) -> ReadOptions:
    return ReadOptions(options.family, options.any_version, options.weights, options.cast, options.heads)


def inspect_parser() -> Parser:
    """Arguments of `convert inspect`."""
    parser = Parser("convert inspect", "Summarize a PyTorch checkpoint without loading its weights.")
    parser.add_argument("file", type=Path, help="upstream_model.ckpt")
    _add_reading(parser)
    return parser


def run_inspect(options: Namespace) -> int:
    """Run `convert inspect`; fails where the file cannot be converted."""
    from selfpab_jax.convert.inspection import summarize

    lines, reason = summarize(options.file, _reading(options))
    print("\n".join(lines))
    print(f"cannot be converted: {reason}" if reason else "can be converted: every name and shape fits")
    return ExitCode.FAILED if reason else ExitCode.OK


def from_torch_parser() -> Parser:
    """Arguments of `convert from-torch`."""
    parser = Parser("convert from-torch", "Convert a PyTorch checkpoint to a model directory, or to a run.")
    parser.add_argument("file", type=Path, help="upstream_model.ckpt")
    parser.add_argument("model", type=Path | None, nargs="?", help="model directory to write; optional with --run")
    parser.add_argument("--run", type=Path | None, help="run to write, which `pretrain --resume` continues")
    parser.add_argument("--statistics", type=Path | None, help="npz, or folder with (folders with) mean.csv, std.csv")
    parser.add_argument("--no-statistics", action="store_true", help="write a model that takes only normalized frames")
    _add_reading(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model directory")
    return parser


def run_from_torch(options: Namespace) -> int:
    """Run `convert from-torch`."""
    if options.model is None and options.run is None:
        raise ConfigError("nothing to write: give a model directory, --run RUN, or both")
    if options.no_statistics and (options.statistics or options.run):
        other = "--run, which needs statistics" if options.run else "--statistics"
        raise ConfigError(f"--no-statistics cannot be combined with {other}")
    _check_targets(options)
    from selfpab_jax.convert.checkpoint import read_checkpoint
    from selfpab_jax.convert.from_torch import write_converted
    from selfpab_jax.convert.statistics import statistics_for

    checkpoint = read_checkpoint(options.file, _reading(options))
    for note in checkpoint.notes:
        print(note)
    if "float64" in checkpoint.cast_from:
        moved = checkpoint.largest_rounding()
        print(f"float64 to float32: {f'rounded by at most {moved:.1e} (relative)' if moved else 'exact'}")
    statistics = None if options.no_statistics else statistics_for(checkpoint, options.statistics)
    note = f"statistics: {statistics.kind}" if statistics else "WITHOUT statistics: it takes only normalized frames"
    if options.run is not None and statistics is not None:
        from selfpab_jax.convert.run import write_run

        training = write_run(checkpoint, options.run, statistics)
        print(
            f"{options.run}: {checkpoint.family.name} after step {training.step} of {training.optimizer.steps}, {note}"
        )
        print(f"to continue it: selfpab-jax pretrain --resume --run {options.run} --data.path RECORDS")
    if options.model is not None:
        config = write_converted(checkpoint, options.model, statistics, overwrite=options.overwrite)
        print(f"{options.model}: {config.family}, width {config.model.width}, {note}")
        print(f'to use it: selfpab_jax.load_encoder("{options.model}")')
    return ExitCode.OK


def _check_targets(options: Namespace) -> None:
    """Check that both directories can be written before either is."""
    if options.run is not None and options.model is not None:
        run, model = options.run.resolve(), options.model.resolve()
        if model in (run, *run.parents):
            raise ConfigError(f"{options.run} is in the model directory {options.model}; choose another --run")
    if options.run is not None:
        from selfpab_jax.convert.run import require_new

        require_new(options.run)
    if options.model is not None:
        from selfpab_jax.model_dir import require_writable

        require_writable(options.model, overwrite=options.overwrite)


def to_torch_parser() -> Parser:
    """Arguments of `convert to-torch`."""
    parser = Parser("convert to-torch", "Convert a model directory to a checkpoint that the original opens.")
    parser.add_argument("model", type=Path, help="model directory")
    parser.add_argument("file", type=Path, help="checkpoint to write, e.g. out.ckpt")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return parser


def run_to_torch(options: Namespace) -> int:
    """Run `convert to-torch`."""
    from selfpab_jax.convert.to_torch import write_torch

    for warning in write_torch(options.model, options.file, overwrite=options.overwrite):
        print(f"selfpab-jax: {warning}", file=sys.stderr)
    print(f"{options.file}: {options.file.stat().st_size:,} bytes; it holds no statistics")
    return ExitCode.OK


def verify_parser() -> Parser:
    """Arguments of `convert verify`."""
    parser = Parser("convert verify", "Compare two models, model directories or PyTorch checkpoints, layer by layer.")
    parser.add_argument("first", type=Path, help="model directory or .ckpt")
    parser.add_argument("second", type=Path, help="model directory or .ckpt")
    parser.add_argument("--data", type=Path | None, help="records whose windows are compared too")
    parser.add_argument("--windows", type=int, default=2, help="windows of each kind")
    parser.add_argument("--frames", type=int, default=599, help="frames per window")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random windows")
    parser.add_argument(
        "--compute", type=Literal["float32", "bfloat16"], default="float32", help="of our matrix products"
    )
    parser.add_argument("--tolerance", type=float | None, help="largest relative error that passes; 1e-4 in float32")
    parser.add_argument("--attention", action="store_true", help="compare the attention weights too")
    _add_reading(parser)
    return parser


def run_verify(options: Namespace) -> int:
    """Run `convert verify`; fails where the two differ."""
    if options.windows < 1 or options.frames < 1:
        raise ConfigError("--windows and --frames must be at least 1")
    from selfpab_jax.convert.verify import (
        compare,
        compare_statistics,
        open_model,
        random_timestamps,
        random_windows,
        real_windows,
    )

    first, second = (
        open_model(path, options.compute, _reading(options), attention=options.attention)
        for path in (options.first, options.second)
    )
    tolerance = TOLERANCE[options.compute] if options.tolerance is None else options.tolerance
    batches = {"random": random_windows(first, options.windows, options.frames, options.seed)}
    if options.data is not None:
        batches["real"] = real_windows(first, second, options.data, options.windows, options.frames)
    worst = 0.0
    for kind, x in batches.items():
        print(f"{len(x)} {kind} windows of {x.shape[1]} frames   largest     mean  relative")
        for each in compare(first, second, x, random_timestamps(first, len(x), x.shape[1], options.seed)):
            print(f"  {each.layer:<32} {each.largest:9.1e} {each.mean:8.1e} {each.relative:9.1e}")
            worst = each.relative if not each.relative <= worst else worst
    statistics, same_statistics = compare_statistics(first, second)
    if statistics:
        print(f"statistics: {statistics}")
    same = worst <= tolerance and same_statistics
    note = "" if same_statistics else "; their statistics differ"
    print(f"{'the same' if same else 'DIFFERENT'}: {worst:.1e} relative, tolerance {tolerance:.0e}{note}")
    return ExitCode.OK if same else ExitCode.FAILED
