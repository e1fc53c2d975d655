"""Figures of finished runs and sweeps, drawn from their files alone.

Curves of the fitness against generations, as the paper's Fig. 4b, and means of points against what
a sweep sets.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffevo_jax.drawings.archive import shade
from diffevo_jax.drawings.style import GREY, STYLE, Look, looks
from diffevo_jax.runs.config.experiment import Experiment
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.config.schema import ConfigError, Figure
from diffevo_jax.runs.report.table import measure, uneven
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results.loading import load_summaries
from diffevo_jax.runs.results.record import Summary
from diffevo_jax.runs.results.table import short, text

MOST_LINES, MOST_PANELS = 8, 12


@contextmanager
def panels(
    paths: Sequence[Path], where: str, count: int, *, size: tuple[float, float] | None = None
) -> Iterator[list[Any]]:
    """Give the axes of a figure of panels in rows, and save it. where: begins an error.

    size: its width and height, in inches. Raises ConfigError on what can't be saved.
    """
    across = min(count, 3 if count > 4 else 2)
    down = math.ceil(count / across)
    if size is None:
        size = (6.2 if across == 1 else 4.4 * across, 3.8 if down == 1 else 3.1 * down)
    import matplotlib
    from matplotlib.figure import Figure as Canvas  # not pyplot, whose backend is the caller's

    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=size, layout="constrained")
        axes = list(canvas.subplots(down, across, squeeze=False).ravel())
        for spare in axes[count:]:
            spare.set_axis_off()
        yield axes[:count]
        try:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
                canvas.savefig(path, dpi=200)
        except ValueError as error:  # another ending, or mathtext that does not parse
            raise ConfigError(f"{where}: {str(error).strip()}") from None


# Against generations


def draw(folder: Path) -> list[Path]:
    """Draw figure.png and figure.pdf into a run folder: median and quartiles of each method.

    Quantiles are over all individuals and repeats. Where methods fill archives of behaviour, also
    archive.png and archive.pdf. Raises ConfigError when the folder holds no results.
    """
    config, rows = load_summaries(folder)
    paths = [folder / "figure.png", folder / "figure.pdf"]
    with panels(paths, f"{folder}: figure", 1, size=(5.2, 3.6)) as (axes,):
        _curves(axes, rows, evaluations=False)
        _set_scale(axes, config.figure, [row.curve for row in rows])
        axes.set_ylabel(config.figure.ylabel or measure(rows))
    return paths + draw_archives(folder)


def draw_comparison(groups: Sequence[Sequence[Summary]], path: Path) -> Path:
    """Draw the curves of runs, a panel for each problem.

    Against evaluations where populations or generations differ. Raises ConfigError.
    """
    with panels([path], f"--out {path}", len(groups)) as grid:
        for axes, group in zip(grid, groups, strict=True):
            _curves(axes, group, evaluations=uneven(group))
            axes.set_ylabel(group[0].measure)
            axes.set_title(group[0].title, loc="left", fontsize=11)
    return path


def draw_archives(folder: Path) -> list[Path]:
    """Draw archive.png and .pdf: QD score and coverage of each method, and heat maps.

    Bands are from the least to the greatest of the repeats. A heat map is the first repeat's, of
    two axes; there is none of a method that saves no populations, or whose archive is a plugin's
    that is not loaded.
    """
    names = "norm_qd_score", "coverage", "archive_fitness", "fitness"
    config, arrays = results.load(folder, *names)
    curves = {name: each for name, each in arrays.items() if "coverage" in each}
    if not curves:
        return []
    maps = {}
    for name, each in curves.items():
        settings = dict(config.methods[name].algorithm.get("archive") or {})
        entry = registry.entries.get(("archive", settings.pop("name", "")))
        if entry is not None and len(each.get("archive_fitness", ())):
            cells = entry.factory(**settings)
            if len(cells.low) == 2:
                maps[name] = cells, each["archive_fitness"][0]
    filled = [fitness[fitness > -np.inf] for _, fitness in maps.values()]
    known = np.concatenate([*filled, np.zeros(0)])
    scale = {"vmin": known.min(), "vmax": known.max()} if len(known) else {}
    look = looks(curves)
    paths = [folder / "archive.png", folder / "archive.pdf"]
    with panels(paths, f"{folder}: archive", 2 + len(maps)) as grid:
        shown = (("norm_qd_score", 1, "QD score a cell"), ("coverage", 100, "coverage, %"))
        for axes, (key, factor, label) in zip(grid, shown, strict=False):
            for name, each in curves.items():
                method, values = config.methods[name], factor * each[key]
                x = method.population_size * np.arange(1, values.shape[1] + 1)
                colour = look[name].colour
                axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)
                axes.plot(x, np.median(values, axis=0), color=colour, label=method.label)
            axes.set(xlabel="evaluations", ylabel=label)
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_formatter("{x:,.0f}")
        grid[0].legend(frameon=False, fontsize=9)
        for axes, (name, (cells, fitness)) in zip(grid[2:], maps.items(), strict=True):
            heat = shade(axes, cells, fitness, ("descriptor 1", "descriptor 2"), **scale)
            axes.set_title(config.methods[name].label, loc="left", fontsize=11)
            axes.figure.colorbar(heat, ax=axes, label=config.figure.ylabel or "objective")
    return paths


def _curves(axes: Any, rows: Sequence[Summary], *, evaluations: bool) -> None:
    """Draw a median and the band of its quartiles for each row.

    Few generations are marked, by the rows in turn, so that no mark hides another.
    """
    from matplotlib.ticker import MaxNLocator

    marked = all(row.curve.shape[1] <= 30 for row in rows)
    # A method that comes once more, out of another run, takes the next free colour.
    methods = [row.method for row in rows]
    look = looks(m if m not in methods[:i] else f"{i}" for i, m in enumerate(methods))
    for i, (row, (colour, marker)) in enumerate(zip(rows, look.values(), strict=True)):
        low, median, high = row.curve
        x = (row.evaluations if evaluations else 1) * np.arange(1, len(median) + 1)
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        turn = (i % len(x), len(rows))
        marker = marker if marked else ""
        axes.plot(x, median, color=colour, marker=marker, markevery=turn, ms=5, label=row.label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8 if evaluations else 10, integer=True))
    axes.set_xlabel("evaluations" if evaluations else "generation")
    axes.legend(frameon=False, fontsize=9)


def _set_scale(axes: Any, settings: Figure, shown: Sequence[np.ndarray]) -> None:
    """Mark the maximum, and scale and mark the fitness as a config says."""
    marks = [mark for mark in (settings.maximum, *(settings.ticks or ())) if mark is not None]
    # A log axis would leave out, without a word, what is not positive.
    log = settings.log and all(not np.any(each <= 0) for each in (*shown, np.array(marks)))
    if settings.maximum is not None:
        axes.axhline(settings.maximum, color=GREY, linestyle="--", linewidth=1, zorder=0)
        axes.annotate(
            f"maximum {settings.maximum:g}",
            (1, settings.maximum),
            textcoords="offset points",
            xytext=(0, 4),
            color=GREY,
            fontsize=9,
        )
    if log:
        axes.set_yscale("log")
    if settings.ticks is not None and log == settings.log:
        axes.set_yticks(settings.ticks, [f"{tick:g}" for tick in settings.ticks])
        axes.minorticks_off()
    low, high = axes.get_ylim()
    room = 1.15 if log else 1
    axes.set_ylim(low, high * room)  # the label above the maximum needs it on a log axis


# Against settings


class Axis(NamedTuple):
    """What a panel has along x.

    places: by the texts of what is on it. place: where a row is.
    numeric: whether the texts are numbers. joined: whether lines join them.
    """

    key: str
    places: dict[str, float]
    place: Callable[[Summary], float]
    numeric: bool = False
    joined: bool = True


class Panel(NamedTuple):
    """A panel: its title, its x axis, and its lines by label."""

    title: str
    axis: Axis
    lines: dict[str, list[Summary]]


def draw_sweep(folder: Path, loaded: Experiment, rows: Sequence[Summary]) -> Iterator[str]:
    """Draw figure.png and .pdf of a sweep; yields their paths and what they leave out."""
    rate = all(row.value("success_rate") is not None for row in rows)
    value = "success_rate" if rate else "fitness_mean"
    rows = [row for row in rows if row.value(value) is not None]
    if not rows:
        yield "note: no figure; no point has fitness that is a number"
        return
    shown = sweep_panels(loaded, rows)
    if len(shown) > MOST_PANELS:
        yield f"note: the figure shows {MOST_PANELS} of {len(shown)} panels"
        shown = shown[:MOST_PANELS]
    paths = [folder / "figure.png", folder / "figure.pdf"]
    names = short(rows[0].settings)
    drawn = loaded.sweep.random.draw if loaded.sweep and loaded.sweep.random else {}
    with panels(paths, f"{folder}: figure", len(shown)) as grid:
        for axes, (title, axis, lines) in zip(grid, shown, strict=True):
            # A method keeps its colour where lines are methods; others take them in order.
            methods = [line[0].method for line in lines.values()]
            look = [*looks(methods if len(set(methods)) == len(methods) else lines).values()]
            for k, (label, line) in enumerate(lines.items()):
                shift = 0 if axis.numeric else 0.08 * (k - (len(lines) - 1) / 2)
                _line(axes, axis, line, value, look[k], label, shift)
            _set_ticks(axes, axis, decades=axis.key in drawn and bool(drawn[axis.key].log_uniform))
            axes.set_xlabel(names.get(axis.key, axis.key))
            axes.set_ylabel("success, %" if rate else f"mean {measure(rows)}")
            axes.set_title(title, loc="left", fontsize=10)
            if len(lines) > 1 and axes is grid[0]:
                axes.legend(frameon=False, fontsize=8.5)
    yield from map(str, paths)


def sweep_panels(loaded: Experiment, rows: Sequence[Summary]) -> list[Panel]:
    """Share rows out among panels and lines: other problems are measured otherwise."""
    names = short(rows[0].settings)
    axes = {key: _axis(key, rows) for key in names}
    many = len({row.method for row in rows}) > 1

    def lines(keys: list[str], rows: Sequence[Summary]) -> dict[str, list[Summary]]:
        """Rows by the labels of their lines: of methods, and of settings."""
        grouped: dict[str, list[Summary]] = {}
        for row in rows:
            words = [row.label if many else "", _name(keys, row, names)]
            grouped.setdefault(", ".join(filter(None, words)), []).append(row)
        return grouped

    assert loaded.sweep is not None
    if loaded.sweep.random is not None:  # each setting that is drawn, over all points
        return [Panel("", axis._replace(joined=False), lines([], rows)) for axis in axes.values()]
    if loaded.sweep.list is not None:  # points need have nothing in common
        points = {row.point: _name(list(names), row, names) for row in rows}
        labels = list(points.values())
        places = {
            f"{point}: {label}" if labels.count(label) > 1 else label: float(i)
            for i, (point, label) in enumerate(points.items())
        }
        numbers = dict(zip(points, places.values(), strict=True))
        return [Panel("", Axis("point", places, lambda row: numbers[row.point]), lines([], rows))]
    of_panels = [key for key, axis in axes.items() if _is_another_problem(axis, rows)]
    left = [key for key in names if key not in of_panels] or of_panels[-1:]
    of_panels = [key for key in of_panels if key not in left]
    along = max(left, key=lambda key: (axes[key].numeric, len(axes[key].places)))
    others = [key for key in left if key != along]
    while others and len(lines(others, rows)) > MOST_LINES:
        widest = max(others, key=lambda key: len(axes[key].places))
        others.remove(widest)
        of_panels.append(widest)
    grouped: dict[str, list[Summary]] = {}
    for row in rows:
        grouped.setdefault(_name(of_panels, row, names), []).append(row)
    return [Panel(title, axes[along], lines(others, each)) for title, each in grouped.items()]


def _is_another_problem(axis: Axis, rows: Sequence[Summary]) -> bool:
    """Whether a setting says what is measured, and not how."""
    section, _, setting = axis.key.partition(".")
    how = registry.how(rows[0].problem)
    return section == "problem" and setting.partition(".")[0] not in how and not axis.numeric


def _axis(key: str, rows: Sequence[Summary]) -> Axis:
    """The axis of a setting."""
    values = {text(row.settings[key]): row.settings[key] for row in rows}
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values.values())
    places = {name: float(v if numeric else i) for i, (name, v) in enumerate(values.items())}
    return Axis(key, places, lambda row: places[text(row.settings[key])], numeric)


def _name(keys: list[str], row: Summary, names: dict[str, str]) -> str:
    """Name some settings of a row: words as they are, numbers with their settings."""
    values = [(names[key], row.settings[key]) for key in keys if row.settings[key] is not None]
    return ", ".join(v if isinstance(v, str) else f"{name} {text(v)}" for name, v in values)


def _line(
    axes: Any, axis: Axis, rows: list[Summary], column: str, look: Look, label: str, shift: float
) -> None:
    """Means with their standard errors, side by side where x is no number."""
    factor = 100 if column == "success_rate" else 1
    points = [(axis.place(row), *row.values[column]) for row in rows]
    points = sorted(((x, y, error or 0) for x, y, error in points), key=lambda point: point[0])
    x, y, error = np.array(points).T
    axes.errorbar(
        x + shift,
        factor * y,
        factor * np.nan_to_num(error),
        color=look.colour,
        marker=look.marker,
        linestyle="-" if axis.numeric and axis.joined else "",
        markersize=4.5,
        capsize=2.5,
        linewidth=1.3,
        label=label,
    )


def _set_ticks(axes: Any, axis: Axis, *, decades: bool) -> None:
    """Mark numbers, on a logarithmic axis where they span decades, or the words of a setting."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = min(axis.places.values()), max(axis.places.values())
    if decades or (axis.numeric and low > 0 and high / low >= 30):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    if not axis.numeric:
        axes.set_xticks(list(axis.places.values()), list(axis.places))
        axes.set_xlim(-0.5, len(axis.places) - 0.5)
        if max(map(len, axis.places)) * len(axis.places) > 36:
            axes.tick_params(axis="x", labelrotation=30)
