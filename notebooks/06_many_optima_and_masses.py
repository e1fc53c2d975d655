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
# # Many optima, and their masses
#
# ![A mixture of two peaks: the published method, presets.sample and exact draws](pictures/06_many_optima_and_masses.png)
#
# One answer is often not what is wanted. Two questions: which optima are there (`optima="all"`), and can a population be a draw from a density, each peak
# with the share of individuals that it deserves (`presets.sample`, the picture)? Between the two, a warmer temperature keeps a population on many
# peaks at once: notebooks 01 and 05.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import diffevo_jax as de

plt.rcParams.update({"figure.constrained_layout.use": True, "font.size": 11})
X, X0, FINAL = "#2E7EBB", "#E0435C", "#1A1A1A"  # population, estimates, end: in all notebooks

# %% [markdown]
# ## All optima of a function
#
# Himmelblau's function has four minima of cost 0. With `optima="all"`, `minimize` samples the box, finds the valleys and polishes each of them. Give it a
# thousand evaluations a parameter at least; all that it returns are optima, best first, worse local ones among them.


# %%
def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


found = de.minimize(himmelblau, [(-6, 6)] * 2, evaluations=4000, optima="all", seed=0)
print(found)
for optimum in found.optima:
    print(f"({optimum.x[0]:6.3f}, {optimum.x[1]:6.3f})  cost {optimum.cost:.1e}")

# %% [markdown]
# The same on a harder one. This Rastrigin has 12 global minima, in a grid of three by four. Crosses are the optima returned, dots all that was
# evaluated: evenly and around what was found, by Diffusion Evolution, and while niches were polished.


# %%
def rastrigin(x):  # the modified one of the CEC 2013 competition: 12 minima of cost 2
    return jnp.sum(10 + 9 * jnp.cos(2 * jnp.pi * jnp.array([3, 4]) * x))


twelve = de.minimize(rastrigin, [(0, 1)] * 2, evaluations=10_000, optima="all", seed=0)
best = [optimum for optimum in twelve.optima if optimum.cost < twelve.cost + 1e-5]
print(f"{len(twelve.optima)} optima, {len(best)} of them as good as the best")

figure, panels = plt.subplots(1, 2, figsize=(10, 4.2))
for axes, result, function, (low, high) in (
    (panels[0], found, himmelblau, (-6, 6)),
    (panels[1], twelve, rastrigin, (0, 1)),
):
    side = jnp.linspace(low, high, 121)
    plane = jnp.stack(jnp.meshgrid(side, side), -1)
    costs = jax.vmap(jax.vmap(function))(plane)
    axes.contour(side, side, jnp.sqrt(costs - costs.min()), levels=12, colors="#CCCCCC")
    axes.scatter(*result.population.T, s=2, color=X, alpha=0.4, linewidth=0)
    axes.plot(*np.array([o.x for o in result.optima]).T, "x", color=X0, markersize=11, mew=2.5)
    axes.set(xlabel="x", ylabel="y", aspect="equal")
panels[0].set_title("Himmelblau, 4 minima")
panels[1].set_title("modified Rastrigin, 12 minima")
plt.show()

# %% [markdown]
# ## Masses
#
# Now the stricter question. The density below has two peaks of width 0.3; three quarters of its mass are on the right. If fitness is that density, does a
# population end with three quarters of its individuals on the right?

# %%
centres = jnp.array([[1.0, 0.5], [-1.0, -0.5]])
log_masses = jnp.log(jnp.array([0.75, 0.25]))


def log_density(population):  # [N, 2] -> [N]
    squares = jnp.sum((population[:, None] - centres) ** 2, axis=-1)
    normal = -squares / (2 * 0.3**2) - jnp.log(2 * jnp.pi * 0.3**2)
    return jax.nn.logsumexp(log_masses + normal, axis=1)


def exact(key, size):
    key_peak, key_place = jax.random.split(key)
    peak = jax.random.categorical(key_peak, log_masses, shape=(size,))
    return centres[peak] + 0.3 * jax.random.normal(key_place, (size, 2))


# %% [markdown]
# The published method: the density itself as weight (`boltzmann(1)` of its logarithm), 100 generations of 256. Beside it `presets.sample`, which gets as
# many evaluations, 25,600. It divides each weight by the density that its individual was drawn with, and ends with importance sampling.

# %%
evolution = de.presets.paper(de.schedules.cosine(100), fitness_map=de.fitness.boltzmann(1.0))


def published(key):
    key_init, key_run = jax.random.split(key)
    population = jax.random.normal(key_init, (256, 2))
    return de.evolve(key_run, evolution, log_density, population).state.population


def sampled(key):
    return de.presets.sample(key, log_density, num_genes=2)


key = jax.random.key(0)
sample = jax.jit(sampled)(key)
populations = {
    "the published method": jax.jit(published)(key),
    "presets.sample": sample.population,
    "exact draws": exact(key, 256),
}
print(f"log of the normaliser: {sample.log_normaliser:.3f} ± {sample.log_normaliser_error:.3f}")
print(f"worth {sample.effective_sample_size:.0f} equal draws")

# %% [markdown]
# This density integrates to 1, so the logarithm of its normaliser is 0; here nobody needed to know it. Look at the left peak, and at how narrow
# the right one is under the published method.

# %% tags=["cover"]
side = jnp.linspace(-2.5, 2.5, 121)
plane = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
density = jnp.exp(log_density(plane)).reshape(121, 121)
figure, panels = plt.subplots(1, 3, figsize=(12, 4), sharex=True, sharey=True)
for axes, (name, population) in zip(panels, populations.items(), strict=True):
    axes.contour(side, side, density, levels=6, colors="#AAAAAA", linewidths=0.8, zorder=1)
    axes.scatter(*population.T, s=9, color=FINAL, alpha=0.6, linewidth=0, zorder=2)
    right = jnp.mean(population[:, 0] > 0)
    axes.set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal", xlabel="gene 1")
    axes.set_title(f"{name}: {right:.0%} on the right")
panels[0].set_ylabel("gene 2")
plt.show()

# %% [markdown]
# One run proves nothing. Twenty of each, with fresh keys: mean and standard deviation of the mass on the right (0.75 is true) and of the width of the
# right peak (0.3 is true).

# %%
keys = de.batch.seed_keys(1, 20)
runs = {
    "the published method": published,
    "presets.sample": lambda key: sampled(key).population,
    "exact draws": lambda key: exact(key, 256),
}
for name, draw in runs.items():
    drawn = jax.jit(lambda draw=draw: de.batch.run_many(draw, keys))()  # [20, 256, 2]
    on_right = drawn[:, :, 0] > 0
    mass = on_right.mean(axis=1)
    offsets = jnp.sum((drawn - centres[0]) ** 2, axis=2) / 2
    width = jnp.sqrt(jnp.mean(offsets, axis=1, where=on_right))
    print(
        f"{name:21} mass {mass.mean():.3f} ± {mass.std(ddof=1):.3f},"
        f" width {width.mean():.3f} ± {width.std(ddof=1):.3f}"
    )

# %% [markdown]
# `presets.sample` draws as well as exact draws here. `docs/sampling.md` has the measurements up to 10 dimensions beside BlackJAX, and says when not to trust
# it: a small `effective_sample_size` warns, but a peak that nobody has found is missing from every number.
