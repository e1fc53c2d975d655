"""Run configs: strict models, read from YAML, with errors that name file, key and nearest match."""

import contextlib
import functools
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError, create_model

from diffevo_jax.runs.config import (
    registry,
    words,
)
from diffevo_jax.runs.config import yaml as yaml_loader
from diffevo_jax.runs.config.errors import describe, kind, nearest
from diffevo_jax.runs.config.files import config_folder, shown
from diffevo_jax.runs.config.registry import Section

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
MethodName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=80)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
# Sizes are counted in 32 bits.
Count = Annotated[int, Field(ge=1, lt=2**31)]


class ConfigError(ValueError):
    """A config that can't be run; the message is for the user."""


class Reference(Section):
    """What to hold the last generation's success rate against.

    success_rate, standard_error: measured, as `source` says.
    published: as the tables published with the paper have it.
    """

    success_rate: Annotated[float, Field(ge=0, le=1)]
    standard_error: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    source: str
    published: Annotated[float, Field(ge=0, le=1)] | None = None


class Figure(Section):
    """Fitness against generation.

    ylabel: null is "reward" for control tasks, else "fitness".
    log: a logarithmic axis; a linear one, without `ticks`, where a quartile is 0 or less.
    maximum: a value to mark with a line.
    """

    ylabel: str | None = None
    log: bool = False
    maximum: Finite | None = None
    ticks: list[Finite] | None = None


class Checkpoint(Section):
    """How often a run saves where it is, for `--resume`.

    every: generations between checkpoints; null goes by time, once a minute, or less often where
        saving takes more than 1 % of that.
    keep: how many of the newest are kept.
    """

    every: Count | None = None
    keep: Count = 2


class Method(Section):
    """One line of the figure: its settings, complete.

    population: individuals. problem, algorithm: sections of the `registry`.
    save_populations: of how many repeats the final population is kept; null keeps all.
    save_x0: whether the estimates x0 of the last update are kept with them.
    """

    label: str
    population: Annotated[int, Field(ge=2, lt=2**31)]
    problem: Any
    algorithm: Any
    save_populations: Annotated[int, Field(ge=0)] | None = None
    save_x0: bool = False
    reference: Reference | None = None


class RunConfig(Section):
    """A whole run: every method over every repeat. `methods` differ from the top level."""

    also_here: ClassVar[tuple[str, ...]] = (
        *("population", "problem", "algorithm", "save_populations", "save_x0"),
    )

    name: Name
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    repeats: Count = 1
    methods: Annotated[dict[MethodName, Method], Field(min_length=1)]
    checkpoint: Checkpoint = Checkpoint()
    figure: Figure = Figure()


# Settings at the top level are the defaults of every method.
_SHARED = RunConfig.also_here


