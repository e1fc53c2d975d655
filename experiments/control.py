"""The control tables: five tasks, four scalings, four methods, against the two published tables.

    diffevo-jax reproduce --only control

Settings: configs/control.yaml, configs/control_large.yaml for the large networks, and
configs/control_preset.yaml for `presets.control`, which nobody has published.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from diffevo_jax.runner import sweep
from diffevo_jax.runner.repeats import mean_and_error
from experiments import study
from experiments.files import BLUE, GREEN, GREY, ORANGE, RED, in_style, read_table, save_figure
from experiments.rows import Row, Section

TITLE = "Control tasks: success rate and reward"


class Line(NamedTuple):
    """A line of the tables. published: its name there, if any. sweep: the config that runs it."""

    label: str
    published: str | None
    sweep: str
    colour: str


METHODS = {
    "raw": Line("Diffusion Evolution", "DiffEvoRaw", "control", BLUE),
    "latent": Line("latent", "DiffEvoLatent", "control", RED),
    "large": Line("latent, large", "DiffEvoLargeLatent", "control_large", ORANGE),
    "cmaes": Line("CMA-ES", "CMAES", "control", GREY),
    "preset": Line("preset", None, "control_preset", GREEN),
}
TASKS = (
    *("CartPole-v1", "Acrobot-v1", "MountainCar-v0"),
    *("MountainCarContinuous-v0", "Pendulum-v1"),
)
SCALINGS = (0.1, 1.0, 10.0, 100.0)
NO_SUCCESS = ("Pendulum-v1",)  # it never ends before its limit, and the table leaves it out
# Gymnax resets nothing on the way, and one car differs from Gymnasium's at the left wall.
NOTES = {"MountainCarContinuous-v0": "another left wall, see the text"}
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
        overrides = (f"sweep.seeds={seeds}",) if quick else ()
        study.run(name, folder / name, overrides, points if quick else ())


def load(folder: Path) -> Done:
    """Read what is finished, in the order of the tables."""
    done = {}
    for name in QUICK:
        for ran in sweep.load(folder / name):
            for method, settings in ran.point.config.methods.items():
                rows = [row for row in ran.rows if row["method"] == method]
                cell = Cell(settings.problem.environment, method, settings.problem.scale)
                success = [100 * (row["success_rate"] or 0) for row in rows]
                reward = [row["fitness_mean"] for row in rows]
                again = [100 * (row["reevaluated_success"] or 0) for row in rows]
                done[cell] = {
                    "success": np.array(success),
                    "reward": np.array(reward),
                    "best success": np.array(again),
                    "best reward": np.array([row["reevaluated_return"] for row in rows]),
                }

    def order(cell: Cell) -> tuple[int, float, int]:
        return TASKS.index(cell.task), cell.scaling, list(METHODS).index(cell.method)

    return {cell: done[cell] for cell in sorted(done, key=order)}


def published(what: str) -> dict[tuple[str, str | None, float], float]:
    """(task, published method, scaling) -> number of a published table, success or reward."""
    table, column = {
        "success": ("published_success_rate.csv", "success_rate_percent"),
        "reward": ("published_fitness.csv", "fitness_mean"),
    }[what]
    return {
        (row["environment"], row["method"], float(row["scaling"])): float(row[column])
        for row in read_table(table)
    }


def section(folder: Path) -> Section:
    """Hold every cell's numbers against the published tables, and draw them."""
    done, rows, figures = load(folder), [], []
    for what, label in (("success", "success, %"), ("reward", "reward")):
        known = published(what)
        tasks = [task for task in TASKS if what == "reward" or task not in NO_SUCCESS]
        for cell, values in done.items():
            if cell.task in tasks:
                expected = known.get((cell.task, METHODS[cell.method].published, cell.scaling))
                name = f"{cell.task} x {cell.scaling:g}, {METHODS[cell.method].label}: {label}"
                number = mean_and_error(values[what])
                rows.append(Row(name, expected, None, *number, NOTES.get(cell.task, "")))
                if cell.method == "preset":
                    again = mean_and_error(values[f"best {what}"])
                    rows.append(Row(f"{name}, its best again", None, None, *again))
        caption = (
            f"{'Success rate' if what == 'success' else 'Mean reward'} of the last generation "
            "against the scaling of the genome: ours (filled, ± standard error) and published "
            "(open)."
        )
        figures.append(_draw(folder / f"{what}.png", done, known, what, tasks, label, caption))
    return Section(TITLE, _text(done), rows, figures)


