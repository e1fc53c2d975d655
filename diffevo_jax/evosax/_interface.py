"""Our algorithms with evosax's ask and tell, and its minimising sign.

The other direction, evosax's algorithms as an `Algorithm`, is `evosax.strategy`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffevo_jax.algorithm import Algorithm
from diffevo_jax.checks import Count, InputError, Positive, check_number, is_traced
from diffevo_jax.diffusion import diffusion_evolution as configure
from diffevo_jax.fitness import FitnessMap
from diffevo_jax.schedules import Schedule

try:
    from evosax.algorithms.population_based import base
except ModuleNotFoundError as error:
    message = f'evosax is missing ({error}): pip install "diffevo-jax[baselines]"'
    raise ModuleNotFoundError(message) from None


@struct.dataclass
class EvosaxState(base.State):
    """evosax's state of a population-based algorithm, with the last evaluated population, and ours.

    mean `[D]`, deviation `[]`: genomes are (solutions - mean) / deviation.
    inner: the algorithm's own state, whose population is the one to ask for.
    """

    mean: jax.Array
    deviation: jax.Array
    inner: Any


@struct.dataclass
class Params(base.Params):
    """Numbers that may differ from run to run, under `vmap` too: see `samplers.ddim`."""

    freshness: float | jax.Array


class AsEvosax(base.PopulationBasedAlgorithm):
    """Any `Algorithm` as one of evosax's population-based ones: minimising, pytrees, metrics.

        es = AsEvosax(256, solution, de.baselines.map_elites(population_size=256, ...))

    algorithm: an Algorithm of T generations, or a function of evosax's params that makes one. The
        population of `init` is the first generation, T - 1 more are to ask for. It learns in `init`
        and `tell`, with their keys; `ask` reads what is next, and needs none. After the last
        generation it asks for the same population.
    default_params: what evosax's loops pass to that function.
    scale: genomes are solutions / scale, for algorithms whose first population is N(0, I). None
        takes the first population's own mean and root mean square deviation.
    Other arguments are evosax's.
    """

    def __init__(
        self,
        population_size: Count,
        solution: Any,
        algorithm: Algorithm | Callable[[Any], Algorithm],
        *,
        default_params: Any = None,
        scale: Positive | None = None,
        **options: Callable,
    ):
        if population_size < 2:
            raise InputError("population_size", "2 or more", population_size)
        if scale is not None:
            check_number("scale", scale, 0, float("inf"), closed="()")
        super().__init__(population_size, solution, **options)
        self._algorithm = algorithm
        self._default_params = base.Params() if default_params is None else default_params
        self._scale = scale

    @partial(jax.jit, static_argnames=("self",))
    def init(self, key: jax.Array, population: Any, fitness: jax.Array, params: Any) -> EvosaxState:
        """Learn from the first population, leaves `[N, ...]`, and its fitness `[N]`, evaluated."""
        sizes = {len(leaf) for leaf in (*jax.tree.leaves(population), fitness)}
        if sizes != {self.population_size}:
            raise InputError("population, fitness", f"{self.population_size} individuals", sizes)
        state = super().init(key, population, fitness, params)
        mean, deviation = self._place(state.population)
        genomes = (state.population - mean) / deviation
        inner = self._configured(params).init(key, genomes)
        state = state.replace(mean=mean, deviation=deviation, inner=inner)
        return self._tell(key, state.population, state.fitness, state, params)

    def _init(self, key: jax.Array, params: Any) -> EvosaxState:
        genome = jnp.full(self.num_dims, jnp.nan)
        return EvosaxState(
            population=jnp.full((self.population_size, self.num_dims), jnp.nan),
            fitness=jnp.full(self.population_size, jnp.inf),
            best_solution=genome,
            best_fitness=jnp.inf,
            generation_counter=0,
            mean=genome,
            deviation=jnp.asarray(jnp.nan),
            inner=None,
        )

    def _ask(
        self, key: jax.Array, state: EvosaxState, params: Any
    ) -> tuple[jax.Array, EvosaxState]:
        if not isinstance(state, EvosaxState):
            seen = f"an array {jnp.shape(state)}" if is_traced(state) else type(state).__name__
            raise InputError("state", "what `init` and `tell` return, after the key", seen)
        return state.mean + state.deviation * state.inner.population, state

    def _tell(
        self,
        key: jax.Array,
        population: jax.Array,
        fitness: jax.Array,
        state: EvosaxState,
        params: Any,
    ) -> EvosaxState:
        algorithm = self._configured(params)
        genomes = (population - state.mean) / state.deviation
        inner, _ = algorithm.step(key, state.inner, -fitness, genomes)
        return state.replace(population=population, fitness=fitness, inner=inner)

    def _configured(self, params: Any) -> Algorithm:
        if isinstance(self._algorithm, Algorithm):
            return self._algorithm
        return self._algorithm(params)

    def _place(self, population: jax.Array) -> tuple[jax.Array, jax.Array]:
        if self._scale is not None:
            return jnp.zeros(self.num_dims), jnp.asarray(self._scale, float)
        mean = jnp.mean(population, axis=0)
        deviation = jnp.sqrt(jnp.mean((population - mean) ** 2))
        return mean, jnp.where(deviation > 0, deviation, 1)


def diffusion_evolution(
    population_size: Count,
    solution: Any,
    num_generations: Count = 128,
    *,
    schedule: Schedule | None = None,
    fitness_map: FitnessMap | None = None,
    latent_dim: Count | None = None,
    scale: Positive | None = None,
    **options: Callable,
) -> AsEvosax:
    """Configure Diffusion Evolution in the place of one of evosax's algorithms.

        from diffevo_jax.evosax import diffusion_evolution as ES

    Settings are those of `de.diffusion_evolution`. For the published ones, hand `presets.paper` to
    `AsEvosax`.

    num_generations: T - 1, the generations to ask for.
    schedule: of num_generations + 1 levels, in the place of `schedules.geometric`.
    fitness_map: of -fitness, higher is better.
    latent_dim: d of a random projection, drawn with the key of `init`.
    scale, options: see `AsEvosax`.
    Its params have the freshness, 1 by default.
    """
    levels: dict[str, Any] = {"num_levels": num_generations + 1}
    if schedule is not None:
        if len(schedule.alpha) != num_generations + 1:
            expected = f"{num_generations + 1} levels, one more than num_generations"
            raise InputError("schedule", expected, len(schedule.alpha))
        levels = {"schedule": schedule}

    def algorithm(params: Params) -> Algorithm:
        return configure(
            **levels,
            fitness_map=fitness_map,
            freshness=params.freshness,
            latent_dim=latent_dim,
        )

    defaults = Params(freshness=1.0)
    return AsEvosax(
        population_size, solution, algorithm, default_params=defaults, scale=scale, **options
    )
