"""What a probe is told: data set, protocol, features, heads, comparisons, label budgets."""

from dataclasses import dataclass, field
from typing import Any, Literal

from selfpab_jax.errors import ConfigError
from selfpab_jax.features.extract import Extraction, Merge
from selfpab_jax.probe.baselines import BASELINES, BaselineSettings
from selfpab_jax.probe.finetune import FinetuneSettings
from selfpab_jax.probe.heads.model import HeadSettings
from selfpab_jax.probe.heads.selection import SelectionSettings
from selfpab_jax.probe.report.results import Budget, Published

HEADS = ("linear", "mlp")


@dataclass(frozen=True)
class DatasetSettings:
    """Which recordings and labels.

    Args:
        name: of a data set (`harth`, `uschad`, ...), or `tables` for files of your own.
        version: of the data set; the usual one where not set.
        sensors: names, in the model's order; the ones that stand for lower back and thigh where empty.
        roles: as which of the model's sensors those of the data go in, where their names differ: {hip: thigh}.
        options: further fields of the data set's class: for `tables` columns, unit, rate_hz, label_column, ...
        only: these subjects; all where empty.
        without: not these subjects.
        unseen_only: leave out the subjects that the encoder was pre-trained on, by its model card.
    """

    name: str = ""
    version: str | None = None
    sensors: tuple[str, ...] = ()
    roles: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    unseen_only: bool = False


@dataclass(frozen=True)
class ProtocolSettings:
    """Windows, folds and how hyper-parameters are chosen.

    Args:
        window_seconds: of a window; the encoder's training window where not set.
        shift_seconds: from window to window, rounded to frames; side by side where not set. The original's is 6 s.
        short: `pad` fills windows up with zeros after normalization, as the original; `fit` never leaves a recording.
        cut_at_activity: end recordings at each change of label; as the data set's card says where not set.
        resampling: `polyphase`, or `fourier` as the original.
        folds: number of folds of whole subjects; leave-one-subject-out where 0.
        fold_seed: of the draw of folds.
        choose: hyper-parameters and stopping by `inner` folds of the training subjects; by the `test` subject, the
            original's habit, which flatters; or `fixed`.
        min_seconds: shorter recordings are set aside.
        share_minutes: score shares of classes in stretches of so many minutes too; not where 0.
    """

    window_seconds: float | None = None
    shift_seconds: float | None = None
    short: Literal["pad", "fit"] = "pad"
    cut_at_activity: bool | None = None
    resampling: Literal["polyphase", "fourier"] = "polyphase"
    folds: int = 0
    fold_seed: int = 0
    choose: Literal["inner", "test", "fixed"] = "inner"
    min_seconds: float = 1.0
    share_minutes: float = 0.0


@dataclass(frozen=True)
class FeatureSettings:
    """What is kept of the encoder's outputs.

    Args:
        layers: `last`, `all` (the head learns how to weigh them), or depths: 0 the embedding, -1 the last layer.
        merge: of one cross-sensor encoder for each sensor: `mean`, `max` or `concatenate`.
        surroundings_seconds: beside each frame's features, their mean and standard deviation over the frames within so
            many seconds around it, for each length given; heads see then how features vary, which one second hides.
        compute: dtype of the encoder's matrix products.
        dtype: of the features on disk.
        batch_size: windows at a time; as many as fill the device where not set.
    """

    layers: Literal["last", "all"] | tuple[int, ...] = "last"
    merge: Merge = "together"
    surroundings_seconds: tuple[float, ...] = ()
    compute: Literal["float32", "bfloat16"] = "float32"
    dtype: Literal["float16", "float32"] = "float16"
    batch_size: int | None = None

    def extraction(self, random_seed: int | None) -> Extraction:
        """For the trained encoder, or for one with random weights."""
        return Extraction(
            layers=self.layers,
            merge=self.merge,
            surroundings_seconds=self.surroundings_seconds,
            random_seed=random_seed,
            compute=self.compute,
            batch_size=self.batch_size,
            dtype=self.dtype,
        )


@dataclass(frozen=True)
class BudgetSettings:
    """Label budgets that every arm is trained with besides all labels.

    Args:
        windows: of each activity, out of the training subjects.
        shares: of each activity's windows, 0 to 1.
        subjects: training subjects.
        all_labels: train with all labels too.
    """

    windows: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    subjects: tuple[int, ...] = ()
    all_labels: bool = True

    def budgets(self) -> tuple[Budget | None, ...]:
        """In order; None stands for all labels."""
        return (
            *((None,) if self.all_labels else ()),
            *(Budget("windows", amount) for amount in self.windows),
            *(Budget("share", amount) for amount in self.shares),
            *(Budget("subjects", amount) for amount in self.subjects),
        )


@dataclass(frozen=True)
class ProbeSettings:
    """Everything that `probe` is told.

    Args:
        dataset: recordings and labels.
        protocol: windows, folds, selection.
        features: of the encoder.
        heads: `linear`, `mlp` or both.
        linear: the linear head.
        mlp: the MLP head.
        selection: candidates of the linear head.
        mlp_selection: candidates of the MLP.
        seeds: of heads, random weights, baselines and label budgets.
        random_encoder: probe the same encoder with random weights too.
        finetuned: train encoder and head together too, as the original's released configurations.
        finetune: how.
        baselines: names of supervised baselines trained from scratch under the same protocol.
        baseline: how.
        budgets: label budgets.
        published: figures to compare with.
    """

    dataset: DatasetSettings = field(default_factory=DatasetSettings)
    protocol: ProtocolSettings = field(default_factory=ProtocolSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    heads: tuple[str, ...] = HEADS
    linear: HeadSettings = field(default_factory=HeadSettings)
    mlp: HeadSettings = field(default_factory=lambda: HeadSettings(kind="mlp"))
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    mlp_selection: SelectionSettings = field(
        default_factory=lambda: SelectionSettings(learning_rates=(1e-3,), weight_decays=(0.0,))
    )
    seeds: tuple[int, ...] = (0,)
    random_encoder: bool = False
    finetuned: bool = False
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    baselines: tuple[str, ...] = ()
    baseline: BaselineSettings = field(default_factory=BaselineSettings)
    budgets: BudgetSettings = field(default_factory=BudgetSettings)
    published: tuple[Published, ...] = ()

    def __post_init__(self) -> None:
        for what, names, known in (("heads", self.heads, HEADS), ("baselines", self.baselines, tuple(BASELINES))):
            if unknown := [name for name in names if name not in known]:
                raise ConfigError(f"{what}: there is no {', '.join(unknown)}; there are {', '.join(known)}")
            if len(set(names)) < len(names):
                raise ConfigError(f"{what} are {', '.join(names)}; give each once")
        given = self.seeds
        if not given or len(set(given)) < len(given) or min(given) < 0 or max(given) >= 2**31:
            raise ConfigError(f"seeds are {list(self.seeds)}; give one or more from 0 to 2147483647, each once")
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
        if self.protocol.folds == 1 or self.protocol.folds < 0:
            raise ConfigError(
                f"protocol.folds is {self.protocol.folds}; give 2 or more, or 0 for leave-one-subject-out"
            )
        if self.linear.kind != "linear" or self.mlp.kind != "mlp":
            raise ConfigError("linear.kind must be linear, and mlp.kind mlp")
