"""Whether a run selects at all, and what to change where it does not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Below this mean effective sample size individuals average themselves alone, or the best one.
ALONE = 1.05
MANY = 1 / 3  # share of the generations, from which on that is said

NOBODY_SELECTED = (
    "nothing was selected: in no generation did an individual have a valid weight. The fitness is "
    "not finite, or it is negative under a fitness map that needs 0 or more (identity, power); "
    "fitness.standardised() takes any sign and any unit"
)
NOBODY_SHARED = (
    "no individual learned from others {}: their mean effective "
    "sample size was 1. Select less sharply (fitness.standardised(), a higher "
    "temperature) or, with many genes, broaden the kernel: diffusion_evolution does, or a "
    "projection (latent_dim), denoisers.broadened() or consensus()"
)

# The fields of a generation's info that `advice` needs; of the second the mean.
SIGNS = ("selected", "effective_sample_size")


def signs(info: Any) -> tuple[jax.Array, ...]:
    """Take from a generation's info what `advice` needs, numbers `[]`; () where it has none."""
    if not all(hasattr(info, name) for name in SIGNS):
        return ()
    return info.selected, jnp.mean(info.effective_sample_size)


def advice(selected: np.ndarray, effective_sample_size: np.ndarray) -> str | None:
    """Say what to change where a run did not select; None where it did.

    selected, effective_sample_size: `signs` of every generation, `[T]`.
    """
    if not np.any(selected):
        return NOBODY_SELECTED
    alone = effective_sample_size < ALONE
    if np.mean(alone) < MANY:
        return None
    if alone[-1]:
        together = np.flatnonzero(~alone)  # generations count from 1
        return NOBODY_SHARED.format(f"from generation {max(together, default=-1) + 2} on")
    return NOBODY_SHARED.format(f"in {alone.sum()} of {len(alone)} generations")
