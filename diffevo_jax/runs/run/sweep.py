"""A sweep's folder: points in, jobs out through submitit, one table.

config.yaml     the sweep as it was called
points/         a file a point, written whole when the point is finished or has failed; and its
                arrays, where populations are saved
jobs/           submitit's files: scripts and logs
results.csv     tidy: a row per finished point, method and repeat; the settings as columns
summary.csv     a row per finished point and method: means and standard errors over repeats; and
                figure.png and .pdf: of the command line, and of `diffevo-jax plot`
failed.csv      a row per failed point, with its error
submitted.json  jobs of Slurm that a call has not waited for; the next one does
"""

import csv
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import diffevo_jax as de
from diffevo_jax.runs.config import experiment, plugins
from diffevo_jax.runs.config import yaml as yaml_loader
from diffevo_jax.runs.config.experiment import Experiment, Point
from diffevo_jax.runs.config.files import shown
from diffevo_jax.runs.config.schema import ConfigError
from diffevo_jax.runs.results import files as folders
from diffevo_jax.runs.results.files import write_whole
from diffevo_jax.runs.results.folder import read_arrays
from diffevo_jax.runs.run import program
from diffevo_jax.runs.run.jobs import (
    Job,
    Ran,
    arrays_path,
    is_finished,
    read_record,
    record_path,
    take_apart,
    write_failure,
)

# A submitted job and the numbers of its points.
Submitted = tuple[Any, tuple[int, ...]]

METRICS = (
    *("fitness_mean", "fitness_best", "success_rate"),
    *("reevaluated_return", "reevaluated_success", "num_invalid", "seconds"),
)
# Points that a line of advice names.
MOST_NAMED = 10
# How the points are shared out may change between calls into one folder.
_FREE = ("description", "sweep.slurm", "sweep.points_per_job", "sweep.runs_per_call")
_SUBMITTED = "submitted.json"
_DECADE = 10 * 365 * 24 * 60  # minutes; submitit ends a local job after 2 of its own accord


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
    only: numbers of the points to run; none is all. plugin: files of `plugins.load`.
    say: called with a line on the jobs, and on points that did not select.
    finish: called with the folder once its tables are written.

    Returns a line per point that has failed, of those asked for. Raises ConfigError on bad input,
    before anything runs.
    """
    if executor != "debug":
        _submitit()
    sources = plugins.load(plugin)
    loaded = experiment.load(path, overrides or ())
    if loaded.sweep is None:
        name = shown(path)
        raise ConfigError(
            f"{name}: missing key 'sweep', with grid, list or random; `diffevo-jax run {name}` "
            "runs a config without"
        )
    groups = group(loaded)
    unknown = sorted(set(only) - set(range(len(loaded.points))))
    if unknown:
        last = len(loaded.points) - 1
        raise ConfigError(f"--only {unknown[0]}: expected the number of a point, 0 to {last}")
    folder = (out or Path("runs") / loaded.name).absolute()
    with _opened(folder, loaded, sources, say):
        earlier = _earlier_jobs(folder, len(loaded.points))
        taken = {number for _, numbers in earlier for number in numbers}
        asked = [point for point in loaded.points if not only or point.number in only]
        left = [p for p in asked if p.number not in taken and not is_finished(folder, p)]
        jobs = _jobs(folder, groups, left, bool(sources), cache)
        source = " ".join([str(path), *(f"--set {text}" for text in overrides or [])])
        _write_config(folder, loaded, source, sources)
        say(f"{len(left)} of {len(asked)} points to run, jobs: {len(jobs)} -> {folder}")
        for point in left:
            record_path(folder, point).unlink(missing_ok=True)
        submitted = _submit(executor, loaded, folder, jobs, earlier)
        try:
            for job, numbers in submitted:
                points = [loaded.points[number] for number in numbers]
                _wait(folder, job, points, cancel=executor == "local")
                failed = [point for point in points if not is_finished(folder, point)]
                say(f"job {job.job_id}: {len(points)} points, {len(failed)} failed")
        finally:
            failures = _write_tables(folder, loaded)
        (folder / _SUBMITTED).unlink(missing_ok=True)
        for line in _advice(folder, asked):
            say(line)
        finish(folder)
    return [f"{point.describe()}: {error}" for point, error in failures if point in asked]


def load(folder: str | Path) -> list[Ran]:
    """Read the finished points of a sweep's folder, with what arrays they saved."""
    folder = Path(folder)
    found = []
    for point in experiment.load(folder / "config.yaml").points:
        record, path = read_record(folder, point), arrays_path(folder, point)
        if record is not None and record.status == "finished":
            arrays = read_arrays(path) if path.exists() else {}
            found.append(Ran(point, record.rows, arrays, ""))
    return found


