"""Kernels that are functions of the distance: Student's t, and your own."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from diffevo_jax.checks import (
    Count,
    InputError,
    Number,
    Positive,
    call_in_jax,
    check_number,
    check_takes,
)
from diffevo_jax.kernels import dense
from diffevo_jax.kernels._estimate import make_rows
from diffevo_jax.kernels._places import make_places
from diffevo_jax.kernels.posterior import Rows, by_formula, posterior
from diffevo_jax.kernels.types import Operands, Sums
from diffevo_jax.latent import Following
from diffevo_jax.parts import Kernel, Level, Posterior


def isotropic(
    log_kernel: Callable[[jax.Array, Level, int], jax.Array],
    *,
    projection: jax.Array | Following | None = None,
    latent_dim: Count | None = None,
) -> Kernel:
    """Make a kernel of a function of the squared distance.

    log_kernel: (squares, level, d) -> log of the kernel, an array like squares: |z_i -
        sqrt(alpha) z_j|^2 of any shape, d the dimensions of z; finite, and differentiable where
        gradients are needed. It may close over numbers that are traced.
    projection, latent_dim: see `gaussian`.

    Its sums are taken term by term, over blocks of queries: 2 N M d operations, O(N + M) memory.
    Raises InputError, here or in `init`, naming the argument.
    """
    check_takes("log_kernel", log_kernel, ("squares", "level", "d"))
    init, follow, places = make_places(projection, latent_dim)

    # Compiled here as well, so that calls outside jit do not trace the loop anew every time.
    @partial(jax.jit, static_argnames=("latent", "among_supports"))
    def summed(rows: Rows, level: Level, inverse_temperature: jax.Array, **settings) -> Posterior:
        dtype = rows.value.dtype
        alpha, one_minus_alpha = (
            jnp.asarray(number, dtype) for number in (level.alpha, level.one_minus_alpha)
        )
        level = replace(level, alpha=alpha, one_minus_alpha=one_minus_alpha)

        def make_log_kernel(operands: Operands) -> dense.LogKernel:
            dim = operands.query.shape[1]

            def in_jax(squares: jax.Array) -> jax.Array:
                log_w = call_in_jax("log_kernel", log_kernel, squares, level, dim)
                if jnp.shape(log_w) != squares.shape:
                    expected = f"an array like squares, {squares.shape}"
                    raise InputError("log_kernel", expected, jnp.shape(log_w))
                return (inverse_temperature * log_w).astype(dtype)

            return in_jax

        def add_up(operands: Operands) -> Sums:
            return by_formula(operands, make_log_kernel, dense.in_blocks, level.mesh)

        return posterior(rows, alpha, one_minus_alpha, add_up, **settings)

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
        rows = make_rows(at.x_t, log_weight, at.z_t, at.support, at.z_support, level.mesh)
        beta = jnp.asarray(inverse_temperature, rows.value.dtype)
        settings = {"latent": at.z_t is not None, "among_supports": support is None}
        return summed(rows, level, beta, **settings)

    return Kernel(init, average, follow)


def student_t(
    *,
    dof: Positive = 3.0,
    projection: jax.Array | Following | None = None,
    latent_dim: Count | None = None,
) -> Kernel:
    """Weigh by Student's t in the distance: individuals far away still count.

    w_ij = g_j (1 + |z_i - sqrt(alpha) z_j|^2 / (nu (1 - alpha)))^(-(nu + k) / 2)

    The kernel of noise that is multivariate t of nu degrees of freedom and scale
    sqrt(1 - alpha), k the dimension of z; the Gaussian as nu grows.

    dof: nu, above 0, or traced.
    projection, latent_dim: see `gaussian`. Costs and errors: see `isotropic`.
    """
    check_number("dof", dof, 0, math.inf, closed="()")

    def log_kernel(squares: jax.Array, level: Level, dim: int) -> jax.Array:
        return -(dof + dim) / 2 * jnp.log1p(squares / (dof * level.one_minus_alpha))

    return isotropic(log_kernel, projection=projection, latent_dim=latent_dim)
