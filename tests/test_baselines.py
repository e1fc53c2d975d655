"""Baselines: a law table for all, pycma as the oracle of CMA-ES, the paper's claims (slow)."""

import functools

import cma
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evosax.algorithms import CMA_ES

import diffevo_jax as de
from experiments import baselines, cmaes, fig3, study

SETTINGS = study.load(fig3.Fig3, "fig3")


def himmelblau(points):
    return de.problems.himmelblau(points)


def small(name, fitness_fn, dim=2):
    """A baseline as published but for its length, so that a test takes seconds."""
    settings = dict(getattr(SETTINGS, name))
    shorter = {"open_es": {"generations": 200}, "map_elites": {"evaluations": 1024}}
    return getattr(baselines, name)(fitness_fn, dim, **(settings | shorter.get(name, {})))


# Of each baseline: the generations of `small`, and its final number of points.
BASELINES = {
    "cma_es": (25, 512),
    "open_es": (200, 512),
    "pepg": (25, 512),
    "map_elites": (3, 1024),
}


@functools.cache
def searched(name):
    """Searches on Himmelblau's function with the keys 0, 1 and 0."""
    run = jax.jit(lambda keys: de.batch.run_many(small(name, himmelblau), keys))
    return run(jnp.stack([jax.random.key(0), jax.random.key(1), jax.random.key(0)]))


@pytest.mark.parametrize("name", BASELINES)
def test_a_run_improves_evaluates_its_points_and_is_its_keys_alone(name):
    generations, num_points = BASELINES[name]
    searches = searched(name)
    assert searches.points.shape == (3, num_points, 2)
    assert searches.best.shape == searches.mean.shape == (3, generations)
    np.testing.assert_array_equal(searches.points[0], searches.points[2])
    assert not np.array_equal(searches.points[0], searches.points[1])
    alive = np.isfinite(searches.fitness)
    expected = np.stack([himmelblau(points) for points in searches.points])
    # exp of a large distance amplifies float32 rounding between compilations
    np.testing.assert_allclose(searches.fitness[alive], expected[alive], atol=1e-5)
    if name == "map_elites":
        assert np.all(np.diff(searches.best) >= 0)  # an archive never forgets
        assert np.all(searches.best[:, -1] > 0.9)
    else:
        assert np.all(searches.mean[:, -1] > searches.mean[:, 0] + 0.3)


def test_map_elites_keeps_one_point_a_cell_and_it_is_the_best_of_all_evaluated():
    search = jax.tree.map(lambda leaf: leaf[1], searched("map_elites"))
    points, fitness = np.asarray(search.points), np.asarray(himmelblau(search.points))
    cells = [tuple(cell) for cell in np.round(points)]
    best = {}
    for cell, value in zip(cells, fitness, strict=True):
        best[cell] = max(value, best.get(cell, -1))
    alive = np.isfinite(search.fitness)
    assert len(set(np.array(cells)[alive].view("f4,f4").ravel().tolist())) == alive.sum()
    assert alive.sum() == len(best) < 1024
    kept = {cell: f for cell, f, a in zip(cells, fitness, alive, strict=True) if a}
    for cell, value in best.items():
        assert kept[cell] == pytest.approx(value, abs=1e-5)  # as above


def test_map_elites_refuses_a_broken_batch():
    with pytest.raises(ValueError, match="evaluations: expected initial = 256 and a multiple"):
        baselines.map_elites(himmelblau, 2, **(SETTINGS.map_elites | {"evaluations": 1000}))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("dim", [2, 32])
def test_cma_es_updates_as_pycma_does(x64, dim):
    """The same populations told to both: mean, step size and covariance stay together."""
    algorithm = CMA_ES(512, jnp.zeros(dim))
    params = cmaes.parameters(algorithm, 4.0)
    state = algorithm.init(jax.random.key(0), jnp.zeros(dim), params)

    @jax.jit
    def update(state, points):
        # The published penalty: without it half the population ties outside the box.
        loss = 0.001 * jnp.mean(points**2, axis=1) - himmelblau(points[:, :2])
        _, state = algorithm.ask(jax.random.key(1), state, params)  # decomposes the covariance
        return algorithm.tell(jax.random.key(2), points, loss, state, params)[0], loss

    oracle = cma.CMAEvolutionStrategy([0] * dim, 4, {"popsize": 512, "seed": 1, "verbose": -9})
    for _ in range(8):
        points = np.array(oracle.ask())
        state, loss = update(state, points)
        oracle.tell(list(points), np.asarray(loss).tolist())
        np.testing.assert_allclose(state.mean, oracle.mean, rtol=1e-6, atol=1e-9)
        # pycma's rate of the covariance has a term of 1/4 beside some 130.
        assert state.std == pytest.approx(oracle.sigma, rel=1e-3)
        ours = np.asarray(state.std**2 * state.C)
        np.testing.assert_allclose(
            ours, oracle.sigma**2 * np.asarray(oracle.C), rtol=5e-3, atol=5e-3 * ours.max()
        )


