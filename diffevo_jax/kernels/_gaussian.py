"""The paper's kernel, a Gaussian in the distance (Eq. 8, Algorithm 2)."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Count, NonNegative, Number, check_number
from diffevo_jax.kernels._estimate import check_implementation, estimate_posterior
from diffevo_jax.kernels._places import make_places
from diffevo_jax.kernels.platforms import check_machine
from diffevo_jax.kernels.posterior import AUTO
from diffevo_jax.latent import Following
from diffevo_jax.parts import Kernel, Level, Posterior


def gaussian(
    *,
    projection: jax.Array | Following | None = None,
    latent_dim: Count | None = None,
    floor: NonNegative = 0.0,
    precision: jax.lax.PrecisionLike = None,
    implementation: str = AUTO,
) -> Kernel:
    """Weigh by exp(-|z_i - sqrt(alpha) z_j|^2 / (2 (1 - alpha))), the paper's Eq. 8.

    projection: `[D, d]`, takes the distances in z = x @ projection (paper Algorithm 2); None takes
        them in genome space. A function (genomes `[N, D]`, log weight `[N]`) -> `[D, d]` is asked
        for one at every generation, which `latent` has too; gradients take it as constant.
    latent_dim: d of a random projection in its place, drawn in `init` (`latent`).
    floor, precision, implementation: see `estimate_x0`.

    Settings may be traced. Raises InputError, here or in `init`, naming the argument.
    """
    check_number("floor", floor, 0, math.inf, closed="[)")
    check_implementation(implementation)
    check_machine(implementation)
    init, follow, places = make_places(projection, latent_dim)

    def average(
        memory: Any,
        x_t: jax.Array,
        log_weight: jax.Array,
        level: Level,
        *,
        support: jax.Array | None = None,
        inverse_temperature: Number = 1.0,
        with_x0: bool = True,
    ) -> Posterior:
        at = places(memory, x_t, support, with_x0)
        if not (isinstance(inverse_temperature, int | float) and inverse_temperature == 1):
            z_t, z_support = (at.x_t, at.support) if at.z_t is None else (at.z_t, at.z_support)
            root = jnp.sqrt(inverse_temperature)  # a Gaussian of places that are nearer
            nearer = jax.tree.map(lambda z: root * z, (z_t, z_support))
            at = at._replace(z_t=nearer[0], z_support=nearer[1])
        return estimate_posterior(
            at.x_t,
            log_weight,
            level.alpha,
            z_t=at.z_t,
            support=at.support,
            z_support=at.z_support,
            one_minus_alpha=level.one_minus_alpha,
            floor=floor,
            precision=precision,
            implementation=implementation,
            mesh=level.mesh,
        )

    return Kernel(init, average, follow)
