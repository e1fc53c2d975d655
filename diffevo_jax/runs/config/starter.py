"""A commented starter config: what each setting may be comes from the registry and its models."""

import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types

from diffevo_jax.checks import nearest
from diffevo_jax.runs.config import registry
from diffevo_jax.runs.config import yaml as yaml_loader
from diffevo_jax.runs.config.schema import Checkpoint, ConfigError, Figure, Method, RunConfig

# What a starter states, by its kind of problem; all else is left at its default, in comments.
PROBLEMS: dict[str, dict[str, Any]] = {
    "function": {"kind": "function", "name": "rastrigin", "dim": 2, "scale": 4.0},
    "control": {
        "kind": "control",
        "environment": "CartPole-v1",
        "policy": {"name": "mlp", "hidden": [8]},
        "success": 500,
    },
    "bbob": {"kind": "bbob", "function": "f15", "dim": 4, "success": -1.0},
}
_ALGORITHM = {
    "name": "diffusion_evolution",
    "schedule": {"name": "cosine", "num_levels": 25},
    "fitness_map": {"name": "standardised", "temperature": 0.1},
    "eta": 1.0,
}
# From 5 genes on, distances in a plane.
_LATENT = {"control": {"latent_dim": 2}}
_WIDTH = 98


def write(name: str, problem: str, path: Path) -> str:
    """The text of a config that runs as it is. Raises ConfigError on another problem or name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", name):
        raise ConfigError(f"NAME: expected letters, digits, - and _; seen {name!r}; see --out")
    if problem not in PROBLEMS:
        raise ConfigError(
            f"--problem {problem}: expected one of {', '.join(PROBLEMS)}"
            f"{nearest(problem, PROBLEMS)}"
        )
    algorithm = {**_ALGORITHM, **_LATENT.get(problem, {})}
    top = _top(name, PROBLEMS[problem])
    lines = [
        f"# diffevo-jax run {path}",
        "#",
        "# It runs as it is. A comment says what the setting below it is and may be; settings in",
        "# comments show their defaults. --set algorithm.eta=0.5 changes one for a single run.",
        "",
        *_commented(RunConfig, top, ("name", "description", "seed", "repeats")),
        *_commented(Method, {"population": 256}, ("population",)),
        "",
        "problem:",
        *_section("problem", PROBLEMS[problem], "  "),
        "",
        "algorithm:",
        *_section("algorithm", algorithm, "  "),
        "",
        "# Lines of the figure; each states what differs from the settings above.",
        "methods:",
        "  evolution: {label: Diffusion Evolution}",
        "  cma_es: {label: CMA-ES, algorithm: {name: cma_es, num_generations: 25}}",
        "",
        *_more(),
        "",
        "# Other choices, with their settings and defaults; ... has none and must be given.",
        *_choices({"problem": problem, **_chosen(algorithm), "policy": "mlp"}),
    ]
    return "\n".join(lines) + "\n"


def _top(name: str, problem: dict[str, Any]) -> dict[str, Any]:
    what = problem.get("environment") or problem.get("name") or problem.get("function")
    told = f"Diffusion Evolution and CMA-ES on {what}"
    return {"name": name, "description": told, "seed": 0, "repeats": 4}


def _more() -> Iterator[str]:
    """The sections that a run may have besides."""
    for title, model in (("figure", Figure), ("checkpoint", Checkpoint)):
        yield f"# {title}:"
        for line in _commented(model, {}, tuple(model.model_fields)):
            yield f"#   {line.removeprefix('# ')}" if line.startswith("# ") else f"#   {line}"


def _commented(model: type, stated: dict[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    """Settings of a model of the runner, each with what it is and may be."""
    for name in names:
        field = model.model_fields[name]
        yield from _setting(name, field, stated, "", _explained(model.__doc__ or "", name))


def _section(kind: str, stated: dict[str, Any], indent: str) -> Iterator[str]:
    """A section's settings: those stated, and in comments the others."""
    tag, default = registry.KINDS[kind]
    names = list(registry.names(kind))
    chosen = stated.get(tag, default)
    yield from _wrapped(f"One of {', '.join(names)}.", indent)
    yield f"{indent}{tag}: {chosen}"
    model, factory = registry.model(kind, chosen), registry.factory(kind, chosen)
    for name, field in model.model_fields.items():
        if name == tag:
            continue
        if name in registry.KINDS and name in stated:
            yield f"{indent}{name}:"
            yield from _section(name, stated[name], f"{indent}  ")
            continue
        told = _explained(inspect.getdoc(factory) or "", name)
        yield from _setting(name, field, stated, indent, told)


