"""`minimize` beside pycma, scipy, evosax's DiffusionEvolution and random search.

    python experiments/benchmarks/minimize.py            # writes results/minimize-cpu.json
    python experiments/benchmarks/minimize.py --few      # writes results/minimize_few-cpu.json
    python experiments/benchmarks/minimize.py --valleys  # writes results/minimize_valleys-cpu.json
    python experiments/benchmarks/minimize.py --methods minimize    # keeps the others' rows

12-D functions, shifted and rotated, on [-5, 5], 2,000 evaluations; every seed has its own shift and
rotation, the same for all methods. Best cost: median and quartiles over seeds. The costs are also
told in another unit and with an offset; what is printed is always in the first unit. With --few:
30 to 500 evaluations of 2 to 12 parameters, beside what has a model, and the mean rank over
functions and seeds (`pip install optuna`). With
--valleys: Levy's and Ackley's functions in 8-D at 1,600; how many seeds are below 1e-6 and 0.01.
"""

import argparse
import itertools
import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import cma
import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import differential_evolution, dual_annealing
from scipy.stats import rankdata
from timing import device, print_row

import diffevo_jax as de

LIMIT = 5.0
FEW = [(n, genes) for genes in (2, 4, 6, 12) for n in (30, 60, 100, 200, 500)]
UNITS = {"as it is": (1.0, 0.0), "x 1e-6": (1e-6, 0.0), "x 1e6": (1e6, 0.0), "+ 1e4": (1.0, 1e4)}


def levy(z: np.ndarray) -> float:
    """Levy's function, its optimum at 0."""
    w = 1 + z / 4
    inner = (w[:-1] - 1) ** 2 @ (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2)
    last = (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2)
    return np.sin(np.pi * w[0]) ** 2 + inner + last


def ackley(z: np.ndarray) -> float:
    """Ackley's function."""
    waves = np.exp(np.mean(np.cos(2 * np.pi * z)))
    return -20 * np.expm1(-np.sqrt(np.mean(z**2)) / 5) + np.e - waves


FUNCTIONS = {
    "sphere": lambda z: z @ z,
    "ellipsoid 1e3": lambda z: np.logspace(0, 3, len(z)) @ z**2,
    "Rosenbrock": lambda z: np.sum(100 * (z[1:] + 1 - (z[:-1] + 1) ** 2) ** 2 + z[:-1] ** 2),
    "Rastrigin": lambda z: np.sum(z**2 - 10 * np.cos(2 * np.pi * z) + 10),
}
VALLEYS = {"Levy": levy, "Ackley": ackley}
Cost = Callable[[np.ndarray], float]


def instance(name: str, seed: int, genes: int, unit: tuple[float, float]) -> Cost:
    """One of the functions, with the shift and rotation of a seed."""
    random = np.random.default_rng([1, seed])
    rotation = np.linalg.qr(random.standard_normal((genes, genes)))[0]
    shift = random.uniform(-3, 3, genes)
    scale, offset = unit
    return lambda x: scale * float((FUNCTIONS | VALLEYS)[name](rotation @ (x - shift))) + offset


def minimize(cost: Cost, seed: int, evaluations: int, genes: int) -> None:
    """Run this library."""
    de.minimize(cost, [(-LIMIT, LIMIT)] * genes, evaluations=evaluations, seed=seed, jit=False)


def pycma(cost: Cost, seed: int, evaluations: int, genes: int) -> None:
    """Run pycma in the box with a fifth of it as step, restarted with twice the population."""
    random = np.random.RandomState(seed)
    size, left = 4 + int(3 * np.log(genes)), evaluations
    while left > 0:
        options = {"bounds": [-LIMIT, LIMIT], "popsize": size, "verbose": -9}
        options |= {"randn": random.randn, "seed": np.nan, "maxfevals": left}
        start = random.uniform(-LIMIT, LIMIT, genes)
        search = cma.CMAEvolutionStrategy(start, 0.4 * LIMIT, options)
        search.optimize(cost)
        size, left = 2 * size, left - search.countevals


