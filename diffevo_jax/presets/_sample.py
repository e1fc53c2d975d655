"""Preset for densities: a population that is a draw from g itself."""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from diffevo_jax import schedules
from diffevo_jax.algorithm import evolve
from diffevo_jax.checks import (
    Count,
    InputError,
    call_on_population,
    check_array,
    check_count,
    check_key,
    check_takes,
    concrete,
)
from diffevo_jax.denoisers._archive import archive
from diffevo_jax.denoising import denoising_evolution
from diffevo_jax.fitness import boltzmann
from diffevo_jax.kernels._estimate import log_density
from diffevo_jax.kernels._gaussian import gaussian
from diffevo_jax.sharding import split

# Widths of the kernels, in standard deviations of the population: wide ones for what it has not
# reached yet and for few individuals in many dimensions, narrow ones for thin ridges.
WIDTHS = tuple(2 * 0.6**k for k in range(9))
LEAST_SHARE = 0.04  # of the draws to each width, so that no density q is without wide tails
# Effective draws below this share of N are too few to speak for a density.
ENOUGH = 0.5


class Samples(NamedTuple):
    """A draw from a density, and what it is worth.

    population: `[N, D]`, all of one weight. log_density: theirs, `[N]`.
    draws: the M = N rounds points that the population was picked from, `[M, D]`, for averages with
        less noise. log_weight: their log g / q, `[M]`; the mean weight estimates the
        normaliser.
    log_normaliser: log of the integral of exp(log_density), `[]`. log_normaliser_error: its
        standard error, `[]`.
    effective_sample_size: (sum w)^2 / sum w^2 of the draws, from 1 to M, `[]`: how many draws of
        equal weight they are worth; 0 where no density was above 0.
    evaluated: how many points the density was evaluated at.
    """

    population: jax.Array
    log_density: jax.Array
    draws: jax.Array
    log_weight: jax.Array
    log_normaliser: jax.Array
    log_normaliser_error: jax.Array
    effective_sample_size: jax.Array
    evaluated: int


