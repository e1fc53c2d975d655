"""Tables and pictures of searches: of results, and of journals by `diffevo-jax search`."""

import csv
import json
import sys
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

import diffevo_jax as de
from diffevo_jax.drawings import search as picture
from diffevo_jax.optimize import Result, choice, table
from diffevo_jax.optimize.known import known_points
from diffevo_jax.optimize.space import columns, make_space
from diffevo_jax.runs.cli import app
from diffevo_jax.runs.report import search as report

# Categories, options with parameters of their own, arrays.
MIXED: dict[str, Any] = {
    "layer": {"rate": (1e-5, 1e-1)},
    "model": choice(
        {"kind": "adam", "clip": (0.1, 10.0)},
        {"kind": "sgd", "clip": (1.0, 100.0), "momentum": (0.0, 1.0)},
    ),
    "size": range(1, 9),
    "slow": [True, False],
    "w": (-np.ones(2), np.ones(2)),
}
NAMES = ["layer/rate", "model", "model/clip", "model/momentum", "size", "slow", "w[0]", "w[1]"]


class Rates(NamedTuple):
    fast: Any
    slow: Any


def mixed(p: dict[str, Any]) -> float:
    if p["size"] == 8:
        raise ValueError("no memory\nfor 8")
    return float((np.log10(p["layer"]["rate"]) + 3) ** 2 + p["slow"] + abs(p["w"][0]))


def constrained(x: np.ndarray) -> tuple[float, list[float]]:
    if x[0] < -3:
        raise ValueError("too far")
    return float(np.sum(x**2)), [1 - x[0]]


