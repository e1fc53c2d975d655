"""A sweep: its points, shared out into jobs that submitit starts, and one folder for all of them.

config.yaml     the sweep as it was called
plugins/        the files that it was called with, if any
points/         the points' files, of which `table` makes results.csv, failed.csv, summary.csv
jobs/           submitit's files: scripts and logs
figure.png      and .pdf: drawn by the command line, and by `diffevo-jax plot`
submitted.json  jobs of Slurm that a call has not waited for; the next one does

A job runs points of one shape, which differ in numbers alone (those that the registry says may be
traced, and the seed). It is a fresh process; it knows the sweep's folder and the numbers of its
points, and skips those that are finished.
"""

import itertools
import json
import os
import re
import subprocess
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import diffevo_jax as de
from diffevo_jax.checks import InputError
from diffevo_jax.runs.config import experiment, plugins
from diffevo_jax.runs.config.experiment import Experiment, Point
from diffevo_jax.runs.config.files import shown
from diffevo_jax.runs.config.schema import ConfigError
from diffevo_jax.runs.results import files as folders
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results import table
from diffevo_jax.runs.results.fields import ENDING, numbers
from diffevo_jax.runs.results.files import write_whole
from diffevo_jax.runs.results.record import Record, advice
from diffevo_jax.runs.results.table import PointResult, is_finished
from diffevo_jax.runs.run import engine, program, startup

# A submitted job and the numbers of its points.
Submitted = tuple[Any, tuple[int, ...]]

# How the points are shared out may change between calls into one folder.
_FREE = ("description", "sweep.slurm", "sweep.points_per_job", "sweep.runs_per_call")
_SUBMITTED = "submitted.json"
_DECADE = 10 * 365 * 24 * 60  # minutes; submitit ends a local job after 2 of its own accord
# Jobs of an array, where Slurm does not say: its MaxArraySize, by default.
MOST_JOBS = 1001


# A job


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
            # submitit hides every GPU whose number it was not given.
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            if self.visible_devices is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = self.visible_devices
        startup.prepare(cache=self.cache)
        if self.plugins:
            plugins.load(plugins.kept(self.folder))
        loaded = experiment.load(self.folder / "config.yaml")
        assert loaded.sweep is not None
        points = [loaded.points[number] for number in self.points]
        left = {p.number: p for p in points if not is_finished(self.folder, p)}
        environment: dict[str, Any] = {}
        try:
            environment = results.environment()
            points = list(left.values())
            for result in run_points(points, runs_per_call=loaded.sweep.runs_per_call):
                table.write_point(self.folder, result, environment)
                del left[result.point.number]
        except Exception as error:
            traceback.print_exc()
            first_line = (str(error).strip() or "no message").splitlines()[0]
            for point in left.values():
                _write_failure(self.folder, point, f"{type(error).__name__}: {first_line}")

    def checkpoint(self) -> Any:
        """Say what submitit queues again when the scheduler takes the job off: what is left."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_points(points: Sequence[Point], *, runs_per_call: int) -> Iterator[PointResult]:
    """Run points of one shape, and yield them as they finish.

    runs_per_call: runs that an accelerator does together; a CPU does them one by one.
    """
    if not points:
        return
    configs = [point.config for point in points]
    repeats, total, done, finished = configs[0].repeats, len(points) * configs[0].repeats, 0, 0
    times = {name: engine.new_times() for name in configs[0].methods}
    methods = {
        name: engine.MethodRunner(
            name, program.with_data(method), configs, times[name], runs_per_call=runs_per_call
        )
        for name, method in configs[0].methods.items()
    }
    records = {name: Record() for name in methods}
    errors: dict[int, str] = {}  # by the point's place among these
    while done < total:  # methods take turns, so that points finish early
        end = done
        for name, method in methods.items():
            if not done:
                print(f"{name}: compiling", flush=True)
            before, call = times[name]["run_seconds"], method.begin(done)
            while call.generation < method.program.num_levels:
                call = method.advanced(call)
                kept = call.kept[-1]
                for i, fitness in enumerate(kept["fitness"]):
                    place = (done + i) // repeats
                    message = engine.no_weight(configs[place].methods[name], fitness)
                    if message is not None:
                        errors.setdefault(place, message)
                kept["fitness"] = kept["fitness"][:, -1:].copy()  # all that the rows need
            runs, populations = method.ending(call)
            seconds = round((times[name]["run_seconds"] - before) / call.size, 6)
            records[name].add(runs | {"seconds": np.full(call.size, seconds)}, populations)
            end = done + call.size
            if 10 * end // total > 10 * done // total:
                print(f"{name}: {end} of {total} runs", flush=True)
        done = end
        while finished < done // repeats:
            yield _result(points[finished], records, errors.get(finished, ""))
            finished += 1


def _result(point: Point, records: dict[str, Record], error: str) -> PointResult:
    """Take a point's repeats out of the records of its methods."""
    rows, arrays, messages, count = [], {}, [], point.config.repeats
    for name, method in point.config.methods.items():
        limit = count if method.save_populations is None else min(method.save_populations, count)
        repeats, populations = records[name].pop(count, limit)
        columns = numbers(repeats)
        for repeat in range(count):
            row = {
                key: None if isnan(each[repeat]) else each[repeat] for key, each in columns.items()
            }
            rows.append({"method": name, "repeat": repeat, **row})
        best = {key: repeats[key][:limit] for key in ENDING if key in repeats and limit}
        arrays |= {f"{name}.{key}": value for key, value in (best | populations).items()}
        messages += advice(repeats)[:1]
    if error:
        return PointResult(point, [], {}, error)
    return PointResult(point, rows, arrays, "", tuple(dict.fromkeys(messages)))


