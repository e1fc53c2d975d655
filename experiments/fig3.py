"""Fig. 3 and Table 1: six methods on five functions, and on Rastrigin in 4 to 256 dimensions.

    diffevo-jax reproduce --only fig3

Settings: configs/fig3.yaml. paths.npz holds one run of each method in the plane, for the picture.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffevo_jax as de
from diffevo_jax.runs import load_sweep
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.results.files import write_arrays
from diffevo_jax.runs.results.folder import read_arrays
from experiments import fig3_pictures, study
from experiments.files import CONFIGS
from experiments.rows import Number, Row, Section

TITLE = "Fig. 3 and Table 1: benchmark functions"

# Our name, and the reference's.
METHODS = {
    "diffusion": "diffevo",
    "latent": "latentdiffevo",
    "cma_es": "cmaes",
    "open_es": "openes",
    "pepg": "pepg",
    "map_elites": "mapelite",
}
# Optima in the plane, of the landscapes that have several: tests/test_functions.py has them too.
CORNERS = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)])
MODES = {
    "himmelblau": np.array(
        [(3, 2), (-2.805118, 3.131312), (-3.779310, -3.283186), (3.584428, -1.848126)]
    ),
    "ackley": 3.615 * CORNERS,
    "rastrigin": 3.518 * CORNERS,
}
# What is known to make a baseline of ours differ from the published one.
WHY = {
    "pepg": "sigma follows the fitness of the elite, the published one that of all ranks",
    "map_elites": "children come in batches of 256, the published ones one after the other",
}
QUANTITIES = {"entropy": "entropy, bits", "fitness": "fitness", "qd_score": "QD score"}


MODE_RADIUS = 0.5  # a mode is found with a point of the final population this near
# The points of few dimensions, with few repeats.
QUICK = ("repeats=4",), range(9)

TEXT = """
Entropy of the 64 fittest on a grid of 0.1, their mean fitness, and the QD score on cells of side 1.
Diffusion Evolution ends on several optima at once; CMA-ES, OpenES and PEPG on one, or in a cloud
that has not converged; MAP-Elites covers the grid at lower fitness. In 4 and more dimensions 64
points are all in cells of their own, and the entropy is 6 bits whoever searches.

The baselines are not the published code. CMA-ES is evosax's in float32 with the step-size constants
of the `cma` package 4.5 that the reference ran, OpenES is evosax's with the published settings;
PEPG and MAP-Elites are our own and differ in what the summary says.

