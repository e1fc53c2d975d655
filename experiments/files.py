"""What the parts of the report share: reference tables, pictures with captions."""

import csv
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from diffevo_jax.drawings.style import STYLE

DATA = Path(__file__).parent / "data"
CONFIGS = Path(__file__).parent.parent / "configs"
# A page's width in inches, and print's dots an inch: figures are drawn at the size they print at.
WIDTH, DPI = 6.5, 300
PRINTED: Any = STYLE | {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
}
# A decorator: the report's style while a function draws and saves. Figures are made without pyplot,
# whose backend and settings are the caller's.
in_style = matplotlib.rc_context(PRINTED)


def read_table(name: str) -> list[dict[str, str]]:
    """Read a CSV file of the reference numbers."""
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def save_figure(figure: Figure, path: Path, caption: str) -> Path:
    """Save a figure as PNG with its caption beside it."""
    paint(figure, path)
    write_caption(path, caption)
    return path


def paint(figure: Figure, path: Path) -> None:
    """Save a figure as PNG of 256 colours: what it shows has few, and it is a third of the size."""
    figure.savefig(path, dpi=DPI)
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, kmeans=1)
    few.save(path, optimize=True, dpi=(DPI, DPI))


def write_caption(path: Path, caption: str) -> None:
    """Put a picture's caption beside it, where the report looks for it."""
    path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")


def newer(path: Path, *sources: Path) -> bool:
    """Whether a picture is there with its caption, and newer than all that it was made from."""
    made = (path, path.with_suffix(".txt"))
    if not all(each.exists() for each in made):
        return False
    return path.stat().st_mtime > max(source.stat().st_mtime for source in sources)
