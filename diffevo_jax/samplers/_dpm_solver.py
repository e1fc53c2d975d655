"""DPM-Solver++(2M), a deterministic step of second order (Lu et al., 2211.01095)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.parts import Level, Move, Sampler


class LastStep(NamedTuple):
    """The step before: its clean targets, `[N, D]`, and its length in lambda, `[]`; inf if none."""

    x0: jax.Array
    length: jax.Array


def dpm_solver() -> Sampler:
    """Take a step of DPM-Solver++(2M) towards the clean targets: no noise, second order.

    lambda = log(alpha / (1 - alpha)) / 2,   h = lambda_prev - lambda_t,   r = h_last / h
    D      = (1 + 1 / (2 r)) x0 - 1 / (2 r) x0_last
    x_prev = sqrt((1 - alpha_prev) / (1 - alpha_t)) x_t + sqrt(alpha_prev) (1 - exp(-h)) D

    last is the step before; the first step has none and is DDIM's with eta = 0. Of a smooth
    denoiser, twice the levels leave a quarter of the error, where DDIM leaves half. It draws no
    random numbers; each individual moves by itself.
    """

    def init(key: jax.Array, population: jax.Array) -> LastStep:
        # After an infinite step 1 / (2 r) is 0: the first is of first order.
        return LastStep(jnp.zeros_like(population), jnp.asarray(jnp.inf, float))

    def move(
        key: jax.Array, memory: LastStep, x_t: jax.Array, x0: jax.Array, level: Level
    ) -> tuple[LastStep, Move]:
        # alpha_prev - alpha_t, from the side that keeps its digits.
        rise = jnp.where(
            level.alpha < 0.5,
            level.alpha_prev - level.alpha,
            level.one_minus_alpha - level.one_minus_alpha_prev,
        )
        # Both ratios in exp(2 h) are 1 + something positive.
        h = (jnp.log1p(rise / level.alpha) + jnp.log1p(rise / level.one_minus_alpha_prev)) / 2
        ahead = h / (2 * memory.length)
        target = (1 + ahead) * x0 - ahead * memory.x0
        x_prev = jnp.sqrt(level.one_minus_alpha_prev / level.one_minus_alpha) * x_t
        x_prev -= jnp.sqrt(level.alpha_prev) * jnp.expm1(-h) * target
        step = LastStep(x0.astype(memory.x0.dtype), h.astype(memory.length.dtype))
        return step, Move(x_prev, x_prev, jnp.zeros_like(h))

    return Sampler(init, move)
