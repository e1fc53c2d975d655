"""What the figures of the benchmark functions share: settings from configs/, many runs at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import diffevo_jax as de
from diffevo_jax.runner import yaml_loader
from diffevo_jax.runner.config import ConfigError
from diffevo_jax.runner.config_errors import describe
from experiments.files import CONFIGS, mean_and_error, read_table
from experiments.rows import Row

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# Objectives of the published benchmark that live in the plane. The last three are what its script
# makes of Rastrigin in 4, 32 and 256 dimensions: points of the plane, the target of the name.
PLANE: dict[str, Callable] = {
    "rosenbrock": de.problems.rosenbrock,
    "beale": de.problems.beale,
    "himmelblau": de.problems.himmelblau,
    "ackley": de.problems.ackley,
    "rastrigin": de.problems.rastrigin,
    "rastrigin_4d": lambda x, **kw: de.problems.rastrigin(x, target_dim=4, **kw),
    "rastrigin_32d": lambda x, **kw: de.problems.rastrigin(x, target_dim=32, **kw),
    "rastrigin_256d": lambda x, **kw: de.problems.rastrigin(x, target_dim=256, **kw),
}
FUNCTIONS = tuple(PLANE)[:5]
COLOURS = {"rosenbrock": "#46B3D5", "beale": "#E93A01", "himmelblau": "#F5851E"} | {
    "ackley": "#3B7A57",
    "rastrigin": "#7A5195",
    "rastrigin_4d": "#6F6E6E",
    "rastrigin_32d": "#A0A0A0",
    "rastrigin_256d": "#C8C8C8",
}


class Settings(BaseModel):
    """A section of a study's config: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Repeats(Settings):
    """How many seeds: as in the paper, and for a look, which may leave a part out."""

    full: Count
    quick: Annotated[int, Field(ge=0)]

    def of(self, *, quick: bool) -> int:
        """Repeats of this kind of run."""
        return self.quick if quick else self.full


class Metrics(Settings):
    """How a final population is measured."""

    top: Count
    entropy_cell: Positive
    qd_cell: Positive
    limit: Positive


class Diffusion(Settings):
    """Diffusion Evolution as the published benchmarks run it; `scale`: points are it x genome."""

    population: Annotated[int, Field(ge=2)]
    num_levels: Annotated[int, Field(ge=2)]
    eta: Annotated[float, Field(ge=0, le=1)]
    floor: Annotated[float, Field(ge=0)]
    scale: Positive


Model = TypeVar("Model", bound=Settings)


def load(model: type[Model], name: str, folder: Path = CONFIGS) -> Model:
    """Read configs/NAME.yaml. Raises ConfigError with all that is wrong."""
    path = folder / f"{name}.yaml"
    data: Any = None
    try:
        data = yaml_loader.read(path)
        return model.model_validate(data)
    except (OSError, yaml_loader.YamlError) as error:
        raise ConfigError(f"{path}: {error}") from None
    except ValidationError as error:
        lines = [f"{path}: {line}" for line in describe(error, data, data)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def chosen(functions: list[Callable], index: jax.Array, **settings: Any) -> Callable:
    """Make the landscape of `functions` that a traced index chooses: one program for all."""
    branches = [lambda points, f=f: f(points, **settings) for f in functions]
    return lambda points: jax.lax.switch(index, branches, points)


def run_all(function: Callable, seed: int, repeats: int, settings: dict[str, Any]) -> Any:
    """Run function(key, setting) for every setting and every seed, on all devices.

    settings: name -> `[G, ...]`, of `batch.grid`. Returns a pytree of NumPy arrays `[G, S, ...]`.
    """
    num_settings = len(next(iter(settings.values())))
    keys = de.batch.seed_keys(seed, repeats)
    devices = jax.devices()
    total = num_settings * repeats
    # Dealt out like cards, so that each device gets a like share of every setting.
    hands = np.arange(-(-total // len(devices)) * len(devices)).reshape(-1, len(devices)).T
    dealt = hands.ravel()
    which, seeds = np.divmod(dealt % total, repeats)
    mapped = de.batch.over_devices(de.batch.by_platform(function), devices)
    picked = jax.tree.map(lambda leaf: jnp.asarray(leaf)[which], settings)
    results = jax.tree.map(np.asarray, jax.jit(mapped)(keys[seeds], picked))
    back = np.argsort(dealt)[:total]
    return jax.tree.map(lambda x: x[back].reshape(num_settings, repeats, *x.shape[1:]), results)


def measure(points: jax.Array, fitness: jax.Array, metrics: Metrics) -> dict[str, jax.Array]:
    """Entropy and mean fitness of the fittest, and the QD score: points `[N, D]`, fitness `[N]`."""
    top_points, top_fitness = de.metrics.best(points, fitness, metrics.top)
    return {
        "entropy": de.metrics.grid_entropy(top_points, cell=metrics.entropy_cell),
        "fitness": top_fitness.mean(),
        "qd_score": quality_diversity(points, fitness, metrics),
    }


def quality_diversity(points: jax.Array, fitness: jax.Array, metrics: Metrics) -> jax.Array:
    """QD score on the study's grid."""
    return de.metrics.qd_score(points, fitness, cell=metrics.qd_cell, limit=metrics.limit)


def find_row(table: str, **cells: Any) -> dict[str, str]:
    """Find the one row of a reference table whose cells read so."""
    rows = [
        row
        for row in read_table(table)
        if all(row[key] == str(value) for key, value in cells.items())
    ]
    if len(rows) != 1:
        raise ValueError(f"{table}: expected one row with {cells}; seen {len(rows)}")
    return rows[0]


def compare(quantity: str, values: Any, reference: dict[str, str] | None, column: str) -> Row:
    """Set our repeats `[S]` beside `column`_mean of a reference row; None has no reference.

    The tables' standard deviations have ddof 0; the errors have ddof 1.
    """
    ours, error = mean_and_error(values)
    if reference is None:
        return Row(quantity, None, None, ours, error)
    runs = int(reference["n_runs"])
    spread = float(reference[f"{column}_std"]) / max(runs - 1, 1) ** 0.5
    return Row(quantity, float(reference[f"{column}_mean"]), spread, ours, error)
