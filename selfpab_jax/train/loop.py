"""The training loop: the one place where data, step, checkpoints and logs meet."""

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from selfpab_jax.data.loader import Batch, batches, in_order
from selfpab_jax.data.records.dataset import RecordSource, open_records
from selfpab_jax.distributed.init import join
from selfpab_jax.errors import ConfigError, RunError
from selfpab_jax.io import reason, write_json
from selfpab_jax.model.functional import Parameters
from selfpab_jax.prefetch import run_ahead
from selfpab_jax.progress import Progress
from selfpab_jax.train.checkpoint import Checkpoints, checkpoint_metadata, statistics_of
from selfpab_jax.train.checkpoint_files import require_writable_path
from selfpab_jax.train.config import PretrainSettings, as_json
from selfpab_jax.train.logging import Log, Meter, open_log, rewind_log
from selfpab_jax.train.run_dir import PROBE_FILE, SUBJECTS_FILE, check_records, open_run, records_metadata
from selfpab_jax.train.setup import ADVICE, TrainSetup, loss_not_finite, make_setup, start_event, start_line
from selfpab_jax.train.state import (
    TrainState,
    Validation,
    abstract_state,
    batch_shard,
    create_state,
    parameter_shardings,
    replicated,
    sharding_table,
)
from selfpab_jax.train.step import (
    ErrorStep,
    StepMetrics,
    all_finite,
    error_step,
    frame_info,
    stop_flags,
    to_devices,
    train_step,
)

Ending = Literal["finished", "stopped early", "interrupted"]


class StopRequest:
    """Whether SIGTERM or Ctrl-C came: the run then stops after the current step."""

    signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


class Probe(NamedTuple):
    """A probe of the encoder while it trains.

    Attributes:
        macro_f1: with these parameters.
        source: name of the data set.
        subjects: that are probed.
    """

    macro_f1: Callable[[Parameters], float]
    source: str
    subjects: tuple[str, ...]


OpenProbe = Callable[[PretrainSettings, dict[str, Any]], Probe]
"""Makes a probe from settings of a run and metadata of its checkpoints; one process of the run does."""


def pretrain(
    settings: PretrainSettings,
    run: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    open_probe: OpenProbe | None = None,
    begin: Callable[[PretrainSettings, Path], None] | None = None,
    on_step: Callable[[int], None] = lambda _: None,
) -> Ending:
    """Train a model on records, as one of the processes of a run.

    Args:
        settings: all settings.
        run: directory of the run.
        resume: continue where an earlier process stopped, or start if there is nothing yet.
        overwrite: remove an earlier run first.
        open_probe: makes the probe of `settings.probe`: `selfpab_jax.probe.monitor.open_probe`.
        begin: puts the state of `settings.branch` into the run: `selfpab_jax.train.branch.begin_branch`.
        on_step: called with the number of each step before it begins (`selfpab_jax.train.watch`).

    Returns:
        How it ended; `interrupted` means that SIGTERM or Ctrl-C came and the state is saved.

    Raises:
        ConfigError: a field does not fit the records or the devices.
        DataError: the records cannot be read.
        RunError: the run's directory cannot be used, a loss is not finite, or a checkpoint cannot be written.
    """
    run = Path(run)
    require_writable_path(run)
    join(settings.distributed)
    if settings.data.path is None:
        raise ConfigError("data.path is not set: give --data.path the directory that `selfpab-jax records build` wrote")
    if settings.probe.config is not None and open_probe is None:
        raise ConfigError("probe.config is set: call pretrain with open_probe=selfpab_jax.probe.monitor.open_probe")
    if settings.branch.run is not None and begin is None:
        raise ConfigError("branch.run is set: call pretrain with begin=selfpab_jax.train.branch.begin_branch")
    records = open_records(settings.data.path)
    setup = make_setup(settings, records)
    if jax.process_index():
        multihost_utils.sync_global_devices("the run is open")
        with catch_stop_signals() as stop:
            return _train(setup, run, stop, open_probe, on_step)

    def check() -> None:
        check_records(run, records, allow_changed=settings.data.allow_changed)

    with (
        catch_stop_signals() as stop,
        open_run(run, as_json(settings), resume=resume, overwrite=overwrite, check=check),
    ):
        if begin is not None:
            begin(settings, run)
        subjects = np.unique(np.asarray(records.index("train").subject)[setup.rows])
        write_json(run / SUBJECTS_FILE, [str(subject) for subject in subjects])
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("the run is open")
        return _train(setup, run, stop, open_probe, on_step)


