"""What every implementation of the estimator returns."""

from typing import NamedTuple

import jax


class Posterior(NamedTuple):
    """The clean estimate and how well it is supported.

    x0: posterior mean, `[N, D]`.
    log_evidence: log Z_i = log sum_j w_ij, `[N]`, Z the denominator of the paper's Eq. 8 with the
        Gaussian's peak at 1; -inf where nobody has weight.
    effective_sample_size: (sum_j w_ij)^2 / sum_j w_ij^2, `[N]`, from 1 to N; 0 where nobody has
        weight.
    """

    x0: jax.Array
    log_evidence: jax.Array
    effective_sample_size: jax.Array
