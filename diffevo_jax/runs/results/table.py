"""The points of a sweep: a file each, and the tables that are made of them.

points/0000.json  the rows of a finished point, or why it has none; points/0000.npz, its arrays,
                  where populations are saved
results.csv       tidy: a row per finished point, method and repeat; the settings as columns
failed.csv        a row per failed point, with its error
summary.csv       a row per finished point and method: means and standard errors over repeats
"""

import csv
import io
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, ValidationError

import diffevo_jax as de
from diffevo_jax.runs.config.experiment import Experiment, Point, load
from diffevo_jax.runs.config.registry import Section
from diffevo_jax.runs.config.schema import ConfigError
from diffevo_jax.runs.results.fields import COLUMNS
from diffevo_jax.runs.results.files import flat, quoted, write_arrays, write_whole
from diffevo_jax.runs.results.record import Summary

# Points that a line of advice names.
MOST_NAMED = 10


class PointResult(NamedTuple):
    """What a point of a sweep gave.

    rows: those of results.csv. arrays: by METHOD.NAME, `[S', ...]`. error: why there are no rows.
    advice: what to change where runs did not select, each once.
    """

    point: Point
    rows: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]
    error: str = ""
    advice: tuple[str, ...] = ()


class PointFile(Section):
    """What a point's file says, see `PointResult`; by which version of the package, and where."""

    status: Literal["finished", "failed"]
    settings: dict[str, Any]
    error: str
    rows: list[dict[str, Any]]
    advice: list[str] = Field(default_factory=list)
    version: str
    environment: dict[str, Any]


class Unfinished(ConfigError):
    """A sweep of which no point has finished."""


# Points


def point_path(folder: Path, point: Point) -> Path:
    """Where a point's file is."""
    return folder / "points" / f"{point.number:04d}.json"


def write_point(folder: Path, result: PointResult, environment: dict[str, Any]) -> None:
    """Write a point's file, whole, after its arrays."""
    path = point_path(folder, result.point)
    if result.arrays:
        write_arrays(path.with_suffix(".npz"), result.arrays)
    written = PointFile(
        status="failed" if result.error else "finished",
        settings=result.point.settings,
        error=result.error,
        rows=result.rows,
        advice=list(result.advice),
        version=de.__version__,
        environment=environment,
    )
    write_whole(path, written.model_dump_json(indent=1) + "\n")


def read_point(folder: Path, point: Point) -> PointFile | None:
    """Read a point's file; None where there is none. Raises ConfigError on a damaged one."""
    path = point_path(folder, point)
    try:
        return PointFile.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{path}: not readable ({reason}); remove it, and the point is run again"
        ) from None


def is_finished(folder: Path, point: Point) -> bool:
    """Whether a point has its rows. Raises ConfigError on a damaged file."""
    return bool(read_points(folder, [point], finished=True))


def read_points(
    folder: Path, points: Iterable[Point], *, finished: bool = False
) -> list[tuple[Point, PointFile]]:
    """Read the files of points, of those that have one. finished: that have finished alone."""
    files = [(point, read_point(folder, point)) for point in points]
    return [(p, f) for p, f in files if f is not None and (f.status == "finished" or not finished)]


def advice(folder: Path, points: Iterable[Point]) -> Iterator[str]:
    """What to change where points did not select: a line each, which names the points.

    Where points differ in the message's numbers alone, these are the first point's.
    """
    numbers: dict[str, tuple[str, list[str]]] = {}
    for point, written in read_points(folder, points):
        for message in written.advice:
            words = re.sub(r"\d+", "", message)
            numbers.setdefault(words, (message, []))[1].append(str(point.number))
    for message, each in numbers.values():
        more = f" and {len(each) - MOST_NAMED} more" if len(each) > MOST_NAMED else ""
        yield f"point{'s'[: len(each) > 1]} {', '.join(each[:MOST_NAMED])}{more}: {message}"


# Tables


