"""CMA-ES in many niches side by side, on the host in float64.

Hansen's, https://arxiv.org/abs/1604.00772, with negative weights, for a stack of searches whose
populations may differ in size. Each keeps what it has learned while it waits. In up to MODELLED
dimensions one of a generation is where a quadratic model of the newest costs is lowest, as in
lq-CMA-ES (Hansen 2019, 10.1145/3321707.3321842): on the smooth basins of Vincent's function 1e-5 is
reached in half the evaluations, on a quadratic one in a twentieth.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from diffevo_jax.optimize import cma, quadratic

GROWN = 30  # generations
MODELLED = 10  # dimensions; in more a fit takes longer than a generation
# Costs that are kept, and those that a model needs, for each of its coefficients.
KEPT = 2.0
NEEDED = 1.5


class Niches(NamedTuple):
    """M searches.

    mean: `[M, D]`, which `into_cube` takes into the cube. step: the step size, `[M]`.
    covariance: `[M, D, D]`. path, path_step: of covariance and step size, `[M, D]`.
    size: individuals of a generation, `[M]`. spread: the first step, `[M]`.
    best, cost: the best point `[M, D]` and its cost `[M]`. age: generations, `[M]`.
    improved: the age at which the cost fell last, `[M]`. high: the first generation's median.
    gap: from the last generation's median to its best, `[M]`.
    newest, newest_costs: the points that the model is fitted to, before `into_cube`, `[M, H, D]`,
        and their costs, `[M, H]`, infinite where there is none yet; H is 0 without a model.
    model_error: how far the model was off where it was lowest, `[M]`; infinite before that, and
        where the model had no minimum.
    """

    mean: np.ndarray
    step: np.ndarray
    covariance: np.ndarray
    path: np.ndarray
    path_step: np.ndarray
    size: np.ndarray
    spread: np.ndarray
    best: np.ndarray
    cost: np.ndarray
    age: np.ndarray
    improved: np.ndarray
    high: np.ndarray
    gap: np.ndarray
    newest: np.ndarray
    newest_costs: np.ndarray
    model_error: np.ndarray


class Draws(NamedTuple):
    """A generation of K niches: which they are, `[K]`, and draws from N(0, C) and N(0, I).

    Draws are `[K, N, D]`, N the largest size; those beyond a niche's own size do not count.
    predicted: the cost of the first draw by the model, `[K]`; NaN where it is not of the model.
    """

    niches: np.ndarray
    steps: np.ndarray
    whitened: np.ndarray
    predicted: np.ndarray


def begin(points: np.ndarray, costs: np.ndarray, spreads: np.ndarray, sizes: np.ndarray) -> Niches:
    """Start at points `[M, D]` with their costs, first steps and sizes, `[M]`."""
    count, num_genes = points.shape
    zeros, age = np.zeros((count, num_genes)), np.zeros(count, int)
    kept = quadratic.least_costs(num_genes, KEPT) if num_genes <= MODELLED else 0
    return Niches(
        mean=cma.out_of_cube(points),
        step=np.maximum(spreads, 1e-6),
        covariance=np.tile(np.eye(num_genes), (count, 1, 1)),
        path=zeros,
        path_step=zeros,
        size=sizes,
        spread=np.maximum(spreads, 1e-6),
        best=points,
        cost=costs,
        age=age,
        improved=age,
        high=np.full(count, np.nan),
        gap=np.full(count, np.inf),
        newest=np.zeros((count, kept, num_genes)),
        newest_costs=np.full((count, kept), np.inf),
        model_error=np.full(count, np.inf),
    )


def draw(random: np.random.Generator, niches: Niches, chosen: np.ndarray) -> Draws:
    """Draw a generation of the chosen niches, `[K]`."""
    variances, axes = np.linalg.eigh(niches.covariance[chosen])
    lengths = np.sqrt(np.maximum(variances, 1e-20 * variances[:, -1:]))
    shape = len(chosen), int(niches.size[chosen].max()), niches.mean.shape[1]
    normal = random.standard_normal(shape)
    turned = axes.swapaxes(1, 2)
    predicted = np.full(len(chosen), np.nan)
    known = np.sum(np.isfinite(niches.newest_costs[chosen]), axis=1)
    (modelled,) = np.nonzero(known >= max(1, quadratic.least_costs(shape[2], NEEDED)))
    if len(modelled):
        normal[modelled, 0], predicted[modelled] = _lowest(
            niches, chosen[modelled], axes[modelled], lengths[modelled]
        )
    return Draws(chosen, (normal * lengths[:, None]) @ turned, normal @ turned, predicted)


def _lowest(
    niches: Niches, chosen: np.ndarray, axes: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the models of K niches are lowest, as draws from N(0, I) of C's axes, `[K, D]`.

    No farther away than a long draw, as Hansen's injection has it
    (https://arxiv.org/abs/1110.4181). And the cost there, `[K]`; NaN where it is farther.
    """
    frame = niches.step[chosen, None, None] * lengths[:, None]
    away = niches.newest[chosen] - niches.mean[chosen, None]
    lowest, costs = quadratic.lowest_of_each(away @ axes / frame, niches.newest_costs[chosen])
    num_genes = lowest.shape[1]
    length = np.linalg.norm(lowest, axis=1)
    longest = num_genes**0.5 + 2 * num_genes / (num_genes + 2)
    inside = length <= longest
    lowest *= np.where(inside, 1, longest / np.maximum(length, longest))[:, None]
    return lowest, np.where(inside, costs, np.nan)


