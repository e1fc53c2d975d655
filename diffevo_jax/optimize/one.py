"""The search for one optimum: rounds of a global stage and CMA-ES, the next of twice the size.

Of few evaluations a model makes more: of categories, before CMA-ES; of numbers, within it.

A `SearchForOne` waits for the costs of its points; `advance` takes them and gives the next. It
never ends by itself: the caller counts evaluations.
"""

from typing import Any, Literal, NamedTuple

import numpy as np

from diffevo_jax.optimize import assisted, cma, stage, surrogate
from diffevo_jax.optimize.arrays import CostSamples, finite, joined
from diffevo_jax.optimize.assisted import Assisted
from diffevo_jax.optimize.cma import Polish
from diffevo_jax.optimize.space import Space, parameters, to_unit
from diffevo_jax.optimize.stage import Stage
from diffevo_jax.optimize.surrogate import Allows, Surrogate

# CMA-ES has converged when its best costs change by less than this share of the stage's range.
FLAT = 1e-13
# Evaluations a parameter, up to which a model helps; costs, and parameters, that it can hold.
FEW = 100
HELD, HELD_PARAMETERS = 2000, 100


class SearchForOne(NamedTuple):
    """Where a search stands.

    phase: what the points belong to: the guesses, the model, the global stage, or CMA-ES, assisted
        by a model or not.
    space: that of the parameters, for the models.
    evaluations, least: the budget, and the deviation `[D]` that whole numbers keep.
    is_constrained: whether some points must not be evaluated, or have costs that say so.
    guesses, guess_x: points to begin with, `[F, D]`, and their values, `[F, P]`.
    guess_costs: their costs `[F]`, NaN for those without one.
    first, first_cost: the best of the guesses and of what was known, `[D]`, and its cost.
    known: what was known before the search. step: CMA-ES' first deviation around `first`, of the
        cube's side, where no global stage comes before it; 0 for the usual way.
    given: costs `[N]` of those points that are known, NaN for the others; None for none.
    round: number of the round, from 0. model, stage, assisted, polish: what waits for costs in
        their phases.
    bests, scale: by which CMA-ES has converged, see `is_flat`.
    """

    phase: Literal["guesses", "model", "global", "assisted", "local"]
    space: Space
    evaluations: int
    least: np.ndarray
    is_constrained: bool
    guesses: np.ndarray
    guess_x: np.ndarray
    first: np.ndarray
    first_cost: float
    known: CostSamples
    step: float = 0.0
    guess_costs: np.ndarray = np.empty(0)
    given: np.ndarray | None = None
    round: int = 0
    model: Surrogate | None = None
    stage: Stage | None = None
    assisted: Assisted | None = None
    polish: Polish | None = None
    bests: np.ndarray | None = None
    scale: float = 0.0

    @property
    def x(self) -> np.ndarray:
        """The values `[N, P]` of the points to evaluate next; the model's are proposals."""
        if self.phase == "guesses":
            return self.guess_x
        model = self.model or self.assisted
        if model is not None:
            return model.proposals
        waiting = self.stage or self.polish
        assert waiting is not None
        return parameters(self.space, waiting.points)

    @property
    def learns_at_once(self) -> bool:
        """Whether costs are learned as they come, in any order; `advance` draws alone."""
        return self.phase in ("model", "assisted")

    @property
    def has_more(self) -> bool:
        """Whether the next points can be drawn before the costs of the last ones are known."""
        if self.assisted is not None:
            return not self.assisted.is_handed.all()
        return self.phase in ("guesses", "model")


def begin(
    random: np.random.Generator,
    space: Space,
    guesses: np.ndarray,
    guess_x: np.ndarray,
    known: CostSamples,
    step: float,
    evaluations: int,
    least: np.ndarray,
    is_constrained: bool,
    allows: Allows,
) -> SearchForOne:
    """Begin with points `[F, D]` of the unit cube, and with what is known; one of them at least.

    guess_x: the points' values, `[F, P]`. allows: which values `[N, P]` may be evaluated, `[N]`.
    """
    first, first_cost = _best(joined(known, CostSamples(guesses, np.full(len(guesses), np.nan))))
    state = SearchForOne(
        "guesses",
        space,
        evaluations,
        least,
        is_constrained,
        guesses,
        guess_x,
        first,
        first_cost,
        known,
        float(step),
    )
    return state if len(guesses) else _begin_round(random, state, allows)


