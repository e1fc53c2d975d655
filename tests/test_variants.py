"""Denoisers and samplers: laws that all of them obey, one line each, then those of each."""

import re
from collections.abc import Callable
from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY
from jax.sharding import Mesh

import diffevo_jax as de
from diffevo_jax import denoisers, kernels, samplers
from diffevo_jax.kernels import dense

# A new variant adds one line: what makes it of a number in (0, 1], which is traced; a denoiser of a
# kernel, the Gaussian with a floor elsewhere.
KERNELS: dict[str, Callable[..., de.Kernel]] = {
    "gaussian": lambda x, **places: kernels.gaussian(floor=1e-3 * x, **places),
    "student_t": lambda x, **places: kernels.student_t(dof=10 * x, **places),
    "isotropic": lambda x, **places: kernels.isotropic(partial(_cauchy, x), **places),
}
DENOISERS: dict[str, Callable[..., de.Denoiser]] = {
    "posterior_mean": lambda x, kernel: denoisers.posterior_mean(kernel),
    "archive": lambda x, kernel: denoisers.archive(kernel, generations=2),
    "broadened": lambda x, kernel: denoisers.broadened(kernel, share=x),
    "niching": lambda x, kernel: denoisers.niching(kernel, sharing=x, warmth=1 + x, warm=0.9),
    "consensus": lambda x, kernel: denoisers.consensus(),
    "behaviour": lambda x, kernel: denoisers.behaviour(width=x),
}
SAMPLERS: dict[str, Callable[..., de.Sampler]] = {
    "ddim": samplers.ddim,
    "ddim, fresh": lambda eta: samplers.ddim(freshness=eta),
    "dpm_solver": lambda eta: samplers.dpm_solver(),
}
# Denoiser, kernel and sampler of each.
PARTS = {
    **{name: (name, "gaussian", "ddim") for name in DENOISERS},
    **{name: ("posterior_mean", name, "ddim") for name in KERNELS if name != "gaussian"},
    "broadened, student_t": ("broadened", "student_t", "ddim"),
    "archive, student_t": ("archive", "student_t", "ddim"),
    **{name: ("posterior_mean", "gaussian", name) for name in SAMPLERS if name != "ddim"},
}
VARIANTS = list(PARTS)
NO_ETA = ("dpm_solver",)  # samplers without the setting
NOISY = ("ddim, fresh",)  # that draw noise also where eta is 0
NO_KERNEL = ("consensus",)  # denoisers without one, and without a number
STILL_VARIANTS = [name for name in VARIANTS if name not in NOISY]
ESTIMATES = [
    name
    for name, (_, _, sampler) in PARTS.items()
    if sampler == "ddim" and name not in (*NO_KERNEL, "behaviour")
]

KEY = jax.random.key(7)
POPULATION = jax.random.normal(jax.random.key(1), (16, 2))
SCHEDULE = de.schedules.cosine(4)
KEYS = jax.random.split(KEY, 4)  # of a run with KEY
SETTING = {"number": jnp.float32(0.6), "eta": jnp.float32(0.5), "temperature": jnp.float32(0.3)}
STILL = {**SETTING, "eta": jnp.float32(0)}  # deterministic
FRAME = jnp.array([[0.6, 0.8], [-0.8, 0.6]])
ROUNDING = 1e-4  # of four levels in float32 that divide by 1 - alpha, in two programs


def _cauchy(width, squares, level, num_dims):
    """A kernel of one's own, in one line."""
    return -jnp.log1p(squares / (width * level.one_minus_alpha))


def _denoiser(name: str, number, **places) -> de.Denoiser:
    denoiser, kernel, _ = PARTS[name]
    return DENOISERS[denoiser](number, KERNELS[kernel](number, **places))


def _algorithm(name: str, setting=SETTING, **mesh) -> de.Algorithm:
    return de.denoising_evolution(
        SCHEDULE,
        fitness_map=de.fitness.boltzmann(setting["temperature"]),
        denoiser=_denoiser(name, setting["number"]),
        sampler=SAMPLERS[PARTS[name][2]](setting["eta"]),
        **mesh,
    )


def _peaks(x, frame=jnp.eye(2)):  # noqa: B008
    """Fitness of two peaks, and genomes as behaviour."""
    return de.landscapes.two_peaks(x @ frame), {"descriptors": x}


def _run(name, key, population, setting, frame, **mesh):
    """The final state; frame: a rotation of the plane, in which the peaks are."""
    algorithm = _algorithm(name, setting, **mesh)
    peaks = partial(_peaks, frame=frame)
    return de.evolve(key, algorithm, peaks, population, has_aux=True).state


@cache
def _compiled(name: str):
    return jax.jit(partial(_run, name))


