"""CMA-ES (Hansen, https://arxiv.org/abs/1604.00772), as the paper's figures and tables have it."""

import math
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.algorithm import Algorithm, Best
from diffevo_jax.checks import NonNegative, Positive, check_number
from diffevo_jax.evosax import strategy as evosax_strategy
from diffevo_jax.generation import Info, choose, look
from diffevo_jax.generation import State as Searching

# Step-size constants: of arXiv 1604.00772, or of the `cma` package that the reference was run with.
Constants = Literal["tutorial", "cma-4.5"]


class State(NamedTuple):
    """`generation.State`, and the best individual told so far, by fitness less the penalty."""

    population: jax.Array
    t: jax.Array
    strategy: Any
    best: Best


def cma_es(
    *,
    population_size: int,
    num_genes: int,
    num_levels: int,
    sigma: Positive = 1.0,
    penalty: NonNegative = 0.0,
    elitist: bool = True,
    constants: Constants = "cma-4.5",
) -> Algorithm:
    """Configure CMA-ES from mean 0, selecting by fitness - penalty mean(x^2).

    sigma: initial step size; the initial population is drawn from N(0, sigma^2 I).
    elitist: tell the best so far again, in place of the worst, whenever a generation has none as
        good. As in the `cma` package it keeps its direction from the mean and takes the length of
        a sample. (There it comes on top of the others.)
    constants: of the step size. evosax's are the "tutorial"'s; with those of "cma-4.5" updates are
        the `cma` package's, in float32 where that has float64.

    Info.strategy has mean, std and C: the generation was drawn from N(mean, std^2 C).
    Raises as `evosax`, and ValueError on settings out of range.
    """
    check_number("sigma", sigma, 0, math.inf, closed="()")
    check_number("penalty", penalty, 0, math.inf, closed="[)")
    if constants not in get_args(Constants):
        names = ", ".join(get_args(Constants))
        raise ValueError(f"constants: expected one of {names}; seen {constants!r}")
    steps = _cma_package(population_size, num_genes) if constants == "cma-4.5" else {}
    plain = evosax_strategy(
        "CMA_ES",
        population_size=population_size,
        num_genes=num_genes,
        num_levels=num_levels,
        params={"std_init": jnp.asarray(sigma, float), **steps},
    )

    def init(population: jax.Array) -> State:
        population, t, strategy = plain.init(population)
        none = jnp.asarray(-jnp.inf, jnp.promote_types(population.dtype, jnp.float32))
        return State(population, t, strategy, Best(jnp.zeros_like(population[0]), none))

    def step(
        key: jax.Array, state: State, fitness: jax.Array, population: jax.Array | None = None
    ) -> tuple[State, Info]:
        key_again, key_step = jax.random.split(key)
        info = look(state, fitness, population, state.strategy)
        genomes, score = info.population, info.fitness - penalty * jnp.mean(info.population**2, 1)
        finite = jnp.where(jnp.isfinite(score), score, -jnp.inf)
        best, first = state.best, jnp.argmax(finite)
        if elitist:
            again = _again(key_again, state.strategy, best.genome)
            worst = jnp.argmin(finite)
            lost = (best.fitness > finite[first]) & (finite[first] > -jnp.inf)
            genomes = genomes.at[worst].set(jnp.where(lost, again, genomes[worst]))
            score = score.at[worst].set(jnp.where(lost, best.fitness, score[worst]))
        found = Best(info.population[first], finite[first])
        best = choose(found.fitness > best.fitness, found, best)
        searching = Searching(state.population, state.t, state.strategy)
        after, seen = plain.step(key_step, searching, score, genomes)
        state = State(*after, best=choose(state.t > 0, best, state.best))
        return state, info._replace(strategy=seen.strategy)

    return Algorithm(init, step, num_levels)


def _again(key: jax.Array, strategy: Any, best: jax.Array) -> jax.Array:
    """The best genome `[D]` as the distribution would have drawn it: of a sample's length."""
    apart = best - strategy.mean
    length = jnp.linalg.norm(strategy.B.T @ apart / strategy.D) / strategy.std
    drawn = jnp.linalg.norm(jax.random.normal(key, best.shape))
    return strategy.mean + apart * drawn / jnp.maximum(length, 1e-12)


def _cma_package(population_size: int, num_genes: int) -> dict[str, float]:
    """Step-size constants of version 4.5 of the `cma` package.

    Its rate c_sigma stops at 0.5, which 512 in the plane pass (0.96 by the tutorial's Eq. 55), and
    its damping is up to three times larger where a population is large for many dimensions.
    """
    weights = math.log((population_size + 1) / 2) - np.log(np.arange(population_size // 2) + 1)
    mu_eff = np.sum(weights) ** 2 / np.sum(weights**2)
    c_std = min((mu_eff + 2) / (num_genes + mu_eff + 3), 0.5)
    more = max(1.0, 3 * (1 - 0.5 ** (num_genes / 9)))
    excess = more * math.sqrt((mu_eff - 1) / (num_genes + 1)) - 1
    return {"c_std": c_std, "d_std": 1 + 2 * max(0.0, excess) + c_std}
