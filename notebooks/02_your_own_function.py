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
# # Your own function
#
# ![Data with the fitted curve; best cost against evaluations; all parameters tried](pictures/02_your_own_function.png)
#
# You have a function of some parameters, and want those that make it smallest. `de.minimize` takes the function, a box and a number of evaluations. It
# searches the box with Diffusion Evolution and finishes with CMA-ES. The function may be anything that Python calls, and needs no gradient.
#
# The story here: fit a curve to data in NumPy, the same in JAX, then tune a learning machine with whole numbers, logarithms and failures.

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import diffevo_jax as de

plt.rcParams.update({"figure.constrained_layout.use": True, "font.size": 11})
X, X0, FINAL = "#2E7EBB", "#E0435C", "#1A1A1A"  # population, estimates, end: in all notebooks

# %% [markdown]
# ## A curve through data
#
# Something swings and comes to rest; 60 noisy measurements of it are all we have. We want its frequency, decay, height and phase. Least squares in the
# frequency has many local minima, so that a local search alone mostly ends in a wrong one.

# %%
rng = np.random.default_rng(0)
times = np.sort(rng.uniform(0, 6, 60))
measured = 1.5 * np.exp(-0.4 * times) * np.sin(9 * times + 0.7) + 0.12 * rng.normal(size=60)


def curve(parameters, times):
    return (
        parameters["height"]
        * np.exp(-parameters["decay"] * times)
        * np.sin(parameters["frequency"] * times + parameters["phase"])
    )


def cost(parameters):
    return np.mean((curve(parameters, times) - measured) ** 2)


# %% [markdown]
# The box is given as a template: a (low, high) for each name, and the function gets the same names. `[(-5, 5)] * 12` does for a function of an array.
# Printed, the result says what was found and why the search ended. The noise has a variance of 0.0144; nothing can be much below it.

# %%
box = {"height": (0, 3), "decay": (0, 2), "frequency": (1, 20), "phase": (-np.pi, np.pi)}
result = de.minimize(cost, box, evaluations=1500, seed=0)
print(result)

# %% [markdown]
# `result` keeps everything: `history` has the best cost against evaluations, `population` and `costs` all that was tried, in order. In the
# right picture the first 80 points (yellow) are spread over the box, and the next ones close in. Once the local search had converged it began anew,
# with a larger population: the scattered dark points.

# %% tags=["cover"]
figure, (fit, progress, tried) = plt.subplots(1, 3, figsize=(12, 3.6))
fine = np.linspace(0, 6, 400)
fit.plot(times, measured, "o", color="#6F6E6E", markersize=4, label="measured")
fit.plot(fine, curve(result.x, fine), color=FINAL, label="fitted")
fit.set(xlabel="time", ylabel="signal", title="the answer")
fit.legend(frameon=False)
progress.semilogy(*result.history.T, color=FINAL)
progress.axhline(0.12**2, color="#6F6E6E", linestyle="--", linewidth=1)
progress.annotate("the noise", (1500, 0.12**2), ha="right", va="bottom", color="#6F6E6E")
progress.set(xlabel="evaluations", ylabel="best cost", title="the search")
progress.set_yticks([0.02, 0.05, 0.1, 0.2], ["0.02", "0.05", "0.1", "0.2"])
progress.minorticks_off()
dots = tried.scatter(
    result.population["frequency"],
    result.population["decay"],
    c=np.arange(result.evaluations),
    s=8,
    cmap="viridis_r",
)
tried.set(xlabel="frequency", ylabel="decay", title="all that was tried")
figure.colorbar(dots, label="evaluation")
plt.show()

# %% [markdown]
# ## The same in JAX
#
# A function that answers with a JAX array is compiled after its first generation, and each later one is evaluated at once; `jit=True` and `jit=False` decide.

# Here a chain of 12 links hangs from the origin and must end at (0.6, 0); we look for the angles with the lowest energy.


# %%
def joints(angles):  # [12] -> the 13 joints, [13, 2]
    steps = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1) / 12
    return jnp.concatenate([jnp.zeros((1, 2)), jnp.cumsum(steps, axis=0)])


def energy(angles):
    places = joints(angles)
    middles = (places[1:] + places[:-1]) / 2
    return middles[:, 1].mean() + 100 * jnp.sum((places[-1] - jnp.array([0.6, 0])) ** 2)


