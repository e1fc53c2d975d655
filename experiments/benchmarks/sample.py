"""Draws from densities: the published method, `presets.sample`, and BlackJAX's tempered SMC.

    pip install ".[benchmarks]"
    python experiments/benchmarks/sample.py          # all of this: 10 minutes
    python experiments/benchmarks/sample.py --draw   # docs/sampling.png, of one run each: a minute

Writes results/sample-cpu.json and docs/sampling.png, and prints the tables of docs/sampling.md.

All at 100 N evaluations of g. Energy distances are to 4096 exact draws; those of N exact draws say
what a perfect method would have. BlackJAX: adaptive tempered SMC from N(0, I), which keeps half the
sample size a step, with random walks whose proposals are the particles' covariance times a
factor. That is the best of three, on 20 other runs a problem, and the steps are as many as the
budget has, counting proposals and the start only.
"""

import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import blackjax  # pyright: ignore[reportMissingImports]
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc import random_walk  # pyright: ignore[reportMissingImports]
from blackjax.smc import adaptive_tempered, resampling  # pyright: ignore[reportMissingImports]

import diffevo_jax as de

SEED, GENERATIONS = 41, 100
RUNS = {256: 60, 1024: 20}  # by N
FACTORS = (0.1, 0.3, 1.0)  # of 2.38 / sqrt(D) standard deviations of the particles
FOLDER = Path(__file__).parent


class Density(NamedTuple):
    """log_g: `[N, D]` -> `[N]`. exact: key, size -> draws. log_normaliser: known."""

    log_g: Callable
    exact: Callable
    log_normaliser: float
    num_genes: int
    size: int
    width: float | None = None


def mixture(num_genes: int, size: int, width: float) -> Density:
    """Round Gaussians of mass .25 and .75 at distance 3."""
    centre = jnp.zeros(num_genes).at[0].set(1.5)

    def log_g(x):
        near = [-jnp.sum((x - c) ** 2, axis=-1) / (2 * width**2) for c in (-centre, centre)]
        return jnp.logaddexp(near[0] + math.log(0.25), near[1] + math.log(0.75))

    def exact(key, size):
        key_side, key_noise = jax.random.split(key)
        side = jnp.where(jax.random.uniform(key_side, (size, 1)) < 0.75, centre, -centre)
        return side + width * jax.random.normal(key_noise, (size, num_genes))

    constant = num_genes / 2 * math.log(2 * math.pi * width**2)
    return Density(log_g, exact, constant, num_genes, size, width)


def banana(size: int) -> Density:
    """x ~ N(0, 1), y ~ N(x^2 / 2 - 1, .2^2)."""

    def log_g(x):
        return -(x[..., 0] ** 2) / 2 - (x[..., 1] - x[..., 0] ** 2 / 2 + 1) ** 2 / (2 * 0.2**2)

    def exact(key, size):
        x, noise = jax.random.normal(key, (2, size))
        return jnp.stack([x, x**2 / 2 - 1 + 0.2 * noise], axis=1)

    return Density(log_g, exact, math.log(2 * math.pi * 0.2), 2, size)


def ring(size: int) -> Density:
    """Radius near 1.5, width .15."""

    def log_g(x):
        radius = jnp.sqrt(jnp.sum(x**2, axis=-1) + 1e-30)
        return -((radius - 1.5) ** 2) / (2 * 0.15**2)

    def exact(key, size):
        key_radius, key_angle = jax.random.split(key)
        radii = jnp.linspace(0.5, 2.5, 4001)
        mass = jnp.cumsum(radii * jnp.exp(-((radii - 1.5) ** 2) / (2 * 0.15**2)))
        radius = jnp.interp(jax.random.uniform(key_radius, (size,)), mass / mass[-1], radii)
        angle = 2 * jnp.pi * jax.random.uniform(key_angle, (size,))
        return radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)

    return Density(
        log_g, exact, math.log(2 * math.pi * 1.5 * math.sqrt(2 * math.pi) * 0.15), 2, size
    )


PROBLEMS = {
    "mixture, D = 2": mixture(2, 256, 0.3),
    "banana": banana(256),
    "ring": ring(256),
    "mixture, D = 3": mixture(3, 1024, 0.3),
    "mixture, D = 5": mixture(5, 1024, 0.3),
    "mixture, D = 10": mixture(10, 1024, 0.5),
}


