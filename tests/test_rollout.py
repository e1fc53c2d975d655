"""Lanes against a loop: an environment of one number, one individual and one step at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffevo_jax.environments import Transition
from diffevo_jax.tasks.rollout import Episodes, rollout


def _reset(key):
    x = jax.random.uniform(key)
    return jnp.stack([x, 1 - x]), (x, jnp.asarray(0, jnp.int32))


def _step(key, state, outputs):
    x, count = state
    x, noise = x + outputs[0] ** 2 + 0.1, jax.random.uniform(key)
    return Transition(jnp.stack([x, noise]), (x, count + 1), x * noise, x > 2)


def _apply(weights, memory, observations):
    """Outputs `[1, ...]` of a policy that remembers what it has seen, fading."""
    outputs = jnp.sum(weights * observations, axis=0) + memory["seen"][0]
    trace = 0.5 * memory["seen"] + 0.2 * jnp.stack([observations[0], outputs])
    return {"seen": trace}, outputs[None]


EPISODES = Episodes(
    reset=_reset,
    step=_step,
    memory={"seen": jnp.array([0.3, -0.1])},
    load=lambda genomes: genomes.T[:, None],
    apply=_apply,
    max_steps=9,
)
POPULATION = 0.5 * jax.random.normal(jax.random.key(0), (13, 2))
KEYS = jax.random.split(jax.random.key(1), (13, 2))


@pytest.fixture(scope="module")
def loop():
    """Total, steps and last state of each individual's episodes."""
    one_step, one_apply = jax.jit(_step), jax.jit(_apply)
    results = np.zeros((3, 13, 2))
    for i, e in np.ndindex(13, 2):
        key_reset, key_steps = jax.random.split(KEYS[i, e])
        observation, state = _reset(key_reset)
        memory, total, steps, ended = EPISODES.memory, 0.0, 0, False
        while not ended and steps < 9:
            key = jax.random.fold_in(key_steps, steps)
            memory, outputs = one_apply(POPULATION[i], memory, observation)
            observation, state, reward, ended, _ = one_step(key, state, outputs)
            total, steps = total + float(reward), steps + 1
        assert int(state[1]) == steps
        results[:, i, e] = total, steps, state[0]
    assert len(np.unique(results[1])) > 4  # or the lanes would all end at once
    return results


@pytest.mark.parametrize(
    ("lanes", "narrower", "steps"), [(13, (), 1), (5, (3, 1), 1), (4, (2,), 3), (1, (), 1)]
)
def test_any_number_of_lanes_gives_what_a_loop_gives(loop, lanes, narrower, steps):
    @jax.jit
    def run(keys, population):
        return rollout(
            EPISODES,
            keys,
            population,
            lanes=lanes,
            narrower=narrower,
            steps=steps,
            read=lambda lane: (lane.total, lane.length, lane.state[0], lane.state[1]),
        )

    total, length, x, count = run(KEYS, POPULATION)
    np.testing.assert_array_equal(length, loop[1])
    np.testing.assert_array_equal(count, loop[1])
    np.testing.assert_allclose(total, loop[0], rtol=1e-5)  # sums of nine float32 numbers
    np.testing.assert_allclose(x, loop[2], rtol=1e-5)
