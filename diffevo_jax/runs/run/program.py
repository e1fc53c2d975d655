"""A method of a config as pure functions of a key."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

import diffevo_jax as de
from diffevo_jax.runs.config import plugins
from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config.registry import registry


class Program(NamedTuple):
    """A method as pure functions of a key.

    num_genes: D. num_levels: T.
    start: key -> (carry, keys of the generations `[T]`).
    advance: (carry, keys of k generations `[k]`) -> (carry, kept of k generations).
    ending: carry -> what a finished repeat leaves; of one repeat or many.
    reevaluate: (key of the repeat, carry at its end) -> outcomes of `EPISODES` fresh episodes of
        the last generation's best individual, return and success, `[E]`; None where the problem
        has none.
    mesh: of the devices that share each population; None: each repeat has one device.
    """

    num_genes: int
    num_levels: int
    start: Callable[[jax.Array], Any]
    advance: Callable[..., tuple[Any, dict[str, jax.Array]]]
    ending: Callable[[Any], dict[str, jax.Array]]
    reevaluate: Callable[[jax.Array, Any], dict[str, jax.Array]] | None = None
    mesh: Mesh | None = None


class Carry(NamedTuple):
    """What a repeat carries.

    running: of `evolve`. key: of the algorithm's own random choices.
    x0: the estimates of the last update, `[N, D]`; () where they are not saved.
    fittest: index of the best individual of the last generation; () where it is not re-evaluated.
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
            programs[name] = make_program(method, mesh=mesh)
            jax.eval_shape(partial(_first_generation, programs[name]), jax.random.key(0))
        except Exception as error:
            told = str(error) if isinstance(error, ValueError) else plugins.located(error)
            if told is None:
                raise
            raise cfg.ConfigError(f"{config.name}: methods.{name}: {told}") from error
    return programs


def _first_generation(program: Program, key: jax.Array) -> Any:
    carry, keys = program.start(key)
    return program.advance(carry, keys[:1])


def make_program(method: cfg.Method, *, mesh: Mesh | None = None) -> Program:
    """Turn a method into a program; the numbers of its sections may be traced.

    Raises ValueError, naming the setting that does not fit.
    """
    problem: de.Problem = registry.build("problem", method.problem, "problem", mesh=mesh)
    if not isinstance(problem.num_genes, int) or problem.num_genes < 1:
        raise ValueError(f"problem: expected num_genes of 1 or more; seen {problem.num_genes}")

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
        num_levels = make_algorithm(jax.random.key(0)).num_levels

    def start(key: jax.Array) -> tuple[Carry, jax.Array]:
        key_init, key_algorithm, key_run = jax.random.split(key, 3)
        genomes = jax.random.normal(key_init, (method.population_size, problem.num_genes))
        running = de.begin(make_algorithm(key_algorithm), genomes)
        keys = jax.random.split(key_run, num_levels)
        x0 = jnp.zeros_like(genomes) if method.save_x0 else ()
        fittest = () if problem.fresh is None else jnp.zeros((), jnp.int32)
        return Carry(running, key_algorithm, x0, fittest), keys

    def keep(info: Any, aux: dict[str, jax.Array] | None = None) -> dict[str, jax.Array]:
        kept = {name: getattr(info, name) for name in KEPT if hasattr(info, name)}
        if "effective_sample_size" in kept:
            kept["effective_sample_size"] = jnp.mean(kept["effective_sample_size"])
        if aux and "returns" in aux:
            kept["fitness"] = aux["returns"]
        if aux and "success" in aux:
            seen = getattr(aux["success"], "shape", type(aux["success"]).__name__)
            if seen != info.fitness.shape:
                raise ValueError(f"problem: expected success {info.fitness.shape}; seen {seen}")
            kept["success_rate"] = jnp.mean(aux["success"])
        return kept

    def advance(carry: Carry, keys: jax.Array) -> tuple[Carry, dict[str, jax.Array]]:
        generation = de.make_generation(
            make_algorithm(carry.key),
            problem.fitness_fn,
            has_key=problem.has_key,
            has_aux=problem.has_aux,
            keep=lambda info, *aux: (keep(info, *aux), info),
            repair=problem.repair,
        )

        def one(carry: Carry, key: jax.Array) -> tuple[Carry, dict[str, jax.Array]]:
            updated = carry.running.state.t > 0
            running, (kept, info) = generation(carry.running, key)
            carry = carry._replace(running=running)
            if problem.fresh is not None:
                carry = carry._replace(fittest=index_of_best(info.fitness))
            if not method.save_x0:
                return carry, kept
            if not hasattr(info, "x0"):
                raise ValueError("save_x0: expected an algorithm that estimates x0")
            return carry._replace(x0=jnp.where(updated, info.x0, carry.x0)), kept

        return jax.lax.scan(one, carry, keys)

    def ending(carry: Carry) -> dict[str, jax.Array]:
        state, best = carry.running
        left = {
            "final_population": state.population,
            "best_genome": best.genome,
            "best_fitness": best.fitness,
        }
        if method.save_x0:
            left["final_x0"] = carry.x0
        if problem.fresh is not None:
            left["reevaluated_genome"] = chosen(state.population, carry.fittest)
        if isinstance(getattr(state, "archive", None), de.baselines.Archive):
            left |= {f"archive_{name}": value for name, value in state.archive._asdict().items()}
        return left

    def reevaluate(key: jax.Array, carry: Carry) -> dict[str, jax.Array]:
        assert problem.fresh is not None
        genome = chosen(carry.running.state.population, carry.fittest)
        # `start` has split the repeat's key in three.
        returns, aux = problem.fresh(jax.random.fold_in(key, 3), jnp.tile(genome, (EPISODES, 1)))
        success = {"reevaluated_success": aux["success"]} if "success" in aux else {}
        return {"reevaluated_return": returns, **success}

    if problem.fresh is None:
        return Program(problem.num_genes, num_levels, start, advance, ending, mesh=mesh)
    return Program(problem.num_genes, num_levels, start, advance, ending, reevaluate, mesh)


# Fresh episodes of the best individual.
EPISODES = 100

# Of a generation's info, where the algorithm tells them.
KEPT = ("fitness", "alpha", "effective_sample_size", "num_invalid", "selected")


def index_of_best(fitness: jax.Array) -> jax.Array:
    """Index of the best individual, `[]`; fitness that is no number is no candidate."""
    return jnp.argmax(jnp.where(jnp.isfinite(fitness), fitness, -jnp.inf)).astype(jnp.int32)


def chosen(population: jax.Array, index: jax.Array) -> jax.Array:
    """The genome of an index, `[..., N, D]` and `[...]` to `[..., D]`."""
    return jnp.take_along_axis(population, index[..., None, None], axis=-2)[..., 0, :]


def needs_positive(method: cfg.Method) -> str | None:
    """Where the method's fitness map is, when it has no weight for negative fitness; else None."""
    for kind, path, section in registry.sections("algorithm", method.algorithm, "algorithm"):
        if kind == "fitness_map" and registry.entry(kind, section).needs_positive:
            return path
    return None