def published(key, density: Density):
    """Diffusion Evolution with g itself as the weight."""
    evolution = de.presets.paper(
        de.schedules.cosine(GENERATIONS), fitness_map=de.fitness.boltzmann(1.0), eta=1.0
    )
    key_init, key_run = jax.random.split(key)
    population = jax.random.normal(key_init, (density.size, density.num_genes))
    state = de.evolve(key_run, evolution, density.log_g, population).state
    return state.population, {"evaluations": jnp.asarray(GENERATIONS * density.size)}


def preset(key, density: Density):
    """`presets.sample`, and how far its normaliser is off."""
    samples = de.presets.sample(
        key, density.log_g, num_genes=density.num_genes, population_size=density.size
    )
    off = samples.log_normaliser - density.log_normaliser
    return samples.population, {
        "log normaliser": off,
        "within its error": jnp.abs(off) < samples.log_normaliser_error,
        "within twice its error": jnp.abs(off) < 2 * samples.log_normaliser_error,
        "sample size over N": samples.effective_sample_size / density.size,
        "evaluations": jnp.asarray(samples.evaluated),
    }


def tempered(key, density: Density, *, factor: float, steps: int):
    """BlackJAX's adaptive tempered SMC with random walks."""
    genes, size = density.num_genes, density.size

    def log_prior(x):
        return -jnp.sum(x**2) / 2 - genes / 2 * math.log(2 * math.pi)

    walk = random_walk.build_additive_step()

    def move(key, state, log_density, scale):
        return walk(key, state, log_density, random_walk.normal(scale))

    kernel = adaptive_tempered.build_kernel(
        log_prior,
        lambda x: density.log_g(x) - log_prior(x),
        move,
        random_walk.init,
        resampling.systematic,
        0.5,
    )

    def body(carry):
        key, state, log_normaliser, count = carry
        key, key_step = jax.random.split(key)
        covariance = jnp.atleast_2d(jnp.cov(state.particles.T)) + 1e-9 * jnp.eye(genes)
        scale = factor * 2.38 / genes**0.5 * jnp.linalg.cholesky(covariance)
        state, info = kernel(key_step, state, steps, {"scale": scale[None]})
        return key, state, log_normaliser + info.log_likelihood_increment, count + 1

    key_init, key_run = jax.random.split(key)
    start = adaptive_tempered.init(jax.random.normal(key_init, (size, genes)))
    carry = key_run, start, jnp.zeros(()), jnp.zeros((), int)
    _, state, log_normaliser, count = jax.lax.while_loop(
        lambda carry: carry[1].tempering_param < 1, body, carry
    )
    # Particles come weighted for the last temperature.
    picked = resampling.systematic(jax.random.fold_in(key, 1), state.weights, size)
    return jnp.asarray(state.particles)[picked], {
        "log normaliser": log_normaliser - density.log_normaliser,
        "evaluations": size * (1 + steps * count),
        "temperatures": count,
    }


def exact(key, density: Density):
    """What a perfect method would draw."""
    return density.exact(key, density.size), {}


def distance(x, y):
    """Mean distance of pairs, `[]`."""
    squares = jax.lax.map(lambda row: jnp.mean(jnp.sqrt(jnp.sum((row - y) ** 2, axis=1))), x)
    return jnp.mean(squares)


def measures(key, density: Density, method):
    """What one run's population is worth."""
    key_run, key_exact = jax.random.split(key)
    x, told = method(key_run, density)
    reference = density.exact(key_exact, 4096)
    energy = 2 * distance(x, reference) - distance(x, x) - distance(reference, reference)
    told["energy distance"] = energy
    if density.width is not None:
        heavy = x[:, 0] > 0
        away = x.at[:, 0].add(jnp.where(heavy, -1.5, 1.5)) ** 2
        told["mass"] = jnp.mean(heavy)
        for name, mask in (("heavy", heavy), ("light", ~heavy)):
            count = density.num_genes * jnp.sum(mask)
            squares = jnp.where(count > 0, jnp.sum(away, where=mask[:, None]) / count, jnp.nan)
            told[f"width, {name}"] = jnp.sqrt(squares)
    return told


def runs(method, density: Density, seed: int, number: int):
    """`measures` of as many runs."""
    keys = de.batch.seed_keys(seed, number)
    mapped = jax.jit(lambda keys: jax.lax.map(lambda key: measures(key, density, method), keys))
    return jax.tree.map(np.asarray, mapped(keys))


