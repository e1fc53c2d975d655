"""Points whose costs are known before a search: pairs, a table, a journal, a study of Optuna."""

from collections.abc import Iterable, Iterator
from os import PathLike
from typing import Any

import numpy as np

from diffevo_jax.checks import InputError
from diffevo_jax.optimize.arrays import CostSamples
from diffevo_jax.optimize.space import Space, flat, point_of
from diffevo_jax.optimize.table import moved_names


def known_records(space: Space, records: list[dict[str, Any]]) -> CostSamples:
    """Read the records of a journal, without those that broke constraints: values and costs."""
    return known_points(space, list(_evaluations(space, records)), argument="journal")


def known_points(
    space: Space, known: Any, direction: str = "minimize", argument: str = "known"
) -> CostSamples:
    """Read what is known: values `[K, P]` and costs `[K]`, without those that have no finite cost.

    known: (x, cost) pairs, x as the cost function takes it; a pandas table, one column a parameter
        and `cost`; the path of a journal; a study of Optuna, whose values are the costs.
    direction: "minimize" or "maximize", as a journal or a study has to do; a table's column `cost`
        or `value` comes first. argument: its name in errors.

    Raises InputError naming the first point that is not in the space.
    """
    if isinstance(known, CostSamples):  # read before
        return known
    pairs = [] if known is None else list(_pairs(space, known, direction))
    x, costs = np.empty((len(pairs), space.num_values)), np.empty(len(pairs))
    for place, (point, cost) in enumerate(pairs):
        try:
            x[place] = flat(space, point)
            costs[place] = np.nan if cost is None else cost
        except InputError as error:
            raise InputError(f"{argument}, point {place}", error.expected, error.seen) from None
        except (TypeError, ValueError):
            path = f"{argument}, cost of point {place}"
            raise InputError(path, "a number", f"{cost!r:.60}") from None
    has_cost = np.isfinite(costs)
    return CostSamples(x[has_cost], costs[has_cost])


def _pairs(space: Space, known: Any, direction: str) -> Iterable[tuple[Any, Any]]:
    if isinstance(known, str | PathLike):
        from diffevo_jax.optimize.journal import read_search

        try:
            header, records = read_search(known)
        except OSError as error:
            seen = f"{known}: {error.strerror}"
            raise InputError("known", "the path of a journal", seen) from None
        there = "maximize" if header.get("maximize") else "minimize"
        if there != direction:
            mend = f"call {there}, or hand its points over as (x, cost) pairs"
            expected = f"the journal of a search to {direction}"
            raise InputError("known", expected, f"that of one to {there}", mend)
        return _evaluations(space, records)
    if hasattr(known, "trials"):
        directions = [each.name.lower() for each in known.directions]
        if directions != [direction]:
            mend = f"call {directions[0]}" if len(directions) == 1 else ""
            expected = f"a study of one value, to {direction}"
            raise InputError("known", expected, " and ".join(directions), mend)
        # A pruned trial has a value too, that of a part of its training.
        done = (trial for trial in known.trials if trial.state.name == "COMPLETE")
        return ((point_of(space, trial.params), trial.values[0]) for trial in done)
    if hasattr(known, "to_dict") and hasattr(known, "columns"):
        return _rows(space, known, direction)
    try:
        pairs = [(x, cost) for x, cost in known]
    except (TypeError, ValueError):
        expected = "(x, cost) pairs, a table, the path of a journal, or a study of Optuna"
        raise InputError("known", expected, f"{known!r:.60}") from None
    return pairs


def _rows(space: Space, known: Any, direction: str) -> Iterator[tuple[Any, Any]]:
    """Make pairs of a pandas table, whose columns beside the parameters are what they gave."""
    moved = moved_names(space.names, known.columns)
    answers = set(known.columns) - (set(space.names) - moved)
    names = ("value", "cost") if direction == "maximize" else ("cost", "value")
    name = next((name for name in names if name in answers), None)
    if name is None:
        expected = "a table with a column cost, or value to maximize"
        clash = [name for name in names if name in known.columns]
        mend = f"call the column of the parameter {clash[0]} x/{clash[0]}" if clash else ""
        raise InputError("known", expected, list(known.columns), mend)
    for row in known.to_dict(orient="records"):
        if "feasible" not in answers or row["feasible"]:
            x = point_of(space, row | {parameter: row[f"x/{parameter}"] for parameter in moved})
            yield x, row[name]


def _evaluations(space: Space, records: list[dict[str, Any]]) -> Iterator[tuple[Any, Any]]:
    """Make pairs of a journal's records, whose points are lists of numbers, or values by name."""
    for record in records:
        if "x" in record and record.get("broken", 0) == 0:  # null is infinite
            x = record["x"]
            yield point_of(space, x) if isinstance(x, dict) else x, record["cost"]