def held_out_loss(
    errors: ErrorStep,
    parameters: Parameters,
    source: RecordSource,
    rows: Int[np.ndarray, " n"],
    *,
    batch_size: int,
    mesh: Mesh,
) -> float:
    """Mean loss over held-out windows, each masked in its own fixed way, without dropout.

    The mean is taken in float64 in the order of the rows, so that it does not depend on mesh or processes.

    Args:
        errors: the compiled loss of each sample.
        parameters: of the model.
        source: records of the held-out split.
        rows: which of them.
        batch_size: windows at a time, over all devices.
        mesh: the devices.
    """
    index, count = batch_shard(mesh, batch_size)
    held_out = in_order(source, rows, batch_size=batch_size, process_index=index, process_count=count)

    def measured(batch: Batch) -> Float[Array, " B"]:
        spectrogram, rows = (to_devices(mesh, batch[name], batch_size) for name in ("spectrogram", "row"))
        return errors(parameters, spectrogram, rows, frame_info(mesh, batch, batch_size))

    losses = list(run_ahead((measured(batch) for batch in held_out), ahead=2))
    return float(np.concatenate(losses)[: len(rows)].astype(np.float64).mean())


@contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
    """Turn SIGTERM and SIGINT into a `StopRequest`; a second signal ends the program at once."""
    request = StopRequest()

    def note(number: int, _frame: object) -> None:
        if request:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        request.signal_number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _train(
    setup: TrainSetup,
    run: Path,
    stop: StopRequest,
    open_probe: OpenProbe | None,
    on_step: Callable[[int], None],
) -> Ending:
    settings, is_main = setup.settings, jax.process_index() == 0
    functional = setup.objective.functional
    checkpoints = Checkpoints(run, settings.checkpoint)
    state, validation, setup = _start(setup, checkpoints)
    first = int(state.step)
    if is_main:
        rewind_log(run, first)
    log = open_log(run, settings.log, as_json(settings), enabled=is_main)
    every = settings.log.progress_seconds
    progress = Progress("pretrain", setup.steps, "steps", enabled=is_main, every_seconds=every, started=first)
    progress.log(sharding_table(functional, parameter_shardings(functional, setup.mesh), setup.mesh))
    try:
        log.write(start_event(setup, first))
        progress.log(start_line(setup, first))
        probe = None
        if settings.probe.config is not None and open_probe is not None and is_main:
            probe = open_probe(settings, {**_metadata(setup, validation), "step": first})
            write_json(run / PROBE_FILE, {"source": probe.source, "subjects": list(probe.subjects)})
        ending = _loop(setup, checkpoints, state, validation, log, progress, stop, probe, on_step)
        checkpoints.finish()
        log.write({"event": "end", "ending": ending})
    except OSError as error:  # of the log; checkpoints and records have errors of their own
        raise RunError(
            f"{run} could not be written (of its checkpoints, {checkpoints.kept}): {reason(error)}; when that is "
            "solved, use --resume"
        ) from error
    finally:
        progress.close()
        log.close()
        checkpoints.close()
    progress.log(f"{ending}: {run}")
    return ending


def _start(setup: TrainSetup, checkpoints: Checkpoints) -> tuple[TrainState, Validation, TrainSetup]:
    """A new state, or the one to resume."""
    functional = setup.objective.functional
    if checkpoints.latest_step is None:
        key = jax.random.key(setup.settings.seed)
        return create_state(functional, setup.optimizer, setup.mesh, key), Validation(), setup
    state, metadata = checkpoints.restore(abstract_state(functional, setup.optimizer, setup.mesh))
    setup.records.info.check_fits(metadata["records"], setup.records.folder)
    validation = Validation.from_json(metadata["validation"])
    if metadata["settings"].get("branch") != as_json(setup.settings).get("branch"):
        validation = Validation()  # the best of the trunk is no checkpoint of this run
    # The encoder keeps the statistics it began with: a converted run continues with the published ones.
    objective = replace(setup.objective, statistics=statistics_of(metadata))
    return state, validation, replace(setup, objective=objective)


