"""Run a config: every method over every repeat, several repeats a compiled program."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import diffevo_jax as de
from diffevo_jax.runner import config as cfg
from diffevo_jax.runner import results

# Between two compiled chunks the host draws the progress bar; at this length that costs nothing.
GENERATIONS_PER_CHUNK = 50
# Repeats that a device runs in one call; what Ctrl-C loses at most.
REPEATS_PER_CALL = 4


class Program(NamedTuple):
    """A method as pure functions of a key.

    num_genes: D.
    start: key -> (state, projection or None, keys of the generations `[T]`).
    advance: (state, projection, keys `[k]`) -> (state, kept of k generations).
    """

    num_genes: int
    start: Callable
    advance: Callable


class Summary(NamedTuple):
    """Last generation of a method over its finished repeats.

    success: success rate and its standard error; None where the problem has no threshold.
    """

    label: str
    num_genes: int
    mean: tuple[float, float]
    success: tuple[float, float] | None
    reference: cfg.Reference | None


class Stopped(RuntimeError):
    """The run can't go on; what is finished has been saved. The message is for the user."""


def build(config: cfg.RunConfig) -> dict[str, Program]:
    """Turn a config into a program per method.

    Raises ConfigError, naming the method, when task, policy and latent space do not fit.
    """
    programs = {}
    for name, method in config.methods.items():
        try:
            programs[name] = make_program(method, config.population)
        except ValueError as error:
            raise cfg.ConfigError(f"{config.name}: methods.{name}: {error}") from None
    return programs


def make_program(method: cfg.Method, population: int) -> Program:
    """Turn a method into a program; its numbers (eta, a temperature, ...) may be traced.

    population: N. Raises ValueError when task, policy and latent space do not fit.
    """
    fitness_fn, num_genes = _problem(method.problem)
    settings = method.evolution
    schedule = getattr(de.schedules, settings.schedule.name)(settings.schedule.num_levels)
    fitness_map = _fitness_map(settings.fitness_map)
    if settings.latent_dim is not None and settings.latent_dim > num_genes:
        raise ValueError(
            f"evolution.latent_dim: expected 1 to {num_genes}, the genes of a genome; "
            f"seen {settings.latent_dim}"
        )

    def start(key: jax.Array):
        key_init, key_projection, key_run = jax.random.split(key, 3)
        genomes = jax.random.normal(key_init, (population, num_genes))
        projection = None
        if settings.latent_dim is not None:
            projection = de.latent.random_projection(key_projection, num_genes, settings.latent_dim)
        keys = jax.random.split(key_run, settings.schedule.num_levels)
        return algorithm(projection).init(genomes), projection, keys

    def algorithm(projection):
        return de.diffusion_evolution(
            schedule,
            fitness_map=fitness_map,
            eta=settings.eta,
            projection=projection,
            floor=settings.floor,
        )

    def keep(info: de.Info) -> dict[str, jax.Array]:
        return {
            "fitness": info.fitness,
            "alpha": info.alpha,
            "effective_sample_size": jnp.mean(info.effective_sample_size),
            "num_invalid": info.num_invalid,
            "selected": info.selected,
        }

    def advance(state, projection, keys):
        generation = de.make_generation(algorithm(projection), fitness_fn, transform=keep)
        return jax.lax.scan(generation, state, keys)

    return Program(num_genes, start, advance)


def run(
    config: cfg.RunConfig,
    programs: dict[str, Program],
    folder: Path,
    *,
    source: str = "a RunConfig",
    progress: Callable[[str, int, int, bool], None] = lambda *_: None,
) -> list[Summary]:
    """Run every method and fill the run folder.

    programs: of `build`. folder: of `results.create`. source: what the config was made from.
    progress: called as (method, finished repeats, finished generations beyond them, compiling).

    Returns a summary per method. On Ctrl-C, and on `Stopped`, the finished repeats are saved and
    environment.json says "interrupted" or "stopped"; the exception goes on to the caller.
    """
    results.write_config(folder, config, source)
    record: dict[str, Any] = {"status": "running", "methods": {}}
    results.write_environment(folder, record)
    summaries = []
    try:
        for name, program in programs.items():
            method = config.methods[name]
            with _Repeats(folder, name, method, program.num_genes, record) as repeats:
                _run_method(config, name, program, repeats, progress)
            summaries.append(repeats.summary())
        record["status"] = "complete"
    except KeyboardInterrupt:
        record["status"] = "interrupted"
        raise
    except Exception as error:
        record["status"] = f"stopped: {error}"
        raise
    finally:
        results.write_environment(folder, record)
    return summaries


