"""The temperature study: final fitness, entropy and QD score against the fitness temperature.

    diffevo-jax reproduce --only temperature

A landscape's fitness at temperature T, exp(-distance / (T scale)), drives the run; the final
population is judged by the fitness at T = 1, its entropy by that of the 64 fittest at T. As in the
published study every objective lives in the plane, the high-dimensional Rastrigins too.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from diffevo_jax.runs import load_sweep
from experiments import study
from experiments.files import WIDTH, in_style, save_figure
from experiments.looks import METHODS
from experiments.rows import Number, Row, Section

TITLE = "Temperature study"

QUANTITIES = ("final_fitness", "entropy", "qd_score")
NAMES = {"final_fitness": "final fitness", "entropy": "entropy, bits", "qd_score": "QD score"}
QUICK = ("repeats=10",)

# Of each objective and temperature, the quantities of each repeat, `[S]`.
Measured = dict[tuple[str, float], dict[str, np.ndarray]]


def run(folder: Path, *, quick: bool) -> None:
    """Run every objective at every temperature."""
    study.run("temperature", folder / "sweep", QUICK if quick else ())


def measured(folder: Path) -> Measured:
    """Judge the final populations."""
    found = {}
    for result in load_sweep(folder / "sweep"):
        (method,) = result.point.config.methods
        problem, ends = result.point.config.methods[method].problem, study.ends(result, method)
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
    rows = [
        Row(
            NAMES[quantity],
            _label(objective),
            "diffusion",
            Number.of(values[quantity]),
            study.reference(_reference(objective, temperature), quantity),
            setting=f"T = {temperature:g}",
        )
        for quantity in QUANTITIES
        for (objective, temperature), values in found.items()
    ]
    repeats = max(len(values["entropy"]) for values in found.values())
    text = f"""
    Raising the temperature flattens the landscape: fitness falls, and entropy rises to that of the
    initial population. Means over {repeats} repeats; the reference was measured with the authors'
    code over 20. As there, the high-dimensional Rastrigins are points of the plane with the target
    of the name.
    """
    figure = _draw(folder / "temperature.png", found)
    return Section(TITLE, text, rows, [figure], "the authors' code, run again", folded=True)


def _reference(objective: str, temperature: float) -> dict[str, str]:
    return study.find_row("temperature.csv", objective=objective, temperature=temperature)


def _label(objective: str) -> str:
    """rastrigin_32d -> Rastrigin, 32-D target; the population stays in the plane."""
    name, _, dim = objective.partition("_")
    return f"{name.capitalize()}, {dim.upper().replace('D', '-D')} target" if dim else _name(name)


def _name(objective: str) -> str:
    return objective.partition("_")[0].capitalize()


# The targets of Rastrigin share a panel, in lighter colours and other lines.
SHADES = ((1.0, "-"), (0.65, "--"), (0.5, "-."), (0.4, ":"))


@in_style
def _draw(path: Path, found: Measured) -> Path:
    """A column a function, a row a quantity, against the temperature on one log axis."""
    objectives = list(dict.fromkeys(objective for objective, _ in found))
    names = list(dict.fromkeys(map(_name, objectives)))
    temperatures = sorted({temperature for _, temperature in found})
    look = METHODS["diffusion"]
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    widths = [1.7 if any("_" in o for o in objectives if _name(o) == name) else 1 for name in names]
    grid: Any = figure.subplots(
        len(QUANTITIES), len(names), sharex=True, sharey="row", squeeze=False, width_ratios=widths
    )
    for column, name in enumerate(names):
        family = [objective for objective in objectives if _name(objective) == name]
        for row, quantity in enumerate(QUANTITIES):
            axes = grid[row, column]
            for i, objective in enumerate(family):
                values = [found[objective, t][quantity] for t in temperatures]
                theirs = [
                    study.reference(_reference(objective, t), quantity).value for t in temperatures
                ]
                # Side by side within a family, or bars and marks would hide each other.
                shift = 10 ** (0.11 * (i - (len(family) - 1) / 2))
                places = np.array(temperatures) * shift
                alpha, style = SHADES[i]
                colour = _paler(look.colour, alpha)
                mean, spread = np.mean(values, axis=1), np.std(values, axis=1)
                line: Any = {"color": colour, "lw": 0.9, "ls": style, "elinewidth": 0.8}
                axes.errorbar(places, mean, spread, marker=look.marker, ms=3, mew=0, **line)
                axes.plot(places, theirs, look.marker, color=colour, ms=6, mfc="none", mew=0.6)
            axes.set_xscale("log")
            axes.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.grid(axis="y", color="#EEEEEE", linewidth=0.6)
        grid[0, column].set_title(name)
    for row, quantity in enumerate(QUANTITIES):
        grid[row, 0].set_ylabel(NAMES[quantity])
    figure.supxlabel("temperature T", fontsize=9)
    family = [objective for objective in objectives if "_" in objective]
    mark: Any = {"color": look.colour, "marker": look.marker}
    handles = [
        Line2D([], [], label="ours, one standard deviation", ms=3, lw=0.9, **mark),
        Line2D([], [], label="authors' code", ms=6, mfc="none", mew=0.6, ls="", **mark),
        *(
            Line2D(
                [],
                [],
                color=_paler(look.colour, alpha),
                lw=1.2,
                ls=style,
                label=_label(objective).partition(", ")[2],
            )
            for objective, (alpha, style) in zip(family, SHADES[1:], strict=False)
        ),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, columnspacing=1.2)
    caption = (
        "Mean fitness (at T = 1) of the final population, entropy of the 64 fittest, and QD score "
        "of Diffusion Evolution: means over repeats, bars one standard deviation, open marks what "
        "the authors' code reached. The panels of Rastrigin hold the targets of more dimensions "
        "too."
    )
    return save_figure(figure, path, caption)


def _paler(colour: str, share: float) -> tuple[float, float, float]:
    """Mix a colour with white."""
    return tuple(1 - share * (1 - each) for each in to_rgb(colour))  # pyright: ignore
