"""Templates: a structure with ranges, options and fixed values at its leaves, read and filled.

A template's numbers stand one after another in x `[P]`; of a category its option's number does,
followed by the numbers of all its options.
"""

import math
from collections.abc import Iterator, Sequence
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


class Range(NamedTuple):
    """A number of x as its bounds say: the fields of `space.Values`, but for log."""

    low: float
    high: float
    step: float = 0.0
    whole: bool = False
    width: int = 1


# Reading.


def is_plain(bounds: Any) -> bool:
    """Whether bounds are an array `[D, 2]`, not a template."""
    if isinstance(bounds, np.ndarray | jax.Array):
        return True
    if not isinstance(bounds, list | tuple) or isinstance(bounds, Choice):
        return False
    special = range | dict | Choice
    return not hasattr(bounds, "_fields") and not any(
        isinstance(part, special) or _is_category(part) for part in bounds
    )


def read(bounds: Any, path: str, sides: list[Range], names: list[str]) -> Template:
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


def _node(leaf: Any, name: str, sides: list[Range], names: list[str]) -> Leaf | Fixed | Category:
    start = len(sides)
    if _is_category(leaf):
        _check_options(name, leaf)
        # Two options lie on one side: to be mirrored is no other order.
        width = len(leaf) if len(leaf) > 2 else 1
        sides.append(Range(0, len(leaf) - 1, 1, True, width))
        names.append(name)
        options = []
        for number, option in enumerate(leaf):
            if _is_scalar(option):
                options.append(Template(None, (Fixed(option),)))
            else:
                path = f"{name}/{number}" if _is_node(option) else name
                options.append(read(option, path, sides, names))
        return Category(start, tuple(options))
    if isinstance(leaf, range):
        if len(leaf) < 2:
            raise InputError("bounds", f"a range of two or more for parameter {name!r}", repr(leaf))
        low, high = sorted((leaf[0], leaf[-1]))
        sides.append(Range(low, high, abs(leaf.step), True))
        names.append(name)
        return Leaf(start, ())
    if _is_range(leaf) and len(leaf) == 3 and isinstance(leaf, list | tuple):
        sides.append(_stepped(name, *leaf))
        names.append(name)
        return Leaf(start, ())
    if _is_range(leaf):
        if isinstance(leaf, list) and all(map(is_number, leaf)):
            first, second = leaf
            expected = f"({first}, {second}) for a range of parameter {name!r}"
            mend = f"choice({first}, {second}) for one of the two"
            raise InputError("bounds", expected, repr(leaf), mend)
        pairs = _pairs(name, leaf)
        flattened = pairs.reshape(-1, 2).tolist()
        sides += [Range(*pair) for pair in flattened]
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


def _stepped(name: str, low: Any, high: Any, step: Any) -> Range:
    if not (0 < step <= high - low):
        expected = f"(low, high, step), 0 < step <= high - low, for parameter {name!r}"
        raise InputError("bounds", expected, f"({low:g}, {high:g}, {step:g})")
    number = math.floor((high - low) / step * (1 + 1e-12))
    whole = isinstance(low, Integral) and isinstance(step, Integral)
    return Range(float(low), float(low + number * step), float(step), whole)


def _check_options(name: str, options: Sequence[Any]) -> None:
    if len(options) < 2:
        expected = f"two options or more for parameter {name!r}"
        mend = "a value that stands by itself is fixed"
        raise InputError("bounds", expected, repr(list(options)), mend)
    for place, option in enumerate(options):
        if any(is_same(option, other) for other in options[:place]):
            expected = f"options that differ for parameter {name!r}"
            raise InputError("bounds", expected, f"{option!r} twice")


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


def _is_node(node: Any) -> bool:
    return _is_category(node) or _is_range(node) or _is_scalar(node)


def _is_category(node: Any) -> bool:
    """Whether a list is of options: a text, a truth value or None among them, or three numbers."""
    if isinstance(node, Choice):
        return True
    if not isinstance(node, list) or not node:
        return False
    values = [part for part in node if _is_scalar(part)]
    return any(not is_number(value) for value in values) or (
        len(values) == len(node) and len(node) != 2
    )


def _is_range(node: Any) -> bool:
    """Whether it is (low, high), (low, high, step), or arrays of ends."""
    if isinstance(node, range | np.ndarray | jax.Array):
        return True
    if not isinstance(node, list | tuple) or hasattr(node, "_fields"):
        return False
    numbers = [isinstance(part, np.ndarray | jax.Array) or is_number(part) for part in node]
    if len(node) == 3:
        return all(map(is_number, node))
    nested = len(node) == 2 and all(isinstance(part, list | tuple) for part in node)
    return len(node) == 2 and (any(numbers) or (nested and _is_ends(node)))


def _is_ends(node: Any) -> bool:
    """Whether two lists of numbers are low and high ends, not ranges of their own."""
    return len(node[0]) == len(node[1]) != 2 and all(map(is_number, [*node[0], *node[1]]))


def _is_scalar(node: Any) -> bool:
    return node is None or isinstance(node, str | bytes | bool | Number | np.generic)


def is_number(node: Any) -> bool:
    """Whether it is a real number, and no truth value."""
    return isinstance(node, Real) and not isinstance(node, bool | np.bool_)


