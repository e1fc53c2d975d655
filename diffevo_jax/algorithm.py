"""What an optimiser is, and the loop around it: Algorithm, make_algorithm, evolve."""

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state
from jax.sharding import Mesh

from diffevo_jax.checks import (
    VMAP,
    InputError,
    call_in_jax,
    call_on_population,
    check_array,
    check_count,
    check_key,
    check_population,
    check_takes,
    check_tree,
    concrete,
)
from diffevo_jax.problem import Problem, check_memory
from diffevo_jax.selection import advice, signs
from diffevo_jax.sharding import check_mesh, split

# What to do with a fitness that cannot be traced.
IN_PYTHON = (
    "; or keep it, and hand its numbers to algorithm.step in a loop of your own; or call "
    "de.minimize, which takes it as it is"
)
# What the key of `init` is folded with: beyond every generation and individual, whose keys are
# split from the run's.
INIT = 2**32 - 2
REMEMBER = 2**32 - 3  # and of the problem's
# t of an algorithm without an end counts down from the largest 32-bit integer.
ENDLESS = 2**31 - 1
# Programs that `evolve` keeps compiled, the least recently used leaves first.
COMPILED = 32
_OUTSIDE = get_opaque_trace_state()  # the state outside every transformation of JAX


class Algorithm(NamedTuple):
    """A configured optimiser: two pure functions and its length, see `make_algorithm`.

    init: (key, population `[N, D]`) -> state, a NamedTuple with `population`, the genomes to
        evaluate next, and `t`, the generations that follow this one: num_generations - 1 down to 0.
    step: (key, state, fitness `[N]`, population=None, aux=()) -> (state, info).
        population: the genomes that were really evaluated, `[N, D]`, where they are not those of
        the state: repaired, rounded, clipped. info: a NamedTuple with `population` and `fitness`,
        as evaluated, and whatever else the optimiser reports of a generation. A finished run,
        t = 0, is a fixed point: it stays at the population that was evaluated.
    num_generations: T: evaluated generations of a whole run, which makes T - 1 updates; None has no
        end.
    has_aux: whether step takes aux=, what the fitness function returns beside the fitness.
    """

    init: Callable[[jax.Array, jax.Array], Any]
    step: Callable[..., tuple[Any, Any]]
    num_generations: int | None
    has_aux: bool = False


class Best(NamedTuple):
    """The best individual so far: its genome, `[D]`, and its fitness, `[]`; -inf before any.

    fitness: the return where the problem's fitness is relative, see `returns` in `Problem`.
    memory: what `evolve` returns beside it: the problem's at the end of the run.
    """

    genome: jax.Array
    fitness: jax.Array
    memory: Any = ()


class Running(NamedTuple):
    """What a run carries from one generation to the next: the optimiser's state, and the best.

    memory: the problem's, with which the state's population is evaluated; () where it has none.
    """

    state: Any
    best: Best
    memory: Any = ()


class Evolved(NamedTuple):
    """What a run returns: its final state, what `keep` kept `[T, ...]`, the best individual."""

    state: Any
    kept: Any
    best: Best

    @property
    def memory(self) -> Any:
        """The problem's, with which the final population was evaluated; () where it has none."""
        return self.best.memory


