"""`selfpab-jax`: finds the command, runs it, and prints errors in a line or two."""

import difflib
import importlib
import os
import sys
from collections.abc import Iterable, Sequence

from selfpab_jax import __version__
from selfpab_jax.errors import ConfigError, ExitCode, SelfPABError

COMMANDS = {
    # command: (module with <name>_parser and run_<name>, name, what it does)
    "cohort": ("demo", "cohort", "write a synthetic cohort in HUNT4's file layout"),
    "records build": ("records", "build", "turn recordings into spectrogram records"),
    "records describe": ("records", "describe", "summarize a set of records, with a figure"),
    "plan": ("plan", "plan", "estimate what a run needs on other hardware"),
    "pretrain": ("pretrain", "pretrain", "pre-train an encoder on records"),
    "status": ("pretrain", "status", "report how far runs are"),
    "evaluate": ("evaluate", "evaluate", "held-out loss of a run, with figures"),
    "probe": ("probe", "probe", "score heads on a frozen encoder with labeled data"),
    "export": ("evaluate", "export", "write a run's model as a directory"),
    "embed": ("embed", "embed", "write features of long recordings, one row per frame or window"),
    "predict": ("predict", "predict", "activity of long recordings: seconds, minutes by day and hour, pictures"),
    "convert inspect": ("convert", "inspect", "summarize a PyTorch checkpoint"),
    "convert from-torch": ("convert", "from_torch", "PyTorch checkpoint to a model directory or a run"),
    "convert to-torch": ("convert", "to_torch", "model directory to a PyTorch checkpoint"),
    "convert verify": ("convert", "verify", "compare two models layer by layer"),
    "sweep plan": ("sweep", "plan", "list the runs of a scaling sweep and what each will cost"),
    "sweep run": ("sweep", "run", "do one run of a sweep, or all that remain"),
    "sweep status": ("sweep", "status", "report how far the runs of a sweep are"),
    "sweep compare": ("sweep", "compare", "rank the runs of a sweep by their probes, paired by subject"),
    "scaling fit": ("sweep", "fit", "fit scaling laws to a sweep, with a report"),
    "demo": ("demo", "demo", "the main steps on a synthetic cohort, in minutes"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code, see `ExitCode`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if words else ExitCode.USAGE
    if len(words) == 2 and words[1] in ("-h", "--help", "help") and (within := _within(words[0])):
        print(_help(within))
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    try:
        file, name, rest = _find(words)
        module = importlib.import_module(f"selfpab_jax.cli.{file}")
        return getattr(module, f"run_{name}")(getattr(module, f"{name}_parser")().parse_args(rest))
    except ConfigError as error:
        return _fail(error, ExitCode.USAGE)
    except SelfPABError as error:
        return _fail(error, ExitCode.FAILED)
    except KeyboardInterrupt:
        return _fail("stopped", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of the output has gone (`| head`): nothing is wrong, and nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a file in place of a folder, no permission
        if error.errno is None:
            raise
        return _fail(f"{error.filename or 'a file'}: {os.strerror(error.errno).lower()}", ExitCode.FAILED)


def _find(words: list[str]) -> tuple[str, str, list[str]]:
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            file, function, _ = COMMANDS[name]
            return file, function, words[length:]
    if within := _within(words[0]):
        raise ConfigError(f"{words[0]} needs one of: {', '.join(within)} (selfpab-jax {within[0]} --help)")
    near = difflib.get_close_matches(" ".join(words[:2]), COMMANDS, 1) or difflib.get_close_matches(
        words[0], COMMANDS, 1
    )
    hint = f"did you mean {near[0]}?" if near else f"commands are {', '.join(COMMANDS)}"
    raise ConfigError(f"{words[0]}: no such command; {hint} (selfpab-jax --help)")


def _fail(error: object, code: int) -> int:
    print(f"selfpab-jax: {error}", file=sys.stderr)
    return code


def _within(group: str) -> list[str]:
    """The commands of two words that begin with this one."""
    return [name for name in COMMANDS if name.startswith(f"{group} ")]


def _help(names: Iterable[str] = tuple(COMMANDS)) -> str:
    lines = [f"  {name:<18} {COMMANDS[name][2]}" for name in names]
    return "\n".join(
        [
            "usage: selfpab-jax COMMAND [options]",
            "",
            *lines,
            "",
            "selfpab-jax COMMAND --help lists the options of a command.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
