"""What every optimiser is, and the loop around it: Algorithm, evolve."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.checks import call_in_jax, check_key, concrete
from diffevo_jax.selection import advice, signs

# What to do with a fitness that cannot be traced.
IN_PYTHON = (
    "; or keep it, and hand its numbers to algorithm.step in a loop of your own; or call "
    "de.minimize, which takes it as it is"
)


class Algorithm(NamedTuple):
    """A configured optimiser: two pure functions and its length.

    init: population `[N, D]` -> state, a NamedTuple with `population`, the genomes to evaluate
        next, and `t`, the generations that follow this one: from num_levels - 1 down to 0.
    step: (key, state, fitness `[N]`, population=None) -> (state, info). population: the genomes
        that were really evaluated, `[N, D]`, where they are not those of the state: repaired,
        rounded, clipped. info: a NamedTuple with `population` and `fitness`, as evaluated, and
        whatever else the optimiser tells of a generation. A finished run, t = 0, is a fixed point:
        the state stays as it is.
    num_levels: T: evaluated generations of a whole run, which makes T - 1 updates.
    """

    init: Callable[[jax.Array], Any]
    step: Callable[..., tuple[Any, Any]]
    num_levels: int


class Best(NamedTuple):
    """The best individual seen: its genome, `[D]`, and its fitness, `[]`; -inf before any."""

    genome: jax.Array
    fitness: jax.Array


class Running(NamedTuple):
    """What a run carries from one generation to the next: the optimiser's state, and the best."""

    state: Any
    best: Best


class Evolved(NamedTuple):
    """What a run leaves: the final state, what was kept of each generation `[T, ...]`, the best."""

    state: Any
    kept: Any
    best: Best


def evolve(
    key: jax.Array,
    algorithm: Algorithm,
    fitness_fn: Callable[..., Any],
    population: jax.Array,
    *,
    has_key: bool = False,
    has_aux: bool = False,
    keep: Callable[..., Any] = lambda info, *aux: info.fitness,
    repair: Callable[[jax.Array], jax.Array] | None = None,
    start: int | None = None,
) -> Evolved:
    """Run a whole evolution as one `lax.scan`: T evaluated generations, T - 1 updates.

    key: one PRNG key for the run.
    fitness_fn: `population [N, D] -> fitness [N]`, higher is better.
    population: the initial one, `[N, D]`, drawn from N(0, I) in the paper.
    has_key: call `fitness_fn(key, population)` instead, with a fresh key each generation, where
        fitness is drawn at random.
    has_aux: fitness_fn returns (fitness, aux), aux any pytree, for `keep` to see.
    keep: what is kept of each generation, (info) or with has_aux (info, aux) -> any pytree. The
        default is the fitness; `lambda info: info` is all of it, genomes too.
    repair: population -> the population to evaluate in its place, clipped to a box for example.
    start: level to start at, 0 to T - 1, for T' = start + 1 generations; None is the first, T - 1.

    Returns the final state, what `keep` kept, stacked along a leading axis of T whose entry -1
    describes the final population, and the best individual seen. Warns, outside jit, where a whole
    run selected nobody, or no individual learned from others: `selection.advice`.
    Raises ValueError on a fitness_fn of other arguments or that is not JAX's, on what is no key and
    no Algorithm, and on a start out of range.
    """
    check_key(key)
    if not isinstance(algorithm, Algorithm):
        raise ValueError(
            "algorithm: expected an Algorithm, of de.diffusion_evolution(schedule) for example; "
            f"seen {algorithm!r:.80}. evolve takes (key, algorithm, fitness_fn, population)"
        )
    generation = make_generation(
        algorithm,
        fitness_fn,
        has_key=has_key,
        has_aux=has_aux,
        keep=lambda info, *aux: (keep(info, *aux), signs(info)),
        repair=repair,
    )
    running = begin(algorithm, population, start=start)
    num_levels = algorithm.num_levels if start is None else start + 1
    keys = jax.random.split(key, num_levels)
    running, (kept, seen) = jax.lax.scan(generation, running, keys)
    known = [known for value in seen if (known := concrete(value)) is not None]
    message = advice(*known) if len(known) == 2 and start is None else None
    if message is not None:
        warnings.warn(message, stacklevel=2)
    return Evolved(running.state, kept, running.best)


