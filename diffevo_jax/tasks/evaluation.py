"""Control tasks, rolled out on the device: genomes in, returns out."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from diffevo_jax.batch import individual_keys
from diffevo_jax.checks import Count, InputError, Number, check_count, check_number
from diffevo_jax.environments import Transition
from diffevo_jax.policies import Batched, Policy
from diffevo_jax.policies._policy import check_genomes
from diffevo_jax.problem import Problem
from diffevo_jax.sharding import over_individuals
from diffevo_jax.tasks import rollout
from diffevo_jax.tasks.statistics import Statistics, advice, merge, normalise, pool
from diffevo_jax.tasks.task import Task as Task
from diffevo_jax.tasks.task import check_fit, check_statistics
from diffevo_jax.tasks.task import make_task as make_task
from diffevo_jax.tasks.trajectories import Trajectory as Trajectory
from diffevo_jax.tasks.trajectories import make_trajectories as make_trajectories


class Outcome(NamedTuple):
    """How episodes went.

    returns: sum of rewards, `[N, E]`. length: steps taken, `[N, E]`.
    final_state: the environment's state after the last step, a pytree of `[N, E, ...]`.
    """

    returns: jax.Array
    length: jax.Array
    final_state: Any


def make_returns(
    task: Task,
    policy: Policy,
    *,
    num_episodes: Count = 1,
    chunk: Count | None = None,
) -> Callable[..., jax.Array]:
    """Make the roll-out: (key, population `[N, D]`) -> episode returns `[N, num_episodes]`.

    Of a task of normalised observations it takes (key, population, statistics).

    key: one key, or keys `[N]` of the individuals; `jax.random.split(key, N)` gives what key gives.

    The fitness of an individual is the mean over its episodes:

        returns = make_returns(task, policy)
        evolve(key, algorithm, lambda key, x: returns(key, x).mean(1), ..., has_key=True)

    policy: from `policies`, with the task's inputs and outputs; `policies.scaled` multiplies its
        genomes. `policies.mlp` has its own form for many individuals at once; any other network
        runs under `vmap`.
    num_episodes: episodes per individual, each from a fresh initial state.
    chunk: individuals rolled out together; one that has ended makes room for the next. At most the
        population. None takes, on a CPU, up to 128, fewer for large networks so that their weights
        stay in the cache, and elsewhere the whole population. It changes the time, not the results.

    A return is the sum of rewards up to and including the step that ends the episode; truncation,
    by the environment or at `task.max_steps`, ends it too.

    Raises InputError when policy and task do not fit.
    """
    return _roll_out(task, policy, num_episodes, chunk, lambda lanes: lanes.total)


def make_outcomes(
    task: Task,
    policy: Policy,
    *,
    num_episodes: Count = 1,
    chunk: Count | None = None,
) -> Callable[..., Outcome]:
    """Make the roll-out that also says how episodes ended: (key, population) -> Outcome.

    Arguments and episodes are those of `make_returns`: the same key gives the same returns.
    """

    def read(lanes: rollout.Lanes) -> Outcome:
        return Outcome(lanes.total, lanes.length, lanes.state)

    return _roll_out(task, policy, num_episodes, chunk, read)


def make_fitness(
    task: Task,
    policy: Policy,
    *,
    num_episodes: Count = 1,
    success: Number | Literal["goal"] | None = None,
    shared_starts: Count | None = None,
    mesh: Mesh | None = None,
) -> Callable[..., Any]:
    """Make a fitness for `evolve(..., has_key=True, has_aux=True)` that says who succeeded.

    It is (key, population `[N, D]`) -> (mean return `[N]`, {"success": share of an individual's
    episodes, `[N]`}). Keys and episodes are those of `make_returns`. Of a task of normalised
    observations it is (key, statistics, population) -> (statistics, the same): the new ones have
    this call's observations too. A `Problem` carries them along.

    success: an episode succeeds with at least this return, or with "goal" where the task's own rule
        ends it by its last step: for tasks that end at a goal, not at a fall.
        None leaves it out: the dict is {}.
    shared_starts: M; individual i has the episodes, starts and noise, of i mod M, fresh in each
        call. Its fitness is its mean return less the median of those with the same episodes, plus
        that of all: luck at the start does not select. The mean return itself is aux "returns".
        None gives each individual episodes of its own.
    mesh: split the individuals over all axes of this mesh; None keeps them where they are.

    Raises InputError when policy and task do not fit, and on another success.
    """
    if isinstance(success, str) and success != "goal":
        raise InputError("success", "a return, 'goal' or None", repr(success))
    if not isinstance(success, str) and success is not None:
        check_number("success", success, -math.inf, math.inf, closed="()")

    def read(lanes: rollout.Lanes) -> tuple[jax.Array, dict[str, jax.Array]]:
        if success is None:
            return lanes.total, {}
        if isinstance(success, str):
            return lanes.total, {"success": lanes.terminated}
        return lanes.total, {"success": lanes.total >= success}

    if shared_starts is not None:
        check_count("shared_starts", shared_starts)

    def with_moments(lanes: rollout.Lanes) -> Any:
        return read(lanes), (lanes.length, *lanes.moments) if lanes.moments else ()

    check_fit(task, policy, num_episodes)
    kept = {"gather": task.statistics is not None, "goal": success == "goal"}
    episodes = _roll_out(task, policy, num_episodes, None, with_moments, **kept)

    def mean_outcome(key: jax.Array, individuals: tuple[jax.Array, jax.Array], *statistics: Any):
        outcome, moments = episodes(*individuals, *statistics)
        return jax.tree.map(lambda x: jnp.mean(x, axis=1), outcome), moments

    run = mean_outcome if mesh is None else over_individuals(mean_outcome, mesh)

    def evaluate(key: jax.Array, population: jax.Array, *statistics: Any):
        size = len(population)
        if shared_starts is None:
            return run(key, (individual_keys(key, size), population), *statistics)
        if 2 * shared_starts > size:
            expected = f"at most half of the population's {size} individuals"
            raise InputError("shared_starts", expected, shared_starts)
        start = jnp.arange(size) % shared_starts
        keys = jax.random.split(key, shared_starts)[start]
        (returns, aux), moments = run(key, (keys, population), *statistics)
        # One column for each start; NaN fills up the last row.
        rows = jnp.pad(returns, (0, -size % shared_starts), constant_values=jnp.nan)
        baseline = jnp.nanmedian(rows.reshape(-1, shared_starts), axis=0)[start]
        fitness = returns - baseline + jnp.nanmedian(returns)
        return (fitness, {**aux, "returns": returns}), moments

    def fitness(key: jax.Array, population: jax.Array):
        return evaluate(key, population)[0]

    def normalised_fitness(key: jax.Array, statistics: Statistics, population: jax.Array):
        result, moments = evaluate(key, population, statistics)
        episodes = (value.reshape(-1, *value.shape[2:]) for value in moments)
        return merge(statistics, pool(*episodes)), result

    return fitness if task.statistics is None else normalised_fitness


def make_problem(
    task: Task,
    policy: Policy,
    *,
    num_episodes: Count = 1,
    success: Number | Literal["goal"] | None = None,
    shared_starts: Count | None = None,
    mesh: Mesh | None = None,
) -> Problem:
    """Make the problem of a task and a policy; arguments are those of `make_fitness`.

    Its `reevaluate` gives each individual an episode of its own. Of a task of normalised
    observations it has a memory, their `Statistics`.
    """
    fitness_fn = make_fitness(
        task,
        policy,
        num_episodes=num_episodes,
        success=success,
        shared_starts=shared_starts,
        mesh=mesh,
    )
    once, statistics = make_fitness(task, policy, success=success), task.statistics
    problem = Problem(policy.num_genes, fitness_fn, has_key=True, has_aux=True, reevaluate=once)
    if statistics is None:
        return problem

    def reevaluate(key: jax.Array, statistics: Statistics, population: jax.Array):
        return once(key, statistics, population)[1]

    return problem._replace(reevaluate=reevaluate, init=lambda key: statistics, advice=advice)


def _roll_out(task, policy, num_episodes, chunk, read, **kept: bool):
    check_fit(task, policy, num_episodes)
    if chunk is not None:
        check_count("chunk", chunk)
    network = policy.batched or _any_batched(policy)

    def reset(key: jax.Array):
        observation, state = task.reset(key)
        return task.observe(observation), state

    def step(key: jax.Array, state: Any, outputs: jax.Array) -> Transition:
        new = task.step(key, state, task.act(outputs))
        return new._replace(observation=task.observe(new.observation))

    episodes = rollout.Episodes(
        reset=reset,
        step=step,
        memory=policy.initial_state,
        load=network.load,
        apply=network.apply,
        max_steps=task.max_steps,
    )

    def seeing(statistics: Statistics | None) -> rollout.Episodes:
        if statistics is None:
            return episodes
        over = jax.tree.map(lambda value: value[..., None, None], statistics)

        def apply(weights: Any, memory: Any, observation: jax.Array):
            return network.apply(weights, memory, normalise(over, observation))

        return episodes._replace(apply=apply)

    def run(key: jax.Array, population: jax.Array, statistics: Statistics | None = None):
        size = len(population)
        check_genomes(policy, population)
        statistics = check_statistics(task, statistics)
        if chunk is not None and chunk > size:
            raise InputError("chunk", f"at most the population's {size} individuals", chunk)
        keys = rollout.episode_keys(key, size, num_episodes)

        def with_settings(settings: dict[str, Any]):
            return lambda keys, population, statistics: rollout.rollout(
                seeing(statistics), keys, population, read=read, **kept, **settings
            )

        return jax.lax.platform_dependent(
            keys,
            population,
            statistics,
            cpu=with_settings(_cpu_settings(policy, size, chunk)),
            default=with_settings(_accelerator_settings(size, chunk)),
        )

    return run


# Size of the weights that roll out together on a CPU: a core's caches hold about as much beside
# the rest.
CACHE_BYTES = 1024 * 1024

# A step of fewer lanes takes an accelerator as long. No card has been timed.
LEAST_LANES = 2**14

# Steps between two waits of an accelerator's host. No card has been timed.
STEPS = 8


def _cpu_settings(policy: Policy, size: int, chunk: int | None) -> dict[str, Any]:
    """Take as many lanes as stay in the cache.

    Fewer lanes for the last individuals would be a second loop: they make an untrained population a
    third faster, and take half a second to compile.
    """
    if chunk is None:
        chunk = min(size, max(8, min(128, CACHE_BYTES // (4 * policy.num_genes))))
    return {"lanes": chunk}


def _accelerator_settings(size: int, chunk: int | None) -> dict[str, Any]:
    """Take all lanes at once, to fill the device, and half as many when half have ended."""
    lanes = size if chunk is None else chunk
    narrower = []
    while (narrower or [lanes])[-1] // 2 >= LEAST_LANES:
        narrower.append((narrower or [lanes])[-1] // 2)
    return {"lanes": lanes, "narrower": narrower, "steps": STEPS}


def _any_batched(policy: Policy) -> Batched:
    """Apply any network to many genomes at once, by `vmap` over lanes and episodes."""
    over_episodes = jax.vmap(policy.apply, (None, -1, -1), -1)
    return Batched(jax.vmap(policy.unflatten), jax.vmap(over_episodes, (0, -1, -1), -1))
