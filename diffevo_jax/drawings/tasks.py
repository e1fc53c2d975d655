"""How control tasks look: what stands still, and where an observation puts what moves.

Geometry as Gymnasium draws it; lengths are those of the tasks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Shapes(NamedTuple):
    """What moves, of K actors: bars `[K, B, 2, 2]`, bodies `[K, P, V, 2]`, dots `[K, M, 2]`."""

    bars: np.ndarray
    bodies: np.ndarray
    dots: np.ndarray


class Drawing(NamedTuple):
    """How a task looks.

    shapes: observations `[K, O]` -> Shapes. backdrop: (axes, the environment's params) -> None,
        draws what stands still. window: (left, right, bottom, top) of what is seen.
    steps_per_second: at which Gymnasium plays it.
    """

    shapes: Callable[[np.ndarray], Shapes]
    backdrop: Callable[[Any, Any], None]
    window: tuple[float, float, float, float]
    steps_per_second: int


def _cart_pole(observations: np.ndarray) -> Shapes:
    x, angle = observations[:, 0], observations[:, 2]
    foot = np.stack([x, np.full_like(x, 0.42)], 1)
    tip = foot + 1.0 * np.stack([np.sin(angle), np.cos(angle)], 1)
    box = np.array([(-0.4, 0.12), (0.4, 0.12), (0.4, 0.42), (-0.4, 0.42)])
    bodies = box + np.stack([x, np.zeros_like(x)], 1)[:, None]
    wheels = np.stack([np.stack([x + side, np.full_like(x, 0.1)], 1) for side in (-0.23, 0.23)], 1)
    return Shapes(np.stack([foot, tip], 1)[:, None], bodies[:, None], wheels)


def _track(axes: Any, params: Any) -> None:
    axes.axhline(0, color="black", linewidth=1, zorder=0)
    for side in (-1, 1):
        edge = side * float(params.x_threshold)
        axes.plot([edge, edge], [0, 0.25], color="black", linewidth=1, zorder=0)


def _acrobot(observations: np.ndarray) -> Shapes:
    cos_1, sin_1, cos_2, sin_2 = observations[:, :4].T
    elbow = np.stack([sin_1, -cos_1], 1)
    # Angle 2 is relative to the first link.
    tip = elbow + np.stack([sin_1 * cos_2 + cos_1 * sin_2, sin_1 * sin_2 - cos_1 * cos_2], 1)
    hinge = np.zeros_like(elbow)
    bars = np.stack([np.stack([hinge, elbow], 1), np.stack([elbow, tip], 1)], 1)
    return Shapes(bars, np.empty((len(elbow), 0, 3, 2)), np.stack([hinge, elbow], 1))


def _bar_to_reach(axes: Any, _: Any) -> None:
    axes.axhline(1, color="black", linestyle="--", linewidth=1, zorder=0)
    axes.annotate("goal", (2.9, 1), textcoords="offset points", xytext=(0, 4), ha="right")


def _pendulum(observations: np.ndarray) -> Shapes:
    cos, sin = observations[:, :2].T
    hinge = np.zeros((len(cos), 2))
    tip = np.stack([-sin, cos], 1)  # the angle turns to the left from upright
    return Shapes(
        np.stack([hinge, tip], 1)[:, None], np.empty((len(cos), 0, 3, 2)), np.stack([hinge, tip], 1)
    )


def _upright(axes: Any, _: Any) -> None:
    axes.plot([0, 0], [0, 1.1], color="black", linestyle="--", linewidth=1, zorder=0)
    axes.annotate("goal", (0, 1.1), textcoords="offset points", xytext=(0, 4), ha="center")


def _height(x: Any) -> Any:
    return 0.45 * np.sin(3 * x) + 0.55


def _mountain_car(observations: np.ndarray) -> Shapes:
    x = observations[:, 0]
    slope = np.arctan(3 * 0.45 * np.cos(3 * x))
    turn = np.array([[np.cos(slope), -np.sin(slope)], [np.sin(slope), np.cos(slope)]])
    ground = np.stack([x, _height(x)], 1)[:, None]

    def placed(points: list[tuple[float, float]]) -> np.ndarray:
        return np.einsum("ijk,vj->kvi", turn, np.array(points)) + ground

    body = placed([(-0.08, 0.018), (0.08, 0.018), (0.08, 0.075), (-0.08, 0.075)])
    return Shapes(
        np.empty((len(x), 0, 2, 2)), body[:, None], placed([(-0.045, 0.013), (0.045, 0.013)])
    )


def _hills(axes: Any, params: Any) -> None:
    x = np.linspace(float(params.min_position), float(params.max_position), 200)
    axes.fill_between(x, -1, _height(x), color="#EDEDED", linewidth=0, zorder=-1)
    axes.plot(x, _height(x), color="black", linewidth=1, zorder=0)
    goal = float(params.goal_position)
    top = _height(goal) + 0.18
    axes.plot([goal, goal], [_height(goal), top], color="black", linewidth=1.2, zorder=0)
    flag = [(goal, top), (goal + 0.07, top - 0.025), (goal, top - 0.05)]
    axes.fill(*zip(*flag, strict=True), color="#C8A000", linewidth=0, zorder=0)


_MOUNTAIN = Drawing(_mountain_car, _hills, (-1.3, 0.7, 0.02, 1.3), 30)

DRAWINGS = {
    "CartPole-v1": Drawing(_cart_pole, _track, (-3, 3, -0.1, 1.75), 50),
    "Acrobot-v1": Drawing(_acrobot, _bar_to_reach, (-2.9, 2.9, -2.1, 2.1), 15),
    "MountainCar-v0": _MOUNTAIN,
    "MountainCarContinuous-v0": _MOUNTAIN,
    "Pendulum-v1": Drawing(_pendulum, _upright, (-2.0, 2.0, -1.1, 1.3), 30),
}
"""Tasks that can be drawn, by the names of their environments."""
