"""All that a run records, a line each: its name, shape, stage, files, and how tables show it."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from diffevo_jax.tasks.statistics import Statistics

# Episodes of a reevaluation: of the last generation's best individual, its luck taken out.
EPISODES = 100


class Field(NamedTuple):
    """A quantity that a run records.

    name: in METHOD.npz and metrics.csv, which has those of shape "S T".
    shape: over all repeats; S repeats, T generations, N individuals, D genes, E episodes. S' are
        the repeats whose populations are saved.
    stage: "generation", out of each generation's info; "statistic", of each generation's fitness;
        "ending", at the end of a repeat; "episodes", of its reevaluation; "call", of a call.
    array: whether METHOD.npz holds it.
    column: in results.csv and summary.csv, a number a repeat; empty: it is no column.
    number: makes that number of the array `source` of one repeat; NaN where there is none.
    heading, style: how tables show the number; empty: they don't.
    """

    name: str
    shape: str
    stage: str
    array: bool = False
    column: str = ""
    number: Callable[[np.ndarray], float] = float
    source: str = ""
    heading: str = ""
    style: str = ""


QUANTILES = {"min": 0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1}


def describe(fitness: np.ndarray) -> dict[str, Any]:
    """Statistics of one generation over its valid individuals; blank where there are none."""
    valid = fitness[np.isfinite(fitness)]
    values: Iterable[Any] = [""] * (2 + len(QUANTILES))
    if len(valid):
        values = [valid.mean(), valid.std(), *np.quantile(valid, list(QUANTILES.values()))]
        values = map(float, values)
    names = [f"fitness_{name}" for name in ("mean", "std", *QUANTILES)]
    return dict(zip(names, values, strict=True))


def _last_mean(fitness: np.ndarray) -> float:
    valid = fitness[-1][np.isfinite(fitness[-1])]
    return float(valid.mean()) if len(valid) else math.nan


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=float))


MEASURE = "{measure}"  # the heading is what the problem's fitness is called
PERCENT = "%"

# fmt: off
FIELDS = (
    Field("fitness", "S T N", "generation", array=True),
    Field("alpha", "S T", "generation"),
    Field("fitness_mean", "S T", "statistic", column="fitness_mean", number=_last_mean,
          source="fitness", heading=MEASURE, style=".4g"),
    Field("fitness_std", "S T", "statistic"),
    *(Field(f"fitness_{name}", "S T", "statistic") for name in QUANTILES),
    Field("best_genome", "S D", "ending", array=True),
    Field("best_fitness", "S", "ending", array=True, column="fitness_best",
          number=lambda value: float(value) if np.isfinite(value) else math.nan),
    Field("success_rate", "S T", "generation", array=True, column="success_rate",
          number=lambda rates: float(rates[-1]), heading="success, %", style=PERCENT),
    Field("norm_qd_score", "S T", "generation", array=True, column="norm_qd_score",
          number=lambda scores: float(scores[-1]), heading="QD score a cell", style=".4g"),
    Field("coverage", "S T", "generation", array=True, column="coverage",
          number=lambda shares: float(shares[-1]), heading="coverage, %", style=PERCENT),
    Field("effective_sample_size", "S T", "generation"),
    Field("num_invalid", "S T", "generation", column="num_invalid",
          number=lambda counts: int(counts.sum())),
    Field("selected", "S T", "generation"),
    Field("reevaluated_genome", "S D", "ending", array=True),
    Field("reevaluated_return", "S E", "episodes", array=True, column="reevaluated_return",
          number=_mean, heading="return", style=".4g"),
    Field("reevaluated_success", "S E", "episodes", array=True, column="reevaluated_success",
          number=_mean, heading="success, %", style=PERCENT),
    *(Field(f"observation_{name}", "S ...", "ending", array=True)  # of normalised observations
      for name in Statistics._fields),
    Field("final_population", "S' N D", "ending", array=True),
    Field("final_x0", "S' N D", "ending", array=True),
    Field("seconds", "S", "call", column="seconds"),
)
# fmt: on

GENERATION = tuple(field.name for field in FIELDS if field.stage == "generation")
METRICS = tuple(field.name for field in FIELDS if field.shape == "S T")
COLUMNS = {field.column: field for field in FIELDS if field.column}
SHOWN = {column: field for column, field in COLUMNS.items() if field.heading}
# What METHOD.npz holds of every repeat; an algorithm may leave more with a final population.
ARRAYS = tuple(field.name for field in FIELDS if field.array and field.shape[:2] != "S'")
ENDING = tuple(f.name for f in FIELDS if f.stage == "ending" and f.name in ARRAYS)


def numbers(arrays: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """The numbers of the repeats, `[S]`, by column, of those that arrays `[S, ...]` have."""
    sources = {column: arrays.get(f.source or f.name) for column, f in COLUMNS.items()}
    return {
        column: [COLUMNS[column].number(np.asarray(each)) for each in values]
        for column, values in sources.items()
        if values is not None
    }


def metrics(arrays: Mapping[str, np.ndarray], repeat: int, generation: int) -> dict[str, Any]:
    """The numbers of a generation, as a row of metrics.csv has them; arrays: `[S, T, ...]`."""
    row = {key: arrays[key][repeat, generation].item() for key in METRICS if key in arrays}
    row = {key: int(value) if isinstance(value, bool) else value for key, value in row.items()}
    return describe(arrays["fitness"][repeat, generation]) | row


def mean_and_error(values: Any) -> tuple[float, float | None]:
    """Mean over repeats and its standard error; None for a single repeat."""
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
    return float(values.mean()), None if error is None else float(error)
