"""MAP-Elites (Mouret and Clune 2015, https://arxiv.org/abs/1504.04909).

Over genomes, as in the paper's Fig. 3, or over how individuals behave.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax import archives
from diffevo_jax.algorithm import Algorithm, descriptors_of, make_algorithm
from diffevo_jax.checks import Count, NonNegative, Positive, check_count, check_number
from diffevo_jax.metrics import elites
from diffevo_jax.search import SearchInfo, search_info, with_last


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
    archive: the elites, `EliteArchive` or `archives.Elites`; in a finished run the last generation
        is among them.
    """

    population: jax.Array
    t: jax.Array
    archive: Any


def map_elites(
    *,
    population_size: Count,
    num_genes: Count,
    num_generations: Count,
    sigma: NonNegative = 0.125,
    line: NonNegative = 0.0,
    cell: Positive = 0.25,
    archive: archives.Cells | None = None,
) -> Algorithm:
    """Configure MAP-Elites, with the genomes themselves as behaviour or with descriptors.

    A generation is a batch of children, whose parents i, j are drawn evenly from the archive:

    x_i + sigma N(0, I) + line (x_j - x_i) N(0, 1)

    with a line the operator Iso+LineDD (https://arxiv.org/abs/1804.03906). The published one adds
    child after child. The initial population is the first generation.

    sigma: standard deviation of a mutation. line: 0 is none.
    archive: the cells of behaviour space, `archives.grid` for example; the fitness function says
        how individuals behave, aux["descriptors"]. None: the archive has the fittest genome of
        each cell of an unbounded grid over genomes, `metrics.elites`.
    cell: side of the cells over genomes.

    A step adds the evaluated generation to `State.archive`, the last step too, which makes no
    children; the same fitness twice changes nothing. Info.strategy is the archive with it.
    Raises InputError on settings out of range.
    """
    shape = check_count("population_size", population_size), check_count("num_genes", num_genes)
    size = check_count("num_generations", num_generations) * population_size
    check_number("sigma", sigma, 0, math.inf, closed="[)")
    check_number("line", line, 0, math.inf, closed="[)")
    check_number("cell", cell, 0, math.inf, closed="()")
    cells = None if archive is None else archives.check_cells(archive)

    def init(key: jax.Array, population: jax.Array, t: jax.Array) -> EliteState:
        if cells is not None:
            return EliteState(population, t, archives.empty(cells, num_genes))
        fitness_type = jnp.promote_types(population.dtype, jnp.float32)
        points = jnp.zeros((size, num_genes), population.dtype)
        fitness = jnp.full(size, -jnp.inf, fitness_type)
        return EliteState(population, t, EliteArchive(points, fitness))

    def insert(archive: Any, info: SearchInfo, place: jax.Array) -> EliteArchive:
        finite = jnp.where(jnp.isfinite(info.fitness), info.fitness, -jnp.inf)
        finite = finite.astype(archive.fitness.dtype)
        points = jax.lax.dynamic_update_slice(
            archive.points, info.population, (place, jnp.zeros_like(place))
        )
        fitness = jax.lax.dynamic_update_slice(archive.fitness, finite, (place,))
        return EliteArchive(
            points, jnp.where(elites(points, fitness, cell=cell), fitness, -jnp.inf)
        )

    def step(
        key: jax.Array,
        state: EliteState,
        fitness: jax.Array,
        population: jax.Array,
        aux: Any = (),
    ) -> tuple[EliteState, SearchInfo | archives.ArchiveInfo]:
        key_parent, key_child = jax.random.split(key)
        if cells is None:
            info = search_info(population, fitness, state.archive)
            place = (num_generations - 1 - state.t) * population_size
            info = info._replace(strategy=insert(state.archive, info, place))
        else:
            descriptors = descriptors_of(aux, population_size)
            added = archives.insert(cells, state.archive, population, fitness, descriptors)
            info = archives.archive_info(population, fitness, *added)
        archive = info.strategy

        def drawn(key: jax.Array) -> jax.Array:
            points = archive.points[archives.draw(key, archive.fitness, population_size)]
            return jnp.where(jnp.any(archive.fitness > -jnp.inf), points, population)

        parents, noise = drawn(key_parent), jax.random.normal(key_child, shape)
        children = parents + sigma * noise
        if not (isinstance(line, int | float) and line == 0):
            key_other, key_line = jax.random.split(jax.random.fold_in(key_child, 1))
            along = drawn(key_other) - parents
            children += line * along * jax.random.normal(key_line, (population_size, 1))
        return EliteState(children, state.t, archive), info

    has_aux = cells is not None
    algorithm = make_algorithm(init, step, num_generations, shape=shape, has_aux=has_aux)
    return with_last(algorithm)
