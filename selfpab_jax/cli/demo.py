"""`selfpab-jax demo`: the main steps from end to end, through the same commands that a user types; and `cohort`."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from selfpab_jax.config import Parser
from selfpab_jax.data.sources.synthetic import write_cohort, write_days
from selfpab_jax.errors import ConfigError, ExitCode, RunError, StorageError
from selfpab_jax.io import reason
from selfpab_jax.model_dir import SHIPPED_MODELS
from selfpab_jax.train.checkpoint import LATEST

EXAMPLE = SHIPPED_MODELS / "har-small" / "recording.csv.gz"
"""Two minutes of a subject of HARTH that neither the encoder nor its head was trained on."""


def demo_parser() -> Parser:
    """Arguments of the command."""
    parser = Parser(
        "demo",
        "Activities of a recording by the encoder that ships with the package; then one of your own: cohort, records, "
        "interrupted and resumed pre-training, evaluation, export. In minutes.",
    )
    parser.add_argument(
        "--task",
        type=Literal["selfpab", "lta2v"],
        default="selfpab",
        help="lta2v shows what the time of day is worth instead: windows of 30 hours of synthetic fortnights",
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="directory for everything the demo makes")
    parser.add_argument("--subjects", type=int, default=12, help="subjects in the synthetic cohort")
    parser.add_argument(
        "--hours", type=int, default=8, help="five-minute recordings per subject, one per hour (not for lta2v)"
    )
    parser.add_argument("--steps", type=int, default=500, help="training steps")
    return parser


def run_demo(options: Namespace) -> int:
    """Run the command."""
    out = options.out
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out} exists; remove it (rm -r {out}) or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    if options.task == "lta2v":
        _time_of_day(out, options.subjects, options.steps)
        print(f"Done in {time.monotonic() - started:.0f} s. More: docs/lta2v.md")
        return ExitCode.OK
    activities, cohort, records, run, model = (
        str(out / name) for name in ("activities", "cohort", "records", "run", "model")
    )
    pretrain = [
        "pretrain", "--config", "configs/demo.yaml", "--data.path", records, "--run", run,
        "--optimizer.steps", str(options.steps),
    ]  # fmt: skip

    _say("1. Activities of two real minutes, by the encoder and the head that ship with the package")
    recording = out / "recording" / EXAMPLE.name
    recording.parent.mkdir()
    shutil.copyfile(EXAMPLE, recording)
    _run("predict", str(recording), "--model", EXAMPLE.parent.name, "--out", activities)
    _say("2. An encoder of your own: a synthetic cohort in HUNT4's file layout ...")
    _run("cohort", cohort, "--subjects", str(options.subjects), "--hours", str(options.hours))
    _say("3. ... whose recordings become spectrogram records")
    split = ["--validation", "0.25", "--test", "0"]
    _run("records", "build", "--source", "hunt4", cohort, "--out", records, "--window_seconds", "60", *split)
    _run("records", "describe", records)
    _say("4. Pre-training, interrupted on purpose ...")
    _run_until_first_checkpoint(pretrain, Path(run))
    _say("   ... and resumed where it stopped")
    _run(*pretrain, "--resume")
    _say("5. Held-out windows")
    _run("evaluate", run, "--data", records)
    _say("6. The model as a directory")
    _run("export", run, model)

    pictures = [Path(activities), Path(records), Path(run) / "evaluation"]
    _say(f"Done in {time.monotonic() - started:.0f} s. Look at:")
    for picture in sorted(path for directory in pictures for path in directory.rglob("*.png")):
        print(f"   {picture}")
    print("Next: your own recordings, see the README.")
    return ExitCode.OK


def _time_of_day(out: Path, subjects: int, steps: int) -> None:
    """The same windows of 30 hours, reconstructed without and with calendar positions."""
    from selfpab_jax.train.evaluate import draw_by_hour

    cohort, records = str(out / "cohort"), str(out / "records")
    _say("1. A synthetic fortnight of each subject: nights, work, meals, weekends, hours without the sensors")
    _run("cohort", cohort, "--subjects", str(subjects), "--days", "14")
    _say("2. Windows of 30 hours, every 7 hours, in frames of 10 minutes")
    _run(
        "records", "build", cohort, "--source", "recordings", "--out", records, "--rate", "0.2", "--record_rate", "0.2",
        "--gap_limit", "30", "--window_seconds", "108000", "--shift_seconds", "25200", "--shortest_seconds", "54000",
        "--fft_window", "120", "--fft_hop", "60", "--validation", "0.25", "--test", "0",
    )  # fmt: skip
    by_hour = {}
    for number, (name, value) in enumerate((("without calendar positions", "false"), ("with them", "true")), 3):
        run = str(out / name.replace(" ", "_"))
        _say(f"{number}. Blocks of 3 hours masked, {name}")
        _run(
            "pretrain", "--config", "lta2v_demo", "--data.path", records, "--run", run,
            "--model.temporal_positions", value, "--optimizer.steps", str(steps),
        )  # fmt: skip
        _run("evaluate", run, "--data", records)
        scores = json.loads((Path(run) / "evaluation" / "scores.json").read_text(encoding="utf-8"))["by_hour"]
        by_hour |= {name: scores["model"], "linear interpolation": scores["linear_interpolation"]}
    draw_by_hour(by_hour, out / "by_hour.png")
    worth = [a - b for a, b in zip(by_hour["without calendar positions"], by_hour["with them"], strict=True)]
    hours = sorted(range(24), key=lambda hour: -worth[hour])[:3]
    _say("What the time of day is worth, on subjects that neither encoder has seen:")
    for hour in hours:
        print(
            f"   {hour:2}:00  mean error {by_hour['without calendar positions'][hour]:.3f} without, "
            f"{by_hour['with them'][hour]:.3f} with calendar positions"
        )
    print(f"   all hours: {out / 'by_hour.png'}")


def _command(words: tuple[str, ...] | list[str]) -> list[str]:
    print(f"   $ selfpab-jax {shlex.join(words)}", flush=True)
    return [sys.executable, "-m", "selfpab_jax.cli.main", *words]


def _run(*words: str) -> None:
    if subprocess.run(_command(words)).returncode:
        raise RunError("the demo stopped at the command above")


def _run_until_first_checkpoint(words: list[str], run: Path) -> None:
    """Send SIGTERM once there is a checkpoint, as a cluster would; the run saves its state and exits."""
    process = subprocess.Popen(_command(words))
    try:
        while process.poll() is None and not any((run / "checkpoints" / LATEST).glob("[0-9]*")):
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
    if code not in (ExitCode.STOPPED, ExitCode.OK):
        raise RunError("the demo stopped at the command above")


def _say(line: str) -> None:
    print(f"\n{line}", flush=True)


def cohort_parser() -> Parser:
    """Arguments of `cohort`."""
    parser = Parser("cohort", "Write a synthetic cohort in HUNT4's file layout, to try everything else with.")
    parser.add_argument("directory", type=Path, help="a new or empty folder")
    parser.add_argument("--subjects", type=int, default=12, help="number of subjects")
    parser.add_argument(
        "--hours", type=int, default=8, help="hours of the day from 7:00 on with a recording of 5 minutes"
    )
    parser.add_argument(
        "--days",
        type=int | None,
        default=None,
        help="instead of --hours: recordings of whole days, a table per subject with a row every 5 seconds",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all random draws")
    return parser


def run_cohort(options: Namespace) -> int:
    """Run `cohort`."""
    directory = options.directory
    for name, least in (("subjects", 1), ("hours", 1), ("days", 1), ("seed", 0)):
        if options[name] is not None and options[name] < least:
            raise ConfigError(f"--{name} is {options[name]}; it must be at least {least}")
    try:
        if directory.exists() and any(directory.iterdir()):
            raise ConfigError(f"{directory} is not empty; give a new folder")
        if options.days is not None:
            directory.mkdir(parents=True, exist_ok=True)
            write_days(directory, options.subjects, options.days, options.seed)
            print(f"{directory}: {options.subjects} subjects, {24 * options.subjects * options.days} h of recording")
            return ExitCode.OK
        files = write_cohort(directory, options.subjects, options.hours, options.seed)
    except OSError as error:
        raise StorageError(f"{directory}: no cohort can be written here: {reason(error)}") from None
    print(f"{directory}: {options.subjects} subjects, {files} files of 5 minutes, {files / 12:.1f} h of recording")
    return ExitCode.OK
