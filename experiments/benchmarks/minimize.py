"""`minimize` beside pycma, scipy, evosax's DiffusionEvolution and random search.

    python experiments/benchmarks/minimize.py            # writes results/minimize-cpu.json

12-D functions, shifted and rotated, on [-5, 5], 2,000 evaluations; every seed has its own shift and
rotation, the same for all methods. Best cost: median and quartiles over seeds. The costs are also
told in another unit and with an offset; what is printed is always in the first unit.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cma
import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import differential_evolution
from timing import device, print_row

import diffevo_jax as de

GENES, LIMIT, EVALUATIONS = 12, 5.0, 2000
UNITS = {"as it is": (1.0, 0.0), "x 1e-6": (1e-6, 0.0), "x 1e6": (1e6, 0.0), "+ 1e4": (1.0, 1e4)}
FUNCTIONS = {
    "sphere": lambda z: z @ z,
    "ellipsoid 1e3": lambda z: np.logspace(0, 3, GENES) @ z**2,
    "Rosenbrock": lambda z: np.sum(100 * (z[1:] + 1 - (z[:-1] + 1) ** 2) ** 2 + z[:-1] ** 2),
    "Rastrigin": lambda z: np.sum(z**2 - 10 * np.cos(2 * np.pi * z) + 10),
}
Cost = Callable[[np.ndarray], float]


def instance(name: str, seed: int, unit: tuple[float, float]) -> Cost:
    """One of the functions, with the shift and rotation of a seed."""
    random = np.random.default_rng([1, seed])
    rotation = np.linalg.qr(random.standard_normal((GENES, GENES)))[0]
    shift = random.uniform(-3, 3, GENES)
    scale, offset = unit
    return lambda x: scale * float(FUNCTIONS[name](rotation @ (x - shift))) + offset


def minimize(cost: Cost, seed: int) -> None:
    """Run this library."""
    de.minimize(cost, [(-LIMIT, LIMIT)] * GENES, evaluations=EVALUATIONS, seed=seed, workers=1)


def pycma(cost: Cost, seed: int) -> None:
    """Run pycma in the box with a fifth of it as step, restarted with twice the population."""
    random = np.random.RandomState(seed)
    size, left = 4 + int(3 * np.log(GENES)), EVALUATIONS
    while left > 0:
        options = {"bounds": [-LIMIT, LIMIT], "popsize": size, "verbose": -9}
        options |= {"randn": random.randn, "seed": np.nan, "maxfevals": left}
        start = random.uniform(-LIMIT, LIMIT, GENES)
        search = cma.CMAEvolutionStrategy(start, 0.4 * LIMIT, options)
        search.optimize(cost)
        size, left = 2 * size, left - search.countevals


def scipy(cost: Cost, seed: int) -> None:
    """Run scipy's differential_evolution, without its polish."""
    bounds = [(-LIMIT, LIMIT)] * GENES
    levels = EVALUATIONS // (4 * GENES) - 1
    differential_evolution(cost, bounds, popsize=4, maxiter=levels, polish=False, tol=0, rng=seed)


@cache
def evosax_steps(size: int, levels: int):
    """Compile evosax's DiffusionEvolution."""
    from evosax.algorithms import DiffusionEvolution

    search = DiffusionEvolution(size, jnp.zeros(GENES), num_generations=levels)
    return search, search.default_params


def evosax(cost: Cost, seed: int) -> None:
    """Run evosax's DiffusionEvolution with its defaults, points 2.5 times the genome."""
    size, levels = 50, EVALUATIONS // 50
    search, params = evosax_steps(size, levels)
    key, key_draw, key_init = jax.random.split(jax.random.key(seed), 3)
    population = jax.random.normal(key_draw, (size, GENES))

    def costs(population: jax.Array) -> jax.Array:
        points = np.clip(2.5 * np.asarray(population, float), -LIMIT, LIMIT)
        return jnp.array([cost(point) for point in points])

    state = search.init(key_init, population, costs(population), params)
    for _ in range(levels - 1):
        key, key_ask, key_tell = jax.random.split(key, 3)
        population, state = search.ask(key_ask, state, params)
        state, _ = search.tell(key_tell, population, costs(population), state, params)


def random_search(cost: Cost, seed: int) -> None:
    """Draw all points evenly."""
    for point in np.random.default_rng(seed).uniform(-LIMIT, LIMIT, (EVALUATIONS, GENES)):
        cost(point)


METHODS = {
    "minimize": minimize,
    "pycma": pycma,
    "scipy differential_evolution": scipy,
    "evosax DiffusionEvolution": evosax,
    "random search": random_search,
}


def best_cost(method: str, name: str, seed: int, unit: tuple[float, float]) -> float:
    """The lowest of the first EVALUATIONS costs of a run, in the first unit."""
    cost, seen = instance(name, seed, unit), []

    def recorded(x: np.ndarray) -> float:
        seen.append(cost(np.asarray(x)))
        return seen[-1]

    METHODS[method](recorded, seed)
    return (min(seen[:EVALUATIONS]) - unit[1]) / unit[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])  # pyright: ignore
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--units", nargs="*", default=list(UNITS), choices=list(UNITS))
    parser.add_argument("--out", default=Path(__file__).parent / "results" / "minimize-cpu.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    rows = []
    for unit in arguments.units:
        for method in METHODS:
            for name in FUNCTIONS:
                costs = [best_cost(method, name, s, UNITS[unit]) for s in range(arguments.seeds)]
                low, median, high = map(float, np.percentile(costs, [25, 50, 75]))
                row = {"cost": unit, "method": method, "function": name, "seeds": len(costs)}
                rows.append(row | {"median": median, "quartile_1": low, "quartile_3": high})
                print_row(rows[-1])
    Path(arguments.out).write_text(json.dumps(device() | {"rows": rows}, indent=2) + "\n")
