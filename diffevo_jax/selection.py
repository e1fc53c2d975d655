"""Whether a run selects and learns at all, and what to change where it does not."""

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
    "temperature) or, where the kernel is too narrow for so many genes, broaden it: by a "
    "projection (latent_dim), denoisers.broadened() or consensus(). Two or three individuals are "
    "too few to learn from"
)

DIVERGED = (
    "the training of the network ended without a number in {} of {} generations, in which the "
    "kernel took its place. Lower its learning_rate, or evaluate fewer outliers"
)
CONSTANT = (
    "condition {} had one value in all individuals of every generation: nothing depends on it. "
    "Leave it out, or evaluate something that differs"
)

# The fields of a generation's info that runs record for `advice`; of the second the mean.
SIGNS = ("selected", "effective_sample_size")


def signs(info: Any) -> dict[str, jax.Array]:
    """Take from a generation's info what `advice` needs, as far as it is there.

    Numbers `[]`; constant is `[C]`, whether a condition has one value. Where it does not say who
    was selected, whoever has a finite fitness may have been.
    """
    found = {"selected": jnp.any(jnp.isfinite(info.fitness))}
    if all(getattr(info, name, None) is not None for name in SIGNS):
        found["selected"] = info.selected
        found["effective_sample_size"] = jnp.mean(info.effective_sample_size)
    if getattr(info, "learned", None) is not None:
        found["diverged"] = info.learned.diverged
    if hasattr(info, "conditions"):
        found["constant"] = jnp.all(info.conditions == info.conditions[:1], axis=0)
    return found


def advice(
    selected: np.ndarray | None = None,
    effective_sample_size: np.ndarray | None = None,
    diverged: np.ndarray | None = None,
    constant: np.ndarray | None = None,
) -> str | None:
    """Say what to change where a run did not select or learn; None where it did.

    `signs` of every generation, `[T, ...]`.
    """
    if selected is not None and not np.any(selected):
        return NOBODY_SELECTED
    if diverged is not None and np.any(diverged):
        return DIVERGED.format(np.sum(diverged), len(diverged))
    if constant is not None and np.any(np.all(constant, axis=0)):
        return CONSTANT.format(int(np.argmax(np.all(constant, axis=0))))
    if effective_sample_size is None:
        return None
    alone = effective_sample_size < ALONE
    if np.mean(alone) < MANY:
        return None
    if alone[-1]:
        together = np.flatnonzero(~alone)  # generations count from 1
        return NOBODY_SHARED.format(f"from generation {max(together, default=-1) + 2} on")
    return NOBODY_SHARED.format(f"in {alone.sum()} of {len(alone)} generations")
