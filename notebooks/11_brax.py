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
# # A world of another library: Brax
#
# ![Return by generation, and the angle of the pole over eight episodes of the champion](pictures/11_brax.png)
#
# A config names a task of Brax, a run evolves a network of 4,545 genes on it in 1,152 episodes, and its champion is rolled out, recorded and rendered. Observations are normalised by
# what the run itself has met: Brax gives no bounds to scale them by. It needs `pip install "diffevo-jax[brax]"`.

# %%
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import diffevo_jax as de
from diffevo_jax.runs import load_champion, load_run

plt.rcParams.update({"figure.constrained_layout.use": True, "font.size": 11})
X, FINAL, GREY = "#2E7EBB", "#1A1A1A", "#B0B0B0"  # as in all notebooks

# %% [markdown]
# ## From a config
#
# At a prompt this is `diffevo-jax run brax_inverted_pendulum`, a config that comes with the package. Its problem says `environment: brax/inverted_pendulum`; `brax/hopper`,
# `playground/CartpoleBalance` or a name of your own goes in the same place. Two repeats take a minute or two, most of it the compilation of Brax's step.

# %%
folder = Path(tempfile.mkdtemp())


def diffevo_jax(command):
    """Run a command of diffevo-jax in `folder`, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "diffevo_jax", *shlex.split(command)],
        cwd=folder,
        env={**os.environ, "FORCE_COLOR": "", "COLUMNS": "90"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


text = diffevo_jax("run brax_inverted_pendulum --out run --repeats 2")
print(text[text.find("Its best individual") :].partition("run/")[0].rstrip())

# %% [markdown]
# ## The champion
#
# The run keeps the policy with the best mean over 100 fresh episodes as `champion.npz`, with all that it takes to use it: genome, network, task, and the mean and deviation of its
# observations. `diffevo-jax rollout` evaluates it on episodes that nothing was chosen by.

# %%
text = diffevo_jax(
    "rollout run --episodes 100 --seed 1 --shown 8 --record episode.npz --draw episode.html"
)
print(text[text.find("brax/") :].partition("episode.npz")[0].rstrip())

# %% [markdown]
# On the left the quartiles of the return by generation, over both repeats; noise falls geometrically, and the population follows. On the right the recorded episodes, from the observations that
# were recorded: the angle of the pole, until it falls or 1,000 steps are over.

# %% tags=["cover"]
fitness = load_run(folder / "run").methods["preset"].fitness
fitness = np.moveaxis(fitness, 1, 0).reshape(fitness.shape[1], -1)
low, middle, high = np.quantile(fitness, [0.25, 0.5, 0.75], axis=1)
generations = np.arange(1, len(fitness) + 1)
with np.load(folder / "episode.npz") as episodes:
    lengths, angles = episodes["length"], np.degrees(episodes["observations"][:, :, 1])
seconds = 0.02 * np.arange(angles.shape[1])  # Brax's step of this task

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
left.fill_between(generations, low, high, color=X, alpha=0.25, linewidth=0)
left.plot(generations, middle, color=X)
left.set(xlabel="generation", ylabel="return: steps upright", xticks=[1, 6, 12, 18])
for length, angle in zip(lengths, angles, strict=True):
    fell = length < len(seconds) - 1
    right.plot(seconds[:length], angle[:length], color=GREY if fell else X, linewidth=0.8)
    right.plot(seconds[length - 1], angle[length - 1], "o", color=GREY if fell else X)
right.set(xlabel="seconds", ylabel="angle of the pole, degrees")
right.set_title(f"{(lengths == len(seconds) - 1).sum()} of 8 episodes stay upright", loc="left")
plt.show()

# %% [markdown]
# Brax's own viewer has the episode in three dimensions, in `episode.html`; it loads its script from the net, so it is not shown in this page but stands in the folder:

# %%
page = (folder / "episode.html").read_text()
print(f"{len(page) // 1000} kB; IPython.display.HTML(page) shows it in a notebook")

# %% [markdown]
# ## In three lines
#
# The champion as a function, observation to action, for whatever comes next: a simulator in another language, a robot, a test.

# %%
champion = load_champion(folder / "run" / "champion.npz")
act = jax.jit(champion.controller())
print(act(jnp.array([0.0, 0.05, 0.0, 0.0])))  # the pole leans to the right: push to the right

# %% [markdown]
# The same task and policy take any roll-out of the library. Here the champion of 1,152 episodes meets a world that it has not seen, the `positional` backend of the same task:

# %%
other = champion.task._replace(environment=champion.task.environment.replace(backend="positional"))
for name, task in (("spring", champion.task), ("positional", other)):
    returns = jax.jit(de.tasks.make_returns(task, champion.policy, num_episodes=32))
    steps = returns(jax.random.key(2), champion.genome[None], champion.statistics)[0]
    print(f"{name:<10} upright for {steps.mean():.0f} steps")
