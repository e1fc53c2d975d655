"""A model of the cost for few evaluations of parameters that are not all numbers.

A Gaussian process with a Matern-5/2 kernel, one length for each parameter, of the most probable
hyperparameters under broad priors (Rasmussen & Williams 2006, chapters 4 and 5), proposes where the
expected improvement (Jones et al. 1998, 10.1023/A:1008306431147) is largest, of what may be
evaluated. A length that little depends on one option misleads in another; so every second proposal
goes to the option of a category that was evaluated least; of a single one, better ones more often.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy

from diffevo_jax.optimize.arrays import one_thread
from diffevo_jax.optimize.space import Space, parameters, to_unit
from diffevo_jax.optimize.stage import latin_hypercube

# Chosen on one tuning problem (PCA and a support vector machine), out of some 35 settings, with
# other seeds than those of docs/minimize.md.
FIRST = 12  # evaluations of the first sample
MOST = 150  # evaluations that the model leads; then its matrices cost more than they tell
APART = 2.0  # the distance of two options, in sides of the cube
EVEN, NEAR, ROUNDS, KEPT = 500, 1000, 3, 20  # candidates, and how they are drawn around the best
TRIES = 100  # times that a point of the first sample is drawn again
# An option with r better ones is evaluated 1 / (1 + LESS * r) times as often. Of several
# categories all are evaluated alike: an option's best cost is that of the others' options too.
LESS = 0.5
AFRESH = 10  # evaluations after which hyperparameters are sought from the start
STEPS = 40
NOISE = 1e-8  # the least variance of the noise, of the warped costs'

# Points `[N, P]` -> which of them may be evaluated, `[N]`.
Allows = Callable[[np.ndarray], np.ndarray]


class Surrogate(NamedTuple):
    """What has been evaluated, and the proposals that wait.

    x, costs: `[M, P]`, `[M]`; a cost that is to come is NaN, one that failed infinite.
    proposals: values `[K, P]`, best first, of which one is evaluated; of the first sample, the rest
        of it. hyperparameters: those of the last fit; None before.
    """

    x: np.ndarray
    costs: np.ndarray
    proposals: np.ndarray
    hyperparameters: np.ndarray | None


def begin(
    random: np.random.Generator,
    space: Space,
    x: np.ndarray,
    costs: np.ndarray,
    evaluations: int,
    allows: Allows,
) -> Surrogate:
    """Begin with points `[M, P]`, and a sample that is even in every parameter and option.

    What may not be evaluated is drawn again, with the same options.
    """
    number = max(1, min(max(FIRST, space.num_values), int(0.6 * evaluations)) - len(x))
    options = np.tile(space.values.low, (number, 1))
    for place in np.flatnonzero(space.is_category):
        count = int(space.values.high[place]) + 1
        options[:, place] = random.permutation(np.resize(random.permutation(count), number))
    of_category = np.repeat(space.is_category, space.values.width)
    fixed = np.where(of_category, to_unit(space, options), np.nan)
    draws = random.uniform(size=(2, number, space.num_genes))
    sample = _placed(space, latin_hypercube(draws), fixed)
    for _ in range(TRIES):
        (places,) = np.nonzero(~allows(sample))
        if not len(places):
            break
        unit = random.uniform(size=(len(places), space.num_genes))
        sample[places] = _placed(space, unit, fixed[places])
    return Surrogate(x, costs, sample, None)


def advance(
    random: np.random.Generator, space: Space, model: Surrogate, allows: Allows
) -> Surrogate:
    """Propose the next points, from the costs that are known."""
    with one_thread():
        return _advanced(random, space, model, allows)


def _advanced(
    random: np.random.Generator, space: Space, model: Surrogate, allows: Allows
) -> Surrogate:
    if model.hyperparameters is None and len(model.proposals):
        return model  # of the first sample
    is_known = ~np.isnan(model.costs)
    costs = model.costs[is_known]
    finite = np.isfinite(costs)
    worst = costs[finite].max() if finite.any() else 0.0
    warped = _warped(np.where(finite, costs, worst))
    features, groups = _features(space, model.x[is_known])
    afresh = model.hyperparameters is None or len(costs) % AFRESH == 0
    process = _fitted(features, groups, warped, None if afresh else model.hyperparameters)
    means = process.predict(features)[0]
    least = means.min()
    if not is_known.all():  # those to come are taken to be what is expected of them
        pending, _ = _features(space, model.x[~is_known])
        expected = np.concatenate([warped, process.predict(pending)[0]])
        process = _process(np.concatenate([features, pending]), groups, expected, process.theta)

    evaluated = {row.tobytes() for row in model.x}

    def may(x: np.ndarray) -> np.ndarray:
        return np.array([row.tobytes() not in evaluated for row in x]) & allows(x)

    known = model.x[is_known]
    best, fixed = np.argsort(warped)[:5], np.full(space.num_genes, np.nan)
    categories = np.flatnonzero(space.is_category)
    if len(model.costs) % 2 and len(categories):
        place = random.choice(categories)
        options = np.arange(int(space.values.high[place]) + 1)
        counts = np.array([np.sum(model.x[:, place] == option) for option in options])
        bests = [means[known[:, place] == option].min(initial=np.inf) for option in options]
        less = LESS if len(categories) == 1 else 0.0
        shares = counts * (1 + less * np.argsort(np.argsort(bests)))
        option = random.choice(options[shares == shares.min()])
        fixed = _fixed(space, place, option)
        (of_option,) = np.nonzero(known[:, place] == option)
        if len(of_option):  # on the way down from the option's own best
            least = means[of_option].min()
            best = of_option[np.argsort(means[of_option])[:5]]

    def improvement(x: np.ndarray) -> np.ndarray:
        return _log_improvement(*process.predict(_features(space, x)[0]), least)

    proposals = _candidates(random, space, known[best], fixed, improvement, may)
    return model._replace(proposals=proposals, hyperparameters=process.theta)


def chosen(model: Surrogate, x: np.ndarray) -> Surrogate:
    """Note that a point `[P]` is being evaluated: a proposal, or another in the place of all."""
    (places,) = np.nonzero(np.all(model.proposals == x, axis=1))
    rest = model.proposals[:0]
    if model.hyperparameters is None and len(places):  # the first sample goes on
        rest = model.proposals[places[0] + 1 :]
    x, costs = np.concatenate([model.x, x[None]]), np.append(model.costs, np.nan)
    return model._replace(x=x, costs=costs, proposals=rest)


def learned(model: Surrogate, x: np.ndarray, costs: np.ndarray) -> Surrogate:
    """Take costs `[K]` of points `[K, P]` that were proposed; those that failed are NaN."""
    known = model.costs.copy()
    for point, cost in zip(x, np.where(np.isnan(costs), np.inf, costs), strict=True):
        known[np.all(model.x == point, axis=1) & np.isnan(known)] = cost
    return model._replace(costs=known)


class _Process(NamedTuple):
    """A fitted process: features `[n, F]` in units of their lengths, the Cholesky factor, alpha."""

    features: np.ndarray
    lengths: np.ndarray
    variance: float
    factor: np.ndarray
    alpha: np.ndarray
    theta: np.ndarray

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation, `[m]` each."""
        scaled = features / self.lengths
        squares = (
            (scaled**2).sum(1)[:, None] + (self.features**2).sum(1) - 2 * scaled @ self.features.T
        )
        covariance = self.variance * _matern(np.maximum(squares, 0))[0]
        half = scipy.linalg.solve_triangular(self.factor, covariance.T, lower=True)
        variance = np.maximum(self.variance - (half**2).sum(0), 1e-12)
        return covariance @ self.alpha, np.sqrt(variance)


