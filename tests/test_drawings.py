"""Moving pictures: where actors are drawn, how many pictures there are, how large."""

import weakref

import jax
import numpy as np
import pytest
from matplotlib import animation
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

import diffevo_jax as de
from diffevo_jax.drawings import episodes, movie
from diffevo_jax.drawings.tasks import DRAWINGS
from diffevo_jax.tasks.evaluation import Trajectory


def _trajectory(name: str, individuals: int, steps: int) -> tuple:
    """A task and random policies' episodes in it."""
    task = de.tasks.make_task(name, max_steps=steps)
    policy = de.policies.mlp((task.num_inputs, 2, task.num_outputs))
    record = jax.jit(de.tasks.make_trajectories(task, policy))
    population = jax.random.normal(jax.random.key(1), (individuals, policy.num_genes))
    return task, record(jax.random.key(0), population, np.arange(individuals))


def _circle(*angles: np.ndarray) -> np.ndarray:
    return np.stack([each for angle in angles for each in (np.cos(angle), np.sin(angle))], 1)


def test_every_drawing_stays_in_its_window():
    turn = np.random.default_rng(0).uniform(-1, 1, (200, 2))
    x, angle = 2.4 * turn[:, 0], 0.21 * turn[:, 1]
    anywhere = {
        "CartPole-v1": np.stack([x, x, angle, angle], 1),
        "Acrobot-v1": _circle(np.pi * turn[:, 0], np.pi * turn[:, 1]),
        "MountainCar-v0": np.stack([0.9 * turn[:, 0] - 0.3, turn[:, 1]], 1),
        "MountainCarContinuous-v0": np.stack([0.9 * turn[:, 0] - 0.3, turn[:, 1]], 1),
        "Pendulum-v1": _circle(np.pi * turn[:, 0]),
    }
    assert anywhere.keys() == DRAWINGS.keys()
    for name, observations in anywhere.items():
        left, right, bottom, top = DRAWINGS[name].window
        for points in DRAWINGS[name].shapes(observations):
            assert len(points) == 200
            assert np.all((points[..., 0] > left) & (points[..., 0] < right)), name
            assert np.all((points[..., 1] > bottom) & (points[..., 1] < top)), name


def test_actors_are_where_the_tasks_rules_say():
    """The goal's height is the task's own rule; upright is reward 0; the hill is MountainCar's."""
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, (50, 2))
    tips = DRAWINGS["Acrobot-v1"].shapes(_circle(*angles.T)).bars[:, 1, 1, 1]
    np.testing.assert_allclose(tips, -np.cos(angles[:, 0]) - np.cos(angles.sum(1)), atol=1e-12)
    (upright,) = DRAWINGS["Pendulum-v1"].shapes(np.array([[1.0, 0.0, 0.0]])).bars[:, 0, 1]
    np.testing.assert_allclose(upright, [0, 1])
    (pole,) = DRAWINGS["CartPole-v1"].shapes(np.array([[0.5, 0, 0.2, 0]])).bars[:, 0]
    np.testing.assert_allclose(np.arctan2(*(pole[1] - pole[0])), 0.2)
    wheels = DRAWINGS["MountainCar-v0"].shapes(np.array([[0.3, 0.0]])).dots[0]
    assert np.arctan2(*(wheels[1] - wheels[0])[::-1]) == pytest.approx(
        np.arctan(1.35 * np.cos(0.9))  # along the slope
    )


def test_episodes_become_a_wide_gif_that_plays_to_the_end(tmp_path):
    task, trajectory = _trajectory("CartPole-v1", 3, 12)
    path = de.drawings.animate_episodes(
        tmp_path / "new" / "a.gif", task, {"first": trajectory, "second": trajectory}
    )
    with GifImageFile(path) as picture:
        assert picture.size[0] >= 800
        assert picture.n_frames == len(range(0, int(trajectory.length.max()), 2)) + 1
        picture.seek(picture.n_frames - 1)
        assert picture.info["duration"] > 1000 * 1.4  # the end stays


def test_long_episodes_skip_steps(tmp_path, monkeypatch):
    task, trajectory = _trajectory("MountainCar-v0", 1, 40)
    assert int(trajectory.length[0, 0]) == 40
    monkeypatch.setattr(episodes, "MOST_FRAMES", 5)
    with GifImageFile(
        de.drawings.animate_episodes(tmp_path / "a.gif", task, trajectory)
    ) as picture:
        assert picture.n_frames == 6


def test_a_population_of_the_plane_becomes_a_wide_gif(tmp_path):
    populations = np.random.default_rng(0).normal(size=(4, 20, 2))
    populations[0, 0] = np.nan  # a point that is none is left out
    path = tmp_path / "a.gif"
    de.drawings.animate_population(path, populations, de.landscapes.two_peaks, title="two peaks")
    with GifImageFile(path) as picture:
        assert picture.size[0] >= 800
        assert picture.n_frames == 4


def test_a_long_movie_takes_the_memory_of_a_short_one(tmp_path, monkeypatch):
    made, alive, convert = [], [], Image.Image.convert

    def counted(*arguments, **settings):
        picture = convert(*arguments, **settings)
        made.append(weakref.ref(picture))
        alive.append(sum(each() is not None for each in made))
        return picture

    monkeypatch.setattr(Image.Image, "convert", counted)
    monkeypatch.setattr(movie, "DPI", 10)
    populations = np.random.default_rng(0).normal(size=(60, 4, 2))
    de.drawings.animate_population(tmp_path / "long.gif", populations)
    assert len(made) >= 60
    assert max(alive) <= 12  # 8 of them for the palette


def test_what_cannot_be_drawn_is_named(tmp_path, monkeypatch, refuses):
    task = de.tasks.make_task("Breakout-MinAtar")
    nothing = Trajectory(*(np.zeros((1, 1, 2)),) * 4, np.ones((1, 1)))  # pyright: ignore
    with refuses("task"):
        de.drawings.animate_episodes(tmp_path / "a.gif", task, nothing)
    with refuses("panels"):
        de.drawings.animate_episodes(tmp_path / "a.gif", de.tasks.make_task("CartPole-v1"), {})
    with refuses("populations"):
        de.drawings.animate_population(tmp_path / "a.gif", np.zeros((4, 20, 3)))
    with refuses("populations"):
        de.drawings.animate_population(tmp_path / "a.gif", np.full((4, 20, 2), np.nan))
    with pytest.raises(de.InputError) as error:
        de.drawings.animate_population(tmp_path / "a.avi", np.zeros((4, 20, 2)))
    assert error.value.path == "path"
    assert error.value.seen == str(tmp_path / "a.avi")
    monkeypatch.setattr(animation.FFMpegWriter, "isAvailable", lambda: False)
    with refuses("path"):
        de.drawings.animate_population(tmp_path / "a.mp4", np.zeros((4, 20, 2)))
