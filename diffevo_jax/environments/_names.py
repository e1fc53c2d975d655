"""Environments by name, as configs have them."""

from collections.abc import Callable

from diffevo_jax.checks import InputError
from diffevo_jax.environments._brax import brax
from diffevo_jax.environments._environment import Environment
from diffevo_jax.environments._gymnax import gymnax
from diffevo_jax.environments._jumanji import jumanji
from diffevo_jax.environments._playground import playground

LIBRARIES: dict[str, Callable[[str], Environment]] = {
    "gymnax": gymnax,
    "brax": brax,
    "playground": playground,
    "jumanji": jumanji,
}


def make(name: str) -> Environment:
    """Make an environment by name: "brax/ant" of a library, or one that Gymnax registers.

    Raises InputError on an unknown name, and ModuleNotFoundError, naming the extra, where the
    library is not installed.
    """
    library, slash, rest = name.partition("/")
    if not slash:
        return gymnax(name)
    if library not in LIBRARIES:
        expected = f"a name of Gymnax, or {', '.join(f'{each}/NAME' for each in LIBRARIES)}"
        raise InputError("environment", expected, repr(name))
    return LIBRARIES[library](rest)
