"""A kernel with heavy tails, Student's t: individuals far away still count."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from diffevo_jax.checks import Positive, check_number
from diffevo_jax.denoisers._posterior_mean import check_projection
from diffevo_jax.kernels import Posterior
from diffevo_jax.kernels.types import NO_WEIGHT
from diffevo_jax.latent import project
from diffevo_jax.parts import Denoiser, Level, Weights
from diffevo_jax.sharding import check_mesh, over_individuals

# Numbers in memory at a time, at most: 16 MiB of differences.
BLOCK = 2**22


def heavy_tailed(
    *,
    dof: Positive = 3.0,
    projection: jax.Array | None = None,
    mesh: Mesh | None = None,
) -> Denoiser:
    """Average the population, weighted by fitness and by Student's t in the distance.

    w_ij = g_j (1 + |z_i - sqrt(alpha) z_j|^2 / (nu (1 - alpha)))^(-(nu + k) / 2)

    The posterior mean where noise is multivariate t of nu degrees of freedom and scale
    sqrt(1 - alpha), k the dimension of z; the Gaussian of `posterior_mean` as nu grows.

    dof: nu, above 0, or traced.
    projection, mesh: of `posterior_mean`.

    Sums are plain ones, term by term over blocks of queries: 2 N^2 d operations, bounded memory.
    Settings may be traced. Raises ValueError, here or in `init`, naming the argument.
    """
    check_number("dof", dof, 0, math.inf, closed="()")
    check_projection(projection)
    projection = None if projection is None else jnp.asarray(projection)
    if mesh is not None:
        check_mesh(mesh)

    def init(population: jax.Array) -> tuple[()]:
        check_projection(projection, population)
        return ()

    def estimate(
        key: jax.Array, memory: Any, x_t: jax.Array, weights: Weights, level: Level
    ) -> tuple[Posterior, Any]:
        z_t = x_t if projection is None else project(x_t, projection)
        return _posterior(x_t, z_t, weights.log_weight, level, dof, mesh=mesh), memory

    return Denoiser(init, estimate)


# Compiled here as well, so that calls outside jit do not trace the loop anew every time.
@partial(jax.jit, static_argnames="mesh")
def _posterior(
    x_t: jax.Array, z_t: jax.Array, log_weight: jax.Array, level: Level, dof, *, mesh: Mesh | None
) -> Posterior:
    dtype = jnp.promote_types(x_t.dtype, jnp.float32)
    usable = jnp.all(jnp.isfinite(x_t), axis=1) & jnp.all(jnp.isfinite(z_t), axis=1)
    x, z = (jnp.where(usable[:, None], rows, 0).astype(dtype) for rows in (x_t, z_t))
    log_weight = jnp.where(usable & ~jnp.isnan(log_weight), log_weight, -jnp.inf).astype(dtype)
    largest = jax.lax.stop_gradient(jnp.max(log_weight))
    weightless = jnp.isneginf(log_weight)
    log_g = jnp.where(weightless, NO_WEIGHT, log_weight - largest)  # finite, as derivatives need
    dof, alpha, one_minus_alpha = (
        jnp.asarray(number, dtype) for number in (dof, level.alpha, level.one_minus_alpha)
    )
    # z_i - sqrt(a) z_j = (z_i - z_j) + (1 - sqrt a) z_j: near alpha = 1 this keeps every digit.
    shrink = one_minus_alpha / (1 + jnp.sqrt(alpha))
    power = (dof + z.shape[1]) / 2

    @jax.checkpoint
    def individual(query: jax.Array) -> Posterior:
        squares = jnp.sum((query - z + shrink * z) ** 2, axis=1)
        log_w = log_g - power * jnp.log1p(squares / (dof * one_minus_alpha))
        log_evidence = jax.nn.logsumexp(log_w)
        w = jnp.exp(log_w - log_evidence)
        x0 = jnp.matmul(w, x, precision=jax.lax.Precision.HIGHEST)
        return Posterior(x0, log_evidence, 1 / jnp.sum(w**2))

    rows = max(1, BLOCK // z.size)

    def individuals(keys: Any, queries: jax.Array) -> Posterior:
        return jax.lax.map(individual, queries, batch_size=rows)

    solve = individuals if mesh is None else over_individuals(individuals, mesh)
    x0, log_evidence, sample_size = solve(jax.random.key(0), z)  # nothing is drawn
    weighed = usable & ~jnp.all(weightless)
    return Posterior(
        jnp.where(weighed[:, None], x0.astype(x_t.dtype), x_t),
        jnp.where(weighed, log_evidence + largest, -jnp.inf),
        jnp.where(weighed, sample_size, 0),
    )
