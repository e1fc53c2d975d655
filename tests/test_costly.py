"""Searches of costly functions: categories, known points, constraints, noise, journals, workers."""

import itertools
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de
from diffevo_jax.checks import InputError
from diffevo_jax.optimize import ask_tell, choice, one
from diffevo_jax.optimize.arrays import CostSamples
from diffevo_jax.optimize.space import as_taken, columns, flat, make_space, parameters, point_of

PLANE = [(-4.0, 4.0)] * 2
MIXED: dict[str, Any] = {
    "rate": (1e-4, 1.0),
    "kernel": ["rbf", "poly", "linear"],
    "layers": range(1, 9),
    "units": (32, 256, 32),
    "drop": (0.0, 0.5, 0.1),
    "shuffle": [True, False],
    "metric": "f1",
}
NESTED: dict[str, Any] = {
    "model": choice(
        {"kind": "svc", "C": (1e-2, 1e2)},
        {"kind": "forest", "trees": range(10, 500), "depth": choice(None, (1.0, 9.0))},
    ),
    "scale": [True, False],
}
# Options that have parameters of one name, and those that nothing but their ranges tells apart.
ALIKE: dict[str, Any] = {
    "model": choice({"kind": "svc", "C": (1e-2, 1e2)}, {"kind": "ridge", "C": ["a", "b"]}),
    "n": choice((0.0, 1.0), (5.0, 10.0)),
}


def sphere(x: np.ndarray) -> float:
    return float(np.sum((x - 1) ** 2))


def jax_sphere(x: Any) -> jax.Array:
    return jnp.sum((x - 1.0) ** 2)


def mixed(p: dict[str, Any]) -> float:
    far = np.log10(p["rate"] / 0.01) ** 2 + (p["layers"] - 5) ** 2 + (p["units"] - 128) ** 2 / 1e4
    return float(far + {"rbf": 1, "poly": 0, "linear": 2}[p["kernel"]] + abs(p["drop"] - 0.3))


# Parameters as people have them.


def test_categories_whole_numbers_steps_and_fixed_values_arrive_as_what_they_are():
    def cost(p: dict[str, Any]) -> float:
        assert type(p["layers"]) is int
        assert type(p["units"]) is int
        assert p["units"] % 32 == 0
        assert 0 <= p["drop"] <= 0.5
        assert p["shuffle"] in (True, False)
        assert p["metric"] == "f1"
        return mixed(p)

    result = de.minimize(cost, MIXED, evaluations=300, log=["rate"])
    assert not result.failures
    assert (result.x["kernel"], result.x["layers"], result.x["units"]) == ("poly", 5, 128)
    assert set(result.population["kernel"]) == {"rbf", "poly", "linear"}
    assert "kernel=poly" in repr(result)


def test_a_parameter_that_is_all_there_is_has_a_name():
    result = de.minimize(lambda x: len(x), choice("long", "short", "longest"), evaluations=3)
    assert list(result.table) == ["x"]


def test_options_may_be_templates_of_their_own():
    def cost(p: dict[str, Any]) -> float:
        model = p["model"]
        if model["kind"] == "svc":
            assert set(model) == {"kind", "C"}
            return abs(np.log10(model["C"]))
        assert set(model) == {"kind", "trees", "depth"}
        return 0.5 + abs(model["trees"] - 50) / 50

    result = de.minimize(cost, NESTED, evaluations=200, log=["model/C"])
    assert not result.failures
    assert result.x["model"]["kind"] == "svc"
    assert result.cost < 0.05
    assert result.population[0].keys() == {"model", "scale"}
    trees = result.table["model/trees"]
    is_forest = result.table["model"] == "forest"
    assert np.array_equal([value is not None for value in trees], is_forest)


@pytest.mark.parametrize("bounds", [MIXED, NESTED, ALIKE, PLANE, {"w": (np.zeros(2), 1)}])
def test_a_point_is_the_same_after_any_of_its_forms(bounds):
    space = make_space(bounds)
    x = parameters(space, np.random.default_rng(0).uniform(size=(50, space.num_genes)))
    table = columns(space, x)
    for place, row in enumerate(x):
        point = as_taken(space, row)
        assert np.array_equal(flat(space, point), row)
        named = {name: values[place] for name, values in table.items()}
        assert np.array_equal(flat(space, point_of(space, named)), row)


