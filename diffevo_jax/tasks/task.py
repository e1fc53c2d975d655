"""A Gymnax environment as a task for policies: what they see, and what they may do."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.checks import Count, InputError, check_count, nearest
from diffevo_jax.policies import Policy
from diffevo_jax.problem import check_memory
from diffevo_jax.tasks.fast_trig import with_fast_trig
from diffevo_jax.tasks.statistics import Statistics, normalise

# Registered environments that cannot be tasks, and why.
REFUSED = {
    "MNISTBandit-bsuite": "Gymnax downloads MNIST as it makes it, and reads its pixels as int8, "
    "so that bright ones become negative"
}


# How policies see observations, see `make_task`.
Observations = Literal["scaled", "raw", "normalised"]


class Task(NamedTuple):
    """A Gymnax environment and what a policy for it must look like.

    environment, params: as `gymnax.make` returns them.
    step: (key, state, action) -> (observation, state, reward, ended, info), the environment's
        `step_env`, which neither resets nor truncates.
    terminated: state -> whether the environment's own rule ends an episode there.
    input_shape: shape of what a policy sees. num_outputs: policy outputs, one per discrete action
        or per component of a continuous one.
    act: policy outputs `[num_outputs]` -> action: argmax, or tanh scaled to the action bounds.
    observe: observation, as the environment gives it -> what a policy sees, in floating point.
    max_steps: steps after which an episode is cut off.
    statistics: what normalises the observations before any has been met; None: they are not
        normalised.
    """

    environment: Any
    params: Any
    step: Callable[[jax.Array, Any, jax.Array], tuple]
    terminated: Callable[[Any], jax.Array]
    input_shape: tuple[int, ...]
    num_outputs: int
    act: Callable[[jax.Array], jax.Array]
    observe: Callable[[jax.Array], jax.Array]
    max_steps: int
    statistics: Statistics | None = None

    @property
    def num_inputs(self) -> int:
        """Numbers that a policy sees."""
        return math.prod(self.input_shape)


def make_task(
    name: str,
    *,
    max_steps: Count | None = 500,
    fast_trig: bool = True,
    observations: Observations = "scaled",
) -> Task:
    """Look up a Gymnax environment with array or discrete observations and actions.

    name: a registered environment, for example "CartPole-v1".
    max_steps: cut episodes there, or at the environment's own limit where that comes first; 500 is
        the published one, None keeps the environment's own.
    fast_trig: on a CPU, take the sines and cosines of steps by a polynomial, to 2e-7, see
        `fast_trig`; False keeps XLA's, to 3e-8, at up to half the speed.
    observations: "scaled" gives policies a vector, scaled as published: sqrt(3) (2 (o - low) /
        (high - low) - 1), bounds beyond 1000 in size taken as 1; for a uniform observation this is
        unit variance. "raw" gives the environment's numbers in their own shape, such as the
        `[10, 10, C]` of MinAtar's images. "normalised" keeps that shape and takes each number by
        the mean and deviation of all observations so far, see `Statistics`: a problem's memory,
        which begins at the scaling of "scaled". Discrete observations are one-hot vectors.

    Gymnax follows Gymnasium, with one difference known in its version 1.0.1: a car of
    MountainCarContinuous-v0 keeps its velocity at the left wall, where Gymnasium sets it to 0.

    Raises InputError on an unknown name, on environments in `REFUSED`, with the reason, and on
    spaces that a policy of plain outputs cannot serve.
    """
    try:
        import gymnax
    except ModuleNotFoundError as error:
        message = f'control tasks need gymnax ({error}): pip install "diffevo-jax[control]"'
        raise ModuleNotFoundError(message) from None

    if name not in gymnax.registered_envs:
        names = gymnax.registered_envs
        advice = nearest(name, names).removeprefix("; ")
        raise InputError("environment", f"one of {', '.join(names)}", repr(name), advice)
    if name in REFUSED:
        raise InputError("environment", "one that can be a task", repr(name), REFUSED[name])
    if max_steps is not None:
        check_count("max_steps", max_steps)
    if observations not in get_args(Observations):
        choices = ", ".join(map(repr, get_args(Observations)))
        raise InputError("observations", f"one of {choices}", repr(observations))
    with jax.ensure_compile_time_eval():  # known numbers, also where the caller is traced
        environment, params = gymnax.make(name)
        space = environment.observation_space(params)
        input_shape, observe = _observe(name, space, scaled=observations == "scaled")
        statistics = _statistics(space, input_shape) if observations == "normalised" else None
        num_outputs, act = _act(name, environment.action_space(params))

    def step(key: jax.Array, state: Any, action: jax.Array):
        return environment.step_env(key, state, action, params)

    def terminated(state: Any) -> jax.Array:
        return jnp.asarray(environment.is_terminated(state, params), bool)

    if fast_trig:
        step, terminated = with_fast_trig(step), with_fast_trig(terminated)

    limit = int(params.max_steps_in_episode)
    return Task(
        environment=environment,
        params=params,
        step=step,
        terminated=terminated,
        input_shape=input_shape,
        num_outputs=num_outputs,
        act=act,
        observe=observe,
        max_steps=limit if max_steps is None else min(limit, max_steps),
        statistics=statistics,
    )


def check_fit(task: Task, policy: Policy, num_episodes: int) -> None:
    """Raise InputError unless a policy sees and gives what the task does."""
    if policy.input_shape != task.input_shape:
        expected = f"inputs of shape {task.input_shape} for {task.environment.name}"
        raise InputError("policy", expected, policy.input_shape)
    if policy.num_outputs != task.num_outputs:
        expected = f"{task.num_outputs} outputs for {task.environment.name}"
        raise InputError("policy", expected, policy.num_outputs)
    check_count("num_episodes", num_episodes)


def check_statistics(task: Task, statistics: Statistics | None) -> Statistics | None:
    """Return the statistics for a task, None where it has none; raise InputError on others."""
    if task.statistics is None:
        if statistics not in (None, ()):
            expected = "none, for observations that are not normalised"
            raise InputError("statistics", expected, type(statistics).__name__)
        return None
    shape = getattr(check_memory("statistics", statistics), "mean", np.zeros(())).shape
    if not isinstance(statistics, Statistics) or shape != task.input_shape:
        expected = f"Statistics of observations of shape {task.input_shape}"
        raise InputError("statistics", expected, f"{type(statistics).__name__} of shape {shape}")
    return statistics


def seen(task: Task, statistics: Statistics | None, observation: jax.Array) -> jax.Array:
    """Return what a policy sees of an observation of the environment's."""
    observation = task.observe(observation)
    return observation if statistics is None else normalise(statistics, observation)


