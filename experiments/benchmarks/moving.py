"""Following a landscape that moves: offline error on moving peaks.

    python experiments/benchmarks/moving.py     # into results/moving-cpu.json: a quarter of an hour

Branke's scenario 2, and the generalised moving peaks of Yazdani et al. 2022 in the same box. 100
environments of 5,000 evaluations each; genomes z are points 50 + 25 z. The offline error is
the mean over all evaluations of how far the best one since the last change is below the highest
peak. `presets.track` has 20 individuals, and nobody tells it of changes. The others, of 100, are
told: at each change, and wherever a run has ended, they begin afresh, or with the last population
noised to a level. Mean and standard error over runs: 50 of scenario 2 with 5 genes and 10 peaks,
and 20 elsewhere.

Published, of scenario 2 with 5 genes and 10 peaks moved by 1: 1.75 ± 0.06, mQSO (Blackwell and
Branke 2006, IEEE Transactions on Evolutionary Computation 10).
"""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

import diffevo_jax as de

SEED, PERIOD, CHANGES, SIZE = 17, 5000, 100, 100
SCHEDULE = de.schedules.cosine(25)


class Method(NamedTuple):
    """renew: (key, state) -> what follows after so many generations; None for no end."""

    size: int
    algorithm: de.Algorithm
    generations: int = 1
    renew: Callable | None = None


def afresh(algorithm: de.Algorithm, generations: int) -> Method:
    """Begin anew with noise."""

    def renew(key, state):
        return algorithm.init(key, jax.random.normal(key, state.population.shape))

    return Method(SIZE, algorithm, generations, renew)


def renoised(level: int) -> Method:
    """Noise the population to a level, and again where that run has ended."""
    algorithm = de.presets.paper(SCHEDULE)

    def renew(key, state):
        noised = de.presets.renoise(key, state.population, SCHEDULE, level)
        state = algorithm.init(key, noised)
        return state._replace(t=jnp.full_like(state.t, level))

    return Method(SIZE, algorithm, level + 1, renew)


METHODS = {
    "track": Method(20, de.presets.track()),
    "afresh, diffusion_evolution(50)": afresh(de.diffusion_evolution(50), 50),
    "afresh, paper(cosine(25))": afresh(de.presets.paper(SCHEDULE), 25),
    "noised to level 9, paper(cosine(25))": renoised(9),
}


LANDSCAPES = {
    "moving peaks": de.landscapes.moving_peaks,
    "generalised": de.landscapes.generalised_moving_peaks,
}


def offline_error(
    key: jax.Array, method: Method, landscape: Callable, genes: int, peaks: int, shift: float
) -> jax.Array:
    """Run through all environments."""
    key_peaks, key_init, key_run = jax.random.split(key, 3)
    settings = {"num_genes": genes, "num_peaks": peaks, "shift": shift}
    fitness_fn, highest = landscape(key_peaks, num_changes=CHANGES - 1, **settings)
    period = PERIOD // method.size

    def generation(carry, given):
        state, error = carry
        key, number = given
        environment = number // period
        new = number % period == 0
        if method.renew is not None:
            ended = number % method.generations == 0
            renewed = method.renew(jax.random.fold_in(key, 1), state)
            state = jax.tree.map(lambda new, old: jnp.where(ended, new, old), renewed, state)
        fitness = fitness_fn(environment, 50 + 25 * state.population)
        error = jnp.where(new, jnp.inf, error)
        errors = jnp.minimum(error, jax.lax.cummin(highest[environment] - fitness))
        state, _ = method.algorithm.step(key, state, fitness)
        return (state, errors[-1]), jnp.mean(errors)

    population = jax.random.normal(key_init, (method.size, genes))
    state = method.algorithm.init(key_init, population)
    keys = jax.random.split(key_run, period * CHANGES)
    _, errors = jax.lax.scan(generation, (state, jnp.inf), (keys, jnp.arange(len(keys))))
    return jnp.mean(errors)


def measure(name: str, landscape: str, genes: int, peaks: int, shift: float) -> dict:
    """A row of the table."""
    runs = 50 if (landscape, genes, peaks) == ("moving peaks", 5, 10) else 20

    def run(key):
        return offline_error(key, METHODS[name], LANDSCAPES[landscape], genes, peaks, shift)

    errors = jax.jit(lambda keys: jax.lax.map(run, keys))(de.batch.seed_keys(SEED, runs))
    return {
        "landscape": landscape,
        "genes": genes,
        "peaks": peaks,
        "shift": shift,
        "method": name,
        "runs": runs,
        "offline_error": {
            "mean": round(float(errors.mean()), 3),
            "error": round(float(errors.std(ddof=1)) / runs**0.5, 3),
        },
    }


if __name__ == "__main__":
    rows = []
    path = Path(__file__).parent / "results" / "moving-cpu.json"
    cells = [("moving peaks", *sizes) for sizes in product((5, 10), (1, 10, 50), (1, 5))]
    cells += [("generalised", 5, 10, shift) for shift in (1, 5)]
    for cell in cells:
        # All of them where others publish, the best of the others on the generalised ones.
        several = len(METHODS) if cell[0] == "moving peaks" else 2
        for name in list(METHODS)[: several if cell[1:3] == (5, 10) else 1]:
            rows.append(measure(name, *cell))
            print(rows[-1], flush=True)
            path.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
