"""The options of `minimize`, `maximize` and `Search`, once for all of them."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from functools import cached_property, wraps
from numbers import Integral, Real
from os import PathLike
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args

import jax
import numpy as np

from diffevo_jax.checks import InputError, check_key, check_takes, nearest
from diffevo_jax.optimize.arrays import CostSamples
from diffevo_jax.optimize.cma import default_size
from diffevo_jax.optimize.known import known_points
from diffevo_jax.optimize.space import Space, make_space, rows_of

Optima = Literal["one", "all"]
# The options of the loop that calls the function; a search has none of them.
OF_THE_LOOP = (
    "batched",
    "workers",
    "executor",
    "timeout",
    "seconds",
    "jit",
    "target",
    "callback",
    "journal",
    "progress",
)
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
    step: float | None = None
    known: Any = None
    constraints: Sequence[Callable[..., Any]] | Literal["returned"] = ()
    noisy: bool = False
    batched: bool = False
    workers: int | None = None
    executor: Any = None
    timeout: float | None = None
    seconds: float | None = None
    jit: bool | None = None
    target: float | None = None
    callback: Callable[[Any], Any] | None = None
    journal: str | PathLike[str] | None = None
    progress: bool = False

    def __post_init__(self):
        """Check what can be checked without the cost function."""
        least = 2 * default_size(self.space.num_values)
        if not _is_whole(self.evaluations):
            raise InputError("evaluations", "a whole number", repr(self.evaluations))
        if self.evaluations < min(least, self.space.size):
            generations = f"two generations of {self.space.num_values} parameters"
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
        if self.executor is not None:
            is_class = isinstance(self.executor, type)
            if is_class or not callable(getattr(self.executor, "submit", None)):
                expected = "an executor, as concurrent.futures has them, with submit(function, x)"
                raise InputError("executor", expected, f"{self.executor!r:.60}")
            if self.batched or self.jit:
                name = "batched" if self.batched else "jit"
                raise InputError("executor", f"None with {name}=True", f"{self.executor!r:.60}")
        for name in ("timeout", "seconds", "step"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < float("inf")):
                raise InputError(name, "a number above 0", repr(value))
        if self.step is not None and self.step > 1:
            raise InputError("step", "a share of each parameter's side, in (0, 1]", self.step)
        if self.timeout is not None and (self.batched or self.jit):
            name = "batched" if self.batched else "jit"
            raise InputError("timeout", f"None with {name}=True", self.timeout)
        if self.step is not None and self.initial is None and self.known is None:
            raise InputError("step", "a point to search around: initial or known", "none")
        if self.step is not None and self.optima == "all":
            raise InputError("step", 'none with optima="all"', self.step)
        if self.constraints != "returned" and not (
            isinstance(self.constraints, Sequence) and all(map(callable, self.constraints))
        ):
            expected = "a list of functions g, at most 0 where they hold, or 'returned'"
            raise InputError("constraints", expected, f"{self.constraints!r:.60}")
        for constraint in self.constraints if self.constraints != "returned" else ():
            check_takes("constraints", constraint, ("parameters",))
        if self.noisy and self.optima == "all":
            raise InputError("noisy", 'False with optima="all"', self.noisy)
        if self.space.has_categories and self.jit:
            raise InputError("jit", "None or False with categories, for JAX has none", self.jit)
        if self.space.is_nested and self.batched:
            seen = "options that have parameters of their own"
            raise InputError("batched", "points of one structure", seen, "take batched=False")
        if self.jit not in (None, True, False):
            raise InputError("jit", "True, False or None", repr(self.jit))
        if self.target is not None and not isinstance(self.target, Real):
            raise InputError("target", "a number", repr(self.target))
        if self.target != self.target:
            raise InputError("target", "a number", "NaN")
        if self.callback is not None:
            check_takes("callback", self.callback, ("result",))
        if not isinstance(self.journal, str | PathLike | None):
            raise InputError("journal", "the path of a file", repr(self.journal))

    @cached_property
    def space(self) -> Space:
        """The box of the parameters."""
        return make_space(self.bounds, self.integers, self.log)

    @property
    def is_parallel(self) -> bool:
        """Whether points are evaluated elsewhere, and end in any order."""
        return self.executor is not None or (self.workers or 0) > 1 or self.timeout is not None

    def first_points(self) -> np.ndarray:
        """The points to evaluate first, `[F, P]`."""
        if self.initial is None:
            return np.empty((0, self.space.num_values))
        return rows_of(self.space, self.initial, "initial")

    def known_points(self) -> CostSamples:
        """What is known beforehand: values `[K, P]`, and costs `[K]`."""
        return known_points(self.space, self.known)

    def random(self) -> np.random.Generator:
        """Make the generator of the search's draws."""
        if self.key is None:
            return np.random.default_rng(self.seed or 0)
        return np.random.default_rng(np.asarray(jax.random.key_data(self.key)))

    def of_search(self) -> dict[str, Any]:
        """Return the keywords that `Search` takes: all but those of the loop."""
        names = [field.name for field in fields(self) if field.name not in ("bounds", *OF_THE_LOOP)]
        return {name: getattr(self, name) for name in names}


# What other libraries call our arguments.
OTHER_NAMES = {
    "n_trials": "evaluations",
    "maxiter": "evaluations",
    "maxfun": "evaluations",
    "maxfevals": "evaluations",
    "max_evals": "evaluations",
    "n_calls": "evaluations",
    "budget": "evaluations",
    "x0": "initial",
    "sigma0": "step",
    "space": "bounds",
    "n_jobs": "workers",
    "storage": "journal",
    "random_state": "seed",
}


def takes_options(
    make: Callable[P, Options],
) -> Callable[[Callable[[T, Options], R]], Callable[Concatenate[T, P], R]]:
    """Let a function of (anything, Options) take the arguments that make the Options."""

    def decorated(function: Callable[[T, Options], R]) -> Callable[Concatenate[T, P], R]:
        own = inspect.signature(function)
        first, *_ = own.parameters.values()
        parameters = inspect.signature(make).parameters.values()
        shown = own.replace(parameters=[first, *parameters])

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            try:
                for name in kwargs:
                    if name not in shown.parameters:
                        ours = OTHER_NAMES.get(name)
                        close = f"; here it is {ours}" if ours else nearest(name, shown.parameters)
                        raise TypeError(f"got an unexpected keyword argument {name!r}{close}")
                bound = shown.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__qualname__}() {error}") from None
            return function(bound.args[0], make(*bound.args[1:], **bound.kwargs))

        call.__signature__ = shown  # pyright: ignore[reportAttributeAccessIssue]
        return call

    return decorated


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
