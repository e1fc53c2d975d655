"""A search's journal, read while it is written or after: lines, a table, a picture."""

import csv
import io
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffevo_jax.checks import InputError
from diffevo_jax.drawings.search import draw_search
from diffevo_jax.optimize import journal, table
from diffevo_jax.runs.results.files import write_whole


class Evaluations(NamedTuple):
    """A journal's evaluations as columns.

    label: "cost", or "value" of a maximisation. budget: evaluations in all, None before the first.
    columns: a parameter each, `[M]`. costs: `[M]`, NaN for failures. seconds: `[M]`, NaN where
    they are not known. errors: M, what they raised, "" for nothing.
    broken: by how much constraints that the cost function returns are broken, `[M]`; 0 without.
    is_constrained: whether it returns some.
    """

    label: str
    budget: int | None
    columns: dict[str, np.ndarray]
    costs: np.ndarray
    seconds: np.ndarray
    errors: list[str]
    broken: np.ndarray
    is_constrained: bool


def load(path: Path) -> Evaluations:
    """Read a journal. Raises InputError on a file that is none, or has lines of others; OSError."""
    try:
        header, records = journal.read_search(path)
    except FileNotFoundError:
        expected = "the file that `journal=` of de.minimize names"
        raise InputError("journal", expected, f"no file {path}") from None
    before, budget = 0, None
    for record in records:
        before = record.get("restart", before)
        budget = before + record["evaluations"] if "evaluations" in record else budget
    records = [record for record in records if "x" in record]
    names = list(dict.fromkeys(each["name"] for each in header["parameters"]))
    points = [record["x"] for record in records]
    points = [x if isinstance(x, dict) else dict(zip(names, x, strict=True)) for x in points]
    broken = np.array([record.get("broken", 0.0) for record in records], float)
    return Evaluations(
        label="value" if header["maximize"] else "cost",
        budget=budget,
        columns={name: table.numbers([point.get(name) for point in points]) for name in names},
        costs=np.array([record["cost"] for record in records], float),
        seconds=np.array([record.get("seconds") for record in records], float),
        errors=[record.get("error", "") for record in records],
        broken=np.where(np.isnan(broken), np.inf, broken),  # JSON has no infinity
        is_constrained=header["constraints"] == "returned",
    )


def lines(path: Path, loaded: Evaluations) -> list[str]:
    """Say what a journal holds: evaluations, failures, time, the best and its parameters."""
    costs, has_cost = loaded.costs, ~np.isnan(loaded.costs)
    notes = [f"{np.sum(~has_cost)} failed"]
    if loaded.is_constrained:
        notes.append(f"{np.sum(has_cost & (loaded.broken > 0))} infeasible")
    of = "" if loaded.budget is None else f" of {loaded.budget}"
    shown = [("evaluations", f"{len(costs)}{of} ({', '.join(notes)})")]
    first = next(filter(None, loaded.errors), "")
    if first:
        shown.append(("first failure", first.splitlines()[0]))
    timed = loaded.seconds[~np.isnan(loaded.seconds)]
    of = "" if len(timed) == len(costs) else f"{len(timed)} of the "
    spent = f"{_duration(timed.sum())} in {of}evaluations, " if len(timed) else ""
    written = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(path.stat().st_mtime))
    shown.append(("time", f"{spent}the last one at {written}"))
    if has_cost.any():
        # Feasible ones first, then those that break the least.
        upwards = -costs if loaded.label == "value" else costs
        best = np.lexsort((upwards, loaded.broken, ~has_cost))[0]
        by = loaded.broken[best]
        note = f"; none is feasible, it breaks constraints by {by:.3g}" if by > 0 else ""
        shown.append((f"best {loaded.label}", f"{costs[best]:.6g}, evaluation {best + 1}{note}"))
        columns = loaded.columns.items()
        shown += [(f"  {name}", _text(values[best]) or "none") for name, values in columns]
    width = max(len(name) for name, _ in shown)
    return [f"{name:<{width}}  {text}" for name, text in shown]


def write_csv(path: Path, loaded: Evaluations) -> None:
    """Write a row an evaluation: parameters, cost or value, and what else is known of it."""
    answers: dict[str, Any] = {loaded.label: loaded.costs}
    if loaded.is_constrained:
        answers["feasible"] = loaded.broken == 0
    if not np.isnan(loaded.seconds).all():
        answers["seconds"] = loaded.seconds
    if any(loaded.errors):
        answers["error"] = loaded.errors
    columns = table.with_answers(loaded.columns, answers)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    cells = ([_text(each) for each in column] for column in columns.values())
    writer.writerows(zip(*cells, strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue())


def draw(path: Path, loaded: Evaluations) -> None:
    """Draw the four panels of `Result.plot`."""
    draw_search(
        loaded.columns,
        loaded.costs,
        feasible=loaded.broken == 0,
        label=loaded.label,
        highest=loaded.label == "value",
        path=path,
    )


def _text(value: Any) -> str:
    """Write a number to the bit, and nothing where there is none."""
    value = value.item() if isinstance(value, np.generic) else value
    return "" if value is None or value != value else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.1f} min" if minutes < 60 else f"{hours:.1f} h"
