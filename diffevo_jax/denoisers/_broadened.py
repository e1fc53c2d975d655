"""Sample-size control: a kernel as broad as it takes for enough individuals to decide."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from diffevo_jax.checks import Share, check_number
from diffevo_jax.denoisers._posterior_mean import check_projection
from diffevo_jax.kernels import AUTO, Posterior, estimate_posterior
from diffevo_jax.latent import project
from diffevo_jax.parts import Denoiser, Level, Weights

# log beta is looked for from -LARGEST to LARGEST, so that beta = 1 is tried first, and cut at 0.
LARGEST = 40 * math.log(2)
BISECTIONS = 15  # to .002 in log beta


def broadened(
    *,
    share: Share = 0.3,
    projection: jax.Array | None = None,
    precision: jax.lax.PrecisionLike = None,
    implementation: str = AUTO,
    mesh: Mesh | None = None,
) -> Denoiser:
    """Average as `posterior_mean` does, with a Gaussian broad enough for a wanted sample size.

    w_ij = g_j exp(-beta |z_i - sqrt(alpha) z_j|^2 / (2 (1 - alpha)))

    beta is the largest in (0, 1] for which the individuals' mean effective sample size is at least
    `share` of that of the weights alone, (sum g)^2 / sum g^2; where the kernel is broad enough, 1.
    In many dimensions it keeps each individual from seeing nobody but itself.

    share: in (0, 1], or traced; gradients take beta as given.
    projection, precision, implementation, mesh: of `posterior_mean`.

    Settings may be traced. Raises ValueError, here or in `init`, naming the argument.
    """
    check_number("share", share, 0, 1, closed="(]")
    check_projection(projection)
    projection = None if projection is None else jnp.asarray(projection)

    def init(population: jax.Array) -> tuple[()]:
        check_projection(projection, population)
        return ()

    def posterior(x_t, z_t, log_weight, level: Level, log_beta) -> Posterior:
        return estimate_posterior(
            x_t,
            log_weight,
            level.alpha,
            z_t=jnp.exp(log_beta / 2) * z_t,
            one_minus_alpha=level.one_minus_alpha,
            precision=precision,
            implementation=implementation,
            mesh=mesh,
        )

    def find_log_beta(x_t, z_t, log_weight, level: Level) -> jax.Array:
        known = jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight)
        logsumexp = jax.nn.logsumexp
        wanted = share * jnp.exp(2 * logsumexp(known) - logsumexp(2 * known))

        def halve(_, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            low, high = ends
            middle = (low + high) / 2
            size = posterior(x_t, z_t, log_weight, level, middle).effective_sample_size
            enough = jnp.mean(size, where=size > 0) >= wanted
            return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

        ends = jnp.asarray(-LARGEST, float), jnp.asarray(LARGEST, float)
        low, _ = jax.lax.fori_loop(0, BISECTIONS, halve, ends)
        return jnp.minimum(low, 0)

    def estimate(
        key: jax.Array, memory: Any, x_t: jax.Array, weights: Weights, level: Level
    ) -> tuple[Posterior, Any]:
        z_t = x_t if projection is None else project(x_t, projection)
        given = z_t, weights.log_weight, level
        # The sample size is that of one gene as well as of all.
        log_beta = find_log_beta(*jax.lax.stop_gradient((x_t[:, :1], *given)))
        return posterior(x_t, *given, log_beta), memory

    return Denoiser(init, estimate)
