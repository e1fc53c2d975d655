"""CMA-ES with a model of the cost, and the model."""

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

import diffevo_jax as de
from diffevo_jax.optimize import assisted, cma, evaluate, one, quadratic
from diffevo_jax.optimize.arrays import CostSamples
from diffevo_jax.optimize.space import make_space

BOX = [(-5.0, 5.0)] * 5


def bowl(num_genes: int, seed: int = 0) -> tuple[Any, np.ndarray]:
    """Make a convex quadratic of points `[N, D]`, and where it is lowest."""
    random = np.random.default_rng(seed)
    turned = random.normal(size=(num_genes, num_genes))
    hessian, least = turned @ turned.T + np.eye(num_genes), random.uniform(0.3, 0.7, num_genes)
    return lambda x: np.einsum("...i,ij,...j", x - least, hessian, x - least) + 7.0, least


def samples(cost: Any, number: int, num_genes: int) -> CostSamples:
    points = np.random.default_rng(1).uniform(size=(number, num_genes))
    return CostSamples(points, cost(points))


def rosenbrock(x: np.ndarray) -> float:
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


# The model.


@pytest.mark.parametrize("num_genes", [1, 2, 3, 7])
def test_a_full_model_is_exact_on_a_quadratic(num_genes):
    cost, least = bowl(num_genes)
    model = quadratic.fit(samples(cost, 120, num_genes), 0)
    points = np.random.default_rng(2).uniform(-1, 2, (20, num_genes))
    np.testing.assert_allclose(model.predict(points), cost(points), rtol=1e-8)
    np.testing.assert_allclose(model.lowest(), least, rtol=1e-8)


def test_the_model_has_as_many_terms_as_the_costs_determine():
    cost, _ = bowl(4)
    # Linear 5, one curvature 6, diagonal 9, full 15; of three quarters of the costs, a tenth more.
    terms = [len(quadratic.fit(samples(cost, n, 4), 0).coefficients) for n in (3, 9, 14, 22)]
    assert terms == [5, 6, 9, 15]
    many = quadratic.PRODUCTS + 1
    cost, _ = bowl(many)
    assert len(quadratic.fit(samples(cost, 2000, many), 0).coefficients) == 2 * many + 1


def test_one_curvature_finds_the_middle_of_a_sphere():
    points = np.random.default_rng(0).uniform(size=(12, 6))
    model = quadratic.fit(CostSamples(points, np.sum((points - 0.4) ** 2, axis=1)), 0)
    assert len(model.coefficients) == 8
    np.testing.assert_allclose(model.lowest(), 0.4, rtol=1e-8)


def test_a_slope_leads_out_of_the_box_and_a_saddle_down():
    points = np.random.default_rng(0).uniform(size=(4, 3))
    slope = quadratic.fit(CostSamples(points, points @ [1.0, -2.0, 3.0]), 0)
    assert np.array_equal(np.clip(slope.lowest(), 0, 1), [0, 1, 0])
    points = np.random.default_rng(0).uniform(-1, 1, size=(60, 2))
    saddle = quadratic.fit(CostSamples(points, points @ [0.0, 1.0] + points**2 @ [1, -1]), 0)
    lowest, centre = saddle.lowest(), saddle.centre
    assert saddle.predict(lowest[None]) < saddle.predict(centre[None])
    far = (1 - 2 * centre[1]) / 2  # as far as if it bent up
    np.testing.assert_allclose(lowest, [0, centre[1] - far], atol=1e-8)


def test_the_model_is_of_the_newest_costs_and_of_their_best():
    old = samples(lambda x: -100 * np.sum(x, axis=1), 200, 2)
    cost, least = bowl(2)
    new = samples(cost, 40, 2)
    worst = np.argsort(new.costs)[-8:]
    new.costs[worst] += 1e6
    joined = CostSamples(*map(np.concatenate, zip(old, new, strict=True)))
    np.testing.assert_allclose(quadratic.fit(joined, 40).lowest(), least, rtol=1e-8)


