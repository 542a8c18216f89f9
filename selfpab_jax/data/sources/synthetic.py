"""A synthetic cohort in the HUNT4 layout, for trials: plausible, and free of real subjects' data.

Every subject has a cadence, a build and habits; every 5-minute file is a chain of bouts of lying, sitting, standing,
walking, running and cycling that fits the hour of the day. Gravity follows the posture on the axes of HUNT4 (back: x
down, y left, z forward; thigh: x down, y right, z backward; upright, both x read about -1 g, seated the thigh's z
does), gait adds harmonics of one step clock to both sensors, and everything carries an AX3's noise.

`write_days` makes recordings of whole days instead, for tasks that depend on the time of day: nights, work, meals and
weekends, with a row every five seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int

RATE_HZ = 50.0
SAMPLES = 15000
NOISE_G = 0.003
RAMP_SECONDS = 1.5
FIRST_HOUR = 7
"""Hour of each subject's first recording; the others follow every hour."""

# Gravity in g: back x, y, z and thigh x, y, z.
POSTURES = {
    "lying": (-0.05, 0.1, -0.98, -0.05, 0.1, 0.98),
    "side": (-0.05, 0.97, 0.2, -0.1, -0.95, 0.25),
    "sitting": (-0.96, 0.03, -0.25, -0.12, 0.08, -0.98),
    "upright": (-0.99, 0.02, 0.1, -0.99, 0.02, -0.08),
    "cycling": (-0.87, 0.02, 0.48, -0.62, 0.03, -0.76),
}
# Movement: strength in g per channel, step frequency relative to the subject's walking cadence, harmonics' decay.
GAITS = {
    "walking": ((0.28, 0.12, 0.16, 0.34, 0.16, 0.30), 1.0, 0.55),
    "running": ((0.95, 0.30, 0.45, 1.05, 0.35, 0.70), 1.45, 0.60),
    "cycling": ((0.05, 0.05, 0.04, 0.22, 0.06, 0.28), 0.62, 0.25),
}
ACTIVITIES = ("lying", "side", "sitting", "standing", "walking", "running", "cycling")
SHORTEST_BOUT = {"lying": 120, "side": 120, "sitting": 40, "standing": 10, "walking": 8, "running": 30, "cycling": 40}
NIGHT = np.array([0.55, 0.40, 0.03, 0.01, 0.01, 0.0, 0.0])
DAY = np.array([0.03, 0.02, 0.40, 0.20, 0.25, 0.04, 0.06])
HARMONICS = 5
DAY_ROW_SECONDS = 5
"""From one row to the next in recordings of whole days."""
DAY_KINDS = (*ACTIVITIES, "not worn")
REST_MOVEMENT = {"sitting": 0.02, "standing": 0.04, "lying": 0.004, "side": 0.004}
"""Standard deviation in g of the resting body's movement in those."""


@dataclass(frozen=True)
class SubjectTraits:
    """What stays with a subject: steps per second, strength of movement, tilt of the sensors, habits, gait phases."""

    cadence_hz: float
    strength: float
    tilt_6: Float[np.ndarray, " C"]
    habits: Float[np.ndarray, " A"]
    phases_CxK: Float[np.ndarray, "C K"]


def write_cohort(folder: Path, subjects: int, hours: int, seed: int) -> int:
    """Write `<folder>/S001/2024-03-04_07.npz` and so on: one 5-minute file per hour.

    Args:
        folder: where to write.
        subjects: number of subjects.
        hours: number of files of each subject.
        seed: seed of everything random.

    Returns:
        Number of files written. Each holds 5 minutes, so that 12 of them are an hour of recording.
    """
    files = 0
    for number in range(subjects):
        subject = folder / f"S{number + 1:03d}"
        subject.mkdir(parents=True, exist_ok=True)
        for start, signal_NxC in recordings(number, hours, seed):
            np.savez(subject / f"{start:%Y-%m-%d_%H}.npz", arr_0=signal_NxC)
            files += 1
    return files


def recordings(number: int, hours: int, seed: int) -> Iterator[tuple[datetime, Float32[np.ndarray, "N C"]]]:
    """Start and signal of each file of a subject; the same for the same number and seed.

    Args:
        number: number of the subject, from 0.
        hours: number of files.
        seed: seed of the cohort.
    """
    traits = draw_traits(np.random.default_rng([seed, number]))
    first = datetime(2024, 3, 4, FIRST_HOUR) + timedelta(days=7 * (number % 20))
    for hour in range(hours):
        start = first + timedelta(hours=hour)
        yield start, make_signal(traits, start.hour, np.random.default_rng([seed, number, hour]))


