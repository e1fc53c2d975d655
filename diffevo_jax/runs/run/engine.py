"""Run points of one shape: one compiled program a method, several runs a call.

A run is a sweep of one point: `run` fills its folder; `jobs` makes rows of the points of a sweep.
"""

import itertools
import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffevo_jax as de
from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.results import champion, scalars
from diffevo_jax.runs.results import files as folders
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results import record as records
from diffevo_jax.runs.results.fields import ARRAYS, ENDING
from diffevo_jax.runs.results.files import Arrays
from diffevo_jax.runs.results.record import Record, Summary, summarise
from diffevo_jax.runs.run import checkpoints
from diffevo_jax.runs.run.checkpoints import Call
from diffevo_jax.runs.run.processes import is_first, on_first, on_host
from diffevo_jax.runs.run.program import Program, take_apart
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


class Stopped(RuntimeError):
    """The run can't go on; what is finished has been saved. The message is for the user."""


def new_times() -> dict[str, float]:
    """Seconds of a method, by what they are spent on."""
    return dict.fromkeys(("trace_seconds", "compile_seconds", "run_seconds"), 0)


class MethodRunner:
    """A method of points of one shape: its compiled functions, and how its runs are shared out.

    points: their configs; a point's repeats follow each other. times: `new_times`, to add to.
    every: generations between two checkpoints at most.
    runs_per_call: how many an accelerator does together, of a program of `with_data`, to which what
        differs between the points is data; a CPU does them one by one. None: a run's.
    """

    def __init__(
        self,
        name: str,
        program: Program,
        points: Sequence[cfg.RunConfig],
        times: dict[str, float],
        *,
        every: int | None = None,
        runs_per_call: int | None = None,
    ):
        self.name, self.program, self.points = name, program, points
        self.repeats, self.with_data = points[0].repeats, runs_per_call is not None
        self.total = len(points) * self.repeats
        self.settings = points[0].methods[name]
        split = program.mesh is not None  # a population has all devices for itself
        self.devices = [None] if split else jax.local_devices()[: self.total]
        self.per_call = 1 if split else _per_call(self.total, len(self.devices), runs_per_call)
        longest = _longest(self.settings.population_size, program)
        self.stops = _stops(program.num_levels, every, longest)

        def many(function: Callable, **options) -> _Timed:
            over_runs = _alone if split else de.batch.by_platform
            mapped = de.batch.over_devices(over_runs(function), self.devices)
            mapped.__name__ = f"{function.__name__}_repeats"  # as profiles and the cache show it
            return _Timed(name, jax.jit(mapped, **options), times)

        self.start = many(program.start)
        self.advance = many(program.advance, donate_argnums=0)
        self.reevaluate = program.reevaluate and many(program.reevaluate)

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

    def begin(self, first: int, rows: int | None = None) -> Call:
        """A call of the runs from a number on. rows: of them, and of those that fill it up."""
        keys, numbers = self.inputs(first, rows or self.per_call)
        size = min(self.per_call, self.total - first)
        return Call(self.name, first, size, 0, (*self.start(keys, *numbers), *numbers), [])

    def restored(self, saved: Call) -> Call:
        """The call of a checkpoint; filled up anew where the devices do not divide its runs."""
        num_devices = len(self.devices)
        rows = math.ceil(len(saved.carry[0]) / num_devices) * num_devices
        like, tree = jax.tree.flatten(self.begin(saved.first, rows).carry)
        checkpoints.check_fits(saved, [_plain(leaf) for leaf in like])
        carry = [
            _placed(np.resize(array, (rows, *array.shape[1:])), leaf)  # the first rows again
            for leaf, array in zip(like, saved.carry, strict=True)
        ]
        return saved._replace(carry=tree.unflatten(carry))

    def advanced(self, call: Call) -> Call:
        """Run a call for another chunk of generations."""
        stop = next(stop for stop in self.stops if stop > call.generation)
        carry, keys, *numbers = call.carry
        carry, kept = self.advance(carry, keys[:, call.generation : stop], *numbers)
        kept = {key: on_host(value)[: call.size] for key, value in kept.items()}
        return call._replace(
            generation=stop, carry=(carry, keys, *numbers), kept=[*call.kept, kept]
        )

    def ending(self, call: Call) -> tuple[Arrays, Arrays]:
        """What the runs of a call leave at its end, `[size, ...]`, without those that filled it up.

        Second, the populations of those that keep them, `[n', ...]`.
        """
        carry, keys, *numbers = call.carry
        left = self.program.ending(carry)
        runs = _joined(call.kept)
        runs |= {key: on_host(left.pop(key)[: call.size]) for key in ENDING if key in left}
        if self.reevaluate is not None:
            keys, _ = self.inputs(call.first, len(keys))
            outcomes = self.reevaluate(keys, carry, *numbers)
            runs |= {key: on_host(value)[: call.size] for key, value in outcomes.items()}
        limit = self.settings.save_populations
        repeats = np.arange(call.first, call.first + call.size) % self.repeats
        kept = np.flatnonzero(repeats < (self.repeats if limit is None else limit))
        count = kept[-1] + 1 if len(kept) else 0  # of a run, whose first repeats are kept, exact
        return runs, {key: on_host(v[:count])[kept] for key, v in left.items()} if count else {}


