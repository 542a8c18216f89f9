"""Features of every row of a corpus."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped


@dataclass(frozen=True)
class FeatureTable:
    """Frozen features, a row for each row of the corpus that they were made from.

    Attributes:
        features_RxLxD: float16 or float32, usually a read-only map of a file larger than memory; L are the layers kept.
        key: hash of everything they depend on.
        description: encoder, extraction and corpus, in words and hashes.
    """

    features_RxLxD: Shaped[np.ndarray, "R L D"]
    key: str
    description: dict[str, Any]

    def __post_init__(self) -> None:
        if self.features_RxLxD.ndim != 3 or self.features_RxLxD.dtype not in (np.float16, np.float32):
            raise ValueError(f"features are {self.features_RxLxD.dtype} {self.features_RxLxD.shape}, not (R, L, D)")

    @property
    def layers(self) -> int:
        """L."""
        return self.features_RxLxD.shape[1]

    @property
    def width(self) -> int:
        """D."""
        return self.features_RxLxD.shape[2]
