import numpy as np
import pytest
from scipy.optimize import least_squares

from selfpab_jax.scaling.laws.fit import HUBER, Fit, fit_law
from selfpab_jax.scaling.laws.forms import CONSTANT, FLOORED, JOINT, POWER, Curve

HOURS = np.repeat(10 * np.sqrt(10) ** np.arange(5), 3)[:, None]


def huber(fit: Fit, residuals: np.ndarray) -> float:
    z = np.abs(residuals) / (HUBER * fit.noise)
    return float(np.where(z < 1, z**2, 2 * z - 1).sum())


@pytest.mark.parametrize("outlier", [1.0, 1.3])
def test_no_scipy_start_finds_a_lower_huber_loss(outlier: float) -> None:
    rng = np.random.default_rng(0)
    for exponent in (0.15, 0.3, 0.5):
        losses = (0.2 + HOURS[:, 0] ** -exponent) * np.exp(rng.normal(0, 0.01, 15))
        losses[4] *= outlier
        fit = fit_law(FLOORED, HOURS, losses)

        def residuals(p: np.ndarray, losses: np.ndarray = losses) -> np.ndarray:
            return np.log(np.exp(p[0]) + np.exp(p[1]) * HOURS[:, 0] ** -np.exp(p[2])) - np.log(losses)

        starts = [
            [np.log(share * losses.min()), np.log(losses.max() * 10**a * (1 - share)), np.log(a)]
            for share in (0.05, 0.5, 0.9)
            for a in (0.1, 0.4, 1.2)
        ]
        others = [least_squares(residuals, s, loss="huber", f_scale=HUBER * fit.noise) for s in starts]
        best = min(others, key=lambda found: found.cost)
        assert huber(fit, fit.residuals) <= huber(fit, best.fun) * (1 + 1e-4)
        found = np.array([fit.curve.floor, fit.curve.coefficients[1], fit.curve.exponents[0]])
        np.testing.assert_allclose(found, np.exp(best.x), rtol=2e-3)


def test_exact_losses_give_their_law_back() -> None:
    joint = Curve(JOINT, (0.34, 0.28), (0.25, 8.0, 0.5))
    amounts = np.array([(n, h) for n in (1e6, 4e6, 16e6, 64e6) for h in (10, 30, 100, 300, 1000)])
    fit = fit_law(JOINT, amounts, joint.loss(amounts))
    np.testing.assert_allclose(fit.curve.exponents, joint.exponents, rtol=1e-2)
    np.testing.assert_allclose(fit.curve.loss(amounts * 10), joint.loss(amounts * 10), rtol=1e-3)
    plain = fit_law(FLOORED, HOURS, 2 * HOURS[:, 0] ** -0.2)
    assert plain.curve.floor < 1e-3
    np.testing.assert_allclose(plain.curve.exponents, 0.2, rtol=1e-3)
    assert fit_law(POWER, HOURS, 2 * HOURS[:, 0] ** -0.2).curve.coefficients == pytest.approx((2,), rel=1e-3)
    assert fit_law(CONSTANT, HOURS, np.full(15, 0.7)).curve.coefficients == pytest.approx((0.7,))


def test_units_of_the_amounts_do_not_matter() -> None:
    losses = (0.3 + HOURS[:, 0] ** -0.3) * np.exp(np.random.default_rng(1).normal(0, 0.01, 15))
    hours, seconds = fit_law(FLOORED, HOURS, losses), fit_law(FLOORED, HOURS * 3600, losses)
    np.testing.assert_allclose(seconds.curve.loss([[3.6e7]]), hours.curve.loss([[1e4]]), rtol=1e-9)
    np.testing.assert_allclose(seconds.curve.exponents, hours.curve.exponents, rtol=1e-9)