def guessed(state: SearchForOne, points: np.ndarray, costs: np.ndarray) -> SearchForOne:
    """Take the costs `[F]` of guesses, `[F, D]`."""
    best = CostSamples(state.first[None], np.array([state.first_cost]))
    first, first_cost = _best(joined(best, CostSamples(points, costs)))
    return state._replace(first=first, first_cost=first_cost)


def advance(
    random: np.random.Generator, state: SearchForOne, costs: np.ndarray, allows: Allows
) -> SearchForOne:
    """Take the costs `[N]`, NaN for those without one, and draw the next points."""
    state = state._replace(given=None)
    if state.phase == "guesses":
        state = guessed(state._replace(guess_costs=costs), state.guesses, costs)
        return _begin_round(random, state, allows)
    if state.phase == "global":
        assert state.stage is not None
        after = stage.advance(state.stage, costs)
        state = state._replace(stage=after)
        return _polish_best(random, state, after.samples) if after.points is None else state
    if state.phase == "model":
        assert state.model is not None
        model = state.model
        if len(model.costs) < min(surrogate.MOST, state.evaluations):
            return state._replace(model=surrogate.advance(random, state.space, model, allows))
        return _polish_modelled(random, state, model)
    assert state.bests is not None
    if state.phase == "assisted":
        assert state.assisted is not None
        whole, best = assisted.advance(random, state.space, state.assisted)
        if best is None:
            return state._replace(assisted=whole)
        bests = append(state.bests, best)
        scale = float(np.ptp(finite(whole.samples.costs)))
        if whole.polish.draws is None or is_flat(bests, scale):
            return _begin_next_round(random, state, allows)
        if len(whole.samples.costs) < _most_held(state.space):
            return state._replace(assisted=whole, bests=bests)
        state = state._replace(phase="local", assisted=None, polish=whole.polish)
        return state._replace(bests=bests, scale=scale)
    assert state.polish is not None
    bests = append(state.bests, np.min(finite(costs)))
    if not is_flat(bests, state.scale):
        polish = cma.advance(random, state.polish, costs)
        if polish.draws is not None:
            return state._replace(polish=polish, bests=bests)
    return _begin_next_round(random, state, allows)


def chosen(state: SearchForOne, x: np.ndarray) -> SearchForOne:
    """Note which point `[P]` is evaluated of those that the model proposes."""
    assert state.model is not None
    return state._replace(model=surrogate.chosen(state.model, x))


def learned(state: SearchForOne, x: np.ndarray, costs: np.ndarray) -> SearchForOne:
    """Take costs `[K]` of points `[K, P]` of a model, NaN for those without one."""
    if state.assisted is not None:
        return state._replace(assisted=assisted.learned(state.space, state.assisted, x, costs))
    assert state.model is not None
    return state._replace(model=surrogate.learned(state.model, x, costs))


def is_local(space: Space, evaluations: int, is_constrained: bool) -> bool:
    """Whether CMA-ES begins at once, in the middle of the box, for a model knows more."""
    return evaluations <= FEW * space.num_values and is_assisted(space, is_constrained)


def is_assisted(space: Space, is_constrained: bool) -> bool:
    """Whether a model helps CMA-ES at first: of numbers that all may be evaluated."""
    is_plain = not (is_constrained or space.has_categories or np.isfinite(space.size))
    return is_plain and space.num_genes <= HELD_PARAMETERS and cma.is_pycma(space.num_genes)


def replaced(state: SearchForOne, places: np.ndarray, points: np.ndarray) -> SearchForOne:
    """Put other points, `[K, D]`, at places `[K]`."""
    if state.stage is not None:
        return state._replace(stage=stage.replaced(state.stage, places, points))
    if state.polish is not None:
        return state._replace(polish=cma.replaced(state.polish, places, points))
    guesses, guess_x = state.guesses.copy(), state.guess_x.copy()
    guesses[places], guess_x[places] = points, parameters(state.space, points)
    return state._replace(guesses=guesses, guess_x=guess_x)


