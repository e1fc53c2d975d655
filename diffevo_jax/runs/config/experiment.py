"""A config file as an experiment: its points, each with a validated config of a run.

YAML text -> mapping -> overrides laid over it -> points -> methods laid over the top level ->
`RunConfig`. A run is a sweep of one point.
"""

import json
import reprlib
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from diffevo_jax.checks import InputError, nearest
from diffevo_jax.runs.config import yaml as yaml_loader
from diffevo_jax.runs.config.errors import describe, typed
from diffevo_jax.runs.config.files import hint, shown
from diffevo_jax.runs.config.registry import KINDS, Registry, Section
from diffevo_jax.runs.config.registry import registry as default_registry
from diffevo_jax.runs.config.schema import SHARED, ConfigError, RunConfig
from diffevo_jax.runs.config.sweep import SweepSection
from diffevo_jax.runs.results.files import quoted

# Its full path, a.b.c, and its value.
Setting = tuple[str, Any]
T = TypeVar("T", bound=Section)

_EVOLVES = ("population_size", "problem", "algorithm")
# Overrides under which a config is still what its description says.
_FREE = (
    *("name", "description", "seed", "repeats", "checkpoint", "figure", "save_populations"),
    *("save_x0", "sweep.slurm", "sweep.points_per_job", "sweep.runs_per_call"),
)


class _Swept(Section):
    """The section of a file that makes it a sweep's."""

    sweep: SweepSection


class Point(NamedTuple):
    """One point of an experiment: its number, what it sets, and the run that this makes."""

    number: int
    settings: dict[str, Any]
    config: RunConfig

    def describe(self) -> str:
        """Name the point and what it sets."""
        return f"point {self.number} ({_listed(self.settings.items())})"


class Experiment(NamedTuple):
    """What a config file says.

    path: of the file. data: as written, with overrides. sweep: its section; None of a run, which
    has one point without settings.
    """

    path: Path
    data: dict[str, Any]
    sweep: SweepSection | None
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        """The config's name."""
        return self.points[0].config.name

    @property
    def config(self) -> RunConfig:
        """The config of a run. Raises ConfigError where the file is a sweep's."""
        if self.sweep is not None:
            name = shown(self.path)
            raise ConfigError(f"{name}: a sweep; run it with `diffevo-jax sweep {quoted(name)}`")
        return self.points[0].config


def load(
    path: Path, overrides: Sequence[str] = (), *, registry: Registry | None = default_registry
) -> Experiment:
    """Read, override and validate a config file and every point of it.

    overrides: "a.b=c" each, c read as YAML. registry: of the names; None takes any, and leaves
    problems and algorithms as they are written: finished results are read without their plugins.
    Raises ConfigError with all that is wrong with the config, or with its first bad point.
    """
    written, where = read(path), shown(path)
    changes: list[Setting] = []
    for text in overrides:
        key, value = _parsed(text)
        _check_place(f"--set {text}", key, merge(written, _nested(changes)), registry)
        changes.append((key, value))
    data = _noted(written, overlaid(written, changes, where), changes)
    section, each, base = None, [{}], data
    if "sweep" in data:
        base = {"save_populations": 0} | data  # a table is what a sweep is for
        swept = {"sweep": base.pop("sweep")}
        section = _validated(_Swept, swept, swept, where).sweep
        each = section.points()
    points = []
    for number, settings in enumerate(each):
        place = f"{where}: point {number} ({_listed(settings.items())})" if section else where
        for key in settings:
            if key.split(".")[0] in ("name", "description", "figure", "sweep"):
                problem = InputError(key, "a setting of the algorithm or its problem", key)
                raise ConfigError.of(f"{where}: sweep", problem)
            _check_place(f"{where}: sweep: {key}", key, base, registry)
        config = overlaid(base, settings.items(), place)
        config = _validated(RunConfig, _expanded(config), config, place, registry)
        points.append(Point(number, settings, config))
    return Experiment(path, data, section, tuple(points))


def read(path: Path) -> dict[str, Any]:
    """Read a config file as a mapping, as it is written. Raises ConfigError."""
    try:
        data = yaml_loader.read(path)
    except (OSError, yaml_loader.YamlError) as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, FileNotFoundError):
            reason = f"no such file{hint(path)}"
        elif isinstance(error, IsADirectoryError):
            reason = "a folder without a config.yaml; expected a config"
        raise ConfigError(f"{path}: {reason}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys and values; seen {typed(data)}")
    return data


def merge(base: Any, change: Any, sections: Container[str] = KINDS) -> Any:
    """Lay `change` over `base`, mapping by mapping.

    sections: keys of those that have a choice; one that names another has other keys, and replaces
    the old one.
    """
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    merged = dict(base)
    for key, new in change.items():
        old = base.get(key)
        if key in sections and isinstance(old, dict) and isinstance(new, dict):
            name = old.get("name", KINDS[key].default)
            old = old if new.get("name", name) == name else None
        merged[key] = merge(old, new, sections)
    return merged


