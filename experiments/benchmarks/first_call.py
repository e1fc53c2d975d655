"""What `minimize` adds to the time of a function: first calls in new processes, and later ones.

    python experiments/benchmarks/first_call.py      # writes results/first_call-cpu.json

2,000 evaluations in 12-D: seconds of the first call on a JAX function, import of jax aside; and for
a function in NumPy that takes 10 ms, the whole call over the function's own time.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from timing import device

RUNS, EVALUATIONS, BOUNDS = 5, 2000, [(-5.0, 5.0)] * 12


def jax_calls() -> dict[str, float]:
    """Time the first two calls of a process, on a JAX function."""
    import jax.numpy as jnp

    import diffevo_jax as de

    def call(seed: int) -> float:
        begun = time.perf_counter()
        de.minimize(lambda x: jnp.sum((x - 0.3) ** 2), BOUNDS, evaluations=EVALUATIONS, seed=seed)
        return time.perf_counter() - begun

    return {"jax, first": call(0), "jax, again": call(1)}


def numpy_calls() -> dict[str, float]:
    """Time the same on a function in NumPy, over its own time."""
    import diffevo_jax as de

    def call(seed: int) -> float:
        own = 0.0

        def slow(x: np.ndarray) -> float:
            nonlocal own
            begun = time.perf_counter()
            time.sleep(0.01)
            own += time.perf_counter() - begun
            return float(np.sum(x**2))

        begun = time.perf_counter()
        de.minimize(slow, BOUNDS, evaluations=EVALUATIONS, seed=seed, jit=False)
        return (time.perf_counter() - begun) / own

    return {"10 ms in NumPy, first": call(0), "10 ms in NumPy, again": call(1)}


if __name__ == "__main__":
    parts = {"jax": jax_calls, "numpy": numpy_calls}
    if len(sys.argv) > 1:
        print(json.dumps(parts[sys.argv[1]]()))
    else:
        found: dict[str, list[float]] = {}
        for _ in range(RUNS):
            for part in parts:
                ran = subprocess.run(
                    [sys.executable, __file__, part], capture_output=True, text=True, check=True
                )
                for name, value in json.loads(ran.stdout.splitlines()[-1]).items():
                    found.setdefault(name, []).append(value)
        rows = {name: round(float(np.median(values)), 3) for name, values in found.items()}
        print(rows)
        path = Path(__file__).parent / "results" / "first_call-cpu.json"
        path.write_text(json.dumps(device() | {"runs": RUNS, **rows}, indent=2) + "\n")
