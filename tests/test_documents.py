"""What the README, the site and the notebooks say, run."""

import html.parser
import importlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
from contextlib import chdir, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

import jupytext
import nbformat
import pytest
from conftest import REPOSITORY
from nbclient import NotebookClient

from experiments.benchmarks import settings
from experiments.covers import cover

README = (REPOSITORY / "README.md").read_text()
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.py"))


DOCS = REPOSITORY / "docs"
PAGES = {
    str(path.relative_to(DOCS).with_suffix("")): path.read_text()
    for path in sorted([*DOCS.glob("*.md"), *DOCS.glob("howto/*.md")])
}
WITH_CODE = [name for name, text in PAGES.items() if "```python" in text]
# Those that compile for less than a few seconds.
QUICK = {"concepts", "errors", "howto/devices", "variants"}


def _run_page(text: str, name: str) -> None:
    """Run the Python blocks of a page, one after the other; what they print is its text blocks."""
    namespace: dict = {}
    printed = io.StringIO()
    # What it draws goes into a folder of its own.
    with TemporaryDirectory() as folder, chdir(folder), redirect_stdout(printed):
        for block in re.findall(r"```python\n(.*?)```", text, re.S):
            exec(compile(block, name, "exec"), namespace)
    outputs = "".join(re.findall(r"```text\n(.*?)```", text, re.S))
    # Words exactly; numbers to 0.03, as another platform rounds another way.
    number = re.compile(r"-?\d+\.?\d*")
    assert number.sub("#", printed.getvalue()) == number.sub("#", outputs)
    actual, expected = (
        [float(value) for value in number.findall(text)] for text in (printed.getvalue(), outputs)
    )
    assert actual == pytest.approx(expected, rel=0.03)


def test_the_readmes_code_runs_and_prints_what_it_says():
    assert README.count("```python") >= 3
    _run_page(README, "README.md")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in WITH_CODE],
)
def test_the_sites_code_runs_and_prints_what_it_says(name):
    _run_page(PAGES[name], f"docs/{name}.md")


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


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_top_to_bottom(path, monkeypatch):
    # The kernel of this very interpreter, whatever kernels are installed beside it.
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)
    NotebookClient(jupytext.read(path), timeout=300, kernel_name="python3").execute()


def _neighbours(fence: str) -> str:
    text = (REPOSITORY / "docs" / "neighbours.md").read_text()
    return "\n".join(re.findall(rf"```{fence}\n(.*?)```", text, re.S))


def _printed(code: str) -> str:
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, "neighbours.md", "exec"), {})
    return printed.getvalue()


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


@pytest.mark.slow
def test_the_optuna_recipes_run(tmp_path):
    pytest.importorskip("optuna")  # in no extra
    blocks = (
        re.findall(rf"```{fence}\n(.*?)```", PAGES["howto/from_optuna"], re.S)
        for fence in ("python", "py")
    )
    namespace: dict = {}
    with chdir(tmp_path):
        for block in itertools.chain(*blocks):
            exec(compile(block, "from_optuna.md", "exec"), namespace)
    assert namespace["result"].cost <= namespace["study"].best_value


def test_the_settings_pages_tables_are_of_the_numbers_measured():
    page, parts = settings.PAGE.read_text(), json.loads(settings.RESULTS.read_text())
    assert set(parts) == set(settings.PARTS)
    assert set(re.findall(r"<!-- (?!end)(.+) -->", page)) == set(settings.tables(parts))
    assert settings.write_page(page, parts) == page


