"""Diffusion Evolution with the settings that do well, by the numbers of genes and evaluations.

All of them were measured (docs/settings.md): noise without memory, of which the schedule takes away
as much as that many evaluations can follow; in the plane, where a kernel tells optima apart,
niches; in more genes, where a Gaussian sees nobody but the individual itself, one target for all,
and no pull towards 0.
"""

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
# One target for all: a gentle selection, and how many times as far as its mean the target lies.
GENTLE, GUIDANCE = 2.0, 4.0


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

    * fitness map: `standardised`, its temperature 2, in the plane .1 and robust, .25 (D / 5)^(1/5)
      where a latent space is set;
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
        levels = schedule
        if num_levels is not None:
            end = final_noise(size, num_levels, num_genes)
            levels = geometric(num_levels, end=end, clean=True)
        assert levels is not None  # one of the two is set
        temperature = GENTLE if one_target else default_temperature(num_genes)
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

    Few individuals for many levels: 10 E^(1/5) of E evaluations, 46 of 2,000. In the plane, where
    they keep many optima, 128. Or fewer, for 30 levels. N is even, for mirrored noise.

    Raises InputError for fewer than two generations of 8.
    """
    check_count("num_genes", num_genes)
    if check_count("evaluations", evaluations) < 2 * LEAST:
        raise InputError("evaluations", f"at least {2 * LEAST}, two generations", evaluations)
    size = SIZE if num_genes <= PLANE else 2 * round(5 * evaluations**0.2)
    size = max(LEAST, min(size, evaluations // LEVELS) // 2 * 2)
    return size, evaluations // size


def final_noise(population_size: int, num_levels: int, num_genes: int) -> float:
    """Return 1 - alpha at the last level, for N individuals, T levels and D genes."""
    decades = FIRST_DECADES + PER_ROOT * (population_size * num_levels / num_genes) ** 0.5
    most = MOST_IN_PLANE if num_genes <= PLANE else MOST_DECADES
    most = min(num_levels / LEVELS_PER_DECADE, most)
    return 10 ** -max(LEAST_DECADES, min(decades, most))


def default_temperature(num_genes: int) -> float:
    """Return the temperature of `standardised` for D genes: many need more parents."""
    return 0.1 if num_genes <= PLANE else 0.25 * (num_genes / 5) ** 0.2
