"""Networks that learn to denoise: training, denoisers, presets, conditions."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de
from diffevo_jax import selection, training
from diffevo_jax.presets import _hades as hades
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.training._learner import squared_distances

pytestmark = pytest.mark.usefixtures("one_device")

KEY = jax.random.key(3)
POPULATION = jax.random.normal(jax.random.key(1), (16, 2))
FITNESS = de.landscapes.two_peaks(POPULATION)
QUICK = partial(training.learner, hidden=(8,), epochs=4, batch_size=16)
NONE = jnp.zeros((16, 0))
NOBODY = jnp.zeros(16, bool)


def _fit(learner, genomes=POPULATION, weight=FITNESS, held_out=NOBODY):
    start = learner.init(KEY, genomes.shape[1])
    fit = jax.jit(learner.fit)
    return fit(KEY, start, genomes, jnp.zeros((len(genomes), 0)), weight, held_out)


def _hades(**settings):
    settings = {"num_generations": 4, "learner": QUICK(), **settings}
    return de.presets.hades(**settings)


def _run(algorithm, key=KEY, population=POPULATION, fitness_fn=de.landscapes.two_peaks, **settings):
    return de.evolve(key, algorithm, fitness_fn, population, **settings)


def _everything(info, *aux):
    return info


# Training


def test_training_lowers_the_loss_of_genomes_that_were_held_out():
    """Two points: their posterior is a step, which no linear guess has."""
    genomes = jnp.where(jnp.arange(64)[:, None] % 2 == 0, 1.0, -1.0) * jnp.ones(2)
    held_out = jnp.arange(64) % 8 < 2

    @jax.jit
    def fit(rate):
        learner = training.learner(hidden=(16,), epochs=150, batch_size=64, learning_rate=rate)
        return _fit(learner, genomes, jnp.ones(64), held_out)

    short, trained = fit(1e-9), fit(1e-2)
    assert float(trained.loss) < 0.85 * float(short.loss)
    assert not bool(trained.diverged)


@pytest.mark.parametrize("predicts", training.PREDICTIONS)
def test_what_each_prediction_aims_at_tells_the_clean_genome(predicts):
    p, q = jnp.sqrt(0.3), jnp.sqrt(0.7)
    x0, eps = POPULATION, jax.random.normal(KEY, POPULATION.shape)
    x = p * x0 + q * eps
    prediction = training.PREDICTIONS[predicts]
    exact = prediction.target(x0, eps, p, q)
    np.testing.assert_allclose(prediction.clean(x, exact, p, q), x0, atol=1e-5)  # float32
    # The linear guess of unit normal genomes is p x.
    guess = prediction.clean(x, prediction.linear(p, q) * x, p, q)
    np.testing.assert_allclose(guess, p * x, atol=1e-5)


@pytest.mark.parametrize("predicts", training.PREDICTIONS)
def test_a_network_of_nothing_denoises_as_one_gaussian(predicts):
    """In the genomes' own units: x0 = m + p s^2 / (p^2 s^2 + q^2) (x - p m)."""

    class Nothing(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            return nn.Dense(2, kernel_init=nn.initializers.zeros)(inputs)

    learner = training.learner(Nothing(), predicts=predicts)
    trained = learner.init(KEY, 2)._replace(centre=jnp.array([1.0, -2.0]), scale=jnp.asarray(0.3))
    x0 = learner.clean(trained, POPULATION, None, 0.6, 0.4)
    gain = np.sqrt(0.6) * 0.09 / (0.6 * 0.09 + 0.4)
    expected = trained.centre + gain * (POPULATION - np.sqrt(0.6) * trained.centre)
    np.testing.assert_allclose(x0, expected, rtol=1e-4, atol=1e-5)  # float32


def test_rows_that_are_empty_or_no_numbers_change_nothing():
    learner = QUICK(batch_size=8)
    unused = jnp.arange(16) >= 12
    weight = jnp.where(unused, 0.0, FITNESS)
    bad = POPULATION.at[12].set(jnp.nan).at[13].set(jnp.inf).at[14].set(1e9)
    chex.assert_trees_all_equal(
        _fit(learner, bad, weight.at[15].set(jnp.nan)), _fit(learner, POPULATION, weight)
    )


@pytest.mark.parametrize("weighting", ["resampled", "weighted"])
def test_a_network_learns_where_the_weights_are(weighting):
    """Of nothing but noise the mean is what is expected: .9 - .1."""
    genomes = jnp.where(jnp.arange(64) < 32, 1.0, -1.0)[:, None]
    learner = training.learner(hidden=(8,), epochs=100, batch_size=64, weighting=weighting)
    for side in (1, -1):
        weight = jnp.where(side * genomes[:, 0] > 0, 0.9, 0.1)
        trained = _fit(learner, genomes, weight, jnp.arange(64) % 8 == 0)
        mean = learner.clean(trained, jnp.zeros((1, 1)), None, 1e-3, 0.999)
        assert 0.5 < side * float(mean[0, 0]) < 1.2


def test_what_was_held_out_counts_once_by_its_weight():
    """Both ways to train begin at the same network, whose loss is measured on the same draws."""
    genomes = jnp.linspace(-1, 1, 64)[:, None]
    weight = jnp.where(genomes[:, 0] > 0, 0.9, 0.1)
    losses = [
        _fit(
            training.learner(hidden=(4,), learning_rate=1e-9, weighting=weighting),
            *(genomes, weight, jnp.arange(64) % 4 == 0),
        ).loss
        for weighting in ("resampled", "weighted")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_the_loss_is_that_of_the_best_epoch_and_divergence_keeps_the_start():
    genomes = POPULATION
    trained = _fit(QUICK(learning_rate=1e30))
    assert bool(trained.diverged)
    chex.assert_trees_all_equal(trained.params, QUICK().init(KEY, 2).params)
    good = _fit(QUICK(), genomes)
    assert bool(np.isfinite(good.loss))
    assert not np.array_equal(good.params, trained.params)


def test_a_buffer_lets_the_oldest_or_the_weakest_leave_and_no_row_that_is_no_number_in():
    def pushed(leaves):
        buffer = training.empty_buffer(6, POPULATION[:4])
        for first, fitness in ((0, [4.0, 1, 5, 2]), (4, [3.0, np.nan, 0, 0.5])):
            rows = POPULATION[first : first + 4]
            buffer = training.push(buffer, rows, jnp.array(fitness), leaves=leaves)
        assert bool(buffer.filled.all())
        return buffer.fitness.tolist()

    assert pushed("oldest") == [3, 0, 0.5, 4, 1, 5]
    assert pushed("weakest") == [5, 4, 3, 2, 1, 0.5]


# Denoisers


def _denoising(denoiser, levels=4):
    return de.denoising_evolution(de.schedules.cosine(levels), denoiser=denoiser)


def test_a_batch_of_seeds_is_a_loop_and_pieces_are_one_run():
    algorithm = _denoising(de.denoisers.hybrid(QUICK(), capacity=40, leaves="weakest"))
    keys = jax.random.split(KEY, 2)
    batch = jax.jit(jax.vmap(lambda key: _run(algorithm, key).state))(keys)
    generation = de.make_generation(algorithm, de.landscapes.two_peaks)
    piece = jax.jit(lambda running, keys: jax.lax.scan(generation, running, keys)[0])
    for i, key in enumerate(keys):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], batch)
        steps = jax.random.split(key, 4)
        running = piece(piece(de.begin(key, algorithm, POPULATION), steps[:2]), steps[2:])
        chex.assert_trees_all_close(running.state, one, atol=1e-3)  # four trainings, rounded
        chex.assert_trees_all_equal(piece(running, steps[:2]), running)


