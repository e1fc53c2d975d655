"""Names of a config -> factories: one registry for what is built in and what users bring.

    @register("fitness_map", "steep")
    def steep(power: Positive = 2.0) -> de.fitness.FitnessMap: ...

makes `fitness_map: {name: steep, power: 3}` part of every config. The settings of a section are the
parameters of its factory: their types, ranges and defaults are read from its signature. A number
that may be traced says so by its type, `checks.Positive` and the like: a sweep over it is one
program; one that Python looks at is a plain `float`. What the run itself knows is no setting: a
factory receives it by the parameter's name, see `KINDS`.
"""

import inspect
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import optax
import pydantic

import diffevo_jax as de
from diffevo_jax.checks import InputError, Interval
from diffevo_jax.runs.config.errors import not_one_of, typed, wrong


class Kind(NamedTuple):
    """A kind of section.

    default: the name of a section that states none. made: what its factories return; None is any
        function. arguments: what a run passes to a factory that has a parameter of the name.
    """

    default: str | None
    made: type | None
    arguments: tuple[str, ...]


# A PRNG key of the repeat, genes D, individuals N, the mesh or None.
_OF_A_RUN = ("key", "num_genes", "population_size", "mesh")
KINDS = {
    "problem": Kind(None, de.Problem, ("mesh",)),
    # The shapes that it has to fit, from its problem.
    "policy": Kind("mlp", de.policies.Policy, ("num_inputs", "num_outputs", "input_shape")),
    "algorithm": Kind("diffusion_evolution", de.Algorithm, _OF_A_RUN),
    "schedule": Kind("cosine", de.schedules.Schedule, _OF_A_RUN),
    "fitness_map": Kind("standardised", None, _OF_A_RUN),
    "denoiser": Kind("posterior_mean", de.Denoiser, _OF_A_RUN),
    "kernel": Kind("gaussian", de.Kernel, _OF_A_RUN),
    "projection": Kind(None, None, _OF_A_RUN),
    "sampler": Kind("ddim", de.Sampler, _OF_A_RUN),
    "archive": Kind("grid", de.archives.Cells, _OF_A_RUN),
    "learner": Kind("mlp", de.training.Learner, _OF_A_RUN),
    "optimizer": Kind(None, optax.GradientTransformation, _OF_A_RUN),
}


