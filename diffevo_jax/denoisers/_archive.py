"""An archive of generations, each individual weighed against the density it was drawn with."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Count, check_count
from diffevo_jax.denoisers._posterior_mean import GAUSSIAN, check_kernel
from diffevo_jax.kernels._estimate import log_density
from diffevo_jax.parts import Denoiser, Kernel, Level, Move, Posterior, Weights


class Generations(NamedTuple):
    """The last K generations, the present one first; its genomes and fitness come with `estimate`.

    population: `[N, K, D]`. fitness: `[N, K]`.
    log_density: log q of each individual, `[N, K]`; NaN where none is yet.
    kernel: the kernel's own memory.
    """

    population: jax.Array
    fitness: jax.Array
    log_density: jax.Array
    kernel: Any


def archive(kernel: Kernel = GAUSSIAN, *, generations: Count) -> Denoiser:
    """Average the last generations, weighted by fitness over the density each was drawn with.

    w_ij = g_j / q_j K_ij,   q_j = mean_i N(x_j; mu_i, sigma^2 I)

    mu_i and sigma are those of the move that made x_j's generation (`Move`); the first is taken for
    a draw from N(0, I). Without q the target is g times the density of where the population happens
    to be, which gives too much to the heaviest peak; with it, it is g itself, in few dimensions: at
    10 genes the weights of a population of 1024 are too uneven.
    A deterministic move has no density: from then on weights are g alone, for all generations.
    Repaired individuals (`step(population=...)`) keep the density of what they were repaired from.

    kernel: see `posterior_mean`.
    generations: K, the present one included; T or more keeps all. Memory is `[N, K, D]`.

    The fitness map weighs all generations at once. Raises InputError, naming the argument.
    """
    check_kernel(kernel)
    generations = check_count("generations", generations)

    def init(key: jax.Array, population: jax.Array) -> Generations:
        num_genes = population.shape[1]
        shape = len(population), generations
        squares = jnp.sum(population.astype(float) ** 2, axis=1)
        first = -(squares + num_genes * math.log(2 * math.pi)) / 2
        return Generations(
            jnp.zeros((*shape, num_genes), population.dtype),
            jnp.full(shape, jnp.nan, float),
            jnp.full(shape, jnp.nan, float).at[:, 0].set(first),
            kernel.init(key, population),
        )

    def estimate(
        key: jax.Array, memory: Generations, x_t: jax.Array, weights: Weights, level: Level
    ) -> tuple[Generations, Posterior]:
        memory = memory._replace(
            population=memory.population.at[:, 0].set(x_t),
            fitness=memory.fitness.at[:, 0].set(weights.fitness.astype(memory.fitness.dtype)),
            kernel=kernel.follow(memory.kernel, x_t, weights.log_weight),
        )
        # Maps that compare individuals see the present generation in the place of empty ones.
        empty = jnp.isnan(memory.log_density)
        fitness = jnp.where(empty, memory.fitness[:, :1], memory.fitness)
        log_weight = weights.weigh(fitness.ravel())
        log_weight = jnp.where(jnp.any(log_weight > -jnp.inf), log_weight, 0)
        posterior = kernel.average(
            memory.kernel,
            x_t,
            log_weight - memory.log_density.ravel(),
            level,
            support=memory.population.reshape(-1, x_t.shape[1]),
        )
        return memory, posterior

    def moved(memory: Generations, move: Move, level: Level) -> Generations:
        sigma = jnp.where(move.sigma > 0, move.sigma, 1)
        newest = log_density(move.population, move.mean, sigma, mesh=level.mesh)
        rows = memory.population, memory.fitness, memory.log_density
        population, fitness, log_q = (jnp.roll(leaf, 1, axis=1) for leaf in rows)
        log_q = log_q.at[:, 0].set(newest.astype(log_q.dtype))
        log_q = jnp.where(move.sigma > 0, log_q, 0 * log_q)  # NaN stays
        return Generations(population, fitness, log_q, memory.kernel)

    return Denoiser(init, estimate, moved)
