"""The loop: laws, transformations, and what happens to bad fitness."""

import warnings
from functools import cache, partial

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffevo_jax as de
from diffevo_jax import selection

KEY = jax.random.key(11)
POPULATION = jax.random.normal(jax.random.key(1), (64, 2))
COSINE = de.schedules.cosine(12)


def _everything(info):
    return info


def _run(key=KEY, population=POPULATION, schedule=COSINE, fitness_fn=de.landscapes.two_peaks, **kw):
    """State and info of a run; settings are the optimiser's, has_key is `evolve`'s."""
    has_key = kw.pop("has_key", False)
    algorithm = _evolution(schedule, **kw)
    state, info, _ = de.evolve(
        key, algorithm, fitness_fn, population, has_key=has_key, keep=_everything
    )
    return state, info


@cache
def _plain():
    """The run that several tests look at, in NumPy."""
    return jax.device_get(_run())


def _evolution(schedule, **settings):
    """The published weights, which the fitness itself is."""
    return de.presets.paper(schedule, **{"fitness_map": de.fitness.identity, **settings})


def _first(fitness_fn):
    """The population after one generation, without compiling a whole run."""
    algorithm = _evolution(COSINE)
    generation = de.make_generation(algorithm, fitness_fn)
    return generation(de.begin(KEY, algorithm, POPULATION), KEY)[0].state.population


def test_the_quick_start_finds_both_peaks():
    population = jax.random.normal(KEY, (512, 2))
    state, info = _run(population=population, schedule=de.schedules.cosine(100), eta=0.1)
    for peak in (1.0, -1.0):  # measured 0.4 to 0.5 each over ten keys
        assert float((jnp.linalg.norm(state.population - peak, axis=1) < 1).mean()) > 0.3
    mean = info.fitness.mean(axis=1)  # measured 0.18 and 0.58 to 0.63 over ten keys
    assert float(mean[0]) < 0.25
    assert float(mean[-1]) > 0.5


def test_t_levels_are_t_evaluations_and_t_minus_one_updates():
    state, info = _plain()
    assert info.fitness.shape == (12, 64)
    np.testing.assert_array_equal(info.t, np.arange(11, -1, -1))
    np.testing.assert_array_equal(info.alpha, COSINE.alpha[::-1])
    moved = np.any(np.diff(info.population, axis=0) != 0, axis=(1, 2))
    assert moved.shape == (11,)
    assert np.all(moved)
    np.testing.assert_array_equal(info.population[-1], state.population)
    np.testing.assert_allclose(
        info.fitness[-1], de.landscapes.two_peaks(state.population), rtol=1e-6
    )


def test_a_finished_run_is_a_fixed_point_of_step():
    algorithm = _evolution(COSINE)
    state, _ = _plain()
    assert int(state.t) == 0
    for key in jax.random.split(KEY, 3):
        repeated, info = algorithm.step(key, state, de.landscapes.two_peaks(state.population))
        chex.assert_trees_all_equal(repeated, state)
        assert np.all(np.isfinite(info.x0))


def test_eta_zero_is_deterministic():
    run = jax.jit(lambda key, eta: _run(key=key, eta=eta)[0].population)
    other = jax.random.key(99)
    chex.assert_trees_all_equal(run(KEY, 0.0), run(other, 0.0))
    assert not np.array_equal(run(KEY, 0.5), run(other, 0.5))


def test_permuted_individuals_evolve_the_same_way():
    order = jax.random.permutation(KEY, 64)
    state, _ = _run(eta=0.0)
    permuted, _ = _run(population=POPULATION[order], eta=0.0)
    np.testing.assert_allclose(permuted.population, state.population[order], atol=1e-4)


def test_an_offset_of_boltzmann_fitness_changes_nothing():
    def run(offset):
        return _run(
            fitness_fn=lambda population: de.landscapes.two_peaks(population) + offset,
            fitness_map=de.fitness.boltzmann(0.5),
        )[0].population

    np.testing.assert_allclose(run(0.0), run(64.0), atol=1e-3)  # float32's digits at 64


def test_the_step_is_the_estimate_and_the_ddim_step():
    algorithm = _evolution(COSINE, eta=0.5)
    state = algorithm.init(KEY, POPULATION)
    fitness = de.landscapes.two_peaks(POPULATION)
    stepped, info = algorithm.step(KEY, state, fitness)
    x0 = de.estimate_x0(POPULATION, jnp.log(fitness), COSINE.alpha[11])
    x_prev = de.ddim_step(
        KEY, POPULATION, x0, alpha_t=COSINE.alpha[11], alpha_prev=COSINE.alpha[10], eta=0.5
    )
    np.testing.assert_allclose(info.x0, x0, atol=1e-5)
    np.testing.assert_allclose(stepped.population, x_prev, atol=1e-5)


