"""Landscapes that move: noising again, niches that follow, and peaks that move."""

import inspect
from itertools import pairwise, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de
from diffevo_jax.landscapes import _moving

KEY = jax.random.key(4)
GENERATIONS, SIZE = 240, 20
CORNERS = jnp.array([[-1.0, -1.0], [1.0, 1.0], [1.2, -0.8]])


def cones(places, heights, slope, population):
    distance = jnp.linalg.norm(population[:, None] - places, axis=2)
    return jnp.max(heights - slope * distance, axis=1)


def follow(key, places, heights, slope, tolerance):
    """Track three cones, `[T, 3, 2]` and `[T, 3]`; state, Infos, how far the best one is below."""
    algorithm = de.presets.track(num_niches=12, rows=6, tolerance=tolerance)

    def generation(state, given):
        key, places, heights = given
        fitness = cones(places, heights, slope, state.population)
        state, info = algorithm.step(key, state, fitness)
        return state, (info, jnp.max(heights) - jnp.max(fitness))

    key_init, key_run = jax.random.split(key)
    population = jnp.clip(jax.random.normal(key_init, (SIZE, 2)), -2, 2)
    state = algorithm.init(key_init, population)
    keys = jax.random.split(key_run, GENERATIONS)
    state, (info, error) = jax.lax.scan(generation, state, (keys, places, heights))
    return state, info, error


compiled = jax.jit(follow)


def run(places=CORNERS, heights=(5.0, 4.0, 3.0), slope=5.0, tolerance=1e-6, key=KEY):
    places = jnp.broadcast_to(places, (GENERATIONS, 3, 2))
    heights = jnp.broadcast_to(jnp.asarray(heights, float), (GENERATIONS, 3))
    return compiled(key, places, heights, slope, tolerance)


