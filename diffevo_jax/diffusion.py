"""Diffusion Evolution with the settings that do well, by the numbers of genes and evaluations.

All of them were measured (docs/settings.md): noise without memory, of which the schedule takes away
as much as that many evaluations can follow; in the plane, where a kernel tells optima apart,
niches; in more genes, where a Gaussian sees nobody but the individual itself, one target for all,
and no pull towards 0.
"""

import math
from typing import Any

import jax
from jax.sharding import Mesh

from diffevo_jax.algorithm import Algorithm, check_state
from diffevo_jax.checks import Count, Fraction, InputError, check_count, check_population
from diffevo_jax.denoisers._consensus import consensus
from diffevo_jax.denoisers._niching import niching
from diffevo_jax.denoisers._posterior_mean import posterior_mean
from diffevo_jax.denoising import denoising_evolution
from diffevo_jax.fitness import FitnessMap, standardised
from diffevo_jax.kernels._gaussian import gaussian
from diffevo_jax.latent import Following
from diffevo_jax.parts import Denoiser
from diffevo_jax.samplers._ddim import ddim
from diffevo_jax.schedules import MOST_LEVELS, Levels, Schedule, geometric

PLANE = 2  # genes up to which niches are kept
SIZE, LEVELS, LEAST = 128, 30, 8  # of `sizes`
# The noise that is left at the end, as -log10(1 - alpha): what N T evaluations of D genes and T
# levels can follow, up to what float32 has.
FIRST_DECADES, PER_ROOT = 1.2, 0.45
LEAST_DECADES, MOST_DECADES, MOST_IN_PLANE, LEVELS_PER_DECADE = 2.0, 10.0, 8.0, 4
# One target for all: temperatures of a gentle selection, the least, that of `sizes`, and the most;
# how many times the noise falls by e before less of a way is enough; how many times as far as the
# weighted mean the target lies.
GENTLE, GENTLER, GENTLEST, FAR, GUIDANCE = 2.0, 6.0, 8.0, 8.0, 4.0


def diffusion_evolution(
    num_levels: Levels | None = None,
    *,
    schedule: Schedule | None = None,
    fitness_map: FitnessMap | None = None,
    freshness: Fraction = 1.0,
    projection: jax.Array | Following | None = None,
    latent_dim: Count | None = None,
    mesh: Mesh | None = None,
) -> Algorithm:
    """Configure Diffusion Evolution with settings by the population's size, genes and levels.

        algorithm = de.diffusion_evolution(num_levels=40)
        evolved = de.evolve(key, algorithm, fitness_fn, population)

    `presets.paper` has the published settings; `denoising_evolution` takes any parts. What is not
    set is, for N individuals of D genes drawn from N(0, I) and T levels:

    * fitness map: `standardised`, in the plane robust and its temperature .1, .25 (D / 5)^(1/5)
      where a latent space is set; else the higher, the more levels there are: T / (F sqrt(D))
      min(1, 8 / F), where the noise falls F times by e, at least 4 (1 + D / N) / sqrt(D) and 2, at
      most 8; 2 beside a schedule;
    * schedule: `geometric`, down to 1 - alpha = 10^-(1.2 + .45 sqrt(N T / D)), by at most a decade
      in four levels, and to between 1e-2 and 1e-10, 1e-8 in the plane; its last level clean;
    * denoiser: with two genes or one `niching`, which keeps many optima; with more `consensus`, one
      target for all, with a guidance of 4, or 1 where a fitness map is set; `posterior_mean` where
      a latent space is set;
    * sampler: `ddim(freshness=1)`, noise without memory; with more than two genes centred, and
      mirrored where the target is one.

    num_levels: T, evaluated generations; `presets.sizes` gives N and T for a budget.
    schedule: in its place, from `schedules`.
    fitness_map: from `fitness`.
    freshness: see `samplers.ddim`.
    projection: `[D, d]`, takes the distances in z = x @ projection (paper Algorithm 2); or one that
        follows the search, see `kernels.gaussian`.
    latent_dim: d of a random projection in its place, drawn in `init` with its key.
    mesh: see `denoising_evolution`.

    Settings may be traced. Raises InputError, here or in `init` and `step`, naming the argument,
    expected and seen.
    """
    if isinstance(num_levels, Schedule) or (num_levels is None) == (schedule is None):
        raise InputError(
            "num_levels",
            "a number of levels, or schedule=de.schedules.cosine(25) in its place",
            "both" if schedule is not None else f"{num_levels!r:.40}",
        )
    if num_levels is not None:
        num_levels = check_count("num_levels", num_levels, least=2, most=MOST_LEVELS)
    if projection is not None or latent_dim is not None:
        kernel = gaussian(projection=projection, latent_dim=latent_dim)
        of_many: Denoiser = posterior_mean(kernel)
    else:
        # At the temperature of somebody's own map the target might be far beyond the optimum.
        kernel, of_many = None, consensus(guidance=GUIDANCE if fitness_map is None else 1.0)

    def configured(size: int, num_genes: int) -> Algorithm:
        keeps_niches = num_genes <= PLANE and kernel is None
        one_target = num_genes > PLANE and kernel is None
        levels, temperature = schedule, GENTLE
        if num_levels is not None:
            end = final_noise(size, num_levels, num_genes)
            levels = geometric(num_levels, end=end, clean=True)
            temperature = gentle_temperature(size, num_levels, num_genes)
        assert levels is not None  # one of the two is set
        if not one_target:
            temperature = default_temperature(num_genes)
        default_map = standardised(temperature, robust=keeps_niches)
        return denoising_evolution(
            levels,
            fitness_map=default_map if fitness_map is None else fitness_map,
            denoiser=niching() if keeps_niches else of_many,
            sampler=ddim(freshness=freshness, centred=num_genes > PLANE, mirrored=one_target),
            mesh=mesh,
        )

    def init(key: jax.Array, population: jax.Array) -> Any:
        population = check_population(population)
        return configured(*population.shape).init(key, population)

    def step(
        key: jax.Array, state: Any, fitness: jax.Array, *evaluated: Any, **behaviour: Any
    ) -> tuple[Any, Any]:
        algorithm = configured(*check_state(state).population.shape)
        return algorithm.step(key, state, fitness, *evaluated, **behaviour)

    return configured(2, PLANE + 1)._replace(init=init, step=step)


