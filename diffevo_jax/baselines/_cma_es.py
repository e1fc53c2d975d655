"""CMA-ES (Hansen, https://arxiv.org/abs/1604.00772), as the paper's figures and tables have it."""

import math
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.algorithm import Algorithm, Best, make_algorithm
from diffevo_jax.checks import (
    Count,
    InputError,
    NonNegative,
    Positive,
    check_count,
    check_number,
)
from diffevo_jax.evosax import strategy as evosax_strategy
from diffevo_jax.search import SearchInfo, SearchState, choose, search_info

# Step-size constants: of arXiv 1604.00772, or of the `cma` package that the reference was run with.
Constants = Literal["tutorial", "cma-4.5"]


class ElitistState(NamedTuple):
    """`SearchState`, and the best individual so far, by fitness less the penalty."""

    population: jax.Array
    t: jax.Array
    strategy: Any
    best: Best


def cma_es(
    *,
    population_size: Count,
    num_genes: Count,
    num_generations: Count | None,
    sigma: Positive = 1.0,
    penalty: NonNegative = 0.0,
    elitist: bool = True,
    constants: Constants = "cma-4.5",
) -> Algorithm:
    """Configure CMA-ES from mean 0, selecting by fitness - penalty mean(x^2).

    num_generations: T; None has no end.
    sigma: initial step size; the initial population is drawn from N(0, sigma^2 I).
    elitist: learn from the best so far once more, in place of the worst, whenever a generation has
        none as good. As in the `cma` package it keeps its direction from the mean and takes the
        length of a sample. (There it comes on top of the others.)
    constants: those of the step size. evosax's are the "tutorial"'s; with those of "cma-4.5"
        updates are the `cma` package's, in float32 where that has float64.

    Info.strategy has mean, std and C: the generation was drawn from N(mean, std^2 C).
    Raises as `evosax.strategy`, and InputError on settings out of range.
    """
    population_size = check_count("population_size", population_size, least=2)
    num_genes = check_count("num_genes", num_genes)
    check_number("sigma", sigma, 0, math.inf, closed="()")
    check_number("penalty", penalty, 0, math.inf, closed="[)")
    if constants not in get_args(Constants):
        names = ", ".join(get_args(Constants))
        raise InputError("constants", f"one of {names}", repr(constants))
    steps = _cma_package(population_size, num_genes) if constants == "cma-4.5" else {}
    plain = evosax_strategy(
        "CMA_ES",
        population_size=population_size,
        num_genes=num_genes,
        num_generations=num_generations,
        params={"std_init": jnp.asarray(sigma, float), **steps},
    )

    def init(key: jax.Array, population: jax.Array, t: jax.Array) -> ElitistState:
        strategy = plain.init(key, population).strategy
        none = jnp.asarray(-jnp.inf, jnp.promote_types(population.dtype, jnp.float32))
        return ElitistState(population, t, strategy, Best(jnp.zeros_like(population[0]), none))

    def step(
        key: jax.Array, state: ElitistState, fitness: jax.Array, population: jax.Array
    ) -> tuple[ElitistState, SearchInfo]:
        key_elite, key_step = jax.random.split(key)
        info = search_info(population, fitness, state.strategy)
        genomes, score = population, fitness - penalty * jnp.mean(population**2, 1)
        finite = jnp.where(jnp.isfinite(score), score, -jnp.inf)
        best, first = state.best, jnp.argmax(finite)
        if elitist:
            elite = _redrawn(key_elite, state.strategy, best.genome)
            worst = jnp.argmin(finite)
            lost = (best.fitness > finite[first]) & (finite[first] > -jnp.inf)
            genomes = genomes.at[worst].set(jnp.where(lost, elite, genomes[worst]))
            score = score.at[worst].set(jnp.where(lost, best.fitness, score[worst]))
        newest = Best(population[first], finite[first])
        best = choose(newest.fitness > best.fitness, newest, best)
        searching = SearchState(state.population, state.t, state.strategy)
        after, inner = plain.step(key_step, searching, score, genomes)
        state = ElitistState(after.population, after.t, after.strategy, best)
        return state, info._replace(strategy=inner.strategy)

    return make_algorithm(init, step, num_generations, shape=(population_size, num_genes))


def _redrawn(key: jax.Array, strategy: Any, best: jax.Array) -> jax.Array:
    """Scale the best genome `[D]` to the length of a draw from the distribution."""
    direction = best - strategy.mean
    length = jnp.linalg.norm(strategy.B.T @ direction / strategy.D) / strategy.std
    new_length = jnp.linalg.norm(jax.random.normal(key, best.shape))
    return strategy.mean + direction * new_length / jnp.maximum(length, 1e-12)


def _cma_package(population_size: int, num_genes: int) -> dict[str, float]:
    """Compute the step-size constants of version 4.5 of the `cma` package.

    Its rate c_sigma stops at 0.5, which 512 in the plane pass (0.96 by the tutorial's Eq. 55), and
    its damping is up to three times larger where a population is large for many dimensions.
    """
    weights = math.log((population_size + 1) / 2) - np.log(np.arange(population_size // 2) + 1)
    mu_eff = np.sum(weights) ** 2 / np.sum(weights**2)
    c_std = min((mu_eff + 2) / (num_genes + mu_eff + 3), 0.5)
    more = max(1.0, 3 * (1 - 0.5 ** (num_genes / 9)))
    excess = more * math.sqrt((mu_eff - 1) / (num_genes + 1)) - 1
    return {"c_std": c_std, "d_std": 1 + 2 * max(0.0, excess) + c_std}
