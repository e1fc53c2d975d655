"""An archive of generations, each individual weighed against the density it was drawn with."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from diffevo_jax.checks import Count, check_count
from diffevo_jax.denoisers._posterior_mean import check_projection
from diffevo_jax.kernels import AUTO, Posterior, estimate_posterior
from diffevo_jax.latent import project
from diffevo_jax.parts import Denoiser, Level, Move, Weights

# 1 - alpha of the call for the density: so small that its kernel is one of plain differences.
NO_NOISE = 1e-20


class Archive(NamedTuple):
    """The last K generations, the present one first; its genomes and fitness come with `estimate`.

    population: `[N, K, D]`. fitness: `[N, K]`.
    log_density: log q of each individual less D/2 log 2 pi, `[N, K]`; NaN where none is yet.
    """

    population: jax.Array
    fitness: jax.Array
    log_density: jax.Array


def archive(
    *,
    generations: Count,
    projection: jax.Array | None = None,
    precision: jax.lax.PrecisionLike = None,
    implementation: str = AUTO,
    mesh: Mesh | None = None,
) -> Denoiser:
    """Average the last generations, weighted by fitness over the density each was drawn with.

    w_ij = g_j / q_j exp(-|z_i - sqrt(alpha) z_j|^2 / (2 (1 - alpha)))
    q_j  = mean_i N(x_j; mu_i, sigma^2 I)

    mu_i and sigma are those of the move that made x_j's generation (`Move`); the first is taken for
    a draw from N(0, I). Without q the target is g times the density of where the population happens
    to be, which gives too much to the heaviest peak; with it, it is g itself, in few dimensions: at
    10 genes the weights of a population of 1024 are too uneven.
    A deterministic move has no density: from then on weights are g alone, for all generations.
    Repaired individuals (`step(population=...)`) keep the density of what they were repaired from.

    generations: K, how many, the present one included; T or more keeps all. Memory is `[N, K, D]`.
    projection, precision, implementation, mesh: of `posterior_mean`.

    The fitness map weighs all generations at once. Settings but K may be traced. Raises ValueError,
    here or in `init`, naming the argument.
    """
    generations = check_count("generations", generations)
    check_projection(projection)
    projection = None if projection is None else jnp.asarray(projection)

    def init(population: jax.Array) -> Archive:
        check_projection(projection, population)
        shape = len(population), generations
        first = -jnp.sum(population.astype(float) ** 2, axis=1) / 2
        return Archive(
            jnp.zeros((*shape, population.shape[1]), population.dtype),
            jnp.full(shape, jnp.nan, float),
            jnp.full(shape, jnp.nan, float).at[:, 0].set(first),
        )

    def estimate(
        key: jax.Array, memory: Archive, x_t: jax.Array, weights: Weights, level: Level
    ) -> tuple[Posterior, Archive]:
        memory = memory._replace(
            population=memory.population.at[:, 0].set(x_t),
            fitness=memory.fitness.at[:, 0].set(weights.fitness.astype(memory.fitness.dtype)),
        )
        # Maps that compare individuals see the present ones again where there are none yet.
        empty = jnp.isnan(memory.log_density)
        seen = jnp.where(empty, memory.fitness[:, :1], memory.fitness)
        log_weight = weights.weigh(seen.ravel())
        log_weight = jnp.where(jnp.any(log_weight > -jnp.inf), log_weight, 0)
        support = memory.population.reshape(-1, x_t.shape[1])
        posterior = estimate_posterior(
            x_t,
            log_weight - memory.log_density.ravel(),
            level.alpha,
            z_t=None if projection is None else project(x_t, projection),
            support=support,
            z_support=None if projection is None else project(support, projection),
            one_minus_alpha=level.one_minus_alpha,
            precision=precision,
            implementation=implementation,
            mesh=mesh,
        )
        return posterior, memory

    def moved(memory: Archive, move: Move) -> Archive:
        memory = jax.tree.map(lambda leaf: jnp.roll(leaf, 1, axis=1), memory)
        drawn = log_transition(move, mesh=mesh).astype(memory.log_density.dtype)
        log_density = memory.log_density.at[:, 0].set(drawn)
        known = jnp.where(move.sigma > 0, log_density, 0 * log_density)  # NaN stays
        return memory._replace(log_density=known)

    return Denoiser(init, estimate, moved)


def log_transition(move: Move, *, mesh: Mesh | None = None) -> jax.Array:
    """Log density of what was drawn, `[N]`: `log_mixture` around the means of the move.

    Finite, and of no meaning, where sigma is 0. mesh: of `estimate_posterior`.
    """
    sigma = jnp.where(move.sigma > 0, move.sigma, 1)
    return log_mixture(move.population, move.mean, sigma, mesh=mesh)


def log_mixture(
    points: jax.Array, centres: jax.Array, sigma: jax.Array, *, mesh: Mesh | None = None
) -> jax.Array:
    """Log density of a mixture of Gaussians, log mean_i N(x; mu_i, sigma^2 I) less D/2 log 2 pi.

    points: x, `[M, D]`. centres: mu, `[N, D]`. sigma: a number above 0. mesh: of
    `estimate_posterior`. Returns `[M]`.
    """
    size, genes = centres.shape
    unit = math.sqrt(NO_NOISE) / sigma
    log_sum = estimate_posterior(
        points[:, :1],
        jnp.zeros(size),
        1.0,
        z_t=unit * points,
        support=centres[:, :1],
        z_support=unit * centres,
        one_minus_alpha=NO_NOISE,
        mesh=mesh,
        sample_size=False,
    ).log_evidence
    return log_sum - math.log(size) - genes * jnp.log(sigma)
