"""Individuals split over the devices of a mesh.

A mesh is JAX's own, `jax.sharding.Mesh(jax.devices(), ("individuals",))`; with more than one axis,
individuals are split over all of them together. Handed to `diffusion_evolution` it keeps whole runs
split. Random numbers are those of one device: JAX draws an array's elements the same way wherever
they lie.

    rows = de.sharding.rows(mesh)
    draw = jax.jit(partial(jax.random.normal, shape=(N, D)), out_shardings=rows)
    evolution = de.diffusion_evolution(25, mesh=mesh)
    key_draw, key_run = jax.random.split(key)
    evolved = de.evolve(key_run, evolution, fitness_fn, draw(key_draw))

An array whose N the devices do not divide is stored whole on each of them; work on it is split.
For memory, take a multiple of the devices.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from diffevo_jax.batch import individual_keys
from diffevo_jax.checks import InputError, is_traced


def rows(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays `[N, ...]` with individuals split over all of the mesh's axes.

    Raises InputError on what is no mesh of axes of type Auto.
    """
    check_mesh(mesh)
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def over_individuals(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Let each device call `function` for its own individuals: (key, population) -> `[N, ...]`.

    function: (keys `[n]`, population `[n, D]`) -> pytree of `[n, ...]`, each row of its own key and
        genome alone. It gets `jax.random.split(key, N)`, or what it is called with where those are
        keys `[N]`, whatever the mesh. The population may be a pytree of `[N, ...]`; what follows it
        goes to each device whole.

    For what the compiler can't split by itself: loops whose length depends on the individuals, such
    as roll-outs. `returns` of `tasks` take the keys of individuals for this:

        fitness_fn = over_individuals(lambda keys, x: returns(keys, x).mean(axis=1), mesh)
    """
    sharding = rows(mesh)
    mapped = jax.shard_map(
        lambda keys, population, whole: function(keys, population, *whole),
        mesh=mesh,
        in_specs=(sharding.spec, sharding.spec, PartitionSpec()),
        out_specs=sharding.spec,
        check_vma=False,
    )

    def split_function(key: jax.Array, population: Any, *whole: Any) -> Any:
        size = len(jax.tree.leaves(population)[0])
        # The last individual stands in for those missing in the last devices' share.
        index = jnp.minimum(jnp.arange(padded(size, mesh)), size - 1)
        keys = individual_keys(key, size)
        if len(index) > size:
            keys, population = jax.tree.map(lambda x: x[index], (keys, population))
        result = jax.jit(mapped)(keys, population, whole)
        return jax.tree.map(lambda x: split(x[:size], mesh), result)

    return split_function


def split(array: jax.Array, mesh: Mesh) -> jax.Array:
    """Split an array's individuals over the mesh; whole on each device where it does not divide."""
    spec = PartitionSpec(mesh.axis_names) if array.ndim and len(array) % mesh.size == 0 else None
    sharding = NamedSharding(mesh, spec or PartitionSpec())
    if is_traced(array):
        return jax.lax.with_sharding_constraint(array, sharding)
    return jax.device_put(array, sharding)


def padded(size: int, mesh: Mesh) -> int:
    """The next multiple of the mesh's devices."""
    return math.ceil(size / mesh.size) * mesh.size


def check_mesh(mesh: Mesh) -> None:
    """Raise InputError unless `mesh` is one whose axes leave the splitting to XLA."""
    if not isinstance(mesh, Mesh):
        raise InputError(
            "mesh", "a jax.sharding.Mesh, such as Mesh(jax.devices(), ('individuals',))", repr(mesh)
        )
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise InputError(
            "mesh",
            "axes of type Auto",
            mesh.axis_types,
            "use jax.sharding.Mesh(devices, names), or axis_types of Auto in jax.make_mesh",
        )
