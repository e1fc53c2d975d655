"""The temperature study: final fitness, entropy and QD score against the fitness temperature.

    diffevo-jax reproduce --only temperature

A landscape's fitness at temperature T, exp(-distance / (T scale)), drives the run; the final
population is judged by the fitness at T = 1, its entropy by that of the 64 fittest at T. As in the
published study every objective lives in the plane, the high-dimensional Rastrigins too.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffevo_jax.runner import sweep
from experiments import study
from experiments.files import in_style, save_figure
from experiments.rows import Row, Section

TITLE = "Temperature study"

QUANTITIES = ("final_fitness", "entropy", "qd_score")
NAMES = {"final_fitness": "final fitness", "entropy": "entropy, bits", "qd_score": "QD score"}
QUICK = ("sweep.seeds=10",)

# Of each objective and temperature, the quantities of each repeat, `[S]`.
Measured = dict[tuple[str, float], dict[str, np.ndarray]]


def run(folder: Path, *, quick: bool) -> None:
    """Run every objective at every temperature."""
    study.run("temperature", folder / "sweep", QUICK if quick else ())


def measured(folder: Path) -> Measured:
    """Judge the final populations."""
    found = {}
    for ran in sweep.load(folder / "sweep"):
        (method,) = ran.point.config.methods
        problem, ends = ran.point.config.methods[method].problem, study.ends(ran, method)
        hot = study.fitness(problem, ends.points, problem.temperature)
        entropy, *_ = study.measures(ends.points, hot, hot)
        *_, final_fitness, qd_score = study.measures(ends.points, ends.fitness, ends.fitness)
        values = dict(
            zip(QUANTITIES, map(np.asarray, (final_fitness, entropy, qd_score)), strict=True)
        )
        found[study.objective(problem)[0], problem.temperature] = values
    return found


def section(folder: Path) -> Section:
    """Set the means beside the measured ones, and draw them against the temperature."""
    found = measured(folder)
    rows = []
    for (objective, temperature), values in found.items():
        cells = {"objective": objective, "temperature": temperature}
        reference = study.find_row("temperature.csv", **cells)
        where = f"{_label(objective)}, T = {temperature:g}"
        rows += [
            study.compare(f"{where}: {NAMES[quantity]}", values[quantity], reference, quantity)
            for quantity in QUANTITIES
        ]
    return Section(TITLE, _text(found, rows), rows, [_draw(folder / "temperature.png", found)])


def _label(objective: str) -> str:
    """rastrigin_32d -> Rastrigin (32-D target); the population stays in the plane."""
    name, _, dim = str(objective).partition("_")
    return (
        f"{name.capitalize()} ({dim.upper().replace('D', '-D')} target)"
        if dim
        else name.capitalize()
    )


def _text(found: Measured, rows: list[Row]) -> str:
    repeats = max(len(values["entropy"]) for values in found.values())
    near = sum(not row.far for row in rows)
    return (
        f"Mean over {repeats} repeats and its standard error. Raising the temperature flattens the "
        "landscape: fitness falls and entropy rises to that of the initial population. The "
        "reference was measured with the authors' code over 20 repeats; as there, the "
        "high-dimensional Rastrigins are points of the plane with the target of the name.\n\n"
        f"{near} of {len(rows)} numbers lie within 3 combined standard errors."
    )


@in_style
def _draw(path: Path, found: Measured) -> Path:
    """Box plots of the final fitness above; entropy and QD score against T below."""
    objectives = list(dict.fromkeys(objective for objective, _ in found))
    temperatures = sorted({temperature for _, temperature in found})
    figure = Figure(figsize=(7.6, 6.2), layout="constrained")
    axes: Any = figure.subplot_mosaic("AA;BC")
    top, left, right = axes["A"], axes["B"], axes["C"]
    width = 0.8 / len(objectives)
    for i, objective in enumerate(objectives):
        colour = study.COLOURS[objective]
        places = np.arange(len(temperatures)) + (i - (len(objectives) - 1) / 2) * width
        by_temperature = [found[objective, temperature] for temperature in temperatures]
        values = [each["final_fitness"] for each in by_temperature]
        top.boxplot(
            values,
            positions=places,
            widths=0.8 * width,
            patch_artist=True,
            showfliers=False,
            manage_ticks=False,
            boxprops={"facecolor": colour, "edgecolor": colour},
            medianprops={"color": "white"},
            whiskerprops={"color": colour},
            capprops={"color": colour},
        )
        top.plot(places, np.median(values, axis=1), color=colour, alpha=0.35, linewidth=1)
        top.plot([], [], "s", color=colour, label=_label(objective))
        for axis, quantity in ((left, "entropy"), (right, "qd_score")):
            mean = np.array([each[quantity].mean() for each in by_temperature])
            spread = np.array([each[quantity].std() for each in by_temperature])
            axis.plot(temperatures, mean, "o-", color=colour, markersize=3)
            axis.fill_between(
                temperatures, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0
            )
    top.set_xticks(range(len(temperatures)), [f"{t:g}" for t in temperatures])
    top.set_ylabel("mean fitness at T = 1")
    top.set_xlabel("temperature T")
    figure.legend(
        *top.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False
    )
    for axis, quantity in ((left, "entropy"), (right, "qd_score")):
        axis.set_xscale("log")
        axis.set_xticks(temperatures, [f"{t:g}" for t in temperatures])
        axis.minorticks_off()
        axis.set_xlabel("temperature T")
        axis.set_ylabel(NAMES[quantity])
    caption = (
        "Above: mean fitness (at T = 1) of the final population, boxes over repeats, medians "
        "joined. Below: entropy of the 64 fittest, and QD score; bands are one standard deviation."
    )
    return save_figure(figure, path, caption)
