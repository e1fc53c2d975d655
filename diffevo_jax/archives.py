"""Archives of elites, inside jit: behaviour space in cells, each with the fittest seen there.

    cells = de.archives.grid([-1, -1], [1, 1], cells=[50, 50])
    elites = de.archives.empty(cells, num_genes=20)
    elites, added = de.archives.insert(cells, elites, points, fitness, descriptors)

A descriptor says how an individual behaves, `[k]`. One beyond the box belongs to a cell at its
border, as in pyribs; an individual whose descriptor, fitness or genes are not finite is left out,
and counted. All functions are pure, and `vmap` maps them over archives.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.typing import ArrayLike

from diffevo_jax.checks import (
    TELL_BEHAVIOUR,
    Count,
    InputError,
    check_array,
    check_count,
    concrete,
)

# Of `cvt`: samples a centroid, and rounds of Lloyd's algorithm, after which it moves little.
SAMPLES, ROUNDS = 50, 20


class Cells(NamedTuple):
    """How behaviour space is divided, see `grid`, `centroids` and `cvt`.

    find: descriptors `[N, k]`, finite -> numbers of their cells, `[N]`, 0 to C - 1.
    centres: middles of the cells, `[C, k]`. low, high: corners of the box, `[k]`.
    side: length of a cell along each axis, `[k]`; the mean one around centroids.
    counts: cells of a grid along each axis, `[k]`; None around centroids.
    """

    find: Callable[[jax.Array], jax.Array]
    centres: np.ndarray
    low: np.ndarray
    high: np.ndarray
    side: np.ndarray
    counts: np.ndarray | None = None


class Elites(NamedTuple):
    """What the C cells of an archive hold.

    points: genomes, `[C, D]`. fitness: `[C]`; -inf for an empty cell. descriptors: `[C, k]`.
    """

    points: jax.Array
    fitness: jax.Array
    descriptors: jax.Array


class Added(NamedTuple):
    """What became of individuals that came to an archive.

    row: which of them took each cell, `[C]`; -1 where none did.
    num_invalid: how many had a descriptor, fitness or genes that are not finite.
    """

    row: jax.Array
    num_invalid: jax.Array


class ArchiveInfo(NamedTuple):
    """What a figure shows of one evaluated generation that went into an archive.

    population `[N, D]`, fitness `[N]`: as evaluated. num_invalid: see `Added`.
    norm_qd_score: sum of the elites' fitness, 0 or more, over the number of cells.
    coverage: share of the cells that hold an elite.
    strategy: the archive with the generation, `Elites`.
    """

    population: jax.Array
    fitness: jax.Array
    num_invalid: jax.Array
    norm_qd_score: jax.Array
    coverage: jax.Array
    strategy: Elites


def grid(low: Sequence[float], high: Sequence[float], cells: Sequence[Count]) -> Cells:
    """Divide a box into a grid of exactly so many cells along each axis.

    low, high: its corners, `[k]`. cells: counts, `[k]`; C is their product, the last axis fastest.

    Raises InputError on corners and counts that do not fit each other.
    """
    bottom, top = _box(low, high)
    counts = np.array([check_count("cells", count) for count in np.atleast_1d(np.asarray(cells))])
    if counts.shape != bottom.shape:
        raise InputError("cells", f"a count for each of {len(bottom)} axes", counts.tolist())
    shape = tuple(map(int, counts))
    if math.prod(shape) >= 2**31:
        raise InputError(
            "cells", "fewer than 2**31 in all", counts.tolist(), "cvt takes any number"
        )

    def find(descriptors: jax.Array) -> jax.Array:
        share = (descriptors - bottom) / (top - bottom)
        place = jnp.clip(jnp.floor(counts * share), 0, counts - 1).astype(jnp.int32)
        return jnp.ravel_multi_index(tuple(place.T), shape, mode="clip")

    side = (top - bottom) / counts
    places = np.indices(shape).reshape(len(shape), -1).T
    return Cells(find, bottom + (places + 0.5) * side, bottom, top, side, counts)


def centroids(
    low: Sequence[float], high: Sequence[float], points: Sequence[Sequence[float]] | jax.Array
) -> Cells:
    """Divide behaviour space among points `[C, k]`: a descriptor belongs to the nearest.

    low, high: corners of the box in which behaviour lies, `[k]`. Raises InputError.
    """
    bottom, top = _box(low, high)
    expected = f"finite points [C, {len(bottom)}], C >= 1"
    centres = _floats("points", points, expected)
    if centres.ndim != 2 or centres.shape[1] != len(bottom) or not centres.size:
        raise InputError("points", expected, f"shape {centres.shape}")
    if not np.isfinite(centres).all():
        raise InputError("points", expected, "NaN or infinity")
    side = (top - bottom) / len(centres) ** (1 / len(bottom))
    return Cells(partial(_nearest, bottom, top, centres), centres, bottom, top, side)


def cvt(low: Sequence[float], high: Sequence[float], num: Count, *, seed: int = 0) -> Cells:
    """Divide a box evenly among `num` centroids: a centroidal Voronoi tessellation, by Lloyd.

    The cells of CVT-MAP-Elites (https://arxiv.org/abs/1610.05729). Raises InputError.
    """
    bottom, top = _box(low, high)
    num = check_count("num", num)
    samples = np.random.default_rng(seed).uniform(bottom, top, (SAMPLES * num, len(bottom)))
    centres = samples[:num]
    for _ in range(ROUNDS):
        owner = scipy.spatial.KDTree(centres).query(samples)[1]
        size = np.bincount(owner, minlength=num)[:, None]
        total = np.stack([np.bincount(owner, each, num) for each in samples.T], axis=1)
        centres = np.where(size > 0, total / np.maximum(size, 1), centres)
    return centroids(low, high, centres.tolist())


def _nearest(
    low: np.ndarray, high: np.ndarray, centres: np.ndarray, descriptors: jax.Array
) -> jax.Array:
    inside = jnp.clip(descriptors, low, high)
    return jnp.argmin(jnp.sum((inside[:, None] - centres) ** 2, axis=-1), axis=1)


def empty(cells: Cells, num_genes: Count) -> Elites:
    """Make an archive without elites."""
    num, num_axes = check_cells(cells).centres.shape
    shape = num, check_count("num_genes", num_genes)
    return Elites(jnp.zeros(shape), jnp.full(num, -jnp.inf), jnp.zeros((num, num_axes)))


def insert(
    cells: Cells,
    elites: Elites,
    points: ArrayLike,
    fitness: ArrayLike,
    descriptors: ArrayLike | None,
) -> tuple[Elites, Added]:
    """Put individuals where they are the fittest of their cells: `[N, D]`, `[N]`, `[N, k]`.

    An elite stays where one that comes is as fit; the first of equals comes in.
    Raises InputError on descriptors of another width than the archive's axes.
    """
    num_genes = elites.points.shape[1]
    expected = f"shape [N, {num_genes}], genomes as the archive has them"
    points = check_array("points", points, expected)
    if points.ndim != 2 or points.shape[1] != num_genes:
        raise InputError("points", expected, points.shape)
    size = len(points)
    fitness = check_array("fitness", fitness, f"shape {(size,)}")
    if fitness.shape != (size,):
        raise InputError("fitness", f"shape {(size,)}", fitness.shape)
    descriptors = check_descriptors(check_cells(cells), descriptors, size)
    rows = points, fitness[:, None], descriptors
    valid = jnp.all(jnp.stack([jnp.all(jnp.isfinite(each), axis=1) for each in rows]), axis=0)
    fitness = jnp.where(valid, fitness, -jnp.inf).astype(elites.fitness.dtype)
    cell = cells.find(jnp.where(valid[:, None], descriptors, 0))
    num = len(elites.fitness)
    highest = jax.ops.segment_max(fitness, cell, num)[cell]
    comes = (fitness == highest) & (fitness > elites.fitness[cell])
    first = jax.ops.segment_min(jnp.where(comes, jnp.arange(size), size), cell, num)
    row = jnp.where(first < size, first, -1)
    new = Elites(points, fitness, descriptors)
    elites = jax.tree.map(lambda old, come: take(row, come, old), elites, new)
    return elites, Added(row, jnp.sum(~valid))


def take(row: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Put rows of `[N, ...]` into the cells that they took, `Added.row`; the others stay."""
    taken = jnp.expand_dims(row >= 0, tuple(range(1, new.ndim)))
    return jnp.where(taken, new[row], old).astype(old.dtype)


def draw(key: jax.Array, fitness: jax.Array, num: int) -> jax.Array:
    """Draw indices of elites evenly, with replacement, `[C]` to `[num]`; any where none is."""
    alive = fitness > -jnp.inf
    rank = jax.random.randint(key, (num,), 1, jnp.sum(alive) + 1)
    return jnp.searchsorted(jnp.cumsum(alive), rank)  # the rank-th elite


def qd_score(elites: Elites, *, offset: float | jax.Array = 0.0) -> jax.Array:
    """Add up the elites' fitness, `[]`.

    offset: the least fitness that there can be, which is subtracted from each.
    """
    return jnp.sum(jnp.where(elites.fitness > -jnp.inf, elites.fitness - offset, 0))


def coverage(elites: Elites) -> jax.Array:
    """Return the share of the cells that hold an elite, `[]`."""
    return jnp.mean(elites.fitness > -jnp.inf)


def archive_info(
    population: jax.Array, fitness: jax.Array, elites: Elites, added: Added
) -> ArchiveInfo:
    """Describe a generation, `[N, D]` and `[N]`, and the archive that it went into."""
    score = qd_score(elites) / len(elites.fitness)
    return ArchiveInfo(population, fitness, added.num_invalid, score, coverage(elites), elites)


def check_cells(cells: Any) -> Cells:
    """Return how behaviour space is divided; raise InputError on anything else."""
    if not isinstance(cells, Cells):
        expected = "cells, such as de.archives.grid(low, high, cells)"
        raise InputError("archive", expected, f"{cells!r:.80}")
    return cells


def check_descriptors(cells: Cells, descriptors: Any, size: int) -> jax.Array:
    """Return descriptors; raise InputError unless they are `[N, k]` of the archive's k axes."""
    shape = (size, cells.centres.shape[1])
    seen = None if descriptors is None else jnp.shape(descriptors)
    if seen != shape:
        raise InputError(
            "descriptors",
            f"shape {shape}, a row for each individual and a column for each of the archive's axes",
            seen,
            TELL_BEHAVIOUR,
        )
    return jnp.asarray(descriptors)


def to_pyribs(cells: Cells, elites: Elites) -> Any:
    """Make pyribs' archive of the same cells and elites; `pip install ribs`.

    A grid becomes its `GridArchive`, centroids its `CVTArchive`. Raises InputError under `jit`.
    """
    from ribs import archives as ribs  # pyright: ignore[reportMissingImports]

    fitness = concrete(elites.fitness)
    if fitness is None:
        raise InputError("elites", "arrays that are known", "traced ones")
    ranges = list(zip(cells.low.tolist(), cells.high.tolist(), strict=True))
    settings: Any = {"solution_dim": elites.points.shape[1], "ranges": ranges}
    if cells.counts is None:
        archive = ribs.CVTArchive(centroids=cells.centres, **settings)
    else:
        archive = ribs.GridArchive(dims=cells.counts.tolist(), **settings)
    there = fitness > -math.inf
    archive.add(*(np.asarray(each)[there] for each in elites))
    return archive


def _box(low: Sequence[float], high: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    expected = "low < high, one of each for every axis"
    ends = (
        np.atleast_1d(_floats("low", low, expected)),
        np.atleast_1d(_floats("high", high, expected)),
    )
    ok = ends[0].shape == ends[1].shape and ends[0].ndim == 1 and ends[0].size > 0
    if not ok or not (ends[0] < ends[1]).all():
        raise InputError("low", expected, f"{low} and {high}")
    if not np.isfinite(ends).all():
        raise InputError("low", "a finite box", f"{low} and {high}")
    return ends


def _floats(name: str, values: Any, expected: str) -> np.ndarray:
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError):
        raise InputError(name, expected, f"{values!r:.60}") from None
