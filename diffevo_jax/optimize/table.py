"""Evaluations as columns, one a parameter: of a result's population, or of a journal's records."""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import jax
import numpy as np

NUMBERS = Real | np.bool_
VALUES = NUMBERS | str


def columns(population: Any) -> dict[str, np.ndarray]:
    """Split a population, leaves `[M, ...]`, into columns `[M]`: "layer/rate", "w[0]" of an array.

    Without a template they are "x[0]", "x[1]", ...
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(population, is_leaf=_is_column)
    found = {}
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "x"
        values = np.asarray(leaf, object if _is_column(leaf) else None)
        for place in np.ndindex(values.shape[1:]):
            found[name + "".join(f"[{i}]" for i in place)] = _column(values[:, *place])
    return found


def columns_of(points: Sequence[Any]) -> dict[str, np.ndarray]:
    """Turn M points, as a journal has them, into the same columns."""
    rows = [dict(_items(point, "")) for point in points]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _column([row.get(name) for row in rows]) for name in names}


def with_costs(
    parameters: Mapping[str, np.ndarray], name: str, costs: np.ndarray
) -> dict[str, np.ndarray]:
    """Add the costs as the last column; a parameter of their name becomes "x/cost"."""
    renamed = {f"x/{each}" if each == name else each: column for each, column in parameters.items()}
    return renamed | {name: costs}


def to_pandas(population: Any, name: str, costs: np.ndarray) -> Any:
    """Make a DataFrame, a row an evaluation; `name` is the column of the costs."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        message = f'to_pandas needs {error.name}: pip install "diffevo-jax[plots]"'
        raise ModuleNotFoundError(message) from None
    return pandas.DataFrame(with_costs(columns(population), name, costs))


def _is_column(node: Any) -> bool:
    """Whether a list is M values, text for example, and no node of a template."""
    return isinstance(node, list) and all(isinstance(each, VALUES) or each is None for each in node)


def _items(point: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(point, dict):
        for key, value in point.items():
            yield from _items(value, f"{name}/{key}" if name else str(key))
    elif isinstance(point, list):
        for i, value in enumerate(point):
            yield from _items(value, f"{name or 'x'}[{i}]")
    else:
        yield name or "x", point


def _column(values: Any) -> np.ndarray:
    """Turn objects into numbers where all of them are, with NaN for None."""
    values = np.asarray(values, getattr(values, "dtype", object))
    if values.dtype != object or not all(
        isinstance(each, NUMBERS) or each is None for each in values
    ):
        return values
    if any(each is None for each in values):
        return values.astype(float)
    return np.array(values.tolist())
