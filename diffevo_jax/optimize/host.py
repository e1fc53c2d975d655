"""Python functions in worker processes, and fitness that is not JAX.

For an ask-evaluate-tell loop, where fitness is data:

    with host.pool(evaluate) as fitness_of:          # evaluate: NumPy genome [D] -> a number
        state = evolution.init(key_init, population)
        for key in jax.random.split(key_run, evolution.num_generations):
            result = fitness_of(state.population)
            state, info = step(key, state, result.fitness)

`experiments/host_fitness.py` runs it on a Gymnasium environment. `executor` is what `pool` stands
on, for points of any kind, one at a time.
"""

import atexit
import math
import multiprocessing
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, NamedTuple

import cloudpickle
import numpy as np

from diffevo_jax.checks import InputError, check_count, check_number


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


class WorkerDied(RuntimeError):
    """The worker process that evaluated a point ended: killed, crashed, or by os._exit."""


@contextmanager
def pool(
    evaluate: Callable[[np.ndarray], float],
    *,
    num_workers: int | None = None,
    timeout: float | None = None,
    stop_on_error: bool = False,
) -> Iterator[Callable[[Any], Evaluation]]:
    """Start worker processes and yield the function population `[N, D]` -> Evaluation.

    evaluate: genome `[D]` as NumPy -> fitness, higher is better. See `executor` for what it may be,
        and for num_workers and timeout: an individual that takes longer, or whose worker dies, is
        among the failures.
    stop_on_error: raise HostError at the first failure instead of giving it NaN. The traceback is
        the worker's.

    Raises as `executor` does.
    """
    packed(evaluate)  # an error names evaluate itself
    fitness = partial(_fitness, evaluate)
    with executor(fitness, num_workers=num_workers, timeout=timeout) as submit:

        def fitness_of(population: Any) -> Evaluation:
            genomes = np.asarray(population)
            if genomes.ndim != 2:
                raise InputError("population", "shape [N, D]", genomes.shape)
            fitness = np.full(len(genomes), np.nan)
            failures = []
            futures = [submit(genome) for genome in genomes]
            try:
                for individual, future in enumerate(futures):
                    error = future.exception()
                    if error is None:
                        fitness[individual] = future.result()
                        continue
                    notes = getattr(error, "__notes__", [""])
                    failure = Failure(individual, error, notes[-1])
                    if stop_on_error:
                        raise HostError(failure) from error
                    failures.append(failure)
            finally:
                for future in futures:
                    future.cancel()
            return Evaluation(fitness, tuple(failures))

        yield fitness_of


@contextmanager
def executor(
    evaluate: Callable[[Any], Any],
    *,
    num_workers: int | None = None,
    timeout: float | None = None,
) -> Iterator[Callable[[Any], Future]]:
    """Start worker processes and yield submit: x -> the Future of evaluate(x).

    evaluate: any function of one argument. It runs in fresh processes (spawned, because a fork of
        a process that runs JAX may hang), so the own code of a script belongs under
        `if __name__ == "__main__":`. A notebook's functions, and lambdas, are sent whole
        (cloudpickle); what is imported is imported there again. NumPy's and Python's global random
        states are other ones in each process; a generator that evaluate holds is the same in each.
    num_workers: processes; None takes one for each core.
    timeout: seconds for an evaluation, not counting the start of a process; None is no limit.

    A future raises what evaluate raised, with the worker's traceback as its last note; RuntimeError
    for sys.exit; TimeoutError; WorkerDied. Each is the failure of that point alone: a process that
    died, or was killed since its time was over, is replaced. At the end of the context processes
    are killed, with those that they have started, and what is unfinished raises CancelledError.

    Raises InputError on num_workers below 1, a timeout that is not positive, and a function that
    cannot be sent; what its loading raised; RuntimeError where the workers do not start.
    """
    workers = os.cpu_count() or 1
    if num_workers is not None:
        workers = check_count("num_workers", num_workers)
    if timeout is not None:
        check_number("timeout", timeout, 0, math.inf, closed="()")
    staff = _Staff(packed(evaluate), timeout, SimpleQueue(), SimpleQueue(), set(), Event(), Lock())
    threads = [Thread(target=_serve, args=(staff,), daemon=True) for _ in range(workers)]

    def submit(x: Any) -> Future:
        if staff.closed.is_set():
            raise RuntimeError("the worker processes have ended with their context")
        future = Future()
        staff.tasks.put((future, cloudpickle.dumps(x)))
        return future

    def end() -> None:
        if staff.closed.is_set():
            return
        atexit.unregister(end)
        with staff.lock:
            staff.closed.set()
            for process in staff.processes:
                _kill(process)
        running = [thread for thread in threads if thread.is_alive()]
        for _ in running:
            staff.tasks.put(None)
        for thread in running:
            thread.join()

    atexit.register(end)  # of a script that never leaves the context
    try:
        threads[0].start()  # alone until it is known that they start
        error = staff.ready.get()
        if isinstance(error, WorkerDied):
            raise RuntimeError(
                "the worker processes do not start; their output is on stderr. Each imports the "
                "script that makes the pool, whose own code belongs under "
                '`if __name__ == "__main__":`'
            ) from error
        if error is not None:
            raise error
        for thread in threads[1:]:
            thread.start()
        yield submit
    finally:
        end()


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


