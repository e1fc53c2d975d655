"""Which settings: defaults, levels, schedule, freshness, temperature, kernels, scale, measured.

    python experiments/benchmarks/settings.py                  # all of it, and the page
    python experiments/benchmarks/settings.py --only peaks     # one part again
    python experiments/benchmarks/settings.py --tables         # docs/settings.md from the JSON

XLA_FLAGS="--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false" compiles in a
third of the time, and runs as fast.

Costs on [-5, 5]^D, their optimum anywhere in [-4, 4]^D, turned by random reflections. A score is
the mean over functions of log10(cost / cost of random search), each the lowest of as many
evaluations of one instance: at -1 it is ten times lower; mean and standard error over seeds.
Further, eight peaks in the plane. Into results/settings-cpu.json; the tables of docs/settings.md
stand between its marks, its figures beside it.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from diffevo_jax.runs.run import startup

if __name__ == "__main__":
    startup.use_all_cores()

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

import diffevo_jax as de
from diffevo_jax.diffusion import (
    GUIDANCE,
    PLANE,
    default_temperature,
    final_noise,
    gentle_temperature,
)
from diffevo_jax.drawings.style import ORDER, STYLE

RESULTS = Path(__file__).parent / "results" / "settings-cpu.json"
PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
SEED, SEEDS, BOX = 2041, 20, 5.0
FLOOR = 1e-9  # of costs
REFLECTIONS = 12
TEMPERATURES, GENTLE_ONES = (0.03, 0.1, 0.3, 1.0), (1.0, 2.0, 4.0, 8.0)  # in the plane, elsewhere
Row = dict[str, Any]
Functions = dict[str, Callable[[jax.Array], jax.Array]]


def rosenbrock(z: jax.Array) -> jax.Array:
    """Rosenbrock's valley, its optimum at 0."""
    return jnp.sum(100 * (z[:, 1:] + 1 - (z[:, :-1] + 1) ** 2) ** 2 + z[:, :-1] ** 2, 1)


def ackley(z: jax.Array) -> jax.Array:
    """Ackley's function."""
    distance = jnp.sqrt(jnp.mean(z**2, 1) + 1e-12)
    return 20 * -jnp.expm1(-distance / 5) + jnp.e - jnp.exp(jnp.mean(jnp.cos(2 * jnp.pi * z), 1))


def griewank(z: jax.Array) -> jax.Array:
    """Griewank's function on 20 times the box."""
    z = 20 * z
    waves = jnp.prod(jnp.cos(z / jnp.sqrt(1.0 + jnp.arange(z.shape[1]))), 1)
    return jnp.sum(z**2, 1) / 4000 - waves + 1


def levy(z: jax.Array) -> jax.Array:
    """Levy's function, its optimum at 0."""
    w = 1 + z / 4
    inner = (w[:, :-1] - 1) ** 2 * (1 + 10 * jnp.sin(jnp.pi * w[:, :-1] + 1) ** 2)
    last = (w[:, -1] - 1) ** 2 * (1 + jnp.sin(2 * jnp.pi * w[:, -1]) ** 2)
    # At w = 1 the sine of the sum above is that of pi + 1; its factor is 0 there.
    return jnp.sin(jnp.pi * w[:, 0]) ** 2 + jnp.sum(inner, 1) + last


CHOSEN: Functions = {  # settings are compared on these
    "sphere": lambda z: jnp.sum(z**2, 1),
    "rosenbrock": rosenbrock,
    "rastrigin": lambda z: jnp.sum(z**2 - 10 * jnp.cos(2 * jnp.pi * z) + 10, 1),
    "ackley": ackley,
}
HELD_OUT: Functions = {  # and checked on these
    "ellipsoid": lambda z: jnp.sum(1e3 ** (jnp.arange(z.shape[1]) / (z.shape[1] - 1)) * z**2, 1),
    "griewank": griewank,
    "levy": levy,
    "powers": lambda z: jnp.sum(
        jnp.abs(z) ** (2 + 4 * jnp.arange(z.shape[1]) / (z.shape[1] - 1)), 1
    ),
}
ALL = {**CHOSEN, **HELD_OUT}


class Shape(NamedTuple):
    """What a program is compiled for.

    kernel: plain, latent (its dimension is `latent`), broadened, niching, consensus; centred is
        consensus with steps centred on their targets, guided the same with a target beyond the
        mean and mirrored noise, guided alone the same with each individual's own noise; default is
        `diffusion_evolution` as it comes, paper is `presets.paper` with cosine, in `latent`
        dimensions where that is not 0.
    """

    dim: int
    population: int
    levels: int
    kernel: str
    latent: int = 0
    noisy: bool = False

    @property
    def evaluations(self) -> int:
        """How many a run has."""
        return self.population * self.levels


def sized(evaluations: int, dim: int, **settings: Any) -> Shape:
    """The default's size, levels and kernel: niches in the plane, else guided."""
    kernel = "niching" if dim <= PLANE else "guided"
    return Shape(dim, *de.presets.sizes(evaluations, dim), **{"kernel": kernel, **settings})


