"""The parameters: where a search may look, and its points as the cost function takes them.

Three forms of a point. The search's: unit `[U]`, a place in the unit cube. The values: x `[P]`,
numbers, of a category its option's number. The cost function's own: an array, or the structure of
the bounds.

Whole numbers and steps get an equal share of their side each; what is on a log scale is even in its
logarithm; a category of three or more options has a coordinate for each, of which the largest
counts, so that their order does not.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from numbers import Integral, Number, Real
from typing import Any, NamedTuple

import jax
import numpy as np

from diffevo_jax.checks import InputError


class Choice(tuple):
    """The options of a parameter: values, ranges, or templates of their own."""


def choice(*options: Any) -> Choice:
    """Let a parameter be one of the options: values, ranges (low, high), or whole templates.

        bounds = {"model": de.optimize.choice({"kind": "svc", "C": (1e-2, 1e2)},
                                              {"kind": "forest", "trees": range(10, 500)})}

    A list of values, `["rbf", "poly"]`, is short for a choice between them.
    """
    return Choice(options)


class Leaf(NamedTuple):
    """Numbers of one shape, from a place in x on."""

    start: int
    shape: tuple[int, ...]


class Fixed(NamedTuple):
    """A value that the search leaves alone."""

    value: Any


class Category(NamedTuple):
    """A choice, whose number stands at a place in x."""

    start: int
    options: tuple["Template", ...]


class Template(NamedTuple):
    """A structure, and what stands at its leaves."""

    tree: Any
    nodes: tuple["Leaf | Fixed | Category", ...]


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
        return self.template is not None and any(_categories(self.template))

    @cached_property
    def is_category(self) -> np.ndarray:
        """Which values are numbers of options, `[P]`."""
        return np.isin(np.arange(self.num_values), list(_options(self)))

    @cached_property
    def is_nested(self) -> bool:
        """Whether options of a category have parameters of their own."""
        return self.template is not None and any(
            not isinstance(node, Fixed)
            for category in _categories(self.template)
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
        return float(np.prod(counts)) if self.template is None else _size(self.template, counts)

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


class _Side(NamedTuple):
    """A number while bounds are read: the fields of Values."""

    low: float
    high: float
    step: float = 0.0
    whole: bool = False
    width: int = 1


def make_space(
    bounds: Any, integers: Sequence[int | str] = (), log: Sequence[int | str] = ()
) -> Space:
    """Check bounds, and which parameters are whole numbers or on a log scale: see `minimize`.

    Raises InputError naming the argument, expected and seen.
    """
    sides: list[_Side] = []
    names: list[str] = []
    if _is_plain(bounds):
        pairs = _numbers("bounds", bounds)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
            raise InputError("bounds", "shape [D, 2], a (low, high) each", pairs.shape)
        sides += [_Side(*pair) for pair in pairs.tolist()]
        names, template = [f"x[{place}]" for place in range(len(sides))], None
        parents: list[Any] = list(range(len(sides)))
    else:
        template = _template(bounds, "", sides, names)
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
    _mark(space.template, rows, np.ones(len(rows), bool), active)
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
    return _build(space, space.template, x)


def columns(space: Space, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return x `[M, P]` as a table: name -> `[M]`, options as they are, None for none.

    Options whose parameters have one name share its column.
    """
    table: dict[str, np.ndarray] = {}
    active = np.ones(x.shape, bool)
    options = _options(space)
    if space.template is not None:
        _mark(space.template, x, np.ones(len(x), bool), active)
    for place, name in enumerate(space.names):
        values: Any = x[:, place]
        if place in options:
            values = _array([options[place][int(value)] for value in values])
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
            same = [_is_same(option, value) for option in options[place]]
            x[place] = same.index(True) if any(same) else np.nan
        elif _is_number(value):
            x[place] = value
    active = np.ones((1, space.num_values), bool)
    if space.template is not None:
        _mark(space.template, x[None], np.ones(1, bool), active)
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
        x = _numbers(argument, point).reshape(-1)
        fits = x.shape == space.values.low.shape
    else:
        x = space.values.low.copy()
        fits = _fill(space.template, point, x, space.values)
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
        several = points if is_list else _unstacked(space.template, points)
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