def test_a_square_projection_of_full_rank_keeps_the_distances():
    rotation = jnp.array([[0.6, -0.8], [0.8, 0.6]])
    plain, rotated = _run(eta=0.0), _run(eta=0.0, projection=rotation)
    np.testing.assert_allclose(plain[0].population, rotated[0].population, atol=1e-4)


def test_the_step_on_what_was_evaluated_is_the_step_of_a_run_that_is_there():
    algorithm = _evolution(COSINE, eta=0.5)
    evaluated = jnp.clip(POPULATION, -1, 1)
    fitness = de.landscapes.two_peaks(evaluated)
    actual = algorithm.step(KEY, algorithm.init(KEY, POPULATION), fitness, evaluated)
    expected = algorithm.step(KEY, algorithm.init(KEY, evaluated), fitness)
    chex.assert_trees_all_equal(actual, expected)


# What `evolve` keeps, and how it is told to start


def test_fitness_is_kept_unless_keep_says_otherwise():
    algorithm = _evolution(COSINE)
    fitness = _plain()[1].fitness
    evolve = partial(de.evolve, KEY, algorithm, de.landscapes.two_peaks, POPULATION)
    # Three programs, each with its own rounding.
    np.testing.assert_allclose(evolve().kept, fitness, atol=1e-5)
    best = evolve(keep=lambda info: info.fitness.max()).kept
    np.testing.assert_allclose(best, fitness.max(axis=1), atol=1e-5)


def test_the_best_is_the_best_of_all_generations():
    def fades(key, population):  # the first generation is the best one
        return de.landscapes.two_peaks(population) * jax.random.uniform(key)

    algorithm = _evolution(COSINE)
    _, info, best = de.evolve(KEY, algorithm, fades, POPULATION, has_key=True, keep=_everything)
    level, individual = np.unravel_index(np.argmax(info.fitness), info.fitness.shape)
    assert level < 11  # measured: the best of the last generation is not the best of all
    assert float(best.fitness) == np.max(info.fitness)
    np.testing.assert_array_equal(best.genome, np.asarray(info.population)[level, individual])


@jax.jit
def _of_bad_fitness(bad, everybody):
    """A run whose first individual, or everybody, has a bad fitness."""

    def fitness_fn(population):
        who = everybody | (jnp.arange(len(population)) == 0)
        return jnp.where(who, bad, de.landscapes.two_peaks(population))

    return de.evolve(KEY, _evolution(COSINE), fitness_fn, POPULATION, keep=_everything)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_fitness_that_is_no_number_is_no_best(bad):
    _, info, best = _of_bad_fitness(bad, False)
    assert float(best.fitness) == np.asarray(info.fitness)[:, 1:].max()
    _, _, none = _of_bad_fitness(bad, True)
    assert float(none.fitness) == -np.inf


def test_a_run_from_a_level_is_the_end_of_a_whole_run():
    algorithm = _evolution(COSINE, eta=0.5)
    generation = de.make_generation(algorithm, de.landscapes.two_peaks)
    running = de.begin(KEY, algorithm, POPULATION, start=4)
    assert int(running.state.t) == 4
    repeated = de.begin(KEY, algorithm, POPULATION, start=np.int64(4))  # pyright: ignore
    assert int(repeated.state.t) == 4
    running, _ = jax.lax.scan(generation, running, jax.random.split(KEY, 5))
    evolved = de.evolve(
        KEY, algorithm, de.landscapes.two_peaks, POPULATION, start=4, keep=_everything
    )
    np.testing.assert_array_equal(evolved.kept.t, np.arange(4, -1, -1))
    np.testing.assert_array_equal(evolved.kept.alpha, COSINE.alpha[4::-1])
    chex.assert_trees_all_close(evolved.state, running.state, atol=1e-5)
    assert int(evolved.state.t) == 0


def test_a_start_at_the_first_level_is_a_whole_run():
    algorithm = _evolution(COSINE)
    evolved = de.evolve(KEY, algorithm, de.landscapes.two_peaks, POPULATION, start=11)
    chex.assert_trees_all_close(evolved.state, _plain()[0], atol=1e-5)


