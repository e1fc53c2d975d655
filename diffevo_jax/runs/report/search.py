"""A search's journal, read while it is written or after: lines, a table, a picture."""

import csv
import io
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffevo_jax.drawings.search import draw_search
from diffevo_jax.optimize import journal, table
from diffevo_jax.runs.results.files import write_whole


class Evaluations(NamedTuple):
    """A journal's records as columns.

    header: as it is. columns: a parameter each, `[M]`. costs: `[M]`, NaN for failures; values
    where the header says maximize. records: as they are.
    """

    header: dict
    columns: dict[str, np.ndarray]
    costs: np.ndarray
    records: list[dict]

    @property
    def label(self) -> str:
        """What a cost is called."""
        return "value" if self.header.get("maximize") else "cost"


def load(path: Path) -> Evaluations:
    """Read a journal. Raises InputError on a file that is none, OSError."""
    header, records = journal.read(path)
    costs = np.array([record.get("cost") for record in records], float)
    columns = table.columns_of([record.get("x") for record in records])
    return Evaluations(header, columns, costs, records)


def lines(path: Path, loaded: Evaluations) -> list[str]:
    """Say what a journal holds: evaluations, failures, time, the best and its parameters."""
    count, total = len(loaded.records), loaded.header.get("evaluations")
    failures = [record for record in loaded.records if record.get("cost") is None]
    of = f" of {total}" if total else ""
    shown = [("evaluations", f"{count}{of} ({len(failures)} failed)")]
    errors = [record["error"] for record in failures if record.get("error")]
    if errors:
        shown.append(("first failure", errors[0].strip().splitlines()[-1]))
    spent = sum(record.get("seconds") or 0 for record in loaded.records)
    written = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(path.stat().st_mtime))
    evaluating = f"{_duration(spent)} in evaluations, " if spent else ""
    shown.append(("time", f"{evaluating}the last one at {written}"))
    if len(failures) < count:
        best = int((np.nanargmax if loaded.header.get("maximize") else np.nanargmin)(loaded.costs))
        shown.append((f"best {loaded.label}", f"{loaded.costs[best]:.6g}, evaluation {best + 1}"))
        shown += [(f"  {name}", _text(values[best])) for name, values in loaded.columns.items()]
    width = max(len(name) for name, _ in shown)
    return [f"{name:<{width}}  {text}" for name, text in shown]


def write_csv(path: Path, loaded: Evaluations) -> None:
    """Write a row an evaluation: parameters, cost or value, and seconds and error where known."""
    columns: dict[str, Any] = table.with_costs(loaded.columns, loaded.label, loaded.costs)
    for name in ("seconds", "error"):
        if any(name in record for record in loaded.records):
            columns[name] = [record.get(name) for record in loaded.records]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    cells = ([_text(each) for each in column] for column in columns.values())
    writer.writerows(zip(*cells, strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue())


def draw(path: Path, loaded: Evaluations) -> None:
    """Draw the four panels of `Result.plot`."""
    highest = loaded.label == "value"
    draw_search(loaded.columns, loaded.costs, label=loaded.label, highest=highest, path=path)


def _text(value: Any) -> str:
    """Write a number to the bit, and nothing where there is none."""
    value = value.item() if isinstance(value, np.generic) else value
    return "" if value is None or value != value else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.1f} min" if minutes < 60 else f"{hours:.1f} h"