def make_algorithm(
    init: Callable[[jax.Array, jax.Array, jax.Array], Any],
    step: Callable[..., tuple[Any, Any]],
    num_generations: int | None,
    *,
    shape: tuple[int, int] | None = None,
    mesh: Mesh | None = None,
    has_aux: bool = False,
    check: Callable[[Any], jax.Array] = check_population,
) -> Algorithm:
    """Make an `Algorithm` of an optimiser's own functions, which neither check nor count.

    init: (key, population `[N, D]`, t) -> state, a NamedTuple with both and whatever else the
        optimiser remembers: fields that keep their structure, shapes and dtypes.
    step: (key, state, fitness `[N]`, population `[N, D]`) -> (state, info), of the population that
        was evaluated. Its new t, and its whole new state in a finished run, are discarded.
    num_generations: T, or None for no end. shape: (N, D), where the optimiser is made for one.
    mesh: split the state's leaves `[N, ...]` over all axes of this mesh.
    has_aux: step takes a fifth argument, what the fitness function returns beside the fitness; ()
        where it returns nothing else.
    check: of the initial population, which it returns as an array: finite, of floats by default.

    Raises InputError, here and in both functions, naming the argument, expected and seen.
    """
    if num_generations is not None:
        num_generations = check_count("num_generations", num_generations)
    if mesh is not None:
        check_mesh(mesh)

    def placed(tree: Any, size: int) -> Any:
        return tree if mesh is None else _split_rows(tree, size, mesh)

    def checked_init(key: jax.Array, population: jax.Array) -> Any:
        check_key(key)
        population = check(population)
        if shape is not None and population.shape != shape:
            raise InputError(
                "population", f"shape (population_size, num_genes) = {shape}", population.shape
            )
        size = len(population)
        last = ENDLESS if num_generations is None else num_generations - 1
        state = init(key, placed(population, size), jnp.asarray(last, jnp.int32))
        # Not weakly typed, or a caller's jitted step compiles anew for its second state.
        state = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), check_tree("init", state))
        return placed(state, size)

    def checked_step(
        key: jax.Array,
        state: Any,
        fitness: jax.Array,
        population: jax.Array | None = None,
        aux: Any = (),
    ) -> tuple[Any, Any]:
        check_key(key)
        size = len(check_state(state).population)
        fitness = _check_fitness(fitness, size)
        genomes = state.population
        if population is not None:
            genomes = _check_evaluated("population", population, state).astype(genomes.dtype)
        genomes = placed(genomes, size)
        if not has_aux and not (isinstance(aux, tuple) and not aux):
            raise InputError("aux", "none, for the algorithm has no use of it", type(aux).__name__)
        after, info = step(key, state, fitness, genomes, *((aux,) if has_aux else ()))
        # A finished run steps too, and stays where it is: a branch would have an accelerator's host
        # wait.
        before = state._replace(population=genomes)
        after = after._replace(population=after.population.astype(genomes.dtype), t=state.t - 1)
        _check_structure(before, after)
        running = state.t > 0
        after = jax.tree.map(lambda new, old: jnp.where(running, new, old), after, before)
        return placed(after, size), info

    return Algorithm(checked_init, checked_step, num_generations, has_aux)


def check_state(state: Any) -> Any:
    """Return a state; raise InputError where it is none, such as the (state, info) of a step."""
    if not hasattr(state, "population"):
        advice = "init returns it, and step returns (state, info)"
        raise InputError("state", "an optimiser's state", type(state).__name__, advice)
    return state


def descriptors_of(aux: Any, size: int) -> jax.Array | None:
    """Return how individuals behave, aux["descriptors"] `[N, k]`; None where aux says nothing.

    Raises InputError on another number of rows than size.
    """
    descriptors = aux.get("descriptors") if isinstance(aux, dict) else None
    if descriptors is None:
        return None
    expected = f"shape ({size}, k), one row per individual"
    descriptors = check_array("descriptors", descriptors, expected)
    if descriptors.ndim != 2 or len(descriptors) != size:
        raise InputError("descriptors", expected, descriptors.shape)
    return descriptors


