"""Searches of bits: three that learn a frequency of each site, a genetic algorithm, an EA.

Genomes are 0 and 1, of any dtype; the first generation is drawn evenly. Frequencies stay within
[1 / D, 1 - 1 / D], so that no site is ever decided; mutations flip each site with probability
1 / D. Fitness that is not finite counts as -inf.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.algorithm import Algorithm, Best
from diffevo_jax.checks import Count, Positive, Share, check_count, check_number
from diffevo_jax.discrete import make_discrete_algorithm
from diffevo_jax.search import SearchInfo, SearchState, choose, search_info


class Parents(NamedTuple):
    """Who may have children: genomes, `[N, D]`, and their fitness, `[N]`; -inf before any."""

    genomes: jax.Array
    fitness: jax.Array


def umda(
    *,
    population_size: Count,
    num_genes: Count,
    num_generations: Count,
    elite_share: Share = 0.5,
) -> Algorithm:
    """Configure UMDA: the frequencies are those of the fittest share, at least one individual.

    Mühlenbein and Paaß 1996 (https://doi.org/10.1007/3-540-61723-X_982). Info.strategy has the
    frequencies, `[D]`. Raises InputError on settings out of range.
    """
    check_number("elite_share", elite_share, 0, 1, closed="(]")

    def learn(frequency: jax.Array, bits: jax.Array, fitness: jax.Array) -> jax.Array:
        num_elite = jnp.maximum(jnp.floor(elite_share * len(bits)), 1)
        elite = jnp.argsort(jnp.argsort(-fitness)) < num_elite
        return jnp.mean(bits, axis=0, where=elite[:, None])

    return _by_frequencies(learn, population_size, num_genes, num_generations)


def pbil(
    *,
    population_size: Count,
    num_genes: Count,
    num_generations: Count,
    learning_rate: Share = 0.1,
) -> Algorithm:
    """Configure PBIL: the frequencies go towards the fittest individual, by the learning rate.

    Baluja 1994 (Carnegie Mellon, CMU-CS-94-163), without its mutation of frequencies. Info.strategy
    has the frequencies, `[D]`. Raises InputError on settings out of range.
    """
    check_number("learning_rate", learning_rate, 0, 1, closed="(]")

    def learn(frequency: jax.Array, bits: jax.Array, fitness: jax.Array) -> jax.Array:
        return frequency + learning_rate * (bits[jnp.argmax(fitness)] - frequency)

    return _by_frequencies(learn, population_size, num_genes, num_generations)


def cga(
    *,
    population_size: Count,
    num_genes: Count,
    num_generations: Count,
    virtual_size: Positive = 64.0,
) -> Algorithm:
    """Configure the compact genetic algorithm, which stands for a population that it does not have.

    Harik, Lobo and Goldberg 1999 (https://doi.org/10.1109/4235.797971): where the fittest of a
    generation differs from another, the frequency goes towards it by 1 / virtual_size.

    population_size: the published one draws 2. Info.strategy has the frequencies, `[D]`. Raises
    InputError on settings out of range.
    """
    check_count("population_size", population_size, least=2)
    check_number("virtual_size", virtual_size, 0, math.inf, closed="()")

    def learn(frequency: jax.Array, bits: jax.Array, fitness: jax.Array) -> jax.Array:
        return frequency + jnp.sum(bits[jnp.argmax(fitness)] - bits, axis=0) / virtual_size

    return _by_frequencies(learn, population_size, num_genes, num_generations)


def genetic_algorithm(
    *, population_size: Count, num_genes: Count, num_generations: Count
) -> Algorithm:
    """Configure a genetic algorithm with uniform crossover (Syswerda 1989, Proc. ICGA 3).

    Each child has two parents, the fitter of two individuals each; each site is that of one of
    them, and mutated. The best of parents and children stay, parents before children as fit.
    Info.strategy has the parents. Raises InputError on settings out of range.
    """
    shape = check_count("population_size", population_size), check_count("num_genes", num_genes)

    def init(key: jax.Array, population: jax.Array, t: jax.Array) -> SearchState:
        return SearchState(population, t, Parents(population, jnp.full(shape[0], -jnp.inf, float)))

    def step(
        key: jax.Array, state: SearchState, fitness: jax.Array, population: jax.Array
    ) -> tuple[SearchState, SearchInfo]:
        key_pair, key_cross, key_mutate = jax.random.split(key, 3)
        old = state.strategy
        both = jnp.concatenate([old.fitness, _or_lowest(fitness)])
        best, kept = jax.lax.top_k(both, population_size)
        x = jnp.concatenate([old.genomes, population])[kept]
        first, second = jax.random.randint(key_pair, (2, 2, population_size), 0, population_size)
        one, other = jnp.where(best[first] >= best[second], first, second)
        child = jnp.where(jax.random.bernoulli(key_cross, 0.5, shape), x[one], x[other])
        child = _mutated(key_mutate, child)
        info = search_info(population, fitness, old)
        return SearchState(child, state.t, Parents(x, best)), info

    return make_discrete_algorithm(init, step, num_generations, shape=shape)


def one_plus_lambda(
    *, population_size: Count, num_genes: Count, num_generations: Count
) -> Algorithm:
    """Configure the (1 + lambda)-EA; with population_size=1 it is the (1+1)-EA.

    Droste, Jansen and Wegener 2002 (https://doi.org/10.1016/S0304-3975(01)00182-7). A generation is
    mutants of one parent, the fittest of which replaces it, if it is as fit. Info.strategy has the
    parent. Raises InputError on settings out of range.
    """
    shape = check_count("population_size", population_size), check_count("num_genes", num_genes)

    def init(key: jax.Array, population: jax.Array, t: jax.Array) -> SearchState:
        return SearchState(population, t, Best(population[0], jnp.asarray(-jnp.inf, float)))

    def step(
        key: jax.Array, state: SearchState, fitness: jax.Array, population: jax.Array
    ) -> tuple[SearchState, SearchInfo]:
        info = search_info(population, fitness, state.strategy)
        fitness = _or_lowest(fitness)
        first = jnp.argmax(fitness)
        better = fitness[first] >= state.strategy.fitness
        parent = choose(better, Best(population[first], fitness[first]), state.strategy)
        mutants = _mutated(key, jnp.broadcast_to(parent.genome, shape))
        return SearchState(mutants, state.t, parent), info

    return make_discrete_algorithm(init, step, num_generations, shape=shape)


def _by_frequencies(
    learn: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    population_size: int,
    num_genes: int,
    num_generations: int,
) -> Algorithm:
    """Draw each site by its frequency, and learn that: (frequency, bits, fitness) -> frequency."""
    shape = check_count("population_size", population_size), check_count("num_genes", num_genes)
    least = 1 / max(num_genes, 2)

    def init(key: jax.Array, population: jax.Array, t: jax.Array) -> SearchState:
        return SearchState(population, t, jnp.full(num_genes, 0.5, float))

    def step(
        key: jax.Array, state: SearchState, fitness: jax.Array, population: jax.Array
    ) -> tuple[SearchState, SearchInfo]:
        info = search_info(population, fitness, state.strategy)
        new = learn(state.strategy, population.astype(float), _or_lowest(fitness))
        new = choose(
            info.num_invalid < population_size, jnp.clip(new, least, 1 - least), state.strategy
        )
        return SearchState(jax.random.bernoulli(key, new, shape), state.t, new), info

    return make_discrete_algorithm(init, step, num_generations, shape=shape)


def _or_lowest(fitness: jax.Array) -> jax.Array:
    """Put -inf, behind all others, in the place of fitness that is not finite."""
    return jnp.where(jnp.isfinite(fitness), fitness, -jnp.inf)


def _mutated(key: jax.Array, genomes: jax.Array) -> jax.Array:
    """Flip each site with probability 1 / D."""
    flips = jax.random.bernoulli(key, 1 / genomes.shape[1], genomes.shape)
    return jnp.where(flips, 1 - genomes, genomes)
