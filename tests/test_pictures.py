"""Tables and pictures of searches: of results, and of journals by `diffevo-jax search`."""

import sys
from typing import NamedTuple

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

import diffevo_jax as de
from diffevo_jax.drawings import search as picture
from diffevo_jax.optimize import MaximizeResult, Maximum, Result, table
from diffevo_jax.optimize.journal import Journal
from diffevo_jax.runs.cli import app


class Rates(NamedTuple):
    fast: np.ndarray
    slow: np.ndarray


def _result(population, costs) -> Result:
    costs = np.asarray(costs, float)
    best = float(np.nanmin(costs))
    history = np.array([[len(costs), best]])
    failures = int(np.isnan(costs).sum())
    return Result(None, best, len(costs), population, costs, (), history, failures, "")


def _mixed(count: int = 60) -> tuple[dict, np.ndarray]:
    """A template's population with categories, a conditional parameter, arrays; and costs."""
    random = np.random.default_rng(0)
    kind = random.choice(["adam", "sgd"], count)
    momentum = np.array([0.5 if each == "sgd" else None for each in kind], object)
    population = {
        "kind": kind.tolist(),
        "momentum": momentum,
        "layer": {"rate": 10.0 ** random.uniform(-5, -1, count)},
        "size": random.integers(1, 9, count),
        "w": random.uniform(-1, 1, (count, 2)),
    }
    costs = (np.log10(population["layer"]["rate"]) + 3) ** 2 + 0.01 * random.normal(size=count)
    costs[::7] = np.nan
    return population, costs


# Tables


def test_a_table_has_a_row_an_evaluation_and_a_column_a_parameter():
    pytest.importorskip("pandas")
    population, costs = _mixed()
    frame = _result(population, costs).to_pandas()
    assert list(frame) == ["kind", "layer/rate", "momentum", "size", "w[0]", "w[1]", "cost"]
    assert len(frame) == 60
    assert frame["size"].dtype.kind == "i"
    assert frame["momentum"].dtype == float
    assert list(frame["momentum"].isna()) == [kind == "adam" for kind in frame["kind"]]
    np.testing.assert_array_equal(frame["w[1]"], population["w"][:, 1])
    np.testing.assert_array_equal(frame["cost"], costs)


def test_a_table_of_a_maximisation_has_values():
    pytest.importorskip("pandas")
    values, history = np.array([1.0, np.nan]), np.array([[2, 1.0]])
    optimum = Maximum(np.zeros(2), 1.0)
    result = MaximizeResult(optimum.x, 1.0, 2, np.zeros((2, 2)), values, (optimum,), history, 1, "")
    assert list(result.to_pandas()) == ["x[0]", "x[1]", "value"]


def test_a_parameter_that_is_called_cost_keeps_a_column():
    parameters = table.columns({"cost": np.array([1.0, 2.0])})
    both = table.with_costs(parameters, "cost", np.array([3.0, 4.0]))
    assert {name: list(column) for name, column in both.items()} == {
        "x/cost": [1.0, 2.0],
        "cost": [3.0, 4.0],
    }


@pytest.mark.parametrize(
    ("population", "names"),
    [
        (np.zeros((3, 2)), ["x[0]", "x[1]"]),
        (np.zeros((3, 2), int), ["x[0]", "x[1]"]),
        (Rates(np.zeros(3), np.zeros((3, 1))), ["fast", "slow[0]"]),
        ({"w": np.zeros((3, 2, 2))}, ["w[0][0]", "w[0][1]", "w[1][0]", "w[1][1]"]),
        ({"k": ["a", None, "b"]}, ["k"]),
        ({"k": np.array([["a", "b"]] * 3, object)}, ["k[0]", "k[1]"]),
        ({"k": [np.zeros(3), np.zeros(3)]}, ["k/0", "k/1"]),
    ],
)
def test_columns_have_the_names_of_the_template(population, names):
    columns = table.columns(population)
    assert list(columns) == names
    assert all(column.shape == (3,) for column in columns.values())


def test_records_have_the_same_columns_as_their_population():
    population, _ = _mixed()
    columns = table.columns(population)
    points = [
        {
            "kind": population["kind"][i],
            "layer": {"rate": float(population["layer"]["rate"][i])},
            "momentum": population["momentum"][i],
            "size": int(population["size"][i]),
            "w": population["w"][i].tolist(),
        }
        for i in range(60)
    ]
    for point in points:
        if point["momentum"] is None:
            del point["momentum"]  # a journal may leave it out
    of_records = table.columns_of(points)
    assert of_records.keys() == columns.keys()
    for name, column in columns.items():
        np.testing.assert_array_equal(of_records[name], column)
    assert list(table.columns_of([[0.5, "a"], [1.5, "b"]])) == ["x[0]", "x[1]"]


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"to_pandas needs pandas.*diffevo-jax\[plots\]"):
        _result(*_mixed()).to_pandas()


# Pictures


