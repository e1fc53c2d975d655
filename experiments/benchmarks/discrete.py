"""Bits: Diffusion Evolution beside UMDA, PBIL, cGA, a genetic algorithm and a (1+1)-EA.

    python experiments/benchmarks/discrete.py            # adds to results/discrete-cpu.json

The best fitness that 10^4 and 10^5 evaluations find, mean and standard error over 20 seeds, each
with an instance and a start of its own, the same for all methods. Settings by the evaluations
alone, chosen on other seeds: 16 and 32 individuals for Diffusion Evolution and the genetic
algorithm's 32 and 128; UMDA's 64 and 256, of which half are taken; PBIL's 64 and 256, of which the
best moves the frequencies by 0.1; cGA's virtual population of 64 and 256. What else they do is said
in `diffevo_jax.baselines.bits`.
`targets`: 64 bits, 64 individuals, 2 * 10^4 evaluations: how many of the runs find and keep all of
two or four targets, which are equally good, and how many of them on average.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import device, print_row

import diffevo_jax as de
from diffevo_jax.baselines import bits
from diffevo_jax.landscapes import discrete as landscapes

Landscape = Callable[[jax.Array], jax.Array]

# Name to genes, and key -> function.
FUNCTIONS: dict[str, tuple[int, Callable[[jax.Array], Landscape]]] = {
    "OneMax, 256": (256, lambda key: landscapes.onemax),
    "traps of 5, 60": (60, lambda key: landscapes.traps),
    "NK, 128, K = 6": (128, partial(landscapes.nk, num_genes=128, neighbours=6)),
    "MaxCut, 128": (128, partial(landscapes.max_cut, num_genes=128)),
    "MaxSat, 100": (100, partial(landscapes.max_sat, num_genes=100)),
    "LeadingOnes, 256": (256, lambda key: landscapes.leading_ones),
    "NK, 64, K = 4": (64, partial(landscapes.nk, num_genes=64, neighbours=4)),
    "NK, 256, K = 8": (256, partial(landscapes.nk, num_genes=256, neighbours=8)),
}


def first(key: jax.Array, size: int, num_genes: int) -> jax.Array:
    """Random bits, `[N, D]`."""
    return jax.random.bernoulli(key, 0.5, (size, num_genes)).astype(float)


def diffusion(*, population_size: int, num_genes: int, num_generations: int) -> de.Algorithm:
    """Diffusion Evolution with its default settings."""
    return de.discrete_evolution(num_generations)


EVALUATIONS = (10**4, 10**5)
# Each with its settings at 10^4 and 10^5 evaluations.
METHODS: dict[str, tuple[Callable[..., de.Algorithm], tuple[dict, dict]]] = {
    "Diffusion Evolution": (diffusion, ({"population_size": 16}, {"population_size": 32})),
    "genetic algorithm": (
        bits.genetic_algorithm,
        ({"population_size": 32}, {"population_size": 128}),
    ),
    "(1+1)-EA": (bits.one_plus_lambda, ({"population_size": 1}, {"population_size": 1})),
    "UMDA": (bits.umda, ({"population_size": 64}, {"population_size": 256})),
    "PBIL": (bits.pbil, ({"population_size": 64}, {"population_size": 256})),
    "cGA": (
        bits.cga,
        ({"population_size": 2, "virtual_size": 64}, {"population_size": 2, "virtual_size": 256}),
    ),
}


def measure(function: str, evaluations: int, name: str, seeds: int) -> dict[str, Any]:
    """Run a method on a function, once a seed."""
    num_genes, draw = FUNCTIONS[function]
    make_algorithm, by_evaluations = METHODS[name]
    settings = by_evaluations[EVALUATIONS.index(evaluations)]
    size = settings["population_size"]
    algorithm = make_algorithm(num_genes=num_genes, num_generations=evaluations // size, **settings)

    def run(key: jax.Array) -> jax.Array:
        key_instance, key_run = jax.random.split(key)
        key_first, key_run = jax.random.split(key_run)
        fitness_fn, population = draw(key_instance), first(key_first, size, num_genes)
        return de.evolve(key_run, algorithm, fitness_fn, population, keep=lambda _: ()).best.fitness

    best = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), seeds)))
    return {
        "function": function,
        "evaluations": evaluations,
        "method": name,
        "seeds": seeds,
        "best": float(best.mean()),
        "best_error": float(best.std(ddof=1) / seeds**0.5),
    }


def measure_targets(count: int, seeds: int) -> dict[str, Any]:
    """How many runs keep all of so many targets, with the number of exact ones they end with."""
    size, num_genes, evaluations = 64, 64, 20_000
    algorithm = de.discrete_evolution(evaluations // size)

    def run(key: jax.Array) -> jax.Array:
        key_places, key_first, key_run = jax.random.split(key, 3)
        places = first(key_places, count, num_genes)
        population = first(key_first, size, num_genes)
        evolved = de.evolve(key_run, algorithm, landscapes.targets(places), population)
        met = jnp.all(evolved.state.population[:, None] == places, axis=2)
        return jnp.sum(jnp.any(met, axis=0))

    kept = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), seeds)))
    return {
        "targets": count,
        "evaluations": evaluations,
        "seeds": seeds,
        "runs_with_all": int((kept == count).sum()),
        "kept": float(kept.mean()),
    }


def main() -> None:
    """Measure what the file does not have yet, and write after each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    path = Path(__file__).parent / "results" / f"discrete-{jax.default_backend()}.json"
    results: dict[str, Any] = {**device(), "targets": [], "rows": []}
    if path.exists():
        results |= json.loads(path.read_text())
    known = {(row["function"], row["evaluations"], row["method"]) for row in results["rows"]}

    def note(table: str, row: dict[str, Any]) -> None:
        results[table].append(row)
        print_row(row)
        path.write_text(json.dumps(results, indent=2) + "\n")

    for count in (2, 4) if not results["targets"] else ():
        note("targets", measure_targets(count, seeds))
    for evaluations in EVALUATIONS:
        for function in FUNCTIONS:
            for name in METHODS:
                if (function, evaluations, name) not in known:
                    note("rows", measure(function, evaluations, name, seeds))


if __name__ == "__main__":
    main()