def base(shape: Shape) -> Row:
    """What is data to a program, where a table does not vary it: as `diffusion_evolution` has it.

    A kernel without guidance has the temperature that the default has in a latent space.
    """
    is_default = shape.kernel == "default" and shape.dim > PLANE
    guided = is_default or shape.kernel.startswith("guided")
    gentle = gentle_temperature(shape.population, shape.levels, shape.dim)
    return {
        "temperature": gentle if guided else default_temperature(shape.dim),
        "guidance": GUIDANCE if guided else 1.0,
        "scale": 2.5,
        "freshness": 1.0,
        "schedule": "geometric",
        "end": final_noise(shape.population, shape.levels, shape.dim),
        "sigma": 0.0,
        "sharing": 1.0,
        "warmth": 10.0,
    }


def levels_of(schedule: str, end: float, num_levels: int) -> de.schedules.Schedule:
    """The noise of a row: cosine, geometric down to `end`, or the same without a clean end."""
    if schedule == "cosine":
        return de.schedules.cosine(num_levels)
    return de.schedules.geometric(num_levels, end=end, clean=schedule == "geometric")


def stacked(rows: list[Row], num_levels: int) -> Row:
    """Rows of settings as arrays; their schedules are data too."""
    levels = [levels_of(row["schedule"], row["end"], num_levels) for row in rows]
    names = [name for name in rows[0] if name not in ("schedule", "end")]
    arrays = {name: jnp.asarray([row[name] for row in rows]) for name in names}
    return {**arrays, "levels": jax.tree.map(lambda *leaves: jnp.stack(leaves), *levels)}


def instance(functions: Functions, dim: int, key: jax.Array, index: jax.Array):
    """A cost of points `[N, D]`, shifted and turned: the function of an index."""
    key_shift, key_turn = jax.random.split(key)
    shift = jax.random.uniform(key_shift, (dim,), minval=-4, maxval=4)
    mirrors = jax.random.normal(key_turn, (dim, REFLECTIONS))
    mirrors = mirrors / jnp.linalg.norm(mirrors, axis=0)
    # The product of all reflections is I - V S V^T, with S^-1 the upper triangle of V^T V.
    triangle = jnp.triu(mirrors.T @ mirrors, 1) + jnp.eye(REFLECTIONS) / 2
    turned = jax.scipy.linalg.solve_triangular(triangle, mirrors.T)

    def cost(x: jax.Array) -> jax.Array:
        z = x - shift
        return jax.lax.switch(index, list(functions.values()), z - (z @ mirrors) @ turned)

    return cost


def configure(shape: Shape, key: jax.Array, setting: Row) -> de.Algorithm:
    """The algorithm of a shape and a setting; key: of the projection."""
    if shape.kernel == "default":
        return de.diffusion_evolution(shape.levels)
    latent = {}
    if shape.latent:
        latent["projection"] = de.latent.random_projection(key, shape.dim, shape.latent)
    if shape.kernel == "paper":
        return de.presets.paper(de.schedules.cosine(shape.levels), **latent)
    kernel = de.kernels.gaussian(**latent)
    centred = shape.kernel in ("centred", "guided", "guided alone")
    return de.denoising_evolution(
        setting["levels"],
        fitness_map=de.fitness.standardised(
            setting["temperature"], robust=shape.kernel == "niching"
        ),
        denoiser={
            "plain": lambda: de.denoisers.posterior_mean(kernel),
            "latent": lambda: de.denoisers.posterior_mean(kernel),
            "broadened": lambda: de.denoisers.broadened(kernel, share=0.3),
            **dict.fromkeys(("consensus", "centred"), de.denoisers.consensus),
            **dict.fromkeys(
                ("guided", "guided alone"),
                lambda: de.denoisers.consensus(guidance=setting["guidance"]),
            ),
            "niching": lambda: de.denoisers.niching(
                kernel, sharing=setting["sharing"], warmth=setting["warmth"]
            ),
        }[shape.kernel](),
        sampler=de.samplers.ddim(
            freshness=setting["freshness"], centred=centred, mirrored=shape.kernel == "guided"
        ),
    )


def search(functions: Functions, shape: Shape, key: jax.Array, setting: Row) -> Row:
    """One run: the lowest cost, and its mean effective sample size.

    Where it is noisy, what three answers cost without noise: the best one seen, the best of the
    last generation (last), and its mean.
    """
    key_instance, key_init, key_projection, key_sigma, key_run = (
        jax.random.fold_in(key, i) for i in range(5)
    )
    cost = instance(functions, shape.dim, key_instance, setting["function"])
    scale, sigma = setting["scale"], 0.0
    if shape.noisy:
        anywhere = jax.random.uniform(key_sigma, (256, shape.dim), minval=-BOX, maxval=BOX)
        sigma = setting["sigma"] * jnp.std(cost(anywhere))

    def fitness(key: jax.Array, genomes: jax.Array) -> jax.Array:
        exact = -cost(scale * genomes)
        return exact + sigma * jax.random.normal(key, exact.shape) if shape.noisy else exact

    state, (seen, samples), best = de.evolve(
        *(key_run, configure(shape, key_projection, setting), fitness),
        jax.random.normal(key_init, (shape.population, shape.dim)),
        has_key=True,
        keep=lambda info: (info.fitness, info.effective_sample_size.mean()),
        repair=lambda genomes: jnp.clip(genomes, -BOX / scale, BOX / scale),
    )
    if not shape.noisy:
        return {"best": -best.fitness, "sample_size": samples.mean()}
    last = jnp.clip(scale * state.population, -BOX, BOX)
    answers = jnp.stack([scale * best.genome, last[seen[-1].argmax()], last.mean(0)])
    costs = dict(zip(("best", "last", "mean"), cost(answers), strict=True))
    return {**costs, "sample_size": samples.mean()}


