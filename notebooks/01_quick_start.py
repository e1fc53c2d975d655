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
# # Quick start: evolution as denoising
#
# ![A population, as noise, gathers on two peaks in four pictures](pictures/01_quick_start.png)
#
# Noise on the left, two occupied peaks on the right: that is a whole run of Diffusion Evolution, and this notebook makes it. A population starts as
# noise and is denoised step by step. Each individual estimates its clean target `x0`, an average of the population weighted by fitness and by
# closeness, and takes a step towards it. Over a run the signal level `alpha` rises from 0 to 1 and the neighbourhood shrinks: the search zooms in,
# and keeps several optima.
#
# The method is Zhang, Hartl, Hazan, Levin, *Diffusion Models are Evolutionary Algorithms* (ICLR 2025, arXiv 2410.02543).

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import diffevo_jax as de

plt.rcParams.update({"figure.constrained_layout.use": True, "font.size": 11})
X, X0, FINAL = "#2E7EBB", "#E0435C", "#1A1A1A"  # population, estimates, end: in all notebooks

# %% [markdown]
# ## A landscape
#
# Fitness takes a whole population, `[N, D]`, and gives a number for each individual, `[N]`. Higher is better, everywhere in this library. Ours has two
# equal peaks, at (1, 1) and (-1, -1); `de.landscapes.two_peaks` is the same function.


# %%
def fitness_fn(population):
    def peak(centre):
        return jnp.exp(-jnp.sum((population - centre) ** 2, axis=1) / (2 * 0.5**2))

    return peak(1.0) + peak(-1.0)


# %% [markdown]
# ## A run
#
# Three things make a run: an initial population drawn from N(0, I), the settings, and `evolve`. Here are the paper's: `schedule` says how alpha rises,
# over 100 generations; `eta` is how much of a step's noise is new, from 0 to 1. `de.diffusion_evolution(num_levels=100)` has settings that search better. `keep` asks for all there is to see of each generation; by default only the fitness is kept.

# %%
key_init, key_run = jax.random.split(jax.random.key(0))
population = jax.random.normal(key_init, (512, 2))

evolution = de.presets.paper(de.schedules.cosine(100), eta=0.1)
state, info, best = de.evolve(key_run, evolution, fitness_fn, population, keep=lambda info: info)

print(f"best fitness seen: {best.fitness:.3f}, at ({best.genome[0]:.2f}, {best.genome[1]:.2f})")
print(f"mean fitness: {info.fitness[0].mean():.2f} -> {info.fitness[-1].mean():.2f}")
for peak in (1, -1):
    near = jnp.linalg.norm(state.population - peak, axis=1) < 1
    print(f"within 1 of ({peak}, {peak}): {near.mean():.0%}")

# %% [markdown]
# Neither peak was lost: many optimisers would have ended on one of them.
#
# ## What happened
#
# `info` holds every evaluated generation, stacked. Grey lines are the landscape, blue is the population, red is what each individual believes to be
# its target. Look at the second picture: the targets already reach from peak to peak while the population is still a cloud.

# %% tags=["cover"]
side = jnp.linspace(-3, 3, 121)
plane = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
landscape = fitness_fn(plane).reshape(121, 121)

figure, panels = plt.subplots(1, 4, figsize=(12, 3.6), sharex=True, sharey=True)
for axes, generation in zip(panels, (0, 40, 70, 99), strict=True):
    axes.contour(side, side, landscape, levels=5, colors="#BBBBBB", linewidths=0.8)
    axes.scatter(*info.population[generation].T, s=7, color=X, label="population x")
    axes.scatter(*info.x0[generation].T, s=7, color=X0, alpha=0.5, label="estimates x0")
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xlabel="gene 1")
    axes.set_title(f"generation {generation + 1}, alpha = {info.alpha[generation]:.2f}")
panels[0].set_ylabel("gene 2")
panels[0].legend(loc="upper left", fontsize=9, markerscale=2)
plt.show()

# %% [markdown]
# The same run as curves. Fitness stays low as long as noise rules, and rises as it gives way. The effective sample size says of how many individuals,
# counted in equal votes, an estimate is made: of the best few at first, of more once all near a peak are nearly as good.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
generations = jnp.arange(1, 101)
low, middle, high = jnp.quantile(info.fitness, jnp.array([0.25, 0.5, 0.75]), axis=1)
left.fill_between(generations, low, high, color=X, alpha=0.3, linewidth=0, label="quartiles")
left.plot(generations, middle, color=X, label="median")
left.set(xlabel="generation", ylabel="fitness", ylim=(0, 1.05))
left.legend(frameon=False)
right.plot(generations, info.effective_sample_size.mean(axis=1), color=X0)
right.set(xlabel="generation", ylabel="effective sample size", ylim=(0, None))
plt.show()

# %% [markdown]
# ## What may be changed
#
# Fitness may have any sign and any unit: the default map weighs individuals by how many standard deviations they are below the best. Its temperature
# decides how sharply it selects. A cold one goes for the best alone; a hot one keeps more, and is less exact. Here the left peak is only 0.8 high.


# %%
def uneven(population):
    return fitness_fn(population) - 0.2 * (population.sum(axis=1) < 0)


for temperature in (0.1, 0.3, 1.0, 3.0):
    evolution = de.presets.paper(
        de.schedules.cosine(100), fitness_map=de.fitness.standardised(temperature)
    )
    end = de.evolve(key_run, evolution, uneven, population).state.population
    on_left = jnp.linalg.norm(end + 1, axis=1) < 1
    print(
        f"temperature {temperature:4}: {on_left.mean():4.0%} on the lower peak,"
        f" mean fitness {uneven(end).mean():.2f}"
    )

# %% [markdown]
# Which population, levels, temperature and scale to choose is measured in `docs/settings.md`; `de.diffusion_evolution` and `de.presets.sizes` choose them by
# the numbers of genes and evaluations.
#
# ## Where to go on
#
# | you have | go to |
# |---|---|
# | a function, in NumPy or JAX, whose best parameters you want | 02, your own function |
# | a neural network and a task | 03, a Flax policy |
# | a loop of your own: a simulator, a lab | 04, the step inside your own JAX |
# | many settings or seeds; gradients | 05, sweeps and Optax through a run |
# | more than one optimum, or a density to sample | 06, many optima and masses |
# | many genes | 07, latent spaces |
# | experiments to keep and compare | 08, run folders and comparison |
# | an idea for the method itself | 09, a denoiser of your own |
