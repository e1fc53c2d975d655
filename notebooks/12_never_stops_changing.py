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
# # An environment that never stops changing
#
# ![Niches follow the peaks of a landscape that changes again and again](pictures/12_never_stops_changing.gif)
#
# An evolution ends; an environment does not. Peaks move, sink and rise, and what was best yesterday is not tomorrow. `presets.track` has no end either: it remembers its
# niches, sees that the landscape has changed, and follows. Nobody tells it of changes.

# %%
import base64
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML

import diffevo_jax as de
from diffevo_jax.drawings import movie

plt.rcParams.update({"figure.constrained_layout.use": True, "font.size": 11})
X, X0, FINAL = "#2E7EBB", "#E0435C", "#1A1A1A"  # population, estimates, end: in all notebooks

# %% [markdown]
# ## Peaks that move
#
# Branke's moving peaks are cones. At every change each of them moves by a fixed distance in a direction of its own, and gets another height and width. Here are six in the
# plane, and 400 changes. The world is [0, 100] in both directions; a genome z is the point 50 + 25 z.

# %%
CHANGES, PERIOD, SIZE = 400, 25, 20  # generations between changes, individuals

peaks, highest = de.landscapes.moving_peaks(
    jax.random.key(8), num_genes=2, num_peaks=6, num_changes=CHANGES - 1, shift=3.0
)


def fitness_fn(change, population):
    return peaks(change, 50 + 25 * population)


side = jnp.linspace(-2, 2, 161)
plane = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
shown = jnp.arange(60)
views = jax.vmap(lambda change: fitness_fn(change, plane).reshape(161, 161))(shown)

figure, panels = plt.subplots(1, 4, figsize=(11, 3), sharex=True, sharey=True)
for axes, change in zip(panels, (0, 10, 20, 30), strict=True):
    axes.contourf(50 + 25 * side, 50 + 25 * side, views[change], levels=12, cmap="Greys")
    axes.set(title=f"after {change} changes", aspect="equal", xticks=[0, 50, 100])
plt.show()

# %% [markdown]
# ## One loop without an end
#
# A step takes the fitness of what it asked for, and nothing else. All 10,000 generations are one compiled `scan`; where your environment is outside JAX, call
# `algorithm.step` in a loop of Python's. The state is a tuple of arrays: save it, and go on another day.

# %%
algorithm = de.presets.track()


