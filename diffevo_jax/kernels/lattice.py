"""Sums in up to three dimensions at the nodes of a lattice, interpolated: N + nodes, not N times N.

Distances in units of the kernel's width, S(q) = sum_j w_j exp(-|q - k_j|^2 / 2) is a smooth
function of the place q, and so are the averages. Their values at the nodes around the queries,
as many as the places fill and not as there are individuals, carry all of them. About c, the node
nearest to a query, and with t the slope of log S there,

    F(q) = S(q) / S(c) exp(|q - c|^2 / 2 - t (q - c))

is the moment generating function of the posterior's places about their mean, near 1 and flat
however steep S is: it is what Lagrange's polynomials interpolate, and F times the averages.

What the lattice cannot decide is summed in full: queries shared by supports many widths apart,
which two orders of interpolation tell by their difference; queries alone in their cell; and all
where the nodes are too many. Steps of the lattice have few digits, so that nodes and a query's
place between them are exact in float32.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.checks import InputError, is_traced
from diffevo_jax.kernels.exp2 import LOG2E
from diffevo_jax.kernels.geometry import direct
from diffevo_jax.kernels.nearby import first, in_order
from diffevo_jax.kernels.tiled import cut
from diffevo_jax.kernels.types import Operands, Sums

MOST_DIMENSIONS = 3
_MEND = "'auto' takes any, and the lattice where it is faster"
# Queries from which on it is worth its own work, in one, two and three dimensions; and supports.
LEAST_QUERIES, LEAST_SUPPORTS = (2**13, 2**13, 2**16), 2**11

_STEP = 0.25  # of the lattice, in widths of the kernel, at most
_REACH = 4  # nodes to each side that a query is interpolated from
# Largest error of the averages, in standard deviations of the genes, by extrapolation from the
# differences of three orders; and the largest difference of two, as a share of the sums.
_ERROR, _SHARE = 2e-6, 1e-3
_NODES = 4  # queries for each node, at least
_CELLS = 16  # of the box around the nodes, for each query, at most
_LONGEST = 2**17  # the box along one axis, in cells
_FURTHEST = 2**19  # a node from 0, in steps of few digits: its place has 24 bits
_ENTRIES = 2**22  # numbers that interpolation gathers at a time
_LAST = np.uint32(2**32 - 1)  # in the order of places
_HIGHEST = jax.lax.Precision.HIGHEST


class NodeSums(NamedTuple):
    """What is summed at nodes, and interpolated.

    bits: log2 of the sum of weights, `[n]`, -inf without any. mean: average about the frame's
    centre, `[n, D]`. concentration: log2 of sum_j w_j^2 / (sum_j w_j)^2, `[n]`; None where not
    needed.
    """

    bits: jax.Array
    mean: jax.Array
    concentration: jax.Array | None


class Lattice(NamedTuple):
    """Nodes around the queries.

    cell: of each query, in the box of nodes, `[N]`. between: its place from its cell's node, in
    steps, `[N, d]`. step: `[]`. strides: from one cell of the box to the next along each axis.
    number: of the node in each cell of the box. place: of the nodes, `[nodes, d]`, in order.
    num_nodes: that there are, `[]`. lone: queries alone in their cell, `[N]`. fits: whether the
    nodes carry the queries, `[]`.
    """

    cell: jax.Array
    between: jax.Array
    step: jax.Array
    strides: list[jax.Array]
    number: jax.Array
    place: jax.Array
    num_nodes: jax.Array
    lone: jax.Array
    fits: jax.Array


def takes(operands: Operands) -> bool:
    """Whether the lattice takes such operands and is worth its work."""
    (n, dim), m, dtype = operands.query.shape, len(operands.place), operands.value.dtype
    return _why_not(n, m, dim, dtype) is None


def check(n: int, m: int, dim: int, dtype) -> None:
    """Raise InputError where the lattice does not take so many queries, supports or dimensions."""
    if reason := _why_not(n, m, dim, dtype):
        raise InputError("implementation", *reason, _MEND)


def _why_not(n: int, m: int, dim: int, dtype) -> tuple[str, str] | None:
    if dim > MOST_DIMENSIONS:
        return f"at most {MOST_DIMENSIONS} dimensions for 'lattice'", f"{dim}"
    if dtype != jnp.float32:
        return "float32 for 'lattice'", f"{dtype}"
    least = LEAST_QUERIES[dim - 1]
    if n < least or m < LEAST_SUPPORTS:
        expected = f"at least {least} individuals and {LEAST_SUPPORTS} supports for 'lattice'"
        return f"{expected} in {dim} dimensions", f"{n} and {m}"
    return None


def check_places(query: jax.Array, alpha_t, one_minus_alpha) -> None:
    """Raise InputError where the places are all equal or span too many widths of the kernel."""
    if is_traced(alpha_t) or is_traced(one_minus_alpha):
        return
    rest = 1 - float(alpha_t) if one_minus_alpha is None else float(one_minus_alpha)
    width = math.sqrt(rest / math.sqrt(float(alpha_t)))
    span = float(jnp.max(jnp.ptp(query, axis=0))) / width
    most = _STEP / 2 * (_LONGEST - 2 * _REACH)
    if span == 0:
        raise InputError("implementation", "places that differ for 'lattice'", "all equal", _MEND)
    if span > most:
        expected = f"places within {most:.0f} widths of the kernel for 'lattice'"
        raise InputError("implementation", expected, f"{span:.3g}", _MEND)


def part(operands: Operands, add_up: Callable[[Operands, jax.Array], Sums]) -> Sums:
    """Sum over the supports at every query. Not for derivatives.

    add_up: operands with queries and supports in order, how many of the queries count -> Sums.
    """
    n, geometry = len(operands.query), direct(operands)
    low, high = jnp.min(operands.place, axis=0), jnp.max(operands.place, axis=0)
    order = jnp.argsort(in_order(operands.place, low, high))
    supports = [a[order] for a in (operands.place, operands.value, operands.log_weight)]
    operands = replace(
        operands, **dict(zip(("place", "value", "log_weight"), supports, strict=True)), own=None
    )

    def values_at(query: jax.Array, count: jax.Array) -> NodeSums:
        sums = add_up(replace(operands, query=query), count)
        has_weight = (jnp.arange(len(query)) < count) & (sums.weight > 0)
        weight = jnp.where(has_weight, sums.weight, 1)
        concentration = None
        if sums.squares is not None:
            concentration = jnp.log2(jnp.where(has_weight, sums.squares, 1)) - 2 * jnp.log2(weight)
        return NodeSums(
            bits=jnp.where(has_weight, sums.shift + jnp.log2(weight), -jnp.inf),
            mean=sums.total / weight[:, None],
            concentration=concentration,
        )

    lattice = make_lattice(geometry.query, geometry.slope, low, high)
    at_nodes = values_at(lattice.place, jnp.where(lattice.fits, lattice.num_nodes, 0))
    spread = jnp.std(operands.value - operands.frame.centre, axis=0)
    spread = jnp.where(spread > 0, spread, 1)
    values, good = _interpolate(lattice, at_nodes, geometry.slope, spread)
    # The others in full, in an order that keeps them together.
    left = ~(good & lattice.fits) | lattice.lone
    count = jnp.sum(left)
    rows = jnp.argsort(jnp.where(left, in_order(geometry.query, low, high), _LAST))
    in_full = values_at(geometry.query[rows], count)
    rows = jnp.where(jnp.arange(n) < count, rows, n)
    bits, mean, concentration = jax.tree.map(
        lambda a, b: a.at[rows].set(b, mode="drop"), values, in_full
    )
    has_weight = jnp.isfinite(bits)
    return Sums(
        shift=jnp.where(has_weight, bits, 0),
        offset=geometry.offset,
        weight=has_weight.astype(bits.dtype),
        squares=None if concentration is None else jnp.exp2(concentration),
        total=mean,
    )


def make_lattice(query: jax.Array, slope: jax.Array, low: jax.Array, high: jax.Array) -> Lattice:
    """Lay a lattice around the queries, `[N, d]`.

    slope: of log2 weights in squared distance, `[]`. low, high: the box that orders places.
    """
    n, dim = query.shape
    step = _few_digits(_STEP * jnp.sqrt(LOG2E / (-2 * slope)))
    steps = jnp.round(query / step)
    fits = jnp.max(jnp.abs(steps)) < _FURTHEST
    index = steps.astype(jnp.int32)
    start = jnp.min(index, axis=0) - _REACH
    index -= start
    fits &= jnp.max(index) < _LONGEST - _REACH
    # An axis has what is within reach of a query, without the gaps.
    sizes, along, place = [], [], []
    for k in range(dim):
        marks = jnp.zeros(_LONGEST, bool).at[index[:, k]].set(True, mode="drop")
        marks = _dilated(marks, 1)
        rank = jnp.cumsum(marks) - 1
        sizes.append(rank[-1] + 1)
        along.append(rank[index[:, k]])
        place.append(jnp.nonzero(marks, size=_LONGEST, fill_value=0)[0] + start[k])
    cells, nodes = _CELLS * n, n // _NODES
    fits &= jnp.prod(jnp.stack(sizes).astype(query.dtype)) <= cells
    sizes = [jnp.where(fits, size, 1) for size in sizes]
    strides = [jnp.ones((), jnp.int32)]
    for size in sizes[:-1]:
        strides.append(strides[-1] * size)
    along = (jnp.where(fits, a, 0) * stride for a, stride in zip(along, strides, strict=True))
    cell = reduce(jnp.add, along)
    inhabitants = jnp.zeros(cells, jnp.int32).at[cell].add(1)
    # A query that is alone is summed in full: the nodes around it would be as many.
    marks = reduce(_dilated, strides, inhabitants > 1)
    count = jnp.sum(marks)
    fits &= count <= nodes
    where = jnp.nonzero(marks, size=nodes, fill_value=0)[0]
    rest, axes = where, []
    for size, values in zip(sizes, place, strict=True):
        axes.append(values[rest % size])
        rest //= size
    place = jnp.stack(axes, axis=1).astype(query.dtype) * step
    exists = jnp.arange(nodes) < count
    order = jnp.argsort(jnp.where(exists, in_order(place, low, high), _LAST))
    at = jnp.where(exists, where[order], cells)
    return Lattice(
        cell=cell,
        between=(query - steps * step) / step,
        step=step,
        strides=strides,
        number=jnp.zeros(cells, jnp.int32).at[at].set(jnp.arange(nodes), mode="drop"),
        place=place[order],
        num_nodes=count,
        lone=inhabitants[cell] == 1,
        fits=fits,
    )


def _interpolate(
    lattice: Lattice, at_nodes: NodeSums, slope: jax.Array, spread: jax.Array
) -> tuple[NodeSums, jax.Array]:
    """Interpolate the values at the nodes, and say where they are near enough, `[N]`.

    slope: of log2 weights in squared distance, `[]`. spread: of the genes, `[D]`.
    """
    n, dim = lattice.between.shape
    around = np.array(list(itertools.product(range(-_REACH, _REACH + 1), repeat=dim)))
    middle, beside = len(around) // 2, (2 * _REACH + 1) ** np.arange(dim)[::-1]
    offsets = sum(around[:, k] * lattice.strides[k] for k in range(dim))
    around = jnp.asarray(around, slope.dtype)

    def carried(bits: jax.Array, bend: jax.Array, between: jax.Array):
        """Interpolate sums of weights from their bits above the middle's, `[Q, nodes]`.

        bend: of the Gaussian, from node to node. Returns their bits there, but for the bend's,
        the nodes' shares by each order, and whether these agree.
        """
        tilt = (bits[:, middle + beside] - bits[:, middle - beside]) / 2
        plane = jnp.matmul(tilt, around.T, precision=_HIGHEST)
        flat = jnp.exp2(bits - bend * jnp.sum(around**2, axis=1) - plane)
        terms = [flat * _lagrange(between, _REACH - less) for less in range(3)]
        sums = [jnp.sum(term, axis=1) for term in terms]
        shares = [term / whole[:, None] for term, whole in zip(terms, sums, strict=True)]
        rise = jnp.sum(tilt * between, axis=1) + jnp.log2(sums[0])
        return rise, shares, jnp.abs(sums[0] - sums[1]) <= _SHARE * sums[0]

    def block(args) -> tuple[NodeSums, jax.Array]:
        cell, between = args
        nodes = lattice.number[cell[:, None] + offsets]
        bits, mean, concentration = jax.tree.map(lambda a: a[nodes], at_nodes)
        level, centre = bits[:, middle], mean[:, middle]
        bits, mean = bits - level[:, None], mean - centre[:, None]
        bend = slope * lattice.step**2
        rise, shares, good = carried(bits, bend, between)
        x, lower, lowest = (jnp.einsum("qs,qsd->qd", a, mean, precision=_HIGHEST) for a in shares)
        far, further = (
            jnp.max(jnp.abs(a - b) / spread, axis=1) for a, b in ((x, lower), (lower, lowest))
        )
        # Each order is nearer than the one below by about the same factor.
        good &= (far <= _ERROR) | (far**2 <= _ERROR * further)
        if concentration is not None:
            start = concentration[:, middle]
            bits = concentration - start[:, None] + 2 * bits
            of_squares, _, also = carried(bits, 2 * bend, between)
            concentration, good = start + of_squares - 2 * rise, good & also
        bits = level + bend * jnp.sum(between**2, axis=1) + rise
        return NodeSums(bits, centre + x, concentration), good

    size = min(n, max(1, _ENTRIES // (len(around) * (at_nodes.mean.shape[1] + 2))))
    arrays = [cut(a, size, mode="edge") for a in (lattice.cell, lattice.between)]
    results = first(block, arrays, jnp.where(lattice.fits, -(-n // size), 0))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], results)


def _lagrange(between: jax.Array, reach: int) -> jax.Array:
    """Weigh the nodes around for places `[Q, d]` between them, those within `reach`; `[Q, all]`."""
    nodes = np.arange(-reach, reach + 1)

    def axis(place: jax.Array) -> jax.Array:
        factors = {m: place - m for m in nodes}
        weights = (
            reduce(jnp.multiply, (factors[m] / (k - m) for m in nodes if m != k)) for k in nodes
        )
        return jnp.pad(jnp.stack(list(weights), axis=1), ((0, 0), 2 * (_REACH - reach,)))

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)

    return reduce(product, (axis(place) for place in between.T))


def _few_digits(x: jax.Array) -> jax.Array:
    """Round down to a number of four binary digits."""
    mantissa, exponent = jnp.frexp(x)
    return jnp.ldexp(jnp.floor(mantissa * 16) / 16, exponent)


def _dilated(marks: jax.Array, stride: jax.Array | int) -> jax.Array:
    """Mark all within `_REACH` strides of a mark; there is none so near to an end."""
    done, wanted = 1, 2 * _REACH + 1
    while done < wanted:
        more = min(done, wanted - done)
        marks |= jnp.roll(marks, more * stride)
        done += more
    return jnp.roll(marks, -_REACH * stride)
