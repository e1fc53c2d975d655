"""Which samples lie in basins of their own: neighbours and valleys, without another evaluation.

A sample that is better than its nearest neighbours has its nearest better one farther away than
they are: the filter of nearest-better clustering (Preuss 2010, 10.1145/1830761.1830777). Two of
them share a basin when the samples between them are no worse (as Ursem's hill-valley test,
10.1109/CEC.1999.785498, has it of new evaluations); in many dimensions no sample is between.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy

from diffevo_jax.optimize.arrays import CostSamples, finite

NEIGHBOURS = 6
BETWEEN = np.linspace(0, 1, 7)[1:-1]
TREE = 5  # dimensions of a k-d tree; in more the BEST samples alone are compared
BEST = 4000
BESIDE = 3  # samples at each place between, of which one that is no worse will do
RIVALS = 3  # nearest centres that a sample is compared with, where there is a k-d tree


def basins(
    samples: CostSamples, optima: CostSamples, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pick a sample of each basin that has none of `optima`, those first that promise most.

    A sample is as much above what it promises as its neighbours' median is above it, so that a
    steep basin comes before a shallow one. most: the most basins to pick.

    Returns their points `[M, D]`, costs `[M]`, and the distance to their last neighbour, `[M]`.
    """
    points, costs = samples.points, np.where(np.isnan(samples.costs), np.inf, samples.costs)
    is_dense = points.shape[1] <= TREE
    if not is_dense:
        best = np.argsort(costs)[:BEST]
        points, costs = points[best], costs[best]
    nearest = _nearest(points)
    neighbours = min(NEIGHBOURS, len(costs) - 1)
    distances, places = nearest(points, neighbours + 1)
    order = np.flatnonzero(np.all(costs[:, None] <= costs[places], axis=1) & np.isfinite(costs))
    distances, places = distances[order, -1], places[order]
    # Neighbours that failed are as bad as the worst.
    middle = np.median(np.minimum(costs, finite(samples.costs).max())[places[:, 1:]], axis=1)
    promise = np.argsort(2 * costs[order] - middle)
    centres = np.concatenate([optima.points, np.empty((most, points.shape[1]))])
    heights = np.concatenate([optima.costs, np.empty(most)])
    chosen: list[int] = []
    for each in promise:
        place = order[each]
        if len(chosen) == most:
            break
        point, count = points[place], len(optima.costs) + len(chosen)
        if count and is_dense:
            near = np.argsort(np.sum((centres[:count] - point) ** 2, axis=1))[:RIVALS]
            way = point + BETWEEN[:, None] * (centres[near] - point)[:, None]
            between = costs[nearest(way, BESIDE)[1]].min(axis=-1).max(axis=1)
            highest = np.maximum(costs[place], heights[near])
            if np.any(between <= highest):
                continue
        centres[count], heights[count] = point, costs[place]
        chosen.append(each)
    return points[order[chosen]], costs[order[chosen]], distances[chosen]


def _nearest(points: np.ndarray) -> Callable[..., Any]:
    """Make a query of the K nearest of points `[M, D]`: distances and indices, `[..., K]`.

    A k-d tree in few dimensions; in more, where it looks at nearly all points, their distances.
    """
    if points.shape[1] <= TREE:
        return scipy.spatial.KDTree(points).query
    lengths = np.sum(points**2, axis=1)

    def query(at: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        flat = at.reshape(-1, at.shape[-1])
        tiles = []
        for tile in np.array_split(flat, 1 + len(flat) // 256):
            squares = lengths - 2 * tile @ points.T + np.sum(tile**2, axis=1, keepdims=True)
            places = np.argpartition(squares, number - 1, axis=1)[:, :number]
            tiles.append((np.take_along_axis(squares, places, axis=1), places))
        squares, places = (np.concatenate(parts) for parts in zip(*tiles, strict=True))
        order = np.argsort(squares, axis=1)
        distances = np.sqrt(np.maximum(np.take_along_axis(squares, order, axis=1), 0))
        shape = (*at.shape[:-1], number)
        return distances.reshape(shape), np.take_along_axis(places, order, 1).reshape(shape)

    return query


def nearest_other(points: np.ndarray) -> np.ndarray:
    """Return the distance of each of two or more points `[N, D]` to the next, `[N]`."""
    return scipy.spatial.KDTree(points).query(points, 2)[0][:, 1]


def near_optima(points: np.ndarray, optima: np.ndarray) -> np.ndarray:
    """Which points `[N, D]` are nearer to an optimum than half the way to the next one, `[N]`."""
    if len(optima) < 2:
        return np.zeros(len(points), bool)
    distance, place = scipy.spatial.KDTree(optima).query(points)
    return distance < nearest_other(optima)[place] / 2


def distinct(points: np.ndarray, costs: np.ndarray, tolerance: np.ndarray | float) -> np.ndarray:
    """Return indices of optima, best first, without those within `tolerance` of a better one."""
    kept: list[int] = []
    for place in np.argsort(costs):
        distance = np.abs(points[kept] - points[place])
        if not np.any(np.all(distance < tolerance, axis=1)):
            kept.append(int(place))
    return np.array(kept, int)
