"""Brax's tasks, and others of many episodes: `presets.control` beside tuned peers.

    python experiments/benchmarks/worlds.py                     # what is missing
    python experiments/benchmarks/worlds.py --only brax/hopper  # cases whose name begins so, anew

The champion over 100 fresh episodes: mean return ± standard error over runs. Peers have the
preset's problem, population, generations and choice of a champion, and the settings of
`evosax.TUNED` for control. Observations are normalised, MinAtar's images raw. Needs
`pip install "diffevo-jax[brax]"`. Into results/worlds-cpu.json, and docs/howto/environment.md.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diffevo_jax.runs.run import startup

if __name__ == "__main__":
    startup.use_all_cores()

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from control_preset import Make, peers, run

import diffevo_jax as de

SEED = 31
RESULTS = Path(__file__).parent / "results" / "worlds-cpu.json"
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "environment.md"

METHODS = {
    "preset": "`presets.control`",
    "Open_ES": "OpenES",
    "PGPE": "PGPE",
    "SNES": "SNES",
    "Sep_CMA_ES": "separable CMA-ES",
    "pepg": "`pepg`",
}
FEW = ("preset", "Open_ES", "PGPE")


class SwingUp(de.environments.Environment):
    """A cart with a pole that hangs; reward for its height, near the middle of the track.

    Equations of Barto, Sutton and Anderson (1983), without friction, for 5 seconds.
    """

    actions = (-np.ones(1), np.ones(1))
    max_steps = 250

    def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Hang, nearly still. The state is position, speed, angle from upright and its rate."""
        state = jnp.array([0.0, 0.0, jnp.pi, 0.0]) + 0.1 * jax.random.normal(key, (4,))
        return self._seen(state), state

    def step(self, key: jax.Array, state: jax.Array, action: jax.Array):
        """Push for 20 ms, with 10 N at most."""
        x, speed, angle, rate = state
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        push = (10 * action[0] + 0.05 * rate**2 * sin) / 1.1
        turn = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
        pull = push - 0.05 * turn * cos / 1.1
        speed, rate = speed + 0.02 * pull, rate + 0.02 * turn
        state = jnp.stack([x + 0.02 * speed, speed, angle + 0.02 * rate, rate])
        height = (1 + jnp.cos(state[2])) / 2
        reward = height * jnp.exp(-(state[0] ** 2))
        return de.environments.Transition(self._seen(state), state, reward, jnp.abs(state[0]) > 2.4)

    def _seen(self, state: jax.Array) -> jax.Array:
        x, speed, angle, rate = state
        return jnp.stack([x, speed, jnp.cos(angle), jnp.sin(angle), rate])


class CNN(nn.Module):
    """A convolution and a dense layer over a game's grid."""

    num_outputs: int

    @nn.compact
    def __call__(self, grid: jax.Array) -> jax.Array:
        """Map `[10, 10, C]` to one output an action."""
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(grid))
        return nn.Dense(self.num_outputs)(x.ravel())


class Case(NamedTuple):
    """A task and a budget; the policy is a network of two layers of 64 unless it is given.

    methods: those that are run, of `METHODS`; Brax takes minutes a run.
    """

    task: Callable[[], de.tasks.Task]
    episodes: int
    runs: int
    policy: Callable[[de.tasks.Task], de.policies.Policy] | None = None
    methods: Sequence[str] = tuple(METHODS)


def brax(name: str, steps: int) -> Callable[[], de.tasks.Task]:
    """A task of Brax with the `spring` backend."""

    def make() -> de.tasks.Task:
        environment = de.environments.brax(name, backend="spring")
        return de.tasks.make_task(environment, max_steps=steps, observations="normalised")

    return make


def small(task: de.tasks.Task) -> de.policies.Policy:
    """Eight hidden units, as in the tables of the preset."""
    return de.policies.mlp((task.num_inputs, 8, task.num_outputs))


CASES = {
    "brax/inverted_pendulum, 64 x 64": Case(brax("inverted_pendulum", 1000), 1280, 10),
    "brax/hopper, 64 x 64, 200 steps": Case(brax("hopper", 200), 1280, 6, methods=FEW),
    "brax/halfcheetah, 64 x 64, 100 steps": Case(brax("halfcheetah", 100), 1280, 4, methods=FEW),
    "cart-pole swing-up, 8": Case(
        lambda: de.tasks.make_task(SwingUp(), observations="normalised"), 100_000, 10, small
    ),
    "Acrobot-v1, 8": Case(
        lambda: de.tasks.make_task("Acrobot-v1", observations="normalised"), 100_000, 6, small
    ),
    "Breakout-MinAtar, CNN": Case(
        lambda: de.tasks.make_task("Breakout-MinAtar", observations="raw"),
        *(100_000, 3),
        lambda task: de.policies.linen_policy(CNN(task.num_outputs), task.input_shape),
    ),
}


def measure(case: Case, make: Make | None) -> dict[str, Any]:
    """Mean and standard error over runs of what a champion earns."""
    task, begun = case.task(), time.perf_counter()
    chosen = {"hidden": (64, 64)} if case.policy is None else {"policy": case.policy(task)}

    @jax.jit
    def earned(key: jax.Array) -> jax.Array:
        return run(task, key, make, episodes=case.episodes, **chosen)["return"]

    returns = np.array([float(earned(key)) for key in de.batch.seed_keys(SEED, case.runs)])
    return {
        "return": round(float(returns.mean()), 1),
        "error": round(float(returns.std(ddof=1) / len(returns) ** 0.5), 1),
        "worst": round(float(returns.min()), 1),
        "runs": case.runs,
        "seconds": round(time.perf_counter() - begun),
    }


def write_page(results: dict[str, dict[str, Any]]) -> None:
    """Put the table into the page."""
    names = [name for name in CASES if f"{name}, preset" in results]
    lines = [
        f"| method | {' | '.join(f'{name}: {CASES[name].episodes:,}' for name in names)} |",
        f"|---|{'---:|' * len(names)}",
    ]
    for method, title in METHODS.items():
        rows = [results.get(f"{name}, {method}") for name in names]
        cells = [f"{row['return']:.5g} ± {row['error']:.2g}" if row else "" for row in rows]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    text = PAGE.read_text()
    pattern = r"(?s)(<!-- worlds -->\n).*?(<!-- end -->)"
    PAGE.write_text(re.sub(pattern, lambda match: f"{match[1]}{table}\n{match[2]}", text))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="cases whose name begins so, anew")
    only = parser.parse_args().only
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    makes: dict[str, Make | None] = {"preset": None, **peers()}
    for name, case in CASES.items():
        for method in case.methods:
            row = f"{name}, {method}"
            if name.startswith(only) if only else row not in results:
                results[row] = measure(case, makes[method])
                print(row, results[row], flush=True)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_page(results)
