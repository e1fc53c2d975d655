"""Latent spaces that follow the search against random ones, on functions, peaks and control tasks.

    python experiments/benchmarks/latents.py [--only functions peaks control large]
    python experiments/benchmarks/latents.py --tables     # docs/variants.md from the JSON

Distances in 2 latent dimensions: of a random projection, of principal components, of the active
subspace and of an autoencoder that Optax trains at every generation; beside them distances in
genome space and `consensus`, which takes none. All with the same seeds and evaluations, under two
kinds of noise: fresh, as in the library's defaults, and remembered, as in the paper. Functions: by
how many powers of ten the cost is below random search's, mean of the four of settings.py that its
settings were not chosen on, 2,000 evaluations. Peaks: how many are kept of eight that lie in a
hidden plane of all genes, 128 individuals, 25 levels. Control: mean return of the last generation,
256 x 10 on cart-pole, 128 x 20 on Pendulum. Mean and standard error over seeds; ahead: by how much
the seeds are better than with the random projection. Into results/latents.json.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from settings import BOX, FLOOR, HELD_OUT, instance, random_costs
from timing import device, print_row

import diffevo_jax as de
from diffevo_jax.diffusion import default_temperature, final_noise

RESULTS = Path(__file__).parent / "results" / "latents.json"
PAGE = Path(__file__).parents[2] / "docs" / "variants.md"
SEED, SEEDS, LATENT = 3001, 20, 2
EVALUATIONS, SCALE = 2000, 2.5
HIDDEN, STEPS, RATE = 16, 100, 1e-2  # of the autoencoder: hidden units, updates a generation
PEAKS, RADIUS, ON = 8, 2.0, 0.2  # their circle's, and how near an individual is on one
NOISES = ("fresh", "remembered")
Row = dict[str, Any]


def principal_components(genomes: jax.Array, log_weight: jax.Array) -> jax.Array:
    """The leading directions of the weighted population's covariance, `[D, d]`."""
    share = jax.nn.softmax(jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight))
    rows = jnp.sqrt(share)[:, None] * (genomes - share @ genomes)
    return jnp.linalg.svd(rows, full_matrices=False)[2][:LATENT].T


