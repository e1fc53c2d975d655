"""Every environment that Gymnax registers: a generation of evolution, or the reason why not."""

import dataclasses
import functools
import sys

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.utils import load_mnist

import diffevo_jax as de
from diffevo_jax.environments import Environment, Transition
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


# Environments of one's own


class Balance(Environment):
    """A pendulum to hold upright, as the docs have it."""

    actions = (-np.ones(1), np.ones(1))

    def reset(self, key):
        state = jax.random.uniform(key, (2,), minval=-0.1, maxval=0.1)
        return state, state

    def step(self, key, state, action):
        angle, speed = state
        speed = speed + 0.05 * (10 * jnp.sin(angle) + 10 * action[0])
        state = jnp.stack([angle + 0.05 * speed, speed])
        return Transition(state, state, 1.0, jnp.abs(angle) > 1)


@dataclasses.dataclass(frozen=True)
class Walk(Environment):
    """Reward for a step to the right; cut off after some steps, ended at a place."""

    size: float = 1.0
    limit: int = 5
    goal: float = 100.0
    actions = 2
    observations = 3
    max_steps = 8

    def reset(self, key):
        return jnp.int32(0), {"x": jnp.float32(0), "t": jnp.int32(0), "key": key}

    def step(self, key, state, action):
        x, t = state["x"] + self.size * action, state["t"] + 1
        seen = jnp.minimum(t, 2)
        return Transition(
            seen, {**state, "x": x, "t": t}, self.size * action, x >= self.goal, t >= self.limit
        )


def _right(policy):
    """Three genomes whose policies always step right."""
    params = jax.tree.map(jnp.zeros_like, policy.unflatten(jnp.zeros(policy.num_genes)))
    params["params"]["Dense_0"]["bias"] = jnp.array([0.0, 1.0])
    return jnp.tile(de.genome.codec(params).flatten(params), (3, 1))


@functools.cache
def _walk(**settings):
    """The task, and the returns, lengths and successes of a policy that always steps right."""
    task = de.tasks.make_task(Walk(**settings))
    policy = de.policies.mlp((3, 2))
    genomes = _right(policy)
    fitness = de.tasks.make_fitness(task, policy, success="goal")
    outcome = jax.jit(de.tasks.make_outcomes(task, policy))(KEY, genomes)
    return task, outcome, jax.jit(fitness)(KEY, genomes)[1]["success"]


def test_an_environment_of_ones_own_evolves_to_its_full_return():
    task = de.tasks.make_task(Balance(), max_steps=100)
    assert (task.input_shape, task.num_outputs, task.environment.name) == ((2,), 1, "Balance")
    control = de.presets.control(KEY, task, episodes=256, hidden=(4,))
    evolved = jax.jit(de.evolve, static_argnums=(1, 2))(
        KEY, control.algorithm, control.problem, control.population
    )
    champion = control.champion(KEY, evolved)
    assert champion.returns.mean() == 100


def test_termination_and_truncation_both_end_an_episode_and_only_one_is_the_goal():
    _, outcome, success = _walk()
    np.testing.assert_array_equal(outcome.returns, np.full((3, 1), 5))
    np.testing.assert_array_equal(outcome.length, np.full((3, 1), 5))
    assert not success.any()
    _, outcome, success = _walk(goal=3.0)
    np.testing.assert_array_equal(outcome.length, np.full((3, 1), 3))
    assert success.all()
    _, outcome, _ = _walk(limit=20)
    np.testing.assert_array_equal(outcome.length, np.full((3, 1), 8))  # its own max_steps


def test_a_state_may_hold_a_key_and_trajectories_keep_states():
    task, outcome, _ = _walk()
    assert jnp.issubdtype(outcome.final_state["key"].dtype, jax.dtypes.prng_key)
    policy = de.policies.mlp((3, 2))
    population = jax.random.normal(KEY, (2, policy.num_genes))
    whole = jax.jit(de.tasks.make_trajectories(task, policy))(KEY, population, jnp.arange(1))
    assert whole.states["t"].shape == (1, 1, 9)
    assert whole.states["t"].max() == whole.length.max() == 5


