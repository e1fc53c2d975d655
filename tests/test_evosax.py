"""Our algorithms in evosax's loops: what its own tests expect of a population-based algorithm."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de

pytest.importorskip("evosax")

from evosax.problems import MLP, BBOBProblem, tanh_output_fn

from diffevo_jax.evosax import AsEvosax
from diffevo_jax.evosax import diffusion_evolution as ES

SIZE, DIM, GENERATIONS = 16, 3, 5
KEY_DRAW, KEY_INIT, KEY_RUN = jax.random.split(jax.random.key(0), 3)
POPULATION = 2 * jax.random.normal(KEY_DRAW, (SIZE, DIM)) + 1


def cost(population):
    return 100 + jnp.sum((population - 0.5) ** 2, axis=1)


def run(es, population, cost_fn, key=KEY_RUN, generations=GENERATIONS, freshness=None):
    """evosax's loop, as a scan: (final state, metrics of each generation)."""
    params = (
        es.default_params if freshness is None else es.default_params.replace(freshness=freshness)
    )
    state = es.init(KEY_INIT, population, cost_fn(population), params)

    def step(state, key):
        key_ask, key_tell = jax.random.split(key)
        population, state = es.ask(key_ask, state, params)
        return es.tell(key_tell, population, cost_fn(population), state, params)

    return jax.lax.scan(step, state, jax.random.split(key, generations))


def wrapped():
    """Each kind of algorithm behind evosax's signature."""
    sizes: Any = {"population_size": SIZE, "num_genes": DIM, "num_generations": GENERATIONS + 1}
    return {
        "diffusion": ES(SIZE, POPULATION[0], GENERATIONS),
        "latent": ES(SIZE, POPULATION[0], GENERATIONS, latent_dim=2),
        "map_elites": AsEvosax(SIZE, POPULATION[0], de.baselines.map_elites(**sizes)),
        "cma_es": AsEvosax(SIZE, POPULATION[0], de.baselines.cma_es(**sizes)),
    }


@pytest.mark.parametrize("name", ["diffusion", "latent", "map_elites", "cma_es"])
def test_a_scan_of_ask_and_tell_minimises(name):
    es = wrapped()[name]
    state, metrics = jax.jit(lambda: run(es, POPULATION, cost))()
    assert metrics["best_fitness"].shape == (GENERATIONS,)
    assert np.all(np.diff(metrics["best_fitness"]) <= 0)
    assert metrics["generation_counter"].tolist() == list(range(GENERATIONS))
    assert state.best_fitness < cost(POPULATION).min()
    np.testing.assert_allclose(cost(state.best_solution[None])[0], state.best_fitness, rtol=1e-6)
    assert metrics["best_fitness_in_generation"].min() == state.best_fitness


def test_a_fresh_state_tells_its_best_its_population_and_metrics():
    es = ES(SIZE, jnp.zeros(DIM))
    params = es.default_params
    # As evosax's tests have it, all are equal: there is no deviation to divide by.
    zeros = jnp.zeros((SIZE, DIM))
    state = es.init(KEY_INIT, zeros, zeros[:, 0], params)
    assert es.get_best_solution(state).tolist() == [0, 0, 0]
    assert es.get_population(state).shape == (SIZE, DIM)
    assert np.all(np.isfinite(es.ask(KEY_RUN, state, params)[0]))
    metrics = es.metrics_fn(KEY_RUN, zeros, zeros[:, 0], state, params)
    fields = {"best_fitness", "best_solution"}
    assert fields | {f"{name}_in_generation" for name in fields} <= metrics.keys()


def test_it_is_evolve_with_the_sign_turned():
    es = ES(SIZE, POPULATION[0], GENERATIONS, scale=2.0)
    state = es.init(KEY_INIT, POPULATION, cost(POPULATION), es.default_params)
    evolution = de.diffusion_evolution(GENERATIONS + 1)
    ours = evolution.init(KEY_INIT, POPULATION / 2)
    ours, _ = evolution.step(KEY_INIT, ours, -cost(POPULATION))
    population = POPULATION
    for key in jax.random.split(KEY_RUN, GENERATIONS):
        population, state = es.ask(key, state, es.default_params)
        np.testing.assert_allclose(population, 2 * ours.population, rtol=1e-5, atol=1e-5)
        clipped = jnp.clip(population, -1, 1)  # what was evaluated counts
        state, _ = es.tell(key, clipped, cost(clipped), state, es.default_params)
        ours, _ = evolution.step(key, ours, -cost(clipped), clipped / 2)
    last, _ = es.ask(KEY_RUN, state, es.default_params)  # the levels are over
    np.testing.assert_array_equal(last, population)


