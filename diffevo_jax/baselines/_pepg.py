"""PEPG (Sehnke et al. 2010, Neural Networks 23), as the paper's Fig. 3 has it."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.algorithm import Algorithm, make_algorithm
from diffevo_jax.checks import Count, NonNegative, Positive, Share, check_count, check_number
from diffevo_jax.search import SearchInfo, SearchState, choose, search_info, usable

LARGEST_CHANGE = 0.2  # change of sigma in one generation, as a share of it; before its decay


class Distribution(NamedTuple):
    """What genomes are drawn from, N(mean, diag(std^2)): mean and std, `[D]`."""

    mean: jax.Array
    std: jax.Array


def pepg(
    *,
    population_size: Count,
    num_genes: Count,
    num_generations: Count,
    sigma: Positive = 1.0,
    sigma_decay: Positive = 0.01,
    sigma_learning_rate: NonNegative = 0.0333,
    elite_share: Share = 0.1,
    penalty: NonNegative = 0.16,
) -> Algorithm:
    """Configure PEPG from mean 0, its mean moved to that of the elite.

    The elite is the best share by rank, from -0.5 to 0.5, less penalty mean(x^2). Every generation
    is its first half and that half's mirror image in the mean, the first too: `init` keeps the
    first half of its population. (From one without pairs, runs on Rastrigin's
    function end at 0.618 instead of 0.595, further from the published 0.53.)

    sigma: initial standard deviation; the initial population is drawn from N(0, sigma^2 I).
    sigma_decay: the factor over all generations together, reached evenly.
    sigma_learning_rate: factor on sigma's gradient, which sees the elite, fitness 1 / elite_share
        and 0 for the others, where the published one sees all ranks: 0.0333 for its 0.2, as the
        elite's fitness has 6 times the spread of ranks.
    elite_share: in (0, 1]; at least one individual.

    Info.strategy has mean and std. Raises InputError on settings out of range.
    """
    shape = check_count("population_size", population_size), check_count("num_genes", num_genes)
    check_count("num_generations", num_generations)
    check_number("sigma", sigma, 0, math.inf, closed="()")
    check_number("sigma_decay", sigma_decay, 0, math.inf, closed="()")
    check_number("sigma_learning_rate", sigma_learning_rate, 0, math.inf, closed="[)")
    check_number("elite_share", elite_share, 0, 1, closed="(]")
    check_number("penalty", penalty, 0, math.inf, closed="[)")
    num_elite = jnp.maximum(jnp.floor(elite_share * population_size), 1)
    decay = sigma_decay ** (1 / num_generations)

    def init(key: jax.Array, population: jax.Array, t: jax.Array) -> SearchState:
        mean = jnp.zeros_like(population[0])
        return SearchState(mirrored(population), t, Distribution(mean, jnp.full_like(mean, sigma)))

    def mirrored(noise: jax.Array) -> jax.Array:
        half = noise[: (population_size + 1) // 2]
        return jnp.concatenate([half, -half])[:population_size]

    def update(old: Distribution, population: jax.Array, fitness: jax.Array) -> Distribution:
        score = _ranks(fitness) / (population_size - 1) - 0.5
        score -= penalty * jnp.mean(population**2, axis=1)
        elite = (_ranks(-score) < num_elite)[:, None]
        offset = population - old.mean
        # The gradient of sigma for a fitness of N / n in the elite of n and 0 in the others.
        squares = jnp.mean(offset**2, axis=0, where=elite) - jnp.mean(offset**2, axis=0)
        change = sigma_learning_rate * squares / old.std
        most = LARGEST_CHANGE * old.std
        return Distribution(
            old.mean + jnp.mean(offset, axis=0, where=elite),
            decay * (old.std + jnp.clip(change, -most, most)),
        )

    def step(
        key: jax.Array, state: SearchState, fitness: jax.Array, population: jax.Array
    ) -> tuple[SearchState, SearchInfo]:
        info = search_info(population, fitness, state.strategy)
        new = update(state.strategy, population, usable(fitness))
        new = choose(info.num_invalid < population_size, new, state.strategy)
        noise = mirrored(jax.random.normal(key, shape))
        return state._replace(population=new.mean + new.std * noise, strategy=new), info

    return make_algorithm(init, step, num_generations, shape=shape)


def _ranks(values: jax.Array) -> jax.Array:
    """Rank values in ascending order from 0, `[N]`; equal ones in the order of their places."""
    return jnp.argsort(jnp.argsort(values))
