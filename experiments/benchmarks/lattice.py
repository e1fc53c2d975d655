"""A lattice's sums against all pairs: by level of a real run, by the number of individuals, error.

    python experiments/benchmarks/lattice.py          # results/lattice-cpu.json; half an hour
    python experiments/benchmarks/lattice.py --draw   # docs/scaling.png from it

Levels: 25 of `presets.paper` (cosine schedule, remembered noise) and of `diffusion_evolution`'s own
settings in the plane, on Rastrigin's function, the time of a whole step with "auto" and with
"tiled" in turn. Of more than 65,536 individuals all pairs are timed for 8,192 queries, and
multiplied: their time does not depend on the level. Error: the largest of 128 individuals against
float64, over the spread. Sizes: one cloud, 1 - alpha = .5, beside the dense formula and evosax's
estimate, both of which hold N x N numbers. The run: `evolve` of a million, in one call.
"""

import argparse
import json
import math
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from estimator import KEY, MOST_DENSE, Case, evosax, inputs, ours
from matplotlib import rc_context
from matplotlib.figure import Figure
from timing import compiled, device, interleaved, print_row

import diffevo_jax as de
from diffevo_jax.denoising import STANDARDISED
from diffevo_jax.diffusion import default_temperature, final_noise
from diffevo_jax.drawings.style import ORDER, STYLE

RESULTS = Path(__file__).parent / "results" / "lattice-cpu.json"
PICTURE = Path(__file__).parents[2] / "docs" / "scaling.png"
LEVELS, SHARE = 25, 8192
SIZES = (1024, 4096, 16_384, 65_536, 100_000, 300_000, 1_000_000)
MOST_TILED, ROUNDS = 65_536, 3
RUNS = [("paper", MOST_TILED, ROUNDS), ("own", MOST_TILED, ROUNDS), ("paper", SIZES[-1], 1)]
WAYS = {"auto": "lattice", "tiled": "all pairs", "dense": "dense", "evosax": "evosax"}


def algorithm(settings: str, n: int, implementation: str) -> de.Algorithm:
    """The paper's settings, or the library's own in the plane, by an implementation."""
    kernel = de.kernels.gaussian(implementation=implementation)
    if settings == "paper":
        return de.denoising_evolution(
            de.schedules.cosine(LEVELS),
            denoiser=de.denoisers.posterior_mean(kernel),
            sampler=de.samplers.ddim(1.0),
        )
    return de.denoising_evolution(
        de.schedules.geometric(LEVELS, end=final_noise(n, LEVELS, 2)),
        fitness_map=de.fitness.standardised(default_temperature(2)),
        denoiser=de.denoisers.niching(kernel),
        sampler=de.samplers.ddim(freshness=1.0),
    )


