"""Sample-size control: a kernel as broad as it takes for enough individuals to decide."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Share, check_number
from diffevo_jax.denoisers._posterior_mean import GAUSSIAN, check_kernel
from diffevo_jax.parts import Denoiser, Kernel, Level, Posterior, Weights

# log beta is looked for from -LARGEST to LARGEST, so that beta = 1 is tried first, and cut at 0.
LARGEST = 40 * math.log(2)
BISECTIONS = 15  # to .002 in log beta


def broadened(kernel: Kernel = GAUSSIAN, *, share: Share = 0.3) -> Denoiser:
    """Average as `posterior_mean` does, with a kernel broad enough for a sample size.

    w_ij = g_j K_ij^beta, of the paper's Gaussian

    w_ij = g_j exp(-beta |z_i - sqrt(alpha) z_j|^2 / (2 (1 - alpha)))

    beta is the largest in (0, 1] for which the individuals' mean effective sample size is at least
    `share` of that of the weights alone, (sum g)^2 / sum g^2; where the kernel is broad enough, 1:
    in a latent space of few dimensions it often is, and this is `posterior_mean`. In many
    dimensions it keeps individuals from averaging themselves alone.

    kernel: see `posterior_mean`; beta is its `inverse_temperature`.
    share: in (0, 1], or traced; gradients take beta as constant.

    Raises InputError, naming the argument.
    """
    check_kernel(kernel)
    check_number("share", share, 0, 1, closed="(]")

    def find_log_beta(memory: Any, x_t: jax.Array, log_weight: jax.Array, level: Level):
        log_g = jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight)
        logsumexp = jax.nn.logsumexp
        enough = share * jnp.exp(2 * logsumexp(log_g) - logsumexp(2 * log_g))

        def halve(_, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            low, high = ends
            middle = (low + high) / 2
            size = kernel.average(
                memory,
                x_t,
                log_weight,
                level,
                inverse_temperature=_beta(middle),
                with_x0=False,
            ).effective_sample_size
            broad = jnp.mean(size, where=size > 0) >= enough
            return jnp.where(broad, middle, low), jnp.where(broad, high, middle)

        ends = jnp.asarray(-LARGEST, float), jnp.asarray(LARGEST, float)
        low, _ = jax.lax.fori_loop(0, BISECTIONS, halve, ends)
        return jnp.minimum(low, 0)

    def estimate(
        key: jax.Array, memory: Any, x_t: jax.Array, weights: Weights, level: Level
    ) -> tuple[Any, Posterior]:
        memory = kernel.follow(memory, x_t, weights.log_weight)
        operands = memory, x_t, weights.log_weight, level
        beta = _beta(find_log_beta(*jax.lax.stop_gradient(operands)))
        return memory, kernel.average(*operands, inverse_temperature=beta)

    return Denoiser(kernel.init, estimate)


def _beta(log_beta: jax.Array) -> jax.Array:
    return jnp.exp(log_beta / 2) ** 2  # whose root, which the Gaussian takes, is exact
