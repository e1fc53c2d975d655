"""The parts of a step, for `denoising_evolution`: the seams for ideas of your own.

Whatever is configured is closed over by their factories; whatever is drawn, learned or remembered
is memory: any pytree of arrays that keeps its shapes. It travels in the state, so that checkpoints
save it, meshes split its leaves `[N, ...]` and `vmap` maps it.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import field
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Level:
    """Where a run stands; numbers `[]` that may be traced.

    t: index of the level, from T - 1 (noisiest) to 0 (cleanest).
    alpha, one_minus_alpha: signal level, and 1 - alpha to full relative precision.
    alpha_prev, one_minus_alpha_prev: the level t - 1, where the step goes; level 0 at t = 0,
        where no population moves.
    mesh: the devices that share the individuals; None where one holds them all.
    """

    t: jax.Array
    alpha: jax.Array
    one_minus_alpha: jax.Array
    alpha_prev: jax.Array
    one_minus_alpha_prev: jax.Array
    mesh: Mesh | None = field(default=None, kw_only=True, metadata={"static": True})


class Weights(NamedTuple):
    """What the fitness map makes of a generation.

    log_weight: log g, `[N]`: -inf weighs zero, NaN takes no part; all 0 where none has a weight.
    fitness: as evaluated, `[N]`; may be NaN.
    weigh: the fitness map itself, fitness `[M]` -> log weight `[M]`, for supports that are not this
        generation alone: a map that compares individuals has to see all of them at once. Raises
        InputError where the map compares behaviour.
    descriptors: how the individuals behave, `[N, k]`; None where the fitness function says nothing.
    """

    log_weight: jax.Array
    fitness: jax.Array
    weigh: Callable[[jax.Array], jax.Array]
    descriptors: jax.Array | None = None


class Learned(NamedTuple):
    """How a network that estimates came out of its training; numbers `[]`.

    share: of the estimate that is the network's, from 0 to 1. loss: of its predictions for genomes
        that it was not trained on. diverged: whether training ended without a number, so that the
        kernel made the whole estimate.
    """

    share: jax.Array
    loss: jax.Array
    diverged: jax.Array


class Posterior(NamedTuple):
    """The clean estimate and how well it is supported.

    x0: posterior mean, `[N, D]`.
    log_evidence: log Z_i = log sum_j w_ij, `[N]`, Z the denominator of the paper's Eq. 8 with the
        Gaussian's peak at 1; -inf where no support has weight.
    effective_sample_size: (sum_j w_ij)^2 / sum_j w_ij^2, `[N]`, from 1 to M; 0 where no support has
        weight.
    learned: None where no network had a part in it.
    """

    x0: jax.Array
    log_evidence: jax.Array
    effective_sample_size: jax.Array
    learned: Learned | None = None


class Move(NamedTuple):
    """How the next population was drawn: x_prev ~ N(mean, sigma^2 I).

    population: x_prev, `[N, D]`. mean: `[N, D]`. sigma: `[]`; 0 for a deterministic move.
    """

    population: jax.Array
    mean: jax.Array
    sigma: jax.Array


def no_memory(key: jax.Array, population: jax.Array) -> tuple[()]:
    """Remember nothing: `init` of a part that has nothing to draw, learn or carry."""
    return ()


class Kernel(NamedTuple):
    """How much individuals count for each other, by fitness and by distance.

    init: (key, population `[N, D]`) -> memory, such as a projection that is drawn; () for none.
    average: (memory, x_t `[N, D]`, log_weight `[M]`, level, *, support=None, inverse_temperature=1,
        with_x0=True) -> Posterior. Supports `[M, D]` are what is averaged; None is x_t itself.
        The kernel is raised to the power inverse_temperature. Without with_x0 only the evidence
        and the sample size are needed, and x0 may have one gene.
    follow: (memory, x_t, log_weight `[N]`) -> memory: sees a generation before it is averaged.
    """

    init: Callable[[jax.Array, jax.Array], Any]
    average: Callable[..., Posterior]
    follow: Callable[[Any, jax.Array, jax.Array], Any] = lambda memory, x_t, log_weight: memory


class Denoiser(NamedTuple):
    """From a weighted population to clean targets.

    init: (key, population `[N, D]`) -> memory; () for none.
    estimate: (key, memory, x_t `[N, D]`, weights, level) -> (memory, Posterior).
    moved: (memory, move, level) -> memory: sees how the next population was drawn.
    """

    init: Callable[[jax.Array, jax.Array], Any]
    estimate: Callable[[jax.Array, Any, jax.Array, Weights, Level], tuple[Any, Posterior]]
    moved: Callable[[Any, Move, Level], Any] = lambda memory, move, level: memory


class Sampler(NamedTuple):
    """From clean targets to the next population.

    init: (key, population `[N, D]`) -> memory; () for none.
    move: (key, memory, x_t `[N, D]`, x0 `[N, D]`, level) -> (memory, Move).
    """

    init: Callable[[jax.Array, jax.Array], Any]
    move: Callable[[jax.Array, Any, jax.Array, jax.Array, Level], tuple[Any, Move]]
