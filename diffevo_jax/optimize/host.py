"""Fitness that is not JAX: a Python function of one genome, evaluated by a pool of processes.

For an ask-evaluate-tell loop, where fitness is data:

    with host.pool(evaluate) as fitness_of:          # evaluate: NumPy genome [D] -> a number
        state = evolution.init(key_init, population)
        for key in jax.random.split(key_run, evolution.num_generations):
            result = fitness_of(state.population)
            state, info = step(key, state, result.fitness)

`experiments/host_fitness.py` runs it on a Gymnasium environment.
"""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, NamedTuple

import cloudpickle
import numpy as np

from diffevo_jax.checks import InputError


class Failure(NamedTuple):
    """An individual that could not be evaluated: its index, the exception, its traceback."""

    individual: int
    error: BaseException
    traceback: str


class Evaluation(NamedTuple):
    """Fitness `[N]`, and NaN for those in `failures`, who take no part in the estimate."""

    fitness: np.ndarray
    failures: tuple[Failure, ...]


class HostError(RuntimeError):
    """An individual could not be evaluated; `failure` says which and why."""

    def __init__(self, failure: Failure):
        super().__init__(
            f"individual {failure.individual}: {type(failure.error).__name__}: {failure.error}"
            f"\n{failure.traceback}"
        )
        self.failure = failure


@contextmanager
def pool(
    evaluate: Callable[[np.ndarray], float],
    *,
    num_workers: int | None = None,
    stop_on_error: bool = False,
    chunk: int = 1,
) -> Iterator[Callable[[Any], Evaluation]]:
    """Start worker processes and yield the function population `[N, D]` -> Evaluation.

    evaluate: genome `[D]` as NumPy -> fitness, higher is better. It runs in fresh processes
        (spawned, because a fork of a process that runs JAX may hang), so the own code of a script
        belongs under `if __name__ == "__main__":`. A notebook's functions, and lambdas, are sent
        whole (cloudpickle); what is imported is imported there again.
    num_workers: processes; None takes one for each core.
    stop_on_error: raise HostError at the first failure instead of giving it NaN. The traceback is
        the worker's.
    chunk: individuals handed to a worker at a time; more where an evaluation takes under 1 ms.

    A worker that dies takes the pool with it: HostError, naming the first unfinished individual.
    Raises InputError on num_workers or chunk below 1, and on a function that cannot be sent;
    RuntimeError where the workers do not start.
    """
    workers = num_workers if num_workers is not None else os.cpu_count() or 1
    for name, value in (("num_workers", workers), ("chunk", chunk)):
        if value < 1:
            raise InputError(name, "at least 1", value)
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, _start, (packed(evaluate),))

    def fitness_of(population: Any) -> Evaluation:
        genomes = np.asarray(population)
        if genomes.ndim != 2:
            raise InputError("population", "shape [N, D]", genomes.shape)
        fitness = np.full(len(genomes), np.nan)
        failures = []
        results = executor.map(_evaluate, genomes, chunksize=chunk)
        for individual in range(len(genomes)):
            try:
                value, failure = next(results)
            except BrokenProcessPool as error:
                raise HostError(Failure(individual, error, "a worker process died")) from error
            if failure is None:
                fitness[individual] = value
                continue
            failure = Failure(individual, *failure)
            if stop_on_error:
                raise HostError(failure) from failure.error
            failures.append(failure)
        return Evaluation(fitness, tuple(failures))

    try:
        try:
            executor.submit(_check).result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "the worker processes do not start; their output is on stderr. Each imports the "
                "script that makes the pool, whose own code belongs under "
                '`if __name__ == "__main__":`'
            ) from error
        yield fitness_of
    finally:
        executor.shutdown(cancel_futures=True)


class _Worker(NamedTuple):
    """What a worker process evaluates, or why that could not be loaded."""

    function: Callable[[np.ndarray], float] | None
    error: Exception | None


# What this process evaluates, where it is a worker: `_start` sets it, once, before the first
# evaluation. Only a variable of the module passes it from a pool's initializer to its tasks.
_worker = _Worker(None, None)


def packed(function: Callable) -> bytes:
    """Pack a function into bytes for another process; raise InputError where that fails."""
    try:
        return cloudpickle.dumps(function)
    except Exception as error:
        raise InputError(
            "evaluate",
            "a function that can be sent to other processes, without open files, locks or "
            "connections",
            f"{function!r:.80} ({type(error).__name__}: {error})",
        ) from None


def _start(function: bytes) -> None:
    """Load the function that this process, a new worker, evaluates."""
    global _worker
    try:
        _worker = _Worker(cloudpickle.loads(function), None)
    except Exception as error:
        _worker = _Worker(None, _sendable(error))


def _check() -> None:
    if _worker.error is not None:
        raise _worker.error


def _evaluate(genome: np.ndarray) -> tuple[float, tuple[Exception, str] | None]:
    """Return the fitness, or NaN with the exception and its traceback."""
    try:
        assert _worker.function is not None
        return float(_worker.function(genome)), None
    except Exception as error:
        text = traceback.format_exc()
        return float("nan"), (_sendable(error), text)


def _sendable(error: Exception) -> Exception:
    """Return the exception if it can be sent back, else a RuntimeError with its text."""
    try:
        return cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
