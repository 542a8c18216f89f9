"""Checkpoints of a run: the latest complete states and the best parameters, written by Orbax while training runs.

A checkpoint has three items: `parameters`, `optimizer` (only in `latest`), and `metadata`, which is what `export` and
`--resume` must know beside the arrays. Checkpoints of version 0.1 are read, too: there the items are called `optimiser`
and `facts`, and each layer's query, key and value kernels are packed into one array.
"""

import errno
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from selfpab_jax.config import update_names
from selfpab_jax.errors import ConfigError, RunError
from selfpab_jax.model.functional import Parameters, packed_shapes, split_packed
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.train.state import TrainState

LATEST, BEST = "latest", "best"
FILE_OVERHEAD = 2**18
"""Bytes that a checkpoint's directories, metadata and half-filled blocks take beside its arrays."""
RECORDS_FIELDS = (
    "settings", "window_samples", "shift_samples", "channels", "sensors", "frames", "features", "source",
)  # fmt: skip
"""What the model must know about the records it was trained on."""


@dataclass(frozen=True)
class CheckpointSettings:
    """When to save and how much to keep.

    Args:
        every_steps: steps between two saves of the complete state; a killed run loses at most this many.
        keep: complete states kept; the best parameters are kept beside them.
    """

    every_steps: int = 500
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("every_steps", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"checkpoint.{name} is {getattr(self, name)}; it must be at least 1")


class Checkpoints:
    """The writer of one run's checkpoints; a save is complete or not there at all.

    Args:
        run: the run's directory.
        settings: how much to keep.
    """

    def __init__(self, run: Path, settings: CheckpointSettings):
        self._run = run
        self._latest = _manager(run / "checkpoints" / LATEST, settings.keep)
        self._best = _manager(run / "checkpoints" / BEST, 1)
        # A resumed run repeats the steps after its newest state, and finds out again which is the best.
        for step in self._best.all_steps():
            if step > (self.latest_step or 0):
                self._best.delete(step)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete state, or None where there is none."""
        return self._latest.latest_step()

    def save(self, state: TrainState, metadata: dict[str, Any], step: int) -> None:
        """Start writing the complete state; returns once the arrays are copied off the devices.

        Args:
            state: after `step` steps.
            metadata: see `checkpoint_metadata`.
            step: its number.

        Raises:
            RunError: this save or the one before it failed (a full disk, say); older ones are complete.
        """
        items = ocp.args.Composite(
            parameters=ocp.args.StandardSave(state.parameters),
            optimizer=ocp.args.StandardSave(state.optimizer),
            metadata=ocp.args.JsonSave({**metadata, "step": step}),
        )
        with self._short_errors():
            self._check_disk_space(state)
            self._latest.save(step, args=items, force=True)

    def save_best(self, parameters: Parameters, metadata: dict[str, Any], step: int) -> None:
        """Start writing the best parameters so far; the previous ones are removed once these are complete.

        Args:
            parameters: after `step` steps.
            metadata: see `checkpoint_metadata`.
            step: its number.

        Raises:
            RunError: as for `save`.
        """
        items = ocp.args.Composite(
            parameters=ocp.args.StandardSave(parameters), metadata=ocp.args.JsonSave({**metadata, "step": step})
        )
        with self._short_errors():
            self._check_disk_space(parameters)
            self._best.save(step, args=items, force=True)

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest complete state, sharded as `abstract` is, whatever mesh and processes wrote it.

        Raises:
            RunError: it cannot be read.
        """
        step = self._latest.latest_step()
        arrays = {"parameters": abstract.parameters, "optimizer": abstract.optimizer}
        with _unreadable(f"checkpoint {step}"):
            restored, metadata = _read(self._latest, step or 0, lambda _: arrays)
        counter = jax.device_put(jax.numpy.asarray(step, "int32"), abstract.step.sharding)
        return TrainState(counter, restored["parameters"], restored["optimizer"]), metadata

    def finish(self) -> None:
        """Wait until everything started is written.

        Raises:
            RunError: something could not be.
        """
        with self._short_errors():
            self._latest.wait_until_finished()
            self._best.wait_until_finished()

    def close(self) -> None:
        """Stop the writers' threads."""
        for manager in (self._latest, self._best):
            manager.close()

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
            reason = "no space left on the disk; free some and use --resume" if full else _first_line(error)
            complete = self._latest.latest_step()
            kept = "no checkpoint is complete yet" if complete is None else f"the one of step {complete} is complete"
            raise RunError(f"a checkpoint could not be written ({kept}): {reason}") from error


def read_parameters(
    run: Path, which: str, abstract_of: Callable[[dict[str, Any]], dict[str, jax.ShapeDtypeStruct]]
) -> tuple[Parameters, dict[str, Any]]:
    """The parameters and metadata of a run's best or latest checkpoint, for use outside of training.

    Args:
        run: the run's directory.
        which: `best`, `latest`, or the number of a step whose state is kept.
        abstract_of: from metadata to the parameters' shapes and shardings.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    wanted = int(which) if which.isdigit() else None
    directory = run / "checkpoints" / (which if wanted is None else LATEST)
    if not directory.is_dir():
        raise RunError(f"{run} has no {which} checkpoint (looked in {directory}); was it trained by `pretrain`?")
    with ocp.CheckpointManager(directory.absolute()) as manager:
        step = manager.latest_step() if wanted is None else wanted
        if step not in manager.all_steps() and wanted is not None:
            raise RunError(
                f"{run} keeps no state of step {wanted}; there are {sorted(manager.all_steps())}, best, latest"
            )
        if step is None:
            raise RunError(f"{run} has no complete {which} checkpoint yet; wait for one, or resume the run")
    with (
        _unreadable(f"{directory / str(step)}"),
        ocp.CheckpointManager(directory.absolute(), item_names=_item_names(directory, step)) as manager,
    ):
        restored, metadata = _read(manager, step, lambda metadata: {"parameters": abstract_of(metadata)})
    return restored["parameters"], metadata


def checkpoint_metadata(
    settings: Mapping[str, Any],
    statistics: Statistics,
    records: Mapping[str, Any],
    *,
    features: int,
    outputs: int,
    hours: float | None,
    steps: int | None,
    best: float = math.inf,
    best_step: int = 0,
    since: int = 0,
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
        best: lowest held-out loss, infinite where there is none.
        best_step: its step.
        since: validations since then.
    """
    return {
        "settings": dict(settings),
        "statistics": {"mean": statistics.mean.tolist(), "std": statistics.std.tolist(), "kind": statistics.kind},
        "records": {name: value for name, value in records.items() if name in RECORDS_FIELDS},
        "features": features,
        "outputs": outputs,
        "hours": hours,
        "steps": steps,
        "validation": {"best": best if math.isfinite(best) else None, "best_step": best_step, "since": since},
    }


def statistics_of(metadata: Mapping[str, Any]) -> Statistics:
    """The normalization statistics that a checkpoint was trained with."""
    stored = metadata["statistics"]
    return Statistics(np.asarray(stored["mean"], np.float32), np.asarray(stored["std"], np.float32), stored["kind"])


def _manager(directory: Path, keep: int) -> ocp.CheckpointManager:
    # Orbax logs every file it touches, and failures with a traceback; `_short_errors` reports those.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
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


@contextmanager
def _unreadable(what: str) -> Iterator[None]:
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # as for saving
        raise RunError(f"{what} cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
