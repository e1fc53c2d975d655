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
# # Denoisers that learn, and genomes of bits
#
# ![Arms that a network draws for four heights of the hand](pictures/13_learned_and_discrete.png)
#
# Diffusion Evolution denoises by an average over the population. This notebook replaces the average twice: by a network that is trained on weighted genomes,
# and that can be told what to draw (the picture), and, for genomes of bits, by parents that fill in what noise has taken.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import diffevo_jax as de

plt.rcParams.update({"figure.constrained_layout.use": True, "font.size": 11})
X, X0, FINAL = "#2E7EBB", "#E0435C", "#1A1A1A"  # population, estimates, end: in all notebooks

# %% [markdown]
# ## A network in the place of the kernel
#
# Both answer one question: of which clean genome is this the noised version? The kernel looks at who is near, and weighs them by fitness. `training.learner` makes
# a network and its training, one compiled program; its rows are drawn by the same weights. Here are 128 individuals and what both say half way
# through a diffusion, alpha = 1/2.

# %%
learner = de.training.learner(hidden=(32, 32), epochs=100)
population = 1.2 * jax.random.normal(jax.random.key(0), (128, 2))
fitness = de.landscapes.two_peaks(population)
key_init, key_fit, key_held = jax.random.split(jax.random.key(1), 3)
trained = jax.jit(learner.fit)(
    key_fit,
    learner.init(key_init, 2),
    population,
    jnp.zeros((128, 0)),  # no conditions
    fitness,
    jax.random.bernoulli(key_held, 0.125, (128,)),  # what the best epoch is chosen by
)
line = jnp.linspace(-3, 3, 13)
x_t = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 2)
gaps = jnp.sum((x_t[:, None] - jnp.sqrt(0.5) * population) ** 2, axis=-1)
by_kernel = jax.nn.softmax(jnp.log(fitness) - gaps / (2 * 0.5), axis=1) @ population
by_network = learner.clean(trained, x_t, None, 0.5, 0.5)

figure, panels = plt.subplots(1, 2, figsize=(8, 4), sharey=True)
for axes, name, x0 in zip(panels, ("kernel", "network"), (by_kernel, by_network), strict=True):
    axes.quiver(*x_t.T, *(x0 - x_t).T, color="#BBBBBB", angles="xy", scale_units="xy", scale=1)
    axes.scatter(*population.T, s=60 * fitness + 2, color=X, linewidth=0)
    axes.scatter(*x0.T, s=10, color=X0, linewidth=0)
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title=name)
plt.show()
difference = jnp.linalg.norm(by_kernel - by_network, axis=1)
print(f"median difference of the two {jnp.median(difference):.2f}, between the peaks 2.83")

# %% [markdown]
# They nearly agree, as they should: few numbers are enough for a kernel in the plane. A network is worth its training where it is asked for something else than the fittest.
# `denoisers.network` and `denoisers.hybrid` have it inside a run of Diffusion Evolution, `presets.hades` draws whole generations from it;
# `docs/howto/learned.md` measures all of them.
#
# ## A condition of your own
#
# An arm of eight links has its shoulder at the origin, and a genome is how far each joint bends. Fit are arms that bend little. How high the hand comes has nothing to
# do with that, and is what we want to choose afterwards: a `Condition` is two functions, one for the number of each individual, and one for
# the numbers that the next generation is drawn for. `continuous=True` trains one network all along, which makes it the more exact.

# %%
JOINTS = 8


def points(bends):  # [N, JOINTS] -> [N, JOINTS + 1, 2]
    angle = jnp.cumsum(bends, axis=1)
    steps = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1) / JOINTS
    return jnp.pad(jnp.cumsum(steps, axis=1), ((0, 0), (1, 0), (0, 0)))


def straight(bends):
    return -jnp.mean(bends**2, axis=1)


