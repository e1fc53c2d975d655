"""The posterior mean as a Pallas TPU kernel: direct differences on the vector unit.

A tile of weights is `[supports, queries]`: queries run along the 128 lanes, supports down the
sublanes, so a query's sums are rows and a support's coordinates are columns, spread over the lanes.
The tile meets the genomes in the matrix unit as `[D + 1, supports] @ [supports, queries]`; a row of
ones sums the weights. The grid walks through the supports for each block of queries; sums stay in
the output's own block in VMEM, and are rescaled when the running maximum, the shift, rises.

Up to 64 dimensions the vector unit takes differences about as fast, by a count of operations, as
the matrix unit multiplies in float32's six passes, and without the expanded square's cancellation.

It lowers, and agrees with float64 in Pallas' interpreter; no TPU has timed it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from diffevo_jax.kernels.geometry import direct
from diffevo_jax.kernels.types import Operands, Sums

MOST_DIMENSIONS = 64
MOST_GENES = 512  # their block, beside the supports', takes 8 MiB of VMEM, twice for the pipeline
QUERY_BLOCK = 512
# Large, so that a grid step outlasts its own cost of about a third of a microsecond.
SUPPORT_BLOCK = 2048
# A tile of 128 x 512 float32 is 64 registers, all that there are.
SUPPORTS_AT_ONCE = 128

_LANES = 128
_LEAST = -1e30  # a shift below every exponent, finite so that differences of shifts are


def fits(dim: int, genes: int, dtype) -> bool:
    """Whether the kernel takes such places and genomes: float32, of few dimensions and genes."""
    return dtype == jnp.float32 and 1 <= dim <= MOST_DIMENSIONS and 1 <= genes <= MOST_GENES


def part(
    operands: Operands,
    *,
    query_block: int = QUERY_BLOCK,
    support_block: int = SUPPORT_BLOCK,
    interpret: Any = False,
) -> Sums:
    """Sum over the supports at every query of `operands`.

    query_block, support_block: sizes of a grid step, multiples of 128; cut to N and M.
    interpret: True, or Pallas' parameters, runs without a TPU.
    """
    geometry, value = direct(operands), operands.value
    (n, dim), (m, genes) = operands.query.shape, value.shape
    query_block = min(query_block, _up(n, _LANES))
    support_block = min(support_block, _up(m, SUPPORTS_AT_ONCE))
    most_n, most_m = _up(n, query_block), _up(m, support_block)

    columns = jnp.concatenate([geometry.place, geometry.bits[:, None]], axis=1)
    columns = jnp.pad(columns, [(0, most_m - m), (0, 0)]).at[m:, -1].set(-jnp.inf)
    # Averaging x - centre keeps rounding relative to the spread; the last row sums the weights.
    rows = jnp.pad(value - operands.frame.centre, ((0, 0), (0, 1)), constant_values=1).T
    rows = jnp.pad(rows, [(0, 0), (0, most_m - m)])
    queries = jnp.pad(geometry.query.T, [(0, 0), (0, most_n - n)])

    def by_query(height):
        return pl.BlockSpec((height, query_block), lambda i, j: (0, i))

    heights = (1, 1, genes + 1)
    shift, squares, sums = pl.pallas_call(
        _body,
        out_shape=[jax.ShapeDtypeStruct((height, most_n), jnp.float32) for height in heights],
        grid=(most_n // query_block, most_m // support_block),
        in_specs=[
            pl.BlockSpec((1, 1), lambda i, j: (0, 0)),
            by_query(dim),
            pl.BlockSpec((support_block, dim + 1), lambda i, j: (j, 0)),
            pl.BlockSpec((genes + 1, support_block), lambda i, j: (0, j)),
        ],
        out_specs=[by_query(height) for height in heights],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
    )(geometry.slope.reshape(1, 1), queries, columns, rows)

    return Sums(
        shift=shift[0, :n],
        offset=geometry.offset,
        weight=sums[genes, :n],
        squares=squares[0, :n] if operands.sample_size else None,
        total=sums[:genes, :n].T,
    )


def _body(slope_ref, query_ref, support_ref, value_ref, shift_ref, squares_ref, sums_ref):
    """Add one block of supports to the sums of one block of queries.

    slope_ref: `[1, 1]`. query_ref: `[d, queries]`. support_ref: `[supports, d + 1]`, place and
    bits. value_ref: `[D + 1, supports]`. shift_ref, squares_ref: `[1, queries]`.
    sums_ref: `[D + 1, queries]`.
    """
    dim = query_ref.shape[0]

    @pl.when(pl.program_id(1) == 0)
    def _():
        shift_ref[...] = jnp.full(shift_ref.shape, _LEAST, jnp.float32)
        squares_ref[...] = jnp.zeros(squares_ref.shape, jnp.float32)
        sums_ref[...] = jnp.zeros(sums_ref.shape, jnp.float32)

    def supports_at_once(i, _):
        some = pl.ds(pl.multiple_of(i * SUPPORTS_AT_ONCE, SUPPORTS_AT_ONCE), SUPPORTS_AT_ONCE)
        place = support_ref[some, :]

        def square(k):
            return (query_ref[k : k + 1, :] - place[:, k : k + 1]) ** 2

        distance = sum((square(k) for k in range(1, dim)), square(0))
        exponents = slope_ref[...] * distance + place[:, dim:]
        shift = jnp.maximum(shift_ref[...], jnp.max(exponents, axis=0, keepdims=True))
        fade = jnp.exp2(shift_ref[...] - shift)
        w = jnp.exp2(exponents - shift)
        shift_ref[...] = shift
        squares_ref[...] = squares_ref[...] * fade**2 + jnp.sum(w**2, axis=0, keepdims=True)
        sums_ref[...] = sums_ref[...] * fade + jnp.dot(
            value_ref[:, some],
            w,
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )

    # Bounds of 32 bits: under jax_enable_x64 the index would have 64, which does not lower.
    count = jnp.int32(support_ref.shape[0] // SUPPORTS_AT_ONCE)
    jax.lax.fori_loop(jnp.int32(0), count, supports_at_once, None)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
