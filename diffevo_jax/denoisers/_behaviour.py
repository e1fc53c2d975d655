"""A Gaussian in how individuals behave, beside the one in their genomes."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from diffevo_jax.checks import TELL_BEHAVIOUR, InputError, Positive, check_number
from diffevo_jax.kernels._estimate import estimate_posterior
from diffevo_jax.parts import Denoiser, Level, Posterior, Weights, no_memory


def behaviour(*, width: Positive, with_genomes: bool = True) -> Denoiser:
    """Average those that behave alike, by descriptors b that the fitness function says.

    w_ij = g_j exp(-|x_i - sqrt(alpha) x_j|^2 / (2 (1 - alpha))) exp(-|b_i - b_j|^2 / (2 width^2))

    width: in units of the descriptors, above 0, or traced.
    with_genomes: whether there is the first Gaussian too; in more genes than a few it sees nobody
        but the individual itself.

    An individual whose descriptor is not finite stays where it is. Raises InputError, here or in
    `step`, where the fitness function returns no aux["descriptors"].
    """
    check_number("width", width, 0, math.inf, closed="()")

    def estimate(
        key: jax.Array, memory: Any, x_t: jax.Array, weights: Weights, level: Level
    ) -> tuple[Any, Posterior]:
        if weights.descriptors is None:
            raise InputError(
                "descriptors",
                "how individuals behave, [N, k], for the denoiser compares it",
                None,
                TELL_BEHAVIOUR,
            )
        known = jnp.all(jnp.isfinite(weights.descriptors), axis=1, keepdims=True)
        # Places whose distance, in units of the level's noise, is b's in units of the width. The
        # kernel shrinks supports by sqrt(alpha); these it leaves where they are.
        unit = jnp.sqrt(level.one_minus_alpha) / width
        place = jnp.where(known, unit * weights.descriptors, 0).astype(x_t.dtype)
        shrunk = (place / jnp.sqrt(level.alpha)).astype(x_t.dtype)
        beside = [x_t] if with_genomes else []
        posterior = estimate_posterior(
            x_t,
            weights.log_weight,
            level.alpha,
            z_t=jnp.concatenate([*beside, place], axis=1),
            support=x_t,
            z_support=jnp.concatenate([*beside, shrunk], axis=1),
            one_minus_alpha=level.one_minus_alpha,
            mesh=level.mesh,
        )
        return memory, posterior._replace(x0=jnp.where(known, posterior.x0, x_t))

    return Denoiser(no_memory, estimate)
