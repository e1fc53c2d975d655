"""Preset for planning: the controls of a roll-out are a genome, and its cost is what is weighed.

With a kernel of infinite width, `denoisers.consensus`, and noise without memory a step of this
library is Model-Based Diffusion (Pan, Yi, Shi, Qu 2024, https://arxiv.org/abs/2407.01573): samples
around the present plan, a weighted mean of their controls, less noise.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffevo_jax.checks import Count, InputError, Positive, check_count, check_key, check_number
from diffevo_jax.fitness import standardised
from diffevo_jax.presets._descent import (
    Candidate,
    Descent,
    check_noise,
    descend,
    falling,
    warn_without_cost,
)
from diffevo_jax.presets._system import (
    Interpolation,
    Model,
    RollOut,
    evaluator,
    first_of,
    make_model,
)
from diffevo_jax.schedules import Schedule

# How a budget is spent: several searches, of which the better half goes on, and then the best. A
# stage's share of the roll-outs, and where it begins and ends on the way of the noise, by the
# number of stages.
SEARCHES, SAMPLES, FEWEST = 8, 20, 4  # roll-outs of a search's level, and at least
SHARES = {1: (1.0,), 2: (0.4, 0.6), 3: (0.4, 0.25, 0.35)}
FALLS = {
    1: ((0.0, 1.0),),
    2: ((0.0, 0.25), (0.5, 1.0)),
    3: ((0.0, 0.25), (0.5, 2 / 3), (2 / 3, 1.0)),
}
LEVELS = 16  # of one search; as many searches as there are roll-outs for so many
LEAST = 0.28  # the first noise of the search that has least, as a share of the first noise
TEMPERATURE = 0.3  # of `standardised`
LEARNED = 256  # genes whose noise is learned, at most; a level takes their number's cube
# Plans are two where their features differ by so much of the first roll-outs' deviation.
APART = 0.5


class Plan(NamedTuple):
    """Controls for the next H steps, and what they cost.

    controls: the best plan's, `[H, m]`, within the bounds. cost: its, `[]`; NaN where no roll-out
        had a finite one. violation: by how much it breaks the constraint in all, `[]`; 0 where it
        keeps it.
    plans: all plans that were kept, best first, `[K, H, m]`. costs: theirs, `[K]`; infinite in the
        place of a plan that was not found, whose controls are the best one's. violations: `[K]`.
    """

    controls: jax.Array
    cost: jax.Array
    violation: jax.Array
    plans: jax.Array
    costs: jax.Array
    violations: jax.Array


class Stages(NamedTuple):
    """Searches, stage after stage, `[stages, ...]`, S at most in each.

    schedule: of levels `[T]`. levels: how many a search goes down, `[S]`; 0 where a stage has fewer
    searches. widths: each one's noise of alpha 0, `[S]`, in halves of the bounds. learns: whether
    the noise's shape is learned.
    """

    schedule: Schedule
    levels: np.ndarray
    widths: np.ndarray
    learns: np.ndarray


def plan(
    step_fn: Callable[[Any, jax.Array], Any] | None = None,
    stage_cost: Callable[[Any, jax.Array], ArrayLike] | None = None,
    terminal_cost: Callable[[Any], ArrayLike] | None = None,
    *,
    horizon: Count,
    bounds: Sequence[tuple[float, float]],
    rollout_cost: Callable[[Any, jax.Array], ArrayLike] | None = None,
    rollouts: Count = 10_240,
    num_samples: Count | None = None,
    knots: Count | None = None,
    interpolation: Interpolation = "cubic",
    num_plans: Count = 1,
    features: Callable[[Any, jax.Array], ArrayLike] | None = None,
    constraint: Callable[[Any, jax.Array], ArrayLike] | None = None,
    demonstration: Any = None,
    noise: tuple[float, float] = (1.5, 0.02),
    temperature: Positive = TEMPERATURE,
) -> Callable[[jax.Array, Any], Plan]:
    """Make a planner: from a system and its cost to controls over a horizon, by roll-outs alone.

        planner = de.presets.plan(step_fn, stage_cost, horizon=50, bounds=[(-1, 1), (-1, 1)])
        plan = planner(key, state)

    The planner, (key, state) -> `Plan`, is a pure function, compiled once for states of one shape,
    and runs inside jit and vmap. Several searches, some in wide noise and some in narrow, settle in
    whatever valley they meet; the better half goes on, then the best one, or as many plans as are
    to be kept. A step is `denoisers.consensus` with `samplers.ddim(freshness=1)`: that
    of Model-Based Diffusion (arXiv 2407.01573), under noise that falls geometrically. Those that go
    on learn the noise's covariance from the roll-outs that weigh, as CMA-ES's rank-mu update does
    (Hansen, arXiv 1604.00772): its size is the schedule's, its shape the valley's.

    step_fn: (state, control `[m]`) -> the next state, a pytree of the same shapes and dtypes.
    stage_cost: (state, control) -> cost `[]`, lower is better, summed over the H states that
        controls are applied in. terminal_cost: state -> cost `[]` of the last state.
    horizon: H, steps that are planned. bounds: (low, high) of each of the m controls.
    rollout_cost: (state, controls `[H, m]`) -> cost `[]`, in the place of step_fn and stage_cost.
        A cost that is NaN or infinite gives its roll-out no weight.
    rollouts: the budget in all. num_samples: roll-outs of a search's level; None has 20, or fewer
        where the budget is small. The levels are as many as fit.
    knots: controls are a spline through so many points, evenly over the horizon; None has one for
        every step. Few knots are smooth plans, which fewer roll-outs find.
    interpolation: between knots, "cubic" (a natural spline) or "linear".
    num_plans: K plans to keep at once, such as left and right of an obstacle. They are two where
        their features differ by half the deviation that the first roll-outs' features have.
    features: (states, controls) -> `[d]`, what tells plans apart; states: the path of H + 1, a
        pytree of arrays `[H + 1, ...]`. None is the mean state; the controls with rollout_cost.
    constraint: (state, control) -> violations, any shape; 0 or less is kept. It is asked of each
        state that a control leads to. Plans that keep it come before all that do not, whatever
        their cost, and those that break it less before those that break it more.
    demonstration: controls `[H, m]`, or a path of states, a pytree of arrays `[H + 1, ...]`. A
        roll-out weighs as its cost says or, where that is more, as the demonstration's cost and its
        closeness to the demonstration say (MBD's third section); so it guides the search until the
        search has found better.
    noise: standard deviation at the first level and at the last, in halves of the bounds; one
        of the searches begins at .28 of the first, the others between.
    temperature: of `fitness.standardised`.

    Outside jit, warns where no roll-out had a finite cost.
    Raises InputError, here or as the planner is called, naming the argument, expected and seen.
    """
    model = make_model(
        step_fn,
        stage_cost,
        terminal_cost,
        horizon=horizon,
        bounds=bounds,
        rollout_cost=rollout_cost,
        knots=knots,
        interpolation=interpolation,
        features=features,
        many=check_count("num_plans", num_plans) > 1,
        constraint=constraint,
        demonstration=demonstration,
    )
    check_number("temperature", temperature, 0, math.inf, closed="()")
    size, counts = _sizes(rollouts, num_samples, num_plans)
    stages = _stages(check_noise(noise), rollouts, size, counts)
    num_genes, most = model.num_genes, counts[0]
    learned = len(counts) > 1 and num_genes <= LEARNED

    def search(key: jax.Array, state: Any) -> Plan:
        evaluate = evaluator(model, state)

        # All searches are turns of one loop: to compile a search takes longer than to run them.
        def stage(begin: Any, given: tuple[jax.Array, Stages]) -> tuple[Any, Any]:
            genomes, shapes, is_plan = begin
            key, (schedule, levels, widths, learns) = given

            def run(search: Any) -> Descent:
                key, levels, width, genome, shape = search
                return descend(
                    *(key, evaluate, schedule, levels),
                    size=size,
                    origin=genome,
                    width=width,
                    fitness_map=standardised(temperature),
                    shape=shape,
                    learns=learns,
                )

            keys = jax.random.split(key, most)
            ends = jax.lax.map(run, (keys, levels, widths, genomes, shapes))
            apart = APART * jnp.mean(ends.spread, axis=0) if num_plans > 1 else None
            rows, is_other = _choose(ends.best.outcome, jnp.ones(most, bool), apart)
            onwards = jax.tree.map(lambda leaf: leaf[rows], (ends.best.genome, ends.shape))
            return (*onwards, is_other), (ends.best, is_plan)

        shape = jnp.broadcast_to(jnp.eye(num_genes), (most, num_genes, num_genes))
        begin = jnp.zeros((most, num_genes)), shape if learned else None, jnp.ones(most, bool)
        keys = jax.random.split(key, len(counts))
        _, found = jax.lax.scan(stage, begin, (keys, stages))
        return _finished(model, *jax.tree.map(lambda leaf: leaf[-1, :num_plans], found))

    compiled = jax.jit(search)

    def planner(key: jax.Array, state: Any) -> Plan:
        """Plan from a state; see `presets.plan`."""
        found = compiled(check_key(key), model.check(state))
        warn_without_cost("presets.plan", found.cost)
        return found

    return planner


def _finished(model: Model, found: Candidate, is_plan: jax.Array) -> Plan:
    """Sort plans, `[K]`, the best one first; `is_plan` says which of them were found."""
    finite = jnp.isfinite(found.outcome.cost) & jnp.isfinite(found.outcome.violation)
    rows, is_found = _choose(found.outcome, is_plan & finite)
    plans = jax.vmap(model.controls)(found.genome[rows])
    cost, violation = found.outcome.cost[rows], found.outcome.violation[rows]
    return Plan(
        *(plans[0], cost[0], violation[0], plans),
        costs=jnp.where(is_found, cost, jnp.inf),
        violations=jnp.where(is_found, violation, jnp.inf),
    )


def _choose(
    outcome: RollOut, among: jax.Array, apart: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Sort roll-outs `[C]`: the best, then the best of those far from all before.

    among: `[C]`, which of them count. apart: `[d]`, two are far where a feature differs by more;
    None: all are. Returns rows `[C]`, and whether each is another plan; where none is left, the
    best one's.
    """
    best = first_of(outcome, among)

    def pick(left: jax.Array, _: None) -> tuple[jax.Array, Any]:
        is_other = jnp.any(left)
        row = jnp.where(is_other, first_of(outcome, left), best)
        left = left.at[row].set(False)
        if apart is not None:
            gap = jnp.abs(outcome.features - outcome.features[row])
            left = left & jnp.any(gap > apart, axis=1)
        return left, (row, is_other)

    return jax.lax.scan(pick, among, length=len(among))[1]


def _sizes(rollouts: int, num_samples: int | None, num_plans: int) -> tuple[int, list[int]]:
    """Return the roll-outs of a search's level, and the number of searches by stage."""
    check_count("rollouts", rollouts)
    most = SEARCHES if num_plans == 1 else max(SEARCHES, 2 * num_plans)
    fewest = 1 if num_plans == 1 else most
    if num_samples is None:
        num_samples = min(SAMPLES, max(FEWEST, rollouts // (LEVELS * fewest)))
    check_count("num_samples", num_samples, least=FEWEST)
    searches = max(fewest, min(most, rollouts // (LEVELS * num_samples)))
    counts = [searches]
    if num_plans == 1 and searches >= 4:
        counts.append(searches // 2)
    if searches > num_plans:
        counts.append(num_plans)
    shares = SHARES[len(counts)]
    # Two levels of every stage.
    needed = (math.ceil(2 * num_samples * n / s) for n, s in zip(counts, shares, strict=True))
    if rollouts < (least := max(needed)):
        raise InputError("rollouts", f"at least {least}, for what else is set", rollouts)
    return num_samples, counts


def _stages(noise: tuple[float, float], rollouts: int, size: int, counts: list[int]) -> Stages:
    """Spend the budget, down from the first noise to the last."""
    wide, narrow = noise
    number, most = len(counts), counts[0]
    noises, levels = [], []
    for searches, share, fall in zip(counts, SHARES[number], FALLS[number], strict=True):
        begin, end = (wide * (narrow / wide) ** place for place in fall)
        noises.append(np.geomspace(end, begin, int(share * rollouts + 1e-6) // (searches * size)))
        levels.append(np.where(np.arange(most) < searches, len(noises[-1]), 0))
    longest = max(map(len, noises))
    padded = [np.pad(each, (0, longest - len(each)), "edge") for each in noises]
    schedule, width = falling(np.stack(padded))
    widths = np.tile(width[:, None], most)
    if most > 1:
        widths[0] *= np.geomspace(LEAST, 1, most)
    return Stages(schedule, np.stack(levels), widths, np.arange(number) > 0)
