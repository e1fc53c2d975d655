"""Fitness maps: values, laws, gradients and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de

FITNESS = jnp.array([0.0, 0.5, 2.0, 3.0])


def test_identity_weighs_by_the_fitness():
    np.testing.assert_allclose(jnp.exp(de.fitness.identity(FITNESS)), FITNESS, rtol=1e-6)


def test_power_weighs_by_a_power_that_the_temperature_tempers():
    weight = jnp.exp(de.fitness.power(3.0, temperature=2.0)(FITNESS))
    np.testing.assert_allclose(weight, FITNESS**1.5, rtol=1e-6)


def test_boltzmann_weighs_by_the_exponential_with_the_best_at_one():
    log_weight = de.fitness.boltzmann(0.5)(FITNESS)
    np.testing.assert_allclose(log_weight, (FITNESS - 3) / 0.5, rtol=1e-6)
    moved = de.fitness.boltzmann(0.5)(FITNESS - 100)
    np.testing.assert_allclose(moved, log_weight, atol=1e-4)  # float32's digits at 100


def test_the_temperature_is_one_unless_said():
    np.testing.assert_allclose(de.fitness.boltzmann()(FITNESS), FITNESS - 3, rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(de.fitness.power(2.0)(FITNESS)), FITNESS**2, rtol=1e-6)


def test_boltzmanns_best_is_the_best_finite_one():
    log_weight = de.fitness.boltzmann(2.0)(jnp.array([1.0, jnp.inf, 3.0, jnp.nan]))
    np.testing.assert_allclose(log_weight[jnp.array([0, 2])], [-1, 0], rtol=1e-6)


def test_a_negative_fitness_has_no_weight_under_identity_and_power():
    for fitness_map in (de.fitness.identity, de.fitness.power(2.0)):
        assert bool(jnp.isnan(fitness_map(jnp.array([-1.0]))[0]))


@pytest.mark.parametrize(
    "fitness_map", [de.fitness.identity, de.fitness.power(2.0), de.fitness.boltzmann(2.0)]
)
def test_gradients_are_finite_even_at_zero(fitness_map):
    gradient = jax.grad(lambda fitness: jnp.sum(jnp.exp(fitness_map(fitness))))(FITNESS)
    assert bool(jnp.all(jnp.isfinite(gradient)))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_and_powers_are_above_zero(value):
    with pytest.raises(ValueError, match="temperature: expected a finite number above 0; seen"):
        de.fitness.boltzmann(value)
    with pytest.raises(ValueError, match="p: expected a finite number above 0; seen"):
        de.fitness.power(value)
    with pytest.raises(ValueError, match="temperature: expected a finite number above 0; seen"):
        de.fitness.power(1.0, temperature=value)
