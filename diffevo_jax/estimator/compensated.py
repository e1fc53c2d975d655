"""Estimates that float32's rounding of distances would show in, taken again more exactly.

An individual whose own weight is zero, or far below that of others, is estimated from far ones.
Their log weights are large, of 1e2 to 1e6 nats, so that float32 rounds them by 1e-5 to 1e-1 nats,
and this decides who is weighed how. Such rows are few or none: they are found from the result, and
their heaviest supports' distances are summed again in pairs of float32 that together carry 48 bits.

Where each device of a mesh holds a share of the supports, the rows of all devices go to every one,
for they are few, and the sums over its own supports come back.
"""

import functools

import jax
import jax.numpy as jnp

from diffevo_jax.estimator import collectives, tiled
from diffevo_jax.estimator.exp2 import LOG2E, exp2
from diffevo_jax.estimator.geometry import by_matmul, direct, frame
from diffevo_jax.estimator.types import Posterior, Problem

# Rows whose error is estimated to be above this, in units of the population's spread.
TOLERANCE = 2e-6
# Rows taken at a time, and the numbers that a block of their weights `[rows, M]` takes at most.
ROWS = 64
ELEMENTS = 2**22
# Supports of a row that are taken again: where more share the weight, their errors average out.
CANDIDATES = 16

_LEAST = -1e30
_HIGHEST = jax.lax.Precision.HIGHEST