class Autoencoder(nn.Module):
    """Genomes `[N, D]` -> latents `[N, d]` and genomes again, both with a linear part."""

    latent_dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Encode and decode."""
        z = nn.Dense(self.latent_dim)(nn.tanh(nn.Dense(HIDDEN)(x)))
        z += nn.Dense(self.latent_dim, use_bias=False)(x)
        out = nn.Dense(x.shape[1])(nn.tanh(nn.Dense(HIDDEN)(z)))
        return z, out + nn.Dense(x.shape[1])(z)


def autoencoder(latent_dim: int) -> de.Kernel:
    """A Gaussian in the latents of an autoencoder, trained on the weighted population.

    The memory: its parameters, the population's centre and spread, and a factor that gives latents
    the spread of a gene.
    """
    network, optimizer = Autoencoder(latent_dim), optax.adam(RATE)

    def init(key: jax.Array, population: jax.Array) -> Any:
        parameters = network.init(key, population)
        return parameters, jnp.zeros(population.shape[1]), jnp.ones(()), jnp.ones(())

    def follow(memory: Any, x: jax.Array, log_weight: jax.Array) -> Any:
        share = jax.nn.softmax(jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight))
        centre = share @ x
        spread = jnp.maximum(jnp.sqrt(jnp.mean(share @ (x - centre) ** 2)), 1e-20)
        rows = (x - centre) / spread

        def error(parameters: Any) -> jax.Array:
            decoded: Any = network.apply(parameters, rows)[1]
            return share @ jnp.mean((decoded - rows) ** 2, axis=1)

        def update(carry: Any, _: None) -> tuple[Any, None]:
            parameters, moments = carry
            change, moments = optimizer.update(jax.grad(error)(parameters), moments)
            return (optax.apply_updates(parameters, change), moments), None

        begin = memory[0], optimizer.init(memory[0])
        (parameters, _), _ = jax.lax.scan(update, begin, length=STEPS)
        z, _ = network.apply(parameters, rows)
        factor = jnp.sqrt(jnp.mean(jnp.var(x, axis=0)) / jnp.mean(jnp.var(z, axis=0)))
        return jax.lax.stop_gradient((parameters, centre, spread, factor))

    def average(
        memory: Any, x_t: jax.Array, log_weight: jax.Array, level: de.Level, *, support=None, **_
    ) -> Any:
        def encode(x: jax.Array) -> jax.Array:
            parameters, centre, spread, factor = memory
            return factor * network.apply(parameters, (x - centre) / spread)[0]

        # Where supports are shrunk: the same as encode(support), were it linear.
        root = jnp.sqrt(level.alpha)
        return de.kernels.estimate_posterior(
            x_t,
            log_weight,
            level.alpha,
            z_t=encode(x_t),
            support=support,
            z_support=None if support is None else encode(root * support) / root,
            one_minus_alpha=level.one_minus_alpha,
        )

    return de.Kernel(init, average, follow)


KERNELS: dict[str, Callable[[], de.Kernel]] = {
    "genome space": de.kernels.gaussian,
    "random": lambda: de.kernels.gaussian(latent_dim=LATENT),
    "principal components": lambda: de.kernels.gaussian(projection=principal_components),
    "active subspace": lambda: de.kernels.gaussian(projection=de.latent.active_subspace(LATENT)),
    "autoencoder": lambda: autoencoder(LATENT),
}
LATENTS = ("random", "consensus", *(name for name in KERNELS if name != "random"))


def denoiser(latent: str, make: Callable[..., de.Denoiser]) -> de.Denoiser:
    """The denoiser of a latent space, or `consensus`."""
    return de.denoisers.consensus() if latent == "consensus" else make(KERNELS[latent]())


def seeds_one_by_one(function: Callable[[jax.Array], Any], seeds: int) -> Any:
    """Run a function of a key for each seed, compiled once."""
    keys = de.batch.seed_keys(SEED, seeds)
    return jax.tree.map(np.asarray, jax.jit(lambda: de.batch.run_many(function, keys))())


def measure(problem: str, score: Callable[[str, str, int], Any], seeds: Row) -> Iterator[Row]:
    """Rows of a problem, (noise, latent, seeds) -> scores `[S]`, and what else there is to tell."""
    for noise in NOISES:
        random = np.zeros(0)
        for latent in LATENTS:
            number = seeds.get(latent, seeds["others"])
            scores, beside = score(noise, latent, number) if number else (None, {})
            if scores is None:
                continue
            if latent == "random":
                random = scores
            row: Row = {"problem": problem, "noise": noise, "latent": latent}
            row["score"] = mean_and_error(scores)
            if latent != "random":
                row["ahead"] = mean_and_error(scores - random[:number])
            yield {**row, **beside, "seeds": number}


def mean_and_error(values: np.ndarray) -> list[float]:
    """Mean and standard error."""
    pair = values.mean(), values.std(ddof=1) / len(values) ** 0.5
    return [float(f"{each:.4g}") for each in pair]


def functions() -> Iterator[Row]:
    """Costs against random search's; negated, so that more is better."""
    for num_genes in (12, 100, 1000):
        names = jnp.arange(len(HELD_OUT))

        def score(noise: str, latent: str, seeds: int, num_genes=num_genes, names=names) -> Any:
            size, levels = de.presets.sizes(EVALUATIONS, num_genes)
            if noise == "remembered":
                size, levels = EVALUATIONS // 20, 20
            part = denoiser(latent, de.denoisers.posterior_mean)
            algorithm = {
                "fresh": lambda: de.denoising_evolution(
                    de.schedules.geometric(levels, end=final_noise(size, levels, num_genes)),
                    fitness_map=de.fitness.standardised(default_temperature(num_genes)),
                    denoiser=part,
                    sampler=de.samplers.ddim(freshness=1.0, centred=True),
                ),
                "remembered": lambda: de.denoising_evolution(
                    de.schedules.cosine(levels), denoiser=part
                ),
            }[noise]()

            def lowest(key: jax.Array) -> jax.Array:
                key_cost, key_init, key_run = (jax.random.fold_in(key, i) for i in range(3))

                def of(index: jax.Array) -> jax.Array:
                    cost = instance(HELD_OUT, num_genes, key_cost, index)
                    return -de.evolve(
                        key_run,
                        algorithm,
                        lambda genomes: -cost(SCALE * genomes),
                        jax.random.normal(key_init, (size, num_genes)),
                        keep=lambda info: (),
                        repair=lambda genomes: jnp.clip(genomes, -BOX / SCALE, BOX / SCALE),
                    ).best.fitness

                return jax.lax.map(of, names)

            costs = seeds_one_by_one(lowest, seeds)
            chance = random_costs(tuple(HELD_OUT), num_genes, EVALUATIONS, SEED, seeds)
            ratio = np.log10(np.maximum(costs, FLOOR)) - np.log10(chance.T)
            return -ratio.mean(1), {}

        few = num_genes == 1000
        seeds = {"others": 10 if few else SEEDS, "autoencoder": 5 if few else SEEDS}
        yield from measure(f"functions, {num_genes:,} genes", score, seeds)


