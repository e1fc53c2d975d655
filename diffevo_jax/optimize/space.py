"""The parameters: where a search may look, and its points as the cost function takes them.

Three forms of a point. The search's: unit `[U]`, a place in the unit cube. The values: x `[P]`,
numbers, of a category its option's number. The cost function's own: an array, or the structure of
the bounds.

Whole numbers and steps get an equal share of their side each; what is on a log scale is even in its
logarithm; a category of three or more options has a coordinate for each, of which the largest
counts, so that their order does not.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from diffevo_jax.checks import InputError
from diffevo_jax.optimize.template import (
    Fixed,
    Range,
    Template,
    as_array,
    build,
    categories,
    count_points,
    fill,
    is_number,
    is_plain,
    is_same,
    mark_active,
    option_labels,
    read,
    to_numbers,
    unstacked,
)


class Values(NamedTuple):
    """The P numbers of x.

    low, high: `[P]`. step: `[P]`, from a value to the next, 0 for none. whole, log: `[P]`, bool:
    which are ints, on a log scale. width: `[P]`, coordinates of the unit cube: 1, or the options'.
    """

    low: np.ndarray
    high: np.ndarray
    step: np.ndarray
    whole: np.ndarray
    log: np.ndarray
    width: np.ndarray


class Space:
    """The P values that a search is over, their names, and their template; None for an array."""

    def __init__(self, values: Values, names: tuple[str, ...], template: Template | None):
        self.values, self.names, self.template = values, names, template

    @property
    def num_values(self) -> int:
        """P, how many numbers a point has."""
        return len(self.values.low)

    @cached_property
    def num_genes(self) -> int:
        """U, the dimensions of the unit cube."""
        return int(self.values.width.sum())

    @cached_property
    def has_categories(self) -> bool:
        """Whether a parameter is one of several options."""
        return self.template is not None and any(categories(self.template))

    @cached_property
    def is_category(self) -> np.ndarray:
        """Which values are numbers of options, `[P]`."""
        return np.isin(np.arange(self.num_values), list(_options(self)))

    @cached_property
    def is_nested(self) -> bool:
        """Whether options of a category have parameters of their own."""
        return self.template is not None and any(
            not isinstance(node, Fixed)
            for category in categories(self.template)
            for option in category.options
            for node in option.nodes
        )

    @cached_property
    def size(self) -> float:
        """How many points there are; infinite where a parameter has no steps."""
        counts = np.full(self.num_values, math.inf)
        stepped = self.values.step > 0
        sides = self.values.high - self.values.low
        counts[stepped] = np.round(sides[stepped] / self.values.step[stepped]) + 1
        return (
            float(np.prod(counts)) if self.template is None else count_points(self.template, counts)
        )

    @property
    def key(self) -> Hashable:
        """A hashable form, to look programs up by."""
        return *(array.tobytes() for array in self.values), self.template

    def description(self) -> list[dict[str, Any]]:
        """Describe the parameters in words and numbers, as JSON has them."""
        texts = {place: list(map(repr, options)) for place, options in _options(self).items()}
        rows = []
        for place, name in enumerate(self.names):
            row = {field: values[place].item() for field, values in self.values._asdict().items()}
            del row["width"]
            if place in texts:
                row["options"] = texts[place]
            rows.append({"name": name, **row})
        return rows


def make_space(
    bounds: Any, integers: Sequence[int | str] = (), log: Sequence[int | str] = ()
) -> Space:
    """Check bounds, and which parameters are whole numbers or on a log scale: see `minimize`.

    Raises InputError naming the argument, expected and seen.
    """
    if callable(bounds):
        seen, order = "a function", "the function comes first: minimize(cost_fn, bounds)"
        raise InputError("bounds", "(low, high) for each parameter", seen, order)
    sides: list[Range] = []
    names: list[str] = []
    if is_plain(bounds):
        pairs = to_numbers("bounds", bounds)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
            raise InputError("bounds", "shape [D, 2], a (low, high) each", pairs.shape)
        sides += [Range(*pair) for pair in pairs.tolist()]
        names, template = [f"x[{place}]" for place in range(len(sides))], None
        parents: list[Any] = list(range(len(sides)))
    else:
        template = read(bounds, "", sides, names)
        names = [name or "x" for name in names]  # one parameter that is all there is
        if not sides:
            raise InputError("bounds", "a (low, high) for each parameter", repr(bounds))
        # An entry of an array is chosen by the name of its leaf.
        parents = [name.split("[", 1)[0] for name in names]
    for name, side in zip(names, sides, strict=True):
        if not (np.isfinite([side.low, side.high]).all() and side.low < side.high):
            pair = f"({side.low:g}, {side.high:g}) for parameter {_shown(name, template)}"
            raise InputError("bounds", "finite numbers, low < high", pair)
    low, high, step, whole, width = (np.array(column) for column in zip(*sides, strict=True))
    integer = _chosen("integers", integers, parents)
    logarithmic = _chosen("log", log, parents)
    for place in np.flatnonzero(integer & ((low % 1 != 0) | (high % 1 != 0))):
        pair = f"({low[place]:g}, {high[place]:g}) for parameter {_shown(names[place], template)}"
        raise InputError("integers", "bounds that are whole numbers", pair)
    step = np.where(integer & (step == 0), 1.0, step)
    for place in np.flatnonzero(logarithmic & (low <= 0)):
        pair = f"({low[place]:g}, {high[place]:g}) for parameter {_shown(names[place], template)}"
        raise InputError("log", "bounds above 0", pair)
    for place in np.flatnonzero(logarithmic & (step > 0) & ((step != 1) | (low % 1 != 0))):
        seen = f"a step of {step[place]:g} for parameter {_shown(names[place], template)}"
        raise InputError("log", "parameters without a step, or whole numbers", seen)
    values = Values(low, high, step, whole | integer, logarithmic, width)
    return Space(values, tuple(names), template)


def parameters(space: Space, unit: Any) -> Any:
    """Map the unit cube `[..., U]` to x `[..., P]`, steps rounded; in NumPy or JAX."""
    xp, values = unit.__array_namespace__(), space.values
    low, high = _edges(values)
    x = low + (high - low) * (_sides(values, unit) if space.has_categories else unit)
    x = xp.where(values.log, xp.exp(xp.where(values.log, x, 0)), x)
    step = np.where(values.step > 0, values.step, 1)
    x = xp.where(values.step > 0, values.low + step * xp.round((x - values.low) / step), x)
    x = xp.clip(x, values.low, values.high)
    return settled(space, x) if space.is_nested else x


def to_unit(space: Space, x: np.ndarray) -> np.ndarray:
    """Map x `[..., P]` to the unit cube, `[..., U]`; an option, to the middle of what gives it."""
    values = space.values
    low, high = _edges(values)
    unit = (np.where(values.log, np.log(np.where(values.log, x, 1)), x) - low) / (high - low)
    if not np.any(values.width > 1):
        return unit
    columns = []
    for place, width in enumerate(values.width):
        if width == 1:
            columns.append(unit[..., place, None])
            continue
        # The mean of the largest of K even draws, and of the others.
        is_chosen = np.arange(width) == x[..., place, None]
        columns.append(np.where(is_chosen, 1.0, 0.5) * width / (width + 1))
    return np.concatenate(columns, axis=-1)


def settled(space: Space, x: np.ndarray) -> np.ndarray:
    """Put the values `[N, P]` of options that are not chosen to their low ends."""
    assert space.template is not None
    rows = np.atleast_2d(np.asarray(x))
    active = np.ones(rows.shape, bool)
    mark_active(space.template, rows, np.ones(len(rows), bool), active)
    return np.where(active, rows, space.values.low).reshape(np.shape(x))


def as_taken(space: Space, x: Any) -> Any:
    """Turn x `[..., P]` into what the cost function takes: x, or the structure of the bounds.

    Whole numbers are ints in leaves of their own, and where all parameters are. Of several points
    the leaves are `[N, ...]`, where options have parameters of their own a list of N structures.
    """
    if space.template is None:
        return x.astype(int) if space.values.whole.all() else x
    if space.is_nested and np.ndim(x) > 1:
        return [as_taken(space, row) for row in x]
    return build(space.template, x, space.values.whole)


def columns(space: Space, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return x `[M, P]` as a table: name -> `[M]`, options as they are, None for none.

    Options whose parameters have one name share its column.
    """
    table: dict[str, np.ndarray] = {}
    active = np.ones(x.shape, bool)
    options = _options(space)
    if space.template is not None:
        mark_active(space.template, x, np.ones(len(x), bool), active)
    for place, name in enumerate(space.names):
        values: Any = x[:, place]
        if place in options:
            values = as_array([options[place][int(value)] for value in values])
        elif space.values.whole[place]:
            values = values.astype(int)
        if not active[:, place].all():
            values = np.where(active[:, place], values.astype(object), table.get(name))
        table[name] = values
    return table


