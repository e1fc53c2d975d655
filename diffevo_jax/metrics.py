"""What a population achieved."""

import jax
import jax.numpy as jnp


def success_rate(fitness: jax.Array, threshold: float) -> jax.Array:
    """Share of individuals at or above a fitness, `[..., N]` to `[...]`, from 0 to 1.

    The paper counts a cart-pole individual as successful when its return is the maximum, 500.
    """
    return jnp.mean(fitness >= threshold, axis=-1)