@pytest.fixture(scope="module", name="journal")
def _journal(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("searches") / "mixed.jsonl"


@pytest.fixture(scope="module", name="result")
def _result(journal) -> Result:
    return de.minimize(mixed, MIXED, evaluations=80, log=["layer/rate"], journal=journal)


# Tables


def test_a_table_has_a_row_an_evaluation_and_a_column_a_parameter(result):
    pytest.importorskip("pandas")
    frame = result.to_pandas()
    assert list(frame) == [*NAMES, "cost", "feasible"]
    assert len(frame) == 80
    assert frame["size"].dtype.kind == "i"
    assert frame["slow"].dtype == bool
    assert frame["model/momentum"].dtype == float
    assert list(frame["model/momentum"].isna()) == list(frame["model"] == "adam")
    assert not frame["model/clip"].isna().any()  # both have one
    for row, point in zip(frame.to_dict("records"), result.population, strict=True):
        assert row["w[1]"] == point["w"][1]
        assert row["model/clip"] == point["model"]["clip"]
    np.testing.assert_array_equal(frame["cost"], result.costs)
    assert frame["cost"].isna().sum() == result.failures > 0


def test_a_table_of_a_maximisation_has_values_and_says_what_is_feasible():
    pytest.importorskip("pandas")
    settings: Any = {"evaluations": 30, "constraints": "returned"}
    result = de.maximize(lambda x: (x[0], x[1]), [(-1, 1)] * 2, **settings)
    frame = result.to_pandas()
    assert list(frame) == ["x[0]", "x[1]", "value", "feasible"]
    np.testing.assert_array_equal(frame["value"], frame["x[0]"])
    np.testing.assert_array_equal(frame["feasible"], frame["x[1]"] <= 0)


def test_what_a_table_calls_infeasible_is_not_known():
    pytest.importorskip("pandas")
    settings: Any = {"evaluations": 60, "constraints": "returned"}
    first = de.minimize(constrained, [(-4, 4)] * 2, **settings)
    assert np.nanmin(first.costs) < 0.5 < first.cost
    again = de.minimize(constrained, [(-4, 4)] * 2, known=first.to_pandas(), seed=1, **settings)
    assert 1 <= again.cost <= first.cost


@pytest.mark.parametrize("sense", [de.minimize, de.maximize])
@pytest.mark.parametrize("names", ["cost value", "value feasible", "cost feasible"])
def test_a_table_is_read_back_whatever_its_parameters_are_called(sense, names):
    pytest.importorskip("pandas")
    bounds = {name: (2.0, 3.0) for name in names.split()}
    result = sense(lambda p: sum(p.values()), bounds, evaluations=30)
    frame = result.to_pandas()
    space = make_space(bounds)
    known = known_points(space, frame, sense.__name__)
    costs = result.costs if sense is de.minimize else result.values
    np.testing.assert_array_equal(known.costs, costs)
    for name, column in zip(space.names, known.points.T, strict=True):
        np.testing.assert_array_equal(column, result.population[name])


def test_what_may_be_a_parameter_is_no_cost(refuses):
    pandas = pytest.importorskip("pandas")
    space = make_space({"cost": (0.0, 1.0)})
    frame = pandas.DataFrame({"cost": [0.5], "value": [2.0]})
    known = known_points(space, frame)
    assert (known.points.item(), known.costs.item()) == (0.5, 2.0)
    with refuses("known"):
        known_points(space, frame[["cost"]])


def test_a_parameter_that_is_called_cost_keeps_a_column():
    both = table.with_answers({"cost": np.array([1.0, 2.0])}, {"cost": np.array([3.0, 4.0])})
    assert {name: list(column) for name, column in both.items()} == {
        "x/cost": [1.0, 2.0],
        "cost": [3.0, 4.0],
    }


@pytest.mark.parametrize(
    ("bounds", "names"),
    [
        ([(0, 1)] * 2, ["x[0]", "x[1]"]),
        (Rates((0, 1), (np.zeros(1), np.ones(1))), ["fast", "slow[0]"]),
        ({"w": (np.zeros((2, 2)), 1)}, ["w[0, 0]", "w[0, 1]", "w[1, 0]", "w[1, 1]"]),
        ({"k": ["a", None, "b"]}, ["k"]),
        ({"k": [(0, 1), {"a": (0, 1)}, 3]}, ["k/0", "k/1/a"]),
        (MIXED, NAMES),
    ],
)
def test_columns_have_the_names_of_the_template(bounds, names):
    space = make_space(bounds)
    found = columns(space, np.stack([space.values.low, space.values.high, space.values.low]))
    assert list(found) == names
    assert all(column.shape == (3,) for column in found.values())


@pytest.mark.parametrize(
    ("values", "column"),
    [
        ([1, 2], np.array([1, 2])),
        ([0.5, 1], np.array([0.5, 1.0])),
        ([1, None], np.array([1.0, np.nan])),
        (np.array([1.5, None], object), np.array([1.5, np.nan])),
        ([True, False], np.array([True, False])),
        ([True, None], np.array([True, None], object)),
        ([True, 2], np.array([True, 2], object)),
        ([1, "auto"], np.array([1, "auto"], object)),
        (np.array(["a", "b"]), np.array(["a", "b"])),
        ([None, None], np.array([np.nan, np.nan])),
    ],
)
def test_a_column_is_of_numbers_where_all_are(values, column):
    found = table.numbers(values)
    assert found.dtype == column.dtype
    np.testing.assert_array_equal(found, column)


def test_a_journal_has_the_columns_of_its_result(result, journal):
    loaded = report.load(journal)
    assert list(loaded.columns) == list(result.table)
    for name, values in result.table.items():
        np.testing.assert_array_equal(loaded.columns[name], table.numbers(values))
    np.testing.assert_array_equal(loaded.costs, result.costs)


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch, result):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"to_pandas needs pandas.*diffevo-jax\[plots\]"):
        result.to_pandas()


# Pictures