@pytest.mark.parametrize("start", [-1, 12, 2.0])
def test_a_start_that_is_no_level_is_refused(start, refuses):
    algorithm = _evolution(COSINE)
    with refuses("start"):
        de.evolve(KEY, algorithm, de.landscapes.two_peaks, POPULATION, start=start)


def test_what_is_repaired_is_what_is_evaluated_and_selected():
    def unrepaired(population):
        return jnp.where(
            jnp.any(population > 0.5, axis=1), 9.0, de.landscapes.two_peaks(population)
        )

    algorithm = _evolution(COSINE)
    state, info, best = de.evolve(
        KEY,
        algorithm,
        unrepaired,
        POPULATION,
        repair=lambda population: jnp.minimum(population, 0.5),
        keep=_everything,
    )
    assert float(info.population.max()) == 0.5
    assert float(best.fitness) < 9
    assert float(best.genome.max()) <= 0.5
    # Estimates are averages of what was evaluated; the state is what comes before the repair.
    assert float(info.x0.max()) <= 0.5 + 1e-6
    np.testing.assert_array_equal(info.population[-1], jnp.minimum(state.population, 0.5))


def test_what_a_fitness_tells_beside_is_there_to_be_kept():
    def fitness_fn(population):
        return de.landscapes.two_peaks(population), {"norm": jnp.linalg.norm(population, axis=1)}

    algorithm = _evolution(COSINE)
    fitness, norm = de.evolve(
        KEY,
        algorithm,
        fitness_fn,
        POPULATION,
        has_aux=True,
        keep=lambda info, aux: (info.fitness, aux["norm"]),
    ).kept
    info = _plain()[1]
    np.testing.assert_allclose(fitness, info.fitness, atol=1e-5)
    np.testing.assert_allclose(norm, jnp.linalg.norm(info.population, axis=2), atol=1e-5)
    kept = de.evolve(KEY, algorithm, fitness_fn, POPULATION, has_aux=True).kept
    np.testing.assert_allclose(kept, fitness, atol=1e-5)  # fitness, and not what is beside it


def test_what_draws_an_individuals_noise_is_no_key_of_the_denoisers():
    """The move splits the step's key among individuals, which is folding in their numbers."""
    key_data = []

    def estimate(key, memory, x_t, weights, level):
        key_data.append(jax.random.key_data(key))
        return posterior_mean.estimate(key, memory, x_t, weights, level)

    posterior_mean = de.denoisers.posterior_mean()
    algorithm = de.denoising_evolution(
        COSINE,
        fitness_map=de.fitness.identity,
        denoiser=posterior_mean._replace(estimate=estimate),
        sampler=de.samplers.ddim(),
    )
    fitness = de.landscapes.two_peaks(POPULATION)
    for key in jax.random.split(KEY):
        algorithm.step(key, algorithm.init(KEY, POPULATION), fitness)
        individuals = jax.random.key_data(jax.random.split(key, 2**16)).tolist()
        assert key_data[-1].tolist() not in [*individuals, jax.random.key_data(key).tolist()]
    assert key_data[0].tolist() != key_data[1].tolist()  # fresh in each generation


# Fitness functions


def test_a_keyed_fitness_gets_a_fresh_key_each_generation():
    def noisy(key, population):
        return jnp.broadcast_to(jax.random.uniform(key), population.shape[:1])

    _, info = _run(fitness_fn=noisy, has_key=True)
    assert len(set(np.asarray(info.fitness[:, 0]).tolist())) == 12


def test_a_default_argument_does_not_make_a_fitness_keyed():
    def scaled(population, scale=2.0):
        return scale * de.landscapes.two_peaks(population)

    chex.assert_trees_all_close(_first(scaled), _first(de.landscapes.two_peaks), atol=1e-5)


@pytest.mark.parametrize(
    ("fitness_fn", "has_key"),
    [
        (lambda key, population: population[:, 0], False),
        (lambda population: population[:, 0], True),
        (lambda a, b, c: a, False),
        (lambda a, b, c: a, True),
        (lambda: 0, False),
    ],
)
def test_a_fitness_function_of_other_arguments_is_refused(fitness_fn, has_key, refuses):
    with refuses("fitness_fn"):
        _run(fitness_fn=fitness_fn, has_key=has_key)


