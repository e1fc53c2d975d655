"""What a journal adds to `minimize`: 100,000 evaluations of a function that costs nothing.

    python experiments/benchmarks/journal.py      # writes results/journal-cpu.json

With a journal and without, in turn, of 2, 5 and 12 parameters: medians and minima over the rounds
of CPU time and of wall time, in seconds, and the medians of each round's ratios. The journal is in
the folder for temporary files.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import device, print_row

import diffevo_jax as de

PARAMETERS, EVALUATIONS = (2, 5, 12), 100_000


def cost(x: np.ndarray) -> float:
    """Squared length of one point."""
    return float(x @ x)


def timed(parameters: int, journal: Path | None) -> tuple[float, float]:
    """Search once: seconds of CPU time, and of wall time."""
    cpu, wall = time.process_time(), time.perf_counter()
    bounds = [(-5.0, 5.0)] * parameters
    de.minimize(cost, bounds, evaluations=EVALUATIONS, journal=journal)
    return time.process_time() - cpu, time.perf_counter() - wall


def compared(parameters: int, rounds: int) -> list[dict]:
    """Time searches in turn: rows of CPU and of wall time."""
    timed(parameters, None)  # compiles
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.jsonl" for i in range(rounds)]
        pairs = [(timed(parameters, None), timed(parameters, file)) for file in files]
    seconds = np.array(pairs)  # [rounds, without and with, CPU and wall]
    return [
        {
            "parameters": parameters,
            "time": name,
            "without": float(np.median(without)),
            "with": float(np.median(with_one)),
            "ratio": float(np.median(with_one / without)),
            "ratio of minima": float(with_one.min() / without.min()),
        }
        for name, (without, with_one) in zip(
            ("CPU", "wall"), seconds.transpose(2, 1, 0), strict=True
        )
    ]


def main() -> None:
    """Time them, print the rows and write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    rows = [row for parameters in PARAMETERS for row in compared(parameters, rounds)]
    for row in rows:
        print_row(row)
    path = Path(__file__).parent / "results" / "journal-cpu.json"
    path.write_text(json.dumps(device() | {"rounds": rounds, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
