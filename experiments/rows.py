"""What a figure or table hands to the report.

Not called types.py: the scripts beside this file run with this folder first on the path, where a
file of that name would take the place of Python's own.
"""

from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """A number beside its reference; errors are standard errors, None where nobody knows them."""

    quantity: str
    reference: float | None
    reference_error: float | None
    ours: float
    ours_error: float | None
    note: str = ""


class Section(NamedTuple):
    """A part of the report.

    text: paragraphs apart by blank lines; `code` in backticks.
    figures: PNG or GIF files. A text file beside one, of the same name, holds its caption.
    """

    title: str
    text: str
    rows: list[Row]
    figures: list[Path]
