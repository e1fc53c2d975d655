"""Normalised observations: their statistics, what carries them, what is done with them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de
from diffevo_jax.runs import load_run
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.report.animate import animate
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.run import engine as run
from diffevo_jax.tasks import evaluation
from diffevo_jax.tasks.statistics import CLIP, NEVER_VARIED, Statistics, merge, normalise, pool
from diffevo_jax.tasks.task import Observations

KEY = jax.random.key(11)
POPULATION = jax.random.normal(KEY, (13, 10))


@functools.cache
def _setup(name="CartPole-v1", observations: Observations = "normalised", max_steps=60):
    task = de.tasks.make_task(name, max_steps=max_steps, observations=observations)
    return task, de.policies.mlp((task.num_inputs, task.num_outputs))


def _fitness(**settings):
    task, policy = _setup()
    fitness = de.tasks.make_fitness(task, policy, num_episodes=2, success=20.0, **settings)
    return task.statistics, fitness


def _same(ours, expected, rtol):
    for one, other in zip(*map(jax.tree.leaves, (ours, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-7)


def test_statistics_are_those_of_every_observation_acted_on():
    task, policy = _setup()
    first, fitness = _fitness()
    second, (returns, aux) = jax.jit(fitness)(KEY, first, POPULATION)
    everyone = jnp.arange(len(POPULATION))
    record = jax.jit(de.tasks.make_trajectories(task, policy, num_episodes=2))
    episodes = record(KEY, POPULATION, everyone, first)
    lengths = np.asarray(episodes.length)
    assert lengths.min() < 30 <= lengths.max()
    np.testing.assert_array_equal(lengths.mean(1), returns)  # a reward of 1 a step
    assert aux["success"].shape == (13,)
    rows = [
        np.asarray(episodes.observations[i, e, : lengths[i, e]], np.float64)
        for i, e in np.ndindex(lengths.shape)
    ]
    seen = np.concatenate(rows)
    assert second.steps == len(seen)
    # Float32 sums of some hundred numbers of order 1.
    np.testing.assert_allclose(second.mean, seen.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(second.variance, seen.var(0), rtol=1e-4)

    third, _ = jax.jit(fitness)(jax.random.key(1), second, POPULATION)
    assert third.steps > 1.5 * second.steps


def test_lanes_a_mesh_and_vmap_change_nothing(monkeypatch):
    first, fitness = _fitness()
    assert first is not None
    one = jax.jit(fitness)
    expected = one(KEY, first, POPULATION)
    eager_pool = fitness(KEY, first, POPULATION)[0]
    _same(eager_pool, expected[0], 1e-6)
    other = first._replace(mean=first.mean + 0.1)
    both = jax.tree.map(lambda *each: jnp.stack(each), first, other)
    keys = jnp.stack([KEY, jax.random.key(2)])
    together = jax.jit(jax.vmap(fitness, (0, 0, None)))(keys, both, POPULATION)
    _same(jax.tree.map(lambda leaf: leaf[0], together), expected, 1e-6)
    alone = one(keys[1], other, POPULATION)
    _same(jax.tree.map(lambda leaf: leaf[1], together), alone, 1e-6)
    mesh = jax.sharding.Mesh(jax.devices()[:4], ("individuals",))  # 13 do not divide
    _, split = _fitness(mesh=mesh)
    _same(jax.jit(split)(KEY, first, POPULATION), expected, 1e-6)
    for settings in ({"lanes": 3}, {"lanes": 13, "narrower": [6, 3], "steps": 4}):
        monkeypatch.setattr(evaluation, "_cpu_settings", lambda *_, s=settings: s)
        _, again = _fitness()
        _same(jax.jit(again)(KEY, first, POPULATION), expected, 1e-6)


def test_merged_pieces_are_the_whole_far_from_zero_in_float32():
    rng = np.random.default_rng(0)
    values = (1e4 + rng.normal(size=(600, 3)) * [1, 0.1, 30]).astype(np.float32)
    statistics = Statistics(jnp.zeros(()), jnp.full(3, 5.0), jnp.ones(3))
    for piece in np.array_split(values, 4):
        episodes = np.array_split(piece, 7)
        count = jnp.asarray([len(each) for each in episodes])
        mean = jnp.asarray([each.mean(0, dtype=float) for each in episodes])
        squares = jnp.asarray(
            [((each - each.mean(0, dtype=float)) ** 2).sum(0) for each in episodes]
        )
        statistics = merge(statistics, pool(count, mean, squares))
    assert statistics.steps == 600
    # A mean in float32 is off by 1e-3 at 1e4, a hundredth of the narrowest deviation.
    np.testing.assert_allclose(statistics.mean, values.mean(0, dtype=float), rtol=2e-7)
    np.testing.assert_allclose(statistics.variance, values.var(0, dtype=float), rtol=2e-2)


def test_what_never_varied_is_zero_and_numbers_that_are_not_finite_are_left_out():
    mean = jnp.asarray([[0.1, 2.0], [0.1, 4.0], [jnp.nan, 5.0], [0.1, jnp.inf]])
    pooled = pool(jnp.asarray([3, 1, 7, 9]), mean, jnp.zeros((4, 2)))
    np.testing.assert_array_equal(pooled.steps, 4)
    np.testing.assert_allclose(pooled.mean, [0.1, 2.5], rtol=1e-6)
    np.testing.assert_allclose(pooled.variance, [0, 0.75], rtol=1e-6)
    for before in (Statistics(jnp.zeros(()), jnp.full(2, 0.3), jnp.ones(2)), pooled):
        merged = merge(before, pooled)
        observation = jnp.asarray([np.float32(0.1), 2.5])
        np.testing.assert_allclose(normalise(merged, observation), [0, 0], atol=1e-6)
        # Its first change counts as it is; far away is far, no further.
        np.testing.assert_allclose(
            normalise(merged, observation + jnp.asarray([0.7, 1e9])), [0.7, CLIP], rtol=1e-5
        )
    nothing = pool(jnp.asarray([2, 2]), jnp.full((2, 2), jnp.nan), jnp.zeros((2, 2)))
    _same(merge(pooled, nothing), pooled, 0)


@pytest.mark.parametrize("name", ["Pendulum-v1", "FrozenLake-misc"])
def test_before_any_observation_they_are_scaled(name):
    task, policy = _setup(name, max_steps=5)
    scaled, _ = _setup(name, observations="scaled", max_steps=5)
    population = jax.random.normal(KEY, (4, policy.num_genes))
    ours = jax.jit(de.tasks.make_returns(task, policy))(KEY, population, task.statistics)
    theirs = jax.jit(de.tasks.make_returns(scaled, policy))(KEY, population)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)  # five steps of their rounding


def test_images_keep_their_shape():
    task = de.tasks.make_task("Breakout-MinAtar", observations="normalised")
    assert task.input_shape == (10, 10, 4) == task.statistics.mean.shape  # pyright: ignore


@functools.cache
def _evolved():
    task, policy = _setup()
    control = de.presets.control(KEY, task, policy=policy, population_size=12, num_levels=4)
    arguments = (control.algorithm, control.problem, control.population)
    return control, arguments, de.evolve(KEY, *arguments, keep=_kept)


def _kept(info, aux):
    return info.fitness, aux["returns"]


def test_an_evolution_carries_them_in_pieces_too_and_ends_with_those_of_its_last_generation():
    _, (algorithm, problem, population), evolved = _evolved()
    state, (fitness, _), best = evolved  # three, as ever
    assert best.memory is evolved.memory
    keys = jax.random.split(KEY, 4)
    key_last, _ = jax.random.split(keys[-1])
    _, (again, _) = jax.jit(problem.fitness_fn)(key_last, evolved.memory, state.population)
    np.testing.assert_allclose(again, fitness[-1], rtol=1e-5)

    generation = de.make_generation(algorithm, problem, keep=_kept)
    running = de.begin(KEY, algorithm, population, problem=problem)
    scan = jax.jit(lambda running, keys: jax.lax.scan(generation, running, keys))
    counts = [running.memory.steps]
    for piece in (keys[:1], keys[1:3], keys[3:]):
        running, _ = scan(running, piece)
        counts.append(running.memory.steps)
    assert counts[0] == 0 < counts[1] < counts[2] == counts[3]  # a finished run stays
    _same((running.state, running.memory), (state, evolved.memory), 1e-5)


def test_a_champion_is_evaluated_recorded_and_deployed_with_its_statistics(refuses):
    control, _, evolved = _evolved()
    task, policy = _setup()
    policy, statistics = control.policy, evolved.memory
    genome = evolved.state.population[0]
    returns = de.reevaluate(KEY, control.problem, genome, memory=statistics, num_episodes=5)
    rollout = de.tasks.make_returns(task, policy)
    np.testing.assert_array_equal(returns, rollout(KEY, jnp.tile(genome, (5, 1)), statistics)[:, 0])
    record = de.tasks.make_trajectories(task, policy)
    one = record(KEY, jnp.tile(genome, (5, 1)), jnp.arange(1), statistics)
    assert int(one.length[0, 0]) == int(returns[0])
    act = jax.jit(de.tasks.make_controller(task, policy, genome, statistics))
    steps = int(returns[0])
    actions = [int(act(observation)) for observation in one.observations[0, 0, :steps]]
    np.testing.assert_array_equal(actions, one.actions[0, 0, :steps])

    with refuses("memory"):
        de.reevaluate(KEY, control.problem, genome)
    with refuses("statistics"):
        rollout(KEY, genome[None])
    with refuses("statistics"):
        rollout(KEY, genome[None], statistics._replace(mean=jnp.zeros(3)))
    scaled, _ = _setup(observations="scaled")
    with refuses("statistics"):
        de.tasks.make_controller(scaled, policy, genome, statistics)
    with refuses("genome"):
        de.tasks.make_controller(task, policy, genome[:-1], statistics)
    with refuses("observations"):
        de.presets.control(KEY, scaled, observations="normalised")
    with refuses("observations"):
        de.tasks.make_task("CartPole-v1", observations="normal")  # pyright: ignore


def test_a_recurrent_controller_takes_its_memory():
    task, _ = _setup()
    policy = de.policies.gru(4, 2, hidden=3)
    genome = jax.random.normal(KEY, (policy.num_genes,))
    act = de.tasks.make_controller(task, policy, genome, task.statistics)
    one = de.tasks.make_trajectories(task, policy)(
        KEY, genome[None], jnp.arange(1), task.statistics
    )
    memory = policy.initial_state
    for observation, action in zip(one.observations[0, 0, :5], one.actions[0, 0], strict=False):
        memory, ours = act(memory, observation)
        assert int(ours) == int(action)


def test_observations_that_never_vary_are_named():
    task, _ = _setup("SimpleBandit-bsuite")  # one number, of shape [1, 1]
    actions = task.num_outputs
    policy = de.policies.from_apply(lambda w, seen: w * jnp.sum(seen), jnp.ones(actions), (1, 1))
    problem = de.tasks.make_problem(task, policy)
    algorithm = de.presets.paper(de.schedules.cosine(2))
    population = jax.random.normal(KEY, (4, policy.num_genes))
    with pytest.warns(UserWarning, match=NEVER_VARIED[:40]):
        evolved = de.evolve(KEY, algorithm, problem, population)
    assert np.isfinite(evolved.kept).all()


CONFIG = """\
name: normalised
description: cart-pole, its observations normalised
repeats: 2
seed: 5
population_size: 8
problem:
  name: control
  environment: CartPole-v1
  policy: {hidden: []}
  observations: normalised
  max_steps: 60
