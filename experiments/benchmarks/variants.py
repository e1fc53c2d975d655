"""What each denoiser and sampler costs and reaches, beside the posterior mean with DDIM.

    python experiments/benchmarks/variants.py

Prints the numbers of docs/variants.md: a step's time in steps of `posterior_mean` with `ddim`
(medians of interleaved turns), and the last generation's mean fitness ± standard error over seeds.
"""

from functools import partial

import jax
import numpy as np
from timing import compiled, device, interleaved, print_row

import diffevo_jax as de

SIZE, LEVELS, SEEDS = 512, 25, 20
DENOISERS = {
    "posterior_mean": de.denoisers.posterior_mean,
    "broadened": de.denoisers.broadened,
    "archive of 1": partial(de.denoisers.archive, generations=1),
    "archive of 4": partial(de.denoisers.archive, generations=4),
    "student_t": de.denoisers.posterior_mean,
}
KERNELS = {"student_t": de.kernels.student_t}  # elsewhere the Gaussian
PROBLEMS = {
    "two_peaks": de.landscapes.two_peaks,
    "rastrigin": lambda population: de.landscapes.rastrigin(4 * population),
}


def algorithms(eta: float, projection: jax.Array | None = None) -> dict[str, de.Algorithm]:
    """Every denoiser with DDIM, and DPM-Solver++ with the posterior mean."""
    pairs = {name: (make, de.samplers.ddim(eta)) for name, make in DENOISERS.items()}
    pairs["dpm_solver"] = de.denoisers.posterior_mean, de.samplers.dpm_solver()
    return {
        name: de.denoising_evolution(
            de.schedules.cosine(LEVELS),
            fitness_map=de.fitness.identity,
            denoiser=make(KERNELS.get(name, de.kernels.gaussian)(projection=projection)),
            sampler=sampler,
        )
        for name, (make, sampler) in pairs.items()
    }


def cost(genes: int, latent: int | None) -> dict[str, float]:
    """Time of a step as a multiple of the posterior mean's."""
    key = jax.random.key(0)
    projection = None if latent is None else de.latent.random_projection(key, genes, latent)
    population = jax.random.normal(key, (SIZE, genes))
    fitness = de.landscapes.two_peaks(population[:, :2])
    calls = {}
    for name, algorithm in algorithms(1.0, projection).items():
        calls[name], _ = compiled(algorithm.step, key, algorithm.init(key, population), fitness)
    seconds = interleaved(calls, rounds=25)
    return {name: value / seconds["posterior_mean"] for name, value in seconds.items()}


def quality(fitness_fn, eta: float) -> dict[str, str]:
    """Mean fitness of the last generation, and its standard error over seeds."""

    def final(algorithm: de.Algorithm, key: jax.Array) -> jax.Array:
        key_init, key_run = jax.random.split(key)
        population = jax.random.normal(key_init, (SIZE, 2))
        return de.evolve(key_run, algorithm, fitness_fn, population).kept[-1].mean()

    keys, means = de.batch.seed_keys(0, SEEDS), {}
    for name, algorithm in algorithms(eta).items():
        runs = jax.jit(partial(jax.lax.map, partial(final, algorithm)))
        each = np.asarray(runs(keys))
        means[name] = f"{each.mean():.3f} ± {each.std(ddof=1) / SEEDS**0.5:.3f}"
    return means


if __name__ == "__main__":
    print_row(device())
    print_row({"genes": 2, **cost(2, None)})
    print_row({"genes": 58, "latent": 2, **cost(58, 2)})
    for problem, fitness_fn in PROBLEMS.items():
        for eta in (1.0, 0.1):
            print_row({"problem": problem, "eta": eta, **quality(fitness_fn, eta)})