def peaks() -> Iterator[Row]:
    """Peaks kept, with `niching` under fresh noise, and the share of individuals on any."""
    for num_genes in (12, 50):

        def score(noise: str, latent: str, seeds: int, num_genes=num_genes) -> Any:
            fresh = noise == "fresh"
            make = de.denoisers.niching if fresh else de.denoisers.posterior_mean
            algorithm = de.denoising_evolution(
                de.schedules.geometric(25, end=1e-4) if fresh else de.schedules.cosine(25),
                denoiser=denoiser(latent, make),
                sampler=de.samplers.ddim(freshness=1.0, centred=True)
                if fresh
                else de.samplers.ddim(),
            )
            angle = 2 * jnp.pi * jnp.arange(PEAKS) / PEAKS
            centres = RADIUS * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)

            def kept(key: jax.Array) -> tuple[jax.Array, jax.Array]:
                key_plane, key_init, key_run = jax.random.split(key, 3)
                plane, _ = jnp.linalg.qr(jax.random.normal(key_plane, (num_genes, 2)))

                def distances(genomes: jax.Array) -> jax.Array:
                    place = 1.5 * de.latent.project(genomes, plane)
                    return jnp.linalg.norm(place[:, None] - centres, axis=2)

                near = de.evolve(
                    key_run,
                    algorithm,
                    lambda genomes: jnp.exp(-(jnp.min(distances(genomes), axis=1) ** 2)),
                    jax.random.normal(key_init, (128, num_genes)),
                    keep=lambda info: distances(info.population) < ON,
                ).kept[-1]
                return jnp.sum(near.any(0)), 100 * jnp.mean(near.any(1))

            number, share = seeds_one_by_one(kept, seeds)
            return number.astype(float), {"individuals on them, %": mean_and_error(share)}

        yield from measure(f"hidden peaks, {num_genes} genes", score, {"others": SEEDS})


def returns(environment: str, hidden: tuple[int, ...], seeds: Row) -> Iterator[Row]:
    """Mean returns of the last generation, and of all of them."""
    task = de.tasks.make_task(environment)
    size, levels = (256, 10) if environment == "CartPole-v1" else (128, 20)
    policy = de.policies.mlp((task.num_inputs, *hidden, task.num_outputs))
    num_genes = policy.num_genes

    def score(noise: str, latent: str, seeds: int) -> Any:
        part = denoiser(latent, de.denoisers.posterior_mean)
        if noise == "fresh":  # as `presets.control`
            problem = de.tasks.make_problem(task, de.policies.scaled(policy, 3.0), shared_starts=2)
            algorithm = de.denoising_evolution(
                de.schedules.geometric(levels, end=1e-2),
                fitness_map=de.fitness.standardised(default_temperature(num_genes)),
                denoiser=part,
                sampler=de.samplers.ddim(freshness=1.0),
            )
        else:
            problem = de.tasks.make_problem(task, policy)
            algorithm = de.denoising_evolution(de.schedules.cosine(levels), denoiser=part)

        def run(key: jax.Array) -> jax.Array:
            key_init, key_run = jax.random.split(key)
            population = jax.random.normal(key_init, (size, num_genes))
            return de.evolve(key_run, algorithm, problem, population).kept.mean(1)

        of_all = seeds_one_by_one(run, seeds)
        return of_all[:, -1], {"of all generations": mean_and_error(of_all.mean(1))}

    yield from measure(f"{environment.partition('-')[0]}, {num_genes:,} genes", score, seeds)


def control() -> Iterator[Row]:
    """Small networks."""
    for environment in ("CartPole-v1", "Pendulum-v1"):
        yield from returns(environment, (8,), {"others": SEEDS})


def large() -> Iterator[Row]:
    """The paper's large network, at fewer seeds; an autoencoder of 17,410 genes takes too long."""
    yield from returns("CartPole-v1", (128, 128), {"others": 8, "autoencoder": 0})


PARTS = {each.__name__: each for each in (peaks, functions, control, large)}


def table(rows: list[Row]) -> str:
    """Markdown; bold where seeds are ahead of the random projection by two standard errors."""
    lines = [f"| | {' | '.join(LATENTS)} |", "|---|" + "---:|" * len(LATENTS)]
    cells: dict[tuple[str, str], Row] = {}
    for row in rows:
        mean, error = row["score"]
        places = max(0, 1 - int(np.floor(np.log10(error)))) if error else 1
        text = f"{mean:.{places}f} ± {error:.{places}f}"
        ahead, margin = row.get("ahead", (0, 0))
        if ahead > 2 * margin:
            text = f"**{text}**"
        if "individuals on them, %" in row:
            text += f", {row['individuals on them, %'][0]:.0f} %"
        if row["seeds"] < SEEDS:
            text += f" ({row['seeds']})"
        cells.setdefault((row["problem"], row["noise"]), {})[row["latent"]] = text
    for (problem, noise), line in cells.items():
        lines.append(
            f"| {problem}, {noise} | {' | '.join(line.get(name, '') for name in LATENTS)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure the parts that are asked for, keep the other rows, and write the page's table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tables", action="store_true")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in [] if arguments.tables else arguments.only:
        rows = []
        for row in PARTS[part]():
            print_row(row)
            rows.append(row)
            results = {**results, **device(), part: rows}
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    rows = [row for part in PARTS for row in results.get(part, [])]
    block = f"<!-- latents -->\n{table(rows)}\n<!-- end -->"
    page = PAGE.read_text()
    PAGE.write_text(re.sub(r"<!-- latents -->\n.*?<!-- end -->", lambda _: block, page, flags=re.S))


if __name__ == "__main__":
    main()
