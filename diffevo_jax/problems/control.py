"""Gymnax control tasks, rolled out on the device: genomes in, returns out."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.policies import Policy


class Task(NamedTuple):
    """A Gymnax environment and what a policy for it must look like.

    environment, params: as `gymnax.make` returns them.
    num_inputs: observation size. num_outputs: policy outputs, one per discrete action or per
        component of a continuous one.
    act: policy outputs `[num_outputs]` -> action: argmax, or tanh scaled to the action bounds.
    scale: observation -> scaled observation `[num_inputs]`.
    max_steps: steps after which an episode is cut off.
    """

    environment: Any
    params: Any
    num_inputs: int
    num_outputs: int
    act: Callable[[jax.Array], jax.Array]
    scale: Callable[[jax.Array], jax.Array]
    max_steps: int


def make_task(name: str, *, max_steps: int | None = None) -> Task:
    """Look up a Gymnax environment with array observations and discrete or box actions.

    name: a registered environment, for example "CartPole-v1".
    max_steps: cut episodes there; None keeps the environment's own limit. The published roll-outs
        stop at 500 or the environment's own limit, whichever comes first.

    Observations are scaled as published: sqrt(3) (2 (o - low) / (high - low) - 1), bounds beyond
    1000 in size taken as 1; for a uniform observation this is unit variance.

    Raises ValueError on an unknown name and on spaces that a policy of plain outputs cannot serve.
    """
    import gymnax
    from gymnax.environments import spaces

    if name not in gymnax.registered_envs:
        raise ValueError(
            f"environment: expected one of {', '.join(gymnax.registered_envs)}; seen {name!r}"
        )
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"max_steps: expected at least 1; seen {max_steps}")
    environment, params = gymnax.make(name)

    observation_space = environment.observation_space(params)
    if not isinstance(observation_space, spaces.Box):
        raise ValueError(
            f"environment: expected array observations; {name} has {observation_space!r}"
        )
    num_inputs = math.prod(observation_space.shape)
    low, high = (
        np.broadcast_to(np.asarray(bound, np.float64), observation_space.shape).ravel()
        for bound in (observation_space.low, observation_space.high)
    )
    low, high = np.where(np.abs(low) > 1000, -1, low), np.where(np.abs(high) > 1000, 1, high)
    # A constant component carries nothing and has no range to divide by: it becomes 0.
    gain = np.where(high > low, 2 * math.sqrt(3) / np.where(high > low, high - low, 1), 0.0)
    middle = (high + low) / 2

    def scale(observation: jax.Array) -> jax.Array:
        return (jnp.ravel(observation) - jnp.asarray(middle, float)) * jnp.asarray(gain, float)

    action_space = environment.action_space(params)
    if isinstance(action_space, spaces.Discrete):
        num_outputs = int(action_space.n)

        def act(outputs: jax.Array) -> jax.Array:
            return jnp.argmax(outputs)

    elif isinstance(action_space, spaces.Box):
        num_outputs = math.prod(action_space.shape)
        lowest, highest = (
            jnp.broadcast_to(jnp.asarray(bound, float), action_space.shape)
            for bound in (action_space.low, action_space.high)
        )

        def act(outputs: jax.Array) -> jax.Array:
            squashed = jnp.tanh(outputs).reshape(action_space.shape)
            return (highest + lowest) / 2 + (highest - lowest) / 2 * squashed

    else:
        raise ValueError(
            f"environment: expected discrete or box actions; {name} has {action_space}"
        )

    limit = int(params.max_steps_in_episode)
    limit = limit if max_steps is None else min(limit, max_steps)
    return Task(environment, params, num_inputs, num_outputs, act, scale, limit)


def make_returns(
    task: Task,
    policy: Policy,
    *,
    num_episodes: int = 1,
    scaling: float = 1.0,
    chunk: int | None = None,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Make the roll-out: (key, population `[N, D]`) -> episode returns `[N, num_episodes]`.

    The fitness of an individual is the mean over its episodes:

        returns = make_returns(task, policy)
        evolve(key, algorithm, lambda key, population: returns(key, population).mean(1), ...)

    policy: from `policies`, with the task's inputs and outputs.
    num_episodes: episodes per individual, each from a fresh initial state.
    scaling: factor on the genome before it fills the network.
    chunk: individuals rolled out together until the last of them has ended. None takes as many
        as keep their weights in about 512 KiB, so that they stay in a core's cache.

    A return is the sum of rewards up to and including the step that ends the episode; truncation
    at `task.max_steps` ends it too. Raises ValueError when policy and task do not fit.
    """
    for name, seen, expected in (
        ("inputs", policy.num_inputs, task.num_inputs),
        ("outputs", policy.num_outputs, task.num_outputs),
    ):
        if seen != expected:
            raise ValueError(
                f"policy: expected {expected} {name} for {task.environment.name}; seen {seen}"
            )
    if num_episodes < 1:
        raise ValueError(f"num_episodes: expected at least 1; seen {num_episodes}")
    if chunk is None:
        chunk = max(8, min(128, 512 * 1024 // (4 * policy.num_genes)))
    if chunk < 1:
        raise ValueError(f"chunk: expected at least 1; seen {chunk}")

    def individual_returns(key_and_genome: tuple[jax.Array, jax.Array]) -> jax.Array:
        key, genome = key_and_genome
        weights = policy.unflatten(scaling * genome)
        keys = jax.random.split(key, num_episodes)
        return jax.vmap(lambda key: _episode_return(task, policy, key, weights))(keys)

    def returns(key: jax.Array, population: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(population))
        size = min(chunk, len(population))
        return jax.lax.map(individual_returns, (keys, population), batch_size=size)

    return returns


def _episode_return(task: Task, policy: Policy, key: jax.Array, weights: Any) -> jax.Array:
    """Return of one episode, `[]`; under `vmap` the loop ends with the last episode's end."""
    key_reset, key_steps = jax.random.split(key)
    observation, state = task.environment.reset_env(key_reset, task.params)

    def running(carry) -> jax.Array:
        steps, _, _, _, ended = carry
        return ~ended & (steps < task.max_steps)

    # `step_env` neither resets nor truncates: both are the loop's condition here.
    def advance(carry):
        steps, observation, state, total, _ = carry
        action = task.act(policy.apply(weights, task.scale(observation)))
        key = jax.random.fold_in(key_steps, steps)
        next_observation, next_state, reward, ended, _ = task.environment.step_env(
            key, state, action, task.params
        )
        next_state = jax.tree.map(lambda new, old: new.astype(old.dtype), next_state, state)
        return steps + 1, next_observation, next_state, total + reward, ended

    state = jax.tree.map(jnp.asarray, state)
    start = (jnp.zeros((), jnp.int32), observation, state, jnp.zeros(()), jnp.asarray(False))
    return jax.lax.while_loop(running, advance, start)[3]
