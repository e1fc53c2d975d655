"""A sweep at a glance: mean and standard error of each point and method, and a figure of them."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from diffevo_jax.runner import folders, sweep_job, words
from diffevo_jax.runner.config import ConfigError
from diffevo_jax.runner.display import percent, plus_minus
from diffevo_jax.runner.program import EPISODES
from diffevo_jax.runner.repeats import mean_and_error
from diffevo_jax.runner.style import STYLE, Look, looks
from diffevo_jax.runner.sweep_config import Sweep, load_sweep

MOST_ROWS = 24  # of the table on the console; summary.csv has all
MOST_LINES, MOST_PANELS = 8, 12  # of the figure
_VALUES = ("fitness_mean", "fitness_best", "success_rate", "reevaluated_return")
_VALUES += ("reevaluated_success",)


class Unfinished(ConfigError):
    """A sweep of which no point has finished."""


class Row(NamedTuple):
    """A point and method over its repeats.

    settings: of those that vary in the sweep, as texts. label: of the method. problem: its section.
    values: mean and standard error, by the columns of results.csv; without those that are blank.
    """

    point: int
    settings: dict[str, Any]
    method: str
    label: str
    problem: Any
    repeats: int
    values: dict[str, tuple[float, float | None]]


def read(folder: Path) -> tuple[Sweep, list[Row]]:
    """Read a sweep's finished points. Raises ConfigError where there are none."""
    loaded = load_sweep(folder / "config.yaml")
    varied = _varied(
        [folders.flat(point.settings) for point in loaded.points],
        drawn=loaded.section.random is not None,
    )
    rows = []
    for point in loaded.points:
        record = sweep_job.read_record(folder, point)
        if record is None or record.status != "finished":
            continue
        settings = folders.flat(point.settings)
        for name, method in point.config.methods.items():
            mine = [row for row in record.rows if row["method"] == name]
            found = {key: [row[key] for row in mine if row.get(key) is not None] for key in _VALUES}
            values = {key: mean_and_error(each) for key, each in found.items() if each}
            told = {key: settings.get(key) for key in varied}
            rows.append(
                Row(point.number, told, name, method.label, method.problem, len(mine), values)
            )
    if not rows:
        raise Unfinished(
            f"{folder}: no point of this sweep has finished; `diffevo-jax sweep "
            f"{folder / 'config.yaml'} --out {folder}` goes on with it"
        )
    return loaded, rows


def _varied(points: Sequence[dict[str, Any]], *, drawn: bool) -> list[str]:
    """Settings that vary, without those that follow from one before them.

    drawn: each by itself, so that none does.
    """
    texts = {
        key: [_text(settings.get(key)) for settings in points]
        for key in dict.fromkeys(key for settings in points for key in settings)
    }

    def follows(key: str, other: str) -> bool:
        return len({*zip(texts[other], texts[key], strict=True)}) == len({*texts[other]})

    found: list[str] = []
    for key, each in texts.items():
        if len({*each}) > 1 and (drawn or not any(follows(key, other) for other in found)):
            found.append(key)
    return found or list(texts)[:1]


def summarise(folder: Path) -> Iterator[Any]:
    """Write summary.csv and figure.png and .pdf; yields lines and tables on them."""
    loaded, rows = read(folder)
    columns = list(rows[0].settings)
    _write(folder / "summary.csv", columns, rows)
    yield f"\n{loaded.data.get('description', loaded.name)}"
    measures = {words.measure(row.problem) for row in rows}
    measure = measures.pop() if len(measures) == 1 else "fitness"
    yield "Last generation, mean ± standard error over repeats" + (
        f"; best: its best individual over {EPISODES} fresh episodes"
        if any("reevaluated_return" in row.values for row in rows)
        else ""
    )
    yield _table(columns, rows, measure)
    if len(rows) > MOST_ROWS:
        yield f"{MOST_ROWS} of {len(rows)} rows; all are in {folder / 'summary.csv'}"
    yield from _draw(folder, loaded, columns, rows, measure)


def show(folder: Path, console: Any, *, if_any: bool = False) -> None:
    """Print what `summarise` says. if_any: nothing where no point has finished, else an error."""
    try:
        for line in summarise(folder):
            console.print(line)
    except Unfinished:
        if not if_any:
            raise


