"""OpenES (Salimans et al. 2017, https://arxiv.org/abs/1703.03864), as the paper's Fig. 3 has it."""

import math

import optax

from diffevo_jax.algorithm import Algorithm
from diffevo_jax.checks import Count, Fraction, Positive, check_number
from diffevo_jax.evosax import strategy as evosax_strategy
from diffevo_jax.evosax._strategy import decaying


def open_es(
    *,
    population_size: Count,
    num_genes: Count,
    num_generations: Count,
    sigma: Positive = 1.0,
    sigma_decay: Positive = 0.01,
    learning_rate: Positive = 62.5,
    learning_rate_decay: Positive = 1e-5,
    momentum: Fraction = 0.9,
) -> Algorithm:
    """Configure OpenES from mean 0 on raw fitness: no ranks, no antithetic pairs, no baseline.

    sigma: standard deviation of the draws; the initial population is drawn from N(0, sigma^2 I).
    sigma_decay, learning_rate_decay: the factor over all generations together, reached evenly.
    momentum: m of the step v' = (1 - m) g + m v: an average, as published, rather than a sum.

    Info.strategy has mean and std. Raises as `evosax.strategy`: its population size is even; and
    InputError on settings out of range.
    """
    positive = {
        "sigma": sigma,
        "sigma_decay": sigma_decay,
        "learning_rate": learning_rate,
        "learning_rate_decay": learning_rate_decay,
    }
    for name, value in positive.items():
        check_number(name, value, 0, math.inf, closed="()")
    check_number("momentum", momentum, 0, 1)

    optimizer = optax.chain(
        optax.scale(1 - momentum),
        optax.trace(momentum),
        optax.scale_by_learning_rate(decaying(learning_rate, learning_rate_decay, num_generations)),
    )
    return evosax_strategy(
        "Open_ES",
        population_size=population_size,
        num_genes=num_genes,
        num_generations=num_generations,
        options={
            "use_antithetic_sampling": False,
            "optimizer": optimizer,
            "std_schedule": decaying(sigma, sigma_decay, num_generations),
            "fitness_shaping_fn": lambda population, loss, state, params: loss,
        },
    )
