"""What a run's config holds: strict models, and the error of a config that does not fit them."""

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

from pydantic import Field

from diffevo_jax.checks import InputError
from diffevo_jax.runs.config.registry import Section, chosen

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
MethodName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=80)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
# Sizes are counted in 32 bits.
Count = Annotated[int, Field(ge=1, lt=2**31)]


class ConfigError(ValueError):
    """A config that can't be run; the message is for the user.

    problems: what is wrong with its settings, one each, where these are what is wrong.
    """

    def __init__(self, message: str, problems: Iterable[InputError] = ()):
        super().__init__(message)
        self.problems = list(problems)

    @classmethod
    def of(cls, where: str, *problems: InputError) -> "ConfigError":
        """The error of some problems: a line each, after `where`."""
        return cls("\n".join(f"{where}: {problem}" for problem in problems), problems)


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

    ylabel: null takes what the problem's fitness is called.
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

    population_size: individuals. problem, algorithm: sections, see `registry`.
    save_populations: of how many repeats the final population is kept; null keeps all.
    save_x0: whether the estimates x0 of the last update are kept with them.
    """

    label: str
    population_size: Annotated[int, Field(ge=2, lt=2**31)]
    problem: Annotated[Any, chosen("problem")]
    algorithm: Annotated[Any, chosen("algorithm")]
    save_populations: Annotated[int, Field(ge=0)] | None = None
    save_x0: bool = False
    reference: Reference | None = None


# Settings at the top level are the defaults of every method.
SHARED = ("population_size", "problem", "algorithm", "save_populations", "save_x0")


class RunConfig(Section):
    """A whole run: every method over every repeat. `methods` differ from the top level."""

    also_here: ClassVar[tuple[str, ...]] = SHARED

    name: Name
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    repeats: Count = 1
    methods: Annotated[dict[MethodName, Method], Field(min_length=1)]
    checkpoint: Checkpoint = Checkpoint()
    figure: Figure = Figure()
