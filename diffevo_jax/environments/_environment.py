"""What an environment is: a start, a step, and what goes in and out of it."""

import dataclasses
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffevo_jax.checks import InputError, nearest

# A number of choices, or the lowest and the highest values, in the shape that one has.
Space = int | tuple[ArrayLike, ArrayLike]


class Transition(NamedTuple):
    """What a step leads to.

    observation: what can be seen then, an array. state: a pytree of arrays, whose shapes and dtypes
        no step changes. reward: of the step, `[]`.
    terminated: whether the environment's own rule ends the episode, a goal or a fall. truncated:
        whether something else does, such as a limit of its time.
    """

    observation: jax.Array
    state: Any
    reward: jax.Array | float
    terminated: jax.Array | bool = False
    truncated: jax.Array | bool = False


class Environment:
    """A world for policies; subclass it for one of your own.

        class Balance(de.environments.Environment):
            actions = (-np.ones(1), np.ones(1))

            def reset(self, key):
                state = jax.random.uniform(key, (2,), minval=-0.1, maxval=0.1)
                return state, state

            def step(self, key, state, action):
                angle, speed = state
                speed = speed + 0.05 * (10 * jnp.sin(angle) + 10 * action[0])
                state = jnp.stack([angle + 0.05 * speed, speed])
                return de.environments.Transition(state, state, 1.0, jnp.abs(angle) > 1)

        task = de.tasks.make_task(Balance(), max_steps=200)

    Its methods are functions in JAX, of one episode: roll-outs take `vmap` of them. A frozen
    dataclass has parameters, of which `replace` makes another environment.

    actions: what a step takes, a number of choices or (lowest, highest) of an array, finite.
    observations: bounds of the observations in the same way, None where they have none.
    max_steps: after which an episode is cut off, None where no number is its own.
    """

    actions: Space
    observations: Space | None = None
    max_steps: int | None = None

    @property
    def name(self) -> str:
        """What messages and titles call it."""
        return type(self).__name__

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """Begin an episode: the first observation, and the state."""
        raise NotImplementedError

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
        """Take one step; what ends an episode is for the caller to heed."""
        raise NotImplementedError

    def replace(self, **params: Any) -> Self:
        """Return the environment with other parameters; raise InputError on one that it lacks."""
        names = []
        if dataclasses.is_dataclass(self):
            names = [each.name for each in dataclasses.fields(self) if each.init]
        check_names(self.name, params, names)
        return dataclasses.replace(self, **params)  # pyright: ignore[reportArgumentType]


def check_names(environment: str, params: dict[str, Any], names: list[str]) -> None:
    """Raise InputError on a parameter that an environment lacks."""
    for name in params.keys() - set(names):
        expected = f"a parameter of {environment}, {', '.join(names) or 'which has none'}"
        advice = nearest(name, names).removeprefix("; ")
        raise InputError(name, expected, repr(params[name]), advice)


def check_space(name: str, space: Any, environment: str, *, finite: bool) -> None:
    """Raise InputError unless a space is a number of choices, or bounds that make sense.

    finite: whether the bounds have to be.
    """
    expected = f"a number of choices or (lowest, highest) for {environment}"
    if isinstance(space, int | np.integer) and not isinstance(space, bool) and space > 0:
        return
    if not isinstance(space, tuple | list) or len(space) != 2:
        raise InputError(name, expected, f"{space!r:.80}")
    try:
        low, high = (np.asarray(bound, np.float64) for bound in space)
        np.broadcast_shapes(low.shape, high.shape)
    except (TypeError, ValueError):
        raise InputError(name, expected, f"{space!r:.80}") from None
    if not np.all(low <= high) or (finite and not np.all(np.isfinite(low) & np.isfinite(high))):
        ordered = f"lowest values below the highest{', all finite' if finite else ''}"
        raise InputError(name, ordered, f"{low.tolist()!s:.40} and {high.tolist()!s:.40}")


def bounds(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest values of a space of arrays, in one shape, float64."""
    low, high = np.broadcast_arrays(*(np.asarray(bound, np.float64) for bound in space))
    return low, high


def keep_shapes(environment: str, old: Any, new: Any) -> Any:
    """Return a new state in the dtypes of the old; raise InputError where it has other shapes.

    Of another kind of number it has a value that would be lost: an integer at the start that
    becomes a fraction.
    """
    expected = f"a step of {environment} that keeps its state's shapes and dtypes"
    structures = [jax.tree.structure(each) for each in (old, new)]
    if structures[0] != structures[1]:
        seen = " after ".join(f"{each!s:.120}" for each in reversed(structures))
        raise InputError("environment", expected, seen)

    def same(path: Any, old: jax.Array, new: jax.Array) -> jax.Array:
        new = jnp.asarray(new)
        kind = jnp.promote_types(old.dtype, new.dtype) if old.dtype != new.dtype else old.dtype
        smaller = jnp.issubdtype(old.dtype, jnp.floating) and jnp.issubdtype(kind, jnp.floating)
        if new.shape != old.shape or (kind != old.dtype and not smaller):
            place = jax.tree_util.keystr(path) or "the state"
            raise InputError(
                "environment",
                expected,
                f"{new.dtype}{list(new.shape)} after {old.dtype}{list(old.shape)} in {place}",
                "begin with an array of that dtype in `reset`",
            )
        return new.astype(old.dtype) if new.dtype != old.dtype else new

    return jax.tree_util.tree_map_with_path(same, old, new)
