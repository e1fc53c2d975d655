"""A figure of a sweep: what its settings do, a panel for what is measured alike."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffevo_jax.drawings.style import STYLE, Look, looks
from diffevo_jax.runs.config.experiment import Experiment
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.results.sweep_rows import Row, short, text

MOST_LINES, MOST_PANELS = 8, 12


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
        return self.places[text(row.settings[self.key])]


def draw(
    folder: Path, loaded: Experiment, columns: list[str], rows: Sequence[Row], measure: str
) -> Iterator[str]:
    """Draw figure.png and .pdf; yields their paths and what they leave out."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    value = "success_rate" if all("success_rate" in row.values for row in rows) else "fitness_mean"
    rows = [row for row in rows if value in row.values]
    if not rows:
        yield "note: no figure; no point has fitness that is a number"
        return
    ylabel = "success, %" if value == "success_rate" else f"mean {measure}"
    named = short(columns)
    random = None if loaded.sweep is None else loaded.sweep.random
    draw = {} if random is None else random.draw
    drawn_log = [key for key, each in draw.items() if each.log_uniform is not None]
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
            if axis.key in drawn_log or (axis.numeric and _spans_decades(axis.places.values())):
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
                axes.xaxis.set_major_formatter("{x:g}")
                axes.xaxis.set_minor_formatter(NullFormatter())
            if not axis.numeric:
                axes.set_xticks(list(axis.places.values()), list(axis.places))
                axes.set_xlim(-0.5, len(axis.places) - 0.5)
                if max(map(len, axis.places)) * len(axis.places) > 36:
                    axes.tick_params(axis="x", labelrotation=30)
            axes.set_xlabel(named.get(axis.key, axis.key))
            axes.set_ylabel(ylabel)
            axes.set_title(title, loc="left", fontsize=10)
            if len(lines) > 1 and number == 0:
                axes.legend(frameon=False, fontsize=8.5)
        paths = [folder / "figure.png", folder / "figure.pdf"]
        for path in paths:
            canvas.savefig(path, dpi=200)
            yield str(path)


def _panels(
    loaded: Experiment, columns: list[str], rows: Sequence[Row]
) -> list[tuple[str, _Axis, dict[str, list[Row]]]]:
    """(title, x axis, lines by label) of each panel."""
    named = short(columns)
    methods = len({row.method for row in rows}) > 1
    assert loaded.sweep is not None
    if loaded.sweep.random is not None:  # each setting that is drawn, over all points
        return [
            ("", _axis(key, rows)._replace(joined=False), _lines([], rows, methods, named))
            for key in columns
        ]
    if loaded.sweep.list is not None:  # points need have nothing in common
        points = {row.point: row for row in rows}
        names = [_name(columns, row, named) for row in points.values()]
        names = [
            f"{n}: {t}" if names.count(t) > 1 else t for n, t in zip(points, names, strict=True)
        ]
        places = {name: float(i) for i, name in enumerate(names)}
        axis = _Axis("point", places, False, dict(zip(points, places.values(), strict=True)))
        return [("", axis, _lines([], rows, methods, named))]
    # Other problems are measured otherwise: a panel each.
    apart = [
        key for key in columns
        if key.startswith("problem.")
        and key.split(".")[1] not in registry.how(rows[0].problem)
        and not _axis(key, rows).numeric
    ]  # fmt: skip
    left = [key for key in columns if key not in apart] or apart[-1:]
    apart = [key for key in apart if key not in left]
    along = max(left, key=lambda key: (_axis(key, rows).numeric, len(_axis(key, rows).places)))
    others = [key for key in left if key != along]
    while (
        others
        and len({_name(others, row, named) + methods * row.label for row in rows}) > MOST_LINES
    ):
        widest = max(others, key=lambda key: len(_axis(key, rows).places))
        others.remove(widest)
        apart.append(widest)
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(_name(apart, row, named), []).append(row)
    axis = _axis(along, rows)
    return [(title, axis, _lines(others, mine, methods, named)) for title, mine in grouped.items()]


def _axis(key: str, rows: Sequence[Row]) -> _Axis:
    values = list({text(row.settings[key]): row.settings[key] for row in rows}.items())
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for _, v in values)
    places = {told: float(value) if numeric else float(i) for i, (told, value) in enumerate(values)}
    return _Axis(key, places, numeric)


def _lines(
    keys: list[str], rows: Sequence[Row], methods: bool, named: dict[str, str]
) -> dict[str, list[Row]]:
    """Rows by the labels of their lines."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        label = ", ".join(
            [*([row.label] if methods else []), *filter(None, [_name(keys, row, named)])]
        )
        found.setdefault(label, []).append(row)
    return found


def _name(columns: list[str], row: Row, named: dict[str, str]) -> str:
    """Name some settings of a row: words as they are, numbers with their settings."""
    told = [(named[key], row.settings[key]) for key in columns if row.settings[key] is not None]
    return ", ".join(v if isinstance(v, str) else f"{name} {text(v)}" for name, v in told)


def _looks(loaded: Experiment, lines: dict[str, list[Row]]) -> dict[str, Look]:
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
