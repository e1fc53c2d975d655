"""Running mean and variance of observations, by which what policies see is normalised.

As in Salimans et al. (2017, https://arxiv.org/abs/1703.03864) and ARS (Mania et al., 2018,
https://arxiv.org/abs/1803.07055): statistics of all steps so far, over the whole population. Means
and squares are of differences (Welford within an episode; Chan, Golub and LeVeque between them), so
that float32 does.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# What policies see is within +-CLIP deviations, as in Salimans et al.'s code.
CLIP = 5.0
# A deviation of less of the mean's size is float32's rounding of a constant.
ROUNDING = 4 * float(np.finfo(np.float32).eps)

NEVER_VARIED = (
    "no observation has varied, so that policies of normalised ones see zeros alone; use "
    "observations='scaled' or 'raw', or episodes that vary: more steps (max_steps), other starts"
)


class Statistics(NamedTuple):
    """What observations have been so far.

    steps: observations that policies have acted on, `[]`; 0 before any, with the mean and variance
        that count until then. mean, variance: of each component, in an observation's shape.
    """

    steps: jax.Array
    mean: jax.Array
    variance: jax.Array


def normalise(statistics: Statistics, observation: jax.Array) -> jax.Array:
    """Return (o - mean) / deviation within +-`CLIP`, of an observation in its own shape.

    A component that has not varied is divided by 1: it is 0, and its first change counts as it is.
    """
    deviation = jnp.sqrt(statistics.variance)
    gain = 1 / jnp.where(_varies(statistics), deviation, 1)
    return jnp.clip((observation - statistics.mean) * gain, -CLIP, CLIP)


def advice(statistics: Statistics) -> str | None:
    """Say what to change where no observation has varied; None where one has, or before any."""
    return NEVER_VARIED if statistics.steps > 0 and not jnp.any(_varies(statistics)) else None


def pool(count: jax.Array, mean: jax.Array, squares: jax.Array) -> Statistics:
    """Pool episodes, those that met numbers which are not finite left out.

    count: steps of each, `[M]`. mean, squares: of its observations, `[M, ...]`, and the sum of
        their squared differences from it.
    """

    def each(value: jax.Array) -> jax.Array:
        return jnp.expand_dims(value, range(1, mean.ndim))

    finite = jnp.isfinite(mean) & jnp.isfinite(squares)
    valid = jnp.all(finite.reshape(len(mean), -1), axis=1)
    count = jnp.where(valid, count, 0).astype(mean.dtype)
    mean, squares = (jnp.where(each(valid), value, 0) for value in (mean, squares))
    total = jnp.sum(count)
    share = each(count / jnp.maximum(total, 1))
    # Sums of differences: a constant is its own mean, without rounding.
    least = jnp.min(mean, axis=0, where=each(valid), initial=jnp.inf)
    least = jnp.where(jnp.isfinite(least), least, 0)
    centre = least + jnp.sum(share * (mean - least), axis=0)
    within = jnp.sum(squares, axis=0) / jnp.maximum(total, 1)
    return Statistics(total, centre, within + jnp.sum(share * (mean - centre) ** 2, axis=0))


def merge(before: Statistics, new: Statistics) -> Statistics:
    """Merge the statistics of observations that have nothing in common."""
    total = before.steps + new.steps
    share = new.steps / jnp.maximum(total, 1)
    apart = new.mean - before.mean
    variance = (1 - share) * before.variance + share * new.variance
    return Statistics(
        total,
        jnp.where(share == 1, new.mean, before.mean + share * apart),
        variance + share * (1 - share) * apart**2,
    )


def _varies(statistics: Any) -> jax.Array:
    return jnp.sqrt(statistics.variance) > ROUNDING * jnp.abs(statistics.mean)
