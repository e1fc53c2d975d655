"""Which fitness map serves without a word about the unit of fitness: functions and control tasks.

    python experiments/benchmarks/fitness_maps.py

Five functions of the plane (512 x 25, eta .1) and control tasks at the published budget (256 x 10,
latent dimension 2): mean of the last generation. Costs in 12 dimensions, shifted, on [-5, 5]
(100 x 20, genome x 2.5): best of all. Over seeds, into results/fitness_maps.json.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import diffevo_jax as de

MAPS = {
    **{f"standardised {t}": de.fitness.standardised(t) for t in (0.03, 0.1, 0.3)},
    **{f"rank {sharpness}": de.fitness.rank(sharpness) for sharpness in (5, 20, 50)},
    "boltzmann 1": de.fitness.boltzmann(1.0),
    "identity": de.fitness.identity,  # where fitness is not negative
}
FUNCTIONS = ("rosenbrock", "beale", "himmelblau", "ackley", "rastrigin")
TASKS = (
    *("CartPole-v1", "Acrobot-v1", "MountainCar-v0"),
    *("MountainCarContinuous-v0", "Pendulum-v1"),
)
SEEDS, TASK_SEEDS, DIM = 20, 12, 12
COSTS = {
    "sphere": lambda z: jnp.sum(z**2, 1),
    "ellipsoid": lambda z: jnp.sum(1e3 ** (jnp.arange(DIM) / (DIM - 1)) * z**2, 1),
    "rosenbrock": lambda z: jnp.sum(
        100 * (z[:, 1:] + 1 - (z[:, :-1] + 1) ** 2) ** 2 + z[:, :-1] ** 2, 1
    ),
    "rastrigin": lambda z: jnp.sum(z**2 - 10 * jnp.cos(2 * jnp.pi * z) + 10, 1),
}


def functions(name: str, fitness_map, key: jax.Array) -> jax.Array:
    """The mean fitness of the last generation on a benchmark function."""
    landscape, key_init = getattr(de.landscapes, name), jax.random.fold_in(key, 1)
    population = jax.random.normal(key_init, (512, 2))
    algorithm = de.presets.paper(
        de.schedules.cosine(25), fitness_map=fitness_map, eta=0.1, floor=1e-9
    )
    return de.evolve(key, algorithm, lambda x: landscape(4 * x), population).kept[-1].mean()


def costs(name: str, fitness_map, key: jax.Array) -> jax.Array:
    """The lowest cost of a run, its optimum anywhere in [-4, 4]^12."""
    key_init, key_shift = jax.random.split(jax.random.fold_in(key, 1))
    shift = jax.random.uniform(key_shift, (DIM,), minval=-4, maxval=4)
    population = jax.random.normal(key_init, (100, DIM))
    algorithm = de.presets.paper(de.schedules.cosine(20), fitness_map=fitness_map)
    fitness = lambda x: -COSTS[name](jnp.clip(2.5 * x, -5, 5) - shift)  # noqa: E731
    return -de.evolve(key, algorithm, fitness, population).best.fitness


def control(name: str, fitness_map, key: jax.Array) -> jax.Array:
    """The mean return of the last generation on a task."""
    task = de.tasks.make_task(name, max_steps=500)
    policy = de.policies.mlp((task.num_inputs, 8, task.num_outputs))
    returns = de.tasks.make_returns(task, policy)
    key_init, key_projection = jax.random.split(jax.random.fold_in(key, 1))
    population = jax.random.normal(key_init, (256, policy.num_genes))
    projection = de.latent.random_projection(key_projection, policy.num_genes, 2)
    algorithm = de.presets.paper(
        de.schedules.cosine(10), fitness_map=fitness_map, projection=projection
    )
    evaluate = lambda key, x: returns(key, x).mean(axis=1)  # noqa: E731
    return de.evolve(key, algorithm, evaluate, population, has_key=True).kept[-1].mean()


def measure(run, num_seeds: int) -> dict[str, float]:
    """Mean, its standard error and the median over seeds."""
    values = jax.jit(lambda keys: jax.lax.map(run, keys))(de.batch.seed_keys(0, num_seeds))
    values = np.asarray(values, float)
    row = {"mean": values.mean(), "median": np.median(values)}
    row["error"] = values.std(ddof=1) / num_seeds**0.5
    return {key: float(f"{value:.4g}") for key, value in row.items()}


if __name__ == "__main__":
    table = {}
    for kind, names, num_seeds in (
        (functions, FUNCTIONS, SEEDS),
        (costs, COSTS, SEEDS),
        (control, TASKS, TASK_SEEDS),
    ):
        for name in names:
            row = table[f"{kind.__name__} {name}"] = {}
            for label, fitness_map in MAPS.items():
                if label != "identity" or kind is functions or name == "CartPole-v1":
                    row[label] = measure(functools.partial(kind, name, fitness_map), num_seeds)
                    print(kind.__name__, name, label, *row[label].values(), flush=True)
    path = Path(__file__).parent / "results" / "fitness_maps.json"
    path.write_text(json.dumps(table, indent=1) + "\n")