# In this process: a thread for each worker process, which waits for its answers.

_SPAWN = multiprocessing.get_context("spawn")

# Seconds after which a thread that waits for an answer looks whether its process is alive.
_LOOK = 1.0

# What evaluate returned, or why it did not.
_Outcome = tuple[Any, Exception | None]


class _Staff(NamedTuple):
    """What the threads of an executor share."""

    function: bytes
    timeout: float | None
    tasks: SimpleQueue[tuple[Future, bytes] | None]  # x, packed; None ends a thread
    ready: SimpleQueue[Exception | None]  # how the first start went, of each thread
    processes: set[SpawnProcess]  # those that run
    closed: Event  # nothing starts any more
    lock: Lock  # of processes and closed


class _Worker(NamedTuple):
    process: SpawnProcess
    connection: Connection


def _serve(staff: _Staff) -> None:
    """Keep one worker process alive and give it tasks, one at a time."""
    if hasattr(signal, "pthread_sigmask"):  # the process inherits it: no Ctrl-C while it imports
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    worker, error = _start(staff)
    staff.ready.put(error)
    while (task := staff.tasks.get()) is not None:
        future, x = task
        if not future.set_running_or_notify_cancel():
            continue
        if not _is_alive(worker):  # it died while it had nothing to do
            worker, error = _start(staff)
        value, error = _ask(staff, worker, x, staff.timeout) if worker else (None, error)
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(CancelledError() if staff.closed.is_set() else error)
        if not _is_alive(worker):  # now, since imports take seconds
            worker, error = _start(staff)
    if worker:
        _end(staff, worker)


def _is_alive(worker: _Worker | None) -> bool:
    return worker is not None and worker.process.is_alive()


def _start(staff: _Staff) -> tuple[_Worker | None, Exception | None]:
    """Start a process and load the function there; or return why that failed."""
    try:
        here, there = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_work, args=(there,))
        with staff.lock:
            if staff.closed.is_set():
                return None, CancelledError()
            process.start()
            staff.processes.add(process)
    except Exception as error:
        return None, error
    there.close()
    worker = _Worker(process, here)
    _, error = _ask(staff, worker, staff.function, None)
    if error is None:
        return worker, None
    _end(staff, worker)
    return None, error


def _ask(staff: _Staff, worker: _Worker, message: bytes, timeout: float | None) -> _Outcome:
    """Send a message and wait for the answer; end the process where none comes in time."""
    process, connection = worker
    end = math.inf if timeout is None else time.monotonic() + timeout
    try:
        connection.send_bytes(message)
        while not connection.poll(max(0, min(end - time.monotonic(), _LOOK))):
            if time.monotonic() >= end:
                _end(staff, worker)
                return None, TimeoutError(f"the evaluation took longer than {timeout:g} s")
            # A process that the dead one started may hold the connection open.
            if not process.is_alive() and not connection.poll():
                raise EOFError
        answer = connection.recv_bytes()
    except (EOFError, OSError):
        process.join(_LOOK)
        _end(staff, worker)
        code = process.exitcode
        text = f" ({signal.strsignal(-code)})" if code is not None and code < 0 else ""
        return None, WorkerDied(f"the worker process died with exit code {code}{text}")
    try:
        return cloudpickle.loads(answer)
    except Exception as error:
        return None, error


def _end(staff: _Staff, worker: _Worker) -> None:
    _kill(worker.process)
    worker.process.join()
    worker.connection.close()
    with staff.lock:
        staff.processes.discard(worker.process)


def _kill(process: SpawnProcess) -> None:
    """Kill a process, with those that it has started."""
    if process.is_alive():
        if hasattr(os, "killpg") and process.pid is not None:
            with suppress(OSError):  # it leads no group yet
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()


# In a worker process.


def _work(connection: Connection) -> None:
    """Load the function, which comes first, and answer each x with its outcome."""
    # Not SIG_IGN, which the processes that an evaluation starts would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # to be killed with the processes that it starts
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # the parent has gone
        function = connection.recv_bytes()
        try:
            evaluate = cloudpickle.loads(function)
        except BaseException as error:
            connection.send_bytes(_failed(error))
            return
        connection.send_bytes(cloudpickle.dumps((None, None)))
        random.seed()  # anew, because the script that was imported may have seeded them
        np.random.seed()
        while True:
            connection.send_bytes(_answer(evaluate, connection.recv_bytes()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _answer(evaluate: Callable[[Any], Any], x: bytes) -> bytes:
    try:
        return cloudpickle.dumps((evaluate(cloudpickle.loads(x)), None))
    except BaseException as error:
        return _failed(error)


def _failed(error: BaseException) -> bytes:
    """Pack an exception, with its traceback as a note.

    It is a RuntimeError with the same text where the exception itself cannot be sent, or would end
    more than the evaluation, as SystemExit does.
    """
    text = traceback.format_exc()
    if isinstance(error, Exception):
        with suppress(Exception):
            sent = cloudpickle.loads(cloudpickle.dumps(error))
            sent.add_note(text)
            return cloudpickle.dumps((None, sent))
    sent = RuntimeError("".join(traceback.format_exception_only(error)).strip())
    sent.add_note(text)
    return cloudpickle.dumps((None, sent))


def _fitness(evaluate: Callable[[np.ndarray], float], genome: np.ndarray) -> float:
    return float(evaluate(genome))
