"""BBOB's functions through bbobax: against their definitions, and as problems."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de
from diffevo_jax.landscapes.bbob import make_instance
from diffevo_jax.runs.config.registry import registry

pytest.importorskip("bbobax")


def oscillated(x):
    """T_osz of RR-6829, section 0.2."""
    x_hat = np.log(np.abs(x), where=x != 0, out=np.zeros_like(x))
    c1, c2 = np.where(x > 0, 10, 5.5), np.where(x > 0, 7.9, 3.1)
    return np.sign(x) * np.exp(x_hat + 0.049 * (np.sin(c1 * x_hat) + np.sin(c2 * x_hat)))


def asymmetric(x, beta):
    """T_asy of RR-6829, section 0.2."""
    exponent = 1 + beta * np.linspace(0, 1, len(x)) * np.sqrt(np.maximum(x, 0))
    return np.where(x > 0, np.maximum(x, 0) ** exponent, x)


def sphere(x):
    return np.sum(x**2)


def ellipsoid(x):
    return np.sum(1e6 ** np.linspace(0, 1, len(x)) * oscillated(x) ** 2)


def rastrigin(x):
    z = 10 ** (0.5 * np.linspace(0, 1, len(x))) * asymmetric(oscillated(x), 0.2)
    return 10 * (len(x) - np.sum(np.cos(2 * np.pi * z))) + np.sum(z**2)


def rosenbrock(x):
    z = max(1, np.sqrt(len(x)) / 8) * x + 1
    return np.sum(100 * (z[:-1] ** 2 - z[1:]) ** 2 + (z[:-1] - 1) ** 2)


@pytest.mark.parametrize(
    ("number", "function"), [(1, sphere), (2, ellipsoid), (3, rastrigin), (8, rosenbrock)]
)
def test_separable_functions_are_as_the_report_defines_them(number, function):
    instance = make_instance(number, num_genes=5, instance=3)
    x_opt = np.asarray(instance.x_opt, np.float64)
    points = np.random.default_rng(0).uniform(-5, 5, (20, 5))
    expected = [function(point - x_opt) for point in points]
    actual = jax.vmap(instance.cost_fn)(jnp.asarray(points)) - instance.f_opt
    # cos(2 pi z) at z of 30 and a sum of 1e7, both in float32.
    np.testing.assert_allclose(actual, expected, rtol=2e-5)


def check_optimum(number, dim, seed):
    instance = make_instance(number, num_genes=dim, instance=seed)
    key_box, key_near = jax.random.split(jax.random.key(seed))
    low, high = instance.bounds.T
    box = jax.random.uniform(key_box, (300, dim), minval=low, maxval=high)
    near = instance.x_opt + 1e-2 * jax.random.normal(key_near, (300, dim))
    costs = jax.jit(jax.vmap(instance.cost_fn))(
        jnp.concatenate([instance.x_opt[None], box, near, 3 * box])
    )
    assert np.all(np.isfinite(costs))
    # Constants of Schwefel's and Weierstrass's functions are rounded to float32's seven digits.
    np.testing.assert_allclose(costs[0], instance.f_opt, atol=1e-6)
    assert float(costs.min()) >= float(instance.f_opt) - 1e-6
    assert float(jnp.median(costs)) > float(instance.f_opt)
    assert np.all((low <= instance.x_opt) & (instance.x_opt <= high))


@pytest.mark.parametrize("number", [1, 5, 15])
def test_the_optimum_is_where_an_instance_says(number):
    check_optimum(number, 3, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "dim"), [*itertools.product(range(1, 25), (2, 10, 40))])
def test_the_optimum_of_every_function_is_where_an_instance_says(number, dim):
    for seed in range(3):
        check_optimum(number, dim, seed)


@pytest.mark.parametrize("function", [15, "15", "f15", "rastrigin_rotated"])
def test_a_function_has_a_number_and_a_name(function):
    point = jnp.linspace(-3, 3, 4)
    expected = make_instance(15, num_genes=4, instance=2).cost_fn(point)
    assert make_instance(function, num_genes=4, instance=2).cost_fn(point) == expected
    assert make_instance(function, num_genes=4, instance=3).cost_fn(point) != expected


def test_instances_are_mapped_by_their_number():
    seeds, point = jnp.arange(3), jnp.linspace(-3, 3, 4)

    def cost(seed):
        return make_instance("f10", num_genes=4, instance=seed).cost_fn(point)

    mapped, alone = jax.vmap(cost)(seeds), [cost(seed) for seed in range(3)]
    np.testing.assert_allclose(mapped, alone, rtol=1e-4)  # rotations of float32, conditioned 1e6


def test_what_is_no_function_is_refused(refuses):
    for function, advice in ((25, ""), ("rastrigan", "did you mean 'rastrigin'?")):
        with pytest.raises(de.InputError) as error:
            make_instance(function)
        assert (error.value.path, error.value.seen) == ("function", repr(function))
        assert error.value.expected.startswith("1 to 24 or one of sphere, ")
        assert error.value.advice == advice
    with refuses("num_genes"):
        make_instance("sphere", num_genes=1)


@pytest.mark.slow
def test_minimize_and_search_take_an_instance():
    sphere = make_instance("sphere", num_genes=3, instance=1)
    result = de.optimize.search(jax.random.key(0), sphere.cost_fn, sphere.bounds, evaluations=600)
    np.testing.assert_allclose(result.x, sphere.x_opt, atol=1e-2)
    result = de.minimize(sphere.cost_fn, sphere.bounds, evaluations=600, seed=0)
    np.testing.assert_allclose(result.x, sphere.x_opt, atol=1e-2)


def build(**settings):
    return registry.build("problem", registry.section("problem", settings), "problem")


def test_a_configs_problem_is_the_instance_of_scaled_genomes():
    problem = build(name="bbob", function="f15", num_genes=4, instance=2, scale=2.0, success=-50.0)
    genomes = jax.random.normal(jax.random.key(0), (6, 4))
    fitness, aux = problem.fitness_fn(genomes)
    instance = make_instance(15, num_genes=4, instance=2)
    np.testing.assert_allclose(
        fitness, instance.f_opt - jax.vmap(instance.cost_fn)(2 * genomes), rtol=1e-5
    )
    assert aux["success"].tolist() == (fitness >= -50).tolist()
    assert problem.num_genes == 4
    assert problem.repair is None


def test_a_configs_problem_keeps_to_the_box_where_it_shall():
    problem = build(name="bbob", function=1, num_genes=2, scale=2.0, limit=5.0)
    assert problem.repair is not None
    np.testing.assert_allclose(problem.repair(jnp.array([[9.0, -1.0]])), [[2.5, -1]])


def test_a_config_that_names_no_function_says_where():
    with pytest.raises(de.InputError) as error:
        build(name="bbob", function="f25")
    assert error.value.path == "problem.function"
    assert error.value.seen == "'f25'"