def test_the_concordance_is_kendalls_tau_of_the_newest():
    cost, _ = bowl(3)
    all_costs = samples(cost, 30, 3)
    model = quadratic.fit(CostSamples(all_costs.points[:8], all_costs.costs[:8]), 0)
    predicted = model.predict(all_costs.points[-20:])
    expected: Any = kendalltau(all_costs.costs[-20:], predicted)
    assert quadratic.concordance(model, all_costs, 20) == pytest.approx(expected.statistic)
    few = CostSamples(all_costs.points[:2], all_costs.costs[:2])
    assert quadratic.concordance(model, few, 0) == 0


# The search.


def test_a_model_saves_evaluations(monkeypatch):
    def medians(cost: Any) -> list[float]:
        costs = []
        for few in (one.FEW, 0):
            monkeypatch.setattr(one, "FEW", few)
            runs = [de.minimize(cost, BOX, evaluations=400, seed=seed) for seed in range(3)]
            costs.append(np.median([run.cost for run in runs]))
            monkeypatch.undo()
        return costs

    with_it, without = medians(lambda x: float(np.logspace(0, 3, 5) @ (x - 1) ** 2))
    assert with_it < 1e-9 * without
    with_it, without = medians(rosenbrock)
    assert with_it < 0.1 * without


def test_the_best_by_the_model_are_evaluated_first():
    cost, _ = bowl(5)
    space = make_space([(0.0, 1.0)] * 5)
    random = np.random.default_rng(0)
    polish = cma.begin(random, np.full(5, 0.5), np.full(5, 0.2), 20)
    state = assisted.begin(space, polish, samples(cost, 60, 5))
    costs = cost(state.points)
    assert state.places.tolist() == [np.argmin(costs)]
    state = assisted.learned(space, state, state.proposals, costs[state.places])
    after, best = assisted.advance(random, space, state)
    assert best == costs.min()  # the model has the others
    assert not np.shares_memory(after.polish.points, state.polish.points)
    assert len(after.samples.costs) == 61


def test_where_the_model_knows_nothing_whole_generations_are_evaluated():
    random = np.random.default_rng(0)
    result = de.minimize(lambda x: random.uniform(), [(0, 1)] * 5, evaluations=200)
    ends = result.history[:, 0]
    assert np.diff(ends).max() >= 3  # more and more of a generation at a time


def test_a_unit_and_an_order_of_the_parameters_change_nothing():
    first = de.minimize(rosenbrock, BOX, evaluations=150, seed=3)
    scaled = de.minimize(lambda x: 2.0**30 * rosenbrock(x), BOX, evaluations=150, seed=3)
    np.testing.assert_array_equal(first.population, scaled.population)


def test_a_search_goes_on_bit_for_bit_in_the_middle_of_a_generation():
    whole = de.optimize.Search(BOX, evaluations=120, seed=1)
    cut = de.optimize.Search(BOX, evaluations=120, seed=1)
    while (points := whole.ask(1)) is not None:
        whole.tell([rosenbrock(points[0])])
        points = cut.ask(1)
        assert points is not None
        cut = pickle.loads(pickle.dumps(cut))
        cut.tell([rosenbrock(points[0])])
    np.testing.assert_array_equal(whole.result.population, cut.result.population)


@pytest.mark.parametrize("workers", [3, 12])
def test_costs_count_in_whatever_order_they_come(workers):
    search = de.optimize.Search(BOX, evaluations=300, seed=0)
    random, waiting = np.random.default_rng(0), []
    while (points := search.ask(workers - len(waiting))) is not None:
        waiting += list(points)
        assert waiting
        point = waiting.pop(random.integers(len(waiting)))
        search.tell([rosenbrock(point)], [point])
    search.tell([rosenbrock(point) for point in waiting], waiting)
    assert search.result.evaluations == 300
    search.extend(301)
    assert search.ask() is not None  # the search has taken in what it knows
    state: Any = search._state
    assert len(state.assisted.samples.costs) == 300
    assert search.result.cost < 4.0


