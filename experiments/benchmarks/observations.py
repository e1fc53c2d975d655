"""Whether it helps `presets.control` to normalise observations: raw, scaled, normalised.

    python experiments/benchmarks/observations.py

The champion over 100 fresh episodes, return and share of success: mean ± standard error over runs
of the same seeds, into results/observations.json.
"""

import json
from pathlib import Path
from typing import get_args

from control_preset import SUCCESS, measure

from diffevo_jax.tasks.task import Observations

SEED, RUNS = 9, 100

if __name__ == "__main__":
    table = {}
    for task in SUCCESS:
        table[task] = {
            each: measure(RUNS, task, SEED, observations=each) for each in get_args(Observations)
        }
        print(task, json.dumps(table[task], indent=1), flush=True)
    path = Path(__file__).parent / "results" / "observations.json"
    path.write_text(json.dumps(table, indent=1) + "\n")
