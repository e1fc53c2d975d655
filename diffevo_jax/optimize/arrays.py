"""What all stages of a search need: evaluated samples, costs without NaN, keys, threads."""

from contextlib import AbstractContextManager
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from threadpoolctl import ThreadpoolController


class CostSamples(NamedTuple):
    """Points that were evaluated, `[M, D]` in the unit cube, and their costs `[M]`, with NaN."""

    points: Any
    costs: Any


def joined(*samples: CostSamples) -> CostSamples:
    """Join samples in their order."""
    return CostSamples(*(np.concatenate(parts) for parts in zip(*samples, strict=True)))


def finite(costs: np.ndarray) -> np.ndarray:
    """Take the costs that are finite; 0 where none is."""
    costs = costs[np.isfinite(costs)]
    return costs if len(costs) else np.zeros(1)


def unit_costs(costs: np.ndarray) -> np.ndarray:
    """Scale costs to [0, 1]: float32 holds their differences, whatever their unit and offset."""
    numbers = finite(costs)
    scale = np.ptp(numbers)
    return (costs - numbers.min()) / (scale if scale > 0 else 1.0)


def draw_keys(random: np.random.Generator, *shape: int) -> jax.Array:
    """Draw keys `[*shape]`, of one kind whatever JAX's default, without a program to compile."""
    words: Any = random.integers(2**32, size=(*shape, 2), dtype=np.uint32)
    return jax.random.wrap_key_data(jax.numpy.asarray(words), impl="threefry2x32")


def one_thread() -> AbstractContextManager:
    """Hold NumPy to one thread: for matrices of some hundred rows more of them only wait."""
    return _pools().limit(limits=1, user_api="blas")


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()
