"""The pictures of Fig. 3 and Table 1, drawn from arrays that are handed in."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import diffevo_jax as de
from diffevo_jax.drawings.style import FINAL, X0, X
from experiments import study
from experiments.files import WIDTH, in_style, save_figure
from experiments.looks import METHODS

ELLIPSE = "#E69F00"
# A picture each: who keeps several optima, and who moves a distribution.
SHOWN = {
    "paths": ("diffusion", "latent", "map_elites"),
    "distributions": ("cma_es", "open_es", "pepg"),
}
CAPTIONS = {
    "paths": "One run of each method that can keep several optima, over the fitness (darker is "
    "higher): the ways of 64 individuals, the estimates x0 of the last update and the last "
    "population; of MAP-Elites the archive, size by fitness, and its cells.",
    "distributions": "One run of each method that moves a distribution: the way of its mean and "
    "the last population; of CMA-ES the covariance (one standard deviation) of every fourth "
    "generation. On Rosenbrock OpenES leaves the box, to a fitness of 0.706.",
}


def place(objective: str, dim: int) -> str:
    """rastrigin_32d in 2 -> Rastrigin 2-D, 32-D target; in 32 -> Rastrigin 32-D."""
    name, _, named = objective.partition("_")
    if not named:
        return name.capitalize()
    named = named.upper().replace("D", "-D")
    return f"{name.capitalize()} {named}" if dim > 2 else f"{name.capitalize()} 2-D, {named} target"


@in_style
def draw_paths(folder: Path, arrays: dict[str, np.ndarray]) -> list[Path]:
    """A column a function, a row a method: one run over the landscape."""
    return [_draw_paths(folder / f"{name}.png", name, arrays) for name in SHOWN]


def _draw_paths(path: Path, which: str, arrays: dict[str, np.ndarray]) -> Path:
    names, methods = study.FUNCTIONS, SHOWN[which]
    figure = Figure(figsize=(WIDTH, 4.65), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01)  # pyright: ignore
    panels = figure.subplots(len(methods), len(names), sharex=True, sharey=True)
    side = np.linspace(-4, 4, 201)
    plane = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    for column, name in enumerate(names):
        landscape = getattr(de.landscapes, name)
        fitness = np.asarray(landscape(jnp.asarray(plane))).reshape(201, 201)
        for row, method in enumerate(methods):
            axes = panels[row, column]
            # The fourth root shows the low slopes too, as a log scale would, and has a 0.
            extent = (-4, 4, -4, 4)
            axes.imshow(fitness**0.25, origin="lower", extent=extent, cmap="Greys", vmax=2.4)
            prefix = f"{method}.{name}."
            kept = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            _DRAW.get(method, _draw_mean)(axes, kept)
            axes.set(xlim=(-4, 4), ylim=(-4, 4), xticks=(-3, 0, 3), yticks=(-3, 0, 3))
            axes.spines[["top", "right"]].set_visible(True)
            if row == 0:
                axes.set_title(name.capitalize())
            if column == 0:
                words = METHODS[method].label.replace(" Evolution", "\nEvolution")
                axes.set_ylabel(words)
    figure.supxlabel("the plane: first coordinate across, second up", fontsize=9)
    what = {
        "paths": [
            ("ways of individuals x", {"color": X, "linewidth": 1}),
            ("last estimates x0", _dot(X0, 3)),
            ("last population, or archive", _dot(FINAL, 3)),
        ],
        "distributions": [
            ("way of the mean", {"color": X, "linewidth": 1}),
            ("covariance", {"color": ELLIPSE, "linewidth": 1}),
            ("last population", _dot(FINAL, 3)),
        ],
    }[which]
    handles = [Line2D([], [], label=label, **style) for label, style in what]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return save_figure(figure, path, CAPTIONS[which])


def _dot(colour: str, size: float) -> dict[str, Any]:
    return {"color": colour, "linestyle": "", "marker": "o", "markersize": size, "mew": 0}


def _draw_diffusion(axes: Any, kept: dict[str, np.ndarray]) -> None:
    axes.plot(*np.moveaxis(kept["path"], -1, 0), color=X, linewidth=0.35, alpha=0.6)
    axes.plot(*kept["points"].T, **_dot(FINAL, 2.2))
    axes.plot(*kept["x0"].T, **_dot(X0, 1.1))  # smaller, as the points lie on them


def _draw_mean(axes: Any, kept: dict[str, np.ndarray]) -> None:
    axes.plot(*kept["points"].T, **_dot(FINAL, 1.8))
    axes.plot(*kept["mean"].T, color=X, linewidth=1.2)


def _draw_cma(axes: Any, kept: dict[str, np.ndarray]) -> None:
    angle = np.linspace(0, 2 * np.pi, 60)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    for mean, covariance in list(zip(kept["mean"], kept["covariance"], strict=True))[::4]:
        values, vectors = np.linalg.eigh(covariance)
        ellipse = mean[:, None] + vectors @ (np.sqrt(np.maximum(values, 0))[:, None] * circle)
        axes.plot(*ellipse, color=ELLIPSE, linewidth=0.5)
    _draw_mean(axes, kept)


def _draw_archive(axes: Any, kept: dict[str, np.ndarray]) -> None:
    alive = np.isfinite(kept["fitness"])
    points, fitness = kept["points"][alive], kept["fitness"][alive]
    for edge in np.arange(-3.5, 4):
        axes.axhline(edge, color="#999999", linewidth=0.3, linestyle=":")
        axes.axvline(edge, color="#999999", linewidth=0.3, linestyle=":")
    axes.scatter(*points.T, s=1 + 9 * fitness, color=FINAL, linewidths=0)


_DRAW = {
    "diffusion": _draw_diffusion,
    "latent": _draw_diffusion,
    "cma_es": _draw_cma,
    "map_elites": _draw_archive,
}


@in_style
def draw_table(path: Path, found: dict, methods: dict[str, str]) -> Path:
    """Every method's numbers in the plane, ours and the reference's: a column a function."""
    quantities = {"entropy": "entropy, bits", "fitness": "fitness", "qd_score": "QD score"}
    figure = Figure(figsize=(WIDTH, 4.3), layout="constrained")
    grid = figure.subplots(len(quantities), len(study.FUNCTIONS), sharey=True, sharex="row")
    for line, (quantity, words) in zip(grid, quantities.items(), strict=True):
        for axes, name in zip(line, study.FUNCTIONS, strict=True):
            for height, (method, theirs) in enumerate(methods.items()):
                values, look = found[method, name, 2][quantity], METHODS[method]
                row = study.find_row(
                    "benchmarks.csv", method=theirs, objective=name, variant="named_dim"
                )
                # An open mark round the filled one: where they agree both are seen.
                mark: Any = {"marker": look.marker, "color": look.colour}
                reference = float(row[f"{quantity}_mean"])
                axes.plot(reference, height, ms=8, mfc="none", mew=0.7, **mark)
                axes.errorbar(values.mean(), height, xerr=values.std(), ms=4, mew=0, lw=1, **mark)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="y", color="#E3E3E3", linewidth=0.6)
            axes.spines["left"].set_visible(False)
            axes.margins(0.1)
        line[len(line) // 2].set_xlabel(words)
    for axes, name in zip(grid[0], study.FUNCTIONS, strict=True):
        axes.set_title(name.capitalize())
    grid[0, 0].set_yticks(range(len(methods)), [METHODS[method].label for method in methods])
    grid[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    black: Any = {"color": "black", "marker": "o", "linestyle": ""}
    handles = [
        Line2D([], [], label="ours, one standard deviation", ms=4, **(black | {"linestyle": "-"})),
        Line2D([], [], label="authors' code", ms=8, mfc="none", mew=0.7, **black),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    caption = (
        "Entropy and mean fitness of the 64 fittest, and QD score, in the plane: means over "
        "repeats, bars one standard deviation. Open marks are what the authors' code reached."
    )
    return save_figure(figure, path, caption)
