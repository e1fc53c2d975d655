"""Sweeps: a run's config with a section `sweep` that says which settings take which values.

    sweep:
      grid: {algorithm.eta: [0.0, 0.5, 1.0], algorithm.fitness_map.temperature: [0.1, 1.0]}
      seeds: 10

`grid` takes every combination, the last key fastest; `list` takes its mappings one by one; `random`
draws. Keys are those of `--set`. A point is a whole run config, validated before anything runs.
"""

import itertools
import math
import reprlib
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from diffevo_jax.runs.config.errors import describe, kind
from diffevo_jax.runs.config.schema import (
    ConfigError,
    Count,
    Finite,
    RunConfig,
    Section,
    check_method,
    override,
    read_config,
    validate_config,
)

# A grid of more is a slip: six axes of ten values, say.
MOST_POINTS = 10_000
# Runs that an accelerator does together.
RUNS_PER_CALL = 64

Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=300)]
Interval = Annotated[list[Finite], Field(min_length=2, max_length=2)]
Values = Annotated[list[Any], Field(min_length=1)]
Points = list[dict[Key, Any]]
Strings = list[str]


class Draw(Section):
    """A distribution of a setting: one of the three. An interval is [low, high]."""

    uniform: Interval | None = None
    log_uniform: Interval | None = None
    choice: Values | None = None

    @model_validator(mode="after")
    def _one_that_can_be_drawn(self) -> "Draw":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        interval = self.uniform or self.log_uniform
        if len(given) != 1:
            raise _error(f"expected one of uniform, log_uniform, choice; seen {given or 'none'}")
        if interval and not interval[0] < interval[1]:
            raise _error(f"{given[0]}: expected [low, high], low below high; seen {interval}")
        if self.log_uniform and self.log_uniform[0] <= 0:
            raise _error(f"log_uniform: expected an interval above 0; seen {interval}")
        return self

    def sample(self, generator: np.random.Generator) -> Any:
        """Draw one value."""
        if self.choice is not None:
            return self.choice[generator.integers(len(self.choice))]
        if self.log_uniform is not None:
            low, high = self.log_uniform
            return min(max(math.exp(generator.uniform(math.log(low), math.log(high))), low), high)
        assert self.uniform is not None
        low, high = self.uniform
        return float(generator.uniform(low, high))


class Random(Section):
    """Points drawn independently; more points keep the first ones."""

    points: Annotated[int, Field(ge=1, le=MOST_POINTS)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    draw: Annotated[dict[Key, Draw], Field(min_length=1)]


class SweepSection(Section):
    """Which points, how often, and in what portions.

    seeds: repeats of each point, the same random numbers in all; None takes `repeats`.
    points_per_job: a job has at most so many; None makes one job of all points of one shape.
    runs_per_call: runs that an accelerator does together.
    slurm: options of sbatch as `submitit.SlurmExecutor` takes them: time in minutes, partition,
        gpus_per_node, cpus_per_task, mem, account, setup (a list of shell commands), ...
    """

    grid: Annotated[dict[Key, Values], Field(min_length=1)] | None = None
    list: Annotated[Points, Field(min_length=1)] | None = None
    random: Random | None = None
    seeds: Count | None = None
    points_per_job: Count | None = None
    runs_per_call: Count = RUNS_PER_CALL
    slurm: dict[str, str | int | float | bool | Strings] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "SweepSection":
        given = [k for k in ("grid", "list", "random") if getattr(self, k) is not None]
        if len(given) != 1:
            seen = ", ".join(given) or "none"
            raise _error(f"expected one of grid, list, random; seen {seen}")
        size = math.prod(len(values) for values in (self.grid or {}).values())
        size = max(size, len(self.list or ()))
        if size > MOST_POINTS:
            raise _error(f"expected at most {MOST_POINTS} points; seen {size}")
        # A line break would end sbatch's comment and begin a command; `setup` is for commands.
        for key, value in (self.slurm or {}).items():
            if isinstance(value, str) and "\n" in value:
                raise _error(f"slurm.{key}: expected one line")
        return self

    def points(self) -> Points:
        """Which settings each point has, by their dotted keys."""
        if self.random is not None:
            seeds = [[self.random.seed, point] for point in range(self.random.points)]
            return [
                {key: draw.sample(generator) for key, draw in self.random.draw.items()}
                for generator in map(np.random.default_rng, seeds)
            ]
        if self.list is not None:
            return self.list
        assert self.grid is not None
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]


class Point(NamedTuple):
    """One point of a sweep: its number, what it sets, and the run that this makes."""

    number: int
    settings: dict[str, Any]
    config: RunConfig

    def describe(self) -> str:
        """Name the point and what it sets."""
        settings = ", ".join(f"{key}={reprlib.repr(v)}" for key, v in self.settings.items())
        return f"point {self.number} ({settings})"


class Sweep(NamedTuple):
    """A sweep: its config as written, its section, and its points."""

    data: dict[str, Any]
    section: SweepSection
    points: list[Point]

    @property
    def name(self) -> str:
        """The config's name."""
        return self.points[0].config.name


def load_sweep(path: Path, overrides: list[str] | None = None) -> Sweep:
    """Read, override and validate a sweep's config and every point of it.

    Raises ConfigError with all that is wrong with the sweep, or with its first bad point.
    """
    data = read_config(path, overrides, sweep=True)
    written = data["sweep"]
    if not isinstance(written, dict):
        raise ConfigError(f"{path}: sweep: expected keys and values; seen {kind(written)}")
    try:
        section = SweepSection.model_validate(written)
    except ValidationError as error:
        lines = [f"{path}: sweep: {line}" for line in describe(error, written, written)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None
    base = {key: value for key, value in data.items() if key != "sweep"}
    base.setdefault("save_populations", 0)  # a table is what a sweep is for
    if section.seeds is not None:
        if "repeats" in base:
            raise ConfigError(f"{path}: repeats and sweep.seeds mean the same; state one of them")
        base["repeats"] = section.seeds
    points = []
    for number, settings in enumerate(section.points()):
        config = base
        for key, value in settings.items():
            _check_key(key, base, f"{path}: sweep")
            config = override(config, key, value)
        if section.seeds is not None and "repeats" in settings:
            raise ConfigError(f"{path}: repeats and sweep.seeds mean the same; state one of them")
        point = Point(number, settings, RunConfig.model_construct())
        points.append(point._replace(config=validate_config(config, f"{path}: {point.describe()}")))
    return Sweep(data, section, points)


def _check_key(key: str, base: dict[str, Any], where: str) -> None:
    """Refuse a key that no point may set, or that a slip turned into a new method."""
    first, *rest = key.split(".")
    if first in ("name", "description", "figure", "sweep"):
        raise ConfigError(f"{where}: {key}: expected a setting of the algorithm or its problem")
    if first == "methods" and rest:
        check_method(f"{where}: {key}", rest[0], base.get("methods"))


def _error(message: str) -> PydanticCustomError:
    return PydanticCustomError("sweep", "{message}", {"message": message})