def generation(state, given):
    key, number = given
    fitness = fitness_fn(number // PERIOD, state.population)
    state, info = algorithm.step(key, state, fitness)
    return state, info


@jax.jit
def live(key):
    key_init, key_run = jax.random.split(key)
    state = algorithm.init(key_init, jax.random.normal(key_init, (SIZE, 2)))
    keys = jax.random.split(key_run, CHANGES * PERIOD)
    return jax.lax.scan(generation, state, (keys, jnp.arange(CHANGES * PERIOD)))


state, life = live(jax.random.key(1))
seen = np.flatnonzero(life.moved)
print(f"{CHANGES - 1} changes, {len(seen)} seen", end="; ")
print(f"{np.sum(seen % PERIOD == 0)} of them in the generation of the change")
print(f"peaks move by 3; as learned {25 * state.shift:.2f}")
print(f"{SIZE} niches at first, {int(life.born.sum())} born since, {int(life.died.sum())} died")

# %% [markdown]
# ## A life in niches
#
# A niche is born anywhere in the box, climbs, and dies where it comes to a better one; few grow up. One that has grown up and is led away from its peak, because that has
# sunk below another's slope, goes home and sleeps until the next change; after too many it is forgotten. Lines are the first coordinate of niches that have grown up, dark where they are high, and red the
# highest; dots are births. Where a line begins a peak was found, and where it ends a niche was given up.

# %%
time = np.arange(60 * PERIOD) / PERIOD
niches = jax.tree.map(lambda leaf: np.asarray(leaf[: len(time)]), life.niches)
figure, (axes, below) = plt.subplots(
    2, 1, figsize=(11, 6), sharex=True, height_ratios=[2.4, 1], layout="constrained"
)
height = np.where(niches.mature & ~niches.stale, niches.fitness, np.nan)
best = np.nanargmax(np.where(np.isnan(height), -np.inf, height), axis=1)
for slot in range(niches.place.shape[1]):
    place = np.where(niches.mature[:, slot], 50 + 25 * niches.place[:, slot, 0], np.nan)
    axes.scatter(time, place, c=height[:, slot], cmap="Blues", vmin=10, vmax=70, s=3, linewidth=0)
first = 50 + 25 * niches.place[np.arange(len(time)), best, 0]
axes.scatter(time, np.where(niches.mature.any(1), first, np.nan), s=4, color=X0, linewidth=0)
when, slot = np.nonzero(np.asarray(life.born[: len(time)]))
axes.scatter(time[when], 50 + 25 * niches.place[when, slot, 0], s=1, color="#BBBBBB", zorder=0)
axes.set(ylabel="first coordinate", ylim=(0, 100))
end = slice(PERIOD - 1, None, PERIOD)  # of each environment
for label, members, colour in (
    ("grown up", niches.mature, X),
    ("of them asleep", niches.asleep, "#999999"),
):
    below.step(time[end], members[end].sum(1), where="pre", color=colour, label=label)
below.set(xlabel="changes", ylabel="niches", yticks=range(0, 13, 3), xlim=(0, 60))
below.legend(loc="upper left", frameon=False, ncols=2)
plt.show()

# %% [markdown]
# ## What memory is worth
#
# The old way begins afresh at every change, of which it has to be told: an evolution of 25 generations of 20 individuals each time. The error is how far the best one since
# the last change is below the highest peak; its mean over all generations is the offline error.

# %%
evolution = de.diffusion_evolution(PERIOD)


def afresh(key, change):
    key_init, key_run = jax.random.split(key)
    population = jax.random.normal(key_init, (SIZE, 2))
    evolved = de.evolve(key_run, evolution, lambda x: fitness_fn(change, x), population)
    return jnp.max(evolved.kept, axis=1)  # [PERIOD]


keys = jax.random.split(jax.random.key(2), CHANGES)
found = {
    "presets.track": life.fitness.max(axis=1).reshape(CHANGES, PERIOD),
    "afresh, and told": jax.jit(jax.vmap(afresh))(keys, jnp.arange(CHANGES)),
}
figure, axes = plt.subplots(figsize=(7, 3.6))
for (name, fitness), colour in zip(found.items(), (X, "#999999"), strict=True):
    errors = highest[:, None] - jax.lax.cummax(fitness, axis=1)  # [CHANGES, PERIOD]
    print(f"{name:17} offline error {errors.mean():5.2f}")
    evaluations = SIZE * np.arange(1, PERIOD + 1)
    axes.plot(evaluations, errors.mean(axis=0), color=colour, linewidth=2, label=name)
axes.set(xlabel="evaluations since the change", ylabel="error", yscale="log")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The picture
#
# Twenty-four changes. Blue dots are niches that have grown up, hollow ones asleep, the star is the highest; small dots are what is evaluated.

# %% tags=["cover"]
LEVELS = np.linspace(-80, 70, 16)
figure, axes = plt.subplots(figsize=(4.6, 4.6))
axes.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal", xticks=[], yticks=[])
shades = np.digitize(np.asarray(views), LEVELS) / len(LEVELS)
picture = axes.imshow(
    shades[0], extent=(-2, 2, -2, 2), origin="lower", cmap="Greys", vmin=0.1, vmax=1.5
)
(rows,) = axes.plot([], [], ".", color=X0, markersize=4)
(sleeping,) = axes.plot([], [], "o", color="white", mec=X, mew=1.5, markersize=8)
(awake,) = axes.plot([], [], "o", color=X, markersize=8)
(star,) = axes.plot([], [], "*", color="#F2B134", mec=FINAL, mew=0.8, markersize=17)
places, mature, asleep, fitness, stale = (
    np.asarray(getattr(life.niches, name))
    for name in ("place", "mature", "asleep", "fitness", "stale")
)
population = np.asarray(life.population)


def draw(frame):
    picture.set_data(shades[frame // PERIOD])
    rows.set_data(*population[frame].T)
    awake.set_data(*places[frame, mature[frame] & ~asleep[frame]].T)
    sleeping.set_data(*places[frame, mature[frame] & asleep[frame]].T)
    known = np.where(mature[frame] & ~stale[frame], fitness[frame], -np.inf)
    star.set_data(*places[frame, [known.argmax()]].T)


frames = [PERIOD * change + step for change in range(20, 44) for step in (0, 3, 8, 24)]
path = Path(tempfile.mkdtemp()) / "moving.gif"
movie.save(figure, draw, frames, path, per_second=7)
plt.close(figure)
HTML(f'<img src="data:image/gif;base64,{base64.b64encode(path.read_bytes()).decode()}">')

# %% [markdown]
# Measurements in more genes, beside published ones, stand in `docs/sampling.md`.
