"""CMA-ES of evosax over seeds, as the control experiments use it: sigma 1, start 0, raw reward."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def make_run(
    fitness_fn: Callable[[jax.Array, jax.Array], Any],
    num_genes: int,
    *,
    population: int,
    generations: int,
    sigma: float = 1.0,
) -> Callable[[jax.Array], tuple[jax.Array, Any]]:
    """Make a run, key -> (last population `[N, D]`, kept of each generation stacked).

    fitness_fn: (key, population) -> (fitness `[N]`, higher is better, anything to keep).

    Raises ModuleNotFoundError without evosax: `pip install ".[baselines]"`.
    """
    try:
        from evosax.algorithms import CMA_ES
    except ModuleNotFoundError as error:
        message = f'CMA-ES needs evosax ({error}): pip install --editable ".[baselines]"'
        raise ModuleNotFoundError(message) from None

    algorithm = CMA_ES(population_size=population, solution=jnp.zeros(num_genes))
    params = algorithm.default_params.replace(std_init=jnp.asarray(sigma))

    def run(key: jax.Array) -> tuple[jax.Array, Any]:
        key_init, key_run = jax.random.split(key)

        def generation(carry, key: jax.Array):
            state, _ = carry
            key_ask, key_fitness, key_tell = jax.random.split(key, 3)
            genomes, state = algorithm.ask(key_ask, state, params)
            fitness, kept = fitness_fn(key_fitness, genomes)
            state, _ = algorithm.tell(key_tell, genomes, -fitness, state, params)  # it minimises
            return (state, genomes), kept

        state = algorithm.init(key_init, jnp.zeros(num_genes), params)
        start = (state, jnp.zeros((population, num_genes)))
        (_, genomes), kept = jax.lax.scan(generation, start, jax.random.split(key_run, generations))
        return genomes, kept

    return run
