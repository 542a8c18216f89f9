"""Checkpoints of a run: the latest complete states and the best parameters, written by Orbax while training runs.

A checkpoint has three items: `parameters`, `optimizer` (only in `latest`), and `metadata`, which is what `export` and
`--resume` must know beside the arrays. Checkpoints of version 0.1 are read, too: there the items are called `optimiser`
and `facts`, and each layer's query, key and value kernels are packed into one array.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, CustomSteps, LatestN

from selfpab_jax.config import update_names
from selfpab_jax.errors import ConfigError, RunError, SelfPABError, warn
from selfpab_jax.model.functional import Parameters, packed_shapes, split_packed
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.train.checkpoint_files import (
    agreed_damage,
    checksum,
    damage,
    first_line,
    listed,
    require_writable_path,
)
from selfpab_jax.train.state import TrainState, Validation

LATEST, BEST = "latest", "best"
DAMAGED = "damaged"
"""Where `restore` moves the states that it could not read."""
FILE_OVERHEAD = 2**18
"""Bytes that a checkpoint's directories, metadata and half-filled blocks take beside its arrays."""
RECORDS_FIELDS = (
    "settings", "window_samples", "shift_samples", "channels", "sensors", "frames", "features", "source",
    "splits", "fingerprint",
)  # fmt: skip
"""What the model must know about the records it was trained on."""


@dataclass(frozen=True)
class CheckpointSettings:
    """When to save and how much to keep.

    Args:
        every_steps: steps between two saves of the complete state; a killed run loses at most this many.
        keep: complete states kept; the best parameters are kept beside them.
        keep_steps: steps whose complete states are saved and kept for good, to branch off.
    """

    every_steps: int = 500
    keep: int = 2
    keep_steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("every_steps", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"checkpoint.{name} is {getattr(self, name)}; it must be at least 1")