def to_save(call: Call) -> Call:
    """What a checkpoint holds of a call: copies, since the next chunk writes over the state."""
    leaves = [on_host(_plain(leaf)) for leaf in jax.tree.leaves(call.carry)]
    return call._replace(carry=leaves, kept=[_joined(call.kept)], version=de.__version__)


def _joined(pieces: Sequence[Arrays]) -> Arrays:
    return {key: np.concatenate([kept[key] for kept in pieces], 1) for key in pieces[0]}


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
    """Generations at which chunks end, by config and platform: others may round otherwise."""
    ends = [*range(0, num_levels, every or num_levels), num_levels]
    chunks = [
        np.array_split(np.arange(begin, end), math.ceil((end - begin) / longest))
        for begin, end in itertools.pairwise(ends)
    ]
    return [int(chunk[-1]) + 1 for block in chunks for chunk in block]


def _per_call(total: int, num_devices: int, runs_per_call: int | None = None) -> int:
    """Runs a call, a multiple of the devices; see `MethodRunner`."""
    each = math.ceil(total / num_devices)
    on_cpu = jax.default_backend() == "cpu"
    most = REPEATS_PER_CALL if runs_per_call is None or on_cpu else runs_per_call
    sizes = range(1, min(most, each) + 1)
    if runs_per_call is None:  # the last call is filled up least
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
    for kind, path, section in registry.sections("algorithm", method.algorithm, "algorithm"):
        weighs = kind != "fitness_map" or not registry.entry(kind, section).needs_positive
        if len(negative) and not weighs:
            return (
                f"{method.label}: the fitness went down to {negative.min():g}, and {path} needs "
                "fitness of 0 or more. Use boltzmann, which takes any sign: "
                f"--set {path}.name=boltzmann"
            )
    return None


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
    log: scalars.Log | None = None,
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
            _Run(config, programs, folder, environment, arrays, progress, say, log).evolve()
        elif is_first():
            say("This run is complete already: nothing is run again.")
        on_first(champion.write, folder, config, arrays)
        on_first(shutil.rmtree, folder / "checkpoints")
    return [summarise(name, config, arrays[name]) for name in programs]


