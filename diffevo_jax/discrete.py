"""Diffusion Evolution of bits and categories: sites are masked, and read off likely parents.

Genomes are whole numbers, letters 0 to K - 1, of any dtype. Diffusion with an absorbing state, or
with uniform noise, is Austin et al. 2021 (https://arxiv.org/abs/2107.03006); the weights are those
of the paper, by Hamming distance.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.algorithm import Algorithm, make_algorithm
from diffevo_jax.checks import (
    Count,
    InputError,
    Positive,
    check_array,
    check_count,
    check_number,
    concrete,
)
from diffevo_jax.latent import project

WHOLE = 0.5  # share of children all of whose sites are masked
OTHERS = 1.0  # sites that a mutation changes beside one, on average
KIN = 3.0  # standard deviations by which kin are nearer than chance
HALVINGS = 12  # of the interval of log beta, where the sample size is set
LEAST_LOG_BETA, MOST_LOG_BETA = -6.0, 3.0


class Discrete(NamedTuple):
    """What the next step of a search among letters needs.

    population: the genomes to evaluate next, `[N, D]`.
    t: generations that follow this one, from T - 1 to 0 (finished).
    x0: the clean individuals, `[N, D]`, of which children are made, and fitness: theirs, `[N]`.
    compared: which sites distances are taken by, `[D]`.
    """

    population: jax.Array
    t: jax.Array
    x0: jax.Array
    fitness: jax.Array
    compared: jax.Array


class DiscreteInfo(NamedTuple):
    """What a figure shows of one evaluated generation; never carried.

    population, fitness: as evaluated, `[N, D]` and `[N]`.
    x0, x0_fitness: the clean individuals, after this generation, `[N, D]` and `[N]`.
    sample_size: effective number of individuals like each child, `[N]`, whose fitness is compared.
    """

    population: jax.Array
    fitness: jax.Array
    x0: jax.Array
    x0_fitness: jax.Array
    sample_size: jax.Array


class Forward(NamedTuple):
    """A forward kernel: how a share of the sites of x0 is lost, and drawn again given a parent.

    noise: (key, x0 `[N, D]`, lost `[N, D]`, letters K) -> (x_t `[N, D]`, known `[N, D]`), known the
        sites of x_t that are compared with parents.
    denoise: (key, x_t, known, share `[N, 1]`, parent `[N, D]`, K) -> x_s `[N, D]`, share that of
        the sites that were lost.
    """

    noise: Callable[..., tuple[jax.Array, jax.Array]]
    denoise: Callable[..., jax.Array]


def absorbing() -> Forward:
    """Mask what is lost: only the other sites are compared, and the parent fills in the masked."""

    def noise(
        key: jax.Array, x0: jax.Array, lost: jax.Array, letters: int
    ) -> tuple[jax.Array, jax.Array]:
        return x0, ~lost

    def denoise(
        key: jax.Array,
        x_t: jax.Array,
        known: jax.Array,
        share: jax.Array,
        parent: jax.Array,
        letters: int,
    ) -> jax.Array:
        return jnp.where(known, x_t, parent)

    return Forward(noise, denoise)


def uniform() -> Forward:
    """Put a random letter where one is lost, and draw x_s between x_t and the parent.

    q(x_t | x0) stays with gamma + (1 - gamma) / K, gamma = 1 - share; x_s is drawn from
    q(x_t | x_s) q(x_s | parent), with gamma_s = 1 - share^2.
    """

    def noise(
        key: jax.Array, x0: jax.Array, lost: jax.Array, letters: int
    ) -> tuple[jax.Array, jax.Array]:
        drawn = jax.random.randint(key, x0.shape, 0, letters).astype(x0.dtype)
        return jnp.where(lost, drawn, x0), jnp.ones_like(lost)

    def denoise(
        key: jax.Array,
        x_t: jax.Array,
        known: jax.Array,
        share: jax.Array,
        parent: jax.Array,
        letters: int,
    ) -> jax.Array:
        log_x_s = bridge(x_t, parent, 1 - share, 1 - share**2, letters)
        return jax.random.categorical(key, log_x_s).astype(x_t.dtype)

    return Forward(noise, denoise)


def bridge(
    x_t: jax.Array, x0: jax.Array, gamma_t: Positive, gamma_s: Positive, letters: int
) -> jax.Array:
    """Log probability of each letter of x_s between x_t and x0, `[..., K]`, under uniform noise.

    q(x_s | x_t, x0) = q(x_t | x_s) q(x_s | x0) / q(x_t | x0)

    where q stays with gamma + (1 - gamma) / K, and gamma from s to t is gamma_t / gamma_s. Shapes
    of the genomes and the levels broadcast.
    """
    step = jnp.where(jnp.asarray(gamma_s) > 0, gamma_t / jnp.maximum(gamma_s, 1e-30), 0)

    def log_q(letter: jax.Array, gamma: Positive) -> jax.Array:
        same = letter[..., None] == jnp.arange(letters)
        gamma = jnp.asarray(gamma)[..., None]
        return jnp.log(jnp.where(same, gamma, 0) + (1 - gamma) / letters + 1e-30)

    return jax.nn.log_softmax(log_q(x_t, step) + log_q(x0, gamma_s))


def log_posterior(
    fitness: jax.Array, distance: jax.Array, sample_size: Positive, temperature: Positive
) -> tuple[jax.Array, jax.Array]:
    """Log probability of each parent of each child, `[N, M]`, and the sample sizes, `[N]`.

    fitness: of the parents, `[M]`; -inf takes no part. distance: Hamming's, `[N, M]`; infinity
        takes no part.

    K_ij = exp(-beta_i h_ij), beta_i so that 1 / sum_j K_ij^2 is the sample size

    W_ij = K_ij exp(f_j / (temperature std_i f)), std_i f weighted by K

    for normalised weights: likeness chooses who is compared, and fitness among them alone. beta is
    0 where there are fewer; where more are the nearest, they remain.
    beta = log((1 + gamma) / (1 - gamma)) would be exact for bits and uniform noise.
    """
    nobody = jnp.isinf(distance) | (fitness == -jnp.inf)
    finite = jnp.where(fitness == -jnp.inf, 0, fitness)

    def kernel(beta: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(jnp.where(nobody, -1e9, -beta[:, None] * distance))

    def size(log_k: jax.Array) -> jax.Array:
        return jnp.exp(-jax.nn.logsumexp(2 * log_k, axis=1))

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        more = size(kernel(jnp.exp(middle))) > sample_size
        return jnp.where(more, middle, low), jnp.where(more, high, middle)

    low = jnp.full(len(distance), LEAST_LOG_BETA)
    high = jnp.full(len(distance), MOST_LOG_BETA)
    _, log_beta = jax.lax.fori_loop(0, HALVINGS, halve, (low, high))
    few = size(kernel(jnp.zeros_like(low))) <= sample_size
    log_k = kernel(jnp.where(few, 0, jnp.exp(log_beta)))
    share = jnp.exp(log_k)
    gap = finite - project(share, finite)[:, None]
    spread = jnp.sqrt(jnp.sum(share * gap**2, axis=1, keepdims=True))
    log_g = gap / (temperature * jnp.where(spread > 0, spread, 1))
    return jax.nn.log_softmax(jnp.where(nobody, -1e9, log_k + log_g)), size(log_k)


def discrete_evolution(
    num_levels: Count,
    *,
    letters: Count = 2,
    forward: Forward | None = None,
    sample_size: Positive = 16.0,
    latent_dim: Count | None = None,
    temperature: Positive = 0.25,
) -> Algorithm:
    """Configure Diffusion Evolution of bits, or of K categories, with all optima kept that it can.

        algorithm = de.discrete_evolution(500)
        population = jax.random.randint(key, (32, 64), 0, 2)
        evolved = de.evolve(key_run, algorithm, fitness_fn, population)

    A child loses sites of a clean individual: a random one and those that vary with it in the
    population, or, every second child, all. A parent is drawn by fitness, among kin: individuals
    that what is left is like, more than by chance. It fills them in. A child that would be nobody
    new has one site mutated, and others with probability 1 / D. It replaces the clean individual
    that is nearest, if it is as good. The last generation evaluates the clean individuals,
    `state.x0`, once more.

    num_levels: T, evaluated generations. letters: K, 2 for bits.
    forward: `discrete.absorbing()`, the default, or `discrete.uniform()`.
    sample_size: effective number of individuals whose fitness is compared for a child, those most
        like it: fewer keep more optima.
    latent_dim: compare so many sites alone, drawn at random in `init`, which is random hashing for
        Hamming's distance; None compares all.
    temperature: of the choice among them, in standard deviations of their fitness.

    16 individuals search fastest; 64 and more keep several optima (docs/discrete.md). Raises
    InputError, here, in `init` and in `step`, naming the argument, expected and seen.
    """
    letters = check_count("letters", letters, least=2)
    check_number("sample_size", sample_size, 1, math.inf, closed="[)")
    if latent_dim is not None:
        latent_dim = check_count("latent_dim", latent_dim)
    forward = absorbing() if forward is None else forward
    if not isinstance(forward, Forward):
        raise InputError("forward", "a Forward, such as discrete.uniform()", f"{forward!r:.60}")
    check_number("temperature", temperature, 0, math.inf, closed="()")

    def init(key: jax.Array, population: jax.Array, t: jax.Array) -> Discrete:
        size, num_genes = population.shape
        if latent_dim is not None and latent_dim > num_genes:
            raise InputError("latent_dim", f"at most {num_genes}, the genes", latent_dim)
        place = jax.random.permutation(key, num_genes)
        compared = place < (num_genes if latent_dim is None else latent_dim)
        return Discrete(population, t, population, jnp.full(size, -jnp.inf, float), compared)

    def step(
        key: jax.Array, state: Discrete, fitness: jax.Array, population: jax.Array
    ) -> tuple[Discrete, DiscreteInfo]:
        key_lost, key_noise, key_parent, key_denoise, key_mutate = jax.random.split(key, 5)
        x0, best = _select(state, fitness, population, letters)
        lost = _lose(key_lost, x0, letters)
        x_t, known = forward.noise(key_noise, x0, lost, letters)
        distance = _kin(x_t, x0, known & state.compared, letters)
        log_w, sizes = log_posterior(best, distance, sample_size, temperature)
        parent = x0[jax.random.categorical(key_parent, log_w)]
        share = jnp.mean(lost, axis=1, keepdims=True)
        child = forward.denoise(key_denoise, x_t, known, share, parent, letters)
        known_already = jnp.min(hamming(child, x0, letters), axis=1) < 0.5
        child = jnp.where(known_already[:, None], _mutate(key_mutate, child, letters), child)
        after = state._replace(population=jnp.where(state.t == 1, x0, child), x0=x0, fitness=best)
        return after, DiscreteInfo(population, fitness, x0, best, sizes)

    return make_discrete_algorithm(init, step, num_levels, letters=letters)


def make_discrete_algorithm(
    init: Callable[..., Any],
    step: Callable[..., tuple[Any, Any]],
    num_generations: int,
    *,
    letters: int = 2,
    shape: tuple[int, int] | None = None,
) -> Algorithm:
    """Make an `Algorithm` of letters: `make_algorithm` that looks at every population's genomes."""
    check = partial(_check_letters, letters=letters)
    algorithm = make_algorithm(init, step, num_generations, shape=shape, check=check)

    def checked_step(
        key: jax.Array,
        state: Any,
        fitness: jax.Array,
        population: jax.Array | None = None,
        aux: Any = (),
    ) -> tuple[Any, Any]:
        if population is not None:
            _check_letters(population, letters)
        return algorithm.step(key, state, fitness, population, aux)

    return algorithm._replace(step=checked_step)


