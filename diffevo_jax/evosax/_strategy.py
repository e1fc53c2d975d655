"""Any algorithm of evosax, by its name there (https://github.com/RobertTLange/evosax)."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffevo_jax.algorithm import Algorithm, make_algorithm
from diffevo_jax.checks import (
    Count,
    InputError,
    Number,
    Positive,
    check_count,
    check_number,
    nearest,
)
from diffevo_jax.evosax._tuned import Use, tuned_settings
from diffevo_jax.search import SearchInfo, SearchState, choose, search_info, usable

# Fields where a strategy remembers the noise of its own draws, which its update reads.
NOISE = ("z", "y", "pert", "pert_accum")

# What a strategy learns from in the place of costs, by evosax's names.
Shaping = Literal["identity", "standardize", "normalize", "centered_rank", "weights"]

# Strategies with a matrix of D x D, and the genes up to which they are made: on two cores a
# generation of 100 by CMA_ES takes 0.09 s at D = 500, 0.3 s at 1,000, 7 s at 2,000.
FULL_MATRIX = ("CMA_ES", "SV_CMA_ES", "MA_ES", "xNES", "iAMaLGaM_Full")
MOST_GENES = 2000


def strategy(
    name: str,
    *,
    population_size: Count,
    num_genes: Count,
    num_generations: Count | None,
    sigma: Positive | None = None,
    sigma_decay: Positive | None = None,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate_decay: Positive | None = None,
    shaping: Shaping | None = None,
    tuned: Use | None = None,
    params: Mapping[str, Number] | None = None,
    options: dict[str, Any] | None = None,
) -> Algorithm:
    """Configure one of evosax's algorithms: it learns from a generation, then draws the next.

    name: the strategy's name in evosax, such as "CMA_ES", "SNES" or "DifferentialEvolution".
    num_generations: T; None has no end.
    sigma: standard deviation that the search starts with, `std_init` or `std_schedule` in evosax.
        `init` multiplies its population by it: N(0, I) becomes a draw from the distribution.
    optimizer: the step of the mean along its gradient, `optax.adam(0.1)` for example.
    sigma_decay, learning_rate_decay: factor on sigma, where it follows a schedule (Open_ES), and on
        the optimizer's steps, over all generations together, reached evenly.
    shaping: what the gradient is of: centred ranks, standardised costs, costs as they are
        ("identity"). Strategies that weigh ranks (CMA_ES, SNES) take "weights" alone.
    tuned: start from settings chosen by measurement, `TUNED`, rather than evosax's: "function" for
        costs, "control" for a network's returns. What is given besides replaces them.
    params: numbers that replace those of its default parameters, such as std_lr; may be traced.
    options: arguments of its constructor, such as use_antithetic_sampling.

    The population given to `init` is its first generation. Distributions start with mean 0 and,
    without sigma, the strategy's own std, 1 in most: draw the initial population from that. A
    strategy that mirrors its draws takes the two halves of any generation for mirror images; one
    that remembers their noise (NOISE) learns from that noise, also where other genomes were
    evaluated in their place. A generation without any finite fitness changes nothing. A population
    that is split over a mesh gives the same; XLA gathers what evosax sums and sorts.

    State.strategy and Info.strategy hold evosax's state, in units where it minimises -fitness; its
    generation_counter is -1 before the first step, which draws what the strategy starts from.
    Raises InputError on names, settings and sizes that the strategy does not take, and on more than
    MOST_GENES genes for one with a full matrix (FULL_MATRIX: memory D^2, time D^3); and
    ModuleNotFoundError without evosax: `pip install "diffevo-jax[baselines]"`.
    """
    shape = check_count("population_size", population_size), check_count("num_genes", num_genes)
    try:
        from evosax.algorithms import algorithms, population_based_algorithms
    except ModuleNotFoundError as error:
        message = f'evosax is missing ({error}): pip install "diffevo-jax[baselines]"'
        raise ModuleNotFoundError(message) from None
    _check_names("strategy", algorithms, [name])
    check_full_matrix(name, num_genes)
    given = {
        "sigma": sigma,
        "sigma_decay": sigma_decay,
        "optimizer": optimizer,
        "learning_rate_decay": learning_rate_decay,
        "shaping": shaping,
    }
    chosen = {} if tuned is None else tuned_settings(name, tuned, *shape)
    for theirs in {"std_init", "std_schedule"} & {*(params or {}), *(options or {})}:
        if sigma is not None:
            raise InputError("sigma", f"none beside {theirs}, which is its name in evosax", sigma)
        chosen.pop("sigma", None)
    chosen |= {setting: value for setting, value in given.items() if value is not None}
    params = {**chosen.pop("params", {}), **(params or {})}
    takes = inspect.signature(algorithms[name]).parameters
    options = _options(name, takes, num_generations, chosen) | (options or {})
    sigma = chosen.get("sigma")
    if sigma is not None and "std_schedule" not in takes:
        params["std_init"] = jnp.asarray(sigma, float)
    if "optimizer" in options:
        _check_optimizer("options.optimizer", options["optimizer"])
    algorithm = _construct(name, algorithms[name], *shape, num_generations, options)
    defaults = algorithm.default_params
    numbers = [setting for setting, value in vars(defaults).items() if _is_number(value)]
    if sigma is not None and "std_schedule" not in takes and "std_init" not in numbers:
        raise InputError("sigma", f"none, for {name} has no std_init", sigma)
    _check_names("params", numbers, params)
    for setting, value in params.items():
        check_number(f"params.{setting}", value, -math.inf, math.inf)
    weighs = hasattr(defaults, "weights")
    if "shaping" in chosen and (chosen["shaping"] == "weights") != weighs:
        expected = "weights, for {} weighs ranks" if weighs else "no weights, for {} has none"
        raise InputError("shaping", expected.format(name), chosen["shaping"])
    settings = defaults.replace(**params)
    from_population = name in population_based_algorithms
    # A Stein variational strategy has several means.
    means = getattr(algorithm, "num_populations", None)
    mean = jnp.zeros((num_genes,) if means is None else (means, num_genes))

    def start(key: jax.Array, population: jax.Array, loss: jax.Array) -> Any:
        if from_population:
            return algorithm.init(key, population, loss, settings)
        state = algorithm.init(key, mean, settings)
        # With mean 0 the first genomes are sigma times the noise.
        noise = population if sigma is None else population / sigma
        return state.replace(**{field: noise for field in NOISE if hasattr(state, field)})

    def first_population(key: jax.Array) -> jax.Array:
        zeros = jnp.zeros(shape)
        return algorithm.ask(key, start(key, zeros, zeros[:, 0]), settings)[0]

    first_shape = jax.eval_shape(first_population, jax.random.key(0)).shape
    if first_shape != shape:
        raise InputError(
            "population_size",
            f"a size that {name} keeps, an even one in most",
            population_size,
            f"it makes {first_shape[0]} individuals",
        )

    def init(key: jax.Array, population: jax.Array, t: jax.Array) -> SearchState:
        if sigma is not None:
            population = (sigma * population).astype(population.dtype)
        state = start(key, population, jnp.zeros(population_size))
        state = state.replace(generation_counter=jnp.full_like(state.generation_counter, -1))
        return SearchState(population, t, jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state))

    def step(
        key: jax.Array, state: SearchState, fitness: jax.Array, population: jax.Array
    ) -> tuple[SearchState, SearchInfo]:
        key_start, key_tell, key_ask = jax.random.split(key, 3)
        info = search_info(population, fitness, state.strategy)
        loss = -usable(fitness)
        first = jnp.all(state.strategy.generation_counter < 0)
        old = choose(first, start(key_start, population, loss), state.strategy)
        new, _ = algorithm.tell(key_tell, population, loss, old, settings)
        if from_population:  # the first generation is its start
            new = choose(first, old, new)
        valid = info.num_invalid < population_size
        new = choose(valid, new, old)
        population, after = algorithm.ask(key_ask, new, settings)
        after = choose(valid | ~first, after, state.strategy)
        state = state._replace(population=population, strategy=after)
        return state, info._replace(strategy=old)

    return make_algorithm(init, step, num_generations, shape=shape)


def check_full_matrix(name: str, num_genes: int) -> None:
    """Raise InputError where a strategy with a matrix of D x D is asked for too many genes."""
    if name in FULL_MATRIX and num_genes > MOST_GENES:
        raise InputError(
            "num_genes",
            f"at most {MOST_GENES:,} for {name}, whose matrix takes memory D^2 and time D^3",
            f"{num_genes:,}",
            "Sep_CMA_ES and SNES of evosax, baselines.pepg, and diffusion evolution with "
            "latent_dim=2 take O(D)",
        )


def decaying(value: Positive, decay: Positive, num_generations: Count) -> Callable:
    """Follow a number that falls to decay times itself over all generations, evenly."""
    return lambda count: value * decay ** (count / num_generations)


def _options(
    name: str, takes: Mapping[str, Any], num_generations: int | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """What a constructor gets of our settings, by evosax's names."""
    for setting in ("sigma", "sigma_decay", "learning_rate_decay"):
        check_number(setting, settings.get(setting, 1.0), 0, math.inf, closed="()")
        if setting.endswith("decay") and setting in settings and num_generations is None:
            raise InputError("num_generations", f"a number, over which {setting} goes", None)
    needed = {"sigma_decay": "std_schedule", "learning_rate_decay": "optimizer"}
    for setting, option in ({"optimizer": "optimizer"} | needed).items():
        if setting in settings and option not in takes:
            seen = "one" if setting == "optimizer" else settings[setting]
            raise InputError(setting, f"none, for {name} has no {option}", seen)
    options = {}
    if "std_schedule" in takes and ("sigma" in settings or "sigma_decay" in settings):
        sigma, decay = settings.get("sigma", 1.0), settings.get("sigma_decay", 1.0)
        options["std_schedule"] = decaying(sigma, decay, num_generations or 1)
    if "optimizer" in settings or "learning_rate_decay" in settings:
        optimizer = settings.get("optimizer", takes["optimizer"].default)
        _check_optimizer("optimizer", optimizer)
        if "learning_rate_decay" in settings:
            factor = decaying(1.0, settings["learning_rate_decay"], num_generations or 1)
            optimizer = optax.chain(optimizer, optax.scale_by_schedule(factor))
        options["optimizer"] = optimizer
    if "shaping" in settings:
        from evosax.core import fitness_shaping

        _check_names("shaping", get_args(Shaping), [settings["shaping"]])
        function = getattr(fitness_shaping, f"{settings['shaping']}_fitness_shaping_fn")
        options["fitness_shaping_fn"] = function
    return options


