"""What is wrong with a config: the place of each error, what was expected there and seen."""

import reprlib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from diffevo_jax.checks import InputError, nearest

# pydantic's types of errors, with the numbers of their context.
_EXPECTED = {
    "missing": "a value, for it has no default",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "greater_than": "a number above {gt:.12g}",
    "greater_than_equal": "{ge:.12g} or more",
    "less_than": "a number below {lt:.12g}",
    "less_than_equal": "{le:.12g} or less",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
    "string_too_long": "at most {max_length} letters",
    "string_pattern_mismatch": "letters, digits, - and _",
}


def wrong(expected: str, seen: str, advice: str = "", *, key: str = "") -> PydanticCustomError:
    """An error that a validator raises, with the fields of an InputError; key: inside the value."""
    fields: Any = {"expected": expected, "seen": seen, "advice": advice, "key": key}
    return PydanticCustomError("config", "expected {expected}; seen {seen}", fields)


def not_one_of(
    value: Any,
    choices: Iterable[str],
    *,
    what: str = "one of",
    key: str = "",
    otherwise: str = "",
) -> PydanticCustomError:
    """The error of a value that is none of the choices, with the nearest of them.

    otherwise: the advice where none is near.
    """
    choices = list(choices)
    advice = nearest(str(value), choices).removeprefix("; ") or otherwise
    return wrong(f"{what} {', '.join(choices)}", typed(value), advice, key=key)


def describe(error: ValidationError, validated: Any, written: dict[str, Any]) -> list[InputError]:
    """What pydantic says of a config, each error once, where the file states the setting.

    validated: the data, with the shared settings in each method. written: as the file has them.
    """
    errors: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for item in error.errors(include_url=False):
        missing = item["type"] == "missing"
        path = _path(item["loc"], validated, missing=missing)
        context, known = item.get("ctx", {}), _EXPECTED.get(item["type"])
        expected = known.format(**context) if known else item["msg"]
        seen, advice = "nothing" if missing else typed(item["input"]), ""
        if item["type"] == "config":
            expected, seen, advice = context["expected"], context["seen"], context["advice"]
            path += [context["key"]] if context["key"] else []
        place = ".".join(_stated(path, written, missing=missing))
        errors.setdefault((place, seen), []).append((expected, advice))
    return [
        InputError(place, " or ".join(dict.fromkeys(expected)), seen, max(advice))
        for (place, seen), each in errors.items()
        for expected, advice in [zip(*each, strict=True)]
    ]


def _path(loc: tuple, data: Any, *, missing: bool) -> list[str]:
    """Keys of an error's place, without the names of types that pydantic puts between them."""
    path: list[str] = []
    for depth, part in enumerate(loc):
        try:
            data = data[part]
        except (LookupError, TypeError):
            if not missing or depth < len(loc) - 1:
                continue
        path.append(str(part))
    return path


def _stated(path: list[str], written: dict[str, Any], *, missing: bool) -> list[str]:
    """A method's setting where the file states it: in the method, or at the top level.

    One that is missing belongs where its section is chosen.
    """
    if path[:1] != ["methods"] or len(path) < 3:
        return path
    node: Any = written
    try:
        for key in path[:-1] if missing else path:
            node = node[key]
        return path if not missing or "name" in node else path[2:]
    except (KeyError, TypeError):
        return path[2:]


def typed(value: Any) -> str:
    """Name a value's type and show its beginning."""
    if value is None:
        return "nothing"
    text = reprlib.repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return text if isinstance(value, str) else f"{type(value).__name__} {text}"
