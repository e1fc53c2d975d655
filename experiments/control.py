"""The control tables: five tasks, four scalings, four methods, against the two published tables.

    diffevo-jax reproduce --only control

A cell is a task, a method and a scaling; its repeats are one compiled program, which the four
scalings share. Settings: configs/control.yaml.
"""

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from pydantic import Field

import diffevo_jax as de
from experiments import cmaes, study
from experiments.files import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    in_style,
    load_arrays,
    mean_and_error,
    read_table,
    save_arrays,
    save_figure,
)
from experiments.rows import Row, Section
from experiments.study import Count, Positive, Repeats

TITLE = "Control tasks: success rate and reward"
COMMAND = "diffevo-jax reproduce --only control"


class Method(NamedTuple):
    """A line of the tables. published: its name there."""

    label: str
    published: str
    large: bool
    latent: bool
    colour: str


METHODS = {
    "raw": Method("Diffusion Evolution", "DiffEvoRaw", False, False, BLUE),
    "latent": Method("latent", "DiffEvoLatent", False, True, RED),
    "large": Method("latent, large", "DiffEvoLargeLatent", True, True, ORANGE),
    "cmaes": Method("CMA-ES", "CMAES", False, False, GREY),
}
NO_SUCCESS = ("Pendulum-v1",)  # it never ends before its limit, and the table leaves it out
# Gymnax resets nothing on the way, and one car differs from Gymnasium's at the left wall.
NOTES = {"MountainCarContinuous-v0": "another left wall, see the text"}


class Diffusion(study.Settings):
    """Diffusion Evolution as the published tables run it."""

    population: Annotated[int, Field(ge=2)]
    num_levels: Annotated[int, Field(ge=2)]
    eta: Annotated[float, Field(ge=0, le=1)]
    temperature: Positive
    floor: Annotated[float, Field(ge=0)]


class CmaEs(study.Settings):
    """The baseline: the arguments of `cmaes.make_run`."""

    population: Annotated[int, Field(ge=2)]
    generations: Count
    sigma: Positive
    elitist: bool
    constants: cmaes.Constants


class Quick(study.Settings):
    """The cells of a quick run: a task by every method, a method on every task."""

    task: str
    method: str
    scaling_large: Positive


class Control(study.Settings):
    """configs/control.yaml."""

    study: Literal["control"]
    description: str
    seed: int
    repeats: Repeats
    repeats_large: Repeats
    tasks: list[str]
    scalings: list[Positive]
    max_steps: Count
    full_reward: Positive
    diffusion: Diffusion
    latent_dim: Count
    hidden: list[Count]
    hidden_large: list[Count]
    cma_es: CmaEs
    quick: Quick


@functools.cache
def settings() -> Control:
    """configs/control.yaml, read once."""
    return study.load(Control, "control")


class Cell(NamedTuple):
    """A task, a method and a scaling of the genome."""

    task: str
    method: str
    scaling: float

    @property
    def file(self) -> str:
        """Name of the cell's results."""
        return f"{self.task}-{self.method}-{self.scaling:g}.npz"


def cells(*, quick: bool) -> list[tuple[Cell, int]]:
    """Every cell and its repeats, such that cells of one program follow each other."""
    table = settings()

    def chosen(cell: Cell) -> bool:
        if not quick:
            return True
        fast = not METHODS[cell.method].large or cell.scaling == table.quick.scaling_large
        return fast and (cell.task == table.quick.task or cell.method == table.quick.method)

    def repeats(cell: Cell) -> int:
        large = METHODS[cell.method].large
        return (table.repeats_large if large else table.repeats).of(quick=quick)

    every = (
        Cell(t, m, scaling) for m in METHODS for t in table.tasks for scaling in table.scalings
    )
    return [(cell, repeats(cell)) for cell in every if chosen(cell)]


