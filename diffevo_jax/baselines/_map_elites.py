"""MAP-Elites (Mouret and Clune 2015, https://arxiv.org/abs/1504.04909), as the paper's Fig. 3."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.algorithm import Algorithm
from diffevo_jax.checks import NonNegative, Positive, check_number
from diffevo_jax.generation import Info, begin, check_sizes, look, next_state
from diffevo_jax.metrics import elites


class Archive(NamedTuple):
    """Every genome that was evaluated, generation by generation.

    points: `[M, D]`, M = num_levels * population_size; zeros where none has come yet.
    fitness: `[M]`; -inf for a point that is none of the archive's: not yet, beaten, or invalid.
    """

    points: jax.Array
    fitness: jax.Array


class State(NamedTuple):
    """What the next step needs.

    population: the children to evaluate next, `[N, D]`.
    t: generations that follow this one, from T - 1 to 0 (finished).
    archive: of a finished run it holds the last generation too.
    """

    population: jax.Array
    t: jax.Array
    archive: Archive


def map_elites(
    *,
    population_size: int,
    num_genes: int,
    num_levels: int,
    sigma: NonNegative = 0.125,
    cell: Positive = 0.25,
) -> Algorithm:
    """Configure MAP-Elites with the genomes themselves as behaviour.

    The archive holds the fittest genome of each cell of an unbounded grid, `metrics.elites`. A
    generation is a batch of children: parents drawn evenly from the archive, plus sigma N(0, I).
    The published one adds child after child. The initial population is the first generation.

    sigma: standard deviation of a mutation. cell: side of the cells.

    A step adds the evaluated generation to `State.archive`, the last step too, which makes no
    children; the same fitness again changes nothing. Info.strategy is the archive with it.
    Raises ValueError on settings out of range.
    """
    check_sizes(population_size=population_size, num_genes=num_genes, num_levels=num_levels)
    check_number("sigma", sigma, 0, math.inf, closed="[)")
    check_number("cell", cell, 0, math.inf, closed="()")
    size = num_levels * population_size

    def init(population: jax.Array) -> State:
        population, t = begin(population, population_size, num_genes, num_levels)
        fitness_type = jnp.promote_types(population.dtype, jnp.float32)
        points = jnp.zeros((size, num_genes), population.dtype)
        return State(population, t, Archive(points, jnp.full(size, -jnp.inf, fitness_type)))

    def insert(archive: Archive, info: Info, place: jax.Array) -> Archive:
        finite = jnp.where(jnp.isfinite(info.fitness), info.fitness, -jnp.inf)
        finite = finite.astype(archive.fitness.dtype)
        points = jax.lax.dynamic_update_slice(archive.points, info.population, (place, 0))
        fitness = jax.lax.dynamic_update_slice(archive.fitness, finite, (place,))
        return Archive(points, jnp.where(elites(points, fitness, cell=cell), fitness, -jnp.inf))

    def step(
        key: jax.Array, state: State, fitness: jax.Array, population: jax.Array | None = None
    ) -> tuple[State, Info]:
        key_parent, key_child = jax.random.split(key)
        info = look(state, fitness, population, state.archive)
        archive = insert(state.archive, info, (num_levels - 1 - state.t) * population_size)
        alive = archive.fitness > -jnp.inf
        rank = jax.random.randint(key_parent, (population_size,), 1, jnp.sum(alive) + 1)
        places = jnp.searchsorted(jnp.cumsum(alive), rank)  # the rank-th of the archive
        parents = jnp.where(jnp.any(alive), archive.points[places], info.population)
        noise = jax.random.normal(key_child, (population_size, num_genes))
        state = next_state(state, population=parents + sigma * noise)
        return state._replace(archive=archive), info._replace(strategy=archive)

    return Algorithm(init, step, num_levels)
