"""The control tables: five tasks, four scalings, four methods, against the two published tables.

    diffevo-jax reproduce --only control

Settings: configs/control.yaml, configs/control_large.yaml for the large networks, and
configs/control_preset.yaml for `presets.control`, which nobody has published.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from diffevo_jax.runs import load_sweep
from diffevo_jax.runs.results.fields import mean_and_error
from experiments import study
from experiments.files import WIDTH, in_style, read_table, save_figure
from experiments.looks import METHODS as LOOKS
from experiments.rows import Number, Row, Section

TITLE = "Control tasks: success rate and reward"


# Of the methods, by their names in `looks.METHODS`, the published name, if any.
METHODS = {
    "raw": "DiffEvoRaw",
    "latent": "DiffEvoLatent",
    "large": "DiffEvoLargeLatent",
    "cmaes": "CMAES",
    "preset": None,
}
TASKS = (
    *("CartPole-v1", "Acrobot-v1", "MountainCar-v0"),
    *("MountainCarContinuous-v0", "Pendulum-v1"),
)
SCALINGS = (0.1, 1.0, 10.0, 100.0)
NO_SUCCESS = ("Pendulum-v1",)  # it never ends before its limit, and the table leaves it out
# What is known to make ours differ from the tables.
WHY = {
    "cmaes": "the version of the `cma` package behind the tables is not known; evosax's CMA-ES is "
    "farther from them than the package itself",
}
UNKNOWN = "the tables' own error is not known and counts as none"
# A quick run's time is compilation, a program a task and method: the points of two tasks, of the
# large networks one point.
QUICK = {
    "control": (4, (0, 1, 2, 3, 8, 9, 10, 11)),
    "control_large": (1, (9,)),
    "control_preset": (4, (0,)),
}


class Cell(NamedTuple):
    """A task, a method and a scaling of the genome."""

    task: str
    method: str
    scaling: float


# Of each cell and repeat, the last generation's success, %, and reward, `[S]`, and those
# of its best individual over fresh episodes.
Done = dict[Cell, dict[str, np.ndarray]]


def run(folder: Path, *, quick: bool) -> None:
    """Run every cell."""
    for name, (seeds, points) in QUICK.items():
        overrides = (f"repeats={seeds}",) if quick else ()
        study.run(name, folder / name, overrides, points if quick else ())


def load(folder: Path) -> Done:
    """Read what is finished, in the order of the tables."""
    done = {}
    for name in QUICK:
        for result in load_sweep(folder / name):
            for method, settings in result.point.config.methods.items():
                rows = [row for row in result.rows if row["method"] == method]
                cell = Cell(settings.problem.environment, method, settings.problem.scale)
                success = [100 * (row["success_rate"] or 0) for row in rows]
                reward = [row["fitness_mean"] for row in rows]
                # Folders of before the best were evaluated again do without.
                again = [row.get("reevaluated_success") for row in rows]
                again_reward = [row.get("reevaluated_return") for row in rows]
                done[cell] = {
                    "success": np.array(success),
                    "reward": np.array(reward),
                    "best success": 100 * np.array(again, float),
                    "best reward": np.array(again_reward, float),
                }

    def order(cell: Cell) -> tuple[int, float, int]:
        return TASKS.index(cell.task), cell.scaling, list(METHODS).index(cell.method)

    return {cell: done[cell] for cell in sorted(done, key=order)}


def published(what: str) -> dict[tuple[str, str | None, float], Number]:
    """(task, published method, scaling) -> a published table's success, %, or reward.

    Their errors over repeats are not known; those of rounding are.
    """
    table, column, step = {
        "success": ("published_success_rate.csv", "success_rate_percent", 0.1),
        "reward": ("published_fitness.csv", "fitness_mean", 0.01),
    }[what]
    rounding = step / math.sqrt(12)
    return {
        (row["environment"], row["method"], float(row["scaling"])): Number(
            float(row[column]), rounding
        )
        for row in read_table(table)
    }


def section(folder: Path) -> Section:
    """Hold every cell's numbers against the published tables, and draw them."""
    done, rows, figures = load(folder), [], []
    for what, label in MEASURES.items():
        known = published(what)
        tasks = [task for task in TASKS if what == "reward" or task not in NO_SUCCESS]
        for cell, values in done.items():
            if cell.task in tasks and METHODS[cell.method]:
                place = f"{_name(cell.task)} x {cell.scaling:g}"
                expected = known.get((cell.task, METHODS[cell.method], cell.scaling))
                why = WHY.get(cell.method, UNKNOWN)
                ours = Number.of(values[what])
                rows.append(Row(label, place, cell.method, ours, expected, why=why))
        figures.append(_draw(folder / f"{what}.png", done, known, what, tasks))
    for what, label in MEASURES.items():
        for cell, values in done.items():
            if cell.method == "preset" and (what == "reward" or cell.task not in NO_SUCCESS):
                place, measure = _name(cell.task), f"control preset, {label}"
                population = Number.of(values[what])
                rows.append(Row(measure, place, "preset", population, setting="last generation"))
                again = Number.of(values[f"best {what}"])
                rows.append(Row(measure, place, "preset", again, setting="its best, again"))
    rows = [row for row in rows if not math.isnan(row.ours.value)]
    return Section(TITLE, _text(done), rows, figures, "the published tables")


MEASURES = {"success": "success, %", "reward": "mean reward"}


def _name(task: str) -> str:
    """MountainCarContinuous-v0 -> MountainCar, continuous."""
    name = task.rsplit("-", 1)[0]
    return name.replace("Continuous", ", continuous")


