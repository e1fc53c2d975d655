"""Diffusion Evolution as a denoising loop: weigh, denoise, move (paper Algorithm 1).

weights = fitness map of the fitness                `fitness`
x0      = denoiser(population, weights)             `denoisers`, under one of the `kernels`
x_prev  = sampler(population, x0)                   `samplers`
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import ArrayLike

from diffevo_jax.algorithm import Algorithm, descriptors_of, make_algorithm
from diffevo_jax.checks import InputError, check_takes
from diffevo_jax.denoisers._posterior_mean import posterior_mean
from diffevo_jax.fitness import FitnessMap, check_by_fitness, standardised, weigh
from diffevo_jax.parts import Denoiser, Learned, Level, Move, Posterior, Sampler, Weights
from diffevo_jax.samplers._ddim import ddim
from diffevo_jax.schedules import Schedule, check_schedule, from_alpha

# The default parts: a fitness map that takes any unit and sign, and the paper's other two.
STANDARDISED = standardised()
POSTERIOR_MEAN = posterior_mean()
DDIM = ddim()
# In `step` the denoiser's key is folded with a number beyond every individual, for the keys of the
# individuals are the sampler's. In `init` the sampler's is, for the denoiser draws with the key.
DENOISER = 2**32 - 1
SAMPLER = 2**32 - 1


class State(NamedTuple):
    """What the next step needs.

    population: x_t, `[N, D]`.
    t: index of the present level, from T - 1 (noisiest) to 0 (finished).
    denoiser, sampler: their memories, any pytrees.
    """

    population: jax.Array
    t: jax.Array
    denoiser: Any
    sampler: Any


class Info(NamedTuple):
    """What a figure shows of one evaluated generation; never carried.

    population: the genomes that `fitness` belongs to, `[N, D]`.
    fitness: as evaluated, `[N]`.
    t: index of their level. alpha: its signal level.
    x0: their clean estimate, `[N, D]`.
    log_weight: log g, `[N]`; NaN for an individual left out.
    log_evidence, effective_sample_size: see `Posterior`, `[N]`.
    num_invalid: individuals whose fitness, genes or descriptors are not finite, or whose fitness
        has no weight under the fitness map.
    selected: False when no individual had a valid weight, so that the step did not select.
    learned: see `Posterior`.
    """

    population: jax.Array
    fitness: jax.Array
    t: jax.Array
    alpha: jax.Array
    x0: jax.Array
    log_weight: jax.Array
    log_evidence: jax.Array
    effective_sample_size: jax.Array
    num_invalid: jax.Array
    selected: jax.Array
    learned: Learned | None


def denoising_evolution(
    schedule: Schedule | ArrayLike,
    *,
    fitness_map: FitnessMap = STANDARDISED,
    denoiser: Denoiser = POSTERIOR_MEAN,
    sampler: Sampler = DDIM,
    mesh: Mesh | None = None,
) -> Algorithm:
    """Configure an evolution that denoises: fitness map, denoiser and sampler are parts to choose.

    schedule: from `schedules`, or alpha `[T]` of your own, strictly decreasing inside (0, 1).
    fitness_map: (fitness `[N]`, valid `[N]`), higher is better, to log weight `[N]`; from
        `fitness`. The default, `standardised`, takes fitness of any sign and unit.
    mesh: split the individuals over all axes of this mesh, in `init` and `step`, and keep them
        split; None keeps them where they are. Parts find it in their `Level`. See `sharding`.
    denoiser: from `denoisers`, or your own `Denoiser`; the paper's by default.
    sampler: from `samplers`, or your own `Sampler`; the paper's by default.

    Raises InputError, here or in `init` and `step`, naming the argument, expected and seen; also
    when a memory comes back with another structure, shape or dtype than it had.
    """
    schedule = check_schedule(schedule) if isinstance(schedule, Schedule) else from_alpha(schedule)
    if schedule.alpha.ndim != 1 or schedule.alpha.shape != schedule.one_minus_alpha.shape:
        raise InputError(
            "schedule",
            "alpha and one_minus_alpha of one shape [T]",
            f"{schedule.alpha.shape} and {schedule.one_minus_alpha.shape}",
        )
    for name, part, kind in (("denoiser", denoiser, Denoiser), ("sampler", sampler, Sampler)):
        if not isinstance(part, kind):
            raise InputError(name, f"a {kind.__name__}, made by its factory", f"{part!r:.80}")
        check_takes(f"{name}.init", part.init, ("key", "population"))
    check_takes(
        "denoiser.estimate", denoiser.estimate, ("key", "memory", "x_t", "weights", "level")
    )
    check_takes("sampler.move", sampler.move, ("key", "memory", "x_t", "x0", "level"))
    if not callable(fitness_map):
        raise InputError(
            "fitness_map",
            "a function, such as de.fitness.boltzmann(temperature)",
            f"{fitness_map!r:.80}",
        )

    def level(t: jax.Array) -> Level:
        before = jnp.maximum(t - 1, 0)
        return Level(
            t,
            schedule.alpha[t],
            schedule.one_minus_alpha[t],
            schedule.alpha[before],
            schedule.one_minus_alpha[before],
            mesh=mesh,
        )

    def init(key: jax.Array, population: jax.Array, t: jax.Array) -> State:
        key_sampler = jax.random.fold_in(key, SAMPLER)
        return State(
            population, t, denoiser.init(key, population), sampler.init(key_sampler, population)
        )

    estimate = _checked("denoiser", denoiser.estimate, Posterior, "x0")
    move = _checked("sampler", sampler.move, Move, "population")

    def step(
        key: jax.Array,
        state: State,
        fitness: jax.Array,
        x_t: jax.Array,
        aux: Any,
    ) -> tuple[State, Info]:
        # Level 0 has no next one; levels that differ keep the gradient of its move finite.
        here, moving = level(state.t), level(jnp.maximum(state.t, 1))
        key_denoiser = jax.random.fold_in(key, DENOISER)
        descriptors = descriptors_of(aux, len(x_t))
        log_weight, weights = _weigh(fitness_map, fitness, x_t, descriptors)
        memory, posterior = estimate(key_denoiser, state.denoiser, x_t, weights, here)
        sampler_memory, moved = move(key, state.sampler, x_t, posterior.x0, moving)
        memory = denoiser.moved(memory, moved, moving)
        info = Info(
            population=x_t,
            fitness=fitness,
            t=here.t,
            alpha=here.alpha,
            x0=posterior.x0,
            log_weight=log_weight,
            log_evidence=posterior.log_evidence,
            effective_sample_size=posterior.effective_sample_size,
            num_invalid=jnp.sum(jnp.isnan(log_weight)),
            selected=jnp.any(log_weight > -jnp.inf),
            learned=posterior.learned,
        )
        return State(moved.population, state.t, memory, sampler_memory), info

    return make_algorithm(init, step, len(schedule.alpha), mesh=mesh, has_aux=True)


def _weigh(
    fitness_map: FitnessMap,
    fitness: jax.Array,
    x_t: jax.Array,
    descriptors: jax.Array | None,
) -> tuple[jax.Array, Weights]:
    """Return log weights, NaN for those left out, and the denoisers' `Weights`.

    In the latter all individuals weigh the same where none has a weight.
    """
    # An individual with genes, or a descriptor, that are not finite takes no part.
    usable = jnp.all(jnp.isfinite(x_t), axis=1)
    if descriptors is not None:
        usable &= jnp.all(jnp.isfinite(descriptors), axis=1)
    log_weight = weigh(fitness_map, fitness, usable, descriptors)
    selected = jnp.any(log_weight > -jnp.inf)
    shared = jnp.where(selected, log_weight, jnp.where(usable, 0, jnp.nan))

    def by_fitness(fitness: jax.Array) -> jax.Array:
        return weigh(check_by_fitness(fitness_map), fitness)

    return log_weight, Weights(shared, fitness, by_fitness, descriptors)


def _checked(
    name: str, function: Callable[..., Any], kind: type, genomes: str
) -> Callable[..., Any]:
    """Wrap a part's function, which must return memory, and something with genomes like x_t."""

    def checked(key: jax.Array, memory: Any, x_t: jax.Array, *rest: Any) -> tuple[Any, Any]:
        result = function(key, memory, x_t, *rest)
        expected = f"to return (memory, {kind.__name__}), its {genomes} of shape {x_t.shape}"
        try:
            memory, output = result
            shape = jnp.shape(getattr(output, genomes))
        except (TypeError, ValueError, AttributeError):
            raise InputError(name, expected, f"{result!r:.80}") from None
        if shape != x_t.shape:
            raise InputError(name, expected, f"{genomes} of shape {shape}")
        return memory, output

    return checked
