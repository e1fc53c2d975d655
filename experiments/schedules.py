"""The schedule study: three noise schedules, 10 to 1000 levels, on Rastrigin in the plane.

diffevo-jax reproduce --only schedules
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import diffevo_jax as de
from diffevo_jax.runs import load_sweep
from experiments import study
from experiments.files import WIDTH, in_style, save_figure
from experiments.looks import METHODS
from experiments.rows import Number, Row, Section

TITLE = "Schedule study"

# All of Diffusion Evolution's: its blue in three depths, with lines and marks of their own.
SCHEDULES = {
    "cosine": (de.schedules.cosine, "#00304D", "-", "o"),
    "linear": (de.schedules.linear, METHODS["diffusion"].colour, "--", "s"),
    "ddpm": (de.schedules.ddpm, "#6DB1DD", ":", "^"),
}
QUANTITIES = {
    "entropy": "entropy, bits",
    "top64_fitness": "fitness of the 64 fittest",
    "all512_fitness": "fitness of all",
    "qd_score": "QD score",
}
QUICK = ("repeats=4", "sweep.grid={algorithm.schedule.num_levels: [10, 25, 50, 100, 250]}")

# Of each schedule and number of levels, the quantities of each repeat, `[S]`.
Measured = dict[tuple[str, int], dict[str, np.ndarray]]


def run(folder: Path, *, quick: bool) -> None:
    """Run every schedule at every length."""
    study.run("schedules", folder / "sweep", QUICK if quick else ())


def measured(folder: Path) -> Measured:
    """Judge the final populations."""
    found = {}
    for result in load_sweep(folder / "sweep"):
        ((name, method),) = result.point.config.methods.items()
        points, fitness, _ = study.ends(result, name)
        values = map(np.asarray, study.measures(points, fitness, fitness))
        schedule = method.algorithm.schedule
        found[schedule.name, schedule.num_levels] = dict(zip(QUANTITIES, values, strict=True))
    return found


def section(folder: Path) -> Section:
    """Set the means beside the measured ones, and draw them against the number of levels."""
    found = measured(folder)
    rows = [
        Row(
            label,
            f"{levels} levels",
            "diffusion",
            Number.of(values[quantity]),
            study.reference(_reference(schedule, levels), quantity),
            setting=_label(schedule),
        )
        for quantity, label in QUANTITIES.items()
        for (schedule, levels), values in found.items()
    ]
    repeats = max(len(values["entropy"]) for values in found.values())
    text = f"""
    With few levels the cosine schedule is far ahead; from 50 to 100 levels on linear and DDPM
    overtake it. Means over {repeats} repeats; the reference was measured with the authors' code
    over 20 (13 or 14 at 1000 levels).
    """
    figure = _draw(folder / "schedules.png", found)
    return Section(TITLE, text, rows, [figure], "the authors' code, run again", folded=True)


def _reference(schedule: str, levels: int) -> dict[str, str]:
    return study.find_row("schedules.csv", schedule=schedule, num_step=levels)


def _label(schedule: str) -> str:
    return "DDPM" if schedule == "ddpm" else schedule


@in_style
def _draw(path: Path, found: Measured) -> Path:
    """Alpha over 100 steps; fitness and entropy against the number of levels."""
    shown = {"top64_fitness": QUANTITIES["top64_fitness"], "entropy": "their entropy, bits"}
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    left, *others = figure.subplots(1, 3)
    every = sorted({levels for _, levels in found})
    for i, (name, (schedule, colour, style, marker)) in enumerate(SCHEDULES.items()):
        steps = np.arange(1, 101)
        left.plot(steps, schedule(100).alpha[::-1], color=colour, ls=style, label=_label(name))
        levels = np.array([levels for known, levels in found if known == name])
        for axes, quantity in zip(others, shown, strict=True):
            values = [found[name, n][quantity] for n in levels]
            theirs = [study.reference(_reference(name, n), quantity).value for n in levels]
            places = levels * 10 ** (0.06 * (i - 1))  # side by side
            axes.errorbar(places, np.mean(values, axis=1), np.std(values, axis=1), color=colour,
                          marker=marker, ms=3, mew=0, lw=0.9, ls=style, elinewidth=0.8)  # fmt: skip
            axes.plot(places, theirs, marker, color=colour, ms=6, mfc="none", mew=0.6)
    left.set(xlabel="generation, of 100", ylabel="signal level alpha")
    for axes, label in zip(others, shown.values(), strict=True):
        axes.set_xscale("log")
        axes.set_xticks(every, [str(n) for n in every], rotation=45)
        axes.minorticks_off()
        axes.set(xlabel="number of levels", ylabel=label)
    handles = [
        Line2D([], [], color=colour, ls=style, marker=marker, ms=3, mew=0, label=_label(name))
        for name, (_, colour, style, marker) in SCHEDULES.items()
    ]
    handles += [
        Line2D([], [], color="black", marker="o", ms=3, lw=0.9, label="ours, one st. dev."),
        Line2D([], [], color="black", marker="o", ls="", ms=6, mfc="none", mew=0.6,
               label="authors' code"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=5)
    caption = (
        "The signal level alpha of the three schedules over 100 generations; mean fitness and "
        "entropy of the 64 fittest on Rastrigin in the plane by the number of levels. Means over "
        "repeats, bars one standard deviation; open marks are what the authors' code reached."
    )
    return save_figure(figure, path, caption)
