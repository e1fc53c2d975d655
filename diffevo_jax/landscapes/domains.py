"""Domains of quality-diversity: fitness and how an individual behaves, as pyribs measures them.

A function takes points `[N, D]` and returns fitness `[N]`, 0 to 100, and descriptors `[N, 2]`.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Count, InputError, Positive, check_count
from diffevo_jax.problem import Problem

LIMIT, OPTIMUM = 5.12, 2.048  # of a coordinate's part in a descriptor; the optimum's coordinates


def sphere(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sphere function under the linear projection, see `projected`."""
    return projected(lambda z: jnp.sum(z**2, axis=1), x)


def rastrigin(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rastrigin's function under the linear projection, see `projected`."""
    return projected(lambda z: jnp.sum(10 + z**2 - 10 * jnp.cos(2 * jnp.pi * z), axis=1), x)


def projected(cost: Callable[[jax.Array], jax.Array], x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Fitness of a cost, least at 2.048, and sums of both halves' coordinates (CMA-ME's paper).

    Behaviour is in [-5.12 D / 2, 5.12 D / 2]^2. A coordinate x beyond 5.12 counts as 5.12 / x only,
    so that one who leaves the box turns back; and most points are near the middle, as sums are
    (https://arxiv.org/abs/1912.02400). Fitness is 100 at the least cost, 0 at the cost of the point
    with all coordinates -5.12, or above.
    """
    worst = cost(jnp.full((1, x.shape[1]), -LIMIT - OPTIMUM))
    inside = jnp.abs(x) <= LIMIT
    part = jnp.where(inside, x, LIMIT / jnp.where(inside, 1, x))
    descriptors = jnp.stack([half.sum(axis=1) for half in jnp.split(part, 2, axis=1)], axis=1)
    return jnp.maximum(100 * (1 - cost(x - OPTIMUM) / worst), 0), descriptors


def arm(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Planar arm of D joints of unit length, x their angles: behaviour is where its end is.

    In [-D, D]^2, of which it reaches a disc. Fitness: 100 (1 - variance of the angles), 0 or more.
    """
    angles = jnp.cumsum(x, axis=1)
    end = jnp.stack([jnp.cos(angles).sum(axis=1), jnp.sin(angles).sum(axis=1)], axis=1)
    return jnp.maximum(100 * (1 - jnp.var(x, axis=1)), 0), end


def make_problem(
    *,
    function: Literal["sphere", "rastrigin", "arm"],
    num_genes: Count = 20,
    scale: Positive = 1.0,
) -> Problem:
    """Make the problem of a domain, at `scale` times a genome.

    num_genes: D; an even number for sphere and Rastrigin. Raises InputError.
    """
    domains = {"sphere": sphere, "rastrigin": rastrigin, "arm": arm}
    if function not in domains:
        raise InputError("function", f"one of {', '.join(domains)}", repr(function))
    if check_count("num_genes", num_genes) % 2 and function != "arm":
        raise InputError("num_genes", "an even number, for two halves", num_genes)
    return Problem(num_genes, partial(_evaluate, domains[function], scale), has_aux=True)


def _evaluate(domain: Callable, scale: Positive, population: jax.Array):
    fitness, descriptors = domain(scale * population)
    return fitness, {"descriptors": descriptors}
