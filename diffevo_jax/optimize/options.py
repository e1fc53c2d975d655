"""The options of `minimize`, `maximize` and `Search`, once for all of them."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from functools import cached_property, wraps
from numbers import Integral, Real
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args

import jax
import numpy as np

from diffevo_jax.checks import InputError, check_key
from diffevo_jax.optimize.cma import default_size
from diffevo_jax.optimize.space import Space, make_space

Optima = Literal["one", "all"]
# The options of the loop that calls the function; a search has none of them.
OF_THE_LOOP = ("batched", "workers", "jit", "target", "callback", "progress")
P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Options:
    """The bounds and keywords of `minimize`, checked; their meaning: see `minimize`.

    Raises InputError naming the argument, expected and seen.
    """

    bounds: Any
    _: KW_ONLY
    evaluations: int
    key: jax.Array | None = None
    seed: int | None = None
    integers: Sequence[int | str] = ()
    log: Sequence[int | str] = ()
    optima: Optima = "one"
    initial: Any = None
    batched: bool = False
    workers: int | None = None
    jit: bool | None = None
    target: float | None = None
    callback: Callable[[Any], Any] | None = None
    progress: bool = False

    def __post_init__(self):
        """Check what can be checked without the cost function."""
        least = 2 * default_size(len(self.space.low))
        if not _is_whole(self.evaluations):
            raise InputError("evaluations", "a whole number", repr(self.evaluations))
        if self.evaluations < least:
            generations = f"two generations of {len(self.space.low)} parameters"
            raise InputError("evaluations", f"at least {least}, {generations}", self.evaluations)
        if self.key is not None and self.seed is not None:
            raise InputError("key, seed", "one of the two", "both")
        if self.key is not None:
            check_key(self.key)
        if self.seed is not None and not (_is_whole(self.seed) and self.seed >= 0):
            raise InputError("seed", "a whole number of 0 or more", repr(self.seed))
        if self.optima not in get_args(Optima):
            raise InputError("optima", "'one' or 'all'", repr(self.optima))
        workers = self.workers
        if workers is not None and not (_is_whole(workers) and workers >= 1):
            raise InputError("workers", "a whole number of 1 or more", repr(workers))
        if workers is not None and workers > 1 and (self.batched or self.jit):
            name = "batched" if self.batched else "jit"
            raise InputError("workers", f"None or 1 with {name}=True", workers)
        if self.jit not in (None, True, False):
            raise InputError("jit", "True, False or None", repr(self.jit))
        if self.target is not None and not isinstance(self.target, Real):
            raise InputError("target", "a number", repr(self.target))
        if self.target != self.target:
            raise InputError("target", "a number", "NaN")
        if self.callback is not None and not callable(self.callback):
            raise InputError("callback", "a function of the Result so far", repr(self.callback))

    @cached_property
    def space(self) -> Space:
        """The box of the parameters."""
        return make_space(self.bounds, self.integers, self.log)

    def random(self) -> np.random.Generator:
        """Make the generator of the search's draws."""
        if self.key is None:
            return np.random.default_rng(self.seed or 0)
        return np.random.default_rng(np.asarray(jax.random.key_data(self.key)))

    def of_search(self) -> dict[str, Any]:
        """Return the keywords that `Search` takes: all but those of the loop."""
        names = [field.name for field in fields(self) if field.name not in ("bounds", *OF_THE_LOOP)]
        return {name: getattr(self, name) for name in names}


def takes_options(
    make: Callable[P, Options],
) -> Callable[[Callable[[T, Options], R]], Callable[Concatenate[T, P], R]]:
    """Let a function of (anything, Options) take the arguments that make the Options."""

    def decorated(function: Callable[[T, Options], R]) -> Callable[Concatenate[T, P], R]:
        @wraps(function)
        def call(first: T, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return function(first, make(*args, **kwargs))

        own = inspect.signature(function)
        first, *_ = own.parameters.values()
        parameters = inspect.signature(make).parameters.values()
        shown = own.replace(parameters=[first, *parameters])
        call.__signature__ = shown  # pyright: ignore[reportAttributeAccessIssue]
        return call

    return decorated


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
