"""Fig. 2: the two-peak process, the landscape of two plateaus, and the hard start.

    diffevo-jax reproduce --only fig2

Settings are those of configs/fig2.yaml. The plane is 1.5 times the genome.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke

import diffevo_jax as de
from diffevo_jax.runner import registry
from diffevo_jax.runner.config import load_config
from diffevo_jax.runner.folders import write_arrays
from diffevo_jax.runner.repeats import mean_and_error
from diffevo_jax.runner.results import read_arrays
from experiments import study
from experiments.files import BLUE, CONFIGS, GREY, ORANGE, PALE, RED, in_style, save_figure
from experiments.rows import Row, Section

TITLE = "Fig. 2: two peaks"

SHOWN = (80, 55, 30, 5)  # the published figure's levels
FOCUS_PEAK = 1.0  # the individual followed ends on the peak at (1, 1)
HARD_START = (-1.0, 1.0)  # shift of the initial genomes, across the line through the peaks
NEAR = 0.5  # a point this close to a peak stands on it: the radius of the published plateaus
DIAGONAL = np.sqrt(2.0)  # where the peaks are along the diagonal

SCENES = {
    "two_peaks": ("two peaks", "two_peaks", (0.0, 0.0)),
    "two_steps": ("two plateaus", "two_steps", (0.0, 0.0)),
    "two_peaks_hard": ("two peaks, hard start", "two_peaks", HARD_START),
    "two_steps_hard": ("two plateaus, hard start", "two_steps", HARD_START),
}


def run(folder: Path, *, quick: bool) -> None:
    """Evolve on each scene: the first repeat's process is kept whole, of all repeats the shares."""
    settings = load_config(CONFIGS / "fig2.yaml")
    repeats = 4 if quick else 100
    lacking = [name for name in SCENES if not (folder / f"{name}.npz").exists()]
    if lacking:
        for name, kept in zip(lacking, _evolve_all(settings, lacking, repeats), strict=True):
            write_arrays(folder / f"{name}.npz", kept)


def _evolve_all(settings: Any, names: list[str], repeats: int) -> list[dict[str, np.ndarray]]:
    """Population and x0 `[T, N, 2]` of the first repeat, in the plane; shares `[S, T]` of all.

    A share is of the individuals that stand on a peak: on_left, on_right of the last population,
    population_on and x0_on of each generation. All scenes are one program.
    """
    methods = list(settings.methods.values())  # they differ in their landscapes alone
    functions = [getattr(de.problems, each.problem.name) for each in methods]
    scale, population_size = methods[0].problem.scale, methods[0].population
    algorithm = registry.build(
        "algorithm", methods[0].algorithm, "algorithm", key=jax.random.key(0), num_genes=2
    )
    landscapes = list(settings.methods)
    scenes = {
        "landscape": np.array([landscapes.index(SCENES[name][1]) for name in names]),
        "shift": np.array([SCENES[name][2] for name in names], np.float32),
    }

    def one(keep: Callable, key: jax.Array, scene: dict[str, jax.Array]):
        key_init, key_run = jax.random.split(key)
        population = jax.random.normal(key_init, (population_size, 2)) + scene["shift"]
        fitness_fn = study.chosen(functions, scene["landscape"], scale)
        return de.evolve(key_run, algorithm, fitness_fn, population, keep=keep).kept

    def shares(info: de.Info) -> dict[str, jax.Array]:
        def on(points: jax.Array, peak: float) -> jax.Array:
            return jnp.mean(jnp.sum((scale * points - peak) ** 2, axis=1) < NEAR**2)

        left, right = on(info.population, -1.0), on(info.population, 1.0)
        return {
            "left": left,
            "right": right,
            "population_on": left + right,
            "x0_on": on(info.x0, -1.0) + on(info.x0, 1.0),
            "fitness": jnp.mean(info.fitness),
        }

    def whole(info: de.Info) -> dict[str, jax.Array]:
        return {
            "population": scale * info.population,
            "x0": scale * info.x0,
            "process_fitness": info.fitness,
            "t": info.t,
            "alpha": info.alpha,
        }

    def all_scenes(keep: Callable, repeats: int) -> dict[str, np.ndarray]:
        run = partial(de.batch.run_many, partial(one, keep), devices=jax.devices())
        kept = jax.jit(run)(de.batch.seed_keys(settings.seed, repeats), scenes)
        return {name: np.asarray(value) for name, value in kept.items()}

    many, first = all_scenes(shares, repeats), all_scenes(whole, 1)
    return [
        {"scale": np.asarray(scale)}
        | {key: value[i, 0] for key, value in first.items()}
        | {key: value[i] for key, value in many.items()}
        for i in range(len(names))
    ]


