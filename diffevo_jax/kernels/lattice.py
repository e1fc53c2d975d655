"""Sums in up to three dimensions at the nodes of a lattice, interpolated: N + nodes, not N times N.

Distances in units of the kernel's width, S(q) = sum_j w_j exp(-|q - k_j|^2 / 2) is a smooth
function of the place q, and so are the averages. Their values at the nodes around the queries,
as many as the places fill and not as there are individuals, carry all of them. About c, the node
nearest to a query, and with t the slope of log S there,

    F(q) = S(q) / S(c) exp(|q - c|^2 / 2 - t (q - c))

is the moment generating function of the posterior's places about their mean, near 1 and flat
however steep S is: it is what Lagrange's polynomials interpolate, and F times the averages.

What the lattice cannot decide, queries shared by supports many widths apart, three orders of
interpolation tell by their differences. A lattice of half the step takes these, and one of a
quarter. What is left then is summed in full: queries alone in their cell, and all where the nodes
are too many. Steps have few digits, so that nodes and a query's place between them are exact in
float32.
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
LEAST_QUERIES, LEAST_SUPPORTS = (2**14, 2**14, 2**16), 2**11

_STEP = 0.25  # of the lattice, in widths of the kernel, at most
# Lattices, each of half the step, for what the one before could not decide, if it is more than a
# share of the individuals.
_LATTICES, _LEFT = 4, 256
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
    steps, `[N, d]`. step: `[]`. strides: from a cell of the box to the next along each axis, `[d]`.
    number: of the node in each cell of the box. place: of the nodes, `[nodes, d]`, in order.
    num_nodes: that there are, `[]`. lone: queries alone in their cell, `[N]`. fits: whether the
    nodes carry the queries, `[]`.
    """

    cell: jax.Array
    between: jax.Array
    step: jax.Array
    strides: jax.Array
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
    with jax.ensure_compile_time_eval():  # also where the caller is traced
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

    spread = jnp.std(operands.value - operands.frame.centre, axis=0)
    spread = jnp.where(spread > 0, spread, 1)

    def carry_more(carry):
        values, left, halvings, _ = carry
        lattice = make_lattice(geometry.query, left, geometry.slope, low, high, halvings)
        at_nodes = values_at(lattice.place, jnp.where(lattice.fits, lattice.num_nodes, 0))
        rows = jnp.argsort(~left)
        count = jnp.where(lattice.fits, jnp.sum(left), 0)
        found, good = _interpolate(lattice, rows, count, at_nodes, geometry.slope, spread)
        rows = jnp.where(good & (jnp.arange(n) < count), rows, n)
        values = jax.tree.map(lambda a, b: a.at[rows].set(b, mode="drop"), values, found)
        return values, left.at[rows].set(False, mode="drop"), halvings + 1, lattice.fits

    def pays(carry) -> jax.Array:
        _, left, halvings, fits = carry
        return fits & (halvings < _LATTICES) & (jnp.sum(left) > n // _LEFT)

    nothing = jax.tree.map(
        lambda a: jnp.zeros((n, *a.shape[1:]), a.dtype),
        jax.eval_shape(values_at, operands.query, n),
    )
    start = nothing, jnp.ones(n, bool), jnp.int32(0), jnp.asarray(True)
    values, left, _, _ = jax.lax.while_loop(pays, carry_more, start)
    # The others in full, in an order that keeps them together.
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


def make_lattice(
    query: jax.Array,
    left: jax.Array,
    slope: jax.Array,
    low: jax.Array,
    high: jax.Array,
    halvings: jax.Array | int = 0,
) -> Lattice:
    """Lay a lattice around the queries, `[N, d]`, that are left, `[N]`.

    slope: of log2 weights in squared distance, `[]`. low, high: the box that orders places.
    halvings: of the step.
    """
    (n, dim), axes = query.shape, jnp.arange(query.shape[1])
    step = jnp.ldexp(_few_digits(_STEP * jnp.sqrt(LOG2E / (-2 * slope))), -jnp.asarray(halvings))
    steps = jnp.round(query / step)
    fits = jnp.max(jnp.abs(steps), where=left[:, None], initial=0) < _FURTHEST
    index = steps.astype(jnp.int32)
    start = jnp.min(index, axis=0, where=left[:, None], initial=_FURTHEST) - _REACH
    index = jnp.where(left[:, None], index - start, 2 * _LONGEST)
    fits &= jnp.max(index, where=left[:, None], initial=0) < _LONGEST - _REACH
    # An axis has what is within reach of a query, without the gaps.
    marks = jnp.zeros((dim, _LONGEST + 2 * _REACH + 1), jnp.int32)
    marks = marks.at[axes, index + _REACH + 1].set(1, mode="drop")
    upto = jnp.cumsum(marks, axis=1)
    marks = upto[:, 2 * _REACH + 1 :] > upto[:, : -2 * _REACH - 1]
    rank = jnp.cumsum(marks, axis=1) - 1
    steps_at = jnp.zeros((dim, _LONGEST), jnp.int32)
    steps_at = steps_at.at[axes[:, None], jnp.where(marks, rank, _LONGEST)].set(
        jnp.arange(_LONGEST) + start[:, None], mode="drop"
    )
    sizes = rank[:, -1] + 1
    cells, nodes = _CELLS * n, n // _NODES
    fits &= jnp.prod(sizes.astype(query.dtype)) <= cells
    sizes = jnp.where(fits, sizes, 1)
    strides = jnp.cumprod(sizes) // sizes
    along = jnp.where(fits, rank[axes, jnp.minimum(index, _LONGEST - 1)], 0)
    cell = jnp.sum(along * strides, axis=1)
    inhabitants = jnp.zeros(cells, jnp.int32)
    inhabitants = inhabitants.at[jnp.where(left, cell, cells)].add(1, mode="drop")
    # A query that is alone is summed in full: the nodes around it would be as many.
    marks = _dilated(inhabitants > 1, strides)
    upto = jnp.cumsum(marks)
    count = upto[-1]
    fits &= (count <= nodes) & (2 * count <= jnp.sum(left))
    where = jnp.zeros(nodes, jnp.int32)
    where = where.at[jnp.where(marks, upto - 1, nodes)].set(jnp.arange(cells), mode="drop")
    along = where[:, None] // strides % sizes
    place = steps_at[axes, along].astype(query.dtype) * step
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
    lattice: Lattice,
    rows: jax.Array,
    count: jax.Array,
    at_nodes: NodeSums,
    slope: jax.Array,
    spread: jax.Array,
) -> tuple[NodeSums, jax.Array]:
    """Interpolate the values at the nodes, and say where they are near enough, `[N]`.

    rows: queries, of which the first `count` are interpolated. slope: of log2 weights in squared
    distance, `[]`. spread: of the genes, `[D]`.
    """
    n, dim = lattice.between.shape
    around = np.array(list(itertools.product(range(-_REACH, _REACH + 1), repeat=dim)))
    middle, beside = len(around) // 2, (2 * _REACH + 1) ** np.arange(dim)[::-1]
    offsets = jnp.sum(around * lattice.strides, axis=1)
    around = jnp.asarray(around, slope.dtype)
    bend = slope * lattice.step**2  # of the Gaussian, from node to node
    # Sums of weights, and of their squares, under a Gaussian twice as steep.
    kinds = jnp.arange(1, 2 if at_nodes.concentration is None else 3, dtype=slope.dtype)

    def block(args) -> tuple[NodeSums, jax.Array]:
        cell, between, lone = args
        nodes = lattice.number[cell[:, None] + offsets]
        bits, mean, concentration = jax.tree.map(lambda a: a[nodes], at_nodes)
        level, centre = bits[:, middle], mean[:, middle]
        rise = kinds[:, None, None] * (bits - level[:, None])
        if concentration is not None:
            rise = rise.at[1].add(concentration - concentration[:, middle, None])
        tilt = (rise[..., middle + beside] - rise[..., middle - beside]) / 2
        bowl = kinds[:, None, None] * bend * jnp.sum(around**2, axis=1)
        flat = jnp.exp2(rise - bowl - jnp.matmul(tilt, around.T, precision=_HIGHEST))
        # [kinds, orders, queries, nodes]
        shares = flat[:, None] * _lagrange(between)
        sums = jnp.sum(shares, axis=-1)
        shares = shares[0] / sums[0, :, :, None]
        x = jnp.einsum("oqs,qsd->oqd", shares, mean - centre[:, None], precision=_HIGHEST)
        far, further = jnp.max(jnp.abs(x[:-1] - x[1:]) / spread, axis=-1)
        # Each order is nearer than the one below by about the same factor.
        good = ~lone & ((far <= _ERROR) | (far**2 <= _ERROR * further))
        good &= jnp.all(jnp.abs(sums[:, 0] - sums[:, 1]) <= _SHARE * sums[:, 0], axis=0)
        rise = jnp.sum(tilt * between, axis=-1) + jnp.log2(sums[:, 0])
        if concentration is not None:
            concentration = concentration[:, middle] + rise[1] - 2 * rise[0]
        bits = level + bend * jnp.sum(between**2, axis=1) + rise[0]
        return NodeSums(bits, centre + x[0], concentration), good

    size = min(n, max(1, _ENTRIES // (len(around) * (at_nodes.mean.shape[1] + 2))))
    arrays = lattice.cell, lattice.between, lattice.lone
    arrays = [cut(a[rows], size, mode="edge") for a in arrays]
    results = first(block, arrays, -(-count // size))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], results)


def _lagrange(between: jax.Array) -> jax.Array:
    """Weigh the nodes around for places `[Q, d]` between them, by three orders, `[3, Q, nodes]`."""
    powers = between[..., None] ** jnp.arange(2 * _REACH + 1)
    polynomials = jnp.asarray(_POLYNOMIALS, between.dtype)
    weights = jnp.einsum("qdk,okn->doqn", powers, polynomials, precision=_HIGHEST)

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return (a[..., :, None] * b[..., None, :]).reshape(*a.shape[:-1], -1)

    return reduce(product, weights)


def _make_polynomials() -> np.ndarray:
    """Lagrange's, by order and node: coefficients of powers, `[3, powers, nodes]`."""
    nodes = np.arange(-_REACH, _REACH + 1)
    coefficients = np.zeros((3, len(nodes), len(nodes)))
    for less in range(3):
        inner = nodes[less : len(nodes) - less]
        for k in inner:
            others = inner[inner != k]
            polynomial = np.polynomial.polynomial.polyfromroots(others) / np.prod(k - others)
            coefficients[less, : len(polynomial), k + _REACH] = polynomial
    return coefficients


_POLYNOMIALS = _make_polynomials()


def _few_digits(x: jax.Array) -> jax.Array:
    """Round down to a number of four binary digits."""
    mantissa, exponent = jnp.frexp(x)
    return jnp.ldexp(jnp.floor(mantissa * 16) / 16, exponent)


def _dilated(marks: jax.Array, strides: jax.Array) -> jax.Array:
    """Mark all within `_REACH` of a mark along each axis; there is none so near to an end."""

    def axis(marks: jax.Array, stride: jax.Array) -> tuple[jax.Array, None]:
        def shift(k: jax.Array, wider: jax.Array) -> jax.Array:
            return wider | jnp.roll(marks, k * stride)

        return jax.lax.fori_loop(-_REACH, _REACH + 1, shift, marks), None

    return jax.lax.scan(axis, marks, strides)[0]
