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
# ![A map of mean fitness over eta and temperature, with the path of Optax across it](pictures/05_sweeps_and_gradients.png)
#
# The map took 800 whole runs, compiled as one program. The path is Adam's: it follows gradients through a run, from its last generation back to its settings.
# Both work because settings are data here: the factory itself runs under `jit`, `vmap` and `grad`.

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
# We want populations that end high on the two peaks: 64 individuals, 15 generations. What comes out is a number, what goes in are a key and two settings.


# %%
def final_fitness(key, eta, temperature):
    evolution = de.diffusion_evolution(
        de.schedules.cosine(15), eta=eta, fitness_map=de.fitness.standardised(temperature)
    )
    key_init, key_run = jax.random.split(key)
    population = jax.random.normal(key_init, (64, 2))
    _, fitness, _ = de.evolve(key_run, evolution, de.problems.two_peaks, population)
    return fitness[-1].mean()


print(f"one run: {final_fitness(jax.random.key(0), 0.5, 1.0):.3f}")

# %% [markdown]
# ## A sweep
#
# `vmap` over `final_fitness` is a sweep already. `de.batch` does it with lists: `grid` makes every combination, `run_many` meets each with every key, so that
# settings are compared on the same random numbers. On a CPU it walks them one by one, on an accelerator together.

# %%
etas, temperatures = np.linspace(0, 1, 10), np.geomspace(0.03, 10, 10)
settings = de.batch.grid(eta=etas, temperature=temperatures)
keys = de.batch.seed_keys(0, 8)


@jax.jit
def sweep(keys, settings):
    return de.batch.run_many(lambda key, setting: final_fitness(key, **setting), keys, settings)


fitness = sweep(keys, settings)
mean = fitness.mean(axis=1).reshape(10, 10)
print(f"{fitness.shape[0]} settings x {fitness.shape[1]} seeds; mean fitness")
best = jnp.argmax(fitness.mean(axis=1))
error = fitness[best].std(ddof=1) / 8**0.5
print(
    f"best of the grid: eta {settings['eta'][best]:.2f}, temperature "
    f"{settings['temperature'][best]:.2f}: {fitness[best].mean():.3f} ± {error:.3f}"
)

# %% [markdown]
# ## Optax through a run
#
# The same number, averaged over eight keys, as an objective. Adam starts in a bad corner, and gets its gradients from JAX through all 15 generations:
# through weights, averages and noise. Unbounded parameters become settings by an exponential and a sigmoid.


# %%
def unbounded_to_settings(parameters):
    return jax.nn.sigmoid(parameters["eta"]), jnp.exp(parameters["temperature"])


@jax.jit
@jax.value_and_grad
def loss(parameters, keys):
    eta, temperature = unbounded_to_settings(parameters)
    return -jax.vmap(final_fitness, (0, None, None))(keys, eta, temperature).mean()


parameters = {"eta": jnp.array(2.2), "temperature": jnp.log(6.0)}
optimiser = optax.adam(0.2)
memory = optimiser.init(parameters)
path = [unbounded_to_settings(parameters)]
for i in range(40):
    value, gradient = loss(parameters, keys)
    updates, memory = optimiser.update(gradient, memory)
    parameters = optax.apply_updates(parameters, updates)
    path.append(unbounded_to_settings(parameters))
    if i % 10 == 0 or i == 39:
        print(f"eta {path[-2][0]:.2f}, temperature {path[-2][1]:.3f}: mean fitness {-value:.3f}")

# %% [markdown]
# The map is the sweep, brighter is higher. The white path begins at the cross and ends at the dot, on the bright plateau that the sweep found with
# twenty times as many runs.

# %% tags=["cover"]
figure, axes = plt.subplots(figsize=(8, 4.2))
picture = axes.pcolormesh(temperatures, etas, mean, cmap="viridis", shading="nearest")
walked = np.array(path)
axes.plot(walked[:, 1], walked[:, 0], "-", color="white", linewidth=2)
axes.plot(walked[::4, 1], walked[::4, 0], "o", color="white", markersize=4)
axes.plot(walked[0, 1], walked[0, 0], "wx", markersize=11, markeredgewidth=2.5)
axes.plot(walked[-1, 1], walked[-1, 0], "o", color="white", markersize=11)
axes.set(xscale="log", xlabel="temperature (standard deviations of fitness)", ylabel="eta")
figure.colorbar(picture, label="mean fitness of the last generation")
plt.show()

# %% [markdown]
# ## Learn the schedule itself
#
# A schedule is an array too: alpha, decreasing from level to level. Here each of ten levels has a parameter, a softmax makes steps of them whose sum is 1,
# and Adam moves them all. Each update sees 32 fresh keys, so that it cannot learn one run by heart.

# %%
num_levels = 10


def schedule_of(steps):  # [11] -> alpha [10], decreasing inside (0, 1)
    rising = jnp.cumsum(jax.nn.softmax(steps))[:-1]
    return 1e-3 + 0.998 * rising[::-1]


def fitness_with(key, alpha):
    evolution = de.diffusion_evolution(alpha, eta=0.2, fitness_map=de.fitness.standardised(0.1))
    key_init, key_run = jax.random.split(key)
    population = jax.random.normal(key_init, (64, 2))
    _, fitness, _ = de.evolve(key_run, evolution, de.problems.two_peaks, population)
    return fitness[-1].mean()


mean_with = jax.vmap(fitness_with, (0, None))
objective = jax.jit(jax.value_and_grad(lambda s, keys: -mean_with(keys, schedule_of(s)).mean()))
steps = jnp.zeros(num_levels + 1)
optimiser = optax.adam(0.1)
memory = optimiser.init(steps)
for key in jax.random.split(jax.random.key(5), 100):
    _, gradient = objective(steps, jax.random.split(key, 32))
    updates, memory = optimiser.update(gradient, memory)
    steps = optax.apply_updates(steps, updates)

# %% [markdown]
# What counts is what it does on 200 keys that it never saw.

# %%
fresh = de.batch.seed_keys(99, 200)
schedules = {
    "linear, the start": schedule_of(jnp.zeros(num_levels + 1)),
    "cosine": de.schedules.cosine(num_levels).alpha,
    "learned": schedule_of(steps),
}
for name, alpha in schedules.items():
    ends = jax.jit(mean_with)(fresh, alpha)
    print(f"{name:18} mean fitness {ends.mean():.3f} ± {ends.std(ddof=1) / 200**0.5:.3f}")

# %%
figure, axes = plt.subplots(figsize=(7, 3.6))
for (name, alpha), colour in zip(schedules.items(), ("#6F6E6E", X, X0), strict=True):
    axes.plot(jnp.arange(1, num_levels + 1), alpha[::-1], "o-", color=colour, label=name)
axes.set(xlabel="generation", ylabel="signal level alpha", xticks=range(1, 11))
axes.legend(frameon=False)
plt.show()
