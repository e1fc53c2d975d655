"""All optima: the peak ratio of `minimize(optima="all")` on functions with many of them.

    python experiments/benchmarks/optima.py          # writes results/optima-cpu.json

The functions, budgets and radii of the CEC 2013 competition on niching (Li, Engelbrecht and
Epitropakis 2013, technical report), minimised; its composites with shifts and rotations of each
seed's own. What is reported is `Result.global_optima`. Peak ratio at 1e-5, with its standard error,
and the mean over accuracies of 1e-1 to 1e-5; static F1, at the end, and dynamic F1, its mean over
all evaluations, both as means over accuracies.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from timing import device, print_row

import diffevo_jax as de

ACCURACIES = 1e-1, 1e-2, 1e-3, 1e-4, 1e-5
CHECKS = 100
Cost = Callable[[np.ndarray], np.ndarray]


class Problem(NamedTuple):
    """make: seed -> cost of `[N, D]`. least: the cost of all `peaks` global optima."""

    make: Callable[[int], Cost]
    bounds: list[tuple[float, float]]
    least: float
    peaks: int
    radius: float
    evaluations: int


def trap(x: np.ndarray) -> np.ndarray:
    """Five uneven peaks, in pieces of straight lines; best at both ends of [0, 30]."""
    corners = [0, 2.5, 5, 7.5, 12.5, 17.5, 22.5, 27.5, 30]
    return -np.interp(x[:, 0], corners, [200, 0, 80, 0, 64, 0, 160, 0, 200])


def equal_maxima(x: np.ndarray) -> np.ndarray:
    """Five of one height."""
    return -(np.sin(5 * np.pi * x[:, 0]) ** 6)


def uneven_maxima(x: np.ndarray) -> np.ndarray:
    """Five in a falling row; the first is best."""
    lower = np.exp(-2 * np.log(2) * ((x[:, 0] - 0.08) / 0.854) ** 2)
    return -lower * np.sin(5 * np.pi * (x[:, 0] ** 0.75 - 0.05)) ** 6


def himmelblau(x: np.ndarray) -> np.ndarray:
    """Four of cost 0."""
    first, second = x.T
    return (first**2 + second - 11) ** 2 + (first + second**2 - 7) ** 2


def camel(x: np.ndarray) -> np.ndarray:
    """Six, two of them best."""
    first, second = x.T
    bowl = (4 - 2.1 * first**2 + first**4 / 3) * first**2
    return bowl + first * second + (4 * second**2 - 4) * second**2


def shubert(x: np.ndarray) -> np.ndarray:
    """A product of sums of waves."""
    j = np.arange(1, 6)
    return np.prod(np.sum(j * np.cos((j + 1) * x[..., None] + j), axis=-1), axis=1)


def vincent(x: np.ndarray) -> np.ndarray:
    """Waves that grow longer."""
    return -np.mean(np.sin(10 * np.log(x)), axis=1)


def modified_rastrigin(x: np.ndarray) -> np.ndarray:
    """A grid of three by four."""
    return np.sum(10 + 9 * np.cos(2 * np.pi * np.array([3, 4]) * x), axis=1)


def sphere(z: np.ndarray) -> np.ndarray:
    """Cost 0 at the origin, as all that follow."""
    return np.sum(z**2, axis=1)


def rastrigin(z: np.ndarray) -> np.ndarray:
    """A bowl with waves."""
    return np.sum(z**2 - 10 * np.cos(2 * np.pi * z) + 10, axis=1)


def griewank(z: np.ndarray) -> np.ndarray:
    """A wide bowl with waves."""
    number = np.sqrt(np.arange(1, z.shape[1] + 1))
    return np.sum(z**2, axis=1) / 4000 - np.prod(np.cos(z / number), axis=1) + 1


def weierstrass(z: np.ndarray) -> np.ndarray:
    """Waves on waves."""
    height, rate = 0.5 ** np.arange(21), 3.0 ** np.arange(21)
    waves = np.cos(2 * np.pi * (z[..., None] + 0.5) * rate) @ height
    return np.sum(waves - np.sum(height * np.cos(np.pi * rate)), axis=1)


def griewank_rosenbrock(z: np.ndarray) -> np.ndarray:
    """Griewank of Rosenbrock's terms in a ring; its optimum moved to the origin."""
    here, there = z + 1, np.roll(z, -1, axis=1) + 1
    rosenbrock = 100 * (here**2 - there) ** 2 + (here - 1) ** 2
    return np.sum(rosenbrock**2 / 4000 - np.cos(rosenbrock) + 1, axis=1)


