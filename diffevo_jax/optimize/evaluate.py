"""From a cost function of the user's, in NumPy or JAX, to costs of a generation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.optimize import host
from diffevo_jax.optimize.space import Space, as_taken

# x `[N, D]` -> costs `[N]`, NaN for those that failed, and what the first one raised.
Evaluate = Callable[[np.ndarray], tuple[np.ndarray, BaseException | None]]


class NoCost(ValueError):
    """The cost function returned what is no cost."""


@contextmanager
def evaluator(
    cost_fn: Callable[..., Any], space: Space, *, batched: bool, workers: int | None
) -> Iterator[Evaluate]:
    """Make the evaluator; arguments of `minimize`. Worker processes live as long as the context.

    A function is called with NumPy first. It is JAX's if it answers with a JAX array, or cannot
    take NumPy's, and can be traced and mapped; then it is compiled. Raises NoCost on an answer
    that is no number.
    """
    if workers is not None and workers > 1:
        with host.pool(partial(_cost, cost_fn, space), num_workers=workers) as evaluate:

            def pooled(x: np.ndarray) -> tuple[np.ndarray, BaseException | None]:
                costs, failures = evaluate(x)
                for failure in failures:
                    if isinstance(failure.error, NoCost):
                        raise failure.error
                return costs, failures[0].error if failures else None

            yield pooled
        return

    compiled: list[Callable] = []
    undecided = workers is None

    def costs_of(x: np.ndarray) -> tuple[np.ndarray, BaseException | None]:
        nonlocal undecided
        if not compiled:
            values, error = (_together if batched else _each)(cost_fn, space, x)
            in_jax = any(isinstance(value, jax.Array) for value in values)
            if undecided and (in_jax or error is not None):
                mapped = _mapped(cost_fn, space, batched)
                if _can_be_traced(mapped, len(space.low)):
                    compiled.append(jax.jit(mapped))
            undecided = False
            if in_jax or not compiled:
                return np.array([_number(value) for value in values], float), error
        return np.asarray(compiled[0](x), float), None

    yield costs_of


def _cost(cost_fn: Callable, space: Space, x: np.ndarray) -> float:
    """Evaluate one point `[D]`, in a worker process too."""
    return _number(cost_fn(as_taken(space, x)))


def _each(cost_fn: Callable, space: Space, x: np.ndarray) -> tuple[list, BaseException | None]:
    """What the function returns for each point, NaN where it raises; and the first it raised."""
    values, first = [], None
    for point in x:
        try:
            values.append(cost_fn(as_taken(space, point)))
        except Exception as error:
            values.append(np.nan)
            first = first or error
    return values, first


def _together(cost_fn: Callable, space: Space, x: np.ndarray) -> tuple[list, BaseException | None]:
    """The same of a function of all points at once."""
    try:
        values = cost_fn(as_taken(space, x))
    except Exception as error:
        return [np.nan] * len(x), error
    if np.shape(values) != x.shape[:1]:
        raise NoCost(
            f"cost_fn: expected costs of shape {x.shape[:1]}, as batched=True says; "
            f"seen {_described(values)}"
        )
    return list(values), None


def _number(value: Any) -> float:
    """The cost as a Python number."""
    kind = np.asarray(value).dtype.kind
    if np.shape(value) != () or kind not in "biuf":
        raise NoCost(f"cost_fn: expected a real number; seen {_described(value)}")
    return float(value)


def _described(value: Any) -> str:
    shape = f" of shape {np.shape(value)}" if isinstance(value, np.ndarray | jax.Array) else ""
    return f"{value!r:.60}{shape}, {type(value).__name__}"


def _mapped(cost_fn: Callable, space: Space, batched: bool) -> Callable[[Any], jax.Array]:
    """The cost function of `[N, D]` in JAX."""

    def one(x: jax.Array) -> jax.Array:
        return cost_fn(as_taken(space, x))

    return one if batched else jax.vmap(one)


def _can_be_traced(mapped: Callable, num_genes: int) -> bool:
    """Whether JAX can compile the function, and it gives a real number for each of two points."""
    try:
        costs = jax.eval_shape(mapped, jax.ShapeDtypeStruct((2, num_genes), jnp.result_type(float)))
    except Exception:
        return False
    return getattr(costs, "shape", None) == (2,) and not jnp.issubdtype(
        costs.dtype, jnp.complexfloating
    )