def write_results(folder: Path, points: Sequence[Point]) -> list[tuple[Point, str]]:
    """Write results.csv and failed.csv from the points' files; returns the failed ones."""
    settings = list(dict.fromkeys(key for point in points for key in point.settings))
    rows, failed, failures = [], [], []
    for point, written in read_points(folder, points):
        place = {"point": point.number} | {k: _cell(v) for k, v in point.settings.items()}
        rows += [place | row for row in written.rows]
        if written.status == "failed":
            failed.append(place | {"error": written.error})
            failures.append((point, written.error))
    _write(folder / "results.csv", ["point", *settings, "method", "repeat", *COLUMNS], rows)
    _write(folder / "failed.csv", ["point", *settings, "error"], failed)
    return failures


def write_summary(folder: Path, rows: Sequence[Summary]) -> None:
    """Write summary.csv."""
    lines = []
    for row in rows:
        line = {"point": row.point, "method": row.method, "repeats": row.repeats}
        line |= {key: text(value) for key, value in row.settings.items()}
        for column, (value, error) in row.values.items():
            line |= {column: value, f"{column}_error": error}
        lines.append(line)
    numbers = [f"{column}{end}" for column in COLUMNS for end in ("", "_error")]
    head = ["point", *rows[0].settings, "method", "repeats", *numbers]
    _write(folder / "summary.csv", head, lines)


def summaries(folder: Path) -> tuple[Experiment, list[Summary]]:
    """Read a sweep's finished points, a summary for each and each method.

    Raises Unfinished where there are none.
    """
    loaded = load(folder / "config.yaml")
    settings = {point.number: flat(point.settings) for point in loaded.points}
    drawn = loaded.sweep is not None and loaded.sweep.random is not None
    varied = varying(list(settings.values()), drawn=drawn)
    rows = []
    for point, written in read_points(folder, loaded.points, finished=True):
        for name, method in point.config.methods.items():
            repeats = [row for row in written.rows if row["method"] == name]
            numbers = {
                column: [math.nan if row.get(column) is None else row[column] for row in repeats]
                for column in COLUMNS
            }
            place = {key: settings[point.number].get(key) for key in varied}
            labels = (name, method.label, method.problem)
            rows.append(Summary(*labels, len(repeats), numbers, point=point.number, settings=place))
    if not rows:
        raise Unfinished(
            f"{folder}: no point of this sweep has finished; `diffevo-jax sweep "
            f"{quoted(folder / 'config.yaml')} --out {quoted(folder)}` goes on with it"
        )
    return loaded, rows


def varying(points: Sequence[dict[str, Any]], *, drawn: bool) -> list[str]:
    """Settings that vary, without those that follow from one before them.

    drawn: each by itself, so that none does.
    """
    keys = dict.fromkeys(itertools.chain(*points))
    texts = {key: [text(settings.get(key)) for settings in points] for key in keys}
    varied: list[str] = []
    for key, each in texts.items():
        pairs = {other: {*zip(texts[other], each, strict=True)} for other in varied}
        follows = any(len(pairs[other]) == len({*texts[other]}) for other in varied)
        if len({*each}) > 1 and (drawn or not follows):
            varied.append(key)
    return varied or list(texts)[:1]


def short(settings: Iterable[str]) -> dict[str, str]:
    """Settings by the fewest last keys that tell them apart, in words."""
    endings = {
        key: [key.split(".", n)[-1] for n in range(key.count("."), -1, -1)] for key in settings
    }
    count = Counter(itertools.chain(*endings.values()))
    names = {
        key: next((e for e in each if count[e] == 1), each[0]) for key, each in endings.items()
    }
    return {key: name.replace(".", " ").replace("_", " ") for key, name in names.items()}


def text(value: Any) -> str:
    """A setting as a config has it, a drawn number to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else _cell(value)


def _cell(value: Any) -> str:
    """A setting as a config has it: null, [8, 8], cosine."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _write(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    lines = io.StringIO()
    writer = csv.DictWriter(lines, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, lines.getvalue())
