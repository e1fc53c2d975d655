"""Diffusion Evolution as a denoising loop: weigh, denoise, move (paper Algorithm 1).

weights = fitness map of the fitness                the step
x0      = denoiser(population, weights)             `denoisers`
x_prev  = sampler(population, x0)                   `samplers`
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import ArrayLike

from diffevo_jax.algorithm import Algorithm
from diffevo_jax.checks import Fraction, NonNegative, check_key, check_population
from diffevo_jax.denoisers._posterior_mean import posterior_mean
from diffevo_jax.fitness import FitnessMap, standardised
from diffevo_jax.parts import Denoiser, Level, Sampler, Weights
from diffevo_jax.samplers._ddim import ddim
from diffevo_jax.schedules import Schedule, check_schedule, from_alpha
from diffevo_jax.sharding import check_mesh, split

STANDARDISED = standardised()  # what fitness is weighed by unless said


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
    fitness: as given, `[N]`.
    t: index of their level. alpha: its signal level.
    x0: their clean estimate, `[N, D]`.
    log_weight: log g, `[N]`; NaN for an individual left out.
    log_evidence, effective_sample_size: of the estimate, `[N]` (`estimator.Posterior`).
    num_invalid: individuals whose fitness or genes are not finite, or whose fitness has no weight
        under the fitness map.
    selected: False when nobody had a valid weight, so that the step went on without selection.
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


def diffusion_evolution(
    schedule: Schedule | ArrayLike,
    *,
    fitness_map: FitnessMap = STANDARDISED,
    eta: Fraction = 1.0,
    projection: jax.Array | None = None,
    floor: NonNegative = 0.0,
    mesh: Mesh | None = None,
) -> Algorithm:
    """Configure Diffusion Evolution, or Latent Space Diffusion Evolution given a projection.

    It is `denoising_evolution` with the paper's denoiser and sampler, `denoisers.posterior_mean`
    and `samplers.ddim`.

    schedule: from `schedules`, or alpha `[T]` of your own, strictly decreasing inside (0, 1).
    fitness_map: fitness `[N]`, higher is better, to log weight `[N]`; from `fitness`. The default,
        `standardised`, takes fitness of any sign and unit. The paper's are `identity`, which leaves
        negative fitness out (`Info.num_invalid`, `Info.selected`), and `boltzmann`.
    eta: noise, in [0, 1]. The paper's control tasks use 1, its benchmarks 0.1; 0 is deterministic.
    projection: `[D, d]`, takes the distances in z = x @ projection (paper Algorithm 2);
        None takes them in genome space.
    floor: 1e-9 reproduces the published code, see `estimate_x0`.
    mesh: split the individuals over all axes of this mesh, in `init` and `step`, and keep them
        split; None keeps them where they are. See `sharding`.

    Settings may be traced: the factory runs under jit, vmap and grad.
    Raises ValueError, here or in `init` and `step`, naming the argument, expected and seen.
    """
    return denoising_evolution(
        schedule,
        fitness_map=fitness_map,
        denoiser=posterior_mean(projection=projection, floor=floor, mesh=mesh),
        sampler=ddim(eta, mesh=mesh),
        mesh=mesh,
    )


def denoising_evolution(
    schedule: Schedule | ArrayLike,
    *,
    fitness_map: FitnessMap = STANDARDISED,
    denoiser: Denoiser,
    sampler: Sampler,
    mesh: Mesh | None = None,
) -> Algorithm:
    """Configure an evolution that denoises: fitness map, denoiser and sampler are parts to choose.

    schedule, fitness_map: of `diffusion_evolution`.
    denoiser: from `denoisers`, or your own `Denoiser`.
    sampler: from `samplers`, or your own `Sampler`.
    mesh: split the state's individuals over all axes of this mesh: population, and the leaves
        `[N, ...]` of both memories. Denoiser and sampler are told of it by their own factories.

    Raises ValueError, here or in `init` and `step`, naming the argument, expected and seen; also
    when a memory comes back with another structure, shape or dtype than it had.
    """
    schedule = check_schedule(schedule) if isinstance(schedule, Schedule) else from_alpha(schedule)
    if schedule.alpha.ndim != 1 or schedule.alpha.shape != schedule.one_minus_alpha.shape:
        raise ValueError(
            "schedule: expected alpha and one_minus_alpha of one shape [T]; seen "
            f"{schedule.alpha.shape} and {schedule.one_minus_alpha.shape}"
        )
    for name, part, kind in (("denoiser", denoiser, Denoiser), ("sampler", sampler, Sampler)):
        if not isinstance(part, kind):
            raise ValueError(
                f"{name}: expected a {kind.__name__}, made by its factory; seen {part!r:.80}"
            )
    if not callable(fitness_map):
        raise ValueError(
            "fitness_map: expected a function, such as de.fitness.boltzmann(temperature); seen "
            f"{fitness_map!r:.80}"
        )
    if mesh is not None:
        check_mesh(mesh)
    num_levels = len(schedule.alpha)

    def over_mesh(tree: Any, size: int) -> Any:
        def placed(leaf: jax.Array) -> jax.Array:
            if mesh is None or jnp.shape(leaf)[:1] != (size,):
                return leaf
            return split(leaf, mesh)

        return jax.tree.map(placed, tree)

    def level(t: jax.Array) -> Level:
        before = jnp.maximum(t - 1, 0)
        return Level(
            t,
            schedule.alpha[t],
            schedule.one_minus_alpha[t],
            schedule.alpha[before],
            schedule.one_minus_alpha[before],
        )

    def init(population: jax.Array) -> State:
        population = over_mesh(check_population(population), len(population))
        memories = denoiser.init(population), sampler.init(population)
        memories = over_mesh(jax.tree.map(jnp.asarray, memories), len(population))
        return State(population, jnp.asarray(num_levels - 1, jnp.int32), *memories)

    def step(
        key: jax.Array, state: State, fitness: jax.Array, population: jax.Array | None = None
    ) -> tuple[State, Info]:
        check_key(key)
        size = len(state.population)
        x_t = over_mesh(state.population, size)
        if population is not None:
            x_t = over_mesh(_evaluated(population, x_t), size)
        try:
            fitness = jnp.asarray(fitness)
        except (TypeError, ValueError):
            raise ValueError(
                f"fitness: expected numbers of shape {(size,)}, one per individual; seen "
                f"{fitness!r:.60}"
            ) from None
        if jnp.iscomplexobj(fitness):
            raise ValueError(f"fitness: expected real numbers; seen {fitness.dtype}")
        if fitness.shape != (size,):
            raise ValueError(
                f"fitness: expected shape {(size,)}, one per individual; seen {fitness.shape}. "
                "jax.vmap(fn) makes one of a population of a function of one genome"
            )
        # Genes that are not finite stay where they are: their individual takes no part.
        usable = jnp.all(jnp.isfinite(x_t), axis=1)
        log_weight = _log_weight(fitness_map, fitness, usable)
        selected = jnp.any(log_weight > -jnp.inf)
        weights = Weights(
            jnp.where(selected, log_weight, jnp.where(usable, 0, jnp.nan)),
            fitness,
            lambda fitness: _log_weight(fitness_map, fitness),
        )
        running, here = state.t > 0, level(state.t)
        key_denoiser = jax.random.fold_in(key, DENOISER)
        posterior, denoiser_memory = _pair(
            "denoiser: expected estimate to return (Posterior, memory), x0 of shape",
            denoiser.estimate(key_denoiser, state.denoiser, x_t, weights, here),
            x_t,
            lambda posterior: posterior.x0,
        )
        # A finished run moves too, and stays where it is: a branch would have an accelerator's host
        # wait. Any two levels that differ keep the gradient of the move dropped finite.
        there = level(jnp.where(running, state.t, 1))
        moved, sampler_memory = _pair(
            "sampler: expected move to return (a Move, memory), its population of shape",
            sampler.move(key, state.sampler, x_t, posterior.x0, there),
            x_t,
            lambda move: move.population,
        )
        denoiser_memory = denoiser.moved(denoiser_memory, moved)
        moved = moved.population.astype(x_t.dtype)
        memories = (
            _checked("denoiser", state.denoiser, denoiser_memory),
            _checked("sampler", state.sampler, sampler_memory),
        )

        def while_running(new: Any, old: Any) -> Any:
            new = jax.tree.map(lambda new, old: jnp.where(running, new, old), new, old)
            return over_mesh(new, size)

        info = Info(
            population=x_t,
            fitness=fitness,
            t=state.t,
            alpha=here.alpha,
            x0=posterior.x0,
            log_weight=log_weight,
            log_evidence=posterior.log_evidence,
            effective_sample_size=posterior.effective_sample_size,
            num_invalid=jnp.sum(jnp.isnan(log_weight)),
            selected=selected,
        )
        return State(
            while_running(moved, x_t),
            jnp.where(running, state.t - 1, state.t),
            *while_running(memories, (state.denoiser, state.sampler)),
        ), info

    return Algorithm(init, step, num_levels)


# What a denoiser's key is folded with: beyond every individual, whose keys are the sampler's.
DENOISER = 2**32 - 1


def _evaluated(population: jax.Array, x_t: jax.Array) -> jax.Array:
    population = jnp.asarray(population)
    if population.shape != x_t.shape:
        raise ValueError(
            f"population: expected what was evaluated in place of the state's, of its shape "
            f"{x_t.shape}; seen {population.shape}"
        )
    return population.astype(x_t.dtype)


def _pair(expected: str, seen: Any, x_t: jax.Array, genomes: Callable) -> tuple[Any, Any]:
    """What a denoiser or a sampler returns: something with genomes of x_t's shape, and memory."""
    try:
        made, memory = seen
        shape = jnp.shape(genomes(made))
    except (TypeError, ValueError, AttributeError):
        raise ValueError(f"{expected} {x_t.shape}; seen {seen!r:.80}") from None
    if shape != x_t.shape:
        raise ValueError(f"{expected} {x_t.shape}; seen {shape}")
    return made, memory