def refine(problem: Problem, posterior: Posterior) -> Posterior:
    """`posterior` with the rows that need it taken again; the others as they are.

    A loop over blocks of such rows, none where none needs it, also under `vmap`.
    """
    if problem.value.dtype != jnp.float32:
        return posterior
    n, axes = len(problem.query), problem.axes
    devices = jax.lax.axis_size(axes) if axes else 1
    rows = max(1, min(ROWS // devices, n, ELEMENTS // (devices * len(problem.key))))

    def some_left(carry):
        rounds, _, _ = carry
        return rounds > 0

    def take_again(carry):
        rounds, left, posterior = carry
        chosen, row = jax.lax.top_k(left.astype(jnp.float32), rows)
        better = _posterior(problem, problem.query[row])

        def put(old, new):
            wanted = jnp.reshape(chosen > 0, (rows,) + (1,) * (new.ndim - 1))
            return old.at[row].set(jnp.where(wanted, new, old[row]))

        return rounds - 1, left.at[row].set(False), jax.tree.map(put, posterior, better)

    left = _error(problem, posterior) > TOLERANCE
    # As many rounds on every device: they meet in each.
    rounds = collectives.highest((jnp.sum(left) + rows - 1) // rows, axes)
    return jax.lax.while_loop(some_left, take_again, (rounds, left, posterior))[2]


def _error(problem: Problem, posterior: Posterior) -> jax.Array:
    """The rounding error of x0 to expect, over the spread, `[N]`."""
    key, one_minus_alpha = problem.key, problem.one_minus_alpha
    log_evidence = posterior.log_evidence
    # The neighbours' distance: how far their weight lies below the largest log weight.
    largest = collectives.highest(jnp.max(problem.log_weight), problem.axes)
    nats = largest - log_evidence
    nats = jnp.where(jnp.isfinite(nats), jnp.maximum(nats, 0), 0)
    spread = frame(problem).spread
    distance = jnp.sqrt(2 * one_minus_alpha * nats / key.shape[1])
    error = jnp.finfo(key.dtype).eps * nats
    error *= jnp.minimum(1, distance / jnp.where(spread > 0, spread, 1))
    if problem.own is not None:
        # Who keeps all weight to itself has nothing to mix up.
        own = problem.own_weight()
        error *= -jnp.expm1(jnp.minimum(own - jnp.where(nats > 0, log_evidence, own), 0))
    error = jnp.where(by_matmul(problem), 0, error)
    # Of 1e9 nats float32 drops hundreds, other ones in the weight than in the shift: all is lost.
    lost = jnp.isneginf(log_evidence) & (largest > -jnp.inf)
    return jnp.where(lost, jnp.inf, error)


def _posterior(problem: Problem, query: jax.Array) -> Posterior:
    """Posterior of a device's queries, `[rows, d]`."""
    axes = problem.axes
    query = collectives.every(query, axes).reshape(-1, query.shape[1])
    geometry = direct(problem._replace(query=query))
    b = geometry.bits + geometry.term(geometry.query.T, geometry.key).T
    heavy, column = jax.lax.top_k(b, min(CANDIDATES, b.shape[1]))
    distance = _distance(problem, query[:, None], problem.key[column])
    chosen, heaviest, (first, *references) = _heaviest(
        heavy, (problem.log_weight[column], *distance), axes
    )
    # Relative to the heaviest, for the sums would lose what is gained in numbers of its size.
    further = sum(part - reference for part, reference in zip(distance, references, strict=True))
    scale = LOG2E / (2 * problem.one_minus_alpha)
    bits = LOG2E * (problem.log_weight[column] - first)
    base = jnp.maximum(heaviest, _LEAST)
    exact = jnp.where(jnp.isneginf(heavy), -jnp.inf, bits - scale * further)
    index = jnp.arange(len(query))[:, None]
    b = (b - base).at[index, column].set(jnp.where(chosen, exact, heavy - base))
    terms = [b]
    if problem.log_floor is not None:
        terms.append(LOG2E * (problem.log_weight + problem.log_floor) - base)
    peaks = [collectives.highest(jnp.max(b, axis=1, keepdims=True), axes) for b in terms]
    peak = jnp.maximum(functools.reduce(jnp.maximum, peaks), _LEAST)
    w = sum(exp2(jnp.minimum(b - peak, 0)) for b in terms)
    weight = collectives.total(jnp.sum(w, axis=1), axes)
    nobody = weight == 0
    weight = jnp.where(nobody, 1, weight)
    w = w / weight[:, None]
    squares = jnp.where(nobody, 1, collectives.total(jnp.sum(w**2, axis=1), axes))
    log_evidence = (jnp.log2(weight) + (peak + base)[:, 0]) / LOG2E
    log_evidence = jnp.where(nobody, -jnp.inf, log_evidence)
    return Posterior(
        x0=_average(problem, w),
        log_evidence=collectives.mine(log_evidence, axes),
        effective_sample_size=collectives.mine(jnp.where(nobody, 0, 1 / squares), axes),
    )


def _heaviest(heavy: jax.Array, properties: tuple[jax.Array, ...], axes):
    """Which of each device's heaviest supports are so among all, and the heaviest of all.

    heavy: bits in decreasing order, `[rows, k]`. properties: of the same supports.
    Returns the chosen, `[rows, k]`, the most bits, `[rows, 1]`, and its properties.
    """
    of_all = collectives.every(heavy, axes)  # [P, rows, k]
    ranked = jnp.sort(jnp.moveaxis(of_all, 0, 1).reshape(len(heavy), -1), axis=1, descending=True)
    last = ranked[:, min(CANDIDATES, ranked.shape[1]) - 1, None]
    device = jnp.argmax(of_all[:, :, 0], axis=0)[:, None]
    best = (collectives.every(each[:, :1], axes) for each in properties)
    best = tuple(jnp.take_along_axis(each[:, :, 0].T, device, axis=1) for each in best)
    return heavy >= last, ranked[:, :1], best


def _average(problem: Problem, w: jax.Array) -> jax.Array:
    """The genomes' average with weights `[rows, M]`, about their mean where it costs little."""
    axes = problem.axes
    if tiled.has_many_genes(problem):
        average = jnp.matmul(w, problem.value, precision=problem.precision)
        average = tiled.without_bad_genomes(problem, w, average)
        return collectives.total_of_mine(average, axes)
    middle = collectives.mean(jnp.mean(problem.value, axis=0), axes)
    average = jnp.matmul(w, problem.value - middle, precision=_HIGHEST)
    return middle + collectives.total_of_mine(average, axes)


def _distance(problem: Problem, query, key) -> tuple[jax.Array, jax.Array]:
    """|z_i - sqrt(a) z_j|^2 over the last axis, as a sum of two float32."""
    # 1 - sqrt(a) solves r^2 - 2 r + (1 - a) = 0; one Newton step gives the digits after the first.
    first = problem.one_minus_alpha / (1 + jnp.sqrt(problem.alpha))
    square, rest = _product(first, first)
    residual = ((problem.one_minus_alpha - 2 * first) + square) + rest
    shrink = first, residual / (2 - 2 * first)

    def add(distance, places):
        query, key = places
        difference, error = _sum(query, -key)
        shift, rest = _product(key, shrink[0])
        difference, more = _sum(difference, shift)
        high, low = _sum(difference, error + more + rest + key * shrink[1])
        square, rest = _product(high, high)
        total, error = _sum(distance[0], square)
        return (total, distance[1] + (error + rest + 2 * high * low)), None

    # XLA would fold constants into each other, as if sums were exact.
    places = jax.lax.optimization_barrier((query, key))
    nothing = jnp.zeros(key.shape[:-1])
    places = jax.tree.map(lambda array: jnp.moveaxis(array, -1, 0), places)
    return jax.lax.scan(add, (nothing, nothing), places)[0]


def _sum(a, b) -> tuple[jax.Array, jax.Array]:
    """a + b, and what rounding it leaves (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _product(a, b) -> tuple[jax.Array, jax.Array]:
    """a b, and what rounding it leaves: halves of 12 bits have exact products.

    Exact ones only, for a compiler may fuse a product into the sum that follows without rounding
    it, and halves cut by their bits, for it would likewise undo Veltkamp's splitting.
    """

    def halves(x):
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFFF000)
        high = jax.lax.bitcast_convert_type(bits, jnp.float32)
        return high, x - high

    (a1, a2), (b1, b2) = halves(a), halves(b)
    product, first = _sum(a1 * b1, a1 * b2)
    product, second = _sum(product, a2 * b1)
    product, third = _sum(product, a2 * b2)
    return product, first + second + third
