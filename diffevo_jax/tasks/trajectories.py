"""Whole episodes of chosen individuals, for pictures."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Count
from diffevo_jax.policies import Policy
from diffevo_jax.policies._policy import check_genomes
from diffevo_jax.tasks.rollout import episode_keys
from diffevo_jax.tasks.statistics import Statistics
from diffevo_jax.tasks.task import Task, check_fit, check_statistics, seen


class Trajectory(NamedTuple):
    """Whole episodes of K individuals; after its end an episode repeats its last observation.

    observations: as the environment gives them, `[K, E, T + 1, ...]`. actions: `[K, E, T, ...]`.
    rewards: `[K, E, T]`, 0 after the end. length: steps taken, `[K, E]`.
    states: the environment's, a pytree of `[K, E, T + 1, ...]`; () where they were not kept.
    """

    observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    length: jax.Array
    states: Any = ()


def make_trajectories(
    task: Task, policy: Policy, *, num_episodes: Count = 1
) -> Callable[..., Trajectory]:
    """Make the recording of chosen individuals: (key, population, individuals `[K]`) -> Trajectory.

    individuals: indices into the population. The episodes are those that `make_returns` rolls out
        with the same key and population; of a task of normalised observations it takes their
        statistics last. Memory grows with K, episodes and steps.
    """
    check_fit(task, policy, num_episodes)

    def episode(key: jax.Array, weights: Any, statistics: Statistics | None):
        key_reset, key_steps = jax.random.split(key)
        observation, state = task.reset(key_reset)

        def advance(carry, step: jax.Array):
            observation, state, memory, ended = carry
            new_memory, outputs = policy.apply(weights, memory, seen(task, statistics, observation))
            action = task.act(outputs)
            key = jax.random.fold_in(key_steps, step)
            new = task.step(key, state, action)
            observation, state, memory = jax.tree.map(
                lambda new, old: jnp.where(ended, old, new),
                (new.observation.astype(observation.dtype), new.state, new_memory),
                (observation, state, memory),
            )
            reward = jnp.where(ended, 0, new.reward)
            carry = (observation, state, memory, ended | new.terminated | new.truncated)
            return carry, (observation, state, action, reward, ~ended)

        start = (observation, state, policy.initial_state, jnp.asarray(False))
        _, (*after, actions, rewards, taken) = jax.lax.scan(
            advance, start, jnp.arange(task.max_steps)
        )
        observations, states = jax.tree.map(
            lambda first, later: jnp.concatenate([first[None], later]),
            (observation, state),
            (*after,),
        )
        return Trajectory(observations, actions, rewards, jnp.sum(taken), states)

    def trajectories(
        key: jax.Array,
        population: jax.Array,
        individuals: jax.Array,
        statistics: Statistics | None = None,
    ) -> Trajectory:
        check_genomes(policy, population)
        statistics = check_statistics(task, statistics)
        individuals = jnp.asarray(individuals)
        keys = episode_keys(key, len(population), num_episodes)[individuals]
        weights = jax.vmap(policy.unflatten)(population[individuals])
        over_episodes = jax.vmap(episode, (0, None, None))
        return jax.vmap(over_episodes, (0, 0, None))(keys, weights, statistics)

    return trajectories
