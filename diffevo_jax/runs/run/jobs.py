"""One job of a sweep: points of one shape as one compiled program a method, a file a point.

Points have one shape where they differ in numbers alone (those that the registry says may be
traced, and the seed): these are data to the program. A job is a fresh process that submitit starts;
it knows the sweep's folder and the numbers of its points, and skips those that are finished.
"""

import json
import math
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, ValidationError

import diffevo_jax as de
from diffevo_jax.runs.config import plugins
from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config.experiment import Point, load
from diffevo_jax.runs.config.registry import Section, registry
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results.files import write_arrays, write_whole
from diffevo_jax.runs.results.record import describe
from diffevo_jax.runs.run import engine as run
from diffevo_jax.runs.run import program as programs
from diffevo_jax.runs.run import startup
from diffevo_jax.selection import SIGNS, advice


class Record(Section):
    """What a point's file says: rows of the table, or why there are none.

    advice: what to change, of `selection.advice`, where runs did not select.
    version: of this package. environment: of `results.environment`, where the point was run.
    """

    status: Literal["finished", "failed"]
    settings: dict[str, Any]
    error: str
    rows: list[dict[str, Any]]
    advice: Annotated[list[str], Field(default_factory=list)]
    version: str
    environment: dict[str, Any]


class Job(NamedTuple):
    """What submitit sends to the process that runs these points.

    visible_devices: CUDA_VISIBLE_DEVICES where the sweep was called. plugins: loads those that the
    folder keeps, as the sweep was called with them.
    cache: keep compiled programs, as `startup.keep_compiled`.
    """

    folder: Path
    points: tuple[int, ...]
    visible_devices: str | None
    plugins: bool
    cache: bool

    def __call__(self) -> None:
        """Run the points that are not finished; their files say how it went."""
        if os.environ.get("SUBMITIT_EXECUTOR") == "local":
            # submitit hides every GPU whose number it was not told.
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            if self.visible_devices is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = self.visible_devices
        startup.use_all_cores()
        startup.use_graphs()
        if self.cache:
            startup.keep_compiled()
        if self.plugins:
            plugins.load(plugins.kept(self.folder))
        experiment = load(self.folder / "config.yaml")
        assert experiment.sweep is not None
        runs_per_call = experiment.sweep.runs_per_call
        points = [experiment.points[number] for number in self.points]
        left = {p.number: p for p in points if not is_finished(self.folder, p)}
        try:
            environment = results.environment()
            for ran in run_points(list(left.values()), runs_per_call=runs_per_call):
                if ran.arrays:
                    write_arrays(arrays_path(self.folder, ran.point), ran.arrays)
                record = Record(
                    status="failed" if ran.error else "finished",
                    settings=ran.point.settings,
                    error=ran.error,
                    rows=ran.rows,
                    advice=list(ran.advice),
                    version=de.__version__,
                    environment=environment,
                )
                write_record(self.folder, ran.point, record)
                del left[ran.point.number]
        except Exception as error:
            traceback.print_exc()
            first_line = (str(error).strip() or "no message").splitlines()[0]
            for point in left.values():
                write_failure(self.folder, point, f"{type(error).__name__}: {first_line}")

    def checkpoint(self) -> Any:
        """Say what submitit queues again when the scheduler takes the job off: what is left."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Ran(NamedTuple):
    """A point that was run: its rows, or why there are none; arrays METHOD.NAME, `[S', ...]`.

    advice: what to change where runs did not select, each once.
    """

    point: Point
    rows: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]
    error: str
    advice: tuple[str, ...] = ()


def run_points(points: Sequence[Point], *, runs_per_call: int) -> Iterator[Ran]:
    """Run points of one shape, and yield them as they finish.

    runs_per_call: runs that an accelerator does together; a CPU does them one by one.
    """
    if not points:
        return
    first = points[0].config
    repeats = first.repeats
    total = len(points) * repeats
    devices = jax.local_devices()[:total]
    each = math.ceil(total / len(devices))
    most = run.REPEATS_PER_CALL if jax.default_backend() == "cpu" else runs_per_call
    calls = math.ceil(each / most)
    size = len(devices) * math.ceil(each / calls)  # fewest calls, all of one shape
    programs = {name: _Program(first, name, devices) for name in first.methods}
    finished: dict[int, list[_Run]] = {}
    for begin in range(0, total, size):
        end = min(begin + size, total)
        # Padding to a whole call, discarded below.
        which, repeat = np.divmod(np.minimum(np.arange(begin, begin + size), total - 1), repeats)
        chosen = [points[i] for i in which]
        for name, program in programs.items():
            kept, seconds = program(chosen, repeat)
            for i in range(end - begin):
                one = jax.tree.map(lambda value, i=i: value[i], kept)
                one = _Run(name, int(repeat[i]), one, seconds / (end - begin))
                finished.setdefault(which[i], []).append(one)
        for i in range(begin // repeats, end // repeats):
            yield _ran(points[i], finished.pop(i))


class _Run(NamedTuple):
    """One run of a point: of which method and repeat, what `one_run` kept, its seconds."""

    method: str
    repeat: int
    kept: dict[str, Any]
    seconds: float


def _ran(point: Point, runs: list[_Run]) -> Ran:
    """Put the runs of a point together, method by method."""
    rows, arrays = [], {}
    for name, method in point.config.methods.items():
        mine = [run for run in runs if run.method == name]
        for one in mine:
            try:
                run.check_fitness(method, one.kept["lowest"])
            except run.Stopped as stopped:
                return Ran(point, [], {}, str(stopped))
            row = {"method": name, "repeat": one.repeat, **_row(one.kept)}
            rows.append({**row, "seconds": round(one.seconds, 6)})
        for key in mine[0].kept["ending"]:
            saved = [one.kept["ending"][key] for one in mine[: method.save_populations]]
            arrays[f"{name}.{key}"] = np.stack(saved)
    said = [advice(*run.kept["signs"]) for run in runs if run.kept["signs"]]
    return Ran(point, rows, arrays, "", tuple(dict.fromkeys(filter(None, said))))


class _Program:
    """A method of all points, compiled at its first call."""

    def __init__(self, config: cfg.RunConfig, name: str, devices: Sequence[Any]):
        self.name, self.compiled = name, None
        method = config.methods[name]

        def one_run(key: jax.Array, numbers: dict[str, jax.Array]) -> dict[str, Any]:
            program = programs.make_program(with_numbers(method, numbers))
            carry, keys = program.start(key)
            carry, kept = program.advance(carry, keys)
            fitness = kept["fitness"]
            found = {
                "fitness": fitness[-1],
                "best": carry.running.best.fitness,
                "lowest": jnp.min(fitness, where=jnp.isfinite(fitness), initial=jnp.inf),
                "num_invalid": jnp.sum(kept.get("num_invalid", 0)),
                "ending": program.ending(carry) if method.save_populations else {},
                "signs": [kept[name] for name in SIGNS] if kept.keys() >= set(SIGNS) else [],
            }
            if "success_rate" in kept:
                found["success_rate"] = kept["success_rate"][-1]
            if program.reevaluate is not None:
                again = program.reevaluate(key, carry)
                found |= {name: jnp.mean(value) for name, value in again.items()}
            return found

        self.jitted = jax.jit(de.batch.over_devices(de.batch.by_platform(one_run), devices))

    def __call__(self, points: Sequence[Point], repeats: np.ndarray):
        """What `one_run` keeps, `[runs, ...]`, and the seconds that it took."""
        configs = [point.config for point in points]
        seeds = np.array([config.seed for config in configs], np.uint32)
        keys = _keys(seeds, repeats)
        numbers = [take_apart(config.methods[self.name])[1] for config in configs]
        arrays = {key: jnp.asarray([each[key] for each in numbers], float) for key in numbers[0]}
        if self.compiled is None:
            self.compiled = self.jitted.lower(keys, arrays).compile()
        begin = time.perf_counter()
        kept = jax.tree.map(np.asarray, self.compiled(keys, arrays))
        return kept, time.perf_counter() - begin


@jax.jit
def _keys(seeds: jax.Array, repeats: jax.Array) -> jax.Array:
    """Keys of the runs, as `batch.seed_keys` makes them."""
    return jax.vmap(lambda seed, k: jax.random.fold_in(jax.random.key(seed), k))(seeds, repeats)


def take_apart(method: cfg.Method) -> tuple[str, dict[str, float]]:
    """Take a method apart: what its program is compiled for, as text, and the numbers it takes."""
    shape = method.model_dump(exclude={"label", "reference"})
    numbers = {}
    for kind in ("problem", "algorithm"):
        for inner, path, section in registry.sections(kind, getattr(method, kind), kind):
            for setting in registry.entry(inner, section).traced:
                value, default = getattr(section, setting), type(section).model_fields[setting]
                # What is off by default, as a floor of 0, leaves another program where it is off.
                if isinstance(value, int | float) and (value or default.default != 0):
                    key = f"{path}.{setting}"
                    numbers[key] = reduce(dict.__getitem__, path.split("."), shape).pop(setting)
    return json.dumps(shape), numbers


def with_numbers(method: cfg.Method, numbers: dict[str, Any]) -> cfg.Method:
    """Put numbers, traced ones for example, into a method."""

    def put(model: Any, path: list[str], value: Any) -> Any:
        inner = put(getattr(model, path[0]), path[1:], value) if len(path) > 1 else value
        return model.model_copy(update={path[0]: inner})

    return reduce(lambda m, item: put(m, item[0].split("."), item[1]), numbers.items(), method)


def _row(kept: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the table says of a run; None where there is none.

    The last generation's mean and rate of success, the best of all, and the same of the last
    generation's best individual over fresh episodes.
    """

    def number(name: str) -> float | None:
        return float(kept[name]) if name in kept else None

    mean = describe(kept["fitness"])["fitness_mean"]
    return {
        "fitness_mean": None if mean == "" else mean,
        "fitness_best": float(kept["best"]) if np.isfinite(kept["best"]) else None,
        "success_rate": number("success_rate"),
        "reevaluated_return": number("reevaluated_return"),
        "reevaluated_success": number("reevaluated_success"),
        "num_invalid": int(kept["num_invalid"]),
    }


