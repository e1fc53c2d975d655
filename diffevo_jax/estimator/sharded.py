"""The posterior mean with queries and supports split over the devices of a mesh.

Each device estimates its own queries. The supports come to it in one of two ways:

gather   all of them at once, by one all-gather: what one device computes, for fewer queries.
ring     a share at a time, passed from neighbour to neighbour (`ppermute`) while the one before is
         summed; posteriors over the shares merge by their evidence. No device ever holds more than
         three shares: its own, one at work and one on its way.

Both move the same bytes. The ring is taken where the supports are large (`GATHERED_BYTES`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from diffevo_jax.estimator.types import Part, Posterior, Problem, merge
from diffevo_jax.sharding import padded, split

# Supports of up to this size are gathered: less than what a device has beside them for tiles.
GATHERED_BYTES = 64 * 2**20
_SUPPORTS = ("key", "value", "log_weight")


class Share(NamedTuple):
    """How a problem is shared out.

    ring: whether supports are passed around, not gathered.
    """

    mesh: Mesh
    ring: bool


def is_large(problem: Problem) -> bool:
    """Whether the supports take more than `GATHERED_BYTES`."""
    places = problem.key.nbytes if problem.latent else 0
    return places + problem.value.nbytes + problem.log_weight.nbytes > GATHERED_BYTES


def posterior(
    solve: Callable[[Problem, jax.Array | None], Posterior],
    problem: Problem,
    floor: jax.Array | None,
    share: Share,
) -> Posterior:
    """Posterior of every query, each device taking its share of them.

    solve: an implementation, (problem, floor) -> Posterior.
    """
    mesh, axes = share.mesh, share.mesh.axis_names
    n, m = len(problem.query), len(problem.key)
    rows, whole = PartitionSpec(axes), PartitionSpec()
    split_up = {
        name: _fill(array, padded(len(array), mesh))
        for name, array in problem.arrays().items()
        if name in ("query", "own", *_SUPPORTS) and array is not None
    }
    if not problem.latent:
        del split_up["key"]  # the genomes travel once
    rest = {name: getattr(problem, name) for name in ("alpha", "one_minus_alpha", "frame")}

    def mine(split_up: dict, rest: dict, floor) -> Posterior:
        if not share.ring:
            for name in (name for name in _SUPPORTS if name in split_up):
                split_up[name] = jax.lax.all_gather(split_up[name], axes, tiled=True)[:m]
        arrays = {"key": split_up["value"], "own": None} | rest | split_up
        settings: dict[str, Any] = dict(problem.static()) | {"axes": axes if share.ring else ()}
        return solve(Problem(**arrays, **settings), floor)

    mapped = jax.shard_map(
        mine, mesh=mesh, in_specs=(rows, whole, whole), out_specs=rows, check_vma=False
    )
    return jax.tree.map(lambda x: split(x[:n], mesh), mapped(split_up, rest, floor))


def over_all(part: Callable[[Problem], Part], problem: Problem) -> Part:
    """The part over all supports: those of this device, then those that the ring brings."""
    if not problem.axes:
        return part(problem)
    n, dim = problem.query.shape
    devices = jax.lax.axis_size(problem.axes)
    ring = [(i, (i + 1) % devices) for i in range(devices)]
    nothing = Part(
        x0=jnp.zeros((n, problem.value.shape[1]), problem.value.dtype),
        weight=jnp.zeros(n, problem.value.dtype),
        shift=jnp.zeros(n, problem.value.dtype),
        offset=jnp.zeros(n, problem.value.dtype),
        effective_sample_size=jnp.zeros(n, problem.value.dtype),
    )

    def turn(carry, _):
        supports, sums = carry
        coming = jax.lax.ppermute(supports, problem.axes, ring)
        key, value, log_weight = supports
        key = value[:, :dim] if key is None else key
        share = problem._replace(key=key, value=value, log_weight=log_weight, axes=())
        return (coming, merge(sums, part(share))), None

    supports = (problem.key if problem.latent else None, problem.value, problem.log_weight)
    return jax.lax.scan(turn, (supports, nothing), length=devices)[0][1]


def _fill(array: jax.Array, size: int) -> jax.Array:
    """Rows up to `size`; the new ones take no part."""
    missing = [(0, size - len(array))] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, missing, constant_values=jnp.nan if array.ndim == 1 else 0)
