"""What a figure or table hands to the report.

Not called types.py: the scripts beside this file run with this folder first on the path, where a
file of that name would take the place of Python's own.
"""

import math
from pathlib import Path
from typing import NamedTuple

# A difference of more standard errors than this is far.
FAR = 3.0
# Numbers that differ by less than this share of the reference are equal, whatever their errors:
# searches that have converged repeat to six digits, and to how many depends on how far they came.
SAME = 1e-4


class Row(NamedTuple):
    """A number beside its reference; errors are standard errors, None where nobody knows them."""

    quantity: str
    reference: float | None
    reference_error: float | None
    ours: float
    ours_error: float | None
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Ours less the reference; None without one."""
        return None if self.reference is None else self.ours - self.reference

    @property
    def equal(self) -> bool:
        """Whether both agree to four digits."""
        if self.difference is None or self.reference is None:
            return False
        return abs(self.difference) <= SAME * abs(self.reference)

    @property
    def in_errors(self) -> float:
        """The difference in units of both standard errors combined; NaN where none is known."""
        error = math.hypot(self.reference_error or 0, self.ours_error or 0)
        if self.difference is None or not error:
            return math.nan
        return self.difference / error

    @property
    def far(self) -> bool:
        """Whether the difference is of more than FAR standard errors."""
        return not self.equal and abs(self.in_errors) > FAR

    @property
    def comparable(self) -> bool:
        """Whether `far` says anything: both are equal, or an error is known."""
        return self.equal or not math.isnan(self.in_errors)


class Section(NamedTuple):
    """A part of the report.

    text: paragraphs apart by blank lines; `code` in backticks.
    figures: PNG or GIF files. A text file beside one, of the same name, holds its caption.
    """

    title: str
    text: str
    rows: list[Row]
    figures: list[Path]
