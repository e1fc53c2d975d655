import base64
import csv
import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import matplotlib.figure
import numpy as np
import pytest
from conftest import REPOSITORY, xla_flags
from typer.testing import CliRunner

import diffevo_jax as de
from diffevo_jax.drawings import movie
from diffevo_jax.runs import cli
from diffevo_jax.runs.report import figure
from diffevo_jax.runs.results.files import write_arrays
from experiments import (
    control,
    fig2,
    fig3,
    fig4,
    fig4_draw,
    files,
    report_words,
    reproduce,
    schedules,
    study,
    tables,
    temperature,
)
from experiments.rows import Number, Row, Section

# The smallest PNG: one pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


def _fake(name: str, *, fails=False, runs: list | None = None):
    """Make a part that saves one number and draws one pixel."""

    def run(folder: Path, *, quick: bool) -> None:
        if runs is not None:
            runs.append(name)
        (folder / "number.json").write_text("2.5")
        if fails:
            raise RuntimeError("no <luck>")

    def section(folder: Path) -> Section:
        picture = folder / "pixel.png"
        picture.write_bytes(PIXEL)
        picture.with_suffix(".txt").write_text('A pixel of "fig" & more')
        ours = float((folder / "number.json").read_text())
        many = 100
        rows = [
            Row("near", "a", "raw", Number(ours, 0.4, many), Number(2.0, 0.3, many), why="5 < 6"),
            Row("far", "a", "raw", Number(ours, 0.1, many), Number(1.0, 0.1, many)),
            Row("alone", "a", "raw", Number(ours, 0.1, many)),
            Row("its error unknown", "a", "cmaes", Number(ours, 0.1, many), Number(2.4)),
        ]
        return Section(f"Part {name}", "First of `a_b`.\n\nSecond.", rows, [picture], "a book")

    return SimpleNamespace(TITLE=f"Part {name}", run=run, section=section)


@pytest.fixture
def parts(monkeypatch):
    """Put fake parts in the place of the real ones; this checkout lacks those not put in."""
    known: dict = {}
    monkeypatch.setattr(reproduce, "find", known.get)
    return known


def _reproduce(out: Path, *only: str, **settings) -> tuple[list[str], list[str]]:
    said: list[str] = []
    failed = reproduce.reproduce(list(only), out=out, say=said.append, **settings)
    return failed, said


def _page(out: Path) -> str:
    return (out / "report.html").read_text()


# What is run


def test_a_failing_part_stops_no_other_and_is_reported(parts, tmp_path):
    parts["fig2"], parts["fig4"] = _fake("fig2", fails=True), _fake("fig4")
    failed, said = _reproduce(tmp_path)
    assert failed == ["fig2"]
    assert any("no <luck>" in line for line in said)
    assert "Missing: failed: RuntimeError: no &lt;luck&gt;" in _page(tmp_path)
    assert "<caption>near</caption>" in _page(tmp_path)


def test_a_part_that_cannot_be_imported_stops_no_other(parts, tmp_path, monkeypatch):
    def find(name: str):
        if name == "fig2":
            raise ImportError("no baselines here")
        return parts.get(name)

    parts["fig4"] = _fake("fig4")
    monkeypatch.setattr(reproduce, "find", find)
    assert _reproduce(tmp_path)[0] == ["fig2"]
    assert "no baselines here" in _page(tmp_path)
    assert "<caption>near</caption>" in _page(tmp_path)


def test_a_finished_part_is_not_run_again_and_a_failed_one_is(parts, tmp_path):
    runs: list[str] = []
    parts["fig2"], parts["fig4"] = _fake("fig2", runs=runs), _fake("fig4", runs=runs, fails=True)
    _reproduce(tmp_path)
    parts["fig4"] = _fake("fig4", runs=runs)
    failed, _ = _reproduce(tmp_path)
    assert failed == []
    assert runs == ["fig2", "fig4", "fig4"]


def test_only_runs_what_it_names_and_the_report_keeps_what_was_finished_before(parts, tmp_path):
    runs: list[str] = []
    parts.update({name: _fake(name, runs=runs) for name in reproduce.NAMES})
    _reproduce(tmp_path, "fig4")
    _reproduce(tmp_path, "fig2", "control")
    assert runs == ["fig4", "fig2", "control"]
    page = _page(tmp_path)
    assert page.count("<caption>near</caption>") == 3
    assert "Part fig3</a> (missing: not run yet)" in page


