"""Quality-diversity: Diffusion Evolution and MAP-Elites inside jit, beside pyribs' emitters.

    pip install ribs
    python experiments/benchmarks/pyribs.py              # writes results/pyribs-cpu.json
    python experiments/benchmarks/pyribs.py --draw       # docs/diversity.png

All fill a grid of 50 x 50 cells by 36,000 evaluations of 20 variables, 200 times 180: the sphere
and Rastrigin functions with the linear projection of Fontaine et al.
(https://arxiv.org/abs/1912.02400), and a planar arm of 20 joints. Pyribs' are five emitters of 36,
from 0; their settings are those of its sphere example, and IsoLine's also with the others' step.
Ours begin with N(0, I); MAP-Elites has the step and the line of IsoLine, .5. `Diffusion Evolution,
emitter` is the same algorithm that pyribs' scheduler asks and tells. Mean and standard error over
seeds of coverage in % and of the QD score a cell: the sum of the elites' objectives, 0 to 100, over
the number of cells.
"""

import argparse
import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ribs.archives import GridArchive  # pyright: ignore[reportMissingImports]
from ribs.emitters import EmitterBase, EvolutionStrategyEmitter, GaussianEmitter, IsoLineEmitter  # pyright: ignore[reportMissingImports]
from ribs.schedulers import Scheduler  # pyright: ignore[reportMissingImports]
from timing import device, print_row

import diffevo_jax as de
from diffevo_jax.drawings.archive import shade
from diffevo_jax.drawings.style import STYLE

DIM, BATCH, EMITTERS, CELLS, ITERATIONS = 20, 36, 5, 50, 200
SIZE = BATCH * EMITTERS
DOMAINS = {"sphere": 5.12 * DIM / 2, "Rastrigin": 5.12 * DIM / 2, "arm": float(DIM)}

OURS = {
    "Diffusion Evolution": de.presets.illuminate,
    "MAP-Elites": partial(de.baselines.map_elites, sigma=0.5, line=0.2),
}
EMITTER = "Diffusion Evolution, emitter"
RIBS = (EMITTER, "CMA-ES (2imp)", "Gaussian", "IsoLine, .1", "IsoLine, .5")
NAMES = (*OURS, *RIBS)


class DiffusionEmitter(EmitterBase):
    """An algorithm of ours that pyribs asks and tells."""

    def __init__(self, archive, algorithm, population, *, seed=0):
        free = dict.fromkeys(("bounds", "lower_bounds", "upper_bounds"))
        super().__init__(archive, solution_dim=population.shape[1], **free)
        self.key, key = jax.random.split(jax.random.key(seed))
        self.step, self.state = jax.jit(algorithm.step), algorithm.init(key, population)

    def ask(self):
        """Solutions to evaluate, `[N, D]`."""
        return np.asarray(self.state.population)

    def tell(self, solution, objective, measures, add_info, **fields):
        """Learn from their objective and measures."""
        self.key, key = jax.random.split(self.key)
        told = np.asarray(objective, np.float32), np.asarray(measures, np.float32)
        self.state, _ = self.step(key, self.state, told[0], aux={"descriptors": told[1]})


def evaluate(domain: str) -> Callable:
    """Objective and measures of a domain, points `[N, D]` -> `[N]`, `[N, 2]`."""
    return getattr(de.landscapes.domains, domain.lower())


@cache
def make(name: str, domain: str) -> tuple[de.archives.Cells, de.Algorithm]:
    """The cells of a domain, and one of our algorithms over them."""
    half = DOMAINS[domain]
    cells = de.archives.grid([-half, -half], [half, half], cells=[CELLS, CELLS])
    sizes = {"population_size": SIZE, "num_genes": DIM, "num_generations": ITERATIONS}
    return cells, OURS[name](archive=cells, **sizes)


@cache
def compiled(name: str, domain: str) -> Callable:
    """A run of ours, key -> its archive and the curve of its QD score a cell, `[T]`."""
    problem = de.landscapes.domains.make_problem(function=domain.lower(), num_genes=DIM)  # pyright: ignore[reportArgumentType]
    algorithm = make(name, domain)[1]

    def run(key: jax.Array):
        key_init, key_run = jax.random.split(key)
        population = jax.random.normal(key_init, (SIZE, DIM))
        keep = lambda info, aux: info.norm_qd_score  # noqa: E731
        evolved = de.evolve(key_run, algorithm, problem, population, keep=keep)
        return evolved.state.archive, evolved.kept

    return jax.jit(run)


