"""The posterior mean as the paper writes it (Eq. 8): N x M weights, the oracle for every fast form.

Memory O(N M) under jit, O(N M d) without it and in gradients; direct differences, log space.
Arguments are checked and cleaned in `estimator/__init__.py`.
"""

import jax
import jax.numpy as jnp

from diffevo_jax.kernels.exp2 import LOG2E
from diffevo_jax.kernels.types import Problem, Sums


def part(problem: Problem, log_floor: jax.Array | None) -> Sums:
    """Sums over the supports at every query, the floor of the Gaussians inside the formula.

    log w_ij = log g_j + log(p_ij + floor)
    p_ij     = exp(-|z_i - sqrt(alpha) z_j|^2 / (2 (1 - alpha)))
    """
    # z_i - sqrt(a) z_j = (z_i - z_j) + (1 - sqrt a) z_j: near alpha = 1 this keeps every digit.
    shrink = problem.one_minus_alpha / (1 + jnp.sqrt(problem.alpha))
    key = problem.key[None, :, :]
    difference = problem.query[:, None, :] - key + shrink * key
    log_p = -jnp.sum(difference**2, axis=-1) / (2 * problem.one_minus_alpha)
    if log_floor is not None:
        log_p = jnp.logaddexp(log_p, log_floor)
    log_w = problem.log_weight[None, :] + log_p

    peak = jax.lax.stop_gradient(jnp.maximum(jnp.max(log_w, axis=1), -1e30))
    below = log_w - peak[:, None]
    # At most 1: XLA may round log_w otherwise here than in the maximum that it took of it.
    w = jnp.exp(below - jax.lax.stop_gradient(jnp.maximum(below, 0)))
    # Averaging x - centre keeps the rounding error relative to the spread, not to the offset.
    value = problem.value - problem.frame.centre
    return Sums(
        shift=LOG2E * peak,
        offset=jnp.zeros_like(peak),
        weight=jnp.sum(w, axis=1),
        squares=jnp.sum(w**2, axis=1),
        total=jnp.matmul(w, value, precision=jax.lax.Precision.HIGHEST),
    )
