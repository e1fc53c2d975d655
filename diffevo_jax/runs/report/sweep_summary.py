"""A sweep at a glance: its table, on the console and as summary.csv, and its figure."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.report import sweep_figure
from diffevo_jax.runs.report.display import percent, plus_minus
from diffevo_jax.runs.results import files as folders
from diffevo_jax.runs.results.sweep_rows import VALUES, Row, Unfinished, read, short, text
from diffevo_jax.runs.run.program import EPISODES

MOST_ROWS = 24  # of the table on the console; summary.csv has all


def summarise(folder: Path) -> Iterator[Any]:
    """Write summary.csv and figure.png and .pdf; yields lines and tables on them."""
    loaded, rows = read(folder)
    columns = list(rows[0].settings)
    _write(folder / "summary.csv", columns, rows)
    yield f"\n{loaded.data.get('description', loaded.name)}"
    measures = {registry.measure(row.problem) for row in rows}
    measure = measures.pop() if len(measures) == 1 else "fitness"
    yield "Last generation, mean ± standard error over repeats" + (
        f"; best: its best individual over {EPISODES} fresh episodes"
        if any("reevaluated_return" in row.values for row in rows)
        else ""
    )
    yield _table(columns, rows, measure)
    if len(rows) > MOST_ROWS:
        yield f"{MOST_ROWS} of {len(rows)} rows; all are in {folder / 'summary.csv'}"
    yield from sweep_figure.draw(folder, loaded, columns, rows, measure)


def show(folder: Path, console: Any, *, if_any: bool = False) -> None:
    """Print what `summarise` says. if_any: nothing where no point has finished, else an error."""
    try:
        for line in summarise(folder):
            console.print(line)
    except Unfinished:
        if not if_any:
            raise


def _write(path: Path, columns: list[str], rows: Sequence[Row]) -> None:
    names = [f"{key}{end}" for key in VALUES for end in ("", "_error")]
    written = io.StringIO()
    writer = csv.DictWriter(
        written, ["point", *columns, "method", "repeats", *names], lineterminator="\n"
    )
    writer.writeheader()
    for row in rows:
        found = {key: value for key, (value, _) in row.values.items()}
        found |= {f"{key}_error": error for key, (_, error) in row.values.items()}
        told = {key: text(value) for key, value in row.settings.items()}
        writer.writerow(
            {"point": row.point, **told, "method": row.method, "repeats": row.repeats, **found}
        )
    folders.write_whole(path, written.getvalue())


def _table(columns: list[str], rows: Sequence[Row], measure: str) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    methods = len({row.method for row in rows}) > 1
    kinds = [key for key in ("success_rate", "reevaluated_return", "reevaluated_success")
             if any(key in row.values for row in rows)]  # fmt: skip
    named = short(columns)
    for heading in (*named.values(), *(["method"] if methods else [])):
        shown.add_column(heading, overflow="fold")
    names = {"success_rate": "success, %", "reevaluated_return": "best, return"}
    names |= {"reevaluated_success": "best, success, %"}
    for heading in (measure, *(names[kind] for kind in kinds)):
        shown.add_column(heading, justify="right")
    for row in rows[:MOST_ROWS]:
        cells = [text(row.settings[key]) for key in columns]
        cells += [row.label] if methods else []
        cells.append(
            plus_minus(row.values["fitness_mean"], ".4g") if "fitness_mean" in row.values else "-"
        )
        for kind in kinds:
            value = row.values.get(kind)
            if kind == "reevaluated_return":
                cells.append("-" if value is None else plus_minus(value, ".4g"))
            else:
                cells.append(percent(value))
        shown.add_row(*(Text(cell) for cell in cells))
    return shown
