"""What a minimisation leaves, and how it prints."""

from typing import Any, NamedTuple

import jax
import numpy as np


class Optimum(NamedTuple):
    """One of the optima: its parameters, as the cost function takes them, and its cost."""

    x: Any
    cost: Any


class Result(NamedTuple):
    """The best that was found, and everything that was evaluated; of `maximize` costs are values.

    x: the best parameters, as the cost function takes them: `[D]`, or the template's structure.
    cost: theirs, a number; NaN where no evaluation has given one.
    evaluations: M, how often the cost function was called.
    population: all that was evaluated, `[M, D]`, or in the template's structure, leaves `[M, ...]`.
    costs: `[M]`, in the same order; NaN for failures.
    optima: with optima="all" the distinct optima, best first; else the best alone.
    history: evaluations so far, and the best cost of them, `[G, 2]`, after each generation.
    failures: evaluations that raised, or gave no finite number.
    message: why it ended, and what was wrong.
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

    def __repr__(self) -> str:
        """Show the best on a few lines, without the arrays."""
        lines = [
            f"cost         {self.cost:.6g}",
            f"x            {_short(self.x)}",
            f"evaluations  {self.evaluations} ({self.failures} failed)",
        ]
        if len(self.optima) > 1:
            costs = ", ".join(f"{optimum.cost:.6g}" for optimum in self.optima[:5])
            more = ", ..." if len(self.optima) > 5 else ""
            lines.append(f"optima       {len(self.optima)} of cost {costs}{more}")
        return "\n".join([*lines, f"message      {self.message}"])


def _short(x: Any) -> str:
    """Parameters on one line: a plain array, or name=value for those of a template."""
    if isinstance(x, np.ndarray):
        return np.array2string(x, precision=5, threshold=12, edgeitems=3).replace("\n", "")
    found, _ = jax.tree_util.tree_flatten_with_path(x)
    return ", ".join(
        f"{jax.tree_util.keystr(path, simple=True, separator='/')}="
        + (f"{leaf:.5g}" if np.ndim(leaf) == 0 else _short(np.asarray(leaf)))
        for path, leaf in found
    )