def _checked(name: str, before: Any, after: Any) -> Any:
    """The memory of a denoiser or a sampler, which must keep its shape to be carried."""

    def shapes(memory: Any) -> Any:
        return jax.tree.map(lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", memory)

    if jax.tree.structure(before) != jax.tree.structure(after) or shapes(before) != shapes(after):
        raise ValueError(
            f"{name}: expected a memory that keeps its structure, shapes and dtypes, "
            f"{shapes(before)} of its init; seen {shapes(after)}"
        )
    return after


def _log_weight(
    fitness_map: FitnessMap, fitness: jax.Array, usable: jax.Array | bool = True
) -> jax.Array:
    """Log weight `[N]`: NaN wherever the fitness, or its weight, is no usable number."""
    fitness = fitness.astype(jnp.promote_types(fitness.dtype, jnp.float32))
    finite = jnp.isfinite(fitness) & usable
    # The map sees a finite number in every place, so that one bad fitness cannot spread or
    # spoil gradients; the worst valid one moves neither a maximum nor a rank.
    worst = jnp.min(fitness, where=finite, initial=jnp.inf)
    stand_in = jnp.where(jnp.isfinite(worst), worst, 0)
    compares = "where" in inspect.signature(fitness_map).parameters
    where = {"where": finite} if compares else {}
    log_weight = fitness_map(jnp.where(finite, fitness, stand_in), **where)
    shape = getattr(log_weight, "shape", type(log_weight).__name__)
    if shape != fitness.shape:
        raise ValueError(
            f"fitness_map: expected log weights of the fitness's shape {fitness.shape}; seen "
            f"{shape}. A factory is called first: de.fitness.boltzmann(temperature)"
        )
    return jnp.where(finite & (log_weight < jnp.inf), log_weight, jnp.nan)
