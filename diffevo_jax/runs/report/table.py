"""Tables on the console: of a run, of a sweep, of runs held against each other.

A row is a `Summary`; columns, their headings and formats are those of `fields`.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from diffevo_jax.checks import nearest
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.config.schema import ConfigError, RunConfig
from diffevo_jax.runs.results.fields import (
    EPISODES,
    MEASURE,
    PERCENT,
    SHOWN,
    Field,
    mean_and_error,
)
from diffevo_jax.runs.results.files import differences
from diffevo_jax.runs.results.loading import load_summaries
from diffevo_jax.runs.results.record import Summary, Value
from diffevo_jax.runs.results.table import short, text

MOST_ROWS = 24  # of a sweep's table; summary.csv has all


def grid(words: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Make a table. words, numbers: headings of the columns on the left, and on the right."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in words:
        shown.add_column(heading, overflow="fold")
    for heading in numbers:
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(*map(Text, row))
    return shown


def columns(rows: Sequence[Summary], *stages: str, every: bool = False) -> list[Field]:
    """The columns of some stages that a row has, or every one."""
    enough = all if every else any
    return [
        field
        for column, field in SHOWN.items()
        if field.stage in stages and enough(row.value(column) is not None for row in rows)
    ]


def headings(fields: Sequence[Field], rows: Sequence[Summary]) -> list[str]:
    """What columns are called; the fitness as the problem of all rows calls it."""
    return [measure(rows) if field.heading == MEASURE else field.heading for field in fields]


def measure(rows: Sequence[Summary]) -> str:
    """What the fitness of all rows is called."""
    measures = {row.measure for row in rows}
    return measures.pop() if len(measures) == 1 else "fitness"


def plus_minus(value: Value | None, style: str) -> str:
    """A number ± its standard error, which a single repeat has not; - where there is none."""
    if value is None:
        return "-"
    mean, error = value
    if style == PERCENT:
        mean, error, style = 100 * mean, error and 100 * error, ".1f"
    return f"{mean:{style}}" if error is None else f"{mean:{style}} ± {error:.2g}"


def cells(fields: Sequence[Field], row: Summary) -> list[str]:
    """The cells of some columns in a row."""
    return [plus_minus(row.value(field.column), field.style) for field in fields]


# A run


def header(config: RunConfig, lengths: dict[str, int]) -> str:
    """Say what is run: on which problem, how many individuals, generations and repeats.

    lengths: generations, by method.
    """
    methods = list(config.methods.values())
    problems = list(dict.fromkeys(registry.title(method.problem) for method in methods))
    titles = "; ".join(problems[:3]) + ("; ..." if len(problems) > 3 else "")
    repeats = "1 repeat" if config.repeats == 1 else f"{config.repeats} repeats"
    many = "" if len(methods) == 1 else f" of {len(methods)} methods"
    return (
        f"{titles}: {_span(method.population_size for method in methods)} individuals, "
        f"{_span(lengths.values())} generations, {repeats}{many}"
    )


def _span(numbers: Iterable[int]) -> str:
    numbers = sorted(set(numbers))
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"


def of_run(rows: Sequence[Summary]) -> Iterator[Any]:
    """The last generation of each method, beside the reference where there is one, and its best."""
    fields, best = columns(rows, "statistic", "generation"), columns(rows, "episodes")
    referred = [row for row in rows if row.reference and row.value("success_rate")]
    if referred and all(row.value("success_rate") for row in rows):
        # Beside references there is no room for what none of them is of.
        fields = [SHOWN["success_rate"]]
    lines = []
    for row in rows:
        genes = "-" if row.num_genes is None else f"{row.num_genes:,}"
        beside = _beside(row) if row in referred else []
        lines.append([row.label, genes, *cells(fields, row), *beside])
    beside = ["reference, %", "apart", "published"] if referred else []
    yield "\nLast generation, mean ± standard error over repeats"
    yield grid(["method"], ["genes", *headings(fields, rows), *beside], lines)
    if referred:
        for row in rows:
            if row.reference:
                yield f"reference, {row.label}: {row.reference.source}"
    if best:
        yield f"\nIts best individual over {EPISODES} fresh episodes"
        lines = [[row.label, *cells(best, row)] for row in rows]
        yield grid(["method"], headings(best, rows), lines)


def _beside(row: Summary) -> list[str]:
    """What a row's success rate is held against."""
    value, reference = row.value("success_rate"), row.reference
    assert value is not None
    assert reference is not None
    expected = (reference.success_rate, reference.standard_error)
    error = math.hypot(value[1] or 0, expected[1])
    errors = f"{(value[0] - expected[0]) / error:+.1f} s.e." if value[1] and error else "-"
    published = "-" if reference.published is None else f"{100 * reference.published:.1f}"
    return [plus_minus(expected, PERCENT), errors, published]


