"""Calls with the same objects: what the first compiles, and what 199 more compile, keep and take.

    python experiments/benchmarks/calls.py      # writes results/calls-cpu.json

Outside jit: `evolve` of 20 levels at N = 128, D = 4, `optimize.search` of 200 and `minimize` of 300
evaluations of a JAX function in 3-D. Every call has a key or seed of its own. Programs compiled,
MB of resident memory, which the process keeps beyond the first call, and milliseconds of a later
call, the median.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from timing import device, print_row

import diffevo_jax as de

CALLS, BOUNDS, MB = 200, [(-1.0, 1.0)] * 3, 2**20
EVOLUTION = de.presets.paper(de.schedules.cosine(20))
POPULATION = jax.random.normal(jax.random.key(0), (128, 4))
compilations: list[str] = []


def count(event: str, duration_secs: float, **kwargs: str | int) -> None:
    """Take note of a program that XLA has compiled."""
    if "backend_compile" in event:
        compilations.append(event)


def resident() -> float:
    """Memory of this process in MB (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / MB


def sphere(x: jax.Array) -> jax.Array:
    """Cost of one point."""
    return ((x - 0.3) ** 2).sum()


def evolve(i: int) -> Any:
    """Evolve on a function of the library."""
    return de.evolve(jax.random.key(i), EVOLUTION, de.landscapes.rastrigin, POPULATION)


def search(i: int) -> Any:
    """Search under jit, called from outside."""
    return de.optimize.search(jax.random.key(i), sphere, BOUNDS, evaluations=200)


def minimize(i: int) -> Any:
    """Minimise from the host."""
    return de.minimize(sphere, BOUNDS, evaluations=300, seed=i)


def measure(call: Callable[[int], Any]) -> dict[str, float]:
    """Call it again and again."""

    def timed(i: int) -> float:
        begun = time.perf_counter()
        jax.block_until_ready(jax.tree.leaves(call(i)))
        return time.perf_counter() - begun

    begun = len(compilations)
    timed(0)
    first, memory = len(compilations) - begun, resident()
    seconds = [timed(i) for i in range(1, CALLS)]
    return {
        "compiled by the first": first,
        "by 199 others": len(compilations) - begun - first,
        "MB kept by them": round(resident() - memory, 1),
        "ms a call": round(1e3 * statistics.median(seconds), 1),
    }


if __name__ == "__main__":
    jax.monitoring.register_event_duration_secs_listener(count)
    rows = []
    for name, call in {"evolve": evolve, "optimize.search": search, "minimize": minimize}.items():
        rows.append({"call": name, **measure(call)})
        print_row(rows[-1])
    path = Path(__file__).parent / "results" / "calls-cpu.json"
    path.write_text(json.dumps(device() | {"rows": rows}, indent=2) + "\n")