def levels(settings: str, n: int, rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each level of a run: seconds of a step both ways, and the estimate's error."""
    ways = {name: algorithm(settings, n, name) for name in ("auto", "tiled")}
    steps = {name: jax.jit(way.step) for name, way in ways.items()}
    if n > MOST_TILED:
        del steps["tiled"]
    state = ways["auto"].init(KEY, jax.random.normal(KEY, (n, 2)))
    for level in range(LEVELS):
        key, fitness = jax.random.fold_in(KEY, level), de.landscapes.rastrigin(state.population)
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        after, info = state, None
        for turn in range(rounds + (level == 0)):
            for name, step in reversed(steps.items()):  # what "auto" gives is what goes on
                if name == "tiled" and (level % 6 or turn > (level == 0)):
                    continue  # it is the same at all levels
                begin = time.perf_counter()
                after, info = jax.block_until_ready(step(key, state, fitness))
                if turn or level:  # the first compiles
                    seconds[name].append(time.perf_counter() - begin)
        row = {"settings": settings, "n": n, "level": level}
        row |= {name: statistics.median(times) for name, times in seconds.items() if times}
        if settings == "paper" and info is not None:
            row["one_minus_alpha"] = float(de.schedules.cosine(LEVELS).one_minus_alpha[-1 - level])
            row["error"] = error(state.population, fitness, row["one_minus_alpha"], info.x0)
        print_row(row)
        yield row
        state = after


def error(x: jax.Array, fitness: jax.Array, one_minus_alpha: float, x0: jax.Array) -> float:
    """The largest of 128 individuals' from float64, over the spread."""
    log_weight = np.asarray(STANDARDISED(fitness, jnp.ones(len(x), bool)), float)
    places, most = np.asarray(x, float), 0.0
    for i in np.linspace(0, len(x) - 1, 128).astype(int):
        squares = np.sum((places[i] - math.sqrt(1 - one_minus_alpha) * places) ** 2, axis=1)
        w = log_weight - squares / (2 * one_minus_alpha)
        w = np.exp(w - w.max())
        most = max(most, float(np.abs(w @ places / w.sum() - np.asarray(x0[i], float)).max()))
    return most / float(places.std())


def all_pairs(n: int) -> float:
    """Seconds of a million's estimate over all pairs, from those of a share of its queries."""
    x, _, log_weight = inputs(Case(n, 2, 2))

    def share(x, log_weight):
        return de.estimate_posterior(
            x[:SHARE], log_weight, 0.5, support=x, implementation="tiled"
        ).x0

    return interleaved({"share": compiled(share, x, log_weight)[0]}, 3)["share"] * n / SHARE


def sizes(rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each number of individuals: seconds of an estimate, by each way."""
    for dim, counts in ((2, SIZES), (3, SIZES[-1:])):
        for n in counts:
            arguments = inputs(Case(n, dim, dim))
            functions = {"auto": ours("auto", 0.5)}
            if n <= MOST_TILED:
                functions["tiled"] = ours("tiled", 0.5)
            if n <= MOST_DENSE:
                functions |= {"dense": ours("dense", 0.5), "evosax": evosax(0.5)}
            calls = {name: compiled(f, *arguments)[0] for name, f in functions.items()}
            row = {"dim": dim, "n": n, **interleaved(calls, rounds if dim == 2 else 1)}
            if n > MOST_TILED:
                row["tiled"] = all_pairs(n)
            print_row(row)
            yield row


def whole_run(n: int) -> dict[str, Any]:
    """`evolve` of a million individuals: seconds, compilation included, and memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    population = jax.random.normal(KEY, (n, 2))
    run = de.evolve(KEY, algorithm("paper", n, "auto"), de.landscapes.rastrigin, population)
    jax.block_until_ready(run.best.fitness)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = {"n": n, "seconds": time.perf_counter() - begin, "mib": (peak - before) / 1024}
    print_row(row)
    return row


def draw(report: dict[str, Any]) -> None:
    """Seconds against N, both axes logarithmic."""
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4))
        axes = figure.add_subplot()
        for (colour, marker), (name, label) in zip(ORDER, WAYS.items(), strict=False):
            rows = [row for row in report["sizes"] if name in row and row["dim"] == 2]
            n, seconds = [row["n"] for row in rows], [row[name] for row in rows]
            axes.plot(n, seconds, marker=marker, color=colour)
            axes.annotate(
                label,
                (n[-1], seconds[-1]),
                (7, 0),
                textcoords="offset points",
                color=colour,
                va="center",
            )
        axes.set(xscale="log", yscale="log", xlabel="individuals", ylabel="seconds an estimate")
        axes.margins(x=0.18)
        figure.savefig(PICTURE, dpi=150, bbox_inches="tight")


def main() -> None:
    """Measure, print, write JSON and draw."""
    parser = argparse.ArgumentParser(description="a lattice's sums against all pairs")
    parser.add_argument("--only", choices=["run", "sizes", "levels"], help="one part again")
    parser.add_argument("--draw", action="store_true", help="draw docs/scaling.png only")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], Any]] = {
        "run": lambda: whole_run(SIZES[-1]),
        "sizes": lambda: list(sizes(ROUNDS)),
        "levels": lambda: [
            row for settings, n, rounds in RUNS for row in levels(settings, n, rounds)
        ],
    }
    report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, part in {} if arguments.draw else parts.items():
        if arguments.only in (None, name):
            report |= {**device(), name: part()}
            RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    draw(report)


if __name__ == "__main__":
    main()