def run_all(function: Callable, num_seeds: int, settings: Any, seed: int = SEED) -> Any:
    """Run a function of (key, setting) for all seeds and settings, `[G, S]`, on all cores."""
    keys = de.batch.seed_keys(seed, num_seeds)
    run = partial(de.batch.run_many, function, devices=jax.devices())
    return jax.tree.map(np.asarray, jax.jit(run)(keys, settings))


BLOCK = 100


@cache
def random_program(names: tuple[str, ...], dim: int) -> Callable:
    """Random search, for any number of blocks: lowest costs `[functions, S]`."""
    functions = {name: ALL[name] for name in names}

    def search(key: jax.Array, setting: Row) -> jax.Array:
        cost = instance(functions, dim, jax.random.fold_in(key, 0), setting["function"])
        key_points = jax.random.fold_in(key, 9)

        def block(i: jax.Array, lowest: jax.Array) -> jax.Array:
            key_block = jax.random.fold_in(key_points, i)
            points = jax.random.uniform(key_block, (BLOCK, dim), minval=-BOX, maxval=BOX)
            return jnp.minimum(lowest, cost(points).min())

        return jax.lax.fori_loop(0, setting["blocks"], block, jnp.inf)

    return jax.jit(partial(de.batch.run_many, search, devices=jax.devices()))


@cache
def random_costs(
    names: tuple[str, ...], dim: int, evaluations: int, seed: int, num_seeds: int
) -> np.ndarray:
    """The lowest cost of uniform points on the instances of `search`, `[functions, S]`."""
    blocks = np.full(len(names), round(evaluations / BLOCK))
    setting = {"function": jnp.arange(len(names)), "blocks": jnp.asarray(blocks)}
    keys = de.batch.seed_keys(seed, num_seeds)
    return np.asarray(random_program(names, dim)(keys, setting))


def scores(
    shape: Shape,
    grid: list[Row],
    functions: Functions = CHOSEN,
    seed: int = SEED,
    num_seeds: int | None = None,
    against: int | None = None,
) -> Iterator[Row]:
    """Run a shape at settings of a grid, and score each against random search.

    against: evaluations of random search, as many as the run's unless given.
    """
    number, num_seeds = len(functions), num_seeds or (8 if shape.dim >= 1000 else SEEDS)
    settings = [{**base(shape), **each, "function": i} for each in grid for i in range(number)]
    found = run_all(
        partial(search, functions, shape), num_seeds, stacked(settings, shape.levels), seed
    )
    evaluations = against or shape.evaluations
    lowest = np.log10(random_costs(tuple(functions), shape.dim, evaluations, seed, num_seeds))
    for i, setting in enumerate(grid):
        at = slice(i * number, (i + 1) * number)
        row = {**shape._asdict(), "evaluations": shape.evaluations, "seeds": num_seeds}
        row |= {name: _round(value) for name, value in {**base(shape), **setting}.items()}
        for answer in ("best", "last", "mean") if shape.noisy else ("best",):
            relative = np.log10(np.maximum(found[answer][at], FLOOR)) - lowest  # [functions, S]
            row[answer] = _mean(relative.mean(0))
            if answer == "best":
                row["per_seed"] = [_round(value) for value in relative.mean(0)]
                row["quartiles"] = {
                    name: [_round(q) for q in np.quantile(values, [0.25, 0.5, 0.75])]
                    for name, values in zip(functions, relative, strict=True)
                }
        row["sample_size"] = _round(found["sample_size"][at].mean())
        yield row


def _mean(values: np.ndarray) -> list[float]:
    """Mean and standard error."""
    return [_round(values.mean()), _round(values.std(ddof=1) / len(values) ** 0.5)]


def _round(value: Any) -> Any:
    return value if isinstance(value, str) else float(f"{value:.4g}")


# The parts

DIMENSIONS = (2, 5, 12, 30, 100, 1000)


