"""Averages under any kernel of the distance, as the paper writes them (Eq. 8).

At once they take O(N M) memory under jit, O(N M d) without it and in gradients: with the Gaussian
that is the oracle for every fast form. In blocks of queries memory is bounded.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from diffevo_jax.kernels.exp2 import LOG2E
from diffevo_jax.kernels.types import Operands, Sums

# The most numbers in memory at a time in blocks: 16 MiB of differences.
BLOCK = 2**22

LogKernel = Callable[[jax.Array], jax.Array]


def gaussian(operands: Operands, log_floor: jax.Array | None) -> LogKernel:
    """Log of the Gaussian, with a floor: log(exp(-squares / (2 (1 - alpha))) + floor)."""

    def log_kernel(squares: jax.Array) -> jax.Array:
        log_p = -squares / (2 * operands.one_minus_alpha)
        return log_p if log_floor is None else jnp.logaddexp(log_p, log_floor)

    return log_kernel


def part(operands: Operands, log_kernel: LogKernel) -> Sums:
    """Sums over the supports at every query: log w_ij = log g_j + log_kernel(squares_ij).

    log_kernel: |z_i - sqrt(alpha) z_j|^2, `[N, M]`, to log weights.
    """
    # z_i - sqrt(a) z_j = (z_i - z_j) + (1 - sqrt a) z_j: near alpha = 1 this keeps every digit.
    shrink = operands.one_minus_alpha / (1 + jnp.sqrt(operands.alpha))
    place = operands.place[None, :, :]
    difference = operands.query[:, None, :] - place + shrink * place
    log_w = operands.log_weight[None, :] + log_kernel(jnp.sum(difference**2, axis=-1))

    peak = jax.lax.stop_gradient(jnp.maximum(jnp.max(log_w, axis=1), -1e30))
    below = log_w - peak[:, None]
    # At most 1: XLA may round log_w otherwise here than in the maximum that it took of it.
    w = jnp.exp(below - jax.lax.stop_gradient(jnp.maximum(below, 0)))
    # Averaging x - centre keeps the rounding error relative to the spread, not to the offset.
    value = operands.value - operands.frame.centre
    return Sums(
        shift=LOG2E * peak,
        offset=jnp.zeros_like(peak),
        weight=jnp.sum(w, axis=1),
        squares=jnp.sum(w**2, axis=1),
        total=jnp.matmul(w, value, precision=jax.lax.Precision.HIGHEST),
    )


def in_blocks(operands: Operands, log_kernel: LogKernel) -> Sums:
    """Do what `part` does, some queries at a time: 2 N M d operations, O(N + M) memory."""

    @jax.checkpoint
    def one(query: jax.Array) -> Sums:
        sums = part(replace(operands, query=query[None], own=None), log_kernel)
        return jax.tree.map(lambda row: row[0], sums)

    rows = max(1, BLOCK // operands.place.size)
    return jax.lax.map(one, operands.query, batch_size=rows)
