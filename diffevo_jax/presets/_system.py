"""A system to plan for: what controls come to, by a roll-out, and which roll-outs are better."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.typing import ArrayLike

from diffevo_jax.checks import (
    Count,
    InputError,
    call_in_jax,
    check_array,
    check_count,
    check_takes,
    check_tree,
)

Interpolation = Literal["cubic", "linear"]


class RollOut(NamedTuple):
    """What a roll-out came to.

    cost: `[]`. violation: `[]`, 0 where the constraint is kept. features: `[d]`, what tells plans
    apart. distance: `[]`, the mean square from the demonstration.
    """

    cost: jax.Array
    violation: jax.Array
    features: jax.Array
    distance: jax.Array


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


def make_model(
    step_fn: Any,
    stage_cost: Any,
    terminal_cost: Any,
    *,
    horizon: Count,
    bounds: Sequence[tuple[float, float]],
    rollout_cost: Any = None,
    knots: Count | None = None,
    interpolation: Interpolation = "cubic",
    features: Callable[..., ArrayLike] | None = None,
    many: bool = False,
    constraint: Any = None,
    demonstration: Any = None,
) -> Model:
    """Make a `Model` of what `plan` takes. many: whether several plans are told apart."""
    horizon = check_count("horizon", horizon)
    low, high = _check_bounds(bounds)
    num_controls = len(low)
    is_whole = _check_functions(
        rollout_cost,
        step_fn=step_fn,
        stage_cost=stage_cost,
        terminal_cost=terminal_cost,
        constraint=constraint,
    )
    if features is not None:
        check_takes("features", features, ("states", "controls"))
    basis = _basis(horizon, knots, interpolation)
    back = np.linalg.pinv(basis)
    middle, half = jnp.asarray((low + high) / 2, float), jnp.asarray((high - low) / 2, float)
    guide = None if demonstration is None else check_tree("demonstration", demonstration)
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

    def last(state: Any) -> ArrayLike:
        return 0.0 if terminal_cost is None else terminal_cost(state)

    def broken(state: Any, control: jax.Array) -> jax.Array:
        if constraint is None:
            return jnp.zeros(())
        return jnp.sum(jnp.maximum(constraint(state, control), 0), dtype=float)

    def simulate(state: Any, controls: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
        """Roll out; return cost, violation and the path, () where it is not needed."""
        if is_whole:
            return jnp.asarray(rollout_cost(state, controls), float), jnp.zeros(()), ()

        def stage(carry: Any, control: jax.Array) -> tuple[Any, Any]:
            state, cost, violation = carry
            cost = cost + stage_cost(state, control)
            state = step_fn(state, control)
            violation = violation + broken(state, control)
            return (state, cost, violation), state if needs_path else ()

        carry = state, jnp.zeros(()), jnp.zeros(())
        (after, cost, violation), path = jax.lax.scan(stage, carry, controls)
        if needs_path:
            path = jax.tree.map(
                lambda first, rest: jnp.concatenate([first[None], rest]), state, path
            )
        return cost + last(after), violation, path

    def outcome(cost: jax.Array, violation: jax.Array, path: Any, controls: jax.Array) -> RollOut:
        marks, distance = jnp.zeros(0), jnp.zeros(())
        if many:
            marks = _features(features, path, controls)
        if guide is not None:
            pairs = (controls, guide) if by_controls else (path, guide)
            squares = jax.tree.map(lambda a, b: jnp.mean((a - b) ** 2.0), *pairs)
            distance = jnp.mean(jnp.stack(jax.tree.leaves(squares)))
        return RollOut(cost, violation, marks, distance)

    def roll(state: Any, controls: jax.Array) -> RollOut:
        return outcome(*simulate(state, controls), controls)

    def demonstrated(state: Any) -> RollOut:
        if by_controls:
            return roll(state, jnp.asarray(guide))
        held = jnp.broadcast_to(middle, (horizon, num_controls))
        before = jax.tree.map(lambda leaf: leaf[:-1], guide)
        after = jax.tree.map(lambda leaf: leaf[1:], guide)
        cost = jnp.sum(jax.vmap(stage_cost)(before, held))
        cost = cost + last(jax.tree.map(lambda leaf: leaf[-1], guide))
        return outcome(cost, jnp.sum(jax.vmap(broken)(after, held)), guide, held)

    def check(state: Any) -> Any:
        state = check_tree("state", state)
        control = jax.ShapeDtypeStruct((num_controls,), middle.dtype)
        whole = jax.ShapeDtypeStruct((horizon, num_controls), middle.dtype)
        if is_whole:
            _check_scalar("rollout_cost", rollout_cost, state, whole)
        else:
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
                violation = _shape_of("constraint", constraint, state, control)
                if not hasattr(violation, "shape"):
                    raise InputError("constraint", "to return violations", violation)
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


def evaluator(model: Model, state: Any) -> Callable[[jax.Array], tuple[RollOut, jax.Array]]:
    """Make the function genomes `[N, D]` -> RollOut of each, and fitness `[N]`, from a state."""
    guide = None if model.demonstrated is None else model.demonstrated(state)

    def evaluate(population: jax.Array) -> tuple[RollOut, jax.Array]:
        outcome = jax.vmap(lambda genome: model.roll(state, model.controls(genome)))(population)
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


def first_of(outcome: RollOut, among: jax.Array | bool = True) -> jax.Array:
    """Find the least violation, and of several the lowest cost, of roll-outs `[N]`: its index.

    What is not finite comes last. Two minima compile in a tenth of the time of a sort.
    """
    cost, violation = outcome.cost, outcome.violation
    among = among & jnp.isfinite(cost) & jnp.isfinite(violation)
    least = jnp.min(violation, where=among, initial=jnp.inf)
    return jnp.argmin(jnp.where(among & (violation == least), cost, jnp.inf))


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


def _features(
    features: Callable[..., ArrayLike] | None, path: Any, controls: jax.Array
) -> jax.Array:
    """Describe a plan by numbers, `[d]`: the function's, or the mean state, or the controls."""
    if features is not None:
        marks = call_in_jax("features", features, path, controls)
        return jnp.ravel(check_array("features", marks, "numbers [d]")).astype(float)
    means = [jnp.ravel(jnp.mean(leaf.astype(float), axis=0)) for leaf in jax.tree.leaves(path)]
    return jnp.concatenate(means) if means else controls.ravel()


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
        return scipy.interpolate.CubicSpline(places, np.eye(knots), bc_type="natural")(steps)
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


