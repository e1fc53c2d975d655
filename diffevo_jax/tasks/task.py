"""An environment as a task for policies: what they see, and what they may do."""

import math
from typing import Any, Literal, NamedTuple, TypeGuard, get_args

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax import environments
from diffevo_jax.checks import (
    Count,
    InputError,
    call_in_jax,
    check_array,
    check_count,
    check_takes,
    check_tree,
)
from diffevo_jax.environments import Environment, Transition
from diffevo_jax.environments._environment import bounds, check_space, keep_shapes
from diffevo_jax.policies import Policy
from diffevo_jax.policies._policy import check_policy
from diffevo_jax.problem import check_memory
from diffevo_jax.tasks.fast_trig import with_fast_trig
from diffevo_jax.tasks.statistics import Statistics, normalise

# How policies see observations, see `make_task`.
Observations = Literal["scaled", "raw", "normalised"]


class Task(NamedTuple):
    """An environment and how policies meet it, see `make_task`; all else follows from these.

    environment: of `environments`. max_steps: steps after which an episode is cut off.
    observations: how policies see them. fast_trig: whether steps take the faster sines and cosines.
    cut: the limit that was asked for, the environment's own aside; None for no other.
    space_shape: of observations as the environment gives them, one-hot where they are discrete.
    """

    environment: Environment
    max_steps: int
    observations: Observations = "scaled"
    fast_trig: bool = True
    cut: int | None = None
    space_shape: tuple[int, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what a policy sees."""
        shape = self.space_shape
        return (math.prod(shape),) if self.observations == "scaled" else shape

    @property
    def num_inputs(self) -> int:
        """Numbers that a policy sees."""
        return math.prod(self.input_shape)

    @property
    def num_outputs(self) -> int:
        """Policy outputs: one for each discrete action, or component of a continuous one."""
        actions = self.environment.actions
        return int(actions) if _is_discrete(actions) else bounds(actions)[0].size

    @property
    def statistics(self) -> Statistics | None:
        """What normalises observations before any has been met, "scaled"; None if nothing does."""
        if self.observations != "normalised":
            return None
        shape, space = self.input_shape, self.environment.observations
        if _is_discrete(space):  # a one-hot vector, as it is
            mean, variance = np.zeros(shape), np.ones(shape)
        else:
            low, high = self._ends()
            mean, variance = (high + low) / 2, (high - low) ** 2 / 12
        return Statistics(*(jnp.asarray(value, float) for value in (0, mean, variance)))

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """Begin an episode: the observation as the environment gives it, and the state."""
        first = call_in_jax("environment", self.environment.reset, key)
        if not (isinstance(first, tuple) and len(first) == 2):
            expected = f"a reset of {self.environment.name} that returns (observation, state)"
            raise InputError("environment", expected, type(first).__name__)
        observation = check_array("environment", first[0], "a first observation that is an array")
        return observation, check_tree("environment", first[1])

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
        """Take one step of the environment, which neither begins anew nor is cut off.

        Raises InputError where it changes the state's shapes, or gives more than one reward.
        """
        name = self.environment.name

        def step(key: jax.Array, state: Any, action: jax.Array) -> Transition:
            new = call_in_jax("environment", self.environment.step, key, state, action)
            if not isinstance(new, Transition):
                expected = f"a step of {name} that returns a Transition"
                raise InputError("environment", expected, type(new).__name__)
            return check_tree("environment", new)

        def number(field: str, value: Any) -> jax.Array:
            value = check_array("environment", value, f"one {field} a step of {name}")
            if value.shape != ():
                raise InputError("environment", f"one {field} a step of {name}", value.shape)
            return value

        new = (with_fast_trig(step) if self.fast_trig else step)(key, state, action)
        reward = number("reward", new.reward).astype(float)
        ends = "terminated", "truncated"
        terminated, truncated = (number(end, getattr(new, end)).astype(bool) for end in ends)
        state = keep_shapes(name, state, new.state)
        return Transition(new.observation, state, reward, terminated, truncated)

    def act(self, outputs: jax.Array) -> jax.Array:
        """Return the action of policy outputs `[num_outputs]`: argmax, or tanh over the bounds."""
        actions = self.environment.actions
        if _is_discrete(actions):
            return jnp.argmax(outputs)
        low, high = (jnp.asarray(bound, float) for bound in bounds(actions))
        return (high + low) / 2 + (high - low) / 2 * jnp.tanh(outputs).reshape(low.shape)

    def observe(self, observation: jax.Array) -> jax.Array:
        """Return what a policy sees of an observation, in floating point."""
        space, name = self.environment.observations, self.environment.name
        expected = () if _is_discrete(space) else self.space_shape
        expected_text = f"observations of {name} of shape {expected}"
        observation = check_array("environment", observation, expected_text)
        if observation.shape != expected:
            raise InputError("environment", expected_text, observation.shape)
        if _is_discrete(space):
            return jax.nn.one_hot(observation, int(space))
        if self.observations != "scaled":
            return observation.astype(float)
        low, high = (bound.ravel() for bound in self._ends())
        # A constant component carries nothing and has no range to divide by: it becomes 0.
        gain = np.where(high > low, 2 * math.sqrt(3) / np.where(high > low, high - low, 1), 0.0)
        middle = (high + low) / 2
        return (jnp.ravel(observation) - jnp.asarray(middle, float)) * jnp.asarray(gain, float)

    def replace(self, **params: Any) -> "Task":
        """Return the task with other parameters of its environment, see its `replace`."""
        environment = self.environment.replace(**params)
        steps = _limit(environment, self.cut)
        return _with_shape(self._replace(environment=environment, max_steps=steps))

    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The bounds of observations, those that are missing or beyond 1000 in size taken as 1."""
        space = self.environment.observations
        if space is None:
            return np.full(self.space_shape, -1.0), np.ones(self.space_shape)
        low, high = bounds(space)
        return np.where(np.abs(low) > 1000, -1, low), np.where(np.abs(high) > 1000, 1, high)


def make_task(
    environment: Environment | str,
    *,
    max_steps: Count | None = 500,
    fast_trig: bool = True,
    observations: Observations = "scaled",
) -> Task:
    """Make the task of an environment with array or discrete observations and actions.

    environment: from `environments`; or a name, "CartPole-v1" of Gymnax, "brax/ant" of another.
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

    Raises InputError on an unknown name, an environment that has no limit where `max_steps` is
    None, and on spaces that a policy of plain outputs cannot serve.
    """
    if isinstance(environment, str):
        environment = environments.make(environment)
    if not isinstance(environment, Environment):
        is_class = isinstance(environment, type)
        advice = "call the class" if is_class else "subclass Environment"
        if hasattr(environment, "step_env"):
            advice = "wrap it: de.environments.gymnax(environment)"
        expected, kind = "a name, or one of de.environments", type(environment).__name__
        raise InputError("environment", expected, f"a {kind}", advice)
    name = environment.name
    check_takes("environment.reset", environment.reset, ("key",))
    check_takes("environment.step", environment.step, ("key", "state", "action"))
    check_space("actions", getattr(environment, "actions", None), name, finite=True)
    if environment.observations is not None:
        check_space("observations", environment.observations, name, finite=False)
    if max_steps is not None:
        check_count("max_steps", max_steps)
    if observations not in get_args(Observations):
        choices = ", ".join(map(repr, get_args(Observations)))
        raise InputError("observations", f"one of {choices}", repr(observations))
    steps = _limit(environment, max_steps)
    return _with_shape(Task(environment, steps, observations, fast_trig, max_steps))


def check_fit(task: Task, policy: Policy, num_episodes: int) -> None:
    """Raise InputError unless a policy sees and gives what the task does."""
    if not isinstance(task, Task):
        raise InputError("task", "a Task of make_task", f"{task!r:.60}")
    check_policy(policy)
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


def _limit(environment: Environment, cut: int | None) -> int:
    """Return the steps after which an episode is cut off, by whichever limit comes first."""
    both = cut, environment.max_steps
    limits = [check_count("max_steps", limit) for limit in both if limit is not None]
    if not limits:
        raise InputError("max_steps", f"a number of steps, {environment.name} has none", cut)
    return min(limits)


def _with_shape(task: Task) -> Task:
    """Fill in the shape of observations: a reset is traced once where the environment says none."""
    space = task.environment.observations
    if _is_discrete(space):
        return task._replace(space_shape=(int(space),))
    if space is not None:
        return task._replace(space_shape=bounds(space)[0].shape)
    shape = jax.eval_shape(task.reset, jax.random.key(0))[0].shape
    return task._replace(space_shape=shape)


def _is_discrete(space: Any) -> TypeGuard[int]:
    return isinstance(space, int | np.integer)