def section(folder: Path) -> Section:
    """Draw the process and its companions; give the shares that end on the peaks."""
    scenes = {name: read_arrays(folder / f"{name}.npz") for name in SCENES}
    first = scenes["two_peaks"]
    rows = []
    for name, (label, *_) in SCENES.items():
        last = {key: scenes[name][key][:, -1] for key in ("left", "right", "fitness")}
        rows += [
            Row(f"{label}: individuals on the peak at ({peak}, {peak}), %", None, None, *percent)
            for peak, percent in (
                ("-1", mean_and_error(100 * last["left"])),
                ("1", mean_and_error(100 * last["right"])),
            )
        ]
    for what, key in (("x", "population_on"), ("x0", "x0_on")):
        value, error = mean_and_error(_half_way(first[key], first["t"]))
        note = f"within {NEAR:g} of one of them; levels run from 99 down to 0"
        rows.append(
            Row(
                f"two peaks: level at which half of {what} is on a peak",
                None,
                None,
                value,
                error,
                note,
            )
        )
    hard = {name: 100 * float(scenes[name]["population_on"][:, -1].mean()) for name in SCENES}
    text = f"""
    512 individuals start from N(0, I) and move through 100 levels of the linear schedule, eta 0.1,
    on a landscape with peaks at (-1, -1) and (1, 1). The plane is 1.5 times the genome. The
    neighbourhood that an estimate averages over shrinks with 1 - alpha, from everybody to one peak.

    The published figure is a picture and has no numbers. What it shows can be counted: both peaks
    are found, and the estimates x0 reach them before the individuals do. Plateaus without any slope
    (1 within {NEAR:g} of a peak, 1e-9 elsewhere) are found as well. A hard start shifts all genomes
    by (-1, 1), off the line between the peaks: {hard["two_steps_hard"]:.0f} % of the individuals
    still end on a plateau. On the Gaussian peaks, whose slopes have weight too, the two groups form
    but stop on the near side: {hard["two_peaks_hard"]:.0f} % end within {NEAR:g} of a peak. Means
    over {len(first["left"])} repeats; the pictures are the first.
    """
    figures = [
        _draw_process(first, folder / "process.png"),
        _draw_histograms(first, folder / "histograms.png"),
        _draw_companions(scenes, folder / "companions.png"),
    ]
    return Section(TITLE, text, rows, figures)


