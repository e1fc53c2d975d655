"""The search for every optimum: sample, pick the basins, polish them side by side.

It goes in rounds, until the caller ends it; a later round samples and polishes away from the
optima of the earlier ones. A `SearchForAll` waits for the costs of its points; `advance` takes them
and gives the next.
"""

from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from diffevo_jax import schedules
from diffevo_jax.algorithm import Algorithm
from diffevo_jax.denoisers import posterior_mean
from diffevo_jax.denoising import denoising_evolution
from diffevo_jax.fitness import standardised
from diffevo_jax.kernels import gaussian
from diffevo_jax.optimize import cma, stage
from diffevo_jax.optimize.arrays import CostSamples, draw_keys, finite, joined, unit_costs
from diffevo_jax.optimize.basins import basins, distinct, near_optima
from diffevo_jax.optimize.stage import Stage
from diffevo_jax.samplers import ddim

# Rounds that share the evaluations; more of the same size follow where there were few basins.
ROUNDS = 2
SAMPLED = 0.5
LEVELS = 10
TEMPERATURE = 1.0
# An optimum is polished below this share of the cube's side, or of the range of sampled costs.
PRECISE = 1e-9
FLAT = 1e-9
MERGED = 1e-3
# Generations after which a share of the niches goes on, and the evaluations they may take.
PROBE = 10
PROMISING = 0.25
PROBED = 0.3


class Niches(NamedTuple):
    """M basins, and a CMA-ES in some of them, in K slots side by side.

    start, spread: where each begins, or goes on, `[M, D]` and `[M]`. best, cost: the best point of
        its run and its cost, `[M, D]` and `[M]`. age: the generations of its run, `[M]`.
    parked: when it was put back to wait, `[M]`; NaN where it was not. probed: whether it ever was.
    begun: how many have had a slot; they take them in order.
    slots: the niche that each slot runs, `[K]`; -1 for none.
    points: those of all slots, `[K, N, D]`. searches: evosax's states, leaves `[K, ...]`.
    early: costs of all runs after PROBE generations.
    used, evaluations: evaluations so far, and in all. scale: the range of all costs.
    """

    start: np.ndarray
    spread: np.ndarray
    best: np.ndarray
    cost: np.ndarray
    age: np.ndarray
    parked: np.ndarray
    probed: np.ndarray
    begun: int
    slots: np.ndarray
    points: np.ndarray
    searches: Any
    early: np.ndarray
    used: int
    evaluations: int
    scale: float


class SearchForAll(NamedTuple):
    """Where a search stands.

    phase: what the points belong to: the guesses, an even sample, the evolution or the niches.
    evaluations: the budget. guesses: points to begin with, `[F, D]`.
    samples: all points but those of niches. optima: those that were polished to the end.
    even: the even sample, `[N, D]`. stage, niches: what waits for costs in their phases.
    """

    phase: Literal["guesses", "even", "global", "local"]
    evaluations: int
    guesses: np.ndarray
    samples: CostSamples
    optima: CostSamples
    even: np.ndarray | None = None
    stage: Stage | None = None
    niches: Niches | None = None

    @property
    def points(self) -> Any:
        """The points to evaluate next, `[N, D]` in the unit cube."""
        if self.phase == "guesses":
            return self.guesses
        if self.phase == "even":
            return self.even
        if self.phase == "global":
            assert self.stage is not None
            return self.stage.points
        assert self.niches is not None
        return self.niches.points[self.niches.slots >= 0].reshape(-1, self.guesses.shape[1])


def begin(guesses: np.ndarray, known: CostSamples, evaluations: int) -> SearchForAll:
    """Begin with points `[F, D]` of the unit cube, and with what is known."""
    nothing = CostSamples(guesses[:0], np.empty(0))
    return SearchForAll("guesses", evaluations, guesses, known, nothing)