def test_jitted_partial_and_bound_fitness_functions_fit():
    class Lab:
        def measure(self, population):
            return de.landscapes.two_peaks(population)

    expected = _first(de.landscapes.two_peaks)
    scaled = partial(lambda scale, population: de.landscapes.two_peaks(population), 1.0)
    for fitness_fn in (jax.jit(de.landscapes.two_peaks), scaled, Lab().measure):
        chex.assert_trees_all_close(_first(fitness_fn), expected, atol=1e-5)


# Bad fitness


def test_the_default_weighs_fitness_of_any_sign_and_unit_alike():
    fitness = de.landscapes.two_peaks(POPULATION)
    default = de.presets.paper(COSINE)
    named = de.presets.paper(COSINE, fitness_map=de.fitness.standardised(0.1))
    expected = named.step(KEY, named.init(KEY, POPULATION), fitness)[1].log_weight
    for unit, offset in ((1, 0), (1e-6, 0), (1e6, -3e6)):
        _, info = default.step(KEY, default.init(KEY, POPULATION), unit * fitness + offset)
        np.testing.assert_allclose(info.log_weight, expected, atol=1e-3)  # float32's at 3 ranges


@pytest.mark.parametrize("fitness_map", [de.fitness.identity, de.fitness.boltzmann(1.0)])
@pytest.mark.parametrize("floor", [0.0, 1e-9])
def test_fitness_that_is_no_number_weighs_nothing_and_is_counted(fitness_map, floor):
    bad = jnp.array([jnp.nan, jnp.inf, -jnp.inf])
    fitness = jnp.concatenate([bad, de.landscapes.two_peaks(POPULATION[3:])])
    algorithm = de.presets.paper(COSINE, fitness_map=fitness_map, floor=floor)
    state, info = algorithm.step(KEY, algorithm.init(KEY, POPULATION), fitness)
    assert int(info.num_invalid) == 3
    assert bool(info.selected)
    assert np.all(np.isfinite(state.population))
    # The others' estimate is that of a population without the three.
    alone, _ = de.estimate_posterior(
        POPULATION[3:], fitness_map(fitness[3:], jnp.ones(61, bool)), COSINE.alpha[11], floor=floor
    )[:2]
    np.testing.assert_allclose(info.x0[3:], alone, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0])
def test_without_any_valid_weight_the_run_goes_on_without_selection(value):
    state, info, _ = _of_bad_fitness(value, True)
    assert not np.any(info.selected)
    np.testing.assert_array_equal(info.num_invalid, 0 if value == 0.0 else 64)
    assert np.all(np.isfinite(state.population))
    flat, flat_info, _ = _of_bad_fitness(1.0, True)
    assert np.all(flat_info.selected)
    chex.assert_trees_all_close(state, flat, atol=1e-5)


