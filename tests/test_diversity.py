"""Quality-diversity: archives, dominated novelty, and the optimisers that see behaviour."""

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY

import diffevo_jax as de
from diffevo_jax import archives, fitness, metrics
from diffevo_jax.presets import _illuminate
from diffevo_jax.runs import load_run
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.report import figure
from diffevo_jax.runs.run import engine

KEY = jax.random.key(0)
GRID = archives.grid([-3.0, -2.0], [3.0, 2.0], cells=[6, 5])
SIZES: dict[str, Any] = {"population_size": 16, "num_genes": 4, "num_generations": 6}
POPULATION = jax.random.normal(jax.random.key(1), (16, 4))

# What pyribs 0.12's GridArchive of GRID says of 40 solutions of `_solutions`, added in one batch.
RIBS_SCORE, RIBS_COVERAGE = 34.375, 24 / 30
RIBS_CELLS = [0, 14, 27, 10, 29, 8, 27, 5, 24, 3, 17, 0, 19, 28, 11, 25, 14, 28, 6, 20]
RIBS_CELLS += [4, 23, 1, 15, 4, 17, 26, 10, 29, 7, 26, 5, 24, 2, 20, 4, 18, 2, 10, 29]


def _solutions() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Genomes `[40, 4]`, fitness and descriptors: made of whole numbers, the same everywhere."""
    i = np.arange(40)
    points = (i[:, None] * np.array([7, 11, 13, 17]) % 41 / 10).astype(np.float32)
    descriptors = np.stack([i * 17 % 37 / 5 - 3.6, i * 23 % 31 / 6 - 2.5], axis=1)
    return points, (i * 29 % 43 / 16).astype(np.float32), descriptors.astype(np.float32)


_insert = jax.jit(partial(archives.insert, GRID))


def _problem(population):
    """Fitness of a sphere, and the first two genes as behaviour."""
    return 10 - jnp.sum(population**2, axis=1), {"descriptors": population[:, :2]}


ALGORITHMS = {
    "illuminate": partial(de.presets.illuminate, archive=GRID, **SIZES),
    "map_elites": partial(de.baselines.map_elites, archive=GRID, line=0.2, **SIZES),
}


def _filled(algorithm: de.Algorithm, key=KEY, problem=_problem) -> archives.Elites:
    return de.evolve(key, algorithm, problem, POPULATION, has_aux=True).state.archive


# Archives


def test_a_grid_has_exactly_its_cells_and_those_beyond_the_box_are_at_its_border():
    line = np.linspace(-1, 1, 1001, dtype=np.float32)[:, None]
    for count in (1, 7, 50):
        cells = archives.grid([-1.0], [1.0], cells=[count])
        assert set(jax.jit(cells.find)(line).tolist()) == set(range(count))
        assert len(cells.centres) == count
    assert jax.jit(GRID.find)(GRID.centres).tolist() == list(range(30))
    beyond = np.array([[-9.0, -9.0], [9.0, 9.0], [3.0, -2.0]], np.float32)
    assert jax.jit(GRID.find)(beyond).tolist() == [0, 29, 25]


def test_a_grid_is_that_of_pyribs():
    points, value, descriptors = _solutions()
    assert jax.jit(GRID.find)(descriptors).tolist() == RIBS_CELLS
    elites, _ = _insert(archives.empty(GRID, 4), points, value, descriptors)
    np.testing.assert_allclose(archives.qd_score(elites), RIBS_SCORE, rtol=1e-6)
    np.testing.assert_allclose(archives.coverage(elites), RIBS_COVERAGE, rtol=1e-6)
    lower = archives.qd_score(elites, offset=-1.0)
    np.testing.assert_allclose(lower, RIBS_SCORE + 24, rtol=1e-6)


def test_an_archive_keeps_the_best_of_all_batches_and_the_first_of_equals():
    points, value, descriptors = _solutions()
    value = np.round(value)  # many are equal
    value[3] = np.nan
    expected: dict[int, int] = {}
    for i, cell in enumerate(np.asarray(jax.jit(GRID.find)(descriptors))):
        if value[i] > value[expected.get(cell, i)] or (cell not in expected and i != 3):
            expected[cell] = i
    elites = archives.empty(GRID, 4)
    for rows in (slice(0, 20), slice(20, 40)):
        batch = points[rows], value[rows], descriptors[rows]
        elites, added = _insert(elites, *batch)
    elites = jax.device_get(elites)
    for cell in range(30):
        if cell in expected:
            np.testing.assert_array_equal(elites.points[cell], points[expected[cell]])
            assert elites.fitness[cell] == value[expected[cell]]
            np.testing.assert_array_equal(elites.descriptors[cell], descriptors[expected[cell]])
        else:
            assert elites.fitness[cell] == -np.inf
    again, added = _insert(elites, points, value, descriptors)
    assert np.all(added.row == -1)
    assert added.num_invalid == 1
    jax.tree.map(np.testing.assert_array_equal, again, elites)


def test_centroids_share_the_box_evenly_and_own_what_is_nearest():
    cells = archives.cvt([-1.0, 0.0], [1.0, 1.0], 12)
    samples = np.random.default_rng(5).uniform([-1, 0], [1, 1], (3000, 2)).astype(np.float32)
    nearest = np.linalg.norm(samples[:, None] - cells.centres, axis=-1).argmin(axis=1)
    assert np.mean(np.asarray(cells.find(jnp.asarray(samples))) == nearest) > 0.999  # but ties
    share = np.bincount(nearest, minlength=12) / 3000
    assert share.min() > 0.5 / 12
    assert share.max() < 1.6 / 12
    own = archives.centroids([-1.0, 0.0], [1.0, 1.0], [[-1.0, 0.0], [1.0, 1.0]])
    assert own.find(jnp.array([[-9.0, 0.2], [0.4, 0.9]])).tolist() == [0, 1]


# Dominated novelty


def test_dominated_novelty_is_the_mean_distance_to_the_nearest_that_are_fitter():
    _, value, descriptors = _solutions()
    value[4] = np.nan
    expected = []
    for i in range(40):
        fitter = [j for j in range(40) if value[j] > value[i] or (i == 4 and j != 4)]
        distances = sorted(np.linalg.norm(descriptors[i] - descriptors[j]) for j in fitter)
        expected.append(np.mean(distances[:3]) if distances else np.inf)
    novelty = metrics.dominated_novelty(jnp.asarray(descriptors), jnp.asarray(value), num=3)
    np.testing.assert_allclose(novelty, expected, rtol=1e-5)  # float32
    log_weight = fitness.weigh(
        fitness.dominated_novelty(3), jnp.asarray(value), descriptors=jnp.asarray(descriptors)
    )
    known = np.delete(np.arange(40), 4)
    assert np.isnan(log_weight[4])
    order = np.argsort(np.asarray(expected)[known], kind="stable")
    assert np.all(np.diff(np.asarray(log_weight)[known][order]) >= 0)
    assert int(jnp.nanargmax(log_weight)) == int(np.nanargmax(value))


# Optimisers


def test_behaviour_keeps_kinds_apart_that_genomes_do_not():
    """Two kinds at the same genomes but for noise: each is averaged with its own."""
    kind = jnp.arange(16) % 2
    population = 1e-3 * POPULATION + kind[:, None]
    level = de.Level(jnp.array(2), *map(jnp.asarray, (0.3, 0.7, 0.5, 0.5)))
    descriptors = 4.0 * kind[:, None] + 0.0 * population[:, :1]
    weights = de.Weights(jnp.zeros(16), jnp.zeros(16), lambda f: f, descriptors.at[3].set(jnp.nan))
    weights = weights._replace(log_weight=weights.log_weight.at[3].set(jnp.nan))
    for with_genomes in (True, False):
        denoiser = de.denoisers.behaviour(width=0.5, with_genomes=with_genomes)
        _, apart = denoiser.estimate(KEY, (), population, weights, level)
        assert np.abs(apart.x0 - kind[:, None]).max() < 0.01
        np.testing.assert_array_equal(apart.x0[3], population[3])
    wide = de.denoisers.behaviour(width=100.0)
    _, alike = wide.estimate(KEY, (), population, weights, level)
    _, posterior = de.denoisers.posterior_mean().estimate(KEY, (), population, weights, level)
    near = np.delete(np.arange(16), 3)
    np.testing.assert_allclose(alike.x0[near], posterior.x0[near], atol=2e-3)  # (4 / 100)^2


@pytest.mark.filterwarnings("ignore:no individual learned from others")
def test_denoising_sees_behaviour_and_leaves_out_whose_is_not_finite():
    algorithm = de.denoising_evolution(
        de.schedules.cosine(5),
        fitness_map=fitness.dominated_novelty(2),
        denoiser=de.denoisers.behaviour(width=0.5),
    )

    def broken(population):
        value, aux = _problem(population)
        return value, {"descriptors": aux["descriptors"].at[0, 1].set(jnp.nan)}

    def keep(info, aux):
        return info.num_invalid, info.x0

    whole = de.evolve(KEY, algorithm, _problem, POPULATION, has_aux=True, keep=keep)
    one_less = de.evolve(KEY, algorithm, broken, POPULATION, has_aux=True, keep=keep)
    assert whole.kept[0].tolist() == [0] * 5
    assert one_less.kept[0].tolist() == [1] * 5
    assert np.all(np.isfinite(one_less.state.population))
    assert not np.allclose(whole.kept[1][0], one_less.kept[1][0])


def test_expected_genomes_are_exact_where_genomes_are_linear_in_behaviour():
    places = jnp.asarray(np.indices((9, 9)).reshape(2, -1).T, float)
    matrix = jnp.array([[1.0, -2.0, 0.5], [0.3, 0.7, -1.0]])
    target = jnp.array([[3.3, 4.1], [5.0, 5.5]])
    there = jnp.arange(81) % 5 != 0
    points = jnp.where(there[:, None], places @ matrix + 1, 1e3)
    x0, slope = _illuminate.expected(target, places, points, there, 2.0)
    # A ridge of .3 beside a variance of about 4 in both axes takes a fourteenth of the slope.
    np.testing.assert_allclose(slope, jnp.broadcast_to(matrix, slope.shape), rtol=0.12, atol=0.02)
    np.testing.assert_allclose(x0, target @ matrix + 1, atol=0.1)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_optimisers_fill_an_archive_with_the_best_that_they_evaluated(name):
    algorithm = ALGORITHMS[name]()
    evolved = de.evolve(
        KEY, algorithm, _problem, POPULATION, has_aux=True, keep=lambda info, aux: (info, aux)
    )
    info, aux = jax.device_get(evolved.kept)
    points, value = info.population.reshape(-1, 4), info.fitness.ravel()
    descriptors = aux["descriptors"].reshape(-1, 2)
    expected, _ = _insert(archives.empty(GRID, 4), points, value, descriptors)
    jax.tree.map(np.testing.assert_array_equal, evolved.state.archive, expected)
    np.testing.assert_allclose(info.coverage[-1], archives.coverage(expected))
    np.testing.assert_allclose(info.norm_qd_score[-1], archives.qd_score(expected) / 30, rtol=1e-6)
    assert np.all(np.diff(info.coverage) >= 0)
    assert info.coverage[-1] > 1.5 * info.coverage[0]
    np.testing.assert_array_equal(evolved.state.population, info.population[-1])  # a fixed point


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_batch_of_runs_is_a_loop(name):
    keys = jax.random.split(KEY, 3)

    def run(key, sigma):
        return _filled(ALGORITHMS[name](sigma=sigma), key)

    sigma = np.array([0.1, 0.3, 0.5], np.float32)
    batch = jax.device_get(jax.jit(jax.vmap(run))(keys, sigma))
    single = jax.jit(run)
    for i, key in enumerate(keys):
        one = single(key, sigma[i])
        # Two programs round differently, and one step of noise follows another.
        np.testing.assert_allclose(batch.fitness[i], one.fitness, atol=1e-3)
        np.testing.assert_allclose(batch.points[i], one.points, atol=1e-3)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_not_finite_is_left_out_and_counted_and_nothing_at_all_is_survived(name):
    def run(lost, unseen):
        def problem(population):
            value, aux = _problem(population)
            behaviour = jnp.where(unseen[:, None], jnp.nan, aux["descriptors"])
            return jnp.where(lost, jnp.inf, value), {"descriptors": behaviour}

        return de.evolve(
            KEY, ALGORITHMS[name](), problem, POPULATION, has_aux=True, keep=lambda info, aux: info
        )

    some, everybody = jnp.arange(16) < 2, jnp.ones(16, bool)
    run = jax.jit(run)
    for lost, unseen, count in (
        (some, some[::-1], 4),
        (everybody, some, 16),
        (some, everybody, 16),
    ):
        evolved = run(lost, unseen)
        assert evolved.kept.num_invalid.tolist() == [count] * 6
        assert np.all(np.isfinite(evolved.state.population))
        assert (archives.coverage(evolved.state.archive) > 0) == (count < 16)


def test_what_does_not_fit_is_named(refuses):
    def wide(population):
        return _problem(population)[0], {"descriptors": population[:, :3]}

    def flat(population):
        return _problem(population)[0], {"descriptors": population[:, 0]}

    evolve = partial(de.evolve, KEY, population=POPULATION)
    for make in ALGORITHMS.values():
        for problem in (wide, flat):
            with refuses("descriptors"):
                evolve(make(), problem, has_aux=True)
        with refuses("descriptors"):
            evolve(make(), lambda population: _problem(population)[0])
    levels = de.schedules.cosine(3)
    for algorithm in (
        de.denoising_evolution(levels, fitness_map=fitness.dominated_novelty(2)),
        de.denoising_evolution(levels, denoiser=de.denoisers.behaviour(width=1.0)),
    ):
        with refuses("descriptors"):
            evolve(algorithm, lambda population: population[:, 0])
    for denoiser in (de.denoisers.archive(generations=2), de.denoisers.network()):
        by_novelty = de.denoising_evolution(
            levels, fitness_map=fitness.dominated_novelty(2), denoiser=denoiser
        )
        with refuses("fitness_map"):
            evolve(by_novelty, _problem, has_aux=True)
    plain = de.baselines.map_elites(**SIZES)
    with refuses("aux"):
        state = plain.init(KEY, POPULATION)
        plain.step(KEY, state, jnp.zeros(16), aux={"descriptors": POPULATION[:, :2]})
    with refuses("archive"):
        de.baselines.map_elites(archive=cast(Any, 50), **SIZES)
    cells = archives.grid([-1.0], [1.0], [4])
    elites = archives.empty(cells, num_genes=2)
    for path, rows in {
        "points": (jnp.zeros((3, 1)), jnp.zeros(3), jnp.zeros((3, 1))),
        "fitness": (jnp.zeros((3, 2)), jnp.zeros((3, 1)), jnp.zeros((3, 1))),
        "descriptors": (jnp.zeros((3, 2)), jnp.zeros(3), jnp.zeros((3, 2))),
    }.items():
        with refuses(path):
            archives.insert(cells, elites, *rows)
    for low, counts, path in (([], [], "low"), ([-1.0] * 9, [50] * 9, "cells")):
        with refuses(path):
            archives.grid(low, [1.0] * len(low), counts)
    for path, make in {
        "low": lambda: archives.grid([1.0, 0.0], [0.0, 1.0], cells=[5, 5]),
        "cells": lambda: archives.grid([0.0, 0.0], [1.0, 1.0], cells=[5]),
        "points": lambda: archives.centroids([0.0, 0.0], [1.0, 1.0], [[0.0], [1.0]]),
        "high": lambda: archives.grid([0.0], ["a"], cells=[5]),  # pyright: ignore
        "num": lambda: archives.cvt([0.0], [1.0], 0),
        "neighbours": lambda: fitness.dominated_novelty(0),
        "width": lambda: de.denoisers.behaviour(width=0.0),
        "recent": lambda: ALGORITHMS["illuminate"](recent=0.0),
        "num_genes": lambda: de.landscapes.domains.make_problem(function="sphere", num_genes=3),
    }.items():
        with refuses(path):
            make()


# Domains and runs


def test_domains_are_those_of_pyribs():
    x = np.linspace(-6, 6, 8, dtype=np.float32).reshape(2, 4)
    part = np.where(np.abs(x) <= 5.12, x, 5.12 / x)
    sums = np.stack([part[:, :2].sum(1), part[:, 2:].sum(1)], axis=1)
    costs = {
        "sphere": lambda x: np.sum((x - 2.048) ** 2, axis=1),
        "rastrigin": lambda x: np.sum(
            10 + (x - 2.048) ** 2 - 10 * np.cos(2 * np.pi * (x - 2.048)), axis=1
        ),
    }
    for name, cost in costs.items():
        value, descriptors = getattr(de.landscapes.domains, name)(jnp.asarray(x))
        expected = np.maximum(100 * (1 - cost(x) / cost(np.full((1, 4), -5.12))), 0)
        np.testing.assert_allclose(value, expected, rtol=1e-4)
        np.testing.assert_allclose(descriptors, sums, rtol=1e-5)
    value, end = de.landscapes.domains.arm(jnp.array([[0.0, 0.0, 0.0], [np.pi / 2, 0.0, 0.0]]))
    np.testing.assert_allclose(end, [[3, 0], [0, 3]], atol=1e-6)
    np.testing.assert_allclose(value, [100, 100 * (1 - np.pi**2 / 18)], rtol=1e-5)


def test_a_config_fills_archives_and_draws_them(tmp_path):
    settings = [
        "repeats=1",
        "problem.num_genes=2",
        "population_size=12",
        "algorithm.num_generations=3",
        "methods.map_elites.algorithm.num_generations=3",
        "methods.map_elites.algorithm.archive={name: cvt, low: [-52, -52], high: [52, 52], num: 9}",
    ]
    config = load(REPOSITORY / "configs" / "illuminate.yaml", settings).config
    folder = tmp_path / "run"
    folder.mkdir()
    rows = engine.run(config, engine.build(config), folder, say=lambda line: None)
    assert all(row.values["coverage"][0] > 0 for row in rows)
    run = load_run(folder)
    for name, num in (("illuminate", 2500), ("map_elites", 9)):
        method = run.methods[name]
        there = method.more["archive_fitness"] > -np.inf
        assert there.shape == (1, num)
        np.testing.assert_allclose(method.metrics["coverage"][:, -1], there.mean(axis=1))
    paths = figure.draw_archives(folder)
    assert [path.name for path in paths] == ["archive.png", "archive.pdf"]
    assert all(path.stat().st_size > 5000 for path in paths)
