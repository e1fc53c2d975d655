"""Preset for control tasks."""

from collections.abc import Callable, Sequence
from itertools import count
from math import log10
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax import policies, schedules, tasks
from diffevo_jax.algorithm import Algorithm, Evolved
from diffevo_jax.checks import (
    Count,
    Fraction,
    InputError,
    Number,
    Positive,
    check_count,
    check_key,
    concrete,
)
from diffevo_jax.denoisers._consensus import consensus
from diffevo_jax.denoising import denoising_evolution
from diffevo_jax.diffusion import default_temperature
from diffevo_jax.fitness import standardised
from diffevo_jax.policies import Policy
from diffevo_jax.problem import Problem, reevaluate
from diffevo_jax.samplers._ddim import ddim
from diffevo_jax.tasks.evaluation import Task
from diffevo_jax.tasks.task import Observations

# How a budget is spent. CHOICE of it, at most MOST episodes for each of CANDIDATES individuals,
# chooses the champion. Generations have SIZE individuals, more from LARGE episodes on, and are at
# least LEVELS.
CHOICE, MOST, CANDIDATES = 0.1, 128, 8
SIZE, LARGE, LEVELS = 128, 25_600, 18
# The noise that is left at the end, as -log10(1 - alpha): DECADES up to FEW episodes, and for every
# tenfold one more for a network of SMALL genes, (D / SMALL)^BY_GENES for one of D; far beyond LARGE
# episodes, as generations grow.
DECADES, FEW, SMALL, BY_GENES, MOST_DECADES = 2.0, 2560, 41, 0.15, 6.0
STARTS = 2  # that individuals share in a generation, but 1 from FEW to LARGE episodes
LEAST = 4  # individuals, two for each of two starts


class Champion(NamedTuple):
    """An individual chosen by re-evaluation.

    genome: `[D]`. returns: of the episodes that it was chosen by, `[E]`; as the best of several
        their mean is a little too good, `de.reevaluate` says what it is worth.
    """

    genome: jax.Array
    returns: jax.Array


class Control(NamedTuple):
    """What `evolve` takes after its key, and the policy that a genome fills.

    problem: see `tasks.make_problem`. population: the initial one, `[N, D]`.
    champion: (key, evolved) -> `Champion`, of the last generation of a whole run.
    """

    algorithm: Algorithm
    problem: Problem
    population: jax.Array
    policy: Policy
    champion: Callable[[jax.Array, Evolved], Champion]


def control(
    key: jax.Array,
    task: Task | str,
    *,
    episodes: Count = 2560,
    observations: Observations = "scaled",
    hidden: Sequence[int] = (8,),
    policy: Policy | None = None,
    population_size: Count | None = None,
    num_levels: Count | None = None,
    freshness: Fraction = 1.0,
    scale: Positive = 3.0,
    shared_starts: Count | None = None,
    temperature: Positive | None = None,
    success: Number | Literal["goal"] | None = None,
) -> Control:
    """Configure the evolution of a network for a control task, for a budget of episodes.

        control = de.presets.control(key, "CartPole-v1", episodes=2560)
        evolved = de.evolve(key_run, control.algorithm, control.problem, control.population)
        champion = control.champion(key_champion, evolved)
        returns = de.reevaluate(key_new, control.problem, champion.genome)

    Beside the published settings: smaller generations and more of them; genomes times 3; starts
    that individuals share and whose luck is taken out; returns in standard deviations; one target
    for all, `denoisers.consensus`, and noise that does not remember and falls geometrically to a
    tenth of its size, further with more than 2,560 episodes, and then with more genes. A tenth of
    the episodes, 1,024 at most, goes into the choice of the champion among the last generation's
    mean and its best seven: the best value ever seen, `evolved.best`, may owe its place to luck.

    key: draws the initial population.
    episodes: the budget in all, choice and all; 2,560 is that of the published control tasks.
    task: see `tasks.make_task`; or an environment's name, and then observations are what
        `make_task` calls them. With "normalised", `de.reevaluate` takes memory=evolved.memory.
    hidden: sizes of the network's hidden layers.
    policy: a network in its place, from `policies`, for the task's inputs and outputs.
    population_size, num_levels: N and T, in the place of those that fit the budget.
    freshness: see `samplers.ddim`.
    scale: factor on the genome before it fills the network, see `policies.scaled`.
    temperature: of `fitness.standardised`; None takes that of `diffusion_evolution`, by genes.
    success, shared_starts: see `tasks.make_fitness`; None shares 2 starts, and 1 with more than
        2,560 episodes and up to 25,600.

    Raises InputError, naming the argument, expected and seen.
    """
    check_key(key)
    check_count("episodes", episodes)
    if population_size is not None:
        check_count("population_size", population_size, least=LEAST)
    if num_levels is not None:
        check_count("num_levels", num_levels, least=2)
    trials, size, levels = _sizes(episodes, population_size, num_levels)
    if size < LEAST or levels < 2:
        enough = (_sizes(more, population_size, num_levels) for more in count(episodes))
        least = next(e for e, (_, n, t) in enumerate(enough, episodes) if n >= LEAST and t >= 2)
        expected = f"{least} or more: two generations of {LEAST} at least, and some to choose by"
        raise InputError("episodes", expected, episodes)
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        raise InputError("hidden", "the layers' sizes, (8,) for one", f"{hidden!r:.60}")
    hidden = [check_count("hidden", size) for size in hidden]
    if not isinstance(task, str | Task):
        raise InputError("task", "an environment's name, or a Task of make_task", f"{task!r:.60}")
    if isinstance(task, str):
        task = tasks.make_task(task, observations=observations)
    elif observations != "scaled":
        raise InputError("observations", "none beside a Task, which has its own", observations)
    if policy is None:
        policy = policies.mlp((task.num_inputs, *hidden, task.num_outputs))
    policy = policies.scaled(policy, scale)
    algorithm = denoising_evolution(
        schedules.geometric(levels, end=10 ** -_decades(episodes, policy.num_genes)),
        fitness_map=standardised(
            default_temperature(policy.num_genes) if temperature is None else temperature
        ),
        denoiser=consensus(),
        sampler=ddim(freshness=freshness),
    )
    if shared_starts is None:
        # A single start is seen in its own standard deviations: a hard one counts as much.
        shared_starts = 1 if FEW < episodes <= LARGE else STARTS
    problem = tasks.make_problem(task, policy, success=success, shared_starts=shared_starts)
    population = jax.random.normal(key, (size, policy.num_genes))

    @jax.jit  # roll-outs of many small operations
    def chosen(key: jax.Array, population: jax.Array, fitness: jax.Array, memory: Any) -> Champion:
        return choose_champion(
            key, problem, population, fitness, num_episodes=trials, memory=memory
        )

    def champion(key: jax.Array, evolved: Evolved) -> Champion:
        if not isinstance(evolved, Evolved):
            seen = type(evolved).__name__
            raise InputError("evolved", "what `evolve` returns, after a key", seen)
        population, fitness = evolved.state.population, evolved.kept
        if getattr(fitness, "shape", ())[1:] != (len(population),):
            raise InputError(
                "evolved",
                "a run that kept the fitness, [T, N], as `evolve` does by default",
                f"kept {jax.tree.map(jnp.shape, fitness)!s:.80}",
            )
        left = concrete(evolved.state.t)
        if left is not None and left > 0:
            raise InputError(
                "evolved",
                "a whole run, t = 0, whose last fitness is that of its final population",
                f"t = {left}",
                "leave num_generations out; or keep populations too, for presets.choose_champion",
            )
        return chosen(key, population, fitness[-1], evolved.memory)

    return Control(algorithm, problem, population, policy, champion)


