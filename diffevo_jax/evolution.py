"""Diffusion Evolution as pure functions: State, Info, Algorithm, the loop (paper Algorithm 1)."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from diffevo_jax.checks import check_number, concrete, is_traced
from diffevo_jax.ddim import ddim_step
from diffevo_jax.estimator import estimate_posterior
from diffevo_jax.fitness import FitnessMap, identity
from diffevo_jax.latent import project
from diffevo_jax.schedules import Schedule, check_schedule, from_alpha
from diffevo_jax.sharding import check_mesh, over_individuals, split


class State(NamedTuple):
    """What the next step needs.

    population: x_t, `[N, D]`.
    t: index of the present level, from T - 1 (noisiest) to 0 (finished).
    """

    population: jax.Array
    t: jax.Array


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


class Algorithm(NamedTuple):
    """A configured algorithm: two pure functions and its length.

    init: population `[N, D]` -> State.
    step: (key, state, fitness `[N]`) -> (State, Info). A finished run is a fixed point: the
        population stays as it is, and Info describes it.
    num_levels: T: evaluated generations of a whole run, which makes T - 1 updates.
    """

    init: Callable[[jax.Array], State]
    step: Callable[[jax.Array, State, jax.Array], tuple[State, Info]]
    num_levels: int


def diffusion_evolution(
    schedule: Schedule | ArrayLike,
    *,
    fitness_map: FitnessMap = identity,
    eta=1.0,
    projection: jax.Array | None = None,
    floor=0.0,
    mesh: Mesh | None = None,
) -> Algorithm:
    """Configure Diffusion Evolution, or Latent Space Diffusion Evolution given a projection.

    schedule: from `schedules`, or alpha `[T]` of your own, strictly decreasing inside (0, 1).
    fitness_map: fitness `[N]`, higher is better, to log weight `[N]`; from `fitness`. The default,
        `identity`, needs fitness of 0 or more: it leaves negative ones out, and when all are
        negative nothing is selected (`Info.num_invalid`, `Info.selected`). `boltzmann` takes any.
    eta: noise, in [0, 1]. The paper's control tasks use 1, its benchmarks 0.1; 0 is deterministic.
    projection: `[D, d]`, takes the distances in z = x @ projection (paper Algorithm 2);
        None takes them in genome space.
    floor: 1e-9 reproduces the published code, see `estimate_x0`.
    mesh: split the individuals over all axes of this mesh, in `init` and `step`, and keep them
        split; None keeps them where they are. See `sharding`.

    Settings may be traced: the factory runs under jit, vmap and grad.
    Raises ValueError, here or in `init` and `step`, naming the argument, expected and seen.
    """
    schedule = check_schedule(schedule) if isinstance(schedule, Schedule) else from_alpha(schedule)
    if schedule.alpha.ndim != 1 or schedule.alpha.shape != schedule.one_minus_alpha.shape:
        raise ValueError(
            "schedule: expected alpha and one_minus_alpha of one shape [T]; seen "
            f"{schedule.alpha.shape} and {schedule.one_minus_alpha.shape}"
        )
    check_number("eta", eta, 0, 1)
    if projection is not None:
        known = concrete(projection)
        projection = jnp.asarray(projection)
        if projection.ndim != 2:
            raise ValueError(f"projection: expected shape [D, d]; seen {projection.shape}")
        if known is not None and not np.isfinite(known).all():
            raise ValueError("projection: expected finite numbers; seen others")
    if mesh is not None:
        check_mesh(mesh)
    num_levels = len(schedule.alpha)

    def over_mesh(array: jax.Array) -> jax.Array:
        return array if mesh is None else split(array, mesh)

    def init(population: jax.Array) -> State:
        known = not is_traced(population)
        population = jnp.asarray(population)
        if population.ndim != 2 or len(population) < 2:
            raise ValueError(
                f"population: expected shape [N, D] with N >= 2; seen {population.shape}"
            )
        if not jnp.issubdtype(population.dtype, jnp.floating):
            raise ValueError(
                f"population: expected floating-point genomes; seen {population.dtype}"
            )
        if projection is not None and projection.shape[0] != population.shape[1]:
            raise ValueError(
                f"projection: expected shape [D, d] with D = {population.shape[1]} genes; "
                f"seen {projection.shape}"
            )
        if known:
            with jax.ensure_compile_time_eval():
                bad = int(jnp.sum(~jnp.all(jnp.isfinite(population), axis=1)))
            if bad:
                raise ValueError(
                    f"population: expected finite genomes; seen {bad} rows with others"
                )
        return State(over_mesh(population), jnp.asarray(num_levels - 1, jnp.int32))

    def step(key: jax.Array, state: State, fitness: jax.Array) -> tuple[State, Info]:
        x_t, t = over_mesh(state.population), state.t
        fitness = jnp.asarray(fitness)
        if fitness.shape != x_t.shape[:1]:
            raise ValueError(
                f"fitness: expected shape {x_t.shape[:1]}, one per individual; seen {fitness.shape}"
            )
        # Genes that are not finite stay where they are: their individual takes no part.
        usable = jnp.all(jnp.isfinite(x_t), axis=1)
        log_weight = jnp.where(usable, _log_weight(fitness_map, fitness), jnp.nan)
        selected = jnp.any(log_weight > -jnp.inf)

        running = t > 0
        alpha_t, one_minus_alpha_t = schedule.alpha[t], schedule.one_minus_alpha[t]
        posterior = estimate_posterior(
            x_t,
            jnp.where(selected, log_weight, jnp.where(usable, 0, jnp.nan)),
            alpha_t,
            z_t=None if projection is None else project(x_t, projection),
            one_minus_alpha=one_minus_alpha_t,
            floor=floor,
            mesh=mesh,
        )
        # A finished run moves too, and stays where it is: a branch would have an accelerator's host
        # wait. Any two levels that differ keep the gradient of the move dropped finite.
        before = jnp.where(running, t, 1)
        after = before - 1

        def move(keys: jax.Array, population: tuple[jax.Array, jax.Array]) -> jax.Array:
            x_t, x0 = population
            x_prev = ddim_step(
                keys,
                x_t,
                x0,
                alpha_t=schedule.alpha[before],
                alpha_prev=schedule.alpha[after],
                eta=eta,
                one_minus_alpha_t=schedule.one_minus_alpha[before],
                one_minus_alpha_prev=schedule.one_minus_alpha[after],
            )
            return x_prev.astype(x_t.dtype)

        moved = (move if mesh is None else over_individuals(move, mesh))(key, (x_t, posterior.x0))
        info = Info(
            population=x_t,
            fitness=fitness,
            t=t,
            alpha=alpha_t,
            x0=posterior.x0,
            log_weight=log_weight,
            log_evidence=posterior.log_evidence,
            effective_sample_size=posterior.effective_sample_size,
            num_invalid=jnp.sum(jnp.isnan(log_weight)),
            selected=selected,
        )
        population = jnp.where(running, moved, x_t)
        return State(over_mesh(population), jnp.where(running, t - 1, t)), info

    return Algorithm(init, step, num_levels)


def evolve(
    key: jax.Array,
    algorithm: Algorithm,
    fitness_fn: Callable[..., jax.Array],
    population: jax.Array,
    *,
    transform: Callable[[Info], Any] | None = None,
) -> tuple[State, Any]:
    """Run a whole evolution as one `lax.scan`: T evaluated generations, T - 1 updates.

    key: one PRNG key for the run.
    fitness_fn: `population [N, D] -> fitness [N]`, or `(key, population) -> fitness [N]` for a
        stochastic one, which gets a fresh key each generation.
    population: the initial one, `[N, D]`, drawn from N(0, I) in the paper.
    transform: chooses what is kept of each generation, Info -> any pytree; None keeps all of it,
        which is T N D numbers twice. `lambda info: info.fitness` suits large genomes.

    Returns the final State and what `transform` kept, stacked along a leading axis of T; entry -1
    describes the final population.
    """
    generation = make_generation(algorithm, fitness_fn, transform=transform)
    keys = jax.random.split(key, algorithm.num_levels)
    return jax.lax.scan(generation, algorithm.init(population), keys)


def make_generation(
    algorithm: Algorithm,
    fitness_fn: Callable[..., jax.Array],
    *,
    transform: Callable[[Info], Any] | None = None,
) -> Callable[[State, jax.Array], tuple[State, Any]]:
    """Make the body of `evolve`'s scan, (state, key) -> (state, kept), for a scan of your own.

    Scanning it over `split(key, T)` in several pieces gives what `evolve` gives in one.
    """
    keyed = _takes_key(fitness_fn)

    def generation(state: State, key: jax.Array) -> tuple[State, Any]:
        key_fitness, key_step = jax.random.split(key)
        args = (key_fitness, state.population) if keyed else (state.population,)
        state, info = algorithm.step(key_step, state, fitness_fn(*args))
        return state, info if transform is None else transform(info)

    return generation


def _log_weight(fitness_map: FitnessMap, fitness: jax.Array) -> jax.Array:
    """Log weight `[N]`: NaN wherever the fitness, or its weight, is no usable number."""
    fitness = fitness.astype(jnp.promote_types(fitness.dtype, jnp.float32))
    finite = jnp.isfinite(fitness)
    # The map sees a finite number in every place, so that one bad fitness cannot spread or
    # spoil gradients; the worst valid one moves neither a maximum nor a rank.
    worst = jnp.min(fitness, where=finite, initial=jnp.inf)
    stand_in = jnp.where(jnp.isfinite(worst), worst, 0)
    log_weight = fitness_map(jnp.where(finite, fitness, stand_in))
    if log_weight.shape != fitness.shape:
        raise ValueError(
            f"fitness_map: expected log weights of the fitness's shape {fitness.shape}; "
            f"seen {log_weight.shape}"
        )
    return jnp.where(finite & (log_weight < jnp.inf), log_weight, jnp.nan)


def _takes_key(fitness_fn: Callable[..., jax.Array]) -> bool:
    """Whether `fitness_fn` is called as (key, population) rather than (population)."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(fitness_fn).parameters.values()
    required = [
        p.name for p in parameters if p.kind in positional and p.default is inspect.Parameter.empty
    ]
    keyed = len(required) == 2
    misplaced = any(p.name == "key" for p in parameters) and not (keyed and required[0] == "key")
    if len(required) not in (1, 2) or misplaced:
        raise ValueError(
            "fitness_fn: expected fitness_fn(population) or fitness_fn(key, population); seen "
            f"{inspect.signature(fitness_fn)}; wrap it in a lambda of one or two arguments"
        )
    return keyed