def _matern(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the correlation at squared distances, and minus twice its derivative by them."""
    distance = np.sqrt(5 * squares)
    decay = np.exp(-distance)
    return (1 + distance + distance**2 / 3) * decay, 5 / 3 * (1 + distance) * decay


def _process(
    features: np.ndarray, groups: np.ndarray, y: np.ndarray, theta: np.ndarray
) -> _Process:
    lengths = np.exp(theta[:-2])[groups]
    scaled, variance = features / lengths, float(np.exp(theta[-2]))
    squares = ((scaled[:, None] - scaled) ** 2).sum(-1)
    covariance = variance * _matern(squares)[0]
    covariance[np.diag_indices(len(y))] += np.exp(theta[-1]) + NOISE
    factor = np.linalg.cholesky(covariance)
    return _Process(
        scaled, lengths, variance, factor, scipy.linalg.cho_solve((factor, True), y), theta
    )


def _fitted(
    features: np.ndarray, groups: np.ndarray, y: np.ndarray, theta: np.ndarray | None
) -> _Process:
    """Fit a process to y `[n]`: theta has the logarithms of lengths, variance and noise."""
    number = int(groups.max()) + 1
    squares = np.zeros((number, len(y), len(y)))
    for feature, group in zip(features.T, groups, strict=True):
        squares[group] += (feature[:, None] - feature) ** 2
    middle = np.array([*np.full(number, 0.25 * np.log(number)), 0.0, -6.0])
    width = np.array([*np.ones(number), 1.0, 2.0])

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return minus the logarithm of the posterior, and its gradient."""
        weights, variance, noise = np.exp(-2 * theta[:-2]), *np.exp(theta[-2:])
        correlation, slope = _matern(np.tensordot(weights, squares, 1))
        covariance = variance * correlation + (noise + NOISE) * np.eye(len(y))
        try:
            factor = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        inverse = scipy.linalg.cho_solve((factor, True), np.eye(len(y)))
        alpha = inverse @ y
        half = 0.5 * (inverse - np.outer(alpha, alpha))
        gradient = np.empty_like(theta)
        gradient[:-2] = weights * np.tensordot(squares, half * variance * slope, ([1, 2], [0, 1]))
        gradient[-2] = variance * np.sum(half * correlation)
        gradient[-1] = noise * np.trace(half)
        z = (theta - middle) / width
        value = 0.5 * y @ alpha + np.log(np.diag(factor)).sum() + 0.5 * z @ z
        return float(value), gradient + z / width

    start = middle - 0.5 * (np.arange(number + 2) < number) if theta is None else theta
    bounds = [(-4, 4)] * number + [(-3, 3), (-14, 1)]
    options = {"maxiter": STEPS}
    fit: Any = scipy.optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    return _process(features, groups, y, fit.x)


def _warped(costs: np.ndarray) -> np.ndarray:
    """Take the logarithm of costs above the least, from the best fifth's range on; variance 1."""
    ranked = np.sort(costs)
    scale = ranked[max(1, len(costs) // 5 - 1)] - ranked[0]
    warped = np.log(costs - ranked[0] + (scale if scale > 0 else np.ptp(costs) or 1.0))
    return (warped - warped.mean()) / (warped.std() or 1.0)


def _features(space: Space, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place points `[N, P]` in the process's space, `[N, F]`; the value of each feature, `[F]`."""
    values, unit = space.values, to_unit(space, x)
    features, groups, start = [], [], 0
    for place, width in enumerate(values.width):
        part = unit[:, start : start + width]
        if space.is_category[place]:
            options = np.arange(int(values.high[place]) + 1)
            part = (x[:, place, None] == options) * (APART / np.sqrt(2))
        features.append(part)
        groups += [place] * part.shape[1]
        start += width
    return np.concatenate(features, axis=1), np.array(groups)


def _fixed(space: Space, place: int, option: int) -> np.ndarray:
    """Return the coordinates `[U]` that give an option, NaN for those of other values."""
    x = space.values.low.copy()
    x[place] = option
    groups = np.repeat(np.arange(space.num_values), space.values.width)
    return np.where(groups == place, to_unit(space, x), np.nan)


def _candidates(
    random: np.random.Generator,
    space: Space,
    best: np.ndarray,
    fixed: np.ndarray,
    improvement: Callable[[np.ndarray], np.ndarray],
    may: Allows,
) -> np.ndarray:
    """Draw points evenly and around the best, then around the most promising of them.

    Returns those of the largest improvement that may be evaluated, `[K, P]`, best first.
    """
    scales = (0.3, 0.1, 0.03, 0.01)
    units = [_beside(random, space, best, NEAR // len(scales), scale) for scale in scales]
    units += [random.uniform(size=(EVEN, space.num_genes))]
    x, gains = np.empty((0, space.num_values)), np.empty(0)
    for _ in range(ROUNDS + 1):
        new = _placed(space, np.concatenate(units), fixed)
        x, gains = np.concatenate([x, new]), np.concatenate([gains, improvement(new)])
        kept = _best(x, gains, may)
        x, gains = x[kept], gains[kept]
        units = [_beside(random, space, x, 5 * KEPT, scale) for scale in (0.2, 0.05, 0.02, 0.005)]
    return x


def _best(x: np.ndarray, gains: np.ndarray, may: Allows) -> np.ndarray:
    """Return the places of the best that may be evaluated, best first; if none may, of any."""
    order = np.argsort(-gains, kind="stable")
    kept: list[int] = []
    for start in range(0, len(order), KEPT):
        part = order[start : start + KEPT]
        kept += part[may(x[part])].tolist()
        if len(kept) >= KEPT:
            break
    return np.array(kept[:KEPT] or order[:KEPT])


def _beside(
    random: np.random.Generator, space: Space, x: np.ndarray, number: int, scale: float
) -> np.ndarray:
    """Change some parameters of points: numbers by a normal draw, categories to any option.

    Returns coordinates of the unit cube, `[number, U]`.
    """
    base = to_unit(space, x[random.integers(len(x), size=number)])
    share = max(1 / space.num_values, random.choice([0.2, 0.5, 1.0]))
    changes = random.uniform(size=(number, space.num_values)) < share
    changes[np.arange(number), random.integers(space.num_values, size=number)] = True
    moved = (base + scale * random.standard_normal(base.shape)) % 2
    moved = np.minimum(moved, 2 - moved)
    groups = np.repeat(np.arange(space.num_values), space.values.width)
    moved = np.where(space.is_category[groups], random.uniform(size=base.shape), moved)
    return np.where(changes[:, groups], moved, base)


def _placed(space: Space, unit: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Map the unit cube `[N, U]` to points `[N, P]`, but for coordinates that are fixed."""
    return parameters(space, np.where(np.isnan(fixed), unit, fixed))


def _log_improvement(mean: np.ndarray, deviation: np.ndarray, least: float) -> np.ndarray:
    """Return the logarithm of the expected improvement on `least`, also where it is tiny."""
    z = (least - mean) / deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    near = np.log(np.maximum(density + z * scipy.special.ndtr(z), 1e-300))
    far = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(np.maximum(-z, 1.0))
    return np.where(z > -5, near, far) + np.log(deviation)
