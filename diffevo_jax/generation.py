"""What every baseline does with a generation: start one, look at it, stay once finished."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.checks import check_population


class State(NamedTuple):
    """What the next step of a baseline needs.

    population: the genomes to evaluate next, `[N, D]`.
    t: generations that follow this one, from T - 1 to 0 (finished).
    strategy: the search distribution, or whatever else the optimiser knows; a pytree of arrays.
    """

    population: jax.Array
    t: jax.Array
    strategy: Any


class Info(NamedTuple):
    """What a figure shows of one evaluated generation; never carried.

    population: the genomes that `fitness` belongs to, `[N, D]`.
    fitness: as given, `[N]`.
    num_invalid: individuals whose fitness is not finite, which counts as the generation's worst.
    strategy: what the generation was drawn from, such as mean and std; of MAP-Elites the archive
        that it went into.
    """

    population: jax.Array
    fitness: jax.Array
    num_invalid: jax.Array
    strategy: Any


def check_sizes(**sizes: int) -> None:
    """Raise ValueError on a size that is no whole number of 1 or more."""
    for name, size in sizes.items():
        if not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"{name}: expected a whole number of 1 or more; seen {size!r}")


def begin(
    population: jax.Array, population_size: int, num_genes: int, num_levels: int
) -> tuple[jax.Array, jax.Array]:
    """Check the initial population, `[N, D]`; return it, and t of the first generation."""
    population = check_population(population)
    if population.shape != (population_size, num_genes):
        raise ValueError(
            "population: expected shape (population_size, num_genes) = "
            f"{(population_size, num_genes)}; seen {population.shape}"
        )
    return population, jnp.asarray(num_levels - 1, jnp.int32)


def look(state: Any, fitness: jax.Array, population: jax.Array | None, strategy: Any) -> Info:
    """Check what a step is given: fitness `[N]`, and genomes `[N, D]` or None for the state's."""
    fitness = jnp.asarray(fitness)
    genomes = state.population if population is None else jnp.asarray(population)
    if genomes.shape != state.population.shape:
        raise ValueError(
            "population: expected what was evaluated in place of the state's, of its shape "
            f"{state.population.shape}; seen {genomes.shape}"
        )
    if fitness.shape != genomes.shape[:1]:
        raise ValueError(
            f"fitness: expected shape {genomes.shape[:1]}, one per individual; seen {fitness.shape}"
        )
    num_invalid = jnp.sum(~jnp.isfinite(fitness))
    return Info(genomes.astype(state.population.dtype), fitness, num_invalid, strategy)


def usable(fitness: jax.Array) -> jax.Array:
    """Fitness `[N]` with the worst finite one in place of any that is not; 0 where none is."""
    fitness = fitness.astype(jnp.promote_types(fitness.dtype, jnp.float32))
    finite = jnp.isfinite(fitness)
    worst = jnp.min(fitness, where=finite, initial=jnp.inf)
    return jnp.where(finite, fitness, jnp.where(jnp.isfinite(worst), worst, 0))


def choose(condition: jax.Array, new: Any, old: Any) -> Any:
    """Take one of two pytrees of one structure, in the second's dtypes."""
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old).astype(old.dtype), new, old)


def next_state(state: Any, **new: Any) -> Any:
    """Count down and replace fields, unless the run is finished: then nothing changes."""
    after = state._replace(**new, t=state.t - 1)
    return choose(state.t > 0, after, state)
