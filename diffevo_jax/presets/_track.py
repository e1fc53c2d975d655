"""Preset for landscapes that move: niches that are remembered, noised again and polished."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.algorithm import Algorithm, make_algorithm
from diffevo_jax.checks import Count, InputError, NonNegative, Positive, check_count, check_number
from diffevo_jax.denoising import STANDARDISED
from diffevo_jax.fitness import FitnessMap, check_by_fitness, weigh
from diffevo_jax.latent import project

# Chosen on moving peaks. Noise of deviation s reaches s sqrt(D) far; distances are in its units.
BIRTH = 0.1  # noise of new niches, as a share of the bound
SUCCESSES = 0.25  # share of rows better than the best so far at which noise stays as it is
GROWN = 0.25  # a niche has grown up when its noise is below this share of the shift
TRACKED = 0.2  # one below the best has been polished when its noise reaches this share of the shift
POLISHED = 0.005  # and one that may still become the best
REACH = 2.0  # a niche ends at a better one that is less than so many times its noise's reach away
AWAY = 6.0  # and has lost its peak when it is so many times further from home than it was noised
MEMORY = 0.7  # share of a slope that a generation keeps
WATCHED = 2  # rows that are evaluated again: of the best niche, and of one in turn


class Tracked(NamedTuple):
    """What is remembered of K niches; one that is neither stale nor of finite fitness is none.

    place: `[K, D]`, the best of each. fitness: `[K]`, its fitness. x0: `[K, D]`, the clean estimate
        that rows are drawn around. noise: `[K]`, their standard deviation.
    slope: `[K]`, standard deviation of rows' fitness over that of their noise.
    home: `[K, D]`, the place when the landscape has last changed. home_fitness: `[K]`.
    home_noise: `[K]`, what it was noised to there; 0 for one that has grown up since.
    mature: `[K]`, whether it was polished once. stale: `[K]`, whether its place has to be evaluated
        again. asleep: `[K]`, whether its peak is gone, so that it waits at home for a change.
    """

    place: jax.Array
    fitness: jax.Array
    x0: jax.Array
    noise: jax.Array
    slope: jax.Array
    home: jax.Array
    home_fitness: jax.Array
    home_noise: jax.Array
    mature: jax.Array
    stale: jax.Array
    asleep: jax.Array

    @property
    def alive(self) -> jax.Array:
        """Whether there is one, `[K]`."""
        return self.stale | (self.fitness > -jnp.inf)


class Tracking(NamedTuple):
    """What the next step needs.

    population: `[N, D]`. t: generations that follow this one.
    owner: the niche of each row, `[N]`; -1 for those that watch for a change.
    watched: the niches whose places the first rows evaluate again, `[2]`; -1 for none.
    niches: see `Tracked`. shift: how far niches move at a change, as learned, `[]`.
    """

    population: jax.Array
    t: jax.Array
    owner: jax.Array
    watched: jax.Array
    niches: Tracked
    shift: jax.Array


class TrackInfo(NamedTuple):
    """What a figure shows of a generation.

    population `[N, D]`, fitness `[N]`: as evaluated. owner: the niche of each row, `[N]`, or -1.
    niches: after this generation. shift: as learned by then.
    moved: whether a watched place has another fitness than it had.
    born, died: `[K]`, niches that begin in the next generation, and those that end with this one.
    """

    population: jax.Array
    fitness: jax.Array
    owner: jax.Array
    niches: Tracked
    shift: jax.Array
    moved: jax.Array
    born: jax.Array
    died: jax.Array


def track(
    *,
    num_generations: Count | None = None,
    num_niches: Count = 24,
    rows: Count = 9,
    shift: Positive = 0.1,
    bound: Positive = 2.0,
    tolerance: NonNegative = 1e-6,
    fitness_map: FitnessMap = STANDARDISED,
) -> Algorithm:
    """Configure Diffusion Evolution that follows the optima of a landscape that changes.

        algorithm = de.presets.track(num_generations=500)
        evolved = de.evolve(key, algorithm, fitness_fn, population)

    Each niche is a small evolution of its own: rows are drawn at its noise around its x0, the
    average of the last ones weighed by fitness (`denoisers.consensus` within the niche,
    `samplers.ddim(freshness=1)`), and noise falls by the 1/5 rule. Two rows evaluate again what is
    known, the best niche's place and another's in turn: so changes are seen, which needs a fitness
    without noise. After one, each niche is evaluated again and noised as far as niches have moved
    at earlier changes. Rows go first to niches that may become the highest, then to the others that
    have to keep up, at last to new ones, born anywhere in the box.

    A niche dies where it comes within reach of a better one. An old one goes home instead and
    sleeps until the next change, as one does that is led away from its peak: what comes back is
    found where it was. Where niches are too many the one that is longest asleep dies, or the worst.

    For small generations: 20 individuals are made of the two and two niches at a time. A step takes
    one landscape for all its rows; Info.moved at every generation says that fitness is noisy.

    num_generations: evaluated generations in all; None has no end.
    num_niches: K, how many are remembered. rows: those of a niche in one generation.
    shift: how far niches move at the first change; later ones are learned.
    bound: new niches are born within [-bound, bound]^D, and rows clipped to it.
    tolerance: relative change of fitness that counts, a number of 0 or more; infinity sees none.
    fitness_map: see `denoising_evolution`.

    Raises InputError, naming the argument, expected and seen.
    """
    check_by_fitness(fitness_map)
    num_niches = check_count("num_niches", num_niches, least=2)
    rows = check_count("rows", rows)
    check_number("shift", shift, 0, math.inf, closed="()")
    check_number("bound", bound, 0, math.inf, closed="()")
    check_number("tolerance", tolerance, 0, math.inf)
    newest = BIRTH * bound

    def newborn(place: jax.Array, born: jax.Array) -> Tracked:
        zero, no = jnp.zeros(num_niches), jnp.zeros(num_niches, bool)
        noise = jnp.full(num_niches, newest)
        low = jnp.full(num_niches, -jnp.inf)
        return Tracked(place, low, place, noise, zero, place, low, zero, no, born, no)

    def init(key: jax.Array, population: jax.Array, t: jax.Array) -> Tracking:
        size, num_genes = population.shape
        if size <= WATCHED:
            raise InputError("population", f"at least {WATCHED + 1} individuals", size)
        first = jnp.arange(num_niches) < size
        place = jnp.zeros((num_niches, num_genes)).at[:size].set(population[:num_niches])
        owner = jnp.arange(size)
        owner = jnp.where(owner < num_niches, owner, -1)
        watched = jnp.full(WATCHED, -1)
        niches = newborn(place, first)
        return Tracking(population, t, owner, watched, niches, jnp.asarray(shift, float))

    def step(
        key: jax.Array, state: Tracking, fitness: jax.Array, population: jax.Array
    ) -> tuple[Tracking, TrackInfo]:
        key_noise, key_place = jax.random.split(key)
        size, num_genes = population.shape
        x_t = jnp.asarray(population, float)
        finite = jnp.where(jnp.isfinite(fitness), fitness, -jnp.inf).astype(float)
        niches, learned = state.niches, state.shift
        before = niches.fitness[state.watched]
        change = jnp.abs(finite[:WATCHED] - before)
        moved = change > tolerance * jnp.maximum(jnp.abs(before), 1e-30)
        moved = jnp.any(moved & (state.watched >= 0))
        learned = jnp.where(moved, _learn_shift(niches, learned, bound), learned)
        niches = _choose(moved, _wake(niches, learned), niches)
        member = state.owner == jnp.arange(num_niches)[:, None]
        niches = _denoise(niches, fitness_map, member, x_t, finite, bound)
        niches = _grow(niches, learned)
        room = max(1, (size - WATCHED) // rows)  # of young ones
        niches, died = _part(niches, learned, newest, room)
        alive = niches.alive & ~died
        young = jnp.sum(alive & ~niches.mature)
        born = ~alive & (jnp.cumsum(~alive) <= room - young)
        anywhere = jax.random.uniform(key_place, niches.place.shape, minval=-bound, maxval=bound)
        niches = _choose(~alive, newborn(anywhere, born), niches)
        owner, best = _share_out(niches, learned, rows, size - WATCHED)
        noise = jax.random.normal(key_noise, (size - WATCHED, num_genes))
        noised = jnp.clip(niches.x0[owner] + niches.noise[owner, None] * noise, -bound, bound)
        drawn = jnp.where(niches.stale[owner, None], niches.place[owner], noised)
        watched = jnp.stack([best, state.t % num_niches])
        genomes = jnp.concatenate([niches.place[watched], drawn])
        known = niches.alive & ~niches.stale
        after = Tracking(
            genomes,
            state.t,
            jnp.concatenate([jnp.full(WATCHED, -1), owner]),
            jnp.where(known[watched], watched, -1),
            niches,
            learned,
        )
        info = TrackInfo(population, fitness, state.owner, niches, learned, moved, born, died)
        return after, info

    return make_algorithm(init, step, num_generations)


def _choose(mask: jax.Array, new: Tracked, old: Tracked) -> Tracked:
    """Take some of the niches, or all, from `new`."""

    def each(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(mask[:, None] if mask.ndim and old.ndim == 2 else mask, new, old)

    return jax.tree.map(each, new, old)


def _away(niches: Tracked) -> jax.Array:
    """How far niches are from home, as a deviation by gene, `[K]`."""
    return jnp.sqrt(jnp.mean((niches.place - niches.home) ** 2, axis=1))


def _learn_shift(niches: Tracked, shift: jax.Array, bound: Positive) -> jax.Array:
    """Learn how far niches move, from the last change and those that were polished since.

    shift *= (mean of (away / home_noise)^2)^(1/4), half the way on a logarithmic scale
    """
    fine = niches.noise < 0.5 * shift
    polished = niches.mature & ~niches.asleep & fine & (niches.home_noise > 0)
    ratio = _away(niches) / jnp.where(polished, niches.home_noise, 1)
    mean = jnp.mean(ratio**2, where=polished)
    return jnp.where(jnp.any(polished), jnp.clip(shift * mean**0.25, 1e-4 * bound, bound), shift)


def _wake(niches: Tracked, shift: jax.Array) -> Tracked:
    """Noise all that have grown up around where they are; those asleep may have moved on."""
    noise = shift / math.sqrt(niches.place.shape[1])
    noise = jnp.hypot(jnp.where(niches.asleep, niches.home_noise, 0), noise)
    wider = jnp.maximum(jnp.where(niches.asleep, 0, niches.noise), noise)
    noised = niches._replace(home=niches.place, home_noise=noise, noise=wider)
    awake = jnp.zeros_like(niches.asleep)
    return _choose(niches.mature, noised, niches)._replace(stale=niches.alive, asleep=awake)


def _denoise(
    niches: Tracked,
    fitness_map: FitnessMap,
    member: jax.Array,
    x_t: jax.Array,
    fitness: jax.Array,
    bound: Positive,
) -> Tracked:
    """Take what rows have found: a new best, x0, and noise by how many were better.

    member: `[K, N]`. A stale niche takes its best row, whatever was known.
    """
    num_genes = x_t.shape[1]
    count = jnp.sum(member, axis=1)
    known = jnp.where(niches.stale, -jnp.inf, niches.fitness)
    first = jnp.argmax(jnp.where(member, fitness, -jnp.inf), axis=1)
    highest = jnp.max(jnp.where(member, fitness, -jnp.inf), axis=1)
    better = highest > known
    place = jnp.where(better[:, None], x_t[first], niches.place)

    def estimate(member: jax.Array, known: jax.Array, place: jax.Array) -> jax.Array:
        both = jnp.append(jnp.where(member, fitness, jnp.nan), known)
        log_weight = weigh(fitness_map, both)
        weight = jax.nn.softmax(jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight))
        return project(weight, jnp.concatenate([x_t, place[None]]))

    tried = (count > 0) & ~niches.stale
    x0 = jax.vmap(estimate)(member, known, niches.place)
    x0 = jnp.where((tried | better)[:, None], x0, niches.x0)
    wins = jnp.sum(member & (fitness > known[:, None]), axis=1)
    noise = niches.noise * jnp.exp((wins - SUCCESSES * count) / num_genes)
    noise = jnp.where(tried, jnp.clip(noise, 1e-6 * bound, bound / 2), niches.noise)
    slope = jnp.std(jnp.broadcast_to(fitness, member.shape), axis=1, where=member) / niches.noise
    slope = jnp.where(niches.slope > 0, MEMORY * niches.slope + (1 - MEMORY) * slope, slope)
    slope = jnp.where(tried & (count > 1) & jnp.isfinite(slope), slope, niches.slope)
    again = niches.stale & (count > 0)
    return niches._replace(
        place=place,
        fitness=jnp.where(better | again, highest, niches.fitness),
        x0=x0,
        noise=noise,
        slope=slope,
        home=jnp.where(again[:, None], place, niches.home),
        home_fitness=jnp.where(again, highest, niches.home_fitness),
        stale=niches.stale & ~again,
    )


def _grow(niches: Tracked, shift: jax.Array) -> Tracked:
    """Make niches mature that have been polished, at home where they are."""
    grown = niches.alive & ~niches.stale & ~niches.mature & (niches.noise < GROWN * shift)
    at_home = niches._replace(
        home=niches.place,
        home_fitness=niches.fitness,
        home_noise=jnp.zeros_like(niches.noise),
        mature=grown | niches.mature,
    )
    return _choose(grown, at_home, niches)


def _part(
    niches: Tracked, shift: jax.Array, newest: Positive, room: int
) -> tuple[Tracked, jax.Array]:
    """Send home what has lost its peak; return also which niches die, `[K]`.

    newest: noise of new niches; who sleeps and would be noised as far knows no more than they do.
    room: how many of the K are kept free for the young.
    """
    num_genes = niches.place.shape[1]
    place = jnp.arange(len(niches.fitness))
    awake = niches.alive & ~niches.stale & ~niches.asleep
    fitness = niches.fitness
    worse = fitness[:, None] < fitness
    worse |= (fitness[:, None] == fitness) & (place[:, None] > place)
    close = _distances(niches.place) < REACH * math.sqrt(num_genes) * niches.noise[:, None]
    merges = awake[:, None] & awake & worse & close
    twin = merges & niches.mature & (_distances(niches.home) < shift)
    lost = (niches.home_noise > 0) & (_away(niches) > AWAY * niches.home_noise)
    merged = jnp.any(merges, axis=1)
    died = merged & (~niches.mature | jnp.any(twin, axis=1))
    home = niches._replace(
        place=niches.home,
        fitness=niches.home_fitness,
        x0=niches.home,
        asleep=jnp.ones_like(niches.asleep),
    )
    niches = _choose(awake & niches.mature & (merged | lost), home, niches)
    died |= niches.asleep & (niches.home_noise > newest)
    kept = niches.alive & niches.mature & ~died
    asleep = kept & niches.asleep
    longest = jnp.argmax(jnp.where(asleep, niches.home_noise, -jnp.inf))
    lowest = jnp.argmin(jnp.where(kept, niches.fitness, jnp.inf))
    leaves = place == jnp.where(jnp.any(asleep), longest, lowest)
    crowded = jnp.sum(kept) > len(place) - room
    return niches, died | (crowded & leaves)


def _distances(places: jax.Array) -> jax.Array:
    """Distances between all, `[K, K]`."""
    return jnp.linalg.norm(places[:, None] - places, axis=2)


def _share_out(
    niches: Tracked, shift: jax.Array, rows: int, size: int
) -> tuple[jax.Array, jax.Array]:
    """Give each of `size` rows a niche, `[size]`; return also the best niche.

    First are those to be evaluated again, by one row each; then those that may rise above the best,
    fitness + slope noise sqrt(D); then those that have to keep up; then the young. What is left
    goes to the best.
    """
    num_genes = niches.place.shape[1]
    place = jnp.arange(len(niches.fitness))
    known = niches.alive & ~niches.stale
    awake = known & ~niches.asleep
    best = jnp.argmax(jnp.where(known, niches.fitness, -jnp.inf))
    noise = niches.noise * math.sqrt(num_genes)
    hope = niches.fitness + niches.slope * noise
    kinds = [
        niches.stale & niches.mature,
        awake & (noise > POLISHED * shift) & (hope > niches.fitness[best]),
        awake & niches.mature & (noise > TRACKED * shift),
        niches.alive & ~niches.mature,
    ]
    kind = jnp.select(kinds, list(range(len(kinds))), len(kinds))
    wanted = jnp.where(kind < len(kinds), jnp.where(niches.stale, 1, rows), 0)
    # By comparing all pairs, which compiles faster than a sort.
    tied = (hope == hope[:, None]) & (place < place[:, None])
    sooner = kind < kind[:, None]
    sooner |= (kind == kind[:, None]) & ((hope > hope[:, None]) | tied)
    start = jnp.sum(jnp.where(sooner, wanted, 0), axis=1)
    row = jnp.arange(size)[:, None]
    takes = (start <= row) & (row < start + wanted)
    return jnp.where(jnp.any(takes, axis=1), jnp.argmax(takes, axis=1), best), best
