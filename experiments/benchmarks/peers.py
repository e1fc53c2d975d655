"""Peers of Diffusion Evolution: settings chosen by measurement, held against evosax's own.

    python experiments/benchmarks/peers.py                  # what is missing, on two cores
    python experiments/benchmarks/peers.py --only check     # one part
    python experiments/benchmarks/peers.py --large          # and CMA-ES at D = 1,000, for an hour

choose: every setting of a grid, on four functions at D = 100 and 1,000 (100 x 100 evaluations) and
on Pendulum-v1 (41 genes, 128 x 200). The best for functions has the best mean rank at both D.
finalists: each strategy's eight best on Pendulum, and evosax's defaults, over other seeds, on
Pendulum and a car; the best mean rank is the best for control, unless evosax's do as well in the
check. Both make `evosax.TUNED`. check: these on fresh seeds, and on four functions that nothing was
chosen on, beside evosax's defaults, `baselines.pepg`, and Diffusion Evolution with the settings of
docs/settings.md and `presets.control`. budgets: all eight functions with 10^4 and 10^5 evaluations.

A function's score is log10(best cost / best of as many uniform points), as in settings.py: -1 is
ten times lower. A task's is the mean return of the last generation's best over 100 fresh episodes.
Mean and standard error over seeds, into results/peers-cpu.json; rows that it has are kept.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from diffevo_jax.runs.run import startup

if __name__ == "__main__":
    startup.use_all_cores()

import jax
import jax.numpy as jnp
import numpy as np
import optax
from evosax.algorithms import SNES, Sep_CMA_ES
from evosax.core.optimizer import clipup
from settings import BOX, CHOSEN, HELD_OUT, instance, random_costs, run_all

import diffevo_jax as de

Row = dict[str, Any]
Make = Callable[[Row, Row], de.Algorithm]  # of numbers, which may be traced, and sizes

RESULTS = Path(__file__).parent / "results" / "peers-cpu.json"
SEED, SEEDS, TASK_SEEDS = 71, 2, 6  # of the choice
AGAIN, FINALISTS, FINAL_SEEDS = 74, 8, 16  # of its second round
FRESH, CHECKED, TASK_CHECKED = 72, 6, 20  # of the check
BUDGETS, BUDGET_SEEDS = (10_000, 100_000), 4
SCALE, DIMS = 2.5, (100, 1000)
FUNCTIONS = {"population_size": 100, "num_generations": 100}
TASK = {"population_size": 128, "num_generations": 200}

# What is tried

TASKS = ("Pendulum-v1", "MountainCarContinuous-v0")
# evosax's defaults are among the finalists, where the grid has them.
DEFAULTS = {"rate": 1.0, "sigma": 1.0, "lr_std": 1.0, "speed": 0.0}
OPTIMIZERS: dict[str, Callable] = {
    "adam": optax.adam,
    "clipup": lambda rate: clipup(rate, max_velocity=2 * rate),
    "sgd": optax.sgd,
}
SIGMAS = (0.1, 0.3, 1.0)
TRIED: dict[str, dict[str, tuple]] = {
    "Open_ES, adam": {
        "rate": (0.01, 0.03, 0.1, 0.3),
        "sigma": (0.03, 0.1, 0.3),
        "decay": (1.0, 0.1, 0.01),
    },
    "Open_ES, clipup": {
        "rate": (0.03, 0.1, 0.3, 1.0),
        "sigma": (0.03, 0.1, 0.3),
        "decay": (1.0, 0.1),
    },
    "PGPE, adam": {
        "rate": (0.03, 0.1, 0.3),
        "sigma": SIGMAS,
        "decay": (1.0, 0.1),
        "std_lr": (0.1, 0.3),
    },
    "PGPE, clipup": {
        "rate": (0.1, 0.3),
        "sigma": SIGMAS,
        "decay": (1.0, 0.1),
        "std_lr": (0.1, 0.3),
    },
    "SNES, sgd": {"rate": (1.0, 2.0), "sigma": SIGMAS, "lr_std": (0.5, 1.0, 2.0, 4.0)},
    "Sep_CMA_ES": {"sigma": (0.1, 0.3, 0.6, 1.0), "speed": (0.0, 1.0)},
    "CMA_ES": {"sigma": (0.1, 0.3, 0.6, 1.0)},
    "pepg": {"sigma": SIGMAS, "sigma_decay": (1.0, 0.1, 0.01), "elite_share": (0.1, 0.4)},
}


def make(tried: str, numbers: Row, sizes: Row) -> de.Algorithm:
    """Configure one setting of a grid.

    decay: of the learning rate, and of OpenES's sigma. lr_std: times the paper's. speed: the power
    of (D + 2) / 3 by which Sep-CMA-ES learns variances faster than CMA-ES learns C.
    """
    name, _, optimizer = tried.partition(", ")
    if name == "pepg":
        return de.baselines.pepg(**sizes, **numbers)
    settings: Row = {"sigma": numbers["sigma"]}
    params: Row = {key: numbers[key] for key in ("std_lr",) if key in numbers}
    if optimizer:
        settings["optimizer"] = OPTIMIZERS[optimizer](numbers["rate"])
    if "decay" in numbers:
        settings["learning_rate_decay"] = numbers["decay"]
        if name == "Open_ES":
            settings["sigma_decay"] = numbers["decay"]
    solution = jnp.zeros(sizes["num_genes"])
    if "lr_std" in numbers:
        defaults = SNES(sizes["population_size"], solution).default_params
        params["lr_std_init"] = numbers["lr_std"] * defaults.lr_std_init
    if "speed" in numbers:
        defaults = Sep_CMA_ES(sizes["population_size"], solution).default_params
        faster = ((sizes["num_genes"] + 2) / 3) ** numbers["speed"]
        params["c_1"] = jnp.minimum(1, faster * defaults.c_1)
        params["c_mu"] = jnp.minimum(1 - params["c_1"], faster * defaults.c_mu)
    return de.evosax.strategy(name, **sizes, **settings, params=params)


# What is measured


def search(functions: Any, dim: int, made: Make, sizes: Row, key: jax.Array, setting: Row):
    """The best cost of one run, on the instance of settings.py."""
    key_instance, key_init, key_run = (jax.random.fold_in(key, i) for i in (0, 1, 4))
    numbers = dict(setting)
    cost = instance(functions, dim, key_instance, numbers.pop("function"))
    evolved = de.evolve(
        *(key_run, made(numbers, sizes | {"num_genes": dim})),
        lambda genomes: -cost(SCALE * genomes),
        jax.random.normal(key_init, (sizes["population_size"], dim)),
        repair=lambda genomes: jnp.clip(genomes, -BOX / SCALE, BOX / SCALE),
        keep=lambda info: (),
    )
    return -evolved.best.fitness


def control(task: str, made: Make | None, key: jax.Array, numbers: Row) -> jax.Array:
    """Mean return of the last generation's best, rolled out anew; None is the preset's own."""
    key_preset, key_run, key_new = jax.random.split(key, 3)
    size, levels = TASK.values()
    ready = de.presets.control(key_preset, task, population_size=size, num_levels=levels)
    sizes = TASK | {"num_genes": ready.policy.num_genes}
    algorithm = made(numbers, sizes) if made else ready.algorithm
    state, fitness, _ = de.evolve(
        *(key_run, algorithm, ready.problem, ready.population),
        keep=lambda info, aux: info.fitness,
    )
    best = state.population[fitness[-1].argmax()]
    return jnp.mean(de.reevaluate(key_new, ready.problem, best))


def scores(
    made: Make,
    dim: int,
    functions: Any,
    settings: list[Row],
    seed: int,
    seeds: int,
    sizes: Row = FUNCTIONS,
):
    """Each setting's score by seed and function, `[G, F, S]`."""
    each = [setting | {"function": i} for setting in settings for i in range(len(functions))]
    arrays = {name: jnp.asarray([row[name] for row in each]) for name in each[0]}
    costs = run_all(partial(search, functions, dim, made, sizes), seeds, arrays, seed)
    evaluations = sizes["population_size"] * sizes["num_generations"]
    against = random_costs(tuple(functions), dim, evaluations, seed, seeds)
    costs = np.where(np.isfinite(costs), np.clip(costs, 1e-9, 1e30), 1e30)
    return np.log10(costs.reshape(len(settings), len(functions), seeds) / against)


