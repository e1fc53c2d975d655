"""What optimisers with a search distribution share: their state, info, and way with bad fitness."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.algorithm import Algorithm


class SearchState(NamedTuple):
    """What the next step of a search needs.

    population: the genomes to evaluate next, `[N, D]`.
    t: generations that follow this one, from T - 1 to 0 (finished).
    strategy: the search distribution, or whatever else the optimiser knows; a pytree of arrays.
    """

    population: jax.Array
    t: jax.Array
    strategy: Any


class SearchInfo(NamedTuple):
    """What a figure shows of one evaluated generation; never carried.

    population: the genomes that `fitness` belongs to, `[N, D]`.
    fitness: as evaluated, `[N]`.
    num_invalid: individuals whose fitness is not finite, which counts as the generation's worst.
    strategy: what the generation was drawn from, such as mean and std; MAP-Elites has the archive
        that it went into.
    """

    population: jax.Array
    fitness: jax.Array
    num_invalid: jax.Array
    strategy: Any


def search_info(population: jax.Array, fitness: jax.Array, strategy: Any) -> SearchInfo:
    """Describe a generation, `[N, D]` and `[N]`, that was drawn from a strategy."""
    return SearchInfo(population, fitness, jnp.sum(~jnp.isfinite(fitness)), strategy)


def with_last(algorithm: Algorithm) -> Algorithm:
    """Let `State.archive` have the last generation too, whose step makes no children."""

    def step(*arguments: Any, **evaluated: Any) -> tuple[Any, Any]:
        state, info = algorithm.step(*arguments, **evaluated)
        return state._replace(archive=info.strategy), info

    return algorithm._replace(step=step)


def usable(fitness: jax.Array) -> jax.Array:
    """Put the worst finite fitness in the place of any that is not, `[N]`; 0 where none is."""
    fitness = fitness.astype(jnp.promote_types(fitness.dtype, jnp.float32))
    finite = jnp.isfinite(fitness)
    worst = jnp.min(fitness, where=finite, initial=jnp.inf)
    return jnp.where(finite, fitness, jnp.where(jnp.isfinite(worst), worst, 0))


def choose(condition: jax.Array, new: Any, old: Any) -> Any:
    """Take one of two pytrees of one structure, in the second's dtypes."""
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old).astype(old.dtype), new, old)
