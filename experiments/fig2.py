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
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch

import diffevo_jax as de
from diffevo_jax.drawings.style import GREY, X0, X
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.results.files import write_arrays
from diffevo_jax.runs.results.folder import read_arrays
from experiments import study
from experiments.files import CONFIGS, WIDTH, in_style, save_figure
from experiments.rows import Number, Row, Section

TITLE = "Fig. 2: two peaks"

SHOWN = (80, 55, 30, 5)  # the published figure's levels
FOCUS_PEAK = 1.0  # the individual followed ends on the peak at (1, 1)
HARD_START = (-1.0, 1.0)  # shift of the initial genomes, across the line through the peaks
NEAR = 0.5  # a point this close to a peak stands on it: the radius of the published plateaus
DIAGONAL = np.sqrt(2.0)  # where the peaks are along the diagonal
NEIGHBOURHOOD = "#E69F00"

SCENES = {
    "two_peaks": ("two peaks", "two_peaks", (0.0, 0.0)),
    "two_steps": ("two plateaus", "two_steps", (0.0, 0.0)),
    "two_peaks_hard": ("two peaks, hard start", "two_peaks", HARD_START),
    "two_steps_hard": ("two plateaus, hard start", "two_steps", HARD_START),
}


def run(folder: Path, *, quick: bool) -> None:
    """Evolve on each scene: the first repeat's process is kept whole, of all repeats the shares."""
    settings = load(CONFIGS / "fig2.yaml").config
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
    functions = [getattr(de.landscapes, each.problem.function) for each in methods]
    scale, population_size = methods[0].problem.scale, methods[0].population_size
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
    rows = [
        Row(
            f"individuals within {NEAR:g} of a peak, %",
            label,
            "diffusion",
            Number.of(100 * scenes[name][key][:, -1]),
            setting=f"at ({peak}, {peak})",
        )
        for name, (label, *_) in SCENES.items()
        for peak, key in (("-1", "left"), ("1", "right"))
    ]
    rows += [
        Row(
            "level, of 99 down to 0, at which half stand on a peak",
            "two peaks",
            "diffusion",
            Number.of(_half_way(first[key], first["t"])),
            setting=setting,
        )
        for setting, key in (("individuals x", "population_on"), ("estimates x0", "x0_on"))
    ]
    hard = {name: 100 * float(scenes[name]["population_on"][:, -1].mean()) for name in SCENES}
    text = f"""
    512 individuals start from N(0, I) and move through 100 levels of the linear schedule, eta 0.1,
    on a landscape with peaks at (-1, -1) and (1, 1); the plane is 1.5 times the genome. The
    published figure is a picture and has no numbers. What it shows can be counted: both peaks are
    found, and the estimates x0 reach them before the individuals do.

    Plateaus without any slope (1 within {NEAR:g} of a peak, 1e-9 elsewhere) are found as well, and
    from a hard start, shifted by (-1, 1) off the line between the peaks,
    {hard["two_steps_hard"]:.0f} % still end on one. On the Gaussian peaks, whose slopes have weight
    too, the groups of a hard start form but stop on the near side: {hard["two_peaks_hard"]:.0f} %
    end within {NEAR:g} of a peak. Means over {len(first["left"])} repeats; the pictures are of the
    first.
    """
    figures = [
        _draw_process(first, folder / "process.png"),
        _draw_companions(scenes, folder / "companions.png"),
    ]
    return Section(TITLE, text, rows, figures, "a picture without numbers")