def test_a_picture_has_progress_importance_parallel_coordinates_and_a_slice_each(tmp_path):
    population, costs = _mixed()
    path = tmp_path / "new" / "a.png"
    figure = _result(population, costs).plot(path)
    assert isinstance(figure, Figure)
    with Image.open(path) as image:
        assert image.size[0] >= 1500
    progress, importance, parallel, *slices = figure.axes
    assert len(slices) == 6
    best = np.nanargmin(costs)
    assert progress.get_title("left") == f"best cost {costs[best]:.5g} at evaluation {best + 1}"
    assert [line.get_label() for line in progress.lines] == [
        "evaluation",
        "best so far",
        "failed (9)",
    ]
    np.testing.assert_array_equal(progress.lines[1].get_ydata(), np.fmin.accumulate(costs))
    assert importance.get_title("left") == "what matters"
    assert [tick.get_text() for tick in parallel.get_xticklabels()] == [
        axes.get_xlabel() for axes in slices
    ]
    for axes in slices:
        star = np.asarray(axes.collections[-1].get_offsets())
        np.testing.assert_array_equal(star[:, 1], costs[best])
    labels = {axes.get_xlabel(): axes.get_xticklabels() for axes in slices}
    assert [label.get_text() for label in labels["kind"]] == ["adam", "sgd"]
    assert labels["momentum"][0].get_text() == "none"
    assert "10^{-3}" in "".join(label.get_text() for label in labels["layer/rate"])


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


def test_without_scikit_learn_or_with_few_evaluations_the_panel_says_so(monkeypatch):
    population, costs = _mixed()
    for module in ("sklearn", "sklearn.ensemble"):
        monkeypatch.setitem(sys.modules, module, None)
    (text,) = _result(population, costs).plot().axes[1].texts
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
    figure = picture.draw_search(table.columns(x), (x**2).sum(1))
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


def test_a_minimisation_is_drawn_and_tabled(tmp_path):
    pytest.importorskip("pandas")
    result = de.minimize(
        lambda p: (p["a"] - 0.5) ** 2 + p["n"],
        {"a": (0, 1), "n": (1, 3)},
        evaluations=40,
        integers=["n"],
    )
    assert list(result.to_pandas()) == ["a", "n", "cost"]
    assert len(result.plot(tmp_path / "a.svg").axes) == 5


# `diffevo-jax search`


def _cli(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)


HEADER = {"bounds": "{'rate': (0, 1)}", "evaluations": 50, "maximize": False}
RECORDS = [
    {"x": {"rate": 0.1, "kind": "a"}, "cost": 3.5, "seconds": 40.0},
    {"x": {"rate": 0.2, "kind": "b"}, "cost": None, "error": "E\nValueError: no", "seconds": 30.5},
    {"x": {"rate": 1 / 3, "kind": "a"}, "cost": 0.25, "seconds": 20.0},
    {"x": {"rate": 0.4}, "cost": 0.5, "seconds": 5.0},
]


def test_search_shows_what_a_journal_holds_while_it_is_written(tmp_path):
    path = tmp_path / "a.jsonl"
    with Journal(path, HEADER) as journal:
        journal.append_all(RECORDS)
        with path.open("ab") as file:
            file.write(b'{"x": {"rate"')
        result = _cli("search", path)
        assert result.exit_code == 0, result.output
        evaluations, failure, time, *best = result.output.splitlines()
        assert evaluations == "evaluations    4 of 50 (1 failed)"
        assert failure == "first failure  ValueError: no"
        assert time.startswith("time           1.6 min in evaluations, the last one at 20")
        assert best == [
            "best cost      0.25, evaluation 3",
            "  rate         0.3333333333333333",
            "  kind         a",
        ]
        assert path.read_bytes().endswith(b'{"x": {"rate"')


def test_search_writes_a_table_and_a_picture(tmp_path):
    with Journal(tmp_path / "a.jsonl", HEADER) as journal:
        journal.append_all(RECORDS)
    table_path, plot = tmp_path / "new" / "a.csv", tmp_path / "new" / "a.png"
    result = _cli("search", tmp_path / "a.jsonl", "--csv", table_path, "--plot", plot)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-2:] == [str(table_path), str(plot)]
    assert table_path.read_text().splitlines()[:4] == [
        "rate,kind,cost,seconds,error",
        "0.1,a,3.5,40.0,",
        '0.2,b,,30.5,"E',
        'ValueError: no"',
    ]
    with Image.open(plot) as image:
        assert image.format == "PNG"


def test_search_of_a_maximisation_shows_the_highest_value(tmp_path):
    with Journal(tmp_path / "a.jsonl", {"evaluations": 9, "maximize": True}) as journal:
        journal.append_all([{"x": [1.0, 2.0], "cost": -4.0}, {"x": [3.0, 4.0], "cost": -2.0}])
    lines = _cli("search", tmp_path / "a.jsonl").output.splitlines()
    assert lines[-3:] == ["best value   -2, evaluation 2", "  x[0]       3.0", "  x[1]       4.0"]
    result = _cli("search", tmp_path / "a.jsonl", "--csv", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "x[0],x[1],value\n1.0,2.0,-4.0\n3.0,4.0,-2.0\n"
    assert result.exit_code == 0


def test_search_of_what_holds_no_evaluation_says_so(tmp_path):
    with Journal(tmp_path / "a.jsonl", HEADER):
        pass
    result = _cli("search", tmp_path / "a.jsonl", "--csv", tmp_path / "a.csv")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("evaluations  0 of 50 (0 failed)\n")
    assert (tmp_path / "a.csv").read_text() == "cost\n"
    (tmp_path / "b").write_text("my thesis\n")
    for arguments, message in (
        ([tmp_path / "none.jsonl"], "No such file or directory"),
        ([tmp_path], "Is a directory"),
        ([tmp_path / "b"], "journal: expected a new file, or a journal"),
        (
            [tmp_path / "a.jsonl", "--plot", tmp_path / "a.png"],
            "costs: expected at least one number",
        ),
    ):
        result = _cli("search", *arguments)
        assert result.exit_code == 2
        assert message in result.output
