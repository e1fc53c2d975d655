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
# # Sweeps, and Optax through a whole run
#
# ![A map of peaks kept over eta and temperature, with a path of Optax to its ridge](pictures/05_sweeps_and_gradients.png)
#
# The map took sixteen hundred whole runs, compiled as one program. The path is Adam's: it follows gradients through a run, from its last generation
# back to its settings. Both work because settings are data here: the factory itself runs under `jit`, `vmap` and `grad`.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import diffevo_jax as de

plt.rcParams.update({"figure.constrained_layout.use": True, "font.size": 11})
X, X0, FINAL = "#2E7EBB", "#E0435C", "#1A1A1A"  # population, estimates, end: in all notebooks

# %% [markdown]
# ## A run as a function of its settings
#
# Eight peaks stand on a circle, from height 1 down to 0.65, and we would like an individual on the top of each. Two settings decide: a cold population
# goes for the highest peak alone, a hot one is on no peak at all. What comes out of a run is the share of peaks kept, smooth so that it has a gradient: how near
# the nearest individual is to each.

# %%
angles = jnp.arange(8) * jnp.pi / 4
peaks = 1.5 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
heights = jnp.linspace(1, 0.65, 8)


cosine = de.schedules.cosine(20)


def squares(population):  # [N, 2] -> squared distances to the peaks, [N, 8]
    return jnp.sum((population[:, None] - peaks) ** 2, axis=-1)


def fitness_fn(population):
    return jnp.sum(heights * jnp.exp(-squares(population) / (2 * 0.35**2)), axis=1)


def peaks_kept(population):
    return jnp.mean(jnp.exp(-squares(population).min(axis=0) / (2 * 0.15**2)))


def run(key, eta, temperature, schedule=cosine):
    fitness_map = de.fitness.standardised(temperature)
    evolution = de.presets.paper(schedule, eta=eta, fitness_map=fitness_map)
    key_init, key_run = jax.random.split(key)
    population = jax.random.normal(key_init, (64, 2))
    return de.evolve(key_run, evolution, fitness_fn, population).state.population


# %% [markdown]
# Look at the three ends: one peak kept, four of them, and a cloud. A cloud may score as well in a single run, by individuals that are near a peak by chance; the
# sweep below has sixteen of each setting.

# %%
side = jnp.linspace(-2.5, 2.5, 101)
plane = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
figure, panels = plt.subplots(1, 3, figsize=(9.5, 3.6), sharex=True, sharey=True)
for axes, temperature in zip(panels, (0.05, 0.7, 5.0), strict=True):
    end = jax.jit(run)(jax.random.key(0), 1.0, temperature)
    axes.contour(side, side, fitness_fn(plane).reshape(101, 101), levels=5, colors="#CCCCCC")
    axes.scatter(*end.T, s=14, color=FINAL)
    axes.set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal", xlabel="gene 1")
    axes.set_title(f"temperature {temperature:g}, kept {peaks_kept(end):.2f}")
panels[0].set_ylabel("gene 2")
plt.show()

# %% [markdown]
# ## A sweep
#
# `vmap` over `run` is a sweep already. `de.batch` does it with lists: `grid` makes every combination, `run_many` meets each with every key, so that settings are
# compared on the same random numbers. On a CPU it walks them one by one, on an accelerator together.

# %%
etas, temperatures = np.linspace(0, 1, 9), np.geomspace(0.03, 10, 11)
settings = de.batch.grid(eta=etas, temperature=temperatures)
keys = de.batch.seed_keys(0, 16)


@jax.jit
def sweep(keys, settings):
    return de.batch.run_many(lambda key, s: peaks_kept(run(key, **s)), keys, settings)


kept = sweep(keys, settings)
best = jnp.argmax(kept.mean(axis=1))
print(f"{kept.shape[0]} settings x {kept.shape[1]} seeds")
print(
    f"most are kept with eta {settings['eta'][best]:.1f} and temperature"
    f" {settings['temperature'][best]:.2f}: {kept[best].mean():.2f} ± {kept[best].std(ddof=1) / 4:.2f}"
)

# %% [markdown]
# ## Optax through a run
#
# The same number as an objective: JAX differentiates it through all 20 generations, through weights, averages and noise. Settings are made of unbounded
# parameters by a sigmoid and an exponential, and each update sees 16 fresh keys. Adam starts far too hot.


# %%
def settings_of(parameters):
    return jax.nn.sigmoid(parameters["eta"]), jnp.exp(parameters["temperature"])


@jax.jit
@jax.value_and_grad
def loss(parameters, keys):
    ends = jax.vmap(run, (0, None, None))(keys, *settings_of(parameters))
    return -jax.vmap(peaks_kept)(ends).mean()


