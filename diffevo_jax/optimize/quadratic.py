"""A polynomial model of the cost, from the costs of a search.

As in lq-CMA-ES (Hansen 2019, 10.1145/3321707.3321842): least squares with weights by rank, of as
many terms as the costs determine, up to all products of two parameters; and one step more between
its linear and its diagonal model, one curvature for all parameters.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import lstsq

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
    solution: Any = lstsq(terms, weights * (above / span), lapack_driver="gelsy")
    return Quadratic(centre, scale, solution[0], float(costs[0]), span)


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
def _pairs(number: int) -> tuple[np.ndarray, ...]:
    """Return the indices i < j of all pairs of so many."""
    return np.triu_indices(number, 1)
