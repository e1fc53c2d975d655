"""The posterior mean as a Mosaic GPU kernel: Hopper GPUs and newer, few dimensions and few genes.

A warpgroup of 128 threads holds a block of queries in registers, `queries_per_thread` each, and
walks through the keys, which the copy engine brings to shared memory in chunks. All threads read
the same key at once; a pair costs its differences, one power of two and the sums. No tensor cores:
with few dimensions they could take over less arithmetic than feeding them costs.

The keys are shared out to `parts` blocks for each block of queries, so that small populations, too,
fill the GPU; the parts meet in XLA by their shifts, as log-sum-exp.

Exponents are those of two, from the square completed about |z_i - z_j|, with a = sqrt(alpha):

    |z_i - a z_j|^2 = a |z_i - z_j|^2 + (1 - a) |z_i|^2 - a (1 - a) |z_j|^2

Differences of neighbours are exact in float32 and cost one subtraction a dimension; near alpha = 1
this keeps every digit. The last term joins log g_j, the middle one only counts for the evidence.

Where each query is a key as well, its own weight and the largest weight of all bound its
exponents: while they are near enough, one shift a query serves for all keys. Elsewhere the shift is
the running maximum, for three more instructions a pair (13.4 instead of 10.7 with d = D = 2).

Mosaic GPU is unstable by its makers' own word, so all that depends on it is in this file.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from diffevo_jax.estimator.geometry import direct
from diffevo_jax.estimator.types import Problem, Sums

# Queries and sums live in registers: more would spill.
MOST_DIMENSIONS = 16
MOST_GENES = 16
KEY_BLOCK = 128
# Keys whose exponents are in flight together; the shift is renewed once for all of them.
KEYS_AT_ONCE = 8
# Several waves on an H100: 132 multiprocessors, some 5 blocks each at a time.
LEAST_BLOCKS = 4096

# How far a weight may lie above one shift, and a query's own below it, in bits: squares of weights
# and their sums over 2^24 keys stay inside float32's exponents, -126 to 127.
_BITS_ABOVE, _BITS_BELOW = 40, 50
_THREADS = 128  # a warpgroup
_LEAST = -1e30  # a shift below every exponent, finite so that differences of shifts are


def fits(problem: Problem) -> bool:
    """Whether the kernel takes the problem: float32, d <= MOST_DIMENSIONS and D <= MOST_GENES."""
    arrays = (problem.query, problem.key, problem.value, problem.log_weight)
    return (
        all(array.dtype == jnp.float32 for array in arrays)
        and 1 <= problem.query.shape[1] <= MOST_DIMENSIONS
        and 1 <= problem.value.shape[1] <= MOST_GENES
    )


def part(
    problem: Problem,
    *,
    queries_per_thread: int | None = None,
    key_block: int = KEY_BLOCK,
    parts: int | None = None,
    interpret: Any = None,
) -> Sums:
    """Sums over the supports at every query of `problem`.

    queries_per_thread: None takes as many as fit into registers.
    key_block: keys a chunk in shared memory, a multiple of KEYS_AT_ONCE, at most 256.
    parts: blocks that share the keys; None fills the GPU.
    interpret: Pallas' parameters for a run without a GPU.
    """
    geometry, value = direct(problem), problem.value
    (n, dim), (m, genes) = problem.query.shape, value.shape
    each = queries_per_thread or (4 if dim + genes <= 8 else 2)
    query_block = each * _THREADS
    blocks, chunks = -(-n // query_block), -(-m // key_block)
    parts = min(parts or -(-LEAST_BLOCKS // blocks), chunks)
    chunks = -(-chunks // parts)

    bits, slope = geometry.bits, -geometry.slope
    shift, enough = jnp.zeros(n, jnp.float32), jnp.zeros(n, bool)
    if geometry.own_bits is not None:  # b_ij <= bits_j, b_ii = own_bits_i
        low = geometry.own_bits
        shift = jnp.maximum(low, jnp.max(bits) - _BITS_ABOVE)
        enough = low - shift >= -_BITS_BELOW  # not where nobody has weight: inf - inf is NaN
        shift = jnp.maximum(shift, _LEAST)
    enough = jnp.pad(enough, (0, blocks * query_block - n), constant_values=True)
    enough = jnp.all(enough.reshape(blocks, query_block), axis=1).astype(jnp.int32)
    # The shift enters with the squares, where it costs nothing.
    queries = jnp.concatenate([geometry.query, (shift / slope)[:, None], shift[:, None]], axis=1).T

    support = jnp.concatenate([geometry.key, bits[:, None], value - problem.frame.centre], axis=1)
    # Rows of 16 bytes are what the copy engine moves and what one load brings to a thread.
    support = _padded(
        _padded(support, 1, -(-support.shape[1] // 4) * 4), 0, parts * chunks * key_block
    )
    support = support.at[m:, dim].set(-jnp.inf)
    sums = _kernel(dim, genes, each, key_block, parts, chunks, blocks, interpret)(
        _padded(queries, 1, blocks * query_block), enough, support, -slope[None]
    )
    shift, total, squares, average = sums[:, 0, :n], sums[:, 1, :n], sums[:, 2, :n], sums[:, 3:, :n]

    highest = jnp.max(shift, axis=0)
    fade = jnp.exp2(shift - highest)
    total = jnp.sum(fade * total, axis=0)
    squares = jnp.sum(fade**2 * squares, axis=0)
    return Sums(
        shift=highest,
        offset=geometry.offset,
        weight=total,
        squares=squares if problem.sample_size else None,
        total=jnp.sum(fade[:, None] * average, axis=0).T,
    )


def _kernel(dim, genes, each, key_block, parts, chunks, blocks, interpret):
    """(queries `[d + 2, n]`, flags `[blocks]`, keys `[m, d + 1 + D...]`, slope `[1]`) -> sums.

    Below a query's place stand its shift in the units of squares and its shift; beside a key's, its
    bits and genomes. A flag says that one shift serves for the block of queries. The sums are
    `[parts, 3 + D, n]`: shift, weights, squared weights, weighted genomes.
    """
    query_block = each * _THREADS
    layout = plgpu.Layout.WG_STRIDED((query_block,), vec_size=min(2, each))

    def strided(array):
        # Pallas' interpreter has no layouts; in jax 0.10 it refuses to see one.
        return array if interpret else plgpu.layout_cast(array, layout)

    def body(query_ref, enough_ref, support_ref, slope_ref, sums_ref):
        block, part = jax.lax.axis_index("blocks"), jax.lax.axis_index("parts")
        mine = pl.ds(block * query_block, query_block)
        query = [strided(query_ref[k, mine]) for k in range(dim + 2)]
        slope = slope_ref[0]

        def exponent(row, *start):
            squares = [*start, *((query[k] - row[k]) ** 2 for k in range(dim))]
            return slope * sum(squares[1:], squares[0]) + row[dim]

        def add(row, w, sums):
            total, squares, *average = sums
            average = [a + w * row[dim + 1 + c] for c, a in enumerate(average)]
            return total + w, squares + w * w, *average

        def with_one_shift(rows, sums):
            shift, *sums = sums
            for row in rows:
                sums = add(row, jnp.exp2(exponent(row, query[dim])), sums)
            return shift, *sums

        def with_running_shift(rows, sums):
            shift, total, squares, *average = sums
            bits = [exponent(row) for row in rows]
            higher = shift
            for b in bits:
                higher = jnp.maximum(higher, b)
            fade = jnp.exp2(shift - higher)
            sums = total * fade, squares * (fade * fade), *(a * fade for a in average)
            for b, row in zip(bits, rows, strict=True):
                sums = add(row, jnp.exp2(b - higher), sums)
            return higher, *sums

        def walk(keys_at_once, shift):
            def chunk(_, chunk_ref, sums):
                def some(i, sums):
                    first, columns = i * KEYS_AT_ONCE, range(dim + 1 + genes)
                    rows = [[chunk_ref[first + j, c] for c in columns] for j in range(KEYS_AT_ONCE)]
                    return keys_at_once(rows, sums)

                return jax.lax.fori_loop(0, key_block // KEYS_AT_ONCE, some, sums)

            zero = strided(jnp.zeros((query_block,), jnp.float32))
            width = support_ref.shape[1]
            return plgpu.emit_pipeline(
                chunk,
                grid=(chunks,),
                in_specs=[plgpu.BlockSpec((key_block, width), lambda i: (part * chunks + i, 0))],
                max_concurrent_steps=2,
                init_carry=(shift, *(zero for _ in range(2 + genes))),
            )(support_ref)

        least = strided(jnp.full((query_block,), _LEAST, jnp.float32))
        sums = jax.lax.cond(
            enough_ref[block] > 0,
            lambda: walk(with_one_shift, query[dim + 1]),
            lambda: walk(with_running_shift, least),
        )
        for row, array in enumerate(sums):
            sums_ref[part, row, mine] = array

    return plgpu.kernel(
        body,
        out_type=jax.ShapeDtypeStruct((parts, 3 + genes, blocks * query_block), jnp.float32),
        grid=(blocks, parts),
        grid_names=("blocks", "parts"),
        compiler_params=plgpu.CompilerParams(
            approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Lane
        ),
        interpret=interpret,
    )


def _padded(array: jax.Array, axis: int, size: int) -> jax.Array:
    missing = [(0, 0)] * array.ndim
    missing[axis] = (0, size - array.shape[axis])
    return jnp.pad(array, missing)
