"""Plans by `presets.plan` and `presets.mpc`, beside others tuned on other seeds.

    python experiments/benchmarks/planning.py            # what is missing: 40 minutes on one core
    python experiments/benchmarks/planning.py --only open/car     # parts whose name begins so, anew
    python experiments/benchmarks/planning.py --tables   # of docs/planning.md

Peers are plain functions of the papers: MPPI (Williams et al. 2017), the cross-entropy method,
Model-Based Diffusion (Pan et al. 2024, 2407.01573), DIAL-MPC (Xue et al. 2024, 2409.15610); and
`optimize.search`. All have the same roll-outs. Peers are tuned for each task on its own, over
their grid and 8 seeds; the presets have one setting for all tasks. Reported on 128 other seeds,
200 in the closed loop, that no setting was chosen on. Of every method the best of all roll-outs
counts, its last mean among them.

Into results/planning-cpu.json. A peer's settings that are there are not tuned again.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import CubicSpline

import diffevo_jax as de
from experiments.benchmarks import timing

HORIZON = 50


class Task(NamedTuple):
    """A system to plan for, of the same cost at every stage and at the end.

    step: (state, control `[m]`) -> the next state. cost: (state, control) -> stage cost `[]`.
    start: the first state, before the seed's noise of `spread`. bounds: `[m, 2]`.
    error: state -> distance from where it should settle.
    """

    step: Callable[[Any, jax.Array], Any]
    cost: Callable[[Any, jax.Array], jax.Array]
    start: Any
    spread: float
    bounds: list[tuple[float, float]]
    error: Callable[[Any], jax.Array]


def runge_kutta(derivative: Callable[..., jax.Array], dt: float) -> Callable[..., jax.Array]:
    """One step of the classic fourth order, the control held."""

    def step(state: jax.Array, control: jax.Array) -> jax.Array:
        a = derivative(state, control)
        b = derivative(state + dt / 2 * a, control)
        c = derivative(state + dt / 2 * b, control)
        d = derivative(state + dt * c, control)
        return state + dt / 6 * (a + 2 * b + 2 * c + d)

    return step


def angle(theta: jax.Array) -> jax.Array:
    """Measure an angle from upright, 1 - cos: 0 upright and 2 hanging."""
    return 1 - jnp.cos(theta)


OBSTACLES = jnp.array([[0.0, 0.0, 0.6], [1.2, 1.1, 0.4], [1.2, -1.1, 0.4]])  # x, y, radius
GOAL = jnp.array([2.0, 0.0])


def car_clearance(state: jax.Array) -> jax.Array:
    """How far the car is from each obstacle; below 0 inside."""
    return jnp.linalg.norm(state[:2] - OBSTACLES[:, :2], axis=1) - OBSTACLES[:, 2]


def car() -> Task:
    """A car (x, y, heading, speed) with acceleration and steering, and two ways round."""

    def step(state, control):
        x, y, heading, speed = state
        speed = speed + 0.1 * 4 * control[0]
        heading = heading + 0.1 * 3 * control[1]
        x = x + 0.1 * speed * jnp.cos(heading)
        y = y + 0.1 * speed * jnp.sin(heading)
        return jnp.stack([x, y, heading, speed])

    def cost(state, control):
        away = jnp.sum((state[:2] - GOAL) ** 2)
        inside = jnp.sum(jnp.maximum(0.1 - car_clearance(state), 0))
        return away + 0.1 * state[3] ** 2 + 100 * inside + 0.01 * jnp.sum(control**2)

    def error(state):
        return jnp.linalg.norm(state[:2] - GOAL)

    return Task(step, cost, jnp.array([-2.0, 0.0, 0.0, 0.0]), 0.05, [(-1, 1)] * 2, error)


def pendulum() -> Task:
    """Swing up a pendulum whose torque cannot lift it: Gym's constants, in steps of .1 s."""

    def derivative(state, control):
        theta, speed = state
        return jnp.stack([speed, 15 * jnp.sin(theta) + 3 * control[0]])

    def cost(state, control):
        return 2 * angle(state[0]) + 0.1 * state[1] ** 2 + 0.001 * control[0] ** 2

    def error(state):
        return jnp.abs(jnp.arctan2(jnp.sin(state[0]), jnp.cos(state[0])))

    start = jnp.array([jnp.pi, 0.0])
    return Task(runge_kutta(derivative, 0.1), cost, start, 0.05, [(-2, 2)], error)