class Checkpoints:
    """The writer of one run's checkpoints; a save is complete or not there at all.

    Args:
        run: the run's directory.
        settings: how much to keep.

    Raises:
        RunError: what is written below this path could not be read.
    """

    def __init__(self, run: Path, settings: CheckpointSettings):
        require_writable_path(run)
        self._run = run
        self._latest = _manager(run / "checkpoints" / LATEST, settings.keep, settings.keep_steps)
        self._best = _manager(run / "checkpoints" / BEST, 1)
        self._unproven = {LATEST, BEST}
        self._drop_best_beyond(self.latest_step or 0)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete state, or None where there is none."""
        return self._latest.latest_step()

    @property
    def kept(self) -> str:
        """What is safe after a failure, for its message."""
        step = self.latest_step
        return "no checkpoint is complete yet" if step is None else f"the one of step {step} is complete"

    def save(self, state: TrainState, metadata: dict[str, Any], step: int) -> None:
        """Start writing the complete state; returns once the arrays are copied off the devices.

        The first save is waited for and read back before training goes on, here and in `save_best`.

        Args:
            state: after `step` steps.
            metadata: see `checkpoint_metadata`.
            step: its number.

        Raises:
            RunError: this save or the one before it failed (a full disk, say); older ones are complete.
        """
        arrays = {"parameters": state.parameters, "optimizer": state.optimizer}
        self._save(LATEST, self._latest, arrays, metadata, step)

    def save_best(self, parameters: Parameters, metadata: dict[str, Any], step: int) -> None:
        """Start writing the best parameters so far; the previous ones are removed once these are complete.

        Args:
            parameters: after `step` steps.
            metadata: see `checkpoint_metadata`.
            step: its number.

        Raises:
            RunError: as for `save`.
        """
        self._save(BEST, self._best, {"parameters": parameters}, metadata, step)

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest complete state that is whole, sharded as `abstract` is, whatever mesh and processes wrote it.

        Newer ones that are damaged are moved to `checkpoints/damaged`, with a warning.

        Raises:
            RunError: none can be read.
        """
        arrays = {"parameters": abstract.parameters, "optimizer": abstract.optimizer}
        problems: dict[int, str] = {}
        for step in sorted(self._latest.all_steps(), reverse=True):
            directory = self._run / "checkpoints" / LATEST
            problem = agreed_damage(directory / str(step), _item_names(directory, step))
            if not problem:
                try:
                    restored, metadata = _read(self._latest, step, lambda _: arrays)
                except Exception as error:  # as for saving
                    if jax.process_count() > 1:
                        raise RunError(f"{directory / str(step)} cannot be read: {first_line(error)}") from error
                    problem = first_line(error)
                else:
                    self._move_aside(problems, step)
                    counter = jax.device_put(jax.numpy.asarray(step, "int32"), abstract.step.sharding)
                    return TrainState(counter, restored["parameters"], restored["optimizer"]), metadata
            problems[step] = problem
        raise RunError(
            f"{self._run} has no checkpoint that is whole ({listed(problems)}); copy them from a backup, or start "
            "again with --overwrite"
        )

    def finish(self) -> None:
        """Wait until everything started is written.

        Raises:
            RunError: something could not be.
        """
        with self._short_errors():
            self._latest.wait_until_finished()
            self._best.wait_until_finished()

    def close(self) -> None:
        """Stop the writers' threads; what could not be written is raised by `finish`."""
        for manager in (self._latest, self._best):
            with suppress(Exception):  # it must not take the place of the error that ended the run
                manager.close()

    def _save(
        self, kind: str, manager: ocp.CheckpointManager, arrays: dict[str, Any], metadata: dict[str, Any], step: int
    ) -> None:
        checksums = {name: int(checksum(tree)) for name, tree in arrays.items()}
        stored = ocp.args.JsonSave({**metadata, "step": step, "checksums": checksums})
        items = {name: ocp.args.StandardSave(tree) for name, tree in arrays.items()}
        with self._short_errors():
            self._check_disk_space(arrays)
            manager.save(step, args=ocp.args.Composite(**items, metadata=stored), force=True)
        if kind in self._unproven:
            self._unproven.remove(kind)
            self._read_back(kind, manager, arrays, step)

    def _read_back(self, kind: str, manager: ocp.CheckpointManager, arrays: dict[str, Any], step: int) -> None:
        """Not every file system holds what it is given: better found out before hours of training."""
        self.finish()
        directory = self._run / "checkpoints" / kind
        parameters = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), arrays["parameters"]
        )
        problem = agreed_damage(directory / str(step), (*arrays, "metadata"))
        if not problem:
            try:
                _read(manager, step, lambda _: {"parameters": parameters})
            except Exception as error:  # as for saving
                problem = first_line(error)
        if problem:
            raise RunError(
                f"{directory / str(step)} was written, but cannot be read back ({problem}); choose a --run on another "
                "file system"
            )

    def _move_aside(self, problems: Mapping[int, str], step: int) -> None:
        """Keep damaged states out of the way of those that are saved again."""
        if not problems:
            return
        latest, aside = (self._run / "checkpoints" / name for name in (LATEST, DAMAGED))
        if jax.process_index() == 0:
            aside.mkdir(exist_ok=True)
            for each in problems:
                shutil.rmtree(aside / str(each), ignore_errors=True)
                shutil.move(latest / str(each), aside / str(each))
            warn(f"{self._run}: {listed(problems)}; going back to step {step}, and moving what is damaged to {aside}")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are moved")
        self._latest.reload()
        self._drop_best_beyond(step)

    def _drop_best_beyond(self, latest: int) -> None:
        # A resumed run repeats the steps after its newest state, and finds out again which is the best.
        for step in self._best.all_steps():
            if step > latest:
                self._best.delete(step)

    def _check_disk_space(self, arrays: Any) -> None:
        """Better reported before than discovered half-way."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) * 1.1 + FILE_OVERHEAD
        if shutil.disk_usage(self._run).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def _short_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many kinds; all of them mean that it is not saved
            full = "no space left" in str(error).lower()
            reason = "no space left on the disk; free some and use --resume" if full else first_line(error)
            raise RunError(f"a checkpoint could not be written ({self.kept}): {reason}") from error


def read_parameters(
    run: Path, which: str, abstract_of: Callable[[dict[str, Any]], dict[str, jax.ShapeDtypeStruct]]
) -> tuple[Parameters, dict[str, Any]]:
    """The parameters and metadata of a run's best or latest checkpoint, for use outside of training.

    A `latest` that is damaged is passed over for the state before it, with a warning.

    Args:
        run: the run's directory.
        which: `best`, `latest`, or the number of a step whose state is kept.
        abstract_of: from metadata to the parameters' shapes and shardings.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    wanted = int(which) if which.isdigit() else None
    directory = run / "checkpoints" / (which if wanted is None else LATEST)
    if not run.is_dir():
        raise RunError(f"{run}: no such run")
    if not directory.is_dir():
        raise RunError(f"{run} has no {which} checkpoint ({directory}); give a run, and best, latest or a step")
    with ocp.CheckpointManager(directory.absolute()) as manager:
        steps = sorted(manager.all_steps(), reverse=True)
    if wanted is not None and wanted not in steps:
        raise RunError(f"{run} keeps no state of step {wanted}; there are {sorted(steps)}, best, latest")
    if not steps:
        raise RunError(f"{run} has no complete {which} checkpoint yet; wait for one, or resume the run")
    problems: dict[int, str] = {}
    for step in steps if wanted is None else [wanted]:
        problem = damage(directory / str(step), (_item_names(directory, step)[0], _item_names(directory, step)[-1]))
        if not problem:
            with ocp.CheckpointManager(directory.absolute(), item_names=_item_names(directory, step)) as manager:
                try:
                    restored, metadata = _read(manager, step, lambda found: {"parameters": abstract_of(found)})
                except SelfPABError:
                    raise
                except Exception as error:  # as for saving
                    problem = first_line(error)
                else:
                    if problems:
                        warn(f"{run}: {listed(problems)}; using step {step}")
                    return restored["parameters"], metadata
        problems[step] = problem
    others = "" if which == LATEST else f"; try --checkpoint {LATEST}"
    raise RunError(f"the {which} checkpoint of {run} cannot be read ({listed(problems)}){others}")