def advance(random: np.random.Generator, state: SearchForAll, costs: np.ndarray) -> SearchForAll:
    """Take the costs `[N]`, NaN for those without one, and draw the next points."""
    if state.phase == "local":
        assert state.niches is not None
        niches, optima = _learn(random, state.niches, costs, state.optima)
        return _go_on(random, state._replace(optima=optima), niches)
    if state.phase == "global":
        assert state.stage is not None
        assert state.stage.points is not None
        hidden = near_optima(state.stage.points, state.optima.points)
        after = stage.advance(state.stage, costs, hidden)
        if after.points is not None:
            return state._replace(stage=after)
        state = state._replace(samples=joined(state.samples, after.samples), stage=None)
        return _go_on(random, state, _niches(state))
    state = state._replace(samples=joined(state.samples, CostSamples(state.points, costs)))
    if state.phase == "guesses":
        return _even(random, state)
    size = len(costs) // LEVELS
    first = stage.begin(random, size, LEVELS, state.guesses.shape[1], plain_evolution)
    return state._replace(phase="global", even=None, stage=first)


def plain_evolution(size: int, levels: int) -> Algorithm:
    """Configure the evolution that keeps many optima: under a kernel, with noise that remembers."""
    return denoising_evolution(
        schedules.cosine(levels),
        fitness_map=standardised(TEMPERATURE),
        denoiser=posterior_mean(
            gaussian(implementation="dense" if size <= stage.SMALL else "auto")
        ),
        sampler=ddim(),
    )


def merged(optima: CostSamples) -> np.ndarray:
    """Return the indices of the distinct optima, best first."""
    return distinct(optima.points, optima.costs, MERGED)


def _even(random: np.random.Generator, state: SearchForAll) -> SearchForAll:
    half = max(2 * LEVELS, int(SAMPLED * state.evaluations / ROUNDS / 2))
    points = random.uniform(size=(half, state.guesses.shape[1]))
    return state._replace(phase="even", even=points, niches=None)


def _go_on(random: np.random.Generator, state: SearchForAll, niches: Niches | None) -> SearchForAll:
    """Fill the niches' slots; sample anew where none is left, or all evaluations are made."""
    if niches is None or niches.used >= niches.evaluations or _is_done(niches):
        return _even(random, state)
    return state._replace(phase="local", niches=_filled(random, niches))


