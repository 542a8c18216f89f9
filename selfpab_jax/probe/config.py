"""Settings of a probe: data set, protocol, features, heads, baselines, label budgets."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from selfpab_jax.data.har.registry import check_dataset_name
from selfpab_jax.errors import ConfigError
from selfpab_jax.features.extract import Compute, ExtractionSettings, FeatureDtype, Merge
from selfpab_jax.features.windows import Short
from selfpab_jax.probe.baselines import BASELINES, BaselineSettings
from selfpab_jax.probe.budgets import Budget
from selfpab_jax.probe.finetune import FinetuneSettings
from selfpab_jax.probe.heads.model import HeadSettings
from selfpab_jax.probe.heads.selection import SelectionSettings
from selfpab_jax.probe.prepare import FrameLabels, Resampling

HEADS = ("linear", "mlp", "temporal")


@dataclass(frozen=True)
class DatasetSettings:
    """Which recordings and labels.

    Args:
        name: of a data set (`harth`, `uschad`, ...), or `tables` for your own files.
        version: of the data set; the usual one if not set.
        sensors: names, in the model's order; if empty, those that stand for lower back and thigh.
        roles: which of the model's sensors each sensor of the data is used as, where their names differ:
            {hip: thigh}.
        options: further fields of the data set's class; for `tables`: columns, unit, rate, label_column, ...
        only: subjects to keep; all if empty.
        without: subjects to leave out.
        unseen_only: leave out the subjects that the encoder was pre-trained on, according to its model card.

    Raises:
        ConfigError: no such data set.
    """

    name: str = ""
    version: str | None = None
    sensors: tuple[str, ...] = ()
    roles: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    unseen_only: bool = False

    def __post_init__(self) -> None:
        if self.name:
            check_dataset_name(self.name)


@dataclass(frozen=True)
class ProtocolSettings:
    """Windows, folds, and how hyper-parameters are selected.

    Args:
        window_seconds: length of a window; the encoder's training window if not set.
        shift_seconds: from the start of one window to the next, rounded to frames; side by side if not set. The
            original's is 6 s.
        short: `pad` fills windows with zeros after normalization, as the original; `fit` never leaves a recording.
        whole_recordings: one window for each recording, of its own length, as the original's sleep task; the encoder
            attends to no padding.
        frame_labels: what frames are trained on: their `majority` label, or `densities`, the share of each class in the
            frame's samples, as the original's sleep task.
        cut_at_activity: split recordings at each change of label; as the data set's card says if not set.
        resampling: `polyphase`, or `fourier` as the original.
        folds: number of folds of whole subjects; 0 for leave-one-subject-out.
        fold_seed: of the random assignment to folds.
        choose: select hyper-parameters and stopping on `inner` folds of the training subjects; on the `test` subject,
            the original's habit, which is too optimistic; or not at all (`fixed`).
        min_seconds: shorter recordings are skipped.
        duration_minutes: also score how much of each segment (this many minutes) each class takes; 0 for no such score.
    """

    window_seconds: float | None = None
    shift_seconds: float | None = None
    short: Short = "pad"
    whole_recordings: bool = False
    frame_labels: FrameLabels = "majority"
    cut_at_activity: bool | None = None
    resampling: Resampling = "polyphase"
    folds: int = 0
    fold_seed: int = 0
    choose: Literal["inner", "test", "fixed"] = "inner"
    min_seconds: float = 1.0
    duration_minutes: float = 0.0


@dataclass(frozen=True)
class FeatureSettings:
    """What is kept of the encoder's outputs.

    Args:
        layers: `auto`, the one that is best on inner folds, for each fold and head; `last`; `all` (the head learns how
            to weight them); or depths: 0 the embedding, -1 the last layer.
        merge: of a cross-sensor encoder's features, one set per sensor: `mean`, `max` or `concatenate`.
        context_seconds: temporal context: beside each frame's features, their mean and standard deviation over the
            frames within this many seconds around it, for each length given.
        compute: dtype of the encoder's matrix products.
        dtype: of the features on disk.
        batch_size: windows per batch; as many as fill the device if not set.
    """

    layers: Literal["auto", "last", "all"] | tuple[int, ...] = "auto"
    merge: Merge = "together"
    context_seconds: tuple[float, ...] = ()
    compute: Compute = "float32"
    dtype: FeatureDtype = "float16"
    batch_size: int | None = None

    def extraction(self, random_seed: int | None) -> ExtractionSettings:
        """For the trained encoder (None), or for one with random weights."""
        return ExtractionSettings(
            layers="all" if self.layers == "auto" else self.layers,
            merge=self.merge,
            context_seconds=self.context_seconds,
            random_seed=random_seed,
            compute=self.compute,
            batch_size=self.batch_size,
            dtype=self.dtype,
        )


@dataclass(frozen=True)
class BudgetSettings:
    """Label budgets that every method is trained with, besides all labels.

    Args:
        windows: numbers of windows of each activity, from the training subjects.
        fractions: of the windows of each activity, above 0 and at most 1.
        subjects: numbers of training subjects.
        all_labels: train with all labels too.
    """

    windows: tuple[int, ...] = ()
    fractions: tuple[float, ...] = ()
    subjects: tuple[int, ...] = ()
    all_labels: bool = True

    def budgets(self) -> tuple[Budget | None, ...]:
        """In order; None stands for all labels."""
        return (
            *((None,) if self.all_labels else ()),
            *(Budget("windows", amount) for amount in self.windows),
            *(Budget("fraction", amount) for amount in self.fractions),
            *(Budget("subjects", amount) for amount in self.subjects),
        )


@dataclass(frozen=True)
class ReferenceScore:
    """A macro-F1 that others have published on the data set.

    Args:
        what: method, in words.
        percent: macro-F1 in percent.
        source: publication.
    """

    what: str
    percent: float
    source: str


@dataclass(frozen=True)
class ProbeSettings:
    """Everything that a probe does.

    Args:
        dataset: recordings and labels.
        protocol: windows, folds, selection.
        features: of the encoder.
        heads: some of `linear`, `mlp` and `temporal`.
        linear: settings of the linear head.
        mlp: settings of the MLP head.
        temporal: settings of the temporal head, which sees the frames around.
        selection: candidate hyper-parameters of the linear head.
        mlp_selection: candidate hyper-parameters of the MLP head.
        temporal_selection: candidate hyper-parameters of the temporal head.
        seeds: of heads, random weights, baselines and label budgets.
        random_encoder: also probe the same encoder with random weights.
        spectrogram: also probe the encoder's input itself, the normalized spectrogram, with the same temporal context.
        finetuned: also train encoder and head together, as the original's released configurations do.
        finetune: settings of this.
        baselines: names of supervised baselines that are trained from scratch under the same protocol.
        baseline: their settings.
        budgets: label budgets.
        published: scores to compare with.

    Raises:
        ConfigError: a name is unknown or given twice, a value is out of range, or there is nothing to do.
    """

    dataset: DatasetSettings = field(default_factory=DatasetSettings)
    protocol: ProtocolSettings = field(default_factory=ProtocolSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    heads: tuple[str, ...] = ("linear", "mlp")
    linear: HeadSettings = field(default_factory=HeadSettings)
    mlp: HeadSettings = field(default_factory=lambda: HeadSettings(kind="mlp"))
    temporal: HeadSettings = field(default_factory=lambda: HeadSettings(kind="temporal", hidden=64))
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    mlp_selection: SelectionSettings = field(
        default_factory=lambda: SelectionSettings(learning_rates=(1e-3,), weight_decays=(0.0,))
    )
    temporal_selection: SelectionSettings = field(
        default_factory=lambda: SelectionSettings(learning_rates=(1e-3,), weight_decays=(1e-2,))
    )
    seeds: tuple[int, ...] = (0,)
    random_encoder: bool = False
    spectrogram: bool = False
    finetuned: bool = False
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    baselines: tuple[str, ...] = ()
    baseline: BaselineSettings = field(default_factory=BaselineSettings)
    budgets: BudgetSettings = field(default_factory=BudgetSettings)
    published: tuple[ReferenceScore, ...] = ()

    def __post_init__(self) -> None:
        for what, names, known in (("heads", self.heads, HEADS), ("baselines", self.baselines, tuple(BASELINES))):
            if unknown := [name for name in names if name not in known]:
                raise ConfigError(f"{what}: {', '.join(unknown)} is not known; choose from {', '.join(known)}")
            if len(set(names)) < len(names):
                raise ConfigError(f"{what} are {', '.join(names)}; give each once")
        given = self.seeds
        if not given or len(set(given)) < len(given) or min(given) < 0 or max(given) >= 2**31:
            raise ConfigError(f"seeds are {list(self.seeds)}; give one or more from 0 to 2147483647, each once")
        for name in ("selection", "mlp_selection", "temporal_selection"):
            if getattr(self, name).choose not in ("inner", self.protocol.choose):  # inner is the default there
                raise ConfigError(f"{name}.choose: set protocol.choose, which holds for all heads")
        if not (self.heads or self.finetuned or self.baselines):
            raise ConfigError("nothing to do: name heads or baselines, or set finetuned")
        budgets = self.budgets.budgets()
        if not budgets:
            raise ConfigError("budgets: all_labels is off and no other budget is named")
        if len(set(map(str, budgets))) < len(budgets):
            raise ConfigError("budgets: one is named twice; give each once")
        for name in ("window_seconds", "shift_seconds"):
            seconds = getattr(self.protocol, name)
            if seconds is not None and not seconds > 0:
                raise ConfigError(f"protocol.{name} is {seconds}; it must be above 0")
            if seconds is not None and self.protocol.whole_recordings:
                raise ConfigError(f"protocol.{name} and protocol.whole_recordings cannot be combined")
        if self.protocol.folds == 1 or self.protocol.folds < 0:
            raise ConfigError(
                f"protocol.folds is {self.protocol.folds}; give 2 or more, or 0 for leave-one-subject-out"
            )
        for name in HEADS:
            if (kind := getattr(self, name).kind) != name:
                raise ConfigError(f"{name}.kind is {kind}; it must be {name}")
        if self.features.layers == "auto" and self.heads and self.protocol.choose != "inner":
            raise ConfigError(
                f"features.layers auto selects a layer on inner folds, and protocol.choose is {self.protocol.choose}: "
                "name layers, such as last or [2]"
            )

    def of_head(self, name: str) -> tuple[HeadSettings, SelectionSettings]:
        """Settings and candidate hyper-parameters of a head by its name, selected as the protocol says."""
        selection = {"linear": self.selection, "mlp": self.mlp_selection, "temporal": self.temporal_selection}[name]
        return getattr(self, name), replace(selection, choose=self.protocol.choose)