def test_training_that_diverges_leaves_the_run_to_the_kernel_and_says_so():
    plain = _run(_denoising(de.denoisers.posterior_mean()))
    for make in (de.denoisers.network, de.denoisers.hybrid):
        algorithm = _denoising(make(QUICK(learning_rate=1e30)))
        with pytest.warns(UserWarning, match="ended without a number in 4 of 4"):
            evolved = _run(algorithm, keep=_everything)
        chex.assert_trees_all_close(evolved.state.population, plain.state.population, atol=1e-5)
        assert evolved.kept.learned.share.tolist() == [0, 0, 0, 0]


def test_a_hybrid_trusts_its_network_only_once_that_has_learned():
    """Two clusters in forty genes: the kernel knows each individual by itself alone."""
    side = jnp.where(jnp.arange(256)[:, None] % 2 == 0, 1.0, -1.0)
    population = side + 0.3 * jax.random.normal(KEY, (256, 40))
    level = de.Level(*(jnp.asarray(x) for x in (1, 0.7, 0.3, 0.9, 0.1)))
    weights = de.Weights(jnp.zeros(256), jnp.ones(256), jnp.zeros_like)

    @jax.jit
    def share(rate):
        learner = training.learner(hidden=(32,), batch_size=64, learning_rate=rate)
        denoiser = de.denoisers.hybrid(learner, de.kernels.gaussian())
        memory = denoiser.init(KEY, population)
        _, posterior = denoiser.estimate(KEY, memory, population, weights, level)
        assert posterior.learned is not None
        return posterior.learned.share

    before, after = share(1e-9), share(1e-2)
    assert before < 0.15
    assert after > before + 0.08, (before, after)


