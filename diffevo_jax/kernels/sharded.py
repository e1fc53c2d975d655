"""The sums with queries and supports split over the devices of a mesh.

Each device estimates its own queries. The supports come to it in one of two ways:

gather   all of them at once, by one all-gather: what one device computes, for fewer queries.
ring     a share at a time, passed from neighbour to neighbour (`ppermute`) while the one before is
         summed; the sums over the shares are merged. No device ever holds more than three shares:
         its own, one at work and one on its way.

Both move the same bytes. The ring is taken where the supports are large (`GATHERED_BYTES`).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from diffevo_jax.kernels.types import NO_WEIGHT, Operands, Sums, merge
from diffevo_jax.sharding import padded, split

# Supports of up to this size are gathered: less than what a device has beside them for tiles.
GATHERED_BYTES = 64 * 2**20


def is_large(operands: Operands) -> bool:
    """Whether the supports take more than `GATHERED_BYTES`."""
    places = operands.place.nbytes if operands.latent else 0
    return places + operands.value.nbytes + operands.log_weight.nbytes > GATHERED_BYTES


def sums(part: Callable[..., Sums], operands: Operands, mesh: Mesh, *, ring: bool) -> Sums:
    """Sum over all supports at every query, each device taking its share of the queries.

    part: (operands) -> Sums, and with a ring (operands, axes) -> Sums.
    """
    axes, n, m = mesh.axis_names, len(operands.query), len(operands.place)
    rows, whole = PartitionSpec(axes), PartitionSpec()
    fill = partial(_fill, mesh=mesh)
    operands = replace(
        operands,
        query=fill(operands.query),
        place=fill(operands.place) if operands.latent else None,  # the genomes travel once
        value=fill(operands.value),
        log_weight=fill(operands.log_weight),
        own=None if operands.own is None else fill(operands.own),
    )
    specs = replace(
        jax.tree.map(lambda _: whole, operands),
        query=rows,
        place=rows if operands.latent else None,
        value=rows,
        log_weight=rows,
        own=None if operands.own is None else rows,
    )

    def share(operands: Operands) -> Sums:
        if ring:
            return part(operands, axes)
        place, value, log_weight = jax.tree.map(
            lambda x: jax.lax.all_gather(x, axes, tiled=True)[:m],
            (operands.place, operands.value, operands.log_weight),
        )
        return part(_with_supports(operands, place, value, log_weight))

    mapped = jax.shard_map(share, mesh=mesh, in_specs=(specs,), out_specs=rows, check_vma=False)
    return jax.tree.map(lambda x: split(x[:n], mesh), mapped(operands))


def over_all(
    part: Callable[[Operands], Sums], operands: Operands, axes: tuple[str, ...] = ()
) -> Sums:
    """Sum over the supports of this device and, with axes, those that the ring brings."""
    if not axes:
        return part(operands)
    devices = jax.lax.axis_size(axes)
    ring = [(i, (i + 1) % devices) for i in range(devices)]
    supports = operands.place, operands.value, operands.log_weight

    def solve(supports) -> Sums:
        return part(_with_supports(operands, *supports))

    def turn(carry, _):
        supports, sums = carry
        coming = jax.lax.ppermute(supports, axes, ring)
        return (coming, merge(sums, solve(supports))), None

    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(solve, supports))
    return jax.lax.scan(turn, (supports, nothing), length=devices)[0][1]


def _with_supports(operands: Operands, place, value, log_weight) -> Operands:
    place = value[:, : operands.query.shape[1]] if place is None else place
    return replace(operands, place=place, value=value, log_weight=log_weight)


def _fill(array: jax.Array, mesh: Mesh) -> jax.Array:
    """Add rows up to a multiple of the devices; they weigh nothing."""
    missing = [(0, padded(len(array), mesh) - len(array))] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, missing, constant_values=NO_WEIGHT if array.ndim == 1 else 0)
