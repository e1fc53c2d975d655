"""What the studies share: sweeps of configs/ run into a folder, and how their ends are measured."""

import functools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import diffevo_jax as de
from diffevo_jax.runs.results.table import PointResult
from diffevo_jax.runs.run import jobs
from experiments.files import CONFIGS, read_table
from experiments.rows import Number

# The published measures: fittest individuals, sides of the cells of the entropy and of the QD
# score, the box; all in the plane of the landscapes.
TOP, ENTROPY_CELL, QD_CELL, LIMIT = 64, 0.1, 1.0, 4.0
FUNCTIONS = ("rosenbrock", "beale", "himmelblau", "ackley", "rastrigin")


def run(name: str, folder: Path, overrides: Sequence[str] = (), only: Sequence[int] = ()) -> None:
    """Run the points of the sweep configs/NAME.yaml that are not finished into a folder.

    overrides, only: see `jobs.sweep`. Raises RuntimeError where a point fails.
    """
    config = CONFIGS / f"{name}.yaml"
    say = lambda line: print(f"  {line}", flush=True)  # noqa: E731
    failed = jobs.sweep(config, list(overrides), executor="debug", out=folder, only=only, say=say)
    if failed:
        raise RuntimeError("; ".join(failed))


def objective(problem: Any) -> tuple[str, int]:
    """What the reference calls a landscape, and the dimension that it is run in."""
    name, dim = problem.function, problem.target_dim or problem.num_genes
    return (name if dim == 2 else f"{name}_{dim}d"), problem.num_genes


class Ends(NamedTuple):
    """Where the repeats of a method have come to.

    points: `[S, N, D]`, those of an archive where the method keeps one. fitness: `[S, N]`; -inf for
    those that the archive has dropped. rank: what says who is the fittest, `[S, N]`: the fitness,
    but that of their estimates x0 of the last update where those are saved, as published.
    """

    points: np.ndarray
    fitness: np.ndarray
    rank: np.ndarray


def ends(result: PointResult, method: str) -> Ends:
    """Read the ends of a method from a point's arrays."""
    problem = result.point.config.methods[method].problem

    def saved(name: str) -> np.ndarray | None:
        return result.arrays.get(f"{method}.{name}")

    points, x0 = saved("archive_points"), saved("final_x0")
    if points is not None:
        kept = result.arrays[f"{method}.archive_fitness"]
        return Ends(problem.scale * points, kept, kept)
    points = problem.scale * result.arrays[f"{method}.final_population"]
    here = fitness(problem, points)
    return Ends(points, here, here if x0 is None else fitness(problem, problem.scale * x0))


def fitness(problem: Any, points: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Fitness of points on a config's landscape, `[..., D]` to `[...]`."""
    return np.asarray(_landscape(problem.function, problem.target_dim)(points, temperature))


@functools.cache
def _landscape(name: str, target_dim: int | None) -> Callable:
    function = getattr(de.landscapes.functions, name)
    settings = {} if target_dim is None else {"target_dim": target_dim}

    def one(point: jax.Array, temperature: jax.Array) -> jax.Array:
        return function(point[None], temperature=temperature, **settings)[0]

    return jax.jit(jnp.vectorize(one, signature="(d),()->()"))


def chosen(functions: Sequence[Callable], index: jax.Array, scale: float) -> Callable:
    """Make the landscape that a traced index chooses, of genomes: one program for all."""
    branches = [lambda genomes, f=f: f(scale * genomes) for f in functions]
    return lambda genomes: jax.lax.switch(index, branches, genomes)


@jax.jit
@partial(jnp.vectorize, signature="(n,d),(n),(n)->(),(),(),()")
def measures(points, fitness, rank):
    """Entropy and mean fitness of the fittest by `rank`, mean fitness, QD score: `[S]` each.

    points: `[S, N, D]`. fitness, rank: `[S, N]`.
    """
    top, top_fitness = de.metrics.best(points, rank, TOP)
    score = de.metrics.qd_score(points, fitness, cell=QD_CELL, limit=LIMIT)
    entropy = de.metrics.grid_entropy(top, cell=ENTROPY_CELL)
    return entropy, top_fitness.mean(), fitness.mean(), score


def find_row(table: str, **cells: Any) -> dict[str, str]:
    """Find the one row of a reference table whose cells read so."""
    rows = [
        row
        for row in read_table(table)
        if all(row[key] == str(value) for key, value in cells.items())
    ]
    if len(rows) != 1:
        raise ValueError(f"{table}: expected one row with {cells}; seen {len(rows)}")
    return rows[0]


def reference(row: dict[str, str], column: str) -> Number:
    """A reference row's `column`_mean and its standard error.

    The tables' standard deviations have ddof 0; the errors have ddof 1.
    """
    runs = int(row["n_runs"])
    spread = float(row[f"{column}_std"]) / max(runs - 1, 1) ** 0.5
    return Number(float(row[f"{column}_mean"]), spread, runs)
