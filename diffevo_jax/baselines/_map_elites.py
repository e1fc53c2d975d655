"""MAP-Elites (Mouret and Clune 2015, https://arxiv.org/abs/1504.04909), as the paper's Fig. 3."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.algorithm import Algorithm, make_algorithm
from diffevo_jax.checks import Count, NonNegative, Positive, check_count, check_number
from diffevo_jax.metrics import elites
from diffevo_jax.search import SearchInfo, search_info


class EliteArchive(NamedTuple):
    """Every genome that was evaluated, generation by generation.

    points: `[M, D]`, M = num_generations * population_size; zeros where none has come yet.
    fitness: `[M]`; -inf for a point that is not in the archive: not evaluated yet, beaten, or
        invalid.
    """

    points: jax.Array
    fitness: jax.Array


class EliteState(NamedTuple):
    """What the next step needs.

    population: the children to evaluate next, `[N, D]`.
    t: generations that follow this one, from T - 1 to 0 (finished).
    archive: the elites; in a finished run the last generation is among them.
    """

    population: jax.Array
    t: jax.Array
    archive: EliteArchive


def map_elites(
    *,
    population_size: Count,
    num_genes: Count,
    num_generations: Count,
    sigma: NonNegative = 0.125,
    cell: Positive = 0.25,
) -> Algorithm:
    """Configure MAP-Elites with the genomes themselves as behaviour.

    The archive holds the fittest genome of each cell of an unbounded grid, `metrics.elites`. A
    generation is a batch of children: parents drawn evenly from the archive, plus sigma N(0, I).
    The published one adds child after child. The initial population is the first generation.
    Descriptors that a fitness tells beside, its aux, reach `keep` alone: `metrics.elites` makes an
    archive of what was kept.

    sigma: standard deviation of a mutation. cell: side of the cells.

    A step adds the evaluated generation to `State.archive`, the last step too, which makes no
    children; the same fitness twice changes nothing. Info.strategy is the archive with it.
    Raises InputError on settings out of range.
    """
    shape = check_count("population_size", population_size), check_count("num_genes", num_genes)
    size = check_count("num_generations", num_generations) * population_size
    check_number("sigma", sigma, 0, math.inf, closed="[)")
    check_number("cell", cell, 0, math.inf, closed="()")

    def init(key: jax.Array, population: jax.Array, t: jax.Array) -> EliteState:
        fitness_type = jnp.promote_types(population.dtype, jnp.float32)
        points = jnp.zeros((size, num_genes), population.dtype)
        fitness = jnp.full(size, -jnp.inf, fitness_type)
        return EliteState(population, t, EliteArchive(points, fitness))

    def insert(archive: EliteArchive, info: SearchInfo, place: jax.Array) -> EliteArchive:
        finite = jnp.where(jnp.isfinite(info.fitness), info.fitness, -jnp.inf)
        finite = finite.astype(archive.fitness.dtype)
        points = jax.lax.dynamic_update_slice(archive.points, info.population, (place, 0))
        fitness = jax.lax.dynamic_update_slice(archive.fitness, finite, (place,))
        return EliteArchive(
            points, jnp.where(elites(points, fitness, cell=cell), fitness, -jnp.inf)
        )

    def step(
        key: jax.Array, state: EliteState, fitness: jax.Array, population: jax.Array
    ) -> tuple[EliteState, SearchInfo]:
        key_parent, key_child = jax.random.split(key)
        info = search_info(population, fitness, state.archive)
        archive = insert(state.archive, info, (num_generations - 1 - state.t) * population_size)
        alive = archive.fitness > -jnp.inf
        rank = jax.random.randint(key_parent, (population_size,), 1, jnp.sum(alive) + 1)
        places = jnp.searchsorted(jnp.cumsum(alive), rank)  # the rank-th in the archive
        parents = jnp.where(jnp.any(alive), archive.points[places], population)
        noise = jax.random.normal(key_child, shape)
        state = EliteState(parents + sigma * noise, state.t, archive)
        return state, info._replace(strategy=archive)

    algorithm = make_algorithm(init, step, num_generations, shape=shape)

    def step_and_insert(*arguments: Any, **evaluated: Any) -> tuple[EliteState, SearchInfo]:
        """Add the last generation too, which makes no children."""
        state, info = algorithm.step(*arguments, **evaluated)
        return state._replace(archive=info.strategy), info

    return algorithm._replace(step=step_and_insert)
