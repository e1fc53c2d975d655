"""Baselines of bits: a generation against NumPy, known running times, frequencies, who is kept.

The laws of all baselines are in test_baselines.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de
from diffevo_jax.baselines import bits
from diffevo_jax.landscapes import discrete as landscapes

KEY = jax.random.key(0)
FACTORIES = (bits.umda, bits.pbil, bits.cga, bits.genetic_algorithm, bits.one_plus_lambda)
FREQUENCIES = (bits.umda, bits.pbil, bits.cga)


def first(size, num_genes, key=KEY):
    return jax.random.bernoulli(key, 0.5, (size, num_genes)).astype(float)


def learned(factory, population, fitness, **settings):
    """The frequencies after one generation."""
    size, num_genes = population.shape
    algorithm = factory(population_size=size, num_genes=num_genes, num_generations=2, **settings)
    state = algorithm.init(KEY, population)
    state, _ = jax.jit(algorithm.step)(KEY, state, np.asarray(fitness, np.float32))
    return np.asarray(state.strategy)


def test_frequencies_learn_what_their_papers_say():
    population = first(8, 10)
    x, fitness = np.asarray(population, float), np.array([3.0, 1, 7, 4, 0, 9, 2, 5])
    clip = lambda frequency: np.clip(frequency, 0.1, 0.9)  # noqa: E731
    umda = learned(bits.umda, population, fitness, elite_share=0.25)
    np.testing.assert_allclose(umda, clip((x[2] + x[5]) / 2), rtol=1e-6)
    pbil = learned(bits.pbil, population, fitness, learning_rate=0.3)
    np.testing.assert_allclose(pbil, clip(0.7 * 0.5 + 0.3 * x[5]), rtol=1e-6)
    cga = learned(bits.cga, population[4:6], fitness[4:6], virtual_size=8.0)
    np.testing.assert_allclose(cga, clip(0.5 + (x[5] - x[4]) / 8), rtol=1e-6)


@pytest.mark.parametrize("factory", FREQUENCIES)
def test_frequencies_find_all_ones_and_stay_off_zero_and_one(factory):
    size = 2 if factory is bits.cga else 32
    algorithm = factory(population_size=size, num_genes=20, num_generations=6400 // size)

    def run(key):
        evolved = de.evolve(key, algorithm, landscapes.onemax, first(size, 20, key))
        return evolved.best.fitness, evolved.state.strategy

    best, frequency = jax.jit(jax.vmap(run))(jax.random.split(KEY, 8))
    assert float(best.min()) == 20
    np.testing.assert_allclose(frequency.max(), 19 / 20, rtol=1e-6)  # where they end, and no more
    assert float(frequency.min()) >= 0.05
    ones = jax.random.bernoulli(KEY, frequency[0], (1000, 20)).mean()
    assert float(ones) > 0.85


@pytest.mark.parametrize(
    ("landscape", "num_genes", "expected"),
    [
        # Doerr, Fouz and Witt 2011, but for terms of log n.
        (landscapes.onemax, 32, math.e * 32 * math.log(32) - 1.89 * 32),
        # Böttcher, Doerr and Neumann 2010: ((1 - p)^(1 - n) - (1 - p)) / (2 p^2).
        (landscapes.leading_ones, 16, 128 * ((15 / 16) ** -15 - 15 / 16)),
    ],
)
def test_the_one_plus_one_ea_takes_the_mutations_that_theory_has(landscape, num_genes, expected):
    algorithm = bits.one_plus_lambda(population_size=1, num_genes=num_genes, num_generations=800)

    def run(key):
        fitness = de.evolve(key, algorithm, landscape, first(1, num_genes, key)).kept[:, 0]
        return jnp.argmax(fitness == num_genes)

    taken = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(KEY, 400)), float)
    assert taken.min() > 0
    assert abs(taken.mean() - expected) < 4 * taken.std() / 20 + math.log(num_genes)


def test_an_ea_keeps_the_fittest_of_its_mutants_and_those_as_fit():
    algorithm = bits.one_plus_lambda(population_size=4, num_genes=6, num_generations=9)
    population = first(4, 6)
    state = algorithm.init(KEY, population)
    for fitness, parent in (([1.0, 2, 0, 2], 1), ([0.0, 1, 2, 1], 2), ([1.0, 1, 1, 0], 2)):
        state, _ = algorithm.step(KEY, state, jnp.array(fitness), population)
        np.testing.assert_array_equal(state.strategy.genome, population[parent])
        assert float(state.strategy.fitness) == 2


def test_a_genetic_algorithm_keeps_the_best_of_both_generations():
    algorithm = bits.genetic_algorithm(population_size=6, num_genes=9, num_generations=9)
    one, other = np.asarray(first(6, 9)), np.asarray(first(6, 9, jax.random.key(1)))
    step, fitness = jax.jit(algorithm.step), np.arange(6, dtype=np.float32)
    state, _ = step(KEY, algorithm.init(KEY, jnp.asarray(one)), fitness, one)
    state, _ = step(KEY, state, fitness + np.float32(2.5), other)
    assert state.strategy.fitness.tolist() == [7.5, 6.5, 5.5, 5.0, 4.5, 4.0]
    kept = np.stack([other[5], other[4], other[3], one[5], other[2], one[4]])
    np.testing.assert_array_equal(state.strategy.genomes, kept)
    assert state.population.shape == (6, 9)


def test_children_have_the_sites_of_two_fit_parents_and_one_mutation_on_average():
    algorithm = bits.genetic_algorithm(population_size=1000, num_genes=20, num_generations=9)
    population = np.tile(np.repeat(np.array([[0], [1]], np.float32), 500, axis=0), 20)
    step, state = jax.jit(algorithm.step), algorithm.init(KEY, jnp.asarray(population))
    alike = np.asarray(step(KEY, state, 0 * population[:, 0], 0 * population)[0].population)
    np.testing.assert_allclose(alike.sum(axis=1).mean(), 1, atol=0.13)  # 4 errors
    mixed = np.asarray(step(KEY, state, population[:, 0], population)[0].population)
    # Three of four tournaments have a fit one among two.
    expected = 0.75 * 0.95 + 0.25 * 0.05
    np.testing.assert_allclose(mixed.mean(), expected, atol=0.03)
    of_two = np.mean((mixed.mean(axis=1) > 0.2) & (mixed.mean(axis=1) < 0.8))
    np.testing.assert_allclose(of_two, 2 * 0.75 * 0.25, atol=0.08)


@pytest.mark.parametrize("factory", FACTORIES)
def test_genomes_stay_bits_of_their_own_dtype(factory):
    population = first(8, 12).astype(jnp.uint8)
    algorithm = factory(population_size=8, num_genes=12, num_generations=4)
    evolved = de.evolve(KEY, algorithm, landscapes.onemax, population, keep=lambda info: info)
    assert evolved.state.population.dtype == jnp.uint8
    assert set(np.unique(evolved.kept.population)) == {0, 1}


@pytest.mark.parametrize("factory", FACTORIES)
def test_what_is_no_bit_is_refused(factory, refuses):
    algorithm = factory(population_size=8, num_genes=12, num_generations=4)
    with refuses("population"):
        algorithm.init(KEY, 2 * first(8, 12))
    with refuses("population"):
        algorithm.step(KEY, algorithm.init(KEY, first(8, 12)), jnp.zeros(8), 0.5 * first(8, 12))
