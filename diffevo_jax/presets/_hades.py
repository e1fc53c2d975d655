"""Presets whose generations are drawn from a diffusion model that learns from their ancestors."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from diffevo_jax.algorithm import Algorithm, make_algorithm
from diffevo_jax.checks import (
    Count,
    Fraction,
    InputError,
    Interval,
    NonNegative,
    Positive,
    check_count,
    check_number,
)
from diffevo_jax.conditions import Condition
from diffevo_jax.fitness import FitnessMap, check_by_fitness, roulette, weigh
from diffevo_jax.latent import project
from diffevo_jax.parts import Learned
from diffevo_jax.samplers._ddim import ddim_mean, ddim_sigma
from diffevo_jax.training._learner import (
    HELD_OUT,
    LEARNER,
    Buffer,
    Learner,
    Leaves,
    Trained,
    by_blocks,
    check_one_of,
    empty_buffer,
    push,
    select,
    squared_distances,
)

Part = Annotated[float, Interval(0, 1)]  # of a number of individuals, which is Python's

GENERATIONS = 3  # in the buffer, where its capacity is not set
ROULETTE = roulette(12.0)
JUMP = 3.0  # width of a jump, in standard deviations of the population
TRIES = 5  # draws of a row that is out of range, before it is drawn evenly
# A place is as crowded as there are individuals within this quantile of all distances; of so many
# individuals' distances, which are sorted.
NEAR, PROBES = 0.05, 64


class Heuristic(NamedTuple):
    """What the next step needs.

    population: to be evaluated next, `[N, D]`. t: generations that follow this one.
    buffer: the generations before. trained: the network; start: the one that training begins with.
    asked: what the population was drawn for, `[N, C]`; NaN where for nothing.
    """

    population: jax.Array
    t: jax.Array
    buffer: Buffer
    trained: Trained
    start: Trained
    asked: jax.Array


class HeuristicInfo(NamedTuple):
    """What a figure shows of a generation.

    population `[N, D]`, fitness `[N]`: as evaluated. learned: how the training on it went.
    conditions: what the population is, `[N, C]`; asked: what it was to be, NaN for nothing.
    """

    population: jax.Array
    fitness: jax.Array
    learned: Learned
    conditions: jax.Array
    asked: jax.Array


class Conditional(NamedTuple):
    """A search for individuals of chosen properties.

    algorithm: for `evolve`. draw: (key, state, targets `[K, C]`) -> genomes `[K, D]`, of the model
        in a state of the search.
    """

    algorithm: Algorithm
    draw: Callable[[jax.Array, Heuristic, jax.Array], jax.Array]


def hades(
    *,
    num_generations: Count,
    learner: Learner = LEARNER,
    fitness_map: FitnessMap = ROULETTE,
    limit: Positive = 3.0,
    elites: Part = 0.2,
    crossover: Part = 0.125,
    mutation: Part = 0.1,
    jumps: Fraction = 1 / 256,
    sharing: NonNegative = 1.0,
    eta: Fraction = 1.0,
    capacity: Count | None = None,
    leaves: Leaves = "oldest",
    interval: Count = 1,
    continuous: bool = False,
    mesh: Mesh | None = None,
) -> Algorithm:
    """Configure HADES: a network learns what is fit, and the next generation are its samples.

        algorithm = de.presets.hades(num_generations=10)
        evolved = de.evolve(key, algorithm, fitness_fn, population)

    Every generation goes into a buffer, from which a network learns to denoise, rows weighted by
    fitness (Hartl, Zhang, Hazan and Levin, https://arxiv.org/abs/2411.13420). The next one is
    elites, children of two elites, and whole reverse diffusions from noise; all but the elites are
    noised a little and denoised. Where training ends without a number, a Gaussian kernel over the
    buffer takes the network's place, and `evolve` says so.

    num_generations: T. learner: the network and its training, from `training.learner`.
    fitness_map: selection probability; `fitness.roulette(12)` by default.
    limit: genomes lie within [-limit, limit]; what leaves it is drawn again, at last evenly.
    elites: share that is kept: the best one, and others drawn by selection probability.
    crossover: share of the others that are children, each gene that of one of two elites.
    mutation: how far back all but the elites are noised, as a share of the diffusion's levels.
    jumps: share of them that is moved, evenly, by up to 1.5 standard deviations.
    sharing: power of how crowded a place is, by which its selection probability is divided; 1 keeps
        peaks of one height equally large, 0 selects by fitness alone.
    eta: noise of the sampler, in [0, 1].
    capacity: rows of the buffer, three generations by default. leaves: "oldest" or "weakest", who
        makes room in it.
    interval: generations from one training to the next.
    continuous: training goes on with the last network, which makes draws for targets more exact;
        or begins with the run's first one, which keeps peaks more equally large.
    mesh: see `denoising_evolution`.

    Raises InputError, naming the argument.
    """
    return _search(
        (),
        1.0,
        num_generations=num_generations,
        learner=learner,
        fitness_map=fitness_map,
        limit=limit,
        elites=elites,
        crossover=crossover,
        mutation=mutation,
        jumps=jumps,
        sharing=sharing,
        eta=eta,
        capacity=capacity,
        leaves=leaves,
        interval=interval,
        continuous=continuous,
        mesh=mesh,
    ).algorithm


def charles(
    conditions: Sequence[Condition],
    *,
    num_generations: Count,
    guidance: NonNegative = 1.0,
    **settings: Any,
) -> Conditional:
    """Configure CHARLES-D: HADES whose network is told what its samples are to be.

        place = de.conditions.measured("position", de.conditions.uniform(-1.0, 1.0))
        search = de.presets.charles([place], num_generations=40)
        evolved = de.evolve(key, search.algorithm, problem, population)
        genomes = search.draw(key_draw, evolved.state, jnp.array([[0.5]]))

    conditions: from `de.conditions`, or your own `Condition`; each is a number that is stored of
        every individual, and that the next generation's are drawn for.
    guidance: of classifier-free guidance, x0 = untold + guidance (told - untold); 1 is what was
        told, above it samples go further in its direction.
    settings: those of `hades`.

    Raises InputError, here and in a step, naming the argument.
    """
    is_list = isinstance(conditions, list | tuple) and not isinstance(conditions, Condition)
    if not (is_list and conditions and all(isinstance(each, Condition) for each in conditions)):
        expected = "a list of Conditions, such as [de.conditions.fitness()]"
        seen = "one alone" if isinstance(conditions, Condition) else f"{conditions!r:.80}"
        raise InputError("conditions", expected, seen)
    check_number("guidance", guidance, 0, math.inf, closed="[)")
    settings = {**(hades.__kwdefaults__ or {}), **settings, "num_generations": num_generations}
    return _search(tuple(conditions), guidance, **settings)


def _search(
    conditions: tuple[Condition, ...],
    guidance: NonNegative,
    *,
    num_generations: int,
    learner: Learner,
    fitness_map: FitnessMap,
    limit: Positive,
    elites: float,
    crossover: float,
    mutation: float,
    jumps: Fraction,
    sharing: NonNegative,
    eta: Fraction,
    capacity: int | None,
    leaves: Leaves,
    interval: int,
    continuous: bool,
    mesh: Mesh | None,
) -> Conditional:
    if not isinstance(learner, Learner):
        raise InputError("learner", "a Learner, from de.training.learner", f"{learner!r:.80}")
    check_number("limit", limit, 0, math.inf, closed="()")
    for name, value in (
        ("elites", elites),
        ("crossover", crossover),
        ("mutation", mutation),
        ("jumps", jumps),
        ("eta", eta),
    ):
        check_number(name, value, 0, 1)
    check_number("sharing", sharing, 0, math.inf, closed="[)")
    check_one_of("leaves", leaves, Leaves)
    check_count("interval", interval)
    check_by_fitness(fitness_map)
    if capacity is not None:
        check_count("capacity", capacity)
    num_conditions = len(conditions)

    def init(key: jax.Array, population: jax.Array, t: jax.Array) -> Heuristic:
        size, num_genes = population.shape
        rows = GENERATIONS * size if capacity is None else capacity
        untrained = learner.init(key, num_genes, num_conditions)
        return Heuristic(
            population,
            t,
            empty_buffer(rows, population, num_conditions),
            untrained,
            untrained,
            jnp.full((size, num_conditions), jnp.nan),
        )

    def model(trained: Trained, buffer: Buffer, weight: jax.Array) -> Callable[..., Any]:
        """Make told `[K, C]` -> (y, alpha, 1 - alpha) -> x0, in units of the spread."""
        unit = trained._replace(
            centre=jnp.zeros_like(trained.centre), scale=jnp.ones_like(trained.scale)
        )
        support = (buffer.genomes - trained.centre) / trained.scale

        def by_network(y: jax.Array, told: jax.Array, alpha: Any, rest: Any) -> jax.Array:
            clean = learner.clean(unit, y, told, alpha, rest)
            if not num_conditions or (isinstance(guidance, int | float) and guidance == 1):
                return clean
            untold = learner.clean(unit, y, None, alpha, rest)
            return untold + guidance * (clean - untold)

        def by_kernel(y: jax.Array, told: jax.Array, alpha: Any, rest: Any) -> jax.Array:
            def average(row: jax.Array) -> jax.Array:
                gaps = squared_distances(row[None], jnp.sqrt(alpha) * support)[0]
                share = jax.nn.softmax(jnp.log(weight) - gaps / (2 * rest))
                return project(share, support).astype(y.dtype)

            return by_blocks(average, y, len(support))

        return lambda told: (
            lambda y, alpha, rest: jax.lax.cond(
                trained.diverged, by_kernel, by_network, y, told, alpha, rest
            )
        )

    def samples(
        key: jax.Array,
        estimate: Callable[..., jax.Array],
        trained: Trained,
        rows: jax.Array,
        mutation: float,
    ) -> jax.Array:
        """Draw rows that are out of range from noise; then noise all a little, and denoise.

        rows: `[K, D]`, infinite where they are to be drawn. mutation: how far back all are noised,
            0 for not. One loop does both, so that the network is compiled once.
        """
        key_even = jax.random.fold_in(key, TRIES + 1)
        even = jax.random.uniform(key_even, rows.shape, minval=-limit, maxval=limit)
        bounds = [(end - trained.centre) / trained.scale for end in (-limit, limit)]
        levels = learner.levels()
        # Clean genomes are the place before the first level.
        ladder = jnp.append(1.0, levels.alpha), jnp.append(0.0, levels.one_minus_alpha)
        highest = len(levels.alpha)
        back = 1 + mutation * (highest - 1)
        low, high = math.floor(back), math.ceil(back)

        def outside(rows: jax.Array) -> jax.Array:
            return ~jnp.all(jnp.abs(rows) <= limit, axis=1, keepdims=True)

        def drawing(tries: jax.Array, rows: jax.Array) -> jax.Array:
            return (tries < TRIES) & jnp.any(outside(rows))

        def waiting(carry: tuple) -> jax.Array:
            tries, rows, finished = carry
            return drawing(tries, rows) | ~finished

        def walk(carry: tuple) -> tuple:
            tries, rows, _ = carry
            fresh = drawing(tries, rows)
            key_walk = jax.random.fold_in(key, tries)

            def noise(number: Any) -> jax.Array:
                return jax.random.normal(jax.random.fold_in(key_walk, number), rows.shape)

            def move(number: jax.Array, carry: tuple) -> tuple:
                y, alpha_t, rest_t = carry
                place = first - number
                alpha_prev, rest_prev = (each[place] for each in ladder)
                x0 = estimate(y, alpha_t, rest_t)
                settings = {
                    "alpha_t": alpha_t,
                    "alpha_prev": alpha_prev,
                    "eta": eta,
                    "one_minus_alpha_t": rest_t,
                    "one_minus_alpha_prev": rest_prev,
                }
                # The last estimate may leave the range, and be drawn again.
                x0 = jnp.where(place == 0, x0, jnp.clip(x0, *bounds))
                y = ddim_mean(y, x0, **settings) + ddim_sigma(**settings) * noise(number)
                return y, alpha_prev, rest_prev

            first = jnp.where(fresh, highest, high)
            alpha, rest = (
                jnp.where(fresh, each[-1], each[high] + (high - back) * (each[low] - each[high]))
                for each in ladder
            )
            y = (jnp.where(outside(rows), even, rows) - trained.centre) / trained.scale
            y = jnp.where(fresh, 0, jnp.sqrt(alpha) * y)
            y = y + jnp.where(fresh, 1, jnp.sqrt(rest)) * noise(0)
            y = jax.lax.fori_loop(1, first + 1, move, (y, alpha, rest))[0]
            drawn = (trained.centre + trained.scale * y).astype(rows.dtype)
            return tries + 1, jnp.where(outside(rows) | ~fresh, drawn, rows), ~fresh

        begin = jnp.zeros((), int), rows, jnp.asarray(mutation == 0)
        rows = jax.lax.while_loop(waiting, walk, begin)[1]
        return rows if mutation else jnp.where(outside(rows), even, rows)

    def step(
        key: jax.Array, state: Heuristic, fitness: jax.Array, population: jax.Array, aux: Any
    ) -> tuple[Heuristic, HeuristicInfo]:
        size, num_genes = population.shape
        key_rows, key_fit, key_told, key_walks, key_children = jax.random.split(key, 5)
        stored = _evaluated(conditions, population, fitness, aux)
        buffer = push(state.buffer, population, fitness, stored, leaves=leaves)
        log_weight = select(buffer, lambda fitness: weigh(fitness_map, fitness))
        log_weight = log_weight - sharing * _crowd(buffer)
        weight = jax.nn.softmax(log_weight)

        luck = jax.random.uniform(key_rows, (2, len(weight)))
        held_out = luck[0] < HELD_OUT
        data = buffer.genomes, buffer.conditions, weight, held_out
        if interval == 1:
            trained = learner.fit(key_fit, state.start, *data)
        else:
            trained = jax.lax.cond(
                (num_generations - 1 - state.t) % interval == 0,
                lambda: learner.fit(key_fit, state.start, *data),
                lambda: state.trained,
            )

        num_kept = max(1, int(elites * size))
        num_crossed = int(crossover * (size - num_kept))
        # The best one, and without replacement others by their weight.
        best = jnp.argmax(jnp.where(buffer.filled, buffer.fitness, -jnp.inf))
        lots = (log_weight - jnp.log(-jnp.log(luck[1]))).at[best].set(jnp.inf)
        places = jax.lax.top_k(lots, num_kept)[1]
        kept = buffer.genomes[places]

        told = _targets(key_told, conditions, stored, size - num_kept)
        luck = jax.random.uniform(key_children, (len(told), 2 * num_genes + 3))
        parents, first, who, where = jnp.split(luck, [2, num_genes + 2, num_genes + 3], axis=1)
        one, other = (parents[:num_crossed].T * num_kept).astype(int)
        crossed = jnp.where(first[:num_crossed] < 0.5, kept[one], kept[other])
        absent = jnp.full((len(told) - num_crossed, num_genes), jnp.inf, kept.dtype)
        rows = jnp.concatenate([crossed, absent])
        tell = model(trained, buffer, weight)
        # What no number asks for is drawn as the buffer is on average.
        targets = jnp.where(jnp.isnan(told), trained.middle, told)
        rows = samples(key_walks, tell(targets), trained, rows, mutation)
        moved = JUMP * jnp.std(population, axis=0) * (where - 0.5)
        rows = jnp.clip(rows + jnp.where(who < jumps, moved, 0), -limit, limit)
        children = jnp.concatenate([kept, rows.astype(kept.dtype)])
        asked = jnp.concatenate([jnp.full((num_kept, num_conditions), jnp.nan), told])
        # Before anybody has had a finite fitness there is nothing to draw from.
        known = jnp.any(buffer.filled)
        children = jnp.where(known, children, population)
        asked = jnp.where(known, asked, state.asked)

        learned = Learned(jnp.where(trained.diverged, 0.0, 1.0), trained.loss, trained.diverged)
        info = HeuristicInfo(population, fitness, learned, stored, state.asked)
        start = trained if continuous else state.start
        return Heuristic(children, state.t, buffer, trained, start, asked), info

    def draw(key: jax.Array, state: Heuristic, targets: jax.Array) -> jax.Array:
        if targets.ndim != 2 or targets.shape[1] != num_conditions:
            expected = f"shape [K, C] with C = {num_conditions} conditions"
            raise InputError("targets", expected, targets.shape)
        buffer = state.buffer
        weight = jnp.where(buffer.filled, 1.0, 0.0)
        tell = model(state.trained, buffer, weight)
        absent = jnp.full((len(targets), buffer.genomes.shape[1]), jnp.inf, buffer.genomes.dtype)
        return samples(key, tell(targets), state.trained, absent, 0.0)

    return Conditional(make_algorithm(init, step, num_generations, mesh=mesh, has_aux=True), draw)


def _evaluated(
    conditions: tuple[Condition, ...], population: jax.Array, fitness: jax.Array, aux: Any
) -> jax.Array:
    """Evaluate the conditions of a generation, `[N, C]`."""
    stored = jnp.zeros((len(population), len(conditions)))
    for i, condition in enumerate(conditions):
        values = condition.evaluate(population, fitness, aux)
        if jnp.shape(values) != (len(population),):
            expected = f"values of shape {(len(population),)}, one per individual"
            raise InputError(f"conditions[{i}]", expected, jnp.shape(values))
        stored = stored.at[:, i].set(values)
    return stored


def _targets(
    key: jax.Array, conditions: tuple[Condition, ...], stored: jax.Array, size: int
) -> jax.Array:
    """Draw what the next individuals are to be, `[size, C]`."""
    told = jnp.zeros((size, len(conditions)))
    for i, condition in enumerate(conditions):
        values = condition.targets(jax.random.fold_in(key, i), stored[:, i], size)
        if jnp.shape(values) != (size,):
            expected = f"targets of shape {(size,)}, as asked for"
            raise InputError(f"conditions[{i}]", expected, jnp.shape(values))
        told = told.at[:, i].set(values)
    return told


def _crowd(buffer: Buffer) -> jax.Array:
    """Compute how crowded the place of each row is, as the log of a kernel's sum, `[M]`."""
    genomes, filled = buffer.genomes, buffer.filled
    every = max(1, len(genomes) // PROBES)
    gaps = squared_distances(genomes[::every], genomes)
    both = filled[::every, None] & filled
    ordered = jnp.sort(jnp.where(both, gaps, jnp.inf).ravel())
    width = jnp.maximum(ordered[(NEAR * jnp.sum(both)).astype(int)], 1e-12)

    def crowd(genome: jax.Array) -> jax.Array:
        gaps = squared_distances(genome[None], genomes)[0]
        return jax.nn.logsumexp(jnp.where(filled, -gaps / (2 * width), -jnp.inf))

    return jnp.where(filled, by_blocks(crowd, genomes, len(genomes)), 0)
