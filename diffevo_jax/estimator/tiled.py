"""The posterior mean by tiles: exact, O(N) memory, XLA on every platform.

Two forms of the same sums, chosen by the number of genes D:

few genes   queries in blocks, keys in blocks inside them: a tile of weights `[keys, queries]` stays
            in cache and meets the genomes as `[D + 1, keys] @ [keys, queries]`.
many genes  a block of queries against all keys: a softmax, then one matmul with the genomes.

Weights are powers of two, w_ij = 2^(bits_j - |u_i - v_j|^2 - shift_i), see `geometry`. Where a
bound says that one shift per query keeps them inside float32's exponents, no running maximum is
needed; elsewhere the shift is the running maximum, and the sums so far are rescaled with it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.estimator.exp2 import LOG2E, exp2
from diffevo_jax.estimator.geometry import (
    DIRECT_DIMENSIONS,
    Geometry,
    by_matmul,
    direct,
    expanded,
    longest,
    scaled,
)
from diffevo_jax.estimator.types import Part, Problem

# From here on one large matmul with the genomes is faster (N = 4096: equal at 1024 on 2 cores).
MANY_GENES = 1024

_HIGHEST = jax.lax.Precision.HIGHEST
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


class _Sums(NamedTuple):
    """Over the supports, for a block of queries: of w (x - centre) and w, of w^2; their shift."""

    total: jax.Array
    squares: jax.Array
    shift: jax.Array


def part(problem: Problem, *, blocks: Blocks | None = None) -> Part:
    """Average over the supports at every query; None takes `SMALL` up to its 1024, then `CPU`."""
    if blocks is None:
        blocks = SMALL if len(problem.query) <= SMALL.query else CPU

    def solve(geometry: Geometry) -> Part:
        return _solve(problem, geometry, blocks)

    return _with_geometry(problem, solve, _choose)


def given_evidence(problem: Problem, log_evidence: jax.Array) -> Part:
    """The same by the plainest sums there are, for derivatives.

    log_evidence: of all supports, `[N]`; as the shift it keeps every weight at 1 or below, so
    that no bound, maximum or loop that ends early stands between the arguments and the sums.
    """
    if has_many_genes(problem):
        value = jnp.where(finite_rows(problem.value)[:, None], problem.value, 0)
        problem = problem._replace(value=value)
    blocks = CPU if jax.default_backend() == "cpu" else ACCELERATOR
    shift = jax.lax.stop_gradient(jnp.where(jnp.isneginf(log_evidence), 0, log_evidence) * LOG2E)

    def solve(geometry: Geometry) -> Part:
        return _solve(problem, geometry, blocks, shift)

    return _with_geometry(problem, solve, jax.lax.cond)


def _with_geometry(problem: Problem, solve: Callable[[Geometry], Part], choose: Callable) -> Part:
    """`solve` with the cheapest geometry that is exact enough."""
    if problem.query.shape[1] <= DIRECT_DIMENSIONS:
        return solve(direct(problem))
    return choose(
        by_matmul(problem), lambda: solve(expanded(problem)), lambda: solve(direct(problem))
    )


def has_many_genes(problem: Problem) -> bool:
    """Whether averages are taken by one large matmul."""
    return problem.value.shape[1] >= MANY_GENES


def _solve(problem: Problem, geometry: Geometry, blocks: Blocks, shift=None) -> Part:
    n, m = len(problem.query), len(problem.key)
    if has_many_genes(problem):
        return _by_softmax(problem, geometry, min(max(1, blocks.softmax // m), n), shift)
    return _by_tiles(problem, geometry, min(blocks.query, n), min(blocks.key, m), shift)


def _by_tiles(problem, geometry, query_block: int, key_block: int, shift) -> Part:
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
            b = (bits[:, None] + geometry.term(query, key)) - shift
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
    some, squares = jnp.where(nobody, 1, weight), jnp.where(nobody, 1, squares)
    return Part(
        x0=centre + total[:, :genes] / some[:, None],
        weight=weight,
        shift=shift,
        offset=geometry.offset,
        effective_sample_size=jnp.where(nobody, 0, some**2 / squares),
    )


def _by_softmax(problem, geometry, query_block: int, shift) -> Part:
    """Many genes: a block of queries against all keys, then one matmul with the genomes.

    Passes over `[M, D]` cost as much as the rest, so the genomes are neither centred nor padded
    with ones: weights that sum to 1 leave rounding errors of the size of the genomes' own.
    """
    n, base = len(geometry.query), jnp.zeros_like(geometry.offset)
    if problem.log_floor is not None:
        # Weights are relative to the floor where it is far above the Gaussians: beside an offset of
        # d terms they would lose their digits.
        base = jax.lax.stop_gradient(geometry.offset + LOG2E * problem.log_floor)
        base = jnp.maximum(base, 0)
    offset = geometry.offset - base

    def block(args):
        query, base, offset, *given = args
        # [queries, keys]: the matmul with the genomes is slower by a third the other way round.
        terms = [(geometry.bits[:, None] + geometry.term(query, geometry.key)).T]
        if problem.log_floor is not None:
            floor = (offset + LOG2E * problem.log_floor)[:, None]
            terms = [terms[0] - base[:, None], LOG2E * problem.log_weight + floor]
        peaks = [jnp.max(b, axis=1) for b in terms]
        (shift,) = given or (jnp.maximum(functools.reduce(jnp.maximum, peaks), _LEAST),)
        w = sum(_below(b, shift[:, None]) for b in terms)
        weight = jnp.sum(w, axis=1)
        w = w / jnp.where(weight == 0, 1, weight)[:, None]
        squares = jnp.sum(w**2, axis=1)
        # A loop has no derivative backwards: there, the genomes come clean.
        average = jnp.matmul(w, problem.value, precision=problem.precision)
        if not given:
            average = without_bad_genomes(problem, w, average)
        return average, weight, squares, shift

    rows = [base, offset]
    if shift is not None:
        rows.append(shift + jax.lax.stop_gradient(offset))
    blocks = [_query_blocks(geometry.query, query_block)]
    blocks += [_blocks(row, query_block, mode="edge") for row in rows]
    if query_block == n:  # a loop of one round would copy its result
        sums = block([array[0] for array in blocks])
        x0, weight, squares, shift = (array[None] for array in sums)
    else:
        x0, weight, squares, shift = jax.lax.map(jax.checkpoint(block), blocks)
    weight, squares, shift = (array.ravel()[:n] for array in (weight, squares, shift))
    nobody = weight == 0
    return Part(
        x0=x0.reshape(-1, x0.shape[-1])[:n],
        weight=weight,
        shift=shift,
        offset=offset,
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
    length = jnp.sqrt(jnp.sum(scaled(problem)[0] ** 2, axis=1))
    furthest = jnp.sqrt(longest(problem))
    low = LOG2E * problem.own_weight()
    high = LOG2E * jnp.max(problem.log_weight) - jnp.maximum(length - furthest, 0) ** 2
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
