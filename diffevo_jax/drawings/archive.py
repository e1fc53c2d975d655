"""An archive of the plane as a heat map: the fitness of every cell's elite."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffevo_jax.archives import Cells, Elites
from diffevo_jax.checks import InputError
from diffevo_jax.drawings import movie
from diffevo_jax.drawings.style import STYLE

RASTER = 300  # of cells around centroids, along each axis
COLOURS = "viridis"


def draw_archive(
    cells: Cells,
    elites: Elites,
    *,
    label: str = "fitness",
    labels: tuple[str, str] = ("descriptor 1", "descriptor 2"),
    path: str | Path | None = None,
) -> Any:
    """Draw an archive of two axes; returns matplotlib's figure, and saves it to a path.

    Empty cells are white. label, labels: of the colour bar and of the axes.
    Raises InputError on an archive of another number of axes.
    """
    matplotlib = movie.matplotlib()
    fitness = np.asarray(elites.fitness)
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(5.2, 4.4), layout="constrained")
        axes = figure.subplots()
        heat = shade(axes, cells, fitness, labels)
        figure.colorbar(heat, ax=axes, label=label)
        there = fitness > -np.inf
        axes.set_title(f"{there.sum():,} of {len(fitness):,} cells filled", loc="left", fontsize=11)
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=200)
    return figure


def shade(axes: Any, cells: Cells, fitness: np.ndarray, labels: tuple[str, str], **scale) -> Any:
    """Draw cells by their fitness, `[C]`; scale: vmin and vmax of the colours."""
    if len(cells.low) != 2:
        raise InputError("cells", "those of an archive of two axes", f"{len(cells.low)} axes")
    counts = np.array([RASTER, RASTER]) if cells.counts is None else cells.counts
    ends = zip(cells.low, cells.high, counts, strict=True)
    edges = [np.linspace(low, high, count + 1) for low, high, count in ends]
    middles = np.meshgrid(*((each[1:] + each[:-1]) / 2 for each in edges), indexing="xy")
    places = jnp.asarray(np.stack(middles, axis=-1).reshape(-1, 2))
    cell = np.asarray(cells.find(places))
    shown = np.where(fitness > -np.inf, fitness, np.nan)[cell].reshape(middles[0].shape)
    heat = axes.pcolormesh(*edges, shown, cmap=COLOURS, rasterized=True, **scale)
    axes.set(xlabel=labels[0], ylabel=labels[1], box_aspect=1)
    return heat