def _half_way(shares: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Level `[S]` at which a share `[S, T]` first comes to a half; 0 where it never does."""
    reached = shares >= 0.5
    return np.where(reached.any(axis=1), t[reached.argmax(axis=1)], 0)


@in_style
def _draw_process(scene: dict[str, np.ndarray], path: Path) -> Path:
    t, alpha, scale = scene["t"], scene["alpha"], float(scene["scale"])
    population, x0, fitness = scene["population"], scene["x0"], scene["process_fitness"]
    # Follow the individual that travels furthest to its peak: its way is the easiest to see.
    on_peak = np.sum((population[-1] - FOCUS_PEAK) ** 2, axis=1) < 0.2**2
    middle = int(np.argmin(np.abs(t - SHOWN[0])))
    reach = np.linalg.norm(population[middle] - FOCUS_PEAK, axis=1)
    far_enough = on_peak & (np.abs(population[middle]).max(axis=1) < 2.2)
    focus = int(np.argmax(np.where(far_enough, reach, -1)))

    figure = Figure(figsize=(9.6, 2.75), layout="constrained")
    panels = figure.subplots(1, 4, sharex=True, sharey=True)
    for axes, level in zip(panels, SHOWN, strict=True):
        now = int(np.flatnonzero(t == level)[0])
        here, spread = population[now], scale * np.sqrt((1 - alpha[now]) / alpha[now])
        centre = here[focus] / np.sqrt(alpha[now])
        axes.plot([-3, 3], [-3, 3], "--", color=PALE, linewidth=0.8, zorder=0)
        for i in range(0, 400, 4):
            axes.plot(*population[: now + 1, i].T, color=PALE, linewidth=0.5, zorder=1)
        for radius in (3, 2, 1):
            axes.add_patch(Circle(centre, radius * spread, color=BLUE, alpha=0.1, lw=0, zorder=2))
        near = np.linalg.norm(here - centre, axis=1) < 3 * spread
        size = 2 + 12 * fitness[now] / max(fitness[now].max(), 1e-12)
        colours = np.where(near, BLUE, "#B5B5B5")
        axes.scatter(*here.T, s=size, c=colours, alpha=0.75, linewidth=0, zorder=3)
        axes.scatter([-1, 1], [-1, 1], marker="x", s=34, color="black", linewidth=1.3, zorder=10)
        axes.plot(*population[: now + 1, focus].T, color=ORANGE, linewidth=1.3, zorder=5)
        earlier = [int(np.flatnonzero(t == e)[0]) for e in SHOWN if e > level]
        axes.scatter(*population[earlier, focus].T, marker="*", s=60, color=GREY, lw=0, zorder=6)
        soon = min(now + 8, len(population) - 1)
        axes.scatter(*population[soon, focus], marker="*", s=70, color=ORANGE, lw=0, zorder=6)
        axes.scatter(*here[focus], marker="*", s=80, color="black", linewidth=0, zorder=7)
        estimate = x0[now, focus]
        axes.annotate(
            "",
            estimate,
            here[focus],
            arrowprops={
                "arrowstyle": "-|>",
                "lw": 0.7,
                "color": "black",
                "shrinkA": 0,
                "shrinkB": 2,
                "mutation_scale": 6,
            },
            zorder=7,
        )
        axes.scatter(*estimate, s=26, color=RED, linewidth=0, zorder=8)
        # The label goes on beyond the arrow's head, where it covers neither.
        beyond = (estimate - here[focus]) / np.linalg.norm(estimate - here[focus])
        axes.annotate(
            "$x_0$",
            estimate,
            textcoords="offset points",
            xytext=tuple(11 * beyond),
            ha="center",
            va="center",
            color=RED,
            fontsize=12,
            zorder=9,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
        axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
        axes.set_title(f"$t = {level}$", fontsize=12)
        for side in axes.spines.values():
            side.set_visible(True)
            side.set_color("#999999")
        axes.tick_params(color="#999999")
    return save_figure(
        figure,
        path,
        "(a) The process at four levels. Translucent disks: one, two and three standard deviations "
        "of the neighbourhood of one individual (black star; grey stars: where it was in earlier "
        "panels; orange star: where it is eight levels later), centred at x / sqrt(alpha). Blue: "
        "individuals within the outer disk, larger where fitter. Red: its estimate x0. Crosses: "
        "the peaks.",
    )


@in_style
def _draw_histograms(scene: dict[str, np.ndarray], path: Path) -> Path:
    bins = np.linspace(-3, 3, 33)
    figure = Figure(figsize=(9.6, 2.2), layout="constrained")
    panels = figure.subplots(1, 4, sharex=True, sharey=True)
    for axes, level in zip(panels, SHOWN, strict=True):
        now = int(np.flatnonzero(scene["t"] == level)[0])
        for points, colour, label in (("population", "#9A9A9A", "$x$"), ("x0", RED, "$x_0$")):
            along = scene[points][now].mean(axis=1) * np.sqrt(2)
            weights = np.full(len(along), 100 / len(along))
            axes.hist(along, bins, weights=weights, color=colour, alpha=0.6, label=label)
        for peak in (-DIAGONAL, DIAGONAL):
            axes.axvline(peak, color="black", linestyle="--", linewidth=0.9)
        axes.set(xlim=(-3, 3), xlabel="along the diagonal")
        axes.set_title(f"$t = {level}$", fontsize=12)
    panels[0].set_ylabel("individuals, %")
    panels[0].legend(frameon=False, loc="upper left", handlelength=1, borderaxespad=0)
    return save_figure(
        figure,
        path,
        "(b) The same four levels along the diagonal: individuals x (grey) and their estimates x0 "
        "(red); dashed lines at the peaks. The estimates split and stand on both peaks before the "
        "individuals do.",
    )


@in_style
def _draw_companions(scenes: dict[str, dict[str, np.ndarray]], path: Path) -> Path:
    names = [name for name in SCENES if name != "two_peaks"]
    levels = (99, 55, 30, 0)
    figure = Figure(figsize=(8.4, 6.6), layout="constrained")
    grid = figure.subplots(len(names), 4, sharex=True, sharey=True)
    for line, name in zip(grid, names, strict=True):
        label, landscape, _ = SCENES[name]
        scene = scenes[name]
        for axes, level in zip(line, levels, strict=True):
            now = int(np.flatnonzero(scene["t"] == level)[0])
            for peak in (-1, 1):
                solid = landscape == "two_steps"
                axes.add_patch(
                    Circle(
                        (peak, peak),
                        NEAR,
                        facecolor="#EFE9DC" if solid else "none",
                        edgecolor=GREY,
                        linestyle="-" if solid else ":",
                        linewidth=0.8,
                        zorder=0,
                    )
                )
            axes.scatter(*scene["population"][now].T, s=5, color=BLUE, alpha=0.6, lw=0, zorder=2)
            axes.scatter(*scene["x0"][now].T, s=5, color=RED, alpha=0.5, lw=0, zorder=3)
            axes.set(
                xlim=(-4.5, 3), ylim=(-3, 4.5), aspect="equal", xticks=(-3, 0, 3), yticks=(-3, 0, 3)
            )
            if name == names[0]:
                axes.set_title(f"$t = {level}$", fontsize=12)
        line[0].set_ylabel(label)
    return save_figure(
        figure,
        path,
        "Companions: individuals (blue) and their estimates x0 (red) on two plateaus of radius 0.5 "
        "and, in the lower rows, from a start shifted by (-1, 1) in genomes. Circles of radius 0.5 "
        "around the peaks.",
    )
