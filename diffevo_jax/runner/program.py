"""A method of a config as pure functions of a key."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

import diffevo_jax as de
from diffevo_jax.runner import config as cfg


class Program(NamedTuple):
    """A method as pure functions of a key.

    num_genes: D.
    start: key -> (state, projection or None, keys of the generations `[T]`).
    advance: (state, projection, keys `[k]`) -> (state, kept of k generations).
    mesh: of the devices that share each population; None: each repeat has one device.
    """

    num_genes: int
    start: Callable
    advance: Callable
    mesh: Mesh | None = None


def build(config: cfg.RunConfig, *, mesh: Mesh | None = None) -> dict[str, Program]:
    """Turn a config into a program per method.

    mesh: split each population over its devices; None runs several repeats side by side.
    Raises ConfigError, naming the method, when task, policy and latent space do not fit.
    """
    programs = {}
    for name, method in config.methods.items():
        try:
            programs[name] = make_program(method, config.population, mesh=mesh)
        except ValueError as error:
            raise cfg.ConfigError(f"{config.name}: methods.{name}: {error}") from None
    return programs


def make_program(method: cfg.Method, population: int, *, mesh: Mesh | None = None) -> Program:
    """Turn a method into a program; its numbers (eta, a temperature, ...) may be traced.

    population: N. Raises ValueError when task, policy and latent space do not fit.
    """
    fitness_fn, num_genes = _problem(method.problem, mesh)
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
            mesh=mesh,
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

    return Program(num_genes, start, advance, mesh)


def _problem(
    problem: cfg.Function | cfg.Control, mesh: Mesh | None
) -> tuple[Callable[..., jax.Array], int]:
    """Fitness function and genome size. Raises ValueError when task and policy do not fit."""
    if isinstance(problem, cfg.Function):
        function = getattr(de.problems.functions, problem.name)
        return lambda population: function(problem.scale * population), problem.dim
    task = de.problems.control.make_task(
        problem.environment, max_steps=problem.max_steps, fast_trig=problem.fast_trig
    )
    activation = getattr(jax.nn, problem.policy.activation)
    sizes = (task.num_inputs, *problem.policy.hidden, task.num_outputs)
    policy = de.policies.mlp(sizes, activation=activation)
    returns = de.problems.control.make_returns(
        task, policy, num_episodes=problem.num_episodes, scaling=problem.scaling
    )

    def mean_return(key: jax.Array, population: jax.Array) -> jax.Array:
        return returns(key, population).mean(axis=1)

    if mesh is not None:
        return de.sharding.over_individuals(mean_return, mesh), policy.num_genes
    return mean_return, policy.num_genes


def _fitness_map(settings: cfg.Identity | cfg.Power | cfg.Boltzmann) -> de.fitness.FitnessMap:
    match settings:
        case cfg.Identity():
            return de.fitness.identity
        case cfg.Power():
            return de.fitness.power(settings.p, settings.temperature)
        case cfg.Boltzmann():
            return de.fitness.boltzmann(settings.temperature)
