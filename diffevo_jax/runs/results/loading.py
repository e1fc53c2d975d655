"""Finished runs as arrays, for notebooks and scripts."""

import csv
import keyword
from collections import namedtuple
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results.record import Summary, summary


class MethodRun(NamedTuple):
    """What a run kept of a method; S repeats, of which S' kept their populations.

    fitness: of every individual, `[S, T, N]`; a control task's is its return.
    success_rate: `[S, T]`. final_population: `[S', N, D]`, and final_x0, its estimates.
    best_genome: of all generations, `[S, D]`, and best_fitness, `[S]`.
    reevaluated_genome: the last generation's best individual, `[S, D]`; reevaluated_return and
        reevaluated_success: its fresh episodes, `[S, E]`.
    metrics: of metrics.csv, `[S, T]` by name: fitness_median, effective_sample_size, ...
    more: what else the method left, by name: archive_points, ...
    config: the method's settings, nested named tuples: `config.algorithm.schedule.num_levels`.
    summary: its line of the table.

    An array that the run did not keep is None.
    """

    label: str
    fitness: np.ndarray
    success_rate: np.ndarray | None
    final_population: np.ndarray | None
    final_x0: np.ndarray | None
    best_genome: np.ndarray
    best_fitness: np.ndarray
    reevaluated_genome: np.ndarray | None
    reevaluated_return: np.ndarray | None
    reevaluated_success: np.ndarray | None
    metrics: dict[str, np.ndarray]
    more: dict[str, np.ndarray]
    config: Any
    summary: Summary


class Run(NamedTuple):
    """A run folder, read.

    config: the resolved config, nested named tuples: `config.seed`; its methods are a dict.
    methods: by name, those of which a repeat has finished. table: a line a method, of the last
        generation: mean and standard error over repeats. environment: of environment.json.
    """

    folder: Path
    config: Any
    methods: dict[str, MethodRun]
    table: list[Summary]
    environment: dict[str, Any]


def load_run(folder: str | Path) -> Run:
    """Read a run folder, of `diffevo-jax run`, into arrays.

    Raises ValueError where it is none, or holds no results, and says what to do.

        run = load_run("runs/fig4_cartpole-20260101-120000")
        run.methods["latent"].fitness.mean(axis=(0, 2))  # of each generation
    """
    folder = Path(folder)
    config, arrays = results.load(folder)
    metrics = _read_metrics(folder / "metrics.csv")
    methods = {}
    for name in arrays:
        method = config.methods[name]
        saved = results.read_arrays(folder / f"{name}.npz")
        genomes = next((saved[key] for key in _GENOMES if key in saved), None)
        line = summary(method, None if genomes is None else genomes.shape[-1], saved)
        shape = saved["fitness"].shape[:2]
        columns = metrics.get(name, {}).items()
        told = {key: cells.reshape(shape) for key, cells in columns if cells.size == np.prod(shape)}
        methods[name] = MethodRun(
            label=method.label,
            metrics=told,
            config=as_tuples("method", method.model_dump()),
            summary=line,
            **{field: saved.pop(field, None) for field in _ARRAYS},  # pyright: ignore
            more=saved,
        )
    return Run(
        folder=folder,
        config=as_tuples("config", config.model_dump()),
        methods=methods,
        table=[method.summary for method in methods.values()],
        environment=results.read_environment(folder),
    )


_GENOMES = ("best_genome", "final_population")
_ARRAYS = (
    *("fitness", "success_rate", "final_population", "final_x0", "best_genome", "best_fitness"),
    *("reevaluated_genome", "reevaluated_return", "reevaluated_success"),
)


def _read_metrics(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Read metrics.csv: method -> column -> `[rows]`, NaN where a cell is blank."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    columns = {}
    for name in dict.fromkeys(row[0] for row in rows):
        cells = zip(*(row for row in rows if row[0] == name), strict=True)
        columns[name] = {
            column: np.array([float(cell) if cell else np.nan for cell in values])
            for column, values in zip(header, cells, strict=True)
            if column in ("alpha", *results.METRICS)
        }
    return columns


def as_tuples(name: str, value: Any) -> Any:
    """Turn nested mappings into named tuples; one with keys that are no names stays a dict."""
    if isinstance(value, list):
        return [as_tuples(name, each) for each in value]
    if not isinstance(value, dict):
        return value
    inner = {key: as_tuples(key, each) for key, each in value.items()}
    names = all(key.isidentifier() and not keyword.iskeyword(key) for key in inner)
    if name == "methods" or not names or any(key.startswith("_") for key in inner):
        return inner
    return namedtuple(name if name.isidentifier() else "settings", inner)(**inner)