def test_each_option_has_an_equal_share_whatever_its_place():
    space = make_space({"k": list("abcde"), "two": ["x", "y"]})
    x = parameters(space, np.random.default_rng(1).uniform(size=(20_000, space.num_genes)))
    for column, options in ((0, 5), (1, 2)):
        shares = np.bincount(x[:, column].astype(int), minlength=options) / len(x)
        assert np.all(abs(shares - 1 / options) < 0.015)  # five standard errors


def test_a_small_discrete_space_is_evaluated_once_a_point_and_ends():
    seen = []

    def cost(p: dict[str, Any]) -> float:
        seen.append((p["a"], p["b"]))
        return p["a"] + (p["b"] == "x")

    result = de.minimize(cost, {"a": range(4), "b": ["x", "y", "z"]}, evaluations=100)
    assert len(seen) == len(set(seen)) == result.evaluations == 12
    assert (result.cost, result.message) == (0, "all 12 points are evaluated")


def test_a_large_discrete_space_never_pays_twice():
    seen = []

    def cost(p: dict[str, Any]) -> float:
        seen.append(tuple(p.values()))
        return sum((value - 3) ** 2 for value in p.values())

    de.minimize(cost, {name: range(8) for name in "abcd"}, evaluations=400)
    assert len(seen) == len(set(seen)) == 400


BAD_BOUNDS: dict[str, Any] = {
    "one option": {"k": ["a"]},
    "an option twice": {"k": ["a", "b", "a"]},
    "two numbers": {"k": [16, 32]},
    "a range of one": {"k": range(1, 2)},
    "a step beyond its range": {"k": (0, 1, 3)},
    "a text as an end": {"k": ("a", 2)},
    "all fixed": {"k": 3},
}


@pytest.mark.parametrize("case", BAD_BOUNDS)
def test_bad_parameters_are_named(case, refuses):
    with refuses("bounds"):
        de.minimize(mixed, BAD_BOUNDS[case], evaluations=100)


def test_jax_and_batches_are_refused_where_options_nest(refuses):
    with refuses("jit"):
        de.minimize(mixed, MIXED, evaluations=100, jit=True)
    with refuses("batched"):
        de.minimize(mixed, NESTED, evaluations=100, batched=True)
    with refuses("bounds"):
        de.optimize.search(jax.random.key(0), mixed, MIXED, evaluations=1000)  # pyright: ignore


# What is known.


def test_a_step_searches_around_a_guess():
    def cost(x: np.ndarray) -> float:
        return sphere(x) + float(np.sum(abs(x - 1) ** 0.5))

    settings: Any = {"evaluations": 200, "seed": 2}
    start = np.full(8, 1.001)
    around = de.minimize(cost, [(-4, 4)] * 8, initial=start, step=0.0002, **settings)
    assert cost(around.population[0]) == cost(start)
    assert np.all(abs(around.population[:10] - start) < 0.016)  # ten deviations
    whole = de.minimize(cost, [(-4, 4)] * 8, initial=start, **settings)
    assert around.cost < whole.cost < cost(start) + 1e-12


def test_several_first_points_are_evaluated_to_the_bit():
    points = [[0.1, 0.7], [1 / 3, -2.2]]
    result = de.minimize(sphere, PLANE, evaluations=60, initial=points)
    np.testing.assert_array_equal(result.population[:2], points)
    best = {"rate": 0.01, "kernel": "poly", "layers": 5, "units": 128, "drop": 0.3}
    two = [best | {"shuffle": True, "metric": "f1"}, best | {"shuffle": False, "metric": "f1"}]
    result = de.minimize(mixed, MIXED, evaluations=60, initial=two)
    assert list(result.population["shuffle"][:2]) == [True, False]


