"""All optima: what a search for them finds, keeps and says, and how it is scored."""

import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de
from diffevo_jax.optimize import cma, niches, optima, quadratic, scores
from diffevo_jax.optimize.arrays import CostSamples
from diffevo_jax.optimize.basins import distinct

PLANE = [(-5, 5)] * 2
PLACES = np.array([(-3.0, -2.0), (2.5, 3.0), (3.0, -3.5)])


def valleys(x, scale=1.0):
    return scale * np.min(np.sum((x[:, None] - PLACES) ** 2, axis=2), axis=1)


NOISE = np.random.default_rng(0)


def noise(x):
    return NOISE.normal(size=len(x))


def found(reported, accuracy=1e-5):
    points = np.array([optimum.x for optimum in reported]).reshape(-1, 2)
    costs = np.array([optimum.cost for optimum in reported])
    near = np.abs(points[:, None] - PLACES).max(axis=2) < 0.1
    return int(np.sum(np.any(near & (costs < accuracy)[:, None], axis=0)))


def all_optima(cost, bounds=PLANE, evaluations=6000, **settings):
    settings = {"batched": True, "jit": False, "optima": "all"} | settings
    return de.minimize(cost, bounds, evaluations=evaluations, **settings)


def test_costs_of_any_range_are_polished_to_the_end():
    for scale in (1e-6, 1.0, 1e8):
        result = all_optima(lambda x, scale=scale: valleys(x, scale))
        assert found(result.global_optima) == 3


def test_niches_that_are_not_polished_are_reported():
    result = all_optima(valleys, evaluations=1000)
    assert found(result.optima, accuracy=0.1) == 3


def test_a_search_trapped_in_ripples_begins_again():
    def cost(x):
        away = x[:, None] - PLACES
        ripples = 0.3 * np.sum(1 - np.cos(8 * np.pi * away), axis=2)
        return np.min(np.sum(away**2, axis=2) + ripples, axis=1)

    assert found(all_optima(cost, evaluations=20_000).global_optima) == 3


def test_global_optima_are_told_apart_from_local_ones():
    def camel(x):
        first, second = x.T
        bowl = (4 - 2.1 * first**2 + first**4 / 3) * first**2
        return bowl + first * second + (4 * second**2 - 4) * second**2

    result = all_optima(camel, [(-1.9, 1.9), (-1.1, 1.1)], 20_000)
    assert len(result.global_optima) == 2
    assert len(result.optima) > 2
    most = de.maximize(
        lambda x: -camel(x), [(-1.9, 1.9), (-1.1, 1.1)], evaluations=20_000, optima="all",
        batched=True, jit=False,
    )  # fmt: skip
    values = [optimum.value for optimum in most.global_optima]
    np.testing.assert_allclose(values, [-result.cost] * 2, rtol=1e-12)


def test_global_optima_of_one_optimum_are_the_best_alone():
    result = de.minimize(lambda x: float(np.sum(x**2)), PLANE, evaluations=100)
    assert result.global_optima == result.optima


def test_whole_numbers_are_reported_once_each():
    def cost(x):
        return np.min(np.sum(np.abs(x[:, None] - np.array([(20, 30), (70, 85)])), axis=2), axis=1)

    result = all_optima(cost, [(0, 99)] * 2, 3000, integers=[0, 1])
    optima = [tuple(optimum.x) for optimum in result.optima]
    assert {(20, 30), (70, 85)} == {tuple(optimum.x) for optimum in result.global_optima}
    assert len(set(optima)) == len(optima)


def test_whole_numbers_that_differ_by_one_of_thousands_are_not_merged():
    units = np.array([[0.40005], [0.40015], [0.40015]])
    assert len(distinct(units, np.zeros(3), np.array([0.3e-4]))) == 2


@pytest.mark.parametrize(
    ("cost", "evaluations", "message"),
    [
        (lambda x: np.ones(len(x)), 4000, "the cost is the same everywhere"),
        (lambda x: x.sum(axis=1), 4000, "the best is at a side of the box"),
        (noise, 20_000, "costs settle nowhere"),
    ],
)
def test_costs_without_optima_are_survived_and_reported(cost, evaluations, message):
    result = all_optima(cost, evaluations=evaluations)
    assert message in result.message
    assert len(result.optima) >= 1


def test_costs_with_optima_are_not_remarked_upon():
    assert all_optima(valleys).message == "all evaluations are spent"


def test_failures_everywhere_but_in_one_valley_are_survived():
    result = all_optima(lambda x: np.where(x[:, 0] < 0, valleys(x), np.nan))
    assert found(result.global_optima) == 1


def test_generations_of_any_size_are_few_programs():
    sizes = []

    def cost(x):
        sizes.append(len(x))
        places = jnp.asarray(PLACES)
        return jnp.min(jnp.sum((x[:, None] - places) ** 2, axis=2), axis=1)

    all_optima(cost, jit=True)
    assert len(set(sizes)) <= 12