def point_of(space: Space, row: Mapping[str, Any]) -> Any:
    """Make a point of a row of `columns`, as the cost function takes it.

    Raises InputError naming the parameters that the row lacks.
    """
    x = np.full(space.num_values, np.nan)
    values = [row.get(name) for name in space.names]
    values = [None if value != value else value for value in values]
    options = _options(space)
    for place, value in enumerate(values):
        if place in options:
            same = [is_same(option, value) for option in options[place]]
            x[place] = same.index(True) if any(same) else np.nan
        elif is_number(value):
            x[place] = value
    active = np.ones((1, space.num_values), bool)
    if space.template is not None:
        mark_active(space.template, x[None], np.ones(1, bool), active)
    wrong = np.flatnonzero(active & np.isnan(x))
    missing = [space.names[place] for place in wrong if values[place] is None]
    if missing:
        names = ", ".join(missing)
        raise InputError("known", f"a column for each parameter, also {names}", sorted(row))
    for place in wrong:
        kind = "an option" if place in options else "a number"
        raise InputError("known", f"{kind} of {space.names[place]!r}", repr(values[place]))
    return as_taken(space, np.where(active[0], x, space.values.low))


def flat(space: Space, point: Any, argument: str = "initial") -> np.ndarray:
    """Flatten one point, as the cost function takes it, to its checked values `[P]`."""
    if space.template is None:
        x = to_numbers(argument, point).reshape(-1)
        fits = x.shape == space.values.low.shape
    else:
        x = space.values.low.copy()
        fits = fill(space.template, point, x, space.values.low, space.values.high)
    if not fits:
        number = "an option of each category, " if space.has_categories else ""
        expected = f"parameters as in bounds, {number}{space.num_values} numbers"
        raise InputError(argument, expected, repr(point))
    if not np.all((space.values.low <= x) & (x <= space.values.high)):
        raise InputError(argument, "a point inside bounds", repr(point))
    step = np.where(space.values.step > 0, space.values.step, 1)
    places = (x - space.values.low) / step
    if np.any((space.values.step > 0) & (abs(places - np.round(places)) > 1e-9 * (1 + places))):
        whole = np.all(step == 1)
        expected = "whole numbers where `integers` says so" if whole else "numbers on their steps"
        raise InputError(argument, expected, repr(point))
    return x