def test_what_is_known_is_not_paid_for_and_leads_the_search():
    rng = np.random.default_rng(0)

    def cost(x: np.ndarray) -> float:
        return float(np.sum(abs(x - 1) ** 1.5))

    known = [(x, cost(x)) for x in rng.uniform(0.5, 1.5, (60, 6))]
    settings: Any = {"evaluations": 80, "seed": 1}
    with_it = de.minimize(cost, [(-4, 4)] * 6, known=known, **settings)
    without = de.minimize(cost, [(-4, 4)] * 6, **settings)
    assert with_it.evaluations == 80
    assert with_it.cost < 0.1 * without.cost
    assert de.minimize(sphere, [(-4, 4)] * 6, known=[(np.ones(6), 0.0)], **settings).cost == 0


def test_known_points_come_from_tables_and_journals(tmp_path):
    path = tmp_path / "search.jsonl"
    first = de.minimize(mixed, MIXED, evaluations=60, journal=path)
    for known in (path, str(path), Study(first), Table(first)):
        again = de.minimize(mixed, MIXED, evaluations=60, known=known, seed=1)
        assert again.cost <= first.cost


def test_what_was_pruned_is_not_known():
    study = Study(de.minimize(mixed, MIXED, evaluations=60))
    study.trials[7] = Trial(study.trials[7].params, -99.0, "PRUNED")
    assert de.minimize(mixed, MIXED, evaluations=60, known=study, seed=1).cost >= 0


def test_a_study_of_another_direction_is_refused(refuses):
    study = Study(de.minimize(mixed, MIXED, evaluations=60))
    with refuses("known"):
        de.maximize(mixed, MIXED, evaluations=60, known=study)
    study.directions = [State("MINIMIZE"), State("MAXIMIZE")]
    with refuses("known"):
        de.optimize.Search(MIXED, evaluations=60, known=study)


def test_a_journal_of_another_direction_is_refused(tmp_path, refuses):
    path = tmp_path / "search.jsonl"
    first = de.maximize(sphere, PLANE, evaluations=30, journal=path)
    with refuses("known"):
        de.minimize(sphere, PLANE, evaluations=30, known=path)
    assert de.maximize(sphere, PLANE, evaluations=30, known=path, seed=1).value >= first.value
    lowest = tmp_path / "lowest.jsonl"
    de.minimize(sphere, PLANE, evaluations=30, journal=lowest)
    with refuses("known"):
        de.maximize(sphere, PLANE, evaluations=30, known=lowest)


class State(NamedTuple):
    name: str


class Trial:
    def __init__(self, params, value, state="COMPLETE"):
        self.params, self.values, self.state = params, [value], State(state)


class Study:
    """What Optuna's has of it."""

    def __init__(self, result):
        names = list(result.table)
        rows = zip(*result.table.values(), strict=True)
        costs = result.costs
        self.directions = [State("MINIMIZE")]
        self.trials = [
            Trial(dict(zip(names, row, strict=True)), c) for row, c in zip(rows, costs, strict=True)
        ]


class Table:
    """What pandas' has of it."""

    def __init__(self, result):
        self._result, self.columns = result, [*result.table, "cost"]

    def to_dict(self, orient: str) -> list[dict]:
        assert orient == "records"
        columns = {**self._result.table, "cost": self._result.costs}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_a_table_of_a_maximisation_is_known_to_another():
    settings: Any = {"evaluations": 40}
    first = de.maximize(lambda x: -sphere(x), PLANE, **settings)
    again = de.maximize(lambda x: -sphere(x), PLANE, known=first.to_pandas(), seed=1, **settings)
    assert again.value >= first.value


def test_a_function_that_exits_is_a_failure_at_its_point():
    def cost(x: np.ndarray) -> float:
        if next(number) == 20:
            sys.exit(3)
        return sphere(x)

    number = itertools.count()
    result = de.minimize(cost, PLANE, evaluations=60)
    assert (result.evaluations, result.failures) == (60, 1)
    assert "SystemExit: 3" in result.message


def test_known_points_outside_are_named(refuses):
    with refuses("known, point 1"):
        de.minimize(sphere, PLANE, evaluations=60, known=[([0, 0], 1.0), ([9, 0], 2.0)])
    with refuses("known, cost of point 0"):
        de.minimize(sphere, PLANE, evaluations=60, known=[([0, 0], "low")])
    with refuses("known"):
        de.minimize(sphere, PLANE, evaluations=60, known=7)
    with refuses("step"):
        de.minimize(sphere, PLANE, evaluations=60, step=0.1)