def run(folder: Path, *, quick: bool) -> None:
    """Run every cell that has no file yet."""
    programs: dict[tuple[str, str], Callable] = {}
    for cell, repeats in cells(quick=quick):
        path = folder / cell.file
        if path.exists():
            continue
        key = (cell.task, cell.method)
        if key not in programs:
            programs = {key: program(cell.task, cell.method, repeats)}
        begin = time.perf_counter()
        kept = jax.block_until_ready(programs[key](cell.scaling))
        seconds = time.perf_counter() - begin
        arrays = {name: np.asarray(value)[:repeats] for name, value in kept.items()}
        save_arrays(path, **arrays, seconds=seconds)
        print(
            f"  {cell.task} {cell.method} x {cell.scaling:g}: success "
            f"{100 * arrays['success'].mean():.1f} %, reward {arrays['reward'][:, -1].mean():.2f}, "
            f"{repeats} repeats in {seconds:.1f} s",
            flush=True,
        )


def program(task_name: str, method_name: str, repeats: int) -> Callable[[float], Any]:
    """Compile a cell's repeats as a function of the scaling, shared out among the devices.

    Returns of each repeat: success, the share of the last generation's individuals; reward `[T]`
    and reward_std `[T]`, mean and standard deviation over individuals.
    """
    table, method = settings(), METHODS[method_name]
    task = de.problems.control.make_task(task_name, max_steps=table.max_steps)
    hidden = table.hidden_large if method.large else table.hidden
    policy = de.policies.mlp((task.num_inputs, *hidden, task.num_outputs))

    def succeeded(outcome: de.problems.control.Outcome) -> jax.Array:
        if task_name == "CartPole-v1":
            return outcome.returns[:, 0] >= table.full_reward
        ended = jax.vmap(jax.vmap(lambda s: task.environment.is_terminated(s, task.params)))
        state = jax.tree.map(lambda x: x, outcome.final_state)
        return jnp.asarray(ended(state), bool)[:, 0]

    def one(key: jax.Array, scaling: jax.Array) -> dict[str, jax.Array]:
        roll_out = de.problems.control.make_outcomes(
            task,
            policy,
            scaling=scaling,  # pyright: ignore[reportArgumentType]  # traced
        )

        def evaluate(key: jax.Array, population: jax.Array):
            outcome = roll_out(key, population)
            reward = outcome.returns[:, 0]
            success = jnp.zeros(()) if task_name in NO_SUCCESS else jnp.mean(succeeded(outcome))
            kept = {"success": success, "reward": reward.mean(), "reward_std": reward.std()}
            return reward, kept

        if method_name == "cmaes":
            search = cmaes.make_run(evaluate, policy.num_genes, **dict(table.cma_es))
            kept = search(key)[1]
        else:
            kept = _diffusion_evolution(key, evaluate, policy.num_genes, method)
        return {**kept, "success": kept["success"][-1]}

    devices = jax.local_devices()[:repeats]
    filled = math.ceil(repeats / len(devices)) * len(devices)
    mapped = jax.jit(de.batch.over_devices(de.batch.by_platform(one), devices))
    keys = de.batch.seed_keys(table.seed, filled)
    return lambda scaling: mapped(keys, jnp.full(filled, scaling))


def _diffusion_evolution(key, evaluate, num_genes: int, method: Method) -> dict[str, jax.Array]:
    """Run Diffusion Evolution as published."""
    table, diffusion = settings(), settings().diffusion
    key_init, key_projection, key_run = jax.random.split(key, 3)
    projection = None
    if method.latent:
        projection = de.latent.random_projection(key_projection, num_genes, table.latent_dim)
    algorithm = de.diffusion_evolution(
        de.schedules.cosine(diffusion.num_levels),
        fitness_map=de.fitness.boltzmann(diffusion.temperature),
        eta=diffusion.eta,
        projection=projection,
        floor=diffusion.floor,
    )

    def generation(state: de.State, key: jax.Array):
        key_fitness, key_step = jax.random.split(key)
        fitness, kept = evaluate(key_fitness, state.population)
        return algorithm.step(key_step, state, fitness)[0], kept

    population = jax.random.normal(key_init, (diffusion.population, num_genes))
    keys = jax.random.split(key_run, diffusion.num_levels)
    return jax.lax.scan(generation, algorithm.init(population), keys)[1]


