"""The settings of a pre-training run: one group for each file that reads it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from selfpab_jax.distributed.init import DistributedSettings
from selfpab_jax.errors import ConfigError
from selfpab_jax.model.config import ModelSettings
from selfpab_jax.model.masking import TaskSettings
from selfpab_jax.signal.normalization import Scale
from selfpab_jax.train.checkpoint import CheckpointSettings
from selfpab_jax.train.logging import LogSettings, WatchSettings
from selfpab_jax.train.optimizer import OptimizerSettings
from selfpab_jax.train.state import MeshSettings


@dataclass(frozen=True)
class DataSettings:
    """Which records are trained on.

    Args:
        path: directory that `records build` wrote.
        hours: train on a seeded subset of this many hours; smaller subsets are part of larger ones. All where not set.
        subjects: train on a seeded subset of this many subjects, nested in the same way.
        subset_seed: seed of both draws.
        statistics: `hour_weighted`, the original's: the std is that of the windows' means, merged over the hours of
            the day by their counts; or `plain`: over all frames.
        scale: of the magnitudes that the encoder sees and reconstructs: `linear` as published, `log` or `power`
            (`selfpab_jax/signal/normalization.py`), on which fewer frames make up most of the loss.
        sampling: of the windows of a step: `uniform`, each once per epoch; or `movement`, with replacement and in
            proportion to how much they move (at least a tenth of the mean), an epoch being as many draws as windows.
        workers: processes that read ahead; 0 reads in threads of this process.
        threads: reading threads of each process.
        allow_changed: resume on records that are not those the run was trained on so far. It is not stored.
    """

    path: Path | None = None
    hours: float | None = None
    subjects: int | None = None
    subset_seed: int = 0
    statistics: Literal["hour_weighted", "plain"] = "hour_weighted"
    scale: Scale = "linear"
    sampling: Literal["uniform", "movement"] = "uniform"
    workers: int = 0
    threads: int = 4
    allow_changed: bool = False

    def __post_init__(self) -> None:
        for name, least in (("hours", 0), ("subjects", 1), ("workers", 0), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"data.{name} is {value}; it must be at least {least}")


@dataclass(frozen=True)
class ValidationSettings:
    """When the held-out loss is measured, and when it ends the run.

    Args:
        per_epoch: measurements per epoch.
        every_steps: steps between two measurements; replaces `per_epoch` where it is set.
        windows: measure on this many windows, evenly spaced over the split; all where not set.
        patience: end the run after this share of all steps without improvement; 0 never does.
    """

    per_epoch: int = 4
    every_steps: int | None = None
    windows: int | None = None
    patience: float = 0.1

    def __post_init__(self) -> None:
        if self.per_epoch < 1:
            raise ConfigError(f"validation.per_epoch is {self.per_epoch}; it must be at least 1")
        if self.every_steps is not None and self.every_steps < 1:
            raise ConfigError(f"validation.every_steps is {self.every_steps}; it must be at least 1")
        if self.windows is not None and self.windows < 1:
            raise ConfigError(f"validation.windows is {self.windows}; it must be at least 1")
        if not 0 <= self.patience <= 1:
            raise ConfigError(f"validation.patience is {self.patience}; it must be in [0, 1]")

    def interval(self, windows: int, batch_size: int) -> int:
        """Steps between two measurements."""
        return self.every_steps or max(1, round(windows / batch_size / self.per_epoch))

    def patience_in_validations(self, total_steps: int, interval: int) -> int | None:
        """Measurements without improvement that end the run, or None."""
        return max(1, round(self.patience * total_steps / interval)) if self.patience else None


@dataclass(frozen=True)
class ProbingSettings:
    """A linear probe of the encoder at intervals, while it trains.

    Args:
        config: preset of `selfpab-jax probe` with the data set and its classes; none is made where not set.
        data: folder of its recordings.
        every_steps: steps between two probes.
        windows: labeled windows that are encoded each time, evenly spaced over all subjects.
        folds: of whole subjects; each is predicted by a probe of the others.
        keep_best: the best checkpoint is the one with the highest macro-F1 of the probe instead of the lowest held-out
            loss. The model card then names the subjects that were probed: they must not score this encoder.
    """

    config: str | None = None
    data: Path | None = None
    every_steps: int = 500
    windows: int = 256
    folds: int = 4
    keep_best: bool = False

    def __post_init__(self) -> None:
        for name, least in (("every_steps", 1), ("windows", 8), ("folds", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"probe.{name} is {getattr(self, name)}; it must be at least {least}")
        if (self.config is None) != (self.data is None):
            raise ConfigError("probe.config (a preset of probe) and probe.data (its recordings) belong together")
        if self.keep_best and self.config is None:
            raise ConfigError("probe.keep_best needs a probe: set probe.config and probe.data")


@dataclass(frozen=True)
class BranchSettings:
    """The state of another run that a run begins with; `pretrain --from` sets it.

    Args:
        run: directory of the other run; none where not set.
        step: whose state it is.
    """

    run: Path | None = None
    step: int = 0


@dataclass(frozen=True)
class PretrainSettings:
    """Everything that `pretrain` needs to know; the defaults are the published run (Logacjov et al. 2024).

    Args:
        seed: of parameters, order of records, masking and dropout.
        data: which records.
        model: sizes and numerics.
        task: what is hidden and reconstructed.
        optimizer: AdamW, its schedule, batch and length of the run.
        branch: what it begins with, if not from the start.
        validation: held-out loss and early stop.
        mesh: how devices are used.
        probe: labeled recordings that the encoder is probed on while it trains.
        checkpoint: when to save.
        log: what to log.
        distributed: several processes.
        watch: a watchdog, and profiles.
    """

    seed: int = 256
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    branch: BranchSettings = field(default_factory=BranchSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    probe: ProbingSettings = field(default_factory=ProbingSettings)
    mesh: MeshSettings = field(default_factory=MeshSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    log: LogSettings = field(default_factory=LogSettings)
    distributed: DistributedSettings = field(default_factory=DistributedSettings)
    watch: WatchSettings = field(default_factory=WatchSettings)


def as_json(settings: PretrainSettings) -> dict[str, Any]:
    """The settings as plain JSON values, without those of one start: `distributed`, `watch`, `allow_changed`."""
    groups = {group: value for group, value in asdict(settings).items() if group not in ("distributed", "watch")}
    del groups["data"]["allow_changed"]
    if settings.probe.config is None:
        del groups["probe"]
    if settings.branch.run is None:
        del groups["branch"]
    return json.loads(json.dumps(groups, default=str))
