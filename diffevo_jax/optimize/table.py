"""Evaluations as columns, one a parameter."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np


def numbers(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Make a column `[M]`: of numbers, NaN for None, or truth values where all are; or objects."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values
    column = np.empty(len(values), object)
    column[:] = values
    known = [each for each in column if each is not None]
    are_bools = [isinstance(each, bool) for each in known]
    if not all(isinstance(each, Real) for each in known):
        return column
    if any(are_bools):
        return column.astype(bool) if all(are_bools) and len(known) == len(column) else column
    return column.astype(float) if len(known) < len(column) else np.array(column.tolist())


def with_answers(
    parameters: Mapping[str, np.ndarray], answers: Mapping[str, Any]
) -> dict[str, Any]:
    """Add what evaluations gave as the last columns; a parameter of such a name gets "x/NAME"."""
    renamed = {f"x/{name}" if name in answers else name: parameters[name] for name in parameters}
    return {**renamed, **answers}


def moved_names(parameters: Sequence[str], columns: Iterable[str]) -> set[str]:
    """Return the parameters that `with_answers` gave the column "x/NAME" of a table."""
    others = set(columns) - set(parameters)
    return {name for name in parameters if f"x/{name}" in others}


def to_pandas(parameters: Mapping[str, np.ndarray], answers: Mapping[str, np.ndarray]) -> Any:
    """Make a DataFrame, a row an evaluation: the parameters, then what evaluations gave."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        message = f'to_pandas needs {error.name}: pip install "diffevo-jax[plots]"'
        raise ModuleNotFoundError(message) from None
    columns = {name: numbers(values) for name, values in parameters.items()}
    return pandas.DataFrame(with_answers(columns, answers))
