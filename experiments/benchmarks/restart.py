"""What noising again is worth when the landscape moves: offline error on Branke's moving peaks.

    python experiments/benchmarks/restart.py     # into results/restart-cpu.json: 3 minutes

Scenario 2: 5 genes, 10 peaks, 20 environments of 5,000 evaluations each; 100 individuals, whose
genomes z are points 50 + 25 z. The offline error is the mean over generations of how far the best
individual since the last change is below the highest peak. Mean and standard error of 24 runs.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp

import diffevo_jax as de

SEED, RUNS, SIZE, PERIOD, CHANGES = 17, 24, 100, 50, 20
LEVELS = 25


def offline_error(key: jax.Array, make, shift: float) -> jax.Array:
    """Run through all changes; make: generations -> algorithm."""
    key_peaks, key_init, key_run = jax.random.split(key, 3)
    peaks, highest = de.landscapes.moving_peaks(key_peaks, num_changes=CHANGES - 1, shift=shift)
    generations = PERIOD * CHANGES
    algorithm = make(generations)
    change = jnp.arange(generations) // PERIOD

    def generation(carry, given):
        state, error = carry
        key, generation, change = given
        fitness = peaks(change, 50 + 25 * state.population)
        error = jnp.where(generation % PERIOD == 0, jnp.inf, error)
        error = jnp.minimum(error, highest[change] - jnp.max(fitness))
        state, _ = algorithm.step(key, state, fitness)
        return (state, error), error

    state = algorithm.init(key_init, jax.random.normal(key_init, (SIZE, 5)))
    given = jax.random.split(key_run, generations), jnp.arange(generations), change
    _, errors = jax.lax.scan(generation, (state, jnp.inf), given)
    return jnp.mean(errors)


def restarting(level: int, **settings):
    """The preset at a level."""
    return lambda generations: de.presets.restart(
        num_generations=generations, num_levels=LEVELS, level=level, **settings
    )


METHODS = {
    "one run, then as it is": lambda _: de.presets.paper(de.schedules.cosine(LEVELS)),
    "restart at the end of a run only, level 8": restarting(8, tolerance=float("inf")),
    **{f"restart, level {level}": restarting(level) for level in (2, 8, 16)},
    f"afresh, level {LEVELS - 1}": restarting(LEVELS - 1),
}


if __name__ == "__main__":
    table = {}
    path = Path(__file__).parent / "results" / "restart-cpu.json"
    keys = de.batch.seed_keys(SEED, RUNS)
    for name, make in METHODS.items():
        table[name] = {}
        for shift in (1.0, 5.0):
            run = jax.jit(
                lambda k, m=make, s=shift: jax.lax.map(lambda k: offline_error(k, m, s), k)
            )
            errors = run(keys)
            error = float(errors.std(ddof=1) / RUNS**0.5)
            table[name][f"shift {shift:g}"] = [round(float(errors.mean()), 2), round(error, 2)]
        print(name, table[name], flush=True)
        path.write_text(json.dumps(table, indent=1) + "\n")
