"""What all optimisers share, and what `evolve` compiles: once for the same objects."""

import gc
import resource
import weakref
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de
from diffevo_jax import algorithm as module

KEY = jax.random.key(5)
POPULATION = jax.random.normal(jax.random.key(1), (8, 2))
EVOLUTION = de.presets.paper(de.schedules.cosine(3))
REMEMBERS_TEXT = de.Problem(2, lambda memory, x: (memory, x[:, 0]), init=lambda key: "memory")


class State(NamedTuple):
    population: jax.Array
    t: jax.Array
    total: Any


class Info(NamedTuple):
    population: jax.Array
    fitness: jax.Array


def walk(num_generations, *, total=lambda total, fitness: total + fitness.sum(), **settings):
    """A random walk that adds up what it has reached."""

    def init(key, population, t):
        return State(population, t, jax.random.normal(key))

    def step(key, state, fitness, population):
        moved = population + 0.1 * jax.random.normal(key, population.shape)
        return State(moved, state.t, total(state.total, fitness)), Info(population, fitness)

    return de.make_algorithm(init, step, num_generations, **settings)


def height(population):
    return -jnp.sum(population**2, axis=1)


class Counted:
    """A fitness that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, population):
        self.traces += 1
        return height(population)


# make_algorithm


def test_an_algorithm_counts_down_and_a_finished_run_stays_at_what_was_evaluated():
    algorithm = walk(3)
    state = algorithm.init(KEY, POPULATION)
    for t in (2, 1, 0, 0):
        assert int(state.t) == t
        before, clipped = state, jnp.clip(state.population, -1, 1)
        state, info = algorithm.step(KEY, state, height(clipped), clipped)
        np.testing.assert_array_equal(info.population, clipped)
    np.testing.assert_array_equal(state.population, clipped)
    assert float(state.total) == float(before.total)
    assert algorithm.num_generations == 3


def test_a_jitted_step_compiles_once_whatever_init_makes():
    def init(key, population, t):
        return State(population, t, jnp.full((), jnp.inf))  # a weakly typed leaf

    def walk_on(key, state, fitness, population):
        return state._replace(total=fitness.sum()), Info(population, fitness)

    algorithm = de.make_algorithm(init, walk_on, 3)
    step, state = jax.jit(algorithm.step), algorithm.init(KEY, POPULATION)
    for _ in range(2):
        state, _ = step(KEY, state, height(state.population))
    assert cast(Any, step)._cache_size() == 1


def test_one_without_an_end_runs_as_long_as_the_call_says(refuses):
    algorithm = walk(None)
    assert algorithm.num_generations is None
    run = partial(de.evolve, KEY, algorithm, height, POPULATION)
    with refuses("num_generations"):
        run()
    assert run(num_generations=4).kept.shape == (4, 8)
    first = de.evolve(KEY, EVOLUTION, height, POPULATION, num_generations=2)
    assert first.kept.shape == (2, 8)
    assert int(first.state.t) == 0
    with refuses("num_generations"):
        de.evolve(KEY, EVOLUTION, height, POPULATION, num_generations=4)


def test_init_draws_with_a_key_of_the_run_beyond_those_of_its_generations():
    generations = jax.random.key_data(jax.random.split(KEY, 2**12)).tolist()
    key = jax.random.fold_in(KEY, module.INIT)
    assert jax.random.key_data(key).tolist() not in generations
    running = de.begin(KEY, walk(3), POPULATION)
    assert float(running.state.total) == float(jax.random.normal(key))


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("num_generations", lambda: walk(0)),
        ("mesh", lambda: walk(3, mesh=8)),
        ("key", lambda: walk(3).init(jax.random.split(KEY), POPULATION)),
        ("key", lambda: walk(3).init(jax.random.PRNGKey(0, impl="rbg"), POPULATION)),
        ("population", lambda: walk(3).init(KEY, POPULATION[:, :0])),
        ("population", lambda: walk(3).init(KEY, POPULATION.astype(jnp.float8_e4m3fn))),
        ("init", lambda: de.begin(KEY, walk(3), POPULATION, problem=REMEMBERS_TEXT)),
        ("state", lambda: walk(3).step(KEY, (POPULATION, None), jnp.zeros(8))),
        ("state", lambda: EVOLUTION.step(KEY, POPULATION, jnp.zeros(8))),
        ("population", lambda: walk(3).init(KEY, POPULATION[0])),
        ("population", lambda: walk(3, shape=(4, 2)).init(KEY, POPULATION)),
        ("fitness", lambda: _stepped(walk(3), jnp.zeros(7))),
        ("fitness", lambda: _stepped(walk(3), jnp.zeros(8) + 1j)),
        ("fitness", lambda: _stepped(walk(3), None)),
        ("population", lambda: _stepped(walk(3), jnp.zeros(8), POPULATION[:7])),
        ("total", lambda: _stepped(walk(3, total=lambda *_: jnp.zeros(2)), jnp.zeros(8))),
        ("total", lambda: _stepped(walk(3, total=lambda *_: 1), jnp.zeros(8))),
    ],
)
def test_what_does_not_fit_any_algorithm_is_named(path, call, refuses):
    with refuses(path):
        call()


@pytest.mark.parametrize(
    ("path", "settings"),
    [
        ("keep", dict(keep="fitness")),
        ("keep", dict(keep=lambda info, aux: info.fitness)),
        ("keep", dict(keep=lambda info: "fitness")),
        ("keep", dict(keep=lambda info: float(info.fitness[0]))),
        ("repair", dict(repair=(-1, 1))),
        ("repair", dict(repair=lambda key, x: x)),
        ("repair", dict(repair=lambda x: x[:3])),
        ("repair", dict(repair=lambda x: None)),
        ("repair", dict(repair=lambda x: np.asarray(x).clip(-1, 1))),
        ("fitness_fn", dict(problem=lambda x: height(x[x[:, 0] > 0]))),
        ("fitness_fn", dict(problem=lambda x: x[:, 0] * range(8)[x[0, 0].astype(int)])),
    ],
)
def test_functions_that_evolve_cannot_call_or_trace_are_named(path, settings, refuses):
    with refuses(path):
        de.evolve(KEY, EVOLUTION, population=POPULATION, **{"problem": height} | settings)


def _stepped(algorithm, *arguments):
    return algorithm.step(KEY, algorithm.init(KEY, POPULATION), *arguments)


# Problems


def test_a_problem_says_itself_how_its_fitness_is_called(refuses):
    def fitness_fn(key, population):
        return height(population) + jax.random.normal(key), {"norm": -height(population)}

    problem = de.Problem(2, fitness_fn, has_key=True, has_aux=True, repair=jnp.tanh)
    keep = lambda info, aux: (info.population, aux["norm"])  # noqa: E731
    evolved = de.evolve(KEY, EVOLUTION, problem, POPULATION, keep=keep)
    settings: dict[str, Any] = {"has_key": True, "has_aux": True, "repair": jnp.tanh}
    expected = de.evolve(KEY, EVOLUTION, fitness_fn, POPULATION, keep=keep, **settings)
    np.testing.assert_array_equal(evolved.kept[0], expected.kept[0])
    np.testing.assert_array_equal(evolved.kept[1], expected.kept[1])
    for name, value in settings.items():
        with pytest.raises(de.InputError) as error:  # what was seen of `repair` has an address
            de.evolve(KEY, EVOLUTION, problem, POPULATION, **{name: value})
        assert error.value.path == name
    with refuses("population"):
        de.evolve(KEY, EVOLUTION, problem._replace(num_genes=3), POPULATION)


# What is compiled


def test_the_same_objects_are_traced_once_and_others_anew():
    fitness_fn = Counted()
    run = partial(de.evolve, algorithm=EVOLUTION, problem=fitness_fn)
    first = run(KEY, population=POPULATION)
    traces = fitness_fn.traces
    for key in jax.random.split(KEY, 3):
        run(key, population=POPULATION + 0.1)
    assert fitness_fn.traces == traces
    np.testing.assert_array_equal(run(KEY, population=POPULATION).kept, first.kept)
    run(KEY, population=POPULATION[:6])  # another shape
    assert fitness_fn.traces > traces
    traces = fitness_fn.traces
    run(KEY, population=POPULATION, keep=lambda info: info.x0)  # another program
    assert fitness_fn.traces > traces


def test_a_start_and_a_length_are_programs_of_their_own():
    fitness_fn = Counted()
    run = partial(de.evolve, KEY, EVOLUTION, fitness_fn, POPULATION)
    assert [len(run().kept), len(run(start=1).kept), len(run(num_generations=1).kept)] == [3, 2, 1]


def test_nothing_is_stored_inside_a_transformation():
    before = module._compiled_run.cache_info().currsize

    def loss(scale):
        def fitness_fn(population):  # closes over a tracer, of nothing else that is traced
            return -jnp.sum((population - scale) ** 2, axis=1)

        return de.evolve(KEY, EVOLUTION, fitness_fn, POPULATION).kept[-1].mean()

    slope = jax.grad(loss)(0.5)
    assert np.isfinite(float(slope))
    step = 1e-2
    low, high = jax.vmap(loss)(jnp.array([0.5 - step, 0.5 + step]))
    jax.jit(loss)(0.5)
    assert module._compiled_run.cache_info().currsize == before
    numeric = (high - low) / (2 * step)
    assert float(slope) == pytest.approx(float(numeric), rel=0.05)  # float32's, over a step


def test_a_fitness_without_a_hash_evolves_as_well():
    class Unhashable(Counted):
        __hash__ = None  # pyright: ignore

    fitness_fn = Unhashable()
    actual = de.evolve(KEY, EVOLUTION, fitness_fn, POPULATION).kept
    assert fitness_fn.traces
    np.testing.assert_allclose(
        actual, de.evolve(KEY, EVOLUTION, height, POPULATION).kept, rtol=1e-5
    )


def test_the_least_recently_used_program_leaves():
    module._compiled_run.cache_clear()
    fitness_fn = Counted()
    gone = weakref.ref(fitness_fn)
    de.evolve(KEY, EVOLUTION, fitness_fn, POPULATION)
    del fitness_fn
    for _ in range(module.COMPILED):
        module._compiled_run(EVOLUTION, Counted(), Counted(), False, False, None)
    gc.collect()
    assert gone() is None
    module._compiled_run.cache_clear()


@pytest.mark.slow
def test_two_hundred_calls_take_no_more_memory_than_a_few():
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    run = partial(de.evolve, algorithm=EVOLUTION, problem=height, population=POPULATION)
    keys = jax.random.split(KEY, 220)
    for key in keys[:20]:
        run(key)
    before = resident()
    for key in keys[20:]:
        run(key)
    assert resident() - before < 20 * 2**20  # 8 MB a call, where each compiles anew


def test_any_problem_may_remember(refuses):
    """The memory here is the mean of the last generation: fitness relative to it."""

    def fitness(memory, population):
        values = -jnp.sum(population**2, 1)
        return jnp.mean(values), values - memory

    problem = de.Problem(2, fitness, init=lambda key: jnp.zeros(()))
    algorithm = de.diffusion_evolution(3)
    population = jax.random.normal(KEY, (8, 2))
    evolved = de.evolve(KEY, algorithm, problem, population, keep=lambda info: info)
    means = -jnp.mean(jnp.sum(evolved.kept.population**2, 2), 1)
    assert evolved.memory == pytest.approx(float(means[-2]))
    plain = de.Problem(2, lambda x: -jnp.sum(x**2, 1))
    assert de.evolve(KEY, algorithm, plain, population).memory == ()
    runs = jax.vmap(lambda key: de.evolve(key, algorithm, problem, population).memory)
    assert jax.jit(runs)(jax.random.split(KEY, 3)).shape == (3,)

    with refuses("memory"):
        generation = de.make_generation(algorithm, problem)
        generation(de.begin(KEY, algorithm, population), KEY)
    with refuses("memory"):
        wider = problem._replace(fitness_fn=lambda m, x: (jnp.zeros(2), x[:, 0]))
        de.evolve(KEY, algorithm, wider, population)
    with refuses("fitness_fn"):
        de.evolve(KEY, algorithm, plain._replace(init=problem.init), population)
    with refuses("fitness_fn"):
        alone = problem._replace(fitness_fn=lambda m, x: x[:, 0])
        de.evolve(KEY, algorithm, alone, population)