def over_time(*values, lasting):
    """One value after the other, each for so many generations, the last to the end."""
    place = jnp.minimum(jnp.arange(GENERATIONS) // lasting, len(values) - 1)
    return jnp.asarray(values)[place]


def distance_to(niches, point, generation=-1):
    """How far the nearest mature niche is."""
    place, mature = niches.place[generation], niches.mature[generation]
    return float(jnp.min(jnp.where(mature, jnp.linalg.norm(place - point, axis=1), jnp.inf)))


def test_noise_is_that_of_the_level():
    schedule = de.schedules.cosine(10)
    x0 = jnp.full((20_000, 2), 3.0)
    for t in (0, 4, 9):
        alpha = float(schedule.alpha[t])
        x_t = de.presets.renoise(KEY, x0, schedule, t)
        # Five standard errors of 20,000.
        np.testing.assert_allclose(x_t.mean(axis=0), 3 * alpha**0.5, atol=0.036)
        np.testing.assert_allclose(x_t.var(axis=0), 1 - alpha, rtol=0.05)


def test_each_peak_has_one_niche_and_those_that_come_to_it_die():
    _, info, error = run()
    assert float(error[-1]) < 0.01
    for peak in CORNERS:
        assert distance_to(info.niches, peak) < 0.05
    assert int(info.niches.mature[-1].sum()) == 3
    assert int(info.born.sum()) > 20
    # Whoever was born lives, or has died; all 12 begin with the population.
    living = (info.niches.stale | (info.niches.fitness > -jnp.inf))[-1]
    assert 12 + int(info.born.sum()) == int(living.sum()) + int(info.died.sum())
    assert not bool(info.moved.any())


def test_a_change_is_seen_at_once_and_every_niche_is_noised_and_evaluated_again():
    moved = over_time(CORNERS, CORNERS + 0.1, lasting=120)
    _, info, error = run(moved)
    assert np.flatnonzero(info.moved).tolist() == [120]
    before, after = (jax.tree.map(lambda leaf, t=t: leaf[t], info.niches) for t in (119, 120))
    old = before.mature & after.mature
    assert np.all((after.noise > 0.05) & (after.home_noise > 0.05) | ~old)
    assert int((after.stale & old).sum()) >= 2
    assert int((info.niches.stale & info.niches.mature)[125].sum()) == 0
    for peak in CORNERS + 0.1:
        assert distance_to(info.niches, peak) < 0.05
    assert float(error[-1]) < 0.01
    # Who sees nothing stays where the old peak was, for nothing is as good as that was.
    lower = over_time((5.0, 4.0, 3.0), (4.5, 3.5, 2.5), lasting=120)
    _, info, error = run(moved, lower, tolerance=jnp.inf)
    assert not bool(info.moved.any())
    assert distance_to(info.niches, CORNERS[0]) < distance_to(info.niches, CORNERS[0] + 0.1)


def test_a_change_far_from_the_best_niche_is_seen_in_turn():
    heights = over_time((5.0, 4.0, 3.0), (5.0, 4.0, 4.5), lasting=120)
    _, info, _ = run(heights=heights)
    (seen,) = np.flatnonzero(info.moved)
    assert 120 <= seen < 120 + 12
    assert int(info.niches.stale[seen].sum()) >= 2


def test_how_far_niches_move_is_learned():
    _, info, _ = run(
        over_time(*(CORNERS + 0.3 * jnp.array([i % 2, 0]) for i in range(4)), lasting=60)
    )
    # Half the way on a logarithmic scale at each change, of how far the one before has moved them.
    expected = [0.1, 0.1 * 3**0.5, 0.1 * 3**0.75]
    np.testing.assert_allclose(info.shift[jnp.array([60, 120, 180])], expected, rtol=0.05)


def test_a_peak_that_comes_back_is_found_at_once():
    there, gone = (5.0, 4.0, 3.0), (-9.0, 4.1, 3.1)
    _, info, error = run(heights=over_time(there, gone, there, lasting=80))
    # Its niche waits at home, asleep, while another's cone covers the place.
    home = jnp.linalg.norm(info.niches.place[150] - CORNERS[0], axis=1) < 0.05
    assert int((info.niches.asleep[150] & home).sum()) == 1
    # Two generations: one sees the change, one evaluates what is remembered.
    assert float(error[161]) < 0.05 < float(error[0])


def test_what_is_asleep_for_long_is_forgotten():
    there = CORNERS + 0.4 * jnp.array([[0, 0], [1, 0], [0, 1]])
    heights = over_time((5.0, 4.0, 3.0), (-9.0, 4.0, 3.0), lasting=80)
    _, info, _ = run(over_time(*(CORNERS, there) * 3, lasting=40), heights)
    niches, asleep = info.niches, []
    for generation in (119, -1):
        at_home = jnp.linalg.norm(niches.place[generation] - CORNERS[0], axis=1) < 0.1
        asleep.append(bool(jnp.any(at_home & niches.asleep[generation])))
    assert asleep == [True, False]


def test_a_new_peak_gives_birth_to_a_niche():
    heights = over_time((-9.0, 4.0, 3.0), (5.0, 4.0, 3.0), lasting=60)
    _, info, error = run(heights=heights)
    assert (
        distance_to(info.niches, CORNERS[0], 59) > 1 > 0.05 > distance_to(info.niches, CORNERS[0])
    )
    assert float(error[-1]) < 0.01


@pytest.mark.parametrize("key", [1, 2])
def test_a_landscape_that_changes_every_generation_is_survived(key):
    drift = jnp.linspace(0, 0.5, GENERATIONS)
    places = CORNERS + drift[:, None, None]
    heights = jnp.array([5.0, 4.0, 3.0]) + jnp.sin(jnp.arange(GENERATIONS))[:, None]
    state, info, error = run(places, heights, key=jax.random.key(key))
    assert int(info.moved[2:].sum()) == GENERATIONS - 2
    assert bool(np.isfinite(state.population).all())
    assert float(error[-40:].mean()) < 1  # a fifth of a unit from the top


def test_a_flat_landscape_is_survived():
    state, info, _ = run(slope=0.0)
    assert bool(np.isfinite(state.population).all())
    assert float(np.abs(state.population).max()) <= 2
    assert not bool(info.moved.any())


def test_without_an_optimum_inside_the_box_it_ends_at_its_side():
    outside = jnp.array([[5.0, 5.0]] * 3)
    _, info, _ = run(outside)
    assert float(jnp.linalg.norm(jnp.max(info.population[-1], axis=0) - 2)) < 0.05
    assert float(np.abs(info.population[1:]).max()) <= 2


def test_fitness_that_is_no_number_counts_for_nothing():
    algorithm = de.presets.track(num_generations=30, num_niches=12, rows=6)

    def fitness_fn(population):
        fitness = -jnp.sum((population - 0.5) ** 2, axis=1)
        return jnp.where(population[:, 0] > 0.5, jnp.nan, fitness)

    population = jax.random.normal(KEY, (SIZE, 2))
    evolved = jax.jit(lambda key: de.evolve(key, algorithm, fitness_fn, population))(KEY)
    assert evolved.kept.shape == (30, SIZE)
    assert bool(np.isfinite(evolved.state.population).all())
    assert -1e-3 < float(evolved.best.fitness) <= 0


def test_a_batch_is_a_loop():
    keys = jax.random.split(KEY, 2)
    heights = over_time((5.0, 4.0, 3.0), (3.0, 5.0, 4.0), lasting=120)
    places = over_time(CORNERS, CORNERS + 0.1, lasting=120)
    one = run(places, heights, key=keys[1])
    both = jax.jit(jax.vmap(follow, (0, None, None, None, None)))(keys, places, heights, 5.0, 1e-6)
    # Rounding of batched products decides between rows of nearly one fitness now and then: the
    # first generations are compared, and what both come to.
    np.testing.assert_allclose(both[1].population[1, :10], one[1].population[:10], atol=1e-4)
    np.testing.assert_array_equal(both[1].moved[1], one[1].moved)
    assert float(jnp.max(both[2][:, -1])) < 0.01


def test_its_offline_error_is_far_below_that_of_beginning_afresh():
    key_places, key_heights = jax.random.split(KEY)
    steps = 0.08 * jax.random.normal(key_places, (6, 3, 2))
    places = over_time(*(CORNERS + jnp.cumsum(steps, axis=0)), lasting=40)
    heights = over_time(*jax.random.uniform(key_heights, (6, 3), minval=3, maxval=5), lasting=40)
    evolution = de.presets.paper(de.schedules.cosine(40))  # told of every change, 20 individuals

    def afresh(key, places, heights):
        population = jax.random.normal(key, (SIZE, 2))
        evolved = de.evolve(key, evolution, lambda x: cones(places, heights, 5.0, x), population)
        return jnp.max(heights) - jax.lax.cummax(jnp.max(evolved.kept, axis=1))

    errors = jax.jit(jax.vmap(afresh))(jax.random.split(KEY, 6), places[::40], heights[::40])
    _, _, error = run(places, heights)
    tracked = jax.vmap(jax.lax.cummin)(error.reshape(6, 40))
    assert float(tracked[1:].mean()) < 0.1 < 0.3 < float(errors[1:].mean())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_generations", 0),
        ("num_niches", 1),
        ("rows", 0),
        ("shift", 0.0),
        ("bound", -1.0),
        ("tolerance", -1.0),
    ],
)
def test_bad_settings_are_named(setting, value, refuses):
    with refuses(setting):
        de.presets.track(**{setting: value})


