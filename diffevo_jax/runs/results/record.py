"""The finished repeats of a method: on the way, in files of a checkpoint, and as results."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results.files import write_arrays
from diffevo_jax.selection import SIGNS, advice

# Of what is kept of a repeat, what the results hold as arrays; the rest is in metrics.csv.
BEST = ("best_genome", "best_fitness", "reevaluated_genome")
ARRAYS = ("fitness", "success_rate", *BEST, "reevaluated_return", "reevaluated_success")
# In a checkpoint's files, before the names of what is kept of each generation.
_KEPT = "kept."


class Summary(NamedTuple):
    """Last generation of a method over its finished repeats.

    num_genes: None where no genome was kept.
    success: success rate and its standard error; None where the problem has no threshold.
    measure: what `mean` is of, fitness or reward.
    again, again_success: return and success rate of its best individual over fresh episodes; None
        where it is not re-evaluated, or has no threshold.
    """

    label: str
    num_genes: int | None
    mean: tuple[float, float | None]
    success: tuple[float, float | None] | None
    reference: cfg.Reference | None
    measure: str = "fitness"
    again: tuple[float, float | None] | None = None
    again_success: tuple[float, float | None] | None = None


class Repeats:
    """The finished repeats of a method, in order.

    name: of the method. limit: of how many the endings are kept; None keeps all.
    folder: where `save` puts them, a file for those since the last one.
    """

    def __init__(self, name: str, limit: int | None, folder: Path):
        self.name, self.limit, self.folder = name, limit, folder
        self.kept: list[dict[str, np.ndarray]] = []
        self.endings: list[dict[str, np.ndarray]] = []
        self.num_saved = 0

    def __len__(self) -> int:
        """How many are finished."""
        return len(self.kept)

    def num_wanted(self, count: int) -> int:
        """Of how many of the next `count` repeats the final population is kept."""
        return count if self.limit is None else min(count, max(0, self.limit - len(self)))

    def add(self, kept: dict[str, np.ndarray], endings: dict[str, np.ndarray]) -> None:
        """Take in n repeats.

        kept: of each generation, `[n, T, ...]`, of fresh episodes, `[n, E]`, and `BEST`,
        `[n, ...]`. endings: of the first that are wanted, what else they leave, `[n', ...]`.
        """
        for rows, arrays in ((self.kept, kept), (self.endings, endings)):
            rows += [
                dict(zip(arrays, row, strict=True)) for row in zip(*arrays.values(), strict=True)
            ]

    def save(self) -> None:
        """Write the repeats that are in no file yet. Raises OSError."""
        if self.num_saved == len(self):
            return
        arrays = {
            f"kept.{key}": value for key, value in _stack(self.kept[self.num_saved :]).items()
        }
        arrays |= _stack(self.endings[self.num_saved :])
        self.folder.mkdir(parents=True, exist_ok=True)
        write_arrays(self.folder / f"{self.num_saved:06}.npz", arrays)
        self.num_saved = len(self)

    def load(self, say: Callable[[str], None]) -> "Repeats":
        """Take in the repeats of the files; from one that can't be read on, they run again."""
        for path in sorted(self.folder.glob("*.npz")):
            if int(path.stem) != len(self):
                continue  # one before it can't be read
            try:
                arrays = results.read_arrays(path)
            except cfg.ConfigError as error:
                say(f"{error}. Its repeats run again.")
                continue
            kept = {
                key.removeprefix("kept."): arrays.pop(key) for key in list(arrays) if "." in key
            }
            self.add(kept, arrays)
        self.num_saved = len(self)
        return self

    def stacked(self) -> dict[str, np.ndarray]:
        """What the results hold of all generations, `[S, T, ...]`."""
        return {key: value for key, value in _stack(self.kept).items() if key in ARRAYS}

    def advice(self) -> str | None:
        """Say what to change where repeats did not select; None where all of them did."""
        each = [
            advice(*(kept[name] for name in SIGNS))
            for kept in self.kept
            if all(name in kept for name in SIGNS)
        ]
        said = [message for message in each if message is not None]
        return f"{self.name}: in {len(said)} of {len(self)} repeats {said[0]}" if said else None

    def write(self, folder: Path) -> None:
        """Write all as the method's results into the run folder. Raises OSError."""
        if self.kept:
            arrays = self.stacked() | _stack(self.endings)
            results.write_method(folder, self.name, self._rows(), arrays)

    def _rows(self) -> Iterator[dict[str, Any]]:
        for repeat, kept in enumerate(self.kept):
            for generation, fitness in enumerate(kept["fitness"]):
                told = {key: kept[key][generation].item() for key in results.METRICS if key in kept}
                yield {
                    "method": self.name,
                    "repeat": repeat,
                    "generation": generation + 1,
                    "alpha": kept["alpha"][generation].item() if "alpha" in kept else "",
                    **describe(fitness),
                    **{key: int(v) if isinstance(v, bool) else v for key, v in told.items()},
                }


def summary(method: cfg.Method, num_genes: int | None, kept: dict[str, np.ndarray]) -> Summary:
    """Say how the last generation did. kept: of `Repeats.stacked`."""

    def over_repeats(values: np.ndarray | None) -> tuple[float, float | None] | None:
        return None if values is None else mean_and_error(values.mean(axis=1, dtype=float))

    last = kept["fitness"][:, -1]
    last = np.where(np.isfinite(last), last, np.nan)
    rate = kept.get("success_rate")
    return Summary(
        label=method.label,
        num_genes=num_genes,
        mean=mean_and_error(np.nanmean(last, axis=1)),
        success=None if rate is None else mean_and_error(rate[:, -1]),
        reference=method.reference,
        measure=registry.measure(method.problem),
        again=over_repeats(kept.get("reevaluated_return")),
        again_success=over_repeats(kept.get("reevaluated_success")),
    )


def _stack(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of many repeats, a leading axis of repeats."""
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]} if rows else {}


def describe(fitness: np.ndarray) -> dict[str, Any]:
    """Statistics of one generation over its valid individuals; blank where there are none."""
    valid = fitness[np.isfinite(fitness)]
    names = ("min", "q25", "median", "q75", "max")
    if not len(valid):
        return {f"fitness_{name}": "" for name in ("mean", "std", *names)}
    quantiles = dict(zip(names, np.quantile(valid, [0, 0.25, 0.5, 0.75, 1]), strict=True))
    return {
        "fitness_mean": float(valid.mean()),
        "fitness_std": float(valid.std()),
        **{f"fitness_{name}": float(value) for name, value in quantiles.items()},
    }


def mean_and_error(values: Any) -> tuple[float, float | None]:
    """Mean over repeats and its standard error; None for a single repeat."""
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
    return float(values.mean()), None if error is None else float(error)