@pytest.mark.slow
def test_the_plugin_of_the_site_runs(tmp_path):
    (plugin,) = re.findall(r"```py\n(.*?)```", PAGES["howto/task"], re.S)
    (config,) = re.findall(r"```yaml\n(.*?)```", PAGES["howto/task"], re.S)
    (tmp_path / "arm.py").write_text(plugin)
    (tmp_path / "arm.yaml").write_text(config)
    command = ["run", "arm.yaml", "--plugin", "arm.py", "--out", "out"]
    subprocess.run(
        [sys.executable, "-c", "from diffevo_jax.runs import main; main()", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    assert (tmp_path / "out" / "figure.png").exists()


# The site


def _documented() -> list[str]:
    """Full names of what the reference's pages document."""
    names = []
    for path in (DOCS / "api").glob("*.md"):
        text = path.read_text()
        names += re.findall(r"\.\. auto(?:function|class):: (\S+)", text)
        for module, members in re.findall(r"\.\. automodule:: (\S+)\n   :members: (.+)", text):
            names += [f"{module}.{member}" for member in members.split(", ")]
    return names


def _look_up(name: str):
    """What a dotted name stands for; AttributeError where it stands for nothing."""
    value = importlib.import_module("diffevo_jax")
    for part in name.split(".")[1:]:
        try:
            value = getattr(value, part)
        except AttributeError:
            value = importlib.import_module(f"{value.__name__}.{part}")
    return value


def test_every_name_in_the_reference_exists_once():
    names = _documented()
    assert len(names) == len(set(names))
    for name in names:
        assert _look_up(name).__doc__, name


def test_every_public_name_is_in_the_reference():
    package = importlib.import_module("diffevo_jax")
    documented = {id(_look_up(name)) for name in _documented()}
    missing = []
    face = (REPOSITORY / "diffevo_jax" / "__init__.py").read_text()
    for name in re.findall(r"import (\w+) as \1$", face, re.M):
        member = getattr(package, name)
        if not hasattr(member, "__path__") and not hasattr(member, "__file__"):
            missing += [name] if id(member) not in documented else []
            continue
        # Of a room what it exports, `X as X`; of a module all that it defines.
        source = Path(member.__file__).read_text()
        exported = re.findall(r"import (\w+) as \1$", source, re.M)
        if exported and name != "optimize":  # what `help` lists
            assert set(member.__all__) == set(exported), name
        defined = re.findall(r"^(?:def|class) ([a-zA-Z]\w*)", source, re.M)
        for inner in exported or defined:
            value = getattr(member, inner)
            if callable(value) and id(value) not in documented:
                missing.append(f"{name}.{inner}")
    assert not missing


def test_every_name_that_the_pages_use_exists():
    for name, text in {**PAGES, "README": README}.items():
        for used in set(re.findall(r"\bde((?:\.[a-zA-Z_]\w*)+)", text)):
            try:
                _look_up(f"diffevo_jax{used}")
            except (AttributeError, ModuleNotFoundError):
                pytest.fail(f"{name}: de{used} does not exist")


def _site(module: str):
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(str(DOCS))


def test_every_benchmark_has_a_page_with_its_command_and_device():
    pages = _site("pages")
    made = pages.benchmark_pages()
    assert set(made) == {path.stem for path in settings.RESULTS.parent.glob("*.json")}
    for name, text in made.items():
        assert re.search(r"```\n(?:make|pip|python) ", text), name
        assert re.search(r"^\*(?:Measured on|Quality over seeds)", text, re.M), name
        assert re.search(r"^\| .*\d", text, re.M), name
    assert "0.2280 ± 0.0090" in made["moving-cpu"]


def test_the_gallery_has_every_picture_of_the_report():
    gallery = _site("pages").gallery()
    pictures = {*DOCS.glob("*.png"), *DOCS.glob("report/*/*.png"), *DOCS.glob("report/*/*.gif")}
    shown = {(DOCS / "generated" / path).resolve() for path in re.findall(r"\]\((\S+)\)", gallery)}
    assert pictures <= shown
    assert gallery.count("`diffevo-jax reproduce") >= 6


def test_docstrings_become_lists_equations_and_links():
    docstring = (
        "Do it.\n\nx0_i = sum_j |w_ij| x_j\n\nx_t: population, `[N, D]`. x0: of `evolve`,\n"
        "    or more. eta: noise.\n\nSee `nothing` and 2 * 3 | 4."
    )
    text = "\n".join(_site("docstrings").to_rst(docstring, {"x_t", "x0", "eta"}))
    assert text.splitlines() == [
        "Do it.",
        "",
        "::",
        "",
        "    x0_i = sum_j |w_ij| x_j",
        "",
        "- **x_t**: population, ``[N, D]``.",
        "- **x0**: of :py:obj:`evolve <diffevo_jax.evolve>`, or more.",
        "- **eta**: noise.",
        "",
        r"See ``nothing`` and 2 \* 3 \| 4.",
    ]


class _Links(html.parser.HTMLParser):
    """What a page has and asks for: ids, links, and what a browser fetches by itself."""

    def __init__(self):
        super().__init__()
        self.ids, self.links, self.fetched = set(), [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        # Links such as "canonical" are not fetched.
        if tag == "link" and "stylesheet" in (attributes.get("rel") or ""):
            self.fetched.append(attributes["href"])
        if tag in ("script", "img", "iframe", "video", "source") and attributes.get("src"):
            self.fetched.append(attributes["src"])


@pytest.mark.slow
def test_the_site_builds_without_warnings_its_links_lead_somewhere_and_it_fetches_nothing(tmp_path):
    pytest.importorskip("sphinx_book_theme", reason="make docs installs it")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([*command, str(DOCS), str(tmp_path)], env=environment, check=True)
    pages = {}
    for path in tmp_path.rglob("*.html"):
        if "_static" not in path.parts:
            pages[path] = _Links()
            pages[path].feed(path.read_text())
    assert len(pages) > 50
    for path, page in pages.items():
        here = path.relative_to(tmp_path)
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme == "data":  # the picture itself
                continue
            if parts.scheme or parts.netloc:
                assert link not in page.fetched, f"{here} fetches {link}"
                continue
            target = path if not parts.path else path.parent / unquote(parts.path)
            target = target.resolve()
            assert target.exists(), f"{here}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].ids, f"{here}: {link}"
    equations = (tmp_path / "concepts.html").read_text()
    (script,) = re.findall(r'src="([^"]*mathjax[^"]*\.js[^"]*)"', equations)
    assert (tmp_path / urlsplit(script).path).exists()
