"""Use everything that the extras bring, shortly: `python .ci/smoke.py` in an installed package.

For versions other than those that the tests run with: the lowest that pyproject.toml allows
(`make lowest`), and the newest (`.ci/release`).
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jax

import diffevo_jax as de

ROOT = Path(__file__).resolve().parent.parent


def readme() -> None:
    """Run the README's Python."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    namespace: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(compile(block, "README.md", "exec"), namespace)


def strategies() -> None:
    """Step every strategy of evosax twice."""
    from evosax.algorithms import algorithms

    sizes = {"population_size": 16, "num_genes": 8, "num_generations": 3}
    population = jax.random.normal(jax.random.key(0), (16, 8))
    options = {"SV_CMA_ES": {"num_populations": 4}, "SV_Open_ES": {"num_populations": 4}}
    for name in algorithms:
        algorithm = de.evosax.strategy(name, **sizes, options=options.get(name))
        evolved = de.evolve(jax.random.key(1), algorithm, lambda x: -(x**2).sum(1), population)
        assert jax.numpy.isfinite(evolved.best.fitness), name


def commands() -> None:
    """Run, plot and animate a run; run a sweep."""
    with tempfile.TemporaryDirectory() as folder:
        run = ["run", "himmelblau", "--repeats", "1", "--out", f"{folder}/run"]
        sweep = ["sweep", "sweep_cartpole", "--repeats", "1", "--executor", "debug"]
        for command in (
            [*run, "--log", "tensorboard"],
            ["plot", f"{folder}/run"],
            ["animate", f"{folder}/run"],
            [*sweep, "--out", f"{folder}/sweep"],
            ["info"],
        ):
            print("==", *command, flush=True)
            subprocess.run([sys.executable, "-m", "diffevo_jax", *command], check=True)


if __name__ == "__main__":
    for check in (readme, strategies, commands):
        print(f"== {check.__doc__}", flush=True)
        check()