def test_a_map_that_compares_behaviour_is_refused(refuses):
    with refuses("fitness_map"):
        de.presets.track(fitness_map=de.fitness.dominated_novelty())


def test_two_individuals_are_too_few(refuses):
    with refuses("population"):
        de.presets.track().init(KEY, jnp.zeros((2, 3)))


LANDSCAPES = {
    name: getattr(de.landscapes, name) for name in ("moving_peaks", "generalised_moving_peaks")
}
each_landscape = pytest.mark.parametrize("name", LANDSCAPES)


@each_landscape
def test_peaks_move_by_the_shift_and_stay_in_their_ranges(name):
    fitness_fn, highest = LANDSCAPES[name](KEY, num_genes=2, num_peaks=1, num_changes=30)
    assert highest.shape == (31,)
    assert float(highest.min()) >= 30
    assert float(highest.max()) <= 70
    assert len(set(np.asarray(highest).tolist())) > 20

    @jax.jit
    def top(change):
        point = jnp.array([50.0, 50.0])
        for side in (50, 5, 0.5, 0.05):
            axis = jnp.linspace(-side, side, 101)
            points = point + jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
            point = points[jnp.argmax(fitness_fn(change, points))]
        return point, fitness_fn(change, point[None])[0]

    tops = [top(jnp.asarray(change)) for change in (0, 1, 2)]
    for (before, _), (after, _) in pairwise(tops):
        # Within the last grid's diagonal, twice.
        assert float(jnp.linalg.norm(after - before)) == pytest.approx(1, abs=0.003)
    for change, (_, fitness) in enumerate(tops):
        # The slope there is at most 12, times e^2 where it is rugged.
        assert float(fitness) == pytest.approx(float(highest[change]), abs=12 * 7.4 * 0.0008)


@each_landscape
def test_without_severities_nothing_changes(name):
    names = inspect.signature(LANDSCAPES[name]).parameters
    still = {name: 0.0 for name in names if name.endswith("severity") or name == "shift"}
    settings = {"num_genes": 2, "num_peaks": 1, "num_changes": 30}
    fitness_fn, _ = LANDSCAPES[name](KEY, **settings, **still)
    points = 100 * jax.random.uniform(KEY, (200, 2))
    before, after = (fitness_fn(jnp.asarray(change), points) for change in (0, 2))
    np.testing.assert_allclose(before, after, rtol=1e-3, atol=0.1)  # reflection rounds


def test_generalised_peaks_are_those_of_a_float64_loop(monkeypatch):
    kept = []

    def keep(*arguments):
        kept.append(_history(*arguments))
        return kept[0]

    _history = _moving._history
    monkeypatch.setattr(_moving, "_history", keep)
    # Of one gene, where a rotation is a sign.
    fitness_fn, _ = LANDSCAPES["generalised_moving_peaks"](
        KEY, num_genes=1, num_peaks=3, num_changes=1
    )
    place, height, width, _, tau, eta = (np.asarray(leaf[1], np.float64) for leaf in kept[0])
    points = np.linspace(-20, 120, 50, dtype=np.float64)

    def expected(point, signs):
        values = []
        for i, sign in enumerate(signs):
            y = sign * (point - place[i, 0])
            a, b = eta[i, :2] if y > 0 else eta[i, 2:]
            wave = np.sin(a * np.log(abs(y))) + np.sin(b * np.log(abs(y)))
            values.append(height[i] - abs(width[i, 0] * y) * np.exp(tau[i] * wave))
        return max(values)

    fitness = fitness_fn(jnp.asarray(1), jnp.asarray(points, jnp.float32)[:, None])
    matches = (
        np.allclose(fitness, [expected(point, signs) for point in points], rtol=2e-3, atol=0.02)
        for signs in product((1, -1), repeat=3)
    )
    assert any(matches)  # eta amplifies the rounding of logarithms