class _Repeats:
    """The finished repeats of a method; saved when the method ends, however it ends."""

    def __init__(self, folder: Path, name: str, method: cfg.Method, num_genes: int, record: dict):
        self.folder, self.name, self.method, self.num_genes = folder, name, method, num_genes
        self.times: dict[str, float] = {}
        for phase in ("trace_seconds", "compile_seconds", "run_seconds"):
            self.times[phase] = 0.0
        record["methods"][name] = self.times
        self.rows: list[dict[str, Any]] = []
        self.fitness: list[np.ndarray] = []
        self.populations: list[np.ndarray] = []
        self.projections: list[np.ndarray] = []

    def __enter__(self) -> "_Repeats":
        return self

    def __exit__(self, *_: object) -> None:
        self.times["finished_repeats"] = len(self.fitness)
        if not self.fitness:
            return
        arrays = {"fitness": np.stack(self.fitness)}
        if self.populations:
            arrays["final_population"] = np.stack(self.populations)
        if self.projections:
            arrays["projection"] = np.stack(self.projections)
        results.write_method(self.folder, self.name, self.rows, arrays)

    def add(self, repeat: int, kept: dict[str, np.ndarray], population, projection) -> None:
        """Take in one finished repeat."""
        for generation, fitness in enumerate(kept["fitness"]):
            self.rows.append(
                {
                    "method": self.name,
                    "repeat": repeat,
                    "generation": generation + 1,
                    "alpha": float(kept["alpha"][generation]),
                    **_describe(fitness, self.method.problem.success),
                    "effective_sample_size": float(kept["effective_sample_size"][generation]),
                    "num_invalid": int(kept["num_invalid"][generation]),
                    "selected": int(kept["selected"][generation]),
                }
            )
        limit = self.method.save_populations
        if limit is None or len(self.fitness) < limit:
            self.populations.append(np.asarray(population))
            if projection is not None:
                self.projections.append(np.asarray(projection))
        self.fitness.append(kept["fitness"])

    def summary(self) -> Summary:
        """Say how the last generation did."""
        last = np.stack(self.fitness)[:, -1]
        last = np.where(np.isfinite(last), last, np.nan)
        threshold = self.method.problem.success
        success = None
        if threshold is not None:
            rates = de.metrics.success_rate(last, threshold)
            success = _mean_and_error(np.asarray(rates))
        return Summary(
            label=self.method.label,
            num_genes=self.num_genes,
            mean=_mean_and_error(np.nanmean(last, axis=1)),
            success=success,
            reference=self.method.reference,
        )


def _run_method(config: cfg.RunConfig, name: str, program: Program, repeats: _Repeats, progress):
    """Run all repeats, a call after the other, each for as many repeats as `_per_call` says."""
    method = config.methods[name]
    num_levels = method.evolution.schedule.num_levels
    chunks = np.array_split(np.arange(num_levels), math.ceil(num_levels / GENERATIONS_PER_CHUNK))
    devices = jax.local_devices()[: config.repeats]
    per_call = _per_call(config.repeats, len(devices))

    def many(function: Callable, **kwargs) -> _Timed:
        mapped = de.batch.over_devices(de.batch.by_platform(function), devices)
        mapped.__name__ = f"{function.__name__}_repeats"  # as profiles and the cache show it
        return _Timed(jax.jit(mapped, **kwargs), repeats.times)

    start, advance = many(program.start), many(program.advance, donate_argnums=0)
    for first in range(0, config.repeats, per_call):
        progress(name, first, 0, first == 0)
        # The last call fills up with repeats that nobody asked for.
        state, projection, keys = start(de.batch.seed_keys(config.seed, per_call, first=first))
        asked = min(per_call, config.repeats - first)
        pieces = []
        for chunk in chunks:
            state, kept = advance(state, projection, keys[:, chunk[0] : chunk[-1] + 1])
            kept = {key: np.asarray(value)[:asked] for key, value in kept.items()}
            check_fitness(method, kept["fitness"])
            pieces.append(kept)
            progress(name, first, asked * (int(chunk[-1]) + 1), False)
        kept = {key: np.concatenate([piece[key] for piece in pieces], 1) for key in pieces[0]}
        for i in range(asked):
            one = {key: value[i] for key, value in kept.items()}
            repeats.add(
                first + i,
                one,
                state.population[i],
                None if projection is None else projection[i],
            )
    progress(name, config.repeats, 0, False)


