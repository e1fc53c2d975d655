"""CMA-ES for the bottom of a basin: pycma's for loops on the host, evosax's inside JAX.

Both search their own frame from N(0, I): points are start + spread u, folded into the unit cube.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.optimize.engine import Random, Search, draw_keys, finite, unit_costs


def reflect(points: Any) -> Any:
    """Fold all of space into the unit cube, as mirrors at its sides do."""
    folded = points % 2.0
    return points.__array_namespace__().minimum(folded, 2.0 - folded)


def pycma(
    random: Random,
    start: np.ndarray,
    spread: np.ndarray,
    size: int,
    *,
    least: np.ndarray | float = 0,
) -> Search:
    """Follow pycma's CMA-ES in its own frame, start + spread N(0, I).

    least: deviation `[D]` that whole-number parameters keep, 0 for others.
    """
    import cma

    options = {
        "popsize": size,
        "randn": lambda *shape: random.standard_normal(shape),
        "seed": np.nan,  # leaves NumPy's own generator alone
        "minstd": np.broadcast_to(least / spread, start.shape),
        "tolfun": 0,
        "tolfunhist": 0,
        "verbose": -9,
    }
    strategy = cma.CMAEvolutionStrategy(np.zeros(len(start)), 1.0, options)
    while not strategy.stop():
        asked = strategy.ask()
        costs = yield reflect(start + spread * np.asarray(asked))
        # Those without a cost count as this generation's worst.
        strategy.tell(asked, np.where(np.isfinite(costs), costs, finite(costs).max()))


def evosax(random: Random, start: np.ndarray, spread: np.ndarray, size: int) -> Search:
    """Follow evosax's CMA-ES in its own frame, start + spread N(0, I)."""
    init, step, reach = strategy(size, len(start))
    state = init(draw_keys(random))
    precision = np.finfo(state.population.dtype).eps
    while reach(state) * spread.max() > precision / 10:
        costs = yield reflect(start + spread * np.asarray(state.population, float))
        state = step(draw_keys(random), state, -unit_costs(costs))


@cache
def strategy(size: int, num_genes: int) -> tuple[Callable, Callable, Callable]:
    """Compile evosax's CMA-ES: key -> state, (key, state, fitness) -> state, state -> its reach."""
    from diffevo_jax.baselines import cma_es

    algorithm = cma_es(
        population_size=size, num_genes=num_genes, num_generations=None, elitist=False
    )

    def init(key: jax.Array) -> Any:
        return algorithm.init(key, jax.random.normal(key, (size, num_genes)))

    def step(key: jax.Array, state: Any, fitness: jax.Array) -> Any:
        return algorithm.step(key, state, fitness)[0]

    def reach(state: Any) -> jax.Array:
        searching = state.strategy
        return searching.std * jnp.sqrt(jnp.max(jnp.diag(searching.C)))

    return jax.jit(init), jax.jit(step), jax.jit(reach)
