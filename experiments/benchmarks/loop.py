"""A whole run of ten generations on cart-pole: one program, against evosax's ask-eval-tell loop.

    python experiments/benchmarks/loop.py --output results.json

Interleaved in one run, ratios of medians. evosax is compared where it is installed, each of its
three calls jitted, with its own DiffusionEvolution and Gymnax problem as they come. A second table
runs several seeds as one program, one by one and together.
"""

import argparse
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rollouts import KEY, NETWORKS, evosax_problem
from timing import compiled, device, interleaved, print_row

import diffevo_jax as de

GENERATIONS = 10
POPULATION = 512


def our_run(hidden: tuple[int, ...]) -> tuple[Callable[[jax.Array], jax.Array], int]:
    """A run as a function of its key, key -> mean fitness of each generation, and its genes."""
    task = de.tasks.make_task("CartPole-v1")
    policy = de.policies.mlp((4, *hidden, 2))
    returns = de.tasks.make_returns(task, policy)
    evolution = de.presets.paper(
        de.schedules.cosine(GENERATIONS), fitness_map=de.fitness.boltzmann(10.0)
    )

    def run(key: jax.Array) -> jax.Array:
        key_init, key_run = jax.random.split(key)
        population = jax.random.normal(key_init, (POPULATION, policy.num_genes))
        return de.evolve(
            key_run,
            evolution,
            lambda key, population: returns(key, population).mean(axis=1),
            population,
            has_key=True,
            keep=lambda info: info.fitness.mean(),
        ).kept

    return run, policy.num_genes


def evosax_run(hidden: tuple[int, ...]) -> Callable[[], jax.Array]:
    """evosax's loop over as many evaluated generations; returns the last mean fitness."""
    from evosax.algorithms import DiffusionEvolution

    policy = de.policies.mlp((4, *hidden, 2))
    solution = policy.unflatten(jnp.zeros(policy.num_genes))
    algorithm = DiffusionEvolution(POPULATION, solution, num_generations=GENERATIONS)
    params = algorithm.default_params
    evaluate = evosax_problem(hidden)
    ask, tell = jax.jit(algorithm.ask), jax.jit(algorithm.tell)
    draw = jax.jit(
        lambda key: jax.vmap(policy.unflatten)(
            jax.random.normal(key, (POPULATION, policy.num_genes))
        )
    )

    def run() -> jax.Array:
        key_init, key_start, key_run = jax.random.split(KEY, 3)
        population = draw(key_init)
        fitness = evaluate(population)
        state = algorithm.init(key_start, population, -fitness, params)
        for key in jax.random.split(key_run, GENERATIONS - 1):
            key_ask, key_tell = jax.random.split(key)
            population, state = ask(key_ask, state, params)
            fitness = evaluate(population)
            state, _ = tell(key_tell, population, -fitness, state, params)
        return fitness.mean()

    return run


def compare(rounds: int, parameters: list[int]) -> list[dict[str, Any]]:
    """A row a network: seconds of a whole run, ours and evosax's."""
    rows = []
    for num_genes in parameters:
        run, _ = our_run(NETWORKS[num_genes])
        ours, compile_seconds = compiled(run, KEY)
        calls: dict[str, Callable[[], Any]] = {"ours": ours}
        if importlib.util.find_spec("evosax"):
            calls["evosax"] = evosax_run(NETWORKS[num_genes])
        seconds = interleaved(calls, rounds)
        row = {
            "genes": num_genes,
            "population": POPULATION,
            "generations": GENERATIONS,
            "compile_seconds": compile_seconds,
            "run_seconds": seconds["ours"],
            "last_mean_return": float(ours()[-1]),
        }
        if "evosax" in seconds:
            row["times_evosax"] = seconds["evosax"] / seconds["ours"]
            row["evosax_last_mean_return"] = float(calls["evosax"]())
        rows.append(row)
        print_row(row)
    return rows


def seeds(rounds: int, num_seeds: int) -> list[dict[str, Any]]:
    """Seconds a run of several seeds as one program, by the way that their axis is walked."""
    run, num_genes = our_run(NETWORKS[58])
    keys = de.batch.seed_keys(0, num_seeds)
    calls, compile_seconds = {}, {}
    for mapping in (de.batch.one_by_one, de.batch.together):
        name = mapping.__name__
        calls[name], compile_seconds[name] = compiled(
            lambda keys, mapping=mapping: de.batch.run_many(run, keys, mapping=mapping), keys
        )
    rows = []
    for name, value in interleaved(calls, rounds).items():
        rows.append(
            {
                "genes": num_genes,
                "seeds": num_seeds,
                "mapping": name,
                "compile_seconds": compile_seconds[name],
                "run_seconds_a_seed": value / num_seeds,
            }
        )
        print_row(rows[-1])
    return rows


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description="a whole run of ten generations on cart-pole")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, the small network")
    arguments = parser.parse_args()
    quick = arguments.quick
    report = {
        **device(),
        "compare": compare(3 if quick else 7, [58] if quick else list(NETWORKS)),
        "seeds": seeds(2 if quick else 5, 4 if quick else 16),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
