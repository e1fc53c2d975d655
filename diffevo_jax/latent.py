"""Latent spaces for the distances of Latent Space Diffusion Evolution (Algorithm 2, Eq. 12)."""

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.checks import InputError, check_key, concrete


def random_projection(key: jax.Array, num_genes: int, latent_dim: int) -> jax.Array:
    """Draw a random linear map to a latent space, z = x @ projection.

    Each latent direction (a column) is a normal draw scaled to unit length, so that x ~ N(0, I)
    gives latents of unit variance.

    Returns the projection, `[D, d]` = `[num_genes, latent_dim]`. Raises InputError unless
    1 <= latent_dim <= num_genes.
    """
    check_key(key)
    if not 1 <= latent_dim <= num_genes:
        raise InputError(
            "latent_dim",
            f"1 to {num_genes}, the number of genes",
            latent_dim,
            "leave it out, and the projection, to take distances in genome space",
        )
    directions = jax.random.normal(key, (num_genes, latent_dim))
    return directions / jnp.linalg.norm(directions, axis=0, keepdims=True)


def project(population: jax.Array, projection: jax.Array) -> jax.Array:
    """Project genomes to latents, z = x @ projection, `[N, D]` to `[N, d]`, at full precision."""
    return jnp.matmul(population, projection, precision=jax.lax.Precision.HIGHEST)


def check_latent(projection: jax.Array | None, latent_dim: int | None) -> None:
    """Raise InputError where both are set, or the projection is not finite numbers `[D, d]`."""
    if projection is None:
        return
    if latent_dim is not None:
        raise InputError(
            "latent_dim", "None beside a projection", latent_dim, "it draws a projection; set one"
        )
    shape = jnp.shape(projection)
    if len(shape) != 2:
        raise InputError("projection", "shape [D, d]", shape)
    values = concrete(projection)
    if values is not None and not np.isfinite(values).all():
        raise InputError("projection", "finite numbers", "NaN or infinity")


def check_genes(projection: jax.Array | None, num_genes: int) -> None:
    """Raise InputError where a projection, `[D, d]`, is for another number of genes."""
    if projection is not None and len(projection) != num_genes:
        expected = f"shape [D, d] with D = {num_genes} genes"
        raise InputError("projection", expected, jnp.shape(projection))
