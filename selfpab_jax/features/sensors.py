"""Which encoder reads which channels of the data: sensors are matched by name, or by roles that the user gives."""

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
class SensorEncoder:
    """An encoder and the channels of the data that it reads.

    Attributes:
        encoder: frozen.
        columns: of the data's signals, in the order of the encoder's channels.
        sensors: of the data, the ones that these channels belong to.
    """

    encoder: PretrainedEncoder
    columns: tuple[int, ...]
    sensors: tuple[str, ...]


def open_sensor_encoders(
    directory: Path | str,
    channels: tuple[str, ...],
    sensor_roles: Mapping[str, str] | None = None,
    *,
    calendar: bool = False,
) -> tuple[SensorEncoder, ...]:
    """The encoder of a model directory, matched with the channels of the data.

    Args:
        directory: model directory.
        channels: of the data's signals, `<sensor>_<axis>`.
        sensor_roles: see `sensor_encoders`.
        calendar: see `sensor_encoders`.

    Raises:
        ModelError: the model is missing, or has no normalization statistics.
        ConfigError: the sensors do not fit.
    """
    config, statistics = read_config(Path(directory))
    if statistics is None:
        raise ModelError(
            f"{directory} has no normalization statistics, so it cannot encode signals: convert it again with "
            "--statistics (selfpab-jax convert from-torch)"
        )
    sensor = config.sensors[0] if config.family == "monoselfpab" else None
    return sensor_encoders(load_encoder(directory, sensor=sensor), channels, sensor_roles, calendar=calendar)


def sensor_encoders(
    encoder: PretrainedEncoder,
    channels: tuple[str, ...],
    sensor_roles: Mapping[str, str] | None = None,
    *,
    calendar: bool = False,
) -> tuple[SensorEncoder, ...]:
    """An encoder, matched with the channels of the data.

    An encoder of several sensors is one entry; a cross-sensor encoder is one entry for each sensor that it knows.
    Sensors that the model does not know are ignored.

    Args:
        encoder: frozen.
        channels: of the data's signals, `<sensor>_<axis>`.
        sensor_roles: the model's name for a sensor of the data, where the two differ: `{"hip": "thigh"}`.
        calendar: keep calendar positions (LTA2V), so that the encoder takes the time of every frame; without, as in the
            original's downstream test, it takes none.

    Raises:
        ConfigError: the sensors do not fit, or the model has no calendar positions to keep.
    """
    config, given_roles = encoder.config, dict(sensor_roles or {})
    sensors = sensors_of(channels)
    for sensor, role in given_roles.items():
        if sensor not in sensors or role not in config.sensors:
            raise ConfigError(
                f"sensor roles: {sensor}={role} needs a sensor of the data ({', '.join(sensors)}) and one of the model "
                f"({', '.join(config.sensors)})"
            )
    if calendar and not config.model.temporal_positions:
        raise ConfigError("calendar: this model was pre-trained without calendar positions; leave calendar out")
    encoder = encoder if calendar else encoder.without_calendar()
    roles = {sensor: given_roles.get(sensor, sensor) for sensor in sensors}
    roles = {sensor: role for sensor, role in roles.items() if role in config.sensors}
    if not roles:
        raise ConfigError(
            f"the model knows {', '.join(config.sensors)}; the data has {', '.join(sensors)}: "
            f"match them by roles ({_role_option(sensors[0], config.sensors[0])})"
        )
    if config.family != "monoselfpab":
        return (_match(encoder, channels, roles),)
    return tuple(_match(encoder.for_sensor(role), channels, {sensor: role}) for sensor, role in roles.items())


def _match(encoder: PretrainedEncoder, channels: tuple[str, ...], roles: dict[str, str]) -> SensorEncoder:
    columns: dict[str, int] = {}
    for column, channel in enumerate(channels):
        sensor, _, axis = channel.rpartition("_")
        if sensor not in roles:
            continue
        role = f"{roles[sensor]}_{axis}"
        if role in columns:
            raise ConfigError(f"sensor roles: two sensors of the data are used as {roles[sensor]}; the model takes one")
        columns[role] = column
    if missing := [channel for channel in encoder.channels if channel not in columns]:
        raise ConfigError(
            f"the model takes {', '.join(encoder.channels)}, and the data ({', '.join(channels)}) has no "
            f"{', '.join(missing)}: choose other sensors of the data, or match them by roles "
            f"({_role_option(channels[0].rpartition('_')[0], missing[0].rpartition('_')[0])})"
        )
    return SensorEncoder(encoder, tuple(columns[channel] for channel in encoder.channels), tuple(roles))


def _role_option(sensor: str, role: str) -> str:
    return f"probe --dataset.roles '{{{sensor}: {role}}}', embed --sensor_roles {sensor}={role}"


def normalized_frames(
    signal_NxC: Float[np.ndarray, "N C"], encoder: PretrainedEncoder, *, pad: bool = True
) -> Float32[np.ndarray, "T X"]:
    """Normalized frames of a recording.

    Args:
        signal_NxC: in g, at the encoder's rate, with the encoder's channels.
        encoder: whose spectrogram and statistics are used.
        pad: append zeros so that every sample is in a frame: T = floor((N - 1) / hop) + 1, as the original does at test
            time. Otherwise there are whole frames only.
    """
    settings = encoder.config.spectrogram
    if pad and len(signal_NxC):
        samples = (len(signal_NxC) - 1) // settings.fft_hop * settings.fft_hop + settings.fft_window
        signal_NxC = np.pad(signal_NxC, ((0, samples - len(signal_NxC)), (0, 0)))
    return encoder.normalize(spectrogram(signal_NxC, settings))


def input_frames(
    signal_NxC: Float[np.ndarray, "N C"], encoders: tuple[SensorEncoder, ...], *, pad: bool = True
) -> Float32[np.ndarray, "T X"]:
    """Normalized frames for several encoders, side by side.

    Args:
        signal_NxC: in g, at the encoders' rate, with all channels of the data.
        encoders: as `sensor_encoders` returns them.
        pad: see `normalized_frames`.
    """
    frames = [normalized_frames(signal_NxC[:, list(each.columns)], each.encoder, pad=pad) for each in encoders]
    return frames[0] if len(frames) == 1 else np.concatenate(frames, axis=1)
