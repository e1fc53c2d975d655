"""The x0 posterior mean: checks its arguments and chooses an implementation."""

import math

import jax
import jax.numpy as jnp

from diffevo_jax.checks import check_number
from diffevo_jax.estimator import dense
from diffevo_jax.estimator.types import Posterior as Posterior

IMPLEMENTATIONS = {"dense": dense.posterior}


def estimate_x0(
    x_t: jax.Array,
    log_weight: jax.Array,
    alpha_t,
    *,
    z_t: jax.Array | None = None,
    one_minus_alpha=None,
    floor=0.0,
    implementation: str = "auto",
) -> jax.Array:
    """Estimate each individual's clean target as a fitness- and distance-weighted average.

    x0_i = sum_j w_ij x_j / sum_j w_ij
    w_ij = g_j exp(-|z_i - sqrt(alpha) z_j|^2 / (2 (1 - alpha)))

    This is Eq. 8 of Zhang et al. (arXiv 2410.02543), computed in log space. Without `floor` an
    offset of `log_weight` changes nothing.

    x_t: population, `[N, D]`, N >= 2.
    log_weight: log g_j, `[N]`; -inf weighs zero, NaN takes no part (not even with a floor).
    alpha_t: signal level, a number in (0, 1).
    z_t: latent coordinates for the distances, `[N, d]`; None takes them in genome space.
    one_minus_alpha: 1 - alpha_t to full precision (`schedules.Schedule` has it); None subtracts.
    floor: added to every g_j and every Gaussian term. The published code has 1e-9, which decides
        whether high-dimensional runs without a latent space work; the paper's formula has 0. With
        a floor the scale of g matters: `fitness.boltzmann` sets its maximum to 1.
    implementation: "auto", or one of `estimator.IMPLEMENTATIONS`.

    Returns x0, `[N, D]`, inside the convex hull of the population. Where nobody has weight,
    x0_i = x_i. Raises ValueError on shapes that do not fit and on concrete values out of range.
    """
    return estimate_posterior(
        x_t,
        log_weight,
        alpha_t,
        z_t=z_t,
        one_minus_alpha=one_minus_alpha,
        floor=floor,
        implementation=implementation,
    ).x0


def estimate_posterior(
    x_t: jax.Array,
    log_weight: jax.Array,
    alpha_t,
    *,
    z_t: jax.Array | None = None,
    one_minus_alpha=None,
    floor=0.0,
    implementation: str = "auto",
) -> Posterior:
    """Do what `estimate_x0` does, and return log-evidence and effective sample size beside x0."""
    x_t = jnp.asarray(x_t)
    log_weight = jnp.asarray(log_weight)
    z_t = x_t if z_t is None else jnp.asarray(z_t)
    _check(x_t, log_weight, alpha_t, z_t, one_minus_alpha, floor)
    if one_minus_alpha is None:
        one_minus_alpha = 1 - alpha_t
    posterior = IMPLEMENTATIONS[choose(implementation)]
    dtype = x_t.dtype
    as_number = lambda value: jnp.asarray(value, dtype)  # noqa: E731
    return posterior(
        x_t,
        log_weight.astype(dtype),
        as_number(alpha_t),
        as_number(one_minus_alpha),
        z_t.astype(dtype),
        floor,
    )


def choose(implementation: str = "auto") -> str:
    """Name the implementation that runs for `implementation` on the default device."""
    if implementation == "auto":
        return "dense"
    if implementation not in IMPLEMENTATIONS:
        known = ", ".join(["auto", *IMPLEMENTATIONS])
        raise ValueError(f"implementation: expected one of {known}; seen {implementation!r}")
    return implementation


def why() -> str:
    """Say in a few words why `choose()` chose what it chose."""
    return "the formula as written, N x N weights by XLA, on every platform"


def _check(x_t, log_weight, alpha_t, z_t, one_minus_alpha, floor) -> None:
    if x_t.ndim != 2 or len(x_t) < 2:
        raise ValueError(f"x_t: expected shape [N, D] with N >= 2; seen {x_t.shape}")
    if not jnp.issubdtype(x_t.dtype, jnp.floating):
        raise ValueError(f"x_t: expected floating-point genomes; seen {x_t.dtype}")
    n = len(x_t)
    if log_weight.shape != (n,):
        raise ValueError(
            f"log_weight: expected shape ({n},), one per individual; seen {log_weight.shape}"
        )
    if z_t.ndim != 2 or len(z_t) != n:
        raise ValueError(f"z_t: expected shape [N, d] with N = {n}; seen {z_t.shape}")
    # Beside an exact 1 - alpha, either of the two may round to 1 and still be a level.
    ends = "()" if one_minus_alpha is None else "(]"
    check_number("alpha_t", alpha_t, 0, 1, closed=ends)
    check_number("one_minus_alpha", one_minus_alpha, 0, 1, closed=ends)
    check_number("floor", floor, 0, math.inf, closed="[)")
