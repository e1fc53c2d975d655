"""evosax, both ways: its strategies as an `Algorithm`, and any `Algorithm` with its ask and tell.

`strategy` needs evosax when it is called, the others when they are first looked up.
"""

from typing import TYPE_CHECKING, Any

from diffevo_jax.evosax._strategy import strategy as strategy
from diffevo_jax.evosax._tuned import TUNED as TUNED

if TYPE_CHECKING:
    from diffevo_jax.evosax._interface import AsEvosax as AsEvosax
    from diffevo_jax.evosax._interface import EvosaxState as EvosaxState
    from diffevo_jax.evosax._interface import Params as Params
    from diffevo_jax.evosax._interface import diffusion_evolution as diffusion_evolution

__all__ = ["TUNED", "AsEvosax", "EvosaxState", "Params", "diffusion_evolution", "strategy"]
_INTERFACE = ("AsEvosax", "Params", "EvosaxState", "diffusion_evolution")


def __getattr__(name: str) -> Any:
    if name in _INTERFACE:
        from diffevo_jax.evosax import _interface

        return getattr(_interface, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'", name=name)


def __dir__() -> list[str]:
    return ["strategy", "TUNED", *_INTERFACE]
