"""Gymnax control tasks, rolled out on the device: genomes in, returns out."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.batch import individual_keys
from diffevo_jax.policies import Lanes, Policy
from diffevo_jax.problems import rollout
from diffevo_jax.problems.fast_trig import with_fast_trig


class Task(NamedTuple):
    """A Gymnax environment and what a policy for it must look like.

    environment, params: as `gymnax.make` returns them.
    step: (key, state, action) -> (observation, state, reward, ended, info), the environment's
        `step_env`, which neither resets nor truncates.
    num_inputs: observation size. num_outputs: policy outputs, one per discrete action or per
        component of a continuous one.
    act: policy outputs `[num_outputs]` -> action: argmax, or tanh scaled to the action bounds.
    scale: observation -> scaled observation `[num_inputs]`.
    max_steps: steps after which an episode is cut off.
    """

    environment: Any
    params: Any
    step: Callable[[jax.Array, Any, jax.Array], tuple]
    num_inputs: int
    num_outputs: int
    act: Callable[[jax.Array], jax.Array]
    scale: Callable[[jax.Array], jax.Array]
    max_steps: int


class Outcome(NamedTuple):
    """How episodes went.

    returns: sum of rewards, `[N, E]`. length: steps taken, `[N, E]`.
    final_state: the environment's state after the last step, a pytree of `[N, E, ...]`.
    """

    returns: jax.Array
    length: jax.Array
    final_state: Any


class Trajectory(NamedTuple):
    """Whole episodes of K individuals; after its end an episode repeats its last observation.

    observations: as the environment gives them, `[K, E, T + 1, ...]`. actions: `[K, E, T, ...]`.
    rewards: `[K, E, T]`, 0 after the end. length: steps taken, `[K, E]`.
    """

    observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    length: jax.Array


def make_task(name: str, *, max_steps: int | None = None, fast_trig: bool = True) -> Task:
    """Look up a Gymnax environment with array observations and discrete or box actions.

    name: a registered environment, for example "CartPole-v1".
    max_steps: cut episodes there; None keeps the environment's own limit. The published roll-outs
        stop at 500 or the environment's own limit, whichever comes first.
    fast_trig: on a CPU, take the sines and cosines of steps by a polynomial, to 2e-7, see
        `fast_trig`; False keeps XLA's, to 3e-8, at up to half the speed.

    Gymnax follows Gymnasium, with one difference known in its version 1.0.1: a car of
    MountainCarContinuous-v0 keeps its velocity at the left wall, where Gymnasium sets it to 0.

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
    with jax.ensure_compile_time_eval():  # known numbers, also where the caller is traced
        environment, params = gymnax.make(name)
        observation_space = environment.observation_space(params)
        action_space = environment.action_space(params)

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

    def step(key: jax.Array, state: Any, action: jax.Array):
        return environment.step_env(key, state, action, params)

    if fast_trig:
        step = with_fast_trig(step)

    limit = int(params.max_steps_in_episode)
    limit = limit if max_steps is None else min(limit, max_steps)
    return Task(environment, params, step, num_inputs, num_outputs, act, scale, limit)