class Section(pydantic.BaseModel):
    """A section of a config: no unknown keys, no silent conversions."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)
    also_here: ClassVar[tuple[str, ...]] = ()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                known = [*cls.model_fields, *cls.also_here]
                raise not_one_of(key, known, what="one of the keys", key=str(key))
        return data


def chosen(kind: str) -> pydantic.BeforeValidator:
    """A field that is a section of a kind: its names are those of the registry in the context.

    Without a registry, the section stays as it is written.
    """

    def validated(value: Any, info: pydantic.ValidationInfo) -> Any:
        return value if info.context is None else info.context.section(kind, value)

    return pydantic.BeforeValidator(validated)


def _title(settings: Mapping[str, Any]) -> str:
    return str(settings.get("name")).replace("_", " ")


class Entry(NamedTuple):
    """A factory and what a run must know of it.

    model: its section. traced: settings that are numbers to the compiled program, so that a sweep
        over them compiles once. One that is off at 0 by default, as a floor, is no part of the
        program where it is 0.
    needs_positive: whether a fitness map has no weight for a negative fitness.
    title: settings of a problem -> its name in tables and figures.
    how: settings of a problem that say how it is met, not what is measured: runs that differ in
        these alone can be held against each other.
    measure: what a problem's fitness is called.
    """

    factory: Callable[..., Any]
    model: type[Section]
    traced: tuple[str, ...] = ()
    needs_positive: bool = False
    title: Callable[[Mapping[str, Any]], str] = _title
    how: tuple[str, ...] = ()
    measure: str = "fitness"


_UNKNOWN = Entry(Section, Section)


class Registry:
    """What configs can name.

    entries: by kind and name. plugins: file name -> (path, source) of those that have been run.
    """

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], Entry] = {}
        self.plugins: dict[str, tuple[str, str]] = {}

    def register(
        self,
        kind: str,
        name: str,
        factory: Callable[..., Any] | None = None,
        *,
        needs_positive: bool = False,
        title: Callable[[Mapping[str, Any]], str] = _title,
        how: Sequence[str] = (),
        measure: str = "fitness",
    ) -> Any:
        """Give a factory a name in configs; without a factory, return a decorator.

        kind: one of `KINDS`. name: new among those of its kind.
        needs_positive, title, how, measure: see `Entry`; the title is the name by default.

        Raises ValueError on another kind, a name that is taken or no word, and a factory whose
        parameters a config can't give.
        """

        def decorate(factory: Callable) -> Callable:
            if kind not in KINDS:
                raise InputError("kind", f"one of {', '.join(KINDS)}", repr(kind))
            if not (isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name)):
                raise InputError(kind, "a name of letters, digits, _, - and .", repr(name))
            where = f"{kind} {name!r}"
            if not callable(factory):
                raise InputError(where, "a factory, a function", repr(factory))
            if (kind, name) in self.entries:
                home = self.entries[kind, name].factory.__module__
                raise InputError(where, "a new name", f"one that {home} has registered already")
            facts = needs_positive, title, tuple(how), measure
            self.entries[kind, name] = Entry(factory, *_section(kind, name, factory), *facts)
            return factory

        return decorate if factory is None else decorate(factory)

    def names(self, kind: str) -> list[str]:
        """What a section of this kind may be."""
        return [name for each, name in self.entries if each == kind]

    def entry(self, kind: str, section: Section) -> Entry:
        """The entry of a validated section."""
        return self.entries[kind, getattr(section, "name")]  # noqa: B009

    def section(self, kind: str, value: Any) -> Section:
        """Validate a section of a config: the settings of the factory that its `name` chooses."""
        if not isinstance(value, dict):
            raise wrong("keys and values", typed(value))
        name = value.get("name", KINDS[kind].default)
        if (kind, str(name)) not in self.entries:
            advice = "" if name is None else "names of your own: --plugin FILE"
            raise not_one_of(name, self.names(kind), key="name", otherwise=advice)
        return self.entries[kind, str(name)].model.model_validate(value, context=self)

    def build(self, kind: str, section: Any, path: str, **arguments: Any) -> Any:
        """Call a section's factory, and those of the sections in it, with their settings.

        path: place of the section in the config. arguments: those of `KINDS`; their values may be
            traced, and so may the section's numbers.
        A policy is made by its problem, which receives a function of the shapes.
        Raises ValueError whose message begins with the path of the setting.
        """
        factory = self.entry(kind, section).factory
        parameters = inspect.signature(factory).parameters
        settings = {name: value for name, value in arguments.items() if name in parameters}
        for name, value in section:
            if name == "policy":
                settings[name] = partial(self.build, name, value, f"{path}.{name}")
            elif name not in KINDS and name != "name":
                settings[name] = value
            elif name in KINDS and value is not None:
                settings[name] = self.build(name, value, f"{path}.{name}", **arguments)
        try:
            made = factory(**settings)
        except ValueError as error:
            message = str(error)
            if message.startswith(path):  # it comes from a section in it
                raise
            place = f"{path}{'.' if message.partition(':')[0] in settings else ': '}"
            if isinstance(error, InputError):
                fields = (error.expected, error.seen, error.advice)
                raise InputError(place + error.path, *fields) from error
            raise ValueError(place + message) from error
        result = KINDS[kind].made
        if not (callable(made) if result is None else isinstance(made, result)):
            home = "" if result is None else result.__module__.partition(".")[0]
            what = "a function" if result is None else f"a {home} {result.__name__}"
            raise InputError(path, f"its factory to return {what}", f"{made!r:.60}")
        return made

    def sections(
        self, kind: str, section: Any, path: str = ""
    ) -> Iterator[tuple[str, str, Section]]:
        """(kind, path, section) of a section and of those in it."""
        yield kind, path, section
        for name, inner in section:
            if name in KINDS and inner is not None:
                yield from self.sections(name, inner, f"{path}.{name}".lstrip("."))

    # A problem in words. Its section may be validated, or as the config of finished results has it,
    # where a plugin's names are not known.

    def title(self, problem: Section | Mapping[str, Any]) -> str:
        """Name a problem for tables and figures."""
        entry, settings = self._known(problem)
        return entry.title(settings)

    def measure(self, problem: Section | Mapping[str, Any]) -> str:
        """What a problem's fitness is called."""
        return self._known(problem)[0].measure

    def how(self, problem: Section | Mapping[str, Any]) -> tuple[str, ...]:
        """Settings of a problem that say how it is met, see `Entry`."""
        return self._known(problem)[0].how

    def measured(self, problem: Section | Mapping[str, Any]) -> dict[str, Any]:
        """Those settings of a problem that say what its fitness is."""
        entry, settings = self._known(problem)
        return {key: value for key, value in settings.items() if key not in entry.how}

    def _known(self, problem: Any) -> tuple[Entry, Mapping[str, Any]]:
        settings = dict(problem)
        return self.entries.get(("problem", str(settings.get("name"))), _UNKNOWN), settings


