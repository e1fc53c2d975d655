"""Run points of one shape: one compiled program a method, several runs a call.

A run is a sweep of one point. `advance` does the computing for both; what becomes of the runs is up
to a `Sink`: a run's folder here (`run`), the points' files of a sweep in `jobs`.
"""

import itertools
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import diffevo_jax as de
from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.results import files as folders
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results import scalars
from diffevo_jax.runs.results.fields import ENDING
from diffevo_jax.runs.results.record import Record, Summary, summarise
from diffevo_jax.runs.run import checkpoints
from diffevo_jax.runs.run.processes import is_first, on_first, on_host
from diffevo_jax.runs.run.program import Carry, Program, needs_positive, take_apart
from diffevo_jax.runs.run.program import build as build

# Between two compiled chunks the host draws the progress bar and saves; at this length that costs
# nothing.
GENERATIONS_PER_CHUNK = 50
# N^2 D of a chunk, at most: some seconds, so that a large run, too, can save in time.
WORK_PER_CHUNK = 1e10
WORK_PER_CHUNK_ACCELERATED = 1e13
# Runs that a device does in one call; what Ctrl-C loses at most.
REPEATS_PER_CALL = 4

# method, finished runs, finished generations beyond them, compiling
Progress = Callable[[str, int, int, bool], None]
Arrays = dict[str, np.ndarray]


class Stopped(RuntimeError):
    """The run can't go on; what is finished has been saved. The message is for the user."""


class Call(NamedTuple):
    """Runs that advance together.

    method: its name. first: number of the first run; a point's repeats follow each other.
    size: how many runs are wanted; any others fill up the devices.
    numbers: (those that are data to the program,), or ().
    generation: how many are done. carry: (carry, keys) of the program, a leading axis of runs.
    kept: what the generations done have left, pieces of `[size, k, ...]`.
    """

    method: str
    first: int
    size: int
    numbers: tuple
    generation: int
    carry: tuple[Carry, jax.Array]
    kept: list[Arrays]


class Sink:
    """What becomes of runs, on their way and at their end; by itself, nothing."""

    def progress(self, method: str, runs: int, generations: int, compiling: bool) -> None:
        """Show how far a method is: finished runs, and finished generations beyond them."""

    def begin(self, method: str) -> tuple[int, dict[str, float]]:
        """How many runs of the method are finished already, and its seconds, to add to."""
        return 0, new_times()

    def restore(self, method: str, first: int) -> checkpoints.Progress | None:
        """The runs in progress from a number on, if any."""

    def chunk(self, call: Call, kept: Arrays) -> Arrays:
        """Take what the next k generations left, `[size, k, ...]`; returns what to keep of it."""
        return kept

    def finish(self, call: Call, runs: Arrays, populations: Arrays) -> None:
        """Keep what a call's runs left, `[size, ...]`, and populations, of those that keep them."""

    def checkpoint(self, call: Call, generations: int) -> None:
        """Save what is due, after each chunk of so many generations."""


# Points


def advance(
    points: Sequence[cfg.RunConfig],
    programs: dict[str, Program],
    sink: Sink,
    *,
    every: int | None = None,
    runs_per_call: int | None = None,
) -> Iterator[str]:
    """Run every method over every repeat of points of one shape, but for what is finished.

    programs: by method; where runs_per_call is given, as for a sweep, of `with_data`: what differs
        between the points is data to them, and methods take turns, so that points finish early.
    every: generations between two checkpoints at most.
    runs_per_call: how many an accelerator does together; a CPU does them one by one.

    Yields a method's name when its turn is over; the turn of a single point is all of its repeats.
    """
    total = len(points) * points[0].repeats
    methods = {
        name: _Method(name, program, points, sink, every, runs_per_call)
        for name, program in programs.items()
    }
    first = next(iter(methods.values()))
    turn = total if runs_per_call is None else first.per_call
    for end in range(turn, total + turn, turn):
        for name, method in methods.items():
            method.run_until(min(end, total))
            yield name


