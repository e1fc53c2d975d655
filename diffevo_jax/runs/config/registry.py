"""Names of a config -> factories: one registry for what is built in and what users bring.

    @register("fitness_map", "steep")
    def steep(power: Positive = 2.0) -> de.fitness.FitnessMap: ...

makes `fitness_map: {name: steep, power: 3}` part of every config. The settings of a section are the
parameters of its factory: their types, ranges and defaults are read from its signature. A number
that may be traced says so by its type, `checks.Positive` and the like: a sweep over it is one
program; one that Python looks at is a plain `float`. What the run itself knows is no setting: a
factory that has a parameter of one of the names in `GIVEN` is given it.
"""

import inspect
import re
import typing
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Tag,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

import diffevo_jax as de
from diffevo_jax.runs.config import signatures
from diffevo_jax.runs.config.errors import nearest
from diffevo_jax.runs.config.signatures import GIVEN as GIVEN
from diffevo_jax.runs.config.signatures import KINDS as KINDS


class Section(BaseModel):
    """A section of a config: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    also_here: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                known = [*cls.model_fields, *cls.also_here]
                hint = nearest(str(key), known)
                keys = ", ".join(known)
                message = f"unknown key '{key}'{hint or '.'} Keys here: {keys}"
                raise PydanticCustomError("unknown_key", "{message}", {"message": message})
        return data


class Entry(NamedTuple):
    """A factory and what the runner must know of it.

    traced: settings that are numbers to the compiled program, so that a sweep over them compiles
        once. One that is off at 0 by default, as a floor, is no part of the program where it is 0.
    needs_positive: of a fitness map, that it has no weight for a negative fitness.
    """

    factory: Callable[..., Any]
    traced: tuple[str, ...]
    needs_positive: bool


_entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
_sections: dict[str, Any] = {}


def register(
    kind: str,
    name: str,
    factory: Callable[..., Any] | None = None,
    *,
    needs_positive: bool = False,
) -> Any:
    """Give a factory a name in configs; a decorator where no factory is given.

    kind: one of `KINDS`. name: new among those of its kind. needs_positive: of `Entry`.
    Raises ValueError on another kind, a name that is taken or no word, and a factory whose
    parameters a config can't give.
    """
    if factory is None:
        return lambda factory: register(kind, name, factory, needs_positive=needs_positive)
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}; seen {kind!r}")
    if not (isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name)):
        raise ValueError(f"{kind}: expected a name of letters, digits, _, - and .; seen {name!r}")
    if not callable(factory):
        raise ValueError(f"{kind} {name!r}: expected a factory, a function; seen {factory!r}")
    if name in _entries[kind]:
        raise ValueError(f"{kind} {name!r}: registered already, by {_home(_entries[kind][name])}")
    settings = signatures.settings(kind, name, factory)
    traced = tuple(each for each in settings if signatures.may_be_traced(factory, each))
    _entries[kind][name] = Entry(factory, traced, needs_positive)
    _sections.clear()
    return factory


def snapshot() -> dict[str, dict[str, Entry]]:
    """What is registered, for `restore`."""
    return {kind: dict(entries) for kind, entries in _entries.items()}


def restore(entries: dict[str, dict[str, Entry]]) -> None:
    """Take the registry back to a snapshot."""
    _entries.update({kind: dict(names) for kind, names in entries.items()})
    _sections.clear()


def entry(kind: str, section: Any) -> Entry:
    """The entry of a validated section."""
    return _entries[kind][getattr(section, KINDS[kind][0])]


def names(kind: str) -> tuple[str, ...]:
    """What a section of this kind may be."""
    return tuple(_entries[kind])


def factory(kind: str, name: str) -> Callable[..., Any]:
    """The factory of a name."""
    return _entries[kind][name].factory


def model(kind: str, name: str) -> type[Section]:
    """The section of a name: its settings."""
    return _model(kind, name, _entries[kind][name].factory)


def section_type(kind: str) -> Any:
    """The pydantic type of a kind's section: one of its entries, told apart by its key."""
    if kind not in _sections:
        tag, default = KINDS[kind]
        choices = [
            Annotated[_model(kind, name, each.factory), Tag(name)]
            for name, each in _entries[kind].items()
        ]

        def chosen(value: Any) -> Any:
            if isinstance(value, dict):
                name = value.get(tag, default)
                return name if name is None else str(name)
            return getattr(value, tag, None)

        chosen.__name__ = tag  # as errors show it
        _sections[kind] = Annotated[typing.Union[tuple(choices)], Discriminator(chosen)]  # noqa: UP007
    return _sections[kind]