def composite(parts: list[tuple[Callable, float, float]], num_genes: int, rotate: bool):
    """Make a sum of (function, sigma, stretch), each at a place of its own that is an optimum."""

    def make(seed: int) -> Cost:
        random = np.random.default_rng([7, seed])
        shifts = random.uniform(-4, 4, (len(parts), num_genes))
        frames = [np.eye(num_genes)] * len(parts)
        if rotate:
            frames = np.linalg.qr(random.standard_normal((len(parts), num_genes, num_genes)))[0]
        heights = [
            abs(part(np.full((1, num_genes), 5 / stretch) @ frame)[0])
            for (part, _, stretch), frame in zip(parts, frames, strict=True)
        ]

        def cost(x: np.ndarray) -> np.ndarray:
            away = x[:, None] - shifts
            sigmas = np.array([sigma for _, sigma, _ in parts])
            weights = np.exp(-np.sum(away**2, axis=2) / (2 * num_genes * sigmas**2))
            most = weights.max(axis=1, keepdims=True)
            weights = np.where(weights == most, weights, weights * (1 - most**10))
            weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
            values = [
                2000 * part(away[:, k] / stretch @ frame) / height
                for k, ((part, _, stretch), frame, height) in enumerate(
                    zip(parts, frames, heights, strict=True)
                )
            ]
            return np.sum(weights * np.stack(values, axis=1), axis=1)

        return cost

    return make


def twice(functions: list[Callable], sigmas: list[float], stretches: list[float]):
    """The parts of a composite, each function twice."""
    repeated = [function for function in functions for _ in range(2)]
    return list(zip(repeated, sigmas, stretches, strict=True))


COMPOSITES = {
    1: (twice([griewank, weierstrass, sphere], [1] * 6, [1, 1, 8, 8, 1 / 5, 1 / 5]), False),
    2: (
        twice(
            [rastrigin, weierstrass, griewank, sphere],
            [1] * 8,
            [1, 1, 10, 10, 1 / 10, 1 / 10, 1 / 7, 1 / 7],
        ),
        False,
    ),
    3: (
        twice(
            [griewank_rosenbrock, weierstrass, griewank],
            [1, 1, 2, 2, 2, 2],
            [1 / 4, 1 / 10, 2, 1, 2, 5],
        ),
        True,
    ),
    4: (
        twice(
            [rastrigin, griewank_rosenbrock, weierstrass, griewank],
            [1, 1, 1, 1, 1, 2, 2, 2],
            [4, 1, 4, 1, 1 / 10, 1 / 5, 1 / 10, 1 / 40],
        ),
        True,
    ),
}


def plain(cost: Cost, bounds, least: float, peaks: int, radius: float, evaluations: int) -> Problem:
    """Make a problem that is the same for every seed."""
    return Problem(lambda seed: cost, bounds, least, peaks, radius, evaluations)


def composed(number: int, num_genes: int, evaluations: int) -> Problem:
    """Make one of the composites."""
    parts, rotate = COMPOSITES[number]
    make = composite(parts, num_genes, rotate)
    return Problem(make, [(-5, 5)] * num_genes, 0, len(parts), 0.01, evaluations)


PROBLEMS = {
    "uneven trap": plain(trap, [(0, 30)], -200, 2, 0.01, 50_000),
    "equal maxima": plain(equal_maxima, [(0, 1)], -1, 5, 0.01, 50_000),
    "uneven maxima": plain(uneven_maxima, [(0, 1)], -0.9999999, 1, 0.01, 50_000),
    "Himmelblau": plain(himmelblau, [(-6, 6)] * 2, 0, 4, 0.01, 50_000),
    "camel": plain(camel, [(-1.9, 1.9), (-1.1, 1.1)], -1.0316284535, 2, 0.5, 50_000),
    "Shubert 2-D": plain(shubert, [(-10, 10)] * 2, -186.7309088, 18, 0.5, 200_000),
    "Vincent 2-D": plain(vincent, [(0.25, 10)] * 2, -1, 36, 0.2, 200_000),
    "Shubert 3-D": plain(shubert, [(-10, 10)] * 3, -2709.0935, 81, 0.5, 400_000),
    "Vincent 3-D": plain(vincent, [(0.25, 10)] * 3, -1, 216, 0.2, 400_000),
    "modified Rastrigin": plain(modified_rastrigin, [(0, 1)] * 2, 2, 12, 0.01, 200_000),
}
COMPOSED = {
    "composite 1, 2-D": composed(1, 2, 200_000),
    "composite 2, 2-D": composed(2, 2, 200_000),
    "composite 3, 2-D": composed(3, 2, 200_000),
    **{
        f"composite {number}, {num_genes}-D": composed(number, num_genes, 400_000)
        for number, num_genes in [(3, 3), (4, 3), (3, 5), (4, 5), (3, 10), (4, 10), (4, 20)]
    },
}


