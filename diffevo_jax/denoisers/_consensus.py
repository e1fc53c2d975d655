"""The weighted mean of the whole population: a kernel of infinite width."""

from typing import Any

import jax
import jax.numpy as jnp

from diffevo_jax.parts import Denoiser, Level, Posterior, Weights, no_memory


def consensus() -> Denoiser:
    """Average the whole population, whatever the distances: one target for all.

    x0 = sum_j g_j x_j / sum_j g_j

    The limit of `posterior_mean` and `broadened` for a kernel of infinite width, in O(N D). It
    keeps one optimum. With fresh noise (`samplers.ddim(freshness=1)`) a step is that of an
    evolution strategy whose step sizes are the schedule's, and of consensus-based optimisation
    (Pinnau et al. 2017, https://arxiv.org/abs/1604.05648).
    """

    def estimate(
        key: jax.Array, memory: Any, x_t: jax.Array, weights: Weights, level: Level
    ) -> tuple[Any, Posterior]:
        log_weight = jnp.where(jnp.isnan(weights.log_weight), -jnp.inf, weights.log_weight)
        evidence = jax.nn.logsumexp(log_weight)
        share = jnp.exp(log_weight - evidence)
        # Nobody's genes count where none has a weight, and those without one may be no numbers.
        counted = jnp.where((share > 0)[:, None], x_t, 0).astype(share.dtype)
        mean = jnp.matmul(share, counted, precision=jax.lax.Precision.HIGHEST)
        posterior = Posterior(
            jnp.broadcast_to(mean.astype(x_t.dtype), x_t.shape),
            jnp.broadcast_to(evidence, share.shape),
            jnp.broadcast_to(1 / jnp.sum(share**2), share.shape),
        )
        return memory, posterior

    return Denoiser(no_memory, estimate)
