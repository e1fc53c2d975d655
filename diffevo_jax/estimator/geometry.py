"""Squared distances as exponents of two, in the cheapest form that is exact enough.

Weights are w_ij = 2^(bits_j - |u_i - v_j|^2), in coordinates u and v that absorb the Gaussian's
width: term by term for few dimensions, by a matmul above, where its rounding stays small.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.estimator.exp2 import LOG2E
from diffevo_jax.estimator.types import Frame, Problem

# Up to here squared distances are summed term by term at no cost; above, a matmul is faster.
DIRECT_DIMENSIONS = 16
# The matmul is taken while float32's rounding of |z|^2 stays below this many nats of log weight.
MATMUL_ROUNDING = 1e-5


class Geometry(NamedTuple):
    """Exponents of two, bits_j + term(query, key)_ji - offset_i.

    term: (queries `[d, n]`, keys `[m, d]`) -> `[m, n]`. offset: `[N]`, leaves the estimate as it is
    and only counts for the evidence.
    """

    query: jax.Array
    key: jax.Array
    bits: jax.Array
    offset: jax.Array
    term: Callable[[jax.Array, jax.Array], jax.Array]


def by_matmul(problem: Problem) -> jax.Array:
    """Whether distances are taken by a matmul, `[]`."""
    if problem.query.shape[1] <= DIRECT_DIMENSIONS:
        return jnp.asarray(False)
    # The expanded square cancels where |z|^2 is large beside 1 - alpha.
    rounding = jnp.finfo(problem.key.dtype).eps * longest(problem) * (2 / LOG2E)
    return rounding <= MATMUL_ROUNDING


def longest(problem: Problem) -> jax.Array:
    """The largest |v_j|^2."""
    return frame(problem).longest * problem.alpha * LOG2E / (2 * problem.one_minus_alpha)


def scaled(problem: Problem) -> tuple[jax.Array, jax.Array]:
    """u `[N, d]` and v `[M, d]`: |u_i - v_j|^2 = log2(e) |z_i - sqrt(a) z_j|^2 / (2 (1 - a)).

    About a middle m, z_i - sqrt(a) z_j = (z_i - m) + (1 - sqrt a) m - sqrt(a) (z_j - m): the
    scale multiplies distances from the population, not from the origin, and keeps their digits.
    """
    query, key = problem.query, problem.key
    scale = jnp.sqrt(LOG2E / (2 * problem.one_minus_alpha))
    root = jnp.sqrt(problem.alpha)
    shrink = problem.one_minus_alpha / (1 + root)  # 1 - sqrt(a)
    middle = frame(problem).middle
    return scale * ((query - middle) + shrink * middle), scale * root * (key - middle)


def frame(problem: Problem) -> Frame:
    """Where the keys are.

    The middle is their mean to a power of two near the spread: sums that round otherwise, on other
    numbers of devices, find the same.
    """
    if problem.frame is not None:
        return problem.frame
    key = jax.lax.stop_gradient(problem.key)
    mean, variance = jnp.mean(key, axis=0), jnp.var(key, axis=0)
    spread = jnp.sqrt(jnp.mean(variance))
    grid = jnp.exp2(jnp.floor(jnp.log2(jnp.where(spread > 0, spread, 1))))
    middle = jnp.where(spread > 0, grid * jnp.round(mean / grid), mean)
    longest = jnp.max(jnp.sum((key - middle) ** 2, axis=1))
    return Frame(middle, spread, longest, variance + (mean - middle) ** 2)


def direct(problem: Problem) -> Geometry:
    """-|u_i - v_j|^2, term by term."""
    u, v = scaled(problem)
    dim = u.shape[1]

    def minus_squares(start, query, key):
        for j in range(len(query)):
            start = start - (query[None, j] - key[:, None, j]) ** 2
        return start

    def term(query, key):
        nothing = jnp.zeros((len(key), query.shape[1]), key.dtype)
        if dim <= DIRECT_DIMENSIONS:
            return minus_squares(nothing, query, key)
        # As many dimensions a pass over the tile as hide its reading and writing.
        passes = -(-dim // DIRECT_DIMENSIONS)
        missing = (0, passes * DIRECT_DIMENSIONS - dim)
        queries = jnp.pad(query, (missing, (0, 0))).reshape(passes, DIRECT_DIMENSIONS, -1)
        keys = jnp.pad(key, ((0, 0), missing)).reshape(-1, passes, DIRECT_DIMENSIONS)

        def add(total, group):
            return minus_squares(total, *group), None

        return jax.lax.scan(add, nothing, (queries, jnp.swapaxes(keys, 0, 1)))[0]

    return Geometry(u, v, LOG2E * problem.log_weight, jnp.zeros(len(u), u.dtype), term)


def expanded(problem: Problem) -> Geometry:
    """2 u_i v_j - |v_j|^2, and |u_i|^2 apart.

    |u_i|^2 and the mean of |v_j|^2 are the same for all keys and go into the offset. What is left
    is of size sqrt(d), not d, and so are its rounding errors. The mean is that of the frame: where
    keys are a share, the other shares have the same offset.
    """
    u, v = scaled(problem)
    mean = frame(problem).squares * problem.alpha * LOG2E / (2 * problem.one_minus_alpha)
    bits = LOG2E * problem.log_weight - jnp.sum(v**2 - mean, axis=1)
    offset = jnp.sum(u**2, axis=1) + jnp.sum(mean)

    def term(query, key):
        return jnp.matmul(key, query, precision=jax.lax.Precision.HIGHEST)

    return Geometry(2 * u, v, bits, offset, term)
