"""One job of a sweep: points of one shape as one compiled program a method, a file a point.

Points have one shape where they differ in numbers alone (`NUMBERS`, the seed, the threshold of
success): those are data to the program. A job is a fresh process that submitit starts; it knows the
sweep's folder and the numbers of its points, and skips those that are finished.
"""

import json
import math
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import ValidationError

import diffevo_jax as de
from diffevo_jax.runner import config as cfg
from diffevo_jax.runner import program as programs
from diffevo_jax.runner import results, run, startup
from diffevo_jax.runner.sweep_config import Point, load_sweep

# Settings that a program takes as data. A floor of 0 is not among them: without one the estimate
# is another program.
NUMBERS = (
    "evolution.eta",
    "evolution.floor",
    "evolution.fitness_map.p",
    "evolution.fitness_map.temperature",
    "problem.scale",
    "problem.scaling",
)


class Record(cfg.Section):
    """What a point's file says: rows of the table, or why there are none.

    version: of this package. environment: of `results.environment`, where the point was run.
    """

    status: Literal["finished", "failed"]
    settings: dict[str, Any]
    error: str
    rows: list[dict[str, Any]]
    version: str
    environment: dict[str, Any]


class Job(NamedTuple):
    """What submitit sends to the process that runs these points.

    visible_devices: CUDA_VISIBLE_DEVICES where the sweep was called.
    cache: keep compiled programs, as `startup.keep_compiled`.
    """

    folder: Path
    points: tuple[int, ...]
    visible_devices: str | None
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
        sweep = load_sweep(self.folder / "config.yaml")
        points = [sweep.points[number] for number in self.points]
        left = {p.number: p for p in points if not is_finished(self.folder, p)}
        try:
            environment = results.environment()
            for point, rows, error in run_points(
                list(left.values()), runs_per_call=sweep.section.runs_per_call
            ):
                record = Record(
                    status="failed" if error else "finished",
                    settings=point.settings,
                    error=error,
                    rows=rows,
                    version=de.__version__,
                    environment=environment,
                )
                write_record(self.folder, point, record)
                del left[point.number]
        except Exception as error:
            traceback.print_exc()
            first_line = (str(error).strip() or "no message").splitlines()[0]
            for point in left.values():
                write_failure(self.folder, point, f"{type(error).__name__}: {first_line}")

    def checkpoint(self) -> Any:
        """Say what submitit queues again when the scheduler takes the job off: what is left."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_points(
    points: Sequence[Point], *, runs_per_call: int
) -> Iterator[tuple[Point, list[dict[str, Any]], str]]:
    """Run points of one shape, and yield (point, rows, error) as they finish.

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
    rows: dict[int, list[dict[str, Any]]] = {}
    errors: dict[int, str] = {}
    for begin in range(0, total, size):
        end = min(begin + size, total)
        # Padding to a whole call, discarded below.
        which, repeat = np.divmod(np.minimum(np.arange(begin, begin + size), total - 1), repeats)
        chosen = [points[i] for i in which]
        for name, program in programs.items():
            kept, seconds = program(chosen, repeat)
            for i in range(end - begin):
                method = chosen[i].config.methods[name]
                one = {key: value[i] for key, value in kept.items()}
                try:
                    run.check_fitness(method, one["lowest"])
                except run.Stopped as stopped:
                    errors[which[i]] = str(stopped)
                row = {"method": name, "repeat": int(repeat[i]), **_describe(one, method)}
                row["seconds"] = round(seconds / (end - begin), 6)
                rows.setdefault(which[i], []).append(row)
        for i in range(begin // repeats, end // repeats):
            found = sorted(rows.pop(i), key=lambda row: list(programs).index(row["method"]))
            yield points[i], [] if i in errors else found, errors.get(i, "")


class _Program:
    """A method of all points, compiled at its first call."""

    def __init__(self, config: cfg.RunConfig, name: str, devices: Sequence[Any]):
        self.name, self.compiled = name, None
        method, population = config.methods[name], config.population

        def one_run(key: jax.Array, numbers: dict[str, jax.Array]) -> dict[str, jax.Array]:
            program = programs.make_program(with_numbers(method, numbers), population)
            state, projection, keys = program.start(key)
            _, kept = program.advance(state, projection, keys)
            fitness = kept["fitness"]
            valid = jnp.isfinite(fitness)
            return {
                "fitness": fitness[-1],
                "best": jnp.max(fitness, where=valid, initial=-jnp.inf),
                "lowest": jnp.min(fitness, where=valid, initial=jnp.inf),
                "num_invalid": jnp.sum(kept["num_invalid"]),
            }

        self.jitted = jax.jit(de.batch.over_devices(de.batch.by_platform(one_run), devices))

    def __call__(self, points: Sequence[Point], repeats: np.ndarray):
        """What `one_run` keeps, `[runs, ...]`, and the seconds that it took."""
        configs = [point.config for point in points]
        seeds = np.array([config.seed for config in configs], np.uint32)
        keys = _keys(seeds, repeats)
        numbers = [split(config.methods[self.name])[1] for config in configs]
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


def split(method: cfg.Method) -> tuple[str, dict[str, float]]:
    """Take a method apart: what its program is compiled for, as text, and the numbers it takes."""
    shape = method.model_dump(exclude={"label", "reference", "save_populations"})
    del shape["problem"]["success"]
    numbers = {}
    for key in NUMBERS:
        *path, last = key.split(".")
        section = reduce(dict.__getitem__, path, shape)
        if last in section and (last != "floor" or section[last] > 0):
            numbers[key] = section.pop(last)
    return json.dumps(shape), numbers


def with_numbers(method: cfg.Method, numbers: dict[str, Any]) -> cfg.Method:
    """Put numbers, traced ones for example, into a method."""

    def put(model: Any, path: list[str], value: Any) -> Any:
        inner = put(getattr(model, path[0]), path[1:], value) if len(path) > 1 else value
        return model.model_copy(update={path[0]: inner})

    return reduce(lambda m, item: put(m, item[0].split("."), item[1]), numbers.items(), method)


def _describe(one: dict[str, np.ndarray], method: cfg.Method) -> dict[str, Any]:
    """The last generation's mean and rate of success, the best of all; None where there is none."""
    fitness = one["fitness"]
    valid = fitness[np.isfinite(fitness)]
    threshold = method.problem.success
    success = None if threshold is None else float(de.metrics.success_rate(fitness, threshold))
    return {
        "fitness_mean": float(valid.mean()) if len(valid) else None,
        "fitness_best": float(one["best"]) if np.isfinite(one["best"]) else None,
        "success_rate": success,
        "num_invalid": int(one["num_invalid"]),
    }


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
    results.write_whole(record_path(folder, point), record.model_dump_json(indent=1) + "\n")


def write_failure(folder: Path, point: Point, error: str) -> None:
    """Say in a point's file why it has no rows."""
    failed = Record(
        status="failed",
        settings=point.settings,
        error=error,
        rows=[],
        version=de.__version__,
        environment={},
    )
    write_record(folder, point, failed)
