"""Policies with a memory, and policies of images: against loops, and on a task that needs them."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import diffevo_jax as de

control, policies = de.tasks, de.policies
KEY = jax.random.key(3)
OBSERVATIONS = jax.random.normal(jax.random.key(4), (6, 4))


def _outputs(policy, genome, observations=OBSERVATIONS):
    """Outputs `[T, A]` of a policy that sees one observation after the other."""

    def step(state, observation):
        state, outputs = policy.apply(policy.unflatten(genome), state, observation)
        return state, outputs

    return jax.lax.scan(step, policy.initial_state, observations)[1]


def _gru_by_hand(params):
    """Outputs of Cho et al.'s equations, one observation after the other, in NumPy."""
    cell, head = params["params"]["GRUCell_0"], params["params"]["Dense_0"]
    cell, head = jax.tree.map(np.asarray, (cell, head))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def sees(gate, x):
        return x @ cell[gate]["kernel"] + cell[gate]["bias"]

    h, outputs = np.zeros(3), []
    for x in np.asarray(OBSERVATIONS):
        r = sigmoid(sees("ir", x) + h @ cell["hr"]["kernel"])
        z = sigmoid(sees("iz", x) + h @ cell["hz"]["kernel"])
        n = np.tanh(sees("in", x) + r * sees("hn", h))
        h = (1 - z) * n + z * h
        outputs.append(h @ head["kernel"] + head["bias"])
    return outputs


def test_a_gru_is_its_equations_under_jit_and_vmap():
    policy = policies.gru(4, 2, hidden=3)
    population = jax.random.normal(KEY, (5, policy.num_genes))
    together = jax.jit(jax.vmap(functools.partial(_outputs, policy)))(population)
    assert together.shape == (5, 6, 2)
    for genome, outputs in zip(population, together, strict=True):
        expected = _gru_by_hand(policy.unflatten(genome))
        # float32 against float64
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(_outputs(policy, population[0]), together[0], rtol=1e-4, atol=1e-5)


def test_a_gru_carries_double_precision_where_observations_have_it(x64):
    policy = policies.gru(4, 2, hidden=3)
    outputs = _outputs(policy, jnp.ones(policy.num_genes), OBSERVATIONS.astype(float))
    assert policy.initial_state.dtype == outputs.dtype == jnp.float64


def _make_advance(task, policy):
    """One step of an episode, compiled once for all genomes."""

    @jax.jit
    def advance(genome, key, observation, state, memory):
        weights = policy.unflatten(genome)
        memory, outputs = policy.apply(weights, memory, task.observe(observation))
        return task.step(key, state, task.act(outputs)), memory

    return advance


def _loop(task, policy, advance, genome, key):
    """Return and length of one episode, one step at a time."""
    key_reset, key_steps = jax.random.split(key)
    observation, state = task.reset(key_reset)
    memory, total = policy.initial_state, 0.0
    for step in range(task.max_steps):
        key = jax.random.fold_in(key_steps, step)
        moved, memory = advance(genome, key, observation, state, memory)
        observation, state = moved.observation, moved.state
        total += float(moved.reward)
        if moved.terminated:
            return total, step + 1
    return total, task.max_steps


def test_lanes_carry_and_reset_a_memory_as_a_loop_does():
    task, policy = control.make_task("CartPole-v1", max_steps=40), policies.gru(4, 2, hidden=3)
    population = 2 * jax.random.normal(KEY, (7, policy.num_genes))
    # Three lanes for seven individuals: later ones take lanes that others have left.
    make = functools.partial(control.make_outcomes, task, policy, num_episodes=2)
    outcome = jax.jit(make(chunk=3))(KEY, population)
    whole = jax.jit(make())(KEY, population)
    keys = jax.vmap(lambda key: jax.random.split(key, 2))(jax.random.split(KEY, 7))
    advance = _make_advance(task, policy)
    for i, e in np.ndindex(7, 2):
        expected = _loop(task, policy, advance, population[i], keys[i, e])
        assert expected == (outcome.returns[i, e], outcome.length[i, e])
    np.testing.assert_array_equal(outcome.length, whole.length)
    assert len(np.unique(outcome.length)) > 4
    forgetful = policies.from_apply(
        lambda params, x: policy.apply(params, policy.initial_state, x)[1],
        jax.eval_shape(policy.unflatten, population[0]),
        4,
    )
    assert np.any(
        jax.jit(control.make_returns(task, forgetful, num_episodes=2))(KEY, population)
        != outcome.returns
    )  # or a memory that is lost would pass

    chosen = jnp.array([5, 0])
    record = jax.jit(control.make_trajectories(task, policy, num_episodes=2))
    trajectory = record(KEY, population, chosen)
    np.testing.assert_array_equal(trajectory.length, outcome.length[chosen])
    np.testing.assert_array_equal(trajectory.rewards.sum(-1), outcome.returns[chosen])