def draw_traits(rng: np.random.Generator) -> SubjectTraits:
    """Draw the traits of a subject."""
    return SubjectTraits(
        cadence_hz=rng.normal(1.85, 0.12),
        strength=float(np.exp(rng.normal(0.0, 0.15))),
        tilt_6=rng.normal(0.0, 0.06, 6),
        habits=rng.gamma(3.0, 1 / 3, len(ACTIVITIES)),
        phases_CxK=rng.uniform(0, 2 * np.pi, (6, HARMONICS)),
    )


def make_signal(traits: SubjectTraits, hour: int, rng: np.random.Generator) -> Float32[np.ndarray, "N C"]:
    """Five minutes that begin in this hour of the day, in g: back x, y, z and thigh x, y, z."""
    bouts = list(draw_bouts(traits, hour, rng))
    gravity_NxC = _ramped(np.concatenate([np.tile(_posture(traits, kind, rng), (n, 1)) for kind, n in bouts]))
    movement_NxC = np.concatenate([_movement(traits, kind, n, rng) for kind, n in bouts])
    noise_NxC = rng.normal(0.0, NOISE_G, (SAMPLES, 6))
    return np.clip(gravity_NxC + movement_NxC + noise_NxC, -8, 8).astype(np.float32)


def draw_bouts(traits: SubjectTraits, hour: int, rng: np.random.Generator) -> Iterator[tuple[str, int]]:
    """(activity, samples) until the five minutes are full."""
    shares = (NIGHT if hour >= 23 or hour < 6 else DAY) * traits.habits
    shares = shares / shares.sum()
    left = SAMPLES
    while left > 0:
        kind = ACTIVITIES[rng.choice(len(ACTIVITIES), p=shares)]
        length = min(left, int(RATE_HZ * SHORTEST_BOUT[kind] * (1 + rng.exponential(1.0))))
        yield kind, length
        left -= length


def _posture(traits: SubjectTraits, kind: str, rng: np.random.Generator) -> Float[np.ndarray, " C"]:
    name = kind if kind in POSTURES else "upright"
    tilted_2x3 = (np.array(POSTURES[name]) + traits.tilt_6 + rng.normal(0, 0.03, 6)).reshape(2, 3)
    return (tilted_2x3 / np.linalg.norm(tilted_2x3, axis=1, keepdims=True)).reshape(6)


