"""Preset for control in a closed loop: plan, apply the first control, plan again."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffevo_jax.checks import (
    Count,
    InputError,
    Positive,
    check_count,
    check_key,
    check_number,
)
from diffevo_jax.fitness import rank
from diffevo_jax.presets._descent import check_noise, descend, falling, warn_without_cost
from diffevo_jax.presets._system import Interpolation, evaluator, make_model

KEPT = 12  # of so many roll-outs of a level, the best one goes on to the next


class MPCMemory(NamedTuple):
    """What a controller carries from one control step to the next.

    controls: the plan from the present step on, `[H, m]`. committed: controls that were sent and
        have not arrived yet, the next one to arrive first, `[delay, m]`. kept: the best roll-outs'
        controls from the present step on, `[K, H, m]`.
    """

    controls: jax.Array
    committed: jax.Array
    kept: jax.Array


class MPC(NamedTuple):
    """A controller: two pure functions.

    init: (controls `[H, m]` = None) -> memory. It starts from a plan, or in the middle of the
        bounds.
    step: (key, memory, state) -> (memory, control `[m]`), the control to send now.
    """

    init: Callable[..., MPCMemory]
    step: Callable[[jax.Array, MPCMemory, Any], tuple[MPCMemory, jax.Array]]


def mpc(
    step_fn: Callable[[Any, jax.Array], Any] | None = None,
    stage_cost: Callable[[Any, jax.Array], ArrayLike] | None = None,
    terminal_cost: Callable[[Any], ArrayLike] | None = None,
    *,
    horizon: Count,
    bounds: Sequence[tuple[float, float]],
    constraint: Callable[[Any, jax.Array], ArrayLike] | None = None,
    rollouts: Count = 384,
    num_levels: Count = 3,
    noise: tuple[float, float] = (0.6, 0.25),
    first: Positive = 1.6,
    knots: Count | None = None,
    interpolation: Interpolation = "cubic",
    temperature: Positive = 0.05,
    delay: int = 0,
) -> MPC:
    """Configure a receding horizon: each control step denoises the last plan, moved on by one step.

        controller = de.presets.mpc(step_fn, stage_cost, horizon=50, bounds=[(-2, 2)])
        memory = controller.init()
        memory, control = controller.step(key, memory, state)

    The plan of the step before, its last control repeated, is brought to a middle level of noise
    and denoised in a few levels, as in DIAL-MPC (Xue, Pan, Yi, Qu, Shi 2024,
    https://arxiv.org/abs/2409.15610), whose second annealing, over the horizon, is `first`. The
    plan before is itself a roll-out of the first level, and so are the best twelfth of the step
    before, moved on (Pinneri et al. 2020, https://arxiv.org/abs/2008.06389); the control is the
    last target's. Both functions are pure, compiled once for states of one shape, and run inside
    jit, vmap and scan.

    step_fn, stage_cost, terminal_cost, horizon, bounds, constraint, knots, interpolation: see
        `plan`. The system may differ from step_fn, by noise for example: every step plans anew
        from the state that it is given.
    rollouts: of a control step, all of its levels together.
    num_levels: levels of a control step.
    noise: standard deviation at its first level and at its last, in halves of the bounds, of the
        plan's last control.
    first: noise of the first control in units of the last one's, above 0; between them it changes
        geometrically. DIAL-MPC's is below 1, for what comes first has been planned most often;
        above 1 a controller acts sooner.
    temperature: a roll-out weighs exp(-r / (temperature (N - 1))), r its rank from 0, the best.
        Not by costs, as in `plan`: a few roll-outs that crash would decide on their unit.
    delay: control steps from sending a control to its arrival. The controls on their way are
        rolled out with step_fn before planning begins.

    Outside jit, warns where no roll-out had a finite cost.
    Raises InputError, here or in `step`, naming the argument, expected and seen.
    """
    model = make_model(
        step_fn,
        stage_cost,
        terminal_cost,
        horizon=horizon,
        bounds=bounds,
        knots=knots,
        interpolation=interpolation,
        constraint=constraint,
    )
    num_controls = len(bounds)
    check_count("num_levels", num_levels)
    size = check_count("rollouts", rollouts) // num_levels
    if size < 2:
        raise InputError("rollouts", f"at least {2 * num_levels}, two a level", rollouts)
    wide, narrow = check_noise(noise)
    check_number("first", first, 0, math.inf, closed="()")
    check_number("temperature", temperature, 0, math.inf, closed="()")
    delay = check_count("delay", delay, least=0)
    # A schedule has two levels at least; a single one begins at the lower of them.
    noises = (
        np.geomspace(narrow, wide, num_levels) if num_levels > 1 else np.array([wide, 2 * wide])
    )
    schedule, unit = falling(noises)
    place = jnp.repeat(jnp.linspace(0, 1, model.num_genes // num_controls), num_controls)
    width = unit * first ** (1 - place)

    def init(controls: jax.Array | None = None) -> MPCMemory:
        """Start from a plan `[H, m]`, or in the middle of the bounds."""
        middle = model.controls(jnp.zeros(model.num_genes))
        if controls is not None and jnp.shape(controls) != middle.shape:
            raise InputError("controls", f"a plan of shape {middle.shape}", jnp.shape(controls))
        plan = middle if controls is None else jnp.asarray(controls, middle.dtype)
        committed = jnp.broadcast_to(middle[0], (delay, num_controls))
        return MPCMemory(plan, committed, jnp.broadcast_to(plan, (size // KEPT, *plan.shape)))

    def search(
        key: jax.Array, memory: MPCMemory, state: Any
    ) -> tuple[MPCMemory, jax.Array, jax.Array]:
        assert step_fn is not None
        for control in memory.committed:
            state = step_fn(state, control)
        found = descend(
            *(key, evaluator(model, state), schedule, num_levels),
            size=size,
            origin=model.genome(memory.controls),
            width=width,
            fitness_map=rank(1 / temperature),
            kept=jax.vmap(model.genome)(memory.kept),
        )
        controls = model.controls(found.target)
        sent = jnp.concatenate([memory.committed, controls[:1]])
        assert found.kept is not None
        kept = jax.vmap(model.controls)(found.kept)
        memory = MPCMemory(_moved_on(controls), sent[1:], jax.vmap(_moved_on)(kept))
        return memory, controls[0], found.best.outcome.cost

    compiled = jax.jit(search)

    def step(key: jax.Array, memory: MPCMemory, state: Any) -> tuple[MPCMemory, jax.Array]:
        """Plan from a state, and return the control to send; see `presets.mpc`."""
        if not isinstance(memory, MPCMemory):
            raise InputError("memory", "what init or step returned", type(memory).__name__)
        memory, control, cost = compiled(check_key(key), memory, model.check(state))
        warn_without_cost("presets.mpc", cost)
        return memory, control

    return MPC(init, step)


def _moved_on(controls: jax.Array) -> jax.Array:
    """Return controls `[H, m]` from the next step on, the last one repeated."""
    return jnp.concatenate([controls[1:], controls[-1:]])