class _Method:
    """A method of the points: its compiled functions, and how its runs are shared out."""

    def __init__(
        self,
        name: str,
        program: Program,
        points: Sequence[cfg.RunConfig],
        sink: Sink,
        every: int | None,
        runs_per_call: int | None,
    ):
        self.name, self.program, self.points, self.sink = name, program, points, sink
        self.repeats, self.with_data = points[0].repeats, runs_per_call is not None
        self.total = len(points) * self.repeats
        self.settings = points[0].methods[name]
        self.num_levels = program.num_levels
        # A population that is split over a mesh has all devices for itself.
        self.devices = [None] if program.mesh else jax.local_devices()[: self.total]
        self.per_call = (
            1 if program.mesh else _per_call(self.total, len(self.devices), runs_per_call)
        )
        longest = _longest(self.settings.population_size, program)
        self.stops = _stops(self.num_levels, every, longest)
        self.done: int | None = None

    def run_until(self, end: int) -> None:
        """Run a call after the other until so many runs are finished."""
        if self.done is None:
            self.done, times = self.sink.begin(self.name)
            if self.done < end:
                self.compile(times)
                self.sink.progress(self.name, self.done, 0, True)
                saved = on_first(self.sink.restore, self.name, self.done)
                if saved is not None:
                    self.run(self.restored(saved))
        while self.done < end:
            self.run(self.started(min(self.per_call, end - self.done)))
        self.sink.progress(self.name, self.done, 0, False)

    def run(self, call: Call) -> None:
        """Run a call to its end, a chunk of generations after the other."""
        self.sink.progress(self.name, call.first, call.size * call.generation, False)
        for stop in self.stops:
            if stop <= call.generation:
                continue
            before = call.generation
            call = self.advanced(call, stop)
            self.sink.progress(self.name, call.first, call.size * stop, False)
            if stop == self.num_levels:
                self.finish(call)
            self.sink.checkpoint(call, stop - before)
        self.done = call.first + call.size

    def compile(self, times: dict[str, float]) -> None:
        """Make `start`, `advance` and `reevaluate` of many runs, shared out among the devices."""

        def many(function: Callable, **options) -> _Timed:
            if self.program.mesh is None:
                mapped = de.batch.over_devices(de.batch.by_platform(function), self.devices)
            else:
                mapped = _alone(function)
            mapped.__name__ = f"{function.__name__}_repeats"  # as profiles and the cache show it
            return _Timed(self.name, jax.jit(mapped, **options), times)

        self.start = many(self.program.start)
        self.advance = many(self.program.advance, donate_argnums=0)
        self.reevaluate = self.program.reevaluate and many(self.program.reevaluate)

    def inputs(self, first: int, size: int) -> tuple[jax.Array, tuple]:
        """Keys `[size]` of runs, and their numbers where these are data; the last fills up."""
        runs = np.minimum(np.arange(first, first + size), self.total - 1)
        point, repeat = np.divmod(runs, self.repeats)
        keys = _keys(np.array([self.points[i].seed for i in point], np.uint32), repeat)
        if not self.with_data:
            return keys, ()
        numbers = [take_apart(self.points[i].methods[self.name])[1] for i in point]
        names = numbers[0]
        return keys, ({key: jnp.asarray([each[key] for each in numbers], float) for key in names},)

    def started(self, size: int) -> Call:
        """A new call, of the runs after those that are finished."""
        assert self.done is not None
        keys, numbers = self.inputs(self.done, self.per_call)
        carry = self.start(keys, *numbers)
        return Call(self.name, self.done, size, numbers, 0, carry, [])

    def restored(self, saved: checkpoints.Progress) -> Call:
        """The call of a checkpoint; filled up anew where the devices do not divide its runs."""
        num_devices = len(self.devices)
        rows = math.ceil(len(saved.carry[0]) / num_devices) * num_devices
        keys, numbers = self.inputs(saved.first, rows)
        like, tree = jax.tree.flatten(self.start(keys, *numbers))
        checkpoints.check_fits(saved, [_plain(leaf) for leaf in like])
        carry = [
            _placed(np.resize(array, (rows, *array.shape[1:])), leaf)  # the first rows again
            for leaf, array in zip(like, saved.carry, strict=True)
        ]
        at = (self.name, saved.first, saved.size, numbers, saved.generation)
        return Call(*at, tree.unflatten(carry), [saved.kept])

    def advanced(self, call: Call, stop: int) -> Call:
        """Run the call up to a generation."""
        carry, keys = call.carry
        carry, kept = self.advance(carry, keys[:, call.generation : stop], *call.numbers)
        kept = {key: on_host(value)[: call.size] for key, value in kept.items()}
        kept = self.sink.chunk(call, kept)
        return call._replace(generation=stop, carry=(carry, keys), kept=[*call.kept, kept])

    def finish(self, call: Call) -> None:
        """Hand the runs of a call that has ended to the sink, without those that filled it up."""
        carry, _ = call.carry
        left = self.program.ending(carry)
        runs = _joined(call)
        runs |= {key: on_host(left.pop(key)[: call.size]) for key in ENDING if key in left}
        if self.reevaluate is not None:
            keys, _ = self.inputs(call.first, len(call.carry[1]))
            outcomes = self.reevaluate(keys, carry, *call.numbers)
            runs |= {key: on_host(value)[: call.size] for key, value in outcomes.items()}
        limit = self.settings.save_populations
        repeats = np.arange(call.first, call.first + call.size) % self.repeats
        kept = np.arange(call.size) if limit is None else np.flatnonzero(repeats < limit)
        count = kept[-1] + 1 if len(kept) else 0  # of a run, whose first repeats are kept, exact
        populations = {key: on_host(v[:count])[kept] for key, v in left.items()} if count else {}
        self.sink.finish(call, runs, populations)


