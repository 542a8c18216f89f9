"""SIGTERM and Ctrl-C as a wish to stop, granted after the step at hand."""

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils

from selfpab_jax.data.loader import batches, rows_of_batch
from selfpab_jax.data.records.dataset import Records, RecordSource, open_records
from selfpab_jax.distributed.init import join
from selfpab_jax.errors import ConfigError, RunError
from selfpab_jax.train.checkpoint import Checkpoints, facts_of, statistics_of
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.evaluate import held_out_loss
from selfpab_jax.train.logging import Log, ProgressLine, open_log, rewind_log
from selfpab_jax.train.meter import Meter
from selfpab_jax.train.run_dir import SUBJECTS_FILE, claim, write_json
from selfpab_jax.train.setup import Plan, make_plan
from selfpab_jax.train.state import (
    TrainState,
    abstract_state,
    create_state,
    parameter_shardings,
    reading_share,
    sharding_table,
)
from selfpab_jax.train.step import StepMetrics, error_step, to_devices, train_step, wishes

# SIGTERM and Ctrl-C as a wish to stop, granted after the step at hand.


class Interruption:
    """The wish, once there is one."""

    signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextmanager
def listen() -> Iterator[Interruption]:
    """Turn SIGTERM and SIGINT into an `Interruption`; a second signal ends the program at once."""
    wish = Interruption()

    def note(number: int, _frame: object) -> None:
        if wish:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        wish.signal_number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# The training loop: the one place where records, step, checkpoints and logs meet.

ADVICE = "the training diverged; start another --run with a lower optimizer.learning_rate or with optimizer.clip_norm"
Ending = Literal["finished", "stopped early", "interrupted"]


@dataclass(frozen=True)
class Validation:
    """The best held-out loss so far and how many measurements it has stood."""

    best: float = math.inf
    best_step: int = 0
    since: int = 0

    def with_measurement(self, loss: float, step: int) -> "Validation":
        """After one more measurement."""
        return Validation(loss, step) if loss < self.best else replace(self, since=self.since + 1)


def pretrain(settings: PretrainSettings, run: Path, *, resume: bool = False, overwrite: bool = False) -> Ending:
    """Train a model on records, as one of the processes of a run.

    Args:
        settings: the whole configuration.
        run: directory of the run: configuration, log, checkpoints.
        resume: go on where an earlier process stopped, or start if there is nothing yet.
        overwrite: remove an earlier run first.

    Returns:
        How it ended; `interrupted` means that SIGTERM or Ctrl-C came and the state is saved.

    Raises:
        ConfigError: a field does not fit the records or the devices.
        DataError: the records cannot be read.
        RunError: the run's directory is not to be used, a loss is not finite, or a checkpoint cannot be written.
    """
    join(settings.distributed)
    if settings.data.path is None:
        raise ConfigError("data.path is not set: give --data.path the directory that `selfpab-jax records build` wrote")
    records = open_records(settings.data.path)
    plan = make_plan(settings, records)
    if jax.process_index():
        multihost_utils.sync_global_devices("the run is claimed")
        with listen() as wish:
            return _train(settings, run, records, plan, wish)
    with listen() as wish, claim(run, as_json(settings), resume=resume, overwrite=overwrite):
        subjects = np.unique(np.asarray(records.index("train").subject)[plan.rows])
        write_json(run / SUBJECTS_FILE, [str(subject) for subject in subjects])
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("the run is claimed")
        return _train(settings, run, records, plan, wish)


def as_json(settings: PretrainSettings) -> dict[str, Any]:
    """The configuration as plain JSON values, but for how processes meet: a resumed run may have others."""
    told = {part: value for part, value in asdict(settings).items() if part != "distributed"}
    return json.loads(json.dumps(told, default=str))


def _train(settings: PretrainSettings, run: Path, records: Records, plan: Plan, wish: Interruption) -> Ending:
    speaks = jax.process_index() == 0
    progress = ProgressLine(settings.log.progress_seconds, speaks=speaks)
    shardings = parameter_shardings(plan.objective.functional, plan.mesh)
    progress.say(sharding_table(plan.objective.functional, shardings, plan.mesh))

    checkpoints = Checkpoints(run, settings.checkpoint)
    state, validation, plan = _start(settings, records, plan, checkpoints)
    first = int(state.step)
    if speaks:
        rewind_log(run, first)
    log = open_log(run, settings.log, as_json(settings), speaks=speaks)
    try:
        log.write(_started(plan, records, first))
        progress.say(
            f"{'goes on at' if first else 'starts at'} step {first} of {plan.steps}: "
            f"{plan.hours:,.1f} h of recording in {len(plan.rows):,} windows, "
            + (
                f"validation on {len(plan.held_out):,} windows every {plan.validation_interval} steps"
                if len(plan.held_out)
                else "no held-out windows: the last state counts as the best"
            )
        )
        ending = _loop(settings, records, plan, checkpoints, state, validation, log, progress, wish)
        checkpoints.finish()
        log.write({"event": "end", "ending": ending})
    finally:
        log.close()
        checkpoints.close()
    progress.say(f"{ending}: {run}")
    return ending