def section(folder: Path) -> Section:
    """Hold every cell's numbers against the published tables, and draw them."""
    done = {
        cell: load_arrays(folder / cell.file)
        for cell, _ in cells(quick=False)
        if (folder / cell.file).exists()
    }
    success = {
        (row["environment"], row["method"], float(row["scaling"])): float(
            row["success_rate_percent"]
        )
        for row in read_table("published_success_rate.csv")
    }
    reward = {
        (row["environment"], row["method"], float(row["scaling"])): float(row["fitness_mean"])
        for row in read_table("published_fitness.csv")
    }
    rows = []
    for what, published in (("success, %", success), ("reward", reward)):
        for cell in sorted(done, key=_order):
            saved = done[cell]
            if what != "reward" and cell.task in NO_SUCCESS:
                continue
            values = saved["reward"][:, -1] if what == "reward" else 100 * saved["success"]
            expected = published[cell.task, METHODS[cell.method].published, cell.scaling]
            name = f"{cell.task} x {cell.scaling:g}, {METHODS[cell.method].label}: {what}"
            note = NOTES.get(cell.task, "")
            rows.append(Row(name, expected, None, *mean_and_error(values), note))
    figures = [
        _draw(
            folder / "success.png",
            done,
            success,
            lambda saved: 100 * saved["success"],
            [task for task in settings().tasks if task not in NO_SUCCESS],
            "success, %",
            "Success rate of the last generation against the scaling of the genome: ours (filled, "
            "± standard error) and published (open).",
        ),
        _draw(
            folder / "reward.png",
            done,
            reward,
            lambda saved: saved["reward"][:, -1],
            settings().tasks,
            "reward",
            "Mean reward of the last generation against the scaling of the genome: ours (filled, "
            "± standard error) and published (open).",
        ),
    ]
    return Section(TITLE, _text(done, success), rows, figures)


def _order(cell: Cell) -> tuple[int, float, int]:
    return settings().tasks.index(cell.task), cell.scaling, list(METHODS).index(cell.method)


def _text(done: dict[Cell, dict[str, np.ndarray]], published: dict) -> str:
    """Say what was run, how close it comes to the published success rates, and what differs."""
    small = max((len(saved["success"]) for cell, saved in done.items()), default=0)
    large = max(
        (len(s["success"]) for cell, s in done.items() if METHODS[cell.method].large), default=0
    )
    lacking = len(cells(quick=False)) - len(done)
    close, compared = {}, {}
    for cell, saved in done.items():
        if cell.task in NO_SUCCESS:
            continue
        expected = published[cell.task, METHODS[cell.method].published, cell.scaling]
        kind = "CMA-ES" if cell.method == "cmaes" else "Diffusion Evolution"
        apart = abs(100 * saved["success"].mean() - expected)
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

    In Gymnax the continuous mountain car keeps its velocity at the left wall, where Gymnasium sets
    it to 0. With a wall as Gymnasium's the success rates stay within 3 standard errors (the same
    command).
    """


@in_style
def _draw(path: Path, done, published, read, tasks: list[str], label: str, caption: str) -> Path:
    figure = Figure(figsize=(2.35 * len(tasks), 2.7), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)
    for axes, task in zip(panels[0], tasks, strict=True):
        for i, (name, method) in enumerate(METHODS.items()):
            shift = 10 ** (0.09 * (i - 1.5))  # side by side, or they would hide each other
            known = [s for s in settings().scalings if (task, method.published, s) in published]
            axes.plot(
                [s * shift for s in known],
                [published[task, method.published, s] for s in known],
                "o",
                markersize=6,
                markerfacecolor="none",
                markeredgecolor=method.colour,
            )
            here = [s for s in settings().scalings if Cell(task, name, s) in done]
            values = [mean_and_error(read(done[Cell(task, name, s)])) for s in here]
            axes.errorbar(
                [s * shift for s in here],
                [value for value, _ in values],
                [error or 0 for _, error in values],
                fmt="o-",
                markersize=3.2,
                linewidth=0.8,
                color=method.colour,
                label=method.label,
            )
        axes.set_xscale("log")
        axes.set_xticks(settings().scalings, [f"{s:g}" for s in settings().scalings])
        axes.minorticks_off()
        axes.set_title(task.rsplit("-", 1)[0], fontsize=11)
        axes.set_xlabel("scaling")
        axes.tick_params(labelsize=9)
    panels[0, 0].set_ylabel(label)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(METHODS), frameon=False)
    return save_figure(figure, path, caption)