def test_a_module_that_this_checkout_lacks_is_a_failure_only_when_named(parts, tmp_path):
    parts["fig2"] = _fake("fig2")
    assert _reproduce(tmp_path)[0] == []
    assert "fig3</a> (missing: not in this checkout)" in _page(tmp_path)
    assert _reproduce(tmp_path, "fig3")[0] == ["fig3"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "0.0.1"}, "from version 0.0.1"),
        ({"format": 0}, "format 0"),
        ({"quick": True}, "holds a quick run and this is a full one"),
        ({"shoe_size": 9}, "not readable"),
    ],
)
def test_a_folder_that_something_else_wrote_is_named_and_left_alone(parts, tmp_path, change, said):
    runs: list[str] = []
    parts["fig2"], parts["fig4"] = _fake("fig2", runs=runs), _fake("fig4", runs=runs)
    _reproduce(tmp_path)
    stamp = tmp_path / "fig2" / reproduce.STAMP
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | change))
    before = stamp.read_bytes()
    failed, lines = _reproduce(tmp_path)
    assert failed == ["fig2"]
    assert runs == ["fig2", "fig4"]
    assert stamp.read_bytes() == before
    assert any(said in line and str(tmp_path / "fig2") in line for line in lines)
    assert said in _page(tmp_path)


def test_files_of_unknown_origin_are_never_added_to(parts, tmp_path):
    parts["fig2"] = _fake("fig2")
    (tmp_path / "fig2").mkdir()
    (tmp_path / "fig2" / "mine.txt").write_text("mine")
    assert _reproduce(tmp_path)[0] == ["fig2"]
    assert [path.name for path in (tmp_path / "fig2").iterdir()] == ["mine.txt"]


def test_an_incomplete_folder_is_named_by_a_report_that_does_not_run_it(parts, tmp_path):
    parts["fig2"], parts["fig4"] = _fake("fig2", fails=True), _fake("fig4")
    _reproduce(tmp_path)
    failed, _ = _reproduce(tmp_path, "fig4")
    assert failed == []
    assert "is incomplete (stopped by RuntimeError)" in _page(tmp_path)


def test_ctrl_c_goes_through_and_the_next_call_goes_on(parts, tmp_path):
    parts["fig2"] = _fake("fig2")
    parts["fig2"].run = lambda folder, quick: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        _reproduce(tmp_path)
    parts["fig2"] = _fake("fig2")
    assert _reproduce(tmp_path)[0] == []


def test_results_that_cannot_be_read_are_a_failure_of_their_part_alone(parts, tmp_path):
    parts["fig2"], parts["fig4"] = _fake("fig2"), _fake("fig4")
    _reproduce(tmp_path)
    (tmp_path / "fig2" / "number.json").write_text("half a nu")
    failed, _ = _reproduce(tmp_path)
    assert failed == ["fig2"]
    assert "<caption>near</caption>" in _page(tmp_path)


# The command


@pytest.fixture
def call(capsys, monkeypatch):
    """The command, in this process."""
    monkeypatch.setattr(reproduce.startup, "prepare", lambda *, cache: None)
    monkeypatch.setattr(reproduce.signal, "signal", lambda *_: None)

    def run(*args: object) -> tuple[int, str]:
        code = reproduce.main([str(each) for each in args])
        return code, "".join(capsys.readouterr())

    return run


def test_an_unknown_name_lists_the_known_ones(call, tmp_path):
    code, output = call("--only", "fig22", "--out", tmp_path)
    assert code == 2
    assert "did you mean 'fig2'" in output
    assert all(name in output for name in reproduce.NAMES)
    assert not (tmp_path / "report.html").exists()


def test_the_command_ends_in_an_error_when_a_part_failed(parts, call, tmp_path):
    parts["fig2"] = _fake("fig2", fails=True)
    code, output = call("--quick", "--out", tmp_path)
    assert code == 1
    assert "not reproduced: fig2" in output
    parts["fig2"] = _fake("fig2")
    assert call("--quick", "--out", tmp_path)[0] == 0


def test_ctrl_c_says_how_to_go_on(parts, call, tmp_path):
    def interrupted(folder: Path, *, quick: bool) -> None:
        raise KeyboardInterrupt

    parts["fig2"] = SimpleNamespace(TITLE="cut", run=interrupted, section=lambda folder: None)
    code, output = call("--only", "fig2", "--out", tmp_path)
    assert code == 130
    assert "The same command goes on from what is finished." in output


