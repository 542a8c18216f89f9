"""What the points leave possible: all laws that fit them hardly worse than the best one, on a grid of exponents."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from selfpab_jax.scaling.laws.fit import BELOW_ZERO, EXPONENTS, HUBER, Face, Fit, combine, faces, fit_law, project
from selfpab_jax.scaling.laws.forms import Law
from selfpab_jax.scaling.laws.points import levels, spread

# What the points leave possible: all laws that fit them hardly worse than the best one, on a grid of exponents.

WIDE = {1: 60, 2: 16}  # grid points an exponent over all exponents, by the number of exponents
NEAR = {1: 60, 2: 20}  # and more of them where the fit is good
GOOD = 12.0


@dataclass(frozen=True)
class Region:
    """The fit, linearised in the coefficients about its own law, over a grid of exponents.

    Losses are replaced by Huber's pseudo-values (the law plus the clipped residual over the share of unclipped ones):
    least squares on them gives the robust fit, with the robust fit's variance (Huber 1981, chapter 7.10). Everything
    here is in units of the law's own loss, so 0.01 is one per cent.

    Attributes:
        fit: the fit.
        scale: (A,) by which amounts are divided.
        exponents_GxA: the grid; the fit's own exponents are its first row.
        residuals: (R,) of the pseudo-values.
        all_faces: the designs, divided by the law's loss at every point.
    """

    fit: Fit
    scale: np.ndarray
    exponents_GxA: np.ndarray
    residuals: np.ndarray
    all_faces: list[Face]

    @property
    def width(self) -> int:
        """P, the number of coefficients."""
        return max(map(len, (face.columns for face in self.all_faces)))

    def best(self, target_RxB: Float[np.ndarray, "R B"]) -> np.ndarray:
        """(G, B) least residual sum of squares at each of the exponents."""
        return project(self.all_faces, target_RxB, self.width)[0]

    def without(self, columns: list[int]) -> float:
        """Least residual sum of squares with these coefficients alone, of whatever sign."""
        face = next(face for face in self.all_faces if face.columns == columns)
        return float(face.fit((1 + self.residuals)[:, None])[0].min())

    def rows(self, amounts: Float[np.ndarray, " A"]) -> np.ndarray:
        """(G, P): what times the coefficients is the loss at the amounts."""
        return self.fit.curve.law.basis(self.exponents_GxA, amounts[None] / self.scale)[:, 0]

    def at_loss(
        self, target_RxB: Float[np.ndarray, "R B"], amounts: Float[np.ndarray, " A"], loss: float
    ) -> np.ndarray:
        """(B,) least residual sum of squares of the laws that say `loss` at the amounts."""
        row_GxP = self.rows(amounts)
        least_B = np.full(target_RxB.shape[1], np.inf)
        for face in self.all_faces:
            rss_GxB, c_GxKxB = face.fit(target_RxB)
            variance_G, way_GxK = face.leverage(row_GxP)
            away_GxB = loss - (row_GxP[:, face.columns, None] * c_GxKxB).sum(1)
            moved_GxKxB = c_GxKxB + way_GxK[:, :, None] * (away_GxB / variance_G[:, None])[:, None]
            rss_GxB = np.where((moved_GxKxB >= BELOW_ZERO).all(1), rss_GxB + away_GxB**2 / variance_G[:, None], np.inf)
            least_B = np.minimum(least_B, rss_GxB.min(0))
        return least_B

    def losses_within(self, limit: float, amounts: Float[np.ndarray, " A"]) -> tuple[float, float]:
        """Lowest and highest loss at the amounts of all laws whose residual sum of squares is at most `limit`.

        On a face these laws are an ellipsoid, cut off where a coefficient falls below 0. A linear function is extreme
        on the ellipsoid's hull, or where it is cut, which is the ellipsoid of a smaller face.
        """
        row_GxP, low, high = self.rows(amounts), np.inf, -np.inf
        for face in self.all_faces:
            rss_GxB, c_GxKxB = face.fit((1 + self.residuals)[:, None])
            variance_G, way_GxK = face.leverage(row_GxP)
            slack_G = limit - rss_GxB[:, 0]
            reach_G = np.sqrt(np.maximum(slack_G, 0) / variance_G)
            for sign in (-1, 1):
                c_GxK = c_GxKxB[:, :, 0] + sign * way_GxK * reach_G[:, None]
                values = (row_GxP[:, face.columns] * c_GxK).sum(1)[(slack_G >= 0) & (c_GxK >= BELOW_ZERO).all(1)]
                if values.size:
                    low, high = min(low, values.min()), max(high, values.max())
        return float(low), float(high)

    def exponents_within(self, limit: float, index: int) -> tuple[float, float]:
        """Lowest and highest exponent of such laws; 0 or infinity where the grid's end is still within."""
        rss_G = self.best((1 + self.residuals)[:, None])[:, 0]
        values = np.unique(self.exponents_GxA[:, index])
        profile = np.array([rss_G[self.exponents_GxA[:, index] == value].min() for value in values])
        profile = np.sqrt(np.maximum(profile - rss_G.min(), 0))  # nearly straight on both sides of the minimum
        edge = np.sqrt(max(limit - rss_G.min(), 0))
        inside = np.flatnonzero(profile <= edge)

        def cross(i: int, j: int) -> float:
            share = (edge - profile[i]) / (profile[j] - profile[i])
            return float(np.exp(np.log(values[i]) + share * np.log(values[j] / values[i])))

        low = 0.0 if inside[0] == 0 else cross(inside[0], inside[0] - 1)
        high = np.inf if inside[-1] == len(values) - 1 else cross(inside[-1], inside[-1] + 1)
        return low, high


