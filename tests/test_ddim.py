"""The DDIM step: its two ends and its noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de

KEY = jax.random.key(0)


def test_sigma_is_ddims_equation_16():
    sigma = de.ddim_sigma(0.3, 0.6, eta=0.7)
    assert float(sigma) == pytest.approx(0.7 * np.sqrt(0.4 / 0.7 * (1 - 0.3 / 0.6)), rel=1e-6)


def test_the_step_keeps_the_marginal_distribution():
    """For data at one point x0, x_t ~ N(sqrt(a) x0, 1 - a) must stay so at every eta (DDIM)."""
    n, x0 = 40_000, 2.0
    key_x, key_step = jax.random.split(KEY)
    x_t = np.sqrt(0.3) * x0 + np.sqrt(0.7) * jax.random.normal(key_x, (n, 1))
    for eta in (0.0, 0.5, 1.0):
        x_prev = de.ddim_step(
            key_step, x_t, jnp.full((n, 1), x0), alpha_t=0.3, alpha_prev=0.6, eta=eta
        )
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
        assert bool(jnp.array_equal(steps[0], steps[1])) == same


@pytest.mark.parametrize("schedule", [de.schedules.linear, de.schedules.cosine, de.schedules.ddpm])
def test_no_level_of_any_schedule_gives_nan_in_float32(schedule):
    alpha, one_minus_alpha = schedule(1000)
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

    for eta in (0.0, 1.0):
        value, slope = jax.vmap(jax.value_and_grad(norm), (None, 0))(eta, jnp.arange(1, 1000))
        assert bool(jnp.all(jnp.isfinite(value)))
        assert bool(jnp.all(jnp.isfinite(slope)))


def test_sigma_keeps_its_digits_at_both_ends_of_the_schedule():
    for alpha_t, alpha_prev in ((1e-9, 1e-8), (1e-8, 1e-7), (0.3, 0.6), (1 - 1e-6, 1 - 1e-7)):
        level = [jnp.float32(value) for value in (alpha_t, alpha_prev, 1 - alpha_t, 1 - alpha_prev)]
        sigma = de.ddim_sigma(
            level[0], level[1], eta=1.0, one_minus_alpha_t=level[2], one_minus_alpha_prev=level[3]
        )
        exact = np.sqrt((1 - alpha_prev) / (1 - alpha_t) * (alpha_prev - alpha_t) / alpha_prev)
        assert float(sigma) == pytest.approx(exact, rel=1e-5)