# HADES


def test_hades_climbs_both_peaks_and_keeps_its_best_its_range_and_no_row_without_a_number():
    algorithm = de.presets.hades(
        num_generations=5, limit=1.5, learner=training.learner(hidden=(16,), epochs=30)
    )
    population = jnp.clip(jax.random.normal(KEY, (64, 2)), -1.5, 1.5)

    def fitness_fn(population):
        return de.landscapes.two_peaks(population).at[3].set(jnp.nan)

    evolved = _run(algorithm, population=population, fitness_fn=fitness_fn, keep=_everything)
    info = evolved.kept
    means = jnp.nanmean(info.fitness, axis=1)
    assert float(means[-1]) > 1.5 * float(means[0])  # 3.1 on average, below 2 for a seed in 20
    best = jnp.nanmax(info.fitness, axis=1)
    assert np.all(np.diff(best) >= 0), best  # the best is evaluated again
    assert float(np.abs(info.population[1:]).max()) <= 1.5
    assert np.all(np.isfinite(evolved.state.buffer.genomes))
    assert np.all(np.isfinite(evolved.state.buffer.fitness))
    share = jnp.mean(jnp.sum(info.population[-1], axis=1) > 0)
    assert 0.2 < float(share) < 0.8


def test_ten_thousand_individuals_take_little_memory():
    """All pairs of the buffer's 30,000 rows would be 3.6 GB."""
    algorithm = de.presets.hades(num_generations=3, learner=training.learner(hidden=(4,), epochs=1))
    population = jnp.zeros((10_000, 2))
    state = jax.eval_shape(algorithm.init, KEY, population)
    memory = jax.jit(algorithm.step).lower(KEY, state, population[:, 0]).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 100e6  # 50 MB


def test_a_place_is_as_crowded_as_the_sum_of_a_kernel_says(monkeypatch):
    """Beside a loop over all pairs, in blocks of one row and in one of all."""
    genomes = jax.random.normal(KEY, (50, 2))
    buffer = training.push(training.empty_buffer(60, genomes), genomes, jnp.zeros(50))
    gaps = np.sum((np.asarray(genomes)[:, None] - np.asarray(genomes)) ** 2, axis=2)
    width = np.sort(gaps.ravel())[int(0.05 * 2500)]
    expected = np.log(np.exp(-gaps / (2 * width)).sum(axis=1))
    for block in (1, 10_000):
        monkeypatch.setattr("diffevo_jax.training._learner.BLOCK", block)
        crowd = hades._crowd(buffer)
        np.testing.assert_allclose(crowd[:50], expected, atol=1e-4)  # squares by a product
        np.testing.assert_array_equal(crowd[50:], 0)