# A sweep


def sweep(
    path: Path,
    overrides: list[str] | None = None,
    *,
    executor: str = "local",
    out: Path | None = None,
    only: Sequence[int] = (),
    plugin: Sequence[Path] = (),
    cache: bool = True,
    say: Callable[[str], Any] = print,
    finish: Callable[[Path], Any] = lambda _: None,
) -> list[str]:
    """Run the points of a sweep that are not finished in its folder, and write its tables.

    executor: "local", one job after the other, each in a fresh process with every core or
        accelerator; "slurm", an array of jobs; "debug", in this process.
    out: the sweep's folder, new or of the same sweep; None is runs/NAME.
    only: numbers of the points to run; none is all. plugin: files for `plugins.load`.
    say: called with a line on the jobs, and on points that did not select.
    finish: called with the folder once its tables are written.

    Returns a line per point that has failed, among those to run. Raises ConfigError on bad input,
    before anything runs.
    """
    if executor != "debug":
        _submitit()
    sources = plugins.load(plugin)
    loaded = experiment.load(path, overrides or ())
    if loaded.sweep is None:
        name = shown(path)
        raise ConfigError(
            f"{name}: missing key 'sweep', with grid, list or random; "
            f"`diffevo-jax run {folders.quoted(name)}` runs a config without"
        )
    groups = group(loaded)
    for number in only:
        if number not in range(len(loaded.points)):
            expected = f"the number of a point, 0 to {len(loaded.points) - 1}"
            raise ConfigError(f"--only {number}: expected {expected}")
    points = [point for point in loaded.points if not only or point.number in only]
    folder = (out or Path("runs") / loaded.name).absolute()
    if folder.exists():
        _check_folder(folder, loaded, sources)

    def plan() -> tuple[list[Submitted], list[Job]]:
        """The jobs that are in Slurm's queue already, and those that run what is left."""
        queued = _queued(folder, len(loaded.points))
        taken = {number for _, numbers in queued for number in numbers}
        free = {p.number for p in points if not (p.number in taken or is_finished(folder, p))}
        jobs = [tuple(point.number for point in each if point.number in free) for each in groups]
        devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        return queued, [Job(folder, each, devices, bool(sources), cache) for each in jobs if each]

    if executor == "slurm":
        _check_array(len(plan()[1]))
    folder.mkdir(parents=True, exist_ok=True)
    with folders.lock(folder, folder, say):
        queued, jobs = plan()
        source = " ".join([str(path), *(f"--set {text}" for text in overrides or [])])
        plugins.keep(folder, sources)
        (folder / "points").mkdir(exist_ok=True)
        results.write_config(folder, loaded.data, source)
        left = [loaded.points[number] for job in jobs for number in job.points]
        say(f"{len(left)} of {len(points)} points to run, jobs: {len(jobs)} -> {folder}")
        for point in left:
            table.point_path(folder, point).unlink(missing_ok=True)
        submitted = _submit(executor, loaded, folder, jobs, queued)
        try:
            for job, numbers in submitted:
                ended = [loaded.points[number] for number in numbers]
                _wait(folder, job, ended, cancel=executor == "local")
                failed = [point for point in ended if not is_finished(folder, point)]
                say(f"job {job.job_id}: {len(ended)} points, {len(failed)} failed")
        finally:
            failures = table.write_results(folder, loaded.points)
        (folder / _SUBMITTED).unlink(missing_ok=True)
        for line in table.advice(folder, points):
            say(line)
        finish(folder)
    return [f"{point.describe()}: {error}" for point, error in failures if point in points]


def group(loaded: Experiment) -> list[list[Point]]:
    """Put points of one shape together, at most `points_per_job` of them: the jobs.

    Raises ConfigError, naming a point, where task, policy and latent space do not fit.
    """
    shapes: dict[str, list[Point]] = {}
    for point in loaded.points:
        methods = point.config.methods.items()
        methods = {name: program.take_apart(method)[0] for name, method in methods}
        shape = json.dumps([point.config.repeats, methods])
        if shape not in shapes:
            try:
                program.build(point.config)
            except ConfigError as error:
                raise ConfigError(f"{point.describe()}: {error}") from None
        shapes.setdefault(shape, []).append(point)
    most = (loaded.sweep and loaded.sweep.points_per_job) or len(loaded.points)
    return [group[i : i + most] for group in shapes.values() for i in range(0, len(group), most)]


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise ConfigError(
            'sweeps need submitit, which is not installed: pip install "diffevo-jax[sweep]"'
        ) from None
    return submitit


