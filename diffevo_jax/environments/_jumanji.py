"""Jumanji's environments."""

import importlib
import inspect
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.checks import InputError, nearest
from diffevo_jax.environments._environment import Environment, Transition, check_names
from diffevo_jax.environments._keys import raw_key


@dataclass(frozen=True)
class Jumanji(Environment):
    """An environment of Jumanji's interface. settings: those that it was made with, and its name.

    Policies see all of an observation's arrays in one vector, the mask of allowed actions with
    them; an action that is not allowed does what the environment says.
    """

    instance: Any
    registered: str
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Read the actions off it, and the limit of its time where it has one."""
        spec = self.instance.action_spec
        if hasattr(spec, "num_values") and np.ndim(spec.num_values) == 0:
            actions = int(spec.num_values)
        elif hasattr(spec, "num_values") or not hasattr(spec, "minimum"):
            expected = "one choice, or an array, as an action"
            raise InputError("environment", expected, f"{spec!s:.80} of {self.name}")
        else:
            actions = tuple(
                np.broadcast_to(end, spec.shape) for end in (spec.minimum, spec.maximum)
            )
        object.__setattr__(self, "actions", actions)
        limit = getattr(self.instance, "time_limit", None)
        object.__setattr__(self, "max_steps", None if limit is None else int(limit))

    @property
    def name(self) -> str:
        """Its name here, "jumanji/Snake-v1"."""
        return f"jumanji/{self.registered}"

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """Begin an episode; the state is Jumanji's."""
        state, first = self.instance.reset(raw_key(key))
        return _vector(first.observation), jax.tree.map(jnp.asarray, state)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
        """Take one step; a last one with a discount left is cut off, another has ended."""
        state, taken = self.instance.step(state, action)
        goes_on = taken.discount > 0
        return Transition(
            *(_vector(taken.observation), state, taken.reward),
            *(taken.last() & ~goes_on, taken.last() & goes_on),
        )

    def replace(self, **params: Any) -> "Jumanji":
        """Make the environment anew with other settings."""
        return jumanji(self.registered, **{**dict(self.settings), **params})


def jumanji(name: str, **settings: Any) -> Jumanji:
    """Make an environment of Jumanji: `jumanji("Snake-v1", num_rows=6)`.

    settings: of its class.

    Raises InputError on an unknown name or setting, and on actions of several choices at once,
    which a policy of plain outputs does not give.
    """
    try:
        library: Any = importlib.import_module("jumanji")
    except ModuleNotFoundError as error:
        message = f'jumanji/{name} needs {error.name}: pip install "diffevo-jax[jumanji]"'
        raise ModuleNotFoundError(message) from None

    names = sorted(library.registered_environments())
    if name not in names:
        advice = nearest(name, names).removeprefix("; ")
        expected = f"jumanji/ and one of {', '.join(names)}"
        raise InputError("environment", expected, repr(name), advice)
    with jax.ensure_compile_time_eval():
        instance: Any = library.make(name)
        if settings:
            known = list(inspect.signature(type(instance)).parameters)
            check_names(f"jumanji/{name}", settings, known)
            instance = library.make(name, **settings)
    return Jumanji(instance, name, tuple(settings.items()))


def _vector(observation: Any) -> jax.Array:
    leaves = jax.tree.leaves(observation)
    return jnp.concatenate([jnp.ravel(leaf).astype(float) for leaf in leaves])