The published columns for Rastrigin in 4, 32 and 256 dimensions are runs in the plane, with the
target of that dimension, for all methods but the latent one; both are shown. In 32 and 256
dimensions nobody of the first generation lies inside the box, fitness is 0, and Diffusion Evolution
has nothing to select. Latent Diffusion Evolution runs in the named dimension alone.
"""

# Of each method, objective and dimension, the quantities of each repeat, `[S]`.
Measured = dict[tuple[str, str, int], dict[str, np.ndarray]]


def run(folder: Path, *, quick: bool) -> None:
    """Run every method on every objective, and one run of each for the picture."""
    overrides, only = QUICK if quick else ((), ())
    study.run("fig3", folder / "sweep", overrides, only)
    if not (folder / "paths.npz").exists():
        write_arrays(folder / "paths.npz", _paths())


def measured(folder: Path) -> Measured:
    """Judge the final populations and archives."""
    found = {}
    for result in load_sweep(folder / "sweep"):
        for method, settings in result.point.config.methods.items():
            objective, dim = study.objective(settings.problem)
            # The published script gives latent Diffusion Evolution the named dimension.
            if method == "latent" and dim == 2 and objective not in study.FUNCTIONS:
                continue
            ends = study.ends(result, method)
            entropy, fitness, _, qd_score = study.measures(*ends)
            values = {"entropy": entropy, "fitness": fitness, "qd_score": qd_score}
            if objective in MODES:
                alive = np.where(np.isfinite(ends.fitness)[..., None], ends.points, np.inf)
                modes = partial(de.metrics.modes_found, modes=MODES[objective], radius=MODE_RADIUS)
                values["modes"] = jax.lax.map(modes, jnp.asarray(alive))
            place = method, objective, dim
            found[place] = {name: np.asarray(value) for name, value in values.items()}
    return found


def _paths() -> dict[str, np.ndarray]:
    """One run of each method on each function: what the picture shows of it."""
    config = load(CONFIGS / "fig3.yaml").points[0].config
    scale = config.methods["diffusion"].problem.scale
    functions = [getattr(de.landscapes, name) for name in study.FUNCTIONS]
    keep: dict[str, Callable] = {
        "diffusion": lambda info: {"path": scale * info.population[:64], "x0": scale * info.x0},
        "cma_es": lambda info: {
            "mean": scale * info.strategy.mean,
            "covariance": (scale * info.strategy.std) ** 2 * info.strategy.C,
        },
        "open_es": lambda info: {"mean": scale * info.strategy.mean},
        "map_elites": lambda info: {},
    }
    keep |= {"latent": keep["diffusion"], "pepg": keep["open_es"]}

    def one(method: str, key: jax.Array, setting: dict[str, jax.Array]) -> dict[str, jax.Array]:
        settings, fitness_fn = (
            config.methods[method],
            study.chosen(functions, setting["function"], scale),
        )
        key_init, key_algorithm, key_run = jax.random.split(key, 3)
        given = {"key": key_algorithm, "num_genes": 2, "population_size": settings.population_size}
        algorithm = registry.build("algorithm", settings.algorithm, "algorithm", **given)
        population = jax.random.normal(key_init, (settings.population_size, 2))
        state, kept, _ = de.evolve(key_run, algorithm, fitness_fn, population, keep=keep[method])
        if method == "map_elites":
            return {"points": scale * state.archive.points, "fitness": state.archive.fitness}
        if "x0" in kept:  # of the last update: entry -1 describes the finished population
            kept["x0"] = kept["x0"][-2]
        return {"points": scale * state.population, **kept}

    arrays, indices = {}, de.batch.grid(function=jnp.arange(len(functions)))
    for number, method in enumerate(METHODS):
        # Seeds of their own: from one start both forms of Diffusion Evolution go the same way.
        keys = de.batch.seed_keys(config.seed + number, 1)
        kept = jax.jit(partial(de.batch.run_many, partial(one, method)))(keys, indices)
        for what, values in kept.items():
            for i, name in enumerate(study.FUNCTIONS):
                arrays[f"{method}.{name}.{what}"] = np.asarray(values[i, 0])
    return arrays


def section(folder: Path) -> Section:
    """Set entropy, fitness and QD score beside the measured ones; draw paths and the comparison."""
    found = measured(folder)
    rows = [
        Row(
            label,
            fig3_pictures.place(objective, dim),
            method,
            Number.of(values[quantity]),
            study.reference(_reference(method, objective, dim), quantity),
            why=WHY.get(method, ""),
        )
        for quantity, label in QUANTITIES.items()
        for (method, objective, dim), values in sorted(found.items(), key=_order)
    ]
    rows += [
        Row("modes found, of 4", objective.capitalize(), method, Number.of(values["modes"]))
        for objective in MODES
        for method in METHODS
        if (values := found.get((method, objective, 2)))
    ]
    paths = read_arrays(folder / "paths.npz")
    figures = [
        *fig3_pictures.draw_paths(folder, paths),
        fig3_pictures.draw_table(folder / "table1.png", found, METHODS),
    ]
    return Section(TITLE, TEXT, rows, figures, "the authors' code, run again")


def _reference(method: str, objective: str, dim: int) -> dict[str, str]:
    """What the authors' code reached, in the named dimension or, as shipped, in the plane."""
    named = objective in study.FUNCTIONS or objective.endswith(f"_{dim}d")
    variant = "named_dim" if named else "as_shipped_2d"
    cells = {"method": METHODS[method], "objective": objective, "variant": variant}
    return study.find_row("benchmarks.csv", **cells)


def _order(item: tuple[tuple[str, str, int], Any]) -> tuple[int, int]:
    """The functions of the plane, targets of more dimensions in the plane, more dimensions."""
    method, objective, dim = item[0]
    plane = objective in study.FUNCTIONS
    return (0 if plane else dim), list(METHODS).index(method)