@pytest.mark.slow
def test_a_batch_of_seeds_of_hades_is_a_loop():
    algorithm = _hades(interval=2, continuous=True)
    keys = jax.random.split(KEY, 2)
    run = jax.jit(lambda key: _run(algorithm, key).state)
    loop = [run(key) for key in keys]
    batch = jax.jit(jax.vmap(lambda key: _run(algorithm, key).state))(keys)
    for i, alone in enumerate(loop):
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, i=i: leaf[i], batch), alone, atol=1e-3
        )
    assert int(loop[0].t) == 0


def test_hades_goes_on_with_a_kernel_where_training_diverges():
    algorithm = _hades(learner=QUICK(learning_rate=1e30))
    population = jax.random.normal(KEY, (64, 2))
    with pytest.warns(UserWarning, match="ended without a number"):
        evolved = _run(algorithm, population=population, keep=_everything)
    assert np.all(np.isfinite(evolved.kept.population))
    means = evolved.kept.fitness.mean(axis=1)
    assert float(means[1]) > 1.5 * float(means[0])  # later ones differ much by the seed


def test_what_was_selected_decides_what_is_drawn():
    """All the weight on the right peak: nobody is drawn on the left."""
    algorithm = de.presets.hades(
        num_generations=2,
        fitness_map=de.fitness.boltzmann(0.05),
        learner=training.learner(hidden=(8,), epochs=40),
        jumps=0.0,
    )
    population = jax.random.normal(KEY, (64, 2))
    evolved = _run(algorithm, population=population, fitness_fn=lambda x: x[:, 0])
    assert float(jnp.mean(evolved.state.population[:, 0] > 0)) > 0.95


# Conditions


@pytest.mark.slow
def test_individuals_are_drawn_for_the_targets():
    place = de.conditions.measured("x", de.conditions.uniform(-1.0, 1.0))
    learner = training.learner(hidden=(32,), epochs=100, predicts="x0")
    search = de.presets.charles(
        [place],
        num_generations=3,
        learner=learner,
        fitness_map=lambda fitness, valid: jnp.zeros_like(fitness),
    )

    def fitness_fn(population):
        return jnp.zeros(len(population)), {"x": population[:, 0]}

    population = jax.random.normal(KEY, (128, 2))
    evolved = de.evolve(
        KEY, search.algorithm, fitness_fn, population, has_aux=True, keep=lambda info, aux: info
    )
    targets = jnp.linspace(-0.8, 0.8, 32)[:, None]
    drawn = search.draw(KEY, evolved.state, targets)
    assert float(jnp.mean(jnp.abs(drawn[:, 0] - targets[:, 0]))) < 0.25
    info = evolved.kept
    np.testing.assert_array_equal(info.conditions[..., 0], info.population[..., 0])
    assert np.all(np.isnan(info.asked[0]))
    assert bool(jnp.all(jnp.nan_to_num(jnp.abs(info.asked[1:])) <= 1))


@pytest.mark.slow
def test_guidance_moves_further_in_the_direction_that_was_told():
    def drawn(guidance):
        search = de.presets.charles(
            [de.conditions.fitness(), de.conditions.novelty(3)],
            num_generations=2,
            guidance=guidance,
            learner=QUICK(),
        )
        return _run(search.algorithm).state.population

    assert not jnp.allclose(drawn(1.0), drawn(2.0))


