"""The search for every optimum: sample, pick the basins, polish them side by side.

It goes in rounds, each twice as large as the one before, until the caller ends it. A niche that is
not polished when its round ends goes on in the next one; one that ends above the best begins again,
with more individuals. A `SearchForAll` waits for the costs of its points;
`advance` takes them and gives the next.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import scipy

from diffevo_jax import schedules
from diffevo_jax.algorithm import Algorithm
from diffevo_jax.denoisers import posterior_mean
from diffevo_jax.denoising import denoising_evolution
from diffevo_jax.fitness import standardised
from diffevo_jax.kernels import gaussian
from diffevo_jax.optimize import cma, niches, stage
from diffevo_jax.optimize.arrays import CostSamples, finite, joined
from diffevo_jax.optimize.basins import BEST, TREE, basins, distinct, near_optima, nearest_other
from diffevo_jax.optimize.niches import Draws, Niches
from diffevo_jax.optimize.stage import Stage
from diffevo_jax.samplers import ddim

# The first round's even sample for each parameter. Shares of later ones: around optima, and where
# a pattern of optima would have another; of L optima, best first, it is seen in those of index
# L u^BIASED, u from U(0, 1).
FIRST = 100
AROUND = 0.5
PATTERN = 0.1
BIASED = 3
# An evolution's share of all evaluations, in rounds whose even sample is twice as large.
EVOLVED = 0.05
LEVELS = 10
TEMPERATURE = 1.0
# Niches' evaluations for each that is sampled; the shares of new niches, which get PROBE
# generations, and of those that begin again, of some RUN generations.
LOCAL = 2.0
PROBED = 0.4
AGAIN = 0.5
PROBE = 10
# In more dimensions than TREE samples say little: their number does not grow, and a round's new
# niches but LEAST begin anywhere, with a step from STEPS, as in BIPOP-CMA-ES's small regime (Hansen
# 2009, 10.1145/1570256.1570333). Most end soon, in reach of a known optimum; the others are in
# basins that no sample shows. A round is no larger than 2^GROWS first ones.
GROWS = 4
STEPS = 0.02, 0.1  # of the cube's side, evenly on a log scale
WAY = np.array([0.25, 0.5, 0.75])  # from a new niche to the nearest optimum
LEAST = 4  # new niches of a round
RUN = 50
TOGETHER = 400  # points of a generation of all niches
# Individuals, of CMA-ES's default; the default itself where niches have no models, but for searches
# of fewer than ENOUGH evaluations a parameter. How many times more where a search begins again.
SIZE = 2.0
ENOUGH = 2000
MORE = 3
# An optimum is as good as the best within this share of what typical samples are above it. A niche
# ends when its costs differ by FLAT of its own range, its model is off by SURE of that, or its
# costs differ by LOOSE of what it is above the best; those that are FINE wait for the others, and
# get DEEP of a round. Where it may lead is below its best by OPTIMISM times how far that is below
# the median.
TOLERANCE = 1e-5
FLAT = 1e-15
SURE = 1e-12
FINE = 1e-9
DEEP = 0.25
LOOSE = 0.03
OPTIMISM = 4.0
STALE = 30  # generations without a better cost, and as many evaluations for each parameter
MERGED = 1e-3  # of the cube's side
EDGE = 1e-6
UNSETTLED = 10  # niches that have ended, of which one should have settled


class Archive(NamedTuple):
    """Optima of niches that have ended, A of them.

    points: `[A, D]`. costs: `[A]`. spreads, sizes: first step and individuals of the run, `[A]`.
    """

    points: np.ndarray
    costs: np.ndarray
    spreads: np.ndarray
    sizes: np.ndarray


class SearchForAll(NamedTuple):
    """Where a search stands.

    phase: what the points belong to: the guesses, an even sample, the evolution, the ways from new
        niches to optima, or the niches.
    evaluations: the budget. points: to evaluate next, `[N, D]` in the unit cube.
    samples: all points but those of niches. optima: of niches that ended. niches: the others.
    used: evaluations so far. round: its number. sampled: its size, as an even sample's. left:
        evaluations that are left for its niches.
    settled, unsettled: niches that ended when their costs had settled; stale ones, and doubles.
    stage, new, draws: what waits for costs in their phases.
    """

    phase: Literal["guesses", "even", "global", "valleys", "local"]
    evaluations: int
    points: np.ndarray
    samples: CostSamples
    optima: Archive
    niches: Niches
    used: int = 0
    round: int = -1
    sampled: int = 0
    left: int = 0
    settled: int = 0
    unsettled: int = 0
    stage: Stage | None = None
    new: Niches | None = None
    draws: Draws | None = None


def begin(guesses: np.ndarray, known: CostSamples, evaluations: int) -> SearchForAll:
    """Begin with points `[F, D]` of the unit cube, and with what is known."""
    none = np.empty(0)
    archive = Archive(guesses[:0], none, none, np.empty(0, int))
    nothing = niches.begin(guesses[:0], none, none, np.empty(0, int))
    return SearchForAll("guesses", evaluations, guesses, known, archive, nothing)


def advance(random: np.random.Generator, state: SearchForAll, costs: np.ndarray) -> SearchForAll:
    """Take the costs `[N]`, NaN for those without one, and draw the next points."""
    state = state._replace(used=state.used + len(costs))
    if state.phase == "local":
        return _go_on(random, _learned(state, costs))
    if state.phase == "valleys":
        return _go_on(random, _begun(state, costs))
    if state.phase == "global":
        assert state.stage is not None
        hidden = near_optima(state.points, _centres(state.optima))
        after = stage.advance(state.stage, costs, hidden)
        if after.points is not None:
            return state._replace(stage=after, points=after.points)
        state = state._replace(samples=joined(state.samples, after.samples), stage=None)
        return _with_niches(random, state)
    state = state._replace(samples=joined(state.samples, CostSamples(state.points, costs)))
    if state.phase == "guesses":
        return _even(random, state)
    size = int(EVOLVED * state.evaluations / LEVELS)
    if size < 2 or len(state.points) < 2 * LEVELS * size:
        return _with_niches(random, state)
    first = stage.begin(random, size, LEVELS, state.points.shape[1], plain_evolution)
    assert first.points is not None
    return state._replace(phase="global", stage=first, points=first.points)


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


def known_optima(state: SearchForAll) -> CostSamples:
    """Return what is known of optima, distinct or not: of ended niches and of promising ones."""
    going = state.niches
    promises = (going.age >= PROBE) & (_least(going) <= _good(state))
    return CostSamples(
        np.concatenate([state.optima.points, going.best[promises]]),
        np.concatenate([state.optima.costs, going.cost[promises]]),
    )


def remark(state: SearchForAll) -> str:
    """Say what is odd about the costs; nothing where nothing is."""
    costs = state.samples.costs[np.isfinite(state.samples.costs)]
    if len(costs) > 1 and np.ptp(costs) == 0:
        return "; the cost is the same everywhere"
    if not state.settled and state.unsettled >= UNSETTLED:
        return "; costs settle nowhere: is it another one at each evaluation?"
    best = state.optima.points[np.argsort(state.optima.costs)[:1]]
    if np.any((best < EDGE) | (best > 1 - EDGE)):
        return "; the best is at a side of the box"
    return ""


def _even(random: np.random.Generator, state: SearchForAll) -> SearchForAll:
    """Sample evenly, and around optima as far as the next one is."""
    num_genes, number = state.points.shape[1], state.round + 1
    first = int(np.clip(state.evaluations // 10, 2, FIRST * num_genes))
    # The last round is one that fits, with niches that may take less than they could.
    expected = LOCAL if state.left <= 0 else LOCAL / 4
    rest = int((state.evaluations - state.used) / (1 + expected))
    sampled = max(first, min(first * 2**number, rest))
    size = sampled
    if num_genes > TREE:
        sampled, size = min(sampled, first * 2**GROWS), first
    points = random.uniform(size=(size, num_genes))
    centres = _centres(state.optima)
    if len(centres) > 1:
        chosen = random.integers(len(centres), size=int(AROUND * size))
        spread = nearest_other(centres)[chosen, None] / num_genes**0.5
        away = spread * random.standard_normal((len(chosen), num_genes))
        points[: len(chosen)] = cma.into_cube(cma.out_of_cube(centres[chosen]) + away)
        pattern = _pattern(random, centres, state.samples.points, int(PATTERN * size))
        points[size - len(pattern) :] = pattern
    return state._replace(phase="even", points=points, round=number, sampled=sampled)


def _pattern(
    random: np.random.Generator, centres: np.ndarray, samples: np.ndarray, number: int
) -> np.ndarray:
    """Draw up to so many points where a pattern of optima would have another one.

    Each is as far from an optimum as two others are from each other. centres: of optima `[L, D]`,
    best first. samples: `[M, D]`, beside which none is drawn.
    """
    draws = random.uniform(size=(3, number)) ** BIASED
    one, here, there = centres[(len(centres) * draws).astype(int)]
    points = one + here - there
    points = points[np.all((points >= 0) & (points <= 1), axis=1)]
    points = points[np.unique(np.round(points / MERGED), axis=0, return_index=True)[1]]
    known = scipy.spatial.KDTree(np.concatenate([centres, samples]))
    return points[np.isinf(known.query(points, distance_upper_bound=2 * MERGED)[0])]


def _with_niches(random: np.random.Generator, state: SearchForAll) -> SearchForAll:
    """Begin the round's niches: in basins that have none, and again where others are trapped.

    Samples tell basins apart so badly that most have an optimum that is known; the cost on the way
    to the nearest one tells more. In many dimensions, where samples are far above all optima, it
    does not, and most niches begin anywhere.
    """
    state = state._replace(left=int(LOCAL * state.sampled))
    state = _begun_again(state, AGAIN * state.left)
    going, optima, num_genes = state.niches, state.optima, state.points.shape[1]
    size = cma.default_size(num_genes)
    if num_genes <= niches.MODELLED or state.evaluations < ENOUGH * num_genes:
        size = round(SIZE * size)
    found = CostSamples(
        np.concatenate([optima.points, going.best]), np.concatenate([optima.costs, going.cost])
    )
    samples = state.samples
    if num_genes > TREE:
        # The best samples, which are compared there, must not all be of the optima found.
        away = ~near_optima(samples.points, _centres(_taken(optima, optima.costs <= _good(state))))
        samples = _taken(samples, away) if np.sum(away) > BEST else samples
    most = max(LEAST, int(PROBED * state.left / (PROBE * size)))
    starts, costs, radii = basins(samples, found, most if num_genes <= TREE else LEAST)
    spreads = radii / (2 * num_genes) ** 0.5
    if num_genes > TREE:
        anywhere = random.uniform(size=(most - len(starts), num_genes))
        steps = np.exp(random.uniform(*np.log(STEPS), size=len(anywhere)))
        starts = np.concatenate([starts, anywhere])
        costs = np.concatenate([costs, np.full(len(anywhere), np.inf)])
        spreads = np.concatenate([spreads, steps])
    new = niches.begin(starts, costs, spreads, np.full(len(starts), size))
    if num_genes > TREE or not len(found.costs) or not len(starts):
        return _go_on(random, state._replace(niches=_joined(going, new)))
    near = scipy.spatial.KDTree(found.points).query(starts)[1]
    ways = starts[:, None] + WAY[:, None] * (found.points[near] - starts)[:, None]
    return state._replace(phase="valleys", points=ways.reshape(-1, num_genes), new=new)


def _begun(state: SearchForAll, costs: np.ndarray) -> SearchForAll:
    """Begin the new niches from which the way to an optimum, of these costs, is not all descent."""
    assert state.new is not None
    highest = np.where(np.isnan(costs), np.inf, costs).reshape(-1, len(WAY)).max(axis=1)
    new = _taken(state.new, highest > state.new.cost)
    left = state.left - len(costs)
    return state._replace(niches=_joined(state.niches, new), left=left, new=None)


def _begun_again(state: SearchForAll, evaluations: float) -> SearchForAll:
    """Begin again where optima are worse than the best, and none that is better is near.

    Those of rank r and size N in the order of (r + 1) N, so that the best of them has more runs.
    """
    optima, good, num_genes = state.optima, _good(state), state.points.shape[1]
    order = np.argsort(optima.costs)
    trapped = []
    for rank, place in enumerate(order):
        if optima.costs[place] > good:
            away = np.linalg.norm(optima.points[order[:rank]] - optima.points[place], axis=1)
            is_alone = np.all(away >= optima.spreads[place] * num_genes**0.5)
            # Where rounds do not grow, a run must fit into one.
            fits = num_genes <= TREE or MORE * optima.sizes[place] * RUN <= state.left
            if is_alone and fits:
                trapped.append(place)
    if not trapped:
        return state
    places = np.array(trapped)
    places = places[np.argsort((1 + np.arange(len(places))) * optima.sizes[places])]
    sizes = MORE * optima.sizes[places]
    number = np.sum(np.cumsum(sizes) <= min(TOGETHER, evaluations / RUN))
    places, sizes = places[: max(1, number)], sizes[: max(1, number)]
    chosen = _taken(optima, places)
    new = niches.begin(chosen.points, chosen.costs, chosen.spreads, sizes)
    archive = optima._replace(sizes=optima.sizes.copy())
    archive.sizes[places] = sizes
    return state._replace(niches=_joined(state.niches, new), optima=archive)


def _go_on(random: np.random.Generator, state: SearchForAll) -> SearchForAll:
    """Draw the generation of the niches that promise most; sample anew at the round's end."""
    if state.left > 0 and not len(state.niches.cost):
        state = _begun_again(state, state.left)
    if state.left <= 0 or not len(state.niches.cost):
        return _even(random, state)
    going = state.niches
    (rough,) = np.nonzero(~(going.gap <= FINE * (going.high - going.cost)))
    if not len(rough):
        rough = np.arange(len(going.cost))
        state = state._replace(left=min(state.left, int(DEEP * LOCAL * state.sampled)))
    order = rough[np.lexsort((going.cost[rough], _least(going)[rough]))]
    chosen = order[: max(1, np.sum(np.cumsum(going.size[order]) <= TOGETHER))]
    draws = niches.draw(random, going, chosen)
    return state._replace(phase="local", draws=draws, points=niches.points(going, draws))