def _text(done: Done) -> str:
    """Say what was run, how close it comes to the published success rates, and what differs."""
    known = published("success")
    small, large = (
        max((len(v["success"]) for c, v in done.items() if (c.method == "large") == big), default=0)
        for big in (False, True)
    )
    of_table = [method for method, theirs in METHODS.items() if theirs]
    lacking = len(TASKS) * len(SCALINGS) * len(of_table)
    lacking -= sum(cell.method in of_table for cell in done)
    close, compared = {}, {}
    for cell, saved in done.items():
        if cell.task in NO_SUCCESS or cell.method not in of_table:
            continue
        expected = known[cell.task, METHODS[cell.method], cell.scaling].value
        kind = "CMA-ES" if cell.method == "cmaes" else "Diffusion Evolution"
        apart = abs(saved["success"].mean() - expected)
        compared[kind] = compared.get(kind, 0) + 1
        close[kind] = close.get(kind, 0) + int(apart <= 3)
    nearness = "; ".join(f"{kind}: {close[kind]} of {compared[kind]}" for kind in compared)
    return f"""
    Five tasks at four scalings of the genome: population 256, ten generations, cosine schedule,
    eta 1, temperature 1, `floor` 1e-9, latent dimension 2; {small} repeats, {large} of the large
    networks, two hidden layers of 128. {f"{lacking} cells are left out here." if lacking else ""}
    Success rates within 3 points of the published: {nearness}. Success is inferred from what the
    published script stores: a reward of 500 on cart-pole, the goal reached on Acrobot and both
    cars; Pendulum has none.

    The published tables give no repeats and no errors over them, and the script that made them is
    not public: standard errors here are ours, with the tables' rounding, and the differences are
    too large by what the published numbers vary themselves.

    CMA-ES is evosax's, elitist as published. Today's `cma` package damps its step size more than
    the tutorial that it follows; with the tutorial's damping, as here, cart-pole agrees with the
    tables, with that of version 4.5 it agrees with the authors' code run today (Fig. 4). We believe
    that the tables are from an older version. On Acrobot and MountainCar, where eight of ten
    individuals tie at the lowest reward, the tables are some points lower; the `cma` package itself
    comes nearer to them (`pytest -m slow tests/test_control_tables.py`).

    The control preset, `presets.control`, is ours: 18 generations of 128, at scaling 3, with starts
    that individuals share, standardised returns, one target for all and noise without memory.
    “Its best, again” is the best individual of the last generation over 100 fresh episodes.

    In Gymnax the continuous mountain car keeps its velocity at the left wall, where Gymnasium sets
    it to 0. With a wall as Gymnasium's the success rates stay within 3 standard errors (the same
    command).
    """


@in_style
def _draw(path: Path, done: Done, known, what: str, tasks: list[str]) -> Path:
    """A panel a task: the last generation against the scaling of the genome."""
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    grid = figure.subplots(2, 3, sharex=True).ravel()
    # Success has four tasks: a share of one axis, in two by two and the legend's place beside.
    places = grid if len(tasks) > 4 else grid[[0, 1, 3, 4]]
    for axes in set(grid) - set(places[: len(tasks)]):
        axes.remove()
    for axes, task in zip(places, tasks, strict=False):
        for i, (name, theirs) in enumerate(METHODS.items()):
            look = LOOKS[name]
            # Side by side, or they would hide each other.
            shift = 10 ** (0.17 * (i - 1.5)) if theirs else 1
            here = [cell.scaling for cell in done if (cell.task, cell.method) == (task, name)]
            values = [mean_and_error(done[Cell(task, name, s)][what]) for s in here]
            axes.errorbar(
                [s * shift for s in here],
                [value for value, _ in values],
                [error or 0 for _, error in values],
                linestyle="",
                marker=look.marker,
                markersize=3.2 if theirs else 7,
                markeredgewidth=0,
                elinewidth=0.8,
                color=look.colour,
            )
            table = {
                s: known[task, theirs, s].value for s in SCALINGS if (task, theirs, s) in known
            }
            axes.plot([s * shift for s in table], list(table.values()), look.marker, ms=6.5,
                      color=look.colour, mfc="none", mew=0.7)  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(SCALINGS, [f"{s:g}" for s in SCALINGS])
        axes.minorticks_off()
        axes.tick_params(labelbottom=True)
        for between in (0.1 * 10**0.5, 10**0.5, 10**1.5):
            axes.axvline(between, color="#EEEEEE", linewidth=0.6, zorder=0)
        axes.set_title(_name(task))
    figure.supxlabel("scaling of the genome", fontsize=9)
    figure.supylabel(MEASURES[what], fontsize=9)
    handles = [
        Line2D([], [], color=LOOKS[name].colour, marker=LOOKS[name].marker, ls="", mew=0,
               ms=4 if theirs else 7, label=LOOKS[name].label.replace(", ", ",\n"))
        for name, theirs in METHODS.items()
    ]  # fmt: skip
    handles.append(
        Line2D([], [], color="black", marker="o", ls="", mfc="none", ms=6.5, mew=0.7,
               label="open: published")
    )  # fmt: skip
    figure.legend(
        handles=handles, loc="center", bbox_to_anchor=(0.835, 0.27 if len(tasks) > 4 else 0.5)
    )
    who = "Success rate" if what == "success" else "Mean reward"
    caption = (
        f"{who} of the last generation by the scaling of the genome, methods side by side: ours "
        "(filled, ± standard error) and the published tables (open)."
    )
    return save_figure(figure, path, caption)
