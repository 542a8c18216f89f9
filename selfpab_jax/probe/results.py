"""What a probe found: arms, their confusion matrices, and what a reader must know of how they came about."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from selfpab_jax.errors import DataError
from selfpab_jax.probe.scores import Scores, score_subjects
from selfpab_jax.probe.summary import Summary, summarise

SELECTED_ON_TEST = (
    "selected on the test subject: each test subject doubled as its fold's validation subject (the original's habit), "
    "so these scores flatter"
)
Confusions = Mapping[str, Int64[np.ndarray, "Y Y"]]


@dataclass(frozen=True)
class Budget:
    """How much of the labels an arm may train on.

    Attributes:
        kind: `windows` per activity, a `share` of the windows of each activity (0 to 1), or training `subjects`.
        amount: of them.
    """

    kind: Literal["windows", "share", "subjects"]
    amount: float

    def __str__(self) -> str:
        if self.kind == "share":
            return f"{100 * self.amount:g}% of the windows of each activity"
        one = self.amount == 1
        if self.kind == "subjects":
            return "1 training subject" if one else f"{self.amount:g} training subjects"
        return "1 window per activity" if one else f"{self.amount:g} windows per activity"


@dataclass(frozen=True)
class EncoderFacts:
    """The frozen encoder of the probes; hours of pre-training None where its card does not tell."""

    directory: str
    family: str
    width: int
    layers: int
    pretraining_hours: float | None
    subjects_known: bool


@dataclass(frozen=True)
class Published:
    """A macro-F1 in per cent that somebody else reported on this data set."""

    what: str
    percent: float
    source: str


@dataclass(frozen=True, eq=False)
class Arm:
    """One way from signals to classes under the protocol, with one label budget.

    Attributes:
        name: in files: `linear`.
        title: for people: `SelfPAB, linear head`.
        kind: `probe` on the pre-trained encoder, the same with `random` weights, or a supervised `baseline`.
        seeds: one or more.
        classes: of the data set.
        confusions: for each seed the matrix of each test subject, rows truth; the same subjects for every seed.
        budget: None for all labels.
        chosen: for each seed, by fold: the hyper-parameters that selection chose.
        share_errors: for each seed, by subject: mean absolute error of the class shares per minute; empty where the
            task is not scored by them.
    """

    name: str
    title: str
    kind: Literal["probe", "baseline", "random"]
    seeds: tuple[int, ...]
    classes: tuple[str, ...]
    confusions: tuple[Confusions, ...]
    budget: Budget | None = None
    chosen: tuple[Mapping[str, Any], ...] = ()
    share_errors: tuple[Mapping[str, float], ...] = ()

    def __post_init__(self) -> None:
        where = f"arm {self.name!r}"
        if not self.seeds or len(self.confusions) != len(self.seeds):
            raise DataError(f"{where}: {len(self.confusions)} sets of confusion matrices for {len(self.seeds)} seeds")
        for part, name in ((self.chosen, "choices"), (self.share_errors, "share errors")):
            if part and len(part) != len(self.seeds):
                raise DataError(f"{where}: {len(part)} {name} for {len(self.seeds)} seeds")
        if not self.confusions[0] or any(set(c) != set(self.confusions[0]) for c in self.confusions):
            raise DataError(f"{where}: every seed needs the same test subjects, at least one")
        shape = (len(self.classes), len(self.classes))
        if wrong := [s for c in self.confusions for s, matrix in c.items() if np.shape(matrix) != shape]:
            raise DataError(f"{where}: the confusion matrix of subject {wrong[0]} does not fit {shape[0]} classes")

    @cached_property
    def scores(self) -> tuple[Scores, ...]:
        """Of each seed."""
        return tuple(score_subjects(confusions, self.classes) for confusions in self.confusions)

    @cached_property
    def summary(self) -> Summary:
        """Over all seeds."""
        return summarise(self.confusions)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Sorted names of the test subjects."""
        return tuple(sorted(self.confusions[0]))

    @property
    def full_title(self) -> str:
        """With its budget."""
        return self.title if self.budget is None else f"{self.title}, {self.budget}"


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """All arms on one data set under one protocol.

    Attributes:
        dataset: name of the builder.
        title: of the data set.
        version: of it.
        classes: names by index.
        channels: that were used.
        encoder: None where no arm has one.
        protocol: window, shift, alignment, folds, heads: names and values for people, in order.
        selection: by which subjects hyper-parameters and stopping were chosen: `inner` ones held out of the training
            subjects, the `test` subject itself (the original's habit), or nobody (`fixed`).
        arms: in the order in which they are shown; `headline` is the first probe with all labels.
        leakage: lines about what the encoder saw of these subjects in pre-training; repeated in every table.
        set_aside: lines about data that were not used.
        notes: other lines that a reader of the scores should know: classes missing in a fold, budgets not filled.
        published: figures to compare with.
        seconds: that it took.
        device: that computed.
    """

    dataset: str
    title: str
    version: str
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    encoder: EncoderFacts | None
    protocol: Mapping[str, Any]
    selection: Literal["inner", "test", "fixed"]
    arms: tuple[Arm, ...]
    leakage: tuple[str, ...] = ()
    set_aside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    seconds: float = 0.0
    device: str = ""

    def __post_init__(self) -> None:
        if not self.arms:
            raise DataError(f"{self.dataset}: no arm was scored, so there is nothing to report")
        if other := [arm.name for arm in self.arms if arm.classes != self.classes]:
            raise DataError(f"arm {other[0]!r} has other classes than the data set")
        keys = [(arm.name, arm.budget) for arm in self.arms]
        if twice := [name for name, budget in keys if keys.count((name, budget)) > 1]:
            raise DataError(f"arm {twice[0]!r} is there twice with the same budget; give each a name of its own")

    @property
    def headline(self) -> Arm:
        """The first probe with all labels (else the first arm): the place in the list, not the score, decides."""
        return next((arm for arm in self.arms if arm.kind == "probe" and arm.budget is None), self.arms[0])

    @property
    def full(self) -> tuple[Arm, ...]:
        """The arms that train on all labels; all arms where each has a budget."""
        return tuple(arm for arm in self.arms if arm.budget is None) or self.arms

    @property
    def warnings(self) -> tuple[str, ...]:
        """What every table of scores has to say: how the choice was made if not honestly, and leakage."""
        return (*((SELECTED_ON_TEST,) if self.selection == "test" else ()), *self.leakage)
