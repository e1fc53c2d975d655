"""What is said of a bad config: a line an error, with its key, what was expected and seen."""

import re
import reprlib
from typing import Any

from pydantic import ValidationError

from diffevo_jax.checks import nearest as nearest


def describe(error: ValidationError, data: dict, expanded: dict) -> list[str]:
    """One line an error: key, what was expected, what was seen.

    data: the config as written. expanded: as validated, its shared settings in each method.
    """
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(_path(item["loc"], expanded, keep_last=item["type"] == "missing"))
        context = item.get("ctx", {})
        seen = kind(item["input"])
        match item["type"]:
            case "literal_error" | "union_tag_invalid":
                listed = context.get("expected_tags") or context["expected"]
                choices = re.findall(r"'([^']*)'", listed)
                tag = context.get("tag")
                if tag is not None:
                    key += f".{_tag(context)}"
                word = str(tag if tag is not None else item["input"])
                shown = word if len(word) <= 60 else f"{word[:57]}..."
                message = f"expected one of {', '.join(choices)}; seen '{shown}'"
                message += nearest(word, choices) or (
                    "; names of your own: --plugin FILE" if tag else ""
                )
            case "union_tag_not_found" if not isinstance(item["input"], dict):
                message = f"expected keys and values, {{{_tag(context)}: ...}}; seen {seen}"
            case "union_tag_not_found":
                message = f"missing key '{_tag(context)}'"
            case "missing":
                message = "missing"
            case "unknown_key" | "environment" | "plane" | "sweep":
                message = item["msg"]
            case "too_short":
                message = "expected at least one"
            case "string_pattern_mismatch":
                message = f"expected letters, digits, - and _; seen {seen}"
            case "dict_type" | "model_type" | "model_attributes_type":
                message = f"expected keys and values; seen {seen}"
            case _:
                reason = item["msg"].removeprefix("Input should be ").removeprefix("a valid ")
                message = f"expected {reason}; seen {seen}"
        lines.append(f"{key}: {message}" if key else message)
    # A setting at the top level is wrong in every method alike: name it where it stands.
    lines = [_shared_place(line, data) for line in lines]
    # An override of a shared setting stands in the methods too, and is wrong there alike.
    shared = {line for line in lines if not line.startswith("methods.")}
    return [
        line for line in lines if re.sub(r"^methods\.[^.:]+\.", "", line) not in shared - {line}
    ]


def _tag(context: dict[str, Any]) -> str:
    """The key that tells sections apart, which pydantic shows as a function's name."""
    return context["discriminator"].strip("'()")


def _shared_place(line: str, data: dict) -> str:
    """Turn methods.NAME.section... into section... when the method did not set it itself."""
    match = re.match(r"methods\.([^.:]+)\.([^:]+):", line)
    if not match:
        return line
    node = (data.get("methods") or {}).get(match[1])
    for key in match[2].split("."):
        if not (isinstance(node, dict) and key in node):
            return line[len(f"methods.{match[1]}.") :]
        node = node[key]
    return line


def _path(loc: tuple, data: Any, *, keep_last: bool) -> list[str]:
    """Keys of an error's place, without the tags that pydantic puts between them."""
    path = []
    for depth, part in enumerate(loc):
        inside = isinstance(data, dict) and part in data
        if isinstance(data, list) and isinstance(part, int):
            inside = part < len(data)
        if inside:
            data = data[part]
            path.append(str(part))
        elif keep_last and depth == len(loc) - 1:
            path.append(str(part))
    return path


def kind(value: Any) -> str:
    """Name a value's type and show its beginning."""
    if value is None:
        return "nothing"
    text = reprlib.repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
