"""One search for controls: down the levels of noise, around one target."""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffevo_jax.checks import InputError, concrete
from diffevo_jax.denoisers._consensus import consensus
from diffevo_jax.denoising import denoising_evolution
from diffevo_jax.fitness import FitnessMap
from diffevo_jax.latent import project
from diffevo_jax.presets._renoise import renoise
from diffevo_jax.presets._system import RollOut, first_of
from diffevo_jax.samplers._ddim import ddim
from diffevo_jax.schedules import Schedule

# How much of the noise's covariance a level renews; less where it has more genes than samples know.
RATE, KNOWN = 0.2, 5


class Candidate(NamedTuple):
    """A genome, `[D]`, with what its roll-out came to."""

    genome: jax.Array
    outcome: RollOut


class Descent(NamedTuple):
    """What a search came to.

    best: the best roll-out. target: the last weighted mean, `[D]`. shape: the root of the noise's
    covariance, `[D, D]`, None where there was none. spread: the deviation of the first level's
    features, `[d]`. kept: the best genomes of the last level, `[K, D]`, None where none are.
    """

    best: Candidate
    target: jax.Array
    shape: jax.Array | None
    spread: jax.Array
    kept: jax.Array | None


def descend(
    key: jax.Array,
    evaluate: Callable[[jax.Array], tuple[RollOut, jax.Array]],
    schedule: Schedule,
    levels: int | jax.Array,
    *,
    size: int,
    origin: jax.Array,
    width: jax.Array | np.ndarray,
    fitness_map: FitnessMap,
    shape: jax.Array | None = None,
    learns: ArrayLike = True,
    kept: jax.Array | None = None,
) -> Descent:
    """Go down the lowest `levels` of a schedule; the first roll-out of a level is the target.

    evaluate: genomes `[N, D]` -> RollOut of each, and fitness `[N]`. size: N.
    origin: `[D]`, where it begins. width: `[D]` or `[]`, the noise of alpha 0. fitness_map: of
        weights.
    shape: a root of the noise's covariance to begin with, `[D, D]`; None leaves the noise round.
    learns: whether the shape is learned.
    kept: genomes, `[K, D]`, that the first level evaluates as well, in the place of samples; each
        level after it those of the one before that were best.
    """

    def evaluate_around(population: jax.Array) -> tuple[RollOut, jax.Array]:
        return evaluate(origin + width * population)

    # Noise without memory, which the schedule takes away.
    algorithm = denoising_evolution(
        schedule,
        fitness_map=fitness_map,
        denoiser=consensus(),
        sampler=ddim(freshness=1, centred=True),
    )
    key_noise, key_run = jax.random.split(key)
    centre = jnp.zeros_like(origin)
    population = renoise(key_noise, jnp.zeros((size, *centre.shape)), schedule, levels - 1)
    state = algorithm.init(key_run, population)
    state = state._replace(t=jnp.full_like(state.t, levels - 1))
    keys = jax.random.split(key_run, len(schedule.alpha))
    shapes = jax.eval_shape(evaluate_around, population)[0]
    nothing = jax.tree.map(lambda leaf: jnp.full(leaf.shape[1:], jnp.nan, leaf.dtype), shapes)

    def generation(place: jax.Array, carry: Any) -> Any:
        state, (best, target, shape, spread, kept) = carry
        steps = (state.population - target).at[0].set(0)
        if shape is not None:
            steps = project(steps, shape.T)
        population = target + steps
        if kept is not None:
            population = population.at[1 : 1 + len(kept)].set(kept)
        state = state._replace(population=population)
        outcome, fitness = evaluate_around(population)
        if kept is not None:
            usable = jnp.where(jnp.isnan(fitness), -jnp.inf, fitness)
            kept = population[jax.lax.top_k(usable, len(kept))[1]]
        best = _better(best, Candidate(state.population, outcome))
        deviation = jnp.sqrt(schedule.one_minus_alpha[state.t])
        state, info = algorithm.step(keys[place], state, fitness)
        if shape is not None:
            steps = steps / deviation
            shape = jax.lax.cond(
                learns, _learn, lambda shape, *_: shape, *(shape, steps, info.log_weight)
            )
        spread = jnp.where(place == 0, jnp.nanstd(outcome.features, axis=0), spread)
        return state, Descent(best, info.x0[0], shape, spread, kept)

    if kept is not None:
        kept = (kept - origin) / width
    found = Descent(Candidate(centre, nothing), centre, shape, nothing.features, kept)
    _, found = jax.lax.fori_loop(0, levels, generation, (state, found))
    best = found.best._replace(genome=origin + width * found.best.genome)
    kept = None if found.kept is None else origin + width * found.kept
    return found._replace(best=best, target=origin + width * found.target, kept=kept)


