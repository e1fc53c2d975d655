"""Landscapes: their optima, their box, and (slow) what evolution reaches on them."""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de

landscapes = de.landscapes
REPOSITORY = Path(__file__).resolve().parent.parent

# Optima as the published benchmarks define them: Ackley and Rastrigin are maximised.
OPTIMA = {
    "rosenbrock": [(1, 1)],
    "beale": [(3, 0.5)],
    "himmelblau": [
        (3, 2),
        (-2.805118, 3.131312),
        (-3.779310, -3.283186),
        (3.584428, -1.848126),
    ],
    "ackley": [(3.615, 3.615), (-3.615, 3.615)],
    "rastrigin": [(3.518, 3.518), (-3.518, 3.518)],
    "two_steps": [(1.2, 1.2), (-0.9, -1)],
}
OUTSIDE = {"rosenbrock": 0.706, "beale": 0.0067, "himmelblau": 0.0028, "ackley": 0, "rastrigin": 0}


@pytest.mark.parametrize("name", OPTIMA)
def test_fitness_is_one_at_the_optima_and_less_elsewhere(name):
    optima, points = OPTIMA[name], np.random.default_rng(0).uniform(-4, 4, (10_000, 2))
    fitness = jax.jit(getattr(landscapes, name))(np.concatenate([optima, points]))
    highest, fitness = np.split(np.asarray(fitness), [len(optima)])
    np.testing.assert_allclose(highest, 1, atol=2e-3)
    assert fitness.min() >= 0
    assert fitness.max() <= 1 + 1e-5  # published targets have five to six digits


@pytest.mark.parametrize(("name", "fitness"), OUTSIDE.items())
def test_outside_the_box_the_fitness_is_the_published_constant(name, fitness):
    points = np.array([[4.001, 0.0], [0.0, -5.0], [100.0, 100.0]])
    np.testing.assert_allclose(jax.jit(getattr(landscapes, name))(points), fitness, atol=5e-4)


@pytest.mark.parametrize(
    ("name", "temperature", "fitness"),
    [
        ("rosenbrock", 0.1, 0.031),
        ("rosenbrock", 10.0, 0.966),
    ],
)
def test_the_temperature_flattens_a_landscape(name, temperature, fitness):
    outside = getattr(landscapes, name)(jnp.array([[5.0, 5.0]]), temperature=temperature)
    np.testing.assert_allclose(outside, fitness, atol=5e-4)


@pytest.mark.parametrize("dim", [2, 3, 4, 32, 256])
def test_rastrigin_has_its_optima_in_any_dimension(dim):
    signs = np.random.default_rng(0).choice([-1, 1], size=(5, dim))
    fitness = jax.jit(landscapes.rastrigin)(np.concatenate([3.518 * signs, np.zeros((1, dim))]))
    np.testing.assert_allclose(fitness, [1] * 5 + [0], atol=2e-3)
    assert float(fitness[5]) == pytest.approx(0, abs=1e-6)


def test_two_peaks_has_height_one_at_both_peaks():
    np.testing.assert_allclose(landscapes.two_peaks(jnp.array([[1.0, 1], [-1, -1]])), 1, atol=1e-5)
    np.testing.assert_allclose(landscapes.two_steps(jnp.array([[0.0, 0]])), 1e-9)


def test_plane_functions_refuse_other_dimensions(refuses):
    with refuses("points"):
        landscapes.beale(jnp.ones((5, 3)))


@pytest.mark.parametrize("name", ["rosenbrock", "beale", "himmelblau", "ackley", "rastrigin"])
def test_gradients_are_finite(name):
    points = np.array([[0.0, 0.0], [1.0, 1.0], [5.0, 0.0]])
    gradient = jax.jit(jax.grad(lambda points: getattr(landscapes, name)(points).sum()))(points)
    assert np.all(np.isfinite(gradient))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rosenbrock", "beale", "himmelblau", "ackley", "rastrigin"])
def test_evolution_reaches_the_measured_fitness_of_the_published_code(name):
    """Mean fitness of the top 64 x0 and of the final population, 100 repeats, 3 standard errors."""
    with (REPOSITORY / "experiments" / "data" / "benchmarks.csv").open() as file:
        rows = list(csv.DictReader(file))
    reference = next(
        row
        for row in rows
        if (row["method"], row["objective"], row["variant"]) == ("diffevo", name, "named_dim")
    )

    def fitness_fn(population):
        return getattr(landscapes, name)(4 * population)

    @jax.jit
    def repeat(key):
        key_init, key_run = jax.random.split(key)
        algorithm = de.presets.paper(
            de.schedules.cosine(25), fitness_map=de.fitness.identity, eta=0.1, floor=1e-9
        )
        population = jax.random.normal(key_init, (512, 2))
        state, x0, _ = de.evolve(
            key_run, algorithm, fitness_fn, population, keep=lambda info: info.x0
        )
        top = jnp.sort(fitness_fn(x0[-2]))[-64:]  # the estimates of the last update
        return top.mean(), fitness_fn(state.population).mean()

    ours = np.array([repeat(key) for key in jax.random.split(jax.random.key(0), 100)])
    for column, values in zip(("fitness", "mean_fitness_all"), ours.T, strict=True):
        expected = float(reference[f"{column}_mean"])
        error = np.hypot(
            float(reference[f"{column}_std"]) / int(reference["n_runs"]) ** 0.5,
            values.std(ddof=1) / 100**0.5,
        )
        assert abs(values.mean() - expected) < 3 * error, (column, values.mean(), expected, error)
