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
# # Evolve a Flax policy, and watch it
#
# ![Acrobot swings up: a random network beside the evolved one](pictures/03_flax_policy.gif)
#
# Two links hang from a pin, and a motor between them pushes left, not at all, or right. The goal is to get the tip above the line. On the left is a random
# network, on the right the one that 20 generations of evolution came to. No gradient of the task is needed, and nothing is known of an episode but how
# long it took.

# %%
import base64
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
from IPython.display import HTML

import diffevo_jax as de

plt.rcParams.update({"figure.constrained_layout.use": True, "font.size": 11})
X, X0, FINAL = "#2E7EBB", "#E0435C", "#1A1A1A"  # population, estimates, end: in all notebooks

# %% [markdown]
# ## The task and the network
#
# The task is Gymnax's, and runs on the device: an episode of Acrobot has at most 500 steps, each costs 1, and ends when the tip is above the line. The network is
# any Flax module that maps an observation to outputs; for a discrete task the largest output is the action. `linen_policy` flattens its parameters into a genome.


# %%
class Network(nn.Module):
    num_outputs: int

    @nn.compact
    def __call__(self, observation):
        hidden = nn.tanh(nn.Dense(8)(observation))
        return nn.Dense(self.num_outputs)(hidden)


task = de.tasks.make_task("Acrobot-v1")
policy = de.policies.linen_policy(Network(task.num_outputs), task.num_inputs)
policy = de.policies.scaled(policy, 3.0)  # genomes are multiplied by 3
print(f"{task.num_inputs} inputs, {task.num_outputs} actions, {policy.num_genes} genes")

# %% [markdown]
# ## Evolution
#
# `make_fitness` rolls out the whole population: from genomes to returns, as one function of JAX. With `success="goal"` it also tells who got to the goal. Distances
# are taken in a random plane (notebook 07), genomes are multiplied by 3 before they fill the network. The whole run, 2,560 episodes, is one compiled program.

# %%
returns = de.tasks.make_fitness(task, policy, success="goal")
key_init, key_projection, key_run, key_fresh = jax.random.split(jax.random.key(1), 4)
evolution = de.presets.paper(
    de.schedules.cosine(20, clean=True),
    projection=de.latent.random_projection(key_projection, policy.num_genes, 2),
)
population = jax.random.normal(key_init, (128, policy.num_genes))


@jax.jit
def evolve(key, population):
    def keep(info, aux):
        return info.fitness, aux["success"]

    return de.evolve(key, evolution, returns, population, has_key=True, has_aux=True, keep=keep)


state, (fitness, success), best = evolve(key_run, population)
for generation in range(0, 20, 3):
    print(
        f"generation {generation + 1:2}: median return {jnp.median(fitness[generation]):6.0f},"
        f" at the goal {success[generation].mean():4.0%}"
    )

# %% [markdown]
# Each dot is an individual's episode. At first nearly all of them fail and stay at the bottom, a return of -500. A few get there by luck; there are
# more like them in each generation, and in the last one nearly all need about a hundred steps.

# %%
figure, axes = plt.subplots(figsize=(8, 3.6))
generations = jnp.arange(1, 21)
spread = jax.random.uniform(jax.random.key(0), fitness.shape, minval=-0.3, maxval=0.3)
axes.scatter(generations[:, None] + spread, fitness, s=4, color=X, alpha=0.6, linewidth=0)
axes.plot(generations, jnp.median(fitness, axis=1), color=FINAL, label="median")
axes.set(xlabel="generation", ylabel="return", xticks=range(2, 21, 2))
axes.legend(frameon=False, loc="center right")
plt.show()

# %% [markdown]
# ## Which one is the best?
#
# The best return ever seen may be luck at the start. Take the best of the last generation, and try it again on 100 fresh episodes.

# %%
champion = state.population[fitness[-1].argmax()]
again = de.tasks.make_returns(task, policy, num_episodes=100)
fresh = again(key_fresh, champion[None])[0]
print(f"100 fresh episodes: mean return {fresh.mean():.0f} ± {fresh.std(ddof=1) / 10:.0f}")
print(f"worst {fresh.min():.0f}, best {fresh.max():.0f}")

# %% [markdown]
# ## Watch it
#
# `make_trajectories` records episodes of chosen individuals, and `de.drawings.animate_episodes` draws them: Acrobot, cart-pole, both mountain cars and the
# pendulum. Two hundred steps are enough here. Look at how the evolved one swings: back and forth, and higher each time.

# %% tags=["cover"]
short = de.tasks.make_task("Acrobot-v1", max_steps=200)
record = de.tasks.make_trajectories(short, policy)
two = jnp.stack([population[0], champion])
panels = {
    title: record(key_fresh, two, jnp.array([i])) for i, title in enumerate(("random", "evolved"))
}
path = de.drawings.animate_episodes(Path(tempfile.mkdtemp()) / "acrobot.gif", short, panels)
HTML(f'<img src="data:image/gif;base64,{base64.b64encode(path.read_bytes()).decode()}">')

# %% [markdown]
# ## Other networks
#
# Any pure function of parameters and an observation will do: `de.policies.from_apply` takes one, Flax NNX and Equinox included, `de.policies.gru` has a
# memory. `de.presets.control(key, "CartPole-v1")` puts measured settings together for you. Runs that are kept and compared: notebook 08; a network of your own
# in their configs: `docs/howto/task.md`.