@dataclass
class _Run:
    """A run on its way into its folder.

    environment: environment.json, as it will be written. arrays: of the methods that have ended.
    name, record: the method in progress, and its finished repeats.
    """

    config: cfg.RunConfig
    programs: dict[str, Program]
    folder: Path
    environment: dict[str, Any]
    arrays: dict[str, Arrays]
    progress: Progress
    say: Callable[[str], None]
    log: scalars.Log | None
    name: str = ""
    record: Record | None = None

    def evolve(self) -> None:
        """Run the methods of which no array is there yet; record how that ends."""
        self.saver = checkpoints.Checkpoints(self.folder, self.config.checkpoint, self.say)
        try:
            for name in self.programs:
                self.name = name
                if name not in self.arrays:
                    self.evolve_method()
                self.progress(name, self.config.repeats, 0, False)
            self.environment["status"] = "complete"
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            self.environment["status"] = "interrupted" if interrupted else f"stopped: {error}"
            if self.record is not None and is_first():  # the others need not have come so far
                self.save(self.record)
                if len(self.record):
                    results.write_method(self.folder, self.name, *self.record.stacked())
            raise
        finally:
            if is_first():
                self.saver.close()
                results.write_environment(self.folder, self.environment)

    def evolve_method(self) -> None:
        """Run the method in progress; write its arrays and rows."""
        name, config, program = self.name, self.config, self.programs[self.name]
        new = {**new_times(), "finished_repeats": 0}
        times = self.environment["methods"].setdefault(name, new)
        place = self.folder / "checkpoints" / "repeats" / name
        self.record = record = on_first(Record.load, place, self.say)
        if len(record) < config.repeats:
            method = MethodRunner(name, program, [config], times, every=config.checkpoint.every)
            self.progress(name, len(record), 0, True)
            saved = on_first(self.restore, len(record))
            call = None if saved is None else method.restored(saved)
            while len(record) < config.repeats:
                call = call or method.begin(len(record))
                self.progress(name, call.first, call.size * call.generation, False)
                while call.generation < program.num_levels:
                    before, call = call.generation, method.advanced(call)
                    if self.log is not None and is_first():
                        self.log(name, call.first, before, call.kept[-1])
                    message = no_weight(config.methods[name], call.kept[-1]["fitness"])
                    if message is not None:
                        raise Stopped(message)
                    self.progress(name, call.first, call.size * call.generation, False)
                    if call.generation == program.num_levels:
                        record.add(*method.ending(call))
                    self.checkpoint(call, call.generation - before)
                call = None
        self.record = None  # written twice, its rows would be there twice
        on_first(self.write, record)
        repeats, _ = record.stacked()
        messages = records.advice(repeats)
        if messages and is_first():
            self.say(f"{name}: in {len(messages)} of {len(record)} repeats {messages[0]}")
        self.arrays[name] = {key: value for key, value in repeats.items() if key in ARRAYS}

    def restore(self, first: int) -> Call | None:
        """The checkpoint of the runs from a number on, if any."""
        saved = self.saver.restore(self.name, first)
        if saved is None or saved.size == 1 or self.programs[self.name].mesh is None:
            return saved
        self.say(
            f"{self.folder}: {saved.size} repeats of {self.name} were in progress side by side, "
            "which --distributed does one after the other: they start again"
        )
        return None

    def checkpoint(self, call: Call, generations: int) -> None:
        """Save what is due, after each chunk of so many generations."""
        if not on_first(self.saver.due, generations):
            return
        length = self.programs[call.method].num_levels
        saved = to_save(call) if call.generation < length else None
        if is_first():
            earlier = itertools.takewhile(lambda name: name != call.method, self.programs)
            before = self.config.repeats * sum(self.programs[name].num_levels for name in earlier)
            step = before + call.first * length + call.size * call.generation
            assert self.record is not None
            self.saver.save(step, partial(self.save, self.record), saved)

    def save(self, record: Record) -> None:
        """Save the repeats that are finished."""
        record.save()
        self.count(record)

    def write(self, record: Record) -> None:
        """Write the arrays and rows of a method that has ended."""
        results.write_method(self.folder, self.name, *record.stacked())
        self.count(record)
        shutil.rmtree(record.folder, ignore_errors=True)

    def count(self, record: Record) -> None:
        """Write down how many repeats are finished."""
        self.environment["methods"][self.name]["finished_repeats"] = len(record)
        results.write_environment(self.folder, self.environment)
