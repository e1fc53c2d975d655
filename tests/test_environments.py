"""Every environment that Gymnax registers: a generation of evolution, or the reason why not."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.utils import load_mnist

import diffevo_jax as de
from diffevo_jax.environments._gymnax import REFUSED

KEY = jax.random.key(0)
TASKS = [name for name in gymnax.registered_envs if name not in REFUSED]


# One of each kind of observations and actions in every run of the tests; all before a release.
QUICK = (
    *("CartPole-v1", "MountainCarContinuous-v0", "Breakout-MinAtar", "MemoryChain-bsuite"),
    *("DeepSea-bsuite", "FourRooms-misc", "Reacher-misc", "FrozenLake-misc"),
)


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TASKS],
)
def test_every_environment_takes_a_generation(name):
    task = de.tasks.make_task(name, max_steps=3)
    policy = de.policies.mlp((task.num_inputs, 2, task.num_outputs))
    fitness_fn = de.tasks.make_fitness(task, policy, success="goal")
    algorithm = de.presets.paper(de.schedules.cosine(2), fitness_map=de.fitness.boltzmann(1.0))

    @jax.jit
    def generation(key):
        state = algorithm.init(key, jax.random.normal(key, (8, policy.num_genes)))
        fitness, aux = fitness_fn(key, state.population)
        return algorithm.step(key, state, fitness)[0].population, fitness, aux["success"]

    population, fitness, success = generation(KEY)
    assert fitness.shape == success.shape == (8,)
    assert np.isfinite(population).all()
    assert np.isfinite(fitness).all()
    assert np.isin(success, (0, 1)).all()


@pytest.mark.parametrize("name", TASKS)
def test_every_environments_observations_have_the_shape_that_tasks_state(name):
    for observations in ("scaled", "raw"):
        task = de.tasks.make_task(name, observations=observations)

        def observe_twice(key, task=task):
            observation, state = task.reset(key)
            action = task.act(jnp.zeros(task.num_outputs))
            return task.observe(observation), task.observe(task.step(key, state, action)[0])

        for each in jax.eval_shape(observe_twice, KEY):
            assert (each.shape, each.dtype) == (task.input_shape, jnp.float32)


@pytest.mark.parametrize("name", REFUSED)
def test_an_environment_that_cannot_run_is_refused_with_the_reason(monkeypatch, name):
    with pytest.raises(de.InputError) as error:
        de.tasks.make_task(name)
    assert error.value.path == "environment"
    assert (error.value.seen, error.value.advice) == (repr(name), REFUSED[name])

    # Without the table: no network, and none of MNIST's files.
    def unreachable(*_):
        raise OSError("no network")

    monkeypatch.setattr(load_mnist, "_download", unreachable)
    with pytest.raises(OSError, match="no network"):
        gymnax.make(name)
