"""Presets for densities: that the draw is one of the density, and says when it is not."""

import math
import re
import warnings
from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY
from jax.sharding import Mesh

import diffevo_jax as de
from diffevo_jax.presets._sample import pick

KEY = jax.random.key(11)
WIDTH, NORMALISER = 0.3, 2.0  # of the peaks, log
SMALL = {"num_genes": 2, "population_size": 16, "num_levels": 4, "adaptations": 1, "rounds": 2}


def log_density(x, width=WIDTH):
    """Peaks of mass 1/4 and 3/4 at a distance of 3, times exp(NORMALISER)."""
    centre = jnp.zeros(x.shape[1]).at[0].set(1.5)
    heavy, light = (-jnp.sum((x - c) ** 2, axis=1) / (2 * width**2) for c in (centre, -centre))
    constant = NORMALISER - x.shape[1] / 2 * math.log(2 * math.pi * width**2)
    return jnp.logaddexp(heavy + math.log(0.75), light + math.log(0.25)) + constant


def mass_and_widths(x):
    """Share of the heavy peak; the heavy and the light one's standard deviation."""
    heavy = x[:, 0] > 0
    away = x.at[:, 0].add(jnp.where(heavy, -1.5, 1.5)) ** 2

    def width(mask):
        return jnp.sqrt(jnp.sum(away, where=mask[:, None]) / jnp.maximum(jnp.sum(mask), 1) / 2)

    return jnp.stack([jnp.mean(heavy), width(heavy), width(~heavy)])


def published(key):
    evolution = de.presets.paper(
        de.schedules.cosine(100), fitness_map=de.fitness.boltzmann(1.0), eta=1.0
    )
    population = jax.random.normal(jax.random.fold_in(key, 1), (256, 2))
    return de.evolve(key, evolution, log_density, population).state.population


@cache
def runs():
    """Eight of the preset and of the published method, in the plane with 256 individuals."""

    def both(key):
        samples = de.presets.sample(key, log_density, num_genes=2)
        kept = samples._replace(draws=None, log_weight=None)
        return kept, mass_and_widths(samples.population), mass_and_widths(published(key))

    return jax.jit(lambda keys: jax.lax.map(both, keys))(de.batch.seed_keys(5, 8))


def is_right(estimates) -> bool:
    """Within four standard errors of eight runs: .025 of a mass, .011 and .021 of the widths."""
    expected, errors = np.array([0.75, WIDTH, WIDTH]), np.array([0.025, 0.011, 0.021])
    return bool(np.all(np.abs(np.mean(estimates, axis=0) - expected) < 4 * errors / 8**0.5))


@pytest.mark.slow
def test_peaks_have_their_masses_and_widths_where_the_published_method_has_not():
    _, preset, paper = runs()
    assert is_right(preset)
    assert not is_right(paper)
    assert float(paper[:, 0].mean()) > 0.9


@pytest.mark.slow
def test_the_normaliser_is_known_within_its_error():
    samples, *_ = runs()
    off = (samples.log_normaliser - NORMALISER) / samples.log_normaliser_error
    assert float(np.abs(off).max()) < 4
    assert float(np.abs(off).mean()) > 0.1  # an error bar, not a bound
    assert float(samples.log_normaliser_error.max()) < 0.02
    np.testing.assert_array_less(256 * 5, samples.effective_sample_size)
    assert samples.evaluated.tolist() == [25_600] * 8


@pytest.mark.slow
def test_weights_are_the_density_over_the_draws_own():
    """Averages over the draws are the density's: of x, 1.5 (3/4 - 1/4) and 0."""
    samples = jax.jit(partial(de.presets.sample, log_density_fn=log_density, num_genes=2))(KEY)
    weight = np.exp(np.asarray(samples.log_weight, float) - NORMALISER)
    assert weight.mean() == pytest.approx(1, abs=0.04)  # four times its error bar
    mean = weight @ np.asarray(samples.draws) / weight.sum()
    np.testing.assert_allclose(mean, [0.75, 0], atol=0.15)  # four of sd / sqrt(sample size)
    expected = weight.sum() ** 2 / (weight**2).sum()
    assert float(samples.effective_sample_size) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(samples.log_density, log_density(samples.population), atol=1e-4)
    rows = {tuple(row) for row in np.asarray(samples.draws).tolist()}
    assert {tuple(row) for row in np.asarray(samples.population).tolist()} <= rows


@cache
def small(**settings):
    """The preset with few individuals, compiled: (key, loc, scale)."""

    def run(key, loc=0.0, scale=1.0):
        def moved(x):
            return log_density((x - loc) / scale)

        return de.presets.sample(key, moved, loc=loc, scale=scale, **SMALL, **settings)

    return jax.jit(run)


