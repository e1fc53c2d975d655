"""A method of a config as pure functions of a key."""

import json
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

import diffevo_jax as de
from diffevo_jax.algorithm import no_best
from diffevo_jax.checks import InputError
from diffevo_jax.runs.config import plugins
from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.results.fields import EPISODES, GENERATION, METRICS


class Program(NamedTuple):
    """A method as pure functions of a key.

    num_genes: D. num_levels: T.
    start: key -> (carry, keys of the generations `[T]`).
    advance: (carry, keys of k generations `[k]`) -> (carry, kept of k generations).
    ending: carry -> what a finished repeat leaves; of one repeat or many.
    reevaluate: (key of the repeat, carry at its end) -> outcomes of `EPISODES` fresh episodes of
        the last generation's best individual, return and success, `[E]`; None where the problem
        has none.
    mesh: the devices that share each population; None: each repeat has one device.

    Where numbers are data (`with_data`), start, advance and reevaluate take them last.
    """

    num_genes: int
    num_levels: int
    start: Callable[..., Any]
    advance: Callable[..., tuple[Any, dict[str, jax.Array]]]
    ending: Callable[[Any], dict[str, jax.Array]]
    reevaluate: Callable[..., dict[str, jax.Array]] | None = None
    mesh: Mesh | None = None


class Carry(NamedTuple):
    """What a repeat carries.

    running: what `evolve` carries. key: for the algorithm's own random choices.
    x0: the estimates of the last update, `[N, D]`; () where they are not saved.
    fittest: index of the best individual of the last generation; () where it is not reevaluated.
    """

    running: de.Running
    key: jax.Array
    x0: Any
    fittest: Any


def build(config: cfg.RunConfig, *, mesh: Mesh | None = None) -> dict[str, Program]:
    """Turn a config into a program per method.

    mesh: split each population over its devices; None runs several repeats side by side.
    Raises ConfigError, naming the method and the setting that does not fit.
    """
    programs = {}
    for name, method in config.methods.items():
        try:
            programs[name] = program = make_program(method, mesh=mesh)
            carry, keys = jax.eval_shape(program.start, jax.random.key(0))
            jax.eval_shape(program.advance, carry, jax.eval_shape(lambda each: each[:1], keys))
        except Exception as error:
            message = str(error) if isinstance(error, ValueError) else plugins.located(error)
            if isinstance(error, InputError):
                message = f"{_place(method, error.path)}{error}"
            if message is None:
                raise
            raise cfg.ConfigError(f"{config.name}: methods.{name}: {message}") from error
    return programs


def _place(method: cfg.Method, setting: str) -> str:
    """Where the algorithm's settings have one of a name, "algorithm.", else nothing."""
    for _, path, section in registry.sections("algorithm", method.algorithm, "algorithm"):
        if setting in type(section).model_fields and getattr(section, setting) is not None:
            return f"{path}."
    return ""