def test_workers_are_not_idle_after_each_evaluation(monkeypatch):
    monkeypatch.setattr(evaluate, "PATIENCE", 0.2)
    times: list[float] = []

    def cost(x: np.ndarray) -> float:
        times.append(time.monotonic())
        time.sleep(0.25)
        times.append(time.monotonic())
        return rosenbrock(x)

    with ThreadPoolExecutor(4) as threads:
        de.minimize(cost, BOX, evaluations=40, executor=threads)
    assert 0.8 * 4 * (max(times) - min(times)) < 40 * 0.25


def test_failures_are_survived_and_not_learned_from():
    def cost(x: np.ndarray) -> float:
        if x[0] > 0.5:
            raise ArithmeticError("too large")
        return float(np.sum(abs(x) ** 1.5))

    result = de.minimize(cost, BOX, evaluations=400, seed=0)
    assert 0 < result.failures < 200
    assert result.cost < 1e-3


def test_huge_costs_are_survived():
    random, huge = np.random.default_rng(0), 1e307
    result = de.minimize(lambda x: random.choice([-huge, huge]), BOX, evaluations=100)
    assert result.evaluations == 100
    assert result.cost == -huge


def test_a_model_helps_with_numbers_that_all_may_be_evaluated():
    assert one.is_assisted(make_space(BOX, integers=[2]), is_constrained=False)
    assert not one.is_assisted(make_space(BOX), is_constrained=True)
    assert not one.is_assisted(make_space(BOX, integers=range(5)), is_constrained=False)
    assert not one.is_assisted(make_space({"k": ["a", "b"], "x": (0, 1)}), is_constrained=False)
    assert not one.is_assisted(make_space(BOX[:1]), is_constrained=False)
    assert not one.is_assisted(make_space(BOX * 21), is_constrained=False)


def test_more_evaluations_begin_with_a_stage_and_go_on_without_the_model():
    search, phases = de.optimize.Search(BOX, evaluations=1500, seed=0), []
    random = np.random.default_rng(0)
    while (points := search.ask()) is not None:
        state: Any = search._state
        if state.phase not in phases:
            phases.append(state.phase)
            if state.phase == "local":
                assert search.evaluations == pytest.approx(one.FEW * 5, abs=20)
        search.tell(random.uniform(size=len(points)))
    assert phases == ["guesses", "global", "assisted", "local"]
    few: Any = de.optimize.Search(BOX, evaluations=500)
    np.testing.assert_array_equal(few.ask(), [[0.0] * 5])  # the middle of the box
    few.tell([1.0])
    assert few.ask() is not None
    assert few._state.phase == "assisted"


def test_whole_numbers_are_found():
    def cost(x: np.ndarray) -> float:
        return float((x[0] - 3) ** 2 + (x[1] - 11) ** 2 + 10 * (x[2] - 0.3) ** 2 + abs(x[3]))

    bounds = [(0, 15), (0, 15), (-1.0, 1.0), (-1.0, 1.0)]
    result = de.minimize(cost, bounds, evaluations=100, integers=[0, 1])
    assert result.x[:2].tolist() == [3, 11]
    assert result.cost < 0.05


def test_a_point_that_is_injected_is_no_farther_than_draws():
    random = np.random.default_rng(0)
    polish = cma.begin(random, np.full(4, 0.5), np.full(4, 0.1), 8)
    far = cma.injected(polish, np.array([0.9, 0.5, 0.5, 0.5]))
    np.testing.assert_allclose(far.points[0], [0.5 + 0.1 * 2, 0.5, 0.5, 0.5])
    near = np.array([0.55, 0.5, 0.45, 0.5])
    np.testing.assert_allclose(cma.injected(polish, near).points[0], near)
    np.testing.assert_array_equal(far.points[1:], polish.points[1:])
