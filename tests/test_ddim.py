"""The DDIM step: its two ends and its noise."""

import importlib
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de

KEY = jax.random.key(0)


@pytest.mark.parametrize(("alpha_t", "alpha_prev"), [(0.3, 0.6), (0.5, 0.9), (0.6, 0.8)])
def test_sigma_is_ddims_equation_16(alpha_t, alpha_prev):
    expected = 0.7 * np.sqrt((1 - alpha_prev) / (1 - alpha_t) * (1 - alpha_t / alpha_prev))
    sigma = de.ddim_sigma(alpha_t, alpha_prev, eta=0.7)
    assert float(sigma) == pytest.approx(expected, rel=1e-6)  # a few roundings to float32


# Alpha before and after: both ends of a schedule, where 1 - alpha or alpha has lost its digits.
@pytest.mark.parametrize("levels", [(1e-8, 1e-7), (0.3, 0.6), (0.7, 0.9), (1 - 1.3e-6, 1 - 1.2e-6)])
def test_the_step_is_the_formula_in_float64(levels):
    x_t, x0 = jax.random.normal(KEY, (2, 5, 3))
    noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(jax.random.split(KEY, 5))
    a, b = np.array(levels)
    rounded: dict[str, Any] = dict(
        one_minus_alpha_t=np.float32(1 - a), one_minus_alpha_prev=np.float32(1 - b)
    )
    for exact in ({}, rounded) if a == 0.3 else (rounded,):
        for eta in (0.0, 0.5, 1.0):
            x_prev = de.ddim_step(
                KEY, x_t, x0, alpha_t=np.float32(a), alpha_prev=np.float32(b), eta=eta, **exact
            )
            sigma = eta * np.sqrt((1 - b) / (1 - a) * (1 - a / b))
            eps = (np.asarray(x_t, float) - np.sqrt(a) * x0) / np.sqrt(1 - a)
            direction = np.sqrt(max(1 - b - sigma**2, 0)) * eps
            expected = np.sqrt(b) * np.asarray(x0, float) + direction + sigma * noise
            # x_t - sqrt(alpha_t) x0 cancels: float32's digits of genomes of size 1.
            np.testing.assert_allclose(x_prev, expected, atol=2e-6)


def test_the_mean_and_sigma_of_a_move_are_those_of_what_it_drew():
    x_t, x0 = jax.random.normal(KEY, (2, 5, 3))
    t, *alphas = map(jnp.asarray, (1, 0.3, 0.7, 0.6, 0.4))
    level = de.Level(t, alphas[0], alphas[1], alphas[2], alphas[3])
    sampler = de.samplers.ddim(0.8)
    memory, move = sampler.move(KEY, sampler.init(KEY, x_t), x_t, x0, level)
    assert memory == ()
    settings: dict[str, Any] = dict(alpha_t=0.3, alpha_prev=0.6, eta=0.8)
    np.testing.assert_allclose(move.mean, de.ddim_mean(x_t, x0, **settings), rtol=1e-5)
    np.testing.assert_allclose(move.population, de.ddim_step(KEY, x_t, x0, **settings), rtol=1e-5)
    noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(jax.random.split(KEY, 5))
    # The difference cancels: float32's digits of genomes of size 1.
    np.testing.assert_allclose(move.population - move.mean, move.sigma * noise, atol=1e-6)
    np.testing.assert_array_equal(
        de.ddim_mean(x_t, x0, **{**settings, "eta": 0.0}),
        de.ddim_step(KEY, x_t, x0, **{**settings, "eta": 0.0}),
    )


@pytest.mark.parametrize("freshness", [0.0, 0.3, 1.0])
def test_freshness_is_the_formula_in_float64_and_keeps_the_variance(freshness):
    x_t, x0 = jax.random.normal(KEY, (2, 5, 3))
    a, b = 0.3, 0.6
    noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(jax.random.split(KEY, 5))
    ddpm = (1 - b) / (1 - a) * (1 - a / b)
    variance = (1 - freshness) * ddpm + freshness * (1 - b)
    eps = (np.asarray(x_t, float) - np.sqrt(a) * x0) / np.sqrt(1 - a)
    mean = np.sqrt(b) * np.asarray(x0, float) + np.sqrt(1 - b - variance) * eps
    for number in (freshness, jnp.asarray(freshness)):  # a number of Python's leaves terms out
        settings: dict[str, Any] = dict(alpha_t=a, alpha_prev=b, eta=1.0, freshness=number)
        np.testing.assert_allclose(de.ddim_mean(x_t, x0, **settings), mean, atol=2e-6)
        x_prev = de.ddim_step(KEY, x_t, x0, **settings)
        np.testing.assert_allclose(x_prev, mean + np.sqrt(variance) * noise, atol=2e-6)
        sigma = de.ddim_sigma(a, b, eta=1.0, freshness=number)
        assert float(sigma) == pytest.approx(np.sqrt(variance), rel=1e-6)


