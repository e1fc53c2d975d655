"""What genomes can be conditioned on: a number that is stored of each, and targets to ask for."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Count, InputError, NonNegative, check_count, check_number

ELITES = 0.1  # share of the generation that counts as its best

BLOCK = 2**20  # numbers of the differences that `novelty` has at once


class Condition(NamedTuple):
    """A number of each individual, and which of them are asked for.

    evaluate: (population `[N, D]`, fitness `[N]`, aux) -> values `[N]`; aux is what the fitness
        function returns beside the fitness, () where nothing.
    targets: (key, values `[N]` of the last generation, N) -> what the next one is to be, `[N]`.
    """

    evaluate: Callable[[jax.Array, jax.Array, Any], jax.Array]
    targets: Callable[[jax.Array, jax.Array, int], jax.Array]


def fitness(reach: NonNegative = 0.5) -> Condition:
    """Ask for more fitness than the best have.

    target = mean of the best tenth + |reach std(f) N(0, 1)|

    reach: a number of 0 or more, or traced. Raises InputError when it is not.
    """
    check_number("reach", reach, 0, jnp.inf, closed="[)")
    return Condition(lambda population, fitness, aux: fitness, _beyond(reach))


def novelty(neighbours: Count = 10, reach: NonNegative = 0.5) -> Condition:
    """Ask for genomes far from others: the log of the mean distance to the nearest neighbours.

    neighbours: how many of the same generation; at most N - 1 count. reach: see `fitness`.

    Raises InputError on settings out of range.
    """
    check_count("neighbours", neighbours)
    check_number("reach", reach, 0, jnp.inf, closed="[)")

    def evaluate(population: jax.Array, fitness: jax.Array, aux: Any) -> jax.Array:
        count = len(population)

        def novelty_of(row: jax.Array) -> jax.Array:
            gaps = jnp.sum((population - population[row]) ** 2, axis=1).at[row].set(jnp.inf)
            nearest = -jax.lax.top_k(-gaps, min(neighbours, count - 1))[0]
            return jnp.log(jnp.mean(jnp.sqrt(nearest)) + 1e-12)

        size = max(1, min(count, BLOCK // population.size))
        return jax.lax.map(novelty_of, jnp.arange(count), batch_size=size)

    return Condition(evaluate, _beyond(reach))


def measured(
    measure: str | Callable[[Any], jax.Array],
    targets: Callable[[jax.Array, int], jax.Array],
) -> Condition:
    """Condition on what a roll-out shows of an individual, such as where it ended.

        place = de.conditions.measured("position", de.conditions.uniform(-1.0, 1.0))

    measure: an entry of the fitness function's aux, a dict, or aux -> values `[N]`.
    targets: (key, N) -> `[N]`, such as `uniform` and `around` make.
    """

    def evaluate(population: jax.Array, fitness: jax.Array, aux: Any) -> jax.Array:
        if callable(measure):
            return measure(aux)
        if not isinstance(aux, dict) or measure not in aux:
            raise InputError(
                "aux",
                f"a dict with {measure!r}, beside the fitness",
                sorted(aux) if isinstance(aux, dict) else f"{type(aux).__name__}",
                "the fitness function, or the Problem, says has_aux=True",
            )
        return aux[measure]

    return Condition(evaluate, lambda key, values, size: targets(key, size))


def uniform(low: float, high: float) -> Callable[[jax.Array, int], jax.Array]:
    """Draw targets evenly between two numbers; raise InputError unless they are in order."""
    if not low < high:
        raise InputError("high", f"a number above low = {low}", high)
    return lambda key, size: jax.random.uniform(key, (size,), minval=low, maxval=high)


def around(target: float, deviation: NonNegative = 0.0) -> Callable[[jax.Array, int], jax.Array]:
    """Draw targets from N(target, deviation^2); raise InputError on a deviation below 0."""
    check_number("deviation", deviation, 0, jnp.inf, closed="[)")
    return lambda key, size: target + deviation * jax.random.normal(key, (size,))


def _beyond(reach: NonNegative) -> Callable[[jax.Array, jax.Array, int], jax.Array]:
    def targets(key: jax.Array, values: jax.Array, size: int) -> jax.Array:
        finite = jnp.isfinite(values)
        number = max(1, round(ELITES * len(values)))
        best = jax.lax.top_k(jnp.where(finite, values, -jnp.inf), number)[0]
        best = jnp.mean(best, where=jnp.isfinite(best))
        spread = jnp.std(values, where=finite)
        return best + jnp.abs(reach * spread * jax.random.normal(key, (size,)))

    return targets
