"""PEPG (Sehnke et al. 2010, Neural Networks 23), as the paper's Fig. 3 has it."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.algorithm import Algorithm
from diffevo_jax.checks import NonNegative, Positive, Share, check_number
from diffevo_jax.generation import (
    Info,
    State,
    begin,
    check_sizes,
    choose,
    look,
    next_state,
    usable,
)

LARGEST_CHANGE = 0.2  # of sigma in one generation, as a share of it; before its decay


class Distribution(NamedTuple):
    """What genomes are drawn from, N(mean, diag(std^2)): mean and std, `[D]`."""

    mean: jax.Array
    std: jax.Array


def pepg(
    *,
    population_size: int,
    num_genes: int,
    num_levels: int,
    sigma: Positive = 1.0,
    sigma_decay: Positive = 0.01,
    sigma_learning_rate: NonNegative = 0.0333,
    elite_share: Share = 0.1,
    penalty: NonNegative = 0.16,
) -> Algorithm:
    """Configure PEPG from mean 0, its mean moved to that of the elite.

    The elite is the best share by rank, from -0.5 to 0.5, less penalty mean(x^2). Every generation
    is its first half and that half's mirror image in the mean, the first too: `init` keeps the
    first half of the population that it is given. (From one without pairs, runs on Rastrigin's
    function end at 0.618 instead of 0.595, further from the published 0.53.)

    sigma: initial standard deviation; the initial population is drawn from N(0, sigma^2 I).
    sigma_decay: the factor over all generations together, reached evenly.
    sigma_learning_rate: of sigma's gradient. It sees the elite, fitness 1 / elite_share and 0 for
        the others, where the published one sees all ranks: 0.0333 for its 0.2, as the elite's
        fitness has 6 times the spread of ranks.
    elite_share: in (0, 1]; at least one individual.

    Info.strategy has mean and std. Raises ValueError on settings out of range.
    """
    check_sizes(population_size=population_size, num_genes=num_genes, num_levels=num_levels)
    check_number("sigma", sigma, 0, math.inf, closed="()")
    check_number("sigma_decay", sigma_decay, 0, math.inf, closed="()")
    check_number("sigma_learning_rate", sigma_learning_rate, 0, math.inf, closed="[)")
    check_number("elite_share", elite_share, 0, 1, closed="(]")
    check_number("penalty", penalty, 0, math.inf, closed="[)")
    num_elite = jnp.maximum(jnp.floor(elite_share * population_size), 1)
    decay = sigma_decay ** (1 / num_levels)

    def init(population: jax.Array) -> State:
        population, t = begin(population, population_size, num_genes, num_levels)
        mean = jnp.zeros_like(population[0])
        return State(mirrored(population), t, Distribution(mean, jnp.full_like(mean, sigma)))

    def mirrored(noise: jax.Array) -> jax.Array:
        half = noise[: (population_size + 1) // 2]
        return jnp.concatenate([half, -half])[:population_size]

    def update(drawn: Distribution, population: jax.Array, fitness: jax.Array) -> Distribution:
        score = _ranks(fitness) / (population_size - 1) - 0.5
        score -= penalty * jnp.mean(population**2, axis=1)
        elite = (_ranks(-score) < num_elite)[:, None]
        apart = population - drawn.mean
        # The gradient of sigma for a fitness of N / n in the elite of n and 0 in the others.
        squares = jnp.mean(apart**2, axis=0, where=elite) - jnp.mean(apart**2, axis=0)
        change = sigma_learning_rate * squares / drawn.std
        most = LARGEST_CHANGE * drawn.std
        return Distribution(
            drawn.mean + jnp.mean(apart, axis=0, where=elite),
            decay * (drawn.std + jnp.clip(change, -most, most)),
        )

    def step(
        key: jax.Array, state: State, fitness: jax.Array, population: jax.Array | None = None
    ) -> tuple[State, Info]:
        info = look(state, fitness, population, state.strategy)
        told = update(state.strategy, info.population, usable(info.fitness))
        told = choose(info.num_invalid < population_size, told, state.strategy)
        noise = mirrored(jax.random.normal(key, (population_size, num_genes)))
        drawn = told.mean + told.std * noise
        return next_state(state, population=drawn, strategy=told), info

    return Algorithm(init, step, num_levels)


def _ranks(values: jax.Array) -> jax.Array:
    """Places `[N]` in ascending order, from 0; equals in the order they come."""
    return jnp.argsort(jnp.argsort(values))
