"""The finished repeats of a method: on the way, in files of a checkpoint, and as results."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import diffevo_jax as de
from diffevo_jax.runner import config as cfg
from diffevo_jax.runner import results


class Summary(NamedTuple):
    """Last generation of a method over its finished repeats.

    success: success rate and its standard error; None where the problem has no threshold.
    """

    label: str
    num_genes: int
    mean: tuple[float, float]
    success: tuple[float, float] | None
    reference: cfg.Reference | None


class Repeats:
    """The finished repeats of a method, in order.

    name: of the method. folder: where `save` puts them, a file for those since the last one.
    """

    def __init__(self, name: str, method: cfg.Method, folder: Path):
        self.name, self.method, self.folder = name, method, folder
        self.kept: list[dict[str, np.ndarray]] = []
        self.populations: list[np.ndarray] = []
        self.projections: list[np.ndarray] = []
        self.num_saved = 0

    def __len__(self) -> int:
        """How many are finished."""
        return len(self.kept)

    def num_wanted(self, count: int) -> int:
        """Of how many of the next `count` repeats the final population is kept."""
        limit = self.method.save_populations
        return count if limit is None else min(count, max(0, limit - len(self)))

    def add(self, kept: dict[str, np.ndarray], endings: dict[str, np.ndarray]) -> None:
        """Take in n repeats.

        kept: of each generation, `[n, T, ...]`. endings: of the first that are wanted
        final_population `[n', N, D]` and any projection `[n', D, d]`.
        """
        self.kept += [
            dict(zip(kept, values, strict=True)) for values in zip(*kept.values(), strict=True)
        ]
        self.populations.extend(endings.get("final_population", ()))
        self.projections.extend(endings.get("projection", ()))

    def save(self) -> None:
        """Write the repeats that are in no file yet. Raises OSError."""
        if self.num_saved == len(self):
            return
        kept = self.kept[self.num_saved :]
        arrays = {key: np.stack([one[key] for one in kept]) for key in kept[0]}
        arrays |= self._endings(self.num_saved)
        self.folder.mkdir(parents=True, exist_ok=True)
        results.write_arrays(self.folder / f"{self.num_saved:06}.npz", arrays)
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
            names = [name for name in ("final_population", "projection") if name in arrays]
            endings = {name: arrays.pop(name) for name in names}
            self.add(arrays, endings)
        self.num_saved = len(self)
        return self

    def write(self, folder: Path) -> None:
        """Write all as the method's results into the run folder. Raises OSError."""
        if self.kept:
            arrays = {"fitness": np.stack([one["fitness"] for one in self.kept])}
            results.write_method(folder, self.name, self._rows(), arrays | self._endings(0))

    def _endings(self, first: int) -> dict[str, np.ndarray]:
        """Final populations and projections from a repeat on, as far as they are kept."""
        endings = {"final_population": self.populations, "projection": self.projections}
        return {key: np.stack(value[first:]) for key, value in endings.items() if value[first:]}

    def _rows(self) -> Iterator[dict[str, Any]]:
        for repeat, kept in enumerate(self.kept):
            for generation, fitness in enumerate(kept["fitness"]):
                yield {
                    "method": self.name,
                    "repeat": repeat,
                    "generation": generation + 1,
                    "alpha": float(kept["alpha"][generation]),
                    **_describe(fitness, self.method.problem.success),
                    "effective_sample_size": float(kept["effective_sample_size"][generation]),
                    "num_invalid": int(kept["num_invalid"][generation]),
                    "selected": int(kept["selected"][generation]),
                }


def summary(method: cfg.Method, num_genes: int, fitness: np.ndarray) -> Summary:
    """Say how the last generation did. fitness: `[S, T, N]`."""
    last = np.where(np.isfinite(fitness[:, -1]), fitness[:, -1], np.nan)
    threshold = method.problem.success
    success = None
    if threshold is not None:
        rates = de.metrics.success_rate(last, threshold)
        success = _mean_and_error(np.asarray(rates))
    return Summary(
        label=method.label,
        num_genes=num_genes,
        mean=_mean_and_error(np.nanmean(last, axis=1)),
        success=success,
        reference=method.reference,
    )


def _describe(fitness: np.ndarray, success: float | None) -> dict[str, Any]:
    """Statistics of one generation over its valid individuals; blank where there are none."""
    valid = fitness[np.isfinite(fitness)]
    rate = "" if success is None else float(de.metrics.success_rate(fitness, success))
    names = ("min", "q25", "median", "q75", "max")
    if not len(valid):
        blank = {f"fitness_{name}": "" for name in ("mean", "std", *names)}
        return {**blank, "success_rate": rate}
    quantiles = dict(zip(names, np.quantile(valid, [0, 0.25, 0.5, 0.75, 1]), strict=True))
    return {
        "fitness_mean": float(valid.mean()),
        "fitness_std": float(valid.std()),
        **{f"fitness_{name}": float(value) for name, value in quantiles.items()},
        "success_rate": rate,
    }


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean over repeats and its standard error; NaN for a single repeat."""
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(error)
