"""Run folders as arrays, `load_run`."""

import csv
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de
from diffevo_jax.runs import load_run
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.run import engine as run

pytestmark = pytest.mark.usefixtures("one_device")

CONFIG = """\
name: two
repeats: 3
seed: 4
population_size: 16
description: two methods on two peaks
problem: {name: function, function: two_peaks, success: 0.5}
algorithm: {name: paper, schedule: {num_levels: 4}}
methods:
  plain: {label: plain}
  none-kept: {label: nothing kept, save_populations: 0}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    (place / "two.yaml").write_text(CONFIG)
    config = load(place / "two.yaml").config
    out = results.create(place / "out", config.name)
    run.run(config, run.build(config), out)
    return out


def test_a_run_is_read_into_its_arrays_settings_and_table(folder):
    loaded = load_run(folder)
    plain = loaded.methods["plain"]
    assert plain.fitness.shape == (3, 4, 16)
    saved = np.load(folder / "plain.npz")
    for name in ("fitness", "success_rate", "final_population", "best_genome", "best_fitness"):
        np.testing.assert_array_equal(getattr(plain, name), saved[name])
    assert plain.final_x0 is plain.reevaluated_return is None
    assert loaded.config.seed == 4
    assert loaded.config.methods["plain"].algorithm.schedule.num_levels == 4
    assert plain.config.problem.function == "two_peaks"
    assert loaded.environment["status"] == "complete"
    assert [line.label for line in loaded.table] == ["plain", "nothing kept"]
    expected = plain.fitness[:, -1].mean(axis=1, dtype=float)
    assert plain.summary.values["fitness_mean"][0] == pytest.approx(expected.mean())
    last = saved["success_rate"][:, -1]
    assert plain.summary.values["success_rate"] == pytest.approx(
        (last.mean(), last.std(ddof=1) / 3**0.5)
    )


def test_metrics_have_a_row_a_repeat_and_a_column_a_generation(folder):
    metrics = load_run(str(folder)).methods["none-kept"].metrics
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "none-kept"]
    for row in rows:
        for name, values in metrics.items():
            value = values[int(row["repeat"]), int(row["generation"]) - 1]
            np.testing.assert_equal(value, float(row[name] or "nan"))


def test_the_best_genomes_of_all_repeats_are_kept_where_no_population_is(folder):
    method = load_run(folder).methods["none-kept"]
    assert method.final_population is None
    assert method.best_genome.shape == (3, 2)
    assert method.summary.num_genes == 2
    np.testing.assert_array_equal(method.best_fitness, method.fitness.max((1, 2)))
    # Compiled twice, and exp of a large distance amplifies the rounding.
    np.testing.assert_allclose(
        de.landscapes.two_peaks(jnp.asarray(method.best_genome)), method.best_fitness, rtol=1e-5
    )


def test_what_is_no_run_is_refused_with_what_to_do(folder, tmp_path):
    near = rf"the newest near it: {folder}$"
    for wrong, message in (
        (folder.parent, rf"not a run folder, it holds no config\.yaml; {near}"),
        (folder.parent / "outt", f"no such folder; {near}"),
        (folder.parent / "two.yaml", f"expected a run folder; seen a file; {near}"),
        (tmp_path, "it holds no config.yaml; `diffevo-jax run CONFIG` makes one"),
    ):
        with pytest.raises(ValueError, match=message):
            load_run(wrong)
    (tmp_path / "config.yaml").write_text(CONFIG + "sweep: {grid: {seed: [0]}}\n")
    with pytest.raises(ValueError, match=r"the folder of a sweep, not of a run; its results\.csv"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    with pytest.raises(ValueError, match="holds no results; no repeat had finished"):
        load_run(tmp_path)
