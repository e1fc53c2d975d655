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
# # Latent spaces
#
# ![A population of 100 genes, seen in its latent plane at four generations, brighter as it gets fitter](pictures/07_latent_spaces.png)
#
# Each dot is an individual of 100 genes, drawn where a random plane sees it. Diffusion Evolution averages over neighbours, and in many dimensions nobody has any.
# Latent Space Diffusion Evolution (Algorithm 2 of the paper) takes the distances in such a plane, and the averages where they were. It is one argument, and
# of all settings the one that matters most from 5 genes on.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import diffevo_jax as de

plt.rcParams.update({"figure.constrained_layout.use": True, "font.size": 11})
PLAIN, LATENT = "#0072B2", "#D55E00"  # the two methods, in all figures of this project

# %% [markdown]
# ## Nobody has neighbours
#
# A problem of any number of genes: be near a point that is hidden somewhere about the origin. The fitness is the negative mean square distance to it.
# `runs` takes the latent dimension, None for none, and makes five runs of 100 individuals and 20 generations.


# %%
def make_fitness(key, num_genes):
    hidden = jax.random.normal(key, (num_genes,))
    return lambda population: -jnp.mean((population - hidden) ** 2, axis=1)


def run(key, num_genes, latent_dim=None):
    key_problem, key_latent, key_init, key_run = jax.random.split(key, 4)
    projection = None  # distances between genomes
    if latent_dim is not None:
        projection = de.latent.random_projection(key_latent, num_genes, latent_dim)
    evolution = de.presets.paper(de.schedules.cosine(20), projection=projection)
    population = jax.random.normal(key_init, (100, num_genes))
    fitness_fn = make_fitness(key_problem, num_genes)
    _, info, _ = de.evolve(key_run, evolution, fitness_fn, population, keep=lambda info: info)
    return info, projection


def runs(num_genes, latent_dim):
    keys = de.batch.seed_keys(0, 5)
    one = jax.jit(lambda key: run(key, num_genes, latent_dim))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(one, keys))


# %% [markdown]
# Of how many individuals is an estimate made? The effective sample size says. Left: in 2 dimensions of fifteen or so. In 100 it soon is 1: each
# individual sees nobody but itself, keeps its genome, and the rest is noise. Right: the same problems, with distances in a plane.

# %%
sizes = [2, 12, 100, 1000]
plain = {num_genes: runs(num_genes, None)[0] for num_genes in sizes}
latent = {num_genes: runs(num_genes, 2)[0] for num_genes in sizes[1:]}

figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
shades = dict(zip(sizes, plt.cm.viridis(np.linspace(0, 0.85, 4)), strict=True))
for axes, infos, title in (
    (panels[0], plain, "distances between genomes"),
    (panels[1], latent, "distances in a plane"),
):
    for num_genes, info in infos.items():
        sample_size = info.effective_sample_size.mean(axis=(0, 2))
        label = f"{num_genes} genes"
        axes.plot(range(1, 21), sample_size, "o-", ms=4, color=shades[num_genes], label=label)
    axes.set(xlabel="generation", title=title, yscale="log", xticks=range(5, 21, 5))
    axes.set_yticks([1, 3, 10, 30], ["1", "3", "10", "30"])
    axes.minorticks_off()
    axes.legend(fontsize=9)
panels[0].set_ylabel("effective sample size")
plt.show()

# %% [markdown]
# ## What it is worth
#
# The best fitness of the last generation, mean and standard error of the five seeds. 0 is perfect, and a random individual has about -2: without a plane
# a run with 100 genes or more is no better than that.

# %%
print("genes   distances between genomes   in a plane")
for num_genes in latent:
    best = [info.fitness[:, -1].max(axis=1) for info in (plain[num_genes], latent[num_genes])]
    words = [f"{each.mean():6.2f} ± {each.std(ddof=1) / 5**0.5:.2f}" for each in best]
    print(f"{num_genes:5}   {words[0]:>25}   {words[1]}")

# %% [markdown]
# ## Seen in the plane
#
# One run with 100 genes. A projection is a matrix `[D, d]`, `z = x @ projection`; its columns are random directions of length 1. The four pictures are the latents `z` of four
# generations, colour is fitness. The plane knows nothing of the problem, and yet the population gets fitter in it: neighbours in the plane
# share enough for an average of the good ones to be good.

# %% tags=["cover"]
info, projection = jax.jit(run, static_argnums=(1, 2))(jax.random.key(1), 100, 2)
figure, panels = plt.subplots(1, 4, figsize=(12, 3.5), sharex=True, sharey=True)
dots = []
limits = info.fitness.min(), info.fitness.max()
for axes, generation in zip(panels, (0, 7, 13, 19), strict=True):
    z = de.latent.project(info.population[generation], projection)
    low, high = limits
    dots.append(axes.scatter(*z.T, c=info.fitness[generation], s=14, vmin=low, vmax=high))
    axes.set(title=f"generation {generation + 1}", xlabel="$z_1$", aspect="equal")
panels[0].set_ylabel("$z_2$")
figure.colorbar(dots[-1], label="fitness", shrink=0.7)
plt.show()

# %% [markdown]
# The five runs with 100 genes, with and without a latent space, as curves: median and quartiles of all individuals.

# %%
figure, axes = plt.subplots(figsize=(7, 3.8))
for infos, colour, label in (
    (latent, LATENT, "distances in a plane"),
    (plain, PLAIN, "distances between genomes"),
):
    quartiles = jnp.quantile(infos[100].fitness, jnp.array([0.25, 0.5, 0.75]), axis=(0, 2))
    axes.fill_between(range(1, 21), quartiles[0], quartiles[2], color=colour, alpha=0.2, lw=0)
    axes.plot(range(1, 21), quartiles[1], "o-", markersize=4, color=colour, label=label)
axes.set(xlabel="generation", ylabel="fitness", xticks=range(5, 21, 5))
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## How many dimensions
#
# Few. The same with 100 genes: an axis does about as well as a plane, and 16 dimensions begin to be too many for 100 individuals.

# %%
for latent_dim in (1, 4, 16):
    best = runs(100, latent_dim)[0].fitness[:, -1].max(axis=1)
    print(f"{latent_dim:2} dimensions: {best.mean():.2f} ± {best.std(ddof=1) / 5**0.5:.2f}")

# %% [markdown]
# `docs/settings.md` has the tables over four functions. Every kernel takes a projection, as `de.denoisers.broadened(de.kernels.gaussian(projection=...))`; a preset for
# control tasks, `de.presets.control`, uses both (notebook 03).
