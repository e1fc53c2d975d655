"""Fitness maps, the paper's g: (fitness [N], valid [N]) to log weight [N]; higher is better.

valid marks the individuals whose fitness counts; the others have a number in its place that a map
has to leave out. A log weight of -inf is a weight of zero. NaN says that the fitness has
no weight under this map (a negative one under `identity`); the step leaves such individuals out and
counts them. `pointwise` takes a function that does not compare individuals.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.checks import (
    TELL_BEHAVIOUR,
    Count,
    InputError,
    Positive,
    check_count,
    check_number,
    check_takes,
)
from diffevo_jax.metrics import dominated_novelty as novelty_of

FitnessMap = Callable[[jax.Array, jax.Array], jax.Array]
FACTORY = "a factory is called first: de.fitness.boltzmann(temperature)"


class BehaviourMap(NamedTuple):
    """A fitness map that compares behaviour as well, by descriptors `[N, k]`."""

    compare: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

    def __call__(
        self, fitness: jax.Array, valid: jax.Array, descriptors: jax.Array | None = None
    ) -> jax.Array:
        """Weigh individuals, `[N]`; raise InputError without their descriptors."""
        if descriptors is None:
            raise InputError(
                "descriptors",
                "how individuals behave, [N, k], for the fitness map compares it",
                None,
                TELL_BEHAVIOUR,
            )
        return self.compare(fitness, valid, descriptors)


def check_by_fitness(fitness_map: FitnessMap) -> FitnessMap:
    """Return a fitness map; raise InputError on one that compares behaviour."""
    if isinstance(fitness_map, BehaviourMap):
        raise InputError(
            "fitness_map",
            "one that compares fitness alone, such as rank(): no behaviour of earlier individuals "
            "is kept",
            "one that compares behaviour",
            "denoising_evolution takes it, but not with archive, network or hybrid as denoiser",
        )
    return fitness_map


def pointwise(function: Callable[[jax.Array], jax.Array]) -> FitnessMap:
    """Make a fitness map of fitness `[N]` -> log weight `[N]`, each by itself.

        fitness_map = de.fitness.pointwise(lambda fitness: 3 * jnp.log(fitness))

    Raises InputError on what is no function.
    """
    check_takes("function", function, ("fitness",))
    return lambda fitness, valid: function(fitness)


# An exponential distribution, which f has around an optimum in the plane, has a median of .69
# deviations.
ROBUST = 1.5


def standardised(temperature: Positive = 0.1, *, robust: bool = False) -> FitnessMap:
    """Weight = exp((f - max f) / (temperature std f)): unit and offset of fitness change nothing.

    std f: over the valid individuals of a generation; where all are equal, all weigh the same.
    temperature: a number above 0, in standard deviations, or traced. Raises InputError when it is
    not.
    robust: where 1.5 medians of max f - f are less than std f, they are in its place: one stray
        individual, far below all others, can then not make the others weigh the same.
    """
    check_number("temperature", temperature, 0, math.inf, closed="()")

    def log_weight(fitness: jax.Array, valid: jax.Array) -> jax.Array:
        best = jnp.max(fitness, where=valid, initial=-jnp.inf)
        # A sixteenth of it, so that neither it nor its reciprocal leaves the range of floats.
        gap = jnp.where(valid, fitness / 16 - best / 16, 0)
        # In units of the widest gap squares neither overflow nor vanish; the unit itself cancels.
        widest = jax.lax.stop_gradient(jnp.max(-gap))
        gap = gap / jnp.where(widest > 0, widest, 1)
        variance = jnp.var(gap, where=valid)
        spread = jnp.sqrt(jnp.where(widest > 0, variance, 1))
        if robust:
            median = jnp.nanmedian(jnp.where(valid, -gap, jnp.nan))
            spread = jnp.where(median > 0, jnp.minimum(spread, ROBUST * median), spread)
        return jnp.where(valid, gap / (temperature * spread), jnp.nan)

    return log_weight


def rank(sharpness: Positive = 50.0) -> FitnessMap:
    """Weight = exp(sharpness r / (N - 1)), r the rank from 0, the worst: only the order matters.

    Ties share their mean rank; N and r count the valid individuals of a generation.
    sharpness: log of the best one's weight over the worst one's; a number above 0, or traced.
    Raises InputError when it is not.
    """
    check_number("sharpness", sharpness, 0, math.inf, closed="()")

    def log_weight(fitness: jax.Array, valid: jax.Array) -> jax.Array:
        ordered = jnp.sort(jnp.where(valid, fitness, jnp.inf))
        below = jnp.searchsorted(ordered, fitness, side="left")
        last = jnp.searchsorted(ordered, fitness, side="right") - 1
        share = (below + last) / 2 / jnp.maximum(jnp.sum(valid) - 1, 1)
        return jnp.where(valid, sharpness * share, jnp.nan).astype(fitness.dtype)

    return log_weight


def dominated_novelty(neighbours: Count = 3, *, sharpness: Positive = 50.0) -> FitnessMap:
    """Weigh by rank, as `rank` does, of how far an individual is from those that are fitter.

    Novelty: mean distance of its descriptor to its k nearest among the fitter, infinite where none
    is (https://arxiv.org/abs/2502.00593): whoever is best of its kind counts, and no archive is
    needed. The fitness function has to say how individuals behave, aux["descriptors"]. Parts that
    weigh individuals of which they know the fitness alone cannot take it: denoisers.archive,
    network and hybrid, presets.hades, charles and track.

    neighbours: k. sharpness: see `rank`. Raises InputError, here or in `step`.
    """
    neighbours, by_rank = check_count("neighbours", neighbours), rank(sharpness)

    def compare(fitness: jax.Array, valid: jax.Array, descriptors: jax.Array) -> jax.Array:
        descriptors = jnp.where(valid[:, None], descriptors, 0)
        # Nobody is nearer to the others for being left out, and none of them is fitter.
        seen = jnp.where(valid, fitness, -jnp.inf)
        novelty = novelty_of(descriptors, seen, num=neighbours).astype(fitness.dtype)
        return by_rank(jnp.minimum(novelty, jnp.finfo(fitness.dtype).max), valid)

    return BehaviourMap(compare)


def identity(fitness: jax.Array, valid: jax.Array) -> jax.Array:
    """Weight = fitness: log f. Fitness must not be negative; see `boltzmann` if yours can be."""
    return power(1.0)(fitness, valid)


def power(p: Positive, temperature: Positive = 1.0) -> FitnessMap:
    """Weight = f^(p / temperature): a larger p, or a lower temperature, selects more sharply.

    p, temperature: numbers above 0, or traced. Raises InputError when they are not.
    """
    check_number("p", p, 0, math.inf, closed="()")
    check_number("temperature", temperature, 0, math.inf, closed="()")

    def log_weight(fitness: jax.Array, valid: jax.Array) -> jax.Array:
        positive = fitness > 0
        log_fitness = jnp.log(jnp.where(positive, fitness, 1))  # no log 0, so gradients stay finite
        nothing = jnp.where(fitness == 0, -jnp.inf, jnp.nan)
        return jnp.where(positive, p / temperature * log_fitness, nothing)

    return log_weight


def boltzmann(temperature: Positive = 1.0) -> FitnessMap:
    """Weight = exp((f - max f) / temperature): fitness of any sign; an offset changes nothing.

    temperature: a number above 0, in units of fitness, or traced. Raises InputError when it is not.
    The published control tasks use temperature 1.
    """
    check_number("temperature", temperature, 0, math.inf, closed="()")

    def log_weight(fitness: jax.Array, valid: jax.Array) -> jax.Array:
        best = jnp.max(fitness, where=valid, initial=-jnp.inf)
        # Without a valid individual the gradient stays finite.
        return (fitness - jnp.where(jnp.any(valid), best, 0)) / temperature

    return log_weight


def roulette(pressure: Positive = 3.0) -> FitnessMap:
    """Weight = the sum of exp(pressure u) over all values up to one's own.

    u: fitness from 0, the worst of the valid, to 1, the best; equal values count once
        (Hartl et al., https://arxiv.org/abs/2411.13420).
    pressure: a number above 0, or traced. Raises InputError when it is not.
    """
    check_number("pressure", pressure, 0, math.inf, closed="()")

    def log_weight(fitness: jax.Array, valid: jax.Array) -> jax.Array:
        best = jnp.max(fitness, where=valid, initial=-jnp.inf)
        worst = jnp.min(fitness, where=valid, initial=jnp.inf)
        width = jnp.where(best > worst, best - worst, 1)
        ordered = jnp.sort(jnp.where(valid, fitness, jnp.inf))
        first = jnp.concatenate([jnp.ones(1, bool), ordered[1:] > ordered[:-1]])
        # A value counts exp(pressure (u - 1)), so that no pressure overflows.
        height = jnp.where(first, jnp.exp(pressure * jnp.minimum((ordered - best) / width, 0)), 0)
        height = jnp.where(jnp.isfinite(ordered), height, 0)
        below = jnp.searchsorted(ordered, fitness, side="right")
        return jnp.where(valid, jnp.log(jnp.cumsum(height)[below - 1]), jnp.nan)

    return log_weight


def weigh(
    fitness_map: FitnessMap,
    fitness: jax.Array,
    usable: jax.Array | bool = True,
    descriptors: jax.Array | None = None,
) -> jax.Array:
    """Compute log weights `[N]`, NaN wherever the fitness, or its weight, is no usable number.

    usable: `[N]`, which individuals may take part. descriptors: how they behave, `[N, k]`, for maps
    that compare it. Raises InputError on a map that does not take
    (fitness, valid) or returns another shape.
    """
    fitness = fitness.astype(jnp.promote_types(fitness.dtype, jnp.float32))
    valid = jnp.isfinite(fitness) & usable
    # The map sees a finite number in every place, so that one bad fitness cannot spread or
    # spoil gradients; the worst valid one moves neither a maximum nor a rank.
    worst = jnp.min(fitness, where=valid, initial=jnp.inf)
    stand_in = jnp.where(jnp.isfinite(worst), worst, 0)
    behaviour = (descriptors,) if isinstance(fitness_map, BehaviourMap) else ()
    try:
        log_weight = fitness_map(jnp.where(valid, fitness, stand_in), valid, *behaviour)
    except TypeError as error:
        inside = error.__traceback__
        if inside is not None and inside.tb_next is not None:  # inside the map, not in calling it
            raise
        raise InputError(
            "fitness_map",
            "a function of (fitness, valid)",
            f"another: {error}",
            FACTORY + "; de.fitness.pointwise takes a function of the fitness alone",
        ) from error
    shape = getattr(log_weight, "shape", type(log_weight).__name__)
    if shape != fitness.shape:
        raise InputError(
            "fitness_map",
            f"log weights of the fitness's shape {fitness.shape}",
            shape,
            FACTORY,
        )
    return jnp.where(valid & (log_weight < jnp.inf), log_weight, jnp.nan)
