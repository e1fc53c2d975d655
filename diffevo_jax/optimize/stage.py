"""The global stage: one Diffusion Evolution over the unit cube, or an even sample of it.

A `Stage` waits for the costs of its points; `advance` takes them and gives the next.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax import schedules
from diffevo_jax.algorithm import Algorithm
from diffevo_jax.denoisers import consensus
from diffevo_jax.denoising import denoising_evolution
from diffevo_jax.fitness import standardised
from diffevo_jax.optimize.arrays import CostSamples, draw_keys, joined, unit_costs
from diffevo_jax.samplers import ddim

# For the first round; each round doubles the sizes. Chosen on eight functions in 2 to 40 dimensions
# at 5 to 1,000 evaluations a parameter, out of 82 settings; docs/minimize.md has fresh seeds.
SHARE = 0.2
MOST = 20  # evaluations for each parameter
LEVELS = 10
LEAST_SIZE = 10  # individuals of a level; where they are too few for two levels, one even sample
LEAST_SAMPLE = 5
TEMPERATURE = 0.5
END = 0.05  # 1 - alpha of the last level: CMA-ES goes on before the population is at one point
SPREAD = 0.5  # of the best fifth's deviation; too small a step loses Levy's and Ackley's functions
SAMPLE_SPREAD = 0.1  # of the cube's side
SMALL = 512  # individuals, up to which a step's compilation takes longer than its runs


class Stage(NamedTuple):
    """A global stage that waits for the costs of its points.

    points: to evaluate next, `[N, D]`; None once all levels are evaluated.
    samples: what has been evaluated.
    key, evolution: key and state of the Diffusion Evolution, whose genomes are y with points
        Phi(y); None for an even sample. make, levels: what configures it, see `begin`.
    """

    points: np.ndarray | None
    samples: CostSamples
    key: Any
    evolution: Any
    make: Callable[[int, int], Algorithm]
    levels: int


def begin(
    random: np.random.Generator,
    size: int,
    levels: int,
    num_genes: int,
    make: Callable[[int, int], Algorithm],
) -> Stage:
    """Draw the first points of a Diffusion Evolution; for one level, an even sample.

    make: size, levels -> the evolution, a function of a module.
    """
    points = latin_hypercube(random.uniform(size=(2, size, num_genes)))
    nothing = CostSamples(np.empty((0, num_genes)), np.empty(0))
    if levels == 1:
        return Stage(points, nothing, None, None, make, levels)
    evolution = jax.device_get(_init(points, make, levels))
    return Stage(points, nothing, draw_keys(random), evolution, make, levels)


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
        step(stage.key, stage.evolution, fitness, stage.make, stage.levels)
    )
    return stage._replace(points=np.asarray(points, float), samples=samples, evolution=evolution)


def replaced(stage: Stage, places: np.ndarray, points: np.ndarray) -> Stage:
    """Put other points, `[K, D]`, at places `[K]` of the population."""
    assert stage.points is not None
    whole = stage.points.copy()
    whole[places] = points
    stage = stage._replace(points=whole)
    if stage.evolution is None:
        return stage
    genomes = np.array(stage.evolution.population)
    genomes[places] = genomes_at(points)
    return stage._replace(evolution=stage.evolution._replace(population=genomes))


def consensus_evolution(size: int, levels: int) -> Algorithm:
    """Configure the search for one optimum: steps to the weighted mean, as an evolution strategy's.

    Its genomes are y ~ N(0, I) at the start, its points Phi(y).
    """
    return denoising_evolution(
        schedules.geometric(levels, end=END),
        fitness_map=standardised(TEMPERATURE),
        denoiser=consensus(),
        sampler=ddim(freshness=1),
    )


def genomes_at(points: Any) -> jax.Array:
    """Return the genomes y of points Phi(y), `[N, D]`, whose sides are finite."""
    points = jnp.asarray(points, float)
    least = jnp.finfo(points.dtype).eps
    return jax.scipy.special.ndtri(jnp.clip(points, least, 1 - least))


def _first(points: jax.Array, make: Callable[[int, int], Algorithm], levels: int) -> Any:
    return make(len(points), levels).init(jax.random.key(0), genomes_at(points))


def _step(
    key: jax.Array,
    state: Any,
    fitness: jax.Array,
    make: Callable[[int, int], Algorithm],
    levels: int,
) -> tuple[Any, jax.Array]:
    algorithm = make(len(fitness), levels)
    state, _ = algorithm.step(jax.random.fold_in(key, state.t), state, fitness)
    return state, jax.scipy.special.ndtr(state.population)


# Steps of SMALL populations run for less time than they compile, and every round compiles one size.
# The first call of `minimize` on a function in NumPy, 2,000 evaluations in 12-D, takes 1.7 s of
# processor time with this option and 2.4 s without; under a kernel, for all optima, 128
# individuals compile in 0.9 s, not 2.5.
QUICK: Any = {"xla_backend_optimization_level": 0}
_init = jax.jit(_first, static_argnums=(1, 2), compiler_options=QUICK)
_step_small = jax.jit(_step, static_argnums=(3, 4), compiler_options=QUICK)
_step_large = jax.jit(_step, static_argnums=(3, 4))


def sizes(evaluations: int, num_genes: int) -> tuple[int, int]:
    """Return individuals and levels of the first global stage; one level is an even sample."""
    share = min(SHARE * evaluations, MOST * num_genes)
    levels = int(np.clip(share // LEAST_SIZE, 1, LEVELS))
    return max(LEAST_SAMPLE, round(share / levels)), levels


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
    deviation = SAMPLE_SPREAD
    if levels > 1:
        deviation = xp.maximum(SPREAD * xp.sqrt(xp.mean(xp.var(best, axis=0))), 1e-3)
    spread = xp.full(best.shape[1], deviation)
    return (weights / weights.sum()).astype(best.dtype) @ best, spread