def make_program(method: cfg.Method, *, mesh: Mesh | None = None) -> Program:
    """Turn a method into a program; the numbers of its sections may be traced.

    Raises ValueError, naming the setting that does not fit.
    """
    problem: de.Problem = registry.build("problem", method.problem, "problem", mesh=mesh)
    reevaluation = problem.reevaluate
    if not isinstance(problem.num_genes, int) or problem.num_genes < 1:
        raise InputError("problem", "num_genes of 1 or more", problem.num_genes)

    def make_algorithm(key: jax.Array) -> de.Algorithm:
        return registry.build(
            "algorithm",
            method.algorithm,
            "algorithm",
            key=key,
            num_genes=problem.num_genes,
            population_size=method.population_size,
            mesh=mesh,
        )

    with jax.ensure_compile_time_eval():  # says here what does not fit
        num_levels = make_algorithm(jax.random.key(0)).num_generations

    if num_levels is None:
        raise ValueError("algorithm: expected one with an end; seen one without")

    def start(key: jax.Array) -> tuple[Carry, jax.Array]:
        key_init, key_algorithm, key_run = jax.random.split(key, 3)
        genomes = jax.random.normal(key_init, (method.population_size, problem.num_genes))
        state = make_algorithm(key_algorithm).init(key_algorithm, genomes)
        # The repeat's key is split in three; `reevaluate` and `animate` take 3 and 4.
        memory = () if problem.init is None else problem.init(jax.random.fold_in(key, 5))
        running = de.Running(state, no_best(state.population), memory)
        keys = jax.random.split(key_run, num_levels)
        x0 = jnp.zeros_like(genomes) if method.save_x0 else ()
        fittest = () if reevaluation is None else jnp.zeros((), jnp.int32)
        return Carry(running, key_algorithm, x0, fittest), keys

    def keep(info: Any, aux: dict[str, jax.Array] | None = None) -> dict[str, jax.Array]:
        kept = {name: getattr(info, name) for name in GENERATION if hasattr(info, name)}
        for name, value in kept.items():
            if name in METRICS and value.ndim:  # one number a generation: the mean over individuals
                kept[name] = jnp.mean(value)
        if aux and "returns" in aux:
            kept["fitness"] = aux["returns"]
        if aux and "success" in aux:
            shape = getattr(aux["success"], "shape", type(aux["success"]).__name__)
            if shape != info.fitness.shape:
                raise InputError("problem", f"success {info.fitness.shape}", shape)
            kept["success_rate"] = jnp.mean(aux["success"])
        return kept

    def advance(carry: Carry, keys: jax.Array) -> tuple[Carry, dict[str, jax.Array]]:
        generation = de.make_generation(
            make_algorithm(carry.key),
            problem,
            keep=lambda info, *aux: (keep(info, *aux), info),
        )

        def one(carry: Carry, key: jax.Array) -> tuple[Carry, dict[str, jax.Array]]:
            updated = carry.running.state.t > 0
            running, (kept, info) = generation(carry.running, key)
            x0, fittest = carry.x0, carry.fittest
            if reevaluation is not None:
                valid = jnp.where(jnp.isfinite(info.fitness), info.fitness, -jnp.inf)
                fittest = jnp.argmax(valid).astype(jnp.int32)
            if method.save_x0:
                if not hasattr(info, "x0"):
                    raise ValueError("save_x0: expected an algorithm that estimates x0")
                x0 = jnp.where(updated, info.x0, x0)
            return Carry(running, carry.key, x0, fittest), kept

        return jax.lax.scan(one, carry, keys)

    def ending(carry: Carry) -> dict[str, jax.Array]:
        state, best, memory = carry.running
        left = {
            "final_population": state.population,
            "best_genome": best.genome,
            "best_fitness": best.fitness,
        }
        if method.save_x0:
            left["final_x0"] = carry.x0
        if reevaluation is not None:
            left["reevaluated_genome"] = _chosen(state.population, carry.fittest)
        if isinstance(memory, de.tasks.Statistics):
            left |= {f"observation_{name}": value for name, value in memory._asdict().items()}
        kinds = de.baselines.EliteArchive, de.archives.Elites
        if isinstance(getattr(state, "archive", None), kinds):
            left |= {f"archive_{name}": value for name, value in state.archive._asdict().items()}
        return left

    def reevaluate(key: jax.Array, carry: Carry) -> dict[str, jax.Array]:
        assert reevaluation is not None
        genome = _chosen(carry.running.state.population, carry.fittest)
        # `start` has split the repeat's key in three.
        memory = () if problem.init is None else (carry.running.memory,)
        population = jnp.tile(genome, (EPISODES, 1))
        returns, aux = reevaluation(jax.random.fold_in(key, 3), *memory, population)
        success = {"reevaluated_success": aux["success"]} if "success" in aux else {}
        return {"reevaluated_return": returns, **success}

    outcomes = None if reevaluation is None else reevaluate
    return Program(problem.num_genes, num_levels, start, advance, ending, outcomes, mesh)


def with_data(method: cfg.Method) -> Program:
    """Turn a method into a program to which its numbers are data, those of `take_apart`."""
    constant = make_program(method)

    def with_numbers_last(name: str) -> Callable[..., Any]:
        def traced(*arguments: Any) -> Any:
            *inputs, numbers = arguments
            return getattr(make_program(with_numbers(method, numbers)), name)(*inputs)

        traced.__name__ = name
        return traced

    names = [name for name in ("start", "advance", "reevaluate") if getattr(constant, name)]
    return constant._replace(**{name: with_numbers_last(name) for name in names})


def take_apart(method: cfg.Method) -> tuple[str, dict[str, float]]:
    """Take a method apart: what its program is compiled for, as text, and the numbers it takes."""
    shape = method.model_dump(exclude={"label", "reference"})
    numbers = {}
    for kind in ("problem", "algorithm"):
        for inner, path, section in registry.sections(kind, getattr(method, kind), kind):
            for setting in registry.entry(inner, section).traced:
                value, default = getattr(section, setting), type(section).model_fields[setting]
                # What is off by default, as a floor of 0, leaves another program where it is off.
                if isinstance(value, int | float) and (value or default.default != 0):
                    key = f"{path}.{setting}"
                    numbers[key] = reduce(dict.__getitem__, path.split("."), shape).pop(setting)
    return json.dumps(shape), numbers


def with_numbers(method: cfg.Method, numbers: dict[str, Any]) -> cfg.Method:
    """Put numbers, traced ones for example, into a method."""

    def put(model: Any, path: list[str], value: Any) -> Any:
        inner = put(getattr(model, path[0]), path[1:], value) if len(path) > 1 else value
        return model.model_copy(update={path[0]: inner})

    return reduce(lambda m, item: put(m, item[0].split("."), item[1]), numbers.items(), method)


def _chosen(population: jax.Array, index: jax.Array) -> jax.Array:
    """The genome of an index, `[..., N, D]` and `[...]` to `[..., D]`."""
    return jnp.take_along_axis(population, index[..., None, None], axis=-2)[..., 0, :]