def test_an_elitist_is_told_again_only_where_a_generation_has_none_as_good():
    def noise(key, genomes):
        fitness = jax.random.normal(key, (32,))
        return fitness, (genomes, fitness)

    def runs(elitist):
        run = cmaes.make_run(noise, 3, population=32, generations=3, elitist=elitist)
        return jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 16))[1]

    (genomes, fitness), (plain, _) = runs(True), runs(False)
    # The two are compiled differently, and round differently: up to 1e-6 of genes of order 1.
    np.testing.assert_allclose(genomes[:, :2], plain[:, :2], atol=1e-4)  # nothing is lost before
    lost = fitness[:, 0].max(axis=1) > fitness[:, 1].max(axis=1)
    assert 2 < lost.sum() < 14
    np.testing.assert_allclose(genomes[~lost, 2], plain[~lost, 2], atol=1e-4)
    assert np.all(np.abs(genomes - plain)[lost, 2].max(axis=(1, 2)) > 1e-2)
    best = genomes[jnp.arange(16), 0, fitness[:, 0].argmax(axis=1)]
    towards = best - genomes[:, 1].mean(axis=1)
    moved = genomes[:, 2].mean(axis=1) - plain[:, 2].mean(axis=1)
    assert np.all(np.sum(towards * moved, axis=1)[lost] > 0)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fig3")
    functions, repeats = list(study.PLANE.values()), SETTINGS.repeats.full
    for method in fig3.METHODS:
        fig3.run_method(folder, SETTINGS, method, 2, functions, repeats)
    found = fig3.load_measured(folder)
    return {key: {q: v.mean() for q, v in values.items()} for key, values in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["rosenbrock", "beale", "himmelblau"])
def test_the_baselines_end_on_one_point_where_diffusion_stays_diverse(measured, objective):
    diverse = measured["diffusion", objective, 2]["entropy"]
    for name in ("cma_es", "open_es", "pepg"):
        assert measured[name, objective, 2]["entropy"] < diverse - 2
    assert measured["cma_es", objective, 2]["entropy"] < 0.1


@pytest.mark.slow
def test_diffusion_finds_the_modes_of_himmelblau_and_the_baselines_one(measured):
    modes = {name: measured[name, "himmelblau", 2]["modes_himmelblau"] for name in fig3.METHODS}
    assert modes["diffusion"] > 3
    for name in ("cma_es", "open_es", "pepg"):
        assert modes[name] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("objective", study.FUNCTIONS)
def test_map_elites_is_more_diverse_at_lower_fitness(measured, objective):
    ours, theirs = measured["diffusion", objective, 2], measured["map_elites", objective, 2]
    assert theirs["entropy"] > ours["entropy"]
    assert theirs["qd_score"] > ours["qd_score"]
    assert theirs["fitness"] < ours["fitness"]  # Rastrigin: 0.61 and 0.64


@pytest.mark.slow
@pytest.mark.parametrize("quantity", ["entropy", "fitness", "qd_score"])
@pytest.mark.parametrize("objective", study.FUNCTIONS)
def test_methods_come_in_the_published_order(measured, objective, quantity):
    """Every pair that the reference puts apart by more than a tenth of the quantity's scale."""
    reference = {
        name: float(
            study.find_row(
                "benchmarks.csv", method=theirs, objective=objective, variant="named_dim"
            )[f"{quantity}_mean"]
        )
        for name, theirs in fig3.METHODS.items()
    }
    ours = {name: measured[name, objective, 2][quantity] for name in fig3.METHODS}
    scale = max(reference.values())
    pairs = [(a, b) for a in ours for b in ours if reference[a] > reference[b] + 0.1 * scale]
    assert len(pairs) >= 4
    for a, b in pairs:
        assert ours[a] > ours[b], (a, b)