# Constraints and noise.


def test_nothing_that_a_constraint_forbids_is_paid_for():
    def cost(x: np.ndarray) -> float:
        assert x[0] >= 2
        return float(np.sum(x**2))

    result = de.minimize(cost, [(-4, 4)] * 3, evaluations=300, constraints=[lambda x: 2 - x[0]])
    assert not result.failures
    assert result.cost < 4.01
    assert result.feasible.all()


def test_a_constraint_that_holds_nearly_nowhere_is_found():
    settings: Any = {"evaluations": 200, "constraints": [lambda x: abs(x[0] - 1) - 1e-5]}
    result = de.minimize(sphere, [(-4, 4)] * 3, **settings)
    assert result.feasible.all()
    assert abs(result.x[0] - 1) <= 1e-5


def test_constraints_that_come_with_the_cost_put_the_feasible_first():
    def cost(x: np.ndarray) -> tuple[float, list[float]]:
        return float(np.sum(x**2)), [2 - x[0], x[1] + 1]

    result = de.minimize(cost, [(-4, 4)] * 3, evaluations=500, constraints="returned")
    assert result.x[0] >= 2
    assert result.x[1] <= -1
    assert result.cost < 5.2
    assert result.costs[~result.feasible].min() < result.cost  # a lower cost does not count
    never = de.minimize(
        lambda x: (sphere(x), 1 + abs(x[0])), PLANE, evaluations=60, constraints="returned"
    )
    assert "no point satisfies all constraints" in never.message


def test_bad_constraints_are_described(refuses, monkeypatch):
    monkeypatch.setattr(ask_tell, "TRIES", 3)
    with refuses("constraints"):
        de.minimize(sphere, PLANE, evaluations=60, constraints=[lambda x: 9 - x[0]])
    with refuses("constraints"):
        de.minimize(sphere, PLANE, evaluations=60, constraints="x[0] > 1")  # pyright: ignore
    with refuses("initial"):
        de.minimize(sphere, PLANE, evaluations=60, constraints=[lambda x: x[0]], initial=[1, 1])
    with refuses("cost_fn"):
        de.minimize(sphere, PLANE, evaluations=60, constraints="returned")


