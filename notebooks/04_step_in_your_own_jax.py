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
# # The step inside your own JAX
#
# ![Sixteen landscapes, each with a population that has found its optimum](pictures/04_step_in_your_own_jax.png)
#
# Sixteen searches on sixteen landscapes, as one compiled program. `evolve` is a convenience; what it calls are two pure functions, `init` and `step`, that
# fit into any loop of yours. Fitness is data, like gradients in Optax: the step takes numbers from wherever you measured them.
#
# We begin with a loop in Python and a laboratory that sometimes fails, move into `jit`, `scan` and `vmap`, and end on eight devices.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import diffevo_jax as de

jax.config.update("jax_num_cpu_devices", 8)  # for the last section; before JAX is used
plt.rcParams.update({"figure.constrained_layout.use": True, "font.size": 11})
X, X0, FINAL = "#2E7EBB", "#E0435C", "#1A1A1A"  # population, estimates, end: in all notebooks

# %% [markdown]
# ## A loop in Python
#
# The laboratory below is no JAX: it could be a simulator in another process, or people who bake 40 cakes a week. It measures how good a recipe is, up to some
# noise, and one measurement in ten goes wrong and comes back as NaN.

# %%
rng = np.random.default_rng(0)


def laboratory(recipes):  # [N, 2] -> [N], a good recipe is near (0.8, -0.5)
    quality = 10 - 4 * np.sum((recipes - np.array([0.8, -0.5])) ** 2, axis=1)
    quality += 0.3 * rng.normal(size=len(recipes))
    return np.where(rng.uniform(size=len(recipes)) < 0.1, np.nan, quality)


# %% [markdown]
# T levels of the schedule are T generations to evaluate, with T - 1 steps between them. `state.population` is what to evaluate next; `step` takes what came
# of it. What is NaN weighs nothing and is counted.

# %%
generations = 12
evolution = de.presets.paper(de.schedules.cosine(generations))
step = jax.jit(evolution.step)
key_init, key_run = jax.random.split(jax.random.key(0))
state = evolution.init(key_init, jax.random.normal(key_init, (40, 2)))

path = []
for key in jax.random.split(key_run, generations - 1):
    quality = laboratory(np.asarray(state.population))
    state, info = step(key, state, quality)
    path.append(info)
    print(
        f"t = {info.t:2}: median quality {np.nanmedian(quality):5.1f},"
        f" {info.num_invalid} measurements lost"
    )
print(
    f"levels left: {state.t}; centre of the last recipes: {np.round(state.population.mean(axis=0), 2)}"
)

# %% [markdown]
# `info` is what a figure shows, and is never needed for the next step. The targets (red) are near the right recipe, the cross, from the first generation
# on, while the recipes themselves are still drawn widely: 40 noisy measurements say more together than the best of them does.

# %%
figure, panels = plt.subplots(1, 3, figsize=(9.5, 3.5), sharex=True, sharey=True)
for axes, info in zip(panels, (path[0], path[5], path[10]), strict=True):
    axes.scatter(*info.population.T, s=14, color=X, label="recipes x")
    axes.scatter(*info.x0.T, s=14, color=X0, alpha=0.6, label="targets x0")
    axes.plot(0.8, -0.5, "k+", markersize=14)
    axes.set(xlabel="sugar", title=f"t = {info.t}", xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
panels[0].set_ylabel("butter")
panels[0].legend(fontsize=9, loc="upper left")
plt.show()

# %% [markdown]
# ## A scan of your own
#
# Where fitness is JAX the loop is a `lax.scan`. This is all that `evolve` does besides remembering the best; write it yourself to carry along what you
# like. Here the landscape has a parameter, the place of its optimum, and we carry how far the population is from it.


# %%
def ripples(population, optimum):  # many local optima around the one that is sought
    offset = population - optimum
    return jnp.sum(jnp.cos(6 * offset) - offset**2, axis=1)


def search(key, optimum):
    key_init, key_run = jax.random.split(key)
    generations = 40
    evolution = de.presets.paper(de.schedules.cosine(generations))

    def generation(state, key):
        fitness = ripples(state.population, optimum)
        state, info = evolution.step(key, state, fitness)
        return state, jnp.median(jnp.linalg.norm(info.population - optimum, axis=1))

    state = evolution.init(key_init, 1.5 * jax.random.normal(key_init, (128, 2)))
    return jax.lax.scan(generation, state, jax.random.split(key_run, generations))


state, distance = jax.jit(search)(jax.random.key(1), jnp.array([1.0, -0.5]))
print(f"median distance from the optimum: {distance[0]:.2f} -> {distance[-1]:.3f}")

# %% [markdown]
# ## vmap
#
# `search` is a pure function of a key and a landscape, so `vmap` makes sixteen searches of it, and `jit` one program. The contours are the landscapes, each
# with its optimum elsewhere, in the middle of the red ring; black is the last population. All of them are inside.

# %% tags=["cover"]
keys = jax.random.split(jax.random.key(2), 16)
optima = jax.random.uniform(jax.random.key(3), (16, 2), minval=-2, maxval=2)
states, distances = jax.jit(jax.vmap(search))(keys, optima)

side = jnp.linspace(-3, 3, 81)
plane = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
figure, panels = plt.subplots(2, 8, figsize=(12, 3.4), sharex=True, sharey=True)
for axes, end, optimum in zip(panels.flat, states.population, optima, strict=True):
    axes.contourf(side, side, ripples(plane, optimum).reshape(81, 81), cmap="Blues", alpha=0.5)
    axes.plot(*optimum, "o", color=X0, markersize=17, markeredgewidth=2, fillstyle="none")
    axes.scatter(*end.T, s=4, color=FINAL)
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=(-2, 0, 2))
figure.supxlabel("gene 1", fontsize=11)
figure.supylabel("gene 2", fontsize=11)
plt.show()

# %%
found = distances[:, -1] < 0.2
print(f"at the optimum: {found.sum()} of 16 searches")
print(f"median distances at the end: {distances[:, -1].min():.2f} to {distances[:, -1].max():.2f}")

# %% [markdown]
# ## Many devices
#
# A population too large for one accelerator is split over a mesh of them. This machine has no accelerator; the setting at the top has JAX make eight devices
# of its CPU, so that what works here works there. The mesh goes into the factory, and everything stays split.

# %%
mesh = jax.sharding.Mesh(jax.devices(), ("individuals",))
rows = de.sharding.rows(mesh)
draw = jax.jit(lambda key: jax.random.normal(key, (4096, 2)), out_shardings=rows)
evolution = de.presets.paper(de.schedules.cosine(25), mesh=mesh)
run = jax.jit(lambda key, x: de.evolve(key, evolution, de.landscapes.two_peaks, x).state)
state = run(key_run, draw(key_init))
print(f"{len(jax.devices())} devices; split as asked: {state.population.sharding == rows}")
jax.debug.visualize_array_sharding(state.population[:, 0])

# %% [markdown]
# Random numbers are those of a single device, so a run on one and a run on eight agree up to rounding. Roll-outs, and other loops that last as long as
# their individuals do, run each device's own with `de.sharding.over_individuals`. Memory, time and communication up to 10^7 individuals:
# `docs/scaling.md`. Many searches at once on settings of your own: notebook 05.