def test_targets_of_fitness_are_beyond_the_best_and_novelty_counts_the_nearest_alone():
    fitness = de.conditions.fitness(reach=0.5)
    values = jnp.arange(20.0)
    targets = fitness.targets(KEY, values, 50)
    assert float(targets.min()) >= 18.5  # the mean of the best two
    assert float(targets.std()) > 1
    points = jnp.array([[0.0], [1.0], [3.0], [100.0]])
    novelty = de.conditions.novelty(2).evaluate(points, jnp.zeros(4), ())
    np.testing.assert_allclose(jnp.exp(novelty), [2, 1.5, 2.5, 98], rtol=1e-4)
    close = 3 + 1e-3 * jax.random.normal(KEY, (32, 256))  # distances of 1e-3 beside places of 3
    exact = np.asarray(close, np.float64)
    exact = np.linalg.norm(exact[:, None] - exact, axis=2) + 9 * np.eye(32)
    found = jnp.exp(de.conditions.novelty(1).evaluate(close, jnp.zeros(32), ()))
    np.testing.assert_allclose(found, exact.min(axis=1), rtol=1e-4)
    np.testing.assert_allclose(
        squared_distances(close[:3], close), exact[:3] ** 2 - 81 * np.eye(3, 32), atol=1e-9
    )


def test_generations_without_a_fitness_leave_genomes_that_are_numbers():
    """The first one stays as it is, for the buffer is empty; a later one is drawn from it."""
    search = de.presets.charles([de.conditions.fitness()], num_generations=4, learner=QUICK())
    step = jax.jit(search.algorithm.step)
    nothing = np.full(16, np.nan, np.float32)
    state, _ = step(KEY, search.algorithm.init(KEY, POPULATION), nothing)
    np.testing.assert_array_equal(state.population, POPULATION)
    assert np.all(np.isnan(state.asked))
    first, _ = step(KEY, state, FITNESS)
    later, _ = step(KEY, first, nothing)
    assert np.all(np.isfinite(first.asked[3:]))
    for state in (first, later):
        assert np.all(np.isfinite(state.population))
        assert len(np.unique(state.population, axis=0)) > 8
    assert np.all(np.isnan(later.asked))


def test_a_config_names_its_conditions():
    charles = registry.entries["algorithm", "charles"]
    hades = registry.entries["algorithm", "hades"]
    assert set(charles.model.model_fields) == {*hades.model.model_fields, "conditions", "guidance"}
    section = {"name": "charles", "num_generations": 2, "conditions": ["novelty", "fitness"]}
    algorithm = registry.build("algorithm", registry.section("algorithm", section), "algorithm")
    assert algorithm.init(KEY, POPULATION).asked.shape == (16, 2)


def test_a_condition_that_never_differs_is_named():
    flat = de.conditions.Condition(
        lambda population, fitness, aux: jnp.ones(len(population)),
        lambda key, values, size: jnp.ones(size),
    )
    search = de.presets.charles([flat], num_generations=2, learner=QUICK())
    with pytest.warns(UserWarning, match="condition 0 had one value"):
        _run(search.algorithm)
    assert selection.advice(constant=np.array([[True, False], [False, False]])) is None


# Selection


def test_the_roulette_sums_over_all_lower_values():
    """The published example: f = 0 to 7, pressure 3."""
    weight = jnp.exp(de.fitness.weigh(de.fitness.roulette(3.0), jnp.arange(8.0)))
    expected = [0.007, 0.017, 0.034, 0.059, 0.097, 0.156, 0.246, 0.385]
    np.testing.assert_allclose(weight / weight.sum(), expected, atol=6e-4)
    with_nan = jnp.array([0.0, 2, jnp.nan, 1, 2])
    log_weight = de.fitness.weigh(de.fitness.roulette(3.0), with_nan)
    assert bool(np.isnan(log_weight[2]))
    u = np.exp(3 * (np.array([0, 0.5, 1]) - 1))
    np.testing.assert_allclose(
        np.asarray(log_weight)[[0, 3, 1, 4]], np.log(np.cumsum(u))[[0, 1, 2, 2]], rtol=1e-5
    )


# Bad input


class Narrow(nn.Module):
    """Of another output."""

    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(3)(inputs)


