"""The encoder as a scikit-learn transformer: from signals to one row of pooled features each."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, no_type_check

import numpy as np
from jaxtyping import Float, Float32
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from selfpab_jax.errors import ModelError
from selfpab_jax.features.encoder import Layers, PretrainedEncoder, load_encoder
from selfpab_jax.features.windows import fitting_windows
from selfpab_jax.signal.resample import resample
from selfpab_jax.signal.stft import spectrogram

Pool = Literal["mean", "max", "mean_std"]
POOLS = {
    "mean": lambda h_TxE: h_TxE.mean(axis=0),
    "max": lambda h_TxE: h_TxE.max(axis=0),
    "mean_std": lambda h_TxE: np.concatenate([h_TxE.mean(axis=0), h_TxE.std(axis=0)]),
}


class SelfPABFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Frozen features of accelerometer signals, for Pipeline, GroupKFold, GridSearchCV and the like.

    X is an array (n, N, C), a list of n signals (N_i, C), or a flat array (n, N * C), the same as `X.reshape(n, -1)`.
    Signals are in g and have the channels in `load_encoder(model).channels`. `fit` learns nothing from X, so no
    information leaks from test subjects.

    Args:
        model: model directory, or har-small, which ships with the package.
        rate_hz: sampling rate of the signals.
        sensor: the sensor to encode, for a cross-sensor model.
        layers: `last`, `all`, or depths (0 the embedding, -1 the last layer); several are concatenated.
        pool: how the frames of a signal are pooled: `mean`, `max`, or `mean_std` for mean and standard deviation.
        compute: dtype of matrix products; float32 by default.
        batch_size: windows per batch.

    Attributes:
        n_features_in_: columns of X (2-D and 3-D X).
        digest_: hash of the encoder. A fitted (or unpickled) estimator refuses to transform once the encoder in its
            model directory has changed.
    """

    @no_type_check  # scikit-learn sets any value here; `fit` validates
    def __init__(
        self,
        model: str | Path,
        rate_hz: float = 50.0,
        *,
        sensor: str | None = None,
        layers: Layers = "last",
        pool: Pool = "mean",
        compute: Literal["float32", "bfloat16"] | None = None,
        batch_size: int = 8,
    ):
        self.model = model
        self.rate_hz = rate_hz
        self.sensor = sensor
        self.layers: Layers = layers
        self.pool = pool
        self.compute: Literal["float32", "bfloat16"] | None = compute
        self.batch_size = batch_size

    def fit(self, X: Any, y: Any = None) -> "SelfPABFeatures":
        """Load the encoder and check that X fits.

        Raises:
            ValueError: X does not fit, or an argument is wrong.
            ModelError: no such model.
        """
        if self.pool not in POOLS:
            raise ValueError(f"pool is {self.pool!r}; it must be one of {', '.join(POOLS)}")
        if not self.rate_hz > 0:
            raise ValueError(f"rate_hz is {self.rate_hz}; it must be above 0")
        encoder = self._load()
        encoder.depths(self.layers)
        self._signals(X, encoder, reset=True)
        self.digest_ = encoder.digest
        return self

    def transform(self, X: Any) -> Float32[np.ndarray, "n D"]:
        """One row of features for each signal.

        Raises:
            ValueError: X does not fit, or a signal is shorter than a frame.
        """
        check_is_fitted(self)
        encoder = self._load()
        if encoder.digest != self.digest_:
            raise ModelError(f"{self.model} has another encoder than this estimator was fitted with; fit it again")
        frames = [self._frames(signal, encoder) for signal in self._signals(X, encoder, reset=False)]
        return self._pooled(frames, encoder)

    def __sklearn_tags__(self) -> Any:
        """Features are float32, whatever the dtype of X."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        encoder = self._load()
        return encoder.width * len(encoder.depths(self.layers)) * (2 if self.pool == "mean_std" else 1)

    def _load(self) -> PretrainedEncoder:
        directory = Path(self.model)
        files = sorted(directory.glob("*")) if directory.is_dir() else []
        stamps = tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
        return _loaded(directory, self.sensor, self.compute, stamps)

    def _signals(self, X: Any, encoder: PretrainedEncoder, *, reset: bool) -> Sequence[Float[np.ndarray, "N C"]]:
        channels = encoder.channels
        if isinstance(X, list | tuple) and len({np.shape(signal) for signal in X}) > 1 and np.ndim(X[0]) == 2:
            signals = [np.asarray(signal, np.float32) for signal in X]
        else:
            given: Any = X
            array = np.asarray(validate_data(self, given, reset=reset, allow_nd=True, dtype=[np.float32, np.float64]))
            if array.ndim == 2 and array.shape[1] % len(channels):
                raise ValueError(
                    f"X has {array.shape[1]} feature(s) (n_features = {array.shape[1]}); flat signals need a multiple "
                    f"of {len(channels)}, samples times channels ({', '.join(channels)}); a minimum of one frame is "
                    "required"
                )
            signals = list(array.reshape(len(array), -1, len(channels)) if array.ndim == 2 else array)
        shortest = encoder.config.spectrogram.fft_window / encoder.config.spectrogram.rate_hz
        for number, signal in enumerate(signals):
            if signal.ndim != 2 or signal.shape[1] != len(channels):
                raise ValueError(
                    f"signal {number} has shape {signal.shape}; it must be (N, {len(channels)}): {', '.join(channels)}"
                )
            if not encoder.frame_count(len(signal), self.rate_hz):
                raise ValueError(
                    f"signal {number} has {len(signal)} sample(s), {signal.size} feature(s) (n_features = "
                    f"{signal.size}); a minimum of {shortest:g} s is required"
                )
            if not np.isfinite(signal).all():
                raise ValueError(f"signal {number} has NaN or infinity")
        return signals

    def _frames(self, signal_NxC: np.ndarray, encoder: PretrainedEncoder) -> Float32[np.ndarray, "T X"]:
        settings = encoder.config.spectrogram
        at_rate = resample(signal_NxC.astype(np.float32), self.rate_hz, settings.rate_hz)
        return encoder.normalize(spectrogram(at_rate, settings))

    def _pooled(self, frames: list[np.ndarray], encoder: PretrainedEncoder) -> Float32[np.ndarray, "n D"]:
        """Windows of the same length, of all signals, are encoded together."""
        starts_of: dict[int, list[tuple[int, int]]] = {}
        outputs = [np.empty((len(f), len(encoder.depths(self.layers)) * encoder.width), np.float32) for f in frames]
        for number, series_TxX in enumerate(frames):
            length, firsts = fitting_windows(len(series_TxX), encoder.config.frames)
            for first in firsts:
                starts_of.setdefault(length, []).append((number, first))
        for length, starts in starts_of.items():
            for at in range(0, len(starts), self.batch_size):
                batch = starts[at : at + self.batch_size]
                x_BxTxX = np.zeros((self.batch_size, length, frames[0].shape[1]), np.float32)
                for place, (number, first) in enumerate(batch):
                    x_BxTxX[place] = frames[number][first : first + length]
                encoded = encoder.encode_layers(
                    x_BxTxX, layers=self.layers, normalized=True, batch_size=self.batch_size
                )
                for (number, first), h_TxLxD in zip(batch, encoded, strict=False):
                    outputs[number][first : first + length] = h_TxLxD.reshape(length, -1)
        return np.stack([POOLS[self.pool](h_TxE) for h_TxE in outputs])


@lru_cache(maxsize=4)
def _loaded(directory: Path, sensor: str | None, compute: Any, stamps: tuple) -> PretrainedEncoder:
    """One encoder, with what was compiled for it, for all clones of an estimator; loaded again when its files change.

    Because of this cache, no estimator holds arrays: a pickled one is small, and loads the encoder when it is used.
    """
    return load_encoder(directory, sensor=sensor, compute=compute)