def _niches(state: SearchForAll) -> Niches | None:
    """Pick the basins of the samples that have no optimum yet; None where there is none."""
    num_genes = state.guesses.shape[1]
    size, evaluations = cma.default_size(num_genes), int((1 - SAMPLED) * state.evaluations / ROUNDS)
    slots = int(np.clip(evaluations // (100 * size), 1, 256))
    most = max(slots, int(PROBED * evaluations / (PROBE * size)))
    starts, radii = basins(state.samples, state.optima, most)
    count = len(starts)
    if count == 0:
        return None
    return Niches(
        start=starts,
        spread=radii / 2,
        best=starts,
        cost=np.full(count, np.inf),
        age=np.zeros(count, int),
        parked=np.full(count, np.nan),
        probed=np.zeros(count, bool),
        begun=0,
        slots=np.full(slots, -1),
        points=np.zeros((slots, size, num_genes)),
        searches=None,
        early=np.empty(0),
        used=0,
        evaluations=evaluations,
        scale=float(np.ptp(finite(state.samples.costs))),
    )


def _is_done(niches: Niches) -> bool:
    """Whether no niche runs, waits or is parked."""
    waits = niches.begun < len(niches.start) or np.any(~np.isnan(niches.parked))
    return not waits and bool(np.all(niches.slots < 0))


def _filled(random: np.random.Generator, niches: Niches) -> Niches:
    """Give idle slots to niches that have not begun, then to the best of those parked."""
    count, size, num_genes = niches.points.shape
    (parked,) = np.nonzero(~np.isnan(niches.parked))
    parked = parked[np.lexsort((niches.parked[parked], niches.cost[parked]))]
    queue = np.concatenate([np.arange(niches.begun, len(niches.start)), parked])
    idle = np.flatnonzero(niches.slots < 0)[: len(queue)]
    chosen = queue[: len(idle)]
    new = _copied(niches)
    new.slots[idle] = chosen
    new.age[chosen], new.cost[chosen], new.parked[chosen] = 0, np.inf, np.nan
    new.spread[chosen] = np.maximum(new.spread[chosen], 1e-6)
    anew = np.isin(np.arange(count), idle)
    keys = draw_keys(random, count)
    searches = cma.renew(keys, anew, niches.searches, size=size, num_genes=num_genes)
    draws = np.asarray(searches.population, float)
    # A slot without a niche draws around one too; its points are not evaluated.
    start, spread = new.start[new.slots], new.spread[new.slots]
    points = cma.into_cube(cma.out_of_cube(start)[:, None] + spread[:, None, None] * draws)
    begun = max(niches.begun, int(chosen.max(initial=-1)) + 1)
    return new._replace(begun=begun, points=points, searches=jax.device_get(searches))


def _learn(
    random: np.random.Generator, niches: Niches, costs: np.ndarray, optima: CostSamples
) -> tuple[Niches, CostSamples]:
    """Take the costs of the busy slots; end runs, or park those that promise little.

    After PROBE generations only the PROMISING ones go on; the others wait until all have begun.
    """
    count, size, num_genes = niches.points.shape
    busy = niches.slots >= 0
    table = np.full((count, size), np.nan)
    table[busy] = costs.reshape(-1, size)
    keys, units = draw_keys(random, count), np.stack([unit_costs(row) for row in table])
    searches = jax.device_get(cma.tell_all(keys, niches.searches, units))
    wide = niches.spread[niches.slots] * np.asarray(cma.reach_all(searches))
    flat = np.ptp(table, axis=1) <= FLAT * niches.scale

    new, used = _copied(niches), niches.used + len(costs)
    running = niches.slots[busy]
    new.age[running] += 1
    least = np.argmin(np.where(np.isnan(table), np.inf, table), axis=1)
    lowest, places = table[np.arange(count), least], niches.points[np.arange(count), least]
    better = busy & (lowest < new.cost[niches.slots])
    new.best[niches.slots[better]] = places[better]
    new.cost[niches.slots[better]] = lowest[better]
    taken = np.zeros(count, bool)
    taken[busy] = _taken(new.best[running], new.cost[running], wide[busy], optima.points)
    ended, early = [], list(niches.early)
    for slot in np.flatnonzero(busy):
        niche = niches.slots[slot]
        if flat[slot] or wide[slot] < PRECISE:
            ended.append(niche)
        elif new.age[niche] < 60 + 30 * num_genes and not taken[slot]:
            if new.probed[niche] or new.age[niche] != PROBE:
                continue
            early.append(new.cost[niche])
            if new.cost[niche] <= np.quantile(early, PROMISING):
                continue
            new.start[niche], new.spread[niche] = new.best[niche], wide[slot]
            new.parked[niche], new.probed[niche] = used + slot / count, True
        new.slots[slot] = -1
    optima = joined(optima, CostSamples(new.best[ended], new.cost[ended]))
    return new._replace(searches=searches, early=np.array(early), used=used), optima


def _copied(niches: Niches) -> Niches:
    leaves: list[Any] = [x.copy() if isinstance(x, np.ndarray) else x for x in niches]
    return Niches(*leaves)


def _taken(best: np.ndarray, cost: np.ndarray, wide: np.ndarray, optima: np.ndarray) -> np.ndarray:
    """Whether a better niche, or an optimum, is within each niche's reach, `[K]`."""
    others = np.concatenate([best, optima])
    costs = np.concatenate([cost, np.full(len(optima), -np.inf)])
    near = np.all(np.abs(others - best[:, None]) < wide[:, None, None], axis=-1)
    return np.any(near & (costs < cost[:, None]), axis=1)
