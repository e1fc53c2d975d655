"""What a population achieved: fitness, diversity on a grid, and modes.

The grid is the published one: a coordinate x lies in the cell number round(x / cell), so that cells
are centred on multiples of their side. All functions take one population; `vmap` them over more.

cell: side of the cells, a number above 0 or one for each dimension, `[D]`.
limit: the box that the grid covers: a number is [-limit, limit] in each dimension, as published; a
pair (low, high), each a number or `[D]`, is any other.

All raise InputError on what is no array, or has another shape.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffevo_jax.checks import InputError, check_array, check_count, check_number, concrete

Limit = ArrayLike | tuple[ArrayLike, ArrayLike]  # a number, or the corners of a box


def success_rate(fitness: ArrayLike, threshold: float) -> jax.Array:
    """Share of individuals at or above a fitness, `[..., N]` to `[...]`, from 0 to 1.

    The paper counts a cart-pole individual as successful when its return is the maximum, 500.
    """
    fitness = check_array("fitness", fitness, "an array [..., N]")
    return jnp.mean(fitness >= check_array("threshold", threshold, "a number"), axis=-1)


def best(points: jax.Array, fitness: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """Take the `num` fittest of `[N, D]`, best first: points `[num, D]` and fitness `[num]`.

    NaN ranks last. Raises InputError unless 1 <= num <= N.
    """
    points, fitness = _check(points, fitness)
    num = check_count("num", num, most=len(points))
    order = jax.lax.top_k(jnp.where(jnp.isnan(fitness), -jnp.inf, fitness), num)[1]
    return points[order], fitness[order]


def grid_entropy(points: jax.Array, *, cell=0.1) -> jax.Array:
    """Entropy in bits of points `[N, D]` over the cells of a grid: -sum_c p_c log2 p_c.

    p_c is the share of the points in cell c, so that the entropy runs from 0, all in one cell, to
    log2 N, each in its own. Table 1 takes it of the 64 fittest with cells of side 0.1.
    """
    labels = _labels(_cells(points, cell))
    share = _count(labels) / len(labels)
    return -jnp.sum(jnp.where(share > 0, share * jnp.log2(jnp.where(share > 0, share, 1)), 0))


def elites(
    points: jax.Array, fitness: jax.Array, *, cell: ArrayLike = 1.0, limit: Limit = math.inf
) -> jax.Array:
    """Mark the fittest point of each occupied cell, `[N, D]` and `[N]` to a boolean `[N]`.

    Points outside the box count for the cell at the border. The first of equals is the elite; a
    fitness of -inf or NaN never is. Raises InputError unless low < high in each dimension.
    """
    points, fitness = _check(points, fitness)
    n = len(points)
    low, high = _box(points, limit)
    fitness = jnp.where(jnp.isnan(fitness), -jnp.inf, fitness)
    labels = _labels(_cells(jnp.clip(points, low, high), cell))
    highest = jax.ops.segment_max(fitness, labels, n)[labels]
    place = jnp.where((fitness == highest) & (fitness > -jnp.inf), jnp.arange(n), n)
    return place == jnp.where(place < n, jax.ops.segment_min(place, labels, n)[labels], -1)


def qd_score(
    points: jax.Array, fitness: jax.Array, *, cell: ArrayLike = 1.0, limit: Limit = 4.0
) -> jax.Array:
    """Quality-diversity score: the sum over occupied cells of the best fitness inside.

    points: `[N, D]`, clamped to the box as published. fitness: `[N]`, 0 or more, or else an
    occupied cell can lower the score; NaN is left out. Raises InputError unless low < high.
    """
    chosen = elites(points, fitness, cell=cell, limit=limit)
    return jnp.sum(jnp.where(chosen, fitness, 0))


def coverage(points: jax.Array, *, cell: ArrayLike = 1.0, limit: Limit = 4.0) -> jax.Array:
    """Share of the cells of the box that hold a point of `[N, D]`, from 0 to 1.

    Points outside the box do not count. A dimension has round(high / cell) - round(low / cell) + 1
    cells, so that in many dimensions the share is next to 0 whatever the population. Raises
    InputError unless low < high, both finite.
    """
    points = _check(points)[0]
    low, high = _box(points, limit, finite=True)
    inside = jnp.all((low <= points) & (points <= high), axis=-1)
    occupied = jnp.sum(elites(points, jnp.where(inside, 1.0, -jnp.inf), cell=cell, limit=limit))
    first, last = _cells(jnp.stack([low, high]), cell)
    return occupied / jnp.prod(last - first + 1.0)


def dominated_novelty(descriptors: jax.Array, fitness: jax.Array, *, num: int) -> jax.Array:
    """Return the mean distance to the `num` nearest of those that are fitter, `[N, k]` to `[N]`.

    Infinite where nobody is; where fewer are, the mean to these. The N fittest by this of parents
    and children are what dominated novelty search keeps (https://arxiv.org/abs/2502.00593).
    A fitness of -inf or NaN is less than any.
    """
    descriptors, fitness = _check(descriptors, fitness)
    num = check_count("num", num)
    fitness = jnp.where(jnp.isnan(fitness), -jnp.inf, fitness)
    distance = jnp.linalg.norm(descriptors[:, None] - descriptors, axis=-1)
    distance = jnp.where(fitness > fitness[:, None], distance, jnp.inf)
    nearest = -jax.lax.top_k(-distance, min(num, len(fitness)))[0]
    known = jnp.isfinite(nearest)
    total = jnp.sum(jnp.where(known, nearest, 0), axis=1)
    count = jnp.sum(known, axis=1)
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.inf)


def modes_found(points: jax.Array, modes: ArrayLike, *, radius, at_least=1) -> jax.Array:
    """Count the modes `[M, D]` with `at_least` points of `[N, D]` within `radius` (Euclidean)."""
    points, modes = _check(points)[0], check_array("modes", modes, "an array [M, D]")
    check_number("radius", radius, 0, math.inf, closed="[)")
    if modes.ndim != 2 or modes.shape[1] != points.shape[1]:
        raise InputError("modes", f"shape [M, D] with D = {points.shape[1]}", modes.shape)
    near = jnp.linalg.norm(points[:, None] - modes, axis=-1) <= radius
    return jnp.sum(jnp.sum(near, axis=0) >= at_least)


def _check(points, fitness=None) -> tuple[jax.Array, jax.Array]:
    points = check_array("points", points, "an array [N, D]")
    if fitness is None:
        fitness = jnp.zeros(points.shape[:1])
    fitness = check_array("fitness", fitness, "an array [N]")
    if points.ndim != 2 or len(points) == 0:
        raise InputError("points", "shape [N, D] with N >= 1", points.shape)
    if fitness.shape != points.shape[:1]:
        raise InputError("fitness", f"shape {points.shape[:1]}", fitness.shape)
    return points, fitness


def _box(points: jax.Array, limit: Any, *, finite: bool = False) -> list[jax.Array]:
    """Lower and upper corner `[D]`; raise InputError where they are known and enclose nothing."""
    dim = points.shape[1]
    pair = isinstance(limit, tuple | list)
    corners = list(limit) if pair else [limit, limit]
    expected = f"a number, or (low, high), each a number or of shape ({dim},)"
    shapes = [check_array("limit", corner, expected).shape for corner in corners]
    if len(shapes) != 2 or not {*shapes} <= ({(), (dim,)} if pair else {()}):
        raise InputError("limit", expected, limit)
    corners = corners if pair else [-limit, limit]
    low, high = (concrete(corner) for corner in corners)
    if low is not None and high is not None:
        ends = np.isinf(low) | np.isinf(high)
        if not np.all(low < high) or (finite and np.any(ends)):
            kind = "a finite box" if finite else "a box"
            raise InputError("limit", f"{kind}, low < high", limit)
    return [jnp.broadcast_to(jnp.asarray(corner, points.dtype), (dim,)) for corner in corners]


def _cells(points: jax.Array, cell: ArrayLike) -> jax.Array:
    points = _check(points)[0]
    expected = f"a number above 0, or one for each of the {points.shape[1]} dimensions"
    side = check_array("cell", cell, expected)
    sides = concrete(side)
    if side.shape not in {(), points.shape[1:]} or (sides is not None and not np.all(sides > 0)):
        raise InputError("cell", expected, cell)
    return jnp.round(points / side).astype(jnp.int32)


def _labels(cells: jax.Array) -> jax.Array:
    """Number the distinct rows of `[N, D]` integers: `[N]`, the same label for the same row.

    Rows are distinguished by two linear hashes of 32 bits; two different rows share both with a
    probability near 2^-62. Sorting whole rows would be exact and compiles for minutes at D = 256.
    """
    multipliers = np.random.default_rng(0).integers(2**32, size=(cells.shape[1], 2), dtype=np.int64)
    multipliers = jnp.asarray((multipliers | 1).astype(np.uint32))
    hashes = jnp.sum(cells.astype(jnp.uint32)[:, :, None] * multipliers, axis=1, dtype=jnp.uint32)
    order = jnp.lexsort((hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    first = jnp.any(ordered[1:] != ordered[:-1], axis=1)
    label = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(first).astype(jnp.int32)])
    return jnp.zeros(len(cells), jnp.int32).at[order].set(label)


def _count(labels: jax.Array) -> jax.Array:
    return jax.ops.segment_sum(jnp.ones(len(labels)), labels, len(labels))