def test_bad_settings_are_refused(refuses):
    for name, value in (
        ("predicts", "noise"),
        ("weighting", "all"),
        ("epochs", 0),
        ("learning_rate", -1.0),
        ("module", "mlp"),
    ):
        with refuses(name):
            training.learner(**{name: value})  # pyright: ignore
    for name, value in (
        ("limit", 0.0),
        ("elites", 1.5),
        ("leaves", "first"),
        ("learner", 3),
        ("interval", 0),
    ):
        with refuses(name):
            de.presets.hades(num_generations=2, **{name: value})  # pyright: ignore
    with refuses("fitness_map"):
        de.presets.hades(num_generations=2, fitness_map=de.fitness.dominated_novelty())
    with refuses("learner"):
        de.denoisers.network(3)  # pyright: ignore
    with refuses("high"):
        de.conditions.uniform(1.0, 0.0)
    with refuses("conditions"):
        de.presets.charles([], num_generations=2)


def test_a_network_of_another_shape_and_a_small_buffer_are_refused(refuses):
    learner = training.learner(Narrow())
    for algorithm in (_denoising(de.denoisers.network(learner)), _hades(learner=learner)):
        with refuses("module"):
            algorithm.init(KEY, POPULATION)
    for algorithm in (_denoising(de.denoisers.network(capacity=15)), _hades(capacity=15)):
        with refuses("capacity"):
            algorithm.init(KEY, POPULATION)


def test_conditions_of_a_wrong_shape_are_refused(refuses):
    def search(evaluate=lambda x, f, aux: f, targets=lambda key, values, size: jnp.ones(size)):
        condition = de.conditions.Condition(evaluate, targets)
        return de.presets.charles([condition], num_generations=2, learner=QUICK())

    with refuses("conditions[0]"):
        _run(search(lambda x, f, aux: x).algorithm)
    with refuses("conditions[0]"):
        _run(search(targets=lambda key, values, size: jnp.ones(3)).algorithm)
    with refuses("aux"):
        measured = de.conditions.measured("position", de.conditions.around(0.5))
        _run(de.presets.charles([measured], num_generations=2).algorithm)
    good = search()
    with refuses("targets"):
        good.draw(KEY, good.algorithm.init(KEY, POPULATION), jnp.ones(3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hades", "network", "hybrid"])
def test_a_mesh_changes_nothing(name):
    learner, levels = de.training.learner(epochs=5), de.schedules.cosine(3)
    make = {
        "hades": lambda mesh: de.presets.hades(num_generations=3, learner=learner, mesh=mesh),
        "network": lambda mesh: de.denoising_evolution(
            levels, denoiser=de.denoisers.network(learner), mesh=mesh
        ),
        "hybrid": lambda mesh: de.denoising_evolution(
            levels, denoiser=de.denoisers.hybrid(learner), mesh=mesh
        ),
    }[name]
    population = jax.random.normal(jax.random.key(0), (64, 2))
    runs = [
        de.evolve(KEY, make(mesh), de.landscapes.two_peaks, population)
        for mesh in (None, jax.sharding.Mesh(jax.devices()[:4], ("individuals",)))
    ]
    np.testing.assert_allclose(runs[0].kept, runs[1].kept, atol=1e-5)


@pytest.mark.slow
def test_a_learning_rate_may_be_traced():
    population = jax.random.normal(jax.random.key(0), (32, 2))

    def run(rate):
        denoiser = de.denoisers.network(de.training.learner(epochs=5, learning_rate=rate))
        algorithm = de.denoising_evolution(de.schedules.cosine(3), denoiser=denoiser)
        return de.evolve(KEY, algorithm, de.landscapes.two_peaks, population).kept

    rates = jnp.array([1e-2, 3e-2])
    for rate, kept in zip(rates, jax.vmap(run)(rates), strict=True):
        np.testing.assert_allclose(kept, run(float(rate)), atol=1e-4)
