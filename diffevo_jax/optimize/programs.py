"""Compiled functions of the user's that are kept, so that a second call compiles nothing.

A function is known by itself, as jax.jit knows it, and by what it is when it is traced: one that
reads something else by now, a variable of a notebook for example, is compiled anew.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import numpy as np

from diffevo_jax.checks import is_traced

MOST = 16  # programs that are kept, the last used


class Trace(NamedTuple):
    """What a function is when it is traced: its equations, and the arrays that it closes over."""

    text: str
    constants: tuple[Any, ...]

    @property
    def is_closed(self) -> bool:
        """Whether it closes over nothing that another trace is working on."""
        return not any(map(is_traced, self.constants))

    def is_same(self, other: "Trace") -> bool:
        """Whether both are one program."""
        pairs = list(zip(self.constants, other.constants, strict=False))
        return (
            self.text == other.text
            and len(self.constants) == len(other.constants)
            and all(a is b or np.array_equal(a, b, equal_nan=True) for a, b in pairs)
        )


def trace(function: Callable, *shapes: jax.ShapeDtypeStruct) -> Trace:
    """Trace a function of arrays; raise whatever it raises."""
    jaxpr = jax.make_jaxpr(lambda *args: function(*args))(*shapes)
    return Trace(str(jaxpr.jaxpr), tuple(jaxpr.consts))


_programs: OrderedDict[Hashable, tuple[Trace, Callable]] = OrderedDict()


def remembered(
    function: Callable, settings: Hashable, seen: Trace, make: Callable[[], Callable]
) -> Callable:
    """The compiled program of a function and settings, made anew where its trace has changed."""
    try:
        key = (function, settings)
        hash(key)
    except TypeError:
        return make()
    known = _programs.pop(key, None)
    if known is None or not known[0].is_same(seen):
        known = seen, make()
    _programs[key] = known
    if len(_programs) > MOST:
        _programs.popitem(last=False)
    return known[1]
