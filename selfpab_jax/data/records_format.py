"""How a record is laid out: the TFDS features, and the frame labels."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int32

from selfpab_jax.signal.stft import SpectrogramSettings

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

WRITER_OPTIONS = "group_size:1,uncompressed"
"""One record a group, for random access. Compression would save 13% and quadruple the time of a read."""


def record_features(frames: int, features: int, labels: bool) -> "tfds.features.FeaturesDict":
    """The TFDS features of a record (T frames of X features), with frame labels or without."""
    import tensorflow_datasets as tfds

    layout = {
        "spectrogram": tfds.features.Tensor(
            shape=(frames, features),
            dtype=np.float16,
            encoding=tfds.features.Encoding.BYTES,
            doc="magnitudes, not normalised; feature c * F + f is bin f of channel c",
        ),
        "subject": tfds.features.Text(),
        "recording": tfds.features.Text(doc="file, and stretch in it"),
        "start": tfds.features.Scalar(np.int64, doc="ms since 1970 on the recorder's clock, -1 where unknown"),
        "source": tfds.features.Text(),
    }
    if labels:
        layout["labels"] = tfds.features.Tensor(shape=(frames,), dtype=np.int32)
    return tfds.features.FeaturesDict(layout)


def frame_labels(labels_N: Int32[np.ndarray, " N"], settings: SpectrogramSettings) -> Int32[np.ndarray, " T"]:
    """The most frequent label of each frame's samples, ties to the smallest."""
    classes, codes_N = np.unique(labels_N, return_inverse=True)
    before_NxY = np.zeros((len(labels_N) + 1, len(classes)), np.int32)
    np.cumsum(codes_N[:, None] == np.arange(len(classes)), axis=0, out=before_NxY[1:])
    first_T = np.arange(settings.frame_count(len(labels_N))) * settings.fft_hop
    counts_TxY = before_NxY[first_T + settings.fft_window] - before_NxY[first_T]
    return classes[counts_TxY.argmax(axis=1)].astype(np.int32)