def build(kind: str, section: Any, path: str, **given: Any) -> Any:
    """Call a section's factory, and those of the sections in it, with their settings.

    path: of the section in the config. given: out of `GIVEN`; their values may be traced, and so
        may the section's numbers.
    A policy is made by its problem, which gets a function of what is still to be given.
    Raises ValueError whose message begins with the path of the setting.
    """
    factory = entry(kind, section).factory
    arguments: dict[str, Any] = {}
    for name in inspect.signature(factory).parameters:
        if name == "policy":
            arguments[name] = _later(name, getattr(section, name), f"{path}.{name}")
        elif name in KINDS:
            inner = getattr(section, name)
            if inner is not None:
                arguments[name] = build(name, inner, f"{path}.{name}", **given)
        elif name in type(section).model_fields:
            arguments[name] = getattr(section, name)
        elif name in given:
            arguments[name] = given[name]
    try:
        made = factory(**arguments)
    except ValueError as error:
        message = str(error)
        if message.startswith(path):  # of a section in it
            raise
        named = message.partition(":")[0] in arguments
        raise ValueError(f"{path}{'.' if named else ': '}{message}") from error
    wanted = _made_by(kind)
    if not (callable(made) if wanted is None else isinstance(made, wanted)):
        what = "a function" if wanted is None else f"a diffevo_jax {wanted.__name__}"
        raise ValueError(f"{path}: expected its factory to return {what}; seen {made!r:.60}")
    return made


def _made_by(kind: str) -> type | None:
    """What factories of a kind return; None is any function."""
    return {
        "problem": de.Problem,
        "policy": de.policies.Policy,
        "algorithm": de.Algorithm,
        "schedule": de.schedules.Schedule,
        "denoiser": de.Denoiser,
        "kernel": de.Kernel,
        "sampler": de.Sampler,
    }.get(kind)


def _later(kind: str, section: Any, path: str) -> Callable[..., Any]:
    return lambda **given: build(kind, section, path, **given)


def sections(kind: str, section: Any, path: str = "") -> typing.Iterator[tuple[str, str, Any]]:
    """(kind, path, section) of a section and of those in it."""
    yield kind, path, section
    for name in type(section).model_fields:
        inner = getattr(section, name)
        if name in KINDS and inner is not None:
            yield from sections(name, inner, f"{path}.{name}".lstrip("."))


def _model(kind: str, name: str, factory: Callable) -> type[Section]:
    """The section of one factory."""
    tag, default = KINDS[kind]
    fields: dict[str, Any] = {tag: (Literal[name], name if name == default else ...)}
    for setting, (annotation, value) in signatures.settings(kind, name, factory).items():
        if setting in KINDS:
            annotation = section_type(setting)
            if value is not ... and value is not None:  # the library's own default has a name here
                value = None
            if value is None:
                annotation = annotation | None
        fields[setting] = annotation, value
    return create_model(f"{kind}_{name}", __base__=Section, __doc__=factory.__doc__, **fields)


def _home(entry: Entry) -> str:
    code = getattr(inspect.unwrap(entry.factory), "__code__", None)
    return code.co_filename if code else entry.factory.__module__