def test_units_of_solutions_do_not_matter():
    es = ES(SIZE, POPULATION[0], GENERATIONS)
    _, metrics = run(es, POPULATION, cost)
    _, scaled = run(es, 1000 * POPULATION + 7, lambda x: cost((x - 7) / 1000))
    np.testing.assert_allclose(scaled["best_fitness"], metrics["best_fitness"], rtol=1e-3)


def test_keys_and_numbers_are_mapped():
    es = ES(SIZE, POPULATION[0], GENERATIONS)
    keys, values = jax.random.split(KEY_RUN, 2), jnp.array([0.0, 1.0])

    def best(key, freshness):
        return run(es, POPULATION, cost, key, freshness=freshness)[1]["best_fitness"]

    mapped = jax.jit(jax.vmap(best))(keys, values)
    alone = [jax.jit(best)(*each) for each in zip(keys, values, strict=True)]
    np.testing.assert_allclose(mapped, jnp.stack(alone), rtol=1e-5)


def test_a_failed_evaluation_is_no_best_and_spoils_nothing():
    es = ES(SIZE, POPULATION[0], GENERATIONS)

    def failing(population):
        return cost(population).at[0].set(jnp.nan).at[1].set(jnp.inf)

    state, metrics = run(es, POPULATION, failing)
    assert np.all(np.isfinite(metrics["best_fitness"]))
    assert np.all(np.isfinite(state.inner.population))


def test_a_policys_parameters_are_a_solution():
    network = MLP(layer_sizes=(4, 1), output_fn=tanh_output_fn)
    x = jnp.linspace(-2, 2, 9)[:, None]
    solution = network.init(KEY_INIT, x)
    draw = jax.vmap(lambda key: network.init(key, x))
    population = draw(jax.random.split(KEY_DRAW, SIZE))

    def error(weights):
        outputs: Any = network.apply(weights, x)
        return jnp.mean((outputs - jnp.sin(x)) ** 2)

    errors = jax.vmap(error)

    es = ES(SIZE, solution, GENERATIONS)
    state, _ = jax.jit(lambda: run(es, population, errors))()
    assert jax.tree.structure(es.get_best_solution(state)) == jax.tree.structure(solution)
    assert state.best_fitness < errors(population).min()


def test_evosaxs_bbob_problem_and_notebook_run_with_one_line_changed():
    problem = BBOBProblem(fn_name="sphere", num_dims=2, f_opt=0.0, seed=0)
    es = ES(population_size=64, solution=problem.sample(KEY_INIT), num_generations=10)
    params = es.default_params.replace(freshness=1.0)
    population = jax.vmap(problem.sample)(jax.random.split(KEY_DRAW, 64))
    fitness, problem_state, _ = problem.eval(KEY_DRAW, population, problem.init(KEY_INIT))
    state = es.init(KEY_INIT, population, fitness, params)

    def step(carry, key):
        state, problem_state = carry
        population, state = es.ask(key, state, params)
        population = jnp.clip(population, -5, 5)
        fitness, problem_state, _ = problem.eval(key, population, problem_state)
        state, metrics = es.tell(key, population, fitness, state, params)
        return (state, problem_state), (fitness, metrics["best_fitness"])

    keys = jax.random.split(KEY_RUN, 10)
    _, (means, best) = jax.lax.scan(step, (state, problem_state), keys)
    # Uniform in the box a mean is 20 and the best of 64 about .3.
    assert means[-1].mean() < 0.1 * fitness.mean()
    assert best[-1] < 0.1


def test_what_does_not_fit_is_named(refuses):
    with refuses("population_size"):
        ES(1, jnp.zeros(DIM))
    with refuses("schedule"):
        ES(SIZE, jnp.zeros(DIM), GENERATIONS, schedule=de.schedules.cosine(4))
    with refuses("scale"):
        ES(SIZE, jnp.zeros(DIM), scale=-1)
    es = ES(SIZE, jnp.zeros(DIM))
    with refuses("population, fitness"):
        es.init(KEY_INIT, POPULATION[:3], jnp.zeros(3), es.default_params)
    with refuses("state"):
        es.ask(cast(Any, KEY_INIT), KEY_INIT, es.default_params)
