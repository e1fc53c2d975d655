"""Plans and control in a closed loop: `presets.plan` and `presets.mpc`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de
from diffevo_jax.presets import _descent, _plan, _system

KEY = jax.random.key(5)
START = jnp.array([1.0, 0.0])
SMALL: dict[str, Any] = {"horizon": 8, "bounds": [(-1.0, 1.0)], "rollouts": 200}


def slide(state, control):
    """A body that is pushed: place and speed."""
    place, speed = state
    return jnp.stack([place + 0.3 * speed, speed + 0.3 * control[0]])


def away(state, control):
    return jnp.sum(state**2) + 0.01 * jnp.sum(control**2)


def roll(state, controls, step=slide, cost=away):
    total, path = 0.0, [state]
    for control in controls:
        total = total + cost(path[-1], control)
        path.append(step(path[-1], control))
    return total, jnp.stack(path)


@pytest.fixture(scope="module")
def planner():
    return de.presets.plan(slide, away, **SMALL)


def test_a_plans_cost_is_that_of_its_controls_which_keep_the_bounds_and_beat_none(planner):
    plan = planner(KEY, START)
    assert plan.controls.shape == (8, 1)
    assert (plan.plans.shape, plan.costs.shape, plan.violations.shape) == ((1, 8, 1), (1,), (1,))
    cost, _ = roll(START, plan.controls)
    np.testing.assert_allclose(plan.cost, cost, rtol=1e-5)  # a sum of 8 in float32
    assert plan.cost == plan.costs[0] < 0.7 * roll(START, jnp.zeros((8, 1)))[0]
    assert np.all(np.abs(plan.controls) <= 1)
    assert plan.violation == 0


def test_a_planner_is_the_same_under_jit_and_vmap(planner):
    keys = jax.random.split(KEY, 2)
    states = jnp.stack([START, -START])
    each = [planner(key, state) for key, state in zip(keys, states, strict=True)]
    mapped = jax.jit(jax.vmap(planner))(keys, states)
    for index, plan in enumerate(each):
        # Sums in another order, over as many levels as they may grow in.
        np.testing.assert_allclose(mapped.cost[index], plan.cost, rtol=1e-3)


def test_the_whole_roll_outs_cost_gives_what_step_and_stage_cost_give(planner):
    whole = de.presets.plan(rollout_cost=lambda state, u: roll(state, u)[0], **SMALL)
    np.testing.assert_allclose(whole(KEY, START).cost, planner(KEY, START).cost, rtol=1e-3)


def test_the_cost_of_the_last_state_counts():
    plan = de.presets.plan(slide, away, lambda state: 7.0, **SMALL)(KEY, START)
    np.testing.assert_allclose(plan.cost, roll(START, plan.controls)[0] + 7, rtol=1e-5)


@pytest.mark.parametrize("interpolation", ["cubic", "linear"])
def test_a_spline_goes_through_its_knots_and_a_line_stays_a_line(interpolation):
    basis = _system._basis(13, 5, interpolation)
    knots = np.array([0.3, -0.2, 0.5, 0.1, -0.4])
    np.testing.assert_allclose((basis @ knots)[::3], knots, atol=1e-12)
    np.testing.assert_allclose(basis @ np.arange(5), np.arange(13) / 3, atol=1e-12)


def test_knots_make_plans_of_a_spline():
    settings = {**SMALL, "knots": 2, "interpolation": "linear"}
    plan = de.presets.plan(slide, away, **settings)(KEY, 0.1 * START)
    np.testing.assert_allclose(jnp.diff(plan.controls, 2, axis=0), 0, atol=1e-6)


def test_roll_outs_whose_cost_is_not_a_number_have_no_weight():
    def cost(state, control):
        return jnp.where(control[0] > 0.5, jnp.nan, away(state, control))

    plan = de.presets.plan(slide, cost, **SMALL)(KEY, START)
    assert plan.cost < 0.75 * roll(START, jnp.zeros((8, 1)))[0]
    assert np.all(plan.controls <= 0.5)


def test_no_finite_cost_at_all_warns_and_its_cost_is_nan():
    planner = de.presets.plan(slide, lambda state, control: jnp.nan, **SMALL)
    with pytest.warns(UserWarning, match="no roll-out had a finite cost"):
        plan = planner(KEY, START)
    assert np.isnan(plan.cost)
    assert np.all(np.isfinite(plan.controls))


def test_a_constraint_on_states_is_kept_whatever_it_costs():
    def too_fast(state, control):
        return jnp.abs(state[1]) - 0.2

    plan = de.presets.plan(slide, away, constraint=too_fast, **SMALL)(KEY, START)
    _, path = roll(START, plan.controls)
    assert plan.violation == 0
    assert np.all(np.abs(path[:, 1]) <= 0.2 + 1e-6)
    free = de.presets.plan(slide, away, **SMALL)(KEY, START)
    assert free.cost < plan.cost


def test_a_constraint_that_nothing_keeps_is_broken_as_little_as_can_be():
    plan = de.presets.plan(slide, away, constraint=lambda state, control: 1 + control, **SMALL)(
        KEY, START
    )
    assert 0 < plan.violation < 4  # 8 of the middle's controls break it by 8


def around(state, controls):
    """A point passes a wall at the middle of its way, over it or under it."""
    path = jnp.cumsum(controls[:, 0]) * 0.5
    wall = 3 * jnp.maximum(1 - jnp.abs(path[3]), 0)
    return wall + jnp.sum(0.05 * path**2) + 0.01 * jnp.sum(controls**2)


def test_two_plans_are_kept_one_on_each_side():
    planner = de.presets.plan(
        rollout_cost=around,
        **{**SMALL, "rollouts": 1000},
        num_plans=2,
        features=lambda _, controls: jnp.sum(controls[:4]),
    )
    plan = jax.vmap(planner, (0, None))(jax.random.split(KEY, 5), START)
    sides = jnp.sign(jnp.sum(plan.plans[:, :, :4, 0], axis=2))
    np.testing.assert_array_equal(sides.sum(axis=1), 0)
    assert np.all(np.isfinite(plan.costs))
    assert np.all(np.diff(plan.costs, axis=1) >= 0)
    np.testing.assert_array_equal(plan.plans[:, 0], plan.controls)


def test_a_plan_that_was_not_found_costs_infinity_and_repeats_the_best():
    planner = de.presets.plan(
        slide, away, num_plans=2, features=lambda states, u: jnp.zeros(1), **SMALL
    )
    plan = planner(KEY, START)
    assert plan.costs[1] == np.inf
    np.testing.assert_array_equal(plan.plans[1], plan.plans[0])
    assert np.isfinite(plan.cost)


@pytest.mark.parametrize("of", ["controls", "states"])
def test_a_demonstration_shows_what_costs_hide(of):
    target = jnp.ones((8, 1))
    _, path = roll(START, target)

    def needle(state):  # flat, but for a hole that chance does not meet
        return jnp.where(jnp.linalg.norm(state - path[-1]) < 0.3, -1.0, 0.0)

    def plan(**settings):
        settings = {**SMALL, "rollouts": 1000, **settings}
        return de.presets.plan(slide, lambda state, u: 0.0, needle, **settings)(KEY, START)

    assert plan().cost == 0
    assert plan(demonstration=target if of == "controls" else path).cost == -1


@pytest.mark.parametrize(
    ("rollouts", "searches"), [(200, [1]), (1000, [3, 1]), (10_240, [8, 4, 1])]
)
def test_a_budget_is_spent_by_fewer_and_fewer_searches(rollouts, searches):
    size, counts = _plan._sizes(rollouts, None, 1)
    assert counts == searches
    stages = _plan._stages((1.5, 0.02), rollouts, size, counts)
    np.testing.assert_array_equal(np.count_nonzero(stages.levels, axis=1), searches)
    assert 0.8 * rollouts < size * stages.levels.sum() <= rollouts
    noises = jnp.sqrt(stages.schedule.one_minus_alpha) * stages.widths.max(axis=1)[:, None]
    first, last = noises[0, stages.levels[0, 0] - 1], noises[-1, 0]
    np.testing.assert_allclose([first, last], [1.5, 0.02], rtol=1e-6)  # float32


def test_noise_takes_the_shape_of_what_weighs_and_keeps_its_volume():
    steps = jnp.array([[2.0, 2.0], [-2.0, -2.0], [1.0, -1.0], [0.0, jnp.nan]])
    log_weight = jnp.array([0.0, 0.0, -1e3, jnp.nan])
    root = _descent._learn(jnp.eye(2), jnp.nan_to_num(steps), log_weight)
    covariance = root @ root.T
    np.testing.assert_allclose(jnp.linalg.det(covariance), 1, rtol=1e-5)  # float32
    # .8 of the old one and .2 of (4, 4; 4, 4), which is the steps that have weight.
    expected = np.array([[1.6, 0.8], [0.8, 1.6]]) / np.sqrt(1.6**2 - 0.8**2)
    np.testing.assert_allclose(covariance, expected, rtol=1e-4)  # a millionth is added


def closed_loop(controller, delay=0, steps=25):
    def stage(carry, key):
        memory, state, waiting = carry
        key_plan, key_noise = jax.random.split(key)
        memory, control = controller.step(key_plan, memory, state)
        waiting = jnp.concatenate([waiting, control[None]])
        state = slide(state, waiting[0]) + 0.01 * jax.random.normal(key_noise, state.shape)
        return (memory, state, waiting[1:]), state

    carry = controller.init(), START, jnp.zeros((delay, 1))
    return jax.jit(lambda key: jax.lax.scan(stage, carry, jax.random.split(key, steps))[1])(KEY)


@pytest.mark.parametrize("delay", [0, 2])
def test_a_closed_loop_settles_in_noise_and_with_a_delay(delay):
    settings = {**SMALL, "rollouts": 60, "knots": 4, "delay": delay}
    path = closed_loop(de.presets.mpc(slide, away, **settings), delay)
    # The noise of the dynamics alone is .01 a step.
    assert jnp.mean(jnp.abs(path[-8:])) < 0.1


def test_a_controller_goes_on_from_its_plan_moved_on_by_one_step():
    controller = de.presets.mpc(slide, away, **{**SMALL, "rollouts": 40}, delay=1)
    plan = jnp.linspace(-0.5, 0.5, 8)[:, None]
    memory = controller.init(plan)
    np.testing.assert_array_equal(memory.controls, plan)
    after, control = controller.step(KEY, memory, START)
    assert after.controls.shape == (8, 1)
    np.testing.assert_array_equal(after.controls[-1], after.controls[-2])
    np.testing.assert_array_equal(after.committed, control[None])


def test_the_best_roll_outs_take_part_in_the_next_step_moved_on():
    settings = {**SMALL, "rollouts": 72, "noise": (0.01, 0.005)}
    controller = de.presets.mpc(slide, away, **settings)
    memory = controller.init()
    assert memory.kept.shape == (2, 8, 1)
    good = memory._replace(kept=jnp.full_like(memory.kept, -0.3))
    after, control = controller.step(KEY, good, START)
    assert control[0] < -0.2  # ten times the noise around the plan
    np.testing.assert_allclose(after.kept, good.kept, atol=0.1)
    np.testing.assert_array_equal(after.kept[:, -1], after.kept[:, -2])


def test_a_controller_weighs_roll_outs_by_their_order_alone():
    def controls(power):
        controller = de.presets.mpc(
            slide, lambda state, control: 0.0, lambda state: jnp.sum(state**2) ** power, **SMALL
        )
        return controller.step(KEY, controller.init(), START)[0].controls

    np.testing.assert_array_equal(controls(3), controls(1))


def test_one_level_and_a_share_of_noise_for_what_comes_first():
    settings = {**SMALL, "rollouts": 100, "num_levels": 1, "first": 0.01, "noise": (0.5, 0.1)}
    controller = de.presets.mpc(slide, away, **settings)
    after, control = controller.step(KEY, controller.init(), START)
    assert np.abs(control[0]) < 0.03
    assert jnp.std(after.controls) > 0.1


class Ball(NamedTuple):
    place: jax.Array
    bounces: jax.Array


def test_a_state_is_any_pytree():
    def step(ball, control):
        return Ball(ball.place + 0.3 * control, ball.bounces + 1)

    planner = de.presets.plan(step, lambda ball, control: jnp.sum(ball.place**2), **SMALL)
    plan = planner(KEY, Ball(jnp.ones(1), jnp.zeros((), jnp.int32)))
    assert np.isfinite(plan.cost)


def test_bad_settings_are_refused(refuses):
    plan: Any = de.presets.plan

    def using(**settings):
        return plan(slide, away, **{**SMALL, **settings})

    with refuses("horizon"):
        using(horizon=0)
    for bounds in ([(1.0, -1.0)], [(0.0, 0.0)], (-1.0, 1.0), [(-1.0, jnp.inf)], "wide"):
        with refuses("bounds"):
            using(bounds=bounds)
    for knots in (9, 1):
        with refuses("knots"):
            using(knots=knots)
    with refuses("interpolation"):
        using(knots=3, interpolation="quadratic")
    with refuses("step_fn"):
        plan(**SMALL)
    with refuses("stage_cost"):
        plan(slide, **SMALL)
    with refuses("step_fn"):
        using(rollout_cost=around)
    with refuses("rollout_cost"):
        plan(rollout_cost=3, **SMALL)
    for rollouts in (3, 7):
        with refuses("rollouts"):
            using(rollouts=rollouts)
    with refuses("rollouts"):
        using(num_samples=101)
    with refuses("num_plans"):
        using(num_plans=0)
    for noise in ((0.1, 0.5), 1.0):
        with refuses("noise"):
            using(noise=noise)
    with refuses("demonstration"):
        plan(rollout_cost=around, demonstration=jnp.zeros((9, 2)), **SMALL)


def test_functions_that_do_not_fit_the_state_are_refused(refuses):
    def using(step=slide, cost=away, state=START, **settings):
        return de.presets.plan(step, cost, **{**SMALL, **settings})(KEY, state)

    with refuses("step_fn"):
        using(step=lambda state, control: jnp.append(state, 0))
    with refuses("step_fn"):
        using(state=jnp.array([1, 0]))
    with refuses("step_fn"):
        using(step=lambda state, control: np.asarray(state))
    with refuses("stage_cost"):
        using(cost=lambda state, control: state)
    with refuses("terminal_cost"):
        using(terminal_cost=lambda state: state)
    with refuses("demonstration"):
        using(demonstration=jnp.zeros((8, 2)))
    with refuses("rollout_cost"):
        de.presets.plan(rollout_cost=lambda state, u: u, **SMALL)(KEY, START)
    with refuses("stage_cost"):
        using(cost=lambda state, control: state.sum() * 1j)
    with refuses("constraint"):
        using(constraint=lambda state, control: None)
    with refuses("features"):
        using(features=lambda states: states)
    with refuses("features"):
        using(features=lambda states, controls: "far", num_plans=2)
    with refuses("state"):
        using(state="there")  # pyright: ignore
    with refuses("demonstration"):
        using(demonstration="like this")
    with refuses("key"):
        planner: Any = de.presets.plan(slide, away, **SMALL)
        planner(0, START)


def test_bad_settings_of_a_controller_are_refused(refuses):
    def using(**settings):
        return de.presets.mpc(slide, away, **{**SMALL, **settings})

    with refuses("delay"):
        using(delay=-1)
    with refuses("rollouts"):
        using(rollouts=3)
    with refuses("first"):
        using(first=0.0)
    with refuses("noise"):
        using(noise=(0.1, 0.2))
    with refuses("num_levels"):
        using(num_levels=0)
    with refuses("controls"):
        using().init(jnp.zeros((3, 1)))
    with refuses("memory"):
        using().step(KEY, using(), START)  # pyright: ignore
