"""Errors that a user can mend, and the exit codes of the command line.

The command line prints these errors in a line or two, without a traceback.
"""

import sys
from enum import IntEnum


class ExitCode(IntEnum):
    """What `selfpab-jax` returns to the shell."""

    OK = 0
    FAILED = 1
    USAGE = 2
    """A mistake in the call or the configuration."""
    STOPPED = 75
    """Stopped by a signal with everything saved (EX_TEMPFAIL): start the same command again."""
    STUCK = 76
    """No step was done for too long (`watch.stuck_minutes`): start it again with --resume."""
    INTERRUPTED = 130
    """Ctrl-C, with nothing to resume."""


class SelfPABError(Exception):
    """What is wrong, in which file or field, and what to do."""


class ConfigError(SelfPABError, ValueError):
    """A setting or an argument is wrong."""


class DataError(SelfPABError):
    """Recordings or records are missing, damaged or do not fit."""


class ModelError(SelfPABError):
    """A model directory or checkpoint is missing, damaged or does not fit."""


class RunError(SelfPABError):
    """A training run cannot start or continue."""


class StorageError(SelfPABError):
    """A file or folder cannot be written: no permission, no space, or something else is in its place."""


class LockedError(RunError):
    """Another process is working in the folder."""


def warn(text: str) -> None:
    """Print what a user should know, but need not stop for."""
    print(f"selfpab-jax: warning: {text}", file=sys.stderr, flush=True)
