# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Plans
#
# ![Two cars drive round an obstacle, one on each side, and a pendulum swings up](pictures/10_plans.gif)
#
# Controls of the next 50 steps are a genome, and what their roll-out costs is what is weighed: no gradients, and any simulator in JAX. `presets.plan` looks once,
# and keeps several plans where there are several; `presets.mpc` plans again at every step, and so lives with noise.

# %%
import base64
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from matplotlib.patches import Circle

import diffevo_jax as de
from diffevo_jax.drawings import movie

plt.rcParams.update({"figure.constrained_layout.use": True, "font.size": 11})
X, X0, FINAL = "#2E7EBB", "#E0435C", "#1A1A1A"  # population, estimates, end: in all notebooks

# %% [markdown]
# ## Left or right
#
# A car has a place, a heading and a speed; it accelerates and steers. Its goal is behind an obstacle that stands in the middle of the way.

# %%
DISCS = jnp.array([[0.0, 0.0, 0.6], [1.2, 1.1, 0.4], [1.2, -1.1, 0.4]])  # x, y, radius
START, GOAL = jnp.array([-2.0, 0.0, 0.0, 0.0]), jnp.array([2.0, 0.0])


def drive(state, control):
    x, y, heading, speed = state
    speed = speed + 0.4 * control[0]
    heading = heading + 0.3 * control[1]
    return jnp.stack(
        [x + 0.1 * speed * jnp.cos(heading), y + 0.1 * speed * jnp.sin(heading), heading, speed]
    )


def cost(state, control):
    clear = jnp.linalg.norm(state[:2] - DISCS[:, :2], axis=1) - DISCS[:, 2]
    touching = jnp.sum(jnp.maximum(0.15 - clear, 0))
    return jnp.sum((state[:2] - GOAL) ** 2) + 0.1 * state[3] ** 2 + 100 * touching


def side(states, controls):  # y where the path passes the obstacle
    near = jax.nn.softmax(-20 * states[:, 0] ** 2)
    return jnp.clip(near @ states[:, 1:2], -0.6, 0.6)


settings = {"horizon": 50, "bounds": [(-1, 1), (-1, 1)], "knots": 12}
planner = de.presets.plan(drive, cost, **settings, num_plans=2, features=side)
plan = planner(jax.random.key(1), START)
print(f"costs of the two plans: {plan.costs[0]:.0f} and {plan.costs[1]:.0f}")

# %% [markdown]
# `features` tells plans apart: here by the side on which they pass. Eight searches look for valleys beside each other, each by itself; the best of them
# and the best one that differs from it share the rest of the budget, 10,240 roll-outs in all.


# %%
def path_of(step, state, controls):
    def stage(state, control):
        return step(state, control), state

    return jax.lax.scan(stage, state, controls)[1]


def draw_discs(axes):
    for x, y, radius in np.asarray(DISCS):
        axes.add_patch(Circle((x, y), radius, color="#DDDDDD"))
    axes.plot(*GOAL, "*", color=FINAL, markersize=14)
    axes.set(xlim=(-2.4, 2.6), ylim=(-1.7, 1.7), aspect="equal", xticks=[], yticks=[])


figure, axes = plt.subplots(figsize=(7, 4.4))
draw_discs(axes)
for controls, colour in zip(plan.plans, (X, X0), strict=True):
    axes.plot(*path_of(drive, START, controls)[:, :2].T, ".-", color=colour)
plt.show()

# %% [markdown]
# ## A pendulum in a closed loop
#
# Its motor is too weak to lift it: it has to swing. `presets.mpc` gives two pure functions, so that the whole loop is one `scan`: plan from the state that the world is
# in, send the first control, go on with the rest of the plan. The world is noisy, and controls arrive two steps late; `delay=2` rolls out those on their way first.


# %%
def swing(state, control):
    angle, speed = state  # 0 is upright
    speed = speed + 0.05 * (15 * jnp.sin(angle) + 3 * control[0])
    return jnp.stack([angle + 0.05 * speed, speed])


def upright(state, control):
    return 2 * (1 - jnp.cos(state[0])) + 0.1 * state[1] ** 2 + 0.001 * control[0] ** 2


DELAY, STEPS = 2, 170
controller = de.presets.mpc(
    swing, upright, horizon=60, bounds=[(-2, 2)], knots=12, rollouts=384, delay=DELAY
)