def _check_functions(rollout_cost: Any, **parts: Any) -> bool:
    """Return whether a whole roll-out's cost is given; raise InputError on both or neither."""
    for name, function in {"rollout_cost": rollout_cost, **parts}.items():
        if function is not None and not callable(function):
            raise InputError(name, "a function", f"{function!r:.60}")
    if rollout_cost is None:
        for name in ("step_fn", "stage_cost"):
            if parts[name] is None:
                expected = "a function, with step_fn and stage_cost, or rollout_cost alone"
                raise InputError(name, expected, None)
        return False
    for name, function in parts.items():
        if function is not None:
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
    except TypeError as error:
        raise InputError(
            name, f"a function of {len(arguments)} arguments that JAX can trace", f"{error!s:.120}"
        ) from error


def _check_scalar(name: str, function: Any, *arguments: Any) -> None:
    """Raise InputError where a cost is no number."""
    cost = _shape_of(name, function, *arguments)
    if (
        not hasattr(cost, "shape")
        or cost.shape != ()
        or jnp.issubdtype(cost.dtype, jnp.complexfloating)
    ):
        raise InputError(
            name, "to return a number, shape ()", _shapes(cost), "jnp.sum makes one of several"
        )


def _shapes(tree: Any) -> Any:
    """Write the dtypes and shapes of a pytree's leaves."""
    return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)
