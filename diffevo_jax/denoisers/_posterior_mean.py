"""The paper's denoiser: the posterior mean of x0 under a Gaussian kernel (Eq. 8, Algorithm 2)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffevo_jax.checks import NonNegative, check_number, concrete
from diffevo_jax.kernels import AUTO, Posterior, estimate_posterior
from diffevo_jax.latent import project
from diffevo_jax.parts import Denoiser, Level, Weights


def posterior_mean(
    *,
    projection: jax.Array | None = None,
    floor: NonNegative = 0.0,
    precision: jax.lax.PrecisionLike = None,
    implementation: str = AUTO,
    mesh: Mesh | None = None,
) -> Denoiser:
    """Average the population, weighted by fitness and by a Gaussian in the distance.

    projection: `[D, d]`, takes the distances in z = x @ projection (paper Algorithm 2);
        None takes them in genome space.
    floor, precision, implementation, mesh: of `estimate_x0`.

    Settings may be traced. Raises ValueError, here or in `init`, naming the argument.
    """
    check_number("floor", floor, 0, np.inf, closed="[)")
    check_projection(projection)
    projection = None if projection is None else jnp.asarray(projection)

    def init(population: jax.Array) -> tuple[()]:
        check_projection(projection, population)
        return ()

    def estimate(
        key: jax.Array, memory: Any, x_t: jax.Array, weights: Weights, level: Level
    ) -> tuple[Posterior, Any]:
        posterior = estimate_posterior(
            x_t,
            weights.log_weight,
            level.alpha,
            z_t=None if projection is None else project(x_t, projection),
            one_minus_alpha=level.one_minus_alpha,
            floor=floor,
            precision=precision,
            implementation=implementation,
            mesh=mesh,
        )
        return posterior, memory

    return Denoiser(init, estimate)


def check_projection(projection: jax.Array | None, population: jax.Array | None = None) -> None:
    """Raise ValueError unless it is None or finite, `[D, d]`, with D as the population's."""
    if projection is None:
        return
    shape = jnp.shape(projection)
    if len(shape) != 2:
        raise ValueError(f"projection: expected shape [D, d]; seen {shape}")
    if population is not None and shape[0] != population.shape[1]:
        raise ValueError(
            f"projection: expected shape [D, d] with D = {population.shape[1]} genes; seen {shape}"
        )
    known = concrete(projection)
    if known is not None and not np.isfinite(known).all():
        raise ValueError("projection: expected finite numbers; seen others")
