"""Diffusion Evolution of letters: kernels against Bayes, kin, what is kept, what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de
from diffevo_jax import discrete
from diffevo_jax.landscapes import discrete as landscapes
from diffevo_jax.runs.config import builtin
from diffevo_jax.runs.config.registry import registry

KEY = jax.random.key(0)
BITS = jax.random.randint(KEY, (8, 12), 0, 2)
ALGORITHM = de.discrete_evolution(20)
LOG_POSTERIOR = jax.jit(discrete.log_posterior)


def stays(gamma, letters):
    """q of uniform noise, a matrix of letters by letters."""
    return gamma * np.eye(letters) + (1 - gamma) / letters


@pytest.mark.parametrize("letters", [2, 3])
def test_the_bridge_is_bayes_rule(letters):
    gamma_t, gamma_s = 0.3, 0.7
    first, second, whole = (stays(g, letters) for g in (gamma_s, gamma_t / gamma_s, gamma_t))
    np.testing.assert_allclose(first @ second, whole)
    for x_t, x0 in itertools.product(range(letters), repeat=2):
        expected = [first[x0, s] * second[s, x_t] / whole[x0, x_t] for s in range(letters)]
        got = discrete.bridge(jnp.array(x_t), jnp.array(x0), gamma_t, gamma_s, letters)
        np.testing.assert_allclose(jnp.exp(got), expected, atol=1e-6)


def test_parents_are_bayes_posterior_at_its_own_sample_size():
    """Uniform noise, by a product over sites; fitness is all equal."""
    gamma = 0.4
    x_t = jax.random.randint(jax.random.key(1), (5, 12), 0, 2)
    sites = stays(gamma, 2)[np.asarray(x_t)[:, None], np.asarray(BITS)]
    exact = sites.prod(axis=2)
    exact /= exact.sum(axis=1, keepdims=True)
    distance = discrete.hamming(x_t, BITS, 2)
    for row in range(5):
        size = 1 / (exact[row] ** 2).sum()
        log_w, _ = LOG_POSTERIOR(jnp.zeros(8), distance[row : row + 1], size, 0.25)
        np.testing.assert_allclose(jnp.exp(log_w[0]), exact[row], atol=2e-3)  # the last halving


def test_fitness_weighs_in_standard_deviations_among_those_compared():
    distance = jnp.array([[0.0, 0.0, jnp.inf, 0.0]])
    fitness = jnp.array([1.0, 3.0, 1e6, -jnp.inf])
    log_w, size = LOG_POSTERIOR(fitness, distance, 16.0, 0.5)
    np.testing.assert_allclose(float(log_w[0, 1] - log_w[0, 0]), 2 / 0.5, rtol=1e-5)
    assert jnp.exp(log_w[0, 2:]).max() == 0
    np.testing.assert_allclose(size, 2, rtol=1e-5)


@pytest.mark.parametrize("number", [2.0, 8.0, 30.0])
def test_the_sample_size_is_what_was_asked(number):
    distance = jnp.arange(64.0)[None] * jnp.array([[0.3], [1.0], [4.0]])
    _, size = LOG_POSTERIOR(jnp.zeros(64), distance, number, 0.25)
    np.testing.assert_allclose(size, number, rtol=0.01)


def test_uniform_noise_has_the_marginals_of_its_kernel():
    x0 = jnp.ones((100, 1000), jnp.int32)
    lost = jax.random.bernoulli(KEY, 0.6, x0.shape)
    x_t, known = discrete.uniform().noise(jax.random.key(1), x0, lost, 3)
    shares = [float(jnp.mean(x_t == letter)) for letter in range(3)]
    np.testing.assert_allclose(shares, stays(0.4, 3)[1], atol=0.006)  # 4 standard errors
    assert np.all(known)


def test_the_uniform_kernel_draws_by_its_bridge():
    x_t, parent = jnp.zeros((100, 1000), jnp.int32), jnp.full((100, 1000), 2)
    share = jnp.full((100, 1), 0.5)
    x_s = discrete.uniform().denoise(KEY, x_t, jnp.ones_like(x_t, bool), share, parent, 3)
    expected = jnp.exp(discrete.bridge(jnp.array(0), jnp.array(2), 0.5, 0.75, 3))
    shares = [float(jnp.mean(x_s == letter)) for letter in range(3)]
    np.testing.assert_allclose(shares, expected, atol=0.006)


def test_the_absorbing_kernel_fills_in_what_is_lost_alone():
    lost = jax.random.bernoulli(KEY, 0.5, BITS.shape)
    kernel = discrete.absorbing()
    x_t, known = kernel.noise(KEY, BITS, lost, 2)
    filled = kernel.denoise(KEY, x_t, known, jnp.ones((8, 1)), 1 - BITS, 2)
    np.testing.assert_array_equal(filled, jnp.where(lost, 1 - BITS, BITS))


def test_linked_sites_are_lost_together():
    """The first half of the sites are one letter of each individual, the others are random."""
    keys = jax.random.split(KEY)
    linked = jnp.repeat(jax.random.randint(keys[0], (400, 1), 0, 3), 6, axis=1)
    x0 = jnp.concatenate([linked, jax.random.randint(keys[1], (400, 6), 0, 3)], axis=1)
    lost = jax.jit(discrete._lose, static_argnums=2)(KEY, x0, 3)
    part = lost[~jnp.all(lost, axis=1)]
    of_the_linked = part[jnp.any(part[:, :6], axis=1)]
    assert jnp.mean(jnp.all(of_the_linked[:, :6], axis=1)) > 0.9
    assert jnp.mean(jnp.any(of_the_linked[:, 6:], axis=1)) < 0.3
    assert 0.4 < jnp.mean(jnp.all(lost, axis=1)) < 0.6


def test_only_kin_are_parents_and_oneself_where_there_are_none():
    zeros, ones = jnp.zeros((2, 40), jnp.int32), jnp.ones((1, 40), jnp.int32)
    x0 = jnp.concatenate([zeros, ones])
    seen = jnp.ones_like(x0, bool)
    kin = jax.jit(discrete._kin, static_argnums=3)
    distance = kin(x0, x0, seen, 2)
    np.testing.assert_array_equal(
        jnp.isfinite(distance), [[False, True, False], [True, False, False], [False, False, True]]
    )
    assert np.all(np.isfinite(kin(x0, x0, ~seen, 2)))


def test_several_targets_are_kept():
    places = jnp.stack([jnp.zeros(24), jnp.ones(24)]).astype(jnp.int32)
    population = jax.random.randint(KEY, (32, 24), 0, 2)
    algorithm = de.discrete_evolution(120)
    evolved = de.evolve(KEY, algorithm, landscapes.targets(places), population)
    met = jnp.all(evolved.state.population[:, None] == places, axis=2)
    assert np.all(np.any(met, axis=0))


@pytest.mark.parametrize("forward", [discrete.absorbing(), discrete.uniform()])
def test_categories_are_found(forward):
    goal = jnp.arange(10) % 3

    def fitness_fn(population):
        return jnp.sum(population == goal, axis=1).astype(float)

    population = jax.random.randint(KEY, (8, 10), 0, 3)
    algorithm = de.discrete_evolution(120, letters=3, forward=forward, latent_dim=8)
    evolved = de.evolve(KEY, algorithm, fitness_fn, population)
    assert evolved.best.fitness == 10
    assert evolved.state.population.dtype == population.dtype
    np.testing.assert_array_equal(evolved.best.genome, goal)
    assert int(jnp.sum(evolved.state.compared)) == 8


def test_a_mutation_is_another_letter_in_one_byte_too():
    genomes = jnp.full((50, 20), 199, jnp.uint8)
    mutated = discrete._mutate(KEY, genomes, 200)
    changed = jnp.sum(mutated != genomes, axis=1)
    assert mutated.dtype == jnp.uint8
    assert int(changed.min()) == 1
    assert int(mutated.max()) < 200


def test_a_population_of_one_kind_goes_on_by_mutants_and_ends_clean():
    step = jax.jit(ALGORITHM.step)
    same = jnp.zeros_like(BITS)
    state = ALGORITHM.init(KEY, same)._replace(t=jnp.asarray(2, jnp.int32))
    state, _ = step(KEY, state, jnp.zeros(8))
    assert np.all(np.any(state.population != 0, axis=1))
    state, _ = step(KEY, state, -jnp.ones(8))
    np.testing.assert_array_equal(state.population, state.x0)
    np.testing.assert_array_equal(state.population, same)


def test_seeds_under_vmap_are_runs_of_their_own():
    keys = jax.random.split(KEY, 3)

    def run(key):
        return de.evolve(key, ALGORITHM, landscapes.traps, BITS[:, :10]).state.x0

    together = jax.jit(jax.vmap(run))(keys)
    for key, one in zip(keys, together, strict=True):
        np.testing.assert_array_equal(run(key), one)


def test_a_run_in_pieces_is_the_run_and_a_finished_one_stays():
    algorithm = de.discrete_evolution(6)
    generation = jax.jit(de.make_generation(algorithm, landscapes.leading_ones))
    running = de.begin(KEY, algorithm, BITS)
    for key in jax.random.split(KEY, 6):
        running, _ = generation(running, key)
    whole = de.evolve(KEY, algorithm, landscapes.leading_ones, BITS)
    for one, other in zip(running.state, whole.state, strict=True):
        np.testing.assert_array_equal(one, other)
    after, _ = generation(running, KEY)
    for old, new in zip(running.state, after.state, strict=True):
        np.testing.assert_array_equal(old, new)


def test_no_usable_fitness_is_survived():
    step = jax.jit(ALGORITHM.step)
    state, _ = step(KEY, ALGORITHM.init(KEY, BITS), np.full(8, np.nan, np.float32))
    assert set(np.unique(state.population)) <= {0, 1}
    state, info = step(KEY, state, jnp.arange(8.0).at[3].set(jnp.nan))
    assert np.all(~np.isnan(info.x0_fitness))
    assert info.x0_fitness.max() == 7


def test_landscapes_are_best_where_they_say():
    ones = jnp.ones((1, 20), jnp.int32)
    for landscape in (landscapes.onemax, landscapes.leading_ones, landscapes.traps):
        assert landscape(ones)[0] == 20
    assert landscapes.traps(ones.at[0, 0].set(0))[0] == 15
    assert landscapes.traps(0 * ones)[0] == 16
    assert landscapes.leading_ones(ones.at[0, 3].set(0))[0] == 3
    places = jnp.stack([ones[0], 0 * ones[0]])
    np.testing.assert_allclose(landscapes.targets(places)(ones.at[0, :2].set(0)), 0.9, rtol=1e-6)


def test_instances_agree_with_loops():
    x = np.random.default_rng(0).integers(0, 2, (4, 9))
    nk = jax.jit(lambda x: landscapes.nk(KEY, num_genes=9, neighbours=3)(x))
    others, flipped = np.split(
        np.asarray(nk(np.concatenate([x, np.eye(9, dtype=int) ^ x[:1]]))), [4]
    )
    assert len(set(others)) == 4
    assert (others > 0).all()
    assert (others < 1).all()
    assert (np.abs(flipped - others[0]) > 1e-6).all()  # every gene counts

    # A cut has no sides; of single nodes it has their degrees, which are twice the edges.
    cut = jax.jit(lambda x: landscapes.max_cut(KEY, num_genes=9, density=1.0)(x))
    sides = x.sum(axis=1)
    np.testing.assert_allclose(cut(x), sides * (9 - sides))

    # Of all points, a clause of three variables is true in 7 of 8.
    every = np.array(list(itertools.product([0, 1], repeat=9)))
    sat = np.asarray(jax.jit(lambda x: landscapes.max_sat(KEY, num_genes=9, ratio=2)(x))(every))
    assert np.mean(sat) == 18 * 7 / 8
    assert sat.max() <= 18


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("letters", 1), ("sample_size", 0.5), ("temperature", 0), ("latent_dim", 0)),
        ("forward", "absorbing"),
    ],
)
def test_bad_settings_are_named(setting, value, refuses):
    with refuses(setting):
        de.discrete_evolution(10, **{setting: value})


@pytest.mark.parametrize(
    "population",
    [
        *(BITS.at[0, 0].set(2), BITS.at[0, 0].set(-1), 0.5 * BITS, BITS * jnp.nan, BITS[0]),
        *(BITS[:, :0], [["a", "b"]] * 2, None),
    ],
)
def test_what_is_no_letter_is_refused(population, refuses):
    with refuses("population"):
        ALGORITHM.init(KEY, population)


def test_what_is_no_letter_is_refused_as_evaluated_too(refuses):
    state = ALGORITHM.init(KEY, BITS)
    with refuses("population"):
        ALGORITHM.step(KEY, state, jnp.zeros(8), 0.5 * BITS)


def test_more_sites_than_genes_are_refused(refuses):
    with refuses("latent_dim"):
        de.discrete_evolution(10, latent_dim=13).init(KEY, BITS)


def test_traps_that_do_not_fit_and_too_many_neighbours_are_refused(refuses):
    with refuses("x"):
        landscapes.traps(BITS)
    with refuses("neighbours"):
        landscapes.nk(KEY, num_genes=4, neighbours=4)


def test_a_config_begins_with_quantiles_of_its_genomes():
    assert ("algorithm", "discrete_evolution") in registry.entries
    assert ("problem", "bits") in registry.entries
    algorithm = builtin.discrete_evolution(num_levels=5, letters=3)
    population = algorithm.init(KEY, jax.random.normal(KEY, (8, 1000))).population
    shares = [float(jnp.mean(population == letter)) for letter in range(3)]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.02)  # 4 standard errors
