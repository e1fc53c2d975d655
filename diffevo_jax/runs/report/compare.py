"""Runs held against each other: a table of differences, paired where seeds agree, and curves."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from diffevo_jax.checks import nearest
from diffevo_jax.drawings.style import STYLE, looks
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.config.schema import ConfigError
from diffevo_jax.runs.report import figure
from diffevo_jax.runs.report.display import percent, plus_minus
from diffevo_jax.runs.results import files as folders
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results.record import mean_and_error
from diffevo_jax.runs.run.program import EPISODES

_ARRAYS = ("fitness", "success_rate", "reevaluated_return", "reevaluated_success")


class Line(NamedTuple):
    """A method of a run, over its S finished repeats.

    label: as table and legend name it. problem: its section. evaluations: of a generation.
    fitness: `[S, T, N]`. values: by what they are called, a number a repeat, `[S]`: mean, success;
        again and again_success of its best individual, re-evaluated; where it has them.
    """

    run: str
    method: str
    label: str
    problem: dict[str, Any]
    seed: int
    evaluations: int
    fitness: np.ndarray
    values: dict[str, np.ndarray]


class Difference(NamedTuple):
    """A mean less another, its standard error, and of how many pairs it is; 0 where unpaired."""

    value: float
    error: float | None
    pairs: int


def load_lines(paths: Sequence[Path], methods: Sequence[str] = ()) -> list[Line]:
    """Read the methods of some runs, all or those named. Raises ConfigError."""
    twice = [path for i, path in enumerate(paths) if path.resolve() in
             {other.resolve() for other in paths[:i]}]  # fmt: skip
    if twice:
        raise ConfigError(f"{twice[0]}: given twice; expected different run folders")
    names = [path.resolve().name for path in paths]
    names = [
        name if names.count(name) == 1 else str(path)
        for name, path in zip(names, paths, strict=True)
    ]
    lines, seen = [], {}
    for name, path in zip(names, paths, strict=True):
        config, arrays = results.load(path)
        seen |= dict.fromkeys(arrays)
        for method in arrays:
            if methods and method not in methods:
                continue
            label = config.methods[method].label
            saved = results.read_arrays(path / f"{method}.npz")
            kept = {key: saved[key] for key in _ARRAYS if key in saved}
            lines.append(
                Line(
                    run=name,
                    method=method,
                    label=label if len(paths) == 1 else f"{name}: {label}",
                    problem=config.methods[method].problem,
                    seed=config.seed,
                    evaluations=config.methods[method].population_size,
                    fitness=kept["fitness"],
                    values=_values(kept),
                )
            )
    for method in methods:
        if method not in seen:
            hint = nearest(method, seen)
            raise ConfigError(f"--method {method}: no such method{hint} (seen {', '.join(seen)})")
    if len(lines) < 2:
        raise ConfigError(
            "expected two runs or more, or one of several methods; seen "
            f"{', '.join(line.label for line in lines)} alone"
        )
    return lines


def _values(kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    last = kept["fitness"][:, -1].astype(float)
    found = {"mean": np.nanmean(np.where(np.isfinite(last), last, np.nan), axis=1)}
    if "success_rate" in kept:
        found["success"] = kept["success_rate"][:, -1].astype(float)
    if "reevaluated_return" in kept:
        found["again"] = kept["reevaluated_return"].mean(axis=1, dtype=float)
    if "reevaluated_success" in kept:
        found["again_success"] = kept["reevaluated_success"].mean(axis=1, dtype=float)
    return found


def groups(lines: Sequence[Line]) -> tuple[list[list[Line]], list[Line]]:
    """Put lines on the same problem together, and those apart which no other can be held against.

    Raises ConfigError, with the settings that differ, where there is nothing to compare.
    """
    by_problem: dict[str, list[Line]] = {}
    for line in lines:
        key = json.dumps(registry.measured(line.problem), sort_keys=True, default=str)
        by_problem.setdefault(key, []).append(line)
    runs = len({line.run for line in lines})

    def comparable(group: list[Line]) -> bool:
        return len(group) > 1 and (runs == 1 or len({line.run for line in group}) > 1)

    shared = [group for group in by_problem.values() if comparable(group)]
    alone = [line for group in by_problem.values() if not comparable(group) for line in group]
    if not shared:
        first = lines[0]
        other = next(line for line in lines if runs == 1 or line.run != first.run)
        differ = folders.differences(
            registry.measured(first.problem), registry.measured(other.problem)
        )
        told = ", ".join(f"problem.{key} is {a} and {b}" for key, (a, b) in differ.items())
        raise ConfigError(
            f"{first.label} and {other.label} measure different things: {told}. Run both on one "
            "problem, by --set, or draw each by itself: `diffevo-jax plot RUN`"
        )
    # Methods of one name follow each other.
    order = list(dict.fromkeys(line.method for line in lines))
    return [sorted(group, key=lambda line: order.index(line.method)) for group in shared], alone


def reference(line: Line, group: Sequence[Line]) -> Line:
    """What a line is held against: the first line, of many runs the first of its method."""
    if len({each.run for each in group}) == 1:
        return group[0]
    same = next(each for each in group if each.method == line.method)
    return group[0] if same is line and line.run != group[0].run else same


def difference(line: Line, other: Line, name: str) -> Difference:
    """By how much a value of a line is above another's.

    Repeats of the same number and seed have the same random keys: they are pairs.
    """
    a, b = line.values[name], other.values[name]
    pairs = min(len(a), len(b))
    if line.seed == other.seed and pairs > 1:
        return Difference(*mean_and_error(a[:pairs] - b[:pairs]), pairs)
    (mean_a, error_a), (mean_b, error_b) = mean_and_error(a), mean_and_error(b)
    known = error_a is not None and error_b is not None
    return Difference(mean_a - mean_b, math.hypot(error_a, error_b) if known else None, 0)  # pyright: ignore


def tables(group: Sequence[Line]) -> Iterator[Any]:
    """Lines and tables of one problem, for a console."""
    title = registry.title(group[0].problem)
    yield f"\n{title}: last generation, mean ± standard error over repeats"
    yield _table(group, registry.measure(group[0].problem), "mean", "success")
    if all("again" in line.values for line in group):
        yield f"\nThe best individuals over {EPISODES} fresh episodes"
        yield _table(group, "return", "again", "again_success")
    sizes = {(line.evaluations, line.fitness.shape[1]) for line in group}
    if len(sizes) > 1:
        told = ", ".join(
            f"{line.label} {line.evaluations * line.fitness.shape[1]:,}" for line in group
        )
        yield f"Evaluations differ: {told}."
    held = [(line, reference(line, group)) for line in group]
    pairs = {difference(a, b, "mean").pairs for a, b in held if a is not b}
    yield "difference: to the line above that has none; pairs: repeats of the same seed and number"
    if 0 in pairs:
        yield "pairs none: other seeds, or a single repeat; its error is that of both together"


def _table(group: Sequence[Line], heading: str, mean: str, success: str) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    with_success = all(success in line.values for line in group)
    shown.add_column("method", overflow="fold")
    headings = [
        "repeats",
        heading,
        *(["success, %"] if with_success else []),
        "difference",
        "pairs",
    ]
    for each in headings:
        shown.add_column(each, justify="right", no_wrap=True)
    for line in group:
        row = [
            line.label,
            str(len(line.fitness)),
            plus_minus(mean_and_error(line.values[mean]), ".4g"),
        ]
        row += [percent(mean_and_error(line.values[success]))] if with_success else []
        other = reference(line, group)
        if other is line:
            row += ["", ""]
        else:
            apart = difference(line, other, mean)
            row.append(plus_minus((apart.value, apart.error), "+.3g"))
            row.append(str(apart.pairs or "none"))
        shown.add_row(*(Text(cell) for cell in row))
    return shown


def draw(shared: Sequence[Sequence[Line]], path: Path) -> Path:
    """Draw the curves, a panel a problem: medians and quartiles over individuals and repeats.

    Against evaluations where populations or generations differ. Raises ConfigError.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(len(shared), 2)
    rows = math.ceil(len(shared) / columns)
    with matplotlib.rc_context(STYLE):
        canvas = Figure(figsize=(6.2 if columns == 1 else 10, 3.8 * rows), layout="constrained")
        panels = canvas.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels[len(shared) :]:
            axes.set_axis_off()
        for axes, group in zip(panels, shared, strict=False):
            # A method that comes again, of another run, takes the next colour that is free.
            names = [
                line.method if line.method not in [b.method for b in group[:i]] else f"{i}"
                for i, line in enumerate(group)
            ]
            look = looks(names)
            sizes = {(line.evaluations, line.fitness.shape[1]) for line in group}
            units = [1 if len(sizes) == 1 else line.evaluations for line in group]
            figure.curves(
                axes,
                [
                    unit * np.arange(1, line.fitness.shape[1] + 1)
                    for unit, line in zip(units, group, strict=True)
                ],
                [figure.quartiles(line.fitness) for line in group],
                [look[name] for name in names],
                [line.label for line in group],
            )
            axes.set_xlabel("generation" if len(sizes) == 1 else "evaluations")
            axes.set_ylabel(registry.measure(group[0].problem))
            axes.set_title(registry.title(group[0].problem), loc="left", fontsize=11)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
            axes.legend(frameon=False, fontsize=9)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            canvas.savefig(path, dpi=200)
        except ValueError as error:  # another ending, or mathtext that does not parse
            raise ConfigError(f"--out {path}: {str(error).strip()}") from None
    return path