def sample(
    key: jax.Array,
    log_density_fn: Callable[[jax.Array], jax.Array],
    *,
    num_genes: Count,
    population_size: Count = 256,
    num_levels: Count = 60,
    adaptations: Count = 20,
    rounds: Count = 20,
    loc: ArrayLike = 0.0,
    scale: ArrayLike = 1.0,
    projection: jax.Array | None = None,
    latent_dim: Count | None = None,
    mesh: Mesh | None = None,
) -> Samples:
    """Draw from an unnormalised density, without gradients or chains; 100 N evaluations as set.

        samples = de.presets.sample(key, log_density_fn, num_genes=2)

    A pure function: it runs under jit and vmap. First an evolution finds where the mass is, each
    weight divided by the density that its individual was drawn with (`denoisers.archive`). Then
    importance sampling puts right what is left: N draws a round from a mixture of Gaussians around
    the population, of several widths, weighed by g / q. Adaptations pick their centres anew by
    weight, and set the widths' shares to what the weights say of them (Douc et al. 2007,
    "Convergence of adaptive mixtures of importance sampling schemes"). The last rounds keep one q,
    so that their mean weight is the normaliser without bias; N of their draws, picked by weight,
    are the population. Where a draw weighs more than 1/N it is there more than once.

    When not to trust it. An effective sample size below N / 2, which warns outside jit, says that
    few draws carry the result: take more individuals or adaptations. A peak that no draw reaches
    leaves no trace in these numbers: one much smaller than its distance to the others, outside
    N(loc, scale^2), or thin in many dimensions. Other keys and a larger scale may show it.

    log_density_fn: population `[N, D]` -> log density `[N]` up to a constant; `jax.vmap` maps
        a function of one point. What is NaN or infinite weighs nothing.
    num_genes: D. population_size: N.
    num_levels, adaptations, rounds: generations of the evolution, and of N draws after it.
    loc, scale: the evolution starts from N(loc, scale^2), numbers or `[D]`, which may be traced:
        choose them so that the density lies within two or three scales.
    projection: `[D, d]`, the evolution's distances are taken in (x - loc) / scale @ projection.
    latent_dim: d of a random projection in its place.
    mesh: split the individuals over all axes of this mesh.

    Raises InputError, naming the argument, expected and seen.
    """
    check_key(key)
    check_takes("log_density_fn", log_density_fn, ("population",))
    num_genes = check_count("num_genes", num_genes)
    size = check_count("population_size", population_size, least=2)
    adaptations = check_count("adaptations", adaptations)
    rounds = check_count("rounds", rounds)
    loc, scale = _per_gene("loc", loc, num_genes), _per_gene("scale", scale, num_genes)
    widths = concrete(scale)
    if widths is not None and not (widths > 0).all():
        raise InputError("scale", "numbers above 0", widths)

    def log_g(z: jax.Array) -> jax.Array:
        values = call_on_population("log_density_fn", log_density_fn, loc + scale * z)
        values = check_array("log_density_fn", values, f"numbers of shape {(size,)}")
        if values.shape != (size,):
            raise InputError(
                "log_density_fn",
                f"shape {(size,)} for a population {z.shape}",
                values.shape,
                "jax.vmap(fn) takes a population where fn takes one point",
            )
        return jnp.where(jnp.isfinite(values), values, -jnp.inf)

    def rows(array: jax.Array) -> jax.Array:
        return array if mesh is None else split(array, mesh)

    algorithm = denoising_evolution(
        schedules.cosine(num_levels),
        fitness_map=boltzmann(1.0),
        denoiser=archive(gaussian(projection=projection, latent_dim=latent_dim), generations=1),
        mesh=mesh,
    )
    key_init, key_evolve, key_adapt, key_draw, key_pick = jax.random.split(key, 5)
    start = rows(jax.random.normal(key_init, (size, num_genes)))
    # A jit of its own, for the functions are new in each call: `evolve` would store them in vain.
    evolution = jax.jit(lambda *both: evolve(both[0], algorithm, log_g, both[1], keep=_nothing))
    evolved = evolution(key_evolve, start).state.population
    spread = jnp.sqrt(jnp.mean(jnp.var(evolved, axis=0)))
    sigmas = jnp.where(spread > 0, spread, 1) * jnp.array(WIDTHS)

    def draw(key: jax.Array, proposal: tuple[jax.Array, jax.Array]):
        """Take N draws from the mixture, their log densities, and log q by width, `[K, N]`."""
        centres, shares = proposal
        key_width, key_noise = jax.random.split(key)
        width = jax.random.choice(key_width, sigmas, (size, 1), p=shares)
        z = rows(centres + width * jax.random.normal(key_noise, centres.shape))
        parts = jax.lax.map(lambda sigma: log_density(z, centres, sigma, mesh=mesh), sigmas)
        return z, log_g(z), parts + jnp.log(shares)[:, None]

    def adapt(proposal: tuple[jax.Array, jax.Array], key: jax.Array):
        key_draw, key_pick = jax.random.split(key)
        z, log_p, parts = draw(key_draw, proposal)
        log_weight = log_p - jax.nn.logsumexp(parts, axis=0)
        shares = jax.nn.softmax(parts, axis=0) @ _normalised(log_weight)
        shares = LEAST_SHARE + (1 - len(WIDTHS) * LEAST_SHARE) * shares / jnp.sum(shares)
        return (rows(z[pick(key_pick, log_weight, size)]), shares), None

    def final(key: jax.Array):
        z, log_p, parts = draw(key, proposal)
        log_weight = log_p - jax.nn.logsumexp(parts, axis=0) + jnp.sum(jnp.log(scale))
        return z, log_p, log_weight

    shares = jnp.full(len(WIDTHS), 1 / len(WIDTHS))
    keys = jax.random.split(key_adapt, adaptations)
    proposal, _ = jax.lax.scan(adapt, (evolved, shares), keys)
    drawn = jax.lax.map(final, jax.random.split(key_draw, rounds))
    z, log_p, log_weight = (leaf.reshape(-1, *leaf.shape[2:]) for leaf in drawn)

    weight, count = _normalised(log_weight), size * rounds
    any_weight = jnp.any(log_weight > -jnp.inf)
    sample_size = jnp.where(any_weight, 1 / jnp.sum(weight**2), 0)
    picked = pick(key_pick, log_weight, size)
    draws = loc + scale * z
    samples = Samples(
        population=rows(draws[picked]),
        log_density=rows(log_p[picked]),
        draws=draws,
        log_weight=log_weight,
        log_normaliser=jax.nn.logsumexp(log_weight) - math.log(count),
        # The error of the mean of independent weights, by the delta method.
        log_normaliser_error=jnp.sqrt(jnp.maximum(1 / sample_size - 1 / count, 0)),
        effective_sample_size=sample_size,
        evaluated=size * (num_levels + adaptations + rounds),
    )
    worth = concrete(sample_size)
    if worth is not None and worth < ENOUGH * size:
        warnings.warn(
            f"presets.sample: {count} draws are worth {worth:.0f} of equal weight, fewer than "
            f"{ENOUGH:g} N; do not trust the population, or take more individuals or adaptations",
            stacklevel=2,
        )
    return samples


def _nothing(info: Any) -> tuple[()]:
    return ()


def pick(key: jax.Array, log_weight: jax.Array, size: int) -> jax.Array:
    """Pick `size` of the draws by weight, `[M]` -> indices `[size]`: one in each of equal shares.

    Systematic resampling: a draw of weight w comes floor(size w) times, or once more.
    """
    places = jnp.cumsum(_normalised(log_weight))
    shares = (jnp.arange(size) + jax.random.uniform(key)) / size * places[-1]
    return jnp.minimum(jnp.searchsorted(places, shares), len(log_weight) - 1)


def _normalised(log_weight: jax.Array) -> jax.Array:
    """Scale weights to sum 1; all are the same where none is above 0."""
    any_weight = jnp.any(log_weight > -jnp.inf)
    return jax.nn.softmax(jnp.where(any_weight, log_weight, 0))


def _per_gene(name: str, value: ArrayLike, num_genes: int) -> jax.Array:
    expected = f"a number or shape {(num_genes,)}, one for each gene"
    value = check_array(name, value, expected).astype(float)
    if value.shape not in ((), (num_genes,)):
        raise InputError(name, expected, value.shape)
    known = concrete(value)
    if known is not None and not np.isfinite(known).all():
        raise InputError(name, "finite numbers", known)
    return jnp.broadcast_to(value, (num_genes,))