def group(loaded: Experiment) -> list[list[Point]]:
    """Put points of one shape together, at most `points_per_job` of them: the jobs.

    Raises ConfigError, naming a point, where task, policy and latent space do not fit.
    """
    shapes: dict[str, list[Point]] = {}
    for point in loaded.points:
        methods = {name: take_apart(method)[0] for name, method in point.config.methods.items()}
        shape = json.dumps([point.config.repeats, methods])
        if shape not in shapes:
            try:
                program.build(point.config)
            except ConfigError as error:
                raise ConfigError(f"{point.describe()}: {error}") from None
        shapes.setdefault(shape, []).append(point)
    most = (loaded.sweep and loaded.sweep.points_per_job) or len(loaded.points)
    return [group[i : i + most] for group in shapes.values() for i in range(0, len(group), most)]


# Jobs


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise ConfigError(
            'sweeps need submitit, which is not installed: pip install "diffevo-jax[sweep]"'
        ) from None
    return submitit


def _jobs(
    folder: Path, groups: list[list[Point]], left: list[Point], plugins: bool, cache: bool
) -> list[Job]:
    """The jobs that run what is left."""
    wanted = {point.number for point in left}
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = [tuple(p.number for p in group if p.number in wanted) for group in groups]
    return [Job(folder, each, devices, plugins, cache) for each in numbers if each]


class _Here(NamedTuple):
    """A job in this process, with what of submitit's jobs is asked for here."""

    job: Job
    job_id: str
    state: str = "error"

    def exception(self) -> None:
        """Run it; its points' files say how it went."""
        self.job()


def _submit(
    executor: str,
    loaded: Experiment,
    folder: Path,
    jobs: list[Job],
    earlier: list[Submitted],
) -> Iterator[Submitted]:
    """Hand jobs to submitit: to Slurm all at once, else each when the one before has ended."""
    if executor == "debug":
        here = ((_Here(job, str(number)), job.points) for number, job in enumerate(jobs))
        return itertools.chain(earlier, here)
    try:
        cluster = _submitit().AutoExecutor(folder / "jobs", cluster=executor)
        slurm = (
            {"time": 60, **((loaded.sweep and loaded.sweep.slurm) or {})}
            if executor == "slurm"
            else {}
        )
        cluster.update_parameters(
            name=loaded.name,
            local_timeout_min=_DECADE,
            **{f"slurm_{key}": value for key, value in slurm.items()},
        )
        if executor != "slurm" or not jobs:
            lazily = ((cluster.submit(job), job.points) for job in jobs)
            return itertools.chain(earlier, lazily)
        with cluster.batch():
            handles = [cluster.submit(job) for job in jobs]
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError, OSError) as error:
        raise ConfigError(f"--executor {executor}: {error}") from None
    submitted = [*earlier, *((h, job.points) for h, job in zip(handles, jobs, strict=True))]
    text = json.dumps({handle.job_id: numbers for handle, numbers in submitted})
    write_whole(folder / _SUBMITTED, text + "\n")
    return iter(submitted)


def _earlier_jobs(folder: Path, num_points: int) -> list[Submitted]:
    """Jobs that an earlier call left in Slurm's queue and that have not ended."""
    path = folder / _SUBMITTED
    if not path.exists():
        return []
    advice = f"remove {path} once its jobs have ended"
    try:
        found, submitit = json.loads(path.read_text(encoding="utf-8")), _submitit()
        jobs = [(submitit.SlurmJob(folder / "jobs", key), tuple(found[key])) for key in found]
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
        if error is not None and read_record(folder, point) is None:
            last = str(error).strip().splitlines()[-1]
            write_failure(folder, point, f"its job ended in {job.state}: {last}")