def points(niches: Niches, draws: Draws) -> np.ndarray:
    """The points of a generation, one niche after the other, `[P, D]` in the unit cube."""
    chosen = draws.niches
    places = niches.mean[chosen, None] + niches.step[chosen, None, None] * draws.steps
    return cma.into_cube(places)[_counts(niches, draws)]


def tell(niches: Niches, draws: Draws, costs: np.ndarray) -> Niches:
    """Learn from the costs of all points, `[P]`, NaN for those without one."""
    chosen, counts = draws.niches, _counts(niches, draws)
    table = np.full(counts.shape, np.inf)
    table[counts] = np.where(np.isnan(costs), np.inf, costs)
    order = np.argsort(table, axis=1)
    num_genes = niches.mean.shape[1]
    constants = [_constants(int(size), num_genes) for size in niches.size[chosen]]
    weights = np.zeros(counts.shape)
    for row, each in zip(weights, constants, strict=True):
        row[: len(each.weights)] = each.weights
    rates = np.array([each.rates for each in constants]).T[..., None]
    mass, rate_step, damping, rate_path, rate_one, rate_mu = rates
    steps = np.take_along_axis(draws.steps, order[..., None], axis=1)
    whitened = np.take_along_axis(draws.whitened, order[..., None], axis=1)

    positive = np.maximum(weights, 0)[:, None]
    shift = (positive @ steps)[:, 0]
    path_step = (1 - rate_step) * niches.path_step[chosen]
    path_step += np.sqrt(rate_step * (2 - rate_step) * mass) * (positive @ whitened)[:, 0]
    length = np.linalg.norm(path_step, axis=1, keepdims=True)
    expected = num_genes**0.5 * (1 - 1 / (4 * num_genes) + 1 / (21 * num_genes**2))
    old = (1 - rate_step) ** (2 * (niches.age[chosen, None] + 1))
    moves = length / np.sqrt(1 - old) < (1.4 + 2 / (num_genes + 1)) * expected
    path = (1 - rate_path) * niches.path[chosen]
    path += moves * np.sqrt(rate_path * (2 - rate_path) * mass) * shift
    norms = np.maximum(np.sum(whitened**2, axis=2), 1e-300)
    outer = weights * np.where(weights < 0, num_genes / norms, 1)
    keep = 1 - rate_one - rate_mu * weights.sum(axis=1, keepdims=True)
    keep += rate_one * ~moves * rate_path * (2 - rate_path)
    covariance = keep[..., None] * niches.covariance[chosen]
    covariance += rate_one[..., None] * path[:, :, None] * path[:, None]
    covariance += (rate_mu * outer)[:, None] * steps.swapaxes(1, 2) @ steps

    new = Niches(*(leaf.copy() for leaf in niches))
    step = niches.step[chosen]
    new.mean[chosen] += step[:, None] * shift
    new.step[chosen] = (
        step * np.exp(np.minimum(rate_step / damping * (length / expected - 1), 1))[:, 0]
    )
    new.path[chosen], new.path_step[chosen] = path, path_step
    new.covariance[chosen] = (covariance + covariance.swapaxes(1, 2)) / 2
    new.age[chosen] += 1

    rows = np.arange(len(chosen))
    lowest = table[rows, order[:, 0]]
    middle = table[rows, order[rows, np.isfinite(table).sum(axis=1) // 2]]
    middle, is_first = np.where(np.isfinite(middle), middle, lowest), niches.age[chosen] == 0
    gap = np.full(len(chosen), np.inf)
    new.high[chosen] = np.where(is_first, middle, niches.high[chosen])
    new.gap[chosen] = np.subtract(middle, lowest, where=np.isfinite(lowest), out=gap)
    better = lowest < niches.cost[chosen]
    at = chosen[better]
    places = niches.mean[chosen] + step[:, None] * steps[:, 0]
    new.best[at], new.cost[at] = cma.into_cube(places[better]), lowest[better]
    new.improved[at] = new.age[at]

    off = np.abs(table[:, 0] - draws.predicted)
    new.model_error[chosen] = np.where(np.isnan(off), np.inf, off)
    kept = niches.newest.shape[1]
    drawn = niches.mean[chosen, None] + step[:, None, None] * steps
    latest = np.concatenate([np.sort(table, axis=1), niches.newest_costs[chosen]], axis=1)
    first = np.argsort(np.isinf(latest), axis=1, kind="stable")[:, :kept]
    places = np.concatenate([drawn, niches.newest[chosen]], axis=1)
    new.newest[chosen] = np.take_along_axis(places, first[..., None], axis=1)
    new.newest_costs[chosen] = np.take_along_axis(latest, first, axis=1)
    return new


def within_reach(niches: Niches, others: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Whether a better one of other points, `[L, D]`, is where each niche draws, `[M]`."""
    inverse = np.linalg.inv(niches.covariance * niches.step[:, None, None] ** 2)
    middle = cma.out_of_cube(cma.into_cube(niches.mean))  # the mean may be at a mirror image
    away = cma.out_of_cube(others) - middle[:, None]
    squares = np.einsum("mld,mde,mle->ml", away, inverse, away, optimize=True)
    # Two that end at one place are sqrt(2) of a deviation apart; young ones are wide.
    grown = np.minimum(niches.age / GROWN, 1)
    near = squares < (niches.mean.shape[1] * (1 + 2 * grown))[:, None]
    return np.any(near & (costs < niches.cost[:, None]), axis=1)


class _Constants(NamedTuple):
    weights: np.ndarray
    rates: tuple[float, ...]


@lru_cache(maxsize=256)
def _constants(size: int, num_genes: int) -> _Constants:
    """Return weights by rank, `[N]`, and the rates, of the paper's table 1."""
    raw = np.log((size + 1) / 2) - np.log(np.arange(size) + 1)
    positive, negative = np.maximum(raw, 0), np.minimum(raw, 0)
    mass = positive.sum() ** 2 / np.sum(positive**2)
    mass_negative = negative.sum() ** 2 / np.sum(negative**2)
    rate_step = (mass + 2) / (num_genes + mass + 5)
    damping = 1 + 2 * max(0, np.sqrt((mass - 1) / (num_genes + 1)) - 1) + rate_step
    rate_path = (4 + mass / num_genes) / (num_genes + 4 + 2 * mass / num_genes)
    rate_one = 2 / ((num_genes + 1.3) ** 2 + mass)
    rate_mu = min(1 - rate_one, 2 * (mass - 2 + 1 / mass) / ((num_genes + 2) ** 2 + mass))
    most = [
        1 + rate_one / rate_mu,
        1 + 2 * mass_negative / (mass + 2),
        (1 - rate_one - rate_mu) / (num_genes * rate_mu),
    ]
    weights = positive / positive.sum() + min(most) * negative / -negative.sum()
    return _Constants(weights, (mass, rate_step, damping, rate_path, rate_one, rate_mu))


def _counts(niches: Niches, draws: Draws) -> np.ndarray:
    """Mark the draws that count, `[K, N]`."""
    return np.arange(draws.steps.shape[1]) < niches.size[draws.niches, None]
