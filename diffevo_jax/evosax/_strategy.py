"""Any algorithm of evosax, by its name there (https://github.com/RobertTLange/evosax)."""

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.algorithm import Algorithm, make_algorithm
from diffevo_jax.checks import Count, InputError, Number, check_count, check_number, nearest
from diffevo_jax.search import SearchInfo, SearchState, choose, search_info, usable

# Fields where a strategy remembers the noise of its own draws, which its update reads.
NOISE = ("z", "y", "pert", "pert_accum")


def strategy(
    name: str,
    *,
    population_size: Count,
    num_genes: Count,
    num_generations: Count | None,
    params: Mapping[str, Number] | None = None,
    options: dict[str, Any] | None = None,
) -> Algorithm:
    """Configure one of evosax's algorithms: it learns from a generation, then draws the next.

    name: the strategy's name in evosax, such as "CMA_ES", "SNES" or "DifferentialEvolution".
    num_generations: T; None has no end.
    params: numbers that replace those of its default parameters, such as std_init; may be traced.
    options: arguments of its constructor, such as use_antithetic_sampling or an optax optimizer.

    The population given to `init` is its first generation. Distributions start with mean 0 and the
    strategy's own std, 1 in most: draw the initial population from that. A strategy that mirrors
    its draws takes the two halves of any generation for mirror images; one that remembers their
    noise (NOISE) learns from that noise, also where other genomes were evaluated in their place.
    A generation without any finite fitness changes nothing. A population that is split over a mesh
    gives the same; XLA gathers what evosax sums and sorts.

    State.strategy and Info.strategy hold evosax's state, in units where it minimises -fitness; its
    generation_counter is -1 before the first step, which draws what the strategy starts from.
    Raises InputError on names and sizes that the strategy does not take, ModuleNotFoundError
    without evosax: `pip install "diffevo-jax[baselines]"`.
    """
    shape = check_count("population_size", population_size), check_count("num_genes", num_genes)
    try:
        from evosax.algorithms import algorithms, population_based_algorithms
    except ModuleNotFoundError as error:
        message = f'evosax is missing ({error}): pip install "diffevo-jax[baselines]"'
        raise ModuleNotFoundError(message) from None
    _check_names("strategy", algorithms, [name])
    algorithm = _construct(name, algorithms[name], *shape, num_generations, options or {})
    defaults = algorithm.default_params
    numbers = [setting for setting, value in vars(defaults).items() if _is_number(value)]
    _check_names("params", numbers, params or {})
    for setting, value in (params or {}).items():
        check_number(f"params.{setting}", value, -math.inf, math.inf)
    settings = defaults.replace(**(params or {}))
    from_population = name in population_based_algorithms
    # A Stein variational strategy has several means.
    means = getattr(algorithm, "num_populations", None)
    mean = jnp.zeros((num_genes,) if means is None else (means, num_genes))

    def start(key: jax.Array, population: jax.Array, loss: jax.Array) -> Any:
        if from_population:
            return algorithm.init(key, population, loss, settings)
        state = algorithm.init(key, mean, settings)
        # With mean 0 and std 1 the first genomes are the noise.
        return state.replace(**{field: population for field in NOISE if hasattr(state, field)})

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
        raise InputError(
            "options",
            f"those that {name} takes",
            f"population_size = {population_size} and {options}",
            str(error),
        ) from None


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