def rows_of(space: Space, points: Any, argument: str) -> np.ndarray:
    """Flatten one point or several to checked values `[N, P]`.

    Several are an array `[N, D]`, a list of points, or a structure whose leaves are `[N, ...]`.
    """
    if space.template is None:
        several = np.ndim(points) == 2 if not isinstance(points, jax.Array) else points.ndim == 2
        return np.array([flat(space, row, argument) for row in (points if several else [points])])
    try:
        return flat(space, points, argument)[None]
    except InputError:
        root = space.template.tree.node_data()
        is_list = isinstance(points, list | tuple) and (root is None or root[0] is not type(points))
        several = points if is_list else unstacked(space.template, points)
        if not several:
            raise
    return np.array([flat(space, point, argument) for point in several])


def least_deviation(space: Space) -> np.ndarray:
    """Return the deviation `[U]` below which a search draws one value alone; else 0."""
    values = space.values
    low, high = _edges(values)
    next_to_best = np.where(values.log, np.log1p(1 / np.maximum(values.high, 1)), values.step)
    least = np.where(values.step > 0, 0.3 * next_to_best / (high - low), 0)
    return np.repeat(least, values.width)


def _edges(values: Values) -> tuple[np.ndarray, np.ndarray]:
    """Return the sides' ends, `[P]` each, in logarithms where the scale is logarithmic."""
    ends = values.low - 0.5 * values.step, values.high + 0.5 * values.step
    low, high = (np.where(values.log, np.log(np.where(values.log, end, 1)), end) for end in ends)
    return low, high


def _sides(values: Values, unit: Any) -> Any:
    """Turn coordinates `[..., U]` into one for each value, `[..., P]`: of a category's, the middle
    of the share of its largest."""
    xp = unit.__array_namespace__()
    starts = np.cumsum(values.width) - values.width
    parts = []
    for start, width in zip(starts, values.width, strict=True):
        part = unit[..., start : start + width]
        if width > 1:
            part = (xp.argmax(part, axis=-1)[..., None] + 0.5) / width
        parts.append(part)
    return xp.concatenate(parts, axis=-1)


def _chosen(argument: str, chosen: Sequence[int | str], names: list) -> np.ndarray:
    """Mark the parameters that are named, `[P]`: by index in an array, by path in a template."""
    is_list = isinstance(chosen, Sequence | set | np.ndarray) and not isinstance(chosen, str)
    if not is_list or any(isinstance(name, bool) or name not in names for name in chosen):
        raise InputError(argument, f"a list of {_listed(names)}", repr(chosen))
    return np.array([name in list(chosen) for name in names])


def _listed(names: list) -> str:
    if isinstance(names[0], int):
        return f"indices from 0 to {names[-1]}"
    return f"names out of {', '.join(dict.fromkeys(names))}"


def _shown(name: str, template: Template | None) -> str:
    return name[2:-1] if template is None else repr(name)


def _options(space: Space) -> dict[int, list]:
    """Return what stands for the options of each category, by its place in x."""
    if space.template is None:
        return {}
    return {category.start: option_labels(category) for category in categories(space.template)}
