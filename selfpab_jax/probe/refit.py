"""The head that a probe keeps: trained on all labeled subjects with what the folds have chosen.

Cross-validation scores a recipe on subjects that were held out. For new recordings the same recipe is trained once
more, on everybody; its scores remain those of the cross-validation.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from selfpab_jax.data.har.card import DatasetCard, card_to_json
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.probe.config import ProbeSettings
from selfpab_jax.probe.heads.batch import make_head_batch
from selfpab_jax.probe.heads.saved import SavedHead, encoder_digests, package_version
from selfpab_jax.probe.heads.selection import head_offsets, labeled_features
from selfpab_jax.probe.heads.training import train_heads
from selfpab_jax.probe.methods import ProbeSetup
from selfpab_jax.probe.report.results import MethodResult

WhichHead = Literal["best", "linear", "mlp", "temporal"]
RULE = (
    "the most frequent layer over folds and seeds, where layers were selected (of equals, the lower one); among those "
    "the most frequent pair of learning rate and weight decay (of equals, the larger weight decay, then the smaller "
    "learning rate), and the median stopping point of the folds that chose it"
)


@dataclass(frozen=True)
class RefitChoice:
    """Hyper-parameters for all subjects.

    Attributes:
        learning_rate: at the first step.
        weight_decay: see `HeadSettings.optimizer`.
        point: stopping point, counted from 1.
        agreeing: how many folds (times seeds) chose this layer, learning rate and weight decay.
        folds: how many chose.
        layer: depth of the features, where layers were selected.
    """

    learning_rate: float
    weight_decay: float
    point: int
    agreeing: int
    folds: int
    layer: int | None = None


def agreed_choice(choices: Sequence[Mapping[str, Any]]) -> RefitChoice:
    """One choice for all subjects from those of the folds, by `RULE`.

    Folds that had too few labels to choose count only where all of them had.

    Args:
        choices: of each fold and seed: `learning_rate`, `weight_decay`, `point`, and `macro_f1` where it was chosen.

    Raises:
        DataError: there is none.
    """
    chosen = [choice for choice in choices if choice.get("macro_f1") is not None] or list(choices)
    if not chosen:
        raise DataError("no fold was trained, so there are no settings for a head of all subjects")
    layers = Counter(choice.get("layer") for choice in chosen)
    layer = max(layers, key=lambda each: (layers[each], -(each or 0)))
    folds, chosen = len(chosen), [choice for choice in chosen if choice.get("layer") == layer]
    counts = Counter((choice["learning_rate"], choice["weight_decay"]) for choice in chosen)
    rate, decay = max(counts, key=lambda pair: (counts[pair], pair[1], -pair[0]))
    points = sorted(c["point"] for c in chosen if (c["learning_rate"], c["weight_decay"]) == (rate, decay))
    return RefitChoice(rate, decay, points[(len(points) - 1) // 2], counts[rate, decay], folds, layer)


def check_refit(settings: ProbeSettings, which: WhichHead) -> None:
    """Check before any work that the probe will have the head that is to be saved.

    Raises:
        ConfigError: it will not.
    """
    if which not in get_args(WhichHead):
        raise ConfigError(f"save_head_kind is {which!r}; it must be one of {', '.join(get_args(WhichHead))}")
    if not settings.heads or (which != "best" and which not in settings.heads):
        raise ConfigError(f"save_head: heads are {', '.join(settings.heads) or 'none'}; name the head to save in heads")
    if not settings.budgets.all_labels:
        raise ConfigError("save_head: a head is saved with all labels; set budgets.all_labels")


def refit_head(
    setup: ProbeSetup,
    methods: Sequence[MethodResult],
    card: DatasetCard,
    which: WhichHead = "best",
    *,
    warnings: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> SavedHead:
    """A head for new recordings, trained on every labeled row of every subject.

    Classes without a row are left out: the head cannot know them.

    Args:
        setup: of the probe.
        methods: that were cross-validated.
        card: of the data set.
        which: kind of head; `best` by macro-F1 on held-out subjects.
        warnings: about the scores, kept with them.
        progress: called with a line now and then.

    Raises:
        DataError: the head was not scored.
    """
    scored = [m for m in methods if m.kind == "probe" and m.budget is None and m.name in setup.settings.heads]
    scored = [method for method in scored if which in ("best", method.name)]
    if not scored:
        raise DataError(f"save_head: no {'' if which == 'best' else which + ' '}head was scored, see the notes")
    method = max(scored, key=lambda each: np.nan_to_num(each.summary.macro_f1.mean, nan=-1.0))
    settings, corpus = setup.settings, setup.corpus
    choice = agreed_choice([
        each for of_seed in method.chosen for each in of_seed.values() if "learning_rate" in each
    ])  # fmt: skip
    head_settings, _ = settings.of_head(method.name)
    offsets = head_offsets(head_settings, corpus)
    data = labeled_features(setup.features, corpus, offsets, choice.layer)
    label_R = data.label_R
    extraction = settings.features.extraction(None)
    if choice.layer is not None:
        extraction = replace(extraction, layers=(choice.layer,))
    heads = make_head_batch(
        np.ones((1, len(corpus.subjects)), bool),
        data,
        seed_J=settings.seeds[0],
        learning_rate_J=choice.learning_rate,
        weight_decay_J=choice.weight_decay,
        stop_J=choice.point,
    )
    trained = train_heads(data, heads, head_settings, len(corpus.classes), progress=progress)
    kept_Y = corpus.trained_classes(label_R >= 0)
    parameters = {name: array[0] for name, array in trained.head.items()}
    for name in ("weight_DxH", "bias_H") if method.name == "linear" else ("out_HxY", "out_bias_Y"):
        parameters[name] = np.ascontiguousarray(parameters[name][..., kept_Y])
    labels = [label for label, _ in card.classes]
    last = int(trained.steps_P[choice.point - 1])
    return SavedHead(
        parameters=parameters,
        center_E=trained.center_E,
        mean_E=np.ascontiguousarray(trained.mean_JxE[0]),
        std_E=np.ascontiguousarray(trained.std_JxE[0]),
        classes=tuple(name for name, kept in zip(corpus.classes, kept_Y, strict=True) if kept),
        labels=tuple(label for label, kept in zip(labels, kept_Y, strict=True) if kept),
        extraction=extraction,
        offsets=offsets,
        window_frames=int(corpus.windows.length_W.max()),
        spectrogram=corpus.spectrogram,
        encoder_digests=encoder_digests(setup.encoders),
        sensors=tuple(each.sensors for each in setup.encoders),
        roles=dict(settings.dataset.roles),
        trained={
            "subjects": len(corpus.subjects),
            "hours": round(corpus.hours, 3),
            "rows": int((label_R >= 0).sum()),
            "seed": settings.seeds[0],
            **vars(choice),
            "steps": last,
            "rule": RULE,
        },
        scores=_scores(method, settings, warnings),
        dataset={
            "name": corpus.name,
            "title": card.title,
            "version": card.version,
            "card_digest": hashlib.sha256(json.dumps(card_to_json(card), sort_keys=True).encode()).hexdigest(),
        },
        version=package_version(),
    )


def _scores(method: MethodResult, settings: ProbeSettings, warnings: Sequence[str]) -> dict[str, Any]:
    summary, folds = method.summary, settings.protocol.folds
    values = {
        "macro_f1": summary.macro_f1.mean,
        "macro_f1_std": summary.subjects_std,
        "macro_f1_low": summary.macro_f1.low,
        "macro_f1_high": summary.macro_f1.high,
        "pooled_macro_f1": summary.pooled_macro_f1.mean,
        "accuracy": summary.accuracy.mean,
        "balanced_accuracy": summary.balanced_accuracy.mean,
    }
    f1 = {name: of_class.mean for name, of_class in zip(method.classes, summary.f1, strict=True)}
    return {
        "subjects": len(method.subjects),
        "seeds": len(method.seeds),
        "folds": f"{folds} of whole subjects" if folds else "leave one subject out",
        "selected_on": settings.protocol.choose,
        **{name: _json_number(value) for name, value in values.items()},
        "f1": {name: _json_number(value) for name, value in f1.items()},
        "warnings": list(warnings),
    }


def _json_number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