def _learn(shape: jax.Array, steps: jax.Array, log_weight: jax.Array) -> jax.Array:
    """Renew a share of the noise's covariance, and return its root of determinant 1, `[D, D]`.

    C = (1 - rate) C + rate sum_n w_n s_n s_n'

    shape: the root of C before. steps: s, `[N, D]`, in units of the level's noise. log_weight:
        `[N]`, NaN for those left out.
    """
    num_genes = len(shape)
    rate = min(RATE, KNOWN / num_genes)
    log_weight = jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight)
    weight = jnp.exp(log_weight - jax.nn.logsumexp(log_weight))
    weighed = jnp.matmul(steps.T * weight, steps, precision=jax.lax.Precision.HIGHEST)
    before = jnp.matmul(shape, shape.T, precision=jax.lax.Precision.HIGHEST)
    after = (1 - rate) * before + rate * weighed
    least = 1e-6 * jnp.trace(after) / num_genes  # a root in float32 exists
    root = jnp.linalg.cholesky(after + least * jnp.eye(num_genes))
    root = root / jnp.exp(jnp.mean(jnp.log(jnp.diag(root))))
    return jnp.where(jnp.all(jnp.isfinite(root)), root, shape)


def _better(best: Candidate, generation: Candidate) -> Candidate:
    """Return the best of the best so far and a generation, `[N, ...]`."""
    both = jax.tree.map(lambda one, all: jnp.concatenate([one[None], all]), best, generation)
    row = first_of(both.outcome)
    return jax.tree.map(lambda leaf: leaf[row], both)


def falling(noise: np.ndarray) -> tuple[Schedule, np.ndarray]:
    """Make schedules of noise by level, `[..., T]`, growing; and the width of alpha 0, `[...]`.

    1 - alpha has to be below 1, so that the width is a little more than the widest noise.
    """
    width = 1.01 * noise[..., -1]
    one_minus_alpha = (noise / width[..., None]) ** 2
    schedule = Schedule(
        jnp.asarray(1 - one_minus_alpha, float), jnp.asarray(one_minus_alpha, float)
    )
    return schedule, width


def check_noise(noise: Any) -> tuple[float, float]:
    """Return the first level's noise and the last one's; raise InputError unless it falls."""
    try:
        wide, narrow = (float(value) for value in noise)
    except (TypeError, ValueError):
        raise InputError("noise", "two numbers, (first, last)", f"{noise!r:.60}") from None
    if not 0 < narrow < wide < math.inf:
        raise InputError("noise", "finite first > last > 0", f"({wide:g}, {narrow:g})")
    return wide, narrow


def warn_without_cost(name: str, cost: jax.Array) -> None:
    """Warn where a cost is known, and NaN."""
    known = concrete(cost)
    if known is not None and not np.all(np.isfinite(known)):
        warnings.warn(
            f"{name}: no roll-out had a finite cost, so that nothing was planned; look at one "
            "roll-out with controls in the middle of the bounds",
            stacklevel=3,
        )