def region(fit: Fit) -> Region:
    """The region about a fit, with a finer grid of exponents where the fit is good (within `GOOD` variances)."""
    curve = fit.curve
    scale = np.exp(np.log(fit.amounts).mean(0))
    clipped = HUBER * fit.noise
    residuals = np.clip(fit.residuals, -clipped, clipped) / max(np.mean(np.abs(fit.residuals) <= clipped), 0.5)
    own = np.array(curve.exponents)[None]
    coarse = combine([np.geomspace(*EXPONENTS, WIDE[curve.law.powers])] * curve.law.powers)
    first = _build(fit, scale, np.concatenate([own, coarse]), residuals)
    variance = (residuals**2).sum() / max(fit.degrees, 1)
    rss_G = first.best((1 + residuals)[:, None])[:, 0]
    near = first.exponents_GxA[rss_G <= rss_G.min() + GOOD * variance]
    step = (EXPONENTS[1] / EXPONENTS[0]) ** (1 / (WIDE[curve.law.powers] - 1))
    spans = zip(near.min(0) / step, near.max(0) * step, strict=True)
    axes = [
        np.geomspace(max(low, EXPONENTS[0]), min(high, EXPONENTS[1]), NEAR[curve.law.powers]) for low, high in spans
    ]
    if curve.law.powers > 1:  # lines through the fit's own exponents, on which a law's exponent is held
        axes = [np.append(axis, e) for axis, e in zip(axes, own[0], strict=True)]
        coarse = combine([np.append(np.geomspace(*EXPONENTS, WIDE[curve.law.powers]), e) for e in own[0]])
    return _build(fit, scale, np.concatenate([own, coarse, combine(axes)]), residuals)


def _build(fit: Fit, scale: np.ndarray, exponents_GxA: np.ndarray, residuals: np.ndarray) -> Region:
    fitted = fit.losses / np.exp(fit.residuals)
    design = fit.curve.law.basis(exponents_GxA, fit.amounts / scale) / fitted[None, :, None]
    return Region(fit, scale, exponents_GxA, residuals, list(faces(design)))


# Bootstrap over amounts and seeds: how far from its best fit the true law may be by chance.

CONFIDENCE = 0.95
ROUNDING = (
    1e-4  # share of a loss; no residuals are trusted to be smaller: the search, float32 and evaluation are not exact
)


