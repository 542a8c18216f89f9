"""Intervals that cover the truth, and refusals where there is no law. `benchmarks/scaling_simulation.py` runs more."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from selfpab_jax.scaling.laws import intervals as bootstrap
from selfpab_jax.scaling.laws.forms import CONSTANT, FLOORED, JOINT, POWER, Law
from selfpab_jax.scaling.laws.intervals import LawEstimate, Refusal, estimate
from selfpab_jax.scaling.laws.selection import Extrapolation, compare_laws, extrapolate_to_largest

AMOUNTS = 10 * np.sqrt(10) ** np.arange(5)
HOURS = np.repeat(AMOUNTS, 3)


def noise(share: float = 0.01, count: int = 15, seed: int = 0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0, share, count))


def law(hours: np.ndarray) -> np.ndarray:
    return 0.3 + hours**-0.3


def fit(hours: np.ndarray, losses: np.ndarray) -> LawEstimate | Refusal:
    return estimate(FLOORED, np.array(hours, float)[:, None], np.array(losses, float), ("hours",))


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
        return importlib.import_module("scaling_simulation")


@pytest.fixture
def sweeps(simulation: ModuleType) -> Callable[..., list[Any]]:
    """Trials on other seeds than the first 200 of the benchmark."""

    def sweeps(scatter: str, count: int, form: Law = FLOORED) -> list[Any]:
        return [simulation.trial(scatter, 1000 + seed, form) for seed in range(count)]

    return sweeps


def enough(covered: list[bool]) -> bool:
    """Whether at least as many are covered as 90% coverage gives in all but one case of a thousand."""
    return sum(covered) >= float(binom.ppf(0.001, len(covered), 0.9))


@pytest.mark.slow
def test_intervals_cover_the_truth_and_are_not_too_wide(sweeps: Callable[..., list[Any]]) -> None:
    trials = sweeps("even", 40) + sweeps("falling", 20) + sweeps("shared", 20) + sweeps("one outlier", 20)
    assert not [one.refused for one in trials if one.refused]
    assert enough([one.exponents_covered[0] for one in trials])
    assert enough([one.loss_covered for one in trials])
    assert np.median([one.spans[0] for one in trials]) < 1.5
    assert np.median([one.width for one in trials]) < 0.2
    assert np.median(np.abs([one.error for one in trials])) < 0.03


def test_the_check_fails_for_intervals_that_are_too_narrow(
    sweeps: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "CONFIDENCE", 0.5)
    trials = sweeps("even", 40)
    assert not enough([one.exponents_covered[0] for one in trials])
    assert not enough([one.loss_covered for one in trials])


def test_intervals_of_the_joint_law_cover_the_truth(sweeps: Callable[..., list[Any]]) -> None:
    trials = sweeps("even", 8, JOINT)
    assert enough([held for one in trials for held in one.exponents_covered])
    assert enough([one.loss_covered for one in trials])
    assert np.median([one.spans for one in trials]) < 2


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (np.full(15, 0.5), "the same everywhere"),
        (0.5 * noise(), "scatter"),
        (law(HOURS)[::-1] * noise(), "rises"),
        (np.repeat([1, 0.8, 0.7, 0.75, 0.9], 3) * noise(), "scatter"),
        (np.where(np.arange(15) == 3, np.nan, law(HOURS)), "finite"),
    ],
)
def test_losses_without_a_law_are_refused(losses: np.ndarray, message: str) -> None:
    found = fit(HOURS, losses)
    assert isinstance(found, Refusal)
    assert message in found.reason
    assert "\n" not in found.reason


@pytest.mark.parametrize(
    ("hours", "message"),
    [
        (np.repeat([10, 100], 8), "2 distinct hours"),
        (np.full(15, 10), "1 distinct hours"),
        (np.linspace(10, 10.2, 15), "1 distinct hours"),
        (AMOUNTS[:4], "4 points for 3 unknowns"),
    ],
)
def test_too_few_amounts_are_refused(hours: np.ndarray, message: str) -> None:
    found = fit(hours, law(hours))
    assert isinstance(found, Refusal)
    assert message in found.reason


def test_an_outlier_anywhere_never_makes_a_confident_wrong_line() -> None:
    exponent, loss = [], []
    for seed in range(30):
        losses = law(HOURS) * noise(seed=seed)
        losses[seed % 15] *= (0.7, 1.5)[seed % 2]
        found = fit(HOURS, losses)
        assert isinstance(found, LawEstimate)
        ahead = found.predict(np.array([1e4]))
        exponent.append(found.exponents[0][0] <= 0.3 <= found.exponents[0][1])
        loss.append(ahead.low <= law(np.array([1e4]))[0] <= ahead.high)
    assert enough(exponent)
    assert enough(loss)


def test_one_outlier_without_seeds_is_refused_or_wide() -> None:
    for where in range(5):
        losses = law(AMOUNTS) * noise(count=5)
        losses[where] *= 1.3
        found = fit(AMOUNTS, losses)
        if isinstance(found, LawEstimate):
            low, high = found.exponents[0]
            assert high > 3 * low


def test_a_narrow_range_gives_a_wide_interval() -> None:
    hours = np.repeat(10 * 1.15 ** np.arange(5), 3)
    found = fit(hours, law(hours) * noise(0.005))
    assert isinstance(found, LawEstimate)
    low, high = found.exponents[0]
    assert low <= 0.3 <= high
    assert high > 4 * low
    assert not found.floor_is_known


def test_losses_without_noise_give_the_law_and_no_more_than_four_digits() -> None:
    for floor in (0.0, 0.3):
        found = fit(HOURS, floor + HOURS**-0.3)
        assert isinstance(found, LawEstimate)
        assert found.exponents[0][0] < 0.3 < found.exponents[0][1] < found.exponents[0][0] * 1.01
        assert found.floor[0] <= floor <= found.floor[1] + 1e-4
        assert found.floor_is_known == (floor > 0)


def test_the_floor_is_known_only_where_the_points_identify_it() -> None:
    wide = np.repeat(10.0 ** np.arange(1, 7), 3)
    seen = fit(wide, law(wide) * noise(0.003, 18))
    assert isinstance(seen, LawEstimate)
    assert seen.floor_is_known
    assert seen.floor[0] <= 0.3 <= seen.floor[1]
    unseen = fit(HOURS, HOURS**-0.1 * noise())
    assert isinstance(unseen, LawEstimate)
    assert unseen.floor[0] == 0
    assert not unseen.floor_is_known


def test_replicates_distinguish_lack_of_fit_from_noise() -> None:
    bent = np.repeat(law(AMOUNTS) * np.array([1, 1.03, 0.97, 1.03, 1]), 3) * noise(0.003)
    right, wrong = fit(HOURS, law(HOURS) * noise(0.003)), fit(HOURS, bent)
    assert isinstance(right, LawEstimate)
    assert isinstance(wrong, LawEstimate)
    assert right.lack_of_fit_p is not None
    assert right.lack_of_fit_p > 0.01
    assert wrong.lack_of_fit_p is not None
    assert wrong.lack_of_fit_p < 0.001
    assert np.ptp(wrong.exponents[0]) > 3 * np.ptp(right.exponents[0])


def test_choice_follows_the_truth() -> None:
    hours = HOURS[:, None]
    assert compare_laws(FLOORED, hours, law(HOURS) * noise(0.003))[0].law is FLOORED
    assert compare_laws(FLOORED, hours, 0.5 * HOURS**0.02 * noise(0.003))[0].law is CONSTANT
    plain = compare_laws(FLOORED, hours, HOURS**-0.3 * noise(0.003))
    assert {found.law for found in plain[:2]} == {POWER, FLOORED}  # the law with a floor includes the plain one
    assert plain[0].score < 0.01 < plain[2].score


def test_the_largest_amount_is_predicted_from_the_smaller_ones(simulation: ModuleType) -> None:
    covered = []
    for seed in range(25):
        points, _ = simulation.simulate("even", seed, missing=0)
        hours = np.array([[point.hours] for point in points])
        found = extrapolate_to_largest(FLOORED, hours, np.array([point.loss for point in points]), ("hours",), seed)
        assert isinstance(found, Extrapolation)
        assert found.runs == 3
        assert found.amounts == pytest.approx((hours.max(),))
        covered.append(found.is_covered)
        assert found.is_covered == (found.prediction.low <= found.measured <= found.prediction.high)
    assert enough(covered)