registry = Registry()
register = registry.register


# From the signature of a factory to settings.


def _section(kind: str, name: str, factory: Callable) -> tuple[type[Section], tuple[str, ...]]:
    """The section of a factory, whose settings are its parameters, and those that may be traced."""
    where = f"{kind} {name!r}"
    hints = typing.get_type_hints(factory, include_extras=True)
    fields: dict[str, Any] = {"name": (Literal[name], name)}
    for setting, parameter in inspect.signature(factory).parameters.items():
        if setting in KINDS[kind].arguments:
            continue
        if setting.startswith(("_", "model_")) or setting == "name":
            raise InputError(where, "parameters that can be settings", repr(setting))
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InputError(where, "named parameters", str(parameter))
        place, hint = f"{where}: parameter {setting!r}", hints.get(setting)
        default = ... if parameter.default is parameter.empty else parameter.default
        if setting in KINDS:
            section: Any = Annotated[Any, chosen(setting)]
            # The library's own default has a name here.
            fields[setting] = (section, ...) if default is ... else (section | None, None)
            continue
        try:
            fields[setting] = _setting(hint), default
            if default is not ...:
                pydantic.TypeAdapter(fields[setting][0]).validate_python(default, strict=True)
        except pydantic.ValidationError as error:
            advice = error.errors()[0]["msg"]
            expected = "a default of its type and range"
            raise InputError(place, expected, repr(default), advice) from None
        except TypeError:
            if hint is None or default is ...:
                raise InputError(
                    place,
                    "an annotation that a config can give (int, float, bool, str, Literal, list, "
                    "dict or one of diffevo_jax.checks), or the name of what a run gives, "
                    f"{', '.join(KINDS[kind].arguments)}",
                    "none" if hint is None else hint,
                ) from None
    model = pydantic.create_model(f"{kind}_{name}", __base__=Section, **fields)
    numbers = (each for each in fields if each not in KINDS)
    return model, tuple(each for each in numbers if jax.Array in _alternatives(hints.get(each)))


def _alternatives(annotation: Any) -> list[Any]:
    """The types that a value of an annotation may have."""
    if typing.get_origin(annotation) not in (Annotated, typing.Union, types.UnionType):
        return [annotation]
    return [kind for each in typing.get_args(annotation) for kind in _alternatives(each)]


def _setting(annotation: Any) -> Any:
    """The pydantic type of a parameter's annotation. Raises TypeError if a config can't give it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is float:
        return Annotated[float, pydantic.Field(allow_inf_nan=False)]
    if annotation in (int, bool, str):
        return annotation
    if origin is Literal:
        return Annotated[annotation, pydantic.BeforeValidator(partial(_one_of, arguments))]
    if origin is Annotated:
        extra = [_field(each) if isinstance(each, Interval) else each for each in arguments[1:]]
        return Annotated[_setting(arguments[0]), *extra]
    if origin in (typing.Union, types.UnionType):
        # An array is for callers in JAX; a config gives the number.
        known = [_setting(each) for each in arguments if each not in (jax.Array, types.NoneType)]
        union = reduce(operator.or_, known)
        return union | None if types.NoneType in arguments else union
    if origin in (list, Sequence):
        return list[_setting(arguments[0])]
    if origin is dict:
        key, value = map(_setting, arguments)
        return dict[key, value]
    raise TypeError


def _one_of(choices: tuple, value: Any) -> Any:
    if value not in choices:
        raise not_one_of(value, map(str, choices))
    return value


def _field(interval: Interval) -> Any:
    """The pydantic constraints of an interval."""
    low, high, closed = interval
    limits = {"gt" if closed[0] == "(" else "ge": low, "lt" if closed[1] == ")" else "le": high}
    return pydantic.Field(**{key: limit for key, limit in limits.items() if math.isfinite(limit)})  # pyright: ignore
