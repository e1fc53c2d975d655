"""What a figure or table hands to the report.

Not called types.py: the scripts beside this file run with this folder first on the path, where a
file of that name would take the place of Python's own.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy.special import ndtr, stdtrit

from diffevo_jax.runs.results.fields import mean_and_error
from experiments.looks import METHODS

# A difference is far where chance alone makes one so large as rarely as three standard errors of a
# normal distribution; with few repeats, whose errors are uncertain themselves, that is more errors.
FAR = 3.0
# Numbers that differ by less than this share of the reference are equal, whatever their errors:
# searches that have converged repeat to six digits, and to how many depends on how far they came.
SAME = 1e-4


class Number(NamedTuple):
    """A mean over repeats.

    error: its standard error, None where nobody knows it. repeats: None where nobody knows how
    many; an error is then that of rounding, at most.
    """

    value: float
    error: float | None = None
    repeats: int | None = None

    @classmethod
    def of(cls, values: Any) -> "Number":
        """Mean and standard error of repeats `[S]`."""
        return cls(*mean_and_error(values), len(values))


class Row(NamedTuple):
    """A number beside its reference, as a cell of a table.

    measure: what is measured, a table of its own. place: the line, as a function. method: of
    `looks.METHODS`. setting: the column; the method's name where empty. reference: None where there
    is none. why: what is known to make it differ.
    """

    measure: str
    place: str
    method: str
    ours: Number
    reference: Number | None = None
    setting: str = ""
    why: str = ""

    @property
    def column(self) -> str:
        """The column of its table."""
        return self.setting or METHODS[self.method].label

    @property
    def difference(self) -> float | None:
        """Ours less the reference; None without one."""
        return None if self.reference is None else self.ours.value - self.reference.value

    @property
    def equal(self) -> bool:
        """Whether both agree to four digits."""
        if self.difference is None or self.reference is None:
            return False
        return abs(self.difference) <= SAME * abs(self.reference.value)

    @property
    def in_errors(self) -> float:
        """The difference in units of both standard errors combined; NaN where ours has none."""
        if self.difference is None or self.reference is None or self.ours.error is None:
            return math.nan
        error = math.hypot(self.reference.error or 0, self.ours.error)
        return self.difference / error if error else math.nan

    @property
    def threshold(self) -> float:
        """How many standard errors are far: FAR, and more of few repeats (Welch's t-test)."""
        numbers = [each for each in (self.ours, self.reference) if each and each.error]
        squares = [(n.error or 0) ** 2 for n in numbers]
        each = [s**2 / (n.repeats - 1) for n, s in zip(numbers, squares, strict=True) if n.repeats]
        if not sum(each):
            return FAR
        return float(-stdtrit(sum(squares) ** 2 / sum(each), ndtr(-FAR)))

    @property
    def far(self) -> bool:
        """Whether the difference is more than chance makes it."""
        return not self.equal and abs(self.in_errors) > self.threshold

    @property
    def comparable(self) -> bool:
        """Whether `far` says anything: both are equal, or an error is known."""
        return self.equal or not math.isnan(self.in_errors)


class Cell(NamedTuple):
    """A cell. beside: the reference. apart: by how much both differ, where it is not chance."""

    text: str
    beside: str = ""
    apart: str = ""


class Table(NamedTuple):
    """A table; its first column names the lines, the others hold numbers."""

    title: str
    head: Sequence[str]
    lines: list[list[Cell]]


class Section(NamedTuple):
    """A part of the report.

    text: paragraphs apart by blank lines; `code` in backticks. against: what the references are.
    figures: PNG or GIF files. A text file beside one, of the same name, holds its caption.
    folded: whether its tables are folded away: the figures say what there is to see.
    headline: the paper's first number, on top of the report.
    """

    title: str
    text: str
    rows: list[Row]
    figures: list[Path]
    against: str = ""
    folded: bool = False
    headline: Table | None = None
