"""Log weights as exponents of two, from squared distances in the cheapest form that is exact.

With a = sqrt(alpha) the square is completed about the difference of two places,

    |z_i - a z_j|^2 = a |z_i - z_j|^2 + (1 - a) |z_i|^2 - a (1 - a) |z_j|^2

and divided by 2 (1 - alpha) = 2 (1 - a) (1 + a). Differences of neighbours are exact in float32, so
that near alpha = 1, where they are multiplied by the most, no digit is lost. The last term joins
log g_j; the middle one is the same for all supports, and only counts for the evidence.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.kernels.exp2 import LOG2E
from diffevo_jax.kernels.types import Frame, Operands

# The matmul is taken while float32's rounding of |z|^2 stays below this many nats of log weight.
MATMUL_ROUNDING = 1.5e-5
# Roundings of a squared distance by a matmul, in eps of the longest square beside the result.
ROUGH = 16
# Dimensions that one pass over a tile of distances adds, as many as hide its reading and writing.
# With 15 a pass takes five times as long.
DIMENSIONS_AT_ONCE = 16


class Geometry(NamedTuple):
    """Log2 weights, bits_j + slope |z_i - z_j|^2 - offset_i.

    query `[N, d]`, place `[M, d]`: places. bits: `[M]`. slope: `[]`, negative. offset: `[N]`.
    own_bits: what `bits` would be for a support at each query, `[N]`; None without own weights.
    add_squares: (start `[m]`, supports `[m, d]`, queries `[d, n]`) -> start_j + |z_i - z_j|^2.
    rough: the same by a matmul, off by `ROUGH` eps of the largest term; None where there is none.
    """

    query: jax.Array
    place: jax.Array
    bits: jax.Array
    slope: jax.Array
    offset: jax.Array
    own_bits: jax.Array | None
    add_squares: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    rough: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None


def make_frame(place: jax.Array, value: jax.Array, *, centred: bool) -> Frame:
    """Measure the frame of the places and genomes of all supports."""
    place, value = jax.lax.stop_gradient((place, value))
    middle = _middle(place)
    squares = (place - middle) ** 2
    return Frame(
        middle=middle,
        squares=jnp.mean(squares, axis=0),
        longest=jnp.max(jnp.sum(squares, axis=1)),
        centre=_middle(value) if centred else jnp.zeros((), value.dtype),
    )


def _middle(rows: jax.Array) -> jax.Array:
    """Return the middle of rows that are far from 0 beside their spread, `[d]`; else 0.

    It is that of the extremes, which do not depend on the number of devices.
    """
    lowest, highest = jnp.min(rows, axis=0), jnp.max(rows, axis=0)
    middle = (lowest + highest) / 2
    return jnp.where(jnp.abs(middle) >= highest - lowest, middle, 0)


def direct(operands: Operands) -> Geometry:
    """Sum squared differences term by term."""
    if operands.still:
        return Geometry(
            query=operands.query,
            place=operands.place,
            bits=LOG2E * operands.log_weight,
            slope=-LOG2E / (2 * operands.one_minus_alpha),
            offset=jnp.zeros_like(operands.query[:, 0]),
            own_bits=None if operands.own is None else LOG2E * operands.own,
            add_squares=_differences,
        )
    root = jnp.sqrt(operands.alpha)
    shrink = operands.one_minus_alpha / (1 + root)  # 1 - a, to all digits
    slope = -LOG2E * root / (2 * operands.one_minus_alpha)
    middle = operands.frame.middle

    def half_square(places: jax.Array) -> jax.Array:
        """Compute (|z|^2 - |middle|^2) / 2, over 1 + a."""
        y = places - middle
        return jnp.sum(y * (y / 2 + middle), axis=1) * (1 / (1 + root))

    own_bits = None
    if operands.own is not None:
        own_bits = LOG2E * (operands.own + root * half_square(operands.query))
    rest = half_square(operands.query) + shrink * jnp.sum(middle**2) / (2 * (1 + root))

    return Geometry(
        query=operands.query,
        place=operands.place,
        bits=LOG2E * (operands.log_weight + root * half_square(operands.place)),
        slope=slope,
        offset=LOG2E * rest,
        own_bits=own_bits,
        add_squares=_differences,
    )


def _differences(start: jax.Array, place: jax.Array, query: jax.Array) -> jax.Array:
    """Add squared differences term by term, a few dimensions in each pass over the tile."""
    sums = jnp.broadcast_to(start[:, None], (len(place), query.shape[1]))
    if len(query) <= DIMENSIONS_AT_ONCE:
        return _add_squares(sums, place, query)
    passes = -(-len(query) // DIMENSIONS_AT_ONCE)
    missing = (0, passes * DIMENSIONS_AT_ONCE - len(query))
    query = jnp.pad(query, (missing, (0, 0))).reshape(passes, DIMENSIONS_AT_ONCE, -1)
    place = jnp.pad(place, ((0, 0), missing)).reshape(-1, passes, DIMENSIONS_AT_ONCE)
    dimensions = jnp.swapaxes(place, 0, 1), query
    return jax.lax.scan(lambda sums, some: (_add_squares(sums, *some), None), sums, dimensions)[0]


def _add_squares(sums: jax.Array, place: jax.Array, query: jax.Array) -> jax.Array:
    for k in range(len(query)):
        sums = sums + (query[None, k] - place[:, None, k]) ** 2
    return sums


def guided(operands: Operands) -> Geometry:
    """Sum squared differences term by term, beside a matmul that tells where they count."""
    geometry, middle = direct(operands), operands.frame.middle

    def rough(start: jax.Array, place: jax.Array, query: jax.Array) -> jax.Array:
        place, query = place - middle, query - middle[:, None]
        product = jnp.matmul(place, 2 * query, precision=jax.lax.Precision.HIGHEST)
        return (start + jnp.sum(place**2, axis=1))[:, None] - product + jnp.sum(query**2, axis=0)

    return geometry._replace(rough=rough)


def expanded(operands: Operands) -> Geometry:
    """Expand |z_i|^2 + |z_j|^2 - 2 z_i z_j about the middle: a matmul, for many dimensions.

    |z_i|^2 and the mean of |z_j|^2 are the same for all supports and join the offset. What is left
    is of size sqrt(d), not d, and so are its rounding errors. The mean is that of the frame: where
    the supports are a share, the other shares have the same offset.
    """
    geometry, frame = direct(operands), operands.frame
    query, place = operands.query - frame.middle, operands.place - frame.middle
    slope, mean = geometry.slope, jnp.sum(frame.squares)

    def add_squares(start, place, query):
        return start[:, None] - jnp.matmul(place, 2 * query, precision=jax.lax.Precision.HIGHEST)

    return geometry._replace(
        query=query,
        place=place,
        bits=geometry.bits + slope * jnp.sum(place**2 - frame.squares, axis=1),
        offset=geometry.offset - slope * (jnp.sum(query**2, axis=1) + mean),
        add_squares=add_squares,
    )


def matmul_is_exact(operands: Operands) -> jax.Array:
    """Whether the expanded square keeps enough digits beside 1 - alpha, `[]`."""
    most_nats = operands.frame.longest * operands.alpha / operands.one_minus_alpha
    return jnp.finfo(operands.place.dtype).eps * most_nats <= MATMUL_ROUNDING
