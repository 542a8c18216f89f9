"""`selfpab-jax probe`."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from selfpab_jax.config import Parser, settings_from
from selfpab_jax.errors import ConfigError, ExitCode
from selfpab_jax.probe.config import ProbeSettings

LINES_SHOWN = 10
"""Notes, and entries on skipped data, that are printed; all are in the report."""


def probe_parser() -> Parser:
    """Every field of `ProbeSettings`, and what goes in and out."""
    parser = Parser("probe", "Score heads on a frozen encoder by cross-validation over subjects.")
    parser.add_argument("--config", action="config", help="YAML preset, e.g. configs/probe/harth.yaml")
    parser.add_class_arguments(ProbeSettings)
    parser.hide("linear.kind", "mlp.kind", "temporal.kind")
    parser.add_argument("--model", type=Path, help="model directory (selfpab-jax export, convert from-torch)")
    parser.add_argument("--data", type=Path, help="the data set, as published or as its TFDS builder prepared it")
    parser.add_argument("--out", type=Path, help="folder for scores, figures and report.html")
    parser.add_argument("--cache", type=Path | None, default=None, help="folder for features; default OUT/cache")
    parser.add_argument(
        "--save_head", type=Path | None, default=None,
        help="folder for a head trained on all subjects, for selfpab-jax predict",
    )  # fmt: skip
    parser.add_argument(
        "--save_head_kind", type=Literal["best", "linear", "mlp", "temporal"], default="best",
        help="which head to save; best is by macro-F1 on held-out subjects",
    )  # fmt: skip
    parser.add_argument(
        "--compare",
        action="store_true",
        help="also score random weights, the spectrogram itself and every supervised baseline",
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first file that cannot be used")
    parser.add_argument("--overwrite", action="store_true", help="replace the results in OUT (the cache stays)")
    return parser


def run_probe(options: Namespace) -> int:
    """Run the command."""
    from selfpab_jax.probe.baselines import BASELINES
    from selfpab_jax.probe.report.page import REPORT_FILE
    from selfpab_jax.probe.report.results import RESULT_FILE
    from selfpab_jax.probe.report.tables import all_tables, as_text
    from selfpab_jax.probe.run import probe_encoder

    settings = settings_from(probe_parser(), options, ProbeSettings)
    for name, example in (("model", "models/first"), ("data", "harth/"), ("out", "probes/first")):
        if options[name] is None:
            raise ConfigError(f"--{name} is missing: give e.g. --{name} {example}")
    if options.compare:
        settings = replace(settings, random_encoder=True, spectrogram=True, baselines=tuple(BASELINES))
    files = {name: options[name] for name in ("model", "data", "out", "cache", "save_head", "save_head_kind")}
    result = probe_encoder(settings, **files, strict=options.strict, overwrite=options.overwrite)
    for table in all_tables(result):
        print(as_text(table), end="\n\n")
    for name, lines in (("note", result.notes), ("skipped", result.skipped)):
        for line in lines[:LINES_SHOWN]:
            print(f"{name}: {line}")
        if len(lines) > LINES_SHOWN:
            print(f"... and {len(lines) - LINES_SHOWN} more in the report")
    if options.save_head is not None:
        print(f"{options.save_head}: a head trained on all subjects, for selfpab-jax predict --head")
    print(f"{options.out / REPORT_FILE}: scores and figures; {RESULT_FILE} and CSV tables are in the same folder")
    return ExitCode.OK
