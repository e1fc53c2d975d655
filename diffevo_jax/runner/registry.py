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
import types
import typing
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

import diffevo_jax as de
from diffevo_jax.checks import Interval
from diffevo_jax.runner.config_errors import nearest

# What a run gives to the factories of each kind that ask for it: a PRNG key of the repeat, genes D,
# individuals N, the mesh or None; to a policy's, from its problem, the shapes that it has to fit.
_OF_A_RUN = ("key", "num_genes", "population_size", "mesh")
GIVEN = {
    "problem": ("mesh",),
    "policy": ("num_inputs", "num_outputs", "input_shape"),
    **dict.fromkeys(("algorithm", "schedule", "fitness_map", "denoiser", "sampler"), _OF_A_RUN),
}

# Each kind of section: the key that tells which one it is, and the one that it is without.
KINDS = {
    "problem": ("kind", None),
    "policy": ("name", "mlp"),
    "algorithm": ("name", "diffusion_evolution"),
    "schedule": ("name", "cosine"),
    "fitness_map": ("name", "standardised"),
    "denoiser": ("name", "posterior_mean"),
    "sampler": ("name", "ddim"),
}


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
    settings = _settings(kind, name, factory)
    traced = tuple(each for each in settings if _may_be_traced(factory, each))
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
        "problem": de.problems.Problem,
        "policy": de.policies.Policy,
        "algorithm": de.Algorithm,
        "schedule": de.schedules.Schedule,
        "denoiser": de.Denoiser,
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


# From signatures to sections


def _settings(kind: str, name: str, factory: Callable) -> dict[str, Any]:
    """Name -> pydantic (type, default) of the parameters that are settings."""
    hints = typing.get_type_hints(factory, include_extras=True)
    settings = {}
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.name in GIVEN[kind]:
            continue
        if parameter.name.startswith(("_", "model_")) or parameter.name == KINDS[kind][0]:
            raise ValueError(f"{kind} {name!r}: {parameter.name!r} can be no setting's name")
        default = ... if parameter.default is parameter.empty else parameter.default
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(f"{kind} {name!r}: expected named parameters; seen {parameter}")
        if parameter.name in KINDS:
            inner = Any  # until all names are known, see `_model`
            settings[parameter.name] = inner, default
            continue
        hint = hints.get(parameter.name)
        setting = _setting(hint)
        if setting is not None:
            settings[parameter.name] = setting, default
            if default is not ...:
                _check_default(f"{kind} {name!r}: parameter {parameter.name!r}", setting, default)
        elif default is ... or hint is None:
            raise ValueError(
                f"{kind} {name!r}: parameter {parameter.name!r}: expected an annotation that a "
                "config can give (int, float, bool, str, Literal, list, dict or one of "
                f"diffevo_jax.checks), or the name of what a run gives, {', '.join(GIVEN[kind])}; "
                f"seen {'none' if hint is None else hint}"
            )
    return settings


def _check_default(where: str, setting: Any, default: Any) -> None:
    try:
        TypeAdapter(setting).validate_python(default, strict=True)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise ValueError(
            f"{where}: expected a default that is {reason}; seen {default!r}"
        ) from None


def _may_be_traced(factory: Callable, name: str) -> bool:
    """Whether a parameter's type says that it may be a number that is traced."""

    def holds_array(annotation: Any) -> bool:
        arguments = typing.get_args(annotation)
        if typing.get_origin(annotation) not in (Annotated, typing.Union, types.UnionType):
            return annotation is jax.Array
        return any(holds_array(each) for each in arguments)

    return holds_array(typing.get_type_hints(factory, include_extras=True).get(name))


def _model(kind: str, name: str, factory: Callable) -> type[Section]:
    """The section of one factory."""
    tag, default = KINDS[kind]
    fields: dict[str, Any] = {tag: (Literal[name], name if name == default else ...)}  # pyright: ignore
    for setting, (annotation, value) in _settings(kind, name, factory).items():
        if setting in KINDS:
            annotation = section_type(setting)
            if value is not ... and value is not None:  # the library's own default has a name here
                value = None
            if value is None:
                annotation = annotation | None
        fields[setting] = annotation, value
    return create_model(f"{kind}_{name}", __base__=Section, __doc__=factory.__doc__, **fields)


def _setting(annotation: Any) -> Any:
    """The pydantic type of a parameter's annotation; None where a config can't give it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        inner = _setting(arguments[0])
        if inner is None:
            return None
        extra = [_field(each) if isinstance(each, Interval) else each for each in arguments[1:]]
        return Annotated[inner, *extra]
    if origin in (typing.Union, types.UnionType):
        # An array is for callers in JAX; a config gives the number.
        known = [
            each if each is types.NoneType else _setting(each)
            for each in arguments
            if each is not jax.Array
        ]
        if not known or None in known:
            return None
        return reduce(lambda union, each: union | each, known)
    if annotation is float:
        return Annotated[float, Field(allow_inf_nan=False)]
    if annotation in (int, bool, str) or origin is Literal:
        return annotation
    if origin in (list, dict, Sequence) or origin is typing.get_origin(Sequence[int]):
        inner = [_setting(each) for each in arguments]
        if None in inner:
            return None
        return dict[inner[0], inner[1]] if origin is dict else list[inner[0]]
    return None


def _field(interval: Interval) -> Any:
    """The pydantic constraints of an interval."""
    limits: dict[str, Any] = {}
    if interval.low > -float("inf"):
        limits["gt" if interval.closed[0] == "(" else "ge"] = interval.low
    if interval.high < float("inf"):
        limits["lt" if interval.closed[1] == ")" else "le"] = interval.high
    return Field(**limits)


def _home(entry: Entry) -> str:
    code = getattr(inspect.unwrap(entry.factory), "__code__", None)
    return code.co_filename if code else entry.factory.__module__