def cart_pole() -> Task:
    """Swing up a pole (1 m, .1 kg) on a cart (1 kg) by a force of 10 N, in steps of .05 s."""

    def derivative(state, control):
        _, theta, speed, turn = state
        sin, cos = jnp.sin(theta), jnp.cos(theta)
        mass = 1.1
        push = (control[0] + 0.05 * turn**2 * sin) / mass
        turning = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / mass))
        return jnp.stack([speed, turn, push - 0.05 * turning * cos / mass, turning])

    def cost(state, control):
        x, theta, speed, turn = state
        return 5 * angle(theta) + 0.5 * x**2 + 0.05 * (speed**2 + turn**2) + 1e-3 * control[0] ** 2

    def error(state):
        return jnp.abs(jnp.arctan2(jnp.sin(state[1]), jnp.cos(state[1]))) + jnp.abs(state[0])

    start = jnp.array([0.0, jnp.pi, 0.0, 0.0])
    return Task(runge_kutta(derivative, 0.05), cost, start, 0.05, [(-10, 10)], error)


def acrobot() -> Task:
    """Swing up two rods (1 m, 1 kg) by a torque of 15 Nm at the elbow, in steps of .05 s.

    Angles are from upright, the second from the first rod's direction.
    """

    def derivative(state, control):
        first, second, first_speed, second_speed = state
        middle, inertia, gravity = 0.5, 1 / 12, 9.8
        sin, cos = jnp.sin(second), jnp.cos(second)
        a = middle**2 + inertia + 1 + middle**2 + 2 * middle * cos + inertia
        b = middle**2 + middle * cos + inertia
        c = middle**2 + inertia
        lower = gravity * middle * jnp.sin(first + second)
        upper = gravity * (middle + 1) * jnp.sin(first) + lower
        whirl = middle * sin * second_speed * (2 * first_speed + second_speed)
        p = upper + whirl - 0.1 * first_speed
        q = control[0] + lower - middle * sin * first_speed**2 - 0.1 * second_speed
        determinant = a * c - b * b
        return jnp.stack(
            [
                first_speed,
                second_speed,
                (c * p - b * q) / determinant,
                (a * q - b * p) / determinant,
            ]
        )

    def cost(state, control):
        first, second, first_speed, second_speed = state
        height = angle(first) + angle(first + second)
        speeds = 0.02 * (first_speed**2 + second_speed**2)
        return 5 * height + speeds + 1e-3 * control[0] ** 2

    def error(state):
        def wrapped(angle):
            return jnp.abs(jnp.arctan2(jnp.sin(angle), jnp.cos(angle)))

        return wrapped(state[0]) + wrapped(state[0] + state[1])

    within = jnp.array([jnp.inf, jnp.inf, 4 * jnp.pi, 9 * jnp.pi])  # speeds, as in Gym
    half = runge_kutta(derivative, 0.025)

    def step(state, control):
        return jnp.clip(half(half(state, control), control), -within, within)

    start = jnp.array([jnp.pi, 0.0, 0.0, 0.0])
    return Task(step, cost, start, 0.05, [(-15, 15)], error)


TASKS = {"car": car, "pendulum": pendulum, "cart-pole": cart_pole, "acrobot": acrobot}
ROLLOUTS = 10_240
TUNING, TUNING_SEED = 8, 7
OPEN, CLOSED, SEED = 128, 200, 20_260  # runs that are reported
RESULTS = Path(__file__).parent / "results" / "planning-cpu.json"
Search = Callable[[jax.Array, jax.Array], jax.Array]  # (key, start) -> cost


class Grid(NamedTuple):
    """A peer's settings: those that a program is compiled for, and numbers that are mapped.

    make: (task, **shapes) -> (key, start, *numbers) -> cost.
    """

    make: Callable[..., Callable[..., jax.Array]]
    shapes: dict[str, list[Any]]
    numbers: dict[str, list[float]]


def spline(knots: int | None) -> jax.Array:
    """The matrix from knots to controls, `[H, K]`."""
    if knots is None:
        return jnp.eye(HORIZON)
    places = np.linspace(0, HORIZON - 1, knots)
    rows = CubicSpline(places, np.eye(knots), bc_type="natural")(np.arange(HORIZON))
    return jnp.asarray(rows, float)


