"""Which encoder reads which channels, and the frames that it gets."""

import numpy as np
import pytest

from selfpab_jax.errors import ConfigError
from selfpab_jax.features.encoder import PretrainedEncoder
from selfpab_jax.features.sensors import normalized_frames, open_sensor_encoders, sensor_encoders
from selfpab_jax.probe.dataset import Corpus

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def test_frames_cover_every_sample(overlapping: Corpus, encoder: PretrainedEncoder) -> None:
    signal = np.random.default_rng(0).normal(size=(1001, 6)).astype(np.float32)
    for samples in (1, 25, 26, 50, 975, 1000, 1001):
        frames = normalized_frames(signal[:samples], encoder)
        assert frames.shape == ((samples - 1) // 25 + 1, 156)
    np.testing.assert_allclose(frames[:39], normalized_frames(signal, encoder, pad=False), **CLOSE)
    assert [len(t) for t in overlapping.frame_labels] == [
        len(normalized_frames(r.signal_NxC, encoder)) for r in overlapping.recordings
    ]


def test_sensors_are_found_by_name_or_role(overlapping: Corpus, encoder: PretrainedEncoder, mono_directory) -> None:
    swapped = (*overlapping.channels[3:], *overlapping.channels[:3])
    (each,) = sensor_encoders(encoder, swapped)
    assert each.columns == (3, 4, 5, 0, 1, 2)
    hip = tuple(channel.replace("thigh", "hip") for channel in overlapping.channels)
    (each,) = sensor_encoders(encoder, hip, {"hip": "thigh"})
    assert each.columns == (0, 1, 2, 3, 4, 5)
    (each,) = open_sensor_encoders(mono_directory, hip)
    assert each.sensors == ("back",)
    assert each.encoder.sensors == ("back",)
    with pytest.raises(ConfigError, match="has no thigh_x"):
        sensor_encoders(encoder, hip)
    with pytest.raises(ConfigError, match="knee=thigh"):
        sensor_encoders(encoder, hip, {"knee": "thigh"})
    with pytest.raises(ConfigError, match="two sensors"):
        sensor_encoders(encoder, (*overlapping.channels, "hip_x"), {"hip": "thigh"})
    with pytest.raises(ConfigError, match="knows back, thigh"):
        open_sensor_encoders(mono_directory, ("wrist_x", "wrist_y", "wrist_z"))
