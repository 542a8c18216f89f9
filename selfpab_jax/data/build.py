"""Recordings in, finished records out; killed, it goes on where it was."""

import fcntl
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from selfpab_jax.data.merge import NothingUsable
from selfpab_jax.data.plan import Plan, Shard
from selfpab_jax.data.planning import PLAN_FILE, check_same, write_plan
from selfpab_jax.data.records_info import NAME, VERSION, RecordsInfo, read_info
from selfpab_jax.data.shards import result_path, shard_path
from selfpab_jax.errors import DataError

STAGING = ".building"


@dataclass(frozen=True)
class Runner:
    """Who builds the shards: worker processes of this machine, or a Beam pipeline with options."""

    workers: int = 1
    beam_options: tuple[str, ...] | None = None
    strict: bool = False


def build_records(plan: Plan, out: Path, runner: Runner, overwrite: bool = False, resume: bool = False) -> RecordsInfo:
    """Builds records into `out/spectrograms/1.0.0` and says what they are.

    Finished shards wait in `out/.building` until all are there; the folder of the data set appears at once, complete.
    The same call after a kill goes on with the shards that are missing.

    Args:
        plan: what to build.
        out: the folder to build in.
        runner: how.
        overwrite: delete what an earlier build left in `out`, finished or not.
        resume: finished records of the same options are no error but the answer.

    Raises:
        DataError: finished records in `out`, an unfinished build of another plan, another build at work, nothing
            usable, or a full disk.
    """
    with _lock(out):
        folder, staging = out / NAME / VERSION, out / STAGING
        if overwrite:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(staging, ignore_errors=True)
        if folder.exists() and (resume or staging.exists()) and read_info(folder).options == plan.options():
            # Killed while clearing up, or asked to go on with what is done.
            shutil.rmtree(staging, ignore_errors=True)
            return read_info(folder)
        if folder.exists():
            raise DataError(f"{out}: finished records are in it already; choose another --out, or add --overwrite")
        try:
            if (staging / PLAN_FILE).exists():
                check_same(plan, staging)
            else:
                write_plan(plan, staging)
            _sweep(out)
            _prepare(plan, out, staging, runner)
            shutil.rmtree(staging)
        except NothingUsable:
            # The same folder serves the next attempt, with other options or mended files.
            shutil.rmtree(staging)
            raise
        except OSError as error:
            raise DataError(f"{out}: cannot build here ({error}); mend that and repeat the command to go on") from None
    return read_info(folder)


def unfinished(staging: Path, shards: list[Shard]) -> list[Shard]:
    """The shards whose result is not there yet."""
    return [
        shard for shard in shards if not (result_path(staging, shard).exists() and shard_path(staging, shard).exists())
    ]


def _prepare(plan: Plan, out: Path, staging: Path, runner: Runner) -> None:
    from selfpab_jax.data.spectrograms.spectrograms import Spectrograms

    def build_shards(plan: Plan, staging: Path, shards: list[Shard]) -> None:
        missing = unfinished(staging, shards)
        if not missing:
            return
        if runner.beam_options is not None:
            from selfpab_jax.data.beam import build_shards_with_beam

            build_shards_with_beam(plan, staging, missing, runner.strict, runner.beam_options)
        else:
            from selfpab_jax.data.workers import Progress, build_shards

            progress = Progress(sum(shard.files for shard in missing), plan.records.new_seconds / 3600)
            build_shards(plan, staging, missing, runner.workers, runner.strict, progress)

    builder = Spectrograms(data_dir=str(out), plan=plan, staging=staging, build_shards=build_shards)
    with redirect_stdout(io.StringIO()):  # TFDS speaks of downloads, of which there are none
        builder.download_and_prepare(download_dir=str(staging / "downloads"))


def _sweep(out: Path) -> None:
    """Clears what a killed build left half-written."""
    for partial in (out / STAGING).glob("*.part"):
        partial.unlink(missing_ok=True)
    for folder in (out / NAME).glob(f"incomplete.*{VERSION}*"):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = open(out / ".lock", "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise DataError(f"{out}: no folder to build in ({error.strerror}); choose another --out") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"{out}: another build is at work in it") from None
        yield
