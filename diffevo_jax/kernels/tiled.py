"""The sums by tiles: exact, O(N) memory, XLA on every platform.

Two forms of the same sums, chosen by the number of genes D:

few genes   queries in blocks, supports in blocks inside them: a tile of weights
            `[supports, queries]` stays in cache and meets the genomes as
            `[D + 1, supports] @ [supports, queries]`.
many genes  a block of queries against all supports: a softmax, then one matmul with the genomes.

Weights are powers of two, w_ij = 2^(slope (|z_i - z_j|^2 + handicap_j) - shift_i), where a handicap
is the squared distance that makes a support weigh as little as its log weight does. The shift is a
query's largest exponent, that of the support nearest with its handicap. In few dimensions a pass of
its own looks for it, in a fifth of the time; in many the distances are kept from one pass to the
next, and the sums so far fade when a tile has a nearer one.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.kernels.exp2 import exp2
from diffevo_jax.kernels.geometry import ROUGH, Geometry, direct, expanded, guided, matmul_is_exact
from diffevo_jax.kernels.types import Operands, Sums

# From here on one large matmul with the genomes is faster (N = 4096: equal at 1024 on 2 cores).
MANY_GENES = 1024

_HIGHEST = jax.lax.Precision.HIGHEST
FURTHEST = 1e30  # than every distance that counts; finite, so that derivatives are
# Rows of a tile that a minimum folds onto each other before it is reduced: on a CPU, XLA takes a
# reduction over rows in one core, and four times as long.
FOLDS = 8
# Below the largest weight, where a tile far from all of its queries is left out.
BITS = 40.0


class Blocks(NamedTuple):
    """Sizes of what is in memory at a time, cut to N and M.

    query, support: a tile of weights with few genes; support a multiple of `FOLDS`. softmax:
    numbers in a block of weights `[queries, M]` with many. direct: dimensions up to which squared
    distances are summed term by term; above, by a matmul where it is exact enough. precision: of
    float32's matmul with many genes, to all digits. skip: whether that matmul finds which tiles are
    summed term by term, a loop of unknown length, for which an accelerator's host would wait.
    """

    query: int
    support: int
    softmax: int
    direct: int
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST
    skip: bool = False


# 1 MiB a tile, about a core's second-level cache, and 16 MiB.
CPU = Blocks(512, 512, 2**22, 16, skip=True)
# A program's memory is new at every call: a small one takes as long to get 1 MiB as to fill it. Up
# to 64 dimensions a matmul would save nothing there, and both ways to sum take longer to compile.
SMALL = Blocks(512, 128, 2**22, 64)
# 64 MiB and 256 MiB: enough work to hide the start of each operation. A choice between the two ways
# to sum would have the host wait.
ACCELERATOR = Blocks(4096, 4096, 2**26, 64)
NVIDIA = ACCELERATOR._replace(precision=jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3)


def part(operands: Operands, *, blocks: Blocks, shift: jax.Array | None = None) -> Sums:
    """Sum over the supports at every query.

    shift: `[N]`, for derivatives, which then look for no maximum. None computes it.
    """
    solve = _by_softmax if has_many_genes(operands) else _by_tiles
    if operands.query.shape[1] <= blocks.direct:
        return solve(operands, direct(operands), blocks, shift)
    choose = _choose if shift is None else jax.lax.cond
    return choose(
        matmul_is_exact(operands),
        lambda: solve(operands, expanded(operands), blocks, shift),
        lambda: solve(operands, (guided if blocks.skip else direct)(operands), blocks, shift),
    )


def has_many_genes(operands: Operands) -> bool:
    """Whether averages are taken by one large matmul."""
    return operands.frame.centre.ndim == 0


def _by_tiles(operands: Operands, geometry: Geometry, blocks: Blocks, shift) -> Sums:
    """Sum few genes over tiles of supports and queries."""
    n, dim = geometry.query.shape
    genes, dtype = operands.value.shape[1], operands.value.dtype
    query_block = min(blocks.query, n)
    support_block = min(blocks.support, -(-len(geometry.place) // FOLDS) * FOLDS)
    # Averaging x - centre keeps rounding relative to the spread; the last row sums the weights.
    rows = jnp.pad(operands.value - operands.frame.centre, ((0, 0), (0, 1)), constant_values=1)
    supports = (
        cut(geometry.bits * (1 / geometry.slope), support_block, constant_values=FURTHEST),
        cut(geometry.place, support_block),
        jnp.swapaxes(cut(rows, support_block), 1, 2),
    )
    zeros = partial(jnp.zeros, dtype=dtype)
    nothing = zeros((genes + 1, query_block)), zeros((1, query_block))

    def add(sums, w, rows):
        total, squares = sums
        if operands.sample_size:
            squares = squares + sum_squares(w)
        return total + jnp.matmul(rows, w, precision=_HIGHEST), squares

    def find_nearest(query):
        def tile(nearest, support):
            handicap, place, _ = support
            pieces = zip(jnp.split(handicap, FOLDS), jnp.split(place, FOLDS), strict=True)
            distances = (geometry.add_squares(*piece, query) for piece in pieces)
            return reduce(jnp.minimum, distances, nearest), None

        furthest = jnp.full((support_block // FOLDS, query_block), FURTHEST, dtype)
        return jnp.min(jax.lax.scan(tile, furthest, supports)[0], axis=0)

    def with_nearest(query, nearest):
        def tile(sums, support):
            handicap, place, rows = support
            distances = geometry.add_squares(handicap, place, query)
            # Differences first: of 1e11 bits, products of a slope lose thousands.
            return add(sums, exp2(geometry.slope * (distances - nearest)), rows), None

        total, squares = jax.lax.scan(jax.checkpoint(tile), nothing, supports)[0]
        return total, jnp.sum(squares, axis=0), geometry.slope * nearest

    def with_running_shift(query, nearest):
        def tile(carry, support):
            handicap, place, rows = support

            def added():
                (total, squares), nearest = carry
                distances = geometry.add_squares(handicap, place, query)
                nearer = jnp.minimum(nearest, jnp.min(distances, axis=0))
                fade = exp2(geometry.slope * (nearest - nearer))
                w = exp2(geometry.slope * (distances - nearer))
                return add((total * fade, squares * fade**2), w, rows), nearer

            if geometry.rough is None:
                return added(), None
            nearest = carry[1]
            rounding = ROUGH * jnp.finfo(dtype).eps * (operands.frame.longest + jnp.abs(nearest))
            reach = nearest + rounding - BITS / geometry.slope
            least = jnp.min(geometry.rough(handicap, place, query), axis=0)
            return _once(jnp.any(least <= reach), added, carry), None

        (total, squares), nearest = jax.lax.scan(tile, (nothing, nearest), supports)[0]
        return total, jnp.sum(squares, axis=0), geometry.slope * nearest

    def block(args):
        query, nearest = args
        if shift is None and dim <= CPU.direct:
            nearest = find_nearest(query)
        elif shift is None:
            return with_running_shift(query, nearest)
        return with_nearest(query, nearest)

    # The individual itself is a support: where it counts by far the most, nothing fades.
    known = geometry.own_bits if shift is None else shift
    nearest = jnp.full(n, FURTHEST, dtype) if known is None else known * (1 / geometry.slope)
    arrays = _query_blocks(geometry.query, query_block), cut(nearest, query_block, mode="edge")
    total, squares, shift = jax.lax.map(block, arrays)
    total = jnp.swapaxes(total, 1, 2).reshape(-1, genes + 1)[:n]
    return Sums(
        shift=shift.ravel()[:n],
        offset=geometry.offset,
        weight=total[:, genes],
        squares=squares.ravel()[:n] if operands.sample_size else None,
        total=total[:, :genes],
    )


def _by_softmax(operands: Operands, geometry: Geometry, blocks: Blocks, shift) -> Sums:
    """Sum many genes for a block of queries at a time, with one matmul with all genomes."""
    n = len(geometry.query)
    query_block = min(max(1, blocks.softmax // len(geometry.place)), n)
    handicap = geometry.bits * (1 / geometry.slope)
    precision = operands.precision
    if precision is None:  # TF32 would round doubles
        precision = blocks.precision if operands.value.dtype == jnp.float32 else _HIGHEST

    def block(args):
        query, *shifts = args
        distances = geometry.add_squares(handicap, geometry.place, query)
        (nearest,) = shifts or (jnp.min(distances, axis=0, initial=FURTHEST),)
        w = exp2(geometry.slope * (distances - nearest))
        total = jnp.matmul(w.T, operands.value, precision=precision)
        return total, jnp.sum(w**2, axis=0), jnp.sum(w, axis=0), geometry.slope * nearest

    arrays = [_query_blocks(geometry.query, query_block)]
    if shift is not None:
        arrays.append(cut(shift * (1 / geometry.slope), query_block, mode="edge"))
    if query_block == n:  # a loop of one round would copy its result
        total, squares, weight, shift = block([array[0] for array in arrays])
    else:
        total, squares, weight, shift = jax.lax.map(jax.checkpoint(block), arrays)
        total = total.reshape(-1, total.shape[-1])[:n]
    return Sums(
        shift=shift.ravel()[:n],
        offset=geometry.offset,
        weight=weight.ravel()[:n],
        squares=squares.ravel()[:n] if operands.sample_size else None,
        total=total,
    )


def sum_squares(w: jax.Array) -> jax.Array:
    """Sum squares over a tile's rows, `[1, queries]`: by a matmul, beside that of the genomes.

    Folds would have XLA compute the weights anew for each of their rows, five times the time.
    """
    return jnp.matmul(jnp.ones((1, len(w)), w.dtype), w**2, precision=_HIGHEST)


def _choose(condition: jax.Array, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """Choose as `lax.cond` does, but skip a branch that no element takes under `vmap` too."""
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(yes))
    return _once(~condition, no, _once(condition, yes, nothing))


def _once(condition: jax.Array, run: Callable[[], Any], otherwise: Any) -> Any:
    """Run a function where a condition holds, as a loop of one round."""

    def body(_):
        return jnp.zeros_like(condition), run()

    return jax.lax.while_loop(lambda carry: carry[0], body, (condition, otherwise))[1]


def _query_blocks(query: jax.Array, size: int) -> jax.Array:
    """Cut `[N, d]` into `[blocks, d, size]`: queries along the lanes."""
    return jnp.swapaxes(cut(query, size, mode="edge"), 1, 2)


def cut(array: jax.Array, size: int, **pad) -> jax.Array:
    """Cut a leading axis into blocks of `size`; `pad` says how `jnp.pad` fills the last one."""
    count = -(-len(array) // size)
    missing = [(0, count * size - len(array))] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, missing, **pad).reshape(count, size, *array.shape[1:])
