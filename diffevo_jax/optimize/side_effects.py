"""Whether calls of a Python function leave something behind, for then JAX must not compile it."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

WRITING = {"print", "write", "open"}  # names of what changes nothing that can be looked at
DEPTH = 4
MOST = 1000  # items of a container that are looked at


class Footprint:
    """What a function holds: its closure, the globals that it names, its object's attributes."""

    def __init__(self, function: Callable):
        self._function = function
        self._before = _look(function, DEPTH)

    def has_changed(self) -> bool:
        """Whether something of it is another than at first, or the function writes somewhere."""
        names = {name for code in _codes(self._function) for name in code.co_names}
        return bool(names & WRITING) or _look(self._function, DEPTH) != self._before


def _look(value: Any, depth: int) -> Any:
    """Return what is equal for values that are the same and as they were."""
    if isinstance(value, str | bytes | int | float | complex | None):
        return type(value).__name__, repr(value)
    if not depth or isinstance(value, ModuleType | type):
        return id(value)
    if isinstance(value, FunctionType):
        return id(value), [_look(held, depth - 1) for held in _held(value)]
    if isinstance(value, MethodType):
        return _look(value.__func__, depth), _look(value.__self__, depth - 1)
    if isinstance(value, partial):
        return _look([value.func, value.args, value.keywords], depth)
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset | deque):
        items = list(value) if len(value) <= MOST else []
        return (
            id(value) if isinstance(value, tuple) else 0,
            len(value),
            [_look(item, depth - 1) for item in items],
        )
    if isinstance(value, np.ndarray) and value.size <= MOST:
        return id(value), value.tobytes()
    if hasattr(value, "__dict__") and type(value).__module__.split(".")[0] not in ("jax", "jaxlib"):
        return id(value), _look([vars(value), vars(type(value)).get("__call__")], depth - 1)
    return id(value)


def _held(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            yield None
    yield function.__defaults__
    yield function.__kwdefaults__
    names = {name for code in _codes(function) for name in code.co_names}
    for name in sorted(names & function.__globals__.keys()):
        yield function.__globals__[name]


def _codes(function: Any) -> Iterator[CodeType]:
    """Return the code of a function, or of an object's __call__, and of what is defined within."""
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__code__"):
        function = vars(type(function)).get("__call__")
    code = getattr(function, "__code__", None)
    codes = [code] if code is not None else []
    while codes:
        code = codes.pop()
        yield code
        codes += [const for const in code.co_consts if isinstance(const, CodeType)]