def test_a_picture_has_progress_importance_parallel_coordinates_and_a_slice_each(tmp_path, result):
    costs, path = result.costs, tmp_path / "new" / "a.png"
    figure = result.plot(path)
    assert isinstance(figure, Figure)
    with Image.open(path) as image:
        assert image.size[0] >= 1500
    progress, importance, parallel, *slices = figure.axes
    assert [axes.get_xlabel() for axes in slices] == NAMES
    best = np.nanargmin(costs)
    assert progress.get_title("left") == f"best cost {costs[best]:.5g} at evaluation {best + 1}"
    failed = f"failed ({result.failures})"
    assert [line.get_label() for line in progress.lines] == ["evaluation", "best so far", failed]
    np.testing.assert_array_equal(progress.lines[1].get_ydata(), np.fmin.accumulate(costs))
    assert importance.get_title("left") == "what matters"
    assert [tick.get_text() for tick in parallel.get_xticklabels()] == NAMES
    for axes in slices:
        star = np.asarray(axes.collections[-1].get_offsets())
        np.testing.assert_array_equal(star[:, 1], costs[best])
        (failures,) = axes.lines
        assert np.size(failures.get_xdata()) == result.failures
    labels = {axes.get_xlabel(): axes.get_xticklabels() for axes in slices}
    assert [label.get_text() for label in labels["model"]] == ["adam", "sgd"]
    assert [label.get_text() for label in labels["slow"]] == ["False", "True"]
    assert labels["model/momentum"][0].get_text() == "none"
    assert len(labels["model/momentum"]) < 6  # a parameter of numbers
    assert "10^{-3}" in "".join(label.get_text() for label in labels["layer/rate"])


def test_infeasible_points_are_drawn_hollow_and_are_never_the_best():
    x = np.arange(60.0)
    costs, feasible = (x - 20) ** 2, x >= 30
    figure = picture.draw_search({"x": x}, costs, feasible=feasible)
    progress, _, parallel, axes = figure.axes
    assert progress.get_title("left") == "best cost 100 at evaluation 31"
    evaluation, best, infeasible = progress.lines
    assert infeasible.get_label() == "infeasible (30)"
    assert infeasible.get_markerfacecolor() == "none"
    np.testing.assert_array_equal(infeasible.get_ydata(), costs[:30])
    np.testing.assert_array_equal(evaluation.get_ydata()[30:], costs[30:])
    assert np.isnan(evaluation.get_ydata()[:30]).all()
    np.testing.assert_array_equal(best.get_ydata()[30:], np.full(30, 100))
    pale, hollow, near, star = axes.collections
    assert [len(each.get_offsets()) for each in (pale, hollow, star)] == [30, 30, 1]
    assert not len(hollow.get_facecolors())
    assert min(near.get_offsets()[:, 0]) == pytest.approx(30 / 59)
    all_lines, best_lines, _ = parallel.collections
    assert len(all_lines.get_segments()) == 60
    assert min(line[0, 1] for line in best_lines.get_segments()) > 30 / 59