def _begin_round(random: np.random.Generator, state: SearchForOne, allows: Allows) -> SearchForOne:
    """Begin a global stage; CMA-ES where there is a step, or more is known than it would sample."""
    num_genes = state.guesses.shape[1]
    num_values = state.space.num_values
    if state.step or is_local(state.space, state.evaluations, state.is_constrained):
        start = random.uniform(size=num_genes) if state.round else state.first
        spread = np.full(num_genes, state.step or assisted.SPREAD)
        return _polish(random, state, start, spread, state.known)
    is_few = state.evaluations <= FEW * num_values
    if state.round == 0 and is_few and state.space.has_categories:
        known = np.reshape(parameters(state.space, state.known.points), (-1, num_values))
        x = np.concatenate([known, state.guess_x])
        costs = np.concatenate([state.known.costs, state.guess_costs])
        model = surrogate.begin(random, state.space, x, costs, state.evaluations, allows)
        return state._replace(phase="model", model=model)
    size, levels = stage.sizes(state.evaluations, num_genes)
    if len(state.known.costs) >= size * levels:
        return _polish_best(random, state, state.known)
    first = stage.begin(random, size * 2**state.round, levels, num_genes, stage.consensus_evolution)
    state = state._replace(phase="global", stage=first)
    number = min(len(state.known.costs), size // 2)
    if not number:
        return state
    # The best of what is known takes part in the first generation, and is not paid for.
    order = np.argsort(state.known.costs)
    best, rest = (state.known.points[part] for part in (order[:number], order[number:]))
    given = np.full(size, np.nan)
    given[:number] = state.known.costs[order[:number]]
    return state._replace(
        stage=stage.replaced(first, np.arange(number), best),
        known=CostSamples(rest, state.known.costs[order[number:]]),
        given=given,
    )


def _begin_next_round(
    random: np.random.Generator, state: SearchForOne, allows: Allows
) -> SearchForOne:
    nothing = CostSamples(state.known.points[:0], state.known.costs[:0])
    after = state._replace(round=state.round + 1, known=nothing, step=0.0)
    return _begin_round(random, after._replace(assisted=None, polish=None), allows)


def _polish_modelled(
    random: np.random.Generator, state: SearchForOne, model: Surrogate
) -> SearchForOne:
    """Begin CMA-ES at the best that the model has found."""
    points = np.reshape(to_unit(state.space, model.x), (-1, state.space.num_genes))
    samples = CostSamples(points, np.where(np.isfinite(model.costs), model.costs, np.nan))
    spread = np.full(points.shape[1], stage.SAMPLE_SPREAD)
    return _polish(random, state._replace(model=None), _best(samples)[0], spread, samples)


def _polish_best(
    random: np.random.Generator, state: SearchForOne, samples: CostSamples
) -> SearchForOne:
    """Begin CMA-ES at the best of samples, or at a guess that is better than all of them."""
    levels = stage.LEVELS if state.stage is None else state.stage.levels
    whole = samples if state.stage is None else joined(samples, state.known)
    start, spread = stage.start_of(whole.points, whole.costs, levels)
    if state.round == 0 and state.first_cost < np.fmin.reduce(samples.costs, initial=np.inf):
        start = state.first
    return _polish(random, state, start, spread, whole)


def _polish(
    random: np.random.Generator,
    state: SearchForOne,
    start: np.ndarray,
    spread: np.ndarray,
    samples: CostSamples,
) -> SearchForOne:
    """Begin CMA-ES; a model of the round's samples helps it, while it can hold them."""
    size = cma.default_size(len(start)) * 2**state.round
    polish = cma.begin(random, start, spread, size, state.least)
    bests = np.full(window(size, len(start)), np.nan)
    state = state._replace(stage=None, bests=bests)
    most = _most_held(state.space)
    is_early = state.round == 0 or state.evaluations <= most
    if is_early and len(samples.costs) < most and is_assisted(state.space, state.is_constrained):
        if state.round == 0:
            samples = joined(samples, CostSamples(state.guesses, state.guess_costs))
        whole = assisted.begin(state.space, polish, samples)
        return state._replace(phase="assisted", assisted=whole)
    scale = float(np.ptp(finite(samples.costs)))
    return state._replace(phase="local", polish=polish, scale=scale)


def _most_held(space: Space) -> int:
    return min(HELD, FEW * space.num_values)


def _best(samples: CostSamples) -> tuple[np.ndarray, float]:
    """Return the sample of the least cost, the first one where there is no cost."""
    costs = np.ravel(samples.costs)
    place = int(np.argmin(np.where(np.isnan(costs), np.inf, costs)))
    return samples.points[place], float(costs[place])


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