def stage(carry, key):
    memory, state = carry
    key_plan, key_world = jax.random.split(key)
    arriving = memory.committed[0]
    memory, _ = controller.step(key_plan, memory, state)
    state = swing(state, arriving) + 0.01 * jax.random.normal(key_world, (2,))
    return (memory, state), (state, arriving)


@jax.jit
def live(key, start):
    carry = controller.init(), start
    return jax.lax.scan(stage, carry, jax.random.split(key, STEPS))[1]


swung, torques = live(jax.random.key(1), jnp.array([jnp.pi, 0.0]))
off = jnp.abs(jnp.arctan2(jnp.sin(swung[:, 0]), jnp.cos(swung[:, 0])))
print(f"from upright in the last second: {jnp.degrees(off[-20:].mean()):.1f} degrees")

figure, axes = plt.subplots(figsize=(7, 3))
axes.plot(0.05 * np.arange(STEPS), np.degrees(off), color=X)
axes.set(xlabel="seconds", ylabel="degrees from upright")
plt.show()

# %% [markdown]
# ## Two cars that go on planning
#
# A plan of `presets.plan` is where a controller begins: `init(plan)`. Each car stays on its own side, for what is noised and denoised again is the plan that it
# has. The thin line is what a car intends at that moment.

# %%
driver = de.presets.mpc(drive, cost, **settings, rollouts=384, noise=(0.3, 0.05))


@jax.jit
def trip(key, controls):
    def stage(carry, key):
        memory, state = carry
        key_plan, key_world = jax.random.split(key)
        memory, control = driver.step(key_plan, memory, state)
        intended = path_of(drive, state, jnp.concatenate([control[None], memory.controls[:-1]]))
        after = drive(state, control) + 0.01 * jax.random.normal(key_world, (4,))
        return (memory, after), (state, intended)

    keys = jax.random.split(key, 60)
    return jax.lax.scan(stage, (driver.init(controls), START), keys)[1]


trips, intentions = jax.vmap(trip)(jax.random.split(jax.random.key(2), 2), plan.plans)
print(f"distances from the goal: {jnp.linalg.norm(trips[:, -1, :2] - GOAL, axis=1).round(2)}")

# %% tags=["cover"]
figure, (road, bob) = plt.subplots(
    1, 2, figsize=(8, 3.4), width_ratios=[1.7, 1], gridspec_kw={"wspace": 0.02}
)
draw_discs(road)
bob.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal", xticks=[], yticks=[])
for axes in (road, bob):
    axes.spines[:].set_visible(False)
ahead = [road.plot([], [], color=c, alpha=0.35, linewidth=1.5)[0] for c in (X, X0)]
behind = [road.plot([], [], color=c, linewidth=3)[0] for c in (X, X0)]
cars = [road.plot([], [], "o", color=c, markersize=11)[0] for c in (X, X0)]
(ghost,) = bob.plot([], [], color=X, alpha=0.3, linewidth=1.5)
(rod,) = bob.plot([], [], "-", color=FINAL, linewidth=3)
(mass,) = bob.plot([], [], "o", color=X, markersize=17)
bob.plot(0, 0, "o", color=FINAL, markersize=6)
tips = np.stack([np.sin(swung[:, 0]), np.cos(swung[:, 0])])


def draw(frame):
    car = min(frame, 59)
    for index in range(2):
        ahead[index].set_data(*np.asarray(intentions[index, car, :, :2]).T)
        behind[index].set_data(*np.asarray(trips[index, : car + 1, :2]).T)
        cars[index].set_data(*np.asarray(trips[index, car : car + 1, :2]).T)
    now = min(2 * frame, STEPS - 1)
    ghost.set_data(*tips[:, max(0, now - 24) : now + 1])
    rod.set_data([0, tips[0, now]], [0, tips[1, now]])
    mass.set_data(tips[0, now : now + 1], tips[1, now : now + 1])


path = Path(tempfile.mkdtemp()) / "plans.gif"
movie.save(figure, draw, range(85), path, per_second=14)
plt.close(figure)
HTML(f'<img src="data:image/gif;base64,{base64.b64encode(path.read_bytes()).decode()}">')

# %% [markdown]
# What it costs, beside other planners, stands on the page on planning, `docs/planning.md`.
