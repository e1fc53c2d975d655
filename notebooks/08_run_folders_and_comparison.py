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
# # Run folders, and comparing them
#
# ![Fitness of a cold and a warm run, and where one repeat of each ended on Himmelblau's function](pictures/08_run_folders_and_comparison.png)
#
# An experiment is a config, and leaves a folder: settings, versions, arrays, a figure. This notebook runs one, changes a setting, holds the two against each other, and
# then asks the arrays what the table did not say: the run with the better fitness has lost more of the optima. At the end a sweep of the same setting, and a
# moving picture.

# %%
import base64
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
from IPython.display import HTML, Image
from matplotlib.patches import Circle

import diffevo_jax as de
from diffevo_jax.runs import load_run, load_sweep

plt.rcParams.update({"figure.constrained_layout.use": True, "font.size": 11})
FINAL, FIRST, SECOND = "#1A1A1A", "#0072B2", "#D55E00"  # as in the command's figures

# %% [markdown]
# ## Two runs
#
# At a prompt this is `diffevo-jax run himmelblau ...`, in a notebook `!diffevo-jax run ...`. The function below does the same by the interpreter of the notebook,
# so that it works wherever the package can be imported, and shows the tables. `himmelblau` is a config that comes with the package, `diffevo-jax list` has
# the others, and `diffevo-jax init` writes one to begin with. `--set` changes a setting: fewer individuals and levels than it has, to save time.

# %%
folder = Path(tempfile.mkdtemp())


