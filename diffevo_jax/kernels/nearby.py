"""The sums of XLA's tiles for few of the queries, over the supports that are near enough to count.

Queries and supports come in an order that keeps neighbours together (`in_order`), so that blocks of
either fill small boxes. Boxes bound the weights: a block of supports that cannot reach 2^-40 of the
largest weight of any query in a block is left out, of the pass that looks for the nearest support
as of that which sums. The narrower the kernel, the more blocks are.
"""

from collections.abc import Callable
from functools import reduce

import jax
import jax.numpy as jnp

from diffevo_jax.kernels.exp2 import exp2
from diffevo_jax.kernels.geometry import direct
from diffevo_jax.kernels.tiled import FOLDS, FURTHEST, cut, sum_squares
from diffevo_jax.kernels.types import Operands, Sums

QUERIES, SUPPORTS = 512, 512  # of a tile
_BITS = 40.0  # below the largest weight, where blocks are left out
_HIGHEST = jax.lax.Precision.HIGHEST


def in_order(place: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Number places along a Z-order curve through the box from low to high, `[n]`, uint32."""
    dim = place.shape[1]
    digits = 30 // max(dim, 2)
    share = (place - low) / jnp.where(high > low, high - low, 1)
    whole = (jnp.clip(share, 0, 1) * (2**digits - 1)).astype(jnp.uint32)
    digit, axis = jnp.arange(digits, dtype=jnp.uint32), jnp.arange(dim, dtype=jnp.uint32)[:, None]
    return jnp.sum((whole[..., None] >> digit & 1) << digit * dim + axis, axis=(1, 2))


def part(operands: Operands, count: jax.Array) -> Sums:
    """Sum at the first `count` queries, `[]`; what is returned of the others is no sum.

    operands: queries and supports in order (`in_order`). Not for derivatives.
    """
    geometry, n = direct(operands), len(operands.query)
    genes, dtype, slope = operands.value.shape[1], operands.value.dtype, geometry.slope
    rows = jnp.pad(operands.value - operands.frame.centre, ((0, 0), (0, 1)), constant_values=1)
    handicap = cut(geometry.bits * (1 / slope), SUPPORTS, constant_values=FURTHEST)
    place = cut(geometry.place, SUPPORTS, mode="edge")
    supports = handicap, place, jnp.swapaxes(cut(rows, SUPPORTS), 1, 2)
    lowest, highest = jnp.min(place, axis=1), jnp.max(place, axis=1)
    best = jnp.min(handicap, axis=1)

    def over(near: jax.Array, add: Callable, start):
        """Add the blocks of supports that are near, `[blocks]`."""
        which = jnp.argsort(~near)

        def step(i, sums):
            return add(sums, *(jax.tree.map(lambda a: a[which[i]], supports)))

        return jax.lax.fori_loop(0, jnp.sum(near), step, start)

    def block(query: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        low, high = jnp.min(query, axis=1), jnp.max(query, axis=1)
        gap = jnp.maximum(0, jnp.maximum(lowest - high, low - highest))
        length = jnp.maximum(highest - low, high - lowest)
        least = best + jnp.sum(gap**2, axis=1)  # no support of a block is nearer
        most = jnp.min(best + jnp.sum(length**2, axis=1))  # every query has one as near

        def find(nearest, handicap, place, _):
            pieces = zip(jnp.split(handicap, FOLDS), jnp.split(place, FOLDS), strict=True)
            distances = (geometry.add_squares(*piece, query) for piece in pieces)
            return reduce(jnp.minimum, distances, nearest)

        start = jnp.full((SUPPORTS // FOLDS, QUERIES), FURTHEST, dtype)
        nearest = over(least <= most, find, start)
        nearest = jnp.min(nearest, axis=0)

        def add(sums, handicap, place, rows):
            total, squares = sums
            w = exp2(slope * (geometry.add_squares(handicap, place, query) - nearest))
            if operands.sample_size:
                squares = squares + sum_squares(w)
            return total + jnp.matmul(rows, w, precision=_HIGHEST), squares

        nothing = jnp.zeros((genes + 1, QUERIES), dtype), jnp.zeros((1, QUERIES), dtype)
        near = least <= jnp.max(nearest) + _BITS / -slope
        total, squares = over(near, add, nothing)
        return slope * nearest, jnp.sum(squares, axis=0), total

    query = jnp.swapaxes(cut(geometry.query, QUERIES, mode="edge"), 1, 2)
    shift, squares, total = first(block, query, -(-count // QUERIES))
    total = jnp.swapaxes(total, 1, 2).reshape(-1, genes + 1)[:n]
    return Sums(
        shift=shift.ravel()[:n],
        offset=geometry.offset,
        weight=total[:, genes],
        squares=squares.ravel()[:n] if operands.sample_size else None,
        total=total[:, :genes],
    )


def first(function: Callable, arrays, count: jax.Array):
    """Map a function over the first `count` entries of a leading axis; the others are 0."""

    def step(i, results):
        result = function(jax.tree.map(lambda a: a[i], arrays))
        return jax.tree.map(lambda whole, one: whole.at[i].set(one), results, result)

    one = jax.eval_shape(function, jax.tree.map(lambda a: a[0], arrays))
    length = len(jax.tree.leaves(arrays)[0])
    nothing = jax.tree.map(lambda a: jnp.zeros((length, *a.shape), a.dtype), one)
    return jax.lax.fori_loop(0, count, step, nothing)
