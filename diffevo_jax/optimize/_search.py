"""The search for one optimum as a pure function, for `jit`, `vmap` and programs around it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.checks import (
    InputError,
    call_in_jax,
    check_count,
    check_key,
    check_takes,
    is_traced,
)
from diffevo_jax.optimize import cma, one, programs, stage
from diffevo_jax.optimize.arrays import CostSamples
from diffevo_jax.optimize.evaluate import in_jax
from diffevo_jax.optimize.result import Optimum
from diffevo_jax.optimize.space import as_taken, make_space, parameters


class _Best(NamedTuple):
    """The best point so far, `[D]` in the unit cube; its cost, NaN for none; evaluations used."""

    point: jax.Array
    cost: jax.Array
    used: jax.Array


def search(
    key: jax.Array,
    cost_fn: Callable[..., jax.Array],
    bounds: Any,
    *,
    evaluations: int,
    integers: Sequence[int | str] = (),
    log: Sequence[int | str] = (),
) -> Optimum:
    """Minimise a JAX function inside a compiled program, in the rounds of `minimize`.

    cost_fn: parameters -> cost `[]`, lower is better, mapped over the population; it may be NaN.
    evaluations: at most so many; a generation that does not fit is left out.
    Other arguments as for `minimize`. Outside jit and vmap it is compiled here, once for a cost_fn.

    Returns the best parameters, as cost_fn takes them, and their cost; NaN where none was finite.
    Raises InputError as `minimize`.
    """
    check_key(key)
    check_takes("cost_fn", cost_fn, ("parameters",))
    evaluations = check_count("evaluations", evaluations)
    space = make_space(bounds, integers, log)
    if space.has_categories:
        mend = "call de.minimize, which takes them"
        raise InputError("bounds", "numbers alone inside JAX", "categories", mend)
    num_genes = space.num_genes
    size, levels = stage.sizes(evaluations, num_genes)
    least = size * levels + cma.default_size(num_genes)
    if evaluations < least:
        expected = f"at least {least} for {num_genes} parameters"
        raise InputError("evaluations", expected, evaluations)
    mapped = in_jax(cost_fn, space)

    def costs_of(unit: jax.Array) -> jax.Array:
        advice = "; or call de.minimize, which takes it"
        x = parameters(space, unit)
        costs, _ = call_in_jax("cost_fn", mapped, x, otherwise=advice)
        costs = costs.astype(float)
        return jnp.where(jnp.isfinite(costs), costs, jnp.nan)

    def run(key: jax.Array) -> Optimum:
        best = _rounds(key, costs_of, evaluations, num_genes)
        return Optimum(as_taken(space, parameters(space, best.point)), best.cost)

    shape = jax.ShapeDtypeStruct((2, num_genes), jnp.result_type(float))
    traced = programs.trace(costs_of, shape)
    if is_traced(key) or not traced.is_closed:
        return run(key)
    program = programs.compiled(cost_fn, (space.key, evaluations), traced, lambda: jax.jit(run))
    return program(key)


def _rounds(
    key: jax.Array, costs_of: Callable[[jax.Array], jax.Array], evaluations: int, num_genes: int
) -> _Best:
    """Repeat a global stage and CMA-ES, until no generation fits.

    The second round has twice the size of the first; so have those that follow, for every size is
    a program of its own, which compiles for seconds.
    """
    size, levels = stage.sizes(evaluations, num_genes)
    local_size = cma.default_size(num_genes)

    def whole_round(number: int, key: jax.Array, best: _Best) -> _Best:
        key_stage, key_polish = jax.random.split(key)
        samples, best = _explore(
            key_stage, costs_of, best, evaluations, size * 2**number, levels, num_genes
        )
        start, spread = stage.start_of(*samples, levels)
        scale = jnp.nanmax(samples.costs) - jnp.nanmin(samples.costs)
        return _polish(
            key_polish, costs_of, best, evaluations, local_size * 2**number, start, spread, scale
        )

    nothing = jnp.asarray(jnp.nan, float)
    best = _Best(jnp.full(num_genes, 0.5), nothing, jnp.asarray(0))
    best = whole_round(0, jax.random.fold_in(key, 0), best)
    window = one.window(local_size, num_genes) * local_size
    if size * (levels + 2) + window > evaluations:
        return best  # before CMA-ES can say that it has converged, no other round fits

    def fits(carry: tuple[jax.Array, _Best]) -> jax.Array:
        return carry[1].used + 2 * size <= evaluations

    def next_round(carry: tuple[jax.Array, _Best]) -> tuple[jax.Array, _Best]:
        number, best = carry
        return number + 1, whole_round(1, jax.random.fold_in(key, number), best)

    return jax.lax.while_loop(fits, next_round, (jnp.asarray(1), best))[1]


def _explore(
    key: jax.Array,
    costs_of: Callable[[jax.Array], jax.Array],
    best: _Best,
    evaluations: int,
    size: int,
    levels: int,
    num_genes: int,
) -> tuple[CostSamples, _Best]:
    """Run the global stage as far as evaluations last; samples that it does not reach have NaN."""
    key_draw, key_step = jax.random.split(key)
    points = stage.latin_hypercube(jax.random.uniform(key_draw, (2, size, num_genes)))
    algorithm, state = None, ()
    if levels > 1:
        algorithm = stage.consensus_evolution(size, levels)
        state = algorithm.init(key, stage.genomes_at(points))
    shape = levels, size, num_genes
    samples = CostSamples(
        jnp.zeros(shape, points.dtype), jnp.full(shape[:2], jnp.nan, points.dtype)
    )

    def fits(carry: Any) -> jax.Array:
        level, *_, best = carry
        return (level < levels) & (best.used + size <= evaluations)

    def generation(carry: Any) -> Any:
        level, state, points, samples, best = carry
        costs = costs_of(points)
        samples = CostSamples(
            samples.points.at[level].set(points), samples.costs.at[level].set(costs)
        )
        best = _better(best, points, costs)
        if algorithm is not None:
            state, _ = algorithm.step(jax.random.fold_in(key_step, level), state, -costs)
            points = jax.scipy.special.ndtr(state.population)
        return level + 1, state, points, samples, best

    carry = jnp.asarray(0), state, points, samples, best
    *_, samples, best = jax.lax.while_loop(fits, generation, carry)
    return CostSamples(samples.points.reshape(-1, num_genes), samples.costs.reshape(-1)), best


def _polish(
    key: jax.Array,
    costs_of: Callable[[jax.Array], jax.Array],
    best: _Best,
    evaluations: int,
    size: int,
    start: jax.Array,
    spread: jax.Array,
    scale: jax.Array,
) -> _Best:
    """Run CMA-ES from a start, until it has converged or no generation fits."""
    num_genes, place = len(start), cma.out_of_cube(start)
    bests = jnp.full(one.window(size, num_genes), jnp.nan, start.dtype)
    least = jnp.finfo(start.dtype).eps / jnp.max(spread)

    def goes_on(carry: Any) -> jax.Array:
        _, state, bests, best = carry
        converged = one.is_flat(bests, scale) | (cma.reach(state) < least)
        return ~converged & (best.used + size <= evaluations)

    def generation(carry: Any) -> Any:
        key, state, bests, best = carry
        key, key_step = jax.random.split(key)
        points = cma.into_cube(place + spread * state.population)
        costs = costs_of(points)
        finite = jnp.isfinite(costs)
        lowest = jnp.min(costs, where=finite, initial=jnp.inf)
        bests = one.append(bests, jnp.where(jnp.any(finite), lowest, 0))
        state = cma.tell(key_step, state, costs)
        return key, state, bests, _better(best, points, costs)

    key_init, key_steps = jax.random.split(key)
    state = cma.init(key_init, size=size, num_genes=num_genes)
    return jax.lax.while_loop(goes_on, generation, (key_steps, state, bests, best))[-1]


def _better(best: _Best, points: jax.Array, costs: jax.Array) -> _Best:
    """Return the better of the best so far and a generation's; a cost of NaN does not count."""
    place = jnp.argmin(jnp.where(jnp.isnan(costs), jnp.inf, costs))
    is_better = (costs[place] < best.cost) | (jnp.isnan(best.cost) & ~jnp.isnan(costs[place]))
    return _Best(
        jnp.where(is_better, points[place], best.point),
        jnp.where(is_better, costs[place], best.cost),
        best.used + len(costs),
    )
