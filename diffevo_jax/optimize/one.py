"""The search for one optimum: rounds of a global stage and CMA-ES, the next of twice the size.

A `SearchForOne` waits for the costs of its points; `advance` takes them and gives the next. It
never ends by itself: the caller counts evaluations.
"""

from typing import Any, Literal, NamedTuple

import numpy as np

from diffevo_jax.optimize import cma, stage
from diffevo_jax.optimize.arrays import finite
from diffevo_jax.optimize.cma import Polish
from diffevo_jax.optimize.stage import Stage

# CMA-ES has converged when its best costs change by less than this share of the stage's range.
FLAT = 1e-13


class SearchForOne(NamedTuple):
    """Where a search stands.

    phase: what the points belong to: the first point, the global stage or CMA-ES.
    evaluations, least: the budget, and the deviation `[D]` that whole numbers keep.
    first, first_cost: a point to begin with, `[D]`, and its cost.
    round: number of the round, from 0. stage, polish: what waits for costs in their phases.
    bests, scale: by which CMA-ES has converged, see `is_flat`.
    """

    phase: Literal["first", "global", "local"]
    evaluations: int
    least: np.ndarray
    first: np.ndarray
    first_cost: float = np.nan
    round: int = 0
    stage: Stage | None = None
    polish: Polish | None = None
    bests: np.ndarray | None = None
    scale: float = 0.0

    @property
    def points(self) -> Any:
        """The points to evaluate next, `[N, D]` in the unit cube."""
        if self.phase == "first":
            return self.first[None]
        waiting = self.stage if self.phase == "global" else self.polish
        assert waiting is not None
        return waiting.points


def begin(first: np.ndarray, evaluations: int, least: np.ndarray) -> SearchForOne:
    """Begin with a point `[D]` of the unit cube."""
    return SearchForOne("first", evaluations, least, first)


def advance(random: np.random.Generator, state: SearchForOne, costs: np.ndarray) -> SearchForOne:
    """Take the costs `[N]`, NaN for those without one, and draw the next points."""
    if state.phase == "first":
        return _explore(random, state._replace(first_cost=costs[0]))
    if state.phase == "global":
        assert state.stage is not None
        after = stage.advance(state.stage, costs)
        state = state._replace(stage=after)
        return _polish(random, state) if after.points is None else state
    assert state.polish is not None
    assert state.bests is not None
    bests = append(state.bests, np.min(finite(costs)))
    if not is_flat(bests, state.scale):
        polish = cma.advance(random, state.polish, costs)
        if polish.draws is not None:
            return state._replace(polish=polish, bests=bests)
    return _explore(random, state._replace(round=state.round + 1))


def _explore(random: np.random.Generator, state: SearchForOne) -> SearchForOne:
    num_genes = len(state.first)
    size, levels = stage.sizes(state.evaluations, num_genes)
    first = stage.begin(random, size * 2**state.round, levels, num_genes, stage.consensus_evolution)
    return state._replace(phase="global", stage=first, polish=None)


def _polish(random: np.random.Generator, state: SearchForOne) -> SearchForOne:
    assert state.stage is not None
    points, costs = state.stage.samples
    start, spread = stage.start_of(points, costs, state.stage.levels)
    if state.round == 0 and state.first_cost < np.fmin.reduce(costs, initial=np.inf):
        start = state.first
    size = cma.default_size(len(start)) * 2**state.round
    polish = cma.begin(random, start, spread, size, state.least)
    bests = np.full(window(size, len(start)), np.nan)
    scale = float(np.ptp(finite(costs)))
    return state._replace(phase="local", stage=None, polish=polish, bests=bests, scale=scale)


def window(size: int, num_genes: int) -> int:
    """Return how many generations of CMA-ES must show progress, and the one before them."""
    return 11 + 30 * num_genes // size


def append(bests: Any, best: Any) -> Any:
    """Append a cost to the best ones of the last generations, `[W]`, in NumPy or JAX."""
    xp = bests.__array_namespace__()
    return xp.concatenate([bests[1:], xp.reshape(best, 1)])


def is_flat(bests: Any, scale: Any) -> Any:
    """Whether W generations stayed within a small share of `scale`; not before there are W."""
    xp = bests.__array_namespace__()
    return xp.isfinite(bests[0]) & (xp.ptp(bests[1:]) <= FLAT * scale)
