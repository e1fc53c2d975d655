"""What SECURITY.md says that a stranger's config and run folder cannot do."""

import numpy as np
import pytest
from typer.testing import CliRunner

from diffevo_jax.runs.cli import app
from diffevo_jax.runs.results import folder

CONFIG = """
name: small
description: a run of a moment
population_size: 8
repeats: 1
seed: 0
problem: {name: function, function: two_peaks, num_genes: 2}
algorithm: {name: paper, schedule: {name: linear, num_levels: 3}}
"""


def invoke(*words: object) -> tuple[int, str]:
    seen = CliRunner().invoke(app, list(map(str, words)))
    return seen.exit_code, seen.output


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "was_here"


STRANGE = {
    "a call": ("description: !!python/object/apply:pathlib.Path.touch [{path}]", "constructor"),
    "a name": ("description: !!python/name:os.system", "constructor"),
    "an alias": ("description: &a x\nfigure: *a", "aliases"),
    "a name outside": ("name: ../../outside", "name: expected letters"),
    "a method outside": ("methods: {{../outside: {{}}}}", "methods.../outside: expected letters"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_a_config_runs_no_code_and_names_no_other_folder(tmp_path, marker, case):
    line, message = STRANGE[case]
    line = line.format(path=marker)
    key = line.split(":")[0]
    lines = [each for each in CONFIG.splitlines() if not each.startswith(f"{key}:")]
    path = tmp_path / "config.yaml"
    path.write_text("\n".join([*lines, line]))
    before = sorted(tmp_path.rglob("*"))
    status, said = invoke("run", path, "--out", tmp_path / "run")
    assert status == 2
    assert said.startswith("error: ")
    assert message in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strange")
    (folder / "config.yaml").write_text(CONFIG)
    status, said = invoke("run", folder / "config.yaml", "--out", folder / "run")
    assert status == 0, said
    return folder / "run"


def test_a_plugin_in_a_run_folder_is_not_run_unless_it_is_named(run, marker):
    (run / "plugins").mkdir()
    plugin = run / "plugins" / "mine.py"
    plugin.write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    for words in (("plot", run), ("run", run, "--resume"), ("run", run / "config.yaml")):
        invoke(*words, *(("--out", marker.parent / "again") if len(words) == 2 else ()))
        assert not marker.exists(), words
    invoke("run", run, "--resume", "--plugin", plugin)
    assert marker.exists()  # it would have been seen
    plugin.unlink()
    plugin.parent.rmdir()


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


def test_a_pickle_among_the_arrays_is_refused(run, marker):
    (results,) = run.glob("*.npz")
    kept = results.read_bytes()
    np.savez(results, fitness=np.array([Touch(marker)], dtype=object))
    status, said = invoke("plot", run)
    results.write_bytes(kept)
    assert status == 2
    assert "not readable as results" in said
    assert not marker.exists()


def test_results_that_are_no_archive_are_not_said_to_be_worth_unpickling(tmp_path):
    path = tmp_path / "one.npz"
    path.write_text("garbage")
    with pytest.raises(ValueError, match=r"one\.npz: not readable as results: .* zip file"):
        folder.read_arrays(path)
