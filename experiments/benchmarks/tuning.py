"""Costly functions of numbers, whole numbers and categories: `minimize` beside its peers.

    python experiments/benchmarks/tuning.py
    python experiments/benchmarks/tuning.py --mixed

The first tunes PCA and a support vector machine on digits: 5 parameters, one of them a category,
and a constraint that is known beforehand and costs nothing; 20 and 60 evaluations. The second has
six functions of 8 to 20 parameters, at 100 and 500 evaluations. Optuna and Nevergrad are wanted:
`pip install optuna nevergrad`.
"""

import argparse
import json
import os
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

import diffevo_jax as de

RESULTS = Path(__file__).parent / "results"
KERNELS = ["linear", "poly", "rbf", "sigmoid"]
BUDGETS = (20, 60)
MIXED_BUDGETS = (100, 500)

# Tuning.


def machine() -> Callable[[dict[str, Any]], float]:
    """Make the cost: the share of 900 digits that is classified wrongly, in three folds."""
    images, labels = load_digits(return_X_y=True)
    images, labels = images[:900] / 16, labels[:900]
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(images, labels))

    def cost(p: dict[str, Any]) -> float:
        machine = SVC(
            C=p["C"], kernel=p["kernel"], gamma=p["gamma"], degree=p["degree"], max_iter=20_000
        )
        model = make_pipeline(PCA(p["components"], random_state=0), machine)
        return 1 - float(cross_val_score(model, images, labels, cv=folds).mean())

    return cost


def size(p: dict[str, Any]) -> float:
    """Return by how much a machine is larger than allowed."""
    return p["components"] * (p["degree"] if p["kernel"] == "poly" else 1) - 60


def by_minimize(cost: Callable, evaluations: int, seed: int, kernels: list[str]) -> np.ndarray:
    """Run `minimize`."""
    bounds = {
        "components": range(2, 65),
        "kernel": kernels,
        "C": (1e-2, 1e3),
        "gamma": (1e-5, 10.0),
        "degree": range(2, 6),
    }
    settings: Any = {"log": ["C", "gamma"], "constraints": [size], "seed": seed}
    return de.minimize(cost, bounds, evaluations=evaluations, **settings).costs


def by_optuna(
    cost: Callable, evaluations: int, seed: int, kernels: list[str], sampler: str
) -> np.ndarray:
    """Trials that break the constraint are pruned, and not counted."""
    optuna: Any = import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = optuna.samplers
    constraints: Any = {"constraints_func": lambda trial: (trial.user_attrs["size"],)}
    made = {
        "TPE": lambda: samplers.TPESampler(seed=seed, multivariate=True, **constraints),
        "TPE, univariate": lambda: samplers.TPESampler(
            seed=seed, multivariate=False, **constraints
        ),
        "random": lambda: samplers.RandomSampler(seed=seed),
    }[sampler]()
    study, costs = optuna.create_study(sampler=made), []
    while len(costs) < evaluations:
        trial = study.ask()
        p = {
            "components": trial.suggest_int("components", 2, 64),
            "kernel": trial.suggest_categorical("kernel", kernels),
            "C": trial.suggest_float("C", 1e-2, 1e3, log=True),
            "gamma": trial.suggest_float("gamma", 1e-5, 10.0, log=True),
            "degree": trial.suggest_int("degree", 2, 5),
        }
        trial.set_user_attr("size", size(p))
        if size(p) > 0:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        costs.append(cost(p))
        study.tell(trial, costs[-1])
    return np.array(costs)


def tuning(first: int, seeds: int) -> dict[str, Any]:
    """Run all methods, the options of the category in another order for each seed."""
    cost, found = machine(), {}
    for method in ("minimize", "TPE", "TPE, univariate", "random"):
        found[method] = {str(budget): [] for budget in BUDGETS}
        for seed in range(first, first + seeds):
            kernels = [KERNELS[place] for place in np.random.default_rng(seed).permutation(4)]
            for budget in BUDGETS:
                if method == "minimize":
                    costs = by_minimize(cost, budget, seed, kernels)
                else:
                    costs = by_optuna(cost, budget, seed, kernels, method)
                found[method][str(budget)].append(float(np.nanmin(costs)))
        print(method, {budget: np.round(np.mean(c), 5) for budget, c in found[method].items()})
    return found


# Mixed functions: floats in [-5, 5], whole numbers 0 to 15, categories of 2 to 6 options.


