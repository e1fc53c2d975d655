"""A store of users' compiled functions, so that a second call compiles nothing.

A function is looked up by its identity, as in jax.jit, and compared by its trace: one that reads
another value by now, a variable of a notebook for example, is compiled anew.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from diffevo_jax.checks import is_traced

MOST = 16  # programs that are kept, those used last


class Trace(NamedTuple):
    """The trace of a function: its equations, and the arrays that it and all it calls close over.

    The text has the names of these arrays alone.
    """

    text: str
    constants: tuple[Any, ...]

    @property
    def is_closed(self) -> bool:
        """Whether it closes over no tracer of another trace."""
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
    return Trace(str(jaxpr.jaxpr), tuple(_constants(jaxpr)))


def _constants(value: Any) -> Iterator[Any]:
    """Yield the arrays of a program, or of a parameter of an equation: a compiled function that it
    calls keeps its own."""
    if isinstance(value, ClosedJaxpr):
        yield from value.consts
        yield from _constants(value.jaxpr)
    elif isinstance(value, Jaxpr):
        for equation in value.eqns:
            yield from _constants(tuple(equation.params.values()))
    elif isinstance(value, tuple):  # the branches of a switch
        for each in value:
            yield from _constants(each)


_programs: OrderedDict[Hashable, tuple[Trace, Callable]] = OrderedDict()


def compiled(
    function: Callable, settings: Hashable, trace: Trace, make: Callable[[], Callable]
) -> Callable:
    """Return the program of a function and settings, made anew where its trace has changed."""
    try:
        key = (function, settings)
        hash(key)
    except TypeError:
        return make()
    entry = _programs.pop(key, None)
    if entry is None or not entry[0].is_same(trace):
        entry = trace, make()
    _programs[key] = entry
    if len(_programs) > MOST:
        _programs.popitem(last=False)
    return entry[1]