def test_a_noisy_search_gives_an_honest_cost():
    true, given, errors = [], [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        result = de.minimize(
            lambda x, rng=rng: sphere(x) + rng.normal(),
            PLANE,
            evaluations=300,
            noisy=True,
            seed=seed,
        )
        true.append(sphere(result.x))
        given.append(result.cost)
        errors.append(result.standard_error)
        assert result.evaluations == 300
    bias = np.mean(np.array(given) - true)
    assert abs(bias) < 4 * np.sqrt(np.mean(np.square(errors)) / 12)
    assert np.mean(true) < 0.3
    assert (
        0.1 < np.mean(errors) < 0.3
    )  # 60 evaluations again, of which the last two or one have most


# Journals.


def test_a_journal_goes_on_where_it_was_and_pays_for_nothing_twice(tmp_path):
    whole = de.minimize(mixed, MIXED, evaluations=48)
    path = tmp_path / "search.jsonl"
    calls = []

    def dying(p: dict[str, Any]) -> float:
        calls.append(p)
        if len(calls) % 13 == 0:
            raise KeyboardInterrupt
        return mixed(p)

    result = de.minimize(dying, MIXED, evaluations=48, journal=path)
    while result.message == "interrupted":
        result = de.minimize(dying, MIXED, evaluations=48, journal=path)
    assert len(calls) == 48 + 3  # those that were interrupted
    assert list(result.costs) == list(whole.costs)
    np.testing.assert_array_equal(result.history, whole.history)
    again = de.minimize(dying, MIXED, evaluations=48, journal=path)
    assert len(calls) == 51
    assert again.cost == whole.cost


def test_a_larger_budget_goes_on_and_is_resumed_to_the_bit(tmp_path):
    paths = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    results = []
    for path, budgets in zip(paths, ([60], [60, 120]), strict=True):
        for evaluations in budgets:
            de.minimize(sphere, PLANE, evaluations=evaluations, journal=path)
        result = de.minimize(sphere, PLANE, evaluations=200, journal=path)
        results.append(result)
        assert result.evaluations == 200
        assert result.cost < 1e-4
        assert de.minimize(sphere, PLANE, evaluations=200, journal=path).cost == result.cost
    np.testing.assert_array_equal(results[0].costs[:60], results[1].costs[:60])


DYING = """
import os, sys, time
import numpy as np
import diffevo_jax as de

def cost(x):
    with open(sys.argv[2], "a") as file:
        file.write("x\\n")
    time.sleep(0.005)
    return float(np.sum((x - 1) ** 2))

result = de.minimize(cost, [(-4.0, 4.0)] * 2, evaluations=120, journal=sys.argv[1])
print(repr(result.costs.tobytes().hex()))
"""


@pytest.mark.parametrize("moments", [[2.5], pytest.param(None, marks=pytest.mark.slow)])
def test_a_search_that_is_killed_loses_nothing(tmp_path, moments):
    path, calls = tmp_path / "search.jsonl", tmp_path / "calls"
    moments = moments or list(np.random.default_rng(0).uniform(0, 4, 50))
    command = [sys.executable, "-c", DYING, str(path), str(calls)]
    for moment in moments:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = subprocess.run(command, check=True, capture_output=True, text=True)
    whole = de.minimize(sphere, PLANE, evaluations=120)
    assert last.stdout.strip() == repr(whole.costs.tobytes().hex())
    # A kill in the middle of an evaluation loses that one.
    assert 120 <= calls.read_text().count("x") <= 120 + len(moments)


def test_a_journal_of_another_search_is_refused(tmp_path, refuses):
    path = tmp_path / "search.jsonl"
    de.minimize(sphere, PLANE, evaluations=30, journal=path)
    before = path.read_bytes()
    others: list[dict[str, Any]] = [{"bounds": [(-4.0, 5.0)] * 2}, {"seed": 1}, {"noisy": True}]
    for settings in others:
        with pytest.raises(InputError) as error:
            de.minimize(sphere, **{"bounds": PLANE, "evaluations": 30, "journal": path} | settings)
        assert error.value.path == "journal"
    with pytest.raises(InputError):
        de.maximize(sphere, PLANE, evaluations=30, journal=path)
    assert path.read_bytes() == before


def test_a_journal_of_other_numbers_is_known_beforehand(tmp_path):
    path = tmp_path / "search.jsonl"
    de.minimize(sphere, PLANE, evaluations=60, journal=path)
    lines = path.read_text().splitlines()
    record = json.loads(lines[20])
    record["x"][0] += 1e-12  # as another machine's rounding
    lines[20] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n")
    result = de.minimize(sphere, PLANE, evaluations=100, journal=path)
    assert result.evaluations == 40
    assert result.cost < 1e-2
    assert de.minimize(sphere, PLANE, evaluations=100, journal=path).cost == result.cost


def test_what_breaks_constraints_is_no_best_after_a_restart_or_as_known(tmp_path):
    def cost(x: np.ndarray) -> tuple[float, float]:
        return sphere(x), np.nan if x[1] < 0 else x[0]

    path, settings = tmp_path / "search.jsonl", dict[str, Any](constraints="returned")
    first = de.minimize(cost, PLANE, evaluations=60, journal=path, **settings)
    assert np.nanmin(first.costs) < 1 < first.cost
    again = de.minimize(cost, PLANE, evaluations=60, journal=path, **settings)
    np.testing.assert_array_equal(again.feasible, first.feasible)
    assert again.cost == first.cost
    known = de.minimize(cost, PLANE, evaluations=60, known=path, seed=1, **settings)
    assert 1 < known.cost <= first.cost
    lines = path.read_text().splitlines()
    record = json.loads(lines[20])
    record["x"][0] += 1e-12  # as another machine's rounding
    lines[20] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n")
    result = de.minimize(cost, PLANE, evaluations=100, journal=path, **settings)
    assert 1 < result.cost <= first.cost


@pytest.mark.parametrize("how", ["alone", "batched", "executor"])
def test_a_journal_says_what_failures_raised_and_how_long_each_took(tmp_path, how):
    def cost(x: np.ndarray) -> Any:
        time.sleep(0.001)
        if np.any(x[..., 0] > 2):
            raise ValueError("too far")
        return np.sum(x**2, axis=-1)

    path = tmp_path / "search.jsonl"
    settings: dict[str, Any] = {"evaluations": 30, "journal": path, "batched": how == "batched"}
    if how == "executor":
        with ThreadPoolExecutor(2) as executor:
            result = de.minimize(cost, PLANE, executor=executor, **settings)
    else:
        result = de.minimize(cost, PLANE, **settings)
    records = [json.loads(line) for line in path.read_text().splitlines()[2:]]
    failed = [record.get("error") for record in records if record["cost"] is None]
    assert failed == ["ValueError: too far"] * result.failures != []
    answered = [record for record in records if record["cost"] is not None]
    assert not any("error" in record for record in answered)
    if how == "batched":
        assert not any("seconds" in record for record in records)
    else:
        assert all(0.001 <= record["seconds"] < 5 for record in answered)


# Uneven work.


def uneven(x: np.ndarray) -> float:
    time.sleep(0.05 * float(x[0] % 1))
    return sphere(x)


def test_a_journal_of_workers_goes_on_to_the_bit(tmp_path):
    path = tmp_path / "search.jsonl"
    with ThreadPoolExecutor(4) as executor:
        first = de.minimize(uneven, PLANE, evaluations=80, executor=executor, journal=path)
        again = de.minimize(uneven, PLANE, evaluations=80, executor=executor, journal=path)
        assert first.evaluations == 80
        np.testing.assert_array_equal(again.costs, first.costs)
        np.testing.assert_array_equal(again.history, first.history)
        longer = de.minimize(uneven, PLANE, evaluations=120, executor=executor, journal=path)
    np.testing.assert_array_equal(np.sort(longer.costs[:80]), np.sort(first.costs))
    assert longer.cost <= first.cost


def test_no_worker_waits_for_the_slowest():
    search = de.optimize.Search(PLANE, evaluations=100)
    slowest = search.ask(1)
    given = 1
    while (points := search.ask(1)) is not None and len(points):
        search.tell([sphere(points[0])], points)
        given += 1
    assert given == 100  # generations went by
    search.tell([sphere(slowest[0])], slowest)
    assert search.result.evaluations == 100
    assert search.result.cost < 1e-3


def test_an_option_that_constraints_nearly_forbid_is_searched_as_the_others_are():
    bounds = {"a": (0.0, 1.0), "b": (0.0, 1.0), "k": ["x", "y", "z"]}

    def cost(p: dict[str, Any]) -> float:
        return (p["a"] - 0.02) ** 2 + (p["b"] - 0.07) ** 2 + (p["k"] != "y")

    def narrow(p: dict[str, Any]) -> float:  # of even draws one in a hundred would do
        return max(p["a"], p["b"]) - 0.1 if p["k"] == "y" else -1.0

    result = de.minimize(cost, bounds, evaluations=40, constraints=[narrow])
    options = result.table["k"]
    assert list(options[1:12]).count("y") in (3, 4)  # of the first sample
    assert list(options[12:]).count("y") >= 9
    assert result.cost < 1e-3


def test_options_with_parameters_of_their_own_begin_with_an_even_sample_of_them():
    bounds = {"m": choice({"a": (0.0, 1.0)}, {"b": (0.0, 1.0)}, {"c": (0.0, 1.0)})}
    search = de.optimize.Search(bounds, evaluations=100)
    seen = []
    for _ in range(13):
        (point,) = search.ask(1)
        seen += point["m"].values()
        search.tell([0.0], [point])
    assert 0.2 < np.mean(seen) < 0.8
    assert len(set(seen)) == 13


def test_costs_that_come_late_are_taken_in_by_the_model_with_what_is_known():
    bounds, known = {"a": (0.0, 1.0), "k": ["x", "y", "z"]}, [({"a": 0.5, "k": "y"}, 1.04)]

    def cost(point: dict[str, Any]) -> float:
        return (point["a"] - 0.3) ** 2 + "xyz".index(point["k"])

    search = de.optimize.Search(bounds, evaluations=60, known=known)
    waiting = []
    while (asked := search.ask(1)) is not None or waiting:
        if asked is not None:
            waiting.append({name: values[0] for name, values in asked.items()})
        if asked is None or len(waiting) > 3:
            point = waiting.pop(len(waiting) // 2)  # neither the first nor the last
            search.tell([cost(point)], [point])
    assert search.result.evaluations == 60
    assert search.result.cost < 1e-2


def test_a_first_point_that_is_moved_takes_its_values_with_it():
    space, nothing = make_space({"a": (0.0, 1.0), "k": ["x", "y", "z"]}), np.empty((0, 4))
    old, new = np.full((1, 4), 0.2), np.array([[0.9, 0.1, 0.8, 0.3]])
    state = one.begin(
        np.random.default_rng(0),
        space,
        old,
        parameters(space, old),
        CostSamples(nothing, np.empty(0)),
        0,
        40,
        np.zeros(4),
        is_constrained=False,
        allows=lambda x: np.ones(len(x), bool),
    )
    moved = one.replaced(state, np.array([0]), new)
    np.testing.assert_array_equal(moved.guess_x, [[0.9, 1]])  # the second option


def test_seconds_end_a_search():
    begin = time.monotonic()
    result = de.minimize(uneven, PLANE, evaluations=10**6, seconds=1.0)
    assert time.monotonic() - begin < 3
    assert result.message == "1 seconds are over"
    assert result.evaluations > 5


def test_an_executor_of_ones_own_is_waited_for_by_polls():
    class Job:
        def __init__(self, value):
            self.value, self.ready = value, time.monotonic() + 0.01

        def done(self) -> bool:
            return time.monotonic() > self.ready

        def result(self) -> Any:
            return self.value

    class Cluster:
        def submit(self, function, x) -> Job:
            return Job(function(x))

    result = de.minimize(sphere, PLANE, evaluations=30, executor=Cluster(), workers=3)
    assert result.evaluations == 30


def test_a_point_beyond_its_time_on_an_executor_is_a_failure():
    def cost(x: np.ndarray) -> float:
        time.sleep(1.0 if next(number) == 3 else 0.0)
        return sphere(x)

    number = itertools.count()
    with ThreadPoolExecutor(2) as executor:
        result = de.minimize(cost, PLANE, evaluations=30, executor=executor, timeout=0.3)
    assert result.failures >= 1
    assert "TimeoutError: over 0.3 s" in result.message


def test_a_search_takes_costs_in_any_order_and_a_part_of_them():
    search = de.optimize.Search(PLANE, evaluations=60, seed=3)
    points = [search.ask(1) for _ in range(3)]
    search.tell([sphere(points[2][0])], points[2])
    search.tell([sphere(points[0][0])], points[0])
    with pytest.raises(InputError) as error:
        search.tell([1.0], points[0])
    assert error.value.path == "x"
    assert "known already" in str(error.value)
    with pytest.raises(InputError) as error:
        search.tell([1.0], [[0.123, 0.456]])
    assert "ask did not give" in str(error.value)
    search.tell([sphere(points[1][0])], points[1])
    while (asked := search.ask(2)) is not None:
        for point in asked[::-1]:
            search.tell([sphere(point)], [point])
    assert search.result.evaluations == 60
    assert search.result.cost < 0.1


# Side effects.


def test_what_has_side_effects_is_not_compiled():
    log: list[Any] = []
    counts = {"calls": 0}

    class Cost:
        number = 0

        def __call__(self, x: np.ndarray) -> Any:
            self.number += 1
            return jax_sphere(x)

    def appends(x: np.ndarray) -> Any:
        log.append(x)
        return jax_sphere(x)

    def counts_up(x: np.ndarray) -> Any:
        counts["calls"] += 1
        return jax_sphere(x)

    called = Cost()
    for cost in (appends, counts_up, called):
        de.minimize(cost, PLANE, evaluations=100)
    assert (len(log), counts["calls"], called.number) == (100, 100, 100)