def pycma_from_centre(cost: Cost, seed: int, evaluations: int, genes: int) -> None:
    """Run pycma in the box from its centre, with 0.3 of it as step; as far as it goes."""
    random = np.random.RandomState(seed)
    options = {"bounds": [-LIMIT, LIMIT], "verbose": -9, "maxfevals": evaluations}
    options |= {"randn": random.randn, "seed": np.nan}
    cma.CMAEvolutionStrategy(np.zeros(genes), 0.6 * LIMIT, options).optimize(cost)


class _Spent(Exception):
    """All evaluations are spent."""


def limited(cost: Cost, evaluations: int) -> Cost:
    """Let a function be called so many times; then it raises."""
    left = evaluations

    def counted(x: np.ndarray) -> float:
        nonlocal left
        if not left:
            raise _Spent
        left -= 1
        return cost(np.asarray(x))

    return counted


def lq_cma_es(cost: Cost, seed: int, evaluations: int, genes: int) -> None:
    """Run pycma's lq-CMA-ES as `pycma`, but from the centre of the box at first."""
    random, counted = np.random.RandomState(seed), limited(cost, evaluations)
    size, start = 4 + int(3 * np.log(genes)), np.zeros(genes)
    with suppress(_Spent):
        while True:
            options: dict = {"bounds": [-LIMIT, LIMIT], "popsize": size, "verbose": -9}
            options |= {"randn": random.randn, "seed": np.nan, "verb_log": 0}
            cma.fmin_lq_surr(counted, start, 0.4 * LIMIT, options)
            size, start = 2 * size, random.uniform(-LIMIT, LIMIT, genes)


def annealing(cost: Cost, seed: int, evaluations: int, genes: int) -> None:
    """Run scipy's dual_annealing, with its L-BFGS-B."""
    bounds = [(-LIMIT, LIMIT)] * genes
    with suppress(_Spent):
        dual_annealing(limited(cost, evaluations), bounds, maxfun=evaluations, rng=seed)


def tpe(cost: Cost, seed: int, evaluations: int, genes: int) -> None:
    """Run Optuna's TPE, with its defaults."""
    optuna: Any = import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))

    def objective(trial: Any) -> float:
        x = [trial.suggest_float(f"x{place}", -LIMIT, LIMIT) for place in range(genes)]
        return cost(np.array(x))

    study.optimize(objective, evaluations)


def scipy(cost: Cost, seed: int, evaluations: int, genes: int) -> None:
    """Run scipy's differential_evolution, without its polish."""
    bounds = [(-LIMIT, LIMIT)] * genes
    levels = evaluations // (4 * genes) - 1
    differential_evolution(cost, bounds, popsize=4, maxiter=levels, polish=False, tol=0, rng=seed)


@cache
def evosax_steps(size: int, levels: int, genes: int):
    """Compile evosax's DiffusionEvolution."""
    from evosax.algorithms import DiffusionEvolution

    search = DiffusionEvolution(size, jnp.zeros(genes), num_generations=levels)
    return search, search.default_params


def evosax(cost: Cost, seed: int, evaluations: int, genes: int) -> None:
    """Run evosax's DiffusionEvolution with its defaults, points 2.5 times the genome."""
    size, levels = 50, evaluations // 50
    search, params = evosax_steps(size, levels, genes)
    key, key_draw, key_init = jax.random.split(jax.random.key(seed), 3)
    population = jax.random.normal(key_draw, (size, genes))

    def costs(population: jax.Array) -> jax.Array:
        points = np.clip(2.5 * np.asarray(population, float), -LIMIT, LIMIT)
        return jnp.array([cost(point) for point in points])

    state = search.init(key_init, population, costs(population), params)
    for _ in range(levels - 1):
        key, key_ask, key_tell = jax.random.split(key, 3)
        population, state = search.ask(key_ask, state, params)
        state, _ = search.tell(key_tell, population, costs(population), state, params)


def random_search(cost: Cost, seed: int, evaluations: int, genes: int) -> None:
    """Draw all points evenly."""
    for point in np.random.default_rng(seed).uniform(-LIMIT, LIMIT, (evaluations, genes)):
        cost(point)


