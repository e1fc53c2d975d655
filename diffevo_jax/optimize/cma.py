"""CMA-ES for the bottom of a basin: pycma's for loops on the host, evosax's inside JAX.

Both search a frame of their own from N(0, I): points are start + spread u, mapped into the unit
cube. On the host pycma's is ahead of evosax's, in float64 and with pycma's constants: 0.0048 and
0.0050 against 0.016 and 0.012 on the 12-D ellipsoid of docs/minimize.md (medians of 40 seeds, and
of 80 others); 1.4e-9 against 1.8e-9 on the sphere; level on Rosenbrock and Rastrigin.
"""

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.optimize.arrays import draw_keys, finite, unit_costs


def default_size(num_genes: int) -> int:
    """Return the population size of CMA-ES's default (Hansen, https://arxiv.org/abs/1604.00772)."""
    return 4 + int(3 * np.log(num_genes))


# Width of the margin at each side of the cube, where a point moves with the square of its draw: a
# side lies inside of what is drawn from, and a cost that falls towards it has a minimum there.
MARGIN = 0.05


def into_cube(points: Any) -> Any:
    """Map all of space onto the unit cube: what is well inside stays, the rest is folded, smoothly.

    As pycma's linear-quadratic transformation of box constraints.
    """
    xp = points.__array_namespace__()
    side = 1 + 2 * MARGIN
    folded = (points + MARGIN) % (2 * side)
    folded = xp.minimum(folded, 2 * side - folded)
    low, high = folded**2 / (4 * MARGIN), 1 - (side - folded) ** 2 / (4 * MARGIN)
    inner = xp.where(folded > 1, high, folded - MARGIN)
    mapped = xp.where(folded < 2 * MARGIN, low, inner)
    return xp.where((points >= MARGIN) & (points <= 1 - MARGIN), points, mapped)


def out_of_cube(points: Any) -> Any:
    """Return places that `into_cube` maps to points of the cube."""
    xp = points.__array_namespace__()
    low = xp.sqrt(4 * MARGIN * points) - MARGIN
    high = 1 + MARGIN - xp.sqrt(4 * MARGIN * (1 - points))
    inner = xp.where(points > 1 - MARGIN, high, points)
    return xp.where(points < MARGIN, low, inner)


# Inside JAX: evosax's, whose state is a pytree with `population`, the draws u `[N, D]`.


@partial(jax.jit, static_argnames=("size", "num_genes"))
def init(key: jax.Array, *, size: int, num_genes: int) -> Any:
    """Start a search in its own frame: the state, whose first population is drawn from N(0, I)."""
    return _algorithm(size, num_genes).init(key, jax.random.normal(key, (size, num_genes)))


@jax.jit
def tell(key: jax.Array, state: Any, costs: jax.Array) -> Any:
    """Learn from the costs `[N]`, NaN for those without one, and draw the next population."""
    return _algorithm(*state.population.shape).step(key, state, -costs)[0]


@jax.jit
def reach(state: Any) -> jax.Array:
    """Return the largest deviation of a gene in the frame, `[]`."""
    distribution = state.strategy  # evosax's: N(mean, std^2 C)
    return distribution.std * jnp.sqrt(jnp.max(jnp.diag(distribution.C)))


def _algorithm(size: int, num_genes: int) -> Any:
    return _configured(size, num_genes, jnp.result_type(float))


@lru_cache(maxsize=64)
def _configured(size: int, num_genes: int, dtype: Any) -> Any:
    """Make the algorithm; its constants are made at once, so that what is kept holds no tracer."""
    from diffevo_jax.baselines import cma_es

    with jax.ensure_compile_time_eval():
        return cma_es(
            population_size=size, num_genes=num_genes, num_generations=None, elitist=False
        )


# On the host.


@dataclass(frozen=True)
class Polish:
    """A search on the host that waits for the costs of its points.

    start, spread: its frame, `[D]`, of places that `into_cube` takes into the cube.
    draws: u of the points, `[N, D]`; None when it has converged.
    strategy: pycma's object, which moves on in place, or evosax's state.
    """

    start: np.ndarray
    spread: np.ndarray
    draws: np.ndarray | None
    strategy: Any

    @property
    def points(self) -> np.ndarray:
        """The points to evaluate, `[N, D]`."""
        return into_cube(self.start + self.spread * self.draws)