def _final(name, *, key=KEY, population=POPULATION, setting=SETTING, frame=None):
    frame = jnp.eye(2) if frame is None else frame
    return _compiled(name)(key, population, setting, frame)


@pytest.mark.parametrize("name", VARIANTS)
def test_jit_is_eager(name):
    algorithm = _algorithm(name)
    generation = de.make_generation(algorithm, _peaks, has_aux=True)
    running = de.begin(KEY, algorithm, POPULATION)
    for key in KEYS:
        running, _ = generation(running, key)
    actual = _final(name)
    chex.assert_trees_all_close(actual, running.state, atol=ROUNDING)
    assert not np.allclose(actual.population, POPULATION, atol=0.1)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_batch_of_keys_and_settings_is_a_loop_and_has_gradients(name):
    settings = {
        "number": jnp.array([0.2, 0.5, 0.9]),
        "eta": jnp.array([0.0, 0.5, 1.0]),
        "temperature": jnp.array([0.1, 0.3, 1.0]),
    }

    def mean_fitness(setting, key):
        state = _run(name, key, POPULATION, setting, jnp.eye(2))
        return de.landscapes.two_peaks(state.population).mean(), state

    batch = jax.jit(jax.vmap(jax.grad(mean_fitness, has_aux=True)))
    slopes, states = batch(settings, KEYS[:3])
    for i, key in enumerate(KEYS[:3]):
        setting, actual = jax.tree.map(lambda leaf, i=i: leaf[i], (settings, states))
        chex.assert_trees_all_close(actual, _final(name, key=key, setting=setting), atol=ROUNDING)
    assert all(bool(np.all(np.isfinite(slope))) for slope in slopes.values()), slopes
    assert np.all(slopes["temperature"] != 0)
    if name not in NO_ETA:
        assert np.all(slopes["eta"][1:] != 0)
    if name not in NO_KERNEL:
        assert np.any(slopes["number"] != 0)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_mesh_of_eight_devices_computes_what_one_does(name):
    mesh = Mesh(jax.devices()[:8], ("individuals",))
    actual = jax.jit(partial(_run, name, mesh=mesh))(KEY, POPULATION, SETTING, jnp.eye(2))
    chex.assert_trees_all_close(actual, _final(name), atol=ROUNDING)
    rows = de.sharding.rows(mesh)
    for leaf in jax.tree.leaves(actual):
        assert leaf.ndim == 0 or leaf.sharding.is_equivalent_to(rows, leaf.ndim)


@pytest.mark.parametrize("name", VARIANTS)
def test_pieces_are_one_run_and_a_finished_run_is_a_fixed_point(name):
    algorithm = _algorithm(name)
    generation = de.make_generation(algorithm, _peaks, has_aux=True)
    piece = jax.jit(lambda running, keys: jax.lax.scan(generation, running, keys)[0])
    running = piece(piece(de.begin(KEY, algorithm, POPULATION), KEYS[:2]), KEYS[2:])
    chex.assert_trees_all_close(running.state, _final(name), atol=ROUNDING)
    repeated = piece(running, KEYS[:2])
    assert int(repeated.state.t) == 0
    chex.assert_trees_all_equal(repeated, running)


@pytest.mark.parametrize("name", STILL_VARIANTS)
def test_permuted_individuals_evolve_the_same_way(name):
    order = jax.random.permutation(KEY, len(POPULATION))
    whole = _final(name, setting=STILL)
    permuted = _final(name, population=POPULATION[order], setting=STILL)
    expected = jax.tree.map(lambda leaf: leaf[order] if jnp.ndim(leaf) else leaf, whole)
    chex.assert_trees_all_close(permuted, expected, atol=ROUNDING)


@pytest.mark.parametrize("name", STILL_VARIANTS)
def test_without_a_projection_a_rotated_problem_is_solved_by_a_rotated_run(name):
    whole = _final(name, setting=STILL)
    rotated = _final(name, population=POPULATION @ FRAME.T, setting=STILL, frame=FRAME)
    np.testing.assert_allclose(rotated.population @ FRAME, whole.population, atol=ROUNDING)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (jnp.bfloat16, False),
        (jnp.float32, False),
        (jnp.bfloat16, True),
        (jnp.float32, True),
        (jnp.float64, True),
    ],
)
def test_genomes_keep_their_precision(name, dtype, wide):
    """And memories theirs, or the step would refuse them; wide: where numbers are float64."""
    with jax.enable_x64(wide):
        population = jax.ShapeDtypeStruct(POPULATION.shape, dtype)
        shapes = jax.eval_shape(partial(_run, name), KEY, population, SETTING, jnp.eye(2))
    assert shapes.population.dtype == population.dtype


