"""How well `presets.control` does on control tasks for a budget of episodes, beside tuned peers.

    python experiments/benchmarks/control_preset.py                  # what is missing
    python experiments/benchmarks/control_preset.py --only Pendulum  # cases whose name begins so

The champion over 100 fresh episodes: mean return and share of success ± standard error over runs,
and the worst run. Peers have the preset's problem, population, generations and choice of a
champion, the settings of `evosax.TUNED` (docs/howto/peers.md), and the two shared starts that these
were chosen with: with one most of them do worse.

Into results/control_preset.json.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffevo_jax.runs.run import startup

if __name__ == "__main__":
    startup.use_all_cores()

import jax
import jax.numpy as jnp
import numpy as np

import diffevo_jax as de

# A return from which on an episode succeeds, where a task has one.
SUCCESS = {
    "CartPole-v1": 500.0,
    "Acrobot-v1": -499.0,
    "MountainCar-v0": -199.0,
    "MountainCarContinuous-v0": 0.0,
    "Pendulum-v1": None,
}
SEED, RUNS = 8, 100
PEERS = ("CMA_ES", "SNES", "Sep_CMA_ES", "Open_ES", "PGPE")
# Task, hidden layers, episodes, runs, whether beside peers.
CASES: list[tuple[str, tuple[int, ...], int, int, bool]] = [
    *((task, (8,), 2560, RUNS, task == "Pendulum-v1") for task in SUCCESS),
    ("Pendulum-v1", (8,), 25_600, RUNS, True),
    ("Pendulum-v1", (64, 64), 2560, 20, False),
    ("Pendulum-v1", (64, 64), 25_600, 20, False),
]
RESULTS = Path(__file__).parent / "results" / "control_preset.json"
Make = Callable[..., de.Algorithm]


def peers() -> dict[str, Make]:
    """Tuned settings of others, of the sizes of a run."""
    made: dict[str, Make] = {
        name: lambda name=name, **sizes: de.evosax.strategy(name, tuned="control", **sizes)
        for name in PEERS
    }
    made["pepg"] = lambda **sizes: de.baselines.pepg(sigma_decay=0.1, **sizes)
    return made


def run(
    task: str | de.tasks.Task, key: jax.Array, make: Make | None = None, **settings: Any
) -> dict[str, jax.Array]:
    """Evolve once, and evaluate the champion over fresh episodes.

    make: makes another algorithm, of the sizes of the preset's.
    """
    key_preset, key_run, key_choose, key_new = jax.random.split(key, 4)
    if make is not None:
        settings = {"shared_starts": 2, **settings}
    control = de.presets.control(key_preset, task, **settings)
    algorithm, population = control.algorithm, control.population
    if make is not None:
        population = population[: len(population) // 2 * 2]  # OpenES and PGPE take pairs
        size, num_genes = population.shape
        sizes = {"population_size": size, "num_genes": num_genes}
        algorithm = make(num_generations=algorithm.num_generations, **sizes)
    evolved = de.evolve(key_run, algorithm, control.problem, population)
    champion = control.champion(key_choose, evolved)
    again = de.reevaluate(key_new, control.problem, champion.genome, memory=evolved.memory)
    found = {"return": jnp.mean(again)}
    least = SUCCESS.get(task) if isinstance(task, str) else None
    if least is not None:
        found["success"] = 100 * jnp.mean(again >= least)
    return found


def measure(runs: int, task: str, seed: int = SEED, **settings: Any) -> dict[str, Any]:
    """Mean and standard error over runs of what `run` finds, and the worst run's return."""
    run_all = jax.jit(
        lambda keys: de.batch.run_many(
            lambda key, _: run(task, key, **settings), keys, jnp.zeros(1), devices=jax.devices()
        )
    )
    found = jax.tree.map(np.ravel, run_all(de.batch.seed_keys(seed, runs)))
    table: dict[str, Any] = {
        name: {
            "mean": round(float(values.mean()), 3),
            "error": round(float(values.std(ddof=1) / runs**0.5), 3),
        }
        for name, values in found.items()
    }
    return {**table, "worst": round(float(found["return"].min()), 1), "runs": runs}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="cases whose name begins so, anew")
    only = parser.parse_args().only
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    methods: dict[str, Make | None] = {"preset": None, **peers()}
    for method, make in methods.items():  # the preset's cases first
        for task, hidden, episodes, runs, beside in CASES:
            name = f"{task}, {' x '.join(map(str, hidden))} hidden, {episodes:,} episodes, {method}"
            chosen = name.startswith(only) if only else name not in results
            if chosen and (beside or make is None):
                settings = {"hidden": hidden, "episodes": episodes, "make": make}
                results[name] = measure(runs, task, **settings)
                print(name, results[name], flush=True)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