# Reading bounds.


def _is_plain(bounds: Any) -> bool:
    """Whether bounds are an array `[D, 2]`, not a template."""
    if isinstance(bounds, np.ndarray | jax.Array):
        return True
    if not isinstance(bounds, list | tuple) or isinstance(bounds, Choice):
        return False
    special = range | dict | Choice
    return not hasattr(bounds, "_fields") and not any(
        isinstance(part, special) or _is_category(part) for part in bounds
    )


def _is_scalar(node: Any) -> bool:
    return node is None or isinstance(node, str | bytes | bool | Number | np.generic)


def _is_number(node: Any) -> bool:
    return isinstance(node, Real) and not isinstance(node, bool | np.bool_)


def _is_category(node: Any) -> bool:
    """Whether a list is of options: a text, a truth value or None among them, or three numbers."""
    if isinstance(node, Choice):
        return True
    if not isinstance(node, list) or not node:
        return False
    values = [part for part in node if _is_scalar(part)]
    return any(not _is_number(value) for value in values) or (
        len(values) == len(node) and len(node) != 2
    )


def _is_range(node: Any) -> bool:
    """Whether it is (low, high), (low, high, step), or arrays of ends."""
    if isinstance(node, range | np.ndarray | jax.Array):
        return True
    if not isinstance(node, list | tuple) or hasattr(node, "_fields"):
        return False
    numbers = [isinstance(part, np.ndarray | jax.Array) or _is_number(part) for part in node]
    if len(node) == 3:
        return all(map(_is_number, node))
    nested = len(node) == 2 and all(isinstance(part, list | tuple) for part in node)
    return len(node) == 2 and (any(numbers) or (nested and _is_ends(node)))


def _is_ends(node: Any) -> bool:
    """Whether two lists of numbers are low and high ends, not ranges of their own."""
    return len(node[0]) == len(node[1]) != 2 and all(map(_is_number, [*node[0], *node[1]]))


def _is_node(node: Any) -> bool:
    return _is_category(node) or _is_range(node) or _is_scalar(node)


def _template(bounds: Any, path: str, sides: list[_Side], names: list[str]) -> Template:
    """Read a template; append its numbers' sides and names."""
    try:
        leaves, tree = jax.tree_util.tree_flatten_with_path(bounds, is_leaf=_is_node)
    except ValueError:  # JAX sorts them
        raise InputError("bounds", "names of one kind, all text", f"{bounds!r:.80}") from None
    nodes = []
    for keys, leaf in leaves:
        own = jax.tree_util.keystr(keys, simple=True, separator="/")
        nodes.append(_node(leaf, "/".join(filter(None, [path, own])), sides, names))
    return Template(tree, tuple(nodes))


def _node(leaf: Any, name: str, sides: list[_Side], names: list[str]) -> Leaf | Fixed | Category:
    start = len(sides)
    if _is_category(leaf):
        _check_options(name, leaf)
        # Two options lie on one side: to be mirrored is no other order.
        width = len(leaf) if len(leaf) > 2 else 1
        sides.append(_Side(0, len(leaf) - 1, 1, True, width))
        names.append(name)
        options = []
        for number, option in enumerate(leaf):
            if _is_scalar(option):
                options.append(Template(None, (Fixed(option),)))
            else:
                path = f"{name}/{number}" if _is_node(option) else name
                options.append(_template(option, path, sides, names))
        return Category(start, tuple(options))
    if isinstance(leaf, range):
        if len(leaf) < 2:
            raise InputError("bounds", f"a range of two or more for parameter {name!r}", repr(leaf))
        low, high = sorted((leaf[0], leaf[-1]))
        sides.append(_Side(low, high, abs(leaf.step), True))
        names.append(name)
        return Leaf(start, ())
    if _is_range(leaf) and len(leaf) == 3 and isinstance(leaf, list | tuple):
        sides.append(_stepped(name, *leaf))
        names.append(name)
        return Leaf(start, ())
    if _is_range(leaf):
        if isinstance(leaf, list) and all(map(_is_number, leaf)):
            first, second = leaf
            expected = f"({first}, {second}) for a range of parameter {name!r}"
            mend = f"choice({first}, {second}) for one of the two"
            raise InputError("bounds", expected, repr(leaf), mend)
        pairs = _pairs(name, leaf)
        flattened = pairs.reshape(-1, 2).tolist()
        sides += [_Side(*pair) for pair in flattened]
        shape = pairs.shape[:-1]
        names += [
            f"{name}[{', '.join(map(str, index))}]" if index else name
            for index in np.ndindex(shape)
        ]
        return Leaf(start, shape)
    if _is_scalar(leaf):
        return Fixed(leaf)
    expected = "(low, high), numbers or arrays" + f", for parameter {name!r}" * (name != "")
    mend = "name a function by text, and look it up by its name" if callable(leaf) else ""
    raise InputError("bounds", expected, repr(leaf), mend)