@pytest.mark.parametrize("name", ESTIMATES)
def test_a_projection_of_full_rank_keeps_the_distances(name):
    make = partial(_denoiser, name, 0.5)
    plain, rotated = (
        _estimate(make(projection=projection), t=2)[0] for projection in (None, FRAME)
    )
    chex.assert_trees_all_close(rotated, plain, rtol=1e-4, atol=1e-5)
    for init in (make(projection=jnp.ones((3, 1))).init, make(latent_dim=3).init):
        with pytest.raises(de.InputError) as error:
            init(KEY, POPULATION)
        assert error.value.path in ("projection", "latent_dim")
    with pytest.raises(de.InputError) as error:
        make(projection=FRAME, latent_dim=2)
    assert error.value.path == "latent_dim"


@pytest.mark.parametrize("name", ESTIMATES)
def test_a_latent_space_is_the_projection_that_the_key_of_init_draws_and_is_remembered(name):
    drawn, own = (
        _denoiser(name, 0.5, **places)
        for places in ({"latent_dim": 1}, {"projection": de.latent.random_projection(KEY, 2, 1)})
    )
    chex.assert_trees_all_equal(_estimate(drawn, t=2)[0], _estimate(own, t=2)[0])
    shapes = [leaf.shape for leaf in jax.tree.leaves(drawn.init(KEY, POPULATION))]
    assert (2, 1) in shapes
    assert not np.array_equal(*(drawn.init(key, POPULATION)[-1] for key in jax.random.split(KEY)))


@pytest.mark.parametrize("name", ESTIMATES)
def test_nobody_without_fitness_takes_part(name):
    fitness = _fitness(POPULATION).at[3].set(jnp.nan)
    denoiser = _denoiser(name, 0.5)
    posterior, _ = _estimate(denoiser, t=2, fitness=fitness)
    others = np.delete(np.arange(16), 3)
    alone, _ = _estimate(
        denoiser, t=2, population=POPULATION[others], fitness=_fitness(POPULATION[others])
    )
    np.testing.assert_allclose(posterior.x0[others], alone.x0, atol=1e-5)
    assert np.all(np.isfinite(posterior.x0))


# What they share in the tests below


def _fitness(population):
    return de.landscapes.two_peaks(population) + 0.1


def _level(t: int, schedule=SCHEDULE) -> de.Level:
    before = max(t - 1, 0)
    alpha, rest = schedule
    return de.Level(jnp.asarray(t), alpha[t], rest[t], alpha[before], rest[before])


def _weights(fitness) -> de.Weights:
    weigh = partial(de.fitness.weigh, de.fitness.identity)
    return de.Weights(weigh(fitness), fitness, weigh)


def _estimate(denoiser, *, t, population=POPULATION, fitness=None, memory=None, schedule=SCHEDULE):
    fitness = _fitness(population) if fitness is None else fitness
    memory = denoiser.init(KEY, population) if memory is None else memory
    level = _level(t, schedule)
    memory, posterior = denoiser.estimate(KEY, memory, population, _weights(fitness), level)
    return posterior, memory


def _double(*arrays):
    return [np.asarray(array, np.float64) for array in arrays]


def _loop(query, support, log_weight, log_kernel):
    """Float64 sums, one query at a time: x0, log-evidence, effective sample size."""
    rows = []
    for row in query:
        log_w = log_weight + log_kernel(row)
        evidence = np.logaddexp.reduce(log_w)
        w = np.exp(log_w - evidence)
        rows.append((w @ support, evidence, 1 / np.sum(w**2)))
    return [np.array(column) for column in zip(*rows, strict=True)]


# Broadened


def test_a_share_of_nothing_is_the_posterior_mean():
    for t in (0, 1, 3):
        actual, _ = _estimate(denoisers.broadened(share=1e-6), t=t)
        expected, _ = _estimate(denoisers.posterior_mean(), t=t)
        chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("latent", [None, 2])
def test_the_kernel_is_as_broad_as_the_share_wants_it(latent):
    population = jax.random.normal(KEY, (64, 12))
    fitness = jnp.exp(population[:, 0])
    projection = latent and de.latent.random_projection(KEY, 12, latent)

    def sample_size(denoiser):
        posterior, _ = _estimate(denoiser, t=1, population=population, fitness=fitness)
        return posterior.effective_sample_size.mean()

    alone = jnp.sum(fitness) ** 2 / jnp.sum(fitness**2)
    kernel = kernels.gaussian(projection=projection)
    assert float(sample_size(denoisers.posterior_mean(kernel)) / alone) < 0.3
    broadened = jax.jit(lambda x: sample_size(denoisers.broadened(kernel, share=x)))
    for share in (0.3, 0.7, 1.0):
        # Bisections end .002 in log beta below the largest; sums at a share of 1 have 1e-5.
        assert float(broadened(share) / alone) == pytest.approx(share, rel=2e-3)


