"""What a minimisation or a maximisation returns, and how it prints."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffevo_jax.drawings.search import draw_search
from diffevo_jax.optimize.table import numbers, to_pandas

# Optima are as good as the best within this share of what costs span, but for the worst tenth.
AS_GOOD = 1e-5


class Optimum(NamedTuple):
    """One of the optima of `minimize`: its parameters, as the function takes them, and cost."""

    x: Any
    cost: Any


class Maximum(NamedTuple):
    """One of the optima of `maximize`: its parameters, and its value."""

    x: Any
    value: Any


class Result(NamedTuple):
    """The best of a minimisation, and everything that was evaluated.

    x: the best parameters, as the cost function takes them: `[D]`, or the template's structure.
    cost: their cost, a number; NaN where no evaluation gave one.
    evaluations: M, how often the cost function was called.
    population: all that was evaluated, `[M, D]`, or in the template's structure, leaves `[M, ...]`.
    costs: `[M]`, in the same order; NaN for failures.
    optima: with optima="all" the distinct optima, best first, worse local ones too; else the best.
    global_optima: those of them that are as good as the best.
    history: evaluations so far, and the best cost of them, `[G, 2]`, after each generation.
    failures: evaluations that raised, or gave no finite number.
    message: why it ended, and what was wrong.
    standard_error: of `cost`, with noisy=True, where it is the mean of evaluations that did not
        choose x; else NaN.
    feasible: `[M]`, bool, whether the constraints hold.
    table: the parameters by name, `[M]` each: what a template's population is as columns.
    """

    x: Any
    cost: float
    evaluations: int
    population: Any
    costs: np.ndarray
    optima: tuple[Optimum, ...]
    history: np.ndarray
    failures: int
    message: str
    standard_error: float
    feasible: np.ndarray
    table: dict[str, np.ndarray]

    @property
    def global_optima(self) -> tuple[Optimum, ...]:
        """Those of `optima` that are as good as the best: within 1e-5 of what costs span.

        The span is from the best to what nine tenths of the evaluations are below.
        """
        most = _as_good(self.costs, self.cost)
        return tuple(optimum for optimum in self.optima if optimum.cost <= most)

    def __repr__(self) -> str:
        """Show the best on a few lines, without the arrays."""
        return _lines(self, "cost", self.cost, [optimum.cost for optimum in self.optima])

    def to_pandas(self) -> Any:
        """Make a DataFrame: a row an evaluation, a column a parameter, "cost" and "feasible"."""
        return to_pandas(self.table, {"cost": self.costs, "feasible": self.feasible})

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the search, into NAME.png, .pdf or .svg if given; returns matplotlib's figure.

        Progress; the best evaluations; importance of the parameters, by a random forest; slices.
        """
        columns = {name: numbers(values) for name, values in self.table.items()}
        return draw_search(columns, self.costs, feasible=self.feasible, path=path)


class MaximizeResult(NamedTuple):
    """The best of a maximisation, and everything that was evaluated: `Result` with values."""

    x: Any
    value: float
    evaluations: int
    population: Any
    values: np.ndarray
    optima: tuple[Maximum, ...]
    history: np.ndarray
    failures: int
    message: str
    standard_error: float
    feasible: np.ndarray
    table: dict[str, np.ndarray]

    @property
    def global_optima(self) -> tuple[Maximum, ...]:
        """Those of `optima` that are as good as the best, as in `Result`."""
        most = _as_good(-self.values, -self.value)
        return tuple(optimum for optimum in self.optima if -optimum.value <= most)

    def __repr__(self) -> str:
        """Show the best on a few lines, without the arrays."""
        return _lines(self, "value", self.value, [optimum.value for optimum in self.optima])

    def to_pandas(self) -> Any:
        """Make a DataFrame: a row an evaluation, a column a parameter, "value" and "feasible"."""
        return to_pandas(self.table, {"value": self.values, "feasible": self.feasible})

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the search, into NAME.png, .pdf or .svg if given; returns matplotlib's figure.

        Progress; the best evaluations; importance of the parameters, by a random forest; slices.
        """
        columns = {name: numbers(values) for name, values in self.table.items()}
        settings: Any = {"feasible": self.feasible, "label": "value", "highest": True}
        return draw_search(columns, self.values, **settings, path=path)


def in_values(result: Result) -> MaximizeResult:
    """Turn the result of minimising the negative into that of a maximisation."""
    optima = tuple(Maximum(optimum.x, -optimum.cost) for optimum in result.optima)
    return MaximizeResult(
        x=result.x,
        value=-result.cost,
        evaluations=result.evaluations,
        population=result.population,
        values=-result.costs,
        optima=optima,
        history=result.history * np.array([1, -1]),
        failures=result.failures,
        message=result.message,
        standard_error=result.standard_error,
        feasible=result.feasible,
        table=result.table,
    )


def _as_good(costs: np.ndarray, best: float) -> float:
    costs = costs[np.isfinite(costs)]
    span = np.quantile(costs, 0.9) - best if len(costs) else 0.0
    return best + AS_GOOD * max(0.0, float(span))


def _lines(result: Result | MaximizeResult, name: str, best: float, optima: list[float]) -> str:
    error = f" ± {result.standard_error:.2g}" if result.standard_error > 0 else ""
    lines = [
        f"{name:11}  {best:.6g}{error}",
        f"x            {_short(result.x)}",
        f"evaluations  {result.evaluations} ({result.failures} failed)",
    ]
    if len(optima) > 1:
        first = ", ".join(f"{value:.6g}" for value in optima[:5])
        more = ", ..." if len(optima) > 5 else ""
        lines.append(f"optima       {len(optima)} of {name} {first}{more}")
    return "\n".join([*lines, f"message      {result.message}"])


def _short(x: Any) -> str:
    """Put parameters on one line: a plain array, or name=value for those of a template."""
    if isinstance(x, np.ndarray):
        return np.array2string(x, precision=5, threshold=12, edgeitems=3).replace("\n", "")
    leaves, _ = jax.tree_util.tree_flatten_with_path(x)
    return ", ".join(
        f"{jax.tree_util.keystr(path, simple=True, separator='/')}=" + _leaf(leaf)
        for path, leaf in leaves
    )


def _leaf(leaf: Any) -> str:
    if isinstance(leaf, np.ndarray | jax.Array) and np.ndim(leaf):
        return _short(np.asarray(leaf))
    return f"{leaf:.5g}" if isinstance(leaf, float | np.floating) else str(leaf)
