"""The box of the parameters, and its points as the cost function takes them.

Searches know the unit cube alone: unit `[N, D]` in [0, 1]. A whole-number parameter gets an equal
share of its side for every value; one on a log scale is even in its logarithm.
"""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Space(NamedTuple):
    """Bounds of D parameters.

    low, high: `[D]`. integer, log: `[D]`, bool: which are whole numbers, on a log scale.
    tree: the structure of the parameters, None for a plain array `[D]`. shapes: of its leaves.
    """

    low: np.ndarray
    high: np.ndarray
    integer: np.ndarray
    log: np.ndarray
    tree: Any
    shapes: tuple[tuple[int, ...], ...]


def make_space(
    bounds: Any, integers: Sequence[int | str] = (), log: Sequence[int | str] = ()
) -> Space:
    """Check bounds, and which parameters are whole numbers or on a log scale: see `minimize`.

    Raises ValueError naming the argument, expected and seen.
    """
    if isinstance(bounds, list | tuple | np.ndarray | jax.Array) and not hasattr(bounds, "_fields"):
        pairs = _numbers("bounds", bounds)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
            raise ValueError(
                f"bounds: expected shape [D, 2], a (low, high) each; seen {pairs.shape}"
            )
        names, places, tree, shapes = range(len(pairs)), np.arange(len(pairs)), None, ()
    else:
        found, tree = jax.tree_util.tree_flatten_with_path(bounds, is_leaf=_is_pair)
        names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in found]
        leaves = [_leaf(name, leaf) for name, (_, leaf) in zip(names, found, strict=True)]
        if not leaves:
            raise ValueError(f"bounds: expected a (low, high) for each parameter; seen {bounds!r}")
        shapes = tuple(leaf.shape[:-1] for leaf in leaves)
        places = np.repeat(np.arange(len(leaves)), [leaf.size // 2 for leaf in leaves])
        pairs = np.concatenate([leaf.reshape(-1, 2) for leaf in leaves])
    low, high = pairs.T
    for place, (least, most) in zip(places, pairs, strict=True):
        if not (np.isfinite([least, most]).all() and least < most):
            raise ValueError(
                f"bounds: expected finite numbers, low < high; seen ({least:g}, {most:g}) "
                f"for parameter {names[place]!r}"
            )
    whole = _chosen("integers", integers, names, places)
    logarithmic = _chosen("log", log, names, places)
    for place in np.flatnonzero(whole & ((low % 1 != 0) | (high % 1 != 0))):
        raise ValueError(
            f"integers: expected bounds that are whole numbers; seen ({low[place]:g}, "
            f"{high[place]:g}) for parameter {names[places[place]]!r}"
        )
    for place in np.flatnonzero(logarithmic & (low <= 0)):
        raise ValueError(
            f"log: expected bounds above 0; seen ({low[place]:g}, {high[place]:g}) "
            f"for parameter {names[places[place]]!r}"
        )
    return Space(low, high, whole, logarithmic, tree, shapes)


def parameters(space: Space, unit: Any) -> Any:
    """From the unit cube to the box, `[..., D]`, in NumPy or JAX as it comes; whole where asked."""
    xp = unit.__array_namespace__()
    low, high = _edges(space)
    x = low + (high - low) * unit
    x = xp.where(space.log, xp.exp(xp.where(space.log, x, 0)), x)
    x = xp.where(space.integer, xp.round(x), x)
    return xp.clip(x, space.low, space.high)


def as_taken(space: Space, x: Any) -> Any:
    """What the cost function takes for x `[..., D]`: x itself, or the template's structure."""
    if space.tree is None:
        return x
    leaves, start = [], 0
    for shape in space.shapes:
        end = start + int(np.prod(shape))
        leaf = x[..., start:end].reshape(x.shape[:-1] + shape)
        leaf = leaf.astype(int) if space.integer[start] else leaf
        leaves.append(leaf[()] if isinstance(leaf, np.ndarray) else leaf)
        start = end
    return jax.tree.unflatten(space.tree, leaves)


def unit_of(space: Space, initial: Any) -> np.ndarray:
    """The place `[D]` in the unit cube of a point given as the cost function takes it."""
    leaves, tree = jax.tree.flatten(initial)
    if space.tree is None:
        leaves, tree = [initial], None
    x = np.concatenate([_numbers("initial", leaf).reshape(-1) for leaf in leaves])
    if tree != space.tree or x.shape != space.low.shape:
        raise ValueError(
            f"initial: expected parameters as in bounds, {len(space.low)} numbers; seen {initial!r}"
        )
    if not np.all((space.low <= x) & (x <= space.high)):
        raise ValueError(f"initial: expected a point inside bounds; seen {initial!r}")
    low, high = _edges(space)
    return (np.where(space.log, np.log(np.where(space.log, x, 1)), x) - low) / (high - low)


def least_deviation(space: Space) -> np.ndarray:
    """Deviation `[D]` below which a search of the unit cube sees one whole number alone; else 0."""
    low, high = _edges(space)
    next_to_best = np.where(space.log, np.log1p(1 / np.maximum(space.high, 1)), 1)
    return np.where(space.integer, 0.3 * next_to_best / (high - low), 0)


def _edges(space: Space) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the unit interval, in logarithms where the scale is logarithmic."""
    ends = space.low - 0.5 * space.integer, space.high + 0.5 * space.integer
    low, high = (np.where(space.log, np.log(np.where(space.log, end, 1)), end) for end in ends)
    return low, high


def _is_pair(node: Any) -> bool:
    return isinstance(node, list | tuple) and len(node) == 2 and not hasattr(node, "_fields")


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected numbers; seen {values!r}") from None


def _leaf(name: str, leaf: Any) -> np.ndarray:
    """Bounds `[..., 2]` of a leaf: (low, high), numbers or arrays of its shape, or stacked."""
    try:
        ends = (
            np.broadcast_arrays(*leaf) if _is_pair(leaf) else np.moveaxis(np.asarray(leaf), -1, 0)
        )
        low, high = ends
        return np.stack([low, high], axis=-1).astype(float)
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds: expected (low, high), numbers or arrays, for parameter {name!r}; "
            f"seen {leaf!r}"
        ) from None


def _chosen(
    argument: str, wanted: Sequence[int | str], names: Any, places: np.ndarray
) -> np.ndarray:
    """Which of the D parameters are named: by index in an array, by path in a template."""
    known: dict[Hashable, int] = {name: place for place, name in enumerate(names)}
    named = isinstance(wanted, Sequence | set | np.ndarray) and not isinstance(wanted, str)
    if not named or any(isinstance(name, bool) or name not in known for name in wanted):
        raise ValueError(f"{argument}: expected a list of {_listed(list(known))}; seen {wanted!r}")
    return np.isin(places, [known[name] for name in wanted])


def _listed(names: list) -> str:
    if isinstance(names[0], int):
        return f"indices from 0 to {names[-1]}"
    return f"names out of {', '.join(names)}"