def _write(path: Path, columns: list[str], rows: Sequence[Row]) -> None:
    names = [f"{key}{end}" for key in _VALUES for end in ("", "_error")]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, ["point", *columns, "method", "repeats", *names], lineterminator="\n"
    )
    writer.writeheader()
    for row in rows:
        found = {key: value for key, (value, _) in row.values.items()}
        found |= {f"{key}_error": error for key, (_, error) in row.values.items()}
        told = {key: _text(value) for key, value in row.settings.items()}
        writer.writerow(
            {"point": row.point, **told, "method": row.method, "repeats": row.repeats, **found}
        )
    folders.write_whole(path, text.getvalue())


def _table(columns: list[str], rows: Sequence[Row], measure: str) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    methods = len({row.method for row in rows}) > 1
    kinds = [key for key in ("success_rate", "reevaluated_return", "reevaluated_success")
             if any(key in row.values for row in rows)]  # fmt: skip
    short = _short(columns)
    for heading in (*short.values(), *(["method"] if methods else [])):
        shown.add_column(heading, overflow="fold")
    names = {"success_rate": "success, %", "reevaluated_return": "best, return"}
    names |= {"reevaluated_success": "best, success, %"}
    for heading in (measure, *(names[kind] for kind in kinds)):
        shown.add_column(heading, justify="right")
    for row in rows[:MOST_ROWS]:
        cells = [_text(row.settings[key]) for key in columns]
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


# The figure


class _Axis(NamedTuple):
    """What a panel has along x.

    places: by the texts of the setting. numeric: whether these are numbers. points: places by the
    numbers of points, where they are the axis. joined: whether lines join them.
    """

    key: str
    places: dict[str, float]
    numeric: bool
    points: dict[int, float] | None = None
    joined: bool = True

    def place(self, row: Row) -> float:
        """Where a row is."""
        if self.points is not None:
            return self.points[row.point]
        return self.places[_text(row.settings[self.key])]


def _draw(
    folder: Path, loaded: Sweep, columns: list[str], rows: Sequence[Row], measure: str
) -> Iterator[str]:
    import matplotlib
    from matplotlib.figure import Figure

    value = "success_rate" if all("success_rate" in row.values for row in rows) else "fitness_mean"
    rows = [row for row in rows if value in row.values]
    if not rows:
        yield "note: no figure; no point has fitness that is a number"
        return
    ylabel = "success, %" if value == "success_rate" else f"mean {measure}"
    short = _short(columns)
    panels = _panels(loaded, columns, rows)
    if len(panels) > MOST_PANELS:
        yield f"note: the figure shows {MOST_PANELS} of {len(panels)} panels"
        panels = panels[:MOST_PANELS]
    across = min(len(panels), 3 if len(panels) > 4 else 2)
    down = math.ceil(len(panels) / across)
    with matplotlib.rc_context(STYLE):
        size = (6.2 if across == 1 else 4.4 * across, 3.8 if down == 1 else 3.1 * down)
        canvas = Figure(figsize=size, layout="constrained")
        grid = canvas.subplots(down, across, squeeze=False).ravel()
        for spare in grid[len(panels) :]:
            spare.set_axis_off()
        for number, (axes, (title, axis, lines)) in enumerate(zip(grid, panels, strict=False)):
            look = _looks(loaded, lines)
            for k, (label, mine) in enumerate(lines.items()):
                _line(axes, axis, mine, value, look[label], label, shift=k - (len(lines) - 1) / 2)
            if axis.numeric and _spans_decades(axis.places.values()):
                axes.set_xscale("log")
            if not axis.numeric:
                axes.set_xticks(list(axis.places.values()), list(axis.places))
                axes.set_xlim(-0.5, len(axis.places) - 0.5)
                if max(map(len, axis.places)) * len(axis.places) > 36:
                    axes.tick_params(axis="x", labelrotation=30)
            axes.set_xlabel(short.get(axis.key, axis.key))
            axes.set_ylabel(ylabel)
            axes.set_title(title, loc="left", fontsize=10)
            if len(lines) > 1 and number == 0:
                axes.legend(frameon=False, fontsize=8.5)
        paths = [folder / "figure.png", folder / "figure.pdf"]
        for path in paths:
            canvas.savefig(path, dpi=200)
            yield str(path)


