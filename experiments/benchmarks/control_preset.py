"""How well `presets.control` does on the five control tasks, at 2,560 episodes a run.

    python experiments/benchmarks/control_preset.py

The last generation's mean return and share of success, and the same of its best individual over
100 fresh episodes: mean ± standard error over runs, into results/control_preset.json.
"""

import json
from pathlib import Path
from typing import Any

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
SEED, RUNS = 8, 200


def run(task: str, key: jax.Array, **settings: Any) -> dict[str, jax.Array]:
    """Evolve once, and re-evaluate the best individual of the last generation."""
    key_preset, key_run, key_new = jax.random.split(key, 3)
    control = de.presets.control(key_preset, task, **settings)
    state, (fitness, returns), champion = de.evolve(
        *(key_run, control.algorithm, control.problem, control.population),
        keep=lambda info, aux: (info.fitness, aux["returns"]),
    )
    best = state.population[fitness[-1].argmax()]
    again = de.reevaluate(
        jax.random.fold_in(key_new, 1), control.problem, best, memory=champion.memory
    )
    found = {"return": returns[-1], "best again, return": again}
    if SUCCESS[task] is not None:
        found["success"] = 100 * (returns[-1] >= SUCCESS[task])
        found["best again, success"] = 100 * (again >= SUCCESS[task])
    return {name: jnp.mean(value) for name, value in found.items()}


if __name__ == "__main__":
    table = {}
    for task in SUCCESS:
        runs = jax.jit(lambda keys, task=task: jax.lax.map(lambda key: run(task, key), keys))
        table[task] = {
            name: [round(float(values.mean()), 3), round(float(values.std(ddof=1) / RUNS**0.5), 3)]
            for name, values in jax.tree.map(
                np.asarray, runs(de.batch.seed_keys(SEED, RUNS))
            ).items()
        }
        print(task, table[task], flush=True)
    path = Path(__file__).parent / "results" / "control_preset.json"
    path.write_text(json.dumps(table, indent=1) + "\n")