def climb(eta, temperature, updates=60):
    parameters = {"eta": jnp.log(eta / (1 - eta)), "temperature": jnp.log(temperature)}
    optimiser = optax.adam(0.1)
    memory = optimiser.init(parameters)
    path = [settings_of(parameters)]
    for key in jax.random.split(jax.random.key(1), updates):
        _, gradient = loss(parameters, jax.random.split(key, 16))
        change, memory = optimiser.update(gradient, memory)
        parameters = optax.apply_updates(parameters, change)
        path.append(settings_of(parameters))
    return np.array(path)


path = climb(0.5, 8.0)
for i in (0, 20, 40, 60):
    print(f"after {i:2} updates: eta {path[i, 0]:.2f}, temperature {path[i, 1]:.2f}")

# %% [markdown]
# The map is the sweep, brighter is better. The path begins at the cross and ends at the large dot, on the ridge. Along the ridge eta matters little, so that
# the path has no reason to go up or down.

# %% tags=["cover"]
figure, axes = plt.subplots(figsize=(8, 4.2))
picture = axes.pcolormesh(
    temperatures, etas, kept.mean(axis=1).reshape(9, 11), cmap="viridis", shading="nearest"
)
axes.plot(path[:, 1], path[:, 0], "-", color="white", linewidth=2)
axes.plot(path[0, 1], path[0, 0], "wx", markersize=11, markeredgewidth=2.5)
axes.plot(path[-1, 1], path[-1, 0], "wo", markersize=10, markeredgecolor=FINAL)
axes.set(xscale="log", xlabel="temperature (standard deviations of fitness)", ylabel="eta")
figure.colorbar(picture, label="share of peaks kept")
plt.show()

# %% [markdown]
# When not to trust such a gradient: in a cold run all depends on who is selected, small changes grow from generation to generation, and each run has a
# gradient of its own. The table has its mean and spread over 32 keys. Where the spread is many times the mean, sweep.

# %%
slope = jax.grad(lambda log_t, key: peaks_kept(run(key, 0.5, jnp.exp(log_t))))
slopes = jax.jit(jax.vmap(slope, (None, 0)))
for temperature in (8.0, 2.0, 0.5, 0.1):
    each = slopes(jnp.log(temperature), de.batch.seed_keys(7, 32))
    print(f"temperature {temperature:4}: gradient {each.mean():6.3f}, its spread {each.std():.3f}")

# %% [markdown]
# ## Learn the schedule itself
#
# A schedule is an array too: alpha, decreasing from level to level. Here each of ten levels has a parameter, a softmax makes steps of them whose sum is 1,
# and Adam moves them all. Each update sees 16 fresh keys, so that it cannot learn one run by heart.

# %%
num_levels = 10


def schedule_of(steps):  # [11] -> alpha [10], decreasing inside (0, 1)
    rising = jnp.cumsum(jax.nn.softmax(steps))[:-1]
    return 1e-3 + 0.998 * rising[::-1]


@jax.jit
def kept_with(alpha, keys):
    return jax.vmap(lambda key: peaks_kept(run(key, 1.0, 0.5, alpha)))(keys)


objective = jax.jit(jax.grad(lambda steps, keys: -kept_with(schedule_of(steps), keys).mean()))
steps = jnp.zeros(num_levels + 1)
optimiser = optax.adam(0.1)
memory = optimiser.init(steps)
for key in jax.random.split(jax.random.key(5), 80):
    gradient = objective(steps, jax.random.split(key, 16))
    change, memory = optimiser.update(gradient, memory)
    steps = optax.apply_updates(steps, change)

# %% [markdown]
# What counts is what it does on 300 keys that it never saw.

# %%
fresh = de.batch.seed_keys(99, 300)
schedules = {
    "a straight line, the start": schedule_of(jnp.zeros(num_levels + 1)),
    "cosine": de.schedules.cosine(num_levels).alpha,
    "learned": schedule_of(steps),
}
for name, alpha in schedules.items():
    ends = kept_with(alpha, fresh)
    print(f"{name:27} kept {ends.mean():.3f} ± {ends.std(ddof=1) / 300**0.5:.3f}")

# %% [markdown]
# The learned one keeps more than `cosine` on keys that are new to it. Look at its first level: it begins with less noise, nearer to where the peaks
# are. That is advice for this landscape, and no other.

# %%
figure, axes = plt.subplots(figsize=(7, 3.6))
for (name, alpha), colour in zip(schedules.items(), ("#6F6E6E", X, X0), strict=True):
    axes.plot(jnp.arange(1, num_levels + 1), alpha[::-1], "o-", color=colour, label=name)
axes.set(xlabel="generation", ylabel="signal level alpha", xticks=range(1, 11))
axes.legend(frameon=False)
plt.show()