def test_replaced_parameters_take_effect_in_a_task():
    task, outcome, _ = _walk()
    np.testing.assert_array_equal(outcome.returns, 5)
    policy = de.policies.mlp((3, 2))
    wide = jax.jit(de.tasks.make_returns(task.replace(size=2.0), policy))
    returns = wide(KEY, _right(policy))
    np.testing.assert_array_equal(returns, 10)

    strong, weak = (
        de.tasks.make_task(de.environments.gymnax("Pendulum-v1", max_torque=torque))
        for torque in (4.0, 1.0)
    )
    outputs = jnp.ones(1)
    assert strong.act(outputs) == 4 * weak.act(outputs)
    assert strong.replace(max_torque=1.0).act(outputs) == weak.act(outputs)
    assert strong.replace(max_steps_in_episode=50).max_steps == 50
    assert strong.replace(max_steps_in_episode=900).max_steps == 500  # make_task's own limit
    heavy = strong.replace(m=3.0)
    state = strong.reset(KEY)[1]
    step = lambda task: jax.jit(task.step)(KEY, state, outputs).observation  # noqa: E731
    moved = step(strong), step(heavy)
    assert not np.allclose(moved[0], moved[1])


class _Odd(Walk):
    def __init__(self, **changes):
        super().__init__()
        self.__dict__.update(changes)


def _stepping(new):
    def step(self, key, state, action):
        return new(Walk.step(self, key, state, action))

    return type("Grows", (Walk,), {"step": step})()


def test_a_step_that_changes_its_states_shape_is_named():
    policy = de.policies.mlp((3, 2))
    population = jnp.zeros((2, policy.num_genes))
    for change, place in (
        (lambda moved: moved._replace(state={**moved.state, "x": jnp.zeros(2)}), "['x']"),
        (lambda moved: moved._replace(state={**moved.state, "t": moved.state["x"]}), "['t']"),
        (lambda moved: moved._replace(state={"x": moved.state["x"]}), "PyTreeDef"),
        (lambda moved: moved._replace(reward=jnp.ones(2)), "(2,)"),
    ):
        task = de.tasks.make_task(_stepping(change))
        with pytest.raises(de.InputError) as error:
            de.tasks.make_returns(task, policy)(KEY, population)
        assert error.value.path == "environment"
        assert place in error.value.seen


def test_what_is_no_environment_is_one_message(refuses):
    make_task, environments = de.tasks.make_task, de.environments
    for path, call in (
        ("environment", lambda: make_task(gymnax.make("CartPole-v1")[0])),
        ("environment", lambda: make_task("mujoco/ant")),
        ("environment", lambda: make_task("brax/unicorn")),
        ("environment", lambda: make_task("jumanji/Chess-v1")),
        ("environment", lambda: make_task("jumanji/Cleaner-v0")),
        ("environment", lambda: environments.gymnax(3)),
        ("max_torq", lambda: environments.gymnax("Pendulum-v1", max_torq=1.0)),
        ("backend", lambda: environments.brax("swimmer", backend="spring")),
        ("backend", lambda: environments.brax("ant", backend="physx")),
        ("wind", lambda: environments.brax("ant", wind=1.0)),
        ("wind", lambda: environments.jumanji("Snake-v1", wind=1)),
        ("wind", lambda: Walk().replace(wind=1)),
        ("wind", lambda: Balance().replace(wind=1)),
        ("max_steps", lambda: make_task(Balance(), max_steps=None)),
        ("actions", lambda: make_task(_Odd(actions=0))),
        ("actions", lambda: make_task(_Odd(actions=(1.0, -1.0)))),
        ("actions", lambda: make_task(_Odd(actions=(-np.inf, np.inf)))),
        ("actions", lambda: make_task(Environment())),
        ("observations", lambda: make_task(_Odd(observations="all"))),
        ("environment", lambda: make_task(Balance)),  # pyright: ignore
        ("environment", lambda: environments.make(None)),  # pyright: ignore
        ("factory", lambda: environments.register("balance", 3)),  # pyright: ignore
        ("max_steps", lambda: make_task(_Odd(max_steps=2.5))),
        ("environment.reset", lambda: make_task(_Odd(reset=lambda: (0, 0)))),
        ("environment.step", lambda: make_task(_Odd(step=lambda state, action: None))),
        ("name", lambda: environments.register("own/balance", Balance)),
    ):
        with refuses(path):
            call()