def test_the_command_line_runs_it_in_the_clone_and_ends_as_it_does(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(cli, "_call", lambda *call: calls.append(call) or 3)
    monkeypatch.chdir(tmp_path)
    command = ["reproduce", "--only", "fig2", "--only", "fig4", "--quick", "--no-cache"]
    assert CliRunner().invoke(cli.app, command).exit_code == 3
    ((words, root),) = calls
    assert words == [sys.executable, "-P", "-m", "experiments.reproduce", *command[1:]]
    assert root == REPOSITORY


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_what_the_command_line_runs_ends_by_itself_on_a_signal(tmp_path, sent):
    ends = "import signal, time\ntry: signal.signal(15, signal.default_int_handler); "
    ends += "print('begun', flush=True); time.sleep(60)\nexcept KeyboardInterrupt: exit(130)"
    code = "import sys; from diffevo_jax.runs import cli; from pathlib import Path; "
    code += f"sys.exit(cli._call([sys.executable, '-c', {ends!r}], Path('.')))"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    if sent == signal.SIGINT:  # a terminal sends it to all of them
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    assert process.wait(60) == 130


def test_the_package_without_a_clone_says_that_it_needs_one(monkeypatch, tmp_path):
    monkeypatch.setattr(de, "__file__", str(tmp_path / "site" / "diffevo_jax" / "__init__.py"))
    result = CliRunner().invoke(cli.app, ["reproduce"])
    assert result.exit_code == 2
    assert "needs a clone of the repository" in result.output


def test_no_experiment_takes_the_place_of_a_module_that_scripts_beside_it_import():
    for path in (REPOSITORY / "experiments").glob("*.py"):
        assert path.stem not in sys.stdlib_module_names
        assert importlib.util.find_spec(path.stem) is None, path


# The report


def _row(ours: tuple, reference: tuple | None = None, **settings) -> Row:
    """Make a row of (mean, error, repeats), ours and the reference's."""
    theirs = None if reference is None else Number(*reference)
    return Row("q", "place", "raw", Number(*ours), theirs, **settings)


@pytest.mark.parametrize(
    ("row", "apart"),
    [
        (_row((2.5, 0.4, 100), (2.0, 0.3, 100)), (0.5, 1.0)),
        (_row((2.5, 0.25, 100), (2.0,)), (0.5, 2.0)),
        (_row((1.5,), (2.0, 0.25, 100)), (-0.5, math.nan)),
        (_row((2.5,), (2.0,)), (0.5, math.nan)),
    ],
    ids=["both", "ours alone", "theirs alone", "neither"],
)
def test_a_difference_is_in_combined_standard_errors(row, apart):
    assert (row.difference, row.in_errors) == pytest.approx(apart, nan_ok=True)


@pytest.mark.parametrize(
    ("row", "comparable", "equal", "far"),
    [
        (_row((0.999809, 1e-7, 100), (0.999804, 1e-7, 100)), True, True, False),
        (_row((0.0019, 1e-6, 100), (0.0018, 1e-6, 100)), True, False, True),
        (_row((1.2, 0.1, 100), (1.0, 0.1, 100)), True, False, False),
        (_row((0.0, 0.0, 100), (0.0,)), True, True, False),
        (_row((1.0, 0.1, 100)), False, False, False),
        (_row((2.0,), (1.0, 0.01, 100)), False, False, False),
    ],
    ids=["six digits", "two digits", "near", "both zero", "no reference", "one repeat"],
)
def test_far_means_more_than_chance_and_more_than_the_fourth_digit(row, comparable, equal, far):
    assert (row.comparable, row.equal, row.far) == (comparable, equal, far)


def test_few_repeats_take_more_standard_errors_to_be_far():
    many, few, fewest = (_row((4.0, 0.1, n), (3.0, 0.1, n)).threshold for n in (10_000, 20, 4))
    assert many == pytest.approx(3, abs=0.01)
    assert 3.1 < few < 3.3
    assert 4 < fewest < 6  # six degrees of freedom
    assert _row((4.0, 0.1, 2), (3.0,)).threshold > 100  # one degree of freedom says nothing


def test_as_often_as_three_errors_are_exceeded_so_often_is_the_threshold_of_four_repeats():
    generator = np.random.default_rng(0)
    drawn = generator.normal(size=(8_000, 2, 4))
    far = sum(Row("q", "p", "raw", Number.of(a), Number.of(b)).far for a, b in drawn)
    # 0.0027 of them; Welch's approximation is a little shy, and three errors alone give 0.024.
    assert 0.0012 < far / len(drawn) < 0.0045


def test_a_row_shows_as_many_digits_as_its_errors_allow():
    def shown(row: Row) -> list[str]:
        return tables.flat([row])[0][3:6]

    assert shown(_row((89.648, 1.123, 9), (92.195, 0.7612, 9))) == [
        "92.2 ± 0.8",
        "89.6 ± 1.1",
        "-1.9",
    ]
    assert shown(_row((0.6438, 0.0039, 9), (0.644, 0.0041, 9)))[1] == "0.6438 ± 0.0039"
    assert shown(_row((78.3, 1.9, 9), (79.4,)))[2] == "-0.6*"
    assert shown(_row((3.0,))) == ["", "3", ""]
    assert shown(_row((math.nan,), (1.0,)))[1] == ""


@pytest.mark.parametrize(
    ("ours", "reference", "said"),
    [
        ((-1e-9, 1e-9, 9), (0.0, 0.0, 9), ["0", "0"]),
        ((0.999809, 1e-7, 9), (0.999804, 1e-7, 9), ["0.9998", "0.9998"]),
        ((0.0011114, 7e-6, 9), (0.0011153, 3e-6, 9), ["0.001111", "0.001115"]),
        ((12345.6, 210.0, 9), (12000.0, 200.0, 9), ["12346", "12000"]),
    ],
    ids=["no minus before a zero", "no row of zeros", "small", "large"],
)
def test_a_matrix_shows_no_digit_that_says_nothing(ours, reference, said):
    (table,) = tables.matrices([_row(ours, reference)])
    cell = table.lines[0][1]
    assert [cell.text, cell.beside] == said


def test_a_matrix_has_a_line_a_place_a_column_a_method_and_gaps_where_there_is_nothing():
    rows = [
        Row("fitness", "Beale", "raw", Number(1.0, 0.1, 9), Number(1.0, 0.1, 9)),
        Row("entropy", "Beale", "raw", Number(1.0, 0.1, 9)),
        Row("fitness", "Ackley", "cmaes", Number(9.0, 0.1, 99), Number(1.0, 0.1, 99)),
    ]
    fitness, entropy = tables.matrices(rows)
    assert list(fitness.head[1:]) == ["Diffusion Evolution", "CMA-ES"]
    assert [[cell.text for cell in line] for line in fitness.lines] == [
        ["Beale", "1.0", ""],
        ["Ackley", "", "9.0"],
    ]
    assert fitness.lines[1][2].apart == "+56.6 s.e."
    assert len(entropy.lines) == 1


def test_the_summary_counts_by_method_and_says_why_what_differs_does():
    near, far = (
        (Number(1.0, 0.1, 99), Number(1.1, 0.1, 99)),
        (Number(9.0, 0.1, 99), Number(1.0, 0.1, 99)),
    )
    rows = [
        Row("fitness", "Beale", "latent", *near),
        Row("fitness", "Beale", "pepg", *near),
        *(Row("fitness", f"{i}", "pepg", *far, why="another sigma") for i in range(2)),
        *(Row("reward", f"{i}", "cmaes", *far) for i in range(8)),
    ]
    sections = {"one": Section("One: a study", "", rows, [], "a book")}
    (line,) = tables.summary(sections).lines
    *_, every = tables.summary(sections | {"two": Section("Two: nothing", "", [], [], "")}).lines
    assert [cell.text for cell in line] == ["One: a study", "1 of 1", "1 of 11", "a book"]
    assert [cell.text for cell in every[:3]] == ["all", "1 of 1", "1 of 11"]
    assert tables.differing(sections) == [
        "**CMA-ES**, One: Reward, 8 times, by +56.6 to +56.6 s.e. No cause is known.",
        "**PEPG**, One: Fitness (0 +56.6, 1 +56.6 s.e.). Another sigma.",
    ]


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.targets, self.pictures, self.open = set(), [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a":
            self.targets.append(values["href"])
        if tag == "img":
            self.pictures.append(values)
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_alone_and_its_links_lead_somewhere(parts, tmp_path):
    parts["fig2"], parts["fig4"] = _fake("fig2"), _fake("fig4", fails=True)
    _reproduce(tmp_path)
    page = _Links()
    page.feed(_page(tmp_path))
    assert page.open == []
    assert set(page.targets) == {f"#{name}" for name in reproduce.NAMES}
    assert {target[1:] for target in page.targets} <= page.ids
    (picture,) = page.pictures
    assert base64.b64decode(picture["src"].removeprefix("data:image/png;base64,")) == PIXEL
    assert (picture["width"], picture["height"]) == ("1", "1")
    assert picture["alt"] == 'A pixel of "fig" & more'


def test_both_reports_hold_numbers_commands_and_what_is_missing(parts, tmp_path):
    parts["fig2"], parts["fig4"] = _fake("fig2"), _fake("fig4", fails=True)
    _reproduce(tmp_path, quick=True)
    page, markdown = _page(tmp_path), (tmp_path / "report.md").read_text()
    for text in (page, markdown):
        assert "diffevo-jax reproduce --only fig2 --quick" in text
        assert de.__version__ in text
        assert "3 numbers have a reference: 2 agree with it, 1 differ" in text
        assert "not in this checkout" in text
        assert "A quick run" in text
    assert page.count('<td class="far">') == 2  # in its table, and among all
    assert "2.50 ± 0.40" in page
    assert "5 &lt; 6" in page
    assert "<code>a_b</code>" in page
    assert "| **far** | Diffusion Evolution |" in markdown
    assert "| a | **2.5** (1.0, +10.6 s.e.) |" in markdown
    with (tmp_path / "numbers.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["measure"] for row in found] == ["near", "far", "alone", "its error unknown"]
    assert [row["far"] for row in found] == ["0", "1", "", "0"]
    assert (found[0]["ours"], found[0]["ours_error"], found[0]["ours_repeats"]) == (
        "2.5",
        "0.4",
        "100",
    )
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", markdown):
        assert (tmp_path / path).read_bytes() == PIXEL


# The real parts


@pytest.fixture
def drawn(monkeypatch):
    """Figures are drawn but not painted into files: a quick run has done that already."""
    monkeypatch.setattr(files, "paint", lambda *_: None)
    monkeypatch.setattr(
        movie, "save", lambda figure, draw, frames, path, per_second: draw(frames[-1])
    )


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_a_quick_run_makes_every_figure_and_table(tmp_path):
    """In a process of its own, where JAX starts with every core.

    It computes as long as it compiles: with more of LLVM's passes than other tests.
    """
    flags = xla_flags("--xla_backend_optimization_level=1")
    done = subprocess.run(
        [sys.executable, "-m", "diffevo_jax", "reproduce", "--quick", "--out", str(tmp_path)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    num_figures = 0
    for name in reproduce.NAMES:
        section = importlib.import_module(f"experiments.{name}").section(tmp_path / name)
        assert section.text.strip()
        assert section.figures
        num_figures += len(section.figures)
        assert all(10_000 < path.stat().st_size < 3_000_000 for path in section.figures)
        assert all(report_words.caption(path) != path.stem for path in section.figures)
        # Few repeats differ no more often than many: what their errors allow is wider.
        rows = [row for row in section.rows if row.comparable]
        assert sum(row.far for row in rows) <= 0.1 * len(rows), name
    page = _Links()
    page.feed(_page(tmp_path))
    assert len(page.pictures) == num_figures
    assert "Missing" not in _page(tmp_path)


# What makes a sweep tiny, and the points of it that are run.
LENGTH = "algorithm.num_generations=4"
TINY = {
    "fig3": (
        (
            *("population_size=64", "repeats=2", "algorithm.schedule.num_levels=4"),
            *(f"methods.{each}.{LENGTH}" for each in ("cma_es", "open_es", "pepg", "map_elites")),
        ),
        range(5),
    ),
    "temperature": (
        (
            *("population_size=64", "repeats=2", "sweep.grid={problem.temperature: [0.5, 1.0]}"),
            "sweep.grid={problem: [{function: beale}, {function: rastrigin, target_dim: 32}]}",
        ),
        (),
    ),
    "schedules": (
        ("population_size=64", "sweep.grid={algorithm.schedule.num_levels: [10, 25]}", "repeats=2"),
        (),
    ),
    "control": (("population_size=8", "problem.max_steps=20", "repeats=2"), (9,)),
    "control_large": (("population_size=8", "problem.max_steps=20", "repeats=2"), (9,)),
    "control_preset": (("population_size=8", "problem.max_steps=20", "repeats=2"), (2,)),
}


@pytest.fixture
def tiny(monkeypatch):
    """Parts of minutes with tiny populations and one repeat or two: their time is compilation."""
    run, load = study.run, fig3.load
    monkeypatch.setattr(study, "run", lambda name, folder, *_: run(name, folder, *TINY[name]))
    monkeypatch.setattr(fig2, "load", lambda path: load(path, ["population_size=256"]))
    monkeypatch.setattr(fig3, "load", lambda path: load(path, TINY["fig3"][0]))
    monkeypatch.setattr(fig4, "load", lambda path, more: load(path, [*more, "population_size=26"]))
    monkeypatch.setattr(control, "QUICK", {"control": control.QUICK["control"]})
    monkeypatch.setattr(fig4, "QUICK_REPEATS", 2)
    monkeypatch.setattr(fig4, "QUICK_REPEATS_LARGE", 1)


@pytest.mark.usefixtures("drawn", "tiny", "one_device")
@pytest.mark.parametrize(
    "part",
    [
        *(pytest.param(part, marks=pytest.mark.slow) for part in (fig3, fig4, control, schedules)),
        temperature,
    ],  # fig3 compiles 30 programs, fig4 and control take 14 s each
    ids=lambda part: part.__name__,
)
def test_a_part_of_minutes_runs_and_is_drawn(part, tmp_path):
    part.run(tmp_path, quick=True)
    section = part.section(tmp_path)
    assert section.rows
    assert all(math.isfinite(row.ours.value) for row in section.rows)
    assert all(report_words.caption(path) != path.stem for path in section.figures)


@pytest.mark.usefixtures("drawn", "tiny")
def test_fig2_finds_both_peaks_with_x0_ahead_of_x(tmp_path):
    fig2.run(tmp_path, quick=True)
    section = fig2.section(tmp_path)
    assert all(report_words.caption(path) != path.stem for path in section.figures)
    ours = {(row.place, row.setting): row.ours.value for row in section.rows}
    for landscape in ("two peaks", "two plateaus"):
        for peak in ("-1", "1"):
            # Half the population goes to each; the split varies by about 7 points over seeds.
            assert 15 < ours[landscape, f"at ({peak}, {peak})"] < 75
    assert ours["two peaks", "estimates x0"] > ours["two peaks", "individuals x"]
    with np.load(tmp_path / "two_peaks.npz") as saved:
        assert saved["population"].shape == (100, 256, 2)
        assert saved["t"].tolist() == list(range(99, -1, -1))


def test_the_readme_says_how_long_the_reports_parts_take():
    said = re.search(
        r"Its parts take (\d+) minutes together", (REPOSITORY / "README.md").read_text()
    )
    assert said
    report = (REPOSITORY / "docs" / "report" / "report.md").read_text()
    times = re.findall(r"computed in (\d+) (s|min)\b", report)
    assert len(times) == len(reproduce.NAMES)
    minutes = sum(int(time) / {"s": 60, "min": 1}[unit] for time, unit in times)
    assert int(said[1]) == pytest.approx(minutes, abs=1)  # whole minutes, as the report's


def test_drawing_leaves_the_callers_matplotlib_alone(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        """
name: drawn
description: a run that nobody has made
population_size: 4
problem: {name: function, function: two_peaks}
algorithm: {name: paper, schedule: {num_levels: 2}, fitness_map: {name: identity}}
"""
    )
    write_arrays(tmp_path / "diffusion_evolution.npz", {"fitness": np.ones((1, 2, 4))})
    shapes = {"observations": (1, 1, 1, 6, 4), "actions": (1, 1, 1, 5), "rewards": (1, 1, 1, 5)}
    shapes["length"] = (1, 1, 1)
    episode = {f"episode_{name}": np.ones(shape) for name, shape in shapes.items()}
    backend = matplotlib.get_backend()
    matplotlib.use("svg")  # as a notebook has one of its own
    try:
        before = matplotlib.rcParams.copy()
        for drawn in (*figure.draw(tmp_path), fig4_draw.best(episode, tmp_path / "best.gif")):
            assert drawn.stat().st_size > 1000
        assert matplotlib.get_backend() == "svg"
        assert matplotlib.rcParams == before
    finally:
        matplotlib.use(backend)
