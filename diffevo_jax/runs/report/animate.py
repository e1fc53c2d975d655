"""Moving pictures of a run: its best policies at work, its generations, its population's way."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffevo_jax as de
from diffevo_jax.drawings.style import looks
from diffevo_jax.runs.config.builtin import make_task
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.config.plugins import kept
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.config.schema import ConfigError, Method
from diffevo_jax.runs.report.table import check_methods
from diffevo_jax.runs.results.files import quoted
from diffevo_jax.runs.results.loading import MethodRun, load_run
from diffevo_jax.runs.run.program import make_program

# Individuals of a generation that are drawn over each other.
MOST_ACTORS = 64


def animate(
    folder: Path,
    path: Path,
    *,
    methods: Sequence[str] = (),
    repeat: int = 0,
    generations: Sequence[int] = (),
    episodes: int = 1,
    say: Callable[[str], Any] = print,
) -> Path:
    """Animate a run's folder into `path`, NAME.gif or NAME.mp4; returns it.

    Control tasks: each method's best individual over fresh episodes, drawn over each other; or
    individuals of some generations, from 1, a panel each. Anything else: how the population of one
    method moves, on its landscape where that has two genes, else by its first two.
    methods: those to take; none takes all, or for a population the first.
    repeat: which one, from 0. Generations are evolved again, from the run's seed.
    say: called with a line on what is left out, and where the numbers are not the run's.

    Raises ConfigError on what the run does not hold or nobody can draw.
    """
    run = load_run(folder)
    try:
        config = load(folder / "config.yaml").config
    except ConfigError as error:
        plugins = " ".join(f"--plugin {quoted(file)}" for file in kept(folder))
        hint = f"\nThe run was made with plugins, and keeps them: {plugins}" if plugins else ""
        raise ConfigError(f"{error}{hint}") from None
    check_methods(methods, run.methods)
    names = list(methods or run.methods)
    done = min(len(run.methods[name].fitness) for name in names)
    if not 0 <= repeat < done:
        raise ConfigError(f"--repeat {repeat}: expected 0 to {done - 1}, a finished repeat")
    name, method = names[0], config.methods[names[0]]
    control = method.problem.name == "control"
    key = de.batch.seed_keys(config.seed, 1, first=repeat)[0]
    fresh = jax.random.fold_in(key, 4)  # of episodes that no generation has had: runs go up to 3
    try:
        if control and not generations:
            kept_of = {each: (config.methods[each], run.methods[each]) for each in names}
            return _best(path, kept_of, repeat, episodes, fresh, say)
        if len(names) > 1:
            say(f"Of {name} alone; --method NAME takes another of {', '.join(names)}.")
        populations, memories = _evolve_again(method, key, run.methods[name].fitness[repeat], say)
        if control:
            return _generations(path, method, populations, memories, generations, episodes, fresh)
        return _population(path, method, populations)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}") from None


def _best(
    path: Path,
    methods: dict[str, tuple[Method, MethodRun]],
    repeat: int,
    episodes: int,
    key: jax.Array,
    say: Callable[[str], Any],
) -> Path:
    """Animate the best policy of each method in the first one's environment."""
    titles = {name: registry.title(method.problem) for name, (method, _) in methods.items()}
    first, *_ = titles.values()
    left = [name for name, title in titles.items() if title != first]
    if left:
        names = ", ".join(left)
        say(f"Left out, in other environments: {names}; --method NAME takes them.")
    look = looks(name for name in methods if name not in left)
    panels, colours = {}, {}
    task: Any = None
    for name in look:
        method, results = methods[name]
        task, record = _recorder(method, episodes)
        genomes = results.reevaluated_genome
        genome = (results.best_genome if genomes is None else genomes)[repeat]
        best = f", best of generation {results.fitness.shape[1]}" if len(look) == 1 else ""
        statistics = jax.tree.map(lambda value: jnp.asarray(value[repeat]), results.statistics)
        one = jnp.asarray(genome)[None], jnp.arange(1)
        panels[results.label + best] = record(key, *one, statistics)
        colours[results.label + best] = look[name].colour
    return de.drawings.animate_episodes(path, task, panels, colour=colours)


def _generations(
    path: Path,
    method: Method,
    populations: np.ndarray,
    memories: Sequence[Any],
    generations: Sequence[int],
    episodes: int,
    key: jax.Array,
) -> Path:
    """Animate individuals of some generations, a panel each."""
    for number in generations:
        if not 1 <= number <= len(populations):
            raise ConfigError(f"--generation {number}: expected 1 to {len(populations)}")
    task, record = _recorder(method, episodes)
    who = jnp.arange(min(MOST_ACTORS, populations.shape[1]))
    panels = {
        f"generation {number}": record(
            key, jnp.asarray(populations[number - 1]), who, memories[number - 1]
        )
        for number in generations
    }
    return de.drawings.animate_episodes(path, task, panels)


def _recorder(method: Method, episodes: int) -> tuple[Any, Callable]:
    """The task of a method, and the roll-out that keeps the ways of its policies."""
    policy = partial(registry.build, "policy", method.problem.policy, "policy")
    task, network = make_task(**dict(method.problem) | {"policy": policy})
    return task, jax.jit(de.tasks.make_trajectories(task, network, num_episodes=episodes))


def _evolve_again(
    method: Method, key: jax.Array, fitness: np.ndarray, say: Callable[[str], Any]
) -> tuple[np.ndarray, list[Any]]:
    """The populations of all generations of a repeat, `[T, N, D]`, by its key, and its memories.

    fitness: the run's, `[T, N]`, which they are held against.
    """
    made = make_program(method)
    device = jax.local_devices()[:1]

    def alone(function: Callable) -> Callable:
        return jax.jit(de.batch.over_devices(de.batch.by_platform(function), device))

    advance = alone(made.advance)
    carry, keys = alone(made.start)(key[None])
    populations, memories, returns = [], [], []
    for generation in range(made.num_levels):
        populations.append(np.asarray(carry.running.state.population[0]))
        memories.append(jax.tree.map(lambda leaf: leaf[0], carry.running.memory))
        carry, kept = advance(carry, keys[:, generation : generation + 1])
        returns.append(np.asarray(kept["fitness"][0, 0]))
    same = np.isclose(returns, fitness, rtol=1e-3, atol=1e-6, equal_nan=True).all(axis=1)
    if not same.all():
        say(
            f"note: from generation {int(np.argmin(same)) + 1} on this repeat goes another way "
            "than in the run, as rounding does on another machine; the picture shows this one"
        )
    return np.stack(populations), memories


def _population(path: Path, method: Method, populations: np.ndarray) -> Path:
    """Animate how a population moves, on its landscape where that is of the plane."""
    problem = registry.build("problem", method.problem, "problem")
    scale = float(getattr(method.problem, "scale", 1.0))
    title = registry.title(method.problem)
    if method.label.lower() not in title:
        title = f"{method.label}, {title}"
    if problem.num_genes == 1:
        raise ConfigError("expected genomes of two genes or more to draw; seen 1")

    def landscape(grid: np.ndarray) -> np.ndarray:
        fitness = jax.jit(problem.fitness_fn)(jnp.asarray(grid / scale))
        return np.asarray(fitness[0] if problem.has_aux else fitness)

    points, plane = scale * populations[:, :, :2], problem.num_genes == 2
    behind = landscape if plane and not problem.has_key else None
    labels: Any = {} if plane else {"labels": ("first gene, scaled", "second gene, scaled")}
    return de.drawings.animate_population(path, points, behind, title=title, **labels)