def diffevo_jax(command):
    """Run a command of diffevo-jax in `folder`, and print its tables."""
    done = subprocess.run(
        [sys.executable, "-m", "diffevo_jax", *shlex.split(command)],
        cwd=folder,
        env={**os.environ, "FORCE_COLOR": "", "COLUMNS": "90"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    tables = done.stdout[max(done.stdout.find("Last generation"), 0) :]
    print(
        "\n".join(
            line for line in tables.splitlines() if not line.endswith((".png", ".pdf", ".gif"))
        )
    )


small = "--set population_size=128 --set algorithm.schedule.num_levels=30"
cold = "--set algorithm.fitness_map.temperature=0.02"
diffevo_jax(f"run himmelblau --repeats 20 {small} {cold} --out cold")

# %% [markdown]
# The change: the temperature of the Boltzmann map, from 0.02 to 0.16. The seed is the config's, so repeat 7 starts from the same population and draws the same noise
# in both runs.

# %%
warm = "--set algorithm.fitness_map.temperature=0.16"
diffevo_jax(f"run himmelblau --repeats 20 {small} {warm} --out warm")

# %% [markdown]
# ## What a run leaves
#
# `config.yaml` is the resolved config, and runs again as it is. `environment.json` has versions, device and commit, `metrics.csv` a row per generation, the `.npz` the
# arrays. `load_run` reads it all: named tuples, S repeats, T generations, N individuals, D genes.

# %%
print(*sorted(path.name for path in (folder / "warm").iterdir()), sep="\n")

runs = {name: load_run(folder / name) for name in ("cold", "warm")}
method = runs["warm"].methods["diffusion_evolution"]
print(
    f"\nseed {runs['warm'].config.seed}, temperature {method.config.algorithm.fitness_map.temperature}"
)
for name in ("fitness", "final_population", "best_genome", "best_fitness"):
    print(f"{name:17}{getattr(method, name).shape}")
print(f"metrics: {', '.join(method.metrics)}")

# %% [markdown]
# ## Compared
#
# `compare` holds runs on the same problem against each other. Where seeds agree it takes the difference within each pair of repeats, and that difference's standard
# error. The figure has medians and quartiles, over repeats and individuals.

# %%
diffevo_jax("compare cold warm --out comparison.png")
Image(folder / "comparison.png", width=620)

# %% [markdown]
# The cold run ends ahead, by many standard errors. Is it the better one?
#
# ## A measure of your own
#
# What was Diffusion Evolution for? This function has four optima, each of fitness 1, and no table counts how many of them a run has kept. The arrays know:
# `modes_found` over the final population of each repeat. Genomes are multiplied by the problem's `scale`, 4, before they are evaluated.

# %%
optima = jnp.array([[3.0, 2.0], [-2.8051, 3.1313], [-3.7793, -3.2832], [3.5844, -1.8481]])


@jax.vmap
def kept(population):  # [S, N, D] -> [S]
    return de.metrics.modes_found(4 * population, optima, radius=0.5)


def mean_and_error(values):
    return f"{values.mean():.3f} ± {values.std(ddof=1) / len(values) ** 0.5:.3f}"


fitness = {name: run.methods["diffusion_evolution"].fitness for name, run in runs.items()}
ends = {name: run.methods["diffusion_evolution"].final_population for name, run in runs.items()}
counts = {name: np.asarray(kept(end)) for name, end in ends.items()}
for name in runs:
    print(
        f"{name}: fitness {mean_and_error(fitness[name][:, -1].mean(axis=1))},"
        f" optima kept {mean_and_error(counts[name])}"
    )
print(f"optima, warm - cold, in pairs: {mean_and_error(counts['warm'] - counts['cold'])}")

# %% [markdown]
# So the warm run keeps more, and pays with individuals that are further from the tops. Left: the same curves, from the arrays. Right: the first repeat of
# both, on the landscape. An optimum is kept if someone is inside its ring.

# %% tags=["cover"]
side = jnp.linspace(-4, 4, 121)
plane = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
landscape = de.landscapes.himmelblau(plane).reshape(121, 121)
figure, panels = plt.subplots(1, 3, figsize=(12, 3.8), width_ratios=(1.3, 1, 1))
for axes, (name, colour) in zip(panels[1:], (("cold", FIRST), ("warm", SECOND)), strict=True):
    low, middle, high = np.quantile(fitness[name], [0.25, 0.5, 0.75], axis=(0, 2))
    generations = np.arange(1, len(middle) + 1)
    panels[0].fill_between(generations, low, high, color=colour, alpha=0.25, linewidth=0)
    panels[0].plot(generations, middle, color=colour, label=name)
    axes.contour(side, side, landscape, levels=12, colors="#CCCCCC", linewidths=0.8)
    for optimum in optima:
        axes.add_patch(Circle(optimum, 0.5, color=FINAL, fill=False, zorder=3))
    axes.scatter(*4 * np.asarray(ends[name])[0].T, s=10, color=colour, zorder=4)
    axes.set(xlim=(-4.6, 4.6), ylim=(-4.6, 4.6), aspect="equal", xlabel="x")
    axes.set_title(f"{name}, repeat 0: {counts[name][0]} of 4 kept", fontsize=11)
panels[0].set(xlabel="generation", ylabel="fitness (median, quartiles)", ylim=(0, 1.03))
panels[0].legend(frameon=False, loc="upper left")
panels[1].set_ylabel("y")
plt.show()

# %% [markdown]
# ## Two numbers are not a trend: a sweep
#
# A section `sweep` makes a sweep of a config: here six temperatures and two eta, ten repeats each, 120 runs in one program. The summary shows fitness; with
# `save_populations` the populations are kept, and can be asked again.

# %%
grid = (
    "{algorithm.fitness_map.temperature: [0.01, 0.02, 0.04, 0.08, 0.16, 0.32],"
    " algorithm.eta: [0.1, 1.0]}"
)
diffevo_jax(
    f"sweep himmelblau --repeats 10 {small} --set save_populations=10 --set 'sweep.grid={grid}' --out temperatures"
)
Image(folder / "temperatures" / "figure.png", width=620)

# %% [markdown]
# The coldest wins, again. The optima kept, from the populations:

# %%
points = load_sweep(folder / "temperatures")
rows = {0.1: [], 1.0: []}
for point in points:
    end = point.arrays["diffusion_evolution.final_population"]
    rows[point.point.settings["algorithm.eta"]].append(np.asarray(kept(end)))

temperatures = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32]
figure, axes = plt.subplots(figsize=(6.4, 3.4))
for (eta, values), colour, marker in zip(rows.items(), (FIRST, SECOND), "os", strict=True):
    values = np.array(values)  # [6, 10]
    places = np.array(temperatures) * (1.03 if eta == 1 else 0.97)  # side by side
    errors = values.std(axis=1, ddof=1) / 10**0.5
    axes.errorbar(
        places, values.mean(axis=1), errors, color=colour, marker=marker, label=f"eta {eta}"
    )
axes.set(xscale="log", xlabel="temperature", ylabel="optima kept, of 4", ylim=(0.8, 4))
axes.set_xticks(temperatures, [f"{temperature:g}" for temperature in temperatures])
axes.minorticks_off()
axes.legend(frameon=False, loc="upper left")
plt.show()
best = np.argmax(np.mean(rows[0.1], axis=1))
print(
    f"eta 0.1, temperature {temperatures[best]}: {mean_and_error(rows[0.1][best])} optima kept,"
    f" the most; at {temperatures[0]} they are {mean_and_error(rows[0.1][0])}"
)

# %% [markdown]
# Too cold goes for one peak, too hot for none in particular; little noise, eta 0.1, keeps more than much. A summary of one number would have
# chosen the other end of this axis.
#
# ## The best, and a moving picture
#
# The best individual of all generations is kept of every repeat. Here its fitness is evaluated again; of a control task, whose episodes have luck in them, the run does so itself
# over 100 fresh ones (`reevaluated_genome`, `reevaluated_return`).

# %%
again = de.landscapes.himmelblau(4 * jnp.asarray(method.best_genome))
print(f"twenty best genomes, evaluated again: the same {np.allclose(again, method.best_fitness)}")
print(f"worst of them {method.best_fitness.min():.3f}, best {method.best_fitness.max():.3f}")

# %% [markdown]
# `animate` draws the population from the folder, by running that repeat again; of a control task the best policy at work (notebook 03).

# %%
diffevo_jax("animate warm")
moving = base64.b64encode((folder / "warm" / "animation.gif").read_bytes()).decode()
HTML(f'<img width="480" src="data:image/gif;base64,{moving}">')

# %% [markdown]
# Grids of networks and tasks, jobs on Slurm and going on after a kill: `docs/howto/sweeps.md` and `docs/howto/runs.md`. A part of your own in configs: notebook 09.