def begin(algorithm: Algorithm, population: jax.Array, *, start: int | None = None) -> Running:
    """Make what `make_generation`'s function carries. start: of `evolve`."""
    state = algorithm.init(population)
    if start is not None:
        known = isinstance(start, int | np.integer)
        if not known or not 0 <= start < algorithm.num_levels:
            raise ValueError(
                f"start: expected a level from 0 to {algorithm.num_levels - 1}; seen {start}"
            )
        state = state._replace(t=jnp.full_like(state.t, start))
    genome = jnp.zeros_like(state.population[0])
    return Running(state, Best(genome, jnp.asarray(-jnp.inf, float)))


def make_generation(
    algorithm: Algorithm,
    fitness_fn: Callable[..., Any],
    *,
    has_key: bool = False,
    has_aux: bool = False,
    keep: Callable[..., Any] = lambda info, *aux: info.fitness,
    repair: Callable[[jax.Array], jax.Array] | None = None,
) -> Callable[[Running, jax.Array], tuple[Running, Any]]:
    """Make the body of `evolve`'s scan, (running, key) -> (running, kept), for a scan of your own.

    Scanning it from `begin` over `split(key, T)` in several pieces gives what `evolve` gives in
    one. Arguments are those of `evolve`.
    """
    _check_arguments(fitness_fn, has_key)

    def generation(running: Running, key: jax.Array) -> tuple[Running, Any]:
        key_fitness, key_step = jax.random.split(key)
        population = running.state.population
        if repair is not None:
            population = repair(population)
        arguments = (key_fitness, population) if has_key else (population,)
        fitness = call_in_jax("fitness_fn", fitness_fn, *arguments, otherwise=IN_PYTHON)
        aux = ()
        if has_aux:
            if not (isinstance(fitness, tuple) and len(fitness) == 2):
                raise ValueError(
                    "fitness_fn: expected (fitness, aux), as has_aux=True says; seen "
                    f"{type(fitness).__name__}"
                )
            fitness, *aux = fitness
        elif isinstance(fitness, tuple):
            raise ValueError(
                "fitness_fn: expected fitness [N]; seen a tuple. Where it is (fitness, aux), as "
                "make_fitness returns, pass has_aux=True"
            )
        evaluated = () if repair is None else (population,)
        state, info = algorithm.step(key_step, running.state, fitness, *evaluated)
        best = _better(running.best, info.population, info.fitness)
        return Running(state, best), keep(info, *aux)

    return generation


def _better(best: Best, population: jax.Array, fitness: jax.Array) -> Best:
    """The best so far and of this generation; what is not finite is no candidate."""
    fitness = jnp.where(jnp.isfinite(fitness), fitness, -jnp.inf).astype(best.fitness.dtype)
    first = jnp.argmax(fitness)
    better = fitness[first] > best.fitness
    # An array of indices: with a number, each device of a mesh would hold the whole population.
    genome = population[first[None]][0]
    return Best(
        jnp.where(better, genome, best.genome),
        jnp.where(better, fitness[first], best.fitness),
    )


def _check_arguments(fitness_fn: Callable, has_key: bool) -> None:
    """Raise ValueError where the function does not take what it will be called with."""
    if not callable(fitness_fn):
        raise ValueError(f"fitness_fn: expected a function; seen {fitness_fn!r:.80}")
    try:
        signature = inspect.signature(fitness_fn)
    except (TypeError, ValueError):  # some builtins have none
        return
    takes = ("key", "population") if has_key else ("population",)
    try:
        signature.bind(*takes)
    except TypeError:
        hint = "" if has_key else ". One of (key, population) needs has_key=True"
        raise ValueError(
            f"fitness_fn: expected a function of ({', '.join(takes)}), as has_key={has_key} says; "
            f"seen {signature}{hint}"
        ) from None
