"""Fitness maps, the paper's g: fitness [N], higher is better, to log weight [N].

A log weight of -inf is a weight of zero. NaN says that the fitness has no weight under this map
(a negative one under `identity`); the step leaves such individuals out and counts them.

A map that compares individuals takes `where`, `[N]`, too: which of them have a fitness to compare.
In the place of the others stands a number that it must leave out.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Positive, check_number

FitnessMap = Callable[..., jax.Array]


def standardised(temperature: Positive = 0.1) -> FitnessMap:
    """Weight = exp((f - max f) / (temperature std f)): unit and offset of fitness change nothing.

    std f: over the valid individuals of a generation; where all are equal, all weigh the same.
    temperature: a number above 0, in standard deviations, or traced. Raises ValueError when it is
    not.
    """
    check_number("temperature", temperature, 0, math.inf, closed="()")

    def log_weight(fitness: jax.Array, where: jax.Array | None = None) -> jax.Array:
        valid = _valid(fitness, where)
        best = jnp.max(fitness, where=valid, initial=-jnp.inf)
        # A sixteenth of it, so that neither it nor its reciprocal leaves the range of floats.
        gap = jnp.where(valid, fitness / 16 - best / 16, 0)
        # In units of the widest gap squares neither overflow nor vanish; the unit itself cancels.
        widest = jax.lax.stop_gradient(jnp.max(-gap))
        gap = gap / jnp.where(widest > 0, widest, 1)
        variance = jnp.var(gap, where=valid)
        spread = jnp.sqrt(jnp.where(widest > 0, variance, 1))
        return jnp.where(valid, gap / (temperature * spread), jnp.nan)

    return log_weight


def rank(sharpness: Positive = 50.0) -> FitnessMap:
    """Weight = exp(sharpness r / (N - 1)), r the rank from 0, the worst: only the order matters.

    Ties share their mean rank; N and r are of the valid individuals of a generation.
    sharpness: log of the best one's weight over the worst one's; a number above 0, or traced.
    Raises ValueError when it is not.
    """
    check_number("sharpness", sharpness, 0, math.inf, closed="()")

    def log_weight(fitness: jax.Array, where: jax.Array | None = None) -> jax.Array:
        valid = _valid(fitness, where)
        ordered = jnp.sort(jnp.where(valid, fitness, jnp.inf))
        below = jnp.searchsorted(ordered, fitness, side="left")
        last = jnp.searchsorted(ordered, fitness, side="right") - 1
        share = (below + last) / 2 / jnp.maximum(jnp.sum(valid) - 1, 1)
        return jnp.where(valid, sharpness * share, jnp.nan).astype(fitness.dtype)

    return log_weight


def _valid(fitness: jax.Array, where: jax.Array | None) -> jax.Array:
    finite = jnp.isfinite(fitness)
    return finite if where is None else finite & where


def identity(fitness: jax.Array) -> jax.Array:
    """Weight = fitness: log f. Fitness must not be negative; see `boltzmann` if yours can be."""
    return power(1.0)(fitness)


def power(p: Positive, temperature: Positive = 1.0) -> FitnessMap:
    """Weight = f^(p / temperature): a larger p, or a lower temperature, selects more sharply.

    p, temperature: numbers above 0, or traced. Raises ValueError when they are not.
    """
    check_number("p", p, 0, math.inf, closed="()")
    check_number("temperature", temperature, 0, math.inf, closed="()")

    def log_weight(fitness: jax.Array) -> jax.Array:
        positive = fitness > 0
        log_fitness = jnp.log(jnp.where(positive, fitness, 1))  # no log 0, so gradients stay finite
        nothing = jnp.where(fitness == 0, -jnp.inf, jnp.nan)
        return jnp.where(positive, p / temperature * log_fitness, nothing)

    return log_weight


def boltzmann(temperature: Positive = 1.0) -> FitnessMap:
    """Weight = exp((f - max f) / temperature): fitness of any sign; an offset changes nothing.

    temperature: a number above 0, in units of fitness, or traced. Raises ValueError when it is not.
    The published control tasks use temperature 1.
    """
    check_number("temperature", temperature, 0, math.inf, closed="()")

    def log_weight(fitness: jax.Array) -> jax.Array:
        best = jnp.max(fitness, where=jnp.isfinite(fitness), initial=-jnp.inf)
        return (fitness - best) / temperature

    return log_weight