def test_gradients_take_the_breadth_as_constant():
    def norm(share):
        return jnp.sum(_estimate(denoisers.broadened(share=share), t=1)[0].x0 ** 2)

    assert float(jax.grad(norm)(0.5)) == 0
    assert float(norm(0.5)) != float(norm(0.9))


# Consensus


def test_the_consensus_is_a_kernel_of_infinite_width():
    weights = _weights(_fitness(POPULATION)).log_weight
    for t in (0, 1, 3):
        actual, _ = _estimate(denoisers.consensus(), t=t)
        expected = kernels.gaussian().average(
            (), POPULATION, weights, _level(t), inverse_temperature=1e-12
        )
        chex.assert_trees_all_close(actual, expected, rtol=1e-5)  # float32


def test_who_is_no_number_or_has_no_fitness_is_no_part_of_the_consensus():
    population = POPULATION.at[5].set(jnp.inf)
    log_weight = jnp.where(jnp.arange(16) == 5, jnp.nan, jnp.log(_fitness(POPULATION)))
    weights = de.Weights(log_weight, jnp.exp(log_weight), lambda fitness: fitness)
    _, posterior = denoisers.consensus().estimate(KEY, (), population, weights, _level(2))
    g, x = _double(jnp.exp(log_weight), POPULATION)
    others = np.delete(np.arange(16), 5)
    expected = g[others] @ x[others] / g[others].sum()
    np.testing.assert_allclose(posterior.x0, np.tile(expected, (16, 1)), rtol=1e-5)  # float32


def test_guidance_goes_on_from_the_mean_through_the_weighted_mean():
    population = POPULATION.at[5].set(jnp.inf)
    log_weight = jnp.where(jnp.arange(16) == 5, jnp.nan, jnp.log(_fitness(POPULATION)))
    weights = de.Weights(log_weight, jnp.exp(log_weight), lambda fitness: fitness)
    _, guided = denoisers.consensus(guidance=3.0).estimate(KEY, (), population, weights, _level(2))
    others = np.delete(np.arange(16), 5)
    g, x = _double(jnp.exp(log_weight)[others], POPULATION[others])
    mean = x.mean(0)
    expected = mean + 3 * (g @ x / g.sum() - mean)
    np.testing.assert_allclose(guided.x0, np.tile(expected, (16, 1)), rtol=1e-5)  # float32


def test_gentle_guidance_with_mirrored_noise_goes_further_than_a_sharp_mean():
    """In many genes a sharp mean rests on a few individuals."""

    def cost(guidance, temperature, mirrored):
        algorithm = de.denoising_evolution(
            de.schedules.geometric(40, end=1e-3),
            fitness_map=de.fitness.standardised(temperature),
            denoiser=denoisers.consensus(guidance=guidance),
            sampler=samplers.ddim(freshness=1.0, centred=True, mirrored=mirrored),
        )
        population = jax.random.normal(KEY, (40, 100))
        evolved = de.evolve(KEY, algorithm, lambda x: -jnp.sum((x - 1) ** 2, 1), population)
        return -float(evolved.best.fitness)

    # .14 and 2.5 on this key, alike on others; the population begins at 200.
    assert cost(4.0, 2.0, True) < 0.2 * cost(1.0, 0.45, False)


# Niching


def _log_gaussian(centres, scale, row):
    return -np.sum((row - centres) ** 2, axis=1) / scale


def test_niching_divides_weights_by_the_crowd_and_warms_them():
    tau, sharing = 1.7, 0.6
    denoiser = denoisers.niching(sharing=sharing, warmth=tau, warm=0.01, cold=0.001)
    for t in (0, 2):  # 1 - alpha is .001 and above, .44: as sharp as the map, and warm
        posterior, _ = _estimate(denoiser, t=t)
        x, log_g = _double(POPULATION, jnp.log(_fitness(POPULATION)))
        alpha, rest = _double(SCHEDULE.alpha[t], SCHEDULE.one_minus_alpha[t])
        log_kernel = partial(_log_gaussian, x, 2 * rest)
        crowd = _loop(x, x, np.zeros(16), log_kernel)[1]
        log_w = log_g / (1 if t == 0 else tau) - sharing * crowd
        log_kernel = partial(_log_gaussian, np.sqrt(alpha) * x, 2 * rest)
        expected = _loop(x, x, log_w, log_kernel)
        for actual, value in zip(posterior[:3], expected, strict=True):
            np.testing.assert_allclose(actual, value, rtol=2e-4, atol=2e-4)  # float32 at 1e-3