def evolve(
    key: jax.Array,
    algorithm: Algorithm,
    problem: Problem | Callable[..., Any],
    population: jax.Array,
    *,
    has_key: bool = False,
    has_aux: bool = False,
    keep: Callable[..., Any] = lambda info, *aux: info.fitness,
    repair: Callable[[jax.Array], jax.Array] | None = None,
    start: int | None = None,
    num_generations: int | None = None,
) -> Evolved:
    """Run a whole evolution as one `lax.scan`: T evaluated generations, T - 1 updates.

    key: one PRNG key for the run.
    problem: a fitness function, `population [N, D] -> fitness [N]`, higher is better; or a
        `Problem`, which has its own has_key, has_aux and repair.
    population: the initial one, `[N, D]`, drawn from N(0, I) in the paper.
    has_key: call the fitness function with (key, population) instead, a fresh key each generation,
        where fitness is drawn at random.
    has_aux: the fitness function returns (fitness, aux), aux any pytree, for `keep` to see. Its
        entry "descriptors", `[N, k]`, says how individuals behave, to an algorithm that asks.
    keep: what is kept of each generation, (info) or with has_aux (info, aux) -> any pytree. The
        default is the fitness; `lambda info: info` is all of it, genomes too.
    repair: population -> the population to evaluate in its place, clipped to a box for example.
    start: level to start at, 0 to T - 1, for T' = start + 1 generations; None is the first, T - 1.
    num_generations: how many to run, at most those that are left; needed where the algorithm has
        no end, all of them by default elsewhere.

    Returns the final state, what `keep` kept, stacked along a leading axis of T, and the best
    individual. After a whole run entry -1 describes the final population; where num_generations
    stops it before, the state has the next population, which nobody has evaluated. Warns, outside
    jit, where a whole run selected nobody, or no individual learned from others, with what to
    change.
    Raises InputError on a function of other arguments or that is not JAX's, on what is no key and
    no Algorithm, and on a start out of range.

    Outside jit, a call with the same algorithm, problem, keep and repair as before, the objects
    themselves, compiles nothing anew; as with `jax.jit`, they have to be pure. A factory called
    anew, or a lambda written in the call, is another object.
    """
    check_key(key)
    if not isinstance(algorithm, Algorithm):
        raise InputError(
            "algorithm",
            "an Algorithm, such as de.diffusion_evolution(25)",
            f"{algorithm!r:.80}",
            "evolve takes (key, algorithm, problem, population)",
        )
    settings = _settings(problem, population, keep, has_key, has_aux, repair)
    run = _make_run(algorithm, *settings)
    running = begin(key, algorithm, population, start=start, problem=problem)
    keys = jax.random.split(key, _length(algorithm, start, num_generations))
    running, (kept, generations) = run(running, keys)
    values = {name: concrete(value) for name, value in generations.items()}
    message = None
    if isinstance(problem, Problem) and problem.advice is not None:
        known = all(concrete(leaf) is not None for leaf in jax.tree.leaves(running.memory))
        message = problem.advice(running.memory) if known else None
    if message is None and start is None and all(value is not None for value in values.values()):
        message = advice(**values)
    if message is not None:
        warnings.warn(message, stacklevel=2)
    return Evolved(running.state, kept, running.best._replace(memory=running.memory))


def begin(
    key: jax.Array,
    algorithm: Algorithm,
    population: jax.Array,
    *,
    start: int | None = None,
    problem: Problem | Callable[..., Any] | None = None,
) -> Running:
    """Make what `make_generation`'s function carries, from the arguments of `evolve`.

    problem: needed where it has a memory.
    """
    state = algorithm.init(jax.random.fold_in(check_key(key), INIT), population)
    if start is not None:
        last = (algorithm.num_generations or ENDLESS) - 1
        start = check_count("start", start, least=0, most=last)
        state = state._replace(t=jnp.full_like(state.t, start))
    memory = ()
    if isinstance(problem, Problem) and problem.init is not None:
        memory = check_tree("init", problem.init(jax.random.fold_in(key, REMEMBER)))
    return Running(state, no_best(state.population), memory)


def no_best(population: jax.Array) -> Best:
    """Make the best individual before any, for genomes like those of a population, `[N, D]`."""
    return Best(jnp.zeros_like(population[0]), jnp.asarray(-jnp.inf, float))


def make_generation(
    algorithm: Algorithm,
    problem: Problem | Callable[..., Any],
    *,
    has_key: bool = False,
    has_aux: bool = False,
    keep: Callable[..., Any] = lambda info, *aux: info.fitness,
    repair: Callable[[jax.Array], jax.Array] | None = None,
) -> Callable[[Running, jax.Array], tuple[Running, Any]]:
    """Make the body of `evolve`'s scan, (running, key) -> (running, kept), for a scan of your own.

    Scanning it from `begin` over `split(key, T)` in several pieces gives what `evolve` gives in
    one. Arguments: see `evolve`.
    """
    return _generation(algorithm, *_settings(problem, None, keep, has_key, has_aux, repair))


