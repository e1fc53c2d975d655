"""CMA-ES that evaluates a part of each generation, the rest has costs by a model: lq-CMA-ES.

Of a generation the best by the model are evaluated, a few more at a time, until the model has the
newest costs in their order (Hansen 2019, 10.1145/3321707.3321842, algorithm 1). Where the model is
lowest is a point of the next generation.
"""

from typing import NamedTuple

import numpy as np

from diffevo_jax.optimize import cma, quadratic
from diffevo_jax.optimize.arrays import CostSamples, finite, joined, one_thread
from diffevo_jax.optimize.cma import Polish
from diffevo_jax.optimize.quadratic import Quadratic
from diffevo_jax.optimize.space import Space, parameters, to_unit

SPREAD = 0.2  # the first deviation, of the cube's side, where no global stage comes before
AGREEMENT = 0.85  # Kendall's tau, from which on the model has the rest of a generation
FIRST = 4  # costs that are known before it is asked


class Assisted(NamedTuple):
    """A generation, and what is known of it.

    samples: all costs that are known, newest last, for the model.
    polish: the generation, N points. x: their values `[N, P]`, by which their costs are known.
    points: of these values, `[N, D]` in the cube: whole numbers are rounded.
    costs: `[N]`, NaN for those to come, infinite for those that failed.
    is_handed, is_sample: which are handed out, and among the samples, `[N]`.
    places: those that were handed out last, `[K]`.
    """

    samples: CostSamples
    polish: Polish
    x: np.ndarray
    points: np.ndarray
    costs: np.ndarray
    is_handed: np.ndarray
    is_sample: np.ndarray
    places: np.ndarray

    @property
    def proposals(self) -> np.ndarray:
        """The values `[K, P]` of the points to evaluate next."""
        return self.x[self.places]


def begin(space: Space, polish: Polish, samples: CostSamples) -> Assisted:
    """Begin with pycma's first generation, and what is known by then; samples may have NaN."""
    order = np.argsort(-samples.costs, kind="stable")[: np.isfinite(samples.costs).sum()]
    samples = CostSamples(*(part[order] for part in samples))
    with one_thread():
        return _generation(space, samples, polish, _model(samples, len(polish.points)))


def learned(space: Space, state: Assisted, x: np.ndarray, costs: np.ndarray) -> Assisted:
    """Take costs `[K]` of points `[K, P]`, of any generation; NaN for those that failed."""
    known, samples = state.costs.copy(), state.samples
    for point, cost in zip(x, costs, strict=True):
        (place,) = np.nonzero(np.all(state.x == point, axis=1) & np.isnan(known))
        if len(place):
            known[place[0]] = cost if np.isfinite(cost) else np.inf
        elif np.isfinite(cost):  # late
            samples = joined(samples, CostSamples(to_unit(space, point[None]), cost[None]))
    return state._replace(samples=samples, costs=known)


def advance(
    random: np.random.Generator, space: Space, state: Assisted
) -> tuple[Assisted, float | None]:
    """Hand out more of the generation, or let CMA-ES learn from it and draw the next one.

    Returns the state, whose draws are None where CMA-ES has converged, and the least cost of a
    generation that is complete, else None.
    """
    with one_thread():
        size, is_known = len(state.costs), np.isfinite(state.costs)
        new = is_known & ~state.is_sample  # in their own order, not in that of their costs
        points = CostSamples(state.points[new], state.costs[new])
        state = state._replace(samples=joined(state.samples, points), is_sample=is_known)
        model = _model(state.samples, size)
        compared = int(min(1.2 * is_known.sum(), 0.75 * size))
        if not state.is_handed.all() and not (
            model is not None
            and is_known.any()
            and quadratic.concordance(model, state.samples, compared) >= AGREEMENT
        ):
            number = state.is_handed.sum()
            return _handed(state, model, -(-number // 2)), None
        least = float(np.min(finite(state.costs)))
        polish = cma.advance(random, state.polish, _values(state, model, least))
        if polish.draws is None:
            return state._replace(polish=polish), least
        if model is not None:
            polish = cma.injected(polish, np.clip(model.lowest(), 0, 1))
        return _generation(space, state.samples, polish, model), least


def _model(samples: CostSamples, size: int) -> Quadratic | None:
    return quadratic.fit(samples, size) if len(samples.costs) > 1 else None


def _values(state: Assisted, model: Quadratic | None, least: float) -> np.ndarray:
    """Return the costs `[N]` that CMA-ES learns from, NaN for those that failed."""
    if model is None or not np.any(np.isnan(state.costs)):
        return np.where(np.isinf(state.costs), np.nan, state.costs)
    predicted = model.predict(state.points)
    values = predicted - predicted.min() + least
    return np.where(np.isinf(state.costs), np.nan, values)


def _generation(
    space: Space, samples: CostSamples, polish: Polish, model: Quadratic | None
) -> Assisted:
    x = parameters(space, polish.points)
    size, nothing = len(x), np.zeros(len(x), bool)
    state = Assisted(
        samples=samples,
        polish=polish,
        x=x,
        points=to_unit(space, x),
        costs=np.full(size, np.nan),
        is_handed=nothing,
        is_sample=nothing,
        places=np.empty(0, int),
    )
    number = int(1 + max(0.02 * size, FIRST - len(samples.costs)))
    return _handed(state, model, number)


def _handed(state: Assisted, model: Quadratic | None, number: int) -> Assisted:
    """Hand out so many points more, those that are best by the model."""
    (rest,) = np.nonzero(~state.is_handed)
    if model is not None:
        rest = rest[np.argsort(model.predict(state.points[rest]), kind="stable")]
    is_handed = state.is_handed.copy()
    is_handed[rest[:number]] = True
    return state._replace(is_handed=is_handed, places=rest[:number])