# A sweep


def of_sweep(description: str, rows: Sequence[Summary], path: Path) -> Iterator[Any]:
    """The points and methods of a sweep. path: its summary.csv, which has every row."""
    settings, methods = short(rows[0].settings), len({row.method for row in rows}) > 1
    fields, best = [SHOWN["fitness_mean"], *columns(rows, "generation")], columns(rows, "episodes")
    yield f"\n{description}"
    yield "Last generation, mean ± standard error over repeats" + (
        f"; best: its best individual over {EPISODES} fresh episodes" if best else ""
    )
    lines = []
    for row in rows[:MOST_ROWS]:
        method = [row.label] if methods else []
        lines.append([*map(text, row.settings.values()), *method, *cells([*fields, *best], row)])
    words = [*settings.values(), *(["method"] if methods else [])]
    numbers = headings(fields, rows) + [f"best, {heading}" for heading in headings(best, rows)]
    yield grid(words, numbers, lines)
    if len(rows) > MOST_ROWS:
        yield f"{MOST_ROWS} of {len(rows)} rows; all are in {path}"


# Runs held against each other


class Difference(NamedTuple):
    """A mean less another, its standard error, and of how many pairs it is; 0 where unpaired."""

    value: float
    error: float | None
    pairs: int


def load_rows(paths: Sequence[Path], methods: Sequence[str] = ()) -> list[Summary]:
    """Read the methods of some runs, all or those of the names. Raises ConfigError."""
    resolved = [path.resolve() for path in paths]
    for i, path in enumerate(paths):
        if resolved[i] in resolved[:i]:
            raise ConfigError(f"{path}: given twice; expected different run folders")
    names = [path.name for path in resolved]
    rows: list[Summary] = []
    for name, path in zip(names, paths, strict=True):
        run = name if names.count(name) == 1 else str(path)
        rows += load_summaries(path, run=run)[1]
    if len(paths) > 1:
        rows = [dataclasses.replace(row, label=f"{row.run}: {row.label}") for row in rows]
    check_methods(methods, dict.fromkeys(row.method for row in rows))
    rows = [row for row in rows if not methods or row.method in methods]
    if len(rows) < 2:
        raise ConfigError(
            "expected two runs or more, or one of several methods; seen "
            f"{', '.join(row.label for row in rows)} alone"
        )
    return rows