def _ramped(gravity_NxC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    """Steps between postures become transitions of about a second, by a running mean."""
    width = int(RAMP_SECONDS * RATE_HZ)
    padded = np.concatenate([np.repeat(gravity_NxC[:1], width, axis=0), gravity_NxC])
    total = np.cumsum(padded, axis=0)
    return (total[width:] - total[:-width]) / width


def _movement(traits: SubjectTraits, kind: str, samples: int, rng: np.random.Generator) -> Float[np.ndarray, "N C"]:
    if kind not in GAITS:
        return _fidget(kind, samples, rng)
    strengths, relative, decay = GAITS[kind]
    steps_hz = traits.cadence_hz * relative * (1 + 0.03 * rng.normal())
    # The step clock wanders slowly, so that spectral lines have a width.
    wander_N = np.cumsum(rng.normal(0, 0.02, samples)) / np.sqrt(RATE_HZ)
    clock_N = 2 * np.pi * steps_hz * np.arange(samples) / RATE_HZ + wander_N
    level = traits.strength * np.exp(rng.normal(0, 0.1))
    amplitude_K = decay ** np.arange(HARMONICS)
    movement_NxC = np.empty((samples, 6))
    for c, strength in enumerate(strengths):
        # Sideways sway has one period per stride (two steps), the other axes one per step.
        multiples_K = (np.arange(HARMONICS) + 1) * (0.5 if c % 3 == 1 else 1.0)
        waves_KxN = np.sin(multiples_K[:, None] * clock_N + traits.phases_CxK[c][:, None])
        movement_NxC[:, c] = level * strength * (amplitude_K @ waves_KxN)
    return movement_NxC * (1 + 0.1 * rng.normal(size=(samples, 1)))


def _fidget(kind: str, samples: int, rng: np.random.Generator) -> Float[np.ndarray, "N C"]:
    """Small movements of the resting body: some at any time when sitting and standing, hardly any in bed."""
    rate, size = {"sitting": (0.08, 0.06), "standing": (0.25, 0.08)}.get(kind, (0.004, 0.1))
    movement_NxC = np.zeros((samples, 6))
    for first in np.flatnonzero(rng.random(samples) < rate / RATE_HZ):
        length = min(samples - first, int(RATE_HZ * rng.uniform(0.3, 1.5)))
        wave_N = np.hanning(length) * np.sin(2 * np.pi * rng.uniform(0.5, 3) * np.arange(length) / RATE_HZ)
        movement_NxC[first : first + length] += wave_N[:, None] * rng.normal(0, size, 6)
    return movement_NxC


# Recordings of whole days


def write_days(folder: Path, subjects: int, days: int, seed: int) -> None:
    """Write `<folder>/S001.parquet` and so on: a continuous recording of each subject with HARTH's column names.

    Args:
        folder: where to write.
        subjects: number of subjects.
        days: length of each recording, from midnight on.
        seed: seed of everything random.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"{sensor}_{axis}" for sensor in ("back", "thigh") for axis in "xyz"]
    for number in range(subjects):
        rng = np.random.default_rng([seed, number])
        traits, first = draw_traits(rng), datetime(2024, 3, 4) + timedelta(days=7 * (number % 20))
        kind_M = day_kinds(traits, first.weekday(), days, rng)
        signal_NxC = _days_signal(traits, np.repeat(kind_M, 60 // DAY_ROW_SECONDS), rng)
        steps = np.arange(len(signal_NxC)) * np.timedelta64(DAY_ROW_SECONDS, "s")
        columns = {"timestamp": np.datetime64(first, "ms") + steps, **dict(zip(names, signal_NxC.T, strict=True))}
        pq.write_table(pa.table(columns), folder / f"S{number + 1:03d}.parquet")


def day_kinds(traits: SubjectTraits, weekday: int, days: int, rng: np.random.Generator) -> Int[np.ndarray, " M"]:
    """What a subject does in every minute, as positions in `DAY_KINDS`.

    Work, meals and ways have times of the clock that all subjects share; when a subject gets up, goes to bed and does
    sports is a habit of its own. Weekends differ. Now and then the sensors are not worn.

    Args:
        traits: of the subject.
        weekday: of the first day, Monday 0.
        days: how many, from midnight on.
        rng: for everything random.
    """
    kind_M = np.full(days * 1440, DAY_KINDS.index("lying"))
    up, bed, sports = rng.normal(390, 25), rng.normal(1365, 30), rng.uniform(1100, 1200)

    def do(begin: float, minutes: float, kinds: str | tuple[str, ...], shares: tuple[float, ...] = (1.0,)) -> None:
        """Bouts of these kinds; a minute of the recording that is beyond its end is left out."""
        first, last = max(0, round(begin)), min(len(kind_M), round(begin + minutes))
        kinds = (kinds,) if isinstance(kinds, str) else kinds
        while first < last:
            length = max(2, round(rng.exponential(9)))
            kind_M[first : min(last, first + length)] = DAY_KINDS.index(kinds[rng.choice(len(kinds), p=shares)])
            first += length

    home = (("sitting", "standing", "walking"), (0.6, 0.25, 0.15))
    for day in range(days):
        start, weekend = 1440 * day, (weekday + day) % 7 >= 5
        rise = start + up + rng.normal(80 if weekend else 0, 12)
        do(start, rise - start, ("lying", "side"), (0.6, 0.4))
        do(rise, start + bed + rng.normal(25 if weekend else 0, 15) - rise, *home)
        if weekend:
            do(start + 660 + rng.normal(0, 20), 100, ("walking", "cycling", "standing"), (0.6, 0.3, 0.1))
        else:
            way = "cycling" if traits.habits[ACTIVITIES.index("cycling")] > 1 else "walking"
            do(start + 450 + rng.normal(0, 4), 25, way)
            do(start + 480, 480, ("sitting", "standing"), (0.93, 0.07))
            do(start + 720 + rng.normal(0, 4), 30, ("walking", "standing"), (0.8, 0.2))
            do(start + 960 + rng.normal(0, 4), 25, way)
        do(start + 1050, 35, "sitting")
        if rng.random() < 0.4:
            do(start + sports, 45, ("running", "walking"), (0.8, 0.2))
        if rng.random() < 0.1:
            do(start + rng.uniform(600, 1200), rng.uniform(40, 150), "not worn")
    return kind_M


def _days_signal(
    traits: SubjectTraits, kind_N: Int[np.ndarray, " N"], rng: np.random.Generator
) -> Float32[np.ndarray, "N C"]:
    """Posture and movement of every row; rows are too far apart for steps, which are random numbers here."""
    begins = np.flatnonzero(np.diff(kind_N, prepend=-1))
    signal_NxC = np.empty((len(kind_N), 6), np.float32)
    for first, last in zip(begins, [*begins[1:], len(kind_N)], strict=True):
        kind, length = DAY_KINDS[kind_N[first]], last - first
        if kind == "not worn":
            signal_NxC[first:last] = np.array([0.02, 0.1, -0.995] * 2) + rng.normal(0, NOISE_G, (length, 6))
            continue
        movement = np.array(GAITS[kind][0]) * traits.strength if kind in GAITS else REST_MOVEMENT[kind]
        signal_NxC[first:last] = _posture(traits, kind, rng) + rng.normal(0, 1, (length, 6)) * (movement + NOISE_G)
    return np.clip(signal_NxC, -8, 8)
