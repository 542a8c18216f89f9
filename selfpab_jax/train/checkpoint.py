"""Checkpoints of a run: the latest whole states and the best parameters, written by Orbax while training goes on."""

import errno
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from selfpab_jax.errors import ConfigError, RunError
from selfpab_jax.model.functional import Parameters
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.train.state import TrainState

# Checkpoints of a run: the latest whole states and the best parameters, written by Orbax while training goes on.

LATEST, BEST = "latest", "best"
FILE_OVERHEAD = 2**18
"""Bytes that a checkpoint's directories, metadata and half-filled blocks take beside its arrays."""


@dataclass(frozen=True)
class CheckpointSettings:
    """When to save and how much to keep.

    Args:
        every_steps: steps between two saves of the whole state; a killed run loses at most so many.
        keep: whole states kept; the best parameters are kept beside them.
    """

    every_steps: int = 500
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("every_steps", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"checkpoint.{name} is {getattr(self, name)}; it must be at least 1")


def _manager(directory: Path, keep: int) -> ocp.CheckpointManager:
    # Orbax tells every file it touches, and failures with a traceback; `_told_in_short` tells those.
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


class Checkpoints:
    """The writer of one run's checkpoints; a save is whole or not there at all.

    Args:
        run: the run's directory.
        settings: how much to keep.
    """

    def __init__(self, run: Path, settings: CheckpointSettings):
        self._run = run
        self._latest = _manager(run / "checkpoints" / LATEST, settings.keep)
        self._best = _manager(run / "checkpoints" / BEST, 1)
        # A resumed run comes by the steps after its newest state again, and finds out anew which is the best.
        for step in self._best.all_steps():
            if step > (self.latest_step or 0):
                self._best.delete(step)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest whole state, or None where there is none."""
        return self._latest.latest_step()

    def save(self, state: TrainState, facts: dict[str, Any], step: int) -> None:
        """Start writing the whole state; returns once the arrays are copied off the devices.

        Args:
            state: after `step` steps.
            facts: what else belongs to it, as JSON: configuration, statistics, validation record.
            step: its number.

        Raises:
            RunError: this save or the one before it failed (a full disk, say); older ones are whole.
        """
        items = ocp.args.Composite(
            parameters=ocp.args.StandardSave(state.parameters),
            optimizer=ocp.args.StandardSave(state.optimizer),
            facts=ocp.args.JsonSave({**facts, "step": step}),
        )
        with self._told_in_short():
            self._check_room(state)
            self._latest.save(step, args=items, force=True)

    def save_best(self, parameters: Parameters, facts: dict[str, Any], step: int) -> None:
        """Start writing the best parameters so far; the ones before go once these are there."""
        items = ocp.args.Composite(
            parameters=ocp.args.StandardSave(parameters), facts=ocp.args.JsonSave({**facts, "step": step})
        )
        with self._told_in_short():
            self._check_room(parameters)
            self._best.save(step, args=items, force=True)

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest whole state, laid out as `abstract` says, whatever mesh and processes wrote it."""
        step = self._latest.latest_step()
        with _unreadable(f"checkpoint {step}"):
            restored = self._latest.restore(
                step,
                args=ocp.args.Composite(
                    parameters=ocp.args.StandardRestore(abstract.parameters),
                    optimizer=ocp.args.StandardRestore(abstract.optimizer),
                    facts=ocp.args.JsonRestore(),
                ),
            )
        counter = jax.device_put(jax.numpy.asarray(step, "int32"), abstract.step.sharding)
        return TrainState(counter, restored["parameters"], restored["optimizer"]), restored["facts"]

    def finish(self) -> None:
        """Wait until everything started is written.

        Raises:
            RunError: something could not be.
        """
        with self._told_in_short():
            self._latest.wait_until_finished()
            self._best.wait_until_finished()

    def close(self) -> None:
        """Let go of the writers' threads."""
        for manager in (self._latest, self._best):
            manager.close()

    def _check_room(self, arrays: Any) -> None:
        """Better said before than found out half-way."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) * 1.1 + FILE_OVERHEAD
        if shutil.disk_usage(self._run).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def _told_in_short(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise what they like; all of it means not saved
            full = "no space left" in str(error).lower()
            reason = "no space left on the disk; make room and use --resume" if full else _first_line(error)
            whole = self._latest.latest_step()
            kept = "no checkpoint is whole yet" if whole is None else f"the checkpoint of step {whole} is whole"
            raise RunError(f"a checkpoint could not be written ({kept}): {reason}") from error


def read_parameters(run: Path, which: str, abstract_of: Any) -> tuple[Parameters, dict[str, Any]]:
    """The parameters and facts of a run's best or latest checkpoint, for use outside of training.

    Args:
        run: the run's directory.
        which: `best`, `latest`, or the number of a step whose state is kept.
        abstract_of: from facts to the parameters' shapes and shardings.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    wanted = int(which) if which.isdigit() else None
    directory = run / "checkpoints" / (which if wanted is None else LATEST)
    if not directory.is_dir():
        raise RunError(f"{run} has no {which} checkpoint (looked in {directory}); was it trained by `pretrain`?")
    with ocp.CheckpointManager(directory.absolute(), item_names=("parameters", "facts")) as manager:
        step = manager.latest_step() if wanted is None else wanted
        if step not in manager.all_steps() and wanted is not None:
            raise RunError(
                f"{run} keeps no state of step {wanted}; there are {sorted(manager.all_steps())}, best, latest"
            )
        if step is None:
            raise RunError(f"{run} has no whole {which} checkpoint yet; wait for one, or resume the run")
        with _unreadable(f"{directory / str(step)}"):
            facts = manager.restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore()))["facts"]
            items = ocp.args.Composite(parameters=ocp.args.StandardRestore(abstract_of(facts)))
            return manager.restore(step, args=items)["parameters"], facts


def statistics_of(facts: dict[str, Any]) -> Statistics:
    """The normalization statistics that a checkpoint was trained with."""
    stored = facts["statistics"]
    return Statistics(np.asarray(stored["mean"], np.float32), np.asarray(stored["std"], np.float32), stored["kind"])


@contextmanager
def _unreadable(what: str) -> Iterator[None]:
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # as above
        raise RunError(f"{what} cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


# What a run's checkpoints say of themselves beside the weights, and what `export` and `--resume` read there.

RECORDS = ("settings", "window_samples", "shift_samples", "channels", "sensors", "frames", "features", "source")
"""What the model must know of the records it was trained on."""


def facts_of(
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
    """The facts as JSON holds them.

    Args:
        settings: of the run, as JSON.
        statistics: that its inputs are normalized with.
        records: `asdict` of their info; what is not in `RECORDS` is left out.
        features, outputs: of an input and of a reconstructed frame.
        hours: of signal in the training split, where known.
        steps: of the whole run, where known.
        best, best_step, since: lowest held-out loss (infinite where there is none), its step, and the checks since.
    """
    return {
        "settings": dict(settings),
        "statistics": {"mean": statistics.mean.tolist(), "std": statistics.std.tolist(), "kind": statistics.kind},
        "records": {name: value for name, value in records.items() if name in RECORDS},
        "features": features,
        "outputs": outputs,
        "hours": hours,
        "steps": steps,
        "validation": {"best": best if math.isfinite(best) else None, "best_step": best_step, "since": since},
    }