def test_seeds_with_a_memory_under_vmap_are_a_loop_over_seeds():
    task, policy = control.make_task("CartPole-v1", max_steps=20), policies.gru(4, 2, hidden=2)
    populations = jax.random.normal(KEY, (2, 5, policy.num_genes))
    keys = jax.random.split(KEY, 2)
    returns = control.make_returns(task, policy, chunk=2)
    together = jax.jit(jax.vmap(returns))(keys, populations)
    one = jax.jit(returns)
    for key, population, actual in zip(keys, populations, together, strict=True):
        np.testing.assert_array_equal(actual, one(key, population))


def test_a_gru_remembers_what_no_policy_without_memory_can_know():
    # A bit is shown at first; five steps later the action must be that bit: 1 or -1.
    task = control.make_task("MemoryChain-bsuite")

    def success(policy):
        """Share of right answers in each generation of a whole evolution, `[T]`."""
        fitness_fn = control.make_fitness(task, policy, num_episodes=16, success=1.0)
        evolution = de.presets.paper(
            de.schedules.cosine(20),
            fitness_map=de.fitness.boltzmann(0.1),
            projection=de.latent.random_projection(jax.random.key(9), policy.num_genes, 2),
        )

        @jax.jit
        def run(key):
            key_init, key_run = jax.random.split(key)
            return de.evolve(
                key_run,
                evolution,
                fitness_fn,
                jax.random.normal(key_init, (256, policy.num_genes)),
                has_key=True,
                has_aux=True,
                keep=lambda info, aux: aux["success"].mean(),
            ).kept

        return run(jax.random.key(0))

    # Measured: 0.98 and 0.49. A guess in 256 x 16 episodes is right in 0.500 +- 0.008 of them.
    remembering = success(policies.gru(task.num_inputs, task.num_outputs, hidden=2))
    assert abs(remembering[0] - 0.5) < 0.05
    assert remembering[-1] > 0.9
    guessing = success(policies.mlp((task.num_inputs, 4, task.num_outputs)))
    assert np.abs(guessing - 0.5).max() < 0.05


def test_a_linen_cell_is_a_policy_with_flaxs_carry():
    policy = policies.linen_policy(nn.OptimizedLSTMCell(2), 4)
    assert jax.tree.map(jnp.shape, policy.initial_state) == ((2,), (2,))
    cell, genome = nn.OptimizedLSTMCell(2), jax.random.normal(KEY, (policy.num_genes,))
    carry, expected = policy.initial_state, []
    for observation in OBSERVATIONS:
        carry, outputs = cell.apply(policy.unflatten(genome), carry, observation)
        expected.append(outputs)
    np.testing.assert_allclose(_outputs(policy, genome), expected, rtol=1e-4, atol=1e-6)


class Counter(nn.Module):
    """Outputs a weight times the steps it has been called for."""

    @nn.compact
    def __call__(self, carry, observation):
        return carry + 1, self.param("weight", nn.initializers.ones, (2,)) * carry


