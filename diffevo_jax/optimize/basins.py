"""Which samples lie in basins of their own: neighbours and valleys, without another evaluation.

A sample that is better than its nearest neighbours has its nearest better one farther away than
they are: the filter of nearest-better clustering (Preuss 2010, 10.1145/1830761.1830777). Two of
them share a basin when the samples between them are no worse (as Ursem's hill-valley test,
10.1109/CEC.1999.785498, has it of new evaluations).
"""

import numpy as np
from scipy.spatial import KDTree

from diffevo_jax.optimize.arrays import CostSamples

NEIGHBOURS = 6
BETWEEN = np.linspace(0, 1, 7)[1:-1]
BESIDE = 3  # samples at each place between, of which one that is no worse will do
RIVALS = 3  # nearest centres that a sample is compared with


def basins(samples: CostSamples, optima: CostSamples, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Pick the best sample of each basin that has none of `optima`, best first.

    most: the most basins to pick.

    Returns their points `[M, D]`, and the distance of each to its last neighbour, `[M]`.
    """
    costs = np.where(np.isnan(samples.costs), np.inf, samples.costs)
    tree = KDTree(samples.points)
    neighbours = min(NEIGHBOURS, len(costs) - 1)
    distances, places = tree.query(samples.points, neighbours + 1)
    least = np.all(costs[:, None] <= costs[places], axis=1) & np.isfinite(costs)
    order = np.flatnonzero(least)
    order = order[np.argsort(costs[order])]
    centres = np.concatenate([optima.points, np.empty((most, samples.points.shape[1]))])
    heights = np.concatenate([optima.costs, np.empty(most)])
    chosen: list[int] = []
    for place in order:
        if len(chosen) == most:
            break
        point, count = samples.points[place], len(optima.costs) + len(chosen)
        if count:
            near = np.argsort(np.sum((centres[:count] - point) ** 2, axis=1))[:RIVALS]
            way = point + BETWEEN[:, None] * (centres[near] - point)[:, None]
            between = costs[tree.query(way, BESIDE)[1]].min(axis=-1).max(axis=1)
            highest = np.maximum(costs[place], heights[near])
            if np.any(between <= highest):
                continue
        centres[count], heights[count] = point, costs[place]
        chosen.append(place)
    return samples.points[chosen], distances[chosen, -1]


def near_optima(points: np.ndarray, optima: np.ndarray) -> np.ndarray:
    """Which points `[N, D]` are nearer to an optimum than half the way to the next one, `[N]`."""
    if len(optima) < 2:
        return np.zeros(len(points), bool)
    tree = KDTree(optima)
    next_optimum = tree.query(optima, 2)[0][:, 1]
    distance, place = tree.query(points)
    return distance < next_optimum[place] / 2


def distinct(points: np.ndarray, costs: np.ndarray, tolerance: float) -> np.ndarray:
    """Return indices of optima, best first, without those within `tolerance` of a better one."""
    kept: list[int] = []
    for place in np.argsort(costs):
        distance = np.abs(points[kept] - points[place])
        if not np.any(np.all(distance < tolerance, axis=1)):
            kept.append(int(place))
    return np.array(kept, int)