def _check_letters(population: Any, letters: int) -> jax.Array:
    """Return a population of letters, `[N, D]`; raise InputError unless all are 0 to K - 1."""
    population = check_array("population", population, "an array [N, D]")
    if population.ndim != 2 or not population.size:
        raise InputError("population", "shape [N, D], neither 0", population.shape)
    values = concrete(population)
    if values is not None:
        values = values.astype(float)
        bad = ~((values >= 0) & (values < letters) & (values == np.floor(values)))
        if bad.any():
            expected = f"whole numbers from 0 to {letters - 1}, the letters"
            raise InputError("population", expected, f"{values[bad][0]:g}")
    return population.astype(jnp.int32) if population.dtype == bool else population


def hamming(
    ours: jax.Array, others: jax.Array, letters: int, compared: jax.Array | None = None
) -> jax.Array:
    """Count the sites that differ, `[N, M]`, of genomes `[N, D]` and `[M, D]`.

    compared: `[N, D]`, the sites that count; None counts all.
    """
    left = jax.nn.one_hot(ours.astype(int), letters)
    if compared is not None:
        left = left * compared[..., None]
    right = jax.nn.one_hot(others.astype(int), letters)
    same = left.reshape(len(ours), -1) @ right.reshape(len(others), -1).T
    return jnp.sum(left, axis=(1, 2))[:, None] - same