def test_without_sharing_and_warmth_niching_is_the_posterior_mean():
    for t in (0, 1, 3):
        actual, _ = _estimate(denoisers.niching(sharing=0, warmth=1), t=t)
        expected, _ = _estimate(denoisers.posterior_mean(), t=t)
        chex.assert_trees_all_close(actual, expected, rtol=1e-6)


def test_niches_outlast_fresh_noise_and_consensus_keeps_one():
    """Eight even peaks, 128 x 25: without niches fresh noise keeps 2 or 3, see docs/settings.md."""
    angle = 2 * jnp.pi * jnp.arange(8) / 8
    centres = 2 * jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)

    def distances(x):
        return jnp.linalg.norm(1.5 * x[:, None] - centres, axis=2)

    def kept(denoiser, key):
        algorithm = de.denoising_evolution(
            de.schedules.geometric(25),
            denoiser=denoiser,
            sampler=de.samplers.ddim(freshness=1.0),
        )
        population = jax.random.normal(key, (128, 2))
        state = de.evolve(
            key, algorithm, lambda x: jnp.exp(-(jnp.min(distances(x), 1) ** 2)), population
        ).state
        return jnp.sum(jnp.any(distances(state.population) < 0.5, axis=0))

    keys = jax.random.split(KEY, 8)
    means = {
        name: float(jnp.mean(jax.vmap(partial(kept, denoiser))(keys)))
        for name, denoiser in {
            "niching": denoisers.niching(),
            "plain": denoisers.posterior_mean(),
            "consensus": denoisers.consensus(),
        }.items()
    }
    assert means["niching"] > 7  # 7.75 +- .08 over 40 seeds
    assert means["plain"] < 5
    assert means["consensus"] == 1


# Archive


def _moves(sigmas, population=POPULATION):
    """Populations drawn one after the other around means of their own."""
    for i, sigma in enumerate(sigmas):
        key_mean, key_noise = jax.random.split(jax.random.fold_in(KEY, i))
        mean = jax.random.normal(key_mean, population.shape)
        noise = sigma * jax.random.normal(key_noise, population.shape)
        yield de.Move(mean + noise, mean, jnp.asarray(sigma))


def _log_normal_mixture(move: de.Move) -> np.ndarray:
    """Log mean_i N(x; mu_i, sigma^2 I) in float64."""
    x, mean, sigma = _double(*move)
    squares = np.sum((x[:, None] - mean) ** 2, axis=2)
    sums = np.logaddexp.reduce(-squares / (2 * sigma**2), axis=1)
    return sums - np.log(len(x)) - x.shape[1] * np.log(sigma * np.sqrt(2 * np.pi))


@pytest.mark.parametrize("genes", [2, 40])
@pytest.mark.parametrize("sigma", [2.0, 0.1, 1e-3])
def test_the_density_is_that_of_the_moves_mixture(sigma, genes):
    population = jnp.zeros((24, genes))
    (move,) = _moves([sigma], population)
    # Places are known to eps beside a noise of sigma, which counts z times in a density.
    atol = 1e-4 + 40 * genes * np.finfo(np.float32).eps / sigma
    actual = kernels.log_density(move.population, move.mean, move.sigma)
    np.testing.assert_allclose(actual, _log_normal_mixture(move), atol=atol)


