"""What the benchmarks share: interleaved timings, and what they were measured on."""

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def compiled(function: Callable, *args) -> tuple[Callable[[], Any], float]:
    """Compile a call; return it and the seconds that tracing and compiling took."""
    begin = time.perf_counter()
    program = jax.jit(function).lower(*args).compile()
    return lambda: program(*args), time.perf_counter() - begin


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, timed in turn after calls that do not count.

    Short calls are made several times in a row, so that a turn takes some 20 ms: a call's first
    microseconds after another's depend on what that one left in the caches.
    """
    times: dict[str, int] = {}
    for name, call in calls.items():
        seconds = 0.0
        for _ in range(2):
            begin = time.perf_counter()
            jax.block_until_ready(call())
            seconds = time.perf_counter() - begin
        times[name] = max(1, min(1000, round(0.02 / seconds)))
    seconds_of: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(times[name]):
                jax.block_until_ready(call())
            seconds_of[name].append((time.perf_counter() - begin) / times[name])
    return {name: statistics.median(values) for name, values in seconds_of.items()}


def device() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "host": f"{platform.system()} {platform.machine()}",
        "jax": jax.__version__,
    }


def print_row(row: dict[str, Any]) -> None:
    """Print a row on one line."""
    cells = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
    print(", ".join(cells), flush=True)