def _check_optimizer(path: str, optimizer: Any) -> None:
    if not isinstance(optimizer, optax.GradientTransformation):
        expected = "an optimizer of Optax, optax.adam(0.1)"
        advice = "in a config: optimizer: {name: adam, learning_rate: 0.1}"
        raise InputError(path, expected, f"{optimizer!r:.60}", advice)


def _construct(
    name: str,
    constructor: Any,
    population_size: int,
    num_genes: int,
    num_generations: int | None,
    options: dict[str, Any],
) -> Any:
    """Call the constructor with the sizes that it takes, and the options."""
    takes = inspect.signature(constructor).parameters
    ours = {
        "solution": jnp.zeros(num_genes),
        "population_size": population_size // options.get("num_populations", 1),
        "sampling_fn": lambda key: jax.random.normal(key, (num_genes,)),
    }
    if num_generations is not None:
        ours["num_generations"] = num_generations
    if name == "LM_MA_ES" and population_size > 2 * num_genes:
        raise InputError(
            "population_size",
            f"at most 2 num_genes = {2 * num_genes}, up to which LM_MA_ES is defined",
            population_size,
        )
    _check_names("options", [option for option in takes if option != "solution"], options)
    arguments = {option: value for option, value in ours.items() if option in takes} | options
    missing = [
        option
        for option, parameter in takes.items()
        if parameter.default is parameter.empty and option not in arguments
    ]
    if missing:
        raise InputError("options", f"those that {name} needs, {', '.join(missing)}", options)
    try:
        return constructor(**arguments)
    except AssertionError as error:
        advice = str(error).rstrip(".")
        if "opulation" in advice:
            expected = f"one that {name} takes"
            raise InputError("population_size", expected, population_size, advice) from None
        seen = ", ".join(options) or "none"
        raise InputError("options", f"those that {name} takes", seen, advice) from None


def _is_number(value: Any) -> bool:
    return not isinstance(value, dict) and np.ndim(value) == 0


def _check_names(argument: str, expected: Iterable[str], names: Iterable[str]) -> None:
    lower = {name.lower(): name for name in expected}
    for name in names:
        if name not in lower.values():
            hint = nearest(str(name).lower(), lower)
            for word, written in lower.items():
                hint = hint.replace(f"'{word}'", f"'{written}'")
            expected = f"one of {', '.join(lower.values())}"
            raise InputError(argument, expected, f"'{name}'", hint.removeprefix("; "))