def test_the_archive_is_the_last_generations_over_their_densities():
    denoiser, memory, past = denoisers.archive(generations=2), None, []
    drawn = [de.Move(POPULATION, POPULATION, jnp.asarray(0.0)), *_moves([0.7, 0.4, 0.2])]
    for t, move in zip((3, 2, 1, 1), drawn, strict=True):
        memory = (
            denoiser.init(KEY, POPULATION)
            if memory is None
            else denoiser.moved(memory, move, _level(t))
        )
        x = move.population
        posterior, memory = _estimate(denoiser, t=t, population=x, memory=memory)
        first = -np.sum(_double(x)[0] ** 2, axis=1) / 2 - np.log(2 * np.pi)
        density = _log_normal_mixture(move) if past else first
        past = [*past, (*_double(x, jnp.log(_fitness(x))), density)][-2:]
        support, log_g, log_q = (np.concatenate(column) for column in zip(*past, strict=True))
        (a,) = _double(SCHEDULE.alpha[t])

        def log_kernel(row, support=support, a=a):
            return -np.sum((row - np.sqrt(a) * support) ** 2, axis=1) / (2 * (1 - a))

        expected = _loop(_double(x)[0], support, log_g - log_q, log_kernel)
        # 1 - alpha of a float32 alpha: 1e-5 of log weights of tens of nats.
        for one, other in zip(posterior[:3], expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


def test_an_archive_of_one_generation_moved_without_noise_is_the_posterior_mean():
    denoiser = denoisers.archive(generations=1)
    moved = denoiser.moved(
        denoiser.init(KEY, POPULATION),
        de.Move(POPULATION, POPULATION, jnp.asarray(0.0)),
        _level(2),
    )
    actual, _ = _estimate(denoiser, t=2, memory=moved)
    expected, _ = _estimate(denoisers.posterior_mean(), t=2)
    chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_generations_that_are_not_there_yet_do_not_count():
    """Not even for maps that compare individuals, or that weigh an unknown fitness."""

    def standardised(fitness):
        return (fitness - fitness.mean()) / fitness.std()

    fitness = _fitness(POPULATION)
    weights = de.Weights(standardised(fitness), fitness, standardised)
    for values in (fitness, jnp.full(16, jnp.nan)):
        weights = weights._replace(fitness=values)
        one, many = (
            denoiser.estimate(KEY, denoiser.init(KEY, POPULATION), POPULATION, weights, _level(2))[
                1
            ]
            for denoiser in map(lambda k: denoisers.archive(generations=k), (1, 5))
        )
        chex.assert_trees_all_close(one, many, rtol=1e-4, atol=1e-5)
        assert float(many.effective_sample_size.max()) <= 16.001
        assert float(many.effective_sample_size.min()) >= 0.999  # all weigh one where nobody does


def test_the_archive_gives_peaks_their_masses():
    """Peaks of mass 1/4 and 3/4 at a distance of ten widths; measured .762 +- .029 a run."""
    width, centre = 0.3, jnp.array([1.5, 0.0])

    def density(x):
        light, heavy = (jnp.sum((x - c) ** 2, axis=1) / (2 * width**2) for c in (-centre, centre))
        return jnp.exp(-light) + 3 * jnp.exp(-heavy)

    @partial(jax.jit, static_argnames="denoiser")
    def share(keys, denoiser):
        algorithm = de.denoising_evolution(
            de.schedules.cosine(30),
            fitness_map=de.fitness.identity,
            denoiser=denoiser,
            sampler=samplers.ddim(),
        )

        def run(key):
            key_init, key_run = jax.random.split(key)
            population = jax.random.normal(key_init, (256, 2))
            return de.evolve(key_run, algorithm, density, population).state.population

        return jnp.mean(jax.lax.map(run, keys)[..., 0] > 0)

    keys = jax.random.split(KEY, 8)
    # Four standard errors of eight runs.
    assert float(share(keys, denoisers.archive(generations=2))) == pytest.approx(0.762, abs=0.04)
    assert float(share(keys, denoisers.posterior_mean())) > 0.9


# Heavy tails


@pytest.mark.parametrize("one_minus_alpha", [0.999, 0.5, 1e-3, 1e-6])
@pytest.mark.parametrize("dof", [0.5, 3.0])
def test_heavy_tails_are_the_formula_in_float64(one_minus_alpha, dof):
    schedule = de.schedules.from_alpha(1 - np.array([one_minus_alpha, 0.9999]))
    # Neighbours as near as the kernel is wide, so that more than oneself counts.
    population = POPULATION * min(1, 10 * one_minus_alpha**0.5) + 1
    log_g = jnp.log(_fitness(POPULATION)).at[2].set(jnp.nan).at[5].set(-jnp.inf)
    fitness = jnp.exp(log_g)
    actual, _ = _estimate(
        denoisers.posterior_mean(kernels.student_t(dof=dof)),
        t=0,
        population=population,
        fitness=fitness,
        schedule=schedule,
    )
    x, log_w = _double(population, log_g)
    log_w = np.where(np.isnan(log_w), -np.inf, log_w)

    def log_kernel(row):
        squares = np.sum((row - np.sqrt(1 - one_minus_alpha) * x) ** 2, axis=1)
        return -(dof + 2) / 2 * np.log1p(squares / (dof * one_minus_alpha))

    for one, other in zip(actual[:3], _loop(x, x, log_w, log_kernel), strict=True):
        # Genomes of size 1 in float32, spread as far as the kernel is wide: 1e-7 / 1e-3.
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-5)


def test_many_degrees_of_freedom_are_a_gaussian():
    for t in (0, 1, 3):
        actual, _ = _estimate(denoisers.posterior_mean(kernels.student_t(dof=1e7)), t=t)
        expected, _ = _estimate(denoisers.posterior_mean(), t=t)
        # The next term is squares^2 / nu, of squares of up to a hundred at the last level.
        chex.assert_trees_all_close(actual, expected, rtol=2e-3, atol=2e-4)


