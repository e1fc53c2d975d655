"""From a user's cost function, in NumPy or JAX, to the costs of a generation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.checks import InputError
from diffevo_jax.optimize import host, programs
from diffevo_jax.optimize.options import Options
from diffevo_jax.optimize.space import Space, as_taken

# x `[N, D]` -> costs `[N]`, NaN for those that failed, and what the first one raised.
Evaluate = Callable[[np.ndarray], tuple[np.ndarray, BaseException | None]]


class NoCost(InputError):
    """The cost function returned something that is no cost."""


@contextmanager
def evaluator(cost_fn: Callable[..., Any], options: Options) -> Iterator[Evaluate]:
    """Make the evaluator. Worker processes live as long as the context.

    Raises NoCost on an answer that is no number; InputError on a function that cannot be compiled,
    or sent to other processes, where the options say so.
    """
    if options.workers is not None and options.workers > 1:
        with _in_processes(cost_fn, options) as evaluate:
            yield evaluate
    elif options.jit:
        compiled, reason = _compiled(cost_fn, options)
        if compiled is None:
            raise InputError("cost_fn", "a function that JAX can compile, as jit=True says", reason)
        yield compiled
    else:
        yield _in_python(cost_fn, options)


def _in_python(cost_fn: Callable, options: Options) -> Evaluate:
    """Call the function, until a whole generation of JAX answers lets jit=None compile it."""
    compiled, undecided = None, options.jit is None

    def evaluate(x: np.ndarray) -> tuple[np.ndarray, BaseException | None]:
        nonlocal compiled, undecided
        if compiled is not None:
            return compiled(x)
        values, error = (_together if options.batched else _each)(cost_fn, options.space, x)
        undecided &= error is None and all(isinstance(value, jax.Array) for value in values)
        if undecided and len(x) > 1:  # the first point, alone, is no generation to judge by
            compiled, _ = _compiled(cost_fn, options)
            undecided = False
        return np.array([_number(value) for value in values]), error

    return evaluate


def _compiled(cost_fn: Callable, options: Options) -> tuple[Evaluate | None, str]:
    """Compile the function, or return None and the reason why it cannot be."""
    space = options.space
    mapped = in_jax(cost_fn, space, options.batched)
    if np.any(space.integer & (np.maximum(abs(space.low), abs(space.high)) > 2**24)):
        return None, "whole numbers beyond 2**24, which float32 does not hold"
    shape = jax.ShapeDtypeStruct((2, len(space.low)), jnp.result_type(float))
    try:
        trace = programs.trace(mapped, shape)
        if not trace.is_same(programs.trace(mapped, shape)):
            return None, "one that is another program each time it is traced"
    except Exception as error:
        return None, f"{type(error).__name__}: {error}".split("\n", 1)[0]
    run = programs.compiled(cost_fn, (space.key, options.batched), trace, lambda: jax.jit(mapped))
    return lambda x: (np.asarray(run(x), float), None), ""


def in_jax(cost_fn: Callable, space: Space, batched: bool = False) -> Callable[[Any], jax.Array]:
    """Make the function of x `[N, D]` that gives costs `[N]`, for JAX to trace."""

    def one(x: jax.Array) -> jax.Array:
        return cost_fn(as_taken(space, x))

    function = one if batched else jax.vmap(one)

    def mapped(x: jax.Array) -> jax.Array:
        costs = jnp.asarray(function(x))
        if costs.shape not in (x.shape[:1], (*x.shape[:1], 1)):
            raise NoCost(
                "cost_fn", "a number", f"shape {costs.shape if batched else costs.shape[1:]}"
            )
        if jnp.iscomplexobj(costs):
            raise NoCost("cost_fn", "a real number", costs.dtype)
        return costs.reshape(x.shape[:1])

    return mapped


@contextmanager
def _in_processes(cost_fn: Callable, options: Options) -> Iterator[Evaluate]:
    try:
        host.packed(cost_fn)
    except InputError as error:
        raise InputError("workers, cost_fn", error.expected, error.seen) from None
    one = partial(_cost, cost_fn, options.space)
    with host.pool(one, num_workers=options.workers) as evaluate:

        def pooled(x: np.ndarray) -> tuple[np.ndarray, BaseException | None]:
            costs, failures = evaluate(x)
            for failure in failures:
                if isinstance(failure.error, NoCost):
                    raise failure.error
            return costs, failures[0].error if failures else None

        yield pooled


def _cost(cost_fn: Callable, space: Space, x: np.ndarray) -> float:
    """Evaluate one point `[D]`, in a worker process too."""
    return _number(cost_fn(as_taken(space, x)))


def _each(cost_fn: Callable, space: Space, x: np.ndarray) -> tuple[list, BaseException | None]:
    """Call the function at each point: values, NaN where it raises; and the first error."""
    values, first = [], None
    for point in x:
        try:
            values.append(cost_fn(as_taken(space, point)))
        except Exception as error:
            values.append(np.nan)
            first = first or error
    return values, first


def _together(cost_fn: Callable, space: Space, x: np.ndarray) -> tuple[list, BaseException | None]:
    """Call a function of all points at once: values, NaN where it raises; and the error."""
    try:
        values = cost_fn(as_taken(space, x))
    except Exception as error:
        return [np.nan] * len(x), error
    if np.shape(values) not in (x.shape[:1], (*x.shape[:1], 1)):
        expected = f"costs of shape {x.shape[:1]}, as batched=True says"
        raise NoCost("cost_fn", expected, _described(values))
    return list(values), None


def _number(value: Any) -> float:
    """Convert a cost, a number or an array of one, to a Python number."""
    if isinstance(value, Real):
        return float(value)
    array = np.asarray(value)
    is_number = array.dtype.kind in "biu" or jnp.issubdtype(array.dtype, jnp.floating)
    if array.shape not in ((), (1,)) or not is_number:
        raise NoCost("cost_fn", "a real number", _described(value))
    return float(array.reshape(()))


def _described(value: Any) -> str:
    shape = f" of shape {np.shape(value)}" if isinstance(value, np.ndarray | jax.Array) else ""
    return f"{value!r:.60}{shape}, {type(value).__name__}"
