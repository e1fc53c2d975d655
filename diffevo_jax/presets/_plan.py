"""Preset for planning: the controls of a roll-out are a genome, and its cost is what is weighed.

With a kernel of infinite width, `denoisers.consensus`, and noise without memory a step of this
library is Model-Based Diffusion (Pan, Yi, Shi, Qu 2024, https://arxiv.org/abs/2407.01573): samples
around the present plan, a weighted mean of their controls, less noise.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.interpolate import CubicSpline

from diffevo_jax.algorithm import Algorithm
from diffevo_jax.checks import (
    Count,
    InputError,
    Positive,
    call_in_jax,
    check_count,
    check_key,
    check_number,
    concrete,
)
from diffevo_jax.denoisers._consensus import consensus
from diffevo_jax.denoising import denoising_evolution
from diffevo_jax.fitness import standardised
from diffevo_jax.presets._restart import renoise
from diffevo_jax.samplers._ddim import ddim
from diffevo_jax.schedules import Schedule, from_alpha

# How a budget is spent: searches beside each other, of which the better half goes on, and then the
# best. A stage's share of the roll-outs, and where it begins and ends on the way of the noise, by
# the number of stages.
SEARCHES, SAMPLES, FEWEST = 8, 20, 4  # roll-outs of a search's level, and at least
SHARES = {1: (1.0,), 2: (0.4, 0.6), 3: (0.4, 0.25, 0.35)}
FALLS = {
    1: ((0.0, 1.0),),
    2: ((0.0, 0.25), (0.5, 1.0)),
    3: ((0.0, 0.25), (0.5, 2 / 3), (2 / 3, 1.0)),
}
LEVELS = 16  # of one search; as many searches as there are roll-outs for so many
LEAST = 0.28  # the first noise of the search that has least, as a share of the first noise
TEMPERATURE = 0.1  # of `standardised`, MBD's
# How much of the noise's covariance a level renews; less where it has more genes than samples know.
RATE, KNOWN = 0.2, 5
LEARNED = 256  # genes at most; a level takes their number's cube
# Plans are two where their features differ by so much of the first roll-outs' deviation.
APART = 0.5

Interpolation = Literal["cubic", "linear"]


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


class RollOut(NamedTuple):
    """What a roll-out came to.

    cost: `[]`. violation: `[]`, 0 where the constraint is kept. features: `[d]`, what tells plans
    apart. distance: `[]`, the mean square from the demonstration.
    """

    cost: jax.Array
    violation: jax.Array
    features: jax.Array
    distance: jax.Array


class Candidate(NamedTuple):
    """A genome, `[D]`, with what its roll-out came to."""

    genome: jax.Array
    outcome: RollOut


class Descent(NamedTuple):
    """What a search came to.

    best: the best roll-out. target: the last weighted mean, `[D]`. shape: the root of the noise's
    covariance, `[D, D]`, None where it was not learned. spread: the deviation of the first level's
    features, `[d]`.
    """

    best: Candidate
    target: jax.Array
    shape: jax.Array | None
    spread: jax.Array


class PlanStage(NamedTuple):
    """Searches beside each other.

    searches: their number. samples: roll-outs of a level of each. noises: by level, `[T]`, growing,
    in halves of the bounds.
    """

    searches: int
    samples: int
    noises: np.ndarray


class Model(NamedTuple):
    """A system to plan for, with its checks behind it.

    roll: (state, controls `[H, m]`) -> RollOut. check: state -> state, raises InputError.
    controls: genome `[D]` -> controls `[H, m]`. genome: the inverse, nearest where knots are few.
    num_genes: D. demonstrated: state -> the demonstration's RollOut, None without one.
    """

    roll: Callable[[Any, jax.Array], RollOut]
    check: Callable[[Any], Any]
    controls: Callable[[jax.Array], jax.Array]
    genome: Callable[[jax.Array], jax.Array]
    num_genes: int
    demonstrated: Callable[[Any], RollOut] | None


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
    noise: tuple[float, float] = (2.5, 0.02),
    temperature: Positive = TEMPERATURE,
) -> Callable[[jax.Array, Any], Plan]:
    """Make a planner: from a system and its cost to controls over a horizon, by roll-outs alone.

        planner = de.presets.plan(step_fn, stage_cost, horizon=50, bounds=[(-1, 1), (-1, 1)])
        plan = planner(key, state)

    The planner, (key, state) -> `Plan`, is a pure function, compiled once for states of one shape,
    and runs inside jit and vmap. Searches beside each other, some in wide noise and some in narrow,
    settle in whatever valley they meet; the better half goes on, then the best one, or as many
    plans as are to be kept. A step is `denoisers.consensus` with `samplers.ddim(freshness=1)`: that
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
    stages = _stages(check_noise(noise), *_sizes(rollouts, num_samples, num_plans))
    num_genes = model.num_genes

    def search(key: jax.Array, state: Any) -> Plan:
        def run(
            key: jax.Array, stage: PlanStage, width: jax.Array, genome: jax.Array, shape: Any
        ) -> Descent:
            key_noise, key_run = jax.random.split(key)
            schedule, unit = falling(stage.noises)
            evaluate = evaluator(model, state, origin=genome, width=unit * width)
            start = len(stage.noises) - 1
            nothing = jnp.zeros((stage.samples, num_genes))
            population = renoise(key_noise, nothing, schedule, start)
            algorithm = search_algorithm(schedule, temperature)
            end = denoise(key_run, algorithm, evaluate, population, start, start + 1, shape)
            return end._replace(
                best=end.best._replace(genome=genome + unit * width * end.best.genome)
            )

        first, *others = stages
        keys = jax.random.split(key, len(stages))
        widths = jnp.geomspace(LEAST, 1, first.searches) if first.searches > 1 else jnp.ones(1)
        ends = jax.vmap(lambda key, width: run(key, first, width, jnp.zeros(num_genes), None))(
            jax.random.split(keys[0], first.searches), widths
        )
        apart = APART * jnp.mean(ends.spread, axis=0) if num_plans > 1 else None
        shapes = None
        if num_genes <= LEARNED:
            shapes = jnp.broadcast_to(jnp.eye(num_genes), (first.searches, num_genes, num_genes))
        is_plan = jnp.ones(1, bool)
        for key_stage, stage in zip(keys[1:], others, strict=True):
            rows, is_plan = _choose(ends.best.outcome, apart, stage.searches)
            begin = jax.tree.map(lambda leaf, rows=rows: leaf[rows], (ends.best.genome, shapes))
            ends = jax.vmap(lambda key, begin, stage=stage: run(key, stage, jnp.ones(()), *begin))(
                jax.random.split(key_stage, stage.searches), begin
            )
            shapes = ends.shape
        return _finished(model, ends.best, is_plan)

    compiled = jax.jit(search)

    def planner(key: jax.Array, state: Any) -> Plan:
        """Plan from a state; see `presets.plan`."""
        found = compiled(check_key(key), model.check(state))
        warn_without_cost("presets.plan", found.cost)
        return found

    return planner