class Bootstrap:
    """Samples drawn from a fit, and the critical values that they give.

    An interval holds every value v for which the residual sum of squares under "the quantity is v" exceeds the least
    one by at most `critical` residual variances. For a linear law and Gaussian noise that is Student's interval, and
    the critical value a quantile of F. Here it is the same quantile over samples drawn from the fit, in each of which
    the quantity's true value is known; never less than F's, as few residuals make too tame samples.
    """

    def __init__(self, region: Region, samples: int, seed: int):
        fit = region.fit
        self.region, self.degrees = region, fit.degrees
        self.variance = max(float((region.residuals**2).sum()) / self.degrees, ROUNDING**2)
        self.least = float(region.best((1 + region.residuals)[:, None]).min())
        self._target_RxB = 1 + draw(region, samples, np.random.default_rng(seed))
        self._rss_GxB = region.best(self._target_RxB)
        self._least_B = np.maximum(self._rss_GxB.min(0), ROUNDING**2)

    def _limit(self, rss_B: np.ndarray) -> float:
        ratios = (rss_B - self._least_B) * self.degrees / self._least_B
        critical = max(np.quantile(ratios, CONFIDENCE), f_distribution.ppf(CONFIDENCE, 1, self.degrees))
        return self.least + float(critical) * self.variance

    def exponent(self, index: int) -> tuple[float, float]:
        """Interval of an exponent: 0 or infinity where the points set no bound."""
        grid_G = self.region.exponents_GxA[:, index]
        return self.region.exponents_within(self._limit(self._rss_GxB[grid_G == grid_G[0]].min(0)), index)

    def loss(self, amounts: Float[np.ndarray, " A"]) -> tuple[float, float]:
        """Interval of the law's loss at the amounts; infinite amounts ask for the floor."""
        own = float(self.region.fit.curve.loss(amounts[None])[0])
        return self.region.losses_within(self._limit(self.region.at_loss(self._target_RxB, amounts, own)), amounts)


def draw(region: Region, samples: int, rng: np.random.Generator) -> Float[np.ndarray, "R B"]:
    """Residuals of as many samples.

    Each point gets a residual of some other point. Where the amounts lie further from the law than their seeds' scatter
    explains (all seeds share a subset, say, or the law is not quite right), the residual is that of a seed within its
    amount, and each amount gets, on top, the deviation of some amount with either sign.
    """
    residuals, unknowns = region.residuals, region.fit.curve.law.unknowns
    points = len(residuals)
    parts = spread(region.fit.amounts, residuals, unknowns)
    count = np.bincount(parts.cell)
    if parts.between <= parts.within or not all(parts.degrees):
        pool = (residuals - residuals.mean()) * np.sqrt(points / region.fit.degrees)
        return rng.choice(pool, (points, samples))
    several = count[parts.cell] > 1
    within = ((residuals - parts.mean[parts.cell]) / np.sqrt(1 - 1 / np.maximum(count, 1.5)[parts.cell]))[several]
    shared = parts.mean / np.sqrt((parts.mean**2).mean()) * np.sqrt((parts.between - parts.within) / count.mean())
    offsets_KxB = rng.choice(np.concatenate([shared, -shared]), (len(count), samples))
    return offsets_KxB[parts.cell] + rng.choice(within, (points, samples))


# A law with its intervals, or the reason why these points cannot have one.

AMOUNTS = {1: 4, 2: 3}  # distinct values of each amount that a law with so many powers needs
CELLS = {1: 4, 2: 7}  # distinct combinations
DOUBT = 0.01  # a fall, or a misfit, is believed at this chance of error
SAMPLES = {1: 400, 2: 200}


@dataclass(frozen=True)
class Refusal:
    """No law: why, in a line for people."""

    reason: str


@dataclass(frozen=True)
class Prediction:
    """A loss where nothing was measured, or was not used.

    Attributes:
        loss: the law's.
        low: of the 95% interval.
        high: of the 95% interval.
    """

    loss: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A fitted law and 95% intervals.

    Attributes:
        fit: the law and its points.
        exponents: (low, high) of each exponent; 0 or infinity where the points set no bound.
        floor: (low, high) of E.
        misfit: chance of amounts this far off the law if the law were right, None if seeds do not tell.
    """

    fit: Fit
    exponents: tuple[tuple[float, float], ...]
    floor: tuple[float, float]
    misfit: float | None
    bootstrap: Bootstrap

    @property
    def floor_is_known(self) -> bool:
        """Whether the points exclude a plain power law."""
        return bool(self.floor[0] > ROUNDING * self.fit.losses.min())

    def predict(self, amounts: Float[np.ndarray, " A"], runs: int | None = None) -> Prediction:
        """The loss at the amounts: the law's own, or with `runs` the mean of so many runs, with their scatter."""
        amounts = np.asarray(amounts, float)
        loss = float(self.fit.curve.loss(amounts[None])[0])
        low, high = self.bootstrap.loss(amounts)
        if runs:
            reach = t_distribution.ppf((1 + CONFIDENCE) / 2, self.fit.degrees) * np.sqrt(self._scatter(runs))
            high = loss * float(np.exp(np.hypot(np.log(high / loss), reach)))
            low = loss * float(np.exp(-np.hypot(np.log(loss / low), reach))) if low > 0 else 0.0
        return Prediction(loss, low, high)

    def _scatter(self, runs: int) -> float:
        """Variance of a new amount's mean over so many runs."""
        parts = spread(self.fit.amounts, self.bootstrap.region.residuals, self.fit.curve.law.unknowns)
        if parts.between <= parts.within or not all(parts.degrees):
            return self.bootstrap.variance / runs
        return (parts.between - parts.within) / np.bincount(parts.cell).mean() + parts.within / runs


