"""What configs can name without a plugin: what the library's packages export, or a line each."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

import diffevo_jax as de
from diffevo_jax.checks import Count, InputError, Number, Positive
from diffevo_jax.problem import Problem
from diffevo_jax.runs.config.registry import register


def factories(module: Any, made: type) -> dict[str, Callable[..., Any]]:
    """The functions that a package exports and that return what is `made`, by name."""
    functions = {name: each for name, each in vars(module).items() if inspect.isfunction(each)}
    return {
        name: each for name, each in functions.items() if each.__annotations__["return"] is made
    }


for _name in ("cosine", "linear", "ddpm"):
    register("schedule", _name, getattr(de.schedules, _name))

register("fitness_map", "standardised", de.fitness.standardised)
register("fitness_map", "rank", de.fitness.rank)
register("fitness_map", "identity", lambda: de.fitness.identity, needs_positive=True)
register("fitness_map", "power", de.fitness.power, needs_positive=True)
register("fitness_map", "boltzmann", de.fitness.boltzmann)

for _name, _factory in factories(de.denoisers, de.Denoiser).items():
    register("denoiser", _name, _factory)
register("kernel", "gaussian", de.kernels.gaussian)
register("kernel", "student_t", de.kernels.student_t)
for _name, _factory in factories(de.samplers, de.Sampler).items():
    register("sampler", _name, _factory)

register("algorithm", "diffusion_evolution", de.diffusion_evolution)
register("algorithm", "denoising_evolution", de.denoising_evolution)
for _name, _factory in factories(de.baselines, de.Algorithm).items():
    register("algorithm", _name, _factory)


@register("algorithm", "evosax")
def evosax(
    *,
    strategy: str,
    num_generations: Count,
    params: dict[str, float] | None = None,
    options: dict[str, int | float | bool | str] | None = None,
    population_size: int,
    num_genes: int,
) -> de.Algorithm:
    """Any of evosax's algorithms by name, see `evosax.strategy`."""
    sizes = {"population_size": population_size, "num_genes": num_genes}
    return de.evosax.strategy(
        strategy, num_generations=num_generations, params=params, options=options, **sizes
    )


@register("policy", "mlp")
def mlp(
    *,
    num_inputs: int,
    num_outputs: int,
    hidden: list[Count],
    activation: Literal["relu", "tanh", "gelu", "silu"] = "relu",
) -> de.policies.Policy:
    """A multilayer perceptron. hidden: sizes of its hidden layers."""
    sizes = (num_inputs, *hidden, num_outputs)
    return de.policies.mlp(sizes, activation=getattr(jax.nn, activation))


register("policy", "gru", de.policies.gru)


def _title(problem: Mapping[str, Any], prefix: str = "") -> str:
    function = str(problem.get("function")).replace("_", " ")
    return f"{prefix}{function}, {problem.get('num_genes')} dimensions"


@register("problem", "function", title=_title, how=("scale", "limit", "success"))
def function(
    *,
    function: Literal[
        "two_peaks", "two_steps", "rosenbrock", "beale", "himmelblau", "ackley", "rastrigin"
    ],
    num_genes: Count = 2,
    scale: Positive = 1.0,
    temperature: Positive | None = None,
    target_dim: Count | None = None,
    limit: Positive | None = None,
    success: Number | None = None,
) -> Problem:
    """A landscape of `landscapes.functions`, of the genome times `scale`.

    num_genes: D; some landscapes are of the plane alone. scale: factor on the genome.
    temperature: of the published fitness, exp(-distance / (temperature x scale)); null is 1.
    target_dim: dimension whose target Rastrigin's fitness has; null is its own.
    limit: points are clipped to [-limit, limit] before they are evaluated; null leaves them.
    success: fitness from which on an individual has solved it.
    """
    landscape = getattr(de.landscapes.functions, function)
    settings = {"temperature": temperature, "target_dim": target_dim}
    settings = {key: value for key, value in settings.items() if value is not None}
    for key in settings.keys() - inspect.signature(landscape).parameters.keys():
        expected = f"none, {function} has no such setting"
        raise InputError(key, expected, settings[key])
    jax.eval_shape(landscape, jax.ShapeDtypeStruct((1, num_genes), float))

    return _landscape(partial(landscape, **settings), num_genes, scale, limit, success)


