"""What a problem is: a fitness function and the size of its genomes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Count, InputError, check_array, check_count, check_key


class Problem(NamedTuple):
    """A problem to evolve on, which `evolve` takes in the place of a fitness function.

    num_genes: D.
    fitness_fn: population `[N, D]` -> fitness `[N]`, higher is better.
    has_key: fitness_fn takes (key, population).
    has_aux: fitness_fn returns (fitness, aux), aux a dict; runs keep its entry `success`,
        `[N]`, as the share of individuals that have solved the problem, and its entry `returns`,
        `[N]`, where fitness is relative: the best individual, tables and figures are by it. Its
        entry `descriptors`, `[N, k]`, says how individuals behave, to algorithms that ask.
    repair: population -> the population to evaluate in its place; None takes it as it is.
    reevaluate: (key, population `[N, D]`) -> (return `[N]`, {"success": `[N]`} or {}) of an episode
        of each individual's own, by which runs evaluate the best individual of the last generation
        once more; None where the fitness has no luck in it.
    init: key -> memory, what generations learn for those that follow, such as statistics of
        observations: any pytree of arrays that keeps its shapes. Then fitness_fn takes
        (key, memory, population), or (memory, population), and returns (memory, what it returns
        without); reevaluate takes (key, memory, population). None: it has no memory.
    advice: memory at the end of a run -> what to change, or None.
    """

    num_genes: int
    fitness_fn: Callable[..., Any]
    has_key: bool = False
    has_aux: bool = False
    repair: Callable[[jax.Array], jax.Array] | None = None
    reevaluate: Callable[..., Any] | None = None
    init: Callable[[jax.Array], Any] | None = None
    advice: Callable[[Any], str | None] | None = None


def reevaluate(
    key: jax.Array,
    problem: Problem,
    genome: jax.Array,
    *,
    memory: Any = (),
    num_episodes: Count = 100,
) -> jax.Array:
    """Evaluate one individual, `[D]`, over fresh episodes: what it is worth, luck aside.

    memory: the problem's at the end of the run, `evolved.memory`; () for a problem without.

    Returns the episodes' returns, `[num_episodes]`. Raises InputError for a problem without
    `reevaluate`, and where the problem needs a memory.
    """
    check_key(key)
    check_count("num_episodes", num_episodes)
    if not isinstance(problem, Problem) or problem.reevaluate is None:
        raise InputError("problem", "one with episodes, as tasks.make_problem makes it", problem)
    expected = f"shape ({problem.num_genes},), the genes of one individual"
    genome = check_array("genome", genome, expected)
    if genome.shape != (problem.num_genes,):
        raise InputError("genome", expected, genome.shape)
    remembered = () if problem.init is None else (check_memory("memory", memory),)
    returns, _ = problem.reevaluate(key, *remembered, jnp.tile(genome, (num_episodes, 1)))
    return returns


def check_memory(name: str, memory: Any) -> Any:
    """Return a memory; raise InputError where it is (), or None."""
    if memory is None or (isinstance(memory, tuple) and not memory):
        raise InputError(
            name,
            "what the problem remembers",
            memory,
            "`evolved.memory` after a run, problem.init(key) before; begin takes problem=",
        )
    return memory