def _kin(x_t: jax.Array, x0: jax.Array, seen: jax.Array, letters: int) -> jax.Array:
    """Distances to kin at the sites that are seen, `[N, N]`, infinite to others.

    Kin are nearer than chance would have them, by 3 standard deviations; where nothing is seen, all
    are. Oneself has nothing to give, and is taken where nobody else is kin.
    """
    distance = hamming(x_t, x0, letters, seen)
    count = jnp.sum(seen, axis=1)[:, None]
    mean = count * (1 - 1 / letters)
    itself = jnp.eye(len(x0), dtype=bool)
    kin = distance <= mean - KIN * jnp.sqrt(mean / letters)
    kin &= ~itself | (count == 0)
    alone = ~jnp.any(kin, axis=1)[:, None]
    return jnp.where(kin | (itself & alone), distance, jnp.inf)


def _select(
    state: Discrete, fitness: jax.Array, population: jax.Array, letters: int
) -> tuple[jax.Array, jax.Array]:
    """Let each evaluated genome replace the clean individual nearest to it, if it is as good."""
    fitness = jnp.where(jnp.isfinite(fitness), fitness, -jnp.inf).astype(state.fitness.dtype)
    nearest = jnp.argmin(hamming(population, state.x0, letters), axis=1)
    rivals = nearest == jnp.arange(len(population))[:, None]
    rivals = jnp.where(rivals, fitness, -jnp.inf)
    first = jnp.argmax(rivals, axis=1)
    better = jnp.max(rivals, axis=1) >= state.fitness
    better &= jnp.max(rivals, axis=1) > -jnp.inf
    x0 = jnp.where(better[:, None], population[first], state.x0)
    return x0, jnp.where(better, fitness[first], state.fitness)


