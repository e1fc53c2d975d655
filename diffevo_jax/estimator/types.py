"""What goes into every implementation of the estimator, and what comes out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Problem(NamedTuple):
    """Weighted averages to take: checked arguments, the floor already apart.

    query: places to estimate at, `[N, d]`. key: places of the supports, `[M, d]`.
    value: genomes of the supports, `[M, D]`.
    log_weight: log g of the supports, `[M]`; -inf weighs zero.
    alpha, one_minus_alpha: the level, `[]`.
    own: log g of the queries, `[N]`, where they are among the supports; None where they are not.
    precision: of the matmul with the genomes, as `jax.lax.dot` takes it.
    """

    query: jax.Array
    key: jax.Array
    value: jax.Array
    log_weight: jax.Array
    alpha: jax.Array
    one_minus_alpha: jax.Array
    own: jax.Array | None
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST

    def own_weight(self) -> jax.Array:
        """Log w_ii, `[N]`: a query's weight for itself, where it is among the supports."""
        assert self.own is not None
        shrink = self.one_minus_alpha / (1 + jnp.sqrt(self.alpha))
        return self.own - shrink**2 * jnp.sum(self.query**2, axis=1) / (2 * self.one_minus_alpha)


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
