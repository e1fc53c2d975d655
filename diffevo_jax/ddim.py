"""The DDIM step of Diffusion Evolution: pure maths (paper Algorithm 1; Song et al., 2010.02502)."""

import jax
import jax.numpy as jnp


def ddim_sigma(
    alpha_t, alpha_prev, *, eta, one_minus_alpha_t=None, one_minus_alpha_prev=None
) -> jax.Array:
    """Compute the standard deviation of the noise that one step adds (Eq. 16 of DDIM).

    sigma = eta sqrt((1 - alpha_prev) / (1 - alpha_t) (1 - alpha_t / alpha_prev))

    alpha_t, alpha_prev: signal level before and after the step, alpha_t < alpha_prev.
    eta: in [0, 1]; 0 is deterministic, 1 is DDPM's noise.
    one_minus_alpha_t, one_minus_alpha_prev: exact 1 - alpha where at hand (`schedules.Schedule`).
    """
    one_minus_t = 1 - alpha_t if one_minus_alpha_t is None else one_minus_alpha_t
    one_minus_prev = 1 - alpha_prev if one_minus_alpha_prev is None else one_minus_alpha_prev
    # 1 - alpha_t / alpha_prev, from the side that keeps its digits: alpha near 0, 1 - alpha near 1.
    noisy = 1 - alpha_t / alpha_prev
    rise = jnp.where(alpha_t < 0.5, noisy, (one_minus_t - one_minus_prev) / alpha_prev)
    return eta * jnp.sqrt(one_minus_prev / one_minus_t * rise)


def ddim_step(
    key: jax.Array,
    x_t: jax.Array,
    x0: jax.Array,
    *,
    alpha_t,
    alpha_prev,
    eta,
    one_minus_alpha_t=None,
    one_minus_alpha_prev=None,
) -> jax.Array:
    """Move the population one level towards its clean estimate.

    eps    = (x_t - sqrt(alpha_t) x0) / sqrt(1 - alpha_t)
    x_prev = sqrt(alpha_prev) x0 + sqrt(1 - alpha_prev - sigma^2) eps + sigma N(0, I)

    key: one PRNG key, not used when eta is the Python number 0.
    x_t: population now, `[N, D]`. x0: its clean estimate, `[N, D]`.
    Other arguments as for `ddim_sigma`. Returns x_prev, `[N, D]`.
    """
    one_minus_t = 1 - alpha_t if one_minus_alpha_t is None else one_minus_alpha_t
    one_minus_prev = 1 - alpha_prev if one_minus_alpha_prev is None else one_minus_alpha_prev

    eps = (x_t - jnp.sqrt(alpha_t) * x0) / jnp.sqrt(one_minus_t)
    # 1 - alpha_prev - sigma^2 = (1 - alpha_prev) (1 - eta^2 + eta^2 kept), which never cancels.
    kept = alpha_t * one_minus_prev / (alpha_prev * one_minus_t)
    direction = jnp.sqrt(one_minus_prev * (1 - eta**2 + eta**2 * kept)) * eps
    x_prev = jnp.sqrt(alpha_prev) * x0 + direction
    if isinstance(eta, int | float) and eta == 0:
        return x_prev
    sigma = ddim_sigma(
        alpha_t,
        alpha_prev,
        eta=eta,
        one_minus_alpha_t=one_minus_t,
        one_minus_alpha_prev=one_minus_prev,
    )
    return x_prev + sigma * jax.random.normal(key, x_t.shape, x_t.dtype)
