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
# # A denoiser of your own, and a fitness map
#
# ![Ends of a run on a faulty instrument, built-in and own denoiser, and fitness against its faults](pictures/09_your_own_denoiser.png)
#
# An instrument that now and then shows far too much leads the built-in denoisers astray. This notebook writes one that asks the neighbours first, holds it to
# the laws of the built-in ones, measures where it wins and where it loses, and gives it a name in config files.

# %%
import inspect
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import diffevo_jax as de
from diffevo_jax.checks import Count

plt.rcParams.update({"figure.constrained_layout.use": True, "font.size": 11})
X, X0, FINAL = "#2E7EBB", "#E0435C", "#1A1A1A"  # population, estimates, end: in all notebooks

# %% [markdown]
# ## A faulty instrument
#
# The landscape is `two_peaks`, at most 1 high. A share of the measurements, `faults`, has nothing to do with it: a number from an exponential
# distribution with mean 3. No individual is better for it, but selection believes it.


# %%
def measured(key, population, faults, landscape=de.landscapes.two_peaks):
    key_fault, key_value = jax.random.split(key)
    fitness = landscape(population)
    faulty = jax.random.bernoulli(key_fault, faults, fitness.shape)
    return jnp.where(faulty, 3 * jax.random.exponential(key_value, fitness.shape), fitness)


# %% [markdown]
# ## The denoiser
#
# A step weighs, denoises and moves. A fitness map sees numbers alone; a denoiser also sees who is near whom. Ours replaces each fitness by the median of the k
# nearest individuals', and leaves the rest to `posterior_mean`. `weights.fitness` is what was measured, `weights.weigh` the fitness map of the run;
# who takes no part has the log weight NaN, and keeps it. There is nothing to remember, so the memory is the inner one's.


# %%
def neighbours(*, k: Count = 9) -> de.Denoiser:
    """Average by the median fitness of the k nearest, itself included."""
    inner = de.denoisers.posterior_mean()

    def estimate(key, memory, x_t, weights, level):
        left_out = jnp.isnan(weights.log_weight)
        squares = jnp.sum((x_t[:, None] - x_t) ** 2, axis=-1)
        _, nearest = jax.lax.top_k(-jnp.where(left_out, jnp.inf, squares), k)
        fitness = jnp.where(left_out, jnp.nan, weights.fitness)
        median = jnp.where(left_out, jnp.nan, jnp.nanmedian(fitness[nearest], axis=1))
        weights = weights._replace(log_weight=weights.weigh(median))
        return inner.estimate(key, memory, x_t, weights, level)

    return de.Denoiser(inner.init, estimate)


# %% [markdown]
# ## A run
#
# A function of a key, a denoiser and the share of faults: the same key is the same start and the same faults, whatever the denoiser.


# %%
def run(key, denoiser, faults, *, landscape=de.landscapes.two_peaks, genes=2, **settings):
    """The last population, `[128, genes]`. settings: fitness_map, where not the default."""
    key_init, key_run = jax.random.split(key)
    evolution = de.denoising_evolution(
        de.schedules.cosine(25), denoiser=denoiser, sampler=de.samplers.ddim(), **settings
    )
    population = jax.random.normal(key_init, (128, genes))

    def fitness_fn(key, population):
        return measured(key, population, faults, landscape)

    return de.evolve(key_run, evolution, fitness_fn, population, has_key=True).state.population


# %% [markdown]
# ## The laws
#
# What the built-in ones obey: an offset of fitness changes nothing (under the default map), nor does the order of the individuals; someone without a fitness takes no
# part; `vmap` is a loop; gradients are finite and not zero. One step in the middle of a run shows most mistakes: a first version of ours kept a median for those
# left out, which moved the map's standard deviation, and failed the third law. `tests/test_variants.py` has more laws, and takes a denoiser of yours by a line in its table.

# %%
points = jax.random.normal(jax.random.key(1), (64, 2))
t, *alphas = (jnp.asarray(number) for number in (5, 0.5, 0.5, 0.6, 0.4))
level = de.Level(t, alphas[0], alphas[1], alphas[2], alphas[3])
order = jax.random.permutation(jax.random.key(2), 64)


@jax.jit
def x0(population, fitness, temperature):
    denoiser = neighbours()
    weigh = partial(de.fitness.weigh, de.fitness.standardised(temperature))
    weights = de.Weights(weigh(fitness), fitness, weigh)
    memory = denoiser.init(jax.random.key(0), population)
    return denoiser.estimate(jax.random.key(3), memory, population, weights, level)[1].x0


