"""Noise a clean population again."""

import jax
import jax.numpy as jnp

from diffevo_jax.checks import InputError, check_array, check_count, check_key, is_traced
from diffevo_jax.schedules import EXPECTED, Schedule


def renoise(key: jax.Array, x0: jax.Array, schedule: Schedule, t: int | jax.Array) -> jax.Array:
    """Bring a clean population, `[N, D]`, to level t: the forward process of diffusion.

    x_t = sqrt(alpha_t) x0 + sqrt(1 - alpha_t) N(0, I)

    `evolve(..., start=t)` goes on from there. Raises InputError, naming the argument.
    """
    check_key(key)
    x0 = check_array("x0", x0, "a population [N, D]")
    if not isinstance(schedule, Schedule):
        raise InputError("schedule", EXPECTED, f"{schedule!r:.60}")
    if not is_traced(t):  # JAX would clamp it
        check_count("t", t, least=0, most=len(schedule.alpha) - 1)
    noise = jax.random.normal(key, x0.shape, x0.dtype)
    x_t = jnp.sqrt(schedule.alpha[t]) * x0 + jnp.sqrt(schedule.one_minus_alpha[t]) * noise
    return x_t.astype(x0.dtype)