@register(
    "problem", "bbob", title=partial(_title, prefix="BBOB "), how=("scale", "limit", "success")
)
def bbob(
    *,
    function: int | str,
    num_genes: Count = 10,
    instance: int = 0,
    scale: Positive = 2.5,
    limit: Positive | None = None,
    success: Number | None = None,
) -> Problem:
    """A function of `landscapes.bbob`, of the genome times `scale`: fitness is -(f - f_opt).

    function: its number, 1 to 24, or name, as f15. num_genes: D.
    scale: factor on the genome; 2.5 spreads it over BBOB's box.
    instance: seed of its optimum and rotations.
    limit: points are clipped to [-limit, limit], BBOB's box is 5; null leaves them, as BBOB does.
    success: fitness from which on an individual has solved it, such as -1e-3.
    """
    drawn = de.landscapes.bbob.make_instance(function, num_genes=num_genes, instance=instance)

    def fitness(points: jax.Array) -> jax.Array:
        return drawn.f_opt - jax.vmap(drawn.cost_fn)(points)

    return _landscape(fitness, num_genes, scale, limit, success)


def _landscape(
    function: Callable[[jax.Array], jax.Array],
    num_genes: int,
    scale: Number,
    limit: Number | None,
    success: Number | None,
) -> Problem:
    """Points `[N, D]` -> fitness `[N]`, as a problem of genomes."""

    def fitness_fn(population: jax.Array):
        fitness = function(scale * population)
        return fitness, {} if success is None else {"success": fitness >= success}

    if limit is None:
        return Problem(num_genes, fitness_fn, has_aux=True)
    clip = partial(jnp.clip, min=-limit / scale, max=limit / scale)
    return Problem(num_genes, fitness_fn, has_aux=True, repair=clip)


@register(
    "problem",
    "control",
    title=lambda problem: str(problem.get("environment")),
    how=(
        *("policy", "scale", "num_episodes", "shared_starts", "observations", "fast_trig"),
        "success",
    ),
    measure="reward",
)
def control(
    *,
    environment: str,
    policy: Callable[..., de.policies.Policy],
    observations: Literal["scaled", "raw"] = "scaled",
    num_episodes: Count = 1,
    scale: Positive = 1.0,
    max_steps: Count | None = 500,
    fast_trig: bool = True,
    success: Number | Literal["goal"] | None = None,
    shared_starts: Count | None = None,
    mesh=None,
) -> Problem:
    """A Gymnax task with a policy, see `tasks.make_task` and `make_fitness`.

    environment: name of a Gymnax environment. policy: the network.
    observations: scaled to a variance of about 1, or raw as the environment gives them.
    num_episodes: of an individual in each generation; its fitness is their mean return.
    scale: factor on the genome before it fills the network; 1 as published, 3 in `presets.control`.
    max_steps: steps after which an episode is cut off, 500 as published; null keeps the
        environment's own limit.
    fast_trig: sines and cosines by a polynomial, to 2e-7, which is faster on a CPU.
    success: return from which on an episode is a success, or goal: ended by the task's own rule;
        null tells none.
    shared_starts: number of starts that individuals share, whose luck is taken out; null gives each
        its own.
    """
    task = de.tasks.make_task(
        environment, max_steps=max_steps, fast_trig=fast_trig, observations=observations
    )
    network = policy(
        input_shape=task.input_shape, num_inputs=task.num_inputs, num_outputs=task.num_outputs
    )
    network = de.policies.scaled(network, scale)
    return de.tasks.make_problem(
        task,
        network,
        num_episodes=num_episodes,
        success=success,
        shared_starts=shared_starts,
        mesh=mesh,
    )