def tuned(density: Density):
    """BlackJAX's with the factor of the least energy distance, and steps for the budget."""
    found = []
    for factor in FACTORS:
        first = runs(partial(tempered, factor=factor, steps=15), density, SEED + 1, 5)
        steps = max(1, int((GENERATIONS - 1) / first["temperatures"].mean()))
        tried = partial(tempered, factor=factor, steps=steps)
        energy = runs(tried, density, SEED + 2, 20)["energy distance"].mean()
        found.append((energy, factor, tried))
    return min(found, key=lambda each: each[:2])[2]


def methods(density: Density, blackjaxs):
    """Name -> (key, density) -> (population `[N, D]`, what it tells)."""
    return {
        "published": published,
        "presets.sample": preset,
        "BlackJAX tempered SMC": blackjaxs,
        "exact draws": exact,
    }


def draw(path: Path) -> None:
    """Draw one run of each method on three densities."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    colours = ("#c1272d", "#0057a8", "#4d8f3a", "#444444")
    rows = ["mixture, D = 2", "banana", "ring"]
    results = json.loads((FOLDER / "results" / "sample-cpu.json").read_text())
    figure, axes = plt.subplots(3, 4, figsize=(9.6, 6.7), layout="constrained")
    for row, name in zip(axes, rows, strict=True):
        density = PROBLEMS[name]
        grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(-2.9, 2.9, 200)] * 2), axis=-1)
        levels = np.asarray(density.log_g(grid.reshape(-1, 2)).reshape(200, 200))
        told = results[name]["BlackJAX tempered SMC"]
        blackjaxs = partial(tempered, factor=told["factor"], steps=told["steps"])
        chosen = methods(density, blackjaxs).items()
        for axis, colour, (label, method) in zip(row, colours, chosen, strict=True):
            x, _ = jax.jit(lambda key, d=density, m=method: m(key, d))(jax.random.key(SEED))
            heights = levels.max() - np.array([4.5, 2.0, 0.5])
            axis.contour(
                *(grid[..., 0], grid[..., 1], levels, heights),
                colors="#bbbbbb",
                linewidths=0.8,
                linestyles="solid",
            )
            axis.scatter(*np.asarray(x).T, s=6, color=colour, linewidths=0, alpha=0.7)
            axis.set(xlim=(-2.9, 2.9), ylim=(-2.2, 2.9), aspect="equal", xticks=[], yticks=[])
            if name == rows[0]:
                axis.set_title(label, fontsize=12)
            if axis is row[0]:
                axis.set_ylabel(name.split(",")[0], fontsize=12)
    figure.savefig(path, dpi=110)


def print_tables(results: dict) -> None:
    """Print the tables of docs/sampling.md."""

    def cell(told, key, digits, factor=1):
        if key not in told:
            return "-"
        return " ± ".join(f"{factor * value:.{digits}f}" for value in told[key])

    columns = [("mass", 3), ("width, heavy", 3), ("width, light", 3), ("log normaliser", 3)]
    for problem in PROBLEMS:
        for name, told in results[problem].items():
            cells = [cell(told, *column) for column in columns]
            count = f"{told['evaluations'][0]:,.0f}" if "evaluations" in told else "-"
            energy = cell(told, "energy distance", 1, 1000)
            print("|", " | ".join([problem, name, energy, *cells, count]), "|")
    for problem in PROBLEMS:
        told = results[problem]["presets.sample"]
        shares = [f"{100 * told[key][0]:.0f} %" for key in told if key.startswith("within")]
        least = f"{told['least sample size over N']:.1f}"
        print("|", " | ".join([problem, cell(told, "sample size over N", 1), least, *shares]), "|")


if __name__ == "__main__":
    picture = FOLDER.parent.parent / "docs" / "sampling.png"
    if "--draw" in sys.argv:
        draw(picture)
        sys.exit()
    path = FOLDER / "results" / "sample-cpu.json"
    versions = {"jax": jax.__version__, "blackjax": blackjax.__version__}
    table: dict[str, dict] = {"versions": versions}
    for problem, density in PROBLEMS.items():
        table[problem] = {}
        for name, method in methods(density, tuned(density)).items():
            told = runs(method, density, SEED, RUNS[density.size])
            table[problem][name] = {
                key: [round(float(np.nanmean(v)), 5), round(float(np.nanstd(v, ddof=1)), 5)]
                for key, v in told.items()
            }
            if "sample size over N" in told:
                least = float(told["sample size over N"].min())
                table[problem][name]["least sample size over N"] = round(least, 3)
            if isinstance(method, partial):
                table[problem][name] |= method.keywords
        print(problem, "done", flush=True)
    path.write_text(json.dumps(table, indent=1) + "\n")
    print_tables(table)
    draw(picture)
