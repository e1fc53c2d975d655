"""`minimize` beside pycma with restarts on BBOB: 24 functions, 5-D and 20-D, 100 D and 1000 D.

    python experiments/benchmarks/bbob.py            # writes results/bbob-cpu.json
    python experiments/benchmarks/bbob.py --few      # writes results/bbob_few-cpu.json

The functions are bbobax's, in float64; a seed is an instance. Each run is scored by the area under
its ECDF: the share of 51 targets, f - f_opt from 1e2 down to 1e-8, even in the logarithm, that are
reached, averaged over the logarithm of evaluations from 1 to the budget. With --few: 10, 50 and 100
evaluations a parameter, beside pycma's lq-CMA-ES, which has a model of the cost.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import bbobax
import cma
import jax
import numpy as np
from minimize import lq_cma_es as lq
from timing import device, print_row

import diffevo_jax as de

LIMIT = 5.0
TARGETS = np.logspace(2, -8, 51)
Cost = Callable[[np.ndarray], np.ndarray]


@cache
def compiled(name: str, num_genes: int) -> Callable:
    """Evaluate a batch of one function, given an instance's parameters."""
    problem = bbobax.BBOB_PROBLEMS[name](num_dims=num_genes)

    def costs(points, params):
        return jax.vmap(lambda x: problem.evaluate(params.key, x, params).fitness)(points)

    return jax.jit(costs)


@cache
def instance(name: str, num_genes: int, seed: int) -> Cost:
    """One instance of a function: points `[N, D]` -> f - f_opt `[N]`, in float64."""
    problem = bbobax.BBOB_PROBLEMS[name](num_dims=num_genes)
    with jax.enable_x64(True):
        params = jax.jit(problem.sample)(jax.random.key(seed))

    def cost(points: np.ndarray) -> np.ndarray:
        size = 1 << (len(points) - 1).bit_length()  # few sizes, few compilations
        padded = np.resize(points, (size, num_genes))
        with jax.enable_x64(True):
            return np.asarray(compiled(name, num_genes)(padded, params))[: len(points)]

    return cost


def minimize(cost: Cost, num_genes: int, evaluations: int, seed: int) -> None:
    """Run this library."""
    bounds = [(-LIMIT, LIMIT)] * num_genes
    de.minimize(cost, bounds, evaluations=evaluations, seed=seed, jit=False, batched=True)


def pycma(cost: Cost, num_genes: int, evaluations: int, seed: int) -> None:
    """Run pycma in the box with a fifth of it as step, restarted with twice the population."""
    random = np.random.RandomState(seed)
    size, left = 4 + int(3 * np.log(num_genes)), evaluations
    while left > 0:
        options = {"bounds": [-LIMIT, LIMIT], "popsize": size, "verbose": -9}
        options |= {"randn": random.randn, "seed": np.nan}
        start = random.uniform(-LIMIT, LIMIT, num_genes)
        search = cma.CMAEvolutionStrategy(start, 0.4 * LIMIT, options)
        while not search.stop() and left > 0:
            asked = search.ask()
            search.tell(asked, cost(np.array(asked)))
            left -= size
        size *= 2


def lq_cma_es(cost: Cost, num_genes: int, evaluations: int, seed: int) -> None:
    """Run pycma's lq-CMA-ES, from the centre of the box at first."""
    lq(lambda x: float(cost(np.asarray(x)[None])[0]), seed, evaluations, num_genes)


METHODS = {"minimize": minimize, "pycma": pycma, "lq-CMA-ES": lq_cma_es}


def area(history: np.ndarray, evaluations: int) -> float:
    """Area under the ECDF of one run, of costs in the order of their evaluation, `[M]`."""
    best = np.minimum.accumulate(history[:evaluations])
    first = np.array([np.argmax(best <= t) + 1 if best[-1] <= t else np.inf for t in TARGETS])
    return float(np.mean(np.maximum(0, 1 - np.log(first) / np.log(evaluations))))


def run(method: str, name: str, num_genes: int, evaluations: int, seed: int) -> float:
    """Score one run."""
    cost, seen = instance(name, num_genes, seed), []

    def recorded(points: np.ndarray) -> np.ndarray:
        seen.append(cost(np.asarray(points)))
        return seen[-1]

    METHODS[method](recorded, num_genes, evaluations, seed)
    return area(np.concatenate(seen), evaluations)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])  # pyright: ignore
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--genes", type=int, nargs="*", default=[5, 20])
    parser.add_argument("--budgets", type=int, nargs="*", help="times D")
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--functions", nargs="*", default=list(bbobax.BBOB_PROBLEMS))
    parser.add_argument("--methods", nargs="*", choices=list(METHODS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    part = "bbob_few" if arguments.few else "bbob"
    out = arguments.out or Path(__file__).parent / "results" / f"{part}-cpu.json"
    methods = arguments.methods or list(METHODS)[: 3 if arguments.few else 2]
    budgets = arguments.budgets or ([10, 50, 100] if arguments.few else [100, 1000])
    warnings.simplefilter("ignore", UserWarning)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    rows = []
    for num_genes in arguments.genes:
        for budget in budgets:
            evaluations = budget * num_genes
            settings = {"genes": num_genes, "evaluations": evaluations}
            means: dict[str, list[float]] = {}
            for name in arguments.functions:
                for method in methods:
                    areas = [run(method, name, num_genes, evaluations, seed) for seed in seeds]
                    row = settings | {"function": name, "method": method, "seeds": len(areas)}
                    row |= {"area": float(np.mean(areas))}
                    row |= {"error": float(np.std(areas, ddof=1) / len(areas) ** 0.5)}
                    means.setdefault(method, []).append(row["area"])
                    rows.append(row)
                    print_row(row)
            total = {method: float(np.mean(areas)) for method, areas in means.items()}
            rows.append(settings | {"function": "all"} | total)
            print_row(rows[-1])
    out.write_text(json.dumps(device() | {"rows": rows}, indent=2) + "\n")
