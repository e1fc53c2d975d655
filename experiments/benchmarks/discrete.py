"""Bits: Diffusion Evolution beside UMDA, PBIL, cGA, a genetic algorithm and a (1+1)-EA.

    python experiments/benchmarks/discrete.py            # adds to results/discrete-cpu.json

The best fitness that 10^4 and 10^5 evaluations find, mean and standard error over 20 seeds, each
with an instance and a start of its own, the same for all methods. Settings by the evaluations
alone, chosen on other seeds: 16 and 32 individuals for Diffusion Evolution and the genetic
algorithm's 32 and 128; UMDA's 64 and 256, of which half are taken; PBIL's 64 and 256, of which the
best moves the frequencies by 0.1; cGA's virtual population of 64 and 256. The genetic algorithm
takes parents by tournaments of two, has uniform crossover, mutates with 1 / D and keeps the best of
both generations. Frequencies stay within [1 / D, 1 - 1 / D]. The (1+1)-EA mutates with 1 / D.
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
from diffevo_jax.landscapes import discrete as landscapes

Landscape = Callable[[jax.Array], jax.Array]
Run = Callable[[jax.Array], jax.Array]

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


def diffusion(fitness_fn: Landscape, num_genes: int, evaluations: int, size: int) -> Run:
    """Diffusion Evolution with its default settings."""
    algorithm = de.discrete_evolution(evaluations // size)

    def run(key: jax.Array) -> jax.Array:
        key_first, key_run = jax.random.split(key)
        population = first(key_first, size, num_genes)
        return de.evolve(key_run, algorithm, fitness_fn, population, keep=lambda _: ()).best.fitness

    return run


def one_plus_one(fitness_fn: Landscape, num_genes: int, evaluations: int, size: int) -> Run:
    """(1+1)-EA: mutate with 1 / D, and keep what is as good."""

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        x, fitness = carry
        child = jnp.where(jax.random.bernoulli(key, 1 / num_genes, x.shape), 1 - x, x)
        value = fitness_fn(child)
        better = value >= fitness
        return (jnp.where(better, child, x), jnp.where(better, value, fitness)), None

    def run(key: jax.Array) -> jax.Array:
        key_first, key_run = jax.random.split(key)
        x = first(key_first, 1, num_genes)
        carry = x, fitness_fn(x)
        return jax.lax.scan(step, carry, jax.random.split(key_run, evaluations - 1))[0][1][0]

    return run


def genetic(fitness_fn: Landscape, num_genes: int, evaluations: int, size: int) -> Run:
    """A genetic algorithm with uniform crossover, see above."""

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        x, fitness = carry
        key_pair, key_cross, key_mutate = jax.random.split(key, 3)
        pair = jax.random.randint(key_pair, (2, 2, size), 0, size)
        one, other = jnp.where(fitness[pair[0]] >= fitness[pair[1]], pair[0], pair[1])
        child = jnp.where(jax.random.bernoulli(key_cross, 0.5, x.shape), x[one], x[other])
        mutated = jax.random.bernoulli(key_mutate, 1 / num_genes, x.shape)
        child = jnp.where(mutated, 1 - child, child)
        both = jnp.concatenate([fitness, fitness_fn(child)])
        best, kept = jax.lax.top_k(both, size)
        return (jnp.concatenate([x, child])[kept], best), None

    def run(key: jax.Array) -> jax.Array:
        key_first, key_run = jax.random.split(key)
        x = first(key_first, size, num_genes)
        keys = jax.random.split(key_run, evaluations // size - 1)
        return jnp.max(jax.lax.scan(step, (x, fitness_fn(x)), keys)[0][1])

    return run


def by_frequencies(
    learn: Callable, draws: int, fitness_fn: Landscape, num_genes: int, evaluations: int, size: int
) -> Run:
    """Draw each site by its frequency, and learn that: (frequency, x, fitness, size) -> frequency.

    draws: individuals of a generation, or 0 for the size.
    """
    count = draws or size

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        frequency, best = carry
        x = jax.random.bernoulli(key, frequency, (count, num_genes)).astype(float)
        fitness = fitness_fn(x)
        frequency = learn(frequency, x, fitness, size)
        frequency = jnp.clip(frequency, 1 / num_genes, 1 - 1 / num_genes)
        return (frequency, jnp.maximum(best, jnp.max(fitness))), None

    def run(key: jax.Array) -> jax.Array:
        carry = jnp.full(num_genes, 0.5), jnp.asarray(-jnp.inf)
        return jax.lax.scan(step, carry, jax.random.split(key, evaluations // count))[0][1]

    return run


def umda(frequency: jax.Array, x: jax.Array, fitness: jax.Array, size: int) -> jax.Array:
    """Frequencies of the better half."""
    return jnp.mean(x[jax.lax.top_k(fitness, size // 2)[1]], axis=0)


def pbil(frequency: jax.Array, x: jax.Array, fitness: jax.Array, size: int) -> jax.Array:
    """A tenth of the way to the best."""
    return 0.9 * frequency + 0.1 * x[jnp.argmax(fitness)]


def cga(frequency: jax.Array, x: jax.Array, fitness: jax.Array, size: int) -> jax.Array:
    """By 1 / size towards the better one of two."""
    winner = jnp.argmax(fitness)
    return frequency + (x[winner] - x[1 - winner]) / size


# Each with its sizes at 10^4 and 10^5 evaluations.
METHODS: dict[str, tuple[Callable[..., Run], tuple[int, int]]] = {
    "Diffusion Evolution": (diffusion, (16, 32)),
    "genetic algorithm": (genetic, (32, 128)),
    "(1+1)-EA": (one_plus_one, (1, 1)),
    "UMDA": (partial(by_frequencies, umda, 0), (64, 256)),
    "PBIL": (partial(by_frequencies, pbil, 0), (64, 256)),
    "cGA": (partial(by_frequencies, cga, 2), (64, 256)),
}
EVALUATIONS = (10**4, 10**5)


def measure(function: str, evaluations: int, name: str, seeds: int) -> dict[str, Any]:
    """Run a method on a function, once a seed."""
    num_genes, draw = FUNCTIONS[function]
    method, sizes = METHODS[name]
    size = sizes[EVALUATIONS.index(evaluations)]

    def run(key: jax.Array) -> jax.Array:
        key_instance, key_run = jax.random.split(key)
        return method(draw(key_instance), num_genes, evaluations, size)(key_run)

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