def _text(done: Done) -> str:
    """Say what was run, how close it comes to the published success rates, and what differs."""
    known = published("success")
    large = [
        len(v["success"]) for c, v in done.items() if METHODS[c.method].sweep == "control_large"
    ]
    small = max((len(values["success"]) for values in done.values()), default=0)
    large = max(large, default=0)
    of_table = [method for method in METHODS if METHODS[method].published]
    lacking = len(TASKS) * len(SCALINGS) * len(of_table)
    lacking -= sum(cell.method in of_table for cell in done)
    close, compared = {}, {}
    for cell, saved in done.items():
        if cell.task in NO_SUCCESS or cell.method not in of_table:
            continue
        expected = known[cell.task, METHODS[cell.method].published, cell.scaling]
        kind = "CMA-ES" if cell.method == "cmaes" else "Diffusion Evolution"
        apart = abs(saved["success"].mean() - expected)
        compared[kind] = compared.get(kind, 0) + 1
        close[kind] = close.get(kind, 0) + int(apart <= 3)
    nearness = "; ".join(f"{kind}: {close[kind]} of {compared[kind]}" for kind in compared)
    return f"""
    Five tasks at four scalings of the genome: population 256, ten generations, cosine schedule,
    eta 1, temperature 1, `floor` 1e-9, latent dimension 2; {small} repeats, {large} of the networks
    with two hidden layers of 128. {f"{lacking} cells are left out here." if lacking else ""}
    Success rates within 3 points of the published: {nearness}.

    The published tables give no repeats and no errors over repeats, and the script that made them
    is not public: differences in standard errors here count our error alone, and are too large by
    what the published numbers vary themselves. Success is inferred from what the published script
    stores: a reward of 500 on cart-pole, the goal reached on Acrobot and both cars; Pendulum has
    none.

    CMA-ES is evosax's, elitist as published. Today's `cma` package damps its step size more than
    the tutorial that it follows. With the tutorial's damping, as here, cart-pole agrees with the
    tables; with that of version 4.5 it agrees with the authors' code run today (Fig. 4): we believe
    that the tables are from an older version. On Acrobot and MountainCar, where eight of ten
    individuals tie at the lowest reward, the tables are some points lower. The `cma` package itself
    on these roll-outs comes nearer to them (`pytest -m slow tests/test_control_tables.py`).

    The preset, `presets.control`, is ours: as many episodes as 20 generations of 128, genomes times
    3, starts that individuals share, standardised returns and sample-size control. It has no
    published number beside it. "Its best again" is the best individual of the last generation over
    100 fresh episodes.

    In Gymnax the continuous mountain car keeps its velocity at the left wall, where Gymnasium sets
    it to 0. With a wall as Gymnasium's the success rates stay within 3 standard errors (the same
    command).
    """


@in_style
def _draw(path: Path, done: Done, published, what: str, tasks, label: str, caption: str) -> Path:
    figure = Figure(figsize=(2.35 * len(tasks), 2.7), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)
    for axes, task in zip(panels[0], tasks, strict=True):
        for i, (name, method) in enumerate(METHODS.items()):
            # Side by side, or they would hide each other.
            shift = 10 ** (0.09 * (i - 1.5)) if method.published else 1
            known = [s for s in SCALINGS if (task, method.published, s) in published]
            axes.plot(
                [s * shift for s in known],
                [published[task, method.published, s] for s in known],
                "o",
                markersize=6,
                markerfacecolor="none",
                markeredgecolor=method.colour,
            )
            here = [cell.scaling for cell in done if (cell.task, cell.method) == (task, name)]
            values = [mean_and_error(done[Cell(task, name, s)][what]) for s in here]
            axes.errorbar(
                [s * shift for s in here],
                [value for value, _ in values],
                [error or 0 for _, error in values],
                fmt="o-" if method.published else "*",
                markersize=3.2,
                linewidth=0.8,
                color=method.colour,
                label=method.label,
            )
        axes.set_xscale("log")
        axes.set_xticks(SCALINGS, [f"{s:g}" for s in SCALINGS])
        axes.minorticks_off()
        axes.set_title(task.rsplit("-", 1)[0], fontsize=11)
        axes.set_xlabel("scaling")
        axes.tick_params(labelsize=9)
    panels[0, 0].set_ylabel(label)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(METHODS), frameon=False)
    return save_figure(figure, path, caption)
