"""`selfpab-jax demo`: the main job from end to end, through the same commands that a user types."""

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
from selfpab_jax.errors import ConfigError, DataError, RunError
from selfpab_jax.train.checkpoint import LATEST

# `selfpab-jax demo`: the main job from end to end, through the same commands that a user types.


def demo_parser() -> Parser:
    """Arguments of the command."""
    parser = Parser("demo", "Cohort, records, interrupted and resumed pre-training, evaluation, export: in minutes.")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="directory for everything the demo makes")
    parser.add_argument("--subjects", type=int, default=12, help="people in the synthetic cohort")
    parser.add_argument("--hours", type=int, default=8, help="five-minute recordings of each of them, one an hour")
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
    _say("5. The model for use")
    _run("export", run, model)

    pictures = [Path(records), Path(run) / "evaluation"]
    _say(f"Done in {time.monotonic() - started:.0f} s. Look at:")
    for picture in sorted(path for directory in pictures for path in directory.rglob("*.png")):
        print(f"   {picture}")
    print("Next: your own recordings, see 'Your own recordings' in the README.")
    return 0


def _command(words: tuple[str, ...] | list[str]) -> list[str]:
    print(f"   $ selfpab-jax {shlex.join(words)}", flush=True)
    return [sys.executable, "-m", "selfpab_jax.cli.main", *words]


def _run(*words: str) -> None:
    if subprocess.run(_command(words)).returncode:
        raise RunError("the demo stopped at the command above")


def _run_until_first_checkpoint(words: list[str], run: Path) -> None:
    """SIGTERM once there is a checkpoint, as a cluster would; the run saves its state and says so."""
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


# `selfpab-jax cohort`: synthetic recordings to try everything else with.


def cohort(directory: Path, subjects: int = 12, hours: int = 8, seed: int = 0) -> int:
    """Write a synthetic cohort in the HUNT4 layout.

    Args:
        directory: folder to write into; it must be empty or not there.
        subjects: people.
        hours: hours of the day from 7 o'clock on in which each is recorded, 5 minutes in each.
        seed: of everything that is drawn.
    """
    if subjects < 1 or hours < 1:
        raise ConfigError("subjects and hours must be at least 1")
    if seed < 0:
        raise ConfigError(f"seed is {seed}: give 0 or more")
    try:
        if directory.exists() and any(directory.iterdir()):
            raise ConfigError(f"{directory} is not empty; give a new folder")
        files = write_cohort(directory, subjects, hours, seed)
    except OSError as error:
        raise DataError(f"{directory}: cannot write a cohort here ({error})") from None
    print(f"{directory}: {subjects} subjects, {files} files of 5 minutes, {files / 12:.1f} h of recording")
    return 0


def cohort_parser() -> Parser:
    """Arguments of `cohort`."""
    parser = Parser("cohort", (cohort.__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, help="folder to write into; it must be empty or not there")
    parser.add_function_arguments(cohort, skip={"directory"}, as_positional=False)
    return parser


def run_cohort(namespace: Namespace) -> int:
    """Runs `cohort` on parsed arguments; the exit code."""
    return cohort(**namespace.as_dict())
