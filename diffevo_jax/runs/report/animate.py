"""Moving pictures of a run: its best policies at work, its generations, its population's way."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffevo_jax as de
from diffevo_jax.checks import nearest
from diffevo_jax.drawings.style import looks
from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.config.schema import ConfigError, RunConfig
from diffevo_jax.runs.results.files import quoted
from diffevo_jax.runs.results.loading import Run, load_run
from diffevo_jax.runs.run import program

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
        plugins = " ".join(
            f"--plugin {quoted(file)}" for file in sorted(folder.glob("plugins/*.py"))
        )
        hint = f"\nThe run was made with plugins, and keeps them: {plugins}" if plugins else ""
        raise ConfigError(f"{error}{hint}") from None
    for name in methods:
        if name not in run.methods:
            hint = nearest(name, run.methods)
            raise ConfigError(
                f"--method {name}: no such method{hint} (seen {', '.join(run.methods)})"
            )
    names = list(methods or run.methods)
    done = min(len(run.methods[name].fitness) for name in names)
    if not 0 <= repeat < done:
        raise ConfigError(f"--repeat {repeat}: expected 0 to {done - 1}, a finished repeat")
    name, method = names[0], config.methods[names[0]]
    control = method.problem.name == "control"
    try:
        if control and not generations:
            return _best(path, config, run, names, repeat, episodes, say)
        if len(names) > 1:
            say(f"Of {name} alone; --method NAME takes another of {', '.join(names)}.")
        populations = _evolve_again(config, name, repeat, run.methods[name].fitness, say)
        if control:
            key = _fresh_key(config, repeat)
            return _generations(path, method, populations, generations, episodes, key)
        return _population(path, method, populations)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}") from None


def _best(
    path: Path,
    config: RunConfig,
    run: Run,
    names: Sequence[str],
    repeat: int,
    episodes: int,
    say: Callable[[str], Any],
) -> Path:
    """Animate the best policy of each method in the first one's environment."""
    task, _ = _task(config.methods[names[0]])
    same = [
        name
        for name in names
        if registry.title(config.methods[name].problem)
        == registry.title(config.methods[names[0]].problem)
    ]
    if len(same) < len(names):
        left = ", ".join(name for name in names if name not in same)
        say(f"Left out, in other environments: {left}; --method NAME takes them.")
    panels, colours, look = {}, {}, looks(same)
    for name in same:
        kept, (task, network) = run.methods[name], _task(config.methods[name])
        reevaluated = kept.reevaluated_genome
        genome = (kept.best_genome if reevaluated is None else reevaluated)[repeat]
        label = kept.label
        if len(same) == 1:
            label += f", best of generation {kept.fitness.shape[1]}"
        record = _recorder(task, network, episodes)
        key = _fresh_key(config, repeat)
        panels[label] = record(key, jnp.asarray(genome)[None], jnp.arange(1))
        colours[label] = look[name].colour
    return de.drawings.animate_episodes(path, task, panels, colour=colours)


def _generations(
    path: Path,
    method: cfg.Method,
    populations: np.ndarray,
    generations: Sequence[int],
    episodes: int,
    key: jax.Array,
) -> Path:
    """Animate individuals of some generations, a panel each."""
    wrong = [number for number in generations if not 1 <= number <= len(populations)]
    if wrong:
        raise ConfigError(f"--generation {wrong[0]}: expected 1 to {len(populations)}")
    task, network = _task(method)
    record = _recorder(task, network, episodes)
    who = jnp.arange(min(MOST_ACTORS, populations.shape[1]))
    panels = {
        f"generation {number}": record(key, jnp.asarray(populations[number - 1]), who)
        for number in generations
    }
    return de.drawings.animate_episodes(path, task, panels)


def _fresh_key(config: RunConfig, repeat: int) -> jax.Array:
    """Of episodes that no generation has seen: a run folds in up to 3."""
    return jax.random.fold_in(_key(config, repeat), 4)


def _key(config: RunConfig, repeat: int) -> jax.Array:
    return de.batch.seed_keys(config.seed, 1, first=repeat)[0]


def _task(method: cfg.Method) -> tuple[Any, de.policies.Policy]:
    """The task of a method, and its network with the scale of its genomes."""
    problem = method.problem
    task = de.tasks.make_task(
        problem.environment,
        max_steps=problem.max_steps,
        fast_trig=problem.fast_trig,
        observations=problem.observations,
    )
    shapes = {"num_inputs": task.num_inputs, "num_outputs": task.num_outputs}
    network = registry.build(
        "policy", problem.policy, "policy", input_shape=task.input_shape, **shapes
    )
    return task, de.policies.scaled(network, problem.scale)


def _recorder(task: Any, network: de.policies.Policy, episodes: int) -> Any:
    return jax.jit(de.tasks.make_trajectories(task, network, num_episodes=episodes))


def _evolve_again(
    config: RunConfig, name: str, repeat: int, fitness: np.ndarray, say: Callable[[str], Any]
) -> np.ndarray:
    """The populations of all generations of a repeat, `[T, N, D]`, by its seed.

    fitness: the run's, `[S, T, N]`, which they are held against.
    """
    made = program.make_program(config.methods[name])
    device = jax.local_devices()[:1]

    def alone(function: Callable) -> Callable:
        return jax.jit(de.batch.over_devices(de.batch.by_platform(function), device))

    advance = alone(made.advance)
    carry, keys = alone(made.start)(_key(config, repeat)[None])
    populations, returns = [], []
    for generation in range(made.num_levels):
        populations.append(np.asarray(carry.running.state.population[0]))
        carry, kept = advance(carry, keys[:, generation : generation + 1])
        returns.append(np.asarray(kept["fitness"][0, 0]))
    same = np.isclose(returns, fitness[repeat], rtol=1e-3, atol=1e-6, equal_nan=True).all(axis=1)
    if not same.all():
        say(
            f"note: from generation {int(np.argmin(same)) + 1} on this repeat goes another way "
            "than in the run, as rounding does on another machine; the picture shows this one"
        )
    return np.stack(populations)


def _population(path: Path, method: cfg.Method, populations: np.ndarray) -> Path:
    problem = registry.build("problem", method.problem, "problem")
    scale = float(getattr(method.problem, "scale", 1.0))
    title = registry.title(method.problem)
    if method.label.lower() not in title:
        title = f"{method.label}, {title}"
    if problem.num_genes == 1:
        raise ConfigError("expected genomes of two genes or more to draw; seen 1")
    points = scale * populations[:, :, :2]
    if problem.num_genes > 2:
        return de.drawings.animate_population(
            path, points, title=title, labels=("first gene, scaled", "second gene, scaled")
        )

    def landscape(grid: np.ndarray) -> np.ndarray:
        fitness = jax.jit(problem.fitness_fn)(jnp.asarray(grid / scale))
        return np.asarray(fitness[0] if problem.has_aux else fitness)

    return de.drawings.animate_population(
        path, points, None if problem.has_key else landscape, title=title
    )