def repeats_of_sweep(path: Path, overrides: list[str] | None) -> str:
    """The key by which a sweep's config says how often each point is run. Raises ConfigError."""
    data = read_config(path, overrides, sweep=True)
    section = data["sweep"]
    return "sweep.seeds" if isinstance(section, dict) and "seeds" in section else "repeats"


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Read, override and validate a config file.

    overrides: "a.b=c" each, c read as YAML. Raises ConfigError with all that is wrong.
    """
    return validate_config(read_config(path, overrides), shown(path))


def read_config(
    path: Path, overrides: list[str] | None = None, *, sweep: bool = False
) -> dict[str, Any]:
    """Read and override the config file of a run or a sweep, as written. Raises ConfigError."""
    try:
        data = yaml_loader.read(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file{_hint(path, sweep=sweep)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder without a config.yaml; expected a config") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except yaml_loader.YamlError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys and values; seen {kind(data)}")
    written, changes = data, dict(map(_parse_override, overrides or []))
    for text in overrides or []:
        _check_place(text, _parse_override(text)[0], data.get("methods"))
        data = override(data, *_parse_override(text))
    data = words.restate(written, data, changes, overrides or [], _expand)
    if ("sweep" in data) != sweep:
        name = shown(path)
        raise ConfigError(
            f"{name}: missing key 'sweep', with grid, list or random; `diffevo-jax run {name}` "
            "runs a config without"
            if sweep
            else f"{name}: a sweep; run it with `diffevo-jax sweep {name}`"
        )
    return data


def _hint(path: Path, *, sweep: bool) -> str:
    """Say which config may have been meant, of those that the command takes: runs, or sweeps."""

    def fits(other: Path) -> bool:
        with contextlib.suppress(OSError, yaml_loader.YamlError):
            data = yaml_loader.read(other)
            return isinstance(data, dict) and ("sweep" in data) == sweep
        return False

    siblings = [str(other) for other in sorted(path.parent.glob("*.yaml")) if fits(other)]
    shipped = [other.stem for other in sorted(config_folder().glob("*.yaml")) if fits(other)]
    return nearest(str(path), [*siblings, *shipped]) or "; `diffevo-jax list` shows the configs"


def validate_config(data: dict[str, Any], where: str) -> RunConfig:
    """Validate a run's config. Raises ConfigError with all that is wrong, each line after `where`.

    data: as written, of `read_config`.
    """
    return _validated(_model(*map(registry.section_type, ("problem", "algorithm"))), data, where)


def read_results_config(path: Path) -> RunConfig:
    """Read the config of finished results: problems and algorithms stay as they are written.

    So that results of a plugin's names are read without it. Raises ConfigError.
    """
    return _validated(RunConfig, read_config(path), str(path))


def _validated(model: type[RunConfig], data: dict[str, Any], where: str) -> RunConfig:
    expanded = _expand(data)
    try:
        return model.model_validate(expanded)
    except ValidationError as error:
        lines = [f"{where}: {line}" for line in describe(error, data, expanded)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


@functools.lru_cache(maxsize=2)  # another name registered is another type
def _model(problem: Any, algorithm: Any) -> type[RunConfig]:
    """RunConfig with the sections of what is registered now."""
    method = create_model(
        "Method", __base__=Method, problem=(problem, ...), algorithm=(algorithm, ...)
    )
    methods: Any = Annotated[dict[MethodName, method], Field(min_length=1)]
    return create_model("RunConfig", __base__=RunConfig, methods=(methods, ...))


def merge(base: Any, change: Any) -> Any:
    """Lay `change` over `base`, mapping by mapping.

    A problem of another kind, or another fitness map, has other keys, and replaces the old one.
    """
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    merged = dict(base)
    for key, value in change.items():
        merged[key] = merge(base[key], value) if _same_choice(key, base, change) else value
    return merged


def _same_choice(key: str, base: dict, change: dict) -> bool:
    """Whether both have the section `key` and, where it is one of several, the same of them."""
    if key not in base:
        return False
    old, new = base[key], change[key]
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return True
    if key not in registry.KINDS or key == "schedule":  # schedules have the same settings
        return True
    tag, default = registry.KINDS[key]
    return tag not in new or new[tag] == old.get(tag, default)


def override(data: dict, key: str, value: Any) -> dict:
    """Set a.b.c of a config; a shared setting, in each method that states its section too.

    A method whose section is another choice, another optimiser for example, stays as it is.
    """
    change = value
    for part in reversed(key.split(".")):
        change = {part: change}
    shared = {key: value for key, value in change.items() if key in _SHARED}
    reached = {key: _choice(key, data.get(key)) for key in shared}
    data = merge(data, change)
    methods = data.get("methods")
    if isinstance(methods, dict) and shared:
        data["methods"] = {
            name: merge(method, {key: shared[key] for key in _stated(method, reached)})
            for name, method in methods.items()
        }
    return data


def _stated(method: Any, reached: dict[str, Any]) -> list[str]:
    """The settings that a method states; of a section, where it is the choice that is reached."""
    if not isinstance(method, dict):
        return []
    return [
        key
        for key, choice in reached.items()
        if key in method and choice in (None, _choice(key, method[key], choice))
    ]


def _choice(key: str, section: Any, default: Any = None) -> Any:
    """Which one of its kind a section is; where it does not say, the default."""
    if key not in registry.KINDS:
        return None
    tag, usual = registry.KINDS[key]
    return section.get(tag, default or usual) if isinstance(section, dict) else default or usual


def _expand(data: dict) -> dict:
    """Move the shared settings into each method; a run without methods is one method."""
    shared = {key: data[key] for key in _SHARED if key in data}
    rest = {key: value for key, value in data.items() if key not in _SHARED}
    methods = rest.get("methods", {"diffusion_evolution": {}})
    if isinstance(methods, dict):
        rest["methods"] = {
            name: merge({"label": _label(name), **shared}, {} if method is None else method)
            for name, method in methods.items()
        }
    return rest


def _label(name: Any) -> str:
    return str(name).replace("_", " ")


def _parse_override(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {override}: expected a.b=c, a key of the config and its value")
    try:
        return key, yaml_loader.load(text)
    except yaml_loader.YamlError as error:
        raise ConfigError(f"--set {override}: {error}") from None


def _check_place(text: str, key: str, methods: Any) -> None:
    """Raise ConfigError for a setting whose section is not named, or is not there."""
    first, *rest = key.split(".")
    if first == "methods" and len(rest) > 1:
        check_method(f"--set {text}", rest[0], methods)
    if key.startswith("sweep.grid.") and len(rest) > 2:
        name, _, value = text.partition("=")
        inner = name.strip().removeprefix("sweep.grid.")
        raise ConfigError(
            f"--set {text}: a grid's keys have dots of their own; "
            f'--set "sweep.grid={{{inner}: {value}}}"'
        )
    if first in (*RunConfig.model_fields, *_SHARED, "sweep"):
        return
    for section in ("problem", "algorithm"):
        models = [registry.model(section, name) for name in registry.names(section)]
        if any(first in model.model_fields for model in models):
            raise ConfigError(
                f"--set {text}: no key of a run; did you mean --set {section}.{text}?"
            )


def check_method(where: str, name: str, methods: Any) -> None:
    """Raise ConfigError for a setting of a method that a config, which has some, has not."""
    if isinstance(methods, dict) and name not in methods:
        hint = nearest(name, methods) or "."
        raise ConfigError(f"{where}: no such method{hint} Methods: {', '.join(map(str, methods))}")