def test_wholly_fresh_noise_forgets_where_an_individual_was():
    x_t, x0 = jax.random.normal(KEY, (2, 5, 3))
    settings: dict[str, Any] = dict(alpha_t=0.3, alpha_prev=0.6, eta=1.0, freshness=1.0)
    np.testing.assert_array_equal(
        de.ddim_step(KEY, x_t, x0, **settings), de.ddim_step(KEY, 0 * x_t, x0, **settings)
    )


@pytest.mark.parametrize("freshness", [0.0, 0.4, 1.0])
def test_a_centred_step_moves_with_its_population(freshness):
    """And without it the origin is 0, towards which the noise draws."""
    x_t, x0 = jax.random.normal(KEY, (2, 5, 3))
    level = de.Level(*map(jnp.asarray, (1, 0.3, 0.7, 0.6, 0.4)))

    def moved(shift, centred):
        sampler = de.samplers.ddim(freshness=freshness, centred=centred)
        return sampler.move(KEY, (), x_t + shift, x0 + shift, level)[1].population

    # Sums of numbers of size 5 in float32.
    np.testing.assert_allclose(moved(5.0, True), moved(0.0, True) + 5, atol=5e-6)
    at_zero = x0 - x0.mean(0)
    aside = x_t - x0.mean(0)
    plain = de.samplers.ddim(freshness=freshness).move(KEY, (), aside, at_zero, level)[1]
    np.testing.assert_allclose(moved(0.0, True), plain.population + x0.mean(0), atol=5e-6)
    assert not np.allclose(moved(5.0, False), moved(0.0, False) + 5, atol=0.1)


@pytest.mark.parametrize("size", [6, 7])
def test_mirrored_noise_has_opposite_signs_in_the_two_halves(size):
    """Drawn from the keys of the first half; the last of an odd number is alone."""
    x_t, x0 = jax.random.normal(KEY, (2, size, 3))
    level = de.Level(*map(jnp.asarray, (1, 0.3, 0.7, 0.6, 0.4)))

    def noise(mirrored):
        sampler = de.samplers.ddim(freshness=1.0, mirrored=mirrored)
        moved = sampler.move(KEY, (), x_t, x0, level)[1]
        return moved.population - moved.mean

    plain, mirrored = noise(False), noise(True)
    half = size // 2
    np.testing.assert_allclose(mirrored[:half], plain[:half], atol=1e-6)  # float32
    np.testing.assert_allclose(mirrored[half : 2 * half], -plain[:half], atol=1e-6)
    np.testing.assert_allclose(mirrored[2 * half :], plain[2 * half :], atol=1e-6)
    assert np.abs(plain[half:] + plain[: size - half]).min() > 1e-3


def test_noise_is_fresh_below_a_level_only():
    x_t, x0 = jax.random.normal(KEY, (2, 5, 3))
    level = de.Level(*map(jnp.asarray, (1, 0.3, 0.7, 0.6, 0.4)))

    def moved(**settings):
        return de.samplers.ddim(**settings).move(KEY, (), x_t, x0, level)[1]

    above, below = moved(freshness=1.0, fresh_below=0.3), moved(freshness=1.0, fresh_below=0.5)
    np.testing.assert_allclose(above.population, moved().population, rtol=1e-6)
    np.testing.assert_allclose(below.population, moved(freshness=1.0).population, rtol=1e-6)


