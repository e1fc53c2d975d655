"""Preset for landscapes that move: noise a population that has converged, or whose best moved."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffevo_jax.algorithm import INIT, Algorithm, make_algorithm
from diffevo_jax.checks import Count, InputError, NonNegative, check_count, check_number
from diffevo_jax.denoising import DDIM, POSTERIOR_MEAN, STANDARDISED, denoising_evolution
from diffevo_jax.fitness import FitnessMap
from diffevo_jax.parts import Denoiser, Sampler
from diffevo_jax.schedules import Schedule, cosine


class Restarting(NamedTuple):
    """What the next step needs.

    population: `[N, D]`; the first row is the best of the last generation, to be reevaluated.
    t: generations that follow this one. run: state of the evolution within.
    best: fitness that the first row had in the last generation; NaN before any.
    """

    population: jax.Array
    t: jax.Array
    run: Any
    best: jax.Array


class RestartInfo(NamedTuple):
    """What a figure shows of a generation.

    population `[N, D]`, fitness `[N]`: as evaluated. level: where the evolution within stood.
    moved: whether the first row's fitness has changed. restarted: whether the next generation is
        noised.
    """

    population: jax.Array
    fitness: jax.Array
    level: jax.Array
    moved: jax.Array
    restarted: jax.Array


def renoise(key: jax.Array, x0: jax.Array, schedule: Schedule, t: int | jax.Array) -> jax.Array:
    """Bring a clean population, `[N, D]`, to level t: the forward process of diffusion.

    x_t = sqrt(alpha_t) x0 + sqrt(1 - alpha_t) N(0, I)

    `evolve(..., start=t)` goes on from there.
    """
    noise = jax.random.normal(key, x0.shape, x0.dtype)
    x_t = jnp.sqrt(schedule.alpha[t]) * x0 + jnp.sqrt(schedule.one_minus_alpha[t]) * noise
    return x_t.astype(x0.dtype)


def restart(
    *,
    num_generations: Count,
    num_levels: Count = 25,
    level: int = 8,
    tolerance: NonNegative = 1e-6,
    fitness_map: FitnessMap = STANDARDISED,
    denoiser: Denoiser = POSTERIOR_MEAN,
    sampler: Sampler = DDIM,
    mesh: Mesh | None = None,
) -> Algorithm:
    """Configure Diffusion Evolution that noises its population again, for as long as it runs.

        algorithm = de.presets.restart(num_generations=500)
        evolved = de.evolve(key, algorithm, fitness_fn, population)

    A first run goes through all levels of `cosine`. When it has ended, or the best individual, that
    every generation evaluates again, has another fitness than it had, the population is noised to
    `level` and evolves from there. This needs a fitness without noise.

    num_generations: evaluated generations in all. num_levels: T of the first run.
    level: 0 to T - 1. A low one stays near the population, T - 1 starts from noise.
    tolerance: relative change of the best one's fitness that counts as moved, a number of 0 or
        more; infinity restarts at the end of a run only.
    fitness_map, denoiser, sampler, mesh: see `denoising_evolution`.

    Raises InputError, naming the argument, expected and seen.
    """
    num_generations = check_count("num_generations", num_generations)
    if not isinstance(level, int) or not 0 <= level < num_levels:
        raise InputError("level", f"an integer from 0 to {num_levels - 1}", repr(level))
    check_number("tolerance", tolerance, 0, np.inf)
    schedule = cosine(num_levels)
    within = denoising_evolution(
        schedule, fitness_map=fitness_map, denoiser=denoiser, sampler=sampler, mesh=mesh
    )

    def init(key: jax.Array, population: jax.Array, t: jax.Array) -> Restarting:
        run = within.init(key, population)
        return Restarting(run.population, t, run, jnp.asarray(jnp.nan, float))

    def step(
        key: jax.Array, state: Restarting, fitness: jax.Array, population: jax.Array
    ) -> tuple[Restarting, RestartInfo]:
        key_step, key_noise = jax.random.split(key)
        run, info = within.step(key_step, state.run, fitness, population)
        fitness = jnp.asarray(fitness, float)
        change = jnp.abs(fitness[0] - state.best)
        moved = change > tolerance * jnp.maximum(jnp.abs(state.best), 1e-30)
        restarted = moved | (state.run.t == 0)
        clean = renoise(key_noise, info.population, schedule, level)
        noised = within.init(jax.random.fold_in(key, INIT), clean)
        noised = noised._replace(t=jnp.full_like(noised.t, level))
        run = jax.tree.map(lambda new, old: jnp.where(restarted, new, old), noised, run)
        finite = jnp.where(jnp.isfinite(fitness), fitness, -jnp.inf)
        first = jnp.argmax(finite)
        genomes = run.population.at[0].set(info.population[first[None]][0])
        state = Restarting(genomes, state.t, run._replace(population=genomes), finite[first])
        return state, RestartInfo(info.population, info.fitness, info.t, moved, restarted)

    return make_algorithm(init, step, num_generations, mesh=mesh)