def _learned(state: SearchForAll, costs: np.ndarray) -> SearchForAll:
    """Take the costs of the niches' generation; end those that are polished, stale or doubles."""
    assert state.draws is not None
    chosen, optima = state.draws.niches, state.optima
    going = niches.tell(state.niches, state.draws, costs)
    state = state._replace(niches=going, left=state.left - len(costs))
    ran, num_genes = _taken(going, chosen), state.points.shape[1]
    fallen, rounding = ran.high - ran.cost, 4e-16 * np.abs(ran.cost)
    is_flat = ran.gap <= np.maximum(FLAT * fallen, rounding)
    is_flat |= ran.model_error <= np.maximum(SURE * fallen, rounding)
    is_local = (_least(ran) > _good(state)) & (ran.gap <= LOOSE * (ran.cost - _lowest(state)))
    is_stale = ran.age - ran.improved > STALE * (1 + num_genes / ran.size)
    ends = is_flat | is_local | is_stale
    is_double = niches.within_reach(
        ran,
        np.concatenate([going.best, optima.points]),
        np.concatenate([going.cost, optima.costs]),
    )
    is_known = np.any(np.all(ran.best[:, None] == optima.points, axis=2), axis=1)
    is_new = ends & ~is_double & ~is_known
    new = Archive(ran.best[is_new], ran.cost[is_new], ran.spread[is_new], ran.size[is_new])
    goes_on = np.ones(len(going.cost), bool)
    goes_on[chosen[ends | is_double]] = False
    return state._replace(
        niches=_taken(going, goes_on),
        optima=_joined(optima, new),
        settled=state.settled + int(np.sum(is_flat)),
        unsettled=state.unsettled + int(np.sum((is_stale | is_double) & ~is_flat)),
    )


def _centres(optima: Archive) -> np.ndarray:
    """Return the distinct optima, `[L, D]`."""
    return optima.points[distinct(optima.points, optima.costs, MERGED)]


def _least(going: Niches) -> np.ndarray:
    """Return how low niches may lead, `[M]`: anywhere, for those that have hardly begun."""
    with np.errstate(invalid="ignore"):
        return np.where(going.age < PROBE, -np.inf, going.cost - OPTIMISM * going.gap)


def _lowest(state: SearchForAll) -> float:
    costs = state.samples.costs, state.optima.costs, state.niches.cost
    return min(np.min(part, where=np.isfinite(part), initial=np.inf) for part in costs)


def _good(state: SearchForAll) -> float:
    """Return the cost up to which an optimum is as good as the best."""
    lowest = _lowest(state)
    return lowest + TOLERANCE * max(0.0, float(np.median(finite(state.samples.costs))) - lowest)


def _joined(first: Any, second: Any) -> Any:
    return type(first)(*(np.concatenate(leaves) for leaves in zip(first, second, strict=True)))


def _taken(rows: Any, places: np.ndarray) -> Any:
    return type(rows)(*(leaf[places] for leaf in rows))
