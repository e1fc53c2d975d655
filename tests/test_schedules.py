"""Schedules: exact 1 - alpha, order, and errors. Their values are in test_golden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de

SCHEDULES = [
    de.schedules.linear,
    de.schedules.cosine,
    de.schedules.ddpm,
    de.schedules.nichol,
]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("num_levels", [2, 10, 1000])
def test_alpha_falls_with_the_level_and_one_minus_alpha_keeps_its_digits(schedule, num_levels):
    alpha, one_minus_alpha = schedule(num_levels)
    assert alpha.shape == one_minus_alpha.shape == (num_levels,)
    assert alpha.dtype == jnp.float32
    assert np.all(np.diff(alpha) < 0)
    with jax.enable_x64(True):
        exact = schedule(num_levels).one_minus_alpha
    np.testing.assert_allclose(one_minus_alpha, exact, rtol=1e-7)  # one rounding to float32


def test_a_schedule_of_your_own_is_taken_in_float64():
    schedule = de.schedules.from_alpha(1 - np.array([1e-9, 0.5]))
    assert float(schedule.one_minus_alpha[0]) == pytest.approx(1e-9, rel=1e-6)


def test_half_precision_is_read_in_float64_too():
    alpha = np.array([0.5, 1e-3], np.float16)
    exact = 1 - alpha.astype(float)
    np.testing.assert_allclose(de.schedules.from_alpha(alpha).one_minus_alpha, exact, rtol=1e-7)


def test_a_traced_alpha_is_taken_as_it_is():
    alpha, one_minus_alpha = jax.jit(de.schedules.from_alpha)(jnp.array([0.75, 0.25]))
    np.testing.assert_array_equal(alpha, [0.75, 0.25])
    np.testing.assert_array_equal(one_minus_alpha, [0.25, 0.75])


def test_neighbours_of_one_float32_alpha_differ_by_one_minus_alpha():
    schedule = de.schedules.Schedule(jnp.array([1, 1, 0.5]), jnp.array([1e-9, 1e-8, 0.5]))
    for levels in (schedule, de.schedules.cosine(3)):
        checked = de.schedules.check_schedule(levels)
        np.testing.assert_array_equal(checked.alpha, levels.alpha)
        np.testing.assert_array_equal(checked.one_minus_alpha, levels.one_minus_alpha)
    traced = jax.jit(de.schedules.check_schedule)(schedule)
    np.testing.assert_array_equal(traced, schedule)


@pytest.mark.parametrize("alpha", [[0.5, 0.5], [0.25, 0.75], [[0.75, 0.5], [0.5, 0.25]], [0.5], []])
def test_what_is_no_schedule_is_refused_as_a_schedule_too(alpha, refuses):
    alpha = jnp.array(alpha)
    with refuses("schedule"):
        de.schedules.check_schedule(de.schedules.Schedule(alpha, 1 - alpha))


def test_what_is_beside_alpha_is_one_minus_alpha(refuses):
    levels = de.schedules.cosine(8)
    with refuses("schedule"):
        de.schedules.check_schedule(de.schedules.Schedule(levels.alpha, levels.alpha[::-1] ** 2))
    with refuses("schedule"):
        de.schedules.check_schedule(de.schedules.Schedule(levels.alpha, None))  # pyright: ignore
    for outside in ([1.5, 0.5], [1.0, 0.5]):
        alpha = np.array(outside)
        with refuses("schedule"):
            de.schedules.check_schedule(de.schedules.Schedule(alpha, 1 - alpha))  # pyright: ignore
    with refuses("schedule"):
        de.schedules.check_schedule(de.schedules.Schedule(levels.alpha[0], levels.alpha[0]))


def test_a_clean_end_has_the_last_generation_at_its_estimates():
    clean, noisy = de.schedules.cosine(8, clean=True), de.schedules.cosine(8)
    np.testing.assert_array_equal(clean.alpha[1:], noisy.alpha[1:])
    assert float(clean.one_minus_alpha[0]) == pytest.approx(1e-9)
    population = jax.random.normal(jax.random.key(0), (16, 2))

    def distance(schedule):
        algorithm, fitness_fn = de.presets.paper(schedule), de.landscapes.two_peaks
        info = de.evolve(
            jax.random.key(1), algorithm, fitness_fn, population, keep=lambda i: i
        ).kept
        return float(jnp.max(jnp.abs(info.population[-1] - info.x0[-2])))

    assert distance(clean) < 1e-3  # noise of 3e-5, times what 32 draws come to
    assert distance(noisy) > 0.01


def test_a_clean_geometric_schedule_drops_at_its_last_level_only():
    clean, noisy = (de.schedules.geometric(8, end=1e-6, clean=each) for each in (True, False))
    np.testing.assert_array_equal(clean.one_minus_alpha[1:], noisy.one_minus_alpha[1:])
    assert float(clean.one_minus_alpha[0]) == pytest.approx(1e-10)
    traced = jax.jit(lambda end: de.schedules.geometric(8, end=end, clean=True))(1e-6)
    np.testing.assert_allclose(traced.one_minus_alpha, clean.one_minus_alpha, rtol=1e-5)


@pytest.mark.parametrize(
    "alpha",
    [
        *([0.1, 0.9], [0.9, 0.5, 0.5], [1.0, 0.5], [0.5, 0.0], [0.5], [[0.9, 0.1]]),
        *([0.9, float("nan")], 0.5, "cosine"),
    ],
    ids=str,
)
def test_what_is_no_schedule_is_refused(alpha, refuses):
    with refuses("schedule"):
        de.schedules.from_alpha(np.array(alpha))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", [np.int16, np.int64, np.asarray])
def test_an_integer_of_any_kind_counts_levels(schedule, kind):
    np.testing.assert_array_equal(schedule(kind(300)).alpha, schedule(300).alpha)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_fewer_than_two_levels_and_more_than_a_million_are_refused(schedule, refuses):
    for wrong in (1, 10.0, 10**9, "5"):
        with refuses("num_levels"):
            schedule(wrong)