def make_cost(task: Task, knots: int | None) -> tuple[Callable[..., jax.Array], tuple[int, int]]:
    """Make (start, knots `[K, m]` in halves of the bounds) -> cost, and the knots' shape."""
    low, high = jnp.asarray(task.bounds, float).T
    basis = spline(knots)

    def cost(start: jax.Array, z: jax.Array) -> jax.Array:
        controls = (low + high) / 2 + (high - low) / 2 * jnp.clip(basis @ z, -1, 1)

        def stage(state: jax.Array, control: jax.Array) -> tuple[jax.Array, jax.Array]:
            return task.step(state, control), task.cost(state, control)

        last, costs = jax.lax.scan(stage, start, controls)
        return jnp.sum(costs) + task.cost(last, jnp.zeros_like(low))

    return cost, (basis.shape[1], len(low))


def averaging(
    cost: Callable[..., jax.Array],
    key: jax.Array,
    start: jax.Array,
    mean: jax.Array,
    noises: jax.Array,
    size: int,
    temperature: jax.Array | float,
) -> tuple[jax.Array, jax.Array]:
    """MPPI, MBD and DIAL-MPC: a mean weighted by exp(-J / (temperature std J)), noise by level.

    mean: `[K, m]`. noises: `[T, K, 1]`. Returns the last mean and the best cost of all.
    """

    def level(carry: Any, given: Any) -> tuple[Any, None]:
        mean, best = carry
        key, noise = given
        z = mean + noise * jax.random.normal(key, (size, *mean.shape))
        costs = jax.vmap(lambda z: cost(start, z))(z)
        weight = jax.nn.softmax(-(costs - costs.min()) / (temperature * costs.std() + 1e-9))
        return (jnp.einsum("n,nij->ij", weight, z), jnp.minimum(best, costs.min())), None

    keys = jax.random.split(key, len(noises))
    (mean, best), _ = jax.lax.scan(level, (mean, jnp.inf), (keys, noises))
    return mean, jnp.minimum(best, cost(start, mean))