def defaults() -> Iterator[Row]:
    """The default at the sizes advised against the paper's, each with the same evaluations."""
    for dim in DIMENSIONS:
        for evaluations in (500, 2000, 10_000, 20_000, 100_000):
            if evaluations > (20_000 if dim < 100 else 100_000 if dim == 100 else 10_000):
                continue
            seeds = 8 if dim == 1000 or evaluations == 100_000 else SEEDS
            shapes = {"default": sized(evaluations, dim, kernel="default", latent=0)}
            if evaluations < 100_000:  # a kernel of 5,000 individuals takes long
                paper = Shape(dim, evaluations // 20, 20, "paper")
                shapes["paper"] = paper
                if dim > 2:
                    shapes["paper, 2 latent"] = paper._replace(latent=2)
            for name, shape in shapes.items():
                grid = [{"schedule": "cosine", "freshness": 0.0, "temperature": 0.1}]
                for row in scores(
                    *(shape, [{}] if name == "default" else grid, ALL),
                    num_seeds=seeds,
                    against=evaluations,
                ):
                    yield {**row, "budget": evaluations, "settings": name}


def anytime() -> Iterator[Row]:
    """The default at budgets that double, all against random search with 1,000 evaluations.

    change: what the last doubling changed, of the seeds that both have.
    """
    for dim in (2, 12, 100):
        before = np.zeros(0)
        for doublings in range(9):
            evaluations = 1000 * 2**doublings
            shape = sized(evaluations, dim, kernel="default", latent=0)
            seeds = 10 if doublings < 7 else 5
            (row,) = scores(shape, [{}], ALL, SEED + 3, seeds, against=1000)
            both = min(seeds, len(before))
            changes = np.subtract(row["per_seed"][:both], before[:both])
            before = np.array(row["per_seed"])
            yield {**row, "budget": evaluations, **({"change": _mean(changes)} if both else {})}


def levels() -> Iterator[Row]:
    """Population against levels at a fixed budget, at four temperatures."""
    for dim, evaluations in ((2, 2000), (12, 2000), (12, 10_000), (100, 2000)):
        few = (10, 20, 40, 100, 200) if evaluations == 2000 else (40, 100, 200, 500, 1000)
        for num_levels in few:  # of an even number of individuals each
            shape = sized(evaluations, dim)
            shape = shape._replace(population=evaluations // num_levels, levels=num_levels)
            grid = [{"temperature": t} for t in temperatures(dim)]
            for row in scores(shape, grid):
                yield {**row, "budget": evaluations}


def temperatures(dim: int) -> tuple[float, ...]:
    """Those that a table of several compares."""
    return TEMPERATURES if dim <= PLANE else GENTLE_ONES


ENDS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10)


def schedule() -> Iterator[Row]:
    """The noise that is left at the end; that of the default with a last level like it; cosine."""
    grid = [{"end": end} for end in ENDS] + [{"schedule": name} for name in ("not clean", "cosine")]
    for dim, evaluations in (
        *((2, 500), (2, 2000), (12, 500), (12, 2000), (12, 20_000)),
        *((100, 2000), (100, 20_000), (1000, 2000)),
    ):
        for row in scores(sized(evaluations, dim), grid):
            yield {**row, "budget": evaluations}


def freshness() -> Iterator[Row]:
    """How much of the remembered noise is drawn anew, under both schedules."""
    grid = [
        {"freshness": fresh, "schedule": name}
        for name in ("cosine", "geometric")
        for fresh in (0.0, 0.3, 0.6, 0.9, 1.0)
    ]
    for dim, evaluations in ((2, 2000), (12, 2000), (12, 20_000), (100, 2000), (100, 20_000)):
        for row in scores(sized(evaluations, dim), grid):
            yield {**row, "budget": evaluations}


def temperature() -> Iterator[Row]:
    """Temperature against dimension."""
    grid = [{"temperature": t} for t in (0.03, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 16.0)]
    for evaluations, dims in ((2000, DIMENSIONS), (20_000, (12, 100))):
        for dim in dims:
            for row in scores(sized(evaluations, dim), grid[:4] if dim <= PLANE else grid[2:]):
                yield {**row, "budget": evaluations}


def guidance() -> Iterator[Row]:
    """How far beyond the mean the target lies, against temperature; and noise without pairs."""
    grid = [
        {"guidance": g, "temperature": t}
        for g in (1.0, 2.0, 4.0, 8.0)
        for t in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    ]
    for dim, evaluations in ((12, 2000), (100, 2000), (1000, 2000)):
        for kernel in ("guided", "guided alone"):
            for row in scores(sized(evaluations, dim, kernel=kernel), grid):
                yield {**row, "budget": evaluations}


def kernels() -> Iterator[Row]:
    """Dimension against kernels."""
    for evaluations in (2000, 10_000):
        for dim in DIMENSIONS:
            for kernel, latent in (
                *(("plain", 0), ("broadened", 0), ("niching", 0)),
                *(("latent", 2), ("latent", 8), ("broadened", 2), ("consensus", 0)),
                *(("centred", 0), ("guided", 0)),
            ):
                if latent >= dim or (kernel == "niching" and dim > 5):
                    continue
                population, num_levels = (50, 40) if evaluations == 2000 else (100, 100)
                shape = Shape(dim, population, num_levels, kernel, latent)
                if kernel in ("latent", "consensus", "centred", "guided") or evaluations == 2000:
                    for row in scores(shape, [{}]):
                        yield {**row, "budget": evaluations}


def scales() -> Iterator[Row]:
    """Scale of the genome."""
    grid = [{"scale": s} for s in (0.3, 1.0, 2.5, 5.0, 10.0)]
    for dim, evaluations in ((2, 2000), (12, 2000), (12, 20_000), (100, 2000)):
        for row in scores(sized(evaluations, dim), grid):
            yield {**row, "budget": evaluations}


def noise() -> Iterator[Row]:
    """Noise of the fitness, in standard deviations of the cost over the box."""
    grid = [
        {"sigma": sigma, "temperature": t}
        for sigma in (0.0, 0.1, 0.3, 1.0)
        for t in (0.3, *GENTLE_ONES)
    ]
    for dim, num_levels in ((12, 10), (12, 40), (12, 160), (100, 40)):
        for kernel in ("centred", "guided") if num_levels == 40 else ("guided",):
            shape = sized(2000, dim, kernel=kernel, noisy=True)
            yield from scores(
                shape._replace(population=2000 // num_levels, levels=num_levels), grid
            )


PEAKS, NEAR, RADIUS = 8, 0.5, 1.5  # peaks; what counts as on one; the genome's scale


def on_peaks(shape: Shape, key: jax.Array, setting: Row) -> Row:
    """One run on eight peaks: how many are kept, the share on them, and 1 - best fitness."""
    key_init, key_run = jax.random.split(key)
    angle = 2 * jnp.pi * jnp.arange(PEAKS) / PEAKS
    centres = 2 * jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)
    centres = jnp.pad(centres, ((0, 0), (0, shape.dim - 2)))
    lower = setting["uneven"] * 0.05 * jnp.arange(PEAKS)

    def squares(x: jax.Array) -> jax.Array:
        return jnp.sum((x[:, None] - centres) ** 2, 2)

    def cost(genomes: jax.Array) -> jax.Array:
        # 1 - height exp(-d^2 / width^2), with its digits near the top.
        fall = -jnp.expm1(-squares(RADIUS * genomes) / setting["width"] ** 2)
        return jnp.min(lower + (1 - lower) * fall, 1)

    algorithm = de.denoising_evolution(
        setting["levels"],
        fitness_map=de.fitness.standardised(setting["temperature"], robust=True),
        denoiser=de.denoisers.niching(sharing=setting["sharing"], warmth=setting["warmth"]),
        sampler=de.samplers.ddim(
            freshness=setting["freshness"], fresh_below=setting["fresh_below"]
        ),
    )
    evolved = de.evolve(
        *(key_run, algorithm, lambda genomes: -cost(genomes)),
        jax.random.normal(key_init, (shape.population, shape.dim)),
    )
    inside = squares(RADIUS * evolved.state.population) < NEAR**2
    return {
        "peaks": jnp.sum(jnp.any(inside, 0)),
        "inside": jnp.mean(jnp.any(inside, 1)),
        "cost": jnp.log10(jnp.maximum(-evolved.best.fitness, 1e-12)),
    }


def on_peaks_all(shape: Shape, grid: list[Row], num_seeds: int, seed: int) -> Iterator[Row]:
    """Rows of peaks kept, share on them and log10 of 1 - best: mean and standard error."""
    other = {"uneven": 0.0, "width": 1.0, "fresh_below": 1.0}
    rows = [{**base(shape), **other, **each} for each in grid]
    found = run_all(partial(on_peaks, shape), num_seeds, stacked(rows, shape.levels), seed)
    for i, row in enumerate(rows):
        settings = {name: _round(value) for name, value in row.items()}
        measured = {name: _mean(values[i]) for name, values in found.items()}
        yield {**shape._asdict(), "seeds": num_seeds, **settings, **measured}


def peaks() -> Iterator[Row]:
    """The default on peaks of one height, or from 1 down to .65, by temperature and size."""
    grid = [
        {"uneven": uneven, "width": width, "temperature": t}
        for uneven in (0.0, 1.0)
        for width in (1.0, 0.5)
        for t in (*TEMPERATURES, 3.0)
    ]
    shapes = [(2, 128, 25), (2, 32, 25), (2, 512, 25), (2, 128, 100), (2, 32, 100), (5, 128, 25)]
    for shape in shapes:
        yield from on_peaks_all(Shape(*shape, "niching"), grid, 2 * SEEDS, SEED)


# Families of the frontier: how much noise is fresh, from which level on, sharing, warmth.
FAMILIES: dict[str, Row] = {
    "memory": {"freshness": 0.0, "sharing": 0.0, "warmth": 1.0},
    "half fresh": {"freshness": 0.5, "sharing": 0.0, "warmth": 1.0},
    "fresh late, .05": {"freshness": 1.0, "fresh_below": 0.05, "sharing": 0.0, "warmth": 1.0},
    "fresh late, .02": {"freshness": 1.0, "fresh_below": 0.02, "sharing": 0.0, "warmth": 1.0},
    "fresh late, .01": {"freshness": 1.0, "fresh_below": 0.01, "sharing": 0.0, "warmth": 1.0},
    "fresh": {"freshness": 1.0, "sharing": 0.0, "warmth": 1.0},
    "fresh, warm": {"freshness": 1.0, "sharing": 0.0, "warmth": 10.0},
    "fresh, sharing": {"freshness": 1.0, "sharing": 1.0, "warmth": 1.0},
    "memory, sharing": {"freshness": 0.0, "sharing": 1.0, "warmth": 1.0},
    "memory, niching": {"freshness": 0.0, "sharing": 1.0, "warmth": 10.0},
    "half fresh, niching": {"freshness": 0.5, "sharing": 1.0, "warmth": 10.0},
    "fresh, niching": {"freshness": 1.0, "sharing": 1.0, "warmth": 10.0},
}
SCHEDULES = {
    "cosine": {"schedule": "cosine"},
    "geometric, 1e-4": {"schedule": "geometric", "end": 1e-4},
    "geometric, 1e-8": {"schedule": "geometric", "end": 1e-8},
}


def frontier() -> Iterator[Row]:
    """Peaks kept against the best cost: freshness, sharing, warmth, temperature, schedule."""
    named = [
        {"family": family, "noise": noise, "width": width, "temperature": t}
        for width in (1.0, 0.5)
        for family in FAMILIES
        for noise in SCHEDULES
        for t in (0.1, 0.3, 1.0)
    ]
    grid = [
        {**{name: row[name] for name in ("width", "temperature")}, **SCHEDULES[row["noise"]]}
        | FAMILIES[row["family"]]
        for row in named
    ]
    for num_levels in (25, 100):
        shape = Shape(2, 128, num_levels, "niching")
        found = on_peaks_all(shape, grid, 2 * SEEDS, SEED + 2)
        for names, row in zip(named, found, strict=True):
            yield {**row, "family": names["family"], "noise": names["noise"]}


# Of the check: from the paper's settings to the default, one step after the other.
LADDER: dict[str, tuple[Row, Row]] = {
    "paper": ({"kernel": "plain"}, {"scale": 1.0}),
    "and scale 2.5": ({"kernel": "plain"}, {}),
    "and 2 latent": ({"kernel": "latent", "latent": 2}, {}),
    "and fresh noise": ({"kernel": "latent", "latent": 2}, {"freshness": 1.0}),
    "and geometric": (
        {"kernel": "latent", "latent": 2},
        {"freshness": 1.0, "schedule": "geometric"},
    ),
    "one target, centred": ({"kernel": "centred"}, {"freshness": 1.0, "schedule": "geometric"}),
}


def check() -> Iterator[Row]:
    """What the page advises against the paper's, on functions that nothing was chosen on."""
    paper = {"temperature": 0.1, "freshness": 0.0, "schedule": "cosine"}
    for dim in (5, 20, 200):
        for advice, (changed, setting) in LADDER.items():
            shape = sized(2000, dim)._replace(population=100, levels=20, **changed)
            for row in scores(shape, [{**paper, **setting}], HELD_OUT, SEED + 1):
                yield {**row, "advice": advice}
        for row in scores(sized(2000, dim, kernel="default", latent=0), [{}], HELD_OUT, SEED + 1):
            yield {**row, "advice": "the default"}


PARTS = {
    each.__name__: each
    for each in (
        *(defaults, anytime, frontier, peaks, levels, schedule, freshness, temperature, guidance),
        *(kernels, scales, noise, check),
    )
}


def measure(names: list[str]) -> None:
    """Run parts, and write each into the JSON as it is finished."""
    for name in names:
        rows = []
        for row in PARTS[name]():
            rows.append({key: value for key, value in row.items() if key != "per_seed"})
            numbers = [value for value in rows[-1].values() if not isinstance(value, dict)]
            print(name, *numbers, flush=True)
            parts = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            RESULTS.write_text(json.dumps({**parts, name: rows}).replace('{"', '\n{"') + "\n")


# The page


def pivot(
    rows: list[Row],
    down: dict[str, str],
    across: str,
    value: str = "best",
    best: Callable | None = min,
    **where: tuple,
) -> str:
    """A Markdown table of the rows that are as `where` says; a line's best cell is bold.

    down: names of a line's settings, and what the page calls them. across: of the columns'.
    """
    rows = [row for row in rows if all(row[name] in given for name, given in where.items())]
    columns = list(dict.fromkeys(row[across] for row in rows))
    if not any(isinstance(column, str) for column in columns):
        columns.sort()
    lines: dict[tuple, Row] = {}
    for row in rows:
        lines.setdefault(tuple(row[name] for name in down), {})[row[across]] = row[value]
    head = [*down.values(), *map(_setting, columns)]
    text = [f"| {' | '.join(head)} |", "|" + "---:|" * len(head)]
    for settings, cells in lines.items():
        numbers = {column: np.atleast_1d(cell) for column, cell in cells.items()}
        bold = best(numbers, key=lambda column: numbers[column][0]) if best else None
        shown = [_cell(numbers.get(column), column == bold) for column in columns]
        text.append(f"| {' | '.join([*map(_setting, settings), *shown])} |")
    return "\n".join(text)


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,.7g}"