def _lose(key: jax.Array, x0: jax.Array, letters: int) -> jax.Array:
    """Choose the sites that each individual loses, `[N, D]`: those linked with one, or all.

    A site is linked beyond a threshold drawn from U(0, 1), by Cramer's V in the population.
    """
    key_site, key_threshold, key_whole = jax.random.split(key, 3)
    size, num_genes = x0.shape
    site = jax.random.randint(key_site, (size,), 0, num_genes)
    indicator = jax.nn.one_hot(x0.astype(int), letters)
    frequency = jnp.mean(indicator, axis=0)
    scaled = (indicator - frequency) / jnp.sqrt(jnp.maximum(frequency, 1e-6))
    together = jnp.einsum("nik,ndl->idkl", scaled[:, site], scaled) / size
    linkage = jnp.sqrt(jnp.sum(together**2, axis=(2, 3)) / (letters - 1))
    lost = linkage > jax.random.uniform(key_threshold, (size, 1))
    lost |= jnp.arange(num_genes) == site[:, None]
    return lost | (jax.random.uniform(key_whole, (size, 1)) < WHOLE)


def _mutate(key: jax.Array, genomes: jax.Array, letters: int) -> jax.Array:
    """Give one site of each genome another letter, and every other with probability 1 / D."""
    key_site, key_others, key_letter = jax.random.split(key, 3)
    size, num_genes = genomes.shape
    site = jax.random.randint(key_site, (size, 1), 0, num_genes)
    mutated = jax.random.uniform(key_others, genomes.shape) < OTHERS / num_genes
    mutated |= jnp.arange(num_genes) == site
    shift = jax.random.randint(key_letter, genomes.shape, 1, letters)
    another = (genomes.astype(jnp.int32) + shift) % letters
    return jnp.where(mutated, another.astype(genomes.dtype), genomes)
