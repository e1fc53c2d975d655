"""What the parts of the report share: reference tables, pictures with captions."""

import csv
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from diffevo_jax.runner.style import STYLE

DATA = Path(__file__).parent / "data"
CONFIGS = Path(__file__).parent.parent / "configs"
BLUE, RED, ORANGE, GREEN = "#46B3D5", "#E93A01", "#F5851E", "#3B7A57"
GREY, PALE = "#6F6E6E", "#E3E3E3"
# A decorator: the house's style while a function draws and saves. Figures are made without pyplot,
# whose backend and settings are the caller's.
in_style = matplotlib.rc_context(STYLE)


def read_table(name: str) -> list[dict[str, str]]:
    """Read a CSV file of the reference numbers."""
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def save_figure(figure: Figure, path: Path, caption: str) -> Path:
    """Save a figure as PNG with its caption beside it."""
    figure.savefig(path, dpi=200)
    write_caption(path, caption)
    return path


def write_caption(path: Path, caption: str) -> None:
    """Put a picture's caption beside it, where the report looks for it."""
    path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")


def newer(path: Path, *sources: Path) -> bool:
    """Whether a picture is there with its caption, and newer than all that it was made from."""
    made = (path, path.with_suffix(".txt"))
    if not all(each.exists() for each in made):
        return False
    return path.stat().st_mtime > max(source.stat().st_mtime for source in sources)