def _check_array(num_jobs: int) -> None:
    """Raise InputError for more jobs than an array of Slurm's may have."""
    try:
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True)
        most = int(re.findall(r"MaxArraySize\s*=\s*(\d+)", shown.stdout)[0])
    except (OSError, IndexError):
        most = MOST_JOBS
    if num_jobs > most:
        raise InputError(
            "sweep.points_per_job",
            f"at most {most} jobs, as an array of this Slurm may have",
            f"{num_jobs} jobs",
            "raise points_per_job, or run the points in portions with --only",
        )


class _Here(NamedTuple):
    """A job in this process, as one of submitit's; its points' files say how it went."""

    exception: Callable[[], None]
    job_id: str
    state: str = "error"


def _submit(
    executor: str, loaded: Experiment, folder: Path, jobs: list[Job], queued: list[Submitted]
) -> Iterable[Submitted]:
    """Hand jobs to submitit: to Slurm all at once, else each when the one before has ended."""
    if executor == "debug":
        here = ((_Here(job, str(number)), job.points) for number, job in enumerate(jobs))
        return itertools.chain(queued, here)
    try:
        cluster = _submitit().AutoExecutor(folder / "jobs", cluster=executor)
        assert loaded.sweep is not None
        slurm = {"time": 60, **(loaded.sweep.slurm or {})} if executor == "slurm" else {}
        options = {f"slurm_{key}": value for key, value in slurm.items()}
        cluster.update_parameters(name=loaded.name, local_timeout_min=_DECADE, **options)
        if executor != "slurm" or not jobs:
            lazily = ((cluster.submit(job), job.points) for job in jobs)
            return itertools.chain(queued, lazily)
        with cluster.batch():
            handles = [cluster.submit(job) for job in jobs]
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError, OSError) as error:
        raise ConfigError(f"--executor {executor}: {error}") from None
    submitted = [*queued, *((h, job.points) for h, job in zip(handles, jobs, strict=True))]
    text = json.dumps({handle.job_id: numbers for handle, numbers in submitted})
    write_whole(folder / _SUBMITTED, text + "\n")
    return submitted


def _queued(folder: Path, num_points: int) -> list[Submitted]:
    """Jobs that an earlier call left in Slurm's queue and that have not ended."""
    path = folder / _SUBMITTED
    if not path.exists():
        return []
    advice = f"remove {path} once its jobs have ended"
    try:
        numbers_of, submitit = json.loads(path.read_text(encoding="utf-8")), _submitit()
        jobs = [
            (submitit.SlurmJob(folder / "jobs", key), tuple(numbers_of[key])) for key in numbers_of
        ]
        if not all(number in range(num_points) for _, numbers in jobs for number in numbers):
            raise ValueError("no such point")
    except (ValueError, TypeError, OSError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable ({error}); {advice}") from None
    return [(job, numbers) for job, numbers in jobs if not job.done()]


def _wait(folder: Path, job: Any, points: list[Point], *, cancel: bool) -> None:
    """Wait for a job; where it ended without a word, say so of its points."""
    try:
        error = job.exception()
    except KeyboardInterrupt:
        if cancel:
            job.cancel(check=False)
        raise
    for point in points:
        if error is not None and table.read_point(folder, point) is None:
            last = (str(error).strip() or "no message").splitlines()[-1]
            _write_failure(folder, point, f"its job ended in {job.state}: {last}")


def _write_failure(folder: Path, point: Point, error: str) -> None:
    """Say in a point's file why it has no rows."""
    table.write_point(folder, PointResult(point, [], {}, error), {})


def _check_folder(folder: Path, loaded: Experiment, sources: dict[str, str]) -> None:
    """Raise ConfigError unless the folder holds this sweep, whole, or its beginning, or nothing."""
    if not folder.is_dir():
        raise ConfigError(f"--out {folder}: expected a folder; seen a file")
    if folders.holds_only(folder, "points", "config.yaml.partial", "plugins", "plugins/*"):
        return
    if not (folder / "config.yaml").exists():
        raise ConfigError(f"--out {folder}: not a sweep's folder, it holds no config.yaml")
    there = experiment.read(folder / "config.yaml")
    keys = folders.differences(there, loaded.data)
    differing = [key for key in keys if not key.startswith(_FREE)]
    if differing:
        raise ConfigError(
            f"--out {folder}: holds another sweep; they differ in {', '.join(differing)}. "
            "Choose another folder"
        )
    plugins.check_same(folder, sources)
    for point, written in table.read_points(folder, loaded.points):
        if written.version != de.__version__:
            raise ConfigError(
                f"--out {folder}: {point.describe()} was run by version {written.version}; this is "
                f"{de.__version__}. Choose another folder"
            )
        for variable, (there, here) in results.other_settings_of_jax(written.environment).items():
            raise ConfigError(
                f"--out {folder}: {point.describe()} was run with {variable}={there}; this is "
                f"{here}. Choose another folder"
            )
