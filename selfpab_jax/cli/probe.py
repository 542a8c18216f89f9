"""`selfpab-jax probe`."""

import sys
from pathlib import Path

from jsonargparse import Namespace

from selfpab_jax.config import Parser, settings_from
from selfpab_jax.errors import ConfigError
from selfpab_jax.probe.config import ProbeSettings


def probe_parser() -> Parser:
    """Every field of `ProbeSettings`, and what goes in and out."""
    parser = Parser("probe", "Score heads on a frozen encoder by cross-validation over people.")
    parser.add_argument("--config", action="config", help="YAML preset, e.g. configs/probe/harth.yaml")
    parser.add_class_arguments(ProbeSettings)
    parser.add_argument("--model", type=Path, help="model directory (selfpab-jax export, convert from-torch)")
    parser.add_argument("--data", type=Path, help="the data set, as published or as its TFDS builder made it")
    parser.add_argument("--out", type=Path, help="where scores, pictures and report.html go")
    parser.add_argument("--cache", type=Path | None, default=None, help="keeps features; OUT/cache if unset")
    parser.add_argument(
        "--compare", action="store_true", help="with random weights and every supervised baseline beside the encoder"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first file that cannot be used")
    parser.add_argument("--overwrite", action="store_true", help="replace the results in OUT (the cache stays)")
    return parser


def run_probe(parsed: Namespace) -> int:
    """Run the command."""
    from dataclasses import replace

    from selfpab_jax.probe.baselines import BASELINES
    from selfpab_jax.probe.report.page import write_report
    from selfpab_jax.probe.report.results import RESULT_FILE, save
    from selfpab_jax.probe.report.tables import all_tables, as_text
    from selfpab_jax.probe.run import run_probe as probe

    settings = settings_from(probe_parser(), parsed, ProbeSettings)
    for name, example in (("model", "models/first"), ("data", "harth/"), ("out", "probes/first")):
        if parsed[name] is None:
            raise ConfigError(f"--{name} is missing: give e.g. --{name} {example}")
    if parsed.out.exists() and not parsed.out.is_dir():
        raise ConfigError(f"{parsed.out} is a file; --out is a folder")
    if (parsed.out / RESULT_FILE).exists() and not parsed.overwrite:
        raise ConfigError(f"{parsed.out} has results already; choose another --out or add --overwrite")
    if parsed.compare:
        settings = replace(settings, random_encoder=True, baselines=tuple(BASELINES))

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    parsed.out.mkdir(parents=True, exist_ok=True)
    cache = parsed.cache or parsed.out / "cache"
    probed = probe(settings, parsed.model, parsed.data, cache=cache, strict=parsed.strict, tell=tell)
    save(probed.result, parsed.out)
    for table in all_tables(probed.result):
        print(as_text(table), end="\n\n")
    report = write_report(probed.result, parsed.out, timelines=probed.timelines, embedding=probed.embedding)
    for name, lines in (("note", probed.result.notes), ("set aside", probed.result.set_aside)):
        for line in lines[:10]:
            print(f"{name}: {line}")
        if len(lines) > 10:
            print(f"... and {len(lines) - 10} more, in the report")
    print(f"{report}: pictures and all of this; {RESULT_FILE} and CSV tables beside it")
    return 0
