"""What configs can name without a plugin: what the library's packages export, or a line each.

The starters say what the settings are.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax

import diffevo_jax as de
from diffevo_jax.checks import Count, InputError, NonNegative, Number, Positive
from diffevo_jax.evosax._strategy import Shaping
from diffevo_jax.evosax._tuned import Use
from diffevo_jax.problem import Problem
from diffevo_jax.runs.config.registry import register


def _register_all(kind: str, module: Any, made: type) -> None:
    """Register the functions that a package exports and that return what is `made`."""
    for name, factory in inspect.getmembers(module, inspect.isfunction):
        if factory.__annotations__["return"] is made:
            register(kind, name, factory)


for _name in ("cosine", "linear", "ddpm", "nichol", "geometric"):
    register("schedule", _name, getattr(de.schedules, _name))

register("fitness_map", "standardised", de.fitness.standardised)
register("fitness_map", "rank", de.fitness.rank)
register("fitness_map", "roulette", de.fitness.roulette)
register("fitness_map", "dominated_novelty", de.fitness.dominated_novelty)
register("fitness_map", "identity", lambda: de.fitness.identity, needs_positive=True)
register("fitness_map", "power", de.fitness.power, needs_positive=True)
register("fitness_map", "boltzmann", de.fitness.boltzmann)

_register_all("denoiser", de.denoisers, de.Denoiser)
register("kernel", "gaussian", de.kernels.gaussian)
register("kernel", "student_t", de.kernels.student_t)
register("projection", "active_subspace", de.latent.active_subspace)
_register_all("sampler", de.samplers, de.Sampler)

register("algorithm", "diffusion_evolution", de.diffusion_evolution)
register("algorithm", "denoising_evolution", de.denoising_evolution)
register("algorithm", "paper", de.presets.paper)
register("algorithm", "hades", de.presets.hades)
register("algorithm", "illuminate", de.presets.illuminate)
register("algorithm", "track", de.presets.track)
register("learner", "mlp", de.training.learner)


def charles(
    *,
    conditions: list[Literal["fitness", "novelty"]],
    guidance: NonNegative = 1.0,
    **settings: Any,
) -> de.Algorithm:
    """`de.presets.charles`, told fitness or novelty; its other settings are those of `hades`."""
    named = [getattr(de.conditions, name)() for name in conditions]
    return de.presets.charles(named, guidance=guidance, **settings).algorithm


_own, _hades = inspect.signature(charles), inspect.signature(de.presets.hades)
charles.__signature__ = _own.replace(  # pyright: ignore
    parameters=[*list(_own.parameters.values())[:-1], *_hades.parameters.values()]
)
charles.__annotations__ |= de.presets.hades.__annotations__ | {"return": de.Algorithm}
register("algorithm", "charles", charles)
_register_all("algorithm", de.baselines, de.Algorithm)


@register("algorithm", "discrete_evolution")
def discrete_evolution(
    *,
    num_levels: Count,
    letters: Count = 2,
    sample_size: Positive = 16.0,
    latent_dim: Count | None = None,
    temperature: Positive = 0.25,
) -> de.Algorithm:
    """`de.discrete_evolution`, whose first letters are the quantiles of genomes from N(0, I)."""
    algorithm = de.discrete_evolution(
        num_levels,
        letters=letters,
        sample_size=sample_size,
        latent_dim=latent_dim,
        temperature=temperature,
    )
    return _from_quantiles(algorithm, letters)


def _from_quantiles(algorithm: de.Algorithm, letters: int = 2) -> de.Algorithm:
    def init(key: jax.Array, population: jax.Array) -> Any:
        letter = jnp.floor(letters * jax.scipy.stats.norm.cdf(population))
        return algorithm.init(key, jnp.minimum(letter, letters - 1))

    return algorithm._replace(init=init)


def _register_bits(name: str) -> None:
    """Register one of the baselines for bits, which begins like `discrete_evolution`."""
    factory = getattr(de.baselines.bits, name)

    @wraps(factory)
    def from_quantiles(**settings: Any) -> de.Algorithm:
        return _from_quantiles(factory(**settings))

    register("algorithm", name, from_quantiles)


for _name in ("umda", "pbil", "cga", "genetic_algorithm", "one_plus_lambda"):
    _register_bits(_name)


for _name in ("grid", "cvt", "centroids"):
    register("archive", _name, getattr(de.archives, _name))


def _register_optimizer(name: str, factory: Callable) -> None:
    """Register one of Optax's optimizers, with those of its settings that are numbers."""
    parameters = []
    for parameter in inspect.signature(factory).parameters.values():
        default: Any = parameter.default
        if parameter.name == "learning_rate":
            annotation, default = Positive, parameter.empty
        elif isinstance(default, bool | int | float):
            annotation = type(default)
        elif default is None and float in get_args(parameter.annotation):
            annotation = float | None
        elif default is parameter.empty:
            return  # it needs what a config can't give
        else:
            continue
        kind = parameter.KEYWORD_ONLY
        parameters.append(
            inspect.Parameter(parameter.name, kind, default=default, annotation=annotation)
        )

    def optimizer(**settings: Any) -> optax.GradientTransformation:
        return factory(**settings)

    optimizer.__signature__ = inspect.Signature(parameters)  # pyright: ignore
    optimizer.__annotations__ = {each.name: each.annotation for each in parameters}
    register("optimizer", name, optimizer)


