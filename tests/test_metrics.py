"""Metrics: hand-made populations, a NumPy dictionary as the oracle, jit and vmap."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffevo_jax import metrics

# Three unit cells: two points in (0, 0), one in (1, 0), one beyond (4, -4), where clamping puts it.
UNTYPED: Any = metrics  # for arguments that are wrong
POINTS = jnp.array([[0.1, 0.0], [-0.2, 0.3], [1.4, 0.0], [9.0, -7.0]])
FITNESS = jnp.array([0.5, 0.75, 0.25, 1.0])


def test_success_rate_is_the_share_at_or_above_the_threshold():
    fitness = jnp.array([[499.0, 500, 500, jnp.nan], [500, 501, 9, 500]])
    np.testing.assert_allclose(metrics.success_rate(fitness, 500), [0.5, 0.75])
    np.testing.assert_allclose(metrics.success_rate(fitness[0], 500), 0.5)


def test_best_takes_the_fittest_first_and_nan_last():
    fitness = jnp.array([0.5, jnp.nan, 0.25, 1.0])
    points, values = metrics.best(POINTS, fitness, 3)
    np.testing.assert_array_equal(points, POINTS[jnp.array([3, 0, 2])])
    np.testing.assert_array_equal(values, [1.0, 0.5, 0.25])
    np.testing.assert_array_equal(metrics.best(POINTS, FITNESS, 1)[1], [1.0])
    np.testing.assert_array_equal(metrics.best(POINTS, FITNESS, 4)[1], [1.0, 0.75, 0.5, 0.25])


def test_entropy_is_zero_in_one_cell_and_log2_n_in_cells_of_their_own():
    same = jnp.array([[0.31, 0.0], [0.29, 0.04], [0.34, -0.04], [0.26, 0.0]])
    np.testing.assert_allclose(metrics.grid_entropy(same), 0, atol=1e-6)
    np.testing.assert_allclose(metrics.grid_entropy(POINTS), 2, rtol=1e-6)


def test_entropy_of_shares_a_half_and_two_quarters_is_one_and_a_half_bits():
    np.testing.assert_allclose(metrics.grid_entropy(POINTS, cell=1.0), 1.5, rtol=1e-6)


def test_cells_are_centred_on_multiples_of_their_side():
    either_side = jnp.array([[0.049, 0.0], [-0.049, 0.0]])
    across = jnp.array([[0.049, 0.0], [0.051, 0.0]])
    np.testing.assert_allclose(metrics.grid_entropy(either_side), 0, atol=1e-6)
    np.testing.assert_allclose(metrics.grid_entropy(across), 1, rtol=1e-6)


def test_qd_score_adds_the_best_fitness_of_each_occupied_cell():
    np.testing.assert_allclose(metrics.qd_score(POINTS, FITNESS), 0.75 + 0.25 + 1.0)


def test_qd_score_clamps_points_outside_to_the_cells_at_the_border():
    corner = jnp.array([[3.9, -4.0], [9.0, -7.0], [4.0, -50.0]])
    np.testing.assert_allclose(metrics.qd_score(corner, jnp.array([0.1, 0.3, 0.2])), 0.3)


def test_qd_score_leaves_nan_out_of_its_cell():
    np.testing.assert_allclose(
        metrics.qd_score(POINTS, FITNESS.at[1].set(jnp.nan)), 0.5 + 0.25 + 1.0
    )


def test_elites_are_the_first_of_equals_and_never_without_fitness():
    twice = jnp.array([[0.0, 0.0], [0.1, 0.1], [2.0, 0.0], [3.0, 0.0]])
    fitness = jnp.array([1.0, 1.0, -jnp.inf, 0.0])
    assert metrics.elites(twice, fitness).tolist() == [True, False, False, True]
    assert metrics.elites(twice[:1], fitness[2:3]).tolist() == [False]


def test_elites_are_of_cells_of_side_one_by_default_and_beyond_the_limit_of_the_border():
    line = jnp.array([[-9.0, 0.0], [-7.0, 0.0], [0.0, 0.0], [1.0, 0.0], [7.0, 0.0], [9.0, 0.0]])
    fitness = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0, jnp.nan])
    assert metrics.elites(line, fitness).tolist() == [True, True, True, True, True, False]
    border = metrics.elites(line, fitness, cell=2.0, limit=4.0)
    assert border.tolist() == [False, True, False, True, True, False]


def test_coverage_counts_occupied_cells_inside_the_box_only():
    np.testing.assert_allclose(metrics.coverage(POINTS), 2 / 81, rtol=1e-6)
    everywhere = jnp.stack(jnp.meshgrid(jnp.arange(-4.0, 5), jnp.arange(-4.0, 5)), -1)
    coverage = jax.jit(metrics.coverage)
    np.testing.assert_allclose(coverage(everywhere.reshape(-1, 2)), 1, rtol=1e-6)
    assert float(coverage(jnp.zeros((3, 256)))) == pytest.approx(0, abs=1e-30)


def test_cells_that_differ_by_a_step_in_two_of_many_dimensions_are_distinct():
    entropy = jax.jit(metrics.grid_entropy)(jnp.eye(256), cell=1.0)
    np.testing.assert_allclose(entropy, 8, rtol=1e-6)


def test_coverage_counts_cells_of_any_side():
    points = jnp.array([[0.6, 0.0], [-0.6, 0.0], [2.4, 0.0]])  # two in one cell of side 2
    np.testing.assert_allclose(metrics.coverage(points, cell=2.0), 2 / 25, rtol=1e-6)


def test_a_box_without_cells_to_count_is_refused_and_one_corner_may_be_traced(refuses):
    for limit in ((1.0, 1.0), (0.0, float("inf")), (-float("inf"), 0.0)):
        with refuses("limit"):
            metrics.coverage(POINTS, limit=limit)
    half_known = jax.jit(lambda high: metrics.coverage(POINTS, limit=(-4.0, high)))
    np.testing.assert_allclose(half_known(4.0), metrics.coverage(POINTS), rtol=1e-6)


def test_modes_are_found_within_the_radius_and_with_enough_points():
    modes = jnp.array([[0.0, 0.0], [1.0, 0.0], [-3.0, 3.0]])
    assert int(metrics.modes_found(POINTS, modes, radius=0.41)) == 2
    assert int(metrics.modes_found(POINTS, modes, radius=0.3)) == 1
    assert int(metrics.modes_found(POINTS, modes, radius=0.41, at_least=2)) == 1
    assert int(metrics.modes_found(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]]), radius=5.0)) == 1


@pytest.mark.parametrize("dim", [2, 256])
def test_grid_metrics_agree_with_a_dictionary_of_cells(dim):
    rng = np.random.default_rng(dim)
    # Few distinct rows, differing from each other in one coordinate at least.
    rows = 3 * rng.normal(size=(40, dim)).astype(np.float32)
    rows[1:20] = rows[0]
    rows[np.arange(1, 20), rng.integers(dim, size=19)] += rng.integers(1, 3, size=19)
    points = jnp.asarray(rows[rng.integers(40, size=300)])
    fitness = jnp.asarray(rng.random(300), jnp.float32)
    cells: dict[tuple, list[float]] = {}
    for point, value in zip(np.asarray(points), np.asarray(fitness), strict=True):
        cells.setdefault(tuple(np.round(np.clip(point, -4, 4))), []).append(value)
    shares = np.array([len(values) for values in cells.values()]) / 300
    expected = sum(max(values) for values in cells.values())
    np.testing.assert_allclose(jax.jit(metrics.qd_score)(points, fitness), expected, rtol=1e-5)
    entropy = jax.jit(metrics.grid_entropy)(jnp.clip(points, -4, 4), cell=1.0)
    # float32 sums
    np.testing.assert_allclose(entropy, -np.sum(shares * np.log2(shares)), rtol=1e-5)


@pytest.mark.parametrize(
    "metric",
    [
        lambda points, fitness: metrics.grid_entropy(points, cell=0.5),
        lambda points, fitness: metrics.grid_entropy(metrics.best(points, fitness, 8)[0], cell=1),
        metrics.qd_score,
        lambda points, fitness: metrics.coverage(points),
        lambda points, fitness: metrics.modes_found(points, 2 * POINTS, radius=0.1),
    ],
    ids=["entropy", "entropy_of_best", "qd_score", "coverage", "modes_found"],
)
def test_metrics_ignore_the_order_and_run_under_jit_and_vmap(metric):
    key_points, key_fitness, key_order = jax.random.split(jax.random.key(0), 3)
    points = jax.random.normal(key_points, (3, 50, 2))
    fitness = jax.random.uniform(key_fitness, (3, 50))
    order = jax.random.permutation(key_order, 50)
    expected = [metric(p, f) for p, f in zip(points, fitness, strict=True)]
    assert len({float(value) for value in expected}) > 1  # or the comparison would show nothing
    batch = jax.jit(jax.vmap(metric))
    np.testing.assert_allclose(batch(points, fitness), expected, rtol=1e-5)
    np.testing.assert_allclose(batch(points[:, order], fitness[:, order]), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("points", lambda: metrics.grid_entropy(jnp.ones(3))),
        ("fitness", lambda: metrics.qd_score(POINTS, jnp.ones(3))),
        ("points", lambda: metrics.grid_entropy(jnp.ones((0, 2)))),
        ("num", lambda: metrics.best(POINTS, FITNESS, 0)),
        ("num", lambda: metrics.best(POINTS, FITNESS, 5)),
        ("modes", lambda: metrics.modes_found(POINTS, jnp.ones(2), radius=1.0)),
        ("modes", lambda: metrics.modes_found(POINTS, jnp.ones((2, 3)), radius=1.0)),
        ("modes", lambda: UNTYPED.modes_found(POINTS, [[1, 2], [3]], radius=1.0)),
        ("radius", lambda: metrics.modes_found(POINTS, POINTS, radius=-1.0)),
        ("points", lambda: UNTYPED.best([["a", "b"]], jnp.ones(1), 1)),
        ("num", lambda: UNTYPED.dominated_novelty(POINTS, FITNESS, num=1.5)),
        ("cell", lambda: metrics.coverage(POINTS, cell=0)),
        ("cell", lambda: UNTYPED.coverage(POINTS, cell=[1.0, -1.0])),
        ("cell", lambda: UNTYPED.grid_entropy(POINTS, cell=[1.0, 2.0, 3.0])),
        ("cell", lambda: UNTYPED.grid_entropy(POINTS, cell="small")),
        ("threshold", lambda: UNTYPED.success_rate(FITNESS, None)),
    ],
)
def test_bad_input_is_named(path, call, refuses):
    with refuses(path):
        call()


def test_a_box_may_lie_anywhere_and_have_sides_of_its_own():
    low, high, cell = np.array([1.0, -6.0]), np.array([3.0, 6.0]), np.array([1.0, 3.0])
    # Cells at x = 1, 2, 3 and y = -6, -3, 0, 3, 6. The last point lies outside, next to (3, 0).
    points = jnp.array([[1.2, -5.0], [1.4, -7.0], [2.2, 2.0], [2.9, 0.0], [3.9, 0.2]])
    fitness = jnp.array([0.5, 0.75, 0.25, 0.125, 1.0])
    box: Any = {"cell": cell, "limit": (low, high)}
    assert metrics.elites(points, fitness, **box).tolist() == [False, True, True, False, True]
    np.testing.assert_allclose(metrics.qd_score(points, fitness, **box), 0.75 + 0.25 + 1.0)
    np.testing.assert_allclose(metrics.coverage(points, **box), 3 / 15, rtol=1e-6)
    # The same box about 0 and moved by whole cells, with its points, holds the same.
    for shift in (0, 8, -100):
        moved: Any = {"limit": (shift - 4.0, shift + 4.0)}
        there = jnp.clip(POINTS, -5, 5) + shift
        np.testing.assert_allclose(metrics.qd_score(there, FITNESS, **moved), 2.0)
        np.testing.assert_allclose(metrics.coverage(there, **moved), 2 / 81, rtol=1e-6)


def test_a_limit_may_be_traced():
    cover = jax.jit(lambda limit: metrics.coverage(POINTS, limit=limit))
    np.testing.assert_allclose(cover(4.0), 2 / 81, rtol=1e-6)
    np.testing.assert_allclose(cover((0.0, 2.0)), 2 / 9, rtol=1e-6)


@pytest.mark.parametrize(
    "limit",
    [(2.0, 1.0), -1.0, np.array([3.0, 4.0]), (np.zeros(3), 1.0), np.inf, "all", None],
    ids=str,
)
def test_what_is_no_box_is_named(limit, refuses):
    with refuses("limit"):
        metrics.coverage(POINTS, limit=limit)
