"""How many of a problem's global optima a search has found, and how much else it reports.

As the competitions on niching count (Li, Engelbrecht and Epitropakis 2013, technical report): an
optimum is found where a point reported is within `accuracy` of the least cost, and farther than
`radius` from every better one that counts.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffevo_jax.checks import InputError


class PeakScore(NamedTuple):
    """peak_ratio: found / all optima. precision: found / reported. f1: their harmonic mean."""

    peak_ratio: float
    precision: float
    f1: float


def peak_score(
    points: ArrayLike,
    costs: ArrayLike,
    *,
    optima: int,
    least: float,
    radius: float,
    accuracy: float = 1e-5,
) -> PeakScore:
    """Score what is reported: points `[M, D]`, and their costs `[M]`, for a static F1 at the end.

    optima: how many there are, of cost `least`. Raises InputError on other shapes.
    """
    points, costs = np.asarray(points, float), np.asarray(costs, float)
    if points.ndim != 2 and points.size:
        raise InputError("points", "shape (M, D)", points.shape)
    if costs.shape != (len(points),):
        raise InputError("costs", f"shape {(len(points),)}", costs.shape)
    counted: list[np.ndarray] = []
    for place in np.argsort(costs):
        if not costs[place] <= least + accuracy:
            break
        if all(np.linalg.norm(points[place] - other) > radius for other in counted):
            counted.append(points[place])
    ratio, share = len(counted) / optima, len(counted) / max(1, len(costs))
    return PeakScore(ratio, share, 2 * ratio * share / max(ratio + share, 1e-300))


def dynamic(evaluations: ArrayLike, scores: ArrayLike, *, budget: int) -> float:
    """Average a score over all evaluations of the budget: a dynamic F1, of an F1 at each time.

    evaluations: after which each score holds, until the next does, `[T]`, increasing. scores:
    `[T]`; 0 before the first.
    """
    times = np.append(np.asarray(evaluations, float), budget)
    return float(np.sum(np.diff(times) * np.asarray(scores, float)) / budget)