hanging = de.minimize(energy, [(-1.5, 1.5)] * 12, evaluations=6000, seed=0)
print(hanging)

# %% [markdown]
# Faint: the best of the first 10, 100 and 500 evaluations. Black: the answer, the curve of a hanging chain.

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.6))
for count, strength in ((10, 0.25), (100, 0.45), (500, 0.7)):
    first = np.argmin(hanging.costs[:count])
    axes.plot(*joints(hanging.population[first]).T, "-o", color=X, alpha=strength, markersize=3)
    x, y = joints(hanging.population[first])[6]
    axes.text(x, y, f"{count}", fontsize=9)
axes.plot(*joints(hanging.x).T, "-o", color=FINAL, markersize=5)
axes.plot([0, 0.6], [0, 0], "k^", markersize=8)
axes.set(xlabel="x", ylabel="y", aspect="equal")
plt.show()

# %% [markdown]
# ## Whole numbers, logarithms, failures
#
# A small learning machine: a ridge regression on random cosine features. How many features, how wide, and how much ridge? The number is whole, and the
# other two may be anything from tiny to large, so they are searched by their logarithm. Where the ridge is too small the solver fails now and then;
# we let it raise.

# %%
inputs = rng.uniform(-2, 2, (160, 2))
targets = np.sin(3 * inputs[:, 0]) * np.cos(2 * inputs[:, 1]) + 0.1 * rng.normal(size=160)
train, check = slice(0, 80), slice(80, 160)


def validation_error(parameters):
    draws = np.random.default_rng(1)
    count = parameters["features"]
    weights = draws.normal(size=(2, count)) / parameters["width"]
    features = np.cos(inputs @ weights + draws.uniform(0, 2 * np.pi, count))
    gram = features[train].T @ features[train] + parameters["ridge"] * np.eye(count)
    if np.linalg.cond(gram) > 1e12:
        raise ArithmeticError("the normal equations are singular")
    solved = np.linalg.solve(gram, features[train].T @ targets[train])
    return np.mean((features[check] @ solved - targets[check]) ** 2)


tuned = de.minimize(
    validation_error,
    {"features": (1, 200), "width": (0.01, 100), "ridge": (1e-14, 10)},
    evaluations=300,
    integers=["features"],
    log=["width", "ridge"],
    seed=0,
)
print(tuned)

# %% [markdown]
# Failures count as evaluations and are survived; the message quotes the first. In the picture they are the crosses, along the lower edge where the ridge
# is tiny, and the search soon keeps away from them.

# %%
figure, axes = plt.subplots(figsize=(6.4, 4))
failed = np.isnan(tuned.costs)
tried = tuned.population
axes.loglog(
    tried["width"][failed], tried["ridge"][failed], "x", color="#6F6E6E", label="failed", zorder=1
)
dots = axes.scatter(
    tried["width"][~failed],
    tried["ridge"][~failed],
    c=np.sqrt(tuned.costs[~failed]),
    s=16,
    cmap="viridis_r",
    zorder=2,
)
axes.plot(tuned.x["width"], tuned.x["ridge"], "*", color=X0, markersize=15, label="best", zorder=3)
axes.set(xlabel="width", ylabel="ridge")
axes.legend(loc="upper left")
figure.colorbar(dots, label="validation error (root mean square)")
plt.show()

# %% [markdown]
# ## Ending early, and looking on
#
# `target` ends a search at a cost that is low enough. `callback` sees the result so far after each generation, to print, to save or, by a true answer, to
# end. `initial` is a guess that is tried first.


# %%
def look(so_far):
    if len(so_far.history) % 10 == 1:
        print(f"{so_far.evaluations:5} evaluations, best cost {so_far.cost:.4f}")
    return so_far.cost < 0.02


guess = {"height": 1.0, "decay": 1.0, "frequency": 5.0, "phase": 0.0}
early = de.minimize(cost, box, evaluations=1500, seed=1, initial=guess, callback=look)
print(f"{early.evaluations} evaluations were enough: {early.message}")

# %% [markdown]
# `de.maximize` takes values in place of costs; `workers=4` evaluates in four processes, for functions of a tenth of a second and more at the top level of a
# module. All settings, and how it compares with pycma and others: `docs/minimize.md`. All optima in place of one: notebook 06.