def test_niches_learn_the_same_side_by_side_as_alone():
    random = np.random.default_rng(0)
    points, costs = random.uniform(0.2, 0.8, (2, 3)), np.full(2, np.inf)
    both = niches.begin(points, costs, np.full(2, 0.1), np.array([6, 13]))
    alone = niches.begin(points[:1], costs[:1], np.full(1, 0.1), np.array([6]))
    for _ in range(5):
        draws = niches.draw(random, both, np.arange(2))
        first = draws._replace(
            niches=np.array([0]),
            steps=draws.steps[:1, :6],
            whitened=draws.whitened[:1, :6],
            predicted=draws.predicted[:1],
        )
        values = np.sum(niches.points(both, draws) ** 2, axis=1)
        np.testing.assert_array_equal(niches.points(both, draws)[:6], niches.points(alone, first))
        both, alone = niches.tell(both, draws, values), niches.tell(alone, first, values[:6])
    np.testing.assert_allclose(both.covariance[0], alone.covariance[0], rtol=1e-12)
    assert both.cost[0] == alone.cost[0]
    assert both.age[1] == 5


def test_niches_find_the_bottom_of_an_ellipsoid():
    random = np.random.default_rng(0)
    scales = 10.0 ** np.arange(5)
    start = np.full((4, 5), 0.3)
    each = niches.begin(start, np.full(4, np.inf), np.full(4, 0.1), np.full(4, 8))
    for _ in range(70):
        draws = niches.draw(random, each, np.arange(4))
        each = niches.tell(each, draws, (niches.points(each, draws) - 0.6) ** 2 @ scales)
    assert np.all(each.cost < 1e-8)  # 560 evaluations; 2,000 without the model
    assert np.all(each.model_error < 1e-8)


def test_niches_without_a_model_find_the_bottom_too():
    random = np.random.default_rng(0)
    scales = np.linspace(1, 10, niches.MODELLED + 1)
    start = np.full((2, len(scales)), 0.4)
    each = niches.begin(start, np.full(2, np.inf), np.full(2, 0.1), np.full(2, 11))
    for _ in range(250):
        draws = niches.draw(random, each, np.arange(2))
        each = niches.tell(each, draws, (niches.points(each, draws) - 0.6) ** 2 @ scales)
    assert np.all(each.cost < 1e-8)
    assert np.all(np.isinf(each.model_error))


def test_a_niche_with_failed_costs_has_a_model_of_the_others():
    random = np.random.default_rng(0)
    each = niches.begin(np.full((1, 2), 0.3), np.full(1, np.inf), np.full(1, 0.1), np.array([12]))
    for _ in range(6):
        draws = niches.draw(random, each, np.arange(1))
        costs = np.sum((niches.points(each, draws) - 0.6) ** 2, axis=1)
        each = niches.tell(each, draws, np.where(random.uniform(size=12) < 0.3, np.nan, costs))
    assert each.cost[0] < 1e-12
    assert np.all(np.isfinite(each.newest_costs))


def test_models_of_a_stack_are_those_of_each_of_its_functions():
    random = np.random.default_rng(0)
    points = random.normal(size=(3, 30, 2))
    turned = np.array([[2.0, 1.0], [1.0, 3.0]])
    least = np.array([0.3, -0.2])
    costs = np.einsum("khi,ij,khj->kh", points - least, turned, points - least) + 5
    costs[1] = points[1] @ [1.0, 2.0] + points[1] ** 2 @ [1.0, -1.0]  # a saddle
    costs[2, 20:] = np.inf
    lowest, value = quadratic.lowest_of_each(points, costs)
    np.testing.assert_allclose(lowest[[0, 2]], [least, least], atol=1e-9)
    np.testing.assert_allclose(value[[0, 2]], 5, rtol=1e-9)
    assert np.isnan(value[1])


def test_where_a_pattern_would_have_another_optimum_is_sampled():
    centres = np.array([[0.2, 0.2], [0.5, 0.2], [0.2, 0.6]])
    samples = np.array([[0.8, 0.2]])
    points = optima._pattern(np.random.default_rng(0), centres, samples, 200)
    rounded = {tuple(point) for point in np.round(points, 6)}
    # (0.8, 0.2) was sampled; what lies outside of the box is none.
    assert rounded == {(0.5, 0.6)} | {(0.2, 1.0)}


def test_a_new_niche_in_the_valley_of_an_optimum_is_not_begun():
    settings = {"costs": np.ones(2), "spreads": np.full(2, 0.1), "sizes": np.full(2, 6)}
    both = niches.begin(np.array([[0.1, 0.5], [0.9, 0.5]]), **settings)
    state = optima.begin(np.full((1, 2), 0.5), CostSamples(np.empty((0, 2)), np.empty(0)), 100)
    state = state._replace(new=both, left=50)
    downhill, over_a_hill = [0.75, 0.5, 0.25], [0.9, 1.1, 0.5]
    after = optima._begun(state, np.array([*downhill, *over_a_hill]))
    np.testing.assert_array_equal(after.niches.best, [[0.9, 0.5]])
    assert after.left == 44
    failed = optima._begun(state, np.array([np.nan, 0.5, 0.25, *over_a_hill]))
    assert len(failed.niches.best) == 2