def is_same(a: Any, b: Any) -> bool:
    """Whether two values are one option: True is not 1, 1.0 is."""
    if isinstance(a, bool | np.bool_) != isinstance(b, bool | np.bool_):
        return False
    try:
        return bool(a == b)
    except (TypeError, ValueError):  # arrays within
        return False


def to_numbers(name: str, values: Any) -> np.ndarray:
    """Make an array of floats, or raise InputError naming the argument."""
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError):
        raise InputError(name, "numbers", repr(values)) from None


# Walking.


def categories(template: Template) -> Iterator[Category]:
    """Walk the categories, also those inside options."""
    for node in template.nodes:
        if isinstance(node, Category):
            yield node
            for option in node.options:
                yield from categories(option)


def count_points(template: Template, counts: np.ndarray) -> float:
    """Count the points of a template whose values have so many each, `[P]`."""
    total = 1.0
    for node in template.nodes:
        if isinstance(node, Leaf):
            total *= float(np.prod(counts[node.start : node.start + math.prod(node.shape)]))
        elif isinstance(node, Category):
            total *= sum(count_points(option, counts) for option in node.options)
    return total


def option_labels(category: Category) -> list[Any]:
    """Return what stands for options in a table: their values, or a template's fixed values.

    Those that would be the same get their numbers.
    """
    labels = []
    for option in category.options:
        fixed = [node.value for node in option.nodes if isinstance(node, Fixed)]
        is_value = option.tree is None and fixed
        labels.append(fixed[0] if is_value else " ".join(map(str, fixed)) or "number")
    same = [
        any(is_same(label, other) for other in labels[:place] + labels[place + 1 :])
        for place, label in enumerate(labels)
    ]
    return [f"{label} {place}" if same[place] else label for place, label in enumerate(labels)]


def mark_active(template: Template, x: np.ndarray, chosen: np.ndarray, active: np.ndarray) -> None:
    """Write into `active` `[N, P]` which values count where the template is chosen, `[N]`."""
    for node in template.nodes:
        if isinstance(node, Leaf):
            active[:, node.start : node.start + math.prod(node.shape)] = chosen[:, None]
        elif isinstance(node, Category):
            active[:, node.start] = chosen
            for number, option in enumerate(node.options):
                mark_active(option, x, chosen & (x[:, node.start] == number), active)


def build(template: Template, x: Any, whole: np.ndarray) -> Any:
    """Put the values x `[..., P]` into the structure; whole `[P]`: which of them are ints."""
    leaves = []
    for node in template.nodes:
        if isinstance(node, Fixed):
            leaves.append(node.value)
        elif isinstance(node, Leaf):
            part = x[..., node.start : node.start + math.prod(node.shape)]
            leaf = part.reshape(x.shape[:-1] + node.shape)
            is_whole = whole[node.start]
            leaf = leaf.astype(int) if is_whole else leaf
            if isinstance(leaf, np.ndarray):
                leaf = leaf.item() if is_whole and leaf.ndim == 0 else leaf[()]
            leaves.append(leaf)
        elif np.ndim(x) == 1:
            leaves.append(build(node.options[int(x[node.start])], x, whole))
        else:
            options = option_labels(node)
            leaves.append(as_array([options[int(number)] for number in x[..., node.start]]))
    return leaves[0] if template.tree is None else jax.tree.unflatten(template.tree, leaves)


def as_array(values: list) -> np.ndarray:
    """Make an array of options, texts or numbers where all are, else of objects."""
    kinds = {type(value) for value in values}
    if kinds <= {str} or kinds <= {int} or kinds <= {float}:
        return np.array(values)
    array = np.empty(len(values), object)
    array[:] = values
    return array


def fill(template: Template, point: Any, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Write a point's values into x `[P]`; return whether it has the template's structure.

    low, high: `[P]`. Of options that differ by their ranges alone, the one that the point is inside
    of is chosen.
    """
    if template.tree is None:
        parts = [point]
    else:
        try:
            parts = template.tree.flatten_up_to(point)
        except (TypeError, ValueError):
            return False
    pairs = zip(template.nodes, parts, strict=True)
    return all(_fill_node(node, part, x, low, high) for node, part in pairs)


def _fill_node(
    node: Leaf | Fixed | Category, part: Any, x: np.ndarray, low: np.ndarray, high: np.ndarray
) -> bool:
    if isinstance(node, Fixed):
        return is_same(node.value, part)
    if isinstance(node, Leaf):
        try:
            numbers = np.asarray(part, float)
        except (TypeError, ValueError):
            return False
        if numbers.shape != node.shape:
            return False
        x[node.start : node.start + numbers.size] = numbers.reshape(-1)
        return True
    fitting, inside = [], []
    for number, option in enumerate(node.options):
        filled = x.copy()
        if fill(option, part, filled, low, high):
            filled[node.start] = number
            is_inside = np.all((low <= filled) & (filled <= high))
            (inside if is_inside else fitting).append(filled)
    if inside or fitting:
        x[:] = [*inside, *fitting][0]
    return bool(inside or fitting)


def unstacked(template: Template, points: Any) -> list[Any]:
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