@pytest.mark.parametrize("fast_trig", [True, False])
@pytest.mark.parametrize(
    "odd",
    [
        dict(reset=lambda key: np.zeros(2)),
        dict(reset=lambda key: ({"place": 0}, 0)),
        dict(step=lambda key, state, action: None),
        dict(step=lambda key, state, action: (state, 1.0, False, {})),
        dict(step=lambda key, state, action: Transition(state, state, None, False)),  # pyright: ignore
        dict(step=lambda key, state, action: Transition(state, state, "much", False)),  # pyright: ignore
        dict(step=lambda key, state, action: Transition(state, state, 1.0, state > 0)),
        dict(step=lambda key, state, action: Transition(state[:1], state, 1.0, False)),
        dict(step=lambda key, state, action: Transition(None, state, 1.0, False)),  # pyright: ignore
        dict(step=lambda key, state, action: Transition(np.asarray(state), state, 1.0, False)),  # pyright: ignore
        dict(step=lambda key, state, action: Transition(state, state if action else 0, 1.0, False)),
        dict(observations=(np.zeros(3), np.ones(3))),
        dict(observations=2),
    ],
)
def test_an_environment_that_does_what_it_should_not_is_one_message(odd, fast_trig, refuses):
    rest = dict(
        observations=None,
        reset=lambda key: (np.zeros(2), np.zeros(2)),
        step=lambda key, state, action: Transition(state, state, 1.0, False),
    )
    with refuses("environment"):
        task = de.tasks.make_task(_Odd(**rest | odd), max_steps=3, fast_trig=fast_trig)
        policy = de.policies.mlp((task.num_inputs, task.num_outputs))
        de.tasks.make_returns(task, policy)(KEY, jnp.zeros((2, policy.num_genes)))


def test_a_registered_environment_has_a_name_and_parameters():
    de.environments.register("walk", Walk)
    task = de.tasks.make_task(de.environments.make("walk", size=3.0))
    assert (task.environment.name, getattr(task.environment, "size")) == ("Walk", 3.0)  # noqa: B009
    with pytest.raises(de.InputError) as error:
        de.environments.make("walk", sise=3.0)
    assert (error.value.path, error.value.advice) == ("sise", "did you mean 'size'?")
    de.environments.register("any walk", lambda **params: Walk(**params))
    assert de.environments.make("any walk", size=2.0).name == "Walk"


@pytest.mark.parametrize(
    ("library", "extra"), [("brax", "brax"), ("mujoco_playground", "playground"), ("jumanji",) * 2]
)
def test_a_library_that_is_not_installed_names_its_extra(monkeypatch, library, extra):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=f"diffevo-jax\\[{extra}\\]"):
        de.environments.make(f"{extra}/ant")


def _generation(task):
    """Fitness of four individuals in one generation."""
    policy = de.policies.mlp((task.num_inputs, task.num_outputs))
    population = jax.random.normal(KEY, (4, policy.num_genes))
    memory = () if task.statistics is None else (task.statistics,)
    return jax.jit(de.tasks.make_returns(task, policy))(KEY, population, *memory)


def test_brax_follows_its_own_steps():
    environment = de.environments.brax("inverted_pendulum", backend="spring")
    task = de.tasks.make_task(environment, max_steps=3, observations="normalised", fast_trig=False)
    assert (task.num_inputs, task.num_outputs) == (4, 1)
    returns = _generation(task)
    instance = environment.instance
    keys = jax.random.split(jax.random.split(KEY, 4)[0], 1)[0]
    state = jax.jit(instance.reset)(jax.random.split(keys)[0])
    step, earned = jax.jit(instance.step), 0.0
    policy = de.policies.mlp((4, 1))
    genome = jax.random.normal(KEY, (4, policy.num_genes))[0]
    act = de.tasks.make_controller(task, policy, genome, task.statistics)
    for _ in range(3):
        state = step(state, act(state.obs))
        earned += float(state.reward)
    np.testing.assert_allclose(returns[0, 0], earned, rtol=1e-4)


@pytest.mark.parametrize("generator", ["rbg", "unsafe_rbg"])
def test_jumanji_begins_under_another_generator_of_keys(generator):
    with jax.default_prng_impl(generator):
        task = de.tasks.make_task("jumanji/Game2048-v1")
        first, _ = jax.jit(jax.vmap(task.reset))(jax.random.split(jax.random.key(0), 8))
    assert len(np.unique(first, axis=0)) > 1


def test_jumanji_tells_its_observation_in_one_vector():
    task = de.tasks.make_task("jumanji/Maze-v0", max_steps=4, observations="raw")
    assert (task.num_inputs, task.num_outputs, task.max_steps) == (109, 4, 4)
    assert np.isfinite(_generation(task)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CartpoleBalance", "PendulumSwingup"])
def test_playground_takes_a_generation(name):
    pytest.importorskip("mujoco_playground", reason="its wheels are 450 MB, no part of [test]")
    task = de.tasks.make_task(f"playground/{name}", max_steps=3, observations="normalised")
    assert np.isfinite(_generation(task)).all()