def test_without_any_weight_heavy_tails_leave_everybody_where_they_are():
    weights = _weights(jnp.zeros(16))
    denoiser = denoisers.posterior_mean(kernels.student_t())
    _, posterior = denoiser.estimate(KEY, (), POPULATION, weights, _level(2))
    np.testing.assert_array_equal(posterior.x0, POPULATION)
    assert np.all(np.isneginf(posterior.log_evidence))
    np.testing.assert_array_equal(posterior.effective_sample_size, 0)
    bad = POPULATION.at[3, 0].set(jnp.nan)
    estimate = jax.jit(partial(_estimate, denoiser, t=2))  # refused where they are known
    posterior, _ = estimate(population=bad, fitness=_fitness(POPULATION))
    others = np.delete(np.arange(16), 3)
    alone, _ = _estimate(denoiser, t=2, population=POPULATION[others])
    np.testing.assert_allclose(posterior.x0[others], alone.x0, atol=1e-5)
    assert float(posterior.log_evidence[3]) == -np.inf


def test_heavy_tails_are_summed_in_blocks_as_they_are_at_once(monkeypatch):
    population = POPULATION[:13]
    at_once, _ = _estimate(
        denoisers.posterior_mean(kernels.student_t()), t=2, population=population
    )
    monkeypatch.setattr(dense, "BLOCK", 4 * 2 * 13)  # four queries at a time
    blocks, _ = _estimate(denoisers.posterior_mean(kernels.student_t()), t=2, population=population)
    chex.assert_trees_all_close(blocks, at_once, rtol=1e-5, atol=1e-5)


# DPM-Solver


def _ends_in_a_millionth(num_levels):  # of noise: a float32 alpha is 1 there, to two digits
    return de.schedules.from_alpha(1 - np.geomspace(1e-6, 0.9999, num_levels))


