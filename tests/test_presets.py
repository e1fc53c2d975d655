"""Presets: that they are what they say, and fit `evolve` and the configs."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY

import diffevo_jax as de
from diffevo_jax.checks import InputError
from diffevo_jax.runs.config import yaml as yaml_loader
from diffevo_jax.runs.config.experiment import load, read
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.run import engine as run

KEY = jax.random.key(3)
SMALL = {"population_size": 16, "num_levels": 4, "hidden": (2,), "latent_dim": 1}
PRESET = REPOSITORY / "configs" / "control_preset.yaml"


def test_control_evolves_and_an_individual_is_re_evaluated_from_fresh_starts():
    task = de.tasks.make_task("CartPole-v1", max_steps=30)
    control = de.presets.control(KEY, task, success=20, **SMALL)
    assert control.population.shape == (16, control.policy.num_genes)
    problem, population = control.problem, control.population

    @jax.jit
    def evolve(key):
        evolved = de.evolve(
            *(key, control.algorithm, problem, population), keep=lambda info, aux: (info, aux)
        )
        return evolved.kept, de.reevaluate(key, problem, population[0], num_episodes=7)

    (info, aux), returns = evolve(KEY)
    # Within the noise of a clean end, 3e-5.
    np.testing.assert_allclose(info.population[-1], info.x0[-2], atol=1e-3)
    assert aux["success"].shape == aux["returns"].shape == (4, 16)
    alone = de.tasks.make_returns(task, control.policy)
    expected = jax.jit(alone)(KEY, jnp.tile(population[0], (7, 1)))[:, 0]
    np.testing.assert_array_equal(returns, expected)
    assert len(set(np.asarray(returns).tolist())) > 1  # starts of their own


def test_control_takes_another_network():
    task = de.tasks.make_task("CartPole-v1", max_steps=30)
    policy = de.policies.gru(task.num_inputs, task.num_outputs, hidden=3)
    control = de.presets.control(KEY, task, policy=policy, population_size=16, num_levels=4)
    assert control.population.shape == (16, policy.num_genes)
    fitness, _ = control.problem.fitness_fn(KEY, control.population)
    assert fitness.shape == (16,)
    returns = de.reevaluate(KEY, control.problem, control.population[0], num_episodes=3)
    assert returns.shape == (3,)
    still = de.Problem(2, de.landscapes.two_peaks)
    with pytest.raises(InputError) as error:
        de.reevaluate(KEY, still, jnp.zeros(2))
    assert error.value.path == "problem"


def test_an_environments_name_is_a_task_of_500_steps_at_most():
    control = de.presets.control(KEY, "MountainCarContinuous-v0", **SMALL)
    returns = de.reevaluate(KEY, control.problem, jnp.zeros(control.policy.num_genes))
    assert returns.shape == (100,)
    with pytest.raises(InputError) as error:
        de.presets.control(KEY, "CartPole")
    assert (error.value.path, error.value.seen) == ("environment", "'CartPole'")


def test_the_config_has_the_presets_settings():
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(de.presets.control).parameters.items()
    }
    points = load(PRESET).points
    assert len(points) == 5
    for point in points:
        method = point.config.methods["preset"]
        problem, algorithm = method.problem, method.algorithm
        assert method.population_size == defaults["population_size"]
        assert tuple(problem.policy.hidden) == defaults["hidden"]
        assert (problem.max_steps, problem.num_episodes) == (500, 1)
        assert problem.scale == defaults["scale"]
        assert problem.shared_starts == defaults["shared_starts"]
        assert algorithm.schedule.num_levels == defaults["num_levels"]
        assert algorithm.schedule.clean
        assert algorithm.fitness_map.name == "standardised"
        assert algorithm.fitness_map.temperature == defaults["temperature"]
        assert algorithm.denoiser.name == "broadened"
        assert algorithm.denoiser.share == 0.3
        assert algorithm.denoiser.kernel.latent_dim == defaults["latent_dim"]
        assert (algorithm.sampler.name, algorithm.sampler.eta) == ("ddim", 1.0)


def test_a_run_keeps_the_returns_in_the_place_of_relative_fitness(tmp_path):
    """Returns of cart-pole are whole numbers of steps; relative ones need not be among them."""
    settings = (
        *("population_size=16", "problem.max_steps=10", "repeats=1", "methods.preset.label=p"),
        *("algorithm.schedule.num_levels=3", "problem.success=10"),
    )
    data = read(PRESET)
    path = tmp_path / "run.yaml"
    path.write_text(yaml_loader.dump({k: v for k, v in data.items() if k != "sweep"}))
    config = load(path, list(settings)).config
    run.run(config, run.build(config), results.create(tmp_path / "out", config.name))
    saved = np.load(tmp_path / "out" / "preset.npz")
    assert saved["fitness"].min() >= 1
    assert saved["fitness"].max() <= 10
    np.testing.assert_array_equal(saved["fitness"], np.round(saved["fitness"]))
    np.testing.assert_allclose(saved["success_rate"], (saved["fitness"] >= 10).mean(2), rtol=1e-6)