def _half_way(shares: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Level `[S]` at which a share `[S, T]` first comes to a half; 0 where it never does."""
    reached = shares >= 0.5
    return np.where(reached.any(axis=1), t[reached.argmax(axis=1)], 0)


def _draw_landscape(axes: Any, name: str, limits: tuple[float, float, float, float]) -> None:
    """Fitness in grey, darker where higher, light enough for what is drawn over it."""
    left, right, low, high = limits
    across, up = np.linspace(left, right, 241), np.linspace(low, high, 241)
    plane = jnp.asarray(np.stack(np.meshgrid(across, up), -1).reshape(-1, 2))
    fitness = np.asarray(getattr(de.landscapes, name)(plane)).reshape(241, 241)
    axes.imshow(fitness, origin="lower", extent=limits, cmap="Greys", vmin=0, vmax=2.2, zorder=-1)
    axes.set(xlim=(left, right), ylim=(low, high), aspect="equal")
    axes.spines[["top", "right"]].set_visible(True)


@in_style
def _draw_process(scene: dict[str, np.ndarray], path: Path) -> Path:
    """Four levels in the plane, and the same along the diagonal."""
    t, alpha, scale = scene["t"], scene["alpha"], float(scene["scale"])
    population, x0, fitness = scene["population"], scene["x0"], scene["process_fitness"]
    # Follow the individual that travels furthest to its peak: its way is the easiest to see.
    on_peak = np.sum((population[-1] - FOCUS_PEAK) ** 2, axis=1) < 0.2**2
    middle = int(np.argmin(np.abs(t - SHOWN[0])))
    reach = np.linalg.norm(population[middle] - FOCUS_PEAK, axis=1)
    far_enough = on_peak & (np.abs(population[middle]).max(axis=1) < 2.2)
    focus = int(np.argmax(np.where(far_enough, reach, -1)))

    figure = Figure(figsize=(WIDTH, 3.75), layout="constrained")
    planes, lines = figure.subplots(2, 4, height_ratios=(1.55, 1), sharex=True, sharey="row")
    for axes, below, level in zip(planes, lines, SHOWN, strict=True):
        now = int(np.flatnonzero(t == level)[0])
        here, spread = population[now], scale * np.sqrt((1 - alpha[now]) / alpha[now])
        centre = here[focus] / np.sqrt(alpha[now])
        _draw_landscape(axes, "two_peaks", (-3, 3, -3, 3))
        for radius in (3, 2, 1):
            axes.add_patch(Circle(centre, radius * spread, color=NEIGHBOURHOOD, alpha=0.16, lw=0))
        size = 1 + 5 * fitness[now] / max(fitness[now].max(), 1e-12)
        axes.scatter(*here.T, s=size, c=X, linewidth=0, zorder=3)
        axes.plot(*population[: now + 1, focus].T, color="black", linewidth=0.7, zorder=5)
        axes.scatter(*here[focus], marker="*", s=42, color="black", linewidth=0, zorder=7)
        axes.plot(*np.stack([here[focus], x0[now, focus]]).T, color=X0, linewidth=0.8, zorder=7)
        axes.scatter(*x0[now, focus], s=16, marker="D", color=X0, linewidth=0, zorder=8)
        axes.set(xticks=(-2, 0, 2), yticks=(-2, 0, 2))
        axes.set_title(f"level {level}")
        for points, colour, style in ((here, X, "stepfilled"), (x0[now], X0, "step")):
            along = points.mean(axis=1) * DIAGONAL
            weights = np.full(len(along), 100 / len(along))
            below.hist(along, np.linspace(-3, 3, 33), weights=weights, color=colour, histtype=style,
                       alpha=0.5 if style == "stepfilled" else 1, linewidth=1)  # fmt: skip
        for peak in (-DIAGONAL, DIAGONAL):
            below.axvline(peak, color="black", linestyle=":", linewidth=0.8)
        below.set(xlim=(-3, 3))
    planes[0].set_ylabel("second coordinate")
    lines[0].set_ylabel("individuals, %")
    figure.supxlabel("above: first coordinate; below: place along the diagonal", fontsize=9)
    dot: Any = {"linestyle": "", "color": X, "markeredgewidth": 0}
    figure.legend(
        handles=[
            Line2D([], [], marker="o", markersize=4, label="individuals x", **dot),
            Line2D([], [], marker="D", color=X0, markersize=4, label="estimate x0"),
            Line2D([], [], marker="*", color="black", markersize=7, label="one individual's way"),
            Patch(color=NEIGHBOURHOOD, alpha=0.4, linewidth=0, label="its neighbourhood"),
            Patch(color="#BBBBBB", linewidth=0, label="fitness"),
        ],
        loc="outside upper center",
        ncols=5,
        handletextpad=0.4,
        columnspacing=1.2,
    )
    return save_figure(
        figure,
        path,
        "The process at four levels. Above: individuals, larger where fitter, over the fitness. "
        "Disks are one, two and three standard deviations of the neighbourhood that one "
        "individual's estimate x0 averages over, centred at x / sqrt(alpha). It shrinks with "
        "1 - alpha, from everybody to one peak. Below: all individuals and all estimates along the "
        "diagonal, dotted lines at the peaks.",
    )


@in_style
def _draw_companions(scenes: dict[str, dict[str, np.ndarray]], path: Path) -> Path:
    """The plateaus, and both landscapes from a hard start, at four levels."""
    names = [name for name in SCENES if name != "two_peaks"]
    levels = (99, 55, 30, 0)
    figure = Figure(figsize=(WIDTH, 5.5), layout="constrained")
    grid = figure.subplots(len(names), 4, sharex=True, sharey=True)
    for line, name in zip(grid, names, strict=True):
        label, landscape, _ = SCENES[name]
        scene = scenes[name]
        for axes, level in zip(line, levels, strict=True):
            now = int(np.flatnonzero(scene["t"] == level)[0])
            _draw_landscape(axes, landscape, (-4.5, 3, -3, 4.5))
            for peak in (-1, 1):
                rim = Circle((peak, peak), NEAR, fill=False, edgecolor=GREY, lw=0.5, zorder=0)
                axes.add_patch(rim)
            # Rings, so that neither hides the other.
            axes.scatter(*scene["population"][now].T, s=6, facecolor="none", edgecolor=X, lw=0.4)
            axes.scatter(*scene["x0"][now].T, s=1.5, color=X0, linewidth=0, zorder=3)
            axes.set(xticks=(-3, 0, 3), yticks=(-3, 0, 3))
            if name == names[0]:
                axes.set_title(f"level {level}")
        line[0].set_ylabel(f"{label}\nsecond coordinate")
    figure.supxlabel("first coordinate", fontsize=9)
    figure.legend(
        handles=[
            Line2D([], [], marker="o", color=X, ls="", mfc="none", ms=4, label="individuals x"),
            Line2D([], [], marker="o", color=X0, ls="", ms=3, label="estimates x0"),
            Patch(color="#BBBBBB", linewidth=0, label="fitness"),
        ],
        loc="outside upper center",
        ncols=3,
    )
    return save_figure(
        figure,
        path,
        "Individuals and their estimates on two plateaus of radius 0.5 and, in the lower rows, "
        "from a start shifted by (-1, 1) in genomes. Circles of radius 0.5 around the peaks.",
    )
