"""What goes into every implementation of the estimator, and what comes out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.estimator.exp2 import LOG2E


class Frame(NamedTuple):
    """Where the supports are.

    middle: near their mean, `[d]`: coordinates are taken from there. spread: standard deviation
    over all dimensions, `[]`. longest: largest squared distance from the middle, `[]`. squares:
    mean squared distance from the middle by dimension, `[d]`.
    """

    middle: jax.Array
    spread: jax.Array
    longest: jax.Array
    squares: jax.Array


class Problem(NamedTuple):
    """Weighted averages to take: checked arguments.

    query: places to estimate at, `[N, d]`. key: places of the supports, `[M, d]`.
    value: genomes of the supports, `[M, D]`.
    log_weight: log g of the supports, `[M]`; -inf weighs zero.
    alpha, one_minus_alpha: the level, `[]`.
    own: log g of the queries, `[N]`, where they are among the supports; None where they are not.
    frame: of all supports, where these are a share of them; None is that of `key`.
    precision: of the matmul with the genomes, as `jax.lax.dot` takes it.
    latent: whether places are coordinates of their own; else they are a genome's first columns.
    axes: mesh axes that the supports are split over, each device with its share; () is one device.
    log_floor: what every Gaussian gets added, `[]`, its log; None where it is zero or taken apart.
    """

    query: jax.Array
    key: jax.Array
    value: jax.Array
    log_weight: jax.Array
    alpha: jax.Array
    one_minus_alpha: jax.Array
    own: jax.Array | None
    frame: Frame | None = None
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST
    log_floor: jax.Array | None = None
    latent: bool = True
    axes: tuple[str, ...] = ()

    def own_weight(self) -> jax.Array:
        """Log w_ii, `[N]`: a query's weight for itself, where it is among the supports."""
        assert self.own is not None
        shrink = self.one_minus_alpha / (1 + jnp.sqrt(self.alpha))
        return self.own - shrink**2 * jnp.sum(self.query**2, axis=1) / (2 * self.one_minus_alpha)

    def arrays(self) -> dict:
        """The arrays by name, without what is known when tracing."""
        return {name: value for name, value in self._asdict().items() if name not in STATIC}

    def static(self) -> tuple:
        """What is known when tracing, as (name, value)."""
        return tuple((name, getattr(self, name)) for name in STATIC)


STATIC = ("precision", "latent", "axes")


class Posterior(NamedTuple):
    """The clean estimate and how well it is supported.

    x0: posterior mean, `[N, D]`.
    log_evidence: log Z_i = log sum_j w_ij, `[N]`, Z the denominator of the paper's Eq. 8 with the
        Gaussian's peak at 1; -inf where nobody has weight.
    effective_sample_size: (sum_j w_ij)^2 / sum_j w_ij^2, `[N]`, from 1 to M; 0 where nobody has
        weight.
    """

    x0: jax.Array
    log_evidence: jax.Array
    effective_sample_size: jax.Array


class Part(NamedTuple):
    """A posterior over some of the supports, its evidence weight 2^(shift - offset).

    In three numbers the evidence keeps its digits when parts are merged: a float32 logarithm of 100
    rounds the share of a part by 4e-6.

    x0: `[N, D]`; anything finite where nobody has weight. weight: `[N]`, 0 where nobody has any.
    shift: `[N]`, finite. offset: `[N]`, the same for all parts of a query. effective_sample_size:
    `[N]`.
    """

    x0: jax.Array
    weight: jax.Array
    shift: jax.Array
    offset: jax.Array
    effective_sample_size: jax.Array

    def posterior(self) -> Posterior:
        """The posterior, where this part is all."""
        nobody = self.weight == 0
        log_evidence = (
            jnp.log(jnp.where(nobody, 1, self.weight)) + (self.shift - self.offset) / LOG2E
        )
        return Posterior(
            x0=self.x0,
            log_evidence=jnp.where(nobody, -jnp.inf, log_evidence),
            effective_sample_size=self.effective_sample_size,
        )


def merge(a: Part, b: Part) -> Part:
    """The part over the supports of both, exact but for rounding.

    The offset is b's: a may be the empty part that a ring begins with.
    """
    shift = jnp.maximum(_level(a), _level(b))
    weight_a, weight_b = (p.weight * jnp.exp2(_level(p) - shift) for p in (a, b))
    weight = weight_a + weight_b
    nobody = weight == 0
    share = weight_b / jnp.where(nobody, 1, weight)
    squares = (1 - share) ** 2 * _inverse(a) + share**2 * _inverse(b)
    return Part(
        x0=a.x0 + share[:, None] * (b.x0 - a.x0),
        weight=weight,
        shift=shift,
        offset=b.offset,
        effective_sample_size=jnp.where(nobody, 0, 1 / jnp.where(nobody, 1, squares)),
    )


def _level(part: Part) -> jax.Array:
    """The shift, below every other where nobody has weight."""
    return jnp.where(part.weight == 0, -1e30, part.shift)


def _inverse(part: Part) -> jax.Array:
    """sum_j w_ij^2 over (sum_j w_ij)^2; 0 where nobody has weight."""
    nobody = part.effective_sample_size == 0
    return jnp.where(nobody, 0, 1 / jnp.where(nobody, 1, part.effective_sample_size))
