"""Where a kernel takes its distances: in genome space, or in a projection of it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.checks import InputError, call_in_jax
from diffevo_jax.latent import Following, check_genes, check_latent, project, random_projection


class Places(NamedTuple):
    """Genomes to average, and where they are; the arguments of `estimate_posterior`.

    x_t `[N, D]`, support `[M, D]` or None: genomes. z_t `[N, d]`, z_support `[M, d]`: their
    coordinates for the distances, None in genome space.
    """

    x_t: jax.Array
    z_t: jax.Array | None
    support: jax.Array | None
    z_support: jax.Array | None


def make_places(
    projection: jax.Array | Following | None, latent_dim: int | None
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Places]]:
    """Make a kernel's init and follow, and (memory, x_t, support, with_x0) -> `Places`.

    The memory is the projection where one is drawn, or follows the search: 0 before the first
    generation; else (). Raises InputError, here or in init.
    """
    check_latent(projection, latent_dim)
    following = partial(call_in_jax, "projection", projection) if callable(projection) else None
    fixed = None if projection is None or following else jnp.asarray(projection)

    def init(key: jax.Array, population: jax.Array) -> Any:
        num_genes = population.shape[1]
        check_genes(fixed, num_genes)
        if following is None:
            return () if latent_dim is None else random_projection(key, num_genes, latent_dim)
        found = jax.eval_shape(following, population, jnp.zeros(len(population)))
        shape = getattr(found, "shape", (type(found).__name__,))
        if len(shape) != 2 or shape[0] != num_genes:
            raise InputError("projection", f"a function that returns [{num_genes}, d]", shape)
        return jnp.zeros(shape, found.dtype)

    def follow(memory: Any, x_t: jax.Array, log_weight: jax.Array) -> Any:
        if following is None:
            return memory
        return jax.lax.stop_gradient(following(x_t, log_weight)).astype(memory.dtype)

    def places(memory: Any, x_t: jax.Array, support: jax.Array | None, with_x0: bool) -> Places:
        linear = fixed if latent_dim is None and following is None else memory
        genomes = x_t, support
        coordinates = (None, None)
        if linear is not None:
            coordinates = jax.tree.map(lambda x: project(x, linear), genomes)
        elif not with_x0:
            coordinates = genomes
        if not with_x0:  # the sample size of one gene is that of all
            genomes = jax.tree.map(lambda x: x[:, :1], genomes)
        return Places(genomes[0], coordinates[0], genomes[1], coordinates[1])

    return init, follow, places
