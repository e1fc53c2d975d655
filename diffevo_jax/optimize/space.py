"""The box of the parameters, and its points as the cost function takes them.

Searches know the unit cube alone: unit `[N, D]` in [0, 1]. A whole-number parameter gets an equal
share of its side for every value; one on a log scale is even in its logarithm.
"""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from diffevo_jax.checks import InputError


class Space(NamedTuple):
    """Bounds of D parameters.

    low, high: `[D]`. integer, log: `[D]`, bool: which are whole numbers, on a log scale.
    tree: the structure of the parameters, None for a plain array `[D]`. shapes: its leaves' shapes.
    """

    low: np.ndarray
    high: np.ndarray
    integer: np.ndarray
    log: np.ndarray
    tree: Any
    shapes: tuple[tuple[int, ...], ...]

    @property
    def key(self) -> Hashable:
        """A hashable form of the space, to look programs up by."""
        return *(array.tobytes() for array in self[:4]), self.tree, self.shapes


def make_space(
    bounds: Any, integers: Sequence[int | str] = (), log: Sequence[int | str] = ()
) -> Space:
    """Check bounds, and which parameters are whole numbers or on a log scale: see `minimize`.

    Raises InputError naming the argument, expected and seen.
    """
    if isinstance(bounds, list | tuple | np.ndarray | jax.Array) and not hasattr(bounds, "_fields"):
        pairs = _numbers("bounds", bounds)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
            raise InputError("bounds", "shape [D, 2], a (low, high) each", pairs.shape)
        names, places, tree, shapes = range(len(pairs)), np.arange(len(pairs)), None, ()
    else:
        pairs, tree = jax.tree_util.tree_flatten_with_path(bounds, is_leaf=_is_pair)
        names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in pairs]
        leaves = [_leaf(name, leaf) for name, (_, leaf) in zip(names, pairs, strict=True)]
        if not leaves:
            raise InputError("bounds", "a (low, high) for each parameter", repr(bounds))
        shapes = tuple(leaf.shape[:-1] for leaf in leaves)
        places = np.repeat(np.arange(len(leaves)), [leaf.size // 2 for leaf in leaves])
        pairs = np.concatenate([leaf.reshape(-1, 2) for leaf in leaves])
    low, high = pairs.T
    for place, (least, most) in zip(places, pairs, strict=True):
        if not (np.isfinite([least, most]).all() and least < most):
            pair = f"({least:g}, {most:g}) for parameter {names[place]!r}"
            raise InputError("bounds", "finite numbers, low < high", pair)
    whole = _chosen("integers", integers, names, places)
    logarithmic = _chosen("log", log, names, places)
    for place in np.flatnonzero(whole & ((low % 1 != 0) | (high % 1 != 0))):
        pair = f"({low[place]:g}, {high[place]:g}) for parameter {names[places[place]]!r}"
        raise InputError("integers", "bounds that are whole numbers", pair)
    for place in np.flatnonzero(logarithmic & (low <= 0)):
        pair = f"({low[place]:g}, {high[place]:g}) for parameter {names[places[place]]!r}"
        raise InputError("log", "bounds above 0", pair)
    return Space(low, high, whole, logarithmic, tree, shapes)


def parameters(space: Space, unit: Any) -> Any:
    """Map the unit cube to the box, `[..., D]`, whole numbers rounded; in NumPy or JAX."""
    xp = unit.__array_namespace__()
    low, high = _edges(space)
    x = low + (high - low) * unit
    x = xp.where(space.log, xp.exp(xp.where(space.log, x, 0)), x)
    x = xp.where(space.integer, xp.round(x), x)
    return xp.clip(x, space.low, space.high)


def as_taken(space: Space, x: Any) -> Any:
    """Turn x `[..., D]` into what the cost function takes: x, or the template's structure.

    Whole numbers are ints in a template's leaves of their own, and where all parameters are.
    """
    if space.tree is None:
        return x.astype(int) if space.integer.all() else x
    leaves, start = [], 0
    for shape in space.shapes:
        end = start + int(np.prod(shape))
        leaf = x[..., start:end].reshape(x.shape[:-1] + shape)
        leaf = leaf.astype(int) if space.integer[start] else leaf
        leaves.append(leaf[()] if isinstance(leaf, np.ndarray) else leaf)
        start = end
    return jax.tree.unflatten(space.tree, leaves)


def flat(space: Space, initial: Any) -> np.ndarray:
    """Flatten one point, as the cost function takes it, to a checked array `[D]`."""
    leaves, tree = jax.tree.flatten(initial)
    if space.tree is None:
        leaves, tree = [initial], None
    x = np.concatenate([_numbers("initial", leaf).reshape(-1) for leaf in leaves])
    if tree != space.tree or x.shape != space.low.shape:
        expected = f"parameters as in bounds, {len(space.low)} numbers"
        raise InputError("initial", expected, repr(initial))
    if not np.all((space.low <= x) & (x <= space.high)):
        raise InputError("initial", "a point inside bounds", repr(initial))
    if np.any(space.integer & (x % 1 != 0)):
        raise InputError("initial", "whole numbers where `integers` says so", repr(initial))
    return x


def to_unit(space: Space, x: np.ndarray) -> np.ndarray:
    """Map the box to the unit cube, `[..., D]`."""
    low, high = _edges(space)
    return (np.where(space.log, np.log(np.where(space.log, x, 1)), x) - low) / (high - low)


def least_deviation(space: Space) -> np.ndarray:
    """Return the deviation `[D]` below which a search draws one whole number alone; else 0."""
    low, high = _edges(space)
    next_to_best = np.where(space.log, np.log1p(1 / np.maximum(space.high, 1)), 1)
    return np.where(space.integer, 0.3 * next_to_best / (high - low), 0)


def _edges(space: Space) -> tuple[np.ndarray, np.ndarray]:
    """Return the box's ends, `[D]` each, in logarithms where the scale is logarithmic."""
    ends = space.low - 0.5 * space.integer, space.high + 0.5 * space.integer
    low, high = (np.where(space.log, np.log(np.where(space.log, end, 1)), end) for end in ends)
    return low, high


def _is_pair(node: Any) -> bool:
    return isinstance(node, list | tuple) and len(node) == 2 and not hasattr(node, "_fields")


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError):
        raise InputError(name, "numbers", repr(values)) from None


def _leaf(name: str, leaf: Any) -> np.ndarray:
    """Read the bounds `[..., 2]` of a leaf: (low, high), numbers or arrays, or stacked."""
    try:
        ends = (
            np.broadcast_arrays(*leaf) if _is_pair(leaf) else np.moveaxis(np.asarray(leaf), -1, 0)
        )
        low, high = ends
        return np.stack([low, high], axis=-1).astype(float)
    except (TypeError, ValueError):
        expected = f"(low, high), numbers or arrays, for parameter {name!r}"
        raise InputError("bounds", expected, repr(leaf)) from None


def _chosen(
    argument: str, chosen: Sequence[int | str], names: Any, places: np.ndarray
) -> np.ndarray:
    """Mark the parameters that are named, `[D]`: by index in an array, by path in a template."""
    place_of: dict[Hashable, int] = {name: place for place, name in enumerate(names)}
    is_list = isinstance(chosen, Sequence | set | np.ndarray) and not isinstance(chosen, str)
    if not is_list or any(isinstance(name, bool) or name not in place_of for name in chosen):
        raise InputError(argument, f"a list of {_listed(list(place_of))}", repr(chosen))
    return np.isin(places, [place_of[name] for name in chosen])


def _listed(names: list) -> str:
    if isinstance(names[0], int):
        return f"indices from 0 to {names[-1]}"
    return f"names out of {', '.join(names)}"
