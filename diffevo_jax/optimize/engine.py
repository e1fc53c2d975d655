"""Searches of the unit cube: Diffusion Evolution for the basin, then CMA-ES for its bottom.

A search is a generator. It yields unit points `[N, D]`, is sent their costs `[N]`, lower is better,
NaN for those without one, and never ends by itself: whoever drives it counts evaluations.
"""

import itertools
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import ndtri

from diffevo_jax import schedules
from diffevo_jax.algorithm import Algorithm
from diffevo_jax.checks import Positive
from diffevo_jax.denoisers._posterior_mean import posterior_mean
from diffevo_jax.denoising import denoising_evolution
from diffevo_jax.fitness import standardised
from diffevo_jax.kernels._gaussian import gaussian
from diffevo_jax.samplers._ddim import ddim

Search = Generator[np.ndarray, np.ndarray, Any]
Random = np.random.Generator

# Of the first round, measured by experiments/benchmarks/minimize.py; each round doubles the sizes.
SHARE = 0.2
MOST = 20  # evaluations a parameter
LEVELS = 15
LEAST_SIZE = 5
SMALL = 512  # individuals, up to which a step's compilation takes longer than its runs
TEMPERATURE = 0.1
SPREAD = 0.2
# Up to FEW evaluations a parameter the global stage is one even sample: a Diffusion Evolution of a
# few levels ends in one place, whose deviation is no step to go on with.
FEW = 50
FEW_SPREAD = 0.1  # of the cube's side
# CMA-ES has converged when its best costs change by less than this share of the stage's range.
FLAT = 1e-13


class Samples(NamedTuple):
    """Everything a stage evaluated: unit points `[M, D]`, and costs `[M]` with NaN."""

    points: np.ndarray
    costs: np.ndarray


def diffusion(size: int, levels: int, temperature: Positive = TEMPERATURE) -> Algorithm:
    """Configure the global stage: its genomes are y ~ N(0, I) at the start, its points Phi(y)."""
    kernel = gaussian(implementation="dense" if size <= SMALL else "auto")
    return denoising_evolution(
        schedules.cosine(levels),
        fitness_map=standardised(temperature),
        denoiser=posterior_mean(kernel),
        sampler=ddim(1.0),
    )


def one_optimum(
    random: Random, first: np.ndarray, evaluations: int, polish: Callable[..., Search]
) -> Search:
    """Search for one optimum: rounds of both stages, the next with populations twice as large.

    first: a point to begin with, `[D]`.
    polish: (random, start `[D]`, spread `[D]`, size) -> search that ends when it has converged.
    """
    num_genes = len(first)
    (first_cost,) = yield first[None]
    size, levels = stage_sizes(evaluations, num_genes)
    for number in itertools.count():
        samples = yield from explore(random, size * 2**number, levels, num_genes)
        start, spread = start_of(*samples, levels)
        if number == 0 and first_cost < np.fmin.reduce(samples.costs, initial=np.inf):
            start = first
        search = polish(random, start, spread, default_size(num_genes) * 2**number)
        yield from until_flat(search, np.ptp(finite(samples.costs)))


