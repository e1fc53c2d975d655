"""Whether it helps `presets.control` to normalise observations: raw, scaled, normalised.

    python experiments/benchmarks/observations.py

The last generation's best individual over 100 fresh episodes, return and share of success: mean ±
standard error over runs of the same seeds, into results/observations.json.
"""

import json
from pathlib import Path
from typing import get_args

import jax
import numpy as np
from control_preset import SUCCESS, run

import diffevo_jax as de
from diffevo_jax.tasks.task import Observations

SEED, RUNS = 9, 100


def measure(task: str, observations: str) -> dict[str, dict[str, float]]:
    """Mean and standard error of what `control_preset.run` finds."""

    def runs(keys: jax.Array) -> dict[str, jax.Array]:
        return jax.lax.map(lambda key: run(task, key, observations=observations), keys)

    found = jax.tree.map(np.asarray, jax.jit(runs)(de.batch.seed_keys(SEED, RUNS)))
    return {
        name: {
            "mean": round(float(each.mean()), 3),
            "error": round(float(each.std(ddof=1) / RUNS**0.5), 3),
        }
        for name, each in found.items()
    }


if __name__ == "__main__":
    table = {}
    for task in SUCCESS:
        table[task] = {each: measure(task, each) for each in get_args(Observations)}
        print(task, json.dumps(table[task], indent=1), flush=True)
    path = Path(__file__).parent / "results" / "observations.json"
    path.write_text(json.dumps(table, indent=1) + "\n")
