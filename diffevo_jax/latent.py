"""Latent spaces for the distances of Latent Space Diffusion Evolution (Algorithm 2, Eq. 12)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.checks import (
    Count,
    InputError,
    check_array,
    check_count,
    check_key,
    check_takes,
    concrete,
)

# (genomes `[N, D]`, log weight `[N]`, NaN where one takes no part) -> projection, `[D, d]`.
Following = Callable[[jax.Array, jax.Array], jax.Array]
ITERATIONS = 10  # towards the leading eigenvectors


def random_projection(key: jax.Array, num_genes: int, latent_dim: int) -> jax.Array:
    """Draw a random linear map to a latent space, z = x @ projection.

    Each latent direction (a column) is a normal draw scaled to unit length, so that x ~ N(0, I)
    gives latents of unit variance.

    Returns the projection, `[D, d]` = `[num_genes, latent_dim]`. Raises InputError unless
    1 <= latent_dim <= num_genes.
    """
    check_key(key)
    _check_dim(latent_dim, check_count("num_genes", num_genes))
    directions = jax.random.normal(key, (num_genes, latent_dim))
    return directions / jnp.linalg.norm(directions, axis=0, keepdims=True)


def active_subspace(latent_dim: Count) -> Following:
    """Follow the search along the directions in which individuals of unlike fitness differ.

    The leading eigenvectors of sum_ij (f_i - f_j)^2 (x_i - x_j)(x_i - x_j)^T, f the log weight: the
    active subspace (Constantine 2015, https://doi.org/10.1137/1.9781611973860), by differences in
    the place of gradients. With x centred and f standardised it is 2 N times

    sum_i (f_i^2 + 1) x_i x_i^T + 2 / N (sum_i f_i x_i)(sum_i f_i x_i)^T

    so that it takes no pairs, but O(N D d). Columns are orthonormal; of individuals without weight
    it sees none. With `denoisers.niching` it keeps optima that differ in few directions of many
    genes; docs/variants.md says where it is worse than a random projection.

    Raises InputError, here or in an algorithm's `init`.
    """
    check_count("latent_dim", latent_dim)

    def follow(genomes: jax.Array, log_weight: jax.Array) -> jax.Array:
        num_genes = genomes.shape[1]
        _check_dim(latent_dim, num_genes)
        dtype = jnp.promote_types(genomes.dtype, log_weight.dtype)
        weighted = jnp.isfinite(log_weight)
        share = (weighted / jnp.maximum(jnp.sum(weighted), 1)).astype(dtype)
        x = jnp.where(weighted[:, None], genomes, 0).astype(dtype)
        f = jnp.where(weighted, log_weight, 0).astype(dtype)
        x, f = x - project(share, x), f - project(share, f)
        f = f / jnp.maximum(jnp.sqrt(project(share, f**2)), jnp.finfo(dtype).tiny)
        slope = project(share * f, x)[:, None]

        def sharpen(_: Any, directions: jax.Array) -> jax.Array:
            spread = project(x.T, (share * (f**2 + 1))[:, None] * project(x, directions))
            return jnp.linalg.qr(spread + 2 * slope * project(slope.T, directions))[0]

        start = jax.random.normal(jax.random.key(0), (num_genes, latent_dim), dtype)
        return jax.lax.fori_loop(0, ITERATIONS, sharpen, start)

    return follow


def project(population: jax.Array, projection: jax.Array) -> jax.Array:
    """Project genomes to latents, z = x @ projection, `[N, D]` to `[N, d]`, at full precision."""
    return jnp.matmul(population, projection, precision=jax.lax.Precision.HIGHEST)


def check_latent(projection: jax.Array | Following | None, latent_dim: int | None) -> None:
    """Raise InputError where both are set, or the projection is not finite numbers `[D, d]`."""
    if projection is None:
        return
    if latent_dim is not None:
        raise InputError(
            "latent_dim", "None beside a projection", latent_dim, "it draws a projection; set one"
        )
    if callable(projection):
        check_takes("projection", projection, ("genomes", "log_weight"))
        return
    projection = check_array("projection", projection, "shape [D, d]")
    if projection.ndim != 2 or not projection.size:
        raise InputError("projection", "shape [D, d]", projection.shape)
    values = concrete(projection)
    if values is not None and not np.isfinite(values).all():
        raise InputError("projection", "finite numbers", "NaN or infinity")


def check_genes(projection: jax.Array | None, num_genes: int) -> None:
    """Raise InputError where a projection, `[D, d]`, is for another number of genes."""
    if projection is not None and len(projection) != num_genes:
        expected = f"shape [D, d] with D = {num_genes} genes"
        raise InputError("projection", expected, jnp.shape(projection))


def _check_dim(latent_dim: int, num_genes: int) -> None:
    if check_count("latent_dim", latent_dim, least=0) not in range(1, num_genes + 1):
        raise InputError(
            "latent_dim",
            f"1 to {num_genes}, the number of genes",
            latent_dim,
            "leave it out, and the projection, to take distances in genome space",
        )
