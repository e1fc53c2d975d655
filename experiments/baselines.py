"""What Diffusion Evolution is held against: CMA-ES, OpenES and PGPE of evosax, and MAP-Elites.

Each factory takes fitness_fn, points `[N, D]` to fitness `[N]` with higher better, and settings of
the published benchmark, and returns a pure run(key) -> Search: `vmap` or `lax.map` it over seeds.

Where the methods are not the published ones:

* CMA-ES was the `cma` package in float64; evosax follows the same tutorial (arXiv 1604.00772) in
  float32; with that package's step-size constants, updates agree.
* OpenES: the same estimate, without antithetic pairs, ranks or a baseline, and the same momentum,
  an average (1 - m) g + m v rather than a sum g + m v.
* PEPG: evosax has PGPE, whose mean follows a gradient of ranks at a fixed learning rate. With the
  mean of the elite, as published, in its place (fitness -N / n for the n elite, 0 for the others,
  learning rate 1) and the published decay of sigma, only sigma's own gradient differs: it sees the
  elite where the published one sees ranks.
* MAP-Elites: children come in batches, from parents drawn before the batch, not one after another.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from evosax.algorithms import CMA_ES, PGPE, Open_ES
from evosax.core.fitness_shaping import identity_fitness_shaping_fn

from diffevo_jax.metrics import elites
from experiments import cmaes

FitnessFn = Callable[[jax.Array], jax.Array]


class Search(NamedTuple):
    """What a search leaves.

    points: the last evaluated population, `[N, D]`; of MAP-Elites every point that was evaluated.
    fitness: theirs, `[N]`; -inf where MAP-Elites has dropped a point from its archive.
    best, mean: fitness of each generation, `[G]`.
    kept: what `keep` made of each generation's search distribution, or archive, `[G, ...]`.
    """

    points: jax.Array
    fitness: jax.Array
    best: jax.Array
    mean: jax.Array
    kept: Any


Run = Callable[[jax.Array], Search]
Keep = Callable[[Any], Any]


def nothing(state: Any) -> None:
    """Keep nothing of a generation."""


def cma_es(
    fitness_fn: FitnessFn,
    dim: int,
    *,
    population: int,
    generations: int,
    sigma: float,
    penalty: float,
    keep: Keep = nothing,
) -> Run:
    """Make CMA-ES (Hansen, arXiv 1604.00772) from 0, selecting by fitness - penalty mean(x^2)."""
    algorithm = CMA_ES(population, jnp.zeros(dim))
    params = cmaes.parameters(algorithm, sigma)

    def loss(points: jax.Array, fitness: jax.Array) -> jax.Array:
        return penalty * jnp.mean(points**2, axis=-1) - fitness

    return _ask_and_tell(algorithm, params, fitness_fn, dim, generations, loss=loss, keep=keep)


def open_es(
    fitness_fn: FitnessFn,
    dim: int,
    *,
    population: int,
    generations: int,
    sigma: float,
    sigma_decay: float,
    learning_rate: float,
    learning_rate_decay: float,
    momentum: float,
    keep: Keep = nothing,
) -> Run:
    """Make OpenES (Salimans et al. 2017) from 0 on raw fitness: no ranks, no antithetic pairs.

    sigma_decay, learning_rate_decay: the factor over all generations together, reached evenly.
    """

    def decaying(value: float, decay: float) -> Callable:
        return lambda count: value * decay ** (count / generations)

    optimizer = optax.chain(
        optax.scale(1 - momentum),
        optax.trace(momentum),
        optax.scale_by_learning_rate(decaying(learning_rate, learning_rate_decay)),
    )
    algorithm = Open_ES(
        population,
        jnp.zeros(dim),
        use_antithetic_sampling=False,
        optimizer=optimizer,
        std_schedule=decaying(sigma, sigma_decay),
        fitness_shaping_fn=identity_fitness_shaping_fn,
    )
    return _ask_and_tell(
        algorithm, algorithm.default_params, fitness_fn, dim, generations, keep=keep
    )


def pepg(
    fitness_fn: FitnessFn,
    dim: int,
    *,
    population: int,
    generations: int,
    sigma: float,
    sigma_decay: float,
    sigma_learning_rate: float,
    elite_share: float,
    penalty: float,
    keep: Keep = nothing,
) -> Run:
    """Make PEPG (Sehnke et al. 2010) from 0, its mean moved to that of the elite.

    The elite is the best share by rank, from -0.5 to 0.5, less penalty mean(x^2).
    sigma_decay: the factor over all generations together.
    """
    num_elite = int(elite_share * population)

    def elite_weight(points: jax.Array, loss: jax.Array, state: Any, params: Any) -> jax.Array:
        rank = jnp.argsort(jnp.argsort(-loss)) / (population - 1) - 0.5
        score = rank - penalty * jnp.mean(points**2, axis=-1)
        chosen = jax.lax.top_k(score, num_elite)[1]
        return jnp.zeros(population).at[chosen].set(-population / num_elite)

    algorithm = PGPE(
        population,
        jnp.zeros(dim),
        optimizer=optax.sgd(1.0),
        fitness_shaping_fn=elite_weight,
    )
    params = algorithm.default_params.replace(std_init=sigma, std_lr=sigma_learning_rate)
    decay = sigma_decay ** (1 / generations)
    return _ask_and_tell(
        algorithm,
        params,
        fitness_fn,
        dim,
        generations,
        after=lambda state: state.replace(std=decay * state.std),
        keep=keep,
    )


def map_elites(
    fitness_fn: FitnessFn,
    dim: int,
    *,
    evaluations: int,
    initial: int,
    batch: int,
    sigma_init: float,
    sigma: float,
    cell: float,
    keep: Keep = nothing,
) -> Run:
    """Make MAP-Elites (Mouret and Clune 2015) with the points themselves as behaviour.

    The archive holds the fittest point of each cell of an unbounded grid. A child is a parent,
    drawn evenly from the archive, plus sigma N(0, I). The first come from N(0, sigma_init^2 I).
    Raises ValueError unless whole batches follow the initial points.
    """
    generations, rest = divmod(evaluations - initial, batch)
    if rest or generations < 0:
        raise ValueError(
            f"evaluations: expected initial = {initial} and a multiple of batch = {batch}; "
            f"seen {evaluations}"
        )

    def insert(points, fitness, children, place):
        points = jax.lax.dynamic_update_slice(points, children, (place, 0))
        fitness = jax.lax.dynamic_update_slice(fitness, fitness_fn(children), (place,))
        return points, jnp.where(elites(points, fitness, cell=cell), fitness, -jnp.inf)

    def run(key: jax.Array) -> Search:
        key_init, key_run = jax.random.split(key)
        first = sigma_init * jax.random.normal(key_init, (initial, dim))
        empty = jnp.zeros((evaluations, dim)), jnp.full(evaluations, -jnp.inf)
        archive = insert(*empty, first, 0)

        def generation(archive, now):
            key, place = now
            points, fitness = archive
            key_parent, key_child = jax.random.split(key)
            alive = fitness > -jnp.inf
            rank = jax.random.randint(key_parent, (batch,), 1, jnp.sum(alive) + 1)
            parents = jnp.searchsorted(jnp.cumsum(alive), rank)  # the rank-th of the archive
            noise = jax.random.normal(key_child, (batch, dim))
            archive = insert(points, fitness, points[parents] + sigma * noise, place)
            alive = archive[1] > -jnp.inf
            return archive, (archive[1].max(), archive[1].mean(where=alive), keep(archive))

        places = initial + batch * jnp.arange(generations)
        keys = jax.random.split(key_run, generations)
        (points, fitness), history = jax.lax.scan(generation, archive, (keys, places))
        return Search(points, fitness, *history)

    return run


def _ask_and_tell(
    algorithm: Any,
    params: Any,
    fitness_fn: FitnessFn,
    dim: int,
    generations: int,
    *,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = lambda points, fitness: -fitness,
    after: Callable[[Any], Any] = lambda state: state,
    keep: Keep,
) -> Run:
    """Scan an algorithm of evosax, which minimises, over its generations.

    keep sees the state that a generation was drawn from. after changes it once it has been told.
    """

    def run(key: jax.Array) -> Search:
        key_init, key_run = jax.random.split(key)
        state = algorithm.init(key_init, jnp.zeros(dim), params)
        population = algorithm.population_size

        def generation(carry, key):
            state = carry[0]
            key_ask, key_tell = jax.random.split(key)
            points, state = algorithm.ask(key_ask, state, params)
            fitness = fitness_fn(points)
            told, _ = algorithm.tell(key_tell, points, loss(points, fitness), state, params)
            history = fitness.max(), fitness.mean(), keep(state)
            return (after(told), points, fitness), history

        carry = state, jnp.zeros((population, dim)), jnp.zeros(population)
        keys = jax.random.split(key_run, generations)
        (_, points, fitness), history = jax.lax.scan(generation, carry, keys)
        return Search(points, fitness, *history)

    return run