def _panels(
    loaded: Sweep, columns: list[str], rows: Sequence[Row]
) -> list[tuple[str, _Axis, dict[str, list[Row]]]]:
    """(title, x axis, lines by label) of each panel."""
    short = _short(columns)
    methods = len({row.method for row in rows}) > 1
    if loaded.section.random is not None:  # each setting that is drawn, over all points
        return [
            ("", _axis(key, rows)._replace(joined=False), _lines([], rows, methods, short))
            for key in columns
        ]
    if loaded.section.list is not None:  # points need have nothing in common
        points = {row.point: row for row in rows}
        names = [_name(columns, row, short) for row in points.values()]
        names = [
            f"{n}: {t}" if names.count(t) > 1 else t for n, t in zip(points, names, strict=True)
        ]
        places = {name: float(i) for i, name in enumerate(names)}
        axis = _Axis("point", places, False, dict(zip(points, places.values(), strict=True)))
        return [("", axis, _lines([], rows, methods, short))]
    # Other problems are measured otherwise: a panel each.
    apart = [
        key for key in columns
        if key.startswith("problem.")
        and key.split(".")[1] not in words.HOW.get(words.get(rows[0].problem, "kind"), ())
        and not _axis(key, rows).numeric
    ]  # fmt: skip
    left = [key for key in columns if key not in apart] or apart[-1:]
    apart = [key for key in apart if key not in left]
    along = max(left, key=lambda key: (_axis(key, rows).numeric, len(_axis(key, rows).places)))
    others = [key for key in left if key != along]
    while (
        others
        and len({_name(others, row, short) + methods * row.label for row in rows}) > MOST_LINES
    ):
        widest = max(others, key=lambda key: len(_axis(key, rows).places))
        others.remove(widest)
        apart.append(widest)
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(_name(apart, row, short), []).append(row)
    axis = _axis(along, rows)
    return [(title, axis, _lines(others, mine, methods, short)) for title, mine in grouped.items()]


def _axis(key: str, rows: Sequence[Row]) -> _Axis:
    values = list({_text(row.settings[key]): row.settings[key] for row in rows}.items())
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for _, v in values)
    places = {text: float(value) if numeric else float(i) for i, (text, value) in enumerate(values)}
    return _Axis(key, places, numeric)


def _lines(
    keys: list[str], rows: Sequence[Row], methods: bool, short: dict[str, str]
) -> dict[str, list[Row]]:
    """Rows by the labels of their lines."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        label = ", ".join(
            [*([row.label] if methods else []), *filter(None, [_name(keys, row, short)])]
        )
        found.setdefault(label, []).append(row)
    return found


def _name(columns: list[str], row: Row, short: dict[str, str]) -> str:
    """Name some settings of a row: words as they are, numbers with their settings."""
    told = [(short[key], row.settings[key]) for key in columns if row.settings[key] is not None]
    return ", ".join(v if isinstance(v, str) else f"{name} {_text(v)}" for name, v in told)


def _looks(loaded: Sweep, lines: dict[str, list[Row]]) -> dict[str, Look]:
    """A method keeps its colour where lines are methods; others take them in order."""
    names = [mine[0].method for mine in lines.values()]
    names = names if len(set(names)) == len(names) else list(lines)
    return dict(zip(lines, looks(names).values(), strict=True))


def _line(
    axes: Any, axis: _Axis, rows: list[Row], value: str, look: Look, label: str, *, shift: float
):
    """Means with their standard errors, side by side where x is no number."""
    factor = 100 if value == "success_rate" else 1
    points = [(axis.place(row), *row.values[value]) for row in rows]
    x, y, error = (np.array([np.nan if n is None else n for n in each]) for each in zip(*sorted(
        points, key=lambda point: point[0]), strict=True))  # fmt: skip
    joined = "-" if axis.numeric and axis.joined else ""
    axes.errorbar(
        x + (0 if axis.numeric else 0.08 * shift), factor * y, factor * np.nan_to_num(error),
        color=look.colour, marker=look.marker, linestyle=joined, markersize=4.5, capsize=2.5,
        linewidth=1.3, label=label,
    )  # fmt: skip


def _spans_decades(places: Any) -> bool:
    low, high = min(places), max(places)
    return low > 0 and high / low >= 30


def _short(columns: list[str]) -> dict[str, str]:
    """Settings by the fewest last keys that tell them apart, in words."""
    found = {}
    for key in columns:
        parts = key.split(".")
        tails = [parts[-count:] for count in range(1, len(parts) + 1)]
        alone = [
            tail
            for tail in tails
            if sum(other.split(".")[-len(tail) :] == tail for other in columns) == 1
        ]
        found[key] = " ".join((alone or tails)[0]).replace("_", " ")
    return found


def _text(value: Any) -> str:
    """A setting as a config has it, a drawn number to four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