def _cell(number: np.ndarray | None, bold: bool) -> str:
    """A number ± its standard error, to the error's first digit."""
    if number is None:
        return ""
    value, *error = number
    digits = 2
    if error and error[0] > 0:
        digits = int(np.clip(-np.floor(np.log10(error[0])), 0, 2))
    text = f"{value:.{digits}f}"
    text = f"**{text}**" if bold else text
    return f"{text} ± {error[0]:.{digits}f}" if error else text


def tables(parts: dict[str, list[Row]]) -> dict[str, str]:
    """The page's tables, by the names of its marks."""
    budget = {"dim": "D", "budget": "evaluations"}
    kinds = [{**row, "kernel": kernel_name(row)} for row in parts["kernels"]]
    answers = [{**row, "cost": row["mean"]} for row in parts["noise"]]
    noise = {"dim": "D", "kernel": "kernel", "sigma": "noise"}
    noise_levels = {"sigma": "noise", "levels": "T"}
    pairs = [
        {**row, "noise": "in pairs" if row["kernel"] == "guided" else "alone"}
        for row in parts["guidance"]
    ]
    at = {"noise": "noise", "guidance": "guidance"}
    ends = [
        {
            **row,
            "ends": f"1e{np.log10(row['end']):.0f}"
            if row["schedule"] == "geometric"
            else row["schedule"],
            "base": f"{base(_shape(row))['end']:.0e}",
        }
        for row in parts["schedule"]
    ]
    shape = {"dim": "D", "population": "N", "levels": "T"}
    kept = {"uneven": "uneven", "width": "width"}
    here = {"population": (128,), "levels": (25,), "dim": (2,)}
    even = {"uneven": (0.0,), "width": (1.0,)}
    return {
        "defaults": pivot(parts["defaults"], budget, "settings"),
        "anytime": anytime_table(parts["anytime"]),
        "frontier": frontier_table(parts["frontier"]),
        "frontier and temperature": temperatures_table(parts["frontier"]),
        "peaks": pivot(parts["peaks"], kept, "temperature", "peaks", max, **here),
        "peaks inside": pivot(parts["peaks"], kept, "temperature", "inside", None, **here),
        "peaks and size": pivot(parts["peaks"], shape, "temperature", "peaks", max, **even),
        "levels": pivot(parts["levels"], {**budget, "temperature": "temperature"}, "levels"),
        "schedule": pivot(ends, {**budget, "base": "the default's"}, "ends"),
        "freshness": pivot(parts["freshness"], {**budget, "schedule": "schedule"}, "freshness"),
        "temperature": pivot(parts["temperature"], budget, "temperature"),
        "guidance": pivot(pairs, {**budget, **at}, "temperature"),
        "kernels": pivot(kinds, budget, "kernel"),
        "sample size": pivot(kinds, {"dim": "D"}, "kernel", "sample_size", None, budget=(2000,)),
        "scale": pivot(parts["scales"], budget, "scale"),
        "noise": pivot(answers, noise, "temperature", "cost", levels=(40,)),
        "noise and levels": pivot(
            *(answers, noise_levels, "temperature", "cost"),
            **{"dim": (12,), "kernel": ("guided",)},
        ),
        "check": pivot(parts["check"], {"dim": "D"}, "advice"),
    }