# The folder


@contextmanager
def _opened(folder: Path, loaded: Experiment, sources: dict[str, str], say: Callable[[str], Any]):
    """Make the sweep's folder, or open one of the same sweep, for one call at a time.

    Raises ConfigError, and changes nothing, where it holds anything else.
    """
    if folder.exists():
        _check_folder(folder, loaded, sources)
    folder.mkdir(parents=True, exist_ok=True)
    with folders.lock(folder, folder, say):
        yield


def _write_config(folder: Path, loaded: Experiment, source: str, sources: dict[str, str]) -> None:
    """Save the sweep as it was called; the jobs read it."""
    plugins.keep(folder, sources)
    (folder / "points").mkdir(exist_ok=True)
    header = f"# diffevo-jax sweep {folder / 'config.yaml'}\n# From {' '.join(source.split())}\n"
    write_whole(folder / "config.yaml", header + yaml_loader.dump(loaded.data))


def _check_folder(folder: Path, loaded: Experiment, sources: dict[str, str]) -> None:
    """Raise ConfigError unless the folder holds this sweep, whole, or its beginning, or nothing."""
    if not folder.is_dir():
        raise ConfigError(f"--out {folder}: expected a folder; seen a file")
    kept = [path.relative_to(folder).as_posix() for path in (folder / "plugins").rglob("*")]
    if folders.holds_only(folder, "points", "config.yaml.partial", "plugins", *kept):
        return
    if not (folder / "config.yaml").exists():
        raise ConfigError(f"--out {folder}: not a sweep's folder, it holds no config.yaml")
    seen = experiment.read(folder / "config.yaml")
    differing = [key for key in folders.differences(seen, loaded.data) if not key.startswith(_FREE)]
    if differing:
        raise ConfigError(
            f"--out {folder}: holds another sweep; they differ in {', '.join(differing)}. "
            "Choose another folder"
        )
    plugins.check_same(folder, sources)
    for point in loaded.points:
        record = read_record(folder, point)
        if record is not None and record.version != de.__version__:
            raise ConfigError(
                f"--out {folder}: {point.describe()} was run by version {record.version}; this is "
                f"{de.__version__}. Choose another folder"
            )


def _write_tables(folder: Path, loaded: Experiment) -> list[tuple[Point, str]]:
    """Write results.csv and failed.csv from the points' files; returns the failed ones."""
    settings = list(dict.fromkeys(key for point in loaded.points for key in point.settings))
    rows, failures = [], []
    for point in loaded.points:
        record = read_record(folder, point)
        if record is None:
            continue
        named = {"point": point.number} | {k: _cell(v) for k, v in point.settings.items()}
        rows += [{**named, **row} for row in record.rows]
        if record.status == "failed":
            failures.append((point, record.error))
    failed = [
        {"point": point.number, "error": error, **{k: _cell(v) for k, v in point.settings.items()}}
        for point, error in failures
    ]
    _write_table(folder / "results.csv", ["point", *settings, "method", "repeat", *METRICS], rows)
    _write_table(folder / "failed.csv", ["point", *settings, "error"], failed)
    return failures


def _advice(folder: Path, points: Sequence[Point]) -> Iterator[str]:
    """What to change where points did not select: a line each, which names the points."""
    said: dict[str, list[str]] = {}
    for point in points:
        record = read_record(folder, point)
        for message in () if record is None else record.advice:
            said.setdefault(message, []).append(str(point.number))
    for message, numbers in said.items():
        more = f" and {len(numbers) - MOST_NAMED} more" if len(numbers) > MOST_NAMED else ""
        points_named = f"point{'s'[: len(numbers) > 1]} {', '.join(numbers[:MOST_NAMED])}{more}"
        yield f"{points_named}: {message}"


def _write_table(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())


def _cell(value: Any) -> str:
    """A setting as a config has it: null, [8, 8], cosine."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
