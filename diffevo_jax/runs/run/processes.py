"""Many processes that run one program: who writes, and what the others hear of it.

JAX's own transport carries all of it: `jax.distributed` for finding each other and noticing who has
gone, collectives of the devices (gloo on CPUs) for arrays.
"""

import os
import pickle
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

P = ParamSpec("P")
T = TypeVar("T")

# A process is given up after so many seconds without a sign of life: the others end.
HEARTBEAT_SECONDS = 30


def connect(
    distributed: bool, coordinator: str | None, processes: int | None, process: int | None
) -> None:
    """Join the other processes of a distributed run, before JAX has looked for devices.

    coordinator: HOST:PORT of process 0. processes: how many. process: which one this is, from 0.
    None of them: what SLURM, Open MPI, a TPU pod or JAX_COORDINATOR_ADDRESS say.
    Raises ConfigError when they are incomplete, or there is no cluster.
    """
    from diffevo_jax.runs.config.schema import ConfigError

    flags = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    stated = ", ".join(flag for flag, value in flags.items() if value is not None)
    missing = ", ".join(flag for flag, value in flags.items() if value is None)
    if not distributed:
        if stated:
            raise ConfigError(f"{stated}: expected together with --distributed")
        return
    if stated and missing:
        raise ConfigError(
            f"--distributed: expected all of {', '.join(flags)} or none of them; missing {missing}"
        )
    if processes is not None and processes < 1:
        raise ConfigError(f"--processes: expected 1 or more; seen {processes}")
    if processes is not None and process is not None and not 0 <= process < processes:
        raise ConfigError(
            f"--process: expected 0 to {processes - 1}, of --processes {processes}; seen {process}"
        )
    if coordinator is not None and not re.fullmatch(r".+:\d+", coordinator):
        raise ConfigError(f"--coordinator: expected HOST:PORT; seen {coordinator}")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except ValueError as error:
        raise ConfigError(
            f"--distributed: no cluster found ({error}); outside SLURM, Open MPI and TPU pods give "
            "--coordinator HOST:PORT --processes N --process I to each process"
        ) from None


@contextmanager
def ending_together() -> Iterator[None]:
    """Of many processes, end one that fails at once: the others then notice, and end, too.

    The usual way out waits for the others, which wait for this one.
    """
    try:
        yield
    except BaseException as error:
        code = getattr(error, "exit_code", 1)  # of typer.Exit, whose message has been shown
        if code == 0 or jax.process_count() == 1:
            raise
        if isinstance(error, jax.errors.JaxRuntimeError):
            line = str(error).splitlines()[0]
            print(
                f"error: another process has ended, or can't be reached: {line}\n"
                "Start all of them again with --resume.",
                file=sys.stderr,
            )
        elif code == 1:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def is_first() -> bool:
    """Whether this is the process that writes files and talks to the user."""
    return jax.process_index() == 0


def on_first(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in process 0 alone, and return its result, or raise its error, in each."""
    if jax.process_count() == 1:
        return function(*args, **kwargs)
    outcome: Any = (None, None)
    if is_first():
        try:
            outcome = (function(*args, **kwargs), None)
        except Exception as error:
            outcome = (None, error)
    result, error = _broadcast(outcome)
    if error is not None:
        raise error
    return result


def on_host(array: jax.Array) -> np.ndarray:
    """Copy an array, wherever its parts lie, into the memory of each process."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.array(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def mesh() -> Mesh:
    """All devices of all processes in a row."""
    return Mesh(np.array(jax.devices()), ("individuals",))


def _broadcast(value: T) -> T:
    """Give each process the value that process 0 has."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    data = pickle.dumps(value) if is_first() else b""
    size = int(broadcast_one_to_all(np.uint32(len(data))))
    room = 1 << max(10, size.bit_length())  # few sizes, since each is compiled
    padded = np.frombuffer(data.ljust(room, b"\0"), np.uint8)
    return pickle.loads(broadcast_one_to_all(padded).tobytes())