def estimate(
    law: Law, amounts: Float[np.ndarray, "R A"], losses: Float[np.ndarray, " R"], names: tuple[str, ...], seed: int = 0
) -> Estimate | Refusal:
    """Fit a law with a floor, with intervals.

    Args:
        law: with at least one power.
        amounts: positive, a row a point.
        losses: positive.
        names: of the amounts, for the reasons.
        seed: of the bootstrap.
    """
    amounts, losses = np.asarray(amounts, float), np.asarray(losses, float)
    if not all((np.isfinite(values) & (values > 0)).all() for values in (amounts, losses)):
        return Refusal("amounts and losses must all be above 0 and finite; leave failed runs out")
    reason = too_few(law, amounts, names)
    if reason:
        return Refusal(reason)
    if np.ptp(losses) == 0:
        return Refusal(f"the loss is {losses[0]:g} everywhere: nothing to fit")
    fit = fit_law(law, amounts, losses)
    around = region(fit)
    bootstrap = Bootstrap(around, SAMPLES[law.powers], seed)
    parts = spread(amounts, around.residuals, law.unknowns)
    misfit = float(f_distribution.sf(parts.between / parts.within, *parts.degrees)) if parts.within else None
    misfit = misfit if all(parts.degrees) else None
    off_the_law = misfit is not None and misfit < DOUBT
    reason = _no_fall(fit, bootstrap, parts.between if off_the_law else bootstrap.variance, names)
    if reason:
        return Refusal(reason)
    return Estimate(
        fit,
        tuple(bootstrap.exponent(i) for i in range(law.powers)),
        bootstrap.loss(np.full(law.powers, np.inf)),
        misfit,
        bootstrap,
    )


def too_few(law: Law, amounts: Float[np.ndarray, "R A"], names: tuple[str, ...]) -> str:
    """Why there are too few points for the law, or nothing."""
    for column, name in zip(amounts.T, names, strict=True):
        distinct = len(np.unique(levels(column))) if len(column) else 0
        if distinct < AMOUNTS[law.powers]:
            return f"{distinct} distinct {name}; a law with a floor needs at least {AMOUNTS[law.powers]}"
    parts = spread(amounts, np.zeros(len(amounts)), law.unknowns)
    if len(parts.mean) < CELLS[law.powers]:
        return f"{len(parts.mean)} combinations of {' and '.join(names)}; this law needs at least {CELLS[law.powers]}"
    if len(amounts) < law.unknowns + 2:
        return f"{len(amounts)} points for {law.unknowns} unknowns; at least {law.unknowns + 2} are needed"
    return ""


def _no_fall(fit: Fit, bootstrap: Bootstrap, variance: float, names: tuple[str, ...]) -> str:
    """Why no fall of the loss is to be seen against one of the amounts, or nothing."""
    law = fit.curve.law
    for i, name in enumerate(names):
        others = [c for c in range(int(law.floor) + law.powers) if c != int(law.floor) + i]
        without = bootstrap.region.without(others)
        bar = 2 * variance * f_distribution.ppf(1 - DOUBT, 2, fit.degrees)
        if without - bootstrap.least <= bar or fit.curve.coefficients[int(law.floor) + i] == 0:
            high, low = fit.losses[fit.amounts[:, i].argmin()], fit.losses[fit.amounts[:, i].argmax()]
            if low > high * (1 + 2 * fit.noise):
                return f"it rises with {name}"
            return f"a fall with {name} cannot be told from a scatter of {fit.noise:.1%} about the law"
    return ""
