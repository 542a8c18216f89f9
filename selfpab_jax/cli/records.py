"""`selfpab-jax records build` and `selfpab-jax records describe`."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from selfpab_jax.config import Parser
from selfpab_jax.data.quality import quality_summary
from selfpab_jax.data.records.build import build_records
from selfpab_jax.data.records.dataset import Records
from selfpab_jax.data.records.format import QUALITY_FOLDER
from selfpab_jax.data.records.settings import BuildSettings
from selfpab_jax.data.records.usage import usage_text
from selfpab_jax.errors import ConfigError, StorageError, warn

FLAGS = {
    "skip_night": "hunt4 only. Leave out recordings that start in the hours 0 to 6.",
    "beam": "Run as an Apache Beam pipeline instead of processes; all of its workers must see the folders.",
    "strict": "Stop at the first file that cannot be used instead of skipping it.",
    "resume": "Continue an unfinished build, as the same command does anyway; a finished one is not an error.",
    "overwrite": "Delete what is in `out` first.",
}
"""Options of `records build` that take no value."""


def build_parser() -> Parser:
    """Arguments of `records build`."""
    parser = Parser(
        "records build", "Build spectrogram records from recordings. If it is interrupted, repeat the command."
    )
    parser.add_argument("--config", action="config", help="YAML preset of the options below, e.g. records/lta2v")
    parser.add_argument("paths", nargs="+", type=str, help="folders of recordings")
    parser.add_argument("--out", type=Path, required=True, help="folder to build in")
    parser.add_class_arguments(BuildSettings, skip={"paths", "skip_night"})
    parser.add_argument(
        "--workers",
        type=int | None,
        default=None,
        help="number of processes; one per CPU core if not given. The records do not depend on it",
    )
    parser.add_argument(
        "--beam_options",
        type=list[str] | None,
        default=None,
        help="options of Beam, e.g. [--runner=FlinkRunner, --flink_master=host:8081]",
    )
    for name, text in FLAGS.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser


def run_build(namespace: Namespace) -> int:
    """Run `records build` on parsed arguments; the exit code."""
    options = namespace.as_dict()
    if options["beam_options"] and not options["beam"]:
        raise ConfigError("--beam_options needs --beam")
    values: dict[str, Any] = {field.name: options[field.name] for field in fields(BuildSettings)}
    settings = BuildSettings(**{**values, "paths": tuple(options["paths"])})
    if settings.source == "recordings":
        for entry in settings.passed_over():
            print(f"selfpab-jax: skipped: {entry.what}: {entry.reason}", file=sys.stderr)
    records = build_records(
        settings,
        options["out"],
        workers=options["workers"],
        beam_options=tuple(options["beam_options"] or ()) if options["beam"] else None,
        strict=options["strict"],
        resume=options["resume"],
        overwrite=options["overwrite"],
    )
    print(_summary(records, options["out"]))
    return 0


def describe_parser() -> Parser:
    """Arguments of `records describe`."""
    parser = Parser("records describe", "Print what records hold, and plot it.")
    parser.add_argument("directory", type=Path, help="the `out` folder of `records build`, or a folder of shards in it")
    parser.add_argument(
        "--picture", type=Path | None, default=None, help="PNG to write; records.png beside the shards if not given"
    )
    return parser


def run_describe(namespace: Namespace) -> int:
    """Run `records describe` on parsed arguments; the exit code."""
    from selfpab_jax.data.records.dataset import open_records
    from selfpab_jax.data.records.describe import describe_text, plot_records

    records = open_records(namespace.directory)
    print(describe_text(records))
    path = namespace.picture or records.folder / "records.png"
    try:
        plot_records(records, path)
    except StorageError as error:
        if namespace.picture:
            raise
        warn(f"{error}; choose another place with --picture FILE.png")
    else:
        print(f"picture: {path}")
    return 0


def _summary(records: Records, out: Path) -> str:
    info = records.info
    lines = [
        f"{split}: {size.records} records, {size.hours:.1f} h, {size.subjects} subjects"
        + (f", {size.padded} records padded" if size.padded else "")
        for split, size in info.splits.items()
    ]
    skipped = f"{info.skipped} of {info.files} files skipped"
    if info.skipped:
        skipped += f", see {records.skipped_file}"
    used = [] if info.usage is None else usage_text(info.usage, info.skipped_hours)
    quality = quality_summary(records.folder / QUALITY_FOLDER)
    return "\n".join([*lines, *used, skipped, *quality, f"records: {out}"])
