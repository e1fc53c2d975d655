"""Run a config: every method over every repeat, several repeats a compiled program."""

import itertools
import math
import shutil
import time
from collections.abc import Callable
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
from diffevo_jax.runs.results.record import BEST, Repeats, Summary, summary
from diffevo_jax.runs.run import checkpoints
from diffevo_jax.runs.run.processes import is_first, on_first, on_host
from diffevo_jax.runs.run.program import Carry, Program, needs_positive
from diffevo_jax.runs.run.program import build as build

# Between two compiled chunks the host draws the progress bar and saves; at this length that costs
# nothing.
GENERATIONS_PER_CHUNK = 50
# N^2 D of a chunk, at most: some seconds, so that a large run, too, can save in time.
WORK_PER_CHUNK = 1e10
WORK_PER_CHUNK_ACCELERATED = 1e13
# Repeats that a device runs in one call; what Ctrl-C loses at most.
REPEATS_PER_CALL = 4


class Stopped(RuntimeError):
    """The run can't go on; what is finished has been saved. The message is for the user."""


class _Run(NamedTuple):
    """What the methods of a run share.

    record: environment.json, as it will be written. generations_before: of all repeats of the
    methods before each.
    """

    config: cfg.RunConfig
    folder: Path
    record: dict[str, Any]
    saver: checkpoints.Checkpoints
    progress: Callable[[str, int, int, bool], None]
    say: Callable[[str], None]
    generations_before: dict[str, int]
    log: scalars.Log


class _Call(NamedTuple):
    """Repeats that advance together: number `first` and so on, of which `asked` are wanted.

    generation: how many are done. carry: (carry, keys) of the program, a leading axis of repeats.
    kept: of the generations done, pieces of `[asked, k, ...]`.
    """

    first: int
    asked: int
    generation: int
    carry: tuple[Carry, jax.Array]
    kept: list[dict[str, np.ndarray]]


def run(
    config: cfg.RunConfig,
    programs: dict[str, Program],
    folder: Path,
    *,
    source: str = "a RunConfig",
    sources: dict[str, str] | None = None,
    progress: Callable[[str, int, int, bool], None] = lambda *_: None,
    say: Callable[[str], None] = print,
    log: scalars.Log = scalars.nowhere,
) -> list[Summary]:
    """Run every method and fill the run folder; where it holds this run already, go on with it.

    programs: of `build`. folder: of `results.create`. source: what the config was made from.
    sources: of `plugins.load`.
    progress: called as (method, finished repeats, finished generations beyond them, compiling).
    say: called with a line on what can't be saved or read, needs no run, or did not select.
    log: of `scalars`, called by the first process with what is kept as generations end.

    Returns a summary per method. On Ctrl-C, and on `Stopped`, the finished repeats are saved and
    environment.json says "interrupted" or "stopped"; the exception goes on to the caller.
    Raises ConfigError when another process uses the folder, or it holds a run of another config.
    """
    with ExitStack() as held:
        lock = folders.lock(folder / "checkpoints" / "lock", folder, say)
        on_first(held.enter_context, lock)
        record = on_first(checkpoints.begin, folder, config, source, sources or {}, say)
        kept = on_first(checkpoints.finished, folder, config, say)
        if record["status"] != "complete" or len(kept) < len(programs):
            saver = checkpoints.Checkpoints(folder, config.checkpoint, say)
            lengths = [config.repeats * program.num_levels for program in programs.values()]
            before = dict(zip(programs, itertools.accumulate(lengths, initial=0), strict=False))
            shared = _Run(config, folder, record, saver, progress, say, before, log)
            _run_methods(shared, programs, kept)
        elif is_first():
            say("This run is complete already: nothing is run again.")
        on_first(shutil.rmtree, folder / "checkpoints")
    return [
        summary(config.methods[name], program.num_genes, kept[name])
        for name, program in programs.items()
    ]


