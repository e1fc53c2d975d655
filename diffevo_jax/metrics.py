"""What a population achieved."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def success_rate(fitness: ArrayLike, threshold: float) -> jax.Array:
    """Share of individuals at or above a fitness, `[..., N]` to `[...]`, from 0 to 1.

    The paper counts a cart-pole individual as successful when its return is the maximum, 500.
    """
    return jnp.mean(jnp.asarray(fitness) >= threshold, axis=-1)
