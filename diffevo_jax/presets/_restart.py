"""Preset for landscapes that move: noise again, at the end of a run or when its best changed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffevo_jax.algorithm import Algorithm
from diffevo_jax.checks import Count, NonNegative, check_number
from diffevo_jax.denoisers._posterior_mean import posterior_mean
from diffevo_jax.denoising import STANDARDISED, denoising_evolution
from diffevo_jax.fitness import FitnessMap
from diffevo_jax.parts import Denoiser, Sampler
from diffevo_jax.samplers._ddim import ddim
from diffevo_jax.schedules import Schedule, cosine


class Restarting(NamedTuple):
    """What the next step needs.

    population: `[N, D]`; the first row is the best of the last generation, to be evaluated again.
    t: generations that follow this one. run: state of the evolution within.
    best: fitness that the first row had; NaN before any.
    """

    population: jax.Array
    t: jax.Array
    run: Any
    best: jax.Array


class Info(NamedTuple):
    """What a figure shows of a generation.

    population `[N, D]`, fitness `[N]`: as evaluated. level: where the evolution within stood.
    moved: the first row's fitness is another than it was. restarted: the next generation is noised.
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
    denoiser: Denoiser | None = None,
    sampler: Sampler | None = None,
    mesh: Mesh | None = None,
) -> Algorithm:
    """Configure Diffusion Evolution that noises its population again, for as long as it is asked.

        algorithm = de.presets.restart(num_generations=500)
        evolved = de.evolve(key, algorithm, fitness_fn, population)

    A first run goes through all levels of `cosine`. When it has ended, or the best individual, that
    every generation evaluates again, has another fitness than it had, the population is noised to
    `level` and evolves from there. Only fitness without luck tells that it has moved.

    num_generations: evaluated generations in all. num_levels: T of the first run.
    level: 0 to T - 1. A low one keeps near what is known, T - 1 starts afresh.
    tolerance: relative change of the best one's fitness that counts as moved, a number of 0 or
        more; infinity restarts at the end of a run only.
    fitness_map, denoiser, sampler, mesh: of `denoising_evolution`; the paper's unless said.

    Raises ValueError, naming the argument, expected and seen.
    """
    if not isinstance(num_generations, int) or num_generations < 1:
        raise ValueError(
            f"num_generations: expected an integer of at least 1; seen {num_generations!r}"
        )
    if not isinstance(level, int) or not 0 <= level < num_levels:
        raise ValueError(f"level: expected an integer from 0 to {num_levels - 1}; seen {level!r}")
    check_number("tolerance", tolerance, 0, np.inf)
    schedule = cosine(num_levels)
    within = denoising_evolution(
        schedule,
        fitness_map=fitness_map,
        denoiser=denoiser or posterior_mean(mesh=mesh),
        sampler=sampler or ddim(1.0, mesh=mesh),
        mesh=mesh,
    )

    def init(population: jax.Array) -> Restarting:
        run = within.init(population)
        left = jnp.asarray(num_generations - 1, jnp.int32)
        return Restarting(run.population, left, run, jnp.asarray(jnp.nan, float))

    def step(
        key: jax.Array, state: Restarting, fitness: jax.Array, population: jax.Array | None = None
    ) -> tuple[Restarting, Info]:
        key_step, key_noise = jax.random.split(key)
        run, info = within.step(key_step, state.run, fitness, population)
        fitness = jnp.asarray(fitness, float)
        change = jnp.abs(fitness[0] - state.best)
        moved = change > tolerance * jnp.maximum(jnp.abs(state.best), 1e-30)
        restarted = moved | (state.run.t == 0)
        noised = within.init(renoise(key_noise, info.population, schedule, level))
        noised = noised._replace(t=jnp.full_like(noised.t, level))
        run = jax.tree.map(lambda new, old: jnp.where(restarted, new, old), noised, run)
        known = jnp.where(jnp.isfinite(fitness), fitness, -jnp.inf)
        first = jnp.argmax(known)
        genomes = run.population.at[0].set(info.population[first[None]][0])
        new = Restarting(genomes, state.t - 1, run._replace(population=genomes), known[first])
        ended = state.t == 0
        state = jax.tree.map(lambda new, old: jnp.where(ended, old, new), new, state)
        return state, Info(info.population, info.fitness, info.t, moved, restarted)

    return Algorithm(init, step, num_generations)
