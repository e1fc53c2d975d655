"""Environment steps per second: cart-pole against evosax's Gymnax problem and a Gymnasium loop,
three tasks with sines and cosines by the polynomial and by XLA, and cart-pole by population.

    python experiments/benchmarks/rollouts.py --output results.json

Every comparison is interleaved in one run, and its ratio is of medians. evosax and Gymnasium are
compared where they are installed. Needs only diffevo_jax and gymnax besides.
"""

import argparse
import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import compiled, device, interleaved, print_row

import diffevo_jax as de

KEY = jax.random.key(0)
NETWORKS = {58: (8,), 17_410: (128, 128)}  # parameters: hidden layers
POPULATION = 512


def balancing(policy: de.policies.Policy) -> jax.Array:
    """A genome `[D]` that never lets the pole fall: two hidden units carry its lean."""
    params = jax.tree.map(jnp.zeros_like, policy.unflatten(jnp.zeros(policy.num_genes)))
    layers = [params["params"][name] for name in sorted(params["params"])]
    lean = jnp.array([0.05, 0.3, 1.0, 1.0])
    layers[0]["kernel"] = layers[0]["kernel"].at[:, 0].set(lean).at[:, 1].set(-lean)
    for layer in layers[1:-1]:
        layer["kernel"] = layer["kernel"].at[0, 0].set(1).at[1, 1].set(1)
    layers[-1]["kernel"] = layers[-1]["kernel"].at[0, 1].set(1).at[1, 0].set(1)
    return de.genome.codec(params).flatten(params)


def populations(policy: de.policies.Policy, size: int) -> dict[str, jax.Array]:
    """An untrained population, and one that survives all 500 steps, `[size, D]` each."""
    untrained = jax.random.normal(KEY, (size, policy.num_genes))
    return {"untrained": untrained, "full length": jnp.tile(balancing(policy), (size, 1))}


def evosax_problem(hidden: tuple[int, ...]):
    """evosax's roll-out of the same network: (call from genomes' parameters, its returns)."""
    import flax.linen as nn
    from evosax.problems import GymnaxProblem

    class Network(nn.Module):
        @nn.compact
        def __call__(self, observation, key=None):
            x = observation
            for size in hidden:
                x = nn.relu(nn.Dense(size)(x))
            return jnp.argmax(nn.Dense(2)(x))

    # Without observation statistics, which are no part of ours: less work for evosax.
    problem = GymnaxProblem("CartPole-v1", Network(), use_normalize_obs=False)
    state = problem.init(KEY)
    return lambda params: problem.eval(KEY, params, state)[0]


def gymnasium_steps_per_second(
    policy: de.policies.Policy, genome: jax.Array, limit: float
) -> float:
    """Steps a second of a plain Gymnasium loop with a NumPy policy, over about `limit` seconds."""
    import gymnasium

    params = jax.tree.map(np.asarray, policy.unflatten(genome))["params"]
    layers = [(params[name]["kernel"], params[name]["bias"]) for name in sorted(params)]
    scale = np.sqrt(3) / np.array([4.8, 1.0, 0.41887903, 1.0])
    environment = gymnasium.make("CartPole-v1")
    steps, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < limit:
        observation, _ = environment.reset(seed=0)
        ended = False
        while not ended:
            x = observation * scale
            for i, (kernel, bias) in enumerate(layers):
                x = x if i == 0 else np.maximum(x, 0)
                x = x @ kernel + bias
            observation, _, terminated, truncated, _ = environment.step(int(np.argmax(x)))
            ended, steps = terminated or truncated, steps + 1
    return steps / (time.perf_counter() - begin)


