"""Presets: that they are what they say, and fit `evolve` and the configs."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY

import diffevo_jax as de
from diffevo_jax.checks import InputError
from diffevo_jax.diffusion import final_noise, gentle_temperature
from diffevo_jax.runs.config import yaml as yaml_loader
from diffevo_jax.runs.config.experiment import load, read
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.run import engine as run

KEY = jax.random.key(3)
SMALL = {"population_size": 16, "num_levels": 4, "hidden": (2,)}
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
    # The last generation is that of one target, with noise of a tenth: 5 sigma of 16 x 12 draws.
    np.testing.assert_allclose(info.population[-1], info.x0[-2], atol=0.5)
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
        control = de.presets.control(KEY, problem.environment)
        assert method.population_size == len(control.population)
        assert tuple(problem.policy.hidden) == defaults["hidden"]
        assert (problem.max_steps, problem.num_episodes) == (500, 1)
        assert problem.scale == defaults["scale"]
        assert problem.shared_starts == 2
        assert algorithm.schedule.num_levels == control.algorithm.num_generations
        assert (algorithm.schedule.name, algorithm.schedule.end) == ("geometric", 0.01)
        assert (algorithm.fitness_map.name, algorithm.denoiser.name) == (
            "standardised",
            "consensus",
        )
        assert (algorithm.sampler.name, algorithm.sampler.freshness) == ("ddim", 1.0)


@pytest.mark.parametrize(("episodes", "starts"), [(2560, 2), (2561, 1), (25_601, 2)])
def test_one_start_is_shared_from_2560_episodes_to_25600(episodes, starts):
    task = de.tasks.make_task("Pendulum-v1", max_steps=3)
    control = de.presets.control(KEY, task, episodes=episodes, hidden=(2,))
    twins = jnp.tile(control.population[:1], (4, 1))
    _, aux = control.problem.fitness_fn(KEY, twins)
    assert len(set(aux["returns"].tolist())) == starts


def test_noise_falls_further_with_more_episodes_and_genes():
    def least(episodes: int, *hidden: int) -> float:
        control = de.presets.control(KEY, "Pendulum-v1", episodes=episodes, hidden=hidden)
        size = len(control.population)
        # All weigh the same, so that all of the spread is the last move's noise.
        state = control.algorithm.init(KEY, control.population)._replace(t=jnp.asarray(1))
        state, _ = control.algorithm.step(KEY, state, jnp.zeros(size))
        return float(jnp.log10(jnp.var(state.population, axis=0).mean()))

    assert least(2560, 8) == pytest.approx(-2, abs=0.1)
    assert least(25_600, 8) == pytest.approx(-3, abs=0.1)
    assert least(25_600, 64, 64) == pytest.approx(-4, abs=0.1)


def test_a_champion_is_chosen_by_the_same_fresh_episodes_within_the_budget():
    task = de.tasks.make_task("CartPole-v1", max_steps=30)
    control = de.presets.control(KEY, task, episodes=400, hidden=(2,))
    size, levels = len(control.population), control.algorithm.num_generations
    evolved = de.evolve(KEY, control.algorithm, control.problem, control.population)
    champion = control.champion(KEY, evolved)
    assert levels is not None
    assert size * levels + 8 * len(champion.returns) <= 400
    population, fitness = evolved.state.population, evolved.kept[-1]
    candidates = jnp.stack([population.mean(0), *population[jnp.argsort(-fitness)[:7]]])
    reevaluate = jax.jit(lambda each: de.reevaluate(KEY, control.problem, each, num_episodes=5))
    returns = jnp.stack([reevaluate(each) for each in candidates])
    first = returns.mean(1).argmax()
    np.testing.assert_array_equal(champion.returns, returns[first])
    # The mean's sum is another program's: float32.
    np.testing.assert_allclose(champion.genome, candidates[first], rtol=1e-5, atol=1e-6)


def test_those_without_a_fitness_are_no_champions():
    problem = de.tasks.make_problem(
        de.tasks.make_task("CartPole-v1", max_steps=5), de.policies.mlp((4, 2))
    )
    population = jax.random.normal(KEY, (6, 10)).at[1].set(jnp.nan)
    fitness = jnp.array([1.0, jnp.nan, 2.0, jnp.inf, 0.0, 1.0])
    champion = de.presets.choose_champion(KEY, problem, population, fitness, num_episodes=2)
    assert np.all(np.isfinite(champion.genome))
    assert champion.returns.shape == (2,)


@pytest.mark.parametrize(("genes", "episodes"), [(41, 2560), (41, 25_600), (4481, 100_000)])
def test_a_budget_is_spent_but_for_less_than_a_generation(genes, episodes):
    control = jax.eval_shape(
        lambda key: (
            de.presets.control(
                key, "Pendulum-v1", episodes=episodes, hidden=(8,) if genes == 41 else (64, 64)
            ).population
        ),
        KEY,
    )
    size = len(control)
    trials = min(128, round(0.1 * episodes / 8))
    levels = (episodes - 8 * trials) // size
    assert control.shape[1] == genes
    assert 0 <= episodes - 8 * trials - levels * size < size
    assert levels >= 18


def test_a_budget_that_is_too_small_and_a_run_without_its_fitness_are_named(refuses):
    with refuses("episodes"):
        de.presets.control(KEY, "CartPole-v1", episodes=12)
    control = de.presets.control(KEY, "CartPole-v1", **SMALL)
    nothing = de.Best(jnp.zeros(1), jnp.zeros(()))
    with refuses("evolved"):
        control.champion(KEY, de.Evolved(control, (), nothing))


def test_a_run_that_stopped_before_its_end_has_no_champion(refuses):
    """Its last fitness is of one population, its state has the next."""
    task = de.tasks.make_task("CartPole-v1", max_steps=5)
    control = de.presets.control(KEY, task, **SMALL)
    given = KEY, control.algorithm, control.problem, control.population
    evolved = de.evolve(*given, num_generations=2, keep=lambda info, aux: info)
    assert not np.allclose(evolved.kept.population[-1], evolved.state.population)
    with refuses("evolved"):
        control.champion(KEY, evolved._replace(kept=evolved.kept.fitness))


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


@pytest.mark.parametrize("t", [-1, 8, 1.5])
def test_a_level_that_there_is_not_is_not_the_nearest_one(t, refuses):
    with refuses("t"):
        de.presets.renoise(KEY, jnp.zeros((4, 2)), de.schedules.cosine(8), t)


# The default's sizes, and the temperature that goes with them


def test_sizes_spend_a_budget_in_even_generations():
    for num_genes in (2, 3, 12, 1000):
        for evaluations in (16, 100, 2001, 50_000):
            size, levels = de.presets.sizes(evaluations, num_genes)
            assert size % 2 == 0
            assert size >= 8
            assert evaluations - size < size * levels <= evaluations
    assert de.presets.sizes(20_000, 2) == (128, 156)
    few, many = (de.presets.sizes(evaluations, 12) for evaluations in (20_000, 200_000))
    # Levels for the way, which is no longer than float32 allows, and then individuals.
    assert abs(many[1] - few[1]) <= 2
    assert many[0] > 9 * few[0]


@pytest.mark.parametrize(("size", "num_levels"), [(20, 100), (50, 40)])
def test_the_temperature_goes_with_the_levels(size, num_levels):
    """A fourth of it does not reach as far while the noise falls, nor does four times it."""
    num_genes = 12
    expected = gentle_temperature(size, num_levels, num_genes)
    end = final_noise(size, num_levels, num_genes)

    def cost(temperature):
        algorithm = de.denoising_evolution(
            de.schedules.geometric(num_levels, end=end, clean=True),
            fitness_map=de.fitness.standardised(temperature),
            denoiser=de.denoisers.consensus(guidance=4.0),
            sampler=de.samplers.ddim(freshness=1.0, centred=True, mirrored=True),
        )
        population = jax.random.normal(KEY, (size, num_genes))
        evolved = de.evolve(KEY, algorithm, lambda x: -jnp.sum((x - 1) ** 2, 1), population)
        return -evolved.best.fitness

    sharp, right, gentle = jax.jit(jax.vmap(cost))(expected * jnp.array([0.25, 1, 4]))
    assert right < 1e-3 * min(sharp, gentle)


def test_the_default_has_the_temperature_of_its_size():
    expected = gentle_temperature(16, 40, 5)
    fitness = jnp.arange(16.0)
    state = de.diffusion_evolution(40).init(KEY, jax.random.normal(KEY, (16, 5)))
    _, info = de.diffusion_evolution(40).step(KEY, state, fitness)
    weights = jnp.exp(de.fitness.standardised(expected)(fitness, jnp.ones(16, bool)))
    np.testing.assert_allclose(
        info.effective_sample_size, jnp.sum(weights) ** 2 / jnp.sum(weights**2), rtol=1e-5
    )
