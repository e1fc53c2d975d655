"""The finished repeats of a method: on the way, in files of a checkpoint, and as results."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results.fields import (
    ARRAYS,
    ENDING,
    METRICS,
    describe,
    mean_and_error,
    numbers,
)
from diffevo_jax.runs.results.files import write_arrays
from diffevo_jax.selection import SIGNS, advice

Value = tuple[float, float | None]


class Record:
    """The finished repeats of a method, in order.

    name: the method. limit: how many repeats keep their populations; None is all.
    folder: where `save` puts them, a file for those since the last one; None where nothing saves.
    """

    def __init__(self, name: str, limit: int | None, folder: Path | None = None):
        self.name, self.limit, self.folder = name, limit, folder
        self.repeats: list[dict[str, np.ndarray]] = []
        self.populations: list[dict[str, np.ndarray]] = []
        self.num_saved = 0

    def __len__(self) -> int:
        """How many are finished."""
        return len(self.repeats)

    def add(self, repeats: dict[str, np.ndarray], populations: dict[str, np.ndarray]) -> None:
        """Add n repeats.

        repeats: arrays of `fields`, `[n, ...]`. populations: what else those leave that keep their
            populations, `[n', ...]`.
        """
        self.repeats += _rows(repeats)
        self.populations += _rows(populations)

    def save(self) -> None:
        """Write the repeats that are in no file yet. Raises OSError."""
        if self.num_saved == len(self):
            return
        assert self.folder is not None
        new = _stack(self.repeats[self.num_saved :])
        arrays = {f"kept.{key}": value for key, value in new.items()}
        arrays |= _stack(self.populations[self.num_saved :])
        self.folder.mkdir(parents=True, exist_ok=True)
        write_arrays(self.folder / f"{self.num_saved:06}.npz", arrays)
        self.num_saved = len(self)

    def load(self, say: Callable[[str], None]) -> "Record":
        """Read the repeats of the files; from one that can't be read on, they run again."""
        assert self.folder is not None
        for path in sorted(self.folder.glob("*.npz")):
            if int(path.stem) != len(self):
                continue  # one before it can't be read
            try:
                arrays = results.read_arrays(path)
            except cfg.ConfigError as error:
                say(f"{error}. Its repeats run again.")
                continue
            repeats = {
                key.removeprefix("kept."): arrays.pop(key) for key in list(arrays) if "." in key
            }
            self.add(repeats, arrays)
        self.num_saved = len(self)
        return self

    def stacked(self, names: Sequence[str] = ARRAYS) -> dict[str, np.ndarray]:
        """What METHOD.npz holds of every repeat, `[S, ...]`, or those of it that are named."""
        return {key: value for key, value in _stack(self.repeats).items() if key in names}

    def arrays(self) -> dict[str, np.ndarray]:
        """All that METHOD.npz holds."""
        return self.stacked() | _stack(self.populations)

    def endings(self) -> dict[str, np.ndarray]:
        """What the repeats whose populations are kept have left, as a sweep saves it."""
        best = self.stacked(ENDING).items()
        count = len(self.populations)
        return {key: value[:count] for key, value in best if count} | _stack(self.populations)

    def numbers(self) -> list[dict[str, float]]:
        """The numbers of each repeat, by their columns."""
        return [numbers(repeat) for repeat in self.repeats]

    def advice(self) -> list[str]:
        """Say what to change, once for each repeat that did not select."""
        signs = [
            [repeat[name] for name in SIGNS]
            for repeat in self.repeats
            if all(name in repeat for name in SIGNS)
        ]
        return [message for each in signs if (message := advice(*each)) is not None]

    def write(self, folder: Path) -> None:
        """Write all as the method's results into the run folder. Raises OSError."""
        if self.repeats:
            results.write_method(folder, self.name, self._metrics(), self.arrays())

    def _metrics(self) -> Iterator[dict[str, Any]]:
        """The rows of metrics.csv."""
        for number, repeat in enumerate(self.repeats):
            for generation, fitness in enumerate(repeat["fitness"]):
                row = {key: repeat[key][generation].item() for key in METRICS if key in repeat}
                yield {
                    "method": self.name,
                    "repeat": number,
                    "generation": generation + 1,
                    **describe(fitness),
                    **{key: int(v) if isinstance(v, bool) else v for key, v in row.items()},
                }


def _rows(arrays: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    return [dict(zip(arrays, row, strict=True)) for row in zip(*arrays.values(), strict=True)]


def _stack(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of many repeats, a leading axis of repeats."""
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]} if rows else {}


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
    genomes = next(
        (arrays[key] for key in ("best_genome", "final_population") if key in arrays), None
    )
    repeats = [
        numbers({key: arrays[key][i] for key in arrays if key in ARRAYS})
        for i in range(len(arrays["fitness"]))
    ]
    settings = {
        "method": name,
        "label": method.label,
        "problem": method.problem,
        "repeats": len(repeats),
        "numbers": {column: [row[column] for row in repeats] for column in repeats[0]},
        "num_genes": None if genomes is None else genomes.shape[-1],
        "evaluations": method.population_size,
        "reference": method.reference,
        "seed": config.seed,
    }
    return Summary(**settings | more)