algorithm: {name: paper, schedule: {num_levels: 3}}
"""


def test_a_runs_champion_is_loaded_and_rolled_out_to_the_same_returns(tmp_path, one_device):
    path = tmp_path / "normalised.yaml"
    path.write_text(CONFIG)
    config = load(path).config
    folder = results.create(tmp_path / "out", config.name)
    run.run(config, run.build(config), folder)
    method = load_run(folder).methods["diffusion_evolution"]
    assert method.statistics is not None
    assert method.statistics.mean.shape == (2, 4)
    assert method.reevaluated_genome is not None
    task = de.tasks.make_task("CartPole-v1", observations="normalised", max_steps=60)
    problem = de.tasks.make_problem(task, de.policies.mlp((4, 2)))

    @jax.jit
    def reevaluate(key, genome, memory):
        return de.reevaluate(key, problem, genome, memory=memory)

    for repeat, key in enumerate(de.batch.seed_keys(5, 2)):
        again = reevaluate(
            jax.random.fold_in(key, 3),
            method.reevaluated_genome[repeat],
            jax.tree.map(lambda value, k=repeat: value[k], method.statistics),
        )
        assert method.reevaluated_return is not None
        np.testing.assert_array_equal(again, method.reevaluated_return[repeat])
    for number in ((), (1, 3)):
        said = []
        picture = animate(folder, tmp_path / "a.gif", generations=number, say=said.append)
        assert picture.stat().st_size > 1000
        assert not said
