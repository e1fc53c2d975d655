"""Latent spaces for the distances of Latent Space Diffusion Evolution (Algorithm 2, Eq. 12)."""

import jax
import jax.numpy as jnp

from diffevo_jax.checks import check_key


def random_projection(key: jax.Array, genome_dim: int, latent_dim: int) -> jax.Array:
    """Draw a random linear map to a latent space, z = x @ projection.

    Each latent direction (a column) is a normal draw scaled to unit length, so that x ~ N(0, I)
    gives latents of unit variance.

    Returns the projection, `[D, d]` = `[genome_dim, latent_dim]`. Raises ValueError unless
    1 <= latent_dim <= genome_dim.
    """
    check_key(key)
    if not 1 <= latent_dim <= genome_dim:
        raise ValueError(
            f"latent_dim: expected 1 to {genome_dim}, the number of genes; seen {latent_dim} "
            "(leave it out, and the projection, to take distances in genome space)"
        )
    directions = jax.random.normal(key, (genome_dim, latent_dim))
    return directions / jnp.linalg.norm(directions, axis=0, keepdims=True)


def project(population: jax.Array, projection: jax.Array) -> jax.Array:
    """Take genomes to latents, z = x @ projection, `[N, D]` to `[N, d]`, at full precision."""
    return jnp.matmul(population, projection, precision=jax.lax.Precision.HIGHEST)
