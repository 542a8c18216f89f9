"""`selfpab-jax pretrain` and `selfpab-jax status`."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from selfpab_jax.config import Parser, settings_from
from selfpab_jax.errors import ConfigError, ExitCode, RunError
from selfpab_jax.progress import duration
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.logging import PHASES, read_log, time_shares
from selfpab_jax.train.run_dir import SETTINGS_FILE, read_settings


class PretrainParser(Parser):
    """Knows that a resumed run brings its own settings."""

    def parse_args(self, args: Sequence[str] | None = None, **options: Any) -> Namespace:
        """Parse the command line, with the settings of the run under what is given."""
        words = list(sys.argv[1:] if args is None else args)
        return super().parse_args([*_settings_of_the_run(words), *_settings_of_a_branch(words), *words], **options)


def pretrain_parser() -> PretrainParser:
    """Every field of `PretrainSettings`, and where the run goes."""
    parser = PretrainParser("pretrain", "Pre-train an encoder by masked reconstruction of spectrogram records.")
    parser.add_argument("--config", action="config", help="YAML file or preset, e.g. configs/selfpab.yaml")
    parser.add_class_arguments(PretrainSettings)
    parser.add_argument("--run", type=Path, help="directory of the run: settings, log, checkpoints")
    parser.add_argument("--resume", action="store_true", help="continue RUN, or start it if it is new")
    parser.add_argument("--overwrite", action="store_true", help="remove an existing RUN first")
    parser.add_argument("--from", type=Path, help="branch off this run (optimizer.schedule wsd), with its settings")
    parser.add_argument("--at", type=int, help="step whose kept state the branch begins with")
    parser.add_argument("--cooldown", type=int, help="steps of the branch, over which the learning rate falls to 0")
    return parser


def run_pretrain(parsed: Namespace) -> int:
    """Run the command."""
    settings = settings_from(pretrain_parser(), parsed, PretrainSettings)
    if parsed.run is None:
        raise ConfigError("--run is missing: give the directory of the run, e.g. --run runs/first")
    import jax

    from selfpab_jax.train.branch import begin_branch, check_branch, kept_steps
    from selfpab_jax.train.loop import pretrain
    from selfpab_jax.train.watch import watch

    open_probe = None
    if settings.probe.config is not None:
        from selfpab_jax.probe.monitor import open_probe
    try:
        if not kept_steps(parsed.run):
            check_branch(settings)  # before there is a folder
        with watch(settings.watch, parsed.run) as on_step:
            ending = pretrain(
                settings,
                parsed.run,
                resume=parsed.resume,
                overwrite=parsed.overwrite,
                open_probe=open_probe,
                begin=begin_branch,
                on_step=on_step,
            )
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        # A normal exit would wait for the other processes, which wait for this one.
        print(f"selfpab-jax: process {jax.process_index()}: {error}", file=sys.stderr, flush=True)
        os._exit(ExitCode.USAGE if isinstance(error, ConfigError) else ExitCode.FAILED)
    if ending != "interrupted":
        return ExitCode.OK
    print(f"selfpab-jax: stopped, everything is saved; --resume continues {parsed.run}", file=sys.stderr)
    return ExitCode.STOPPED


def _settings_of_the_run(words: list[str]) -> list[str]:
    """`--config` with the settings of the run that is resumed, where no other is given."""
    given = [word.split("=", 1)[0] for word in words]
    if "--resume" not in given or "--config" in given or "--run" not in given:
        return []
    settings = Path(_value_of(words, "--run")) / SETTINGS_FILE
    return ["--config", str(settings)] if settings.is_file() else []


def _settings_of_a_branch(words: list[str]) -> list[str]:
    """`--config` with the settings of the run that `--from` names, and the length of the branch."""
    given = {word.split("=", 1)[0] for word in words}
    if "--from" not in given or "--help" in given:
        return []
    if missing := [name for name in ("--at", "--cooldown") if name not in given]:
        raise ConfigError(f"--from needs {' and '.join(missing)}: the step to branch off at, the steps to cool down")
    trunk, step, cooldown = (_value_of(words, name) for name in ("--from", "--at", "--cooldown"))
    if not (step.isdecimal() and cooldown.isdecimal() and int(cooldown)):
        raise ConfigError(f"--at {step} --cooldown {cooldown}: give numbers of steps, at least 1 to cool down")
    read_settings(Path(trunk))
    steps = ["--optimizer.steps", str(int(step) + int(cooldown)), "--optimizer.cooldown_steps", cooldown]
    return ["--config", str(Path(trunk) / SETTINGS_FILE), *steps, "--branch.run", trunk, "--branch.step", step]


def _value_of(words: list[str], option: str) -> str:
    place = next(place for place, word in enumerate(words) if word.split("=", 1)[0] == option)
    return words[place].split("=", 1)[1] if "=" in words[place] else "".join(words[place + 1 : place + 2])


def status_parser() -> Parser:
    """Arguments of the command."""
    parser = Parser("status", "Report how far runs are.")
    parser.add_argument("runs", nargs="+", type=Path, help="directories of runs")
    return parser


def run_status(parsed: Namespace) -> int:
    """Run the command."""
    failed = False
    for run in parsed.runs:
        try:
            read_settings(run)
            print(f"{run}: {describe(run)}")
        except RunError as error:
            failed = True
            print(f"selfpab-jax: {error}", file=sys.stderr)
    return ExitCode.FAILED if failed else ExitCode.OK


def describe(run: Path) -> str:
    """The state of a run in one line."""
    start, train, validation, probe, end, latest = {}, {}, {}, {}, {}, 0.0
    events = list(read_log(run))
    for event in events:
        latest = event["time"]
        match event["event"]:
            case "start":
                start, end = event, {}
            case "train":
                train = event
            case "validation":
                validation = event
            case "probe":
                probe = event
            case "end":
                end = event
    if not start:
        return "not started yet"
    steps = start["steps"]
    parts = [f"step {train.get('step', start['step'])} of {steps}"]
    if train:
        parts.append(f"loss {train['mean_loss']:.4f}, {train['hours_seen']:,.1f} h of recording seen")
    if validation:
        parts.append(
            f"held-out loss {validation['loss']:.4f} at step {validation['step']} (best {validation['best']:.4f})"
        )
    if probe:
        parts.append(f"probe macro-F1 {100 * probe['macro_f1']:.1f} at step {probe['step']}")
    if shares := time_shares(events):
        ordered = sorted(shares.items(), key=lambda item: -item[1])
        parts.append("time: " + ", ".join(f"{share:.0%} {PHASES[name]}" for name, share in ordered if share >= 0.005))
    silence = duration(time.time() - latest)
    if end:
        parts.append(f"{end['ending']} {silence} ago")
    else:
        left = (steps - train["step"]) / steps if train else 1.0
        seconds = (latest - start["time"]) * left / max(1 - left - start["step"] / steps, 1e-9) if train else 0
        parts.append(f"last log entry {silence} ago" + (f", {duration(seconds)} left then" if seconds else ""))
    return "; ".join(parts)
