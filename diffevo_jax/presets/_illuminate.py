"""Preset for quality-diversity: the fittest of every behaviour, by denoising in behaviour space."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax import archives
from diffevo_jax.algorithm import Algorithm, descriptors_of, make_algorithm
from diffevo_jax.checks import Count, Fraction, NonNegative, Positive, check_count, check_number
from diffevo_jax.latent import project
from diffevo_jax.search import with_last

# By how much a child's step differs from its parent's, in nats; and squares of cells that are added
# to the elites' variance, so that slopes are gentle where few are known.
DRIFT, RIDGE = 0.3, 0.3
_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class Illumination(NamedTuple):
    """What the next step needs.

    population: the children to evaluate next, `[N, D]`. log_sigma: log of their steps, `[N]`.
    t: generations that follow this one, from T - 1 to 0 (finished).
    archive: the elites; in a finished run the last generation is among them.
    archive_log_sigma: log of the steps that made the elites, `[C]`. since: the t of the generation
        that brought them, `[C]`.
    """

    population: jax.Array
    t: jax.Array
    archive: archives.Elites
    log_sigma: jax.Array
    archive_log_sigma: jax.Array
    since: jax.Array


def illuminate(
    *,
    archive: archives.Cells,
    population_size: Count,
    num_genes: Count,
    num_generations: Count,
    reach: Positive = 2.0,
    width: Positive = 2.0,
    sigma: Positive = 0.5,
    line: NonNegative = 0.2,
    recent: Positive = 30.0,
    own: Fraction = 0.5,
) -> Algorithm:
    """Configure Diffusion Evolution that fills an archive: the fittest of every behaviour.

        cells = de.archives.grid([-1, -1], [1, 1], cells=[50, 50])
        algorithm = de.presets.illuminate(archive=cells, population_size=180, num_genes=20,
                                          num_generations=200)
        evolved = de.evolve(key, algorithm, fitness_fn, population, has_aux=True)
        evolved.state.archive, de.archives.qd_score(evolved.state.archive)

    The elites are the population, and diffusion goes through behaviour space. For each child an
    elite i is drawn, who came lately more often, with weight exp(-age / recent). Its behaviour b_i
    is noised, and x0 is the genome to be expected there, under a Gaussian kernel in behaviour:

    b = b_i + reach N(0, I)
    x0(b), slope = the least of sum_j exp(-|b - b_j|^2 / (2 width^2)) |x_j - x0 - (b_j - b) slope|^2

    with .3 |slope|^2 added to the weighted mean, lengths in cells. Half of the children begin at
    x0, which pools what neighbours have found; half at their parent's x_i + (b - b_i) slope, which
    keeps what it alone has. Noise is added anew,

    x = begin + line (x_k - x_i) N(0, 1) + sigma_i N(0, I)

    k another elite, sigma_i the step of the parent times e^(.3 N(0, 1)): steps that make elites are
    inherited, so that each region has the spread that suits it.

    archive: the cells, see `archives`; the fitness function says how individuals behave,
        aux["descriptors"], `[N, k]`.
    reach, width: in cells. sigma: of the first generation's children. line: 0 is none.
    recent: generations after which an elite is drawn less often, by a factor e.
    own: share of the children that begin at their parent's genome.

    The initial population is the first generation. Settings may be traced.
    Raises InputError, here or in `step`, naming the argument, expected and seen.
    """
    cells = archives.check_cells(archive)
    shape = check_count("population_size", population_size), check_count("num_genes", num_genes)
    for name, value in (
        ("reach", reach),
        ("width", width),
        ("sigma", sigma),
        ("recent", recent),
    ):
        check_number(name, value, 0, math.inf, closed="()")
    check_number("line", line, 0, math.inf, closed="[)")
    check_number("own", own, 0, 1)
    low, high = cells.low / cells.side, cells.high / cells.side

    def init(key: jax.Array, population: jax.Array, t: jax.Array) -> Illumination:
        first = jnp.log(jnp.asarray(sigma, float))
        elites = archives.empty(cells, num_genes)
        steps = jnp.full(len(population), first), jnp.full(len(elites.fitness), first)
        return Illumination(population, t, elites, *steps, jnp.full(len(elites.fitness), t))

    def step(
        key: jax.Array,
        state: Illumination,
        fitness: jax.Array,
        population: jax.Array,
        aux: Any,
    ) -> tuple[Illumination, archives.ArchiveInfo]:
        keys = jax.random.split(key, 7)
        size = population_size
        descriptors = descriptors_of(aux, size)
        elites, added = archives.insert(cells, state.archive, population, fitness, descriptors)
        steps = archives.take(added.row, state.log_sigma, state.archive_log_sigma)
        info = archives.archive_info(population, fitness, elites, added)
        since = jnp.where(added.row >= 0, state.t, state.since)
        there = elites.fitness > -jnp.inf
        any_there = jnp.any(there)
        weight = jax.nn.softmax(jnp.where(there | ~any_there, (state.t - since) / recent, -jnp.inf))
        i = jax.random.choice(keys[0], len(weight), (size,), p=weight)
        k = archives.draw(keys[1], elites.fitness, size)
        places = jnp.clip(elites.descriptors / cells.side, low, high)
        noise = jax.random.normal(keys[2], (size, places.shape[1]))
        target = jnp.clip(places[i] + reach * noise, low, high)
        x0, slope = expected(target, places, elites.points, there, width)
        moved = elites.points[i] + _einsum("nk,nkd->nd", target - places[i], slope)
        begin = jnp.where(jax.random.bernoulli(keys[3], own, (size, 1)), moved, x0)
        begin = jnp.where(any_there, begin, population)
        along = line * jax.random.normal(keys[4], (size, 1))
        begin += along * (elites.points[k] - elites.points[i])
        log_sigma = steps[i] + DRIFT * jax.random.normal(keys[5], (size,))
        children = begin + jnp.exp(log_sigma)[:, None] * jax.random.normal(keys[6], shape)
        return Illumination(children, state.t, elites, log_sigma, steps, since), info

    algorithm = make_algorithm(init, step, num_generations, shape=shape, has_aux=True)
    return with_last(algorithm)


def expected(
    target: jax.Array, places: jax.Array, points: jax.Array, there: jax.Array, width: Positive
) -> tuple[jax.Array, jax.Array]:
    """Return the genomes to be expected at places `[N, k]`, `[N, D]`, and slopes, `[N, k, D]`.

    places `[C, k]` and points `[C, D]` of those that are there, `[C]`, locally a linear function.
    """
    offset = places - target[:, None]
    squares = jnp.sum(offset**2, axis=-1)
    there |= ~jnp.any(there)  # a softmax of nobody is no number
    weight = jax.nn.softmax(jnp.where(there, -squares / (2 * width**2), -jnp.inf), axis=1)
    middle = _einsum("nc,nck->nk", weight, offset)
    offset -= middle[:, None]
    weighted = weight[..., None] * offset
    variance = _einsum("nck,ncl->nkl", weighted, offset) + RIDGE * jnp.eye(places.shape[1])
    slope = jnp.linalg.solve(variance, _einsum("nck,cd->nkd", weighted, points))
    return project(weight, points) - _einsum("nk,nkd->nd", middle, slope), slope
