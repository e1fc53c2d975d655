"""Gymnax's environments."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.checks import InputError, nearest
from diffevo_jax.environments._environment import Environment, Space, Transition, check_names

# Registered environments that cannot be tasks, and why.
REFUSED = {
    "MNISTBandit-bsuite": "Gymnax downloads MNIST as it makes it, and reads its pixels as int8, "
    "so that bright ones become negative"
}


@dataclass(frozen=True)
class Gymnax(Environment):
    """An environment of Gymnax's interface; its parameters are the fields of `params`."""

    instance: Any
    params: Any

    def __post_init__(self) -> None:
        """Read the spaces off it."""
        with jax.ensure_compile_time_eval():  # known numbers, also where the caller is traced
            actions = _space("actions", self, self.instance.action_space(self.params))
            observed = _space("observations", self, self.instance.observation_space(self.params))
        object.__setattr__(self, "actions", actions)
        object.__setattr__(self, "observations", observed)
        object.__setattr__(self, "max_steps", int(self.params.max_steps_in_episode))

    @property
    def name(self) -> str:
        """The instance's."""
        return str(self.instance.name)

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """Begin an episode."""
        observation, state = self.instance.reset_env(key, self.params)
        return observation, jax.tree.map(jnp.asarray, state)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
        """Take one step of `step_env`, which neither resets nor truncates."""
        return Transition(*self.instance.step_env(key, state, action, self.params)[:4])

    def replace(self, **params: Any) -> "Gymnax":
        """Return the environment with other values of Gymnax's parameters."""
        check_names(self.name, params, list(vars(self.params)))
        return Gymnax(self.instance, self.params.replace(**params))


def gymnax(environment: Any, params: Any = None, **values: Any) -> Gymnax:
    """Take an environment of Gymnax: `gymnax("Pendulum-v1", max_torque=1.0)`.

    environment: a registered name, or an instance of your own class of Gymnax's interface.
    params: its parameters, the environment's own unless given; and values of some of them by name.

    Gymnax follows Gymnasium, with one difference known in its version 1.0.1: a car of
    MountainCarContinuous-v0 keeps its velocity at the left wall, where Gymnasium sets it to 0.

    Raises InputError on an unknown name, on environments in `REFUSED`, with the reason, and on
    spaces that a policy of plain outputs cannot serve.
    """
    if isinstance(environment, str):
        environment, default = _registered(environment)
    elif not hasattr(environment, "step_env"):
        expected = "a name, or an instance of Gymnax's interface"
        raise InputError("environment", expected, f"{environment!r:.80}")
    else:
        default = environment.default_params
    made = Gymnax(environment, default if params is None else params)
    return made.replace(**values) if values else made


def _registered(name: str) -> tuple[Any, Any]:
    """Return a registered environment and its parameters."""
    try:
        import gymnax as library
    except ModuleNotFoundError as error:
        message = f'control tasks need gymnax ({error}): pip install "diffevo-jax[control]"'
        raise ModuleNotFoundError(message) from None

    if name not in library.registered_envs:
        names = library.registered_envs
        advice = nearest(name, names).removeprefix("; ")
        raise InputError("environment", f"one of {', '.join(names)}", repr(name), advice)
    if name in REFUSED:
        raise InputError("environment", "one that can be a task", repr(name), REFUSED[name])
    with jax.ensure_compile_time_eval():
        return library.make(name)


def _space(kind: str, environment: Gymnax, space: Any) -> Space:
    from gymnax.environments import spaces

    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.Box):
        low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
        return np.broadcast_to(low, space.shape), np.broadcast_to(high, space.shape)
    expected = f"array or discrete {kind}"
    raise InputError("environment", expected, f"{space!r} of {environment.name}")
