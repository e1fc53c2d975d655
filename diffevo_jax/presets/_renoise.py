"""Noise a clean population again."""

import jax
import jax.numpy as jnp

from diffevo_jax.schedules import Schedule


def renoise(key: jax.Array, x0: jax.Array, schedule: Schedule, t: int | jax.Array) -> jax.Array:
    """Bring a clean population, `[N, D]`, to level t: the forward process of diffusion.

    x_t = sqrt(alpha_t) x0 + sqrt(1 - alpha_t) N(0, I)

    `evolve(..., start=t)` goes on from there.
    """
    noise = jax.random.normal(key, x0.shape, x0.dtype)
    x_t = jnp.sqrt(schedule.alpha[t]) * x0 + jnp.sqrt(schedule.one_minus_alpha[t]) * noise
    return x_t.astype(x0.dtype)