def _start(
    settings: PretrainSettings, records: Records, plan: Plan, checkpoints: Checkpoints
) -> tuple[TrainState, Validation, Plan]:
    functional = plan.objective.functional
    if checkpoints.latest_step is None:
        key = jax.random.key(settings.seed)
        return create_state(functional, plan.update, plan.mesh, key), Validation(), plan
    state, facts = checkpoints.restore(abstract_state(functional, plan.update, plan.mesh))
    records.info.check_fits(facts["records"], records.folder)
    record = facts["validation"]
    best = math.inf if record["best"] is None else record["best"]
    # The encoder knows the statistics it began with: a converted run goes on with the published ones.
    objective = replace(plan.objective, statistics=statistics_of(facts))
    return state, Validation(best, record["best_step"], record["since"]), replace(plan, objective=objective)


def _loop(
    settings: PretrainSettings,
    records: Records,
    plan: Plan,
    checkpoints: Checkpoints,
    state: TrainState,
    validation: Validation,
    log: Log,
    progress: ProgressLine,
    wish: Interruption,
) -> Ending:
    if plan.patience is not None and validation.since >= plan.patience:
        return "stopped early"
    batch_size = settings.optimizer.batch_size
    share, shares = reading_share(plan.mesh, batch_size)
    train = records.source("train")
    held_out = records.source("validation") if len(plan.held_out) else None
    take_step = train_step(
        plan.objective,
        plan.update,
        plan.schedule,
        plan.mesh,
        seed=settings.seed,
        accumulate=settings.optimizer.accumulate,
    )
    errors = error_step(plan.objective, plan.mesh, seed=settings.seed)
    first = int(state.step)
    meter = Meter(plan, batch_size, records.info.window_seconds / 3600, log, progress, settings.log.every_steps)
    stream = iter(
        batches(
            train,
            plan.rows,
            seed=settings.seed,
            batch_size=batch_size,
            first_step=first,
            last_step=plan.steps,
            process_index=share,
            process_count=shares,
            workers=settings.data.workers,
            threads=settings.data.threads,
        )
    )

    def read(step: int, metrics: StepMetrics) -> bool:
        """Look at a step that is done: is it finite, what is to be told, are we to stop?"""
        loss = float(metrics.loss)
        if not math.isfinite(loss):
            raise RunError(_not_finite(step, loss, settings, records, plan, train))
        meter.read(step, loss, metrics)
        return bool(metrics.stop)

    unread: StepMetrics | None = None
    for step in range(first + 1, plan.steps + 1):
        waited = time.perf_counter()
        batch = next(stream)
        meter.waited(time.perf_counter() - waited)
        spectrogram = to_devices(plan.mesh, batch["spectrogram"], batch_size)
        state, metrics = take_step(state, spectrogram, wishes(plan.mesh, bool(wish)))

        # The device works on this step while the host looks at the one before.
        interrupted = unread is not None and read(step - 1, unread)
        unread = metrics
        is_last = step == plan.steps
        validates = held_out is not None and (step % plan.validation_interval == 0 or is_last)
        saves = step % settings.checkpoint.every_steps == 0 or is_last or interrupted
        if not (validates or saves):
            continue

        interrupted = read(step, metrics) or interrupted
        unread = None
        improved = ended = False
        if validates and held_out is not None:
            loss = held_out_loss(
                errors,
                state.parameters,
                held_out,
                plan.held_out,
                batch_size=batch_size // settings.optimizer.accumulate,
                mesh=plan.mesh,
            )
            if not math.isfinite(loss):
                raise RunError(f"the held-out loss is {loss} at step {step}, though training is finite: {ADVICE}")
            validation = validation.with_measurement(loss, step)
            improved = validation.best_step == step
            ended = plan.patience is not None and validation.since >= plan.patience
            meter.validated(step, loss, validation.best)
        facts = _facts(settings, records, plan, validation)
        if improved or held_out is None:
            checkpoints.save_best(state.parameters, facts, step)
        if saves or ended or interrupted:
            checkpoints.save(state, facts, step)
        if ended:
            return "stopped early"
        if interrupted and not is_last:
            return "interrupted"
        meter.skip_pause()
    return "finished"


def _started(plan: Plan, records: Records, step: int) -> dict[str, Any]:
    return {
        "event": "start",
        "step": step,
        "steps": plan.steps,
        "parameters": plan.objective.functional.parameter_count,
        "windows": len(plan.rows),
        "hours": plan.hours,
        "processes": jax.process_count(),
        "devices": plan.mesh.size,
        "device": plan.mesh.devices.flat[0].device_kind,
        "mesh": dict(plan.mesh.shape),
    }


def _facts(settings: PretrainSettings, records: Records, plan: Plan, validation: Validation) -> dict[str, Any]:
    return facts_of(
        as_json(settings),
        plan.objective.statistics,
        asdict(records.info),
        features=plan.objective.functional.features,
        outputs=plan.objective.functional.outputs,
        hours=plan.hours,
        steps=plan.steps,
        best=validation.best,
        best_step=validation.best_step,
        since=validation.since,
    )


def _not_finite(
    step: int, loss: float, settings: PretrainSettings, records: Records, plan: Plan, source: RecordSource
) -> str:
    """Which step, which records, and whether they or the training are to blame."""
    rows = rows_of_batch(plan.rows, seed=settings.seed, batch_size=settings.optimizer.batch_size, step=step - 1)
    index = records.index("train")
    broken = [row for row in rows if not np.isfinite(source[int(row)]["spectrogram"]).all()]
    recordings = dict.fromkeys(f"{index.subject[row]}/{index.recording[row]}" for row in broken or rows)
    names = ", ".join(list(recordings)[:4])
    if broken:
        return (
            f"the loss is {loss} at step {step}: {len(broken)} of its records hold values that are not finite: {names}"
        )
    return f"the loss is {loss} at step {step}, though its records ({names}, ...) are finite: {ADVICE}"