def _warned(**settings) -> list[str]:
    """What a run of costs, in units of 1e6, says outside jit."""
    algorithm = de.presets.paper(COSINE, **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        de.evolve(KEY, algorithm, lambda x: -1e6 * (x**2).sum(1), POPULATION)
    return [str(warning.message) for warning in caught]


def test_a_run_that_selects_nobody_or_shares_nothing_says_so_outside_jit():
    (nobody,) = _warned(fitness_map=de.fitness.identity)
    assert "nothing was selected" in nobody
    assert "fitness.standardised()" in nobody
    (alone,) = _warned(fitness_map=de.fitness.boltzmann(1.0))
    assert "from generation 1 on: their mean effective sample size was 1" in alone
    assert "fitness.standardised()" in alone
    assert _warned(fitness_map=de.fitness.standardised()) == []


@pytest.mark.parametrize(
    "algorithm",
    [
        de.baselines.pepg(population_size=64, num_genes=2, num_generations=2),
        de.presets.track(num_generations=2),
        de.presets.hades(num_generations=2, learner=de.training.learner(hidden=(4,), epochs=1)),
    ],
    ids=["pepg", "track", "hades"],
)
def test_an_optimiser_without_weights_says_too_that_no_fitness_was_finite(algorithm):
    with pytest.warns(UserWarning, match="nothing was selected"):
        de.evolve(KEY, algorithm, lambda x: jnp.full(len(x), jnp.nan), POPULATION)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        de.evolve(KEY, algorithm, lambda x: x[:, 0].at[1:].set(jnp.nan), POPULATION)


@pytest.mark.parametrize(
    ("alone", "words"),
    [
        ([0, 1, 0, 0, 1, 1], "from generation 5 on"),
        ([1, 1, 1, 1, 1, 1], "from generation 1 on"),
        ([1, 0, 0, 1, 1, 0], "in 3 of 6 generations"),
        ([0, 0, 0, 0, 0, 1], None),
    ],
)
def test_the_generation_from_which_on_nobody_shares_is_named(alone, words):
    message = selection.advice(np.ones(6), np.where(alone, 1.04, 1.06))
    assert message is None if words is None else f"learned from others {words}: " in (message or "")


def test_a_traced_run_and_one_of_the_last_levels_warn_of_nothing():
    algorithm = de.presets.paper(COSINE, fitness_map=de.fitness.boltzmann(1.0))
    run = partial(de.evolve, algorithm=algorithm, problem=lambda x: -1e6 * (x**2).sum(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.jit(lambda key: run(key, population=POPULATION).kept)(KEY)
        jax.vmap(lambda key: run(key, population=POPULATION).kept)(KEY[None])
        run(KEY, population=POPULATION, start=2)  # where kernels are narrow


def test_a_negative_fitness_under_identity_is_counted_as_invalid():
    _, info = _run(fitness_fn=lambda population: population[:, 0])
    np.testing.assert_array_equal(info.num_invalid, (info.fitness < 0).sum(axis=1))


def test_gradients_pass_by_an_invalid_fitness():
    def loss(temperature):
        def fitness_fn(population):
            return de.landscapes.two_peaks(population).at[0].set(jnp.nan)

        fitness_map = de.fitness.boltzmann(temperature)
        return _run(fitness_fn=fitness_fn, fitness_map=fitness_map)[0].population.sum()

    assert np.isfinite(float(jax.jit(jax.grad(loss))(1.0)))


# Transformations


def _final_fitness(key, eta, temperature, schedule=COSINE):
    state, _ = _run(
        key, schedule=schedule, eta=eta, fitness_map=de.fitness.boltzmann(temperature), floor=1e-9
    )
    return de.landscapes.two_peaks(state.population).mean()


def test_jit_equals_eager_and_traces_once():
    algorithm = _evolution(COSINE, eta=0.5)
    step = jax.jit(chex.assert_max_traces(algorithm.step, n=1))
    fast = slow = algorithm.init(KEY, POPULATION)
    for key in jax.random.split(KEY, 11):
        fast, _ = step(key, fast, de.landscapes.two_peaks(fast.population))
        slow, _ = algorithm.step(key, slow, de.landscapes.two_peaks(slow.population))
    chex.assert_trees_all_close(fast, slow, atol=1e-4)


def test_vmap_over_keys_etas_temperatures_and_schedules_equals_a_loop():
    keys = jax.random.split(KEY, 2)
    etas, temperatures = jnp.array([0.0, 1.0]), jnp.array([0.1, 1.0])
    schedules = jax.tree.map(
        lambda *levels: jnp.stack(levels), de.schedules.cosine(12), de.schedules.linear(12)
    )
    over_grid = _final_fitness
    for axis in range(4):
        over_grid = jax.vmap(over_grid, [0 if i == axis else None for i in range(4)])
    grid = jax.jit(over_grid)(keys, etas, temperatures, schedules)
    alone = jax.jit(_final_fitness)
    assert grid.shape == (2, 2, 2, 2)  # schedule, temperature, eta, key
    grid, etas, temperatures, schedules = jax.device_get((grid, etas, temperatures, schedules))
    for s, temp, e, k in np.ndindex(2, 2, 2, 2):
        schedule = jax.tree.map(lambda levels, s=s: levels[s], schedules)
        expected = alone(keys[k], etas[e], temperatures[temp], schedule)
        np.testing.assert_allclose(grid[s, temp, e, k], expected, atol=1e-3)


def test_vmap_over_raw_alphas_works():
    alphas = jnp.stack([COSINE.alpha, de.schedules.linear(12).alpha])
    run = jax.vmap(lambda alpha: _run(schedule=alpha)[0].population)
    assert jax.jit(run)(alphas).shape == (2, 64, 2)


def test_vmap_over_projections_works():
    keys = jax.random.split(KEY, 3)
    projections = jax.vmap(lambda key: de.latent.random_projection(key, 2, 1))(keys)
    run = jax.vmap(lambda projection: _run(projection=projection)[0].population)
    runs = jax.jit(run)(projections)
    expected = _run(projection=projections[1])[0].population
    np.testing.assert_allclose(runs[1], expected, atol=1e-4)


def test_gradients_of_a_whole_run_agree_with_finite_differences():
    with jax.enable_x64(True):
        population = POPULATION[:16].astype(float)
        schedule = de.schedules.cosine(5)

        def loss(eta, temperature):
            fitness_map = de.fitness.boltzmann(temperature)
            algorithm = de.presets.paper(schedule, eta=eta, fitness_map=fitness_map)
            state, _, _ = de.evolve(KEY, algorithm, de.landscapes.two_peaks, population)
            return de.landscapes.two_peaks(state.population).mean()

        gradient = jax.jit(jax.grad(loss, (0, 1)))(0.5, 0.3)
        loss = jax.jit(loss)
        h = 1e-6
        numeric = (
            (loss(0.5 + h, 0.3) - loss(0.5 - h, 0.3)) / (2 * h),
            (loss(0.5, 0.3 + h) - loss(0.5, 0.3 - h)) / (2 * h),
        )
        np.testing.assert_allclose(gradient, numeric, rtol=1e-5)


def test_gradients_reach_every_level_of_the_schedule():
    def loss(alpha):
        return _run(schedule=alpha, eta=0.5)[0].population.sum()

    slopes = jax.jit(jax.grad(loss))(COSINE.alpha)
    assert np.all(np.isfinite(slopes))
    assert np.all(slopes != 0)


def test_optax_tunes_the_temperature_through_a_whole_run():
    loss = jax.jit(jax.value_and_grad(lambda log_t: -_final_fitness(KEY, 0.1, jnp.exp(log_t))))
    optimiser = optax.adam(0.3)
    log_temperature = jnp.asarray(1.0)
    opt_state = optimiser.init(log_temperature)
    losses = []
    for _ in range(10):
        value, gradient = loss(log_temperature)
        losses.append(float(value))
        updates, opt_state = optimiser.update(gradient, opt_state)
        log_temperature = optax.apply_updates(log_temperature, updates)
    assert losses[-1] < losses[0] - 0.05


def test_evolve_runs_inside_another_scan_and_in_pieces():
    algorithm = _evolution(COSINE, eta=0.5)
    whole = de.evolve(KEY, algorithm, de.landscapes.two_peaks, POPULATION)
    generation = de.make_generation(algorithm, de.landscapes.two_peaks)
    keys = jax.random.split(KEY, 12)
    half, first = jax.lax.scan(generation, de.begin(KEY, algorithm, POPULATION), keys[:5])
    pieces, second = jax.lax.scan(generation, half, keys[5:])
    chex.assert_trees_all_close(pieces, de.Running(whole.state, whole.best), atol=1e-5)
    np.testing.assert_allclose(jnp.concatenate([first, second]), whole.kept, atol=1e-5)

    def restart(population, key):
        state, _, _ = de.evolve(key, algorithm, de.landscapes.two_peaks, population)
        return state.population, state.population.mean()

    _, means = jax.lax.scan(restart, POPULATION, jax.random.split(KEY, 3))
    assert np.all(np.isfinite(means))


def test_float64_populations_stay_float64():
    with jax.enable_x64(True):
        state, info = _run(population=POPULATION.astype(float), schedule=de.schedules.cosine(4))
        assert state.population.dtype == info.x0.dtype == jnp.float64


# Errors


@pytest.mark.parametrize(
    ("path", "settings"),
    [
        ("eta", dict(eta=1.5)),
        ("eta", dict(eta=-0.1)),
        ("eta", dict(eta=float("nan"))),
        ("eta", dict(eta="0.1")),
        ("eta", dict(eta=None)),
        ("projection", dict(projection=jnp.ones(3))),
        ("projection", dict(projection=jnp.ones((3, 2)))),
        ("projection", dict(projection=jnp.full((2, 1), jnp.nan))),
        ("projection", dict(projection=jnp.ones((2, 1)) * 1j)),
        ("projection", dict(projection=jnp.ones((2, 0)))),
        ("projection", dict(projection=[[1.0], [1.0, 2.0]])),
        ("latent_dim", dict(latent_dim=1.5)),
        ("latent_dim", dict(latent_dim="1")),
        ("population", dict(population=jnp.ones((1, 2)))),
        ("population", dict(population=jnp.ones(5))),
        ("population", dict(population=jnp.ones((5, 2), int))),
        ("population", dict(population=POPULATION.at[3].set(jnp.nan))),
        ("fitness", dict(fitness_fn=lambda x: x)),
        ("floor", dict(floor=-1.0)),
        ("fitness_map", dict(fitness_map=lambda f, valid: f.sum())),
        ("schedule", dict(schedule=de.schedules.Schedule(COSINE[0][::-1], COSINE[1][::-1]))),
    ],
)
def test_bad_settings_are_named(path, settings, refuses):
    with refuses(path):
        _run(**settings)


def test_a_fitness_map_of_the_fitness_alone_is_refused_with_the_way_out():
    with pytest.raises(de.InputError) as error:
        _run(fitness_map=lambda fitness: fitness)
    assert error.value.path == "fitness_map"
    assert error.value.expected == "a function of (fitness, valid)"
    assert "pointwise" in error.value.advice


def test_checks_do_not_get_in_the_way_of_tracing():
    population = POPULATION  # a concrete array closed over by a jitted function

    @jax.jit
    def run(key):
        return _run(key, population=population)[0].population

    assert run(KEY).shape == (64, 2)


def test_no_individual_ever_turns_nan():
    """Fitness that fails for random individuals, in every way, over a whole run."""

    def broken(key, population):
        key_which, key_how = jax.random.split(key)
        how = jax.random.randint(key_how, population.shape[:1], 0, 4)
        value = jnp.array([jnp.nan, jnp.inf, -jnp.inf, -1e30])[how]
        fails = jax.random.bernoulli(key_which, 0.5, population.shape[:1])
        return jnp.where(fails, value, de.landscapes.two_peaks(population))

    for floor in (0.0, 1e-9):
        for fitness_map in (de.fitness.identity, de.fitness.boltzmann(0.1)):
            state, info = _run(
                fitness_fn=broken, has_key=True, fitness_map=fitness_map, floor=floor
            )
            assert np.all(np.isfinite(state.population))
            assert np.all(info.num_invalid > 0)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_the_step_lowers_for_accelerators(platform):
    algorithm = _evolution(COSINE, floor=1e-9, projection=jnp.ones((2, 1)))
    state = algorithm.init(KEY, POPULATION)
    exported = jax.export.export(jax.jit(algorithm.step), platforms=[platform])(
        KEY, state, POPULATION[:, 0]
    )
    assert exported.platforms == (platform,)


def test_the_gradient_of_a_finished_run_is_none_and_no_nan():
    def loss(eta):
        algorithm = _evolution(COSINE, eta=eta)
        state = de.State(POPULATION, jnp.asarray(0, jnp.int32), (), ())
        return jnp.sum(algorithm.step(KEY, state, POPULATION[:, 0] ** 2)[0].population)

    assert float(jax.jit(jax.grad(loss))(0.5)) == 0


def _step(fitness, *, population=POPULATION, t=11, schedule=COSINE, **settings):
    algorithm = _evolution(schedule, **settings)
    state = de.State(population, jnp.asarray(t, jnp.int32), (), ())
    return algorithm.step(KEY, state, fitness)


def test_a_bad_gene_takes_its_individual_out_and_no_other():
    fitness = de.landscapes.two_peaks(POPULATION)
    bad = POPULATION.at[3, 1].set(jnp.nan)  # refused where it is known
    info = jax.jit(lambda population: _step(fitness, population=population)[1])(bad)
    assert np.flatnonzero(np.isnan(info.log_weight)).tolist() == [3]
    assert int(info.num_invalid) == 1
    others = np.arange(64) != 3
    alone = de.estimate_x0(POPULATION[others], jnp.log(fitness[others]), COSINE.alpha[11])
    np.testing.assert_allclose(info.x0[others], alone, atol=1e-5)


def test_info_describes_the_estimate():
    fitness = de.landscapes.two_peaks(POPULATION)
    _, info = _step(fitness, t=6)
    posterior = de.estimate_posterior(POPULATION, jnp.log(fitness), COSINE.alpha[6])
    for name in ("x0", "log_evidence", "effective_sample_size"):
        np.testing.assert_allclose(getattr(info, name), getattr(posterior, name), rtol=1e-4)
    np.testing.assert_array_equal(info.population, POPULATION)
    np.testing.assert_array_equal(info.fitness, fitness)
    np.testing.assert_allclose(info.log_weight, jnp.log(fitness), rtol=1e-6)
    assert (float(info.alpha), int(info.t)) == (float(COSINE.alpha[6]), 6)


def test_a_schedules_exact_one_minus_alpha_reaches_the_estimate_and_the_move():
    """A float32 alpha has lost 1 - alpha here: formed afterwards, it is wrong by a third."""
    alpha = 1 - np.array([5e-8, 9e-8, 0.5])
    population = 1e-3 * POPULATION
    fitness = de.landscapes.two_peaks(POPULATION)
    single, _ = _step(
        fitness, population=population, t=1, schedule=de.schedules.from_alpha(alpha), eta=0.0
    )
    with jax.enable_x64(True):
        population, fitness = population.astype(float), fitness.astype(float)
        double, _ = _step(
            fitness, population=population, t=1, schedule=de.schedules.from_alpha(alpha), eta=0.0
        )
        assert double.t.dtype == de.presets.paper(alpha).init(KEY, population).t.dtype == jnp.int32
        moved = float(jnp.max(jnp.abs(double.population - population)))
    np.testing.assert_allclose(single.population, double.population, rtol=0, atol=0.01 * moved)


def test_a_projection_is_where_distances_are_taken():
    projection, fitness = jnp.array([[0.0], [1.0]]), de.landscapes.two_peaks(POPULATION)
    _, info = _step(fitness, t=6, projection=projection)
    z_t = POPULATION @ projection
    x0 = de.estimate_x0(POPULATION, jnp.log(fitness), COSINE.alpha[6], z_t=z_t)
    np.testing.assert_allclose(info.x0, x0, atol=1e-5)


def test_without_selection_everybody_weighs_one():
    (_, nobody), (_, equal) = _step(jnp.zeros(64)), _step(jnp.ones(64))
    np.testing.assert_allclose(nobody.x0, equal.x0, atol=1e-5)
    np.testing.assert_allclose(nobody.log_evidence, equal.log_evidence, atol=1e-5)


# Not float16: XLA cannot convert it on a processor without F16C (SSE4_2).
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int32])
def test_fitness_of_any_number_type_is_weighed_in_float32(dtype):
    fitness = jnp.asarray(1000 * de.landscapes.two_peaks(POPULATION) + 1, dtype)
    _, info = _step(fitness)
    assert info.log_weight.dtype == jnp.float32
    np.testing.assert_allclose(info.log_weight, np.log(np.asarray(fitness, float)), rtol=1e-6)
    with jax.enable_x64(True):
        assert jax.eval_shape(_step, fitness)[1].log_weight.dtype == jnp.float32


def test_half_precision_genomes_stay_half_precision():
    state, _ = _step(
        de.landscapes.two_peaks(POPULATION), population=POPULATION.astype(jnp.bfloat16)
    )
    assert state.population.dtype == jnp.bfloat16


def test_a_fitness_map_sees_no_bad_fitness_and_no_stranger_to_the_good():
    """A map that takes the worst, or a rank, sees the worst valid fitness in a bad one's place."""
    fitness = de.landscapes.two_peaks(POPULATION).at[5].set(jnp.nan) + 2
    _, info = _step(fitness, fitness_map=de.fitness.pointwise(lambda f: f - f.min()))
    np.testing.assert_allclose(info.log_weight, fitness - jnp.nanmin(fitness), atol=1e-6)
    weightless = jnp.arange(64) == 7
    _, info = _step(fitness, fitness_map=lambda f, valid: jnp.where(weightless, jnp.inf, f))
    assert np.flatnonzero(np.isnan(info.log_weight)).tolist() == [5, 7]


def test_two_individuals_are_enough():
    assert _evolution(COSINE).init(KEY, POPULATION[:2]).population.shape == (2, 2)


def test_positional_arguments_may_have_any_names():
    def positional(key, population, /):
        return jax.random.uniform(key, population.shape[:1])

    algorithm = _evolution(COSINE)
    generation = de.make_generation(algorithm, positional, has_key=True)
    _, fitness = generation(de.begin(KEY, algorithm, POPULATION), KEY)
    expected = jax.random.uniform(jax.random.split(KEY)[0], (64,))
    np.testing.assert_array_equal(fitness, expected)


@pytest.mark.parametrize(
    ("path", "call"),
    [
        (
            "schedule",
            lambda: de.presets.paper(de.schedules.Schedule(COSINE[0], COSINE[1][:5])),
        ),
        ("schedule", lambda: jax.eval_shape(de.presets.paper, jnp.ones((2, 3)))),
        (
            "population",
            lambda: _evolution(COSINE).init(KEY, POPULATION.at[:2, 0].set(jnp.inf)),
        ),
        ("population", lambda: _evolution(COSINE).init(KEY, POPULATION[0])),
        ("population", lambda: _evolution(COSINE).init(KEY, jnp.ones((5, 2), int))),
    ],
)
def test_what_does_not_fit_is_named_before_the_first_step(path, call, refuses):
    with refuses(path):
        call()