def choose_champion(
    key: jax.Array,
    problem: Problem,
    population: jax.Array,
    fitness: jax.Array,
    *,
    num_candidates: Count = CANDIDATES,
    num_episodes: Count = 32,
    memory: Any = (),
) -> Champion:
    """Choose among a population's mean and its best individuals by fresh episodes.

    problem: one with episodes, as `tasks.make_problem` makes it.
    population: `[N, D]`, and its fitness, `[N]`; those without a finite one are no candidates.
    num_candidates: the mean, and so many less one individuals; N + 1 at most.
    num_episodes: E, of each. memory: see `de.reevaluate`.

    Raises InputError as `de.reevaluate`, naming the argument.
    """
    number = min(check_count("num_candidates", num_candidates), len(population) + 1)
    check_count("num_episodes", num_episodes)
    finite = jnp.isfinite(fitness)
    best = jnp.argsort(jnp.where(finite, -fitness, jnp.inf))[: number - 1]
    usable = jnp.where(finite[:, None], population, 0)
    mean = jnp.sum(usable, axis=0) / jnp.maximum(jnp.sum(finite), 1)
    candidates = jnp.concatenate([mean[None].astype(population.dtype), population[best]])

    def trials(genome: jax.Array) -> jax.Array:
        return reevaluate(key, problem, genome, memory=memory, num_episodes=num_episodes)

    returns = jax.vmap(trials)(candidates)  # the same episodes for all
    first = jnp.argmax(jnp.nan_to_num(jnp.mean(returns, axis=1), nan=-jnp.inf))
    return Champion(candidates[first], returns[first])


def _sizes(episodes: int, size: int | None, levels: int | None) -> tuple[int, int, int]:
    """Return a candidate's episodes at the end, and N and T for the others, those not set."""
    trials = max(1, min(MOST, round(CHOICE * episodes / CANDIDATES)))
    episodes -= CANDIDATES * trials
    if levels is not None:
        size = size or episodes // levels
    elif size is None:
        size = int(min(SIZE * _growth(episodes), episodes // LEVELS))
    levels = levels or episodes // max(size, 1)
    return trials, size, levels


def _decades(episodes: int, num_genes: int) -> float:
    """Return the noise that is left at the end: the more genes, the more their noise hides."""
    more = max(0.0, log10(episodes / FEW)) * (num_genes / SMALL) ** BY_GENES
    return min(max(DECADES + more, DECADES * _growth(episodes)), MOST_DECADES)


def _growth(episodes: int) -> float:
    """Return by how much a large budget's generations grow."""
    return max(1.0, episodes / LARGE) ** 0.5