def many_dimensions(sizes, left, num_genes=8, evaluations=100_000):
    """A search that has sampled one bowl, with a trapped optimum of each size."""
    points = np.random.default_rng(0).uniform(size=(200, num_genes))
    samples = CostSamples(points, np.sum(points**2, axis=1))
    state = optima.begin(points[:1], samples, evaluations)
    places = np.eye(num_genes)[: len(sizes)]
    costs, spreads = 1.0 + np.arange(len(sizes)), np.full(len(sizes), 0.02)
    archive = optima.Archive(places, costs, spreads, np.array(sizes, int))
    return state._replace(optima=archive, sampled=left // 2, left=left)


def test_niches_in_many_dimensions_begin_anywhere_too():
    state = optima._with_niches(np.random.default_rng(0), many_dimensions([], 20_000))
    anywhere = np.isinf(state.niches.cost)
    assert np.sum(~anywhere) <= optima.LEAST
    assert np.sum(anywhere) > 5 * optima.LEAST
    spreads = state.niches.spread[anywhere]
    assert np.all((spreads >= optima.STEPS[0]) & (spreads <= optima.STEPS[1]))
    assert np.all(np.abs(state.niches.best[anywhere].mean(axis=0) - 0.5) < 0.2)


def test_niches_without_models_are_of_the_default_size_where_evaluations_are_enough():
    for num_genes, evaluations, share in (12, 24_000, 1), (12, 23_999, 2), (10, 24_000, 2):
        state = many_dimensions([], 20_000, num_genes, evaluations)
        state = optima._with_niches(np.random.default_rng(0), state)
        assert np.all(state.niches.size == share * cma.default_size(num_genes))


def test_a_trapped_search_in_many_dimensions_begins_again_where_a_round_is_large_enough():
    state = many_dimensions([20, 20_000], 20_000)
    after = optima._begun_again(state, 10_000)
    np.testing.assert_array_equal(after.niches.size, [60])
    np.testing.assert_array_equal(after.optima.sizes, [60, 20_000])
    assert not len(optima._begun_again(many_dimensions([20_000], 20_000), 10_000).niches.size)


def test_even_samples_in_many_dimensions_stay_small():
    state = many_dimensions([], 0)._replace(used=1000, round=2)
    after = optima._even(np.random.default_rng(0), state)
    assert len(after.points) == optima.FIRST * 8
    assert after.sampled == 8 * len(after.points)


def test_a_niche_that_begins_at_an_optimum_is_reported():
    def cost(x):
        return np.sum((x - 0.5) ** 2, axis=1)

    random = np.random.default_rng(0)
    points = random.uniform(size=(50, 2))
    state = optima.begin(points[:1], CostSamples(points, cost(points)), 10_000)
    at_once = niches.begin(np.full((1, 2), 0.5), np.zeros(1), np.full(1, 0.1), np.full(1, 6))
    state = optima._go_on(random, state._replace(niches=at_once, left=2000, sampled=1000))
    while state.phase == "local":
        state = optima.advance(random, state, cost(state.points))
    np.testing.assert_array_equal(state.optima.points, [[0.5, 0.5]])


def test_a_niche_at_the_mirror_image_of_a_better_one_is_its_double():
    places = np.array([[0.3, 0.4], [0.3, 0.4]])
    each = niches.begin(places, np.array([1.0, 2.0]), np.full(2, 0.01), np.array([6, 6]))
    mirrored = each.mean.copy()
    mirrored[1] = -2 * cma.MARGIN - mirrored[1]
    each = each._replace(mean=mirrored)
    np.testing.assert_allclose(cma.into_cube(each.mean), places)
    assert list(niches.within_reach(each, each.best, each.cost)) == [False, True]


def test_peaks_are_counted_once_each_within_the_accuracy():
    points = [[0, 0], [0.001, 0], [1, 1], [2, 2]]
    score = scores.peak_score(
        points, [0, 1e-7, 2e-6, 0.5], optima=4, least=0, radius=0.01, accuracy=1e-5
    )
    assert score == (0.5, 0.5, 0.5)
    nothing = scores.peak_score(np.empty((0, 2)), [], optima=4, least=0, radius=0.01)
    assert nothing == (0, 0, 0)


def test_a_dynamic_score_is_its_mean_over_the_budget():
    assert scores.dynamic([20, 60], [0.5, 1.0], budget=100) == pytest.approx(0.6)


def test_scores_refuse_costs_of_another_shape(refuses):
    with refuses("costs"):
        scores.peak_score([[0, 0]], [0, 1], optima=1, least=0, radius=0.1)
    with refuses("points"):
        scores.peak_score([0, 1], [0, 1], optima=1, least=0, radius=0.1)
