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
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)

import diffevo_jax as de
from diffevo_jax.checks import InputError, Interval
from diffevo_jax.runs.config.errors import not_one_of


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
    "sampler": Kind("ddim", de.Sampler, _OF_A_RUN),
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
                raise not_one_of(key, known, what="one of the keys", key=str(key))
        return data


class Entry(NamedTuple):
    """A factory and what the runner must know of it.

    traced: settings that are numbers to the compiled program, so that a sweep over them compiles
        once. One that is off at 0 by default, as a floor, is no part of the program where it is 0.
    needs_positive: whether a fitness map has no weight for a negative fitness.
    title: settings of a problem -> its name in tables and figures.
    how: settings of a problem that say how it is met, not what is measured: runs that differ in
        these alone can be held against each other.
    measure: what a problem's fitness is called.
    """

    factory: Callable[..., Any]
    traced: tuple[str, ...]
    needs_positive: bool
    title: Callable[[Mapping[str, Any]], str]
    how: tuple[str, ...]
    measure: str


class Registry:
    """What configs can name: kind -> name -> `Entry`; and the plugins that registered some.

    plugins: file name -> (path, source) of the files that have been run.
    """

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
        self._types: dict[str, Any] = {}
        self.plugins: dict[str, tuple[str, str]] = {}

    def copy(self) -> "Registry":
        """A registry of the same names, which `restore` takes."""
        other = Registry()
        other.restore(self)
        return other

    def __eq__(self, other: object) -> bool:
        """Whether both have the same names."""
        return isinstance(other, Registry) and self._entries == other._entries

    def restore(self, other: "Registry") -> None:
        """Take over the names and plugins of another registry."""
        self._entries = {kind: dict(entries) for kind, entries in other._entries.items()}
        self.plugins = dict(other.plugins)
        self._types.clear()

    def register(
        self,
        kind: str,
        name: str,
        factory: Callable[..., Any] | None = None,
        *,
        needs_positive: bool = False,
        title: Callable[[Mapping[str, Any]], str] | None = None,
        how: Sequence[str] = (),
        measure: str = "fitness",
    ) -> Any:
        """Give a factory a name in configs; without a factory, return a decorator.

        kind: one of `KINDS`. name: new among those of its kind.
        needs_positive, title, how, measure: see `Entry`; the title is the name by default.

        Raises ValueError on another kind, a name that is taken or no word, and a factory whose
        parameters a config can't give.
        """
        facts: dict[str, Any] = {
            "needs_positive": needs_positive,
            "title": title or (lambda settings: str(settings["name"]).replace("_", " ")),
            "how": tuple(how),
            "measure": measure,
        }
        if factory is None:
            return partial(self._register, kind, name, **facts)
        return self._register(kind, name, factory, **facts)

    def _register(self, kind: str, name: str, factory: Callable, **facts: Any) -> Callable:
        if kind not in KINDS:
            raise InputError("kind", f"one of {', '.join(KINDS)}", repr(kind))
        if not (isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name)):
            raise InputError(kind, "a name of letters, digits, _, - and .", repr(name))
        where = f"{kind} {name!r}"
        if not callable(factory):
            raise InputError(where, "a factory, a function", repr(factory))
        if name in self._entries[kind]:
            home = _home(self._entries[kind][name])
            raise InputError(where, "a new name", f"one that {home} has registered already")
        parameters = _settings(kind, where, factory)
        traced = tuple(each for each in parameters if _may_be_traced(factory, each))
        self._entries[kind][name] = Entry(factory, traced, **facts)
        self._types.clear()
        return factory

    def names(self, kind: str) -> tuple[str, ...]:
        """What a section of this kind may be."""
        return tuple(self._entries[kind])

    def entry(self, kind: str, section: Section) -> Entry:
        """The entry of a validated section."""
        return self._entries[kind][getattr(section, "name")]  # noqa: B009

    def model(self, kind: str, name: str) -> type[Section]:
        """The section of a name: its settings."""
        default, factory = KINDS[kind].default, self._entries[kind][name].factory
        fields: dict[str, Any] = {"name": (Literal[name], name if name == default else ...)}
        for setting, (annotation, value) in _settings(kind, f"{kind} {name!r}", factory).items():
            if setting in KINDS:
                annotation = self.section_type(setting)
                if value is not ...:  # the library's own default has a name here
                    annotation, value = annotation | None, None
            fields[setting] = annotation, value
        return create_model(f"{kind}_{name}", __base__=Section, __doc__=factory.__doc__, **fields)

    def section_type(self, kind: str) -> Any:
        """The pydantic type of a kind's section: one of its entries, told apart by `name`."""
        if kind not in self._types:

            def chosen(value: Any) -> Any:
                if isinstance(value, dict):
                    name = value.get("name", KINDS[kind].default)
                    return name if name is None else str(name)
                return getattr(value, "name", None)

            models = tuple(
                Annotated[self.model(kind, name), Tag(name)] for name in self.names(kind)
            )
            self._types[kind] = Annotated[typing.Union[models], Discriminator(chosen)]  # noqa: UP007
        return self._types[kind]

    def build(self, kind: str, section: Any, path: str, **arguments: Any) -> Any:
        """Call a section's factory, and those of the sections in it, with their settings.

        path: place of the section in the config. arguments: those of `KINDS`; their values may be
            traced, and so may the section's numbers.
        A policy is made by its problem, which receives a function of the shapes.
        Raises ValueError whose message begins with the path of the setting.
        """
        factory = self.entry(kind, section).factory
        settings: dict[str, Any] = {}
        for name in inspect.signature(factory).parameters:
            if name == "policy":
                inner = getattr(section, name)
                settings[name] = partial(self.build, name, inner, f"{path}.{name}")
            elif name in KINDS:
                inner = getattr(section, name)
                if inner is not None:
                    settings[name] = self.build(name, inner, f"{path}.{name}", **arguments)
            elif name in type(section).model_fields:
                settings[name] = getattr(section, name)
            elif name in arguments:
                settings[name] = arguments[name]
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
            what = "a function" if result is None else f"a diffevo_jax {result.__name__}"
            raise InputError(path, f"its factory to return {what}", f"{made!r:.60}")
        return made

    def sections(
        self, kind: str, section: Any, path: str = ""
    ) -> Iterator[tuple[str, str, Section]]:
        """(kind, path, section) of a section and of those in it."""
        yield kind, path, section
        for name in type(section).model_fields:
            inner = getattr(section, name)
            if name in KINDS and inner is not None:
                yield from self.sections(name, inner, f"{path}.{name}".lstrip("."))

    # A problem in words. Its section may be validated, or as the config of finished results has it,
    # where a plugin's names are not known.

    def title(self, problem: Section | Mapping[str, Any]) -> str:
        """Name a problem for tables and figures."""
        entry, settings = self._known(problem)
        return entry.title(settings) if entry else str(settings.get("name")).replace("_", " ")

    def measure(self, problem: Section | Mapping[str, Any]) -> str:
        """What a problem's fitness is called."""
        entry, _ = self._known(problem)
        return entry.measure if entry else "fitness"

    def how(self, problem: Section | Mapping[str, Any]) -> tuple[str, ...]:
        """Settings of a problem that say how it is met, see `Entry`."""
        entry, _ = self._known(problem)
        return entry.how if entry else ()

    def measured(self, problem: Section | Mapping[str, Any]) -> dict[str, Any]:
        """Those settings of a problem that say what its fitness is."""
        _, settings = self._known(problem)
        return {key: value for key, value in settings.items() if key not in self.how(problem)}

    def _known(self, problem: Any) -> tuple[Entry | None, Mapping[str, Any]]:
        settings = problem if isinstance(problem, Mapping) else problem.model_dump()
        return self._entries["problem"].get(str(settings.get("name"))), settings