def mppi(task: Task, levels: int, knots: int | None) -> Callable[..., jax.Array]:
    """Model predictive path integrals, repeated: the noise stays."""
    cost, shape = make_cost(task, knots)

    def search(key, start, noise, temperature):
        noises = jnp.full((levels, 1, 1), noise)
        mean = jnp.zeros(shape)
        return averaging(cost, key, start, mean, noises, ROLLOUTS // levels, temperature)[1]

    return search


def mbd(task: Task, levels: int, knots: int | None) -> Callable[..., jax.Array]:
    """Model-Based Diffusion: beta from 1e-4, linear; the noise is sqrt(1 / alpha - 1)."""
    cost, shape = make_cost(task, knots)

    def search(key, start, noise, temperature):
        total = jnp.log1p(noise**2)  # the sum of betas that gives the first level's noise
        betas = jnp.linspace(1e-4, 2 * total / levels - 1e-4, levels)
        alpha = jnp.exp(-jnp.cumsum(betas))
        noises = jnp.sqrt(1 / alpha - 1)[::-1, None, None]
        mean = jnp.zeros(shape)
        return averaging(cost, key, start, mean, noises, ROLLOUTS // levels, temperature)[1]

    return search


def dial_noises(levels: int, shape: tuple[int, int], noise, fall, first) -> jax.Array:
    """Noise by level and place: two annealings, exp(-t / (fall T) - (1 - h / H) / first)."""
    place = jnp.linspace(0, 1, shape[0])[:, None]
    passed = jnp.arange(levels)[:, None, None] / levels
    return noise * jnp.exp(-passed / fall - (1 - place) / first)


def dial(task: Task, levels: int, knots: int | None) -> Callable[..., jax.Array]:
    """DIAL-MPC's search, from nothing."""
    cost, shape = make_cost(task, knots)

    def search(key, start, noise, temperature, fall, first):
        noises = dial_noises(levels, shape, noise, fall, first)
        mean = jnp.zeros(shape)
        return averaging(cost, key, start, mean, noises, ROLLOUTS // levels, temperature)[1]

    return search


def cem(task: Task, levels: int, knots: int | None) -> Callable[..., jax.Array]:
    """The cross-entropy method: mean and deviation of the elites, a tenth of the old ones kept."""
    cost, shape = make_cost(task, knots)
    size = ROLLOUTS // levels

    def search(key, start, noise, elites):
        share = (jnp.arange(size) < elites * size) / jnp.ceil(elites * size)

        def level(carry, key):
            mean, deviation, best = carry
            z = mean + deviation * jax.random.normal(key, (size, *shape))
            costs = jax.vmap(lambda z: cost(start, z))(z)
            z = z[jnp.argsort(costs)]
            centre = jnp.einsum("n,nij->ij", share, z)
            width = jnp.sqrt(jnp.einsum("n,nij->ij", share, (z - centre) ** 2))
            best = jnp.minimum(best, costs.min())
            return (0.1 * mean + 0.9 * centre, 0.1 * deviation + 0.9 * width, best), None

        first = jnp.zeros(shape), jnp.full(shape, noise), jnp.inf
        (mean, _, best), _ = jax.lax.scan(level, first, jax.random.split(key, levels))
        return jnp.minimum(best, cost(start, mean))

    return search


KNOTS = [None, 12]
GRIDS = {
    "MPPI": Grid(
        mppi,
        {"levels": [20, 80], "knots": KNOTS},
        {"noise": [0.3, 0.6, 1.0], "temperature": [0.03, 0.1]},
    ),
    "MBD": Grid(
        mbd,
        {"levels": [40, 100], "knots": KNOTS},
        {"noise": [0.8, 2.0], "temperature": [0.03, 0.1, 0.3]},
    ),
    "DIAL-MPC": Grid(
        dial,
        {"levels": [40, 100], "knots": [12]},
        {"noise": [1.0, 2.0], "temperature": [0.1], "fall": [0.3, 0.6], "first": [0.7, 3.0]},
    ),
    "CEM": Grid(
        cem,
        {"levels": [20, 40], "knots": KNOTS},
        {"noise": [0.5, 1.0, 2.0], "elites": [0.05, 0.1]},
    ),
}


def product(values: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """All settings of a grid."""
    return (dict(zip(values, each, strict=True)) for each in itertools.product(*values.values()))


def starts(task: Task, seed: int, runs: int) -> tuple[jax.Array, jax.Array]:
    """Keys and first states of runs."""
    keys = jax.random.split(jax.random.key(seed), runs)
    noise = jax.vmap(lambda key: jax.random.normal(key, task.start.shape))(keys)
    return jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys), task.start + task.spread * noise


def on_seeds(search: Callable[..., jax.Array], task: Task, seed: int, runs: int) -> np.ndarray:
    """What a search comes to on every seed."""
    return np.asarray(jax.jit(jax.vmap(search))(*starts(task, seed, runs)))


def tune(grid: Grid, task: Task, row: dict[str, Any] | None) -> tuple[dict[str, Any], int]:
    """Choose the settings of the lowest mean cost on the tuning seeds, and how many were tried.

    row: of the results before, whose settings are taken; None tunes.
    """
    if row is not None:
        return row["settings"], row["tried"]
    tried: list[tuple[float, dict[str, Any]]] = []
    for shapes in product(grid.shapes):
        search = grid.make(task, **shapes)
        numbers = list(product(grid.numbers))
        columns = [jnp.asarray([each[name] for each in numbers], float) for name in grid.numbers]
        keys, first = starts(task, TUNING_SEED, TUNING)

        def of_numbers(*numbers, search=search, keys=keys, first=first):
            values = jax.vmap(lambda key, start: search(key, start, *numbers))(keys, first)
            return jnp.mean(values.reshape(TUNING, -1)[:, 0])

        costs = jax.jit(lambda columns, f=of_numbers: jax.lax.map(lambda row: f(*row), columns))
        means = np.nan_to_num(np.asarray(costs(columns)), nan=np.inf)
        tried += [
            (float(mean), {**shapes, **each}) for mean, each in zip(means, numbers, strict=True)
        ]
    return min(tried, key=lambda each: each[0])[1], len(tried)


def ours(task: Task, **settings: Any) -> Search:
    """`presets.plan` with its defaults but for the knots."""

    def last(state):
        return task.cost(state, jnp.zeros(len(task.bounds)))

    planner = de.presets.plan(
        *(task.step, task.cost, last),
        horizon=HORIZON,
        bounds=task.bounds,
        **{"rollouts": ROLLOUTS, "knots": 12, **settings},
    )
    return lambda key, start: planner(key, start).cost


def optimised(task: Task) -> Search:
    """`optimize.search` over 12 knots."""
    cost, (knots, controls) = make_cost(task, 12)

    def search(key, start):
        def of_knots(z):
            return cost(start, z.reshape(knots, controls))

        bounds = [(-1.5, 1.5)] * (knots * controls)
        return de.optimize.search(key, of_knots, bounds, evaluations=ROLLOUTS).cost

    return search


def summary(values: np.ndarray) -> dict[str, Any]:
    """Mean and standard error over seeds, and every seed's."""
    return {
        "mean": round(float(values.mean()), 4),
        "error": round(float(values.std(ddof=1) / len(values) ** 0.5), 4),
        "all": [round(float(value), 3) for value in values],
    }


def open_loop(name: str, method: str, row: dict[str, Any] | None) -> dict[str, Any]:
    """A row: a method's costs on a task; row: as it was before."""
    task = TASKS[name]()
    if method == "plan":
        return {**summary(on_seeds(ours(task), task, SEED, OPEN)), "tried": 0}
    if method == "search":
        return {**summary(on_seeds(optimised(task), task, SEED, OPEN)), "tried": 1}
    grid = GRIDS[method]
    settings, tried = tune(grid, task, row)
    search = grid.make(task, **{k: v for k, v in settings.items() if k in grid.shapes})
    numbers = [settings[k] for k in grid.numbers]
    values = on_seeds(lambda key, start: search(key, start, *numbers), task, SEED, OPEN)
    return {**summary(values), "settings": settings, "tried": tried}


# Closed loop


STEPS, SMALL, LATE, SHAKE = 80, 384, 10, 0.01  # SHAKE: deviation of the dynamics' noise


class Loop(NamedTuple):
    """A controller: init, and (key, memory, state) -> (memory, control)."""

    init: Any
    step: Callable[[jax.Array, Any, jax.Array], tuple[Any, jax.Array]]


def mppi_loop(task: Task, levels: int, knots: int | None) -> Callable[..., Loop]:
    """MPPI as a controller: the mean moved on by one step, and averaged again.

    Without the clip the mean drifts beyond the bounds, and both swing-ups fail.
    """
    cost, shape = make_cost(task, knots)
    onwards = moved_on(knots)
    low, high = jnp.asarray(task.bounds, float).T

    def make(noise, temperature, fall=None, first=None):
        def step(key, mean, state):
            if first is None:
                noises = jnp.full((levels, 1, 1), noise)
            else:
                noises = dial_noises(levels, shape, noise, fall, first)
            size = SMALL // levels
            mean, _ = averaging(cost, key, state, mean, noises, size, temperature)
            control = (low + high) / 2 + (high - low) / 2 * jnp.clip(mean[0], -1, 1)
            return onwards @ jnp.clip(mean, -1, 1), control

        return Loop(jnp.zeros(shape), step)

    return make


def moved_on(knots: int | None) -> jax.Array:
    """The matrix from knots to those of the same controls a step later, `[K, K]`."""
    basis = np.asarray(spline(knots), np.float64)
    later = np.concatenate([basis[1:], basis[-1:]])
    return jnp.asarray(np.linalg.pinv(basis) @ later, float)


def our_loop(task: Task, **settings: Any) -> Loop:
    """`presets.mpc` with its defaults but for the knots."""

    def last(state):
        return task.cost(state, jnp.zeros(len(task.bounds)))

    controller = de.presets.mpc(
        *(task.step, task.cost, last),
        horizon=HORIZON,
        bounds=task.bounds,
        **{"rollouts": SMALL, "knots": 12, **settings},
    )
    return Loop(controller.init(), controller.step)


def closed(task: Task, loop: Loop) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Make (key, start) -> mean stage cost over all steps, and mean error over the last, `[2]`."""

    def run(key: jax.Array, start: jax.Array) -> jax.Array:
        def stage(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            memory, state = carry
            key_plan, key_world = jax.random.split(key)
            memory, control = loop.step(key_plan, memory, state)
            cost = task.cost(state, control)
            state = task.step(state, control)
            state = state + SHAKE * jax.random.normal(key_world, state.shape)
            return (memory, state), jnp.stack([cost, task.error(state)])

        carry = loop.init, start
        _, both = jax.lax.scan(stage, carry, jax.random.split(key, STEPS))
        return jnp.stack([jnp.mean(both[:, 0]), jnp.mean(both[-LATE:, 1])])

    return run


def of_loop(make: Callable[..., Callable[..., Loop]]) -> Callable[..., Callable[..., jax.Array]]:
    """Make of a controller what `tune` takes."""

    def of_task(task: Task, **shapes: Any) -> Callable[..., jax.Array]:
        made = make(task, **shapes)
        return lambda key, start, *numbers: closed(task, made(*numbers))(key, start)

    return of_task


LOOPS = {
    "MPPI": Grid(
        of_loop(mppi_loop),
        {"levels": [1, 2, 4], "knots": KNOTS},
        {"noise": [0.3, 0.6, 1.0], "temperature": [0.03, 0.1]},
    ),
    "DIAL-MPC": Grid(
        of_loop(mppi_loop),
        {"levels": [2, 4], "knots": [12]},
        {"noise": [0.5, 1.0], "temperature": [0.03, 0.1], "fall": [0.5], "first": [0.7, 3.0]},
    ),
}


def closed_loop(name: str, method: str, row: dict[str, Any] | None) -> dict[str, Any]:
    """A row: a controller's mean stage cost and late error on a task; row: as it was before."""
    task = TASKS[name]()
    settings: dict[str, Any] = {}
    tried = 0
    if method == "mpc":
        loop = our_loop(task)
    else:
        grid = LOOPS[method]
        settings, tried = tune(grid, task, row)
        loop = mppi_loop(task, **{k: v for k, v in settings.items() if k in grid.shapes})(
            **{k: v for k, v in settings.items() if k in grid.numbers}
        )
    search = closed(task, loop)
    cost, late = on_seeds(search, task, SEED, CLOSED).T
    ending = {f"late_{key}": value for key, value in summary(late).items()}
    return {**summary(cost), **ending, "settings": settings, "tried": tried}


def step_times(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A row: milliseconds of a control step, and seconds to compile it, beside the tuned MPPI."""
    task = TASKS[name]()
    numbers = {k: v for k, v in settings.items() if k in LOOPS["MPPI"].numbers}
    shapes = {k: v for k, v in settings.items() if k in LOOPS["MPPI"].shapes}
    loops = {"mpc": our_loop(task), "MPPI": mppi_loop(task, **shapes)(**numbers)}
    calls, seconds = {}, {}
    for method, loop in loops.items():
        arguments = jax.random.key(0), loop.init, task.start
        calls[method], seconds[method] = timing.compiled(loop.step, *arguments)
    medians = timing.interleaved(calls, 30)
    return {
        "mean": round(medians["mpc"] / medians["MPPI"], 3),
        "error": None,
        "milliseconds": {k: round(1000 * v, 3) for k, v in medians.items()},
        "compilation_seconds": {k: round(v, 2) for k, v in seconds.items()},
    }


def both_ways() -> dict[str, Any]:
    """A row: in how many seeds plans left and right of the first obstacle are found."""
    task = TASKS["car"]()
    planner = two_ways_planner(task)
    keys, first = starts(task, SEED, OPEN)
    plans = jax.jit(jax.vmap(planner))(keys, first)
    sides = jax.vmap(jax.vmap(lambda start, u: side(task, start, u), (None, 0)))(first, plans.plans)
    both = jnp.isfinite(plans.costs).all(axis=1) & (sides[:, 0] != sides[:, 1])
    costs = np.asarray(plans.costs)
    return {
        **summary(np.asarray(both, float)),
        "best": summary(costs[:, 0])["mean"],
        "other": summary(costs[np.isfinite(costs[:, 1]), 1])["mean"],
    }


def two_ways_planner(task: Task) -> Callable[[jax.Array, jax.Array], de.presets.Plan]:
    """Two plans, told apart by the side on which they pass the first obstacle."""

    def last(state):
        return task.cost(state, jnp.zeros(2))

    return de.presets.plan(
        *(task.step, task.cost, last),
        horizon=HORIZON,
        bounds=task.bounds,
        rollouts=ROLLOUTS,
        knots=12,
        num_plans=2,
        features=lambda states, controls: passing(states),
    )


def passing(states: jax.Array) -> jax.Array:
    """Where a path is as it passes the first obstacle: y there, within the obstacle's size."""
    near = jax.nn.softmax(-20 * states[:, 0] ** 2)
    return jnp.clip(near @ states[:, 1:2], -0.6, 0.6)


def side(task: Task, start: jax.Array, controls: jax.Array) -> jax.Array:
    """On which side of the first obstacle a plan passes, -1 or 1."""

    def stage(state, control):
        state = task.step(state, control)
        return state, state

    _, path = jax.lax.scan(stage, start, controls)
    return jnp.sign(passing(path)[0])


def tables(results: dict[str, Any]) -> str:
    """The tables of docs/planning.md, as Markdown."""

    def cell(row: dict[str, Any] | None, late: str, first: dict[str, Any] | None = None) -> str:
        """A mean; with `first` how far that row is ahead, seed by seed."""
        if row is None:
            return "-"
        if first is None:
            return f"{row[late + 'mean']:.4g} ± {row[late + 'error']:.2g}"
        ahead = np.subtract(row[late + "all"], first[late + "all"])
        return f"{ahead.mean():.3g} ± {ahead.std(ddof=1) / len(ahead) ** 0.5:.2g}"

    def table(part: str, methods: list[str], lates: tuple[str, ...], first: str = "") -> None:
        measured = {name.split("/")[2] for name in results if name.startswith(part)}
        columns = [(method, late) for method in methods if method in measured for late in lates]
        names = [f"`{m}`" if m in ("plan", "mpc", "search") else m for m, _ in columns]
        names = [
            name + (", late error" if late else "")
            for name, (_, late) in zip(names, columns, strict=True)
        ]
        heading = f"`{first}` is ahead of" if first else "task"
        lines.extend([f"| {heading} | {' | '.join(names)} |", "|---" + "|---:" * len(names) + "|"])
        for task in TASKS:
            before = results.get(f"{part}/{task}/{first}")
            rows = [(results.get(f"{part}/{task}/{method}"), late) for method, late in columns]
            if any(row for row, _ in rows):
                cells = [cell(row, late, before) for row, late in rows]
                lines.append(f"| {task} | {' | '.join(cells)} |")
        lines.append("")

    lines: list[str] = []
    for part, first, others, lates in (
        ("open", "plan", [*GRIDS, "search"], ("",)),
        ("closed", "mpc", list(LOOPS), ("", "late_")),
    ):
        table(part, [first, *others], lates)
        table(part, others, lates, first)
    lines += ["| task | ms a step: `mpc` | MPPI | ratio | seconds to compile `mpc` |"]
    lines += ["|---|---:|---:|---:|---:|"]
    for task in TASKS:
        if (row := results.get(f"time/{task}")) is not None:
            times, compiling = row["milliseconds"], row["compilation_seconds"]
            lines.append(
                f"| {task} | {times['mpc']:.2g} | {times['MPPI']:.2g} | {row['mean']:.2f} "
                f"| {compiling['mpc']:.1f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", help="parts whose name begins so, anew")
    parser.add_argument("--tables", action="store_true", help="print the tables of the page")
    chosen = parser.parse_args()
    only = chosen.only
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if chosen.tables:
        print(tables(results))
        raise SystemExit

    def tuned(name: str) -> dict[str, Any]:
        """Return MPPI's settings for a task."""
        row = results.get(f"closed/{name}/MPPI")
        if row is None:
            raise SystemExit(f"time/{name} needs another part first: closed/{name}/MPPI")
        return row["settings"]

    parts: dict[str, Callable[[], dict[str, Any]]] = {}
    parts["two ways/car"] = both_ways
    for name, (part, run, methods) in itertools.product(
        TASKS,
        (
            ("open", open_loop, ("plan", *GRIDS, "search")),
            ("closed", closed_loop, ("mpc", *LOOPS)),
        ),
    ):
        for method in methods:
            row = results.get(f"{part}/{name}/{method}")
            parts[f"{part}/{name}/{method}"] = partial(run, name, method, row)
    for name in TASKS:
        parts[f"time/{name}"] = lambda n=name: step_times(n, tuned(n))
    for name, part in parts.items():
        if name.startswith(tuple(only)) if only else name not in results:
            begin = time.perf_counter()
            results[name] = part()
            seconds = time.perf_counter() - begin
            print(
                f"{name} {results[name]['mean']} ± {results[name]['error']}, {seconds:.0f} s",
                flush=True,
            )
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