METHODS = {
    "minimize": minimize,
    "pycma": pycma,
    "scipy differential_evolution": scipy,
    "evosax DiffusionEvolution": evosax,
    "random search": random_search,
    "pycma from the centre": pycma_from_centre,
    "lq-CMA-ES": lq_cma_es,
    "TPE": tpe,
    "scipy dual_annealing": annealing,
}
OF_FEW = ["minimize", "lq-CMA-ES", "pycma from the centre", "scipy dual_annealing"]
OF_FEW += ["random search", "TPE"]


def best_cost(
    method: str, name: str, seed: int, evaluations: int, genes: int, unit: tuple[float, float]
) -> float:
    """The lowest of the first costs of a run, in the first unit."""
    cost, seen = instance(name, seed, genes, unit), []

    def recorded(x: np.ndarray) -> float:
        seen.append(cost(np.asarray(x)))
        return seen[-1]

    METHODS[method](recorded, seed, evaluations, genes)
    return (min(seen[:evaluations]) - unit[1]) / unit[0]


def ranks(rows: list[dict]) -> list[dict]:
    """Rank the methods of each cell, 1 for the best: mean and standard error over all runs."""
    tables: dict[tuple, dict[str, list[float]]] = {}
    for row in rows:
        table = tables.setdefault((row["genes"], row["evaluations"]), {})
        table.setdefault(row["method"], []).extend(row["costs"])
    found = []
    for (genes, evaluations), table in tables.items():
        most = max(map(len, table.values()))  # a method that is still running has fewer
        table = {method: costs for method, costs in table.items() if len(costs) == most}
        order = rankdata(list(table.values()), axis=0)
        means, errors = order.mean(axis=1), order.std(axis=1, ddof=1) / order.shape[1] ** 0.5
        row: dict = {"genes": genes, "evaluations": evaluations}
        for method, mean, error in zip(table, means, errors, strict=True):
            row[method] = [round(float(mean), 2), round(float(error), 2)]
        found.append(row)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])  # pyright: ignore
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--units", nargs="*", default=list(UNITS), choices=list(UNITS))
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--valleys", action="store_true")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    few, valleys = arguments.few, arguments.valleys
    methods, units, cells, part = list(METHODS)[:5], arguments.units, [(2000, 12)], "minimize"
    if few:
        methods, cells, part = OF_FEW, FEW, part + "_few"
    if valleys:
        methods, cells = ["minimize", "pycma", "pycma from the centre"], [(1600, 8)]
        part += "_valleys"
    if few or valleys:
        units = ["as it is"]
    out = arguments.out or Path(__file__).parent / "results" / f"{part}-cpu.json"
    names = "cost", "method", "function", "seeds", "genes", "evaluations"

    def case(row: dict) -> tuple:
        """What a row is the result of."""
        return tuple(row.get(name) for name in names)

    stored = json.loads(out.read_text())["rows"] if out.exists() else []
    stored = {case(row): row for row in stored if row["method"] not in arguments.methods}
    rows = []
    for unit, method, (evaluations, genes), name in itertools.product(
        units,
        methods,
        cells,
        VALLEYS if valleys else FUNCTIONS,
    ):
        row = {"cost": unit, "method": method, "function": name, "seeds": arguments.seeds}
        row |= {"genes": genes, "evaluations": evaluations} if few or valleys else {}
        if case(row) in stored:
            rows.append(stored[case(row)])
            continue
        costs = [
            best_cost(method, name, seed, evaluations, genes, UNITS[unit])
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        ]
        low, median, high = map(float, np.percentile(costs, [25, 50, 75]))
        row |= {"mean": float(np.mean(costs)), "costs": costs} if few else {}
        if valleys:
            row |= {f"below {cost:g}": int(np.sum(np.array(costs) < cost)) for cost in (1e-6, 0.01)}
        rows.append(row | {"median": median, "quartile_1": low, "quartile_3": high})
        print_row({name: value for name, value in rows[-1].items() if name != "costs"})
        # What is stored for later rows stays, so that a run that is stopped loses nothing.
        done = set(map(case, rows))
        results = device() | {"rows": rows + [stored[key] for key in stored if key not in done]}
        results |= {"ranks": ranks(rows)} if few else {}
        out.write_text(json.dumps(results, indent=2) + "\n")
    if few:
        for row in ranks(rows):
            print_row(row)