def arrays_path(folder: Path, point: Point) -> Path:
    """Where a point's arrays are, if any are saved."""
    return record_path(folder, point).with_suffix(".npz")


def record_path(folder: Path, point: Point) -> Path:
    """Where a point's file is."""
    return folder / "points" / f"{point.number:04d}.json"


def read_record(folder: Path, point: Point) -> Record | None:
    """Read a point's file; None where there is none. Raises ConfigError on a damaged one."""
    path = record_path(folder, point)
    try:
        return Record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise cfg.ConfigError(
            f"{path}: not readable ({reason}); remove it, and the point is run again"
        ) from None


def is_finished(folder: Path, point: Point) -> bool:
    """Whether a point has its rows. Raises ConfigError on a damaged file."""
    record = read_record(folder, point)
    return record is not None and record.status == "finished"


def write_record(folder: Path, point: Point, record: Record) -> None:
    """Write a point's file, whole."""
    write_whole(record_path(folder, point), record.model_dump_json(indent=1) + "\n")


def write_failure(folder: Path, point: Point, error: str) -> None:
    """Say in a point's file why it has no rows."""
    failed = Record(
        status="failed",
        settings=point.settings,
        error=error,
        rows=[],
        advice=[],
        version=de.__version__,
        environment={},
    )
    write_record(folder, point, failed)