def _setting(
    name: str, field: Any, stated: dict[str, Any], indent: str, told: str
) -> Iterator[str]:
    if name in registry.KINDS:
        may_be = "a section, see below"
    else:
        may_be = words(field.annotation, field.metadata)
    if told or may_be != "text":
        may_be = f"{may_be[0].upper()}{may_be[1:]}."
        may_be = "" if may_be.removesuffix(".") in told or may_be == "Text." else may_be
        yield from _wrapped(f"{told} {may_be}".strip(), indent)
    if name in stated:
        yield f"{indent}{name}: {_yaml(stated[name])}"
    else:
        default = field.get_default(call_default_factory=True)
        yield f"{indent}# {name}: {_yaml(default)}"


def _wrapped(text: str, indent: str) -> list[str]:
    lead = f"{indent}# "
    return textwrap.wrap(text, _WIDTH, initial_indent=lead, subsequent_indent=lead)


def _yaml(value: Any) -> str:
    """A value on one line, as a config has it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return yaml_loader.dump({"x": value}).removeprefix("x:").strip()


def _explained(doc: str, name: str) -> str:
    """What a docstring says of a parameter: "name: text." and the lines that go on deeper."""
    lines = doc.splitlines()
    for i, line in enumerate(lines):
        match = re.match(rf"( *)(?:.*\. )?{name}: (.+)", line)
        if not match:
            continue
        text = match[2]
        for later in lines[i + 1 :]:
            if not later.startswith(match[1] + "    ") or not later.strip():
                break
            text += " " + later.strip()
        text = re.split(r"(?<=[^ ]\.) (?=[\w, ]+: )", text)[0].replace("`", "")
        # Of callers in JAX, not of configs.
        text = re.sub(r",? or traced|(?<=\.) Raises .*", "", text)
        return f"{text[0].upper()}{text[1:]}".rstrip(".") + "."
    return ""


def words(annotation: Any, metadata: Any = ()) -> str:
    """Which values a type takes, in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return words(arguments[0], [*arguments[1:], *metadata])
    if origin in (typing.Union, types.UnionType):
        told = [words(each) for each in arguments]
        told = list(dict.fromkeys(told))
        return (
            " or ".join([", ".join(told[:-1]), told[-1]])
            if len(told) < 3
            else (f"{', '.join(told[:-1])} or {told[-1]}")
        )
    if annotation is type(None):
        return "null"
    if origin is Literal:
        listed = ", ".join(map(str, arguments))
        return listed if len(arguments) == 1 else f"one of {listed}"
    if annotation is bool:
        return "true or false"
    if origin is list:
        return f"a list, each {words(arguments[0])}"
    if origin is dict:
        return "keys and values"
    if annotation in (int, float):
        kind = "a whole number" if annotation is int else "a number"
        return f"{kind}{_interval(metadata)}"
    return "text"


def _interval(metadata: Any) -> str:
    """The bounds that a config sees, in words; those of 32 bits are nobody's business."""
    found: dict[str, float] = {}
    for each in _constraints(metadata):
        for name in ("gt", "ge", "lt", "le"):
            if getattr(each, name, None) is not None:
                found[name] = getattr(each, name)
    if found.get("lt", 0) >= 2**31:
        del found["lt"]
    if "ge" in found and "le" in found:
        return f" from {found['ge']:,g} to {found['le']:,.10g}"
    told = [
        f"{before} {found[name]:,.10g}{after}"
        for name, before, after in (
            ("gt", "above", ""), ("ge", "of", " or more"), ("lt", "below", ""), ("le", "up to", "")
        )
        if name in found
    ]  # fmt: skip
    return f" {' and '.join(told)}" if told else ""


def _constraints(metadata: Any) -> Iterator[Any]:
    for each in metadata:
        if isinstance(each, annotated_types.GroupedMetadata):
            yield from each
        elif hasattr(each, "metadata"):  # pydantic's Field
            yield from _constraints(each.metadata)
        else:
            yield each


def _chosen(section: dict[str, Any]) -> dict[str, str]:
    inner = {key: value["name"] for key, value in section.items() if isinstance(value, dict)}
    return {"algorithm": section["name"], **inner}


def _choices(taken: dict[str, str]) -> Iterator[str]:
    """What else each section may be, a line each."""
    for kind, (tag, _) in registry.KINDS.items():
        for name in registry.names(kind):
            if taken.get(kind) == name:
                continue
            told = [f"{tag}: {name}"]
            for setting, field in registry.model(kind, name).model_fields.items():
                if setting != tag:
                    default = "..." if field.is_required() else _yaml(field.get_default())
                    told.append(f"{setting}: {default}")
            text = f"{kind}: {{{', '.join(told)}}}"
            yield from textwrap.wrap(
                text,
                _WIDTH,
                initial_indent="# ",
                subsequent_indent="#     ",
                break_on_hyphens=False,
            )