def make_model(
    step_fn: Callable[..., Any] | None,
    stage_cost: Callable[..., ArrayLike] | None,
    terminal_cost: Callable[..., ArrayLike] | None,
    *,
    horizon: Count,
    bounds: Sequence[tuple[float, float]],
    rollout_cost: Callable[..., ArrayLike] | None = None,
    knots: Count | None = None,
    interpolation: Interpolation = "cubic",
    features: Callable[..., ArrayLike] | None = None,
    many: bool = False,
    constraint: Callable[..., ArrayLike] | None = None,
    demonstration: Any = None,
) -> Model:
    """Make a `Model` of what `plan` takes. many: whether several plans are told apart."""
    horizon = check_count("horizon", horizon)
    low, high = _check_bounds(bounds)
    num_controls = len(low)
    is_whole = _check_functions(step_fn, stage_cost, terminal_cost, rollout_cost, constraint)
    basis = _basis(horizon, knots, interpolation)
    back = np.linalg.pinv(basis)
    middle, half = jnp.asarray((low + high) / 2, float), jnp.asarray((high - low) / 2, float)
    guide = None if demonstration is None else jax.tree.map(jnp.asarray, demonstration)
    by_controls = getattr(guide, "shape", ()) == (horizon, num_controls)
    if is_whole and guide is not None and not by_controls:
        raise InputError(
            "demonstration",
            f"controls of shape {(horizon, num_controls)}, for rollout_cost shows no states",
            jax.tree.map(jnp.shape, demonstration),
        )
    needs_path = (many and not is_whole) or (guide is not None and not by_controls)

    def controls(genome: jax.Array) -> jax.Array:
        points = genome.reshape(basis.shape[1], num_controls)
        smooth = points if knots is None else jnp.asarray(basis, points.dtype) @ points
        return middle + half * jnp.clip(smooth, -1, 1)

    def genome(controls: jax.Array) -> jax.Array:
        points = (controls - middle) / half
        return (points if knots is None else jnp.asarray(back, points.dtype) @ points).ravel()

    def simulate(state: Any, controls: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
        """Roll out; return cost, violation and the path, () where it is not needed."""
        if is_whole:
            assert rollout_cost is not None
            return jnp.asarray(rollout_cost(state, controls), float), jnp.zeros(()), ()
        assert step_fn is not None
        assert stage_cost is not None
        advance, price = step_fn, stage_cost

        def stage(carry: Any, control: jax.Array) -> tuple[Any, Any]:
            state, cost, violation = carry
            cost = cost + price(state, control)
            state = advance(state, control)
            if constraint is not None:
                violation = violation + jnp.sum(jnp.maximum(constraint(state, control), 0))
            return (state, cost, violation), state if needs_path else ()

        carry = state, jnp.zeros(()), jnp.zeros(())
        (after, cost, violation), path = jax.lax.scan(stage, carry, controls)
        if terminal_cost is not None:
            cost = cost + terminal_cost(after)
        if needs_path:
            path = jax.tree.map(
                lambda first, rest: jnp.concatenate([first[None], rest]), state, path
            )
        return cost, violation, path

    def outcome(cost: jax.Array, violation: jax.Array, path: Any, controls: jax.Array) -> RollOut:
        marks, distance = jnp.zeros(0), jnp.zeros(())
        if many:
            marks = _features(features, path, controls, is_whole)
        if guide is not None:
            pairs = (controls, guide) if by_controls else (path, guide)
            squares = jax.tree.map(lambda a, b: jnp.mean((a - b) ** 2.0), *pairs)
            distance = jnp.mean(jnp.stack(jax.tree.leaves(squares)))
        return RollOut(cost, violation, marks, distance)

    def roll(state: Any, controls: jax.Array) -> RollOut:
        return outcome(*simulate(state, controls), controls)

    def demonstrated(state: Any) -> RollOut:
        assert guide is not None
        if by_controls:
            return roll(state, guide)
        held = jnp.broadcast_to(middle, (horizon, num_controls))
        before = jax.tree.map(lambda leaf: leaf[:-1], guide)
        after = jax.tree.map(lambda leaf: leaf[1:], guide)
        assert stage_cost is not None
        cost = jnp.sum(jax.vmap(stage_cost)(before, held))
        if terminal_cost is not None:
            cost = cost + terminal_cost(jax.tree.map(lambda leaf: leaf[-1], guide))
        violation = jnp.zeros(())
        if constraint is not None:
            broken = jax.vmap(constraint)(after, held)
            violation = jnp.sum(jnp.maximum(broken, 0), dtype=float)
        return outcome(cost, violation, guide, held)

    def check(state: Any) -> Any:
        state = jax.tree.map(jnp.asarray, state)
        control = jax.ShapeDtypeStruct((num_controls,), middle.dtype)
        whole = jax.ShapeDtypeStruct((horizon, num_controls), middle.dtype)
        if is_whole:
            _check_scalar("rollout_cost", rollout_cost, state, whole)
        else:
            assert step_fn is not None
            after = _shape_of("step_fn", step_fn, state, control)
            expected, seen = _shapes(state), _shapes(after)
            if jax.tree.structure(state) != jax.tree.structure(after) or expected != seen:
                raise InputError(
                    "step_fn",
                    f"the next state, of the state's shapes and dtypes, {expected}",
                    seen,
                    "start from a state of the dtypes that step_fn returns",
                )
            _check_scalar("stage_cost", stage_cost, state, control)
            if terminal_cost is not None:
                _check_scalar("terminal_cost", terminal_cost, state)
            if constraint is not None:
                _shape_of("constraint", constraint, state, control)
        if guide is not None and not by_controls:
            path = jax.tree.map(lambda leaf: f"{leaf.dtype}{[horizon + 1, *leaf.shape]}", state)
            if jax.tree.structure(state) != jax.tree.structure(guide) or path != _shapes(guide):
                raise InputError(
                    "demonstration",
                    f"controls of shape {(horizon, num_controls)}, or a path of states, {path}",
                    _shapes(guide),
                )
        return state

    num_genes = basis.shape[1] * num_controls
    return Model(roll, check, controls, genome, num_genes, None if guide is None else demonstrated)


def evaluator(
    model: Model, state: Any, *, origin: jax.Array | float = 0.0, width: jax.Array | float = 1.0
) -> Callable[[jax.Array], tuple[RollOut, jax.Array]]:
    """Make the function population `[N, D]` -> RollOut of each, and fitness `[N]`, from a state.

    origin, width: `[D]` or numbers; a genome z stands for the knots origin + width z.
    """
    guide = None if model.demonstrated is None else model.demonstrated(state)

    def roll(genome: jax.Array) -> RollOut:
        return model.roll(state, model.controls(origin + width * genome))

    def evaluate(population: jax.Array) -> tuple[RollOut, jax.Array]:
        outcome = jax.vmap(roll)(population)
        if guide is None:
            return outcome, _fitness(outcome)
        both = jax.tree.map(lambda all, one: jnp.concatenate([all, one[None]]), outcome, guide)
        fitness = _fitness(both)
        fitness, shown = fitness[:-1], fitness[-1]
        # Closeness in standard deviations, worth as much as those of the fitness are.
        gap = outcome.distance - jnp.nanmin(outcome.distance)
        spread = _deviation(fitness)
        worth = jnp.where(spread > 0, spread, 1) / jnp.maximum(_deviation(outcome.distance), 1e-30)
        near = jnp.where(jnp.isfinite(shown), shown - worth * gap, -jnp.inf)
        return outcome, jnp.where(near > fitness, near, fitness)

    return evaluate


def denoise(
    key: jax.Array,
    algorithm: Algorithm,
    evaluate: Callable[[jax.Array], tuple[RollOut, jax.Array]],
    population: jax.Array,
    start: int,
    count: int,
    shape: jax.Array | None = None,
) -> Descent:
    """Go down `count` levels from `start`, around 0; the first roll-out of a level is the target.

    shape: a root of the noise's covariance to begin with, `[D, D]`; it is learned. None leaves the
        noise as it is.
    """
    state = algorithm.init(key, population)
    state = state._replace(t=jnp.full_like(state.t, start))
    shapes = jax.eval_shape(evaluate, population)[0]
    nothing = jax.tree.map(lambda leaf: jnp.full(leaf.shape[1:], jnp.nan, leaf.dtype), shapes)

    def generation(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        state, best, target, shape = carry
        steps = (state.population - target).at[0].set(0)
        if shape is not None:
            steps = steps @ shape.T
        state = state._replace(population=target + steps)
        outcome, fitness = evaluate(state.population)
        best = _better(best, state.population, outcome)
        state, info = algorithm.step(key, state, fitness)
        if shape is not None:
            shape = _learn(shape, steps / jnp.sqrt(1 - info.alpha), info.log_weight)
        return (state, best, info.x0[0], shape), jnp.nanstd(outcome.features, axis=0)

    carry = state, Candidate(population[0], nothing), jnp.zeros_like(population[0]), shape
    (_, best, target, shape), spread = jax.lax.scan(generation, carry, jax.random.split(key, count))
    return Descent(best, target, shape, spread[0])


def _learn(shape: jax.Array, steps: jax.Array, log_weight: jax.Array) -> jax.Array:
    """Renew a share of the noise's covariance, and return its root of determinant 1, `[D, D]`.

    C = (1 - rate) C + rate sum_n w_n s_n s_n'

    shape: the root of C before. steps: s, `[N, D]`, in units of the level's noise. log_weight:
        `[N]`, NaN for those left out.
    """
    num_genes = len(shape)
    rate = min(RATE, KNOWN / num_genes)
    log_weight = jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight)
    weight = jnp.exp(log_weight - jax.nn.logsumexp(log_weight))
    weighed = jnp.matmul(steps.T * weight, steps, precision=jax.lax.Precision.HIGHEST)
    before = jnp.matmul(shape, shape.T, precision=jax.lax.Precision.HIGHEST)
    after = (1 - rate) * before + rate * weighed
    least = 1e-6 * jnp.trace(after) / num_genes  # a root in float32 exists
    root = jnp.linalg.cholesky(after + least * jnp.eye(num_genes))
    root = root / jnp.exp(jnp.mean(jnp.log(jnp.diag(root))))
    return jnp.where(jnp.all(jnp.isfinite(root)), root, shape)


def search_algorithm(schedule: Schedule, temperature: Positive) -> Algorithm:
    """Make the search around one target: noise without memory, which the schedule takes away."""
    return denoising_evolution(
        schedule,
        fitness_map=standardised(temperature),
        denoiser=consensus(),
        sampler=ddim(freshness=1, centred=True),
    )


def warn_without_cost(name: str, cost: jax.Array) -> None:
    """Warn where a cost is known, and NaN."""
    known = concrete(cost)
    if known is not None and not np.all(np.isfinite(known)):
        warnings.warn(
            f"{name}: no roll-out had a finite cost, so that nothing was planned; look at one "
            "roll-out with controls in the middle of the bounds",
            stacklevel=3,
        )


def _finished(model: Model, found: Candidate, is_plan: jax.Array) -> Plan:
    """Sort plans, `[K]`, the best one first; `is_plan` says which of them were found."""
    cost, violation = found.outcome[:2]
    left = is_plan & jnp.isfinite(cost) & jnp.isfinite(violation)
    rows, is_found = [], []
    for _ in range(len(cost)):
        is_found.append(jnp.any(left))
        row = _first(violation, cost, left)
        rows.append(jnp.where(is_found[-1], row, rows[0] if rows else row))
        left = left.at[row].set(False)
    rows, is_found = jnp.stack(rows), jnp.stack(is_found)
    plans = jax.vmap(model.controls)(found.genome[rows])
    cost, violation = cost[rows], violation[rows]
    return Plan(
        *(plans[0], cost[0], violation[0], plans),
        costs=jnp.where(is_found, cost, jnp.inf),
        violations=jnp.where(is_found, violation, jnp.inf),
    )


def _choose(outcome: RollOut, apart: jax.Array | None, number: int) -> tuple[jax.Array, jax.Array]:
    """Choose some of the roll-outs `[C]`: the best, then the best of those far from all chosen.

    apart: `[d]`, two are far where a feature differs by more; None: all are. Returns their rows,
    and whether each is another plan.
    """
    left = jnp.ones(len(outcome.cost), bool)
    best, rows, is_plan = _first(outcome.violation, outcome.cost, left), [], []
    for _ in range(number):
        is_plan.append(jnp.any(left))
        row = jnp.where(is_plan[-1], _first(outcome.violation, outcome.cost, left), best)
        left = left.at[row].set(False)
        if apart is not None:
            gap = jnp.abs(outcome.features - outcome.features[row])
            left = left & jnp.any(gap > apart, axis=1)
        rows.append(row)
    return jnp.stack(rows), jnp.stack(is_plan)


def _first(violation: jax.Array, cost: jax.Array, among: jax.Array) -> jax.Array:
    """Find the least violation, and of several the lowest cost, in `[N]`: its index.

    What is not finite comes last. Two minima compile in a tenth of the time of a sort.
    """
    among = among & jnp.isfinite(cost) & jnp.isfinite(violation)
    least = jnp.min(violation, where=among, initial=jnp.inf)
    return jnp.argmin(jnp.where(among & (violation == least), cost, jnp.inf))


def _better(best: Candidate, population: jax.Array, outcome: RollOut) -> Candidate:
    """Return the better of the best so far and a generation: by violation, then by cost."""
    first = _first(outcome.violation, outcome.cost, jnp.ones(len(outcome.cost), bool))
    new = Candidate(population[first], jax.tree.map(lambda leaf: leaf[first], outcome))

    def order(candidate: Candidate) -> tuple[jax.Array, jax.Array]:
        outcome = candidate.outcome
        bad = ~jnp.isfinite(outcome.cost)
        return _last(jnp.where(bad, jnp.nan, outcome.violation)), _last(outcome.cost)

    (broken, cost), (least, lowest) = order(new), order(best)
    is_better = (broken < least) | ((broken == least) & (cost < lowest))
    return jax.tree.map(lambda new, old: jnp.where(is_better, new, old), new, best)


def _fitness(outcome: RollOut) -> jax.Array:
    """Make fitness of costs and violations, `[N]`: what breaks the constraint is behind all else.

    So Deb (2000, "An efficient constraint handling method for genetic algorithms") orders them.
    One mean violation is worth a deviation of the costs.
    """
    cost, violation = outcome.cost, outcome.violation
    finite = jnp.isfinite(cost) & jnp.isfinite(violation)
    kept = finite & (violation <= 0)
    worst = jnp.max(cost, where=kept, initial=-jnp.inf)
    worst = jnp.where(jnp.any(kept), worst, 0)
    broken = jnp.sum(violation, where=finite) / jnp.maximum(jnp.sum(finite & ~kept), 1)
    unit = _deviation(jnp.where(kept, cost, jnp.nan))
    unit = jnp.where(unit > 0, unit, 1)
    behind = worst + unit * violation / jnp.where(broken > 0, broken, 1)
    return jnp.where(finite, -jnp.where(kept, cost, behind), jnp.nan)


def _deviation(values: jax.Array) -> jax.Array:
    """Compute the standard deviation of the finite ones, `[N]` -> `[]`; 0 where none is."""
    finite = jnp.isfinite(values)
    deviation = jnp.std(jnp.where(finite, values, 0), where=finite)
    return jnp.where(jnp.any(finite), deviation, 0)


def _last(values: jax.Array) -> jax.Array:
    """Put infinity in the place of what is not finite: it comes last."""
    return jnp.where(jnp.isfinite(values), values, jnp.inf)


def _features(
    features: Callable[..., ArrayLike] | None, path: Any, controls: jax.Array, is_whole: bool
) -> jax.Array:
    """Describe a plan by numbers, `[d]`: the function's, or the mean state, or the controls."""
    if features is not None:
        marks = call_in_jax("features", features, () if is_whole else path, controls)
        return jnp.ravel(jnp.asarray(marks, float))
    if is_whole:
        return controls.ravel()
    means = [jnp.ravel(jnp.mean(leaf.astype(float), axis=0)) for leaf in jax.tree.leaves(path)]
    return jnp.concatenate(means)


def falling(noise: np.ndarray) -> tuple[Schedule, float]:
    """Make a schedule of noise by level, `[T]`, growing; and what genomes are multiplied by for it.

    1 - alpha has to be below 1, so that genomes are a little smaller than the widest noise.
    """
    width = 1.01 * float(noise[-1])
    return from_alpha(1 - (noise / width) ** 2), width


def check_noise(noise: Any) -> tuple[float, float]:
    """Return the first level's noise and the last one's; raise InputError unless it falls."""
    try:
        wide, narrow = (float(value) for value in noise)
    except (TypeError, ValueError):
        raise InputError("noise", "two numbers, (first, last)", f"{noise!r:.60}") from None
    if not 0 < narrow < wide < math.inf:
        raise InputError("noise", "finite first > last > 0", f"({wide:g}, {narrow:g})")
    return wide, narrow


def _sizes(rollouts: int, num_samples: int | None, num_plans: int) -> tuple[int, int, list[int]]:
    """Return the budget, roll-outs of a search's level, and the number of searches by stage."""
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
    return rollouts, num_samples, counts


def _stages(
    noise: tuple[float, float], rollouts: int, samples: int, counts: list[int]
) -> list[PlanStage]:
    """Spend the budget, down from the first noise to the last."""
    wide, narrow = noise
    number = len(counts)
    stages = []
    for searches, share, fall in zip(counts, SHARES[number], FALLS[number], strict=True):
        begin, end = (wide * (narrow / wide) ** place for place in fall)
        levels = int(share * rollouts + 1e-6) // (searches * samples)
        stages.append(PlanStage(searches, samples, np.geomspace(end, begin, levels)))
    return stages


def _basis(horizon: int, knots: int | None, interpolation: str) -> np.ndarray:
    """Make the matrix from K knots to H controls, `[H, K]`; H x H where every step is a knot."""
    if interpolation not in ("cubic", "linear"):
        raise InputError("interpolation", "'cubic' or 'linear'", repr(interpolation))
    if knots is None:
        return np.eye(horizon)
    knots = check_count("knots", knots, least=2)
    if knots > horizon:
        raise InputError(
            "knots", f"at most the horizon's {horizon}", knots, "None has one for every step"
        )
    places, steps = np.linspace(0, horizon - 1, knots), np.arange(horizon)
    if interpolation == "cubic":
        return CubicSpline(places, np.eye(knots), bc_type="natural")(steps)
    return np.stack([np.interp(steps, places, row) for row in np.eye(knots)], axis=1)


def _check_bounds(bounds: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the low and the high ends, `[m]` each."""
    expected = "a pair (low, high) for each control, [(-1, 1)] for one"
    try:
        pairs = np.asarray(bounds, np.float64)
    except (TypeError, ValueError):
        raise InputError("bounds", expected, f"{bounds!r:.80}") from None
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
        raise InputError("bounds", expected, f"shape {pairs.shape}")
    wrong = ~(np.isfinite(pairs).all(axis=1) & (pairs[:, 0] < pairs[:, 1]))
    if wrong.any():
        place = int(np.argmax(wrong))
        low, high = pairs[place]
        raise InputError("bounds", "finite low < high", f"({low:g}, {high:g}) of control {place}")
    return pairs[:, 0], pairs[:, 1]


def _check_functions(
    step_fn: Any, stage_cost: Any, terminal_cost: Any, rollout_cost: Any, constraint: Any
) -> bool:
    """Return whether a whole roll-out's cost is given; raise InputError on both or neither."""
    named = {
        "step_fn": step_fn,
        "stage_cost": stage_cost,
        "terminal_cost": terminal_cost,
        "rollout_cost": rollout_cost,
        "constraint": constraint,
    }
    for name, function in named.items():
        if function is not None and not callable(function):
            raise InputError(name, "a function", f"{function!r:.60}")
    if rollout_cost is None:
        for name in ("step_fn", "stage_cost"):
            if named[name] is None:
                expected = "a function, with step_fn and stage_cost, or rollout_cost alone"
                raise InputError(name, expected, None)
        return False
    for name in ("step_fn", "stage_cost", "terminal_cost", "constraint"):
        if named[name] is not None:
            raise InputError(
                name,
                "None beside rollout_cost, which says it all",
                "both",
                "leave out one of the two",
            )
    return True


def _shape_of(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Trace a function of the user's for the shapes of what it returns."""
    try:
        return jax.eval_shape(lambda *all: call_in_jax(name, function, *all), *arguments)
    except InputError:
        raise
    except TypeError as error:
        raise InputError(
            name, f"a function of {len(arguments)} arguments that JAX can trace", f"{error!s:.120}"
        ) from error


def _check_scalar(name: str, function: Any, *arguments: Any) -> None:
    """Raise InputError where a cost is no number."""
    cost = _shape_of(name, function, *arguments)
    if not hasattr(cost, "shape") or cost.shape != () or jnp.issubdtype(cost.dtype, complex):
        raise InputError(
            name, "to return a number, shape ()", _shapes(cost), "jnp.sum makes one of several"
        )


def _shapes(tree: Any) -> Any:
    """Write the dtypes and shapes of a pytree's leaves."""
    return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)