class Mixed:
    """A function of floats x, whole numbers n and categories c; its optimum's cost is 0."""

    def __init__(self, kind: str, floats: int, wholes: int, options: list[int], seed: int):
        random = np.random.default_rng([seed, floats, wholes, *map(ord, kind)])
        self.kind, self.options = kind, options
        self.shift = random.uniform(-4, 4, floats)
        self.best = random.integers(0, 16, wholes)
        self.right = [int(random.integers(k)) for k in options]
        self.turn, _ = np.linalg.qr(random.normal(size=(floats, floats)))
        # A wrong option costs, and moves the optimum of the floats.
        self.prices = [random.uniform(0.5, 3, k) for k in options]
        self.moves = [random.normal(size=(k, floats)) for k in options]

    def __call__(self, x: np.ndarray, n: np.ndarray, c: list[int]) -> float:
        """Return the cost."""
        z, price = np.asarray(x) - self.shift, 0.0
        for option, right, prices, moves in zip(
            c, self.right, self.prices, self.moves, strict=True
        ):
            if option != right:
                price += prices[option]
                z = z + moves[option]
        z = self.turn @ z
        far = float(np.sum((np.asarray(n) - self.best) ** 2)) / 10
        if self.kind == "ellipsoid":
            return float(np.sum(100.0 ** np.linspace(0, 1, len(z)) * z**2)) + far + price
        if self.kind == "rastrigin":
            return float(np.sum(z**2 + 5 * (1 - np.cos(2 * np.pi * z)))) + far + 3 * price
        return float(np.sum(abs(z))) + np.sqrt(far) + price


FUNCTIONS = [
    ("sharp", 4, 2, [3, 4]),
    ("ellipsoid", 4, 2, [2, 5]),
    ("rastrigin", 5, 3, [3, 3, 4]),
    ("sharp", 6, 4, [6, 2, 3, 3]),
    ("ellipsoid", 8, 4, [4, 4, 2, 3]),
    ("rastrigin", 10, 5, [3, 3, 3, 2, 5]),
]


def mixed_minimize(function: Mixed, evaluations: int, seed: int) -> float:
    """Run `minimize`."""
    bounds = {
        "x": [(-5.0, 5.0)] * len(function.shift),
        "n": [range(16)] * len(function.best),
        "c": [list(map(str, range(k))) for k in function.options],
    }
    result = de.minimize(
        lambda p: function(np.array(p["x"]), np.array(p["n"]), [int(c) for c in p["c"]]),
        bounds,
        evaluations=evaluations,
        seed=seed,
    )
    return result.cost


def mixed_optuna(function: Mixed, evaluations: int, seed: int, multivariate: bool) -> float:
    """Run Optuna's TPE."""
    optuna: Any = import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: Any) -> float:
        x = [trial.suggest_float(f"x{i}", -5, 5) for i in range(len(function.shift))]
        n = [trial.suggest_int(f"n{i}", 0, 15) for i in range(len(function.best))]
        options = enumerate(function.options)
        c = [int(trial.suggest_categorical(f"c{i}", list(map(str, range(k))))) for i, k in options]
        return function(np.array(x), np.array(n), c)

    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=multivariate)
    )
    study.optimize(objective, evaluations)
    return study.best_value


def mixed_pycma(function: Mixed, evaluations: int, seed: int) -> float:
    """Run pycma on the unit cube; whole numbers and options are equal shares of a side."""
    import cma

    floats, wholes = len(function.shift), len(function.best)
    steps = np.array([16] * wholes + function.options)

    def cost(u: np.ndarray) -> float:
        whole = np.minimum((u[floats:] * steps).astype(int), steps - 1)
        return function(10 * u[:floats] - 5, whole[:wholes], whole[wholes:].tolist())

    dimension = floats + len(steps)
    integer = {"minstd": np.concatenate([np.zeros(floats), 0.2 / steps])}
    options: Any = {
        "bounds": [0, 1],
        "seed": seed + 1,
        "maxfevals": evaluations,
        "verbose": -9,
        **integer,
    }
    start = np.random.default_rng(seed).uniform(size=dimension)
    result: Any = cma.fmin2(cost, start, 0.3, options, restarts=5)
    return float(result[1].best.f)