def stage_sizes(evaluations: int, num_genes: int) -> tuple[int, int]:
    """Individuals and levels of the first global stage; one level is a sample, no evolution."""
    if evaluations <= FEW * num_genes:
        return max(LEAST_SIZE, round(SHARE * evaluations)), 1
    share = min(SHARE * evaluations, MOST * num_genes)
    size = max(LEAST_SIZE, round(share / LEVELS))
    return size, int(np.clip(share // size, 2, LEVELS))


def default_size(num_genes: int) -> int:
    """CMA-ES's own choice of its population (Hansen, https://arxiv.org/abs/1604.00772)."""
    return 4 + int(3 * np.log(num_genes))


def explore(
    random: Random, size: int, levels: int, num_genes: int, temperature: float = TEMPERATURE
) -> Generator[np.ndarray, np.ndarray, Samples]:
    """Run one Diffusion Evolution, or draw an even sample at one level; return all evaluated."""
    if levels == 1:
        points = latin_hypercube(random.uniform(size=(2, size, num_genes)))
        return Samples(points, (yield points))
    points = random.uniform(size=(size, num_genes))
    state = _begin(ndtri(points), levels)
    key, seen = draw_keys(random), []
    for _ in range(levels):
        costs = yield points
        seen.append(Samples(points, costs))
        step = _step_small if size <= SMALL else _step_large
        state, unit = step(key, state, -unit_costs(costs), temperature, levels)
        points = np.asarray(unit, float)
    return Samples(*(np.concatenate(parts) for parts in zip(*seen, strict=True)))


def latin_hypercube(draws: Any) -> Any:
    """Points `[N, D]`, one in each of N slices of every side, of even draws `[2, N, D]`."""
    return (draws[0].argsort(axis=0) + draws[1]) / draws.shape[1]


def draw_keys(random: Random, *shape: int) -> jax.Array:
    """Keys for JAX `[*shape]`, without a program of its own to compile."""
    words = random.integers(2**32, size=(*shape, 2), dtype=np.uint32)
    return jax.random.wrap_key_data(jax.numpy.asarray(words))


@partial(jax.jit, static_argnums=1)
def _begin(population: jax.Array, levels: int) -> Any:
    return diffusion(len(population), levels).init(jax.random.key(0), population)


def _step(
    key: jax.Array, state: Any, fitness: jax.Array, temperature: jax.Array, levels: int
) -> tuple[Any, jax.Array]:
    algorithm = diffusion(len(fitness), levels, temperature)
    state, _ = algorithm.step(jax.random.fold_in(key, state.t), state, fitness)
    return state, jax.scipy.special.ndtr(state.population)


_step_small = jax.jit(
    _step, static_argnums=4, compiler_options={"xla_backend_optimization_level": 0}
)
_step_large = jax.jit(_step, static_argnums=4)


def start_of(points: Any, costs: Any, levels: int) -> tuple[Any, Any]:
    """Where CMA-ES starts, `[D]`, and how far it looks, `[D]`: of the stage's best.

    Their mean, weighted as CMA-ES weighs ranks, sees past single basins to where they lead. After
    an evolution: of the best fifth, a share of whose deviation is enough to go on from there; after
    a sample (one level): of the best third. In NumPy or JAX as the points come.
    """
    xp = points.__array_namespace__()
    number = max(3, round(len(costs) / 3)) if levels == 1 else max(2, len(costs) // 5)
    best = points[xp.argsort(costs)[:number]]  # NaN comes last
    weights = np.log(len(best) + 0.5) - np.log(np.arange(len(best)) + 1)
    deviation = FEW_SPREAD
    if levels > 1:
        deviation = xp.maximum(SPREAD * xp.sqrt(xp.mean(xp.var(best, axis=0))), 1e-3)
    spread = xp.full(best.shape[1], deviation)
    return (weights / weights.sum()).astype(best.dtype) @ best, spread


def until_flat(search: Search, scale: float) -> Search:
    """Follow a search until it ends, or its best costs stay within FLAT of `scale`."""
    points, bests = next(search), []
    while True:
        costs = yield points
        bests.append(np.min(finite(costs), initial=np.inf))
        window = bests[-10 - 30 * points.shape[1] // len(points) :]
        if len(window) < len(bests) and np.ptp(window) <= FLAT * scale:
            return
        try:
            points = search.send(costs)
        except StopIteration:
            return


def finite(costs: np.ndarray) -> np.ndarray:
    """The costs that are numbers; 0 where none is."""
    costs = costs[np.isfinite(costs)]
    return costs if len(costs) else np.zeros(1)


def unit_costs(costs: np.ndarray) -> np.ndarray:
    """Costs in [0, 1], so that float32 holds their differences whatever their unit and offset."""
    known = finite(costs)
    scale = np.ptp(known)
    return (costs - known.min()) / (scale if scale > 0 else 1.0)
