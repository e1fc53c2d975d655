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
# A population starts as noise and is denoised step by step. Each individual estimates its clean target `x0` as an
# average of the population, weighted by fitness and by closeness, and takes a DDIM step towards it. As the signal
# level `alpha` rises from 0 to 1 the neighbourhood shrinks, so the search zooms in and keeps several optima.
#
# Method: Zhang, Hartl, Hazan, Levin, *Diffusion Models are Evolutionary Algorithms* (ICLR 2025, arXiv 2410.02543).

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import diffevo_jax as de

# %% [markdown]
# ## Two peaks
#
# The fitness has two equal peaks, at (1, 1) and (-1, -1). Fitness is always "higher is better".

# %%
key_init, key_run = jax.random.split(jax.random.key(0))
population = jax.random.normal(key_init, (512, 2))

evolution = de.diffusion_evolution(
    de.schedules.linear(100), fitness_map=de.fitness.identity, eta=0.1
)
state, info, best = de.evolve(
    key_run, evolution, de.problems.two_peaks, population, keep=lambda info: info
)

print(f"mean fitness: {info.fitness[0].mean():.2f} -> {info.fitness[-1].mean():.2f}")
for peak in (1, -1):
    near = jnp.linalg.norm(state.population - peak, axis=1) < 1
    print(f"within 1 of ({peak}, {peak}): {near.mean():.0%}")

# %% [markdown]
# `info` holds every evaluated generation, stacked: its population, fitness and estimates `x0`. Blue: the population;
# red: what each individual believes to be its target. The targets find the peaks long before the population does.

# %%
figure, panels = plt.subplots(1, 4, figsize=(12, 3.2), sharex=True, sharey=True)
for axes, generation in zip(panels, (20, 45, 70, 95), strict=True):
    axes.scatter(*info.population[generation].T, s=5, color="#46B3D5", label="population")
    axes.scatter(*info.x0[generation].T, s=5, color="#E93A01", label="estimates x0")
    axes.plot([1, -1], [1, -1], "k+", markersize=12)
    axes.set(
        title=f"t = {info.t[generation]}, alpha = {info.alpha[generation]:.2f}", aspect="equal"
    )
panels[0].legend(loc="upper left", fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## Your own loop
#
# Fitness is data, like gradients in Optax: the step takes numbers from wherever you measured them.

# %%
step = jax.jit(evolution.step)
state = evolution.init(population)
for key in jax.random.split(key_run, evolution.num_levels - 1):
    fitness = de.problems.two_peaks(state.population)  # a simulator, a lab, a Gym environment ...
    state, info = step(key, state, fitness)

print(f"levels left: {state.t}, mean fitness: {de.problems.two_peaks(state.population).mean():.2f}")

# %% [markdown]
# ## Settings are data too
#
# The factory runs under `jit`, `vmap` and `grad`. Here a whole grid of runs is one compiled program ...

# %%
schedule = de.schedules.cosine(50)


def final_fitness(key, eta, temperature):
    fitness_map = de.fitness.boltzmann(temperature)
    evolution = de.diffusion_evolution(schedule, eta=eta, fitness_map=fitness_map)
    key_init, key_run = jax.random.split(key)
    population = jax.random.normal(key_init, (128, 2))
    _, fitness, _ = de.evolve(key_run, evolution, de.problems.two_peaks, population)
    return fitness[-1].mean()


over_keys = jax.vmap(final_fitness, (0, None, None))
over_grid = jax.jit(jax.vmap(jax.vmap(over_keys, (None, 0, None)), (None, None, 0)))
keys = jax.random.split(key_run, 8)
temperatures, etas = jnp.array([0.05, 0.2, 0.8, 3.2]), jnp.array([0.0, 0.5, 1.0])
grid = over_grid(keys, etas, temperatures).mean(axis=-1)

print("temperature  " + "  ".join(f"eta {eta:.1f}" for eta in etas))
for temperature, row in zip(temperatures, grid, strict=True):
    print(f"{temperature:11.2f}  " + "  ".join(f"{value:7.2f}" for value in row))

# %% [markdown]
# ... and here Optax tunes the temperature by the gradient through a whole run.

# %%
objective = jax.jit(jax.value_and_grad(lambda log_t: -final_fitness(key_run, 0.1, jnp.exp(log_t))))
optimiser = optax.adam(0.3)
log_temperature = jnp.log(3.2)
opt_state = optimiser.init(log_temperature)
for i in range(21):
    loss, gradient = objective(log_temperature)
    if i % 5 == 0:
        print(f"temperature {jnp.exp(log_temperature):.3f}: mean fitness {-loss:.3f}")
    updates, opt_state = optimiser.update(gradient, opt_state)
    log_temperature = optax.apply_updates(log_temperature, updates)

# %% [markdown]
# ## Evolve a policy
#
# A Flax network flattened into a genome, Gymnax's cart-pole rolled out on the device, ten generations in one compiled
# program. `projection` makes it Latent Space Diffusion Evolution: distances are taken in a random plane.

# %%
task = de.problems.control.make_task("CartPole-v1")
policy = de.policies.mlp((task.num_inputs, 8, task.num_outputs))
returns = de.problems.control.make_returns(task, policy)

key_init, key_projection, key_run = jax.random.split(jax.random.key(1), 3)
evolution = de.diffusion_evolution(
    de.schedules.cosine(10),
    fitness_map=de.fitness.boltzmann(1.0),
    projection=de.latent.random_projection(key_projection, policy.num_genes, 2),
)


def mean_return(key, population):
    return returns(key, population).mean(axis=1)


@jax.jit
def evolve_policies(key):
    population = jax.random.normal(key_init, (256, policy.num_genes))
    return de.evolve(key, evolution, mean_return, population, has_key=True)


state, fitness, best = evolve_policies(key_run)
for generation, values in enumerate(fitness, start=1):
    print(
        f"generation {generation:2}: median {jnp.median(values):5.0f}, at 500: {jnp.mean(values >= 500):.0%}"
    )