def progress_of(call: Call) -> checkpoints.Progress:
    """What a checkpoint holds of a call: copies, since the next chunk writes over the state."""
    leaves = [on_host(_plain(leaf)) for leaf in jax.tree.leaves(call.carry)]
    at = (call.method, call.first, call.size, call.generation)
    return checkpoints.Progress(*at, carry=leaves, kept=_joined(call), version=de.__version__)


def _joined(call: Call) -> Arrays:
    return {key: np.concatenate([kept[key] for kept in call.kept], 1) for key in call.kept[0]}


@jax.jit
def _keys(seeds: jax.Array, repeats: jax.Array) -> jax.Array:
    """Keys of runs, as `batch.seed_keys` makes them."""
    return jax.vmap(lambda seed, k: jax.random.fold_in(jax.random.key(seed), k))(seeds, repeats)


def _alone(function: Callable) -> Callable:
    """Map over a leading axis of one."""

    def alone(*args):
        result = function(*jax.tree.map(lambda leaf: leaf[0], args))
        return jax.tree.map(lambda leaf: leaf[None], result)

    return alone


def _longest(population: int, program: Program) -> int:
    """Generations of a chunk at most."""
    most = WORK_PER_CHUNK if jax.default_backend() == "cpu" else WORK_PER_CHUNK_ACCELERATED
    return max(1, min(GENERATIONS_PER_CHUNK, int(most / (population**2 * program.num_genes))))


def _stops(num_levels: int, every: int | None, longest: int) -> list[int]:
    """Generations after which the host has the word: every chunk's end, each `every`, the last.

    They follow from the config and the platform: chunks of other lengths may round otherwise.
    """
    ends = [*range(0, num_levels, every or num_levels), num_levels]
    chunks = [
        np.array_split(np.arange(begin, end), math.ceil((end - begin) / longest))
        for begin, end in itertools.pairwise(ends)
    ]
    return [int(chunk[-1]) + 1 for block in chunks for chunk in block]


def _per_call(total: int, num_devices: int, runs_per_call: int | None = None) -> int:
    """Runs a call, a multiple of the devices.

    Of a run such that the last call is filled up least; of a sweep, which gives runs_per_call, in
    the fewest calls of one size.
    """
    each = math.ceil(total / num_devices)
    on_cpu = jax.default_backend() == "cpu"
    most = REPEATS_PER_CALL if runs_per_call is None or on_cpu else runs_per_call
    sizes = range(1, min(most, each) + 1)
    if runs_per_call is None:
        return num_devices * min(sizes, key=lambda size: (-each % size, -size))
    return num_devices * min(sizes, key=lambda size: (math.ceil(each / size), size))