def clipup(
    learning_rate: float, max_velocity: float = 0.1, momentum: float = 0.9
) -> optax.GradientTransformation:
    """ClipUp (https://arxiv.org/abs/2008.02387), evosax's, which PGPE takes by default."""
    from evosax.core.optimizer import clipup

    return clipup(learning_rate, max_velocity, momentum)


# No parts of optimizers, and none that wants the cost too.
_NONE_OF = ("_", "scale_by", "lbfgs", "polyak_sgd")
_register_optimizer("clipup", clipup)
for _name, _factory in inspect.getmembers(optax, inspect.isfunction):
    _has_rate = "learning_rate" in inspect.signature(_factory).parameters
    if _has_rate and not _name.startswith(_NONE_OF):
        _register_optimizer(_name, _factory)


@register("algorithm", "evosax")
def evosax(
    *,
    strategy: str,
    num_generations: Count,
    sigma: Positive | None = None,
    sigma_decay: Positive | None = None,
    optimizer=None,
    learning_rate_decay: Positive | None = None,
    shaping: Shaping | None = None,
    tuned: Use | None = None,
    params: dict[str, float] | None = None,
    options: dict[str, int | float | bool | str] | None = None,
    population_size: int,
    num_genes: int,
) -> de.Algorithm:
    """Any of evosax's algorithms by name, see `evosax.strategy`."""
    return de.evosax.strategy(
        strategy,
        population_size=population_size,
        num_genes=num_genes,
        num_generations=num_generations,
        sigma=sigma,
        sigma_decay=sigma_decay,
        optimizer=optimizer,
        learning_rate_decay=learning_rate_decay,
        shaping=shaping,
        tuned=tuned,
        params=params,
        options=options,
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


_HOW = ("scale", "success")  # how a problem is met


@register("problem", "function", title=_title, how=(*_HOW, "limit"))
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
    """A landscape of `landscapes.functions`, see `landscapes.make_problem`.

    num_genes: D; some landscapes are of the plane alone.
    temperature: of the published fitness, exp(-distance / (temperature x scale)); null is 1.
    target_dim: dimension whose target Rastrigin's fitness has; null is its own.
    """
    landscape = getattr(de.landscapes.functions, function)
    settings = {"temperature": temperature, "target_dim": target_dim}
    settings = {key: value for key, value in settings.items() if value is not None}
    for key in settings.keys() - inspect.signature(landscape).parameters.keys():
        raise InputError(key, f"none, {function} has no such setting", settings[key])
    jax.eval_shape(landscape, jax.ShapeDtypeStruct((1, num_genes), float))
    landscape = partial(landscape, **settings)
    return de.landscapes.make_problem(
        landscape, num_genes=num_genes, scale=scale, limit=limit, success=success
    )


_bbob_title = partial(_title, prefix="BBOB ")
register(
    "problem", "bbob", de.landscapes.bbob.make_problem, title=_bbob_title, how=(*_HOW, "limit")
)


@register(
    "problem",
    "control",
    title=lambda problem: str(problem.get("environment")),
    how=(*_HOW, "policy", "num_episodes", "shared_starts", "observations", "fast_trig"),
    measure="reward",
)
def control(
    *,
    environment: str,
    parameters: dict[str, float | int | bool | str] | None = None,
    policy: Callable[..., de.policies.Policy],
    observations: Literal["scaled", "raw", "normalised"] = "scaled",
    num_episodes: Count = 1,
    scale: Positive = 1.0,
    max_steps: Count | None = 500,
    fast_trig: bool = True,
    success: Number | Literal["goal"] | None = None,
    shared_starts: Count | None = None,
    mesh=None,
) -> Problem:
    """A control task with a policy, see `tasks.make_task`, `policies.scaled` and `make_problem`.

    environment: a name, see `environments.make`, with other parameters where these are set.
    max_steps: 500 as published; null keeps the environment's own limit. scale: 1 as published, 3 in
    `presets.control`.
    """
    task, network = make_task(
        environment, parameters, policy, observations, scale, max_steps, fast_trig
    )
    return de.tasks.make_problem(
        task,
        network,
        num_episodes=num_episodes,
        success=success,
        shared_starts=shared_starts,
        mesh=mesh,
    )


register(
    "problem",
    "domain",
    de.landscapes.domains.make_problem,
    title=_title,
    how=("scale",),
    measure="objective",
)


@register("problem", "bits", title=_title)
def bits(*, function: Literal["onemax", "leading_ones", "traps"], num_genes: Count = 60) -> Problem:
    """A function of `landscapes.discrete`; solved where all bits are ones."""
    landscape = getattr(de.landscapes.discrete, function)
    jax.eval_shape(landscape, jax.ShapeDtypeStruct((1, num_genes), float))
    return de.landscapes.make_problem(landscape, num_genes=num_genes, success=num_genes)


def make_task(environment, parameters, policy, observations, scale, max_steps, fast_trig, **_: Any):
    """The task of a section `control`, and its network with the scale of its genomes."""
    task = de.tasks.make_task(
        de.environments.make(environment, **(parameters or {})),
        max_steps=max_steps,
        fast_trig=fast_trig,
        observations=observations,
    )
    network = policy(
        input_shape=task.input_shape, num_inputs=task.num_inputs, num_outputs=task.num_outputs
    )
    return task, de.policies.scaled(network, scale)
