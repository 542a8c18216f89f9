"""`selfpab-jax cohort`: synthetic recordings to try everything else with."""

from pathlib import Path

from jsonargparse import Namespace

from selfpab_jax.cli.parser import Parser
from selfpab_jax.data.cohort import write_cohort
from selfpab_jax.errors import ConfigError, DataError


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