def test_another_place_and_scale_is_the_same_draw_moved():
    loc, scale = jnp.array([10.0, -3.0]), jnp.array([5.0, 0.5])
    zero, one = jnp.zeros(2), jnp.ones(2)
    here, there = small()(KEY, zero, one), small()(KEY, loc, scale)
    np.testing.assert_allclose(there.population, loc + scale * here.population, atol=1e-3)
    shift = float(there.log_normaliser - here.log_normaliser)
    assert shift == pytest.approx(math.log(2.5), abs=1e-3)


@pytest.mark.slow
def test_a_batch_of_keys_is_a_loop():
    keys = jax.random.split(KEY, 2)
    batch = jax.jit(jax.vmap(small()))(keys)
    for i, key in enumerate(keys):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], batch)
        chex.assert_trees_all_close(one, small()(key, jnp.zeros(2), jnp.ones(2)), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("full", [True, False])
def test_a_projection_of_full_rank_keeps_the_distances_and_another_does_not(full):
    frame = jnp.array([[0.6, 0.8], [-0.8, 0.6]])
    plain = small()(KEY, jnp.zeros(2), jnp.ones(2))
    run = partial(de.presets.sample, log_density_fn=log_density, **SMALL)
    samples = jax.jit(partial(run, projection=frame if full else frame[:, :1]))(KEY)
    assert np.allclose(samples.population, plain.population, atol=1e-3) == full
    assert bool(np.isfinite(samples.log_normaliser))


@pytest.mark.slow
def test_a_mesh_of_eight_devices_draws_what_one_does():
    mesh = Mesh(jax.devices()[:8], ("individuals",))
    run = partial(de.presets.sample, log_density_fn=log_density, mesh=mesh, **SMALL)
    whole, parts = small()(KEY, jnp.zeros(2), jnp.ones(2)), jax.jit(run)(KEY)
    chex.assert_trees_all_close(parts, whole, atol=1e-3)
    assert parts.population.sharding.is_equivalent_to(de.sharding.rows(mesh), 2)


@pytest.mark.slow
@pytest.mark.parametrize(("genes", "trusted"), [(2, True), (20, False)])
def test_too_small_a_sample_warns_and_one_that_will_do_does_not(genes, trusted):
    """1024 individuals suffice for ten dimensions, measured, and not for twenty."""
    size = 256 if trusted else 1024
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        de.presets.sample(KEY, lambda x: log_density(x, 0.5), num_genes=genes, population_size=size)
    texts = [str(warning.message) for warning in caught]
    assert any(re.search(r"draws are worth \d+ of equal weight", t) for t in texts) != trusted


def test_where_no_density_is_above_0_the_sample_is_worth_nothing():
    run = jax.jit(
        partial(de.presets.sample, log_density_fn=lambda x: -jnp.inf + 0 * x[:, 0], **SMALL)
    )
    samples = run(KEY)
    assert float(samples.effective_sample_size) == 0
    assert float(samples.log_normaliser) == -math.inf
    assert np.all(np.isfinite(samples.population))


@pytest.mark.slow
def test_a_density_that_is_nan_or_infinite_in_places_counts_as_0_there():
    def broken(x):
        inside = jnp.abs(x[:, 0] + 1.5) > 0.8  # the heavy peak alone
        return jnp.where(inside, log_density(x), jnp.where(x[:, 1] > 0, jnp.nan, jnp.inf))

    samples = jax.jit(partial(de.presets.sample, log_density_fn=broken, num_genes=2))(KEY)
    off = samples.log_normaliser - NORMALISER - math.log(0.75)
    # What of the light peak is further than .8 away: .8 % of it, .3 % of the rest.
    assert abs(float(off) - 0.003) < 4 * float(samples.log_normaliser_error)


def test_draws_are_picked_as_often_as_they_weigh():
    weight = np.array([0.0, 0.5, 1.5, 3.0, 5.0])
    counts = np.stack(
        [
            np.bincount(pick(key, jnp.log(weight), 10), minlength=5)
            for key in jax.random.split(KEY, 20)
        ]
    )
    assert set(np.unique(counts - np.floor(weight)).tolist()) <= {0.0, 1.0}
    np.testing.assert_allclose(counts.mean(axis=0), weight, atol=0.45)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_genes", 0),
        ("rounds", 1.5),
        ("scale", 0.0),
        ("loc", jnp.zeros(3)),
        ("loc", "0"),
        ("loc", jnp.nan),
        ("scale", jnp.inf),
        ("log_density_fn", jnp.sum),
        ("log_density_fn", 3),
        ("log_density_fn", lambda x, y: x),
        ("log_density_fn", lambda x: None),
    ],
)
def test_bad_settings_are_named(setting, value, refuses):
    with refuses(setting):
        de.presets.sample(KEY, **{"log_density_fn": log_density, **SMALL, setting: value})


@pytest.mark.slow
def test_the_pages_code_runs():
    page = (REPOSITORY / "docs" / "sampling.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) >= 2
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, "sampling.md", "exec"), namespace)
    assert abs(float(namespace["samples"].log_normaliser)) < 0.1
