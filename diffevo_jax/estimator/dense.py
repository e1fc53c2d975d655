"""The posterior mean as the paper writes it (Eq. 8): N x N weights, the oracle for every fast form.

Memory O(N^2), direct differences, log space. Arguments are checked in `estimator/__init__.py`.
"""

import jax
import jax.numpy as jnp

from diffevo_jax.estimator.types import Posterior


def posterior(x_t, log_weight, alpha_t, one_minus_alpha, z_t, floor) -> Posterior:
    """Posterior mean, log-evidence and effective sample size, all `[N, ...]`.

    log w_ij = log(g_j + floor) + log(p_ij + floor)
    p_ij     = exp(-|z_i - sqrt(alpha) z_j|^2 / (2 (1 - alpha)))
    """
    # z_i - sqrt(a) z_j = (z_i - z_j) + (1 - sqrt a) z_j: near alpha = 1 this keeps every digit.
    shrink = one_minus_alpha / (1 + jnp.sqrt(alpha_t))
    difference = z_t[:, None, :] - z_t[None, :, :] + shrink * z_t[None, :, :]
    log_p = -jnp.sum(difference**2, axis=-1) / (2 * one_minus_alpha)
    log_g = log_weight
    if not (isinstance(floor, int | float) and floor == 0):
        log_floor = jnp.log(jnp.asarray(floor, log_p.dtype))
        log_p = jnp.logaddexp(log_p, log_floor)
        log_g = jnp.logaddexp(log_g, log_floor)
    # NaN is "no fitness": out of the average altogether, whatever the floor.
    log_g = jnp.where(jnp.isnan(log_weight), -jnp.inf, log_g)
    log_w = log_g[None, :] + log_p

    peak = jnp.max(log_w, axis=1, keepdims=True)
    nobody = jnp.isneginf(peak)
    peak = jax.lax.stop_gradient(jnp.where(nobody, 0, peak))
    w = jnp.exp(log_w - peak)
    total = jnp.sum(w, axis=1, keepdims=True)
    safe_total = jnp.where(nobody, 1, total)

    # Averaging x - mean(x) keeps the rounding error relative to the spread, not to the offset.
    centre = jnp.mean(x_t, axis=0)
    average = jnp.matmul(w / safe_total, x_t - centre, precision=jax.lax.Precision.HIGHEST)
    return Posterior(
        x0=jnp.where(nobody, x_t, centre + average),
        log_evidence=jnp.squeeze(jnp.where(nobody, -jnp.inf, jnp.log(safe_total) + peak), 1),
        effective_sample_size=jnp.squeeze(
            total**2 / jnp.where(nobody, 1, jnp.sum(w**2, axis=1, keepdims=True)), 1
        ),
    )