def sizes(evaluations: Count, num_genes: Count) -> tuple[int, int]:
    """Return N and T of `diffusion_evolution` for a budget: individuals and levels.

    As many levels as the search needs for its way, and individuals for the rest: 6 sqrt(D) for each
    e by which the noise falls, 166 levels of 12 individuals for 2,000 evaluations of 12 genes. At
    least 4 + 3 ln D individuals, as CMA-ES has, and 30 levels; N is even, for mirrored noise, and 8
    or more. In the plane 128, which keep many optima.

    Raises InputError for fewer than two generations of 8.
    """
    check_count("num_genes", num_genes)
    if check_count("evaluations", evaluations) < 2 * LEAST:
        raise InputError("evaluations", f"at least {2 * LEAST}, two generations", evaluations)
    if num_genes <= PLANE:
        size = SIZE
    else:
        levels = GENTLER * _fall(_decades(evaluations, num_genes)) * num_genes**0.5
        size = round(max(4 + 3 * math.log(num_genes), evaluations / levels))
    size = max(LEAST, min(size, evaluations // LEVELS) // 2 * 2)
    return size, evaluations // size


def final_noise(population_size: int, num_levels: int, num_genes: int) -> float:
    """Return 1 - alpha at the last level, for N individuals, T levels and D genes."""
    return 10 ** -_decades(population_size * num_levels, num_genes, num_levels)


def gentle_temperature(population_size: int, num_levels: int, num_genes: int) -> float:
    """Return the temperature of one target with guidance, for N individuals, T levels and D genes.

    Between mean and target lie about guidance / temperature standard deviations of the noise. While
    the noise falls by e they add up to that by the levels it takes, which should be some times the
    sqrt(D) of the first ones that lie between mean and optimum; less where it falls far. But the
    target's error, which grows with D / N, should not pass what it gains.
    """
    fall = _fall(_decades(population_size * num_levels, num_genes, num_levels))
    for_the_way = num_levels / (fall * num_genes**0.5) * min(1, FAR / fall)
    for_the_error = GUIDANCE * (1 + num_genes / population_size) / num_genes**0.5
    return min(max(GENTLE, for_the_way, for_the_error), GENTLEST)


def _decades(evaluations: int, num_genes: int, num_levels: float = math.inf) -> float:
    """By how many decades 1 - alpha falls; by default with levels enough."""
    decades = FIRST_DECADES + PER_ROOT * (evaluations / num_genes) ** 0.5
    most = MOST_IN_PLANE if num_genes <= PLANE else MOST_DECADES
    return max(LEAST_DECADES, min(decades, most, num_levels / LEVELS_PER_DECADE))


def _fall(decades: float) -> float:
    """How many times the noise falls by e."""
    return decades * math.log(10) / 2


def default_temperature(num_genes: int) -> float:
    """Return the temperature of `standardised` for D genes: many need more parents."""
    return 0.1 if num_genes <= PLANE else 0.25 * (num_genes / 5) ** 0.2