def check_methods(methods: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigError for a method that is not known."""
    known = list(known)
    for method in methods:
        if method not in known:
            hint = nearest(method, known)
            raise ConfigError(f"--method {method}: no such method{hint} (seen {', '.join(known)})")


def groups(rows: Sequence[Summary]) -> tuple[list[list[Summary]], list[Summary]]:
    """Put rows on the same problem together, and those apart which no other can be held against.

    Raises ConfigError, with the settings that differ, where there is nothing to compare.
    """
    by_problem: dict[str, list[Summary]] = {}
    for row in rows:
        key = json.dumps(registry.measured(row.problem), sort_keys=True, default=str)
        by_problem.setdefault(key, []).append(row)
    runs = len({row.run for row in rows})

    def comparable(group: list[Summary]) -> bool:
        return len(group) > 1 and (runs == 1 or len({row.run for row in group}) > 1)

    shared = [group for group in by_problem.values() if comparable(group)]
    alone = [row for group in by_problem.values() if not comparable(group) for row in group]
    if not shared:
        first = rows[0]
        other = next(row for row in rows[1:] if runs == 1 or row.run != first.run)
        differ = differences(registry.measured(first.problem), registry.measured(other.problem))
        settings = ", ".join(f"problem.{key} is {a} and {b}" for key, (a, b) in differ.items())
        raise ConfigError(
            f"{first.label} and {other.label} measure different things: {settings}. Run both on "
            "one problem, by --set, or draw each by itself: `diffevo-jax plot RUN`"
        )
    # Methods of one name follow each other.
    order = list(dict.fromkeys(row.method for row in rows))
    return [sorted(group, key=lambda row: order.index(row.method)) for group in shared], alone


def reference(row: Summary, group: Sequence[Summary]) -> Summary:
    """What a row is held against: the first row, of many runs the first of its method."""
    if len({each.run for each in group}) == 1:
        return group[0]
    same = next(each for each in group if each.method == row.method)
    return group[0] if same is row and row.run != group[0].run else same


def difference(row: Summary, other: Summary, column: str) -> Difference:
    """By how much a number of a row is above another's.

    Repeats of the same number and seed have the same random keys: they are pairs.
    """
    a, b = np.array(row.numbers[column]), np.array(other.numbers[column])
    pairs = min(len(a), len(b)) if row.seed == other.seed else 0
    paired = a[:pairs] - b[:pairs]
    paired = paired[~np.isnan(paired)]
    if len(paired) > 1:
        return Difference(*mean_and_error(paired), len(paired))
    ours, theirs = row.value(column), other.value(column)
    if ours is None or theirs is None:
        return Difference(math.nan, None, 0)
    known = ours[1] is not None and theirs[1] is not None
    return Difference(ours[0] - theirs[0], math.hypot(ours[1], theirs[1]) if known else None, 0)  # pyright: ignore


def of_comparison(group: Sequence[Summary]) -> Iterator[Any]:
    """The rows of one problem, with their differences."""
    last = columns(group, "statistic", "generation", every=True)
    best = columns(group, "episodes", every=True)
    yield f"\n{group[0].title}: last generation, mean ± standard error over repeats"
    yield _differences(group, last)
    if best:
        yield f"\nThe best individuals over {EPISODES} fresh episodes"
        yield _differences(group, best)
    if uneven(group):
        total = ", ".join(f"{row.label} {row.evaluations * row.curve.shape[1]:,}" for row in group)
        yield f"Evaluations differ: {total}."
    held = [(row, reference(row, group)) for row in group]
    pairs = {difference(a, b, "fitness_mean").pairs for a, b in held if a is not b}
    yield "difference: to the line above that has none; pairs: repeats of the same seed and number"
    if 0 in pairs:
        yield "pairs none: other seeds, or a single repeat; its error is that of both together"


def uneven(group: Sequence[Summary]) -> bool:
    """Whether populations or generations differ."""
    return len({(row.evaluations, row.curve.shape[1]) for row in group}) > 1


def _differences(group: Sequence[Summary], fields: Sequence[Field]) -> Table:
    """A table of some columns, and the differences of the first."""
    lines = []
    for row in group:
        other = reference(row, group)
        ending = ["", ""]
        if other is not row:
            value, error, pairs = difference(row, other, fields[0].column)
            ending = [plus_minus((value, error), "+.3g"), str(pairs or "none")]
        lines.append([row.label, str(row.repeats), *cells(fields, row), *ending])
    return grid(["method"], ["repeats", *headings(fields, group), "difference", "pairs"], lines)