def overlaid(data: dict[str, Any], changes: Iterable[Setting], where: str) -> dict[str, Any]:
    """Lay settings by their full paths, a.b.c, over a config.

    Those that methods share are set at the top level: a method that states one itself keeps its
    own. Raises ConfigError, after `where`, for a setting that every method keeps its own of.
    """
    changes = list(changes)
    change = _nested(changes)
    data = merge(data, change)
    methods = _methods(data)
    for key, value in changes:
        setting = _nested([(key, value)])
        stands = merge(change, setting, ()) == change  # no later one has replaced it
        if key.split(".")[0] not in SHARED or not methods or not stands:
            continue
        if not any(merge(method, setting) == method for method in methods.values()):
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            advice = f"`--set methods.{next(iter(methods))}.{key}={text}` sets it for one"
            expected = "a setting that some method takes from the top level"
            raise ConfigError.of(where, InputError(key, expected, "methods of their own", advice))
    return data


def _nested(settings: Iterable[Setting]) -> dict[str, Any]:
    """Settings by their full paths as one mapping."""
    nested: dict[str, Any] = {}
    for key, value in settings:
        for part in reversed(key.split(".")):
            value = {part: value}
        nested = merge(nested, value, ())
    return nested


def _expanded(data: dict[str, Any]) -> dict[str, Any]:
    """Move the shared settings into each method; a run without methods is one method."""
    shared = {key: data[key] for key in SHARED if key in data}
    rest = {key: value for key, value in data.items() if key not in SHARED}
    methods = rest.get("methods", {"diffusion_evolution": {}})
    if isinstance(methods, dict):
        rest["methods"] = {
            name: merge(
                {"label": str(name).replace("_", " "), **shared}, {} if method is None else method
            )
            for name, method in methods.items()
        }
    return rest


def _methods(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The methods of a config that are mappings, with the shared settings."""
    methods = _expanded(data)["methods"]
    methods = methods if isinstance(methods, dict) else {}
    return {name: method for name, method in methods.items() if isinstance(method, dict)}


def _noted(
    written: dict[str, Any], data: dict[str, Any], changes: Sequence[Setting]
) -> dict[str, Any]:
    """Say in the description what was overridden, and drop what methods were to be held against.

    The rest stays as it is written: another environment wants its own `problem.success`.
    """
    changes = [change for change in changes if not change[0].startswith(_FREE)]
    description = data.get("description", "")
    if not changes or not isinstance(description, str):
        return data
    begun = "; overridden: " in description
    note = f"{', ' if begun else '; overridden: '}{_listed(dict(changes).items())}"
    data = {**data, "description": description + note if description else note[2:]}
    before = _methods(written)
    for name, method in _methods(data).items():
        changed = any(before.get(name, method).get(key) != method.get(key) for key in _EVOLVES)
        if "reference" in method and changed:
            data = merge(data, {"methods": {name: {"reference": None}}})
    return data


def _listed(settings: Iterable[Setting]) -> str:
    return ", ".join(
        f"{key}={value if isinstance(value, str) else reprlib.repr(value)}"
        for key, value in settings
    )


def _validated(
    model: type[T],
    data: dict[str, Any],
    written: dict[str, Any],
    where: str,
    registry: Registry | None = None,
) -> T:
    try:
        return model.model_validate(data, context=registry)
    except ValidationError as error:
        raise ConfigError.of(where, *describe(error, data, written)) from None


def _parsed(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")) or key.count(".") > yaml_loader.DEEPEST:
        raise ConfigError(f"--set {override}: expected a.b=c, a key of the config and its value")
    try:
        return key, yaml_loader.load(text)
    except yaml_loader.YamlError as error:
        raise ConfigError(f"--set {override}: {error}") from None


def _check_place(where: str, key: str, data: dict[str, Any], registry: Registry | None) -> None:
    """Raise ConfigError for a setting of a method that is not there, or without its section."""
    first, *rest = key.split(".")
    methods, error = data.get("methods"), None
    if first == "methods" and rest[1:] and isinstance(methods, dict) and rest[0] not in methods:
        advice = nearest(rest[0], methods).removeprefix("; ")
        error = InputError("methods", f"one of {', '.join(methods)}", rest[0], advice)
    elif key.startswith("sweep.grid.") and rest[2:]:
        inner = key.removeprefix("sweep.grid.")
        advice = f'--set "sweep.grid={{{inner}: [...]}}"'
        error = InputError("sweep.grid", "keys and values", inner, advice)
    elif registry and first not in (*RunConfig.model_fields, *SHARED, "sweep"):
        for (section, _), entry in registry.entries.items():
            if section in ("problem", "algorithm") and first in entry.model.model_fields:
                advice = f"did you mean {section}.{key}?"
                error = error or InputError(first, "a key of a run", key, advice)
    if error:
        raise ConfigError.of(where, error)