def _run_methods(run: _Run, programs: dict[str, Program], kept: dict[str, Any]) -> None:
    """Run the methods of which nothing is kept yet; record how that ends."""
    try:
        for name, program in programs.items():
            if name not in kept:
                kept[name] = _run_method(run, name, program)
            run.progress(name, run.config.repeats, 0, False)
        run.record["status"] = "complete"
    except KeyboardInterrupt:
        run.record["status"] = "interrupted"
        raise
    except Exception as error:
        run.record["status"] = f"stopped: {error}"
        raise
    finally:
        if is_first():
            run.saver.close()
            results.write_environment(run.folder, run.record)


def _run_method(run: _Run, name: str, program: Program) -> dict[str, np.ndarray]:
    """Run the repeats that are not finished; save all, however it ends. Returns what is kept."""
    place = run.folder / "checkpoints" / "repeats" / name
    limit = run.config.methods[name].save_populations
    repeats = on_first(Repeats(name, limit, place).load, run.say)
    names = ("trace_seconds", "compile_seconds", "run_seconds", "finished_repeats")
    times = run.record["methods"].setdefault(name, dict.fromkeys(names, 0))

    def save() -> None:
        repeats.save()
        times["finished_repeats"] = len(repeats)
        results.write_environment(run.folder, run.record)

    def write() -> None:
        times["finished_repeats"] = len(repeats)
        repeats.write(run.folder)
        results.write_environment(run.folder, run.record)
        shutil.rmtree(place, ignore_errors=True)

    try:
        _run_repeats(run, program, repeats, times, save)
    except BaseException:
        if is_first():  # the others need not have come so far
            save()
            repeats.write(run.folder)
        raise
    on_first(write)
    advice = repeats.advice()
    if advice is not None and is_first():
        run.say(advice)
    return repeats.stacked()


def _run_repeats(run: _Run, program: Program, repeats: Repeats, times: dict, save: Callable):
    """Run the repeats, a call after the other, each for as many as `_per_call` says."""
    config, name = run.config, repeats.name
    method = config.methods[name]
    num_levels = program.num_levels
    # A population that is split over a mesh has all devices for itself.
    devices = jax.local_devices()[: config.repeats] if program.mesh is None else [None]
    per_call = _per_call(config.repeats, len(devices)) if program.mesh is None else 1
    start, advance, reevaluate = _compile(name, program, devices, times)
    stops = _stops(num_levels, config.checkpoint.every, _longest(method.population_size, program))
    before = run.generations_before[name]
    first = len(repeats)
    run.progress(name, first, 0, True)
    saved = on_first(run.saver.restore, name, first)
    while first < config.repeats:
        if saved is None:
            # Padding to a whole call, discarded below.
            carry = start(de.batch.seed_keys(config.seed, per_call, first=first))
            call = _Call(first, min(per_call, config.repeats - first), 0, carry, [])
        else:
            call, saved = _restored(saved, start, config.seed, len(devices)), None
        run.progress(name, first, call.asked * call.generation, False)
        for stop in stops:
            if stop <= call.generation:
                continue
            done = stop - call.generation
            call = _advanced(call, advance, stop)
            if is_first():
                run.log(name, first, stop - done, call.kept[-1])
            check_fitness(method, call.kept[-1]["fitness"])
            run.progress(name, first, call.asked * stop, False)
            if stop == num_levels:
                again = {} if reevaluate is None else _again(call, reevaluate, config.seed)
                _take_in(repeats, call, program.ending, again)
            if on_first(run.saver.due, done):
                progress = _progress(name, call) if stop < num_levels else None
                if is_first():
                    step = before + first * num_levels + call.asked * stop
                    run.saver.save(step, save, progress)
        first += call.asked


def _compile(
    name: str, program: Program, devices: list, times: dict
) -> tuple["_Timed", "_Timed", "_Timed | None"]:
    """`start`, `advance` and `reevaluate` of many repeats, shared out among the devices."""

    def many(function: Callable, **kwargs) -> _Timed:
        if program.mesh is None:
            mapped = de.batch.over_devices(de.batch.by_platform(function), devices)
        else:
            mapped = _alone(function)
        mapped.__name__ = f"{function.__name__}_repeats"  # as profiles and the cache show it
        return _Timed(name, jax.jit(mapped, **kwargs), times)

    reevaluate = None if program.reevaluate is None else many(program.reevaluate)
    return many(program.start), many(program.advance, donate_argnums=0), reevaluate


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


