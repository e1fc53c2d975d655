"""What the README and the notebooks say, run."""

import io
import json
import os
import re
import sys
from contextlib import redirect_stdout

import jupytext
import nbformat
import pytest
from conftest import REPOSITORY
from nbclient import NotebookClient

from experiments.benchmarks import settings
from experiments.covers import cover

README = (REPOSITORY / "README.md").read_text()
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.py"))
QUICK = ("01", "02")  # these run in every test, the others before a release


def test_the_readmes_code_runs_and_prints_what_it_says():
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) >= 3
    namespace: dict = {}
    printed = io.StringIO()
    with redirect_stdout(printed):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), namespace)
    outputs = "".join(re.findall(r"```text\n(.*?)```", README, re.S))
    # Words exactly; numbers to 0.03, as another platform rounds another way.
    number = re.compile(r"-?\d+\.?\d*")
    assert number.sub("#", printed.getvalue()) == number.sub("#", outputs)
    seen, said = (
        [float(value) for value in number.findall(text)] for text in (printed.getvalue(), outputs)
    )
    assert seen == pytest.approx(said, rel=0.03)


def test_the_readmes_files_and_commands_exist():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (REPOSITORY / path).exists(), path
    for path in re.findall(r"(?:configs|experiments|notebooks)/\w+\.\w+", README):
        assert (REPOSITORY / path).exists(), path
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)", README):
        assert f"\n{target}:" in makefile, target


each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each_notebook
def test_a_stored_notebook_is_its_script_run_without_errors(path):
    stored = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    assert [cell.source for cell in stored.cells] == [
        cell.source for cell in jupytext.read(path).cells
    ]
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    # Run once, from the top.
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {
        "display_data",
        "execute_result",
        "stream",
    }
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert all(
        cell.outputs for cell in code if re.search(r"^(print|plt\.show)\(", cell.source, re.M)
    )
    assert path.with_suffix(".ipynb").stat().st_size < 1e6


@each_notebook
def test_a_notebook_opens_with_the_picture_that_it_makes(path):
    stored = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    place, picture = cover(path, stored)
    assert stored.cells[0].source.startswith("# ")
    shown = re.search(r"!\[[^]]+\]\((.+?)\)", stored.cells[0].source)
    assert shown is not None
    assert path.parent / shown[1] == place
    assert place.read_bytes() == picture


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=() if path.stem[:2] in QUICK else pytest.mark.slow, id=path.stem)
        for path in NOTEBOOKS
    ],
)
def test_a_notebook_runs_top_to_bottom(path, monkeypatch):
    # The kernel of this very interpreter, whatever kernels are installed beside it.
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)
    NotebookClient(jupytext.read(path), timeout=300, kernel_name="python3").execute()


def test_the_readmes_plugin_is_the_one_in_experiments():
    (shown,) = re.findall(r"```py\n(.*?)```", README, re.S)
    assert shown in (REPOSITORY / "experiments" / "my_problem.py").read_text()


def _neighbours(fence: str) -> str:
    text = (REPOSITORY / "docs" / "neighbours.md").read_text()
    return "\n".join(re.findall(rf"```{fence}\n(.*?)```", text, re.S))


def _printed(code: str) -> str:
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, "neighbours.md", "exec"), {})
    return printed.getvalue()


@pytest.mark.slow
def test_the_neighbours_code_runs_and_prints_what_it_says():
    assert _printed(_neighbours("python")) == _neighbours("text").replace("\n\n", "\n")


def test_the_pyribs_recipe_is_the_benchmarks():
    script = (REPOSITORY / "experiments" / "benchmarks" / "pyribs.py").read_text()
    assert _neighbours("py").partition("\nfrom ribs")[0] in script


@pytest.mark.slow
def test_the_pyribs_recipe_fills_an_archive():
    pytest.importorskip("ribs")  # 270 MB with numba: in no extra
    imports = "import jax\nimport numpy as np\nimport diffevo_jax as de\n"
    imports += "from ribs.emitters import EmitterBase\n"
    coverage = re.search(r"coverage (\d+)%", _printed(imports + _neighbours("py")))
    assert coverage is not None
    assert int(coverage[1]) > 50


def test_the_settings_pages_tables_are_of_the_numbers_measured():
    page, parts = settings.PAGE.read_text(), json.loads(settings.RESULTS.read_text())
    assert set(parts) == set(settings.PARTS)
    assert set(re.findall(r"<!-- (?!end)(.+) -->", page)) == set(settings.tables(parts))
    assert settings.write_page(page, parts) == page
