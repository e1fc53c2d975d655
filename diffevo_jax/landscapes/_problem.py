"""Landscapes as problems of genomes."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Count, Number, Positive
from diffevo_jax.problem import Problem


def make_problem(
    landscape: Callable[[jax.Array], jax.Array],
    *,
    num_genes: Count,
    scale: Positive = 1.0,
    limit: Positive | None = None,
    success: Number | None = None,
) -> Problem:
    """Make the problem of a landscape, points `[N, D]` -> fitness `[N]`, at `scale` times a genome.

    num_genes: D. limit: points are clipped to [-limit, limit] before they are evaluated; None
        leaves them. success: fitness from which on an individual has solved it; None tells nothing.
    """

    def fitness_fn(population: jax.Array):
        fitness = landscape(scale * population)
        return fitness, {} if success is None else {"success": fitness >= success}

    clip = None if limit is None else partial(jnp.clip, min=-limit / scale, max=limit / scale)
    return Problem(num_genes, fitness_fn, has_aux=True, repair=clip)
