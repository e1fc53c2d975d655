"""The posterior mean by tiles: exact, O(N) memory, XLA on every platform.

Two forms of the same sums, chosen by the number of genes D:

few genes   queries in blocks, keys in blocks inside them: a tile of weights `[keys, queries]` stays
            in cache and meets the genomes as `[D + 1, keys] @ [keys, queries]`.
many genes  a block of queries against all keys: a softmax, then one matmul with the genomes.

Weights are powers of two, w_ij = 2^(b_j - s r_ij^2 - shift_i). Where a bound says that one shift
per query keeps them inside float32's exponents, no running maximum is needed; elsewhere the shift
is the running maximum, and the sums so far are rescaled with it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.estimator.types import Posterior, Problem

# A tile of 512 x 512 float32 is 1 MiB, about a core's second-level cache.
QUERY_BLOCK = 512
KEY_BLOCK = 512
# From here on one large matmul with the genomes is faster (N = 4096: equal at 1024 on 2 cores).
MANY_GENES = 1024
# There a block of weights `[queries, M]` takes at most this many numbers (16 MiB).
SOFTMAX_ELEMENTS = 2**22
# Up to here squared distances are summed term by term at no cost; above, a matmul is faster.
DIRECT_DIMENSIONS = 16
# The matmul is taken while float32's rounding of |z|^2 stays below this many nats of log weight.
MATMUL_ROUNDING = 1e-4

_HIGHEST = jax.lax.Precision.HIGHEST
_LOG2E = math.log2(math.e)
# Of float32's exponents, -126 to 127: how far the largest weight may lie above the shift (the rest
# is room for a sum of 2^27), and how far below it the query's own, with 24 bits to spare.
_BITS_ABOVE, _BITS_BELOW = 100, 100
_LEAST = -1e30  # a shift below every exponent, finite so that differences of shifts are


class _Geometry(NamedTuple):
    """Exponents of two, b_ij = bits_j + term(query, key)_ji - offset_i.

    term: (`[n, d]`, `[m, d]`) -> `[m, n]`. offset: `[N]`, leaves the estimate as it is and only
    counts for the evidence.
    """

    query: jax.Array
    key: jax.Array
    bits: jax.Array
    offset: jax.Array
    term: Callable[[jax.Array, jax.Array], jax.Array]


def posterior(
    problem: Problem, *, query_block: int | None = None, key_block: int | None = None
) -> Posterior:
    """Posterior of every query of `problem`.

    query_block, key_block: sizes of a tile; None takes the module's, cut to N and M. With many
    genes (D >= MANY_GENES) a tile holds all keys.
    """
    query, key = problem.query, problem.key
    fitting = max(1, SOFTMAX_ELEMENTS // len(key))

    def solve(geometry: _Geometry) -> Posterior:
        if problem.value.shape[1] >= MANY_GENES:
            size = query_block or min(QUERY_BLOCK, fitting)
            return _by_softmax(problem, geometry, min(size, len(query)))
        size, keys = query_block or QUERY_BLOCK, key_block or KEY_BLOCK
        return _by_tiles(problem, geometry, min(size, len(query)), min(keys, len(key)))

    if query.shape[1] <= DIRECT_DIMENSIONS:
        return solve(_direct(problem))
    # The expanded square cancels where |z|^2 is large beside 1 - alpha.
    centred = key - jnp.mean(key, axis=0)
    largest = jnp.max(jnp.sum(centred**2, axis=1))
    rounding = jnp.finfo(key.dtype).eps * largest / problem.one_minus_alpha
    return jax.lax.cond(
        rounding <= MATMUL_ROUNDING,
        lambda: solve(_by_matmul(problem)),
        lambda: solve(_direct(problem)),
    )


def _direct(problem: Problem) -> _Geometry:
    """-s |z_i - sqrt(alpha) z_j|^2, term by term."""
    dim = problem.query.shape[1]
    scale = _LOG2E / (2 * problem.one_minus_alpha)
    # z_i - sqrt(a) z_j = (z_i - z_j) + (1 - sqrt a) z_j: near alpha = 1 this keeps every digit.
    shrink = problem.one_minus_alpha / (1 + jnp.sqrt(problem.alpha))

    def term(query, key):
        def square(j):
            return (query[None, :, j] - key[:, None, j] + shrink * key[:, None, j]) ** 2

        if dim <= DIRECT_DIMENSIONS:
            return -scale * sum((square(j) for j in range(1, dim)), square(0))
        zero = jnp.zeros((len(key), len(query)), key.dtype)
        return -scale * jax.lax.fori_loop(0, dim, lambda j, total: total + square(j), zero)

    offset = jnp.zeros(len(problem.query), problem.query.dtype)
    return _Geometry(problem.query, problem.key, _LOG2E * problem.log_weight, offset, term)


def _by_matmul(problem: Problem) -> _Geometry:
    """s (2 u_i v_j - |v_j|^2) - s |u_i|^2, about the keys' centre.

    |u_i|^2 and the mean of |v_j|^2 are the same for all keys and go into the offset. What is left
    is of size sqrt(d), not d, and so are its rounding errors.
    """
    query, key = problem.query, problem.key
    scale = _LOG2E / (2 * problem.one_minus_alpha)
    root = jnp.sqrt(problem.alpha)
    centre = jnp.mean(key, axis=0)
    u, v = query - root * centre, root * (key - centre)
    mean = jnp.mean(v**2, axis=0)
    bits = _LOG2E * problem.log_weight - scale * jnp.sum(v**2 - mean, axis=1)
    offset = scale * (jnp.sum(u**2, axis=1) + jnp.sum(mean))

    def term(query, key):
        return jnp.matmul(key, query.T, precision=_HIGHEST)

    return _Geometry(2 * scale * u, v, bits, offset, term)


def _by_tiles(problem: Problem, geometry: _Geometry, query_block: int, key_block: int) -> Posterior:
    """Few genes: sums over tiles of keys and queries."""
    value = problem.value
    n, genes = len(geometry.query), value.shape[1]
    # Averaging x - mean(x) keeps rounding relative to the spread; the last row sums the weights.
    centre = jnp.mean(value, axis=0)
    rows = jnp.concatenate([value - centre, jnp.ones((len(value), 1), value.dtype)], axis=1)
    supports = (
        _blocks(geometry.key, key_block),
        _blocks(geometry.bits, key_block, constant_values=-jnp.inf),
        jnp.swapaxes(_blocks(rows, key_block), 1, 2),
    )
    nothing = (
        jnp.zeros((genes + 1, query_block), value.dtype),
        jnp.zeros(query_block, value.dtype),
    )

    def add(sums, w, rows):
        total, squares = sums
        return total + jnp.matmul(rows, w, precision=_HIGHEST), squares + jnp.sum(w**2, axis=0)

    def with_one_shift(query, shift):
        def tile(sums, support):
            key, bits, rows = support
            b = bits[:, None] - shift + geometry.term(query, key)
            return add(sums, exp2(b), rows), None

        return (*jax.lax.scan(jax.checkpoint(tile), nothing, supports)[0], shift)

    def with_running_shift(query, _):
        def tile(carry, support):
            (total, squares), shift = carry
            key, bits, rows = support
            b = bits[:, None] + geometry.term(query, key)
            # Shifts cancel in the result, so they need no gradient.
            higher = jnp.maximum(shift, jax.lax.stop_gradient(jnp.max(b, axis=0)))
            fade = exp2(shift - higher)
            return (add((total * fade, squares * fade**2), _below(b, higher), rows), higher), None

        start = nothing, jnp.full(query_block, _LEAST, value.dtype)
        sums, shift = jax.lax.scan(jax.checkpoint(tile), start, supports)[0]
        return (*sums, shift)

    def block(args):
        query, shift, enough = args
        return jax.lax.cond(jnp.all(enough), with_one_shift, with_running_shift, query, shift)

    shift, enough = _one_shift(problem)
    shift = jax.lax.stop_gradient(shift + geometry.offset)
    arrays = (geometry.query, shift, enough)
    queries = tuple(_blocks(array, query_block, mode="edge") for array in arrays)
    sums, squares, shift = jax.lax.map(block, queries)
    sums = jnp.swapaxes(sums, 1, 2).reshape(-1, genes + 1)[:n]
    shift = shift.ravel()[:n] - geometry.offset
    nobody = sums[:, genes] == 0
    total = jnp.where(nobody, 1, sums[:, genes])
    squares = jnp.where(nobody, 1, squares.ravel()[:n])
    return Posterior(
        x0=centre + sums[:, :genes] / total[:, None],
        log_evidence=jnp.where(nobody, -jnp.inf, jnp.log(total) + shift / _LOG2E),
        effective_sample_size=jnp.where(nobody, 0, total**2 / squares),
    )


def _by_softmax(problem: Problem, geometry: _Geometry, query_block: int) -> Posterior:
    """Many genes: a block of queries against all keys, then one matmul with the genomes.

    Passes over `[M, D]` cost as much as the rest, so the genomes are neither centred nor padded
    with ones: weights that sum to 1 leave rounding errors of the size of the genomes' own.
    """
    n = len(geometry.query)

    def block(query):
        # [queries, keys]: the matmul with the genomes is slower by a third the other way round.
        b = (geometry.bits[:, None] + geometry.term(query, geometry.key)).T
        shift = jnp.maximum(jax.lax.stop_gradient(jnp.max(b, axis=1)), _LEAST)
        w = _below(b, shift[:, None])
        total = jnp.sum(w, axis=1)
        w = w / jnp.where(total == 0, 1, total)[:, None]
        squares = jnp.sum(w**2, axis=1)
        return jnp.matmul(w, problem.value, precision=_HIGHEST), total, squares, shift

    x0, total, squares, shift = jax.lax.map(
        jax.checkpoint(block), _blocks(geometry.query, query_block, mode="edge")
    )
    total, squares, shift = (array.ravel()[:n] for array in (total, squares, shift))
    nobody = total == 0
    log_evidence = jnp.log(jnp.where(nobody, 1, total)) + (shift - geometry.offset) / _LOG2E
    return Posterior(
        x0=x0.reshape(-1, x0.shape[-1])[:n],
        log_evidence=jnp.where(nobody, -jnp.inf, log_evidence),
        effective_sample_size=jnp.where(nobody, 0, 1 / jnp.where(nobody, 1, squares)),
    )


def _one_shift(problem: Problem) -> tuple[jax.Array, jax.Array]:
    """A shift for each query, and whether it holds all of the query's weights in range, `[N]`.

    Its own weight is a lower bound on a query's largest; the upper bound puts the heaviest key as
    near as any key can be.
    """
    query, key = problem.query, problem.key
    if not problem.same:
        return jnp.zeros(len(query), query.dtype), jnp.zeros(len(query), bool)
    scale = _LOG2E / (2 * problem.one_minus_alpha)
    shrink = problem.one_minus_alpha / (1 + jnp.sqrt(problem.alpha))
    bits = _LOG2E * problem.log_weight
    length = jnp.sqrt(jnp.sum(query**2, axis=1))
    furthest = jnp.sqrt(problem.alpha * jnp.max(jnp.sum(key**2, axis=1)))
    low = bits - scale * (shrink * length) ** 2
    high = jnp.max(bits) - scale * jnp.maximum(length - furthest, 0) ** 2
    # False, too, where nobody has weight: inf - inf is NaN.
    return jnp.maximum(low, high - _BITS_ABOVE), high - low <= _BITS_ABOVE + _BITS_BELOW


def _below(b: jax.Array, peak: jax.Array) -> jax.Array:
    """2^(b - peak), at most 1: XLA may round b otherwise here than in the maximum it took of it."""
    below = b - peak
    return exp2(below - jax.lax.stop_gradient(jnp.maximum(below, 0)))


def _blocks(array: jax.Array, size: int, **pad) -> jax.Array:
    """Cut a leading axis into blocks of `size`; `pad` says how `jnp.pad` fills the last one."""
    count = -(-len(array) // size)
    missing = [(0, count * size - len(array))] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, missing, **pad).reshape(count, size, *array.shape[1:])


@jax.custom_jvp
def exp2(x: jax.Array) -> jax.Array:
    """2^x for x <= 127; 0 below -126.5. On a CPU twice as fast as XLA's, to 1e-7 in float32."""
    if x.dtype != jnp.float32:
        return jnp.exp2(x)
    return jax.lax.platform_dependent(x, cpu=_exp2_polynomial, default=jnp.exp2)


@exp2.defjvp
def _exp2_jvp(primals, tangents):
    y = exp2(*primals)
    return y, y * (math.log(2) * tangents[0])


def _exp2_polynomial(x: jax.Array) -> jax.Array:
    x = jnp.maximum(x, -127)
    whole = jnp.round(x)
    part = x - whole
    power = jnp.full_like(x, _EXP2_COEFFICIENTS[0])
    for coefficient in _EXP2_COEFFICIENTS[1:]:
        power = power * part + coefficient
    exponent = (whole.astype(jnp.int32) + 127) << 23  # 2^whole by its bits; 0 at -127
    return power * jax.lax.bitcast_convert_type(exponent, jnp.float32)


# Least relative error on [-1/2, 1/2], by Lawson's iteration: 7.5e-8 before rounding.
_EXP2_COEFFICIENTS = (
    0.0013276466634124517,
    0.009675540961325169,
    0.05550713464617729,
    0.24022120237350464,
    0.6931469440460205,
    1.0000001192092896,
)