def _advanced(call: _Call, advance: Callable, stop: int) -> _Call:
    """Run the call up to a generation."""
    carry, keys = call.carry
    carry, kept = advance(carry, keys[:, call.generation : stop])
    kept = {key: on_host(value)[: call.asked] for key, value in kept.items()}
    return call._replace(generation=stop, carry=(carry, keys), kept=[*call.kept, kept])


def _kept(call: _Call) -> dict[str, np.ndarray]:
    return {key: np.concatenate([kept[key] for kept in call.kept], 1) for key in call.kept[0]}


def _again(call: _Call, reevaluate: Callable, seed: int) -> dict[str, np.ndarray]:
    """How the best individuals of a call that has ended do in fresh episodes, `[asked, E]`."""
    carry, keys = call.carry
    outcomes = reevaluate(de.batch.seed_keys(seed, len(keys), first=call.first), carry)
    return {key: on_host(value)[: call.asked] for key, value in outcomes.items()}


def _take_in(repeats: Repeats, call: _Call, ending: Callable, again: dict[str, np.ndarray]) -> None:
    """Add the repeats of a call that has ended, but for those that only filled it up."""
    wanted, left = repeats.num_wanted(call.asked), ending(call.carry[0])
    best = {key: on_host(left.pop(key)[: call.asked]) for key in BEST if key in left}
    endings = {key: on_host(value[:wanted]) for key, value in left.items()} if wanted else {}
    repeats.add(_kept(call) | best | again, endings)


def _progress(name: str, call: _Call) -> checkpoints.Progress:
    """What a checkpoint holds of a call: copies, since the next chunk writes over the state."""
    leaves = [
        on_host(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        for leaf in jax.tree.leaves(call.carry)
    ]
    return checkpoints.Progress(name, call.first, call.asked, call.generation, leaves, _kept(call))


def _restored(saved: checkpoints.Progress, start: Callable, seed: int, num_devices: int) -> _Call:
    """The call of a checkpoint; filled up anew where the devices do not divide its repeats."""
    rows = math.ceil(len(saved.carry[0]) / num_devices) * num_devices
    like, tree = jax.tree.flatten(start(de.batch.seed_keys(seed, rows, first=saved.first)))
    carry = [
        _placed(np.resize(array, (rows, *array.shape[1:])), leaf)  # the first rows again
        for leaf, array in zip(like, saved.carry, strict=True)
    ]
    return _Call(saved.first, saved.asked, saved.generation, tree.unflatten(carry), [saved.kept])


def _placed(array: np.ndarray, like: jax.Array) -> jax.Array:
    """An array on the devices, and in the processes, of another; its key where that is one."""
    sharding = (jax.random.key_data(like) if _is_key(like) else like).sharding
    placed = jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
    return jax.random.wrap_key_data(placed) if _is_key(like) else placed


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _per_call(repeats: int, num_devices: int) -> int:
    """Repeats a call: a multiple of the devices, such that the last call is filled up least."""
    each = math.ceil(repeats / num_devices)
    sizes = range(1, min(REPEATS_PER_CALL, each) + 1)
    return num_devices * min(sizes, key=lambda size: (-each % size, -size))


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


def check_fitness(method: cfg.Method, fitness: np.ndarray) -> None:
    """Raise Stopped for a fitness that the method's map can't weigh."""
    negative = fitness[np.isfinite(fitness) & (fitness < 0)]
    where = needs_positive(method)
    if where is not None and len(negative):
        raise Stopped(
            f"{method.label}: the fitness went down to {negative.min():g}, and {where} needs "
            "fitness of 0 or more. Use boltzmann, which takes any sign: "
            f"--set {where}.name=boltzmann"
        )
