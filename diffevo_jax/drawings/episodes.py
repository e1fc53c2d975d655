"""Episodes of policies as a moving picture."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffevo_jax.checks import InputError
from diffevo_jax.drawings import movie
from diffevo_jax.drawings.style import GREY, STYLE, X
from diffevo_jax.drawings.tasks import DRAWINGS, Drawing
from diffevo_jax.environments._brax import Brax
from diffevo_jax.tasks.task import Task
from diffevo_jax.tasks.trajectories import Trajectory

# The most pictures in a movie, and the most in a second of it: longer episodes skip steps.
MOST_FRAMES = 150
MOST_PER_SECOND = 25


def animate_episodes(
    path: str | Path,
    task: Task,
    panels: Trajectory | Mapping[str, Trajectory],
    *,
    colour: str | Mapping[str, str] = X,
) -> Path:
    """Draw episodes as they go, NAME.gif or NAME.mp4; returns the path.

    Brax's are a page for a browser, NAME.html: the first episode, in Brax's own viewer, which the
    page loads from the net.

    panels: a Trajectory of `tasks.make_trajectories`, or several by their titles, each in a panel
        of its own. The individuals and episodes of a panel, `[K, E]`, are drawn over each other;
        those that have ended turn pale.
    colour: the actors' colour, or each panel's by its title.

    Raises InputError on a task that has no drawing; `DRAWINGS` has those that do.

        record = de.tasks.make_trajectories(task, policy)
        de.drawings.animate_episodes("best.gif", task, record(key, best.genome[None], [0]))
    """
    panels = {"": panels} if isinstance(panels, Trajectory) else dict(panels)
    if not panels:
        raise InputError("panels", "at least one trajectory", "none")
    if isinstance(task.environment, Brax):
        return _brax_page(Path(path), task.environment, next(iter(panels.values())))
    matplotlib = movie.matplotlib()

    name = task.environment.name
    if name not in DRAWINGS:
        expected = f"one that has a drawing, {', '.join(sorted(DRAWINGS))} or Brax's"
        raise InputError("task", expected, name)
    drawing = DRAWINGS[name]
    columns = 1 if len(panels) == 1 else 2
    rows = math.ceil(len(panels) / columns)
    left, right, bottom, top = drawing.window
    width = 8.0
    height = rows * (width / columns * (top - bottom) / (right - left) + 0.7)
    with matplotlib.rc_context({**STYLE, **movie.LETTERS}):
        figure = matplotlib.figure.Figure(figsize=(width, min(height, 9.0)), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        moves = [
            _stage(axes, drawing, task, title, trajectory, _colour_of(title, colour))
            for axes, (title, trajectory) in zip(grid, panels.items(), strict=False)
        ]
        last = max(int(np.max(trajectory.length)) for trajectory in panels.values())
        every = max(
            math.ceil(drawing.steps_per_second / MOST_PER_SECOND), math.ceil(last / MOST_FRAMES)
        )
        frames = [*range(0, last, every), last]

        def draw(step: int) -> None:
            for move in moves:
                move(step)

        return movie.save(
            figure, draw, frames, Path(path), per_second=drawing.steps_per_second / every
        )


def _brax_page(path: Path, environment: Brax, trajectory: Trajectory) -> Path:
    """Write the first episode as a page of Brax's viewer."""
    if path.suffix != ".html":
        raise InputError("path", f"NAME.html for {environment.name}", path)
    from brax.io import html

    instance, steps = environment.instance, int(trajectory.length[0, 0])
    moved = jax.tree.map(lambda x: np.asarray(x[0, 0, : steps + 1]), trajectory.states)
    states = [
        jax.tree.map(lambda x, i=i: x[i], moved.pipeline_state) for i in range(len(moved.reward))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    system = instance.sys.tree_replace({"opt.timestep": instance.dt})
    path.write_text(html.render(system, states), encoding="utf-8")
    return path


def _colour_of(title: str, colour: str | Mapping[str, str]) -> str:
    return colour if isinstance(colour, str) else colour[title]


def _stage(
    axes: Any, drawing: Drawing, task: Task, title: str, trajectory: Trajectory, colour: str
) -> Any:
    """Set up one panel, and return the function of a step that moves its actors there.

    The actors are collections that only move: drawing each anew takes ten times as long.
    """
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.colors import to_rgba

    observations = np.asarray(trajectory.observations)
    observations = observations.reshape(-1, *observations.shape[2:])  # actors, T + 1, O
    length = np.asarray(trajectory.length).ravel()
    # The return of each actor after so many steps.
    earned = np.cumsum(np.asarray(trajectory.rewards).reshape(len(length), -1), axis=1)
    earned = np.concatenate([np.zeros((len(length), 1)), earned], axis=1)
    most = earned.shape[1] - 1
    left, right, bottom, top = drawing.window
    bars, bodies = LineCollection([], linewidths=4, capstyle="round"), PolyCollection([])
    dots = axes.scatter([], [], s=45, linewidth=0, zorder=5)
    for artist in (bars, bodies):
        axes.add_collection(artist)
    drawing.backdrop(axes, getattr(task.environment, "params", None))
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    words = axes.set_title(f"{title}\n" if title else "", loc="left")
    alive_colour = to_rgba(colour, max(0.4, min(1.0, len(length) ** -0.35)))

    def move(step: int) -> None:
        going = (step < length) | (length >= most)  # cut off at the limit is no end
        # A single actor keeps its colour to the end; those still going are drawn in front.
        order = np.argsort(going, kind="stable")
        shown = drawing.shapes(observations[order, min(step, most)])
        pale = to_rgba(GREY, min(0.15, 4 / len(length)))
        colours = [alive_colour if on or len(length) == 1 else pale for on in going[order]]
        bars.set_segments(list(shown.bars.reshape(-1, 2, 2)))
        bars.set_color([c for c in colours for _ in range(shown.bars.shape[1])])
        bodies.set_verts(list(shown.bodies.reshape(-1, *shown.bodies.shape[2:])))
        bodies.set_facecolor([c for c in colours for _ in range(shown.bodies.shape[1])])
        dots.set_offsets(shown.dots.reshape(-1, 2))
        dark = [(0.2, 0.2, 0.2, alpha) for *_, alpha in colours]
        dots.set_facecolor(np.repeat(dark, shown.dots.shape[1], axis=0))
        now = earned[:, min(step, most)].mean()
        mean = "return" if len(length) == 1 else "mean return"
        progress = f"step {min(step, int(length.max()))}, {mean} {now:.0f}"
        if len(length) > 1:
            progress += f", {going.sum()} of {len(length)} going on"
        words.set_text(f"{title}\n{progress}" if title else progress)

    return move