fitness = de.landscapes.two_peaks(points)
seen, temperatures = x0(points, fitness, 0.1), jnp.array([0.1, 1.0])
absent = x0(points, fitness.at[0].set(jnp.nan), 0.1)[1:]
slope = jax.grad(lambda temperature: x0(points, fitness, temperature)[:, 0].sum())(0.5)
pairs = {
    "an offset changes nothing": (x0(points, fitness + 100, 0.1), seen),
    "nor does the order": (x0(points[order], fitness[order], 0.1), seen[order]),
    "who has no fitness takes no part": (absent, x0(points[1:], fitness[1:], 0.1)),
    "vmap is a loop": (
        jax.vmap(x0, (None, None, 0))(points, fitness, temperatures),
        jnp.stack([x0(points, fitness, temperature) for temperature in temperatures]),
    ),
}
for law, (one, other) in pairs.items():
    print(f"{law}: {jnp.allclose(one, other, atol=1e-3)}")
print(f"the gradient is finite, and not zero: {jnp.isfinite(slope) & (slope != 0)}")

# %% [markdown]
# ## Measured
#
# One run proves nothing. Twenty keys, the same for all, at five shares of faults: the true mean fitness of the last population, ± standard error. `rank` is the
# remedy without any writing, since only the order of the fitness counts there.

# %%
keys = de.batch.seed_keys(0, 20)
shares = (0.0, 0.02, 0.05, 0.1, 0.2)
posterior_mean = de.denoisers.posterior_mean()
parts = {
    "posterior_mean": {"denoiser": posterior_mean},
    "posterior_mean, rank": {"denoiser": posterior_mean, "fitness_map": de.fitness.rank()},
    "student_t": {"denoiser": de.denoisers.posterior_mean(de.kernels.student_t())},
    "neighbours": {"denoiser": neighbours()},
}


def study(faults=shares, **parts):
    """The last populations, for each share and key: `[shares, 20, 128, genes]`."""

    def one(key, setting):
        return run(key, **setting, **parts)

    return jax.jit(lambda: de.batch.run_many(one, keys, de.batch.grid(faults=faults)))()


@partial(jnp.vectorize, signature="(n,d)->()")
def quality(population):
    return de.landscapes.two_peaks(population).mean()


def told(values):
    return f"{values.mean():.2f} ± {values.std(ddof=1) / 20**0.5:.2f}"


ends = {name: study(**chosen) for name, chosen in parts.items()}
found = {name: quality(populations) for name, populations in ends.items()}
print(f"{'faults':20}", *(f"{share:11.0%}" for share in shares))
for name, values in found.items():
    print(f"{name:20}", *(f"{told(each):>11}" for each in values))

# %% [markdown]
# Left and middle: where one run of each ended, with the first key, on the landscape. Right: the table. One fault in fifty already misleads most runs; a median of nine goes wrong
# only when five of nine neighbours do.

# %% tags=["cover"]
side = jnp.linspace(-3, 3, 121)
plane = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
height = de.landscapes.two_peaks(plane).reshape(121, 121)
figure, panels = plt.subplots(1, 3, figsize=(12, 3.8), width_ratios=(1, 1, 1.3))
for axes, name in zip(panels, ("posterior_mean", "neighbours"), strict=False):
    axes.contour(side, side, height, levels=5, colors="#BBBBBB", linewidths=0.8)
    axes.scatter(*ends[name][2, 0].T, s=12, color=FINAL, alpha=0.7, linewidth=0)
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xlabel="gene 1")
    axes.set_title(f"{name}, 5 % faults", fontsize=11)
panels[0].set_ylabel("gene 2")
looks = (("#6F6E6E", "o"), ("#D98A00", "s"), (X, "^"), (X0, "D"))
for i, ((name, values), (colour, marker)) in enumerate(zip(found.items(), looks, strict=True)):
    panels[2].errorbar(
        100 * jnp.array(shares) + 0.15 * (i - 1.5),  # side by side
        values.mean(axis=1),
        values.std(axis=1, ddof=1) / 20**0.5,
        color=colour,
        marker=marker,
        markersize=5,
        label=name,
    )
panels[2].set(
    xlabel="faults, %", ylabel="true mean fitness", ylim=(0, 1.05), xticks=range(0, 21, 5)
)
panels[2].legend(frameon=False, fontsize=9, loc="center right", bbox_to_anchor=(1, 0.7))
plt.show()

# %% [markdown]
# ## A fitness map
#
# Could selection alone have done it? Truncation, as evolution strategies have it: the best quarter weighs one each, the others nothing, so that a fault has one vote of 32 at
# most. A map takes the fitness and `valid`: which individuals have one. Nothing passes through it to a gradient, as a step function is flat.


# %%
def truncated(*, kept: float = 0.25) -> de.fitness.FitnessMap:
    """Weight = 1 for the best, 0 for the others. kept: share of the best."""

    def log_weight(fitness, valid):
        threshold = jnp.nanquantile(jnp.where(valid, fitness, jnp.nan), 1 - kept)
        return jnp.where(valid, jnp.where(fitness >= threshold, 0.0, -jnp.inf), jnp.nan)

    return log_weight


