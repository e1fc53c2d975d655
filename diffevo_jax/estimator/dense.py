"""The posterior mean as the paper writes it (Eq. 8): N x M weights, the oracle for every fast form.

Memory O(N M) under jit, O(N M d) without it and in gradients; direct differences, log space.
Arguments are checked in `estimator/__init__.py`.
"""

import jax
import jax.numpy as jnp

from diffevo_jax.estimator.types import Posterior, Problem


def posterior(problem: Problem, floor) -> Posterior:
    """Posterior of every query of `problem`, the floor inside the formula.

    log w_ij = log(g_j + floor) + log(p_ij + floor)
    p_ij     = exp(-|z_i - sqrt(alpha) z_j|^2 / (2 (1 - alpha)))
    """
    query, key, value, log_weight, alpha, one_minus_alpha = problem[:6]
    # NaN is "no fitness": out of the average altogether, whatever the floor.
    missing = jnp.isnan(log_weight)
    log_g = jnp.where(missing, -jnp.inf, log_weight)
    # z_i - sqrt(a) z_j = (z_i - z_j) + (1 - sqrt a) z_j: near alpha = 1 this keeps every digit.
    shrink = one_minus_alpha / (1 + jnp.sqrt(alpha))
    difference = query[:, None, :] - key[None, :, :] + shrink * key[None, :, :]
    log_p = -jnp.sum(difference**2, axis=-1) / (2 * one_minus_alpha)
    if floor is not None:
        log_floor = jnp.log(floor)
        log_p = jnp.logaddexp(log_p, log_floor)
        log_g = jnp.where(missing, -jnp.inf, jnp.logaddexp(log_g, log_floor))
    log_w = log_g[None, :] + log_p

    peak = jnp.max(log_w, axis=1, keepdims=True)
    nobody = jnp.isneginf(peak)
    peak = jax.lax.stop_gradient(jnp.where(nobody, 0, peak))
    below = log_w - peak
    # At most 1: XLA may round log_w otherwise here than in the maximum that it took of it.
    w = jnp.exp(below - jax.lax.stop_gradient(jnp.maximum(below, 0)))
    total = jnp.sum(w, axis=1, keepdims=True)
    nobody |= total == 0
    total = jnp.where(nobody, 1, total)
    squares = jnp.where(nobody, 1, jnp.sum(w**2, axis=1, keepdims=True))

    # Averaging x - mean(x) keeps the rounding error relative to the spread, not to the offset.
    centre = jnp.mean(value, axis=0)
    average = jnp.matmul(w / total, value - centre, precision=jax.lax.Precision.HIGHEST)
    return Posterior(
        x0=centre + average,
        log_evidence=jnp.where(nobody, -jnp.inf, jnp.log(total) + peak)[:, 0],
        effective_sample_size=jnp.where(nobody, 0, total**2 / squares)[:, 0],
    )
