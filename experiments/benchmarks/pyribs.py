"""Diffusion Evolution as a pyribs emitter, beside pyribs' own, with its archives and scheduler.

    pip install ribs
    python experiments/benchmarks/pyribs.py              # writes results/pyribs-cpu.json

Five emitters of 36 solutions fill a grid of 50 x 50 cells in 200 iterations, 36,000 evaluations of
20 variables: the sphere and Rastrigin functions with the linear projection of Fontaine et al.
(https://arxiv.org/abs/1912.02400), and a planar arm of 20 joints. Settings of pyribs' emitters are
those of its sphere example, and IsoLine's also with the others' step. Mean and standard error over
seeds of coverage in % and of the QD score a cell: the sum of the elites' objectives, 0 to 100, over
the number of cells.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ribs.archives import GridArchive  # pyright: ignore[reportMissingImports]
from ribs.emitters import EmitterBase, EvolutionStrategyEmitter, GaussianEmitter, IsoLineEmitter  # pyright: ignore[reportMissingImports]
from ribs.schedulers import Scheduler  # pyright: ignore[reportMissingImports]
from timing import device, print_row

import diffevo_jax as de

DIM, BATCH, EMITTERS, CELLS, ITERATIONS = 20, 36, 5, 50, 200


evolution = de.presets.paper(de.schedules.cosine(4, clean=True))
step = jax.jit(evolution.step)


class DiffusionEmitter(EmitterBase):
    """Rounds of Diffusion Evolution at elites: fitness is the rank of what a solution adds."""

    def __init__(self, archive, *, sigma, x0, batch_size=36, seed=0):
        dim, free = archive.solution_dim, dict.fromkeys(("bounds", "lower_bounds", "upper_bounds"))
        super().__init__(archive, solution_dim=dim, **free)
        self.sigma, self.shape = sigma, (batch_size, dim)
        self.x0, self.key, self.state = np.tile(x0, (batch_size, 1)), jax.random.key(seed), None

    def ask(self):
        """Solutions to evaluate, `[N, D]`."""
        if self.state is None:  # a new round, each individual at an elite of its own
            self.key, key = jax.random.split(self.key)
            self.state = evolution.init(key, jax.random.normal(key, self.shape))
            if not self.archive.empty:
                self.x0 = self.archive.sample_elites(len(self.x0))["solution"]
        return self.x0 + self.sigma * np.asarray(self.state.population)

    def tell(self, solution, objective, measures, add_info, **fields):
        """Learn from what the archive says of them."""
        # New cells before improved ones before the rest, as pyribs' "2imp" ranks them.
        rank = np.lexsort((add_info["value"], add_info["status"])).argsort().astype(np.float32)
        self.key, key = jax.random.split(self.key)
        self.state = None if self.state.t == 0 else step(key, self.state, rank)[0]


def projection(cost: Callable[[np.ndarray], np.ndarray], low: float) -> Callable:
    """Objective 0 to 100 of a function whose optimum is at 2.048, and sums of clipped halves."""
    worst = cost(np.full((1, DIM), low))

    def evaluate(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inside = np.abs(x) <= 5.12
        clipped = np.where(inside, x, 5.12 / np.where(inside, 1, x))
        measures = clipped.reshape(len(x), 2, -1).sum(axis=2)
        return 100 * (1 - cost(x) / worst), measures

    return evaluate


def sphere(x: np.ndarray) -> np.ndarray:
    """Optimum at 2.048."""
    return np.sum((x - 2.048) ** 2, axis=1)


def rastrigin(x: np.ndarray) -> np.ndarray:
    """Optimum at 2.048."""
    z = x - 2.048
    return 10 * DIM + np.sum(z**2 - 10 * np.cos(2 * np.pi * z), axis=1)


def arm(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints of unit length: objective from the variance of angles, measures the end's place."""
    angles = np.cumsum(x, axis=1)
    end = np.stack([np.cos(angles).sum(axis=1), np.sin(angles).sum(axis=1)], axis=1)
    return 100 * (1 - np.var(x, axis=1)), end


HALF = 5.12 * DIM / 2
DOMAINS = {
    "sphere": (projection(sphere, -5.12), HALF),
    "Rastrigin": (projection(rastrigin, -5.12), HALF),
    "arm": (arm, DIM),
}


def emitters(name: str, archive: GridArchive, seed: int, sigma: float) -> list[EmitterBase]:
    """Five of a kind, from x0 = 0."""
    make: Callable = {
        "Diffusion Evolution": lambda **given: DiffusionEmitter(archive, sigma=sigma, **given),
        "CMA-ES (2imp)": lambda **given: EvolutionStrategyEmitter(archive, sigma0=0.5, **given),
        "Gaussian": lambda **given: GaussianEmitter(archive, sigma=0.5, **given),
        "IsoLine, .1": lambda **given: IsoLineEmitter(archive, iso_sigma=0.1, **given),
        "IsoLine, .5": lambda **given: IsoLineEmitter(archive, iso_sigma=0.5, **given),
    }[name]
    return [
        make(x0=np.zeros(DIM), batch_size=BATCH, seed=EMITTERS * seed + i) for i in range(EMITTERS)
    ]


NAMES = ("Diffusion Evolution", "CMA-ES (2imp)", "Gaussian", "IsoLine, .1", "IsoLine, .5")


def run(domain: str, name: str, seed: int, sigma: float) -> tuple[float, float]:
    """(QD score a cell, coverage in %) of one run."""
    evaluate, half = DOMAINS[domain]
    ranges = [(-half, half)] * 2
    archive = GridArchive(solution_dim=DIM, dims=[CELLS] * 2, ranges=ranges, seed=seed)
    scheduler = Scheduler(archive, emitters(name, archive, seed, sigma))
    for _ in range(ITERATIONS):
        objective, measures = evaluate(scheduler.ask())
        scheduler.tell(np.maximum(objective, 0), measures)
    return float(archive.stats.norm_qd_score), 100 * float(archive.stats.coverage)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])  # pyright: ignore
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--sigma", type=float, default=0.5, help="of Diffusion Evolution")
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES)
    parser.add_argument("--out", default=Path(__file__).parent / "results" / "pyribs-cpu.json")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    rows = []
    for domain in DOMAINS:
        for name in arguments.only:
            values = np.array([run(domain, name, seed, arguments.sigma) for seed in seeds])
            mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / len(values) ** 0.5
            row = {"domain": domain, "emitter": name, "sigma": arguments.sigma, "seeds": len(seeds)}
            row |= {"qd_score": float(mean[0]), "qd_score_error": float(error[0])}
            rows.append(row | {"coverage": float(mean[1]), "coverage_error": float(error[1])})
            print_row(rows[-1])
    Path(arguments.out).write_text(json.dumps(device() | {"rows": rows}, indent=2) + "\n")