class Run(NamedTuple):
    """Peak ratio, static and dynamic F1, `[A]` each, by accuracy; seconds; optima returned."""

    peak_ratio: np.ndarray
    static_f1: np.ndarray
    dynamic_f1: np.ndarray
    seconds: float
    returned: int


def run(problem: Problem, seed: int) -> Run:
    """Find all optima once; what is reported by then is scored at CHECKS times."""
    begun, cost = time.perf_counter(), problem.make(seed)
    search = de.optimize.Search(
        problem.bounds, evaluations=problem.evaluations, seed=seed, optima="all"
    )
    times, scores = [], []
    while (points := search.ask()) is not None:
        search.tell(cost(points))
        if search.evaluations * CHECKS >= problem.evaluations * (len(times) + 1):
            times.append(search.evaluations)
            scores.append(scores_of(problem, search.result.global_optima))
    ratios, f1 = np.moveaxis(np.array(scores), 2, 0)
    budget = problem.evaluations
    areas = [de.optimize.scores.dynamic(times, values, budget=budget) for values in f1.T]
    seconds, returned = time.perf_counter() - begun, len(search.result.global_optima)
    return Run(ratios[-1], f1[-1], np.array(areas), seconds, returned)


def scores_of(problem: Problem, optima: tuple[Any, ...]) -> list[tuple[float, float]]:
    """Peak ratio and F1 of what is reported, by accuracy."""
    points = np.array([optimum.x for optimum in optima]).reshape(-1, len(problem.bounds))
    costs = np.array([optimum.cost for optimum in optima])
    scores = [
        de.optimize.scores.peak_score(
            points,
            costs,
            optima=problem.peaks,
            least=problem.least,
            radius=problem.radius,
            accuracy=accuracy,
        )
        for accuracy in ACCURACIES
    ]
    return [(score.peak_ratio, score.f1) for score in scores]


def mean_of(values: Iterable[Any]) -> float:
    """Average over seeds, and accuracies."""
    return float(np.mean(list(values)))


def means(rows: list[dict]) -> dict:
    """Average the numbers of problems."""
    names = "peak_ratio", "mean_peak_ratio", "static_f1", "dynamic_f1"
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in names}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])  # pyright: ignore
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--composite-seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[*PROBLEMS, *COMPOSED])
    parser.add_argument("--out", default=Path(__file__).parent / "results" / "optima-cpu.json")
    arguments = parser.parse_args()
    rows: list[dict] = []
    for name in arguments.only:
        problem = (PROBLEMS | COMPOSED)[name]
        count = arguments.seeds if name in PROBLEMS else arguments.composite_seeds
        seeds = range(arguments.first_seed, arguments.first_seed + count)
        runs = [run(problem, seed) for seed in seeds]
        ratios = [each.peak_ratio[-1] for each in runs]
        error = float(np.std(ratios, ddof=1) / count**0.5) if count > 1 else float("nan")
        row = {"problem": name, "seeds": count, "peaks": problem.peaks}
        row |= {"evaluations": problem.evaluations, "peak_ratio": float(np.mean(ratios))}
        row |= {"error": error, "mean_peak_ratio": mean_of(each.peak_ratio for each in runs)}
        row |= {"static_f1": mean_of(each.static_f1 for each in runs)}
        row |= {"dynamic_f1": mean_of(each.dynamic_f1 for each in runs)}
        row |= {"returned": mean_of(each.returned for each in runs)}
        rows.append(row | {"seconds": round(float(np.median([r.seconds for r in runs])), 1)})
        print_row(rows[-1])
    groups = {"plain": PROBLEMS, "composite": COMPOSED, "twenty": PROBLEMS | COMPOSED}
    for kind, names in groups.items():
        of_kind = [row for row in rows if row["problem"] in names]
        if of_kind:
            rows.append({"problem": f"all {kind}", **means(of_kind)})
            print_row(rows[-1])
    Path(arguments.out).write_text(json.dumps(device() | {"rows": rows}, indent=2) + "\n")
