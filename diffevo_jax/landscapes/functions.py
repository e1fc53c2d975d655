"""Fitness landscapes: the paper's two-peak densities and its five benchmark functions.

Each takes points, `[N, D]`, and returns fitness, `[N]`, higher is better. The benchmarks live on
[-4, 4]^D; populations drawn from N(0, I) reach it when the points are 4 times the genome, as
published: `lambda population: himmelblau(4 * population)`.
"""

import math

import jax
import jax.numpy as jnp

from diffevo_jax.checks import InputError, Positive

LIMIT = 4.0  # the box of every benchmark is [-LIMIT, LIMIT]^D


def two_peaks(points: jax.Array) -> jax.Array:
    """Two Gaussian peaks of height 1 and width 0.5 at (1, ..., 1) and (-1, ..., -1) (Fig. 2)."""

    def peak(centre: float) -> jax.Array:
        return jnp.exp(-jnp.sum((points - centre) ** 2, axis=-1) / (2 * 0.5**2))

    return peak(1.0) + peak(-1.0)


def two_steps(points: jax.Array) -> jax.Array:
    """Two plateaus: 1 within distance 0.5 of (1, ..., 1) or (-1, ..., -1), 1e-9 elsewhere."""

    def near(centre: float) -> jax.Array:
        return jnp.sum((points - centre) ** 2, axis=-1) < 0.5**2

    return jnp.where(near(1.0) | near(-1.0), 1.0, 1e-9)


def rosenbrock(points: jax.Array, *, temperature: Positive = 1.0) -> jax.Array:
    """Rosenbrock's valley in 2-D, minimum at (1, 1). Outside the box the fitness is 0.706."""
    x, y = _plane("rosenbrock", points)
    value = (1 - x) ** 2 + 100 * (y - x**2) ** 2
    return _fitness(points, value, 100.0, 0.0, 287.51, 40009.0, temperature)


def beale(points: jax.Array, *, temperature: Positive = 1.0) -> jax.Array:
    """Beale's function in 2-D, minimum at (3, 0.5). Outside the box the fitness is 0.0067."""
    x, y = _plane("beale", points)
    value = (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2
    return _fitness(points, value, 100.0, 0.0, 20.0, 72769.2, temperature)


def himmelblau(points: jax.Array, *, temperature: Positive = 1.0) -> jax.Array:
    """Himmelblau's function in 2-D with its four minima. Outside the box the fitness is 0.0028."""
    x, y = _plane("himmelblau", points)
    value = (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2
    return _fitness(points, value, 100.0, 0.0, 17.01, 308.803, temperature)


def ackley(points: jax.Array, *, temperature: Positive = 1.0) -> jax.Array:
    """Ackley's function in 2-D, *maximised*, as published: four optima at (+-3.615, +-3.615)."""
    x, y = _plane("ackley", points)
    value = (
        -20 * jnp.exp(-0.2 * jnp.sqrt((x**2 + y**2) / 2 + 1e-30))  # no infinite slope at 0
        - jnp.exp((jnp.cos(2 * jnp.pi * x) + jnp.cos(2 * jnp.pi * y)) / 2)
        + 20
        + math.e
    )
    return _fitness(points, value, 0.0, 12.5401, 2.0, 12.5401, temperature)


def rastrigin(
    points: jax.Array, *, temperature: Positive = 1.0, target_dim: int | None = None
) -> jax.Array:
    """Rastrigin's function in any dimension D, *maximised*, as published.

    Its 2^D optima lie at (+-3.518, ..., +-3.518). Scales are the published ones for D = 2, 4, 32
    and 256, and 15 D elsewhere.

    target_dim: dimension whose target and scale the fitness has; None is D. The published script
        for D = 4, 32 and 256 takes that dimension's for points of the plane.
    """
    dim = points.shape[-1]
    value = 10 * dim + jnp.sum(points**2 - 10 * jnp.cos(2 * jnp.pi * points), axis=-1)
    target_dim = dim if target_dim is None else target_dim
    target = 64.6249 / 2 * target_dim
    scale = {2: 30.0, 4: 60.0, 32: 500.0, 256: 4000.0}.get(target_dim, 15.0 * target_dim)
    return _fitness(points, value, 0.0, target, scale, target, temperature)


def _plane(name: str, points: jax.Array) -> tuple[jax.Array, jax.Array]:
    if points.shape[-1] != 2:
        raise InputError("points", f"shape [N, 2], for {name} lies in the plane", points.shape)
    return points[..., 0], points[..., 1]


def _fitness(points, value, outside, target, scale, max_distance, temperature) -> jax.Array:
    """Map a raw value to a fitness in [0, 1], 1 at the target, as published.

    F = (exp(-|v - target| / (T s)) - m) / (1 - m), m = exp(-d_max / (T s)); v is `outside`
    wherever a coordinate leaves the box.
    """
    inside = jnp.all(jnp.abs(points) <= LIMIT, axis=-1)
    distance = jnp.abs(jnp.where(inside, value, outside) - target)
    least = jnp.exp(-max_distance / (temperature * scale))
    fitness = (jnp.exp(-distance / (temperature * scale)) - least) / (1 - least)
    return jnp.maximum(fitness, 0)  # rounding at d_max must not turn a weight negative