def returns(task: str, made: Make | None, settings: list[Row], seed: int, seeds: int) -> np.ndarray:
    """Each setting's return by seed, `[G, S]`."""
    arrays = {name: jnp.asarray([row[name] for row in settings]) for name in settings[0]}
    return run_all(partial(control, task, made), seeds, arrays, seed)


def mean(values: np.ndarray) -> list[float]:
    """Mean and standard error over seeds, the last axis; over functions first."""
    values = values.reshape(-1, values.shape[-1]).mean(0)
    error = values.std(ddof=1) / len(values) ** 0.5
    return [float(f"{number:.4g}") for number in (values.mean(), error)]


# The parts


def choose(tried: str) -> list[Row]:
    """All settings of a grid."""
    axes, made = TRIED[tried], partial(make, tried)
    settings = [dict(zip(axes, each, strict=True)) for each in itertools.product(*axes.values())]
    rows = [{"method": tried, **setting} for setting in settings]
    for dim in DIMS[: 1 if tried == "CMA_ES" else 2]:
        found = scores(made, dim, CHOSEN, settings, SEED, SEEDS)
        rows = [row | {f"D = {dim}": mean(each)} for row, each in zip(rows, found, strict=True)]
    found = returns("Pendulum-v1", made, settings, SEED, TASK_SEEDS)
    return [row | {"Pendulum-v1": mean(each)} for row, each in zip(rows, found, strict=True)]


