"""The house's docstrings as reStructuredText, and signatures as the source writes them.

A docstring is prose, with equations and examples in paragraphs of their own, and lists of
arguments, `name: what it is`, whose further lines are indented. Backticks are code, and a link
where the reference has that name.
"""

import ast
import contextlib
import functools
import inspect
import re
import textwrap
from dataclasses import is_dataclass
from types import ModuleType
from typing import Any

import diffevo_jax as de

# An equation, `sigma = eta ...`, or one that is updated, `H_i += ...`.
EQUATION = re.compile(r"\w[\w']*(\([^)]*\))?\s+\+?= ")


@functools.cache
def reference() -> dict[str, str]:
    """Every public name of the library, to its full one: `evolve`, `fitness.rank`, ..."""
    names: dict[str, str] = {}
    for name in dir(de):
        thing = getattr(de, name)
        if isinstance(thing, ModuleType):
            names[name] = f"diffevo_jax.{name}"
            public = [n for n in vars(thing) if not n.startswith("_")]
            for inner in public:
                known = getattr(thing, inner)
                home = getattr(known, "__module__", None) or getattr(known, "__name__", "")
                if callable(known) and home.startswith(f"diffevo_jax.{name}"):
                    names[f"{name}.{inner}"] = f"diffevo_jax.{name}.{inner}"
        elif callable(thing):
            names[name] = f"diffevo_jax.{name}"
    return names


def signature(app, what, name, obj: Any, options, args, returns) -> tuple[str, str] | None:
    """Give arguments, or a class's fields, as the source has them, with their types' own names."""
    if inspect.isclass(obj) and "__init__" in vars(obj) and not is_dataclass(obj):
        obj, returns = obj.__init__, False
    if not (inspect.isfunction(obj) or hasattr(obj, "_fields") or is_dataclass(obj)):
        return None
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(obj))).body
    if isinstance(node, ast.ClassDef):
        lines = [ast.unparse(line) for line in node.body if isinstance(line, ast.AnnAssign)]
        return f"({', '.join(lines)})", ""
    if not isinstance(node, ast.FunctionDef):
        return None
    if node.args.args and node.args.args[0].arg == "self":
        node.args.args = node.args.args[1:]
    returned = "" if node.returns is None or returns is False else ast.unparse(node.returns)
    return f"({ast.unparse(node.args)})", returned


def skip(app, what, name, obj, skipped, options) -> bool | None:
    """Leave out fields, which the docstring of their class has, and evosax's own `replace`."""
    field = type(obj).__name__ == "_tuplegetter" or type(obj).__module__.startswith("jax")
    return True if field or name == "replace" else None


def missing(app, env, node, contnode) -> None:
    """Warn of a name in a docstring that the reference does not have."""
    from sphinx.util import logging  # pyright: ignore[reportMissingImports]

    target = node.get("reftarget", "")
    if node.get("reftype") == "obj" and target.startswith("diffevo_jax."):
        logging.getLogger(__name__).warning(
            "no such name in the reference: %s", target, location=node
        )


def process(app, what, name, obj, options, lines: list[str]) -> None:
    """Rewrite a docstring in place: Sphinx's hook."""
    names: set[str] = set()
    if callable(obj):
        names = set(getattr(obj, "_fields", ()))
        with contextlib.suppress(TypeError, ValueError):
            names |= set(inspect.signature(obj).parameters)
    if not lines or not "".join(lines).strip():
        return
    room = getattr(obj, "__module__", None) or getattr(obj, "__name__", "")
    lines[:] = to_rst("\n".join(lines), names, room=room.partition(".")[2])


def to_rst(docstring: str, names: set[str], *, room: str = "") -> list[str]:
    """Convert one docstring; names: of its arguments; room: the module, to find its neighbours."""
    out: list[str] = []
    for paragraph in re.split(r"\n\s*\n", docstring.strip("\n")):
        lines = paragraph.rstrip().split("\n")
        if lines[0].startswith("    ") or _is_table(lines) or all(map(EQUATION.match, lines)):
            out += ["::", "", *("    " + line for line in lines), ""]
            continue
        for kind, text in _items(lines, names):
            if kind:
                given = ", ".join(f"**{part}**" for part in kind.split(", "))
                out += [f"- {given}: {_inline(text, names, room)}"]
            else:
                if out and out[-1]:
                    out.append("")
                out += [_inline(text, names, room), ""]
        if out and out[-1]:
            out.append("")
    return out


def _is_table(lines: list[str]) -> bool:
    """Whether columns are aligned by spaces: every line has a wide gap inside."""
    return len(lines) > 1 and all(re.search(r"\S {3,}\S", line) for line in lines)


def _items(lines: list[str], names: set[str]) -> list[tuple[str, str]]:
    """Split a paragraph into (arguments, text) pairs; ("", text) for prose."""
    items: list[tuple[str, str]] = []
    for line in lines:
        found = re.match(r"(\w+(?:, \w+)*): (.*)", line)
        given = found is not None and set(found[1].split(", ")) <= names
        if given and found is not None:
            items.append((found[1], found[2]))
        elif items and (line.startswith("    ") or not items[-1][0]):
            items[-1] = items[-1][0], f"{items[-1][1]} {line.strip()}"
        else:
            items.append(("", line.strip()))
    # A second argument may follow on the same line: "x_t: ... x0: ...".
    split: list[tuple[str, str]] = []
    for given, text in items:
        while given:
            further = next(
                (
                    found
                    for found in re.finditer(r"(?<=[.;]) (\w+(?:, \w+)*): ", text)
                    if set(found[1].split(", ")) <= names
                ),
                None,
            )
            if further is None:
                break
            split.append((given, text[: further.start()]))
            given, text = further[1], text[further.end() :]
        split.append((given, text))
    return split


def _inline(text: str, names: set[str], room: str) -> str:
    """Escape what reStructuredText would take for markup; code, links and emphasis as they are."""
    parts = re.split(r"(`[^`]+`|https?://[^\s)]+\w|(?<!\w)\*\w+\*(?!\w))", text)
    out = ""
    for part in parts:
        if part.startswith("`"):
            code = part[1:-1]
            out += f"``{code}``" if code in names else _code(code, room)
        elif re.match(r"https?:|\*\w+\*$", part):
            out += part
        else:  # a role ends where a word does not go on
            ends = "\\ " if out.endswith("`") and part[:1].isalnum() else ""
            out += ends + re.sub(r"([\\*|_`])", r"\\\1", part)
    return out


def _code(text: str, room: str) -> str:
    here = f"{room.split('.')[0]}.{text}"
    for known in (text, here):
        if known in reference() and "." not in text.replace(known, ""):
            return f":py:obj:`{text} <{reference()[known]}>`"
    return f"``{text}``"
