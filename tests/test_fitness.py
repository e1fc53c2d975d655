"""Fitness maps: values, laws, gradients and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de

FITNESS = jnp.array([0.0, 0.5, 2.0, 3.0])
# Maps that compare individuals, of a setting that may be traced.
COMPARING = [de.fitness.standardised, de.fitness.rank]
KEY = jax.random.key(2)


def _weigh(fitness_map, fitness):
    """Log weights of those whose fitness is a number."""
    return fitness_map(fitness, jnp.isfinite(fitness))


def test_identity_weighs_by_the_fitness():
    np.testing.assert_allclose(jnp.exp(_weigh(de.fitness.identity, FITNESS)), FITNESS, rtol=1e-6)


def test_power_weighs_by_a_power_that_the_temperature_tempers():
    weight = jnp.exp(_weigh(de.fitness.power(3.0, temperature=2.0), FITNESS))
    np.testing.assert_allclose(weight, FITNESS**1.5, rtol=1e-6)


def test_boltzmann_weighs_by_the_exponential_with_the_best_at_one():
    log_weight = _weigh(de.fitness.boltzmann(0.5), FITNESS)
    np.testing.assert_allclose(log_weight, (FITNESS - 3) / 0.5, rtol=1e-6)
    moved = _weigh(de.fitness.boltzmann(0.5), FITNESS - 100)
    np.testing.assert_allclose(moved, log_weight, atol=1e-4)  # float32's digits at 100


def test_the_default_temperature_is_one():
    np.testing.assert_allclose(_weigh(de.fitness.boltzmann(), FITNESS), FITNESS - 3, rtol=1e-6)
    np.testing.assert_allclose(
        jnp.exp(_weigh(de.fitness.power(2.0), FITNESS)), FITNESS**2, rtol=1e-6
    )


def test_boltzmanns_best_is_the_best_finite_one():
    log_weight = _weigh(de.fitness.boltzmann(2.0), jnp.array([1.0, jnp.inf, 3.0, jnp.nan]))
    np.testing.assert_allclose(log_weight[jnp.array([0, 2])], [-1, 0], rtol=1e-6)


def test_a_negative_fitness_has_no_weight_under_identity_and_power():
    for fitness_map in (de.fitness.identity, de.fitness.power(2.0)):
        assert bool(jnp.isnan(_weigh(fitness_map, jnp.array([-1.0]))[0]))


def test_robust_standardised_does_not_see_one_stray_individual():
    close = jnp.array([3.0, 2.9, 2.8, 2.6, 2.5])
    for stray in (-10.0, -1e6):
        log_weight = _weigh(de.fitness.standardised(0.5, robust=True), jnp.append(close, stray))
        # The median of .0, .1, .2, .4, .5 and the stray one's is .3.
        np.testing.assert_allclose(log_weight[:5], (close - 3) / (0.5 * 1.5 * 0.3), rtol=1e-4)
    even = jnp.array([3.0, 2.0, 1.0, 0.0])  # deviation 1.1, 1.5 medians 2.25
    np.testing.assert_array_equal(
        _weigh(de.fitness.standardised(0.5, robust=True), even),
        _weigh(de.fitness.standardised(0.5), even),
    )
    same = _weigh(de.fitness.standardised(0.5, robust=True), jnp.array([1.0, 1.0, 1.0, 0.0]))
    assert np.all(np.isfinite(same))


def test_standardised_weighs_by_standard_deviations_below_the_best():
    log_weight = _weigh(de.fitness.standardised(0.5), FITNESS)
    np.testing.assert_allclose(log_weight, (FITNESS - 3) / (0.5 * np.std(FITNESS)), rtol=1e-5)
    assert _weigh(de.fitness.standardised(), FITNESS) == pytest.approx(
        np.asarray(5 * log_weight), rel=1e-5
    )


def test_rank_weighs_by_the_order_and_ties_share_their_mean_rank():
    np.testing.assert_allclose(_weigh(de.fitness.rank(3.0), FITNESS[::-1]), [3, 2, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(_weigh(de.fitness.rank(3.0), FITNESS**3), [0, 1, 2, 3], rtol=1e-6)
    tied = _weigh(de.fitness.rank(4.0), jnp.array([7.0, 2.0, 7.0, -1.0, 7.0]))
    np.testing.assert_allclose(tied, [3, 1, 3, 0, 3], rtol=1e-6)


@pytest.mark.parametrize("make", COMPARING)
def test_neither_unit_nor_offset_of_fitness_matters(make):
    fitness = jax.random.normal(jax.random.key(0), (50,))
    expected = _weigh(make(2.0), fitness)
    for unit in (1e-30, 1e-6, 1e6, 1e30):
        np.testing.assert_allclose(
            _weigh(make(2.0), unit * fitness), expected, rtol=1e-5, atol=1e-5
        )
    moved = _weigh(make(2.0), jnp.round(1024 * fitness) / 1024 + 1e4)  # exact in float32
    np.testing.assert_allclose(
        moved, _weigh(make(2.0), jnp.round(1024 * fitness)), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("make", COMPARING)
@pytest.mark.parametrize("value", [-3e38, 0.0, 1e-30, 1e4])
def test_equals_and_a_single_one_weigh_the_same(make, value):
    log_weight = _weigh(make(2.0), jnp.full(5, value))
    np.testing.assert_array_equal(log_weight, jnp.full(5, log_weight[0]))
    assert np.isfinite(float(log_weight[0]))
    alone = _weigh(make(2.0), jnp.array([jnp.nan, value]))
    assert np.isnan(alone).tolist() == [True, False]


def test_the_widest_gap_of_floats_keeps_its_shape():
    for make in COMPARING:
        log_weight = _weigh(make(1.0), jnp.array([3e38, -3e38, 0.0]))
        np.testing.assert_allclose(
            log_weight, _weigh(make(1.0), jnp.array([3.0, -3.0, 0.0])), rtol=1e-5
        )


@pytest.mark.parametrize("make", COMPARING)
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_others_without_a_fitness_change_no_weight(make, bad):
    """Here, and in a step, where a number stands in their place."""
    expected = _weigh(make(2.0), FITNESS)
    fitness = np.concatenate([np.full(4, bad, np.float32), FITNESS])
    np.testing.assert_allclose(
        np.asarray(_weigh(make(2.0), jnp.asarray(fitness)))[4:], expected, rtol=1e-6
    )
    population = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    algorithm = de.presets.paper(de.schedules.cosine(3), fitness_map=make(2.0))
    step = jax.jit(algorithm.step)  # bad genes are refused where they are known
    state = algorithm.init(KEY, jnp.asarray(population))
    log_weight = np.asarray(step(KEY, state, fitness)[1].log_weight)
    np.testing.assert_allclose(log_weight[4:], expected, rtol=1e-6)
    assert np.all(np.isnan(log_weight[:4]))
    population[:4, 1] = bad
    state = state._replace(population=jnp.asarray(population))
    _, info = step(KEY, state, np.concatenate([9 * FITNESS, FITNESS]))
    np.testing.assert_allclose(np.asarray(info.log_weight)[4:], expected, rtol=1e-6)


@pytest.mark.parametrize("make", COMPARING)
def test_a_batch_of_settings_is_a_loop(make):
    settings, fitness = jnp.array([0.5, 2.0]), jnp.stack([FITNESS, FITNESS**2])
    batch = jax.jit(jax.vmap(lambda setting, fitness: _weigh(make(setting), fitness)))(
        settings, fitness
    )
    loop = [_weigh(make(setting), each) for setting, each in zip(settings, fitness, strict=True)]
    np.testing.assert_allclose(batch, jnp.stack(loop), rtol=1e-5)
    assert float(jax.grad(lambda setting: _weigh(make(setting), FITNESS).sum())(1.0)) != 0


def test_standardised_has_the_gradient_of_its_differences():
    def weight(fitness):
        return jnp.sum(jnp.exp(_weigh(de.fitness.standardised(0.5), fitness)))

    gradient = jax.grad(weight)(FITNESS)
    for i in range(4):
        step = jnp.zeros(4).at[i].set(1e-2)
        slope = (weight(FITNESS + step) - weight(FITNESS - step)) / 2e-2
        assert float(gradient[i]) == pytest.approx(float(slope), abs=2e-3)  # float32's, halved


@pytest.mark.parametrize(
    "fitness_map",
    [
        *(de.fitness.identity, de.fitness.power(2.0), de.fitness.boltzmann(2.0)),
        *(de.fitness.standardised(2.0), de.fitness.rank(2.0)),
    ],
)
def test_gradients_are_finite_even_at_zero(fitness_map):
    gradient = jax.grad(lambda fitness: jnp.sum(jnp.exp(_weigh(fitness_map, fitness))))(FITNESS)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("make", COMPARING)
def test_gradients_pass_by_equals_and_by_those_without_a_fitness(make):
    for fitness in (jnp.ones(4), jnp.array([1.0, jnp.nan, 2.0, 1.0])):
        gradient = jax.grad(lambda f: jnp.nansum(jnp.exp(_weigh(make(2.0), f))))(fitness)
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1 + 1j])
def test_temperatures_and_powers_are_above_zero(value, refuses):
    with refuses("temperature"):
        de.fitness.boltzmann(value)
    with refuses("temperature"):
        de.fitness.standardised(value)
    with refuses("sharpness"):
        de.fitness.rank(value)
    with refuses("p"):
        de.fitness.power(value)
    with refuses("temperature"):
        de.fitness.power(1.0, temperature=value)


def test_pointwise_makes_a_map_of_a_function_of_the_fitness_alone(refuses):
    fitness_map = de.fitness.pointwise(lambda fitness: 3 * fitness)
    np.testing.assert_array_equal(fitness_map(FITNESS, FITNESS > 1), 3 * FITNESS)
    with refuses("function"):
        de.fitness.pointwise(3.0)  # pyright: ignore
    with refuses("function"):
        de.fitness.pointwise(lambda fitness, valid: fitness)  # pyright: ignore


def test_a_temperature_of_another_float_is_a_number():
    log_weight = de.fitness.boltzmann(jnp.bfloat16(2))(FITNESS, FITNESS > 0)
    np.testing.assert_array_equal(log_weight, de.fitness.boltzmann(2.0)(FITNESS, FITNESS > 0))


def test_a_map_of_the_fitness_alone_says_how_to_make_one():
    with pytest.raises(de.InputError) as error:
        de.fitness.weigh(lambda fitness: fitness, FITNESS)  # pyright: ignore
    assert error.value.path == "fitness_map"
    assert "pointwise" in error.value.advice