def is_pycma(num_genes: int) -> bool:
    """Whether the strategy is pycma's, where it is installed; it takes two parameters or more."""
    return num_genes > 1 and find_spec("cma") is not None


def begin(
    random: np.random.Generator,
    start: np.ndarray,
    spread: np.ndarray,
    size: int,
    least: np.ndarray | float = 0,
) -> Polish:
    """Start at a point `[D]` with a deviation `[D]`: pycma's where it is installed, else evosax's.

    least: deviation `[D]` that whole numbers keep, 0 for others; evosax's ignores it.
    """
    start = out_of_cube(start)
    if is_pycma(len(start)):
        strategy = _pycma(random, size, np.broadcast_to(least / spread, start.shape))
        return Polish(start, spread, np.asarray(strategy.ask()), strategy)
    state = init(draw_keys(random), size=size, num_genes=len(start))
    return Polish(start, spread, np.asarray(state.population, float), state)


def replaced(polish: Polish, places: np.ndarray, points: np.ndarray) -> Polish:
    """Put other points of the cube, `[K, D]`, at places `[K]` of the population."""
    assert polish.draws is not None
    draws = polish.draws.copy()
    draws[places] = (out_of_cube(points) - polish.start) / polish.spread
    strategy = polish.strategy
    if not hasattr(strategy, "ask"):
        strategy = strategy._replace(population=draws.astype(strategy.population.dtype))
    return replace(polish, draws=draws, strategy=strategy)


def injected(polish: Polish, point: np.ndarray) -> Polish:
    """Put a point of the cube, `[D]`, at the first place of pycma's population.

    Farther from the mean than its draws are, it is moved to where they are, on its way.
    """
    strategy, draws = polish.strategy, polish.draws
    assert draws is not None
    way = (out_of_cube(point) - polish.start) / polish.spread - strategy.mean
    length = strategy.mahalanobis_norm(way) / np.sqrt(len(way))
    draws = np.concatenate([(strategy.mean + way / max(1.0, length))[None], draws[1:]])
    return replace(polish, draws=draws)


def middle(polish: Polish) -> np.ndarray:
    """Return the mean of the distribution, `[D]` in the unit cube."""
    strategy = polish.strategy
    mean = strategy.mean if hasattr(strategy, "ask") else strategy.strategy.mean
    return into_cube(polish.start + polish.spread * np.asarray(mean, float))


def advance(random: np.random.Generator, polish: Polish, costs: np.ndarray) -> Polish:
    """Learn from the costs `[N]`, NaN for those without one, and draw the next points."""
    strategy = polish.strategy
    assert polish.draws is not None
    if hasattr(strategy, "ask"):
        # Those without a cost count as this generation's worst.
        values = np.where(np.isfinite(costs), costs, finite(costs).max())
        for draw in polish.draws:
            # pycma knows its points by hashes that are others in a process that loads the search.
            if draw not in strategy.sent_solutions:
                strategy.sent_solutions.insert(draw, geno=draw, iteration=strategy.countiter)
        strategy.tell(list(polish.draws), values)
        draws = None if strategy.stop() else np.asarray(strategy.ask())
        return replace(polish, draws=draws)
    state = jax.device_get(tell(draw_keys(random), strategy, unit_costs(costs)))
    least = np.finfo(state.population.dtype).eps / 10
    shrunk = reach(state) * polish.spread.max() <= least
    draws = None if shrunk else np.asarray(state.population, float)
    return replace(polish, draws=draws, strategy=state)


class _Normal:
    """The function of normal draws that pycma calls, whose generator is saved with it."""

    def __init__(self, random: np.random.Generator):
        self.random = random

    def __call__(self, *shape: int) -> np.ndarray:
        return self.random.standard_normal(shape)


def _pycma(random: np.random.Generator, size: int, least: np.ndarray) -> Any:
    import cma

    options = {
        "popsize": size,
        "randn": _Normal(random),
        "seed": np.nan,  # leaves NumPy's own generator alone
        "minstd": least,
        "tolfun": 0,
        "tolfunhist": 0,
        "verbose": -9,
    }
    return cma.CMAEvolutionStrategy(np.zeros(len(least)), 1.0, options)