def run_ours(domain: str, name: str, seed: int) -> tuple[float, float]:
    """(QD score a cell, coverage in %) of one run inside jit."""
    elites, scores = compiled(name, domain)(jax.random.key(seed))
    return float(scores[-1]), 100 * float(de.archives.coverage(elites))


def run_ribs(domain: str, name: str, seed: int) -> tuple[float, float]:
    """(QD score a cell, coverage in %) of one run of pyribs' archive and scheduler."""
    half = DOMAINS[domain]
    archive = GridArchive(solution_dim=DIM, dims=[CELLS] * 2, ranges=[(-half, half)] * 2, seed=seed)
    if name == EMITTER:
        population = jax.random.normal(jax.random.key(seed), (SIZE, DIM))
        algorithm = make("Diffusion Evolution", domain)[1]
        emitters = [DiffusionEmitter(archive, algorithm, population, seed=seed)]
    else:
        kind: Callable = {
            "CMA-ES (2imp)": partial(EvolutionStrategyEmitter, sigma0=0.5),
            "Gaussian": partial(GaussianEmitter, sigma=0.5),
            "IsoLine, .1": partial(IsoLineEmitter, iso_sigma=0.1),
            "IsoLine, .5": partial(IsoLineEmitter, iso_sigma=0.5),
        }[name]
        emitters = [
            kind(archive, x0=np.zeros(DIM), batch_size=BATCH, seed=EMITTERS * seed + i)
            for i in range(EMITTERS)
        ]
    scheduler, evaluated = Scheduler(archive, emitters), jax.jit(evaluate(domain))
    for _ in range(ITERATIONS):
        scheduler.tell(*map(np.asarray, evaluated(scheduler.ask().astype(np.float32))))
    return float(archive.stats.norm_qd_score), 100 * float(archive.stats.coverage)


def draw(path: Path, seed: int) -> None:
    """Draw the archives of ours, a row each, a column for each domain."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(11, 6.6), layout="constrained")
        grid = figure.subplots(len(OURS), len(DOMAINS))
        last: Any = None
        for row, name in zip(grid, OURS, strict=True):
            for axes, domain in zip(row, DOMAINS, strict=True):
                elites, scores = compiled(name, domain)(jax.random.key(seed))
                cells = make(name, domain)[0]
                words = "x of the end, in joints", "y of the end, in joints"
                words = words if domain == "arm" else ("sum of genes 1-10", "sum of genes 11-20")
                last = shade(axes, cells, np.asarray(elites.fitness), words, vmin=0, vmax=100)
                axes.set_title(f"{name}, {domain}: {scores[-1]:.1f}", loc="left", fontsize=11)
        figure.colorbar(last, ax=grid, label="objective of the elite", shrink=0.6)
        figure.savefig(path, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])  # pyright: ignore
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES)
    parser.add_argument("--out", default=Path(__file__).parent / "results" / "pyribs-cpu.json")
    parser.add_argument("--draw", action="store_true", help="draw docs/diversity.png only")
    arguments = parser.parse_args()
    if arguments.draw:
        draw(Path(__file__).parents[2] / "docs" / "diversity.png", arguments.first)
        raise SystemExit
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    out, rows = Path(arguments.out), []
    if out.exists():  # what is not measured again stays
        rows = json.loads(out.read_text())["rows"]
        rows = [row for row in rows if row["emitter"] not in arguments.only]
    for name in arguments.only:
        run = run_ours if name in OURS else run_ribs
        for domain in DOMAINS:
            values = np.array([run(domain, name, seed) for seed in seeds])
            mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / len(values) ** 0.5
            row = {"domain": domain, "emitter": name, "seeds": len(seeds)}
            row |= {"qd_score": float(mean[0]), "qd_score_error": float(error[0])}
            rows.append(row | {"coverage": float(mean[1]), "coverage_error": float(error[1])})
            print_row(rows[-1])
        rows.sort(key=lambda row: NAMES.index(row["emitter"]))
        out.write_text(json.dumps(device() | {"rows": rows}, indent=2) + "\n")