def _stepped(name: str, low: Any, high: Any, step: Any) -> _Side:
    if not (0 < step <= high - low):
        expected = f"(low, high, step), 0 < step <= high - low, for parameter {name!r}"
        raise InputError("bounds", expected, f"({low:g}, {high:g}, {step:g})")
    number = math.floor((high - low) / step * (1 + 1e-12))
    whole = isinstance(low, Integral) and isinstance(step, Integral)
    return _Side(float(low), float(low + number * step), float(step), whole)


def _check_options(name: str, options: Sequence[Any]) -> None:
    if len(options) < 2:
        expected = f"two options or more for parameter {name!r}"
        mend = "a value that stands by itself is fixed"
        raise InputError("bounds", expected, repr(list(options)), mend)
    for place, option in enumerate(options):
        if any(_is_same(option, other) for other in options[:place]):
            expected = f"options that differ for parameter {name!r}"
            raise InputError("bounds", expected, f"{option!r} twice")


def _is_same(a: Any, b: Any) -> bool:
    """Whether two values are one option: True is not 1, 1.0 is."""
    if isinstance(a, bool | np.bool_) != isinstance(b, bool | np.bool_):
        return False
    try:
        return bool(a == b)
    except (TypeError, ValueError):  # arrays within
        return False


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError):
        raise InputError(name, "numbers", repr(values)) from None


def _pairs(name: str, leaf: Any) -> np.ndarray:
    """Read the bounds `[..., 2]` of a leaf: (low, high), numbers or arrays, or stacked."""
    try:
        is_pair = isinstance(leaf, list | tuple)
        ends = np.broadcast_arrays(*leaf) if is_pair else np.moveaxis(np.asarray(leaf), -1, 0)
        low, high = ends
        pairs = np.stack([low, high], axis=-1)
        return pairs.astype(float, casting="safe" if pairs.dtype.kind in "OSU" else "unsafe")
    except (TypeError, ValueError):
        expected = f"(low, high), numbers or arrays, for parameter {name!r}"
        raise InputError("bounds", expected, repr(leaf)) from None


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


# Walking templates.


def _categories(template: Template) -> Iterator[Category]:
    for node in template.nodes:
        if isinstance(node, Category):
            yield node
            for option in node.options:
                yield from _categories(option)


def _size(template: Template, counts: np.ndarray) -> float:
    total = 1.0
    for node in template.nodes:
        if isinstance(node, Leaf):
            total *= float(np.prod(counts[node.start : node.start + math.prod(node.shape)]))
        elif isinstance(node, Category):
            total *= sum(_size(option, counts) for option in node.options)
    return total


def _options(space: Space) -> dict[int, list]:
    """Return what stands for the options of each category, by its place in x."""
    if space.template is None:
        return {}
    return {category.start: _labels(category) for category in _categories(space.template)}


