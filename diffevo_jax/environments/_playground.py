"""MuJoCo Playground's environments, on MJX."""

import importlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.checks import InputError, nearest
from diffevo_jax.environments._environment import Environment, Transition, check_names
from diffevo_jax.environments._keys import raw_key


@dataclass(frozen=True)
class Playground(Environment):
    """An environment of MuJoCo Playground's interface.

    overrides: of its config, that it was made with, and its name.
    """

    instance: Any
    registered: str
    overrides: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Take actions from -1 to 1, and the episode's length of its config."""
        most = np.ones(self.instance.action_size)
        object.__setattr__(self, "actions", (-most, most))
        object.__setattr__(self, "max_steps", int(self.instance._config.episode_length))

    @property
    def name(self) -> str:
        """Its name here, "playground/CartpoleBalance"."""
        return f"playground/{self.registered}"

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """Begin an episode; the state is Playground's."""
        state = self.instance.reset(raw_key(key))
        return _seen(state.obs), jax.tree.map(jnp.asarray, state)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
        """Take one step. `done` is the task's own end: no wrapper has cut the episode off."""
        state = self.instance.step(state, action)
        return Transition(_seen(state.obs), state, state.reward, state.done > 0)

    def replace(self, **params: Any) -> "Playground":
        """Make the environment anew with other values of its config."""
        return playground(self.registered, **{**dict(self.overrides), **params})


def playground(name: str, **overrides: Any) -> Playground:
    """Make an environment of MuJoCo Playground: `playground("CartpoleBalance")`.

    overrides: of its config, by name. `impl` is "jax" here, which runs under `vmap` on every
        device; "warp", Playground's own, wants NVIDIA's Warp.

    Policies see its observation, of several the one named "state". Robots download their meshes
    from MuJoCo's menagerie when they are first made.

    Raises InputError on an unknown name or an override that its config lacks.
    """
    try:
        registry: Any = importlib.import_module("mujoco_playground").registry
    except ModuleNotFoundError as error:
        message = f'playground/{name} needs {error.name}: pip install "diffevo-jax[playground]"'
        raise ModuleNotFoundError(message) from None

    names = registry.ALL_ENVS
    if name not in names:
        advice = nearest(name, names).removeprefix("; ")
        expected = f"playground/ and one of {', '.join(names)}"
        raise InputError("environment", expected, repr(name), advice)
    config = registry.get_default_config(name)
    check_names(f"playground/{name}", overrides, list(config.keys()))
    chosen = {**({"impl": "jax"} if "impl" in config else {}), **overrides}
    with jax.ensure_compile_time_eval():
        instance = registry.load(name, config_overrides=chosen)
    return Playground(instance, name, tuple(overrides.items()))


def _seen(observation: Any) -> jax.Array:
    return observation["state"] if hasattr(observation, "keys") else observation
