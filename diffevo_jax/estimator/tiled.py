"""The posterior mean by tiles: exact, O(N) memory, XLA on every platform.

Two forms of the same sums, chosen by the number of genes D:

few genes   queries in blocks, keys in blocks inside them: a tile of weights `[keys, queries]` stays
            in cache and meets the genomes as `[D + 1, keys] @ [keys, queries]`.
many genes  a block of queries against all keys: a softmax, then one matmul with the genomes.

Weights are powers of two, w_ij = 2^(bits_j - |u_i - v_j|^2 - shift_i), in coordinates u and v that
absorb the Gaussian's width. Where a bound says that one shift per query keeps them inside float32's
exponents, no running maximum is needed; elsewhere the shift is the running maximum, and the sums
so far are rescaled with it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.estimator.exp2 import exp2
from diffevo_jax.estimator.types import Posterior, Problem

# From here on one large matmul with the genomes is faster (N = 4096: equal at 1024 on 2 cores).
MANY_GENES = 1024
# Up to here squared distances are summed term by term at no cost; above, a matmul is faster.
DIRECT_DIMENSIONS = 16
# The matmul is taken while float32's rounding of |z|^2 stays below this many nats of log weight.
MATMUL_ROUNDING = 1e-5

_HIGHEST = jax.lax.Precision.HIGHEST
_LOG2E = math.log2(math.e)
# Of float32's exponents, -126 to 127: how far the largest weight may lie above the shift (the rest
# is room for a sum of 2^27), and how far below it the query's own, with 24 bits to spare.
_BITS_ABOVE, _BITS_BELOW = 40, 100
_LEAST = -1e30  # a shift below every exponent, finite so that differences of shifts are


class Blocks(NamedTuple):
    """Sizes of what is in memory at a time, cut to N and M.

    query, key: a tile of weights with few genes. softmax: numbers in a block of weights
    `[queries, M]` with many.
    """

    query: int
    key: int
    softmax: int


# 1 MiB a tile, about a core's second-level cache, and 16 MiB.
CPU = Blocks(512, 512, 2**22)
# A program's memory is new at every call: a small one takes as long to get 1 MiB as to fill it.
SMALL = Blocks(1024, 128, 2**22)
# 64 MiB and 256 MiB: enough work to hide the start of each operation.
ACCELERATOR = Blocks(4096, 4096, 2**26)


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


class _Sums(NamedTuple):
    """Over the supports, for a block of queries: of w (x - centre) and w, of w^2; their shift."""

    total: jax.Array
    squares: jax.Array
    shift: jax.Array


def posterior(problem: Problem, *, blocks: Blocks | None = None) -> Posterior:
    """Posterior of every query of `problem`; None takes `SMALL` up to its 1024, then `CPU`."""
    if blocks is None:
        blocks = SMALL if len(problem.query) <= SMALL.query else CPU

    def solve(geometry: Geometry) -> Posterior:
        return _solve(problem, geometry, blocks)

    return _with_geometry(problem, solve, _choose)


def given_evidence(problem: Problem, log_evidence: jax.Array) -> Posterior:
    """Posterior by the plainest sums there are, for derivatives.

    log_evidence: of the same problem, `[N]`; as the shift it keeps every weight at 1 or below, so
    that no bound, maximum or loop that ends early stands between the arguments and the sums.
    """
    if has_many_genes(problem):
        value = jnp.where(finite_rows(problem.value)[:, None], problem.value, 0)
        problem = problem._replace(value=value)
    blocks = CPU if jax.default_backend() == "cpu" else ACCELERATOR
    shift = jax.lax.stop_gradient(jnp.where(jnp.isneginf(log_evidence), 0, log_evidence) * _LOG2E)

    def solve(geometry: Geometry) -> Posterior:
        return _solve(problem, geometry, blocks, shift)

    return _with_geometry(problem, solve, jax.lax.cond)


def _with_geometry(
    problem: Problem, solve: Callable[[Geometry], Posterior], choose: Callable
) -> Posterior:
    """`solve` with the cheapest geometry that is exact enough."""
    if problem.query.shape[1] <= DIRECT_DIMENSIONS:
        return solve(direct(problem))
    return choose(
        by_matmul(problem), lambda: solve(_matmul(problem)), lambda: solve(direct(problem))
    )


def has_many_genes(problem: Problem) -> bool:
    """Whether averages are taken by one large matmul."""
    return problem.value.shape[1] >= MANY_GENES


def by_matmul(problem: Problem) -> jax.Array:
    """Whether distances are taken by a matmul, `[]`."""
    if problem.query.shape[1] <= DIRECT_DIMENSIONS:
        return jnp.asarray(False)
    # The expanded square cancels where |z|^2 is large beside 1 - alpha.
    _, v = _scaled(problem)
    rounding = jnp.finfo(v.dtype).eps * jnp.max(jnp.sum(v**2, axis=1)) * (2 / _LOG2E)
    return rounding <= MATMUL_ROUNDING


def _scaled(problem: Problem) -> tuple[jax.Array, jax.Array]:
    """u `[N, d]` and v `[M, d]`: |u_i - v_j|^2 = log2(e) |z_i - sqrt(a) z_j|^2 / (2 (1 - a)).

    About the keys' mean m, z_i - sqrt(a) z_j = (z_i - m) + (1 - sqrt a) m - sqrt(a) (z_j - m): the
    scale multiplies distances from the population, not from the origin, and keeps their digits.
    """
    query, key = problem.query, problem.key
    scale = jnp.sqrt(_LOG2E / (2 * problem.one_minus_alpha))
    root = jnp.sqrt(problem.alpha)
    shrink = problem.one_minus_alpha / (1 + root)  # 1 - sqrt(a)
    middle = jnp.mean(key, axis=0)
    return scale * ((query - middle) + shrink * middle), scale * root * (key - middle)


def direct(problem: Problem) -> Geometry:
    """-|u_i - v_j|^2, term by term."""
    u, v = _scaled(problem)
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

    return Geometry(u, v, _LOG2E * problem.log_weight, jnp.zeros(len(u), u.dtype), term)


def _matmul(problem: Problem) -> Geometry:
    """2 u_i v_j - |v_j|^2, and |u_i|^2 apart.

    |u_i|^2 and the mean of |v_j|^2 are the same for all keys and go into the offset. What is left
    is of size sqrt(d), not d, and so are its rounding errors.
    """
    u, v = _scaled(problem)
    mean = jnp.mean(v**2, axis=0)
    bits = _LOG2E * problem.log_weight - jnp.sum(v**2 - mean, axis=1)
    offset = jnp.sum(u**2, axis=1) + jnp.sum(mean)

    def term(query, key):
        return jnp.matmul(key, query, precision=_HIGHEST)

    return Geometry(2 * u, v, bits, offset, term)


def _solve(problem: Problem, geometry: Geometry, blocks: Blocks, shift=None) -> Posterior:
    n, m = len(problem.query), len(problem.key)
    if has_many_genes(problem):
        return _by_softmax(problem, geometry, min(max(1, blocks.softmax // m), n), shift)
    return _by_tiles(problem, geometry, min(blocks.query, n), min(blocks.key, m), shift)


def _by_tiles(problem, geometry, query_block: int, key_block: int, shift) -> Posterior:
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
    nothing = _Sums(
        total=jnp.zeros((genes + 1, query_block), value.dtype),
        squares=jnp.zeros(query_block, value.dtype),
        shift=jnp.full(query_block, _LEAST, value.dtype),
    )

    def add(sums: _Sums, w, rows) -> _Sums:
        total = sums.total + jnp.matmul(rows, w, precision=_HIGHEST)
        return _Sums(total, sums.squares + jnp.sum(w**2, axis=0), sums.shift)

    def with_one_shift(query, shift) -> _Sums:
        def tile(sums: _Sums, support):
            key, bits, rows = support
            b = (bits[:, None] - shift) + geometry.term(query, key)
            return add(sums, exp2(b), rows), None

        return jax.lax.scan(jax.checkpoint(tile), nothing._replace(shift=shift), supports)[0]

    def with_running_shift(query) -> _Sums:
        def tile(sums: _Sums, support):
            key, bits, rows = support
            b = bits[:, None] + geometry.term(query, key)
            higher = jnp.maximum(sums.shift, jnp.max(b, axis=0))
            fade = exp2(sums.shift - higher)
            faded = _Sums(sums.total * fade, sums.squares * fade**2, higher)
            return add(faded, _below(b, higher), rows), None

        return jax.lax.scan(tile, nothing, supports)[0]

    def block(args) -> _Sums:
        query, shift, enough = args
        return _choose(
            enough,
            lambda: with_one_shift(query, shift),
            lambda: with_running_shift(query),
        )

    queries = _query_blocks(geometry.query, query_block)
    if shift is not None:
        shift = shift + jax.lax.stop_gradient(geometry.offset)
        shifts = _blocks(shift, query_block, mode="edge")
        sums = jax.lax.map(lambda args: with_one_shift(*args), (queries, shifts))
    elif problem.own is not None and len(problem.key) > key_block:
        shift, enough = _one_shift(problem, geometry)
        shifts = _blocks(shift, query_block, mode="edge")
        enough = jnp.all(_blocks(enough, query_block, mode="edge"), axis=1)
        sums = jax.lax.map(block, (queries, shifts, enough))
    else:  # nothing bounds the weights, or there is only one tile to take a maximum of
        sums = jax.lax.map(with_running_shift, queries)
    total = jnp.swapaxes(sums.total, 1, 2).reshape(-1, genes + 1)[:n]
    weight, squares, shift = total[:, genes], sums.squares.ravel()[:n], sums.shift.ravel()[:n]
    nobody = weight == 0
    weight, squares = jnp.where(nobody, 1, weight), jnp.where(nobody, 1, squares)
    log_evidence = jnp.log(weight) + (shift - geometry.offset) / _LOG2E
    return Posterior(
        x0=centre + total[:, :genes] / weight[:, None],
        log_evidence=jnp.where(nobody, -jnp.inf, log_evidence),
        effective_sample_size=jnp.where(nobody, 0, weight**2 / squares),
    )


def _by_softmax(problem, geometry, query_block: int, shift) -> Posterior:
    """Many genes: a block of queries against all keys, then one matmul with the genomes.

    Passes over `[M, D]` cost as much as the rest, so the genomes are neither centred nor padded
    with ones: weights that sum to 1 leave rounding errors of the size of the genomes' own.
    """
    n = len(geometry.query)

    def block(args):
        query, *given = args
        # [queries, keys]: the matmul with the genomes is slower by a third the other way round.
        b = (geometry.bits[:, None] + geometry.term(query, geometry.key)).T
        (shift,) = given or (jnp.maximum(jnp.max(b, axis=1), _LEAST),)
        w = _below(b, shift[:, None])
        weight = jnp.sum(w, axis=1)
        w = w / jnp.where(weight == 0, 1, weight)[:, None]
        squares = jnp.sum(w**2, axis=1)
        # A loop has no derivative backwards: there, the genomes come clean.
        average = jnp.matmul(w, problem.value, precision=problem.precision)
        if not given:
            average = without_bad_genomes(problem, w, average)
        return average, weight, squares, shift

    blocks = (_query_blocks(geometry.query, query_block),)
    if shift is not None:
        shift = shift + jax.lax.stop_gradient(geometry.offset)
        blocks += (_blocks(shift, query_block, mode="edge"),)
    x0, weight, squares, shift = jax.lax.map(jax.checkpoint(block), blocks)
    weight, squares, shift = (array.ravel()[:n] for array in (weight, squares, shift))
    nobody = weight == 0
    log_evidence = jnp.log(jnp.where(nobody, 1, weight)) + (shift - geometry.offset) / _LOG2E
    return Posterior(
        x0=x0.reshape(-1, x0.shape[-1])[:n],
        log_evidence=jnp.where(nobody, -jnp.inf, log_evidence),
        effective_sample_size=jnp.where(nobody, 0, 1 / jnp.where(nobody, 1, squares)),
    )


def without_bad_genomes(problem: Problem, w: jax.Array, average: jax.Array) -> jax.Array:
    """The average `[n, D]` with weights `[n, M]`, again where a genome of weight 0 is not finite.

    0 times NaN is NaN. Many genes are cleaned here, where they are bad, since a pass over `[M, D]`
    costs as much as the rest: a loop that is not entered and, by its barrier, not moved out of.
    """

    def again(carry):
        bad, _ = carry
        value, bad = jax.lax.optimization_barrier((problem.value, bad))
        value = jnp.where(finite_rows(value)[:, None], value, 0)
        return jnp.zeros_like(bad), jnp.matmul(w, value, precision=problem.precision)

    bad = ~jnp.all(finite_rows(problem.value))
    return jax.lax.while_loop(lambda carry: carry[0], again, (bad, average))[1]


def finite_rows(array: jax.Array) -> jax.Array:
    """Which rows hold nothing but finite numbers."""
    return jnp.all(jnp.isfinite(array), axis=1)


def _one_shift(problem: Problem, geometry: Geometry) -> tuple[jax.Array, jax.Array]:
    """A shift for each query, and whether it holds all of the query's weights in range, `[N]`.

    Its own weight is a lower bound on a query's largest; the upper bound puts the heaviest key as
    near as any key can be.
    """
    u, v = _scaled(problem)
    length = jnp.sqrt(jnp.sum(u**2, axis=1))
    furthest = jnp.sqrt(jnp.max(jnp.sum(v**2, axis=1)))
    low = _LOG2E * problem.own_weight()
    high = _LOG2E * jnp.max(problem.log_weight) - jnp.maximum(length - furthest, 0) ** 2
    # False, too, where nobody has weight: inf - inf is NaN.
    enough = high - low <= _BITS_ABOVE + _BITS_BELOW
    return jnp.maximum(low, high - _BITS_ABOVE) + geometry.offset, enough


def _choose(wanted: jax.Array, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """`lax.cond` whose branches do not all run under `vmap`: one that nobody takes is skipped."""

    def once(take, run, result):
        def body(_):
            return jnp.zeros_like(take), run()

        return jax.lax.while_loop(lambda carry: carry[0], body, (take, result))[1]

    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(yes))
    return once(~wanted, no, once(wanted, yes, nothing))


def _below(b: jax.Array, peak: jax.Array) -> jax.Array:
    """2^(b - peak), at most 1: XLA may round b otherwise here than in the maximum it took of it."""
    below = b - peak
    return exp2(below - jax.lax.stop_gradient(jnp.maximum(below, 0)))


def _query_blocks(query: jax.Array, size: int) -> jax.Array:
    """`[N, d]` as `[blocks, d, size]`: queries along the lanes."""
    return jnp.swapaxes(_blocks(query, size, mode="edge"), 1, 2)


def _blocks(array: jax.Array, size: int, **pad) -> jax.Array:
    """Cut a leading axis into blocks of `size`; `pad` says how `jnp.pad` fills the last one."""
    count = -(-len(array) // size)
    missing = [(0, count * size - len(array))] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, missing, **pad).reshape(count, size, *array.shape[1:])