def _generation(
    algorithm: Algorithm,
    keep: Callable[..., Any],
    fitness_fn: Callable[..., Any],
    has_key: bool,
    has_aux: bool,
    repair: Callable[[jax.Array], jax.Array] | None,
    has_memory: bool = False,
) -> Callable[[Running, jax.Array], tuple[Running, Any]]:
    def generation(running: Running, key: jax.Array) -> tuple[Running, Any]:
        key_fitness, key_step = jax.random.split(key)
        population = running.state.population
        if repair is not None:
            population = call_in_jax("repair", repair, population)
            population = _check_evaluated("repair", population, running.state)
        arguments = (key_fitness,) if has_key else ()
        if has_memory:
            arguments += (check_memory("memory", running.memory),)
        fitness = call_on_population(
            "fitness_fn", fitness_fn, *arguments, population, otherwise=IN_PYTHON
        )
        memory, aux = running.memory, ()
        if has_memory:
            fitness, memory = _take_apart(fitness, running)
        if has_aux:
            if not (isinstance(fitness, tuple) and len(fitness) == 2):
                raise InputError(
                    "fitness_fn", "(fitness, aux), as has_aux=True says", type(fitness).__name__
                )
            fitness, *aux = fitness
        elif isinstance(fitness, tuple):
            raise InputError(
                "fitness_fn",
                "fitness [N]",
                "a tuple",
                "for a function that returns (fitness, aux), as make_fitness's, pass has_aux=True",
            )
        evaluated = () if repair is None else (population,)
        beside = {"aux": aux[0]} if algorithm.has_aux and aux else {}
        state, info = algorithm.step(key_step, running.state, fitness, *evaluated, **beside)
        best = _better(running.best, info.population, _worth(info.fitness, *aux))
        kept = check_tree("keep", call_in_jax("keep", keep, info, *aux))
        return Running(state, best, memory), kept

    return generation


def _take_apart(returned: Any, running: Running) -> tuple[Any, Any]:
    """Take a fitness and the next memory from what a function with a memory returns.

    A finished run keeps the memory with which its population was evaluated.
    """
    if not (isinstance(returned, tuple) and len(returned) == 2):
        expected = "(memory, what it returns without one), as init= says"
        raise InputError("fitness_fn", expected, "another value")
    memory, fitness = returned
    _check_structure(running, running._replace(memory=memory))

    def update(new: Any, old: Any) -> Any:
        return jnp.where(running.state.t > 0, new, old)

    return fitness, jax.tree.map(update, memory, running.memory)


def _split_rows(tree: Any, size: int, mesh: Mesh) -> Any:
    """Split the leaves `[N, ...]` of a tree, N = size, over the mesh."""

    def placed(leaf: jax.Array) -> jax.Array:
        return split(leaf, mesh) if jnp.shape(leaf)[:1] == (size,) else leaf

    return jax.tree.map(placed, tree)


def _make_run(algorithm: Algorithm, keep: Callable[..., Any], *settings: Any) -> Callable[..., Any]:
    """Make (running, keys) -> (running, (kept, signs)), compiled once for the same objects.

    Inside a transformation, where functions may close over its tracers, nothing is stored.
    """
    try:
        if get_opaque_trace_state() == _OUTSIDE:
            return _compiled_run(algorithm, keep, *settings)
    except TypeError:  # something here has no hash
        pass
    return _plain_run(algorithm, keep, *settings)


def _plain_run(algorithm: Algorithm, keep: Callable[..., Any], *settings: Any) -> Callable:
    def keep_signs(info: Any, *aux: Any) -> Any:
        return keep(info, *aux), signs(info)

    generation = _generation(algorithm, keep_signs, *settings)
    return lambda running, keys: jax.lax.scan(generation, running, keys)


@lru_cache(maxsize=COMPILED)
def _compiled_run(*arguments: Any) -> Callable[..., Any]:
    return jax.jit(_plain_run(*arguments))


def _length(algorithm: Algorithm, start: int | None, num_generations: int | None) -> int:
    """Return how many generations to run."""
    left = algorithm.num_generations if start is None else start + 1
    if num_generations is None:
        if left is None:
            raise InputError("num_generations", "a number, for the algorithm has no end", None)
        return left
    count = check_count("num_generations", num_generations)
    if left is not None and count > left:
        raise InputError("num_generations", f"at most the {left} that are left", count)
    return count


