"""Niches: fitness sharing, and a selection that is gentle while niches are still one."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from diffevo_jax.checks import InputError, NonNegative, Number, Positive, check_number, concrete
from diffevo_jax.denoisers._posterior_mean import GAUSSIAN, check_kernel
from diffevo_jax.parts import Denoiser, Kernel, Level, Posterior, Weights

# 1 - alpha from which on selection sharpens, and where it is as sharp as the fitness map says: the
# noise is .22 and .1 of the initial population's spread there. Chosen on eight peaks in the plane.
WARM, COLD = 0.05, 0.01


def niching(
    kernel: Kernel = GAUSSIAN,
    *,
    sharing: NonNegative = 1.0,
    warmth: Positive = 10.0,
    warm: Number = WARM,
    cold: Number = COLD,
) -> Denoiser:
    """Average as `posterior_mean` does, but keep the optima apart that the population has found.

    w_ij = g_j^(1 / tau) / q_j^sharing K_ij,   q_j = sum_k K(|z_j - z_k|)

    q is how crowded a place is, by the kernel of the level. Without it a niche with more
    individuals is visited by more, which is what loses the others (fitness sharing, Goldberg and
    Richardson 1987; as weights, importance sampling). tau falls from `warmth` while the niches are
    one, 1 - alpha >= warm, to 1 where each has its own, 1 - alpha <= cold, log-linearly: gentle
    selection keeps optima, sharp selection ends in them. With fresh noise
    (`samplers.ddim(freshness=1)`) nothing else is needed to keep them.

    kernel: see `posterior_mean`. In more genes than a few no kernel tells niches apart.
    sharing: 0 or more; 0 is none.
    warmth: factor on the fitness map's temperature, above 0; 1 is none.
    warm, cold: 0 < cold < warm < 1; the squares of the noise that separates the optima wanted.

    Settings may be traced. Raises InputError, naming the argument.
    """
    check_kernel(kernel)
    check_number("sharing", sharing, 0, math.inf, closed="[)")
    check_number("warmth", warmth, 0, math.inf, closed="()")
    check_number("warm", warm, 0, 1, closed="()")
    check_number("cold", cold, 0, 1, closed="()")
    low, high = concrete(cold), concrete(warm)
    if low is not None and high is not None and not low < high:
        raise InputError("cold", f"a number below warm = {warm}", cold)

    def estimate(
        key: jax.Array, memory: Any, x_t: jax.Array, weights: Weights, level: Level
    ) -> tuple[Any, Posterior]:
        memory = kernel.follow(memory, x_t, weights.log_weight)
        everybody = jnp.where(jnp.isnan(weights.log_weight), jnp.nan, 0)
        # The kernel shrinks supports by sqrt(alpha); these it leaves where they are.
        support = x_t / jnp.sqrt(level.alpha).astype(x_t.dtype)
        crowd = kernel.average(memory, x_t, everybody, level, support=support, with_x0=False)
        rise = jnp.log(level.one_minus_alpha / cold) / jnp.log(warm / cold)
        tau = warmth ** jnp.clip(rise, 0, 1)
        log_weight = weights.log_weight / tau - sharing * crowd.log_evidence
        return memory, kernel.average(memory, x_t, log_weight, level)

    return Denoiser(kernel.init, estimate)