def _shape(row: Row) -> Shape:
    return Shape(*(row[name] for name in Shape._fields))


def kernel_name(row: Row) -> str:
    """What the page calls a kernel."""
    if row["kernel"] == "latent":
        return f"{row['latent']} latent"
    return row["kernel"] + (f", {row['latent']} latent" if row["latent"] else "")


def anytime_table(rows: list[Row]) -> str:
    """Scores by budget and dimension, and changes; bold where worse by more than the error."""
    dims = list(dict.fromkeys(row["dim"] for row in rows))
    of = {(row["dim"], row["budget"]): row for row in rows}
    head = ["evaluations"]
    for dim in dims:
        head += [f"D = {dim}: N x T", "score", "change"]
    lines = [f"| {' | '.join(head)} |", "|" + "---:|" * len(head)]
    for budget in dict.fromkeys(row["budget"] for row in rows):
        cells = [_setting(budget)]
        for dim in dims:
            row = of.get((dim, budget))
            if row is None:
                cells += [""] * 3
                continue
            cells.append(f"{row['population']} x {row['levels']:,}")
            cells.append(_cell(np.array(row["best"]), False))
            change = row.get("change")
            worse = change is not None and change[0] > change[1]
            cells.append(_cell(None if change is None else np.array(change), worse))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def frontier_table(rows: list[Row]) -> str:
    """Peaks kept, the share on them and log10(1 - best), by family, width and levels."""
    head = ["noise and selection", "schedule"]
    cells: dict[tuple, list[str]] = {}
    for row in rows:
        if row["temperature"] == 0.1 and row["width"] == 1.0:
            line = cells.setdefault((row["family"], row["noise"]), [])
            line.append(_cell(np.array(row["peaks"]), False))
            line.append(f"{100 * row['inside'][0]:.0f}")
            line.append(_cell(np.array(row["cost"]), False))
    for num_levels in dict.fromkeys(row["levels"] for row in rows):
        head += [f"T = {num_levels}: kept", "on them, %", "best"]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * (len(head) - 2)]
    return "\n".join([*lines, *(f"| {' | '.join([*key, *line])} |" for key, line in cells.items())])