def _observe(name: str, space: Any, *, scaled: bool) -> tuple[tuple[int, ...], Callable]:
    """Return the shape of what a policy sees of a space's observations, and how it sees them."""
    from gymnax.environments import spaces

    if isinstance(space, spaces.Discrete):
        return (space.n,), lambda observation: jax.nn.one_hot(observation, space.n)
    if not isinstance(space, spaces.Box):
        raise InputError("environment", "array or discrete observations", f"{space!r} of {name}")
    if not scaled:
        return tuple(space.shape), lambda observation: jnp.asarray(observation, float)
    low, high = (bound.ravel() for bound in _bounds(space))
    # A constant component carries nothing and has no range to divide by: it becomes 0.
    gain = np.where(high > low, 2 * math.sqrt(3) / np.where(high > low, high - low, 1), 0.0)
    middle = (high + low) / 2

    def scale(observation: jax.Array) -> jax.Array:
        return (jnp.ravel(observation) - jnp.asarray(middle, float)) * jnp.asarray(gain, float)

    return (math.prod(space.shape),), scale


def _bounds(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of a box, `space.shape`, those beyond 1000 in size taken as 1."""
    low, high = (
        np.broadcast_to(np.asarray(bound, np.float64), space.shape)
        for bound in (space.low, space.high)
    )
    return np.where(np.abs(low) > 1000, -1, low), np.where(np.abs(high) > 1000, 1, high)


def _statistics(space: Any, shape: tuple[int, ...]) -> Statistics:
    """Return the statistics before any observation: those by which "scaled" scales."""
    from gymnax.environments import spaces

    if isinstance(space, spaces.Box):
        low, high = _bounds(space)
        mean, variance = (high + low) / 2, (high - low) ** 2 / 12
    else:  # a one-hot vector, as it is
        mean, variance = np.zeros(shape), np.ones(shape)
    return Statistics(*(jnp.asarray(value, float) for value in (0, mean, variance)))


def _act(name: str, space: Any) -> tuple[int, Callable[[jax.Array], jax.Array]]:
    """Return how many outputs a space's actions take, and how they become an action."""
    from gymnax.environments import spaces

    if isinstance(space, spaces.Discrete):
        return int(space.n), jnp.argmax
    if not isinstance(space, spaces.Box):
        raise InputError("environment", "discrete or box actions", f"{space!r} of {name}")
    lowest, highest = (
        jnp.broadcast_to(jnp.asarray(bound, float), space.shape)
        for bound in (space.low, space.high)
    )

    def squash(outputs: jax.Array) -> jax.Array:
        squashed = jnp.tanh(outputs).reshape(space.shape)
        return (highest + lowest) / 2 + (highest - lowest) / 2 * squashed

    return math.prod(space.shape), squash