def _loop(
    setup: TrainSetup,
    checkpoints: Checkpoints,
    state: TrainState,
    validation: Validation,
    log: Log,
    progress: Progress,
    stop: StopRequest,
    probe: Probe | None,
    on_step: Callable[[int], None],
) -> Ending:
    if setup.patience is not None and validation.since >= setup.patience:
        return "stopped early"
    settings, objective, mesh, batch_size = setup.settings, setup.objective, setup.mesh, setup.batch_size
    train = setup.source("train")
    held_out = setup.source("validation") if len(setup.held_out) else None
    take_step = train_step(
        objective,
        setup.optimizer,
        setup.schedule,
        mesh,
        seed=settings.seed,
        accumulate=settings.optimizer.accumulate,
    )
    errors = error_step(objective, mesh, seed=settings.seed)
    first = int(state.step)
    meter = Meter(
        log,
        progress,
        settings.log,
        steps=setup.steps,
        batch_size=batch_size,
        window_hours=setup.window_hours,
        flops=setup.flops,
        mesh=mesh,
    )
    index, count = setup.shard
    stream = iter(
        batches(
            train,
            setup.rows,
            seed=settings.seed,
            batch_size=batch_size,
            first_step=first,
            last_step=setup.steps,
            shares=setup.shares,
            process_index=index,
            process_count=count,
            workers=settings.data.workers,
            threads=settings.data.threads,
        )
    )

    def read(step: int, metrics: StepMetrics) -> bool:
        """Look at a step that is done: is its loss finite, and are we to stop?"""
        loss = float(metrics.loss)
        if not math.isfinite(loss):
            raise RunError(loss_not_finite(setup, step, loss))
        meter.add_step(step, loss, metrics)
        return bool(metrics.stop)

    unread: StepMetrics | None = None
    for step in range(first + 1, setup.steps + 1):
        on_step(step)
        meter.phase("waiting")
        batch = next(stream)
        meter.phase("steps")
        spectrogram = to_devices(mesh, batch["spectrogram"], batch_size)
        info = frame_info(mesh, batch, batch_size)
        state, metrics = take_step(state, spectrogram, stop_flags(mesh, bool(stop)), info)

        # The device computes this step while the host reads the one before.
        interrupted = unread is not None and read(step - 1, unread)
        unread = metrics
        is_last = step == setup.steps
        validates = held_out is not None and (step % setup.validation_interval == 0 or is_last)
        kept = step in settings.checkpoint.keep_steps
        saves = step % settings.checkpoint.every_steps == 0 or kept or is_last or interrupted
        probes = settings.probe.config is not None and (step % settings.probe.every_steps == 0 or is_last)
        if not (validates or saves or probes):
            continue

        interrupted = read(step, metrics) or interrupted
        unread = None
        improved = ended = False
        if validates and held_out is not None:
            meter.phase("validation")
            loss = held_out_loss(
                errors,
                state.parameters,
                held_out,
                setup.held_out,
                batch_size=batch_size // settings.optimizer.accumulate,
                mesh=mesh,
            )
            if not math.isfinite(loss):
                raise RunError(f"the held-out loss is {loss} at step {step}, though training is finite: {ADVICE}")
            validation = validation.with_measurement(loss, step)
            improved = validation.best_step == step and not settings.probe.keep_best
            ended = setup.patience is not None and validation.since >= setup.patience
            meter.add_validation(step, loss, validation.best)
        if probes:
            meter.phase("probe")
            whole = jax.jit(lambda each: each, out_shardings=replicated(mesh))(state.parameters)
            score = math.nan
            if probe is not None:
                score = probe.macro_f1(jax.device_put(jax.device_get(whole), jax.local_devices()[0]))
                meter.add_probe(step, score)
            if settings.probe.keep_best:
                score = float(multihost_utils.broadcast_one_to_all(np.float32(score)))
                validation = validation.with_probe(score, step)
                improved = validation.probe_step == step
        if not validates and not all_finite(state.parameters):  # the next loss would tell, if there were one
            raise RunError(f"some parameters are not finite after step {step}, which is not saved: {ADVICE}")
        metadata = _metadata(setup, validation)
        meter.phase("checkpoint")
        if improved or (held_out is None and not settings.probe.keep_best and (saves or interrupted)):
            checkpoints.save_best(state.parameters, metadata, step)
        if saves or ended or interrupted:
            checkpoints.save(state, metadata, step)
        meter.add_times(step)
        if ended:
            return "stopped early"
        if interrupted and not is_last:
            return "interrupted"
        meter.restart_clock()
    return "finished"


def _metadata(setup: TrainSetup, validation: Validation) -> dict[str, Any]:
    return checkpoint_metadata(
        as_json(setup.settings),
        setup.objective.statistics,
        records_metadata(setup.records),
        features=setup.objective.functional.features,
        outputs=setup.objective.functional.outputs,
        hours=setup.hours,
        steps=setup.steps,
        validation=validation,
    )