registry = Registry()
register = registry.register


def _home(entry: Entry) -> str:
    code = getattr(inspect.unwrap(entry.factory), "__code__", None)
    return code.co_filename if code else entry.factory.__module__


# From the signature of a factory to settings.


def _settings(kind: str, where: str, factory: Callable) -> dict[str, Any]:
    """Name -> pydantic (type, default) of the parameters that are settings."""
    hints = typing.get_type_hints(factory, include_extras=True)
    settings = {}
    for parameter in inspect.signature(factory).parameters.values():
        name = parameter.name
        if name in KINDS[kind].arguments:
            continue
        if name.startswith(("_", "model_")) or name == "name":
            raise InputError(where, "parameters that can be settings", repr(name))
        default = ... if parameter.default is parameter.empty else parameter.default
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InputError(where, "named parameters", str(parameter))
        if name in KINDS:  # a section: its type has to wait for all names
            settings[name] = Any, default
            continue
        hint = hints.get(name)
        setting = _setting(hint)
        if setting is not None:
            settings[name] = setting, default
            if default is not ...:
                _check_default(f"{where}: parameter {name!r}", setting, default)
        elif default is ... or hint is None:
            raise InputError(
                f"{where}: parameter {name!r}",
                "an annotation that a config can give (int, float, bool, str, Literal, list, dict "
                "or one of diffevo_jax.checks), or the name of what a run gives, "
                f"{', '.join(KINDS[kind].arguments)}",
                "none" if hint is None else hint,
            )
    return settings


def _check_default(where: str, setting: Any, default: Any) -> None:
    try:
        TypeAdapter(setting).validate_python(default, strict=True)
    except ValidationError as error:
        raise InputError(
            where, "a default of its type and range", repr(default), error.errors()[0]["msg"]
        ) from None


def _may_be_traced(factory: Callable, name: str) -> bool:
    """Whether a parameter's type says that it may be a number that is traced."""

    def holds_array(annotation: Any) -> bool:
        arguments = typing.get_args(annotation)
        if typing.get_origin(annotation) not in (Annotated, typing.Union, types.UnionType):
            return annotation is jax.Array
        return any(holds_array(each) for each in arguments)

    return holds_array(typing.get_type_hints(factory, include_extras=True).get(name))


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
    if origin is Literal:
        return Annotated[annotation, BeforeValidator(partial(_one_of, arguments))]
    if annotation in (int, bool, str):
        return annotation
    if origin in (list, dict, Sequence) or origin is typing.get_origin(Sequence[int]):
        inner = [_setting(each) for each in arguments]
        if None in inner:
            return None
        return dict[inner[0], inner[1]] if origin is dict else list[inner[0]]
    return None


def _one_of(choices: tuple, value: Any) -> Any:
    if value not in choices:
        raise not_one_of(value, map(str, choices))
    return value


def _field(interval: Interval) -> Any:
    """The pydantic constraints of an interval."""
    limits: dict[str, Any] = {}
    if interval.low > -float("inf"):
        limits["gt" if interval.closed[0] == "(" else "ge"] = interval.low
    if interval.high < float("inf"):
        limits["lt" if interval.closed[1] == ")" else "le"] = interval.high
    return Field(**limits)
