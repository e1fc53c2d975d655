"""Schedules: exact 1 - alpha, order, and errors. Their values are in test_golden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de

SCHEDULES = [de.schedules.linear, de.schedules.cosine, de.schedules.ddpm]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("num_levels", [2, 10, 1000])
def test_alpha_falls_with_the_level_and_one_minus_alpha_keeps_its_digits(schedule, num_levels):
    alpha, one_minus_alpha = schedule(num_levels)
    assert alpha.shape == one_minus_alpha.shape == (num_levels,)
    assert alpha.dtype == jnp.float32
    assert bool(jnp.all(jnp.diff(alpha) < 0))
    with jax.enable_x64(True):
        exact = schedule(num_levels).one_minus_alpha
    np.testing.assert_allclose(one_minus_alpha, exact, rtol=1e-7)  # one rounding to float32


def test_a_schedule_of_your_own_is_taken_in_float64():
    schedule = de.schedules.from_alpha(1 - np.array([1e-9, 0.5]))
    assert float(schedule.one_minus_alpha[0]) == pytest.approx(1e-9, rel=1e-6)


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        ([0.1, 0.9], r"strictly decreasing.*alpha\[0\] = 0.1, alpha\[1\] = 0.9"),
        ([0.9, 0.9], "strictly decreasing"),
        ([1.0, 0.5], "0 < alpha < 1; seen values from 0.5 to 1"),
        ([0.5], r"T >= 2; seen shape \(1,\)"),
        ([[0.9, 0.1]], r"seen shape \(1, 2\)"),
        ([0.9, float("nan")], "0 < alpha < 1"),
    ],
)
def test_what_is_no_schedule_is_refused(alpha, message):
    with pytest.raises(ValueError, match=message):
        de.schedules.from_alpha(np.array(alpha))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_fewer_than_two_levels_are_refused(schedule):
    with pytest.raises(ValueError, match="num_levels: expected an integer of at least 2; seen 1"):
        schedule(1)
