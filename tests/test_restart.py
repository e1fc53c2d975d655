"""Noising again, and peaks that move."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import diffevo_jax as de

KEY = jax.random.key(4)
POPULATION = jax.random.normal(jax.random.key(1), (16, 2))


def follow(key, algorithm, *, moves, population=POPULATION):
    """Evolve for 16 generations towards a place that moves after 8; final state, Infos, places."""

    def generation(state, pair):
        key, place = pair
        fitness = -jnp.sum((state.population - place) ** 2, axis=1)
        return algorithm.step(key, state, fitness)

    places = jnp.where(moves & (jnp.arange(16) >= 8), 1.5, -1.0)
    state = algorithm.init(KEY, population)
    return jax.lax.scan(generation, state, (jax.random.split(key, 16), places))


def restarting(**settings):
    return de.presets.restart(num_generations=16, num_levels=6, level=3, **settings)


def test_noise_is_that_of_the_level():
    schedule = de.schedules.cosine(10)
    x0 = jnp.full((20_000, 2), 3.0)
    for t in (0, 4, 9):
        alpha = float(schedule.alpha[t])
        x_t = de.presets.renoise(KEY, x0, schedule, t)
        # Five standard errors of 20,000.
        np.testing.assert_allclose(x_t.mean(axis=0), 3 * alpha**0.5, atol=0.036)
        np.testing.assert_allclose(x_t.var(axis=0), 1 - alpha, rtol=0.05)


def test_it_restarts_at_the_end_of_a_run_and_when_the_best_has_another_fitness():
    _, info = jax.jit(partial(follow, algorithm=restarting()))(KEY, moves=True)
    # Levels 5 to 0, then again from 3; the move comes at generation 8, and is seen there.
    assert info.level.tolist() == [5, 4, 3, 2, 1, 0, 3, 2, 1, 3, 2, 1, 0, 3, 2, 1]
    assert np.flatnonzero(info.moved).tolist() == [8]
    assert np.flatnonzero(info.restarted).tolist() == [5, 8, 12]


def test_an_infinite_tolerance_sees_no_move_and_nothing_moves_by_itself():
    blind = jax.jit(partial(follow, algorithm=restarting(tolerance=float("inf"))))
    for algorithm, moves in (
        (blind, True),
        (jax.jit(partial(follow, algorithm=restarting())), False),
    ):
        _, info = algorithm(KEY, moves=moves)
        assert not bool(jnp.any(info.moved))
        assert np.flatnonzero(info.restarted).tolist() == [5, 9, 13]


def test_the_best_is_evaluated_again_and_a_finished_run_is_a_fixed_point():
    algorithm = restarting()
    state, info = jax.jit(partial(follow, algorithm=algorithm))(KEY, moves=True)
    best = jnp.argmax(info.fitness, axis=1)
    for t in range(15):
        np.testing.assert_array_equal(info.population[t + 1, 0], info.population[t, best[t]])
    repeated, _ = algorithm.step(KEY, state, jnp.arange(16.0))
    assert int(repeated.t) == int(state.t) == 0
    np.testing.assert_array_equal(repeated.population, state.population)


def test_it_finds_what_has_moved_and_a_run_that_has_ended_does_not():
    def distance(info):
        return float(jnp.min(jnp.sum((info.population[-1] - 1.5) ** 2, axis=1)))

    _, info = jax.jit(partial(follow, algorithm=restarting()))(KEY, moves=True)
    evolution = de.presets.paper(de.schedules.cosine(6))
    _, ended = jax.jit(partial(follow, algorithm=evolution))(KEY, moves=True)
    assert distance(info) < 0.5 * distance(ended)


@pytest.mark.slow
def test_a_batch_is_a_loop_and_a_mesh_is_one_device():
    keys = jax.random.split(KEY, 2)
    run = jax.jit(partial(follow, algorithm=restarting(), moves=True))
    batch = jax.jit(jax.vmap(partial(follow, algorithm=restarting(), moves=True)))(keys)
    state, info = run(keys[1])
    np.testing.assert_allclose(batch[0].population[1], state.population, atol=1e-4)
    np.testing.assert_array_equal(batch[1].level[1], info.level)
    mesh = Mesh(jax.devices()[:8], ("individuals",))
    split = jax.jit(partial(follow, algorithm=restarting(mesh=mesh), moves=True))(keys[1])[0]
    np.testing.assert_allclose(split.population, state.population, atol=1e-4)


def test_it_fits_evolve():
    algorithm = de.presets.restart(num_generations=5, num_levels=3, level=1)
    run = jax.jit(lambda key: de.evolve(key, algorithm, de.landscapes.two_peaks, POPULATION))
    evolved = run(KEY)
    assert evolved.kept.shape == (5, 16)
    assert float(evolved.best.fitness) == float(evolved.kept.max())


@pytest.mark.parametrize(
    ("setting", "value"), [("level", 6), ("tolerance", -1.0), ("num_generations", 0)]
)
def test_bad_settings_are_named(setting, value, refuses):
    with refuses(setting):
        de.presets.restart(**{"num_generations": 16, "num_levels": 6, "level": 3, setting: value})


def test_peaks_move_by_the_shift_and_stay_in_their_ranges():
    fitness_fn, highest = de.landscapes.moving_peaks(KEY, num_genes=2, num_peaks=1, num_changes=30)
    assert highest.shape == (31,)
    assert float(highest.min()) >= 30
    assert float(highest.max()) <= 70
    assert len(set(np.asarray(highest).tolist())) > 20
    # One cone: its top is where the fitness is the height, found from two points' distances.
    axis = jnp.linspace(0, 100, 401)
    points = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    tops = [points[jnp.argmax(fitness_fn(jnp.asarray(c), points))] for c in (0, 1, 2)]
    for before, after in pairwise(tops):
        # Within the grid's diagonal of the shift, 1.
        assert abs(float(jnp.linalg.norm(after - before)) - 1) < 0.36
    assert float(fitness_fn(jnp.asarray(1), points).max()) == pytest.approx(
        float(highest[1]), abs=12 * 0.18
    )
