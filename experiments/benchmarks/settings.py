"""Which settings: population, levels, temperature, scale, dimension, noise, kernels, measured.

    python experiments/benchmarks/settings.py                  # all of it, and the page
    python experiments/benchmarks/settings.py --only peaks     # one part again
    python experiments/benchmarks/settings.py --tables         # docs/settings.md from the JSON

Costs on [-5, 5]^D, their optimum anywhere in [-4, 4]^D, turned by random reflections. A score is
the mean over four functions of log10(cost / cost of random search), each the lowest of as many
evaluations of one instance: at -1 it is ten times lower; mean and standard error over 20 seeds.
Further, eight peaks and control tasks. Into results/settings-cpu.json; the tables of
docs/settings.md stand between its marks, its figure beside it.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from diffevo_jax.runs.run import startup

if __name__ == "__main__":
    startup.use_all_cores()

import jax
import jax.numpy as jnp
import numpy as np

import diffevo_jax as de

RESULTS = Path(__file__).parent / "results" / "settings-cpu.json"
PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
SEED, SEEDS, BOX = 41, 20, 5.0
REFLECTIONS = 12
TEMPERATURES = (0.03, 0.1, 0.3, 1.0)
Row = dict[str, Any]


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


CHOSEN = {  # the settings are chosen on these
    "sphere": lambda z: jnp.sum(z**2, 1),
    "rosenbrock": rosenbrock,
    "rastrigin": lambda z: jnp.sum(z**2 - 10 * jnp.cos(2 * jnp.pi * z) + 10, 1),
    "ackley": ackley,
}
HELD_OUT = {  # and checked on these
    "ellipsoid": lambda z: jnp.sum(1e3 ** (jnp.arange(z.shape[1]) / (z.shape[1] - 1)) * z**2, 1),
    "griewank": griewank,
    "levy": levy,
    "powers": lambda z: jnp.sum(
        jnp.abs(z) ** (2 + 4 * jnp.arange(z.shape[1]) / (z.shape[1] - 1)), 1
    ),
}


class Shape(NamedTuple):
    """What a program is compiled for. kernel: plain or broadened; latent: its dimension, or 0."""

    dim: int
    population: int
    levels: int
    kernel: str = "plain"
    latent: int = 0


# What is data to a program, and its base: where a table does not vary it.
BASE = {"temperature": 0.1, "scale": 2.5, "eta": 1.0, "sigma": 0.0}


def instance(functions: dict[str, Callable], dim: int, key: jax.Array, index: jax.Array):
    """A cost of points `[N, D]`, shifted and turned: the function of an index."""
    key_shift, key_turn = jax.random.split(key)
    shift = jax.random.uniform(key_shift, (dim,), minval=-4, maxval=4)
    mirrors = jax.random.normal(key_turn, (REFLECTIONS, dim))
    mirrors = mirrors / jnp.linalg.norm(mirrors, axis=1, keepdims=True)

    def cost(x: jax.Array) -> jax.Array:
        z = x - shift
        for mirror in mirrors:
            z = z - 2 * (z @ mirror)[:, None] * mirror
        return jax.lax.switch(index, list(functions.values()), z)

    return cost


def search(functions: dict[str, Callable], shape: Shape, key: jax.Array, setting: Row) -> Row:
    """One run: what its three answers cost, without noise, and its mean effective sample size.

    best: the best one seen. last: the best of the last generation. mean: the last one's mean.
    """
    key_instance, key_init, key_projection, key_sigma, key_run = (
        jax.random.fold_in(key, i) for i in range(5)
    )
    cost = instance(functions, shape.dim, key_instance, setting["function"])
    anywhere = jax.random.uniform(key_sigma, (256, shape.dim), minval=-BOX, maxval=BOX)
    sigma = setting["sigma"] * jnp.std(cost(anywhere))
    projection = None
    if shape.latent:
        projection = de.latent.random_projection(key_projection, shape.dim, shape.latent)
    kernel = de.kernels.gaussian(projection=projection)
    denoiser = (
        de.denoisers.posterior_mean(kernel)
        if shape.kernel == "plain"
        else de.denoisers.broadened(kernel, share=0.3)
    )
    algorithm = de.denoising_evolution(
        de.schedules.cosine(shape.levels),
        fitness_map=de.fitness.standardised(setting["temperature"]),
        denoiser=denoiser,
        sampler=de.samplers.ddim(setting["eta"]),
    )
    scale = setting["scale"]

    def fitness(key: jax.Array, genomes: jax.Array) -> jax.Array:
        return -cost(scale * genomes) - sigma * jax.random.normal(key, (len(genomes),))

    state, (seen, samples), best = de.evolve(
        *(key_run, algorithm, fitness),
        jax.random.normal(key_init, (shape.population, shape.dim)),
        has_key=True,
        keep=lambda info: (info.fitness, info.effective_sample_size.mean()),
        repair=lambda genomes: jnp.clip(genomes, -BOX / scale, BOX / scale),
    )
    last = jnp.clip(scale * state.population, -BOX, BOX)
    answers = {"best": scale * best.genome, "last": last[seen[-1].argmax()], "mean": last.mean(0)}
    costs = {name: cost(answer[None])[0] for name, answer in answers.items()}
    return {**costs, "sample_size": samples.mean()}


def random_search(functions, dim: int, evaluations: int, key: jax.Array, index: jax.Array):
    """The lowest cost of uniform points, on the instance that `search` has of this key."""
    cost = instance(functions, dim, jax.random.fold_in(key, 0), index)

    def best(key: jax.Array) -> jax.Array:
        return cost(jax.random.uniform(key, (100, dim), minval=-BOX, maxval=BOX)).min()

    return jax.lax.map(best, jax.random.split(jax.random.fold_in(key, 9), evaluations // 100)).min()


def run_all(function: Callable, num_seeds: int, settings: Any, seed: int = SEED) -> Any:
    """Run a function of (key, setting) for all seeds and settings, `[G, S]`, on all cores."""
    keys = de.batch.seed_keys(seed, num_seeds)
    run = partial(de.batch.run_many, function, devices=jax.devices())
    return jax.tree.map(np.asarray, jax.jit(run)(keys, settings))


_random: dict[tuple, np.ndarray] = {}


def random_costs(functions: dict[str, Callable], dim: int, evaluations: int, seed: int):
    """Of random search: `[functions, S]`."""
    place = tuple(functions), dim, evaluations, seed
    if place not in _random:
        _random[place] = run_all(
            lambda key, index: random_search(functions, dim, evaluations, key, index),
            *(SEEDS, jnp.arange(len(functions)), seed),
        )
    return _random[place]


def scores(
    shape: Shape,
    grid: list[Row],
    functions: dict[str, Callable] = CHOSEN,
    seed: int = SEED,
) -> Iterator[Row]:
    """Run a shape at settings of a grid, and score each against random search."""
    number = len(functions)
    settings = [{**BASE, **each, "function": i} for each in grid for i in range(number)]
    names = settings[0].keys()
    arrays = {name: jnp.asarray([each[name] for each in settings]) for name in names}
    found = run_all(partial(search, functions, shape), SEEDS, arrays, seed)
    evaluations = shape.population * shape.levels
    against = np.log10(random_costs(functions, shape.dim, evaluations, seed))
    for i, setting in enumerate(grid):
        at = slice(i * number, (i + 1) * number)
        row = {**shape._asdict(), "evaluations": evaluations, **BASE, **setting}
        for answer in ("best", "last", "mean"):
            relative = np.log10(np.maximum(found[answer][at], 1e-9)) - against  # [functions, S]
            row[answer] = _mean(relative.mean(0))
            if answer == "best":
                row["quartiles"] = {
                    name: [_round(q) for q in np.quantile(values, [0.25, 0.5, 0.75])]
                    for name, values in zip(functions, relative, strict=True)
                }
        row["sample_size"] = _round(found["sample_size"][at].mean())
        yield row


def _mean(values: np.ndarray) -> list[float]:
    """Mean and standard error."""
    return [_round(values.mean()), _round(values.std(ddof=1) / len(values) ** 0.5)]


def _round(value: Any) -> float:
    return float(f"{value:.4g}")


# The parts


def levels() -> Iterator[Row]:
    """Population against levels at a fixed budget, at four temperatures."""
    for dim, latent in ((12, 2), (2, 0)):
        for num_levels in (5, 10, 20, 40, 100, 200):
            shape = Shape(dim, 2000 // num_levels, num_levels, latent=latent)
            yield from scores(shape, [{"temperature": t} for t in TEMPERATURES])


def scales() -> Iterator[Row]:
    """Scale of the genome, and eta, each alone."""
    grid = [{"scale": s} for s in (0.3, 1.0, 2.5, 5.0, 10.0)]
    grid += [{"eta": eta} for eta in (0.0, 0.1, 0.3, 0.6)]
    shapes = [Shape(2, 100, 20), Shape(12, 100, 20), Shape(100, 100, 20), Shape(12, 200, 100)]
    for shape in shapes:
        yield from scores(shape, grid)


def noise() -> Iterator[Row]:
    """Noise of the fitness, in standard deviations of the cost over the box."""
    grid = [
        {"sigma": sigma, "temperature": t} for sigma in (0.0, 0.1, 0.3, 1.0) for t in TEMPERATURES
    ]
    for num_levels in (5, 20, 80):
        yield from scores(Shape(12, 2000 // num_levels, num_levels), grid)


def kernels() -> Iterator[Row]:
    """Dimension against kernels."""
    for dim in (2, 5, 12, 30, 100, 1000):
        for kernel, latent in (
            *(("plain", 0), ("plain", 2), ("plain", 8)),
            *(("broadened", 0), ("broadened", 2)),
        ):
            if latent < dim:
                grid = [{"temperature": t} for t in ((0.1,) if dim > 100 else (0.1, 0.3))]
                yield from scores(Shape(dim, 100, 20, kernel, latent), grid)


PEAKS = 8


def peaks() -> Iterator[Row]:
    """Eight peaks on a circle, of one height, or from 1 down to .65: how many are kept."""
    angle = 2 * jnp.pi * jnp.arange(PEAKS) / PEAKS
    near = 0.5

    def kept(dim: int, population: int, num_levels: int, key: jax.Array, setting: Row) -> Row:
        key_init, key_run = jax.random.split(key)
        centres = jnp.pad(
            2 * jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1), ((0, 0), (0, dim - 2))
        )
        heights = 1 - setting["uneven"] * 0.05 * jnp.arange(PEAKS)

        def distances(x: jax.Array) -> jax.Array:
            return jnp.linalg.norm(x[:, None] - centres, axis=2)

        algorithm = de.presets.paper(
            de.schedules.cosine(num_levels),
            fitness_map=de.fitness.standardised(setting["temperature"]),
            eta=setting["eta"],
        )
        state = de.evolve(
            key_run,
            algorithm,
            lambda x: jnp.max(heights * jnp.exp(-(distances(1.5 * x) ** 2)), 1),
            jax.random.normal(key_init, (population, dim)),
        ).state
        inside = distances(1.5 * state.population) < near
        return {"peaks": jnp.sum(jnp.any(inside, 0)), "inside": jnp.mean(jnp.any(inside, 1))}

    grid = [
        {"uneven": uneven, "eta": eta, "temperature": t}
        for uneven in (0.0, 1.0)
        for eta in (0.0, 1.0)
        for t in (*TEMPERATURES, 3.0)
    ]
    shapes = [(2, 128, 25), (2, 32, 25), (2, 512, 25), (2, 128, 100), (5, 128, 25)]
    for dim, population, num_levels in shapes:
        arrays = {name: jnp.asarray([each[name] for each in grid]) for name in grid[0]}
        found = run_all(partial(kept, dim, population, num_levels), 2 * SEEDS, arrays)
        for i, setting in enumerate(grid):
            row = {"dim": dim, "population": population, "levels": num_levels, **setting}
            yield {**row, **{name: _mean(values[i]) for name, values in found.items()}}


TASKS = {"CartPole-v1": 500.0, "MountainCarContinuous-v0": 0.0}  # return from which on it succeeds


def control() -> Iterator[Row]:
    """The knobs of `presets.control`, each alone, at 2,560 episodes."""

    def run(task: str, shape: Row, key: jax.Array, setting: Row) -> Row:
        key_preset, key_run, key_new = jax.random.split(key, 3)
        ready = de.presets.control(key_preset, task, **shape, **setting)
        state, kept, _ = de.evolve(
            *(key_run, ready.algorithm, ready.problem, ready.population),
            keep=lambda info, aux: (info.fitness, aux["returns"]),
        )
        fitness, returns = jax.tree.map(lambda leaf: leaf[-1], kept)
        again = de.reevaluate(key_new, ready.problem, state.population[fitness.argmax()])
        return {
            "return": returns.mean(),
            "success": 100 * (returns >= TASKS[task]).mean(),
            "best return": again.mean(),
            "best success": 100 * (again >= TASKS[task]).mean(),
        }

    base = {"temperature": 0.1, "scale": 3.0}
    traced = [{**base, "scale": s} for s in (1.0, 3.0, 10.0)]
    traced += [{**base, "temperature": t} for t in (0.03, 0.3)]
    shapes = [{"population_size": n, "num_levels": 2560 // n} for n in (32, 64, 256)]
    shapes += [{"latent_dim": 8}]
    for task in TASKS:
        for shape, grid in [({}, traced), *((shape, [base]) for shape in shapes)]:
            arrays = {name: jnp.asarray([each[name] for each in grid]) for name in base}
            found = run_all(partial(run, task, shape), SEEDS, arrays)
            for i, setting in enumerate(grid):
                row = {"task": task, "population_size": 128, "num_levels": 20, "latent_dim": 2}
                values = {name: _mean(values[i]) for name, values in found.items()}
                yield {**row, **shape, **setting, **values}


# Of the check: the defaults with N(0, I) as it is, and what the page advises, one by one.
ADVICE = {
    "defaults": (0, {"scale": 1.0}),
    "and scale 2.5": (0, {}),
    "and 2 latent": (2, {}),
    "and temperature 0.03": (2, {"temperature": 0.03}),
}


def check() -> Iterator[Row]:
    """What the page advises against the defaults, on functions that nothing was chosen on."""
    for dim in (5, 20):
        for advice, (latent, setting) in ADVICE.items():
            shape = Shape(dim, 100, 20, latent=latent)
            for row in scores(shape, [setting], HELD_OUT, SEED + 1):
                yield {**row, "advice": advice}


PARTS = {each.__name__: each for each in (levels, scales, noise, kernels, peaks, control, check)}


def measure(names: list[str]) -> None:
    """Run parts, and write each into the JSON as it is finished."""
    for name in names:
        rows = []
        for row in PARTS[name]():
            rows.append(row)
            numbers = {key: value for key, value in row.items() if not isinstance(value, dict)}
            print(name, *numbers.values(), flush=True)
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
    return value if isinstance(value, str) else f"{value:,.5g}"


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
    budget = {"dim": "D", "latent": "latent", "evaluations": "evaluations"}
    kernels = [
        {**row, "kernel": row["kernel"] + (f", {row['latent']} latent" if row["latent"] else "")}
        for row in parts["kernels"]
    ]
    answers = [
        {**row, "cost": row[answer], "answer": name}
        for row in parts["noise"]
        for answer, name in (("best", "best seen"), ("last", "best of last"), ("mean", "mean"))
    ]
    noise = {"sigma": "noise", "levels": "T", "answer": "answer"}
    kept = {"uneven": "uneven", "eta": "eta"}
    sizes = {"dim": "D", "population": "N", "levels": "T"}
    made = {
        "levels": pivot(
            *(parts["levels"], {"dim": "D", "latent": "latent", "temperature": "temperature"}),
            "levels",
        ),
        "scale": pivot(parts["scales"], budget, "scale", eta=(1.0,)),
        "eta": pivot(parts["scales"], budget, "eta", scale=(2.5,)),
        "noise": pivot(answers, noise, "temperature", "cost", levels=(20,)),
        "noise and levels": pivot(answers, noise, "temperature", "cost", answer=("best of last",)),
        "kernels": pivot(kernels, {"dim": "D"}, "kernel", temperature=(0.1,)),
        "kernels, warmer": pivot(kernels, {"dim": "D"}, "kernel", temperature=(0.3,)),
        "sample size": pivot(
            *(kernels, {"dim": "D"}, "kernel", "sample_size", None), temperature=(0.1,)
        ),
    }
    here = {"population": (128,), "levels": (25,), "dim": (2,)}
    made["peaks"] = pivot(parts["peaks"], kept, "temperature", "peaks", max, **here)
    made["peaks inside"] = pivot(parts["peaks"], kept, "temperature", "inside", None, **here)
    sized = {"uneven": (0.0,), "eta": (1.0,)}
    made["peaks and size"] = pivot(parts["peaks"], sizes, "temperature", "peaks", max, **sized)
    base = {"population_size": 128, "latent_dim": 2, "scale": 3.0, "temperature": 0.1}
    shown = {"success": "best success", "return": "best return"}
    lines = ["| task | setting | its best: success, % | return |", "|---|---|---:|---:|"]
    for row in parts["control"]:
        changed = [f"{name} {row[name]:g}" for name in base if row[name] != base[name]]
        cells = [_cell(np.array(row[name]), False) for name in shown.values()]
        lines.append(
            f"| {row['task']} | {', '.join(changed) or 'the preset'} | {' | '.join(cells)} |"
        )
    made["control"] = "\n".join(lines)
    made["check"] = pivot(parts["check"], {"dim": "D"}, "advice")
    return made


def draw(rows: list[Row], path: Path) -> None:
    """Score against levels and temperature at 2,000 evaluations, a panel a problem."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from diffevo_jax.drawings.style import STYLE

    panels_of = {(2, 0): "D = 2", (12, 2): "D = 12, 2 latent"}
    levels = sorted({row["levels"] for row in rows})
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 2.9), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, space in zip(panels, panels_of, strict=True):
            score = np.array(
                [
                    [
                        next(
                            row["best"][0]
                            for row in rows
                            if (row["dim"], row["latent"]) == space
                            and (row["levels"], row["temperature"]) == (t, each)
                        )
                        for t in levels
                    ]
                    for each in TEMPERATURES
                ]
            )
            axes.imshow(score, cmap="viridis", aspect="auto", origin="lower")
            dark = score < (score.min() + score.max()) / 2
            for (i, j), value in np.ndenumerate(score):
                colour = "white" if dark[i, j] else "black"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, size=8)
            axes.set_xticks(range(len(levels)), [f"{2000 // t} x {t}" for t in levels], rotation=40)
            axes.set_yticks(range(len(TEMPERATURES)), [f"{each:g}" for each in TEMPERATURES])
            axes.set_title(panels_of[space], fontsize=11)
            axes.tick_params(labelsize=8, length=0)
            axes.spines[:].set_visible(False)
        panels[0].set_ylabel("temperature")
        figure.supxlabel("individuals x levels", fontsize=10)
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
    draw(found["levels"], PAGE.with_suffix(".png"))