def temperatures_table(rows: list[Row]) -> str:
    """The same of three families, geometric down to 1e-4, by width and temperature."""
    head = ["width", "noise and selection", "temperature"]
    cells: dict[tuple, list[str]] = {}
    for row in rows:
        shown = row["family"] in ("memory", "fresh", "fresh, sharing", "fresh, niching")
        if shown and row["noise"] == "geometric, 1e-4":
            key = _setting(row["width"]), row["family"], _setting(row["temperature"])
            line = cells.setdefault(key, [])
            line.append(_cell(np.array(row["peaks"]), False))
            line.append(f"{100 * row['inside'][0]:.0f}")
            line.append(_cell(np.array(row["cost"]), False))
    for num_levels in dict.fromkeys(row["levels"] for row in rows):
        head += [f"T = {num_levels}: kept", "on them, %", "best"]
    lines = [f"| {' | '.join(head)} |", "|---:|---|---:|" + "---:|" * (len(head) - 3)]
    return "\n".join([*lines, *(f"| {' | '.join([*key, *line])} |" for key, line in cells.items())])


# The figures


def draw_levels(rows: list[Row], path: Path) -> None:
    """Score against levels and temperature at 2,000 evaluations, a panel a dimension."""
    rows = [row for row in rows if row["budget"] == 2000]
    dims = sorted({row["dim"] for row in rows})
    levels = sorted({row["levels"] for row in rows})
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 2.9), layout="constrained")
        panels = figure.subplots(1, len(dims))
        for axes, dim in zip(panels, dims, strict=True):
            of = {
                (row["temperature"], row["levels"]): row["best"][0]
                for row in rows
                if row["dim"] == dim
            }
            compared = temperatures(dim)
            score = np.array([[of[each, t] for t in levels] for each in compared])
            axes.imshow(score, cmap="viridis", aspect="auto", origin="lower")
            dark = score < (score.min() + score.max()) / 2
            for (i, j), value in np.ndenumerate(score):
                colour = "white" if dark[i, j] else "black"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, size=8)
            axes.set_xticks(range(len(levels)), [f"{2000 // t} x {t}" for t in levels], rotation=40)
            axes.set_yticks(range(len(compared)), [f"{each:g}" for each in compared])
            axes.set_title(f"D = {dim}", fontsize=11)
            axes.tick_params(labelsize=8, length=0)
            axes.spines[:].set_visible(False)
        panels[0].set_ylabel("temperature")
        figure.supxlabel("individuals x levels", fontsize=10)
        figure.savefig(path, dpi=130)


