"""Which encoder reads which channels of the data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from selfpab_jax.data.sources.base import sensors_of
from selfpab_jax.errors import ConfigError, ModelError
from selfpab_jax.features.encoder import PretrainedEncoder, load_encoder
from selfpab_jax.model_dir import read_config
from selfpab_jax.signal.stft import spectrogram


@dataclass(frozen=True)
class Branch:
    """An encoder and what goes into it.

    Attributes:
        encoder: frozen.
        columns: of the data's signals, in the order of the encoder's channels.
        sensors: of the data, whose channels they are.
    """

    encoder: PretrainedEncoder
    columns: tuple[int, ...]
    sensors: tuple[str, ...]


def open_branches(
    directory: Path | str, channels: tuple[str, ...], sensor_roles: Mapping[str, str] | None = None
) -> tuple[Branch, ...]:
    """The encoder of a model directory for data of these channels.

    Args:
        directory: model directory.
        channels: of the data's signals, `<sensor>_<axis>`.
        sensor_roles: as which of the model's sensors the data's go in, where their names differ:
            `{"hip": "thigh"}`.

    Raises:
        ModelError: no such model, or one without statistics.
        ConfigError: the sensors do not fit.
    """
    config, statistics = read_config(Path(directory))
    if statistics is None:
        raise ModelError(
            f"{directory} has no normalization statistics, so that no frames can be made for it: convert it again with "
            "--statistics (selfpab-jax convert from-torch)"
        )
    sensor = config.sensors[0] if config.family == "monoselfpab" else None
    return branches_of(load_encoder(directory, sensor=sensor), channels, sensor_roles)


def branches_of(
    encoder: PretrainedEncoder, channels: tuple[str, ...], sensor_roles: Mapping[str, str] | None = None
) -> tuple[Branch, ...]:
    """One branch for an encoder of several sensors; for a cross-sensor encoder one for each sensor that it knows.

    Sensors of the data that the model does not know are left out. Calendar positions (LTA2V) are left out, as in the
    original's downstream test.

    Raises:
        ConfigError: the sensors do not fit.
    """
    config, roles = encoder.config, dict(sensor_roles or {})
    sensors = sensors_of(channels)
    for sensor, role in roles.items():
        if sensor not in sensors or role not in config.sensors:
            raise ConfigError(
                f"sensor roles: {sensor}={role} needs a sensor of the data ({', '.join(sensors)}) and one of the model "
                f"({', '.join(config.sensors)})"
            )
    encoder = encoder.without_calendar()
    known = [sensor for sensor in sensors if roles.get(sensor, sensor) in config.sensors]
    if config.family == "monoselfpab":
        branches = [
            _branch(encoder.for_sensor(roles.get(sensor, sensor)), channels, {sensor: roles.get(sensor, sensor)})
            for sensor in known
        ]
    else:
        branches = [_branch(encoder, channels, {sensor: roles.get(sensor, sensor) for sensor in known})]
    if not branches:
        raise ConfigError(
            f"the model knows {', '.join(config.sensors)}; the data has {', '.join(sensors)}: "
            f"say which stands for which ({_how_to_say(sensors[0], config.sensors[0])})"
        )
    return tuple(branches)


def _branch(encoder: PretrainedEncoder, channels: tuple[str, ...], roles: dict[str, str]) -> Branch:
    places: dict[str, int] = {}
    for place, channel in enumerate(channels):
        sensor, _, axis = channel.rpartition("_")
        role = f"{roles[sensor]}_{axis}" if sensor in roles else ""
        if role in places:
            raise ConfigError(f"sensor roles: two sensors of the data go in as {roles[sensor]}; the model takes one")
        places |= {role: place} if role else {}
    if missing := [channel for channel in encoder.channels if channel not in places]:
        raise ConfigError(
            f"the model takes {', '.join(encoder.channels)}, and the data ({', '.join(channels)}) has no "
            f"{', '.join(missing)}: choose other sensors of the data, or say which stands for which "
            f"({_how_to_say(channels[0].rpartition('_')[0], missing[0].rpartition('_')[0])})"
        )
    return Branch(encoder, tuple(places[channel] for channel in encoder.channels), tuple(roles))


def _how_to_say(sensor: str, role: str) -> str:
    return f"probe --dataset.roles '{{{sensor}: {role}}}', embed --sensor_roles {sensor}={role}"


def frames_of(
    signal_NxC: Float[np.ndarray, "N C"], encoder: PretrainedEncoder, *, pad: bool = True
) -> Float32[np.ndarray, "T X"]:
    """Normalized frames of a recording.

    Args:
        signal_NxC: in g, at the encoder's rate, with its channels.
        encoder: whose spectrogram and statistics.
        pad: zeros behind the signal, so that every sample lies in a frame: T = floor((N - 1) / hop) + 1, as the
            original does at test time. Otherwise whole frames only.
    """
    settings = encoder.config.spectrogram
    if pad and len(signal_NxC):
        samples = (len(signal_NxC) - 1) // settings.fft_hop * settings.fft_hop + settings.fft_window
        signal_NxC = np.pad(signal_NxC, ((0, samples - len(signal_NxC)), (0, 0)))
    return encoder.normalize(spectrogram(signal_NxC, settings))


def branch_frames(
    signal_NxC: Float[np.ndarray, "N C"], branches: tuple[Branch, ...], *, pad: bool = True
) -> Float32[np.ndarray, "T X"]:
    """The frames of all branches side by side, as `make_forward` takes them."""
    frames = [frames_of(signal_NxC[:, list(branch.columns)], branch.encoder, pad=pad) for branch in branches]
    return frames[0] if len(frames) == 1 else np.concatenate(frames, axis=1)
