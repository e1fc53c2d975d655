"""The weighted mean of the whole population: a kernel of infinite width."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Positive, check_number
from diffevo_jax.parts import Denoiser, Level, Posterior, Weights, no_memory


def consensus(*, guidance: Positive = 1.0) -> Denoiser:
    """Average the whole population, whatever the distances: one target for all.

    x0 = m + guidance (sum_j g_j x_j / sum_j g_j - m),   m = sum_j x_j / N

    The limit of `posterior_mean` and `broadened` for a kernel of infinite width, in O(N D). It
    keeps one optimum. With fresh noise (`samplers.ddim(freshness=1)`) a step is that of an
    evolution strategy whose step sizes are the schedule's, and of consensus-based optimisation
    (Pinnau et al. 2017, https://arxiv.org/abs/1604.05648).

    guidance: how far from the population's mean m the target lies, in distances of the weighted
        mean; a number above 0, or traced. 1 is the weighted mean. Above 1 the target lies beyond
        it, as with the guidance of diffusion models (Ho and Salimans 2022,
        https://arxiv.org/abs/2207.12598): a gentle selection, to which all individuals contribute,
        goes as far as a sharp one, which rests on a few. At a high temperature x0 - m is the
        gradient of an evolution strategy, sum_j f_j (x_j - m). It wants noise whose mean is 0,
        `samplers.ddim(mirrored=True)`; with a temperature well below 1 it overshoots.

    Raises InputError when it is no such number.
    """
    check_number("guidance", guidance, 0, math.inf, closed="()")

    def estimate(
        key: jax.Array, memory: Any, x_t: jax.Array, weights: Weights, level: Level
    ) -> tuple[Any, Posterior]:
        log_weight = jnp.where(jnp.isnan(weights.log_weight), -jnp.inf, weights.log_weight)
        evidence = jax.nn.logsumexp(log_weight)
        share = jnp.exp(log_weight - evidence)
        # Nobody's genes count where none has a weight, and those without one may be no numbers.
        counted = jnp.where((share > 0)[:, None], x_t, 0).astype(share.dtype)
        mean = jnp.matmul(share, counted, precision=jax.lax.Precision.HIGHEST)
        if not (isinstance(guidance, int | float) and guidance == 1):
            takes_part = ~jnp.isnan(weights.log_weight)[:, None]
            middle = jnp.mean(x_t.astype(mean.dtype), axis=0, where=takes_part)
            mean = middle + guidance * (mean - middle)
        somebody = evidence > -jnp.inf  # else everybody stays
        posterior = Posterior(
            jnp.where(somebody, mean.astype(x_t.dtype), x_t),
            jnp.broadcast_to(evidence, share.shape),
            jnp.broadcast_to(jnp.where(somebody, 1 / jnp.sum(share**2), 0), share.shape),
        )
        return memory, posterior

    return Denoiser(no_memory, estimate)
