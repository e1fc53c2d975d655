"""The temperature study: final fitness, entropy and QD score against the fitness temperature.

    diffevo-jax reproduce --only temperature

A landscape's fitness at temperature T, exp(-distance / (T scale)), drives the run; the final
population is judged by the fitness at T = 1, its entropy by that of the 64 fittest at T. As in the
published study every objective lives in the plane, the high-dimensional Rastrigins too.
"""

from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import diffevo_jax as de
from experiments import study
from experiments.files import in_style, load_arrays, save_arrays, save_figure
from experiments.rows import Row, Section
from experiments.study import Diffusion, Metrics, Positive, Repeats

TITLE = "Temperature study"
COMMAND = "diffevo-jax reproduce --only temperature"

QUANTITIES = ("final_fitness", "entropy", "qd_score")
NAMES = {"final_fitness": "final fitness", "entropy": "entropy, bits", "qd_score": "QD score"}


class Temperature(study.Settings):
    """configs/temperature.yaml."""

    study: Literal["temperature"]
    description: str
    seed: int
    repeats: Repeats
    temperatures: list[Positive]
    metrics: Metrics
    diffusion: Diffusion


def run(folder: Path, *, quick: bool) -> None:
    """Run every objective at every temperature as one program; save temperature.npz."""
    if (folder / "temperature.npz").exists():
        return
    settings = study.load(Temperature, "temperature")
    diffusion, metrics = settings.diffusion, settings.metrics
    functions = list(study.PLANE.values())

    def one(key: jax.Array, setting: dict[str, jax.Array]) -> dict[str, jax.Array]:
        hot = study.chosen(functions, setting["objective"], temperature=setting["temperature"])
        judge = study.chosen(functions, setting["objective"])
        key_init, key_run = jax.random.split(key)
        population = jax.random.normal(key_init, (diffusion.population, 2))
        evolution = de.diffusion_evolution(
            de.schedules.cosine(diffusion.num_levels), eta=diffusion.eta, floor=diffusion.floor
        )
        state, _ = de.evolve(
            key_run,
            evolution,
            lambda genomes: hot(diffusion.scale * genomes),
            population,
            transform=lambda info: None,
        )
        points = diffusion.scale * state.population
        return {
            "final_fitness": judge(points).mean(),
            "entropy": study.measure(points, hot(points), metrics)["entropy"],
            "qd_score": study.quality_diversity(points, judge(points), metrics),
        }

    grid = de.batch.grid(objective=jnp.arange(len(functions)), temperature=settings.temperatures)
    results = study.run_all(one, settings.seed, settings.repeats.of(quick=quick), grid)
    shape = len(functions), len(settings.temperatures)
    by_objective = {name: x.reshape(*shape, -1) for name, x in results.items()}
    save_arrays(
        folder / "temperature.npz",
        temperatures=np.array(settings.temperatures),
        objectives=np.array(list(study.PLANE)),
        **by_objective,
    )


def section(folder: Path) -> Section:
    """Set the means beside the measured ones, and draw them against the temperature."""
    arrays = load_arrays(folder / "temperature.npz")
    rows = []
    for i, objective in enumerate(arrays["objectives"]):
        for j, temperature in enumerate(arrays["temperatures"]):
            cells = {"objective": objective, "temperature": float(temperature)}
            reference = study.find_row("temperature.csv", **cells)
            rows += [
                study.compare(
                    f"{_label(objective)}, T = {temperature:g}: {NAMES[quantity]}",
                    arrays[quantity][i, j],
                    reference,
                    quantity,
                )
                for quantity in QUANTITIES
            ]
    return Section(TITLE, _text(arrays, rows), rows, [_draw(folder / "temperature.png", arrays)])


def _label(objective: str) -> str:
    """rastrigin_32d -> Rastrigin (32-D target); the population stays in the plane."""
    name, _, dim = str(objective).partition("_")
    return (
        f"{name.capitalize()} ({dim.upper().replace('D', '-D')} target)"
        if dim
        else name.capitalize()
    )


def _text(arrays: dict[str, np.ndarray], rows: list[Row]) -> str:
    repeats = arrays["entropy"].shape[-1]
    near = sum(not row.far for row in rows)
    return (
        f"Mean over {repeats} repeats and its standard error. Raising the temperature flattens the "
        "landscape: fitness falls and entropy rises to that of the initial population. The "
        "reference was measured with the authors' code over 20 repeats; as there, the "
        "high-dimensional Rastrigins are points of the plane with the target of the name.\n\n"
        f"{near} of {len(rows)} numbers lie within 3 combined standard errors."
    )


@in_style
def _draw(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Box plots of the final fitness above; entropy and QD score against T below."""
    temperatures, objectives = arrays["temperatures"], [str(o) for o in arrays["objectives"]]
    figure = Figure(figsize=(7.6, 6.2), layout="constrained")
    axes = figure.subplot_mosaic("AA;BC")
    top, left, right = axes["A"], axes["B"], axes["C"]
    width = 0.8 / len(objectives)
    for i, objective in enumerate(objectives):
        colour = study.COLOURS[objective]
        places = np.arange(len(temperatures)) + (i - (len(objectives) - 1) / 2) * width
        values = arrays["final_fitness"][i]
        top.boxplot(
            list(values),
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
            mean, spread = arrays[quantity][i].mean(axis=1), arrays[quantity][i].std(axis=1)
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
