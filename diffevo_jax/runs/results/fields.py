"""All that a run records, a line each: its name, shape, stage, files, and how tables show it."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

# Episodes of a reevaluation: of the last generation's best individual, its luck taken out.
EPISODES = 100


class Field(NamedTuple):
    """A quantity that a run records.

    name: in METHOD.npz and metrics.csv.
    shape: over all repeats; S repeats, T generations, N individuals, D genes, E episodes. S' are
        the repeats whose populations are saved.
    stage: "generation", out of each generation's info; "statistic", of each generation's fitness;
        "ending", at the end of a repeat; "episodes", of its reevaluation; "call", of a call.
    array: whether METHOD.npz holds it. metric: whether metrics.csv has a column of it.
    column: in results.csv and summary.csv, a number a repeat; empty: it is no column.
    number: makes that number of the array `source` of one repeat; NaN where there is none.
    heading, style: how tables show the number; empty: they don't.
    """

    name: str
    shape: str
    stage: str
    array: bool = False
    metric: bool = False
    column: str = ""
    number: Callable[[np.ndarray], float] = float
    source: str = ""
    heading: str = ""
    style: str = ""


def describe(fitness: np.ndarray) -> dict[str, Any]:
    """Statistics of one generation over its valid individuals; blank where there are none."""
    valid = fitness[np.isfinite(fitness)]
    names = ("min", "q25", "median", "q75", "max")
    if not len(valid):
        return {f"fitness_{name}": "" for name in ("mean", "std", *names)}
    quantiles = dict(zip(names, np.quantile(valid, [0, 0.25, 0.5, 0.75, 1]), strict=True))
    return {
        "fitness_mean": float(valid.mean()),
        "fitness_std": float(valid.std()),
        **{f"fitness_{name}": float(value) for name, value in quantiles.items()},
    }


def _last(values: np.ndarray) -> float:
    return float(values[-1])


def _last_mean(fitness: np.ndarray) -> float:
    valid = fitness[-1][np.isfinite(fitness[-1])]
    return float(valid.mean()) if len(valid) else math.nan


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=float))


def _finite(value: np.ndarray) -> float:
    return float(value) if np.isfinite(value) else math.nan


MEASURE = "{measure}"  # the heading is what the problem's fitness is called
PERCENT = "%"

# fmt: off
FIELDS = (
    Field("fitness", "S T N", "generation", array=True),
    Field("alpha", "S T", "generation", metric=True),
    Field("fitness_mean", "S T", "statistic", metric=True, column="fitness_mean",
          number=_last_mean, source="fitness", heading=MEASURE, style=".4g"),
    Field("fitness_std", "S T", "statistic", metric=True),
    Field("fitness_min", "S T", "statistic", metric=True),
    Field("fitness_q25", "S T", "statistic", metric=True),
    Field("fitness_median", "S T", "statistic", metric=True),
    Field("fitness_q75", "S T", "statistic", metric=True),
    Field("fitness_max", "S T", "statistic", metric=True),
    Field("best_genome", "S D", "ending", array=True),
    Field("best_fitness", "S", "ending", array=True, column="fitness_best", number=_finite),
    Field("success_rate", "S T", "generation", array=True, metric=True, column="success_rate",
          number=_last, heading="success, %", style=PERCENT),
    Field("effective_sample_size", "S T", "generation", metric=True),
    Field("num_invalid", "S T", "generation", metric=True, column="num_invalid",
          number=lambda counts: int(counts.sum())),
    Field("selected", "S T", "generation", metric=True),
    Field("reevaluated_genome", "S D", "ending", array=True),
    Field("reevaluated_return", "S E", "episodes", array=True, column="reevaluated_return",
          number=_mean, heading="return", style=".4g"),
    Field("reevaluated_success", "S E", "episodes", array=True, column="reevaluated_success",
          number=_mean, heading="success, %", style=PERCENT),
    Field("final_population", "S' N D", "ending", array=True),
    Field("final_x0", "S' N D", "ending", array=True),
    Field("seconds", "S", "call", column="seconds"),
)
# fmt: on

GENERATION = tuple(field for field in FIELDS if field.stage == "generation")
METRICS = tuple(field.name for field in FIELDS if field.metric)
COLUMNS = {field.column: field for field in FIELDS if field.column}
SHOWN = {field.column: field for field in FIELDS if field.heading}
# What METHOD.npz holds of every repeat; an algorithm may leave more with a final population.
ARRAYS = tuple(field.name for field in FIELDS if field.array and field.shape[:2] != "S'")
ENDING = tuple(f.name for f in FIELDS if f.stage == "ending" and f.name in ARRAYS)


def numbers(arrays: Mapping[str, Any]) -> dict[str, float]:
    """Take the number of each column out of one repeat's arrays; of those that it has."""
    row = {}
    for column, field in COLUMNS.items():
        values = arrays.get(field.source or field.name)
        if values is not None:
            row[column] = field.number(np.asarray(values))
    return row


def mean_and_error(values: Any) -> tuple[float, float | None]:
    """Mean over repeats and its standard error; None for a single repeat."""
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
    return float(values.mean()), None if error is None else float(error)