def _worth(fitness: jax.Array, aux: Any = None) -> jax.Array:
    """Return what individuals are worth, `[N]`: their returns where their fitness is relative."""
    returns = aux.get("returns") if isinstance(aux, dict) else None
    if returns is None or returns.shape != fitness.shape:
        return fitness
    return returns


def _better(best: Best, population: jax.Array, fitness: jax.Array) -> Best:
    """Return the better of the best so far and this generation's, among finite fitness."""
    fitness = jnp.where(jnp.isfinite(fitness), fitness, -jnp.inf).astype(best.fitness.dtype)
    first = jnp.argmax(fitness)
    better = fitness[first] > best.fitness
    # An array of indices: with a number, each device of a mesh would hold the whole population.
    genome = population[first[None]][0]
    return Best(
        jnp.where(better, genome, best.genome),
        jnp.where(better, fitness[first], best.fitness),
    )


def _settings(
    problem: Problem | Callable[..., Any],
    population: Any,
    keep: Callable[..., Any],
    has_key: bool,
    has_aux: bool,
    repair: Callable[[jax.Array], jax.Array] | None,
) -> tuple[Callable[..., Any], Callable[..., Any], bool, bool, Any, bool]:
    """Return keep; fitness_fn, has_key, has_aux, repair of a problem, or those of a function.

    Last, whether it has a memory.
    """
    if not isinstance(problem, Problem):
        fitness_fn, has_memory = problem, False
    else:
        for name, value in (("has_key", has_key), ("has_aux", has_aux), ("repair", repair)):
            if value:
                raise InputError(name, "none beside a Problem, which has its own", value)
        genes, shape = problem.num_genes, getattr(population, "shape", ())
        if len(shape) == 2 and shape[1] != genes:
            raise InputError("population", f"genomes of the problem's {genes} genes", shape)
        fitness_fn, has_memory = problem.fitness_fn, problem.init is not None
        has_key, has_aux, repair = problem.has_key, problem.has_aux, problem.repair
    _check_arguments(fitness_fn, has_key, has_memory)
    check_takes("keep", keep, ("info", "aux")[: 2 if has_aux else 1])
    if repair is not None:
        check_takes("repair", repair, ("population",))
    return keep, fitness_fn, has_key, has_aux, repair, has_memory


def _check_arguments(fitness_fn: Callable, has_key: bool, has_memory: bool = False) -> None:
    """Raise InputError where the function does not take what it will be called with."""
    if not callable(fitness_fn):
        raise InputError("fitness_fn", "a function, or a Problem", f"{fitness_fn!r:.80}")
    takes = ("key",) * has_key + ("memory",) * has_memory + ("population",)
    advice = "" if has_key or has_memory else "one of (key, population) needs has_key=True"
    check_takes("fitness_fn", fitness_fn, takes, f", as has_key={has_key} says", advice)


def _check_fitness(fitness: Any, size: int) -> jax.Array:
    fitness = check_array("fitness", fitness, f"numbers of shape {(size,)}, one per individual")
    if fitness.shape != (size,):
        raise InputError(
            "fitness",
            f"shape {(size,)}, one per individual",
            fitness.shape,
            VMAP,
        )
    return fitness


def _check_evaluated(name: str, population: Any, state: Any) -> jax.Array:
    shape = state.population.shape
    expected = f"the genomes that were evaluated, of the state's shape {shape}"
    population = check_array(name, population, expected)
    if population.shape != shape:
        raise InputError(name, expected, population.shape)
    return population


def _check_structure(before: Any, after: Any) -> None:
    """Raise InputError where a field of the state changes its structure, shapes or dtypes."""

    def shapes(memory: Any) -> Any:
        return jax.tree.map(lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", memory)

    for name, old, new in zip(before._fields, before, after, strict=True):
        if jax.tree.structure(old) != jax.tree.structure(new) or shapes(old) != shapes(new):
            raise InputError(
                name,
                f"a memory that keeps its structure, shapes and dtypes, {shapes(old)}",
                shapes(new),
            )