def mixed_nevergrad(function: Mixed, evaluations: int, seed: int) -> float:
    """Run what Nevergrad chooses."""
    nevergrad: Any = import_module("nevergrad")
    p = nevergrad.p
    space = p.Instrumentation(
        p.Array(shape=(len(function.shift),)).set_bounds(-5, 5),
        p.Array(shape=(len(function.best),)).set_bounds(0, 15).set_integer_casting(),
        p.Tuple(*(p.Choice(list(range(k))) for k in function.options)),
    )
    space.random_state = np.random.RandomState(seed)
    optimizer = nevergrad.optimizers.registry["NGOpt"](space, budget=evaluations)
    least = np.inf
    for _ in range(evaluations):
        point = optimizer.ask()
        x, n, c = point.args
        cost = function(x, n, list(c))
        optimizer.tell(point, cost)
        least = min(least, cost)
    return float(least)


MIXED_METHODS: dict[str, Callable[[Mixed, int, int], float]] = {
    "minimize": mixed_minimize,
    "TPE": lambda *args: mixed_optuna(*args, multivariate=True),
    "TPE, univariate": lambda *args: mixed_optuna(*args, multivariate=False),
    "pycma": mixed_pycma,
    "NGOpt": mixed_nevergrad,
}


def mixed(first: int, seeds: int, budgets: tuple[int, ...]) -> dict[str, Any]:
    """Run all methods on all functions: the best cost of each seed."""
    found: dict[str, Any] = {}
    for budget in budgets:
        for kind, floats, wholes, options in FUNCTIONS:
            name = f"{kind}, {floats + wholes + len(options)} parameters, {budget}"
            functions = {
                seed: Mixed(kind, floats, wholes, options, seed)
                for seed in range(first, first + seeds)
            }
            found[name] = {
                method: [run(function, budget, seed) for seed, function in functions.items()]
                for method, run in MIXED_METHODS.items()
            }
            print(name, {m: float(f"{np.median(c):.3g}") for m, c in found[name].items()})
    return found


def ranks(found: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return each method's rank, mean over functions and seeds, and its standard error."""
    costs = np.array([list(methods.values()) for methods in found.values()])  # [F, M, S]
    order = costs.argsort(axis=1).argsort(axis=1) + 1.0
    flat = order.transpose(1, 0, 2).reshape(costs.shape[1], -1)
    methods = list(next(iter(found.values())))
    return {
        method: (float(row.mean()), _error(row)) for method, row in zip(methods, flat, strict=True)
    }


def _error(values: Any) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def tuning_rows(found: dict[str, Any], seeds: int) -> list[dict[str, Any]]:
    """Summarise the first: a row a method and budget."""
    return [
        {
            "method": method,
            "evaluations": int(budget),
            "seeds": seeds,
            "mean": round(float(np.mean(costs)), 5),
            "error": round(_error(costs), 5),
        }
        for method, budgets in found.items()
        for budget, costs in budgets.items()
    ]


def mixed_rows(found: dict[str, Any], budgets: list[int], seeds: int) -> list[dict[str, Any]]:
    """Summarise the second: the rank over all functions, and the median of each."""
    rows = []
    for budget in budgets:
        of_budget = {name: c for name, c in found.items() if name.endswith(f", {budget}")}
        for method, (rank, error) in ranks(of_budget).items():
            row = {"method": method, "evaluations": budget, "seeds": seeds}
            row |= {"rank": round(rank, 2), "error": round(error, 2)}
            for name, costs in of_budget.items():
                function = name.rsplit(" parameters", 1)[0]
                row[function] = float(f"{np.median(costs[method]):.3g}")
            rows.append(row)
    return rows


def main() -> None:
    """Run one of the two, print its table and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--mixed", action="store_true", help="the six functions")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=200)
    parser.add_argument("--budgets", type=int, nargs="*", default=MIXED_BUDGETS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    if args.mixed:
        found = mixed(args.first_seed, args.seeds, tuple(args.budgets))
        name, rows = "tuning_mixed-cpu.json", mixed_rows(found, args.budgets, args.seeds)
    else:
        found = tuning(args.first_seed, args.seeds)
        name, rows = "tuning-cpu.json", tuning_rows(found, args.seeds)
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} |")
    path = RESULTS / name
    others = json.loads(path.read_text())["rows"] if path.exists() and args.mixed else []
    kept = [row for row in others if row["evaluations"] not in args.budgets]
    path.write_text(json.dumps({"rows": kept + rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
