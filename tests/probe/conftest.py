"""A small labeled source that can be learned: four activities that differ in gravity's direction and in frequency."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from selfpab_jax.data.har.base import LabeledSource
from selfpab_jax.data.har.card import DatasetCard, Sensor
from selfpab_jax.data.sources.base import Recording, Skipped, SourceFile, UnusableError
from selfpab_jax.probe.dataset import Corpus
from selfpab_jax.probe.prepare import prepare_corpus
from selfpab_jax.signal.stft import SpectrogramSettings

CLASSES = ("walking", "running", "standing", "lying")
STEP_HZ = (1.8, 2.8, 0.0, 0.0)
STEP_G = (0.35, 0.9, 0.02, 0.01)
GRAVITY = np.array([[-1.0, 0, 0], [-1.0, 0, 0], [-1.0, 0, 0], [0, 0.3, -0.95]])
FRAMES = 20


@dataclass(frozen=True)
class SyntheticSource:
    """Subjects who do the four activities in random bouts of 8 to 20 s, wearing one or two sensors.

    `damage` maps a subject to a function that turns its recordings into others (or raises UnusableError).
    """

    subjects: int = 4
    seconds: float = 150.0
    rate_hz: float = 50.0
    sensors: tuple[str, ...] = ("back", "thigh")
    seed: int = 0
    damage: dict[str, Callable[[Recording], list[Recording]]] = field(default_factory=dict)

    @property
    def card(self) -> DatasetCard:
        return DatasetCard(
            name="synthetic",
            version="1.0.0",
            title="Synthetic activities",
            description="Made up.",
            citation="",
            license="MIT",
            homepage="",
            sensors=tuple(Sensor(name, "fixed") for name in ("back", "thigh")),
            default_sensors=self.sensors,
            rate_hz=self.rate_hz,
            unit="g",
            classes=tuple(enumerate(CLASSES)),
            downloads=(),
            manual="",
        )

    @property
    def name(self) -> str:
        return "synthetic"

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(f"{sensor}_{axis}" for sensor in self.sensors for axis in "xyz")

    def files(self) -> Iterator[SourceFile]:
        for number in range(self.subjects):
            yield SourceFile(f"s{number}", f"s{number}.csv", f"s{number}.csv", int(self.seconds * self.rate_hz))

    def passed_over(self) -> list[Skipped]:
        return []

    def read(self, file: SourceFile) -> list[Recording]:
        rng = np.random.default_rng([self.seed, int(file.subject[1:])])
        samples = int(self.seconds * self.rate_hz)
        bouts = rng.integers(round(8 * self.rate_hz), round(20 * self.rate_hz), samples)
        order = np.concatenate([rng.permutation(len(CLASSES)) for _ in range(len(bouts) // len(CLASSES))])
        labels_N = np.repeat(order, bouts[: len(order)])[:samples].astype(np.int32)
        phase_N = 2 * np.pi * np.cumsum(np.array(STEP_HZ)[labels_N] * rng.uniform(0.9, 1.1)) / self.rate_hz
        steps_N = np.array(STEP_G)[labels_N] * np.sin(phase_N)
        parts = []
        for sensor in range(len(self.sensors)):
            tilt_3 = rng.normal(0, 0.05, 3)
            noise_Nx3 = rng.normal(0, 0.03, (samples, 3))
            swing_3 = np.array([0.8, 0.3, 0.5 + 0.3 * sensor])
            parts.append(GRAVITY[labels_N] + tilt_3 + steps_N[:, None] * swing_3 + noise_Nx3)
        recording = Recording(
            subject=file.subject,
            name=file.name,
            start=datetime(2024, 1, 1) + timedelta(days=int(file.subject[1:])),
            rate_hz=self.rate_hz,
            signal_NxC=np.concatenate(parts, axis=1).astype(np.float32),
            labels_N=labels_N,
        )
        damage = self.damage.get(file.subject)
        return [recording] if damage is None else damage(recording)


@pytest.fixture(scope="session")
def synthetic() -> type[SyntheticSource]:
    """The class, to make sources with other options."""
    return SyntheticSource


@pytest.fixture(scope="session")
def make_corpus() -> Callable[..., Corpus]:
    """`prepare_corpus` with windows of 20 frames side by side by default."""

    def make(source: LabeledSource, **options: Any) -> Corpus:
        return prepare_corpus(
            source, **{"spectrogram": SpectrogramSettings(), "frames": FRAMES, "shift": FRAMES, **options}
        )

    return make


@pytest.fixture(scope="session")
def corpus(make_corpus: Callable[..., Corpus]) -> Corpus:
    """4 subjects of 150 s, two sensors, four classes; windows of 20 frames (10.5 s) side by side."""
    return make_corpus(SyntheticSource())


@pytest.fixture(scope="session")
def rejected() -> Callable[[Recording], list[Recording]]:
    """A damage: the file cannot be read."""

    def reject(recording: Recording) -> list[Recording]:
        raise UnusableError(f"unreadable: {recording.name}")

    return reject
