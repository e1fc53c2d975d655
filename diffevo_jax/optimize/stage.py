"""The global stage: one Diffusion Evolution over the unit cube, or an even sample of it.

A `Stage` waits for the costs of its points; `advance` takes them and gives the next.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import ndtri

from diffevo_jax import schedules
from diffevo_jax.algorithm import Algorithm
from diffevo_jax.checks import Positive
from diffevo_jax.denoisers import posterior_mean
from diffevo_jax.denoising import denoising_evolution
from diffevo_jax.fitness import standardised
from diffevo_jax.kernels import gaussian
from diffevo_jax.optimize.arrays import CostSamples, draw_keys, joined, unit_costs
from diffevo_jax.samplers import ddim

# For the first round, measured by experiments/benchmarks/minimize.py; each round doubles the sizes.
SHARE = 0.2
MOST = 20  # evaluations for each parameter
LEVELS = 15
LEAST_SIZE = 5
SMALL = 512  # individuals, up to which a step's compilation takes longer than its runs
TEMPERATURE = 0.1
SPREAD = 0.2
# With up to FEW evaluations for each parameter the global stage is one even sample: an evolution of
# few levels ends in one place, whose deviation is too small a step to go on with.
FEW = 50
FEW_SPREAD = 0.1  # of the cube's side


class Stage(NamedTuple):
    """A global stage that waits for the costs of its points.

    points: to evaluate next, `[N, D]`; None once all levels are evaluated.
    samples: what has been evaluated.
    key, evolution: key and state of the Diffusion Evolution, whose genomes are y with points
        Phi(y); None for an even sample. levels, temperature: its settings.
    """

    points: np.ndarray | None
    samples: CostSamples
    key: Any
    evolution: Any
    levels: int
    temperature: float


def begin(
    random: np.random.Generator,
    size: int,
    levels: int,
    num_genes: int,
    temperature: float = TEMPERATURE,
) -> Stage:
    """Draw the first points of a Diffusion Evolution; for one level, an even sample."""
    nothing = CostSamples(np.empty((0, num_genes)), np.empty(0))
    if levels == 1:
        points = latin_hypercube(random.uniform(size=(2, size, num_genes)))
        return Stage(points, nothing, None, None, levels, temperature)
    points = random.uniform(size=(size, num_genes))
    evolution = jax.device_get(_init(ndtri(points), levels))
    return Stage(points, nothing, draw_keys(random), evolution, levels, temperature)


def advance(stage: Stage, costs: np.ndarray, hidden: Any = False) -> Stage:
    """Take the costs `[N]`, NaN for those without one, and draw the next level's points.

    hidden: the points that the evolution does not learn from, `[N]`.
    """
    assert stage.points is not None
    samples = joined(stage.samples, CostSamples(stage.points, costs))
    if len(samples.costs) == stage.levels * len(costs):
        return stage._replace(points=None, samples=samples)
    fitness = -unit_costs(np.where(hidden, np.nan, costs))
    step = _step_small if len(costs) <= SMALL else _step_large
    evolution, points = jax.device_get(
        step(stage.key, stage.evolution, fitness, stage.temperature, stage.levels)
    )
    return stage._replace(points=np.asarray(points, float), samples=samples, evolution=evolution)


def diffusion(size: int, levels: int, temperature: Positive = TEMPERATURE) -> Algorithm:
    """Configure the evolution: its genomes are y ~ N(0, I) at the start, its points Phi(y)."""
    kernel = gaussian(implementation="dense" if size <= SMALL else "auto")
    return denoising_evolution(
        schedules.cosine(levels),
        fitness_map=standardised(temperature),
        denoiser=posterior_mean(kernel),
        sampler=ddim(1.0),
    )


@partial(jax.jit, static_argnums=1)
def _init(population: jax.Array, levels: int) -> Any:
    return diffusion(len(population), levels).init(jax.random.key(0), population)


def _step(
    key: jax.Array, state: Any, fitness: jax.Array, temperature: jax.Array, levels: int
) -> tuple[Any, jax.Array]:
    algorithm = diffusion(len(fitness), levels, temperature)
    state, _ = algorithm.step(jax.random.fold_in(key, state.t), state, fitness)
    return state, jax.scipy.special.ndtr(state.population)


# Steps of SMALL populations run for less time than they compile. Without XLA's optimisations 16
# individuals compile in 0.50 s, not 1.15, and 128 in 0.88 s, not 2.51; every round compiles one
# size. The first call of `minimize` on a function in NumPy, 2,000 evaluations in 12-D, takes 1.75 s
# of processor time with this option and 2.55 s without.
QUICK: Any = {"xla_backend_optimization_level": 0}
_step_small = jax.jit(_step, static_argnums=4, compiler_options=QUICK)
_step_large = jax.jit(_step, static_argnums=4)


def sizes(evaluations: int, num_genes: int) -> tuple[int, int]:
    """Return individuals and levels of the first global stage; one level is an even sample."""
    if evaluations <= FEW * num_genes:
        return max(LEAST_SIZE, round(SHARE * evaluations)), 1
    share = min(SHARE * evaluations, MOST * num_genes)
    size = max(LEAST_SIZE, round(share / LEVELS))
    return size, int(np.clip(share // size, 2, LEVELS))


def latin_hypercube(draws: Any) -> Any:
    """Make points `[N, D]`, one in each of N slices of every side, of even draws `[2, N, D]`."""
    return (draws[0].argsort(axis=0) + draws[1]) / draws.shape[1]


def start_of(points: Any, costs: Any, levels: int) -> tuple[Any, Any]:
    """Return where CMA-ES starts, `[D]`, and its first deviation, `[D]`: around the stage's best.

    The mean of the best, weighted as CMA-ES weighs ranks, lies beyond single basins, where they
    lead. After an evolution it is that of the best fifth, with a share of their deviation; after a
    sample (one level) that of the best third. In NumPy or JAX, as the points are.
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
