"""Brax's environments."""

import contextlib
import inspect
import warnings
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from diffevo_jax.checks import InputError, nearest
from diffevo_jax.environments._environment import Environment, Transition, check_names

BACKENDS = ("generalized", "positional", "spring", "mjx")
MAX_STEPS = 1000  # of Brax's own training


@dataclass(frozen=True)
class Brax(Environment):
    """An environment of Brax's interface. settings: those that it was made with, and its name."""

    instance: Any
    registered: str
    settings: tuple[tuple[str, Any], ...] = ()
    max_steps: int | None = MAX_STEPS

    def __post_init__(self) -> None:
        """Take actions from -1 to 1, which Brax scales to what its motors take."""
        most = np.ones(self.instance.action_size)
        object.__setattr__(self, "actions", (-most, most))

    @property
    def name(self) -> str:
        """Its name here, "brax/ant"."""
        return f"brax/{self.registered}"

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """Begin an episode; the state is Brax's."""
        state = self.instance.reset(key)
        return state.obs, state

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
        """Take one step. `done` is the task's own end: no wrapper has cut the episode off."""
        state = self.instance.step(state, action)
        return Transition(state.obs, state, state.reward, state.done > 0)

    def replace(self, **params: Any) -> "Brax":
        """Make the environment anew with other settings."""
        return brax(self.registered, **{**dict(self.settings), **params})


def brax(name: str, **settings: Any) -> Brax:
    """Make an environment of Brax: `brax("ant", backend="spring")`.

    settings: of its class, such as `backend`, one of `BACKENDS`, and the weights of its reward.

    Brax is no longer developed, says its own warning; MuJoCo Playground has its successors.

    Raises InputError on an unknown name, setting or backend, and on a backend that lacks the task.
    """
    try:
        with contextlib.redirect_stdout(None):  # MJX prints that it goes without Warp
            from brax import envs
    except ModuleNotFoundError as error:
        message = f'brax/{name} needs Brax ({error}): pip install "diffevo-jax[brax]"'
        raise ModuleNotFoundError(message) from None

    names = sorted(envs._envs)
    if name not in names:
        advice = nearest(name, names).removeprefix("; ")
        raise InputError("environment", f"brax/ and one of {', '.join(names)}", repr(name), advice)
    parameters = inspect.signature(envs._envs[name]).parameters.values()
    known = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
    check_names(f"brax/{name}", settings, [*known, "n_frames"])
    backend = settings.get("backend", BACKENDS[0])
    if backend not in BACKENDS:
        raise InputError("backend", f"one of {', '.join(BACKENDS)}", repr(backend))
    with warnings.catch_warnings(), jax.ensure_compile_time_eval():
        warnings.filterwarnings("ignore", "Brax System", UserWarning)
        try:
            instance = envs.get_environment(name, **settings)
        except ValueError as error:
            if "backend" not in str(error):  # another setting's
                raise
            raise InputError(
                "backend",
                f"one that has brax/{name}",
                f"{backend!r}, of which Brax says: {error!s:.120}",
                f"others are {', '.join(each for each in BACKENDS if each != backend)}",
            ) from error
    return Brax(instance, name, tuple(settings.items()))