def test_a_linen_module_begins_with_the_state_it_is_given():
    policy = policies.linen_policy(Counter(), 4, initial_state=5.0)
    outputs = _outputs(policy, jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(outputs, np.outer(np.arange(5, 11), [1, 2]))


def test_the_recipe_for_a_recurrent_nnx_model_carries_its_state():
    hidden, num_inputs = 2, 4
    model = nnx.GRUCell(num_inputs, hidden, rngs=nnx.Rngs(0))
    names: dict[str, Any] = {"nnx": nnx, "jnp": jnp, "from_apply": policies.from_apply}
    names["graphdef"], names["params"], names["rest"] = nnx.split(model, nnx.Param, ...)
    names |= {"hidden": hidden, "num_inputs": num_inputs}
    doc = policies.from_apply.__doc__ or ""
    start = doc.index("from_apply(lambda params, state, obs")
    policy = eval(" ".join(doc[start : doc.index("    Raises")].split()), names)
    genome = de.genome.codec(names["params"]).flatten(names["params"])
    carry, expected = jnp.zeros(2), []
    for observation in OBSERVATIONS:
        carry, outputs = model(carry, observation)
        expected.append(outputs)
    np.testing.assert_allclose(_outputs(policy, genome), expected, rtol=1e-4, atol=1e-6)


class Cnn(nn.Module):
    """A convolution of an image `[H, W, C]`, read out by a Dense layer."""

    @nn.compact
    def __call__(self, image):
        x = nn.relu(nn.Conv(2, (3, 3), strides=3)(image))
        return nn.Dense(3)(x.ravel())


def test_a_convolution_sees_an_environments_images():
    task = control.make_task("Breakout-MinAtar", max_steps=12, observations="raw")
    policy = policies.linen_policy(Cnn(), task.input_shape)
    assert policy.input_shape == (10, 10, 4)
    population = jax.random.normal(KEY, (4, policy.num_genes))
    outcome = jax.jit(control.make_outcomes(task, policy, num_episodes=2))(KEY, population)
    record = jax.jit(control.make_trajectories(task, policy, num_episodes=2))
    trajectory = record(KEY, population, jnp.arange(4))
    assert trajectory.observations.shape == (4, 2, 13, 10, 10, 4)
    np.testing.assert_array_equal(trajectory.length, outcome.length)
    np.testing.assert_array_equal(trajectory.rewards.sum(-1), outcome.returns)
    assert len(np.unique(trajectory.actions)) > 1


def _recurrent(change):
    """A recurrent policy whose next state is a function of the state."""
    return policies.from_apply(
        lambda params, state, x: (change(state), params * x), jnp.ones(4), 4, initial_state=STATE
    )


STATE = {"h": jnp.zeros(3)}


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("apply", lambda: _recurrent(lambda state: {"h": state["h"][:2]})),
        ("apply", lambda: _recurrent(lambda state: {"h": state["h"].astype(jnp.int32)})),
        ("apply", lambda: _recurrent(lambda state: state["h"])),
        (
            "apply",
            lambda: policies.from_apply(
                lambda params, state, x: params * x, jnp.ones(4), 4, initial_state=STATE
            ),
        ),
        (
            "apply",
            lambda: policies.from_apply(
                lambda params, state, x: (state, x.sum()), jnp.ones(4), 4, initial_state=STATE
            ),
        ),
        ("sizes", lambda: policies.mlp((4, 8.5, 2))),  # pyright: ignore
        ("sizes", lambda: policies.mlp(None)),  # pyright: ignore
        ("policy", lambda: policies.scaled(None, 1.0)),  # pyright: ignore
        ("input_shape", lambda: policies.linen_policy(nn.Dense(2), (3, 0))),
        ("apply", lambda: policies.linen_policy(nn.Dense(2), (3, 3))),
        ("num_inputs, hidden, num_outputs", lambda: policies.gru(4, 2, hidden=0)),
    ],
)
def test_what_cannot_be_a_policy_is_named(path, call, refuses):
    with refuses(path):
        call()


class Noisy(nn.Module):
    """A cell with Dropout."""

    deterministic: bool

    @nn.compact
    def __call__(self, carry, observation):
        carry, outputs = nn.GRUCell(2)(carry, observation)
        return carry, nn.Dropout(0.5, deterministic=self.deterministic)(outputs)

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros(2)


def test_a_recurrent_module_in_training_is_refused():
    assert policies.linen_policy(Noisy(True), 4).num_outputs == 2
    with pytest.raises(de.InputError) as error:
        policies.linen_policy(Noisy(False), 4)
    assert error.value.path == "module"
    assert "Dropout(..., deterministic=True)" in error.value.advice
