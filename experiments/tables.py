"""Rows as tables for the report: a line a function, a column a method; the summary; all of them."""

import csv
import io
import math
from collections.abc import Iterable

from experiments.looks import METHODS
from experiments.rows import Cell, Row, Section, Table

# Diffusion Evolution's own, by whom the reproduction is judged; the others are baselines.
DIFFUSION = {METHODS[name].label for name in ("raw", "latent", "large")}
HEADINGS = ("measure", "where", "method", "reference", "ours", "in s.e.", "why")


def label(row: Row) -> str:
    """The name of a row's method."""
    return METHODS[row.method].label


def matrices(rows: Iterable[Row]) -> list[Table]:
    """A table for each measure: ours, and the reference beside it."""
    by_measure: dict[str, list[Row]] = {}
    for row in rows:
        by_measure.setdefault(row.measure, []).append(row)
    return [_matrix(measure, rows) for measure, rows in by_measure.items()]


def _matrix(measure: str, rows: list[Row]) -> Table:
    columns = list(dict.fromkeys(row.column for row in rows))
    found = {(row.place, row.column): row for row in rows}
    places = dict.fromkeys(row.place for row in rows)
    lines = [
        [Cell(place), *(_cell(found.get((place, column))) for column in columns)]
        for place in places
    ]
    return Table(measure, ["", *columns], lines)


def _cell(row: Row | None) -> Cell:
    if row is None:
        return Cell("")
    digits = _digits(row, figures=1)
    if row.reference is None:
        return Cell(number(row.ours.value, row.ours.error, _digits(row, figures=2)))
    ours = number(row.ours.value, None, digits)
    beside = number(row.reference.value, None, digits)
    return Cell(ours, beside, f"{row.in_errors:+.1f} s.e." if row.far else "")


def flat(rows: Iterable[Row]) -> list[list[str]]:
    """Every row with its errors, as text, a cell for each of HEADINGS."""
    return [_flat(row) for row in rows]


def _flat(row: Row) -> list[str]:
    digits = _digits(row, figures=2)
    ours, reference, apart = number(row.ours.value, row.ours.error, digits), "", ""
    if row.reference is not None:
        reference = number(row.reference.value, row.reference.error, digits)
        # Repeats that nobody knows leave their error out: the mark says so.
        mark = "" if row.reference.repeats else "*"
        apart = "equal" if row.equal else ""
        apart = apart or ("" if math.isnan(row.in_errors) else f"{row.in_errors:+.1f}{mark}")
    where = row.place + (f", {row.setting}" if row.setting else "")
    return [row.measure, where, label(row), reference, ours, apart, row.why]


def to_csv(sections: dict[str, Section]) -> str:
    """Every number of the report, unrounded; a line a row, by part."""
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    numbers = [f"{who}{what}" for who in ("reference", "ours") for what in _NUMBER]
    write(["part", "measure", "place", "method", "setting", *numbers, "in_errors", "far", "why"])
    for name, section in sections.items():
        for row in section.rows:
            cells = [name, row.measure, row.place, label(row), row.setting]
            for each in (row.reference, row.ours):
                cells += ["" if n is None else f"{n:.6g}" for n in each or (None, None, None)]
            apart = "" if math.isnan(row.in_errors) else f"{row.in_errors:.2f}"
            write([*cells, apart, int(row.far) if row.comparable else "", row.why])
    return text.getvalue()


_NUMBER = ("", "_error", "_repeats")


def number(value: float, error: float | None, digits: int) -> str:
    """A number, and its error where it has one that the digits show."""
    if math.isnan(value):
        return ""
    shown = f"{value:.{digits}f}"
    shown = shown if float(shown) else "0"
    beside = "" if error is None or not math.isfinite(error) else f"{error:.{digits}f}"
    return shown + (f" ± {beside}" if beside and float(beside) else "")


def _digits(row: Row, *, figures: int) -> int:
    """Decimals that show so many figures of the larger error, and at most four of the number."""
    numbers = [each for each in (row.ours, row.reference) if each]
    errors = [n.error for n in numbers if n.error and math.isfinite(n.error)]
    largest = max(abs(n.value) for n in numbers)
    if not math.isfinite(largest) or (largest == int(largest) and not errors):
        return 0
    four = 3 - math.floor(math.log10(largest)) if largest else 0
    wanted = figures - 1 - math.floor(math.log10(max(errors))) if errors else four
    return min(6, max(0, min(wanted, four)))


# The summary


def summary(sections: dict[str, Section]) -> Table:
    """How many numbers of each part agree with their reference: ours, and the baselines'."""
    lines = []
    for section in sections.values():
        known = [row for row in section.rows if row.comparable]
        lines.append([Cell(section.title), *_counts(known), Cell(section.against)])
    every = [row for section in sections.values() for row in section.rows if row.comparable]
    if len(sections) > 1:
        lines.append([Cell("all"), *_counts(every), Cell("")])
    head = ["figure or table", "Diffusion Evolution agrees", "baselines agree", "with"]
    return Table("", head, lines)


def _counts(rows: list[Row]) -> list[Cell]:
    ours = [row for row in rows if label(row) in DIFFUSION]
    others = [row for row in rows if label(row) not in DIFFUSION]
    return [
        Cell(f"{sum(not r.far for r in group)} of {len(group)}" if group else "")
        for group in (ours, others)
    ]


def differing(sections: dict[str, Section]) -> list[str]:
    """What differs from its reference, a sentence for each method and reason."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for section in sections.values():
        for row in section.rows:
            if row.far:
                title = section.title.partition(":")[0]
                groups.setdefault((label(row), title, row.why), []).append(row)
    order = [look.label for look in METHODS.values()]
    said = []
    for (method, title, why), rows in sorted(groups.items(), key=lambda it: order.index(it[0][0])):
        where = "; ".join(
            _apart(measure, rows) for measure in dict.fromkeys(r.measure for r in rows)
        )
        few = any((row.ours.repeats or 0) < FEW for row in rows)
        reason = why or (FEW_REPEATS if few else "no cause is known")
        said.append(
            f"**{method}**, {title}: {_capital(where).removesuffix('.')}. {_capital(reason)}."
        )
    return said


# Fewer repeats than these, as of a quick run, say little of rates that saturate, whatever the test.
FEW = 20
FEW_REPEATS = "repeats are too few to tell; a full run is what to judge by"
LISTED = 4  # a reader looks at so many places; more are summed up


def _apart(measure: str, rows: list[Row]) -> str:
    rows = [row for row in rows if row.measure == measure]
    if len(rows) > LISTED:
        apart = [row.in_errors for row in rows]
        return f"{measure}, {len(rows)} times, by {min(apart):+.1f} to {max(apart):+.1f} s.e."
    return f"{measure} ({', '.join(_where(row) for row in rows)} s.e.)"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _where(row: Row) -> str:
    setting = f", {row.setting}" if row.setting else ""
    return f"{row.place}{setting} {row.in_errors:+.1f}"


def first_sentence(words: str) -> str:
    """The first sentence of a caption, without backticks: what a picture is called."""
    return words.replace("`", "").partition(". ")[0].rstrip(".")
