"""The finished repeats of a method: on the way, in files of a checkpoint, and summed up."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffevo_jax import selection
from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results.fields import mean_and_error, numbers
from diffevo_jax.runs.results.files import Arrays, write_arrays
from diffevo_jax.tasks import Statistics, statistics

Value = tuple[float, float | None]


class Record:
    """The finished repeats of a method, in order: the arrays of each.

    folder: where they are saved, of a run. repeats: those of `fields`. populations: what else the
        first leave, which keep theirs.
    """

    def __init__(self, folder: Path = Path()):
        self.folder = folder
        self.repeats: list[Arrays] = []
        self.populations: list[Arrays] = []
        self.num_saved = 0

    def __len__(self) -> int:
        """How many are finished."""
        return len(self.repeats)

    def add(self, repeats: Arrays, populations: Arrays) -> None:
        """Add n repeats, arrays of `[n, ...]`, and their populations, `[n', ...]`."""
        self.repeats += _rows(repeats)
        self.populations += _rows(populations)

    def stacked(self, first: int = 0) -> tuple[Arrays, Arrays]:
        """The arrays of the repeats from a number on, `[S, ...]`, and of their populations."""
        return _stacked(self.repeats[first:]), _stacked(self.populations[first:])

    def pop(self, repeats: int, populations: int) -> tuple[Arrays, Arrays]:
        """Take out the arrays of the first repeats and populations, so many of each."""
        first = _stacked(self.repeats[:repeats]), _stacked(self.populations[:populations])
        del self.repeats[:repeats], self.populations[:populations]
        return first

    def save(self) -> None:
        """Write the repeats that are in no file yet. Raises OSError."""
        repeats, populations = self.stacked(self.num_saved)
        if repeats:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = {f"kept.{key}": value for key, value in repeats.items()}
            write_arrays(self.folder / f"{self.num_saved:06}.npz", kept | populations)
            self.num_saved = len(self)

    @classmethod
    def load(cls, folder: Path, say: Callable[[str], None]) -> "Record":
        """Read the repeats of the files; from one that can't be read on, they run again."""
        record = cls(folder)
        for path in sorted(folder.glob("*.npz")):
            if int(path.stem) != len(record):
                continue  # one before it can't be read
            try:
                arrays = results.read_arrays(path)
            except cfg.ConfigError as error:
                say(f"{error}. Its repeats run again.")
                continue
            kept = [key for key in arrays if key.startswith("kept.")]
            record.add({key.removeprefix("kept."): arrays.pop(key) for key in kept}, arrays)
        record.num_saved = len(record)
        return record


def _rows(arrays: Arrays) -> list[Arrays]:
    return [dict(zip(arrays, row, strict=True)) for row in zip(*arrays.values(), strict=True)]


def _stacked(rows: list[Arrays]) -> Arrays:
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]} if rows else {}


def advice(repeats: Arrays) -> list[str]:
    """Say what to change, once for each repeat that did not select, or saw nothing vary.

    repeats: `[S, ...]`.
    """
    names = [f"observation_{name}" for name in Statistics._fields]
    messages = _each(repeats, names, lambda *each: statistics.advice(Statistics(*each)))
    names = selection.SIGNS
    if "selected" not in repeats and "fitness" in repeats:  # as in `selection.signs`
        repeats, names = {"selected": np.any(np.isfinite(repeats["fitness"]), axis=2)}, names[:1]
    return messages or _each(repeats, names, selection.advice)


def _each(repeats: Arrays, names: Sequence[str], says: Callable[..., str | None]) -> list[str]:
    """What a function says of the arrays of these names, once for each repeat."""
    if not all(name in repeats for name in names):
        return []
    rows = zip(*(repeats[name] for name in names), strict=True)
    return [message for row in rows if (message := says(*row)) is not None]


@dataclass(frozen=True)
class Summary:
    """A method over its S finished repeats: a row of a run's table, of a sweep's, of a comparison.

    method: its name. label: as tables and legends name it. problem: its section.
    numbers: a number a repeat, `[S]`, by the columns of `fields`; NaN where a repeat has none.
    num_genes: None where no genome was kept. evaluations: of a generation.
    reference: what its success rate is held against, if anything.
    run, seed: of the run. curve: quartiles of the fitness, `[3, T]`, where a figure needs them.
    point, settings: of a sweep: the point's number, and those settings that vary.
    """

    method: str
    label: str
    problem: Any
    repeats: int
    numbers: dict[str, list[float]]
    num_genes: int | None = None
    evaluations: int = 0
    reference: cfg.Reference | None = None
    run: str = ""
    seed: int = 0
    curve: Any = field(default=None, compare=False, repr=False)
    point: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def value(self, column: str) -> Value | None:
        """Mean and standard error over the repeats that have this number; None without one."""
        known = [number for number in self.numbers.get(column, ()) if not math.isnan(number)]
        return mean_and_error(known) if known else None

    @property
    def values(self) -> dict[str, Value]:
        """Mean and standard error of each column that has them."""
        values = {column: self.value(column) for column in self.numbers}
        return {column: value for column, value in values.items() if value is not None}

    @property
    def measure(self) -> str:
        """What the fitness is called."""
        return registry.measure(self.problem)

    @property
    def title(self) -> str:
        """What the problem is called."""
        return registry.title(self.problem)


def summarise(
    name: str, config: cfg.RunConfig, arrays: Mapping[str, np.ndarray], **more: Any
) -> Summary:
    """Sum up a method of a run. arrays: of METHOD.npz, `[S, ...]`. more: fields of `Summary`."""
    method = config.methods[name]
    genomes = arrays.get("best_genome", arrays.get("final_population"))
    return Summary(
        method=name,
        label=method.label,
        problem=method.problem,
        repeats=len(arrays["fitness"]),
        numbers=numbers(arrays),
        num_genes=None if genomes is None else genomes.shape[-1],
        evaluations=method.population_size,
        reference=method.reference,
        seed=config.seed,
        **more,
    )
