"""From the signature of a factory to the settings of a config's section."""

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Annotated, Any, Literal

import jax
from pydantic import Field, TypeAdapter, ValidationError

from diffevo_jax.checks import Interval

# What a run gives to the factories of each kind that ask for it: a PRNG key of the repeat, genes D,
# individuals N, the mesh or None; to a policy's, from its problem, the shapes that it has to fit.
_OF_A_RUN = ("key", "num_genes", "population_size", "mesh")
GIVEN = {
    "problem": ("mesh",),
    "policy": ("num_inputs", "num_outputs", "input_shape"),
    **dict.fromkeys(
        ("algorithm", "schedule", "fitness_map", "denoiser", "kernel", "sampler"), _OF_A_RUN
    ),
}

# Each kind of section: the key that tells which one it is, and the one that it is without.
KINDS = {
    "problem": ("kind", None),
    "policy": ("name", "mlp"),
    "algorithm": ("name", "diffusion_evolution"),
    "schedule": ("name", "cosine"),
    "fitness_map": ("name", "standardised"),
    "denoiser": ("name", "posterior_mean"),
    "kernel": ("name", "gaussian"),
    "sampler": ("name", "ddim"),
}


def settings(kind: str, name: str, factory: Callable) -> dict[str, Any]:
    """Name -> pydantic (type, default) of the parameters that are settings."""
    hints = typing.get_type_hints(factory, include_extras=True)
    found = {}
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.name in GIVEN[kind]:
            continue
        if parameter.name.startswith(("_", "model_")) or parameter.name == KINDS[kind][0]:
            raise ValueError(f"{kind} {name!r}: {parameter.name!r} can be no setting's name")
        default = ... if parameter.default is parameter.empty else parameter.default
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(f"{kind} {name!r}: expected named parameters; seen {parameter}")
        if parameter.name in KINDS:
            inner = Any  # until all names are known, see `registry`
            found[parameter.name] = inner, default
            continue
        hint = hints.get(parameter.name)
        setting = _setting(hint)
        if setting is not None:
            found[parameter.name] = setting, default
            if default is not ...:
                _check_default(f"{kind} {name!r}: parameter {parameter.name!r}", setting, default)
        elif default is ... or hint is None:
            raise ValueError(
                f"{kind} {name!r}: parameter {parameter.name!r}: expected an annotation that a "
                "config can give (int, float, bool, str, Literal, list, dict or one of "
                f"diffevo_jax.checks), or the name of what a run gives, {', '.join(GIVEN[kind])}; "
                f"seen {'none' if hint is None else hint}"
            )
    return found


def _check_default(where: str, setting: Any, default: Any) -> None:
    try:
        TypeAdapter(setting).validate_python(default, strict=True)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise ValueError(
            f"{where}: expected a default that is {reason}; seen {default!r}"
        ) from None


def may_be_traced(factory: Callable, name: str) -> bool:
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
