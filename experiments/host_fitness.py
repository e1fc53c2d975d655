"""Evolve a policy on a Gymnasium environment that JAX knows nothing of, in a pool of processes.

    python experiments/host_fitness.py

A linear policy learns to balance Gymnasium's own CartPole-v1. Any Python function of a genome goes
the same way: a simulator, a subprocess, a measurement in a lab.
"""

import argparse
import functools

import gymnasium
import jax
import numpy as np

import diffevo_jax as de
from diffevo_jax.optimize import host


@functools.cache
def _environment():
    """One environment a worker process, made when it is first asked for."""
    return gymnasium.make("CartPole-v1")


def evaluate(genome: np.ndarray) -> float:
    """Return of one episode, from the same initial state for every individual."""
    environment = _environment()
    observation, _ = environment.reset(seed=0)
    total, ended = 0.0, False
    while not ended:
        action = int(genome @ observation > 0)
        observation, reward, terminated, truncated, _ = environment.step(action)
        total, ended = total + float(reward), terminated or truncated
    return total


def main() -> None:
    """Run ten generations of 64 individuals and print how they do."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])  # pyright: ignore
    parser.add_argument("--population", type=int, default=64)
    parser.add_argument("--generations", type=int, default=10)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()

    key_init, key_run = jax.random.split(jax.random.key(0))
    evolution = de.presets.paper(
        de.schedules.cosine(arguments.generations), fitness_map=de.fitness.boltzmann(10.0)
    )
    step = jax.jit(evolution.step)
    state = evolution.init(key_init, jax.random.normal(key_init, (arguments.population, 4)))
    with host.pool(evaluate, num_workers=arguments.workers) as fitness_of:
        for key in jax.random.split(key_run, arguments.generations):
            result = fitness_of(state.population)
            for failure in result.failures:
                print(f"individual {failure.individual} takes no part: {failure.error}")
            state, info = step(key, state, result.fitness)
            print(f"level {int(info.t)}: mean return {np.nanmean(result.fitness):.0f}")


if __name__ == "__main__":
    main()
