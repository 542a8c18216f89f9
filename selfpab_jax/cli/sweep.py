"""`selfpab-jax sweep plan|run|status|compare` and `selfpab-jax scaling fit`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from selfpab_jax.config import Parser, find_preset
from selfpab_jax.errors import ConfigError, ExitCode
from selfpab_jax.progress import duration

if TYPE_CHECKING:
    from selfpab_jax.scaling.sweep.manifest import PlannedRun


def plan_parser() -> Parser:
    """Arguments of `sweep plan`."""
    parser = Parser(
        "sweep plan", "Plan the runs of a sweep and estimate what each costs; refuse those that do not fit."
    )
    parser.add_argument("sweep", type=Path, help="sweep file, e.g. configs/sweeps/data_scaling.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweep")
    parser.add_argument("--data.path", type=Path | None, default=None, help="directory that `records build` wrote")
    return parser


def run_plan(options: Namespace) -> int:
    """Run `sweep plan`."""
    from selfpab_jax.scaling.sweep.config import read_sweep
    from selfpab_jax.scaling.sweep.expand import plan_sweep
    from selfpab_jax.scaling.sweep.manifest import write_sweep

    source = find_preset(options.sweep)
    sweep = read_sweep(source)
    planned = plan_sweep(sweep, options["data.path"])
    written, remarks = write_sweep(options.out, source, sweep.name, planned.lines)
    print(plan_table(written.lines, sweep.devices.count))
    for remark in (*planned.remarks, *remarks):
        print(remark)
    print(f"plan.jsonl in {options.out}; selfpab-jax sweep run {options.out} --all (or --index i) starts the runs")
    return ExitCode.OK


def run_parser() -> Parser:
    """Arguments of `sweep run`."""
    parser = Parser("sweep run", "Do one run of a sweep, or all that are left, one after another.")
    parser.add_argument("sweep", type=Path, help="folder that `sweep plan` made")
    parser.add_argument("--index", type=int | None, default=None, help="number of the run, from 0")
    parser.add_argument("--name", type=str | None, default=None, help="name of the run, as `sweep status` prints it")
    parser.add_argument("--all", action="store_true", help="every run that is left, each in its own process")
    parser.add_argument("--retry", action="store_true", help="also runs that failed")
    parser.add_argument(
        "--data.path", type=Path | None, default=None, help="directory of the same records on this machine"
    )
    return parser


def run_run(options: Namespace) -> int:
    """Run `sweep run`."""
    from selfpab_jax.scaling.sweep.lease import wait_for_lease
    from selfpab_jax.scaling.sweep.manifest import open_sweep
    from selfpab_jax.scaling.sweep.run import in_subprocess, run_all, run_line

    if [options.index is None, options.name is None, not options.all].count(False) != 1:
        raise ConfigError("give either --index, the number of a run, or --name, or --all")
    sweep = open_sweep(options.sweep)
    if options.all:
        words = ["sweep", "run", str(options.sweep), *(["--retry"] if options.retry else [])]
        words += ["--data.path", str(options["data.path"])] if options["data.path"] else []
        code, skipped = run_all(sweep, in_subprocess(words), retry=options.retry)
        for line in skipped:
            print(line, file=sys.stderr)
        done = "stopped; the same command continues" if code == ExitCode.STOPPED else f"{len(skipped)} runs skipped"
        print(f"{options.sweep}: {done}; selfpab-jax sweep status {options.sweep}")
        return code
    line = sweep.line(options.index) if options.name is None else sweep.named(options.name)
    if options.index is not None:
        wait_for_lease(sweep.leases, line.name)
    outcome = run_line(sweep, line, data=options["data.path"], retry=options.retry)
    if outcome == "interrupted":
        print(f"selfpab-jax: {line.name} stopped; the same command continues it", file=sys.stderr)
        return ExitCode.STOPPED
    print(f"{line.name}: {'already done' if outcome == 'done before' else 'done'}")
    return ExitCode.OK


def status_parser() -> Parser:
    """Arguments of `sweep status`."""
    parser = Parser("sweep status", "Show the state of the runs of a sweep.")
    parser.add_argument("sweep", type=Path, help="folder that `sweep plan` made")
    parser.add_argument("--json", action="store_true", help="print a JSON list of runs")
    return parser


def run_status(options: Namespace) -> int:
    """Run `sweep status`."""
    from selfpab_jax.scaling.sweep.manifest import open_sweep
    from selfpab_jax.scaling.sweep.status import status_of, status_table

    states = status_of(open_sweep(options.sweep))
    print(json.dumps([state.as_json() for state in states], indent=1) if options.json else status_table(states))
    return ExitCode.OK


def compare_parser() -> Parser:
    """Arguments of `sweep compare`."""
    parser = Parser("sweep compare", "Rank the runs of a sweep by their probes, paired by subject.")
    parser.add_argument("sweep", type=Path, help="folder that `sweep plan` made")
    parser.add_argument(
        "--reference", type=str | None, default=None, help="runs to compare with, by name without the seed"
    )
    parser.add_argument(
        "--without_classes", type=list[str], default=[], help="classes that do not count, as '[standing, lying]'"
    )
    parser.add_argument("--out", type=Path | None, default=None, help="also write comparison.json and .md into here")
    return parser


def run_compare(options: Namespace) -> int:
    """Run `sweep compare`."""
    from selfpab_jax.io import write_text
    from selfpab_jax.probe.report.tables import as_markdown, as_text
    from selfpab_jax.scaling.sweep.compare import compare_runs
    from selfpab_jax.scaling.sweep.manifest import open_sweep

    comparison = compare_runs(open_sweep(options.sweep), options.reference, options.without_classes)
    print(as_text(comparison.table(), header_width=24), end="")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(options.out / "comparison.json", comparison.as_json())
        write_text(options.out / "comparison.md", as_markdown(comparison.table()))
        print(f"comparison.json and comparison.md are in {options.out}")
    return ExitCode.OK


def plan_table(lines: list["PlannedRun"], devices: int) -> str:
    """A table with one line per run, and the totals.

    Args:
        lines: of the plan.
        devices: number of devices of each run.
    """
    width = max(len(line.name) for line in lines)
    rows = [
        f"{'':>5} {'run':<{width}} {'hours':>9} {'subjects':>8} {'parameters':>14} {'steps':>9} {'frames':>8} "
        f"{'FLOPs':>8} {'GiB':>7} {'device time':>12}"
    ]
    for line in lines:
        time = "" if line.device_seconds is None else duration(line.device_seconds)
        rows.append(
            f"{line.index:>5} {line.name:<{width}} {line.hours:>9,.4g} {line.subjects:>8,} {line.parameters:>14,} "
            f"{line.steps:>9,} {line.tokens:>8.2g} {line.flops:>8.2g} {line.memory_bytes / 2**30:>7.3g} {time:>12}"
        )
    flops, seconds = sum(line.own_share * line.flops for line in lines), [line.device_seconds for line in lines]
    tokens = sum(line.own_share * line.tokens for line in lines)
    total = f"{len(lines)} runs: {tokens:.3g} frames, {flops:.3g} FLOPs"
    if shared := sum(line.flops for line in lines) - flops:
        total += f" (what branches share with their trunks is counted once; alone they would take {shared:.3g} more)"
    if None not in seconds:
        hours = sum(each or 0 for each in seconds) / 3600
        total += f", {hours:,.3g} device-hours"
        total += f" ({hours / devices:,.3g} h in sequence on {devices} devices)" if devices > 1 else ""
    else:
        total += "; no device-hours, because neither rate nor devices.kind is set"
    return "\n".join([*rows, total])


def fit_parser() -> Parser:
    """Arguments of the command."""
    parser = Parser("scaling fit", "Fit scaling laws to the runs of a sweep, with confidence intervals and figures.")
    parser.add_argument("sweep", type=Path, help="folder that `sweep plan` made, or a CSV of points")
    parser.add_argument("--out", type=Path, required=True, help="folder for report.html, fits.json and points.csv")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    return parser


def run_fit(options: Namespace) -> int:
    """Run the command."""
    if options.seed < 0:
        raise ConfigError(f"--seed is {options.seed}; it must be at least 0")
    from selfpab_jax.scaling.report import fit_scaling_laws, summary

    print(summary(fit_scaling_laws(options.sweep, out=options.out, seed=options.seed)))
    print(f"report.html, fits.json, points.csv and figures are in {options.out}")
    return ExitCode.OK
