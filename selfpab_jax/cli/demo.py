"""`selfpab-jax demo`: the main steps from end to end, through the same commands that a user types; and `cohort`."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from jsonargparse import Namespace

from selfpab_jax.config import Parser
from selfpab_jax.data.sources.synthetic import write_cohort
from selfpab_jax.errors import ConfigError, ExitCode, RunError, StorageError
from selfpab_jax.io import reason
from selfpab_jax.train.checkpoint import LATEST


def demo_parser() -> Parser:
    """Arguments of the command."""
    parser = Parser("demo", "Cohort, records, interrupted and resumed pre-training, evaluation, export: in minutes.")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="directory for everything the demo makes")
    parser.add_argument("--subjects", type=int, default=12, help="subjects in the synthetic cohort")
    parser.add_argument("--hours", type=int, default=8, help="five-minute recordings per subject, one per hour")
    parser.add_argument("--steps", type=int, default=500, help="training steps")
    return parser


def run_demo(options: Namespace) -> int:
    """Run the command."""
    out = options.out
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out} exists; remove it (rm -r {out}) or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    cohort, records, run, model = (str(out / name) for name in ("cohort", "records", "run", "model"))
    pretrain = [
        "pretrain", "--config", "configs/demo.yaml", "--data.path", records, "--run", run,
        "--optimizer.steps", str(options.steps),
    ]  # fmt: skip
    started = time.monotonic()

    _say("1. A synthetic cohort in HUNT4's file layout")
    _run("cohort", cohort, "--subjects", str(options.subjects), "--hours", str(options.hours))
    _say("2. Recordings become spectrogram records")
    split = ["--validation", "0.25", "--test", "0"]
    _run("records", "build", "--source", "hunt4", cohort, "--out", records, "--window_seconds", "60", *split)
    _run("records", "describe", records)
    _say("3. Pre-training, interrupted on purpose ...")
    _run_until_first_checkpoint(pretrain, Path(run))
    _say("   ... and resumed where it stopped")
    _run(*pretrain, "--resume")
    _say("4. Held-out windows")
    _run("evaluate", run, "--data", records)
    _say("5. The model as a directory")
    _run("export", run, model)

    pictures = [Path(records), Path(run) / "evaluation"]
    _say(f"Done in {time.monotonic() - started:.0f} s. Look at:")
    for picture in sorted(path for directory in pictures for path in directory.rglob("*.png")):
        print(f"   {picture}")
    print("Next: your own recordings, see the README.")
    return ExitCode.OK


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
    parser.add_argument("--seed", type=int, default=0, help="seed of all random draws")
    return parser


def run_cohort(options: Namespace) -> int:
    """Run `cohort`."""
    directory = options.directory
    for name, least in (("subjects", 1), ("hours", 1), ("seed", 0)):
        if options[name] < least:
            raise ConfigError(f"--{name} is {options[name]}; it must be at least {least}")
    try:
        if directory.exists() and any(directory.iterdir()):
            raise ConfigError(f"{directory} is not empty; give a new folder")
        files = write_cohort(directory, options.subjects, options.hours, options.seed)
    except OSError as error:
        raise StorageError(f"{directory}: no cohort can be written here: {reason(error)}") from None
    print(f"{directory}: {options.subjects} subjects, {files} files of 5 minutes, {files / 12:.1f} h of recording")
    return ExitCode.OK
