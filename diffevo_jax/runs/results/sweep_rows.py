"""The finished points of a sweep: mean and standard error of each point and method."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diffevo_jax.runs.config.experiment import Experiment, load
from diffevo_jax.runs.config.schema import ConfigError
from diffevo_jax.runs.results import files as folders
from diffevo_jax.runs.results.record import mean_and_error
from diffevo_jax.runs.run import jobs as sweep_job

VALUES = ("fitness_mean", "fitness_best", "success_rate", "reevaluated_return")
VALUES += ("reevaluated_success",)


class Unfinished(ConfigError):
    """A sweep of which no point has finished."""


class Row(NamedTuple):
    """A point and method over its repeats.

    settings: of those that vary in the sweep, as texts. label: of the method. problem: its section.
    values: mean and standard error, by the columns of results.csv; without those that are blank.
    """

    point: int
    settings: dict[str, Any]
    method: str
    label: str
    problem: Any
    repeats: int
    values: dict[str, tuple[float, float | None]]


def read(folder: Path) -> tuple[Experiment, list[Row]]:
    """Read a sweep's finished points. Raises ConfigError where there are none."""
    loaded = load(folder / "config.yaml")
    varied = _varied(
        [folders.flat(point.settings) for point in loaded.points],
        drawn=loaded.sweep is not None and loaded.sweep.random is not None,
    )
    rows = []
    for point in loaded.points:
        record = sweep_job.read_record(folder, point)
        if record is None or record.status != "finished":
            continue
        settings = folders.flat(point.settings)
        for name, method in point.config.methods.items():
            mine = [row for row in record.rows if row["method"] == name]
            found = {key: [row[key] for row in mine if row.get(key) is not None] for key in VALUES}
            values = {key: mean_and_error(each) for key, each in found.items() if each}
            told = {key: settings.get(key) for key in varied}
            rows.append(
                Row(point.number, told, name, method.label, method.problem, len(mine), values)
            )
    if not rows:
        raise Unfinished(
            f"{folder}: no point of this sweep has finished; `diffevo-jax sweep "
            f"{folder / 'config.yaml'} --out {folder}` goes on with it"
        )
    return loaded, rows


def _varied(points: Sequence[dict[str, Any]], *, drawn: bool) -> list[str]:
    """Settings that vary, without those that follow from one before them.

    drawn: each by itself, so that none does.
    """
    texts = {
        key: [text(settings.get(key)) for settings in points]
        for key in dict.fromkeys(key for settings in points for key in settings)
    }

    def follows(key: str, other: str) -> bool:
        return len({*zip(texts[other], texts[key], strict=True)}) == len({*texts[other]})

    found: list[str] = []
    for key, each in texts.items():
        if len({*each}) > 1 and (drawn or not any(follows(key, other) for other in found)):
            found.append(key)
    return found or list(texts)[:1]


def short(columns: list[str]) -> dict[str, str]:
    """Settings by the fewest last keys that tell them apart, in words."""
    found = {}
    for key in columns:
        parts = key.split(".")
        tails = [parts[-count:] for count in range(1, len(parts) + 1)]
        alone = [
            tail
            for tail in tails
            if sum(other.split(".")[-len(tail) :] == tail for other in columns) == 1
        ]
        found[key] = " ".join((alone or tails)[0]).replace("_", " ")
    return found


def text(value: Any) -> str:
    """A setting as a config has it, a drawn number to four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
