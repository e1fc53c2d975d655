"""CMA-ES of evosax with the constants of the published baseline, and its runs on control tasks."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

# Step-size constants: of arXiv 1604.00772, or of the `cma` package that the reference was run with.
Constants = Literal["tutorial", "cma-4.5"]


class Best(NamedTuple):
    """The best individual so far: its genome `[D]` and its fitness."""

    genome: jax.Array
    fitness: jax.Array


def make_run(
    fitness_fn: Callable[[jax.Array, jax.Array], Any],
    num_genes: int,
    *,
    population: int,
    generations: int,
    sigma: float = 1.0,
    elitist: bool = True,
    constants: Constants = "cma-4.5",
) -> Callable[[jax.Array], tuple[jax.Array, Any]]:
    """Make a run from 0, key -> (last population `[N, D]`, kept of each generation stacked).

    fitness_fn: (key, population) -> (fitness `[N]`, higher is better, anything to keep).
    elitist: tell the best so far again, in place of the worst, whenever a generation has none as
        good. As in the `cma` package it keeps its direction from the mean and takes the length of
        a sample. (There it comes on top of the others.)

    Raises ModuleNotFoundError without evosax: `pip install ".[baselines]"`.
    """
    try:
        from evosax.algorithms import CMA_ES
    except ModuleNotFoundError as error:
        message = f'CMA-ES needs evosax ({error}): pip install --editable ".[baselines]"'
        raise ModuleNotFoundError(message) from None

    algorithm = CMA_ES(population_size=population, solution=jnp.zeros(num_genes))
    params = parameters(algorithm, sigma, constants)

    def with_best(key: jax.Array, state: Any, genomes: jax.Array, fitness: jax.Array, best: Best):
        apart = best.genome - state.mean
        length = jnp.linalg.norm(state.B.T @ apart / state.D) / state.std
        drawn = jnp.linalg.norm(jax.random.normal(key, (num_genes,)))
        again = state.mean + apart * drawn / jnp.maximum(length, 1e-12)
        worst, lost = jnp.argmin(fitness), best.fitness > fitness.max()
        told = genomes.at[worst].set(jnp.where(lost, again, genomes[worst]))
        return told, fitness.at[worst].set(jnp.where(lost, best.fitness, fitness[worst]))

    def run(key: jax.Array) -> tuple[jax.Array, Any]:
        key_init, key_run = jax.random.split(key)

        def generation(carry, key: jax.Array):
            state, _, best = carry
            key_ask, key_fitness, key_tell, key_best = jax.random.split(key, 4)
            genomes, state = algorithm.ask(key_ask, state, params)
            fitness, kept = fitness_fn(key_fitness, genomes)
            told = (genomes, fitness)
            if elitist:
                told = with_best(key_best, state, genomes, fitness, best)
                first = jnp.argmax(fitness)
                found = Best(genomes[first], fitness[first])
                better = found.fitness > best.fitness
                best = jax.tree.map(lambda new, old: jnp.where(better, new, old), found, best)
            state, _ = algorithm.tell(key_tell, told[0], -told[1], state, params)  # it minimises
            return (state, genomes, best), kept

        state = algorithm.init(key_init, jnp.zeros(num_genes), params)
        start = (
            state,
            jnp.zeros((population, num_genes)),
            Best(jnp.zeros(num_genes), jnp.asarray(-jnp.inf)),
        )
        keys = jax.random.split(key_run, generations)
        (_, genomes, _), kept = jax.lax.scan(generation, start, keys)
        return genomes, kept

    return run


def parameters(algorithm: Any, sigma: float, constants: Constants = "cma-4.5") -> Any:
    """Take evosax's defaults, which are the tutorial's, or the `cma` package's for its step size.

    In version 4.5 of that package the rate c_sigma stops at 0.5, which 512 in the plane pass (0.96
    by the tutorial's Eq. 55), and the damping is up to three times larger where a population is
    large for many dimensions.
    """
    params = algorithm.default_params.replace(std_init=jnp.asarray(sigma))
    if constants == "tutorial":
        return params
    dim, mu_eff = algorithm.num_dims, params.mu_eff
    c_std = jnp.minimum((mu_eff + 2) / (dim + mu_eff + 3), 0.5)
    more = max(1.0, 3 * (1 - 0.5 ** (dim / 9)))
    excess = more * jnp.sqrt((mu_eff - 1) / (dim + 1)) - 1
    d_std = 1 + 2 * jnp.maximum(0, excess) + c_std
    return params.replace(c_std=c_std, d_std=d_std)