def test_a_large_population_moves_in_blocks_as_it_does_at_once(monkeypatch):
    def step(key, x_t):
        return de.ddim_step(key, x_t, 0.5 * x_t, alpha_t=0.3, alpha_prev=0.6, eta=1.0)

    x_t = jax.random.normal(KEY, (7, 3))
    at_once = step(KEY, x_t)
    module = importlib.import_module("diffevo_jax.samplers._ddim")
    monkeypatch.setattr(module, "CPU_BLOCK", 8)
    np.testing.assert_allclose(step(KEY, x_t), at_once, rtol=1e-6)  # the same sums
    jax.export.export(jax.jit(step), platforms=["cuda"])(KEY, x_t)


def test_noise_has_the_genomes_own_type():
    x_t = jnp.ones((4, 2), jnp.bfloat16)
    x_prev = de.ddim_step(KEY, x_t, 0 * x_t, alpha_t=0.3, alpha_prev=0.6, eta=1.0)
    assert x_prev.dtype == jnp.bfloat16


def test_the_step_keeps_the_marginal_distribution():
    """For data at one point x0, x_t ~ N(sqrt(a) x0, 1 - a) must stay so at every eta (DDIM)."""
    n, x0 = 40_000, 2.0
    key_x, key_step = jax.random.split(KEY)
    x_t = np.sqrt(0.3) * x0 + np.sqrt(0.7) * jax.random.normal(key_x, (n, 1))
    for eta, freshness in ((0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (1.0, 0.5), (1.0, 1.0)):
        settings: dict[str, Any] = dict(alpha_t=0.3, alpha_prev=0.6, eta=eta, freshness=freshness)
        x_prev = de.ddim_step(key_step, x_t, jnp.full((n, 1), x0), **settings)
        # Standard errors: mean sqrt(0.4 / n) = 0.003, variance 0.4 sqrt(2 / n) = 0.003.
        assert float(x_prev.mean()) == pytest.approx(np.sqrt(0.6) * x0, abs=0.015)
        assert float(x_prev.var()) == pytest.approx(0.4, abs=0.015)


def test_eta_zero_is_deterministic_and_eta_one_is_not():
    x_t, x0 = jnp.ones((4, 2)), jnp.zeros((4, 2))
    for eta, same in ((0.0, True), (jnp.asarray(0.0), True), (1.0, False)):
        steps = [
            de.ddim_step(key, x_t, x0, alpha_t=0.3, alpha_prev=0.6, eta=eta)
            for key in jax.random.split(KEY)
        ]
        assert bool(np.array_equal(steps[0], steps[1])) == same


@jax.jit
def _norms_and_slopes(eta, alpha, one_minus_alpha):
    """Of a step from each level, and by eta."""
    x_t = jax.random.normal(KEY, (5, 2))

    def norm(eta, t):
        x_prev = de.ddim_step(
            KEY,
            x_t,
            0.5 * x_t,
            alpha_t=alpha[t],
            alpha_prev=alpha[t - 1],
            eta=eta,
            one_minus_alpha_t=one_minus_alpha[t],
            one_minus_alpha_prev=one_minus_alpha[t - 1],
        )
        return jnp.sum(x_prev**2)

    return jax.vmap(jax.value_and_grad(norm), (None, 0))(eta, jnp.arange(1, len(alpha)))


@pytest.mark.parametrize("schedule", [de.schedules.linear, de.schedules.cosine, de.schedules.ddpm])
def test_no_level_of_any_schedule_gives_nan_in_float32(schedule):
    for eta in (0.0, 1.0):
        value, slope = _norms_and_slopes(eta, *schedule(1000))
        assert value.shape == slope.shape == (999,)
        assert np.all(np.isfinite(value))
        assert np.all(np.isfinite(slope))


def test_sigma_keeps_its_digits_at_both_ends_of_the_schedule():
    for alpha_t, alpha_prev in ((1e-9, 1e-8), (1e-8, 1e-7), (0.3, 0.6), (1 - 1e-6, 1 - 1e-7)):
        level = [jnp.float32(value) for value in (alpha_t, alpha_prev, 1 - alpha_t, 1 - alpha_prev)]
        sigma = de.ddim_sigma(
            level[0], level[1], eta=1.0, one_minus_alpha_t=level[2], one_minus_alpha_prev=level[3]
        )
        exact = np.sqrt((1 - alpha_prev) / (1 - alpha_t) * (alpha_prev - alpha_t) / alpha_prev)
        assert float(sigma) == pytest.approx(exact, rel=1e-5)
