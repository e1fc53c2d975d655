"""Fitness maps, the paper's g: fitness [N], higher is better, to log weight [N].

A log weight of -inf is a weight of zero. NaN says that the fitness has no weight under this map
(a negative one under `identity`); the step leaves such individuals out and counts them.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Positive, check_number

FitnessMap = Callable[[jax.Array], jax.Array]


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
