"""What a denoiser and a sampler are, for `denoising_evolution`: the seams for ideas of your own.

Whatever is configured is closed over by their factories; whatever is learned, remembered or
averaged is memory: any pytree of arrays that keeps its shapes. It travels in the state, so that
checkpoints save it, meshes split its leaves `[N, ...]` and `vmap` maps it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from diffevo_jax.kernels import Posterior


class Level(NamedTuple):
    """Where a run stands; numbers `[]` that may be traced.

    t: index of the level, from T - 1 (noisiest) to 0 (cleanest).
    alpha, one_minus_alpha: signal level, and 1 - alpha to full relative precision.
    alpha_prev, one_minus_alpha_prev: of level t - 1, where the step goes; of level 0 at t = 0,
        where no sampler is called.
    """

    t: jax.Array
    alpha: jax.Array
    one_minus_alpha: jax.Array
    alpha_prev: jax.Array
    one_minus_alpha_prev: jax.Array


class Weights(NamedTuple):
    """What the fitness map makes of a generation.

    log_weight: log g, `[N]`: -inf weighs zero, NaN takes no part; all 0 where nobody had a weight.
    fitness: as given, `[N]`; may be NaN.
    weigh: the fitness map itself, fitness `[M]` -> log weight `[M]`, for supports that are not this
        generation alone: maps that compare individuals have to see all of them at once.
    """

    log_weight: jax.Array
    fitness: jax.Array
    weigh: Callable[[jax.Array], jax.Array]


class Move(NamedTuple):
    """How the next population was drawn: x_prev ~ N(mean, sigma^2 I).

    population: x_prev, `[N, D]`. mean: `[N, D]`. sigma: `[]`; 0 for a deterministic move.
    """

    population: jax.Array
    mean: jax.Array
    sigma: jax.Array


class Denoiser(NamedTuple):
    """From a weighted population to clean targets.

    init: population `[N, D]` -> memory; () for none.
    estimate: (key, memory, x_t `[N, D]`, weights, level) -> (Posterior, memory).
    moved: (memory, move) -> memory: sees how the next population was drawn.
    """

    init: Callable[[jax.Array], Any]
    estimate: Callable[[jax.Array, Any, jax.Array, Weights, Level], tuple[Posterior, Any]]
    moved: Callable[[Any, Move], Any] = lambda memory, move: memory


class Sampler(NamedTuple):
    """From clean targets to the next population.

    init: population `[N, D]` -> memory; () for none.
    move: (key, memory, x_t `[N, D]`, x0 `[N, D]`, level) -> (Move, memory).
    """

    init: Callable[[jax.Array], Any]
    move: Callable[[jax.Array, Any, jax.Array, jax.Array, Level], tuple[Move, Any]]
