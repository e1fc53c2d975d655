"""The pictures of Fig. 3 and Table 1, drawn from arrays that are handed in."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import diffevo_jax as de
from experiments import study
from experiments.files import BLUE, GREY, ORANGE, RED, in_style, save_figure

LABELS = {
    "diffusion": "Diffusion Evolution",
    "latent": "latent",
    "cma_es": "CMA-ES",
    "open_es": "OpenES",
    "pepg": "PEPG",
    "map_elites": "MAP-Elites",
}
COLOURS = {"diffusion": BLUE, "latent": RED, "cma_es": "#3A3A3A", "open_es": "#3B7A57"} | {
    "pepg": "#7A5195",
    "map_elites": ORANGE,
}
DARK = "#3A3A3A"


def place(objective: str, dim: int) -> str:
    """rastrigin_32d in 2 -> Rastrigin 2-D, 32-D target; in 32 -> Rastrigin 32-D."""
    name, _, named = objective.partition("_")
    if not named:
        return name.capitalize()
    named = named.upper().replace("D", "-D")
    return f"{name.capitalize()} {named}" if dim > 2 else f"{name.capitalize()} 2-D, {named} target"


@in_style
def draw_paths(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A column a function, a row a method: one run over the landscape."""
    names, methods = study.FUNCTIONS, tuple(LABELS)
    figure = Figure(figsize=(8.2, 9.9), layout="constrained")
    panels = figure.subplots(len(methods), len(names), sharex=True, sharey=True)
    side = np.linspace(-4, 4, 201)
    plane = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    for column, name in enumerate(names):
        landscape = getattr(de.problems, name)
        fitness = np.asarray(landscape(jnp.asarray(plane))).reshape(201, 201)
        for row, method in enumerate(methods):
            axes = panels[row, column]
            # The fourth root shows the low slopes too, as a log scale would, and has a 0.
            axes.imshow(
                fitness**0.25, origin="lower", extent=(-4, 4, -4, 4), cmap="Blues", vmin=0, vmax=1.5
            )
            prefix = f"{method}.{name}."
            kept = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            _DRAW.get(method, _draw_mean)(axes, kept)
            axes.set(xlim=(-4, 4), ylim=(-4, 4), xticks=(-4, 0, 4), yticks=(-4, 0, 4))
            axes.spines[["top", "right"]].set_visible(True)
            axes.tick_params(labelsize=8, length=2)
            if row == 0:
                axes.set_title(name.capitalize(), fontsize=11)
            if column == 0:
                axes.set_ylabel(LABELS[method], fontsize=11)
    caption = (
        "One run of each method. Background: fitness, darker is higher. Diffusion Evolution, plain "
        "and latent: paths of 64 individuals, the last x0 in red. CMA-ES: path of the mean, "
        "covariance ellipses (one standard deviation) of every fourth generation, last samples in "
        "red. OpenES, PEPG: path of the mean, last samples in red. MAP-Elites: archive, size "
        "by fitness, and its cells. On Rosenbrock OpenES leaves the box, to a fitness of 0.706."
    )
    return save_figure(figure, path, caption)


def _draw_diffusion(axes: Any, kept: dict[str, np.ndarray]) -> None:
    axes.plot(*np.moveaxis(kept["path"], -1, 0), color=GREY, linewidth=0.4, alpha=0.5)
    axes.plot(*kept["x0"].T, "o", color=RED, markersize=3, alpha=0.25, markeredgewidth=0)


def _draw_mean(axes: Any, kept: dict[str, np.ndarray]) -> None:
    axes.plot(*kept["mean"].T, color=DARK, linewidth=1)
    axes.plot(*kept["points"].T, "o", color=RED, markersize=3, alpha=0.25, markeredgewidth=0)


def _draw_cma(axes: Any, kept: dict[str, np.ndarray]) -> None:
    angle = np.linspace(0, 2 * np.pi, 60)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    for mean, covariance in list(zip(kept["mean"], kept["covariance"], strict=True))[::4]:
        values, vectors = np.linalg.eigh(covariance)
        ellipse = mean[:, None] + vectors @ (np.sqrt(np.maximum(values, 0))[:, None] * circle)
        axes.plot(*ellipse, color=GREY, linewidth=0.6, alpha=0.8)
    _draw_mean(axes, kept)


def _draw_archive(axes: Any, kept: dict[str, np.ndarray]) -> None:
    alive = np.isfinite(kept["fitness"])
    points, fitness = kept["points"][alive], kept["fitness"][alive]
    for edge in np.arange(-3.5, 4):
        axes.axhline(edge, color=GREY, linewidth=0.4, linestyle=":")
        axes.axvline(edge, color=GREY, linewidth=0.4, linestyle=":")
    axes.scatter(*points.T, s=2 + 22 * fitness, color=RED, alpha=0.6, linewidths=0)


_DRAW = {
    "diffusion": _draw_diffusion,
    "latent": _draw_diffusion,
    "cma_es": _draw_cma,
    "map_elites": _draw_archive,
}


@in_style
def draw_table(path: Path, found: dict, methods: dict[str, str]) -> Path:
    """Entropy against fitness of every method, ours and the reference's, a panel a function."""
    names = study.FUNCTIONS
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    panels = figure.subplots(1, 5, sharey=True)
    for axes, name in zip(panels, names, strict=True):
        for method, theirs in methods.items():
            values, colour = found[method, name, 2], COLOURS[method]
            axes.errorbar(
                values["entropy"].mean(),
                values["fitness"].mean(),
                xerr=values["entropy"].std(),
                yerr=values["fitness"].std(),
                fmt="o",
                color=colour,
                markersize=5,
                elinewidth=0.8,
            )
            row = study.find_row(
                "benchmarks.csv", method=theirs, objective=name, variant="named_dim"
            )
            reference = float(row["entropy_mean"]), float(row["fitness_mean"])
            axes.plot(*reference, "D", color=colour, markersize=9, fillstyle="none", mew=0.8)
        axes.set_title(name.capitalize(), fontsize=11)
        axes.set(xlim=(-0.4, 6.4), xticks=(0, 2, 4, 6), ylim=(0, 1.1))
        axes.set_xlabel("entropy, bits")
    panels[0].set_ylabel("fitness of the 64 fittest")
    for method in methods:
        panels[0].plot([], [], "o", color=COLOURS[method], label=LABELS[method])
    panels[0].plot([], [], "D", color="black", fillstyle="none", mew=0.8, label="authors' code")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=7,
        frameon=False,
        fontsize=9,
        handletextpad=0.2,
        columnspacing=1.2,
    )
    caption = (
        "Table 1 as a picture: mean over repeats, bars are one standard deviation; diamonds are "
        "what the authors' code reached. Right is diverse, up is fit."
    )
    return save_figure(figure, path, caption)
