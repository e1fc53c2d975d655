"""What goes into every implementation of the estimator, and what comes out."""

import dataclasses
from dataclasses import field
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Log weight of a support that has none, in nats: finite, so that derivatives are.
NO_WEIGHT = -1e25


class Frame(NamedTuple):
    """Where all supports are, for sums that keep their digits; no exact result depends on it.

    middle: that of the places, `[d]`. squares: mean squared distance from it by dimension, `[d]`.
    longest: largest squared distance from it, `[]`. centre: middle of the genomes, `[D]`; 0, `[]`,
    where there are so many genes that a pass over them would cost.
    """

    middle: jax.Array
    squares: jax.Array
    longest: jax.Array
    centre: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Operands:
    """Weighted averages to take: checked and finite.

    query: places to estimate at, `[N, d]`. place: places of the supports, `[M, d]`.
    value: what is averaged, genomes of the supports, `[M, D]`.
    log_weight: log g of the supports, `[M]`, the largest 0; `NO_WEIGHT` weighs zero.
    alpha, one_minus_alpha: the level, `[]`.
    own: log g of the queries, `[N]`, where they are among the supports; None where they are not.
    frame: that of all supports, where these are a share of them.
    precision: that of the matmul with many genes, as `jax.lax.dot` takes it; None keeps all digits.
    latent: whether places are coordinates of their own; else they are a genome's first columns.
    still: whether supports stay where they are, |z_i - z_j|^2, rather than shrink by sqrt(alpha).
    sample_size: whether the sums of squared weights are needed.
    """

    query: jax.Array
    place: jax.Array
    value: jax.Array
    log_weight: jax.Array
    alpha: jax.Array
    one_minus_alpha: jax.Array
    own: jax.Array | None
    frame: Frame
    precision: jax.lax.PrecisionLike = field(metadata={"static": True})
    latent: bool = field(metadata={"static": True})
    still: bool = field(metadata={"static": True})
    sample_size: bool = field(metadata={"static": True})


class Sums(NamedTuple):
    """What an implementation returns: sums over the supports, in units of 2^(shift - offset).

    shift: `[N]`, finite, near the largest weight's bits. offset: `[N]`, bits that all weights of a
    query have in common; it may be so large that the shift would lose its digits in their sum.
    weight: sum_j w_ij, `[N]`; 0 where no support has weight. squares: sum_j w_ij^2, `[N]`, None
    where not needed. total: sum_j w_ij (x_j - centre), `[N, D]`.
    """

    shift: jax.Array
    offset: jax.Array
    weight: jax.Array
    squares: jax.Array | None
    total: jax.Array


def merge(a: Sums, b: Sums) -> Sums:
    """Merge sums over two shares of the supports, which have one offset."""
    # A shift without weight does not count.
    shift_a, shift_b = (jnp.where(sums.weight == 0, -1e30, sums.shift) for sums in (a, b))
    shift = jax.lax.stop_gradient(jnp.maximum(shift_a, shift_b))
    fade_a, fade_b = jnp.exp2(shift_a - shift), jnp.exp2(shift_b - shift)
    squares = None
    if a.squares is not None and b.squares is not None:
        squares = fade_a**2 * a.squares + fade_b**2 * b.squares
    return Sums(
        shift=shift,
        offset=b.offset,
        weight=fade_a * a.weight + fade_b * b.weight,
        squares=squares,
        total=fade_a[:, None] * a.total + fade_b[:, None] * b.total,
    )