def _per_call(repeats: int, num_devices: int) -> int:
    """Repeats a call: a multiple of the devices, such that the last call is filled up least."""
    each = math.ceil(repeats / num_devices)
    sizes = range(1, min(REPEATS_PER_CALL, each) + 1)
    return num_devices * min(sizes, key=lambda size: (-each % size, -size))


class _Timed:
    """A jitted function that accounts for its tracing, its compilation and its run apart."""

    def __init__(self, jitted: Any, times: dict[str, float]):
        self.jitted, self.times, self.compiled = jitted, times, {}

    def __call__(self, *args):
        shapes = str(jax.tree.map(jnp.shape, args))
        if shapes not in self.compiled:
            lowered = self._account("trace_seconds", lambda: self.jitted.lower(*args))
            self.compiled[shapes] = self._account("compile_seconds", lowered.compile)
        run = self.compiled[shapes]
        return self._account("run_seconds", lambda: jax.block_until_ready(run(*args)))

    def _account(self, name: str, call: Callable):
        begin = time.perf_counter()
        result = call()
        self.times[name] += time.perf_counter() - begin
        return result


def _problem(problem: cfg.Function | cfg.Control) -> tuple[Callable[..., jax.Array], int]:
    """Fitness function and genome size. Raises ValueError when task and policy do not fit."""
    if isinstance(problem, cfg.Function):
        function = getattr(de.problems.functions, problem.name)
        return lambda population: function(problem.scale * population), problem.dim
    task = de.problems.control.make_task(problem.environment, max_steps=problem.max_steps)
    activation = getattr(jax.nn, problem.policy.activation)
    sizes = (task.num_inputs, *problem.policy.hidden, task.num_outputs)
    policy = de.policies.mlp(sizes, activation=activation)
    returns = de.problems.control.make_returns(
        task, policy, num_episodes=problem.num_episodes, scaling=problem.scaling
    )
    return lambda key, population: returns(key, population).mean(axis=1), policy.num_genes


def _fitness_map(settings: cfg.Identity | cfg.Power | cfg.Boltzmann) -> de.fitness.FitnessMap:
    match settings:
        case cfg.Identity():
            return de.fitness.identity
        case cfg.Power():
            return de.fitness.power(settings.p, settings.temperature)
        case cfg.Boltzmann():
            return de.fitness.boltzmann(settings.temperature)


def check_fitness(method: cfg.Method, fitness: np.ndarray) -> None:
    """Raise Stopped for a fitness that the method's map can't weigh."""
    name = method.evolution.fitness_map.name
    negative = fitness[np.isfinite(fitness) & (fitness < 0)]
    if name != "boltzmann" and len(negative):
        raise Stopped(
            f"{method.label}: the fitness went down to {negative.min():g}, and fitness_map "
            f"'{name}' needs fitness of 0 or more. Use boltzmann, which takes any sign: "
            "--set evolution.fitness_map.name=boltzmann"
        )


def _describe(fitness: np.ndarray, success: float | None) -> dict[str, Any]:
    """Statistics of one generation over its valid individuals; blank where there are none."""
    valid = fitness[np.isfinite(fitness)]
    rate = "" if success is None else float(de.metrics.success_rate(fitness, success))
    names = ("min", "q25", "median", "q75", "max")
    if not len(valid):
        blank = {f"fitness_{name}": "" for name in ("mean", "std", *names)}
        return {**blank, "success_rate": rate}
    quantiles = dict(zip(names, np.quantile(valid, [0, 0.25, 0.5, 0.75, 1]), strict=True))
    return {
        "fitness_mean": float(valid.mean()),
        "fitness_std": float(valid.std()),
        **{f"fitness_{name}": float(value) for name, value in quantiles.items()},
        "success_rate": rate,
    }


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean over repeats and its standard error; NaN for a single repeat."""
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(error)
