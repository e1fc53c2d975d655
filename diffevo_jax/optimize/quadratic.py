"""A polynomial model of the cost, from the costs of a search.

As in lq-CMA-ES (Hansen 2019, 10.1145/3321707.3321842): least squares with weights by rank, of as
many terms as the costs determine, up to all products of two parameters; and one step more between
its linear and its diagonal model, one curvature for all parameters.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import scipy

from diffevo_jax.optimize.arrays import CostSamples

PRODUCTS = 20  # parameters up to which products of two are terms; beyond, a fit takes too long
SPARE = 1.1  # costs for each coefficient, at least
BEST = 0.75  # the share of the costs that the model is fitted to
KEPT = 2.0  # the newest costs, for each coefficient of the largest model, that it may be fitted to
HEAVIEST = 20.0  # weight of the best cost; that of the last one is 1
FAR = 1000.0  # sides of the cube
FLAT = 1e-9  # the least curvature, of the largest
CONCORDANT = 15  # the newest costs, at least, that the model's order is compared with


class Quadratic(NamedTuple):
    """A model: the cost is least + span * terms(u) @ coefficients, u = (x - centre) / scale.

    centre, scale: `[D]`. coefficients: `[T]`; their number says which terms they have.
    """

    centre: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    least: float
    span: float

    def predict(self, points: np.ndarray) -> np.ndarray:
        """Return the costs `[N]` that points `[N, D]` have by the model."""
        u = (points - self.centre) / self.scale
        return self.least + self.span * (_terms(u, len(self.coefficients)) @ self.coefficients)

    def lowest(self) -> np.ndarray:
        """Return where the model is lowest, `[D]`; far down its slope where it has no curvature.

        Along directions that bend down it goes as far as if they bent up.
        """
        num_genes = len(self.centre)
        slope, rest = np.split(self.coefficients[1:], [num_genes])
        if len(rest) <= 1 and not np.any(rest > 0):
            descent = -slope / self.scale
            return self.centre + FAR * descent / (np.linalg.norm(descent) or 1.0)
        hessian = np.diag(2 * np.broadcast_to(rest[:num_genes], num_genes))
        above = _pairs(num_genes)
        if len(rest) > num_genes:
            hessian[above] = hessian.T[above] = rest[num_genes:]
        curvatures, directions = np.linalg.eigh(hessian)
        curvatures = np.abs(curvatures)
        curvatures = np.maximum(curvatures, FLAT * curvatures.max() or 1.0)
        return self.centre - self.scale * (directions @ (directions.T @ slope / curvatures))


def fit(samples: CostSamples, size: int) -> Quadratic:
    """Fit a model to the newest of samples, two at least, which come last; all have costs.

    size: how many samples it has in mind at least.
    """
    num_genes = samples.points.shape[1]
    sizes = [num_genes + 1, num_genes + 2, 2 * num_genes + 1]
    if num_genes <= PRODUCTS:
        sizes.append(num_genes * (num_genes + 3) // 2 + 1)
    newest = max(size, int(KEPT * sizes[-1]))
    points, costs = samples.points[-newest:], samples.costs[-newest:]
    number = max((k for k in sizes if SPARE * k <= BEST * len(costs)), default=sizes[0])
    best = np.argsort(costs, kind="stable")
    best = best[: max(int(SPARE * number), int(BEST * (len(costs) + 1)))]
    points, costs = points[best], costs[best]
    weights = np.linspace(HEAVIEST, 1, len(best))
    centre, scale = np.average(points, axis=0, weights=weights), points.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    if number == num_genes + 2:
        scale = np.full(num_genes, scale.mean())
    terms = weights[:, None] * _terms((points - centre) / scale, number)
    above = costs - costs[0]
    span = float(above[-1]) or 1.0
    solution: Any = scipy.linalg.lstsq(terms, weights * (above / span), lapack_driver="gelsy")
    return Quadratic(centre, scale, solution[0], float(costs[0]), span)


def lowest_of_each(points: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit a model to each of K stacks of H costs, and return where it is lowest, with the cost.

    points: `[K, H, D]`, in a frame where the costs are about as steep in all directions.
    costs: `[K, H]`, infinite for those that do not count; at least `least_costs(D)` that do.

    Returns points `[K, D]` and costs `[K]`: NaN where the model bends down somewhere, and the point
    is where it would be lowest if it bent up there. The normal equations, with all products: some
    ten times quicker for a stack than a decomposition of each.
    """
    num_genes = points.shape[2]
    order = np.argsort(costs, axis=1)
    costs = np.take_along_axis(costs, order, axis=1)
    points = np.take_along_axis(points, order[..., None], axis=1)
    number = np.isfinite(costs).sum(axis=1, keepdims=True)
    number = np.maximum((BEST * number).astype(int), least_costs(num_genes, SPARE))
    rank = np.arange(costs.shape[1])
    counts = rank < number
    weights = np.where(counts, HEAVIEST - (HEAVIEST - 1) * rank / number, 0)
    u = np.where(counts[..., None], points - points[:, :1], 0)
    scale = np.maximum(np.sqrt(np.mean(u**2, axis=(1, 2)) / np.mean(counts, axis=1)), 1e-300)
    u = u / scale[:, None, None]
    above = np.where(counts, costs - costs[:, :1], 0)
    span = above.max(axis=1)
    span = np.where(span > 0, span, 1.0)
    first, second = _pairs(num_genes, 0)
    terms = np.concatenate([np.ones_like(u[..., :1]), u, u[..., first] * u[..., second]], axis=2)
    terms *= weights[..., None]
    gram = terms.swapaxes(1, 2) @ terms
    gram += 1e-14 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(gram.shape[1])
    right = terms.swapaxes(1, 2) @ (weights * above / span[:, None])[..., None]
    coefficients = np.linalg.solve(gram, right)[..., 0]
    slope = coefficients[:, 1 : num_genes + 1]
    hessian = np.zeros((len(u), num_genes, num_genes))
    hessian[:, first, second] = coefficients[:, num_genes + 1 :]
    curvatures, directions = np.linalg.eigh(hessian + hessian.swapaxes(1, 2))
    steep = np.abs(curvatures)
    steep = np.maximum(steep, np.maximum(FLAT * steep.max(axis=1, keepdims=True), 1e-300))
    along = -(slope[:, None] @ directions)[:, 0] / steep
    low = (directions @ along[..., None])[..., 0]
    value = coefficients[:, 0] + np.sum(slope * low, axis=1) / 2
    cost = np.where(curvatures[:, 0] > 0, costs[:, 0] + span * value, np.nan)
    return points[:, 0] + scale[:, None] * low, cost