def newest_metadata(run: Path) -> dict[str, Any] | None:
    """The metadata of the newest state whose metadata can be read, without its arrays; None where there is none."""
    directory = run / "checkpoints" / LATEST
    if not directory.is_dir():
        return None
    # Listed here, because a manager of Orbax waits for the other processes, and this is asked by one alone.
    for step in sorted((int(path.name) for path in directory.iterdir() if path.name.isdecimal()), reverse=True):
        try:
            text = (directory / str(step) / _item_names(directory, step)[-1] / "metadata").read_text(encoding="utf-8")
            return dict(json.loads(text))
        except (OSError, ValueError):  # `restore` reports it
            continue
    return None


def checkpoint_metadata(
    settings: Mapping[str, Any],
    statistics: Statistics,
    records: Mapping[str, Any],
    *,
    features: int,
    outputs: int,
    hours: float | None,
    steps: int | None,
    validation: Validation | None = None,
) -> dict[str, Any]:
    """What belongs to a checkpoint beside its arrays, as JSON holds it.

    Args:
        settings: of the run, as JSON.
        statistics: that its inputs are normalized with.
        records: `asdict` of their info; what is not in `RECORDS_FIELDS` is left out.
        features: of an input frame.
        outputs: features of a reconstructed frame.
        hours: of signal in the training split, where known.
        steps: of the whole run, where known.
        validation: what it has found so far.
    """
    return {
        "settings": dict(settings),
        "statistics": statistics.as_json(),
        "records": {name: value for name, value in records.items() if name in RECORDS_FIELDS},
        "features": features,
        "outputs": outputs,
        "hours": hours,
        "steps": steps,
        "validation": (validation or Validation()).as_json(),
    }


def statistics_of(metadata: Mapping[str, Any]) -> Statistics:
    """The normalization statistics that a checkpoint was trained with."""
    return Statistics.from_json(metadata["statistics"])


def _manager(directory: Path, keep: int, keep_steps: tuple[int, ...] = ()) -> ocp.CheckpointManager:
    # Orbax logs every file it touches, and failures with a traceback; `_short_errors` reports those.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=AnyPreservationPolicy([LatestN(keep), CustomSteps(keep_steps)]),
        create=True,
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
        # Two managers save at once: without names of their own, processes meet at each other's barriers and hang.
        multiprocessing_options=ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=directory.name),
    )
    return ocp.CheckpointManager(directory.absolute(), options=options)


def _read(
    manager: ocp.CheckpointManager, step: int, abstract_of: Callable[[dict[str, Any]], dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and metadata of a step; `abstract_of` says which arrays are wanted, once the metadata is known."""
    directory = Path(str(manager.directory))
    names = _item_names(directory, step)
    stored = manager.restore(step, args=ocp.args.Composite(**{names[-1]: ocp.args.JsonRestore()}))[names[-1]]
    metadata = {**stored, "settings": update_names(stored["settings"])}
    wanted = abstract_of(metadata)
    if names[-1] == "metadata":
        items = {name: ocp.args.StandardRestore(arrays) for name, arrays in wanted.items()}
        restored = manager.restore(step, args=ocp.args.Composite(**items))
        for name, expected in metadata.get("checksums", {}).items():
            if name in wanted and int(checksum(restored[name])) != expected:
                raise ValueError(f"{name} differ from what was saved (checksum)")
        return {name: restored[name] for name in wanted}, metadata
    # Version 0.1.
    old_name = {"parameters": "parameters", "optimizer": "optimiser"}
    items = {old_name[name]: ocp.args.StandardRestore(_map_dicts(packed_shapes, wanted[name])) for name in wanted}
    restored = manager.restore(step, args=ocp.args.Composite(**items))
    packed = {name: restored[old_name[name]] for name in wanted}
    shardings = jax.tree.map(lambda leaf: leaf.sharding, wanted)
    return jax.jit(lambda arrays: _map_dicts(split_packed, arrays), out_shardings=shardings)(packed), metadata


def _item_names(directory: Path, step: int) -> tuple[str, ...]:
    """The items of a checkpoint, the metadata last."""
    old = (directory / str(step) / "facts").is_dir()
    return ("parameters", "optimiser", "facts") if old else ("parameters", "optimizer", "metadata")


def _map_dicts(change: Callable[[Mapping[str, Any]], dict[str, Any]], tree: Any) -> Any:
    """A tree with each of its dictionaries of parameters (weights, moments) changed."""

    def is_parameters(node: Any) -> bool:
        return isinstance(node, Mapping) and not any(isinstance(value, Mapping | tuple) for value in node.values())

    return jax.tree.map(lambda node: change(node) if is_parameters(node) else node, tree, is_leaf=is_parameters)
