"""Intervals that hold the truth, and refusals where there is no law. `benchmarks/scaling_simulation.py` runs more."""

import numpy as np
import pytest
from scipy.stats import binom

from selfpab_jax.scaling.laws import intervals as bootstrap
from selfpab_jax.scaling.laws.forms import CONSTANT, FLOORED, JOINT, POWER, Law
from selfpab_jax.scaling.laws.intervals import Estimate, Refusal, estimate
from selfpab_jax.scaling.laws.selection import Foretold, choose, foretell_largest
from selfpab_jax.scaling.simulate import Trial, simulate, trial

AMOUNTS = 10 * np.sqrt(10) ** np.arange(5)
HOURS = np.repeat(AMOUNTS, 3)


def noise(share: float = 0.01, count: int = 15, seed: int = 0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0, share, count))


def law(hours: np.ndarray) -> np.ndarray:
    return 0.3 + hours**-0.3


def fit(hours: np.ndarray, losses: np.ndarray) -> Estimate | Refusal:
    return estimate(FLOORED, np.array(hours, float)[:, None], np.array(losses, float), ("hours",))


def sweeps(scatter: str, count: int, form: Law = FLOORED) -> list[Trial]:
    """Trials on seeds that the benchmark's first 200 do not have."""
    return [trial(scatter, 1000 + seed, form) for seed in range(count)]


def enough(held: list[bool]) -> bool:
    """Whether so many are held as 90% coverage gives in all but one case of a thousand."""
    return sum(held) >= float(binom.ppf(0.001, len(held), 0.9))


def test_intervals_hold_the_truth_and_are_no_wider_than_they_need_be() -> None:
    trials = sweeps("even", 40) + sweeps("falling", 20) + sweeps("shared", 20) + sweeps("one outlier", 20)
    assert not [one.refused for one in trials if one.refused]
    assert enough([one.exponents_held[0] for one in trials])
    assert enough([one.loss_held for one in trials])
    assert np.median([one.spans[0] for one in trials]) < 1.5
    assert np.median([one.width for one in trials]) < 0.2
    assert np.median(np.abs([one.error for one in trials])) < 0.03


def test_the_check_fails_for_intervals_that_are_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "CONFIDENCE", 0.5)
    trials = sweeps("even", 40)
    assert not enough([one.exponents_held[0] for one in trials])
    assert not enough([one.loss_held for one in trials])


def test_joint_law_holds_the_truth() -> None:
    trials = sweeps("even", 8, JOINT)
    assert enough([held for one in trials for held in one.exponents_held])
    assert enough([one.loss_held for one in trials])
    assert np.median([one.spans for one in trials]) < 2


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        (np.full(15, 0.5), "everywhere"),
        (0.5 * noise(), "cannot be told"),
        (law(HOURS)[::-1] * noise(), "rises"),
        (np.repeat([1, 0.8, 0.7, 0.75, 0.9], 3) * noise(), "cannot be told"),
        (np.where(np.arange(15) == 3, np.nan, law(HOURS)), "finite"),
    ],
)
def test_losses_without_a_law_are_refused(losses: np.ndarray, says: str) -> None:
    found = fit(HOURS, losses)
    assert isinstance(found, Refusal)
    assert says in found.reason
    assert "\n" not in found.reason


@pytest.mark.parametrize(
    ("hours", "says"),
    [
        (np.repeat([10, 100], 8), "2 distinct hours"),
        (np.full(15, 10), "1 distinct hours"),
        (np.linspace(10, 10.2, 15), "1 distinct hours"),
        (AMOUNTS[:4], "4 points for 3 unknowns"),
    ],
)
def test_too_few_amounts_are_refused(hours: np.ndarray, says: str) -> None:
    found = fit(hours, law(hours))
    assert isinstance(found, Refusal)
    assert says in found.reason


def test_an_outlier_anywhere_never_makes_a_confident_wrong_line() -> None:
    exponent, loss = [], []
    for seed in range(30):
        losses = law(HOURS) * noise(seed=seed)
        losses[seed % 15] *= (0.7, 1.5)[seed % 2]
        found = fit(HOURS, losses)
        assert isinstance(found, Estimate)
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
        if isinstance(found, Estimate):
            low, high = found.exponents[0]
            assert high > 3 * low


def test_a_narrow_range_gives_a_wide_interval() -> None:
    hours = np.repeat(10 * 1.15 ** np.arange(5), 3)
    found = fit(hours, law(hours) * noise(0.005))
    assert isinstance(found, Estimate)
    low, high = found.exponents[0]
    assert low <= 0.3 <= high
    assert high > 4 * low
    assert not found.floor_is_known


def test_losses_without_noise_give_the_law_and_no_more_than_four_digits() -> None:
    for floor in (0.0, 0.3):
        found = fit(HOURS, floor + HOURS**-0.3)
        assert isinstance(found, Estimate)
        assert found.exponents[0][0] < 0.3 < found.exponents[0][1] < found.exponents[0][0] * 1.01
        assert found.floor[0] <= floor <= found.floor[1] + 1e-4
        assert found.floor_is_known == (floor > 0)


def test_floor_is_known_only_where_points_tell() -> None:
    wide = np.repeat(10.0 ** np.arange(1, 7), 3)
    seen = fit(wide, law(wide) * noise(0.003, 18))
    assert isinstance(seen, Estimate)
    assert seen.floor_is_known
    assert seen.floor[0] <= 0.3 <= seen.floor[1]
    unseen = fit(HOURS, HOURS**-0.1 * noise())
    assert isinstance(unseen, Estimate)
    assert unseen.floor[0] == 0
    assert not unseen.floor_is_known


def test_misfit_is_told_from_noise_by_seeds() -> None:
    bent = np.repeat(law(AMOUNTS) * np.array([1, 1.03, 0.97, 1.03, 1]), 3) * noise(0.003)
    right, wrong = fit(HOURS, law(HOURS) * noise(0.003)), fit(HOURS, bent)
    assert isinstance(right, Estimate)
    assert isinstance(wrong, Estimate)
    assert right.misfit is not None
    assert right.misfit > 0.01
    assert wrong.misfit is not None
    assert wrong.misfit < 0.001
    assert np.ptp(wrong.exponents[0]) > 3 * np.ptp(right.exponents[0])


def test_choice_follows_the_truth() -> None:
    hours = HOURS[:, None]
    assert choose(FLOORED, hours, law(HOURS) * noise(0.003))[0].law is FLOORED
    assert choose(FLOORED, hours, 0.5 * HOURS**0.02 * noise(0.003))[0].law is CONSTANT
    plain = choose(FLOORED, hours, HOURS**-0.3 * noise(0.003))
    assert {found.law for found in plain[:2]} == {POWER, FLOORED}  # the floored law holds the plain one
    assert plain[0].score < 0.01 < plain[2].score


def test_largest_is_foretold_from_the_smaller_ones() -> None:
    held = []
    for seed in range(25):
        points, _ = simulate("even", seed, missing=0)
        hours = np.array([[point.hours] for point in points])
        found = foretell_largest(FLOORED, hours, np.array([point.loss for point in points]), ("hours",), seed)
        assert isinstance(found, Foretold)
        assert found.runs == 3
        assert found.amounts == pytest.approx((hours.max(),))
        held.append(found.held)
        assert found.held == (found.prediction.low <= found.measured <= found.prediction.high)
    assert enough(held)