def _placed(array: np.ndarray, like: jax.Array) -> jax.Array:
    """An array on the devices, and in the processes, of another; its key where that is one."""
    sharding = _plain(like).sharding
    placed = jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
    return placed if _plain(like) is like else jax.random.wrap_key_data(placed)


def _plain(leaf: jax.Array) -> jax.Array:
    """The numbers of an array, also where it is one of keys."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


class _Timed:
    """A jitted function that accounts for its tracing, its compilation and its run apart."""

    def __init__(self, method: str, jitted: Any, times: dict[str, float]):
        self.method, self.jitted, self.times, self.compiled = method, jitted, times, {}

    def __call__(self, *args):
        shapes = str(jax.tree.map(jnp.shape, args))
        if shapes not in self.compiled:
            try:
                lowered = self._account("trace_seconds", lambda: self.jitted.lower(*args))
            except ValueError as error:  # shapes that do not fit are found here
                raise Stopped(f"methods.{self.method}: {error}") from error
            self.compiled[shapes] = self._account("compile_seconds", lowered.compile)
        run = self.compiled[shapes]
        return self._account("run_seconds", lambda: jax.block_until_ready(run(*args)))

    def _account(self, name: str, call: Callable):
        begin = time.perf_counter()
        result = call()
        self.times[name] += time.perf_counter() - begin
        return result


def no_weight(method: cfg.Method, fitness: np.ndarray) -> str | None:
    """Say what to do about fitness that the method's map can't weigh; None where it can."""
    negative = fitness[np.isfinite(fitness) & (fitness < 0)]
    where = needs_positive(method)
    if where is None or not len(negative):
        return None
    return (
        f"{method.label}: the fitness went down to {negative.min():g}, and {where} needs "
        "fitness of 0 or more. Use boltzmann, which takes any sign: "
        f"--set {where}.name=boltzmann"
    )


def new_times() -> dict[str, float]:
    """Seconds of a method, by what they are spent on."""
    return dict.fromkeys(("trace_seconds", "compile_seconds", "run_seconds"), 0)


# A run


def run(
    config: cfg.RunConfig,
    programs: dict[str, Program],
    folder: Path,
    *,
    source: str = "a RunConfig",
    sources: dict[str, str] | None = None,
    progress: Progress = lambda *_: None,
    say: Callable[[str], None] = print,
    log: scalars.Log = scalars.nowhere,
) -> list[Summary]:
    """Run every method and fill the run folder; where it holds this run already, go on with it.

    programs: see `build`. folder: see `folder.create`. source: what the config was made from.
    sources: texts of plugins, see `plugins.load`.
    progress: called as (method, finished repeats, finished generations beyond them, compiling).
    say: called with a line on what can't be saved or read, needs no run, or did not select.
    log: called by the first process with what is kept as generations end, see `scalars`.

    Returns a summary per method. On Ctrl-C, and on `Stopped`, the finished repeats are saved and
    environment.json says "interrupted" or "stopped"; the exception goes on to the caller.
    Raises ConfigError when another process uses the folder, or it holds a run of another config.
    """
    with ExitStack() as held:
        lock = folders.lock(folder / "checkpoints" / "lock", folder, say)
        on_first(held.enter_context, lock)
        environment = on_first(checkpoints.begin, folder, config, source, sources or {}, say)
        arrays = on_first(checkpoints.finished, folder, config, say)
        if environment["status"] != "complete" or len(arrays) < len(programs):
            sink = _RunFolder(config, programs, folder, environment, arrays, progress, say, log)
            _run_methods(config, programs, sink)
        elif is_first():
            say("This run is complete already: nothing is run again.")
        on_first(shutil.rmtree, folder / "checkpoints")
    return [summarise(name, config, arrays[name]) for name in programs]


def _run_methods(config: cfg.RunConfig, programs: dict[str, Program], sink: "_RunFolder") -> None:
    """Run the methods of which no array is there yet; record how that ends."""
    environment = sink.environment
    try:
        for name in advance([config], programs, sink, every=config.checkpoint.every):
            sink.end(name)
        environment["status"] = "complete"
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        environment["status"] = "interrupted" if interrupted else f"stopped: {error}"
        sink.interrupt()
        raise
    finally:
        if is_first():
            sink.saver.close()
            results.write_environment(sink.folder, environment)


class _RunFolder(Sink):
    """A run's folder: checkpoints on the way, arrays and rows at a method's end.

    environment: environment.json, as it will be written. arrays: of the methods that have ended.
    record: the finished repeats of the method in progress.
    """

    def __init__(
        self,
        config: cfg.RunConfig,
        programs: dict[str, Program],
        folder: Path,
        environment: dict[str, Any],
        arrays: dict[str, Arrays],
        progress: Progress,
        say: Callable[[str], None],
        log: scalars.Log,
    ):
        self.config, self.folder = config, folder
        self.environment, self.arrays = environment, arrays
        self.show, self.say, self.log = progress, say, log
        self.saver = checkpoints.Checkpoints(folder, config.checkpoint, say)
        self.lengths = {name: program.num_levels for name, program in programs.items()}
        self.shared = any(program.mesh is not None for program in programs.values())
        self.record: Record | None = None

    def progress(self, method: str, runs: int, generations: int, compiling: bool) -> None:
        self.show(method, runs, generations, compiling)

    def begin(self, method: str) -> tuple[int, dict[str, float]]:
        new = {**new_times(), "finished_repeats": 0}
        if method in self.arrays:
            return self.config.repeats, new
        place = self.folder / "checkpoints" / "repeats" / method
        record = Record(method, self.config.methods[method].save_populations, place)
        times = self.environment["methods"].setdefault(method, new)
        self.record = on_first(record.load, self.say)
        return len(self.record), times

    def restore(self, method: str, first: int) -> checkpoints.Progress | None:
        saved = self.saver.restore(method, first)
        if saved is not None and self.shared and saved.size > 1:
            self.say(
                f"{self.folder}: {saved.size} repeats of {method} were in progress side by side, "
                "which --distributed does one after the other: they start again"
            )
            return None
        return saved

    def chunk(self, call: Call, kept: Arrays) -> Arrays:
        if is_first():
            self.log(call.method, call.first, call.generation, kept)
        message = no_weight(self.config.methods[call.method], kept["fitness"])
        if message is not None:
            raise Stopped(message)
        return kept

    def finish(self, call: Call, runs: Arrays, populations: Arrays) -> None:
        assert self.record is not None
        self.record.add(runs, populations)

    def checkpoint(self, call: Call, generations: int) -> None:
        if on_first(self.saver.due, generations):
            length = self.lengths[call.method]
            progress = progress_of(call) if call.generation < length else None
            if is_first():
                earlier = itertools.takewhile(lambda name: name != call.method, self.lengths)
                before = self.config.repeats * sum(self.lengths[name] for name in earlier)
                step = before + call.first * length + call.size * call.generation
                self.saver.save(step, self.save, progress)

    def end(self, method: str) -> None:
        """Write the method's arrays and rows, if it has just been run."""
        record, self.record = self.record, None  # written twice, its rows would be there twice
        if record is None:
            return
        on_first(self._write, record)
        messages = record.advice()
        if messages and is_first():
            count = f"in {len(messages)} of {len(record)} repeats"
            self.say(f"{method}: {count} {messages[0]}")
        self.arrays[method] = record.stacked()

    def interrupt(self) -> None:
        """Save and write what is finished of the method in progress."""
        if self.record is not None and is_first():  # the others need not have come so far
            self.save()
            self.record.write(self.folder)

    def save(self) -> None:
        """Save the repeats that are finished."""
        assert self.record is not None
        self.record.save()
        self._count(self.record)

    def _write(self, record: Record) -> None:
        record.write(self.folder)
        self._count(record)
        assert record.folder is not None
        shutil.rmtree(record.folder, ignore_errors=True)

    def _count(self, record: Record) -> None:
        self.environment["methods"][record.name]["finished_repeats"] = len(record)
        results.write_environment(self.folder, self.environment)
