"""The training step is compiled once, takes over its state, and the loop keeps the device busy without moving data
behind its back."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from selfpab_jax.model.config import ModelSettings
from selfpab_jax.train import loop as loop
from selfpab_jax.train.config import DataSettings, PretrainSettings, ValidationSettings
from selfpab_jax.train.logging import Meter
from selfpab_jax.train.optimizer import OptimizerSettings
from selfpab_jax.train.state import TrainState
from selfpab_jax.train.step import StepMetrics, jitted_train_step

STEPS, EVERY = 7, 3
MODEL = ModelSettings(width=16, heads=2, feedforward=16, layers=1, compute="float32")


def see_host_reads(monkeypatch: pytest.MonkeyPatch, tell: Callable[[Any], None]) -> None:
    """Tell of every array that Python waits for: on CPUs the transfer guard lets reading pass."""

    def spied(original: Callable) -> Callable:
        def read(given: Any, *rest: Any, **options: Any) -> Any:
            tell(given)
            return original(given, *rest, **options)

        return read

    array = type(jnp.zeros(()))
    for name in ("__float__", "__int__", "__bool__", "__array__", "__format__", "item", "tolist", "block_until_ready"):
        monkeypatch.setattr(array, name, spied(getattr(array, name)))
    for module, name in ((jax, "block_until_ready"), (jax, "device_get"), (np, "asarray"), (np, "array")):
        monkeypatch.setattr(module, name, spied(getattr(module, name)))


class Watched:
    """A run of `pretrain` whose dispatches are made under a guard against implicit transfers."""

    def __init__(self, records: Path, run: Path, monkeypatch: pytest.MonkeyPatch):
        self.events: list[tuple[str, int]] = []
        self.left_behind: dict[int, list[jax.Array]] = {}
        self.step_of: dict[int, int] = {}
        self.results: list[Any] = []
        self.jitted: jax.stages.Wrapped | None = None

        def guarded(function: Callable) -> Callable:
            def call(*arguments: Any) -> Any:
                with jax.transfer_guard("disallow"):
                    return function(*arguments)

            return call

        def train_step(*arguments: Any, **options: Any) -> Callable:
            jitted = self.jitted = jitted_train_step(*arguments, **options)

            def step(state: TrainState, *given: jax.Array) -> tuple[TrainState, StepMetrics]:
                with jax.set_mesh(arguments[-1]):
                    new, metrics = jitted(state, *given)
                self.events.append(("dispatch", len(self.dispatched) + 1))
                self.step_of |= {id(leaf): self.dispatched[-1] for leaf in jax.tree.leaves((new, metrics))}
                self.results.append((new, metrics))  # kept, so that no other array gets the same id
                self.left_behind[self.dispatched[-1]] = jax.tree.leaves(state)
                return new, metrics

            return guarded(step)

        def read(meter: Meter, step: int, *rest: Any) -> None:
            self.events.append(("read", step))
            original_read(meter, step, *rest)

        original_read = Meter.add_step
        monkeypatch.setattr(loop, "train_step", train_step)
        monkeypatch.setattr(loop, "to_devices", guarded(loop.to_devices))
        monkeypatch.setattr(loop, "stop_flags", guarded(loop.stop_flags))
        monkeypatch.setattr(Meter, "add_step", read)
        see_host_reads(monkeypatch, self.host_reads)
        settings = PretrainSettings(
            data=DataSettings(path=records),
            model=MODEL,
            optimizer=OptimizerSettings(batch_size=8, steps=STEPS),
            validation=ValidationSettings(every_steps=EVERY, windows=8),
        )
        self.ending = loop.pretrain(settings, run)

    def host_reads(self, arrays: Any) -> None:
        """Some code waits for these arrays."""
        steps = {self.step_of[id(leaf)] for leaf in jax.tree.leaves(arrays) if id(leaf) in self.step_of}
        self.events += [("wait", step) for step in sorted(steps)]

    @property
    def dispatched(self) -> list[int]:
        return [step for kind, step in self.events if kind == "dispatch"]


@pytest.fixture(scope="module")
def watched(tiny_records: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Watched, list[str]]:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        with pytest.MonkeyPatch.context() as monkeypatch, jax.log_compiles():
            return Watched(tiny_records, tmp_path_factory.mktemp("watched") / "run", monkeypatch), messages
    finally:
        logger.removeHandler(handler)


def test_one_compilation_of_each_step_in_a_run_with_validation(watched: tuple[Watched, list[str]]) -> None:
    run, messages = watched
    assert run.ending == "finished"
    assert run.jitted is not None
    assert run.jitted._cache_size() == 1  # type: ignore[attr-defined]
    assert len([text for text in messages if text.startswith("Finished XLA compilation of jit(step)")]) == 2


def test_the_step_takes_over_its_state(watched: tuple[Watched, list[str]]) -> None:
    run, _ = watched
    # After a pause the checkpoint that is being written may still hold on to a parameter, which is then copied.
    for step, leaves in run.left_behind.items():
        assert len(leaves) > 3
        assert all(leaf.is_deleted() for leaf in leaves) or step % EVERY == 1, step


def test_a_step_is_read_once_the_next_is_under_way(watched: tuple[Watched, list[str]]) -> None:
    run, _ = watched
    order = {event: place for place, event in enumerate(run.events)}
    assert run.dispatched == list(range(1, STEPS + 1))
    for step in range(1, STEPS):
        pauses = step % EVERY == 0
        assert (order["read", step] < order["dispatch", step + 1]) == pauses, step


def test_python_waits_for_no_step_before_the_next_is_under_way(watched: tuple[Watched, list[str]]) -> None:
    run, _ = watched
    under_way = 0
    waited = set()
    for kind, step in run.events:
        if kind == "dispatch":
            under_way = step
        elif kind == "wait":
            waited.add(step)
            assert step < under_way or step % EVERY == 0 or step == STEPS, step
    assert waited == set(range(1, STEPS + 1))  # every loss is read some time: the spies see it


def test_the_guard_sees_a_transfer_that_nobody_asked_for() -> None:
    double = jax.jit(partial(jnp.multiply, 2))
    double(jnp.ones(4, jnp.int32))
    with jax.transfer_guard("disallow"), pytest.raises(RuntimeError, match="Disallowed host-to-device transfer"):
        double(np.ones(4, np.int32))
