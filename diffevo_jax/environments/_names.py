"""Environments by name, as configs have them."""

import inspect
from collections.abc import Callable
from typing import Any

from diffevo_jax.checks import InputError
from diffevo_jax.environments._brax import brax
from diffevo_jax.environments._environment import Environment, check_names
from diffevo_jax.environments._gymnax import gymnax
from diffevo_jax.environments._jumanji import jumanji
from diffevo_jax.environments._playground import playground

LIBRARIES: dict[str, Callable[..., Environment]] = {
    "gymnax": gymnax,
    "brax": brax,
    "playground": playground,
    "jumanji": jumanji,
}
OWN: dict[str, Callable[..., Environment]] = {}


def register(name: str, factory: Callable[..., Environment]) -> None:
    """Give an environment of your own a name, for `make`, tasks, presets and configs.

    factory: its class, or a function; called with parameters by name. A name may be given anew.

    Raises InputError on a name that is empty or has a slash, as those of libraries have.
    """
    if not isinstance(name, str) or not name or "/" in name:
        raise InputError("name", "a word without a slash", repr(name))
    if not callable(factory):
        raise InputError("factory", "a class or a function", f"{factory!r:.60}")
    OWN[name] = factory


def make(name: str, **params: Any) -> Environment:
    """Make an environment by name: yours, one of Gymnax, or "brax/ant" of another library.

    params: of the environment, by name.

    Raises InputError on an unknown name or parameter, and ModuleNotFoundError, naming the extra,
    where the library is not installed.
    """
    if not isinstance(name, str):
        raise InputError("environment", "a name, such as 'CartPole-v1'", f"{name!r:.60}")
    if name in OWN:
        return _made(name, OWN[name], params)
    library, slash, rest = name.partition("/")
    if not slash:
        return gymnax(name, **params)
    if library not in LIBRARIES:
        expected = f"a name of Gymnax, or {', '.join(f'{each}/NAME' for each in LIBRARIES)}"
        raise InputError("environment", expected, repr(name))
    return LIBRARIES[library](rest, **params)


def _made(name: str, factory: Callable[..., Environment], params: dict[str, Any]) -> Environment:
    taken = inspect.signature(factory).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        check_names(name, params, list(taken))
    environment = factory(**params)
    if not isinstance(environment, Environment):
        expected = f"{name}'s factory to return an Environment"
        raise InputError("environment", expected, f"{environment!r:.60}")
    return environment
