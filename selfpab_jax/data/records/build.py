"""Recordings to finished records; after an interruption the same call continues where it stopped."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from selfpab_jax.data.records.dataset import Records, open_records
from selfpab_jax.data.records.format import FAILED_FOLDER, NAME, REPLACED, STAGING, VERSION, RecordsInfo, read_info
from selfpab_jax.data.records.merge import NothingUsableError, write_failure
from selfpab_jax.data.records.settings import BuildSettings, require_positive
from selfpab_jax.data.records.shards import result_path, shard_path
from selfpab_jax.data.records.spec import PLAN_FILE, BuildSpec, Shard, check_same, read_shards, write_plan
from selfpab_jax.data.records.workers import BuildCounts, build_shards
from selfpab_jax.errors import ConfigError, DataError, StorageError
from selfpab_jax.io import exclusive_lock, reason
from selfpab_jax.progress import Progress


def build_records(
    settings: BuildSettings,
    out: str | Path,
    *,
    workers: int | None = None,
    beam_options: tuple[str, ...] | None = None,
    strict: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> Records:
    """Build spectrogram records from recordings, as `selfpab-jax records build` does.

    After an interruption the same call continues with the shards that are missing. Files that cannot be used are
    skipped and listed in `skipped.jsonl` beside the records.

    Args:
        settings: what to build.
        out: folder to build in.
        workers: number of processes; one per CPU core if not given. The records do not depend on it.
        beam_options: build with Apache Beam instead, with these options.
        strict: stop at the first file that cannot be used.
        resume: if finished records of the same settings exist, open them.
        overwrite: delete what an earlier build left in `out`.

    Returns:
        The records, opened for training.

    Raises:
        ConfigError: a setting is wrong.
        DataError: finished records exist in `out`, an unfinished build has other settings, or nothing can be used.
        LockedError: another build is running in `out`.
        StorageError: the disk is full, or `out` cannot be written.
    """
    if resume and overwrite:
        raise ConfigError("resume and overwrite cannot be combined")
    require_positive(workers=workers)
    runner = Runner(os.cpu_count() or 1 if workers is None else workers, beam_options, strict)
    build_spec(settings.spec(), Path(out), runner, overwrite=overwrite, resume=resume)
    return open_records(Path(out))


@dataclass(frozen=True)
class Runner:
    """Who builds the shards.

    Attributes:
        workers: number of processes of this machine.
        beam_options: options of a Beam pipeline; None for processes.
        strict: stop at the first file that cannot be used.
    """

    workers: int = 1
    beam_options: tuple[str, ...] | None = None
    strict: bool = False


def build_spec(
    spec: BuildSpec, out: Path, runner: Runner, *, overwrite: bool = False, resume: bool = False
) -> RecordsInfo:
    """Build records into `out/spectrograms/1.0.0`.

    Finished shards wait in `out/.building` until all are done; then the folder of the data set appears at once,
    complete.

    Args:
        spec: what to build.
        out: folder to build in.
        runner: who builds the shards.
        overwrite: replace what an earlier build left in `out`; finished records go once the new ones are finished.
        resume: finished records of the same options are not an error but the result.

    Raises:
        DataError, LockedError, StorageError: see `build_records`.
    """
    with _lock(out):
        folder, staging, replaced = out / NAME / VERSION, out / STAGING, out / REPLACED
        _restore(folder, replaced)  # a build that was to replace them was killed
        if overwrite:
            shutil.rmtree(staging, ignore_errors=True)
            if folder.exists():
                folder.rename(replaced)
        if folder.exists() and (resume or staging.exists()) and read_info(folder).options == spec.options():
            # Stopped while the staging folder was being deleted, or asked to accept what is finished.
            shutil.rmtree(staging, ignore_errors=True)
            return read_info(folder)
        if folder.exists():
            raise DataError(f"{out}: it holds finished records; choose another --out, or add --overwrite")
        try:
            if (staging / PLAN_FILE).exists():
                check_same(spec, staging)
            else:
                write_plan(spec, staging)
            _delete_partial_files(out)
            shutil.rmtree(out / FAILED_FOLDER, ignore_errors=True)
            _prepare(spec, out, staging, runner)
            shutil.rmtree(staging)
        except NothingUsableError as error:
            # The same folder serves the next attempt, with other options or repaired files.
            written = write_failure(staging, read_shards(staging), out / FAILED_FOLDER)
            shutil.rmtree(staging)
            raise NothingUsableError(f"{error} (every file: {', '.join(map(str, written))})") from None
        except (OSError, StorageError) as error:
            raise StorageError(
                f"{out}: the build stopped ({error}); when that is solved, repeat the command to continue"
            ) from None
        finally:
            _restore(folder, replaced)
    return read_info(folder)


def _restore(folder: Path, replaced: Path) -> None:
    """Earlier records back in their place, unless new ones are finished there."""
    if folder.exists():
        shutil.rmtree(replaced, ignore_errors=True)
    elif replaced.exists():
        replaced.rename(folder)


def unfinished(staging: Path, shards: list[Shard]) -> list[Shard]:
    """The shards that are still to be built."""
    return [
        shard for shard in shards if not (result_path(staging, shard).exists() and shard_path(staging, shard).exists())
    ]


def _prepare(spec: BuildSpec, out: Path, staging: Path, runner: Runner) -> None:
    from selfpab_jax.data.records.tfds import Spectrograms

    def build_missing(spec: BuildSpec, staging: Path, shards: list[Shard]) -> None:
        if missing := unfinished(staging, shards):
            _build_shards(spec, staging, missing, runner)

    builder = Spectrograms(data_dir=str(out), spec=spec, staging=staging, build_shards=build_missing)
    with redirect_stdout(StringIO()):  # TFDS prints lines about downloads, of which there are none
        builder.download_and_prepare(download_dir=str(staging / "downloads"))


def _build_shards(spec: BuildSpec, staging: Path, shards: list[Shard], runner: Runner) -> None:
    if runner.beam_options is not None:
        from selfpab_jax.data.records.workers import build_shards_with_beam

        build_shards_with_beam(spec, staging, shards, runner.strict, runner.beam_options)
        return
    files, sample_hours = sum(shard.files for shard in shards), 1 / spec.records.spectrogram.rate_hz / 3600
    with Progress("records build", files, "files") as progress:

        def show(counts: BuildCounts) -> None:
            note = f"{counts.samples * sample_hours:.1f} h of recording, {counts.skipped} skipped"
            progress.update(counts.files, note)

        build_shards(spec, staging, shards, runner.workers, runner.strict, show)


def _delete_partial_files(out: Path) -> None:
    """Delete what a killed build left half-written."""
    for pattern in (".[0-9]*.*.*", ".plan.json.*"):  # folders of `atomic_path`
        for folder in (out / STAGING).glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)
    for partial in (out / STAGING).glob("*.part"):  # of version 0.1
        partial.unlink(missing_ok=True)
    for folder in (out / NAME).glob(f"incomplete.*{VERSION}*"):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out} cannot be created: {reason(error)}; choose another --out") from None
    with exclusive_lock(out / ".lock", f"{out}: another build is running in it"):
        yield
