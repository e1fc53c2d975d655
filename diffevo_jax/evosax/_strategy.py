"""Any algorithm of evosax, by its name there (https://github.com/RobertTLange/evosax)."""

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.algorithm import Algorithm
from diffevo_jax.checks import Number, check_number, nearest
from diffevo_jax.generation import (
    State,
    begin,
    check_sizes,
    choose,
    look,
    next_state,
    usable,
)

# Fields where a strategy remembers the noise of its own draws, which its update reads.
NOISE = ("z", "y", "pert", "pert_accum")


def strategy(
    name: str,
    *,
    population_size: int,
    num_genes: int,
    num_levels: int,
    params: Mapping[str, Number] | None = None,
    options: dict[str, Any] | None = None,
) -> Algorithm:
    """Configure one of evosax's algorithms: told its generation, then asked for the next.

    name: of the strategy in evosax, such as "CMA_ES", "SNES" or "DifferentialEvolution".
    params: numbers that replace those of its default parameters, such as std_init; may be traced.
    options: arguments of its constructor, such as use_antithetic_sampling or an optax optimizer.

    The population given to `init` is its first generation. Distributions start with mean 0 and the
    strategy's own std, 1 in most: draw the initial population from that. A strategy that mirrors
    its draws takes the two halves of any generation for mirror images; one that remembers their
    noise (NOISE) learns from that noise, also where other genomes were evaluated in their place.
    A generation without any finite fitness teaches nothing. A population that is split over a mesh
    gives the same; XLA gathers what evosax sums and sorts.

    State.strategy and Info.strategy hold evosax's state, in units where it minimises -fitness; its
    generation_counter is -1 before the first step, which draws what the strategy starts from.
    Raises ValueError on names and sizes that the strategy does not take, ModuleNotFoundError
    without evosax: `pip install "diffevo-jax[baselines]"`.
    """
    check_sizes(population_size=population_size, num_genes=num_genes, num_levels=num_levels)
    try:
        from evosax.algorithms import algorithms, population_based_algorithms
    except ModuleNotFoundError as error:
        message = f'evosax is missing ({error}): pip install "diffevo-jax[baselines]"'
        raise ModuleNotFoundError(message) from None
    _check_names("strategy", algorithms, [name])
    algorithm = _construct(
        name, algorithms[name], population_size, num_genes, num_levels, options or {}
    )
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

    def asked(key: jax.Array) -> jax.Array:
        zeros = jnp.zeros((population_size, num_genes))
        return algorithm.ask(key, start(key, zeros, zeros[:, 0]), settings)[0]

    shape = jax.eval_shape(asked, jax.random.key(0)).shape
    if shape != (population_size, num_genes):
        raise ValueError(
            f"population_size: {name} makes {shape[0]} of {population_size} individuals; "
            "expected a size that it keeps, an even one in most"
        )

    def init(population: jax.Array) -> State:
        population, t = begin(population, population_size, num_genes, num_levels)
        state = start(jax.random.key(0), population, jnp.zeros(population_size))
        state = state.replace(generation_counter=jnp.full_like(state.generation_counter, -1))
        return State(population, t, jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state))

    def step(
        key: jax.Array, state: State, fitness: jax.Array, population: jax.Array | None = None
    ) -> tuple[State, Any]:
        key_start, key_tell, key_ask = jax.random.split(key, 3)
        info = look(state, fitness, population, state.strategy)
        loss = -usable(info.fitness)
        untold = jnp.all(state.strategy.generation_counter < 0)
        drawn = choose(untold, start(key_start, info.population, loss), state.strategy)
        told, _ = algorithm.tell(key_tell, info.population, loss, drawn, settings)
        if from_population:  # the first generation is its start
            told = choose(untold, drawn, told)
        learnt = info.num_invalid < population_size
        told = choose(learnt, told, drawn)
        population, strategy = algorithm.ask(key_ask, told, settings)
        strategy = choose(untold & ~learnt, state.strategy, strategy)
        return next_state(state, population=population, strategy=strategy), info._replace(
            strategy=drawn
        )

    return Algorithm(init, step, num_levels)


def _construct(
    name: str,
    constructor: Any,
    population_size: int,
    num_genes: int,
    num_levels: int,
    options: dict[str, Any],
) -> Any:
    """Call the constructor with what it needs of us, and the options."""
    takes = inspect.signature(constructor).parameters
    given = {
        "solution": jnp.zeros(num_genes),
        "population_size": population_size // options.get("num_populations", 1),
        "num_generations": num_levels,
        "sampling_fn": lambda key: jax.random.normal(key, (num_genes,)),
    }
    if strategy == "LM_MA_ES" and population_size > 2 * num_genes:
        raise ValueError(
            f"population_size: LM_MA_ES is defined up to 2 num_genes = {2 * num_genes}; "
            f"seen {population_size}"
        )
    _check_names("options", [name for name in takes if name != "solution"], options)
    arguments = {name: value for name, value in given.items() if name in takes} | options
    missing = [
        name
        for name, parameter in takes.items()
        if parameter.default is parameter.empty and name not in arguments
    ]
    if missing:
        raise ValueError(f"options: {strategy} needs {', '.join(missing)}; seen {options}")
    try:
        return constructor(**arguments)
    except AssertionError as error:
        raise ValueError(
            f"{strategy} refuses population_size = {population_size} and options {options}: {error}"
        ) from None


def _is_number(value: Any) -> bool:
    return not isinstance(value, dict) and np.ndim(value) == 0


def _check_names(argument: str, expected: Iterable[str], seen: Iterable[str]) -> None:
    lower = {name.lower(): name for name in expected}
    for name in seen:
        if name not in lower.values():
            hint = nearest(str(name).lower(), lower)
            for word, written in lower.items():
                hint = hint.replace(f"'{word}'", f"'{written}'")
            raise ValueError(
                f"{argument}: expected one of {', '.join(lower.values())}; seen '{name}'{hint}"
            )