def least_costs(num_genes: int, for_each: float) -> int:
    """Return how many costs are so many for each coefficient of a model with all products."""
    return int(np.ceil(for_each * (num_genes + 1) * (num_genes + 2) / 2))


def concordance(model: Quadratic, samples: CostSamples, size: int) -> float:
    """Return Kendall's tau of the model's costs and the newest of samples; 0 for less than three.

    size: how many samples are compared, where they are more than CONCORDANT.
    """
    newest = min(len(samples.costs), max(CONCORDANT, size))
    if newest < 3:
        return 0.0
    costs, predicted = samples.costs[-newest:], model.predict(samples.points[-newest:])
    first, second = _pairs(newest)
    return float(
        np.mean(
            np.sign(costs[first] - costs[second]) * np.sign(predicted[first] - predicted[second])
        )
    )


def _terms(u: np.ndarray, number: int) -> np.ndarray:
    """Return the model's terms of points `[N, D]`, `[N, T]`: T is `number`."""
    num_genes = u.shape[1]
    parts = [np.ones((len(u), 1)), u]
    if number == num_genes + 2:
        parts.append(np.sum(u**2, axis=1, keepdims=True))
    elif number > num_genes + 2:
        parts.append(u**2)
    if number > 2 * num_genes + 1:
        first, second = _pairs(num_genes)
        parts.append(u[:, first] * u[:, second])
    return np.concatenate(parts, axis=1)


@cache
def _pairs(number: int, diagonal: int = 1) -> tuple[np.ndarray, ...]:
    """Return the indices i < j of all pairs of so many; with diagonal 0 also those of i = j."""
    return np.triu_indices(number, diagonal)
