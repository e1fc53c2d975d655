"""The section `sweep` of a config: which settings take which values.

    sweep:
      grid: {algorithm.eta: [0.0, 0.5, 1.0], algorithm.fitness_map.temperature: [0.1, 1.0]}

`grid` takes every combination, the last key fastest; `list` takes its mappings one by one; `random`
draws. Keys are those of `--set`. Each point is run as often as `repeats` says.
"""

import itertools
import math
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from diffevo_jax.runs.config.errors import wrong
from diffevo_jax.runs.config.registry import Section
from diffevo_jax.runs.config.schema import Count, Finite

# A grid of more is a slip: six axes of ten values, say.
MOST_POINTS = 10_000
# Runs that an accelerator does together.
RUNS_PER_CALL = 64

Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=300)]
Interval = Annotated[list[Finite], Field(min_length=2, max_length=2)]
Values = Annotated[list[Any], Field(min_length=1)]
Points = list[dict[Key, Any]]
Strings = list[str]


def _only_one(section: Section, *names: str) -> str:
    """The one of some settings that a section states; an error where it is not one."""
    stated = [name for name in names if getattr(section, name) is not None]
    if len(stated) != 1:
        raise wrong(f"one of {', '.join(names)}", ", ".join(stated) or "none")
    return stated[0]


class Draw(Section):
    """A distribution of a setting: one of the three. An interval is [low, high]."""

    uniform: Interval | None = None
    log_uniform: Interval | None = None
    choice: Values | None = None

    @model_validator(mode="after")
    def _one_that_can_be_drawn(self) -> "Draw":
        name = _only_one(self, "uniform", "log_uniform", "choice")
        interval = self.uniform or self.log_uniform
        if interval and not interval[0] < interval[1]:
            raise wrong("[low, high], low below high", str(interval), key=name)
        if self.log_uniform and self.log_uniform[0] <= 0:
            raise wrong("an interval above 0", str(interval), key=name)
        return self

    def sample(self, generator: np.random.Generator) -> Any:
        """Draw one value."""
        if self.choice:
            return self.choice[generator.integers(len(self.choice))]
        interval = self.uniform or self.log_uniform
        assert interval
        low, high = interval
        if self.uniform:
            return float(generator.uniform(low, high))
        return min(max(math.exp(generator.uniform(math.log(low), math.log(high))), low), high)


class Random(Section):
    """Points drawn independently; more points keep the first ones."""

    points: Annotated[int, Field(ge=1, le=MOST_POINTS)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    draw: Annotated[dict[Key, Draw], Field(min_length=1)]


class SweepSection(Section):
    """Which points, and in what portions.

    points_per_job: a job has at most so many; null makes one job of all points of one shape.
    runs_per_call: runs that an accelerator does together.
    slurm: options of sbatch as `submitit.SlurmExecutor` takes them: time, in minutes or quoted as
        Slurm writes it ("1:30:00"), partition, gpus_per_node, cpus_per_task, mem, account, setup (a
        list of shell commands), ...
    """

    grid: Annotated[dict[Key, Values], Field(min_length=1)] | None = None
    list: Annotated[Points, Field(min_length=1)] | None = None
    random: Random | None = None
    points_per_job: Count | None = None
    runs_per_call: Count = RUNS_PER_CALL
    slurm: dict[str, str | int | float | bool | Strings] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "SweepSection":
        _only_one(self, "grid", "list", "random")
        size = math.prod(len(values) for values in (self.grid or {}).values())
        size = max(size, len(self.list or ()))
        if size > MOST_POINTS:
            raise wrong(f"at most {MOST_POINTS} points", str(size))
        # A line break would end sbatch's comment and begin a command; `setup` is for commands.
        for key, value in (self.slurm or {}).items():
            if isinstance(value, str) and "\n" in value:
                raise wrong("one line", "several", key=f"slurm.{key}")
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
