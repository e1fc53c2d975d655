"""Finished runs and sweeps as arrays, for notebooks and scripts."""

import csv
import keyword
from collections import namedtuple
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffevo_jax.runs.config import experiment
from diffevo_jax.runs.config.schema import ConfigError, RunConfig
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results import table
from diffevo_jax.runs.results.fields import ARRAYS, FIELDS, METRICS
from diffevo_jax.runs.results.record import Summary, summarise
from diffevo_jax.tasks.statistics import Statistics


class MethodRun(NamedTuple):
    """What a run kept of a method; S repeats, of which S' kept their populations.

    fitness: of every individual, `[S, T, N]`; a control task's is its return.
    success_rate: `[S, T]`. final_population: `[S', N, D]`, and final_x0, its estimates.
    best_genome: of all generations, `[S, D]`, and best_fitness, `[S]`.
    reevaluated_genome: the last generation's best individual, `[S, D]`; reevaluated_return and
        reevaluated_success: its fresh episodes, `[S, E]`.
    statistics: of normalised observations, as the run ended, `[S, ...]`; those of repeat k are
        `jax.tree.map(lambda value: value[k], statistics)`.
    metrics: the columns of metrics.csv, `[S, T]` by name: fitness_median, ...
    more: what else the method left, by name: archive_points, ...
    config: the method's settings, nested named tuples: `config.algorithm.schedule.num_levels`.
    summary: its row of the table.

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
    statistics: Statistics | None
    metrics: dict[str, np.ndarray]
    more: dict[str, np.ndarray]
    config: Any
    summary: Summary


class Run(NamedTuple):
    """A run folder, read.

    config: the resolved config, nested named tuples: `config.seed`; its methods are a dict.
    methods: by name, those of which a repeat has finished. table: a row for each method, of the
        last generation: mean and standard error over repeats. environment: environment.json.
    """

    folder: Path
    config: Any
    methods: dict[str, MethodRun]
    table: list[Summary]
    environment: dict[str, Any]


def load_run(folder: str | Path) -> Run:
    """Read a run folder, see `runs.load_run`."""
    folder = Path(folder)
    config, arrays = results.load(folder)
    metrics = _read_metrics(folder / "metrics.csv")
    declared = [field.name for field in FIELDS if field.name in MethodRun._fields]
    methods = {}
    for name, saved in arrays.items():
        method, shape = config.methods[name], saved["fitness"].shape[:2]
        columns = metrics.get(name, {}).items()
        summary = summarise(name, config, saved)
        observed = [saved.pop(f"observation_{field}", None) for field in Statistics._fields]
        known = all(each is not None for each in observed)
        methods[name] = MethodRun(
            label=method.label,
            **{field: saved.pop(field, None) for field in declared},  # pyright: ignore
            statistics=Statistics(*observed) if known else None,  # pyright: ignore
            metrics={key: v.reshape(shape) for key, v in columns if v.size == np.prod(shape)},
            more=saved,
            config=as_tuples("method", method.model_dump()),
            summary=summary,
        )
    return Run(
        folder=folder,
        config=as_tuples("config", config.model_dump()),
        methods=methods,
        table=[method.summary for method in methods.values()],
        environment=results.read_environment(folder),
    )


def load_sweep(folder: str | Path) -> list[table.PointResult]:
    """Read the finished points of a sweep's folder, see `runs.load_sweep`."""
    folder = Path(folder)
    if results.folder_kind(folder) == "run":
        raise ConfigError(f"{folder}: the folder of a run, not of a sweep; see load_run")
    try:
        points = experiment.load(folder / "config.yaml").points
    except ConfigError:  # names of a plugin that this process has not loaded: as they are written
        points = experiment.load(folder / "config.yaml", registry=None).points
    finished = []
    for point, written in table.read_points(folder, points, finished=True):
        path = table.point_path(folder, point).with_suffix(".npz")
        arrays = results.read_arrays(path) if path.exists() else {}
        finished.append(table.PointResult(point, written.rows, arrays))
    return finished


def load_summaries(path: Path, *, run: str = "") -> tuple[RunConfig, list[Summary]]:
    """Read a run folder: its config, and a summary of each method with its curve.

    Raises ConfigError.
    """
    config, arrays = results.load(path, *ARRAYS)
    return config, [
        summarise(name, config, saved, run=run, curve=quartiles(saved["fitness"]))
        for name, saved in arrays.items()
    ]


def quartiles(fitness: np.ndarray) -> np.ndarray:
    """25 %, 50 % and 75 % quantile of each generation, `[S, T, N]` to `[3, T]`."""
    per_generation = np.moveaxis(fitness, 1, 0).reshape(fitness.shape[1], -1)
    valid = np.where(np.isfinite(per_generation), per_generation, np.nan)
    return np.nanquantile(valid, [0.25, 0.5, 0.75], axis=1)


def _read_metrics(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Read metrics.csv: method -> column -> `[rows]`, NaN where a cell is blank."""
    if not path.exists():
        return {}
    columns: dict[str, dict[str, list[float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            method = columns.setdefault(row.get("method", ""), {})
            for key in METRICS:
                method.setdefault(key, []).append(float(row.get(key) or "nan"))
    return {name: {k: np.array(v) for k, v in each.items()} for name, each in columns.items()}


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
