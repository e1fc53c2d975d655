"""A walk through the supports, with queries and their sums in a GPU's registers.

What the kernels for GPUs have in common: `gpu.py` for Hopper and newer, `triton.py` for older ones.
Each launches the walk in its own language.

A block of 128 threads holds a block of queries in registers, `queries_per_thread` each, and
walks through the supports. All threads read the same support at once, from the first-level cache;
a pair costs its differences, one power of two and the sums. No tensor cores: with few dimensions
they could take over less arithmetic than feeding them costs.

The supports are shared out to `parts` blocks for each block of queries, so that small populations,
too, fill the GPU; the parts meet in XLA by their shifts, as log-sum-exp. More genes than the
registers hold are cut into chunks, each with blocks of its own that take the weights once more.

Where each query is a support as well, its own weight and the largest weight of all bound its
exponents: while they are near enough, one shift for each query serves for all supports. Elsewhere
the shift is the running maximum, for three more instructions a pair.

`make check-gpu` counts registers and instructions.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from diffevo_jax.kernels.geometry import direct
from diffevo_jax.kernels.types import Operands, Sums

MOST_DIMENSIONS = 16
MOST_GENES = 64
# Places and genes of a query and their sums that live in registers: more would spill.
MOST_IN_REGISTERS = 32
QUERIES_PER_THREAD = 4
THREADS = 128  # of a block: four warps
# Two waves on an H100: 132 multiprocessors, some 5 blocks each at a time.
LEAST_BLOCKS = 1300

# How far a weight may lie above one shift, and a query's own below it, in bits: squares of weights
# and their sums over 2^24 supports stay inside float32's exponents, -126 to 127.
_BITS_ABOVE, _BITS_BELOW = 40, 50
_LEAST = -1e30  # a shift below every exponent, finite so that differences of shifts are

# (walk, its result, grid of blocks, parts and chunks) -> kernel of the walk's arrays. The kernel
# calls walk(block, part, chunk, references to its arrays and to the result).
Launch = Callable[[Callable, jax.ShapeDtypeStruct, tuple[int, int, int]], Callable]


def fits(dim: int, genes: int, dtype) -> bool:
    """Whether the kernels take such places and genomes: float32, of few dimensions and genes."""
    return dtype == jnp.float32 and 1 <= dim <= MOST_DIMENSIONS and 1 <= genes <= MOST_GENES


def split_genes(dim: int, genes: int) -> tuple[int, int]:
    """Return how many chunks genes are cut into, and how many are in each, the last one padded."""
    chunks = -(-genes // (MOST_IN_REGISTERS - dim))
    return chunks, -(-genes // chunks)


def supports_in_flight(dim: int, genes_at_once: int) -> int:
    """Return how many supports' exponents are taken together, with one renewal of the shift."""
    return 8 if dim + genes_at_once <= MOST_IN_REGISTERS // 2 else 4


