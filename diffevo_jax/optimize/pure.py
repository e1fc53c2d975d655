"""The search for one optimum as a pure function, for `jit`, `vmap` and programs around it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from diffevo_jax.algorithm import evolve
from diffevo_jax.checks import call_in_jax, check_key
from diffevo_jax.optimize.engine import (
    default_size,
    diffusion,
    latin_hypercube,
    stage_sizes,
    start_of,
)
from diffevo_jax.optimize.local import reflect, strategy
from diffevo_jax.optimize.result import Optimum
from diffevo_jax.optimize.space import as_taken, make_space, parameters


def search(
    key: jax.Array,
    cost_fn: Callable[..., jax.Array],
    bounds: Any,
    *,
    evaluations: int,
    integers: Sequence[int | str] = (),
    log: Sequence[int | str] = (),
) -> Optimum:
    """Minimise a JAX function inside a compiled program, with the engine of `minimize`.

    cost_fn: parameters -> cost `[]`, lower is better, mapped over the population; NaN is survived.
    evaluations: at most so many; a last generation that is not whole is left out.
    Other arguments as for `minimize`. One generation size for the whole run: CMA-ES that has
    converged starts again anywhere in the box, with a fifth of it as spread.

    Returns the best parameters, as cost_fn takes them, and their cost; inf where none was finite.
    Raises ValueError as `minimize`.
    """
    check_key(key)
    space = make_space(bounds, integers, log)
    num_genes, size = len(space.low), default_size(len(space.low))
    levels_size, levels = stage_sizes(evaluations, num_genes)
    generations = (evaluations - levels_size * levels) // size
    if generations < 1:
        raise ValueError(
            f"evaluations: expected at least {levels_size * levels + size} for {num_genes} "
            f"parameters; seen {evaluations}"
        )
    key_draw, key_stage, key_init, key_run = jax.random.split(key, 4)

    def costs_of(unit: jax.Array) -> jax.Array:
        one = jax.vmap(lambda x: cost_fn(as_taken(space, x)))
        costs = call_in_jax(
            "cost_fn",
            one,
            parameters(space, unit),
            otherwise="; or call de.minimize, which takes it",
        )
        if jnp.shape(costs) != unit.shape[:1]:
            raise ValueError(f"cost_fn: expected a number; seen shape {jnp.shape(costs)[1:]}")
        return costs

    def fitness(genomes: jax.Array) -> jax.Array:
        return -costs_of(jax.scipy.special.ndtr(genomes))

    if levels == 1:
        samples = latin_hypercube(jax.random.uniform(key_draw, (2, levels_size, num_genes)))
        costs = costs_of(samples)
    else:
        population = jax.random.normal(key_draw, (levels_size, num_genes))
        _, seen, _ = evolve(
            key_stage,
            diffusion(levels_size, levels),
            fitness,
            population,
            keep=lambda i: (i.population, i.fitness),
        )
        samples = jax.scipy.special.ndtr(seen[0].reshape(-1, num_genes))
        costs = -seen[1].reshape(-1)
    finite = jnp.where(jnp.isfinite(costs), costs, jnp.inf)
    first, first_cost = samples[jnp.argmin(finite)], jnp.min(finite)
    init, step, reach = strategy(size, num_genes)
    precision = jnp.finfo(samples.dtype).eps

    def generation(carry: Any, key: jax.Array) -> tuple[Any, None]:
        state, start, spread, best, lowest = carry
        unit = reflect(start + spread * state.population)
        costs = costs_of(unit)
        finite = jnp.where(jnp.isfinite(costs), costs, jnp.inf)
        place = jnp.argmin(finite)
        best = jnp.where(finite[place] < lowest, unit[place], best)
        lowest = jnp.minimum(finite[place], lowest).astype(lowest.dtype)
        key_step, key_again, key_start = jax.random.split(key, 3)
        after = step(key_step, state, -costs)
        done = (reach(after) * jnp.max(spread) < precision) | (jnp.ptp(finite) == 0)
        fresh = init(key_again), jax.random.uniform(key_start, (num_genes,)), 0.2 + 0 * spread
        moved = jax.tree.map(
            lambda new, old: jnp.where(done, new, old), fresh, (after, start, spread)
        )
        return (*moved, best, lowest), None

    start, spread = start_of(samples, costs, levels)
    carry = init(key_init), start, spread, first, first_cost
    (*_, best, lowest), _ = jax.lax.scan(generation, carry, jax.random.split(key_run, generations))
    return Optimum(as_taken(space, parameters(space, best)), lowest)