def make_returns(
    task: Task,
    policy: Policy,
    *,
    num_episodes: int = 1,
    scaling: float = 1.0,
    chunk: int | None = None,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Make the roll-out: (key, population `[N, D]`) -> episode returns `[N, num_episodes]`.

    key: one for all, or one an individual, `[N]`: `jax.random.split(key, N)` does the same as key.

    The fitness of an individual is the mean over its episodes:

        returns = make_returns(task, policy)
        evolve(key, algorithm, lambda key, population: returns(key, population).mean(1), ...)

    policy: from `policies`, with the task's inputs and outputs. `policies.mlp` has its own form
        for many individuals at once; any other network runs under `vmap`.
    num_episodes: episodes per individual, each from a fresh initial state.
    scaling: factor on the genome before it fills the network.
    chunk: individuals rolled out together; one that has ended makes room for the next. At most the
        population. None takes, on a CPU, up to 128, fewer for large networks so that their weights
        stay in the cache, and elsewhere the whole population. It changes the time, not the results.

    A return is the sum of rewards up to and including the step that ends the episode; truncation
    at `task.max_steps` ends it too. Raises ValueError when policy and task do not fit.
    """
    return _roll_out(task, policy, num_episodes, scaling, chunk, lambda lanes: lanes.total)


def make_outcomes(
    task: Task,
    policy: Policy,
    *,
    num_episodes: int = 1,
    scaling: float = 1.0,
    chunk: int | None = None,
) -> Callable[[jax.Array, jax.Array], Outcome]:
    """Make the roll-out that also tells how episodes ended: (key, population) -> Outcome.

    Arguments and episodes are those of `make_returns`: the same key gives the same returns.
    """

    def read(lanes: rollout.Lanes) -> Outcome:
        return Outcome(lanes.total, lanes.length, lanes.state)

    return _roll_out(task, policy, num_episodes, scaling, chunk, read)


def make_trajectories(
    task: Task, policy: Policy, *, num_episodes: int = 1, scaling: float = 1.0
) -> Callable[[jax.Array, jax.Array, jax.Array], Trajectory]:
    """Make the recording of chosen individuals: (key, population, individuals `[K]`) -> Trajectory.

    individuals: indices into the population. The episodes are those that `make_returns` rolls out
        with the same key and population. Memory grows with K, episodes and steps.
    """
    _check_fit(task, policy, num_episodes)

    def episode(key: jax.Array, weights: Any):
        key_reset, key_steps = jax.random.split(key)
        observation, state = task.environment.reset_env(key_reset, task.params)
        state = jax.tree.map(jnp.asarray, state)

        def advance(carry, step: jax.Array):
            observation, state, ended = carry
            action = task.act(policy.apply(weights, task.scale(observation)))
            key = jax.random.fold_in(key_steps, step)
            new = task.step(key, state, action)
            observation, state = jax.tree.map(
                lambda new, old: jnp.where(ended, old, new).astype(old.dtype),
                new[:2],
                (observation, state),
            )
            reward = jnp.where(ended, 0, new[2])
            return (observation, state, ended | new[3]), (observation, action, reward, ~ended)

        start = (observation, state, jnp.asarray(False))
        _, (after, actions, rewards, taken) = jax.lax.scan(
            advance, start, jnp.arange(task.max_steps)
        )
        return Trajectory(
            jnp.concatenate([observation[None], after]), actions, rewards, jnp.sum(taken)
        )

    def trajectories(key: jax.Array, population: jax.Array, individuals: jax.Array) -> Trajectory:
        _check_population(policy, population)
        individuals = jnp.asarray(individuals)
        keys = _episode_keys(key, len(population), num_episodes)[individuals]
        weights = jax.vmap(policy.unflatten)(scaling * population[individuals])
        return jax.vmap(jax.vmap(episode, (0, None)))(keys, weights)

    return trajectories


def _roll_out(task, policy, num_episodes, scaling, chunk, read):
    _check_fit(task, policy, num_episodes)
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: expected at least 1; seen {chunk}")
    lanes = policy.lanes or _any_lanes(policy)

    def reset(key: jax.Array):
        observation, state = task.environment.reset_env(key, task.params)
        return task.scale(observation), jax.tree.map(jnp.asarray, state)

    # `task.step` neither resets nor truncates; `rollout` does what is needed of both.
    def step(key: jax.Array, state: Any, outputs: jax.Array):
        observation, state, reward, ended, _ = task.step(key, state, task.act(outputs))
        return task.scale(observation), state, reward, ended

    episodes = rollout.Episodes(
        reset, step, lambda genomes: lanes.load(scaling * genomes), lanes.apply, task.max_steps
    )

    def run(key: jax.Array, population: jax.Array):
        size = len(population)
        _check_population(policy, population)
        if chunk is not None and chunk > size:
            raise ValueError(
                f"chunk: expected at most the population's {size} individuals; seen {chunk}"
            )
        keys = _episode_keys(key, size, num_episodes)

        def on(settings: dict[str, Any]):
            return lambda keys, population: rollout.rollout(
                episodes, keys, population, read=read, **settings
            )

        return jax.lax.platform_dependent(
            keys,
            population,
            cpu=on(_cpu_settings(policy, size, chunk)),
            default=on(_accelerator_settings(size, chunk)),
        )

    return run


# Weights that roll out together on a CPU: about what a core's caches hold beside the rest.
CACHE_BYTES = 1024 * 1024

# An accelerator takes as long for a step of fewer lanes. No card has been timed.
LEAST_LANES = 2**14

# Steps between two waits of an accelerator's host. No card has been timed.
STEPS = 8


def _cpu_settings(policy: Policy, size: int, chunk: int | None) -> dict[str, Any]:
    """As many lanes as stay in the cache.

    Fewer lanes for the last individuals would be a second loop: they make an untrained population a
    third faster, and take half a second to compile.
    """
    if chunk is None:
        chunk = min(size, max(8, min(128, CACHE_BYTES // (4 * policy.num_genes))))
    return {"lanes": chunk}


def _accelerator_settings(size: int, chunk: int | None) -> dict[str, Any]:
    """All at once, to fill the device; half as many lanes each time that half have ended."""
    lanes = size if chunk is None else chunk
    narrower = []
    while (narrower or [lanes])[-1] // 2 >= LEAST_LANES:
        narrower.append((narrower or [lanes])[-1] // 2)
    return {"lanes": lanes, "narrower": narrower, "steps": STEPS}


def _any_lanes(policy: Policy) -> Lanes:
    """Any network for many genomes at once, by `vmap` over lanes and episodes."""
    apply = jax.vmap(jax.vmap(policy.apply, (None, 0)))
    return Lanes(
        jax.vmap(policy.unflatten), lambda weights, observations: apply(weights, observations.T).T
    )


def _episode_keys(key: jax.Array, num_individuals: int, num_episodes: int) -> jax.Array:
    """Keys `[N, num_episodes]`: an individual's depend on its index and N, not on the others."""
    keys = individual_keys(key, num_individuals)
    return jax.vmap(lambda key: jax.random.split(key, num_episodes))(keys)


def _check_fit(task: Task, policy: Policy, num_episodes: int) -> None:
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


def _check_population(policy: Policy, population: jax.Array) -> None:
    if population.ndim != 2 or population.shape[1] != policy.num_genes:
        raise ValueError(
            f"population: expected shape [N, D] with D = {policy.num_genes} genes; "
            f"seen {population.shape}"
        )