def _labels(category: Category) -> list[Any]:
    """Return what stands for options in a table: their values, or a template's fixed values.

    Those that would be the same get their numbers.
    """
    labels = []
    for option in category.options:
        fixed = [node.value for node in option.nodes if isinstance(node, Fixed)]
        is_value = option.tree is None and fixed
        labels.append(fixed[0] if is_value else " ".join(map(str, fixed)) or "number")
    same = [
        any(_is_same(label, other) for other in labels[:place] + labels[place + 1 :])
        for place, label in enumerate(labels)
    ]
    return [f"{label} {place}" if same[place] else label for place, label in enumerate(labels)]


def _mark(template: Template, x: np.ndarray, chosen: np.ndarray, active: np.ndarray) -> None:
    """Write into `active` `[N, P]` which values count where the template is chosen, `[N]`."""
    for node in template.nodes:
        if isinstance(node, Leaf):
            active[:, node.start : node.start + math.prod(node.shape)] = chosen[:, None]
        elif isinstance(node, Category):
            active[:, node.start] = chosen
            for number, option in enumerate(node.options):
                _mark(option, x, chosen & (x[:, node.start] == number), active)


def _build(space: Space, template: Template, x: Any) -> Any:
    leaves = []
    for node in template.nodes:
        if isinstance(node, Fixed):
            leaves.append(node.value)
        elif isinstance(node, Leaf):
            part = x[..., node.start : node.start + math.prod(node.shape)]
            leaf = part.reshape(x.shape[:-1] + node.shape)
            whole = space.values.whole[node.start]
            leaf = leaf.astype(int) if whole else leaf
            if isinstance(leaf, np.ndarray):
                leaf = leaf.item() if whole and leaf.ndim == 0 else leaf[()]
            leaves.append(leaf)
        elif np.ndim(x) == 1:
            leaves.append(_build(space, node.options[int(x[node.start])], x))
        else:
            options = _labels(node)
            leaves.append(_array([options[int(number)] for number in x[..., node.start]]))
    return leaves[0] if template.tree is None else jax.tree.unflatten(template.tree, leaves)


def _array(values: list) -> np.ndarray:
    """Make an array of options, texts or numbers where all are, else of objects."""
    kinds = {type(value) for value in values}
    if kinds <= {str} or kinds <= {int} or kinds <= {float}:
        return np.array(values)
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _unstacked(template: Template, points: Any) -> list[Any]:
    """Split a structure with leaves `[N, ...]` into N; none where it is none."""
    try:
        parts = template.tree.flatten_up_to(points)
        several = [not isinstance(node, Fixed) for node in template.nodes]
        if any(isinstance(part, str | bytes) for part in parts):
            return []
        lengths = {len(part) for part, one in zip(parts, several, strict=True) if one}
        (length,) = lengths
    except (TypeError, ValueError):
        return []
    return [
        template.tree.unflatten(
            part[place] if one else part for part, one in zip(parts, several, strict=True)
        )
        for place in range(length)
    ]


def _fill(template: Template, point: Any, x: np.ndarray, values: Values) -> bool:
    """Write the values of a point into x `[P]`; return whether it has the template's structure."""
    if template.tree is None:
        parts = [point]
    else:
        try:
            parts = template.tree.flatten_up_to(point)
        except (TypeError, ValueError):
            return False
    pairs = zip(template.nodes, parts, strict=True)
    return all(_fill_node(node, part, x, values) for node, part in pairs)


def _fill_node(node: Leaf | Fixed | Category, part: Any, x: np.ndarray, values: Values) -> bool:
    if isinstance(node, Fixed):
        return _is_same(node.value, part)
    if isinstance(node, Leaf):
        try:
            numbers = np.asarray(part, float)
        except (TypeError, ValueError):
            return False
        if numbers.shape != node.shape:
            return False
        x[node.start : node.start + numbers.size] = numbers.reshape(-1)
        return True
    # Of options that differ by their ranges alone, the one that the point is inside of.
    fitting, inside = [], []
    for number, option in enumerate(node.options):
        filled = x.copy()
        if _fill(option, part, filled, values):
            filled[node.start] = number
            is_inside = np.all((values.low <= filled) & (filled <= values.high))
            (inside if is_inside else fitting).append(filled)
    if inside or fitting:
        x[:] = [*inside, *fitting][0]
    return bool(inside or fitting)