print(f"{'faults':27}", *(f"{share:11.0%}" for share in shares))
for name, denoiser in (("posterior_mean", posterior_mean), ("neighbours", neighbours())):
    values = quality(study(denoiser=denoiser, fitness_map=truncated()))
    print(f"{'truncated, ' + name:27}", *(f"{told(each):>11}" for each in values))

# %% [markdown]
# So up to a few percent of faults it could, for less work; at a fifth of faults the median is needed. Look for the simple remedy
# before writing a part.
#
# ## Where it loses
#
# Neighbours must be alike for their median to say something. With many genes all of 128 individuals are far apart; where there are many narrow peaks, a peak
# with fewer than five individuals is voted down. Without faults, and with one in twenty:

# %%
angles = jnp.arange(8) * jnp.pi / 4
centres = 1.5 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)


def to_centres(population):  # [N, 2] -> [N, 8]
    return jnp.linalg.norm(population[:, None] - centres, axis=-1)


def eight(population):
    return jnp.sum(jnp.exp(-(to_centres(population) ** 2) / (2 * 0.35**2)), axis=1)


@partial(jnp.vectorize, signature="(n,d)->()")
def peaks_kept(population):
    return jnp.mean(to_centres(population).min(axis=0) < 0.2)


warm = {"landscape": eight, "fitness_map": de.fitness.standardised(0.5)}
cases = {
    "two_peaks, 16 genes: true fitness": (quality, {"genes": 16}),
    "eight peaks: share kept": (peaks_kept, warm),
}
print(f"{'':50} {'no faults':>11} {'5 % faults':>11}")
for case, (score, given) in cases.items():
    for name, denoiser in (("posterior_mean", posterior_mean), ("neighbours", neighbours())):
        values = score(study(denoiser=denoiser, faults=(0.0, 0.05), **given))
        print(f"{case:34} {name:15}", *(f"{told(each):>11}" for each in values))

# %% [markdown]
# So it is no better denoiser, but one for few genes, few optima and an instrument that lies. Its distances also take N² memory and no mesh, which the built-in
# ones are spared.
#
# ## A name in configs
#
# A plugin is a Python file that registers factories. Ours is made of the cells above; a researcher would keep the file and import it here. The parameters of a factory become
# settings, checked by their types: `k: Count` is a whole number of 1 or more. The problem hands on its true fitness as `returns`, so that the table shows it.

# %%
plugin = f"""
import jax
import jax.numpy as jnp

import diffevo_jax as de
from diffevo_jax.checks import Count, Fraction
from diffevo_jax.runs.config.registry import register

{inspect.getsource(measured)}

@register("problem", "faulty_peaks")
def faulty_peaks(*, faults: Fraction = 0.05) -> de.Problem:
    def fitness(key, population):
        true = de.landscapes.two_peaks(population)
        return measured(key, population, faults), {{"returns": true}}

    return de.Problem(2, fitness, has_key=True, has_aux=True)


@register("denoiser", "neighbours")
{inspect.getsource(neighbours)}

@register("fitness_map", "truncated")
{inspect.getsource(truncated)}
"""
config = """
name: faulty_peaks
description: "An instrument with 5 % faults"
seed: 0
repeats: 8
population_size: 128
problem: {name: faulty_peaks, faults: 0.05}
algorithm:
  name: denoising_evolution
  schedule: {name: cosine, num_levels: 25}
  denoiser: {name: posterior_mean}
  sampler: {name: ddim}
methods:
  posterior_mean: {label: posterior_mean}
  neighbours: {label: neighbours, algorithm: {denoiser: {name: neighbours, k: 9}}}
  truncated: {label: truncated, algorithm: {fitness_map: {name: truncated}}}
"""
folder = Path(tempfile.mkdtemp())
(folder / "faulty.py").write_text(plugin)
(folder / "faulty.yaml").write_text(config)
command = "run faulty.yaml --plugin faulty.py --out results"  # diffevo-jax ...
done = subprocess.run(
    [sys.executable, "-m", "diffevo_jax", *command.split()],
    cwd=folder,
    env={**os.environ, "FORCE_COLOR": ""},
    capture_output=True,
    text=True,
)
if done.returncode:
    raise RuntimeError(done.stderr)
print(done.stdout[done.stdout.find("Last generation") :].partition("results/")[0])

# %% [markdown]
# From here on a sweep over `algorithm.denoiser.k`, `--resume` and `compare` take it as they take the built-in ones (notebook 08). The plugin is kept in the
# run folder. A denoiser with a memory, and a sampler: `docs/howto/denoiser.md`; all built-in ones, measured: `docs/variants.md`.