DRAWN = (
    *("memory", "half fresh", "fresh late, .05", "fresh", "fresh, warm"),
    *("fresh, sharing", "memory, niching", "fresh, niching"),
)


def draw_frontier(rows: list[Row], path: Path) -> None:
    """Peaks kept against the best cost, a marker a family; small where few are on the peaks."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, num_levels in zip(panels, (25, 100), strict=True):
            for family, look in zip(DRAWN, ORDER, strict=True):
                for on_them in (True, False):
                    points = [
                        row
                        for row in rows
                        if (row["family"], row["levels"], row["width"]) == (family, num_levels, 1.0)
                        and row["noise"] != "geometric, 1e-8"
                        and (row["inside"][0] >= 0.95) == on_them
                    ]
                    axes.errorbar(
                        [row["cost"][0] for row in points],
                        [row["peaks"][0] for row in points],
                        [row["peaks"][1] for row in points],
                        [row["cost"][1] for row in points],
                        linestyle="none",
                        marker=look.marker,
                        color=look.colour,
                        markerfacecolor=look.colour if on_them else "white",
                        markersize=(7 if on_them else 6) + 3 * (look.marker == "*"),
                        elinewidth=0.8,
                        label=family if on_them else None,
                        zorder=3 if on_them else 2,
                    )
            axes.axhline(PEAKS, color="0.8", linewidth=0.8, zorder=0)
            axes.set_title(f"128 individuals x {num_levels} levels", fontsize=11)
            axes.set_xlabel("best cost, log10(1 - best), lower is better")
        panels[0].set_ylabel("peaks kept, of eight")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=10)
        figure.savefig(path, dpi=130)


def draw_anytime(rows: list[Row], path: Path) -> None:
    """Score against budget, a line a dimension."""
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.subplots()
        for dim, look in zip(sorted({row["dim"] for row in rows}), ORDER, strict=False):
            of = [row for row in rows if row["dim"] == dim]
            axes.errorbar(
                [row["budget"] for row in of],
                [row["best"][0] for row in of],
                [row["best"][1] for row in of],
                *(None, "-"),
                marker=look.marker,
                color=look.colour,
                markersize=5,
                label=f"D = {dim}",
            )
        axes.set_xscale("log")
        axes.set_xlabel("evaluations")
        axes.set_ylabel("log10(cost / random search's at 1,000)")
        axes.legend(frameon=False)
        figure.savefig(path, dpi=130)


def write_page(page: str, parts: dict[str, list[Row]]) -> str:
    """Put the tables between the page's marks."""
    for name, table in tables(parts).items():
        block = f"<!-- {name} -->\n{table}\n<!-- end -->"
        page = re.sub(rf"<!-- {name} -->\n.*?<!-- end -->", block, page, flags=re.S)
    return page


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--tables", action="store_true")
    arguments = parser.parse_args()
    if not arguments.tables:
        measure(arguments.only or list(PARTS))
    found = json.loads(RESULTS.read_text())
    PAGE.write_text(write_page(PAGE.read_text(), found))
    draw_levels(found["levels"], PAGE.with_suffix(".png"))
    draw_frontier(found["frontier"], PAGE.with_name("frontier.png"))
    draw_anytime(found["anytime"], PAGE.with_name("anytime.png"))