def best(rows: list[Row], measures: tuple[str, ...]) -> Row:
    """The row with the best mean rank; lower costs are better, higher returns."""
    sign = {name: 1 if name.startswith("D =") else -1 for name in measures}
    ordered = [
        sorted(rows, key=lambda row, name=name: sign[name] * row[name][0])
        for name in measures
        if name in rows[0]
    ]
    return min(rows, key=lambda row: sum(each.index(row) for each in ordered))


def finalists(tried: str, chosen: list[Row]) -> list[Row]:
    """Those of a grid that are among their strategy's best on Pendulum, and evosax's defaults."""
    name, axes = tried.partition(", ")[0], TRIED[tried]
    rows = [row for row in chosen if row["method"].partition(", ")[0] == name]
    rows = sorted(rows, key=lambda row: -row["Pendulum-v1"][0])
    default = [row for row in rows if all(row[axis] == DEFAULTS.get(axis) for axis in axes)]
    rows = rows[:FINALISTS] + [row for row in default if row not in rows[:FINALISTS]]
    settings = [{axis: row[axis] for axis in axes} for row in rows if row["method"] == tried]
    rows = [{"method": tried, **setting} for setting in settings]
    for task in TASKS if rows else ():
        found = returns(task, partial(make, tried), settings, AGAIN, FINAL_SEEDS)
        rows = [row | {task: mean(each)} for row, each in zip(rows, found, strict=True)]
    return rows


def compared(method: str, use: str) -> Make:
    """Configure a method of the check."""
    name, _, settings = method.partition(", ")

    def made(numbers: Row, sizes: Row) -> de.Algorithm:
        if name == "pepg":
            return de.baselines.pepg(**sizes, sigma_decay=0.1 if settings else 0.01)
        if name == "Diffusion Evolution":
            return de.diffusion_evolution(sizes["num_generations"])
        tuned: Any = use if settings == "tuned" else None
        return de.evosax.strategy(name, **sizes, tuned=tuned)

    return made


COMPARED = [f"{name}, {of}" for name in de.evosax.TUNED for of in ("evosax", "tuned")]
COMPARED += ["pepg", "pepg, sigma_decay 0.1", "Diffusion Evolution"]
LONG = [each for each in COMPARED if not each.endswith("evosax") and not each.startswith("CMA")]


def check(method: str, *, large: bool) -> list[Row]:
    """One method on fresh seeds, functions and tasks."""
    row: Row = {"method": method}
    for dim in DIMS:
        if dim == DIMS[0] or large or not method.startswith("CMA_ES"):
            both = scores(
                *(compared(method, "function"), dim, CHOSEN | HELD_OUT, [{}], FRESH, CHECKED)
            )[0]
            row[f"D = {dim}"] = mean(both[: len(CHOSEN)])
            row[f"D = {dim}, held out"] = mean(both[len(CHOSEN) :])
    for task in TASKS:
        made = None if method == "Diffusion Evolution" else compared(method, "control")
        row[task] = mean(returns(task, made, [{"no number": 0}], FRESH, TASK_CHECKED))
    return [row]


def budgets(method: str) -> list[Row]:
    """One method with 10^4 and 10^5 evaluations; Diffusion Evolution has its own sizes for them."""
    row: Row = {"method": method}
    for dim, evaluations in itertools.product(DIMS, BUDGETS):
        size, generations = FUNCTIONS["population_size"], evaluations // 100
        if method == "Diffusion Evolution":
            size, generations = de.presets.sizes(evaluations, dim)
        found = scores(
            *(compared(method, "function"), dim, CHOSEN | HELD_OUT, [{}], FRESH, BUDGET_SEEDS),
            sizes={"population_size": size, "num_generations": generations},
        )
        row[f"D = {dim}, {evaluations}"] = mean(found[0])
    return [row]


def measure(only: str | None, *, large: bool) -> None:
    """Run what the JSON lacks, and write each method's rows as they are finished."""
    parts: dict[str, list[Row]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    run = {
        "choose": (TRIED, choose),
        "finalists": (TRIED, lambda tried: finalists(tried, parts["choose"])),
        "check": (COMPARED, partial(check, large=large)),
        "budgets": (LONG, budgets),
    }
    for part, (methods, measured) in run.items():
        for method in methods if only in (None, part) else ():
            old = [row for row in parts.get(part, []) if row["method"] == method]
            if old and not (part == "check" and large and "D = 1000" not in old[0]):
                continue
            rows = measured(method)
            parts[part] = [row for row in parts.get(part, []) if row not in old] + rows
            RESULTS.write_text(json.dumps(parts).replace('{"', '\n{"') + "\n")
            print(*rows[-FINALISTS:], sep="\n", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=("choose", "finalists", "check", "budgets"))
    parser.add_argument("--large", action="store_true")
    arguments = parser.parse_args()
    measure(arguments.only, large=arguments.large)