height = de.conditions.Condition(
    evaluate=lambda population, fitness, aux: points(population)[:, -1, 1],
    targets=lambda key, values, size: jax.random.uniform(key, (size,), minval=-0.9, maxval=0.9),
)
search = de.presets.charles(
    [height],
    num_generations=10,
    learner=de.training.learner(hidden=(64, 64), epochs=60, predicts="x0"),
    continuous=True,
)
first = jax.random.normal(jax.random.key(2), (256, JOINTS))
evolved = de.evolve(jax.random.key(3), search.algorithm, straight, first)
print(f"mean fitness {straight(first).mean():.2f} -> {evolved.kept[-1].mean():.2f}")

# %% [markdown]
# `search.draw` takes genomes out of the search's network, for heights that it was never asked for exactly. Twenty for each of four heights:

# %% tags=["cover"]
heights = jnp.array([-0.6, -0.2, 0.2, 0.6])
genomes = search.draw(jax.random.key(4), evolved.state, jnp.repeat(heights, 20)[:, None])
arms = points(genomes).reshape(4, 20, JOINTS + 1, 2)
figure, axes = plt.subplots(figsize=(6, 4.5))
for colour, told, some in zip((X, "#D98A00", X0, FINAL), heights, arms, strict=True):
    axes.axhline(told, color=colour, linewidth=0.8, linestyle=":")
    for arm in some:
        axes.plot(*arm.T, color=colour, alpha=0.35, linewidth=1.5)
    axes.plot(*some[:, -1].T, "o", color=colour, markersize=5, label=f"{told:+.1f}")
axes.set(aspect="equal", xlim=(-0.1, 1.1), ylim=(-0.9, 0.9), yticks=[-0.6, -0.2, 0.2, 0.6])
axes.legend(frameon=False, title="told", loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
for told, some in zip(heights, arms[:, :, -1, 1], strict=True):
    print(f"told {told:+.1f}: the hands are at {some.mean():+.2f} ± {some.std():.2f}")

# %% [markdown]
# With `conditions.measured` the number comes from a roll-out: where a cart stands, how far a robot walks. `conditions.fitness` and `conditions.novelty` ask for more
# than there is.
#
# ## Genomes of bits
#
# Here a genome is a picture of 8 by 8, and fitness the likeness to the nearer of two. `de.discrete_evolution` noises by losing pixels, those that vary together at once,
# and a parent fills them in: one that what is left is like. So both pictures stay.

# %%
HEART = """
........
.##..##.
########
########
.######.
..####..
...##...
........"""
FACE = """
..####..
.#....#.
#.#..#.#
#......#
#.#..#.#
#..##..#
.#....#.
..####.."""
places = jnp.array([[mark == "#" for mark in picture if mark != "\n"] for picture in (HEART, FACE)])
likeness = de.landscapes.discrete.targets(places)
population = jax.random.bernoulli(jax.random.key(5), 0.5, (64, 64)).astype(int)
evolved = de.evolve(jax.random.key(6), de.discrete_evolution(300), likeness, population)
generations = (0, 40, 100, 299)
print("mean likeness", *(f"{evolved.kept[number].mean():.2f}" for number in generations))

# %%
figure, panels = plt.subplots(2, 12, figsize=(10, 1.9))
for row, shown in zip(panels, (population, evolved.state.population), strict=True):
    for axes, genome in zip(row, shown, strict=False):
        axes.imshow(1 - genome.reshape(8, 8), cmap="gray")
        axes.set(xticks=[], yticks=[])
plt.show()
for name, place in zip(("heart", "face"), places, strict=True):
    number = int(jnp.sum(jnp.all(evolved.state.population == place, axis=1)))
    print(f"{name}, pixel by pixel: {number} of 64 individuals")

# %% [markdown]
# Letters beyond bits: `letters=4` has genomes of 0 to 3. `docs/discrete.md` says what a generation does, and holds it against UMDA, PBIL, cGA, a genetic algorithm and
# a (1+1)-EA.
