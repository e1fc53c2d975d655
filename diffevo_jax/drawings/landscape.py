"""A population that moves over a landscape, as a moving picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from diffevo_jax.checks import InputError
from diffevo_jax.drawings import movie
from diffevo_jax.drawings.style import STYLE, X

# Seconds that a run is spread over, within 4 and 20 generations a second.
SECONDS = 6.0


def animate_population(
    path: str | Path,
    populations: Any,
    function: Callable[[Any], Any] | None = None,
    *,
    limit: float | None = None,
    title: str = "",
    labels: tuple[str, str] = ("$x_1$", "$x_2$"),
    colour: str = X,
) -> Path:
    """Draw a population of the plane, generation by generation, NAME.gif or NAME.mp4.

    populations: `[T, N, 2]`. function: points `[M, 2]` -> fitness `[M]`, drawn below as shades and
        contours; None draws none. limit: the window is [-limit, limit]^2; None takes one in which
        almost all of the points lie. title: before "generation t of T". Returns the path.

        kept = de.evolve(..., keep=lambda info: info.population).kept
    """
    matplotlib = movie.matplotlib()

    populations = np.asarray(populations)
    if populations.ndim != 3 or populations.shape[-1] != 2:
        raise InputError("populations", "shape [T, N, 2]", populations.shape)
    finite = populations[np.isfinite(populations).all(axis=-1)]
    if not len(finite):
        raise InputError("populations", "finite points", "none")
    if limit is None:
        limit = 1.05 * float(np.quantile(np.abs(finite).max(axis=-1), 0.99)) or 1.0
    with matplotlib.rc_context({**STYLE, **movie.LETTERS}):
        figure = matplotlib.figure.Figure(
            figsize=(8.0, 7.2 if function is not None else 7.6), layout="constrained"
        )
        axes = figure.subplots()
        if function is not None:
            _shade(figure, axes, function, limit)
        points = axes.scatter(
            *populations[0].T, s=22, color=colour, edgecolor="white", linewidth=0.5, zorder=3
        )
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axes.set(xlabel=labels[0], ylabel=labels[1])
        words = axes.set_title(title, loc="left")
        count = len(populations)

        def draw(generation: int) -> None:
            points.set_offsets(populations[generation])
            progress = f"generation {generation + 1} of {count}"
            words.set_text(f"{title}: {progress}" if title else progress)

        per_second = min(max(count / SECONDS, 4.0), 20.0)
        return movie.save(figure, draw, range(count), Path(path), per_second=per_second)


def _shade(figure: Any, axes: Any, function: Callable[[Any], Any], limit: float) -> None:
    """Draw the better half of a landscape below the points, darker grey where it is better."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap
    from matplotlib.ticker import MaxNLocator

    line = np.linspace(-limit, limit, 201)
    grid = np.stack(np.meshgrid(line, line), axis=-1)
    fitness = np.asarray(function(grid.reshape(-1, 2))).reshape(grid.shape[:2])
    fitness = np.where(np.isfinite(fitness), fitness, np.nan)
    # Black is left to letters and points.
    greys = ListedColormap(colormaps["Greys"](np.linspace(0, 0.7, 256)))
    low, high = np.nanmedian(fitness), np.nanmax(fitness)
    levels = MaxNLocator(20).tick_values(low, high) if low < high else None  # None for a plain
    shades = axes.contourf(line, line, fitness, levels, cmap=greys, extend="min", zorder=0)
    figure.colorbar(shades, ax=axes, label="fitness", shrink=0.85)