def test_where_no_point_is_feasible_none_is_the_best():
    x = np.random.default_rng(0).uniform(size=(30, 2))
    parameters = {"a": x[:, 0], "b": x[:, 1]}
    figure = picture.draw_search(parameters, x.sum(axis=1), feasible=np.zeros(30, bool))
    progress, importance, parallel, *slices = figure.axes
    assert progress.get_title("left") == "no point satisfies all constraints"
    assert [line.get_label() for line in progress.lines] == ["infeasible (30)"]
    assert "20 evaluations" in importance.texts[0].get_text()
    assert parallel.get_title("left") == "all"
    for axes in slices:
        assert [len(each.get_offsets()) for each in axes.collections] == [0, 30, 0, 0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_few_slices_fill_the_width(number):
    x = np.random.default_rng(0).uniform(size=(10, number))
    figure = picture.draw_search({f"p{i}": x[:, i] for i in range(number)}, x.sum(axis=1))
    figure.draw_without_rendering()
    widths = [axes.get_position().width for axes in figure.axes[3:]]
    assert sum(widths) > 0.8


def test_the_best_of_a_maximisation_is_the_highest():
    values = np.array([1.0, 5.0, np.nan, 3.0])
    figure = picture.draw_search({"x": np.arange(4.0)}, values, label="value", highest=True)
    progress, _, parallel, *_ = figure.axes
    np.testing.assert_array_equal(progress.lines[1].get_ydata(), [1, 5, 5, 5])
    assert progress.get_title("left").startswith("best value 5 at evaluation 2")
    strongest = parallel.collections[-1].get_segments()[0]
    np.testing.assert_allclose(strongest[:, 1], 1 / 3)


@pytest.mark.parametrize(
    ("costs", "scale"),
    [
        ([1e-8, 1.0, 1e5], "log"),
        ([1.0, 2.0, 3.0], "linear"),
        ([-1e-8, -1.0, -1e5], "symlog"),
        ([0.0, 1.0, 1e5], "symlog"),
        ([-1.0, 0.5, 1.0, 1e9], "symlog"),
        ([-2.0, 0.0, 3.0], "linear"),
        ([0.0, 0.0], "linear"),
    ],
)
def test_costs_that_span_decades_are_drawn_by_their_logarithm(costs, scale):
    figure = picture.draw_search({"x": np.arange(float(len(costs)))}, costs)
    assert figure.axes[0].get_yscale() == figure.axes[3].get_yscale() == scale
    low, high = sorted(figure.axes[3].get_ylim())
    assert low <= min(costs) <= max(costs) <= high


def test_what_decides_the_cost_is_what_matters():
    pytest.importorskip("sklearn")
    random = np.random.default_rng(0)
    columns = {name: random.uniform(size=200) for name in "abc"}
    columns["kind"] = random.choice(["no", "yes"], 200)
    columns["b"][::3] = np.nan  # a conditional one
    costs = np.exp(9 * columns["c"]) * np.where(columns["kind"] == "yes", 1e4, 1)
    costs[::9] = np.nan
    figure = picture.draw_search(columns, costs)
    bars = figure.axes[1]
    assert [tick.get_text() for tick in bars.get_yticklabels()][:2] == ["kind", "c"]
    first, second, *others = [bar.get_width() for bar in bars.patches]
    assert first > second > 0.1 > max(others)
    assert "R² is 1.00" in bars.get_xlabel()


def test_without_scikit_learn_or_with_few_evaluations_the_panel_says_so(monkeypatch, result):
    for module in ("sklearn", "sklearn.ensemble"):
        monkeypatch.setitem(sys.modules, module, None)
    (text,) = result.plot().axes[1].texts
    assert 'pip install "diffevo-jax[plots]"' in text.get_text()
    (text,) = picture.draw_search({"x": np.arange(4.0)}, np.arange(4.0)).axes[1].texts
    assert "20 evaluations" in text.get_text()


def test_a_slice_is_strong_where_the_other_parameters_are_near_the_bests():
    """On a grid of two parameters, those on the best's row and column alone."""
    x, y = (side.ravel() for side in np.meshgrid(np.arange(24.0), np.arange(24.0)))
    figure = picture.draw_search({"x": x, "y": y}, (x - 5) ** 2 + (y - 9) ** 2)
    for axes, other, best in ((figure.axes[3], y, 9), (figure.axes[4], x, 5)):
        offsets = np.asarray(axes.collections[1].get_offsets())
        costs = {(round(23 * place), cost) for place, cost in offsets.tolist()}
        for value in range(24):
            assert (value, (value - (14 - best)) ** 2) in costs
        assert len(offsets) == 24 * picture.NEAREST
        assert other.size == 24**2


@pytest.mark.parametrize("genes", [1, 13, 45])
def test_any_number_of_parameters_is_drawn_at_most_forty_of_them(genes, monkeypatch):
    monkeypatch.setattr(picture, "TREES", 2)
    x = np.random.default_rng(0).uniform(-1, 1, (40, genes))
    figure = picture.draw_search(columns(make_space([(-1, 1)] * genes), x), (x**2).sum(1))
    shown = min(genes, 40)
    assert len(figure.axes) == 3 + shown
    assert len(figure.axes[2].get_xticklabels()) == shown
    figure.draw_without_rendering()


def test_odd_columns_are_drawn():
    columns = {
        "constant": np.ones(5),
        "$missing$": np.full(5, np.nan),
        "flag": np.array([True, False, True, True, False]),
        "one kind": np.array(["$a$"] * 5, object),
        "a_name/that_is/longer_than_a_panel": np.array([1, 2, 3, 4, 5]),
        "infinite": np.array([1.0, np.inf, 2.0, -np.inf, np.nan]),
    }
    figure = picture.draw_search(columns, [3.0, np.inf, 1.0, np.nan, 2.0])
    figure.draw_without_rendering()
    assert [axes.get_xlabel() for axes in figure.axes[3:]][-2:] == [
        "a_name/tha…_than_a_panel",
        "infinite",
    ]


def test_what_cannot_be_drawn_is_named(tmp_path, monkeypatch, refuses):
    monkeypatch.chdir(tmp_path)
    with refuses("costs"):
        picture.draw_search({"x": np.arange(2.0)}, [np.nan, np.inf])
    with refuses("path"):
        picture.draw_search({"x": np.arange(2.0)}, [1.0, 2.0], path="a.gif")


# `diffevo-jax search`


def _cli(*args: Any) -> list[str]:
    result = CliRunner().invoke(app, ["search", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_search_shows_what_a_journal_holds_while_it_is_written(tmp_path):
    path, shown, costs = tmp_path / "a.jsonl", [], []

    def cost(x: np.ndarray) -> float:
        if len(costs) == 9:
            with path.open("ab") as file:
                file.write(b'{"x": [0.1')  # as in the middle of an append
            before = path.read_bytes()
            shown.extend(_cli(path))
            assert path.read_bytes() == before
            raise KeyboardInterrupt
        costs.append(float(x[0]))
        sleep(0.002)  # what takes less is written together
        return costs[-1]

    de.minimize(cost, [(-1, 1)] * 2, evaluations=50, journal=path)
    evaluations, time, best, *parameters = shown
    assert evaluations == "evaluations  9 of 50 (0 failed)"
    assert time.split(" in evaluations, the last one at 20")[0].startswith("time         ")
    number = int(np.argmin(costs))
    assert best == f"best cost    {costs[number]:.6g}, evaluation {number + 1}"
    assert parameters[0] == f"  x[0]       {costs[number]}"
    assert len(parameters) == 2


def test_search_of_a_template_shows_options_and_what_failed_first(result, journal):
    evaluations, failure, _, best, *parameters = _cli(journal)
    assert evaluations == f"evaluations       80 of 80 ({result.failures} failed)"
    assert failure == "first failure     ValueError: no memory"
    assert best.startswith(f"best cost         {result.cost:.6g}, evaluation ")
    shown = dict(line.split(maxsplit=1) for line in parameters)
    assert list(shown) == NAMES
    number = np.nanargmin(result.costs)
    for name, values in result.table.items():
        assert shown[name] == ("none" if values[number] is None else str(values[number]))


def test_search_writes_a_table_and_a_picture(tmp_path, result, journal):
    table_path, plot = tmp_path / "new" / "a.csv", tmp_path / "new" / "a.png"
    lines = _cli(journal, "--csv", table_path, "--plot", plot)
    assert lines[-2:] == [str(table_path), str(plot)]
    rows = _rows(table_path)
    assert list(rows[0]) == [*NAMES, "cost", "seconds", "error"]
    assert [row["error"] for row in rows if row["error"]] == [
        "ValueError: no memory\nfor 8"
    ] * result.failures
    for row, cost, momentum in zip(rows, result.costs, result.table["model/momentum"], strict=True):
        assert (row["cost"], row["error"] != "") == (
            ("", True) if cost != cost else (str(cost), False)
        )
        assert row["model/momentum"] == ("" if momentum is None else str(momentum))
        assert 0 < float(row["seconds"]) < 10
    with Image.open(plot) as image:
        assert image.format == "PNG"


def test_a_best_that_breaks_constraints_is_none(tmp_path):
    path = tmp_path / "a.jsonl"
    settings: Any = {"evaluations": 60, "constraints": "returned", "journal": path}
    result = de.minimize(constrained, [(-4, 4)] * 2, **settings)
    assert np.nanmin(result.costs) < result.cost  # of a point that breaks it
    evaluations, _, _, best, *_ = _cli(
        path, "--csv", tmp_path / "a.csv", "--plot", tmp_path / "a.png"
    )
    broken = np.sum(~result.feasible & ~np.isnan(result.costs))
    notes = f"{result.failures} failed, {broken} infeasible"
    assert evaluations == f"evaluations    60 of 60 ({notes})"
    number = int(np.flatnonzero(result.costs == result.cost)[0]) + 1
    assert best == f"best cost      {result.cost:.6g}, evaluation {number}"
    feasible = [row["feasible"] == "True" for row in _rows(tmp_path / "a.csv")]
    np.testing.assert_array_equal(feasible, result.feasible)


@pytest.mark.parametrize("violation", [1.0, np.nan])
def test_where_all_break_constraints_the_one_that_breaks_them_least_is_shown(tmp_path, violation):
    def cost(x: np.ndarray) -> tuple[float, float]:
        return float(x[0]), violation + 1 + x[1]

    settings: Any = {"evaluations": 30, "constraints": "returned", "journal": tmp_path / "a.jsonl"}
    result = de.minimize(cost, [(-1, 1)] * 2, **settings)
    best = next(line for line in _cli(tmp_path / "a.jsonl") if line.startswith("best"))
    by = violation + 1 + result.x[1]
    by = np.inf if np.isnan(by) else by
    assert best.startswith(f"best cost    {result.cost:.6g}, evaluation ")
    assert best.endswith(f"; none is feasible, it breaks constraints by {by:.3g}")


def test_search_counts_a_larger_budget_and_what_was_before_a_restart(tmp_path):
    path = tmp_path / "a.jsonl"
    cost, bounds = (lambda x: float(x[0] ** 2)), [(-1.0, 1.0)] * 2
    for budget in (30, 50):
        de.minimize(cost, bounds, evaluations=budget, journal=path)
        assert _cli(path)[0] == f"evaluations  {budget} of {budget} (0 failed)"
    lines = path.read_text().splitlines()
    record = json.loads(lines[20])
    record["x"][0] += 1e-12  # as another machine's rounding
    lines[20] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n")
    again = de.minimize(cost, bounds, evaluations=80, journal=path)
    assert again.evaluations == 30
    assert _cli(path)[0] == "evaluations  80 of 80 (0 failed)"
    assert _cli(path)[2].startswith(f"best cost    {again.cost:.6g}, evaluation ")


def test_time_is_that_of_evaluations_that_were_one_at_a_time(tmp_path):
    path, bounds = tmp_path / "a.jsonl", [(-1, 1)] * 2
    jax_cost = lambda x: (x**2).sum()  # noqa: E731
    de.minimize(jax_cost, bounds, evaluations=40, jit=True, journal=path)
    assert _cli(path, "--csv", tmp_path / "a.csv")[1].startswith("time         the last one at 20")
    assert list(_rows(tmp_path / "a.csv")[0]) == ["x[0]", "x[1]", "cost"]


def test_search_of_a_maximisation_shows_the_highest_value(tmp_path):
    path = tmp_path / "a.jsonl"
    result = de.maximize(
        lambda x: -float(x[0] ** 2) - 1, [(-1, 1)] * 2, evaluations=30, journal=path
    )
    *_, best, first, second = _cli(path, "--csv", tmp_path / "a.csv", "--plot", tmp_path / "a.svg")[
        :-2
    ]
    number = int(np.argmax(result.values)) + 1
    assert best == f"best value   {result.value:.6g}, evaluation {number}"
    assert (first, second) == tuple(f"  x[{i}]       {result.x[i]}" for i in range(2))
    assert [float(row["value"]) for row in _rows(tmp_path / "a.csv")] == list(result.values)


def test_search_of_what_holds_no_evaluation_says_so(tmp_path):
    def cost(x: np.ndarray) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        de.minimize(cost, [(-1, 1)], evaluations=50, journal=tmp_path / "a.jsonl")
    first, *_ = _cli(tmp_path / "a.jsonl", "--csv", tmp_path / "a.csv")
    assert first == "evaluations  0 of 50 (0 failed)"
    assert (tmp_path / "a.csv").read_text() == "x[0],cost\n"
    (tmp_path / "b").write_text("my thesis\n")
    for arguments, message in (
        ([tmp_path / "none.jsonl"], "seen no file"),
        ([tmp_path], "Is a directory"),
        ([tmp_path / "b"], "journal: expected a new file, or one whose first line"),
        (
            [tmp_path / "a.jsonl", "--plot", tmp_path / "a.png"],
            "costs: expected at least one number",
        ),
    ):
        result = CliRunner().invoke(app, ["search", *map(str, arguments)])
        assert result.exit_code == 2
        assert message in result.output
