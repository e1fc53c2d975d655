"""The schedule study: three noise schedules, 10 to 1000 levels, on Rastrigin in the plane.

diffevo-jax reproduce --only schedules
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import diffevo_jax as de
from diffevo_jax.runner import sweep
from experiments import study
from experiments.files import in_style, save_figure
from experiments.rows import Row, Section

TITLE = "Schedule study"

SCHEDULES = {
    "cosine": (de.schedules.cosine, "#E93A01"),
    "linear": (de.schedules.linear, "#46B3D5"),
    "ddpm": (de.schedules.ddpm, "#6F6E6E"),
}
QUANTITIES = {
    "entropy": "entropy, bits",
    "top64_fitness": "fitness of the 64 fittest",
    "all512_fitness": "fitness of all",
    "qd_score": "QD score",
}
QUICK = ("sweep.seeds=4", "sweep.grid={algorithm.schedule.num_levels: [10, 25, 50, 100, 250]}")

# Of each schedule and number of levels, the quantities of each repeat, `[S]`.
Measured = dict[tuple[str, int], dict[str, np.ndarray]]


def run(folder: Path, *, quick: bool) -> None:
    """Run every schedule at every length."""
    study.run("schedules", folder / "sweep", QUICK if quick else ())


def measured(folder: Path) -> Measured:
    """Judge the final populations."""
    found = {}
    for ran in sweep.load(folder / "sweep"):
        ((name, method),) = ran.point.config.methods.items()
        points, fitness, _ = study.ends(ran, name)
        values = map(np.asarray, study.measures(points, fitness, fitness))
        schedule = method.algorithm.schedule
        found[schedule.name, schedule.num_levels] = dict(zip(QUANTITIES, values, strict=True))
    return found


def section(folder: Path) -> Section:
    """Set the means beside the measured ones, and draw them against the number of levels."""
    found = measured(folder)
    rows: list[Row] = []
    for (schedule, levels), values in found.items():
        reference = study.find_row("schedules.csv", schedule=schedule, num_step=levels)
        rows += [
            study.compare(f"{schedule}, {levels} levels: {label}", values[each], reference, each)
            for each, label in QUANTITIES.items()
        ]
    near = sum(not row.far for row in rows)
    repeats = max(len(values["entropy"]) for values in found.values())
    text = (
        f"Mean over {repeats} repeats and its standard error. With few levels "
        "the cosine schedule is far ahead; from 50 to 100 levels on linear and DDPM "
        "overtake it. The reference was measured with the authors' code "
        "over 20 repeats (13 or 14 at 1000 levels).\n\n"
        f"{near} of {len(rows)} numbers lie within 3 combined standard errors."
    )
    return Section(TITLE, text, rows, [_draw(folder / "schedules.png", found)])


@in_style
def _draw(path: Path, found: Measured) -> Path:
    """Alpha over 100 steps on the left; fitness against the number of levels on the right."""
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (schedule, colour) in SCHEDULES.items():
        label = name.upper() if name == "ddpm" else name
        left.plot(np.arange(1, 101), schedule(100).alpha[::-1], color=colour, label=label)
        levels = [levels for known, levels in found if known == name]
        values = [found[name, n]["top64_fitness"] for n in levels]
        mean, spread = np.mean(values, axis=1), np.std(values, axis=1)
        right.errorbar(levels, mean, spread, color=colour, marker="o", markersize=4, capsize=2)
        for n in levels:
            row = study.find_row("schedules.csv", schedule=name, num_step=n)
            reference = float(row["top64_fitness_mean"])
            right.plot(n, reference, "D", color=colour, markersize=7, fillstyle="none", mew=0.8)
    left.set_xlabel("step")
    left.set_ylabel("alpha")
    left.legend(frameon=False)
    right.set_xscale("log")
    levels = sorted({levels for _, levels in found})
    right.set_xticks(levels, [str(n) for n in levels], fontsize=9)
    right.minorticks_off()
    right.set_xlabel("number of levels")
    right.set_ylabel("fitness of the 64 fittest")
    right.plot([], [], "D", color="black", fillstyle="none", mew=0.8, label="authors' code")
    right.legend(frameon=False, loc="lower right")
    caption = (
        "Left: the signal level alpha of the three schedules over 100 steps. Right: mean fitness "
        "of the 64 fittest on Rastrigin in the plane; bars are one standard deviation, "
        "diamonds what the authors' code reached."
    )
    return save_figure(figure, path, caption)
