"""Brax's tasks: `presets.control` with normalised observations beside tuned peers.

    python experiments/benchmarks/worlds.py                # what is missing
    python experiments/benchmarks/worlds.py --only hopper   # a task anew

The champion over 100 fresh episodes: mean return ± standard error over runs. Peers have the
preset's problem, population, generations and choice of a champion, and the settings of
`evosax.TUNED` for control. Needs `pip install "diffevo-jax[brax]"`. Into results/worlds-cpu.json.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from diffevo_jax.runs.run import startup

if __name__ == "__main__":
    startup.use_all_cores()

import jax
import jax.numpy as jnp
import numpy as np
from control_preset import Make, peers

import diffevo_jax as de

SEED, RUNS = 31, 10
BACKEND = "spring"
# Task, episodes, steps of an episode: what two cores bear.
CASES = (("inverted_pendulum", 1280, 1000), ("hopper", 2560, 300), ("halfcheetah", 2560, 300))
METHODS = ("preset", "Open_ES", "PGPE", "Sep_CMA_ES", "pepg")
HIDDEN, RETRIALS = (64, 64), 100
RESULTS = Path(__file__).parent / "results" / "worlds-cpu.json"


def make_run(task: de.tasks.Task, episodes: int, make: Make | None):
    """Make (key) -> the champion's mean return over fresh episodes.

    make: makes another algorithm, of the sizes of the preset's.
    """

    def run(key: jax.Array) -> jax.Array:
        key_preset, key_run, key_choose, key_new = jax.random.split(key, 4)
        control = de.presets.control(key_preset, task, episodes=episodes, hidden=HIDDEN)
        algorithm = control.algorithm
        if make is not None:
            size, num_genes = control.population.shape
            sizes = {"population_size": size, "num_genes": num_genes}
            algorithm = make(num_generations=algorithm.num_generations, **sizes)
        evolved = de.evolve(key_run, algorithm, control.problem, control.population)
        champion = control.champion(key_choose, evolved)
        again = de.reevaluate(
            key_new, control.problem, champion.genome, memory=evolved.memory, num_episodes=RETRIALS
        )
        return jnp.mean(again)

    return run


def measure(name: str, episodes: int, steps: int, make: Make | None) -> dict[str, Any]:
    """Mean and standard error over runs of what a champion earns."""
    environment = de.environments.brax(name, backend=BACKEND)
    task = de.tasks.make_task(environment, max_steps=steps, observations="normalised")
    run, begun = jax.jit(make_run(task, episodes, make)), time.perf_counter()
    returns = np.array([float(run(key)) for key in de.batch.seed_keys(SEED, RUNS)])
    return {
        "return": round(float(returns.mean()), 1),
        "error": round(float(returns.std(ddof=1) / len(returns) ** 0.5), 1),
        "worst": round(float(returns.min()), 1),
        "runs": len(returns),
        "seconds": round(time.perf_counter() - begun),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="tasks whose name begins so, anew")
    only = parser.parse_args().only
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    methods: dict[str, Make | None] = {"preset": None, **peers()}
    for name, episodes, steps in CASES:
        for method in METHODS:
            row = f"{name}, {episodes:,} episodes of {steps:,}, {method}"
            if name.startswith(only) if only else row not in results:
                results[row] = measure(name, episodes, steps, methods[method])
                print(row, results[row], flush=True)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