def compare(rounds: int, gymnasium_seconds: float) -> list[dict[str, Any]]:
    """A row a network and population: seconds, steps a second, and ratios."""
    task = de.tasks.make_task("CartPole-v1")
    rows = []
    for num_genes, hidden in NETWORKS.items():
        policy = de.policies.mlp((4, *hidden, 2))
        for name, population in populations(policy, POPULATION).items():
            returns = de.tasks.make_returns(task, policy)
            ours, compile_seconds = compiled(returns, KEY, population)
            calls = {"ours": ours}
            if importlib.util.find_spec("evosax"):
                params = jax.vmap(policy.unflatten)(population)
                evaluate = evosax_problem(hidden)
                calls["evosax"] = lambda evaluate=evaluate, params=params: evaluate(params)
            seconds = interleaved(calls, rounds)
            # Steps that count: those of the episodes. evosax takes 500 for everybody.
            steps = float(ours().sum())
            row = {
                "genes": num_genes,
                "population": name,
                "mean_return": steps / POPULATION,
                "compile_seconds": compile_seconds,
                "run_seconds": seconds["ours"],
                "steps_per_second": steps / seconds["ours"],
            }
            if "evosax" in seconds:
                row["times_evosax"] = seconds["evosax"] / seconds["ours"]
            if importlib.util.find_spec("gymnasium"):
                rate = gymnasium_steps_per_second(policy, population[0], gymnasium_seconds)
                row["gymnasium_steps_per_second"] = rate
                row["times_gymnasium"] = row["steps_per_second"] / rate
            rows.append(row)
            print_row(row)
    return rows


def trigonometry(rounds: int) -> list[dict[str, Any]]:
    """A row a task: steps a second with the polynomial's sines and cosines, and with XLA's."""
    rows = []
    for name in ("CartPole-v1", "Acrobot-v1", "Pendulum-v1"):
        calls, compile_seconds, steps = {}, {}, {}
        for label, fast_trig in (("polynomial", True), ("xla", False)):
            task = de.tasks.make_task(name, fast_trig=fast_trig)
            policy = de.policies.mlp((task.num_inputs, 8, task.num_outputs))
            if name == "CartPole-v1":
                population = populations(policy, POPULATION)["full length"]
            else:
                population = 0.1 * jax.random.normal(KEY, (POPULATION, policy.num_genes))
            outcomes = de.tasks.make_outcomes(task, policy)
            calls[label], compile_seconds[label] = compiled(outcomes, KEY, population)
            steps[label] = float(calls[label]().length.sum())
        seconds = interleaved(calls, rounds)
        row: dict[str, Any] = {"task": name}
        for label in calls:
            row[f"{label}_steps_per_second"] = steps[label] / seconds[label]
            row[f"{label}_compile_seconds"] = compile_seconds[label]
        row["times_xla"] = row["polynomial_steps_per_second"] / row["xla_steps_per_second"]
        rows.append(row)
        print_row(row)
    return rows


def curve(sizes: list[int], limit: float) -> list[dict[str, Any]]:
    """Throughput of the small network against population, until a call takes `limit` seconds."""
    task = de.tasks.make_task("CartPole-v1")
    policy = de.policies.mlp((4, *NETWORKS[58], 2))
    rows = []
    for name in ("untrained", "full length"):
        for size in sizes:
            population = populations(policy, size)[name]
            returns = de.tasks.make_returns(task, policy)
            call, compile_seconds = compiled(returns, KEY, population)
            seconds = interleaved({"ours": call}, 3)["ours"]
            row = {
                "genes": 58,
                "population": name,
                "size": size,
                "compile_seconds": compile_seconds,
                "run_seconds": seconds,
                "steps_per_second": float(call().sum()) / seconds,
            }
            rows.append(row)
            print_row(row)
            if seconds > limit:
                break
    return rows


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description="environment steps per second")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller populations")
    arguments = parser.parse_args()
    quick = arguments.quick
    report = {
        **device(),
        "trigonometry": trigonometry(3 if quick else 9),
        "compare": compare(3 if quick else 9, 0.5 if quick else 3.0),
        "curve": curve([2**n for n in range(7, 11 if quick else 18, 2)], 5.0),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
