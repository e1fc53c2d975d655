"""Searches of the unit cube for every optimum: sample, pick the basins, polish them side by side.

Rounds of it, until whoever drives the search ends it; a later round samples and polishes away from
what the earlier ones have found.
"""

from collections import deque
from functools import cache
from heapq import heappop, heappush
from typing import Any, NamedTuple

import jax
import numpy as np

from diffevo_jax.optimize.basins import basins, distinct, near_found
from diffevo_jax.optimize.engine import (
    Random,
    Samples,
    Search,
    default_size,
    draw_keys,
    explore,
    finite,
    unit_costs,
)
from diffevo_jax.optimize.local import reflect, strategy

# Rounds that share the evaluations; more of the same size follow where basins were few.
ROUNDS = 2
SAMPLED = 0.5
LEVELS = 10
TEMPERATURE = 1.0
# A polished optimum: of the cube's side, and of the range of all sampled costs.
PRECISE = 1e-9
FLAT = 1e-9
MERGED = 1e-3
# Generations after which a share of the niches goes on, and the evaluations they may take.
PROBE = 10
PROMISING = 0.25
PROBED = 0.3


class Found(NamedTuple):
    """Optima that were polished to the end, points `[D]` and costs; they grow during a search."""

    points: list[np.ndarray]
    costs: list[float]


def all_optima(random: Random, first: np.ndarray, evaluations: int, found: Found) -> Search:
    """Search for all optima from a first point `[D]`; those polished are added to `found`."""
    num_genes, share = len(first), evaluations / ROUNDS
    half = max(2 * LEVELS, int(SAMPLED * share / 2))
    samples = Samples(first[None], (yield first[None]))
    while True:
        points = random.uniform(size=(half, num_genes))
        costs = yield points
        stage = explore(random, half // LEVELS, LEVELS, num_genes, TEMPERATURE)
        parts = samples, Samples(points, costs), (yield from elsewhere(stage, found))
        samples = Samples(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        yield from polish(random, samples, found, int((1 - SAMPLED) * share))


def elsewhere(stage: Search, found: Found) -> Search:
    """Follow a stage that is told of no cost where optima have been found; return its samples."""
    points, seen = next(stage), []
    while True:
        costs = yield points
        seen.append(costs)
        away = ~near_found(points, np.reshape(found.points, (-1, points.shape[1])))
        try:
            points = stage.send(np.where(away, costs, np.nan))
        except StopIteration as end:
            return end.value._replace(costs=np.concatenate(seen))


def polish(random: Random, samples: Samples, found: Found, evaluations: int) -> Search:
    """Run a CMA-ES in each basin, several side by side, until all are done or evaluations spent.

    After PROBE generations only the PROMISING ones go on; the others wait until all have begun.
    """
    num_genes, scale = samples.points.shape[1], np.ptp(finite(samples.costs))
    known = np.reshape(found.points, (-1, num_genes))
    size, generations = default_size(num_genes), 60 + 30 * num_genes
    slots = int(np.clip(evaluations // (100 * size), 1, 256))
    most = max(slots, int(PROBED * evaluations / (PROBE * size)))
    starts, radii = basins(samples, known, np.array(found.costs), most)
    if len(starts) == 0:
        return
    init, step, reach = side_by_side(size, num_genes)
    waiting, parked, early = deque(zip(starts, radii / 2, strict=True)), [], []
    busy, fresh = np.zeros(slots, bool), np.zeros(slots, bool)
    start, spread = np.zeros((slots, num_genes)), np.ones(slots)
    best, cost = np.zeros((slots, num_genes)), np.full(slots, np.inf)
    age, used, state = np.zeros(slots, int), 0, None
    while used < evaluations:
        idle = np.flatnonzero(~busy)[: len(waiting) + len(parked)]
        for slot in idle:
            fresh[slot] = len(waiting) > 0
            *_, start[slot], spread[slot] = waiting.popleft() if waiting else heappop(parked)
        busy[idle], age[idle], cost[idle] = True, 0, np.inf
        spread[idle] = np.maximum(spread[idle], 1e-6)
        if not np.any(busy):
            return
        anew = np.isin(np.arange(slots), idle)
        state = init(draw_keys(random, slots), anew, state)
        asked = start[:, None] + spread[:, None, None] * np.asarray(state.population, float)
        points = reflect(asked)
        told = np.full((slots, size), np.nan)
        told[busy] = (yield points[busy].reshape(-1, num_genes)).reshape(-1, size)
        used, age = used + size * np.sum(busy), age + 1
        least = np.argmin(np.where(np.isnan(told), np.inf, told), axis=1)
        lowest = told[np.arange(slots), least]
        better = lowest < cost
        best[better], cost[better] = points[np.arange(slots), least][better], lowest[better]
        fitness = -np.stack([unit_costs(row) for row in told])
        state = step(draw_keys(random, slots), state, fitness)
        wide = spread * np.asarray(reach(state))
        flat = np.ptp(told, axis=1) <= FLAT * scale
        taken = _taken(best, np.where(busy, cost, np.inf), wide, found)
        for slot in np.flatnonzero(busy):
            if flat[slot] or wide[slot] < PRECISE:
                found.points.append(best[slot].copy())
                found.costs.append(float(cost[slot]))
            elif age[slot] < generations and not taken[slot]:
                if not (fresh[slot] and age[slot] == PROBE):
                    continue
                early.append(cost[slot])
                if cost[slot] <= np.quantile(early, PROMISING):
                    continue
                heappush(parked, (cost[slot], used + slot / slots, best[slot].copy(), wide[slot]))
            busy[slot] = False


def _taken(best: np.ndarray, cost: np.ndarray, wide: np.ndarray, found: Found) -> np.ndarray:
    """Whether a better niche, or a found optimum, is within each niche's reach, `[slots]`."""
    others = np.concatenate([best, np.reshape(found.points, (-1, best.shape[1]))])
    costs = np.concatenate([cost, np.full(len(found.costs), -np.inf)])
    near = np.all(np.abs(others - best[:, None]) < wide[:, None, None], axis=-1)
    return np.any(near & (costs < cost[:, None]), axis=1)


def merged(found: Found) -> list[int]:
    """Indices of the distinct optima, best first."""
    return list(distinct(np.array(found.points), np.array(found.costs), MERGED))


@cache
def side_by_side(size: int, num_genes: int) -> tuple[Any, Any, Any]:
    """`local.strategy` of several searches; init takes which of them begin anew, and the state."""
    init, step, reach = strategy(size, num_genes)

    @jax.jit
    def renew(keys: jax.Array, anew: jax.Array, state: Any) -> Any:
        def chosen(new: jax.Array, old: jax.Array) -> jax.Array:
            return jax.numpy.where(anew.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(chosen, jax.vmap(init)(keys), state)

    def begin(keys: jax.Array, anew: np.ndarray, state: Any) -> Any:
        return renew(keys, anew, jax.vmap(init)(keys) if state is None else state)

    return begin, jax.jit(jax.vmap(step)), jax.jit(jax.vmap(reach))
