"""What a run's checkpoints say of themselves beside the weights, and what `export` and `--resume` read there."""

import math
from collections.abc import Mapping
from typing import Any

from selfpab_jax.signal.statistics import Statistics

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
        statistics: that its inputs are normalised with.
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
