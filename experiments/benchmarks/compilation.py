"""Seconds to trace and compile what users call first, a process each, without a cache.

    python experiments/benchmarks/compilation.py --output results.json

Processes take turns, so that a noisy machine is as noisy for all; the median counts.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from loop import our_run
from timing import compiled, device, print_row

import diffevo_jax as de

KEY = jax.random.key(0)


def estimate() -> tuple[Callable, tuple]:
    """`estimate_x0` at N = 512, D = 2."""
    x = jax.random.normal(KEY, (512, 2))
    return lambda x, log_weight, alpha: de.estimate_x0(x, log_weight, alpha), (x, x[:, 0], 0.5)


def evolve() -> tuple[Callable, tuple]:
    """`evolve` of 100 levels at N = 512, D = 2."""
    evolution = de.presets.paper(
        de.schedules.cosine(100), fitness_map=de.fitness.boltzmann(1.0), eta=0.1
    )

    def run(key: jax.Array, population: jax.Array):
        return de.evolve(
            key,
            evolution,
            lambda x: -jnp.sum(x**2, axis=1),
            population,
            keep=lambda info: info.fitness.mean(),
        ).kept

    return run, (KEY, jax.random.normal(KEY, (512, 2)))


def cart_pole() -> tuple[Callable, tuple]:
    """Ten generations of cart-pole, 512 networks of 58 genes."""
    return our_run((8,))[0], (KEY,)


PROGRAMS = {function.__name__: function for function in (estimate, evolve, cart_pole)}


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description="seconds to trace and compile")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--rounds", type=int, default=5, help="processes for each program")
    parser.add_argument("--one", choices=PROGRAMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        function, args = PROGRAMS[arguments.one]()
        print(compiled(function, *args)[1])
        return
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(arguments.rounds):
        for name in PROGRAMS:
            command = [sys.executable, __file__, "--one", name]
            seconds[name].append(float(subprocess.check_output(command, text=True)))
    rows = [
        {
            "program": (PROGRAMS[name].__doc__ or "").rstrip("."),
            "median_seconds": statistics.median(values),
            "least_seconds": min(values),
        }
        for name, values in seconds.items()
    ]
    for row in rows:
        print_row(row)
    if arguments.output:
        report = {**device(), "compilation": rows}
        arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