def part(
    operands: Operands,
    launch: Launch,
    *,
    queries_per_thread: int = QUERIES_PER_THREAD,
    supports_at_once: int | None = None,
    parts: int | None = None,
    exp2: Callable[[jax.Array], jax.Array] = jnp.exp2,
    fma: Callable[[Any, Any, Any], jax.Array] = lambda a, b, c: a * b + c,
    held: Callable[[jax.Array], jax.Array] = lambda array: array,
) -> Sums:
    """Sum over the supports at every query of `operands`.

    supports_at_once: None takes `supports_in_flight`.
    parts: blocks that share the supports; None fills the GPU.
    exp2, fma: how the kernel's language writes a power of two, to 22 bits or more, and a b + c.
    held: what spreads an array of a block's queries over its threads.
    """
    geometry, value = direct(operands), operands.value
    (n, dim), (m, genes) = operands.query.shape, value.shape
    chunks, genes_at_once = split_genes(dim, genes)
    supports_at_once = supports_at_once or supports_in_flight(dim, genes_at_once)
    query_block = queries_per_thread * THREADS
    blocks, rounds = -(-n // query_block), -(-m // supports_at_once)
    # As many rounds for each part: the last one has least to discard.
    parts = parts or -(-LEAST_BLOCKS // (blocks * chunks))
    rounds_each = -(-rounds // min(parts, rounds))
    parts = -(-rounds // rounds_each)

    bits, slope = geometry.bits, -geometry.slope
    shift, enough = jnp.zeros(n, jnp.float32), jnp.zeros(n, bool)
    if geometry.own_bits is not None:  # b_ij <= bits_j, b_ii = own_bits_i
        low = geometry.own_bits
        shift = jnp.maximum(low, jnp.max(bits) - _BITS_ABOVE)
        enough = low - shift >= -_BITS_BELOW  # not where no support has weight: inf - inf is NaN
        shift = jnp.maximum(shift, _LEAST)
    enough = jnp.pad(enough, (0, blocks * query_block - n), constant_values=True)
    enough = jnp.all(enough.reshape(blocks, query_block), axis=1).astype(jnp.int32)
    # The shift enters with the squares, where it costs nothing.
    queries = jnp.concatenate([geometry.query, (shift / slope)[:, None], shift[:, None]], axis=1).T

    value = _padded(value - operands.frame.centre, 1, chunks * genes_at_once)
    support = jnp.concatenate([geometry.place, bits[:, None]], axis=1)
    support = jnp.concatenate(
        [
            jnp.broadcast_to(support, (chunks, *support.shape)),
            jnp.swapaxes(value.reshape(m, chunks, genes_at_once), 0, 1),
        ],
        axis=2,
    )
    # One load brings 16 bytes to a thread.
    support = _padded(support, 2, -(-support.shape[2] // 4) * 4)
    support = _padded(support, 1, parts * rounds_each * supports_at_once)
    support = support.at[:, m:, dim].set(-jnp.inf)
    squared = operands.sample_size
    walk = _walk(
        dim=dim,
        genes=genes_at_once,
        squared=squared,
        query_block=query_block,
        supports_at_once=supports_at_once,
        rounds=rounds_each,
        exp2=exp2,
        fma=fma,
        held=held,
    )
    rows = 2 + squared + genes_at_once
    result = jax.ShapeDtypeStruct((chunks, parts, rows, blocks * query_block), jnp.float32)
    kernel = launch(walk, result, (blocks, parts, chunks))
    sums = kernel(_padded(queries, 1, blocks * query_block), enough, support, -slope[None])
    sums = sums[..., :n]

    shift = sums[0, :, 0]  # the same for all chunks
    highest = jnp.max(shift, axis=0)
    fade = jnp.exp2(shift - highest)
    total = jnp.sum(fade[:, None] * sums[:, :, -genes_at_once:], axis=1)
    return Sums(
        shift=highest,
        offset=geometry.offset,
        weight=jnp.sum(fade * sums[0, :, 1], axis=0),
        squares=jnp.sum(fade**2 * sums[0, :, 2], axis=0) if squared else None,
        total=total.reshape(-1, n)[:genes].T,
    )


def _walk(*, dim, genes, squared, query_block, supports_at_once, rounds, exp2, fma, held):
    """Make the walk of one block of queries through one part of the supports.

    queries `[d + 2, n]`, flags `[blocks]`, supports `[chunks, m, d + 1 + D...]`, slope `[1]`.

    Below a query's place stand its shift in the units of squares and its shift; beside a support's,
    its bits and a chunk of its genomes. A flag says that one shift serves for the block of queries.
    Writes `[chunks, parts, rows, n]`: shift, sums of weights, of their squares where needed, and
    of weighted genes.
    """
    num_sums = 1 + squared + genes

    def walk(block, part, chunk, query_ref, enough_ref, support_ref, slope_ref, sums_ref):
        here = pl.ds(block * query_block, query_block)
        query = [held(query_ref[k, here]) for k in range(dim + 2)]
        slope = slope_ref[0]

        def exponent(row, start=None):
            differences = [query[k] - row[k] for k in range(dim)]
            squares = differences.pop() ** 2 if start is None else start
            for difference in differences:
                squares = fma(difference, difference, squares)
            return fma(slope, squares, row[dim])

        def add(sums, row, w):
            weight, *sums = sums
            factors = [*([w] if squared else []), *row[dim + 1 :]]
            return [weight + w, *(fma(w, x, s) for x, s in zip(factors, sums, strict=True))]

        def with_one_shift(rows, shift, *sums):
            for row in rows:
                sums = add(sums, row, exp2(exponent(row, query[dim])))
            return shift, *sums

        def with_running_shift(rows, shift, *sums):
            exponents = [exponent(row) for row in rows]
            higher = reduce(jnp.maximum, exponents, shift)
            fade = exp2(shift - higher)
            sums = [s * fade for s in sums]
            if squared:
                sums[1] = sums[1] * fade
            for b, row in zip(exponents, rows, strict=True):
                sums = add(sums, row, exp2(b - higher))
            return higher, *sums

        def through(add_supports, shift):
            def some(i, sums):
                first = (part * rounds + i) * supports_at_once
                columns = range(dim + 1 + genes)
                rows = [
                    [support_ref[chunk, first + j, c] for c in columns]
                    for j in range(supports_at_once)
                ]
                return add_supports(rows, *sums)

            zero = held(jnp.zeros((query_block,), jnp.float32))
            return jax.lax.fori_loop(0, rounds, some, (shift, *[zero] * num_sums))

        least = held(jnp.full((query_block,), _LEAST, jnp.float32))
        sums = jax.lax.cond(
            enough_ref[block] > 0,
            lambda: through(with_one_shift, query[dim + 1]),
            lambda: through(with_running_shift, least),
        )
        for row, array in enumerate(sums):
            sums_ref[chunk, part, row, here] = array

    return walk


def _padded(array: jax.Array, axis: int, size: int) -> jax.Array:
    missing = [(0, 0)] * array.ndim
    missing[axis] = (0, size - array.shape[axis])
    return jnp.pad(array, missing)