@pytest.mark.parametrize(
    "schedule", [de.schedules.cosine, de.schedules.linear, _ends_in_a_millionth]
)
def test_dpm_solver_is_its_formula_in_float64(schedule):
    sampler, num_levels = samplers.dpm_solver(), 8
    levels = schedule(num_levels)
    with jax.enable_x64(True):
        alpha, rest = _double(*schedule(num_levels))
    x = POPULATION
    memory, before = sampler.init(KEY, x), None
    for t in range(num_levels - 1, 0, -1):
        x0 = jax.random.normal(jax.random.fold_in(KEY, t), x.shape)
        memory, moved = sampler.move(KEY, memory, x, x0, _level(t, levels))
        (x_t, target), s = _double(x, x0), t - 1
        h = np.log(alpha[s] * rest[t] / (rest[s] * alpha[t])) / 2
        if before is not None:
            x0_last, h_last = before
            r = h_last / h
            target = (1 + 1 / (2 * r)) * target - 1 / (2 * r) * x0_last
        expected = np.sqrt(rest[s] / rest[t]) * x_t
        expected += np.sqrt(alpha[s]) * (1 - np.exp(-h)) * target
        # A few roundings of float32, of targets extrapolated up to seven times.
        np.testing.assert_allclose(moved.population, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(moved.mean, moved.population)
        assert float(moved.sigma) == 0
        before, x = (*_double(x0), h), moved.population


def test_the_first_step_is_ddims_without_noise():
    x0 = 0.5 * POPULATION
    for t in range(1, 4):
        solver, ddim = samplers.dpm_solver(), samplers.ddim(0.0)
        _, moved = solver.move(KEY, solver.init(KEY, x0), POPULATION, x0, _level(t))
        _, expected = ddim.move(KEY, ddim.init(KEY, x0), POPULATION, x0, _level(t))
        np.testing.assert_allclose(moved.population, expected.population, atol=1e-6)


@pytest.mark.parametrize(("name", "order"), [("dpm_solver", 2), ("ddim", 1)])
def test_half_the_step_leaves_a_quarter_of_dpm_solvers_error_and_half_of_ddims(name, order):
    """Of data N(0, s^2), x0 = sqrt(a) s^2 x / (a s^2 + 1 - a), and x / sd stays as it is."""
    variance = 0.25

    def error(num_levels):
        log_ratio = np.linspace(6, -6, num_levels + 1)  # equal steps of lambda
        alpha = 1 / (1 + np.exp(-log_ratio))
        schedule = de.schedules.from_alpha(alpha)
        sd = np.sqrt(alpha * variance + 1 - alpha)
        sampler = SAMPLERS[name](0.0)
        x = jnp.full((2, 1), sd[-1])
        memory = sampler.init(KEY, x)
        for t in range(num_levels, 0, -1):
            x0 = jnp.sqrt(alpha[t]) * variance / sd[t] ** 2 * x
            memory, move = sampler.move(KEY, memory, x, x0, _level(t, schedule))
            x = move.population
        return abs(float(x[0, 0]) - sd[0])

    with jax.enable_x64(True):
        coarse, fine = error(64), error(128)
    assert coarse / fine == pytest.approx(2**order, rel=0.1)  # higher orders: one step in 64


# Errors, and variants of one's own


def _with(**parts):
    return de.denoising_evolution(SCHEDULE, fitness_map=de.fitness.identity, **parts)


def _forgets(memory, after):
    part = denoisers.posterior_mean()
    return part._replace(
        init=lambda key, population: memory,
        estimate=lambda *args: (after(args[1]), part.estimate(*args)[1]),
    )


@pytest.mark.parametrize(
    ("memory", "after"),
    [
        (jnp.zeros(3), lambda memory: memory[:2]),
        (jnp.zeros(3), lambda memory: memory.astype(int)),
        (jnp.zeros(3), lambda memory: (memory, memory)),
        ((), lambda memory: jnp.zeros(3)),
    ],
)
def test_a_memory_that_does_not_keep_its_shape_is_refused(memory, after, refuses):
    algorithm = _with(denoiser=_forgets(memory, after))
    state = algorithm.init(KEY, POPULATION)
    with refuses("denoiser"):
        algorithm.step(KEY, state, _fitness(POPULATION))


def test_a_samplers_memory_that_does_not_keep_its_shape_is_refused(refuses):
    ddim = samplers.ddim()
    algorithm = _with(sampler=ddim._replace(move=lambda *args: (jnp.zeros(1), ddim.move(*args)[1])))
    with refuses("sampler"):
        algorithm.step(KEY, algorithm.init(KEY, POPULATION), _fitness(POPULATION))


def _estimated(log_kernel):
    evolution = _with(denoiser=denoisers.posterior_mean(kernels.isotropic(log_kernel)))
    return evolution.step(KEY, evolution.init(KEY, POPULATION), jnp.zeros(len(POPULATION)))


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("share", lambda: denoisers.broadened(share=0)),
        ("share", lambda: denoisers.broadened(share=1.5)),
        ("sharing", lambda: denoisers.niching(sharing=-1)),
        ("warmth", lambda: denoisers.niching(warmth=0)),
        ("warm", lambda: denoisers.niching(warm=1)),
        ("cold", lambda: denoisers.niching(cold=0.05)),
        ("kernel", lambda: denoisers.niching(3)),  # pyright: ignore
        ("freshness", lambda: samplers.ddim(freshness=1.5)),
        ("fresh_below", lambda: samplers.ddim(fresh_below=-1)),
        ("guidance", lambda: denoisers.consensus(guidance=0)),
        ("eta", lambda: samplers.ddim(0.5, freshness=0.5)),
        ("dof", lambda: kernels.student_t(dof=0.0)),
        ("generations", lambda: denoisers.archive(generations=0)),
        ("generations", lambda: denoisers.archive(generations=2.0)),  # pyright: ignore
        ("kernel", lambda: denoisers.posterior_mean(3)),  # pyright: ignore
        ("kernel", lambda: denoisers.broadened(3)),  # pyright: ignore
        ("kernel", lambda: denoisers.archive(3, generations=2)),  # pyright: ignore
        ("log_kernel", lambda: kernels.isotropic(3)),  # pyright: ignore
        ("log_kernel", lambda: kernels.isotropic(lambda squares: -squares)),  # pyright: ignore
        ("log_kernel", lambda: _estimated(lambda squares, level, d: jnp.zeros(3))),
        ("log_kernel", lambda: _estimated(lambda squares, level, d: np.sqrt(squares))),
        ("denoiser.estimate", lambda: _with(denoiser=de.Denoiser(de.no_memory, lambda x_t: x_t))),  # pyright: ignore
        ("sampler.init", lambda: _with(sampler=de.Sampler(lambda x_t: (), samplers.ddim().move))),  # pyright: ignore
        ("floor", lambda: kernels.gaussian(floor=-1.0)),
        ("implementation", lambda: kernels.gaussian(implementation="fast")),
        ("sigma", lambda: kernels.log_density(POPULATION, POPULATION, 0.0)),
        ("eta", lambda: samplers.ddim(1.5)),
    ],
)
def test_bad_settings_of_variants_are_named(path, call, refuses):
    with refuses(path):
        call()


def test_an_integer_of_any_kind_counts_generations():
    denoiser = denoisers.archive(generations=np.int64(3))  # pyright: ignore
    memory = denoiser.init(KEY, jnp.zeros((4, 2)))
    assert jax.tree.leaves(memory)[0].shape == (4, 3, 2)


def test_the_pages_table_lists_every_variant():
    text = (REPOSITORY / "docs" / "variants.md").read_text()
    learned = {"network", "hybrid"}  # test_learned.py
    variants = {*DENOISERS, *SAMPLERS, *KERNELS, *learned} - {"gaussian", "isotropic", *NOISY}
    assert set(re.findall(r"^\| `(\w+)`", text, re.M)) == variants
