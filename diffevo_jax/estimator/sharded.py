"""The posterior mean with queries and supports split over the devices of a mesh."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from diffevo_jax.estimator.types import Posterior, Problem
from diffevo_jax.sharding import padded, split


def posterior(
    solve: Callable[[Problem, jax.Array | None], Posterior],
    problem: Problem,
    floor: jax.Array | None,
    mesh: Mesh,
) -> Posterior:
    """Posterior of every query, each device taking its share of them.

    solve: an implementation, (problem, floor) -> Posterior.
    """
    n = len(problem.query)
    rows, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
    arrays = {name: value for name, value in problem._asdict().items() if name != "precision"}
    arrays = {name: _fill(name, array, mesh) for name, array in arrays.items()}

    def gathered(arrays, floor) -> Posterior:
        for name in ("key", "value", "log_weight"):
            arrays[name] = jax.lax.all_gather(arrays[name], mesh.axis_names, tiled=True)
        return solve(Problem(**arrays, precision=problem.precision), floor)

    specs = {name: rows for name in arrays} | {"alpha": whole, "one_minus_alpha": whole}
    mapped = jax.shard_map(
        gathered, mesh=mesh, in_specs=(specs, whole), out_specs=rows, check_vma=False
    )
    return jax.tree.map(lambda array: split(array[:n], mesh), mapped(arrays, floor))


def _fill(name: str, array: jax.Array | None, mesh: Mesh) -> jax.Array | None:
    """Rows up to a multiple of the devices; the new ones take no part."""
    if array is None or not array.ndim:
        return array
    missing = [(0, padded(len(array), mesh) - len(array))] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, missing, constant_values=jnp.nan if array.ndim == 1 else 0)
