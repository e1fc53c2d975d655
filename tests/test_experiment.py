"""What a config says of itself: description, header, references and axes."""

import re

import matplotlib.figure
import numpy as np
import pytest
from conftest import REPOSITORY
from rich.console import Console

from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.report import figure, table
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results.record import summarise

CARTPOLE = REPOSITORY / "configs" / "fig4_cartpole.yaml"


def test_the_description_says_what_was_overridden_and_the_rest_stays_as_written():
    changes = ["problem.environment=Acrobot-v1", "problem.success=goal", "repeats=2"]
    written, config = load(CARTPOLE).config, load(CARTPOLE, changes).config
    assert config.description == (
        f"{written.description}; overridden: problem.environment=Acrobot-v1, problem.success=goal"
    )
    assert config.figure == written.figure
    for method in config.methods.values():
        assert (method.problem.environment, method.problem.success) == ("Acrobot-v1", "goal")
        assert method.reference is None
    shown = table.header(config, dict.fromkeys(config.methods, 10))
    assert shown == "Acrobot-v1: 256 individuals, 10 generations, 2 repeats of 3 methods"


@pytest.mark.parametrize(
    "change",
    ["seed=3", "repeats=2", "checkpoint.every=5", "figure.log=false", "save_populations=1"],
)
def test_more_repeats_or_another_seed_are_the_same_experiment(change):
    written, config = load(CARTPOLE).config, load(CARTPOLE, [change]).config
    assert config.description == written.description
    assert [each.reference for each in config.methods.values()] == [
        each.reference for each in written.methods.values()
    ]


def test_a_reference_goes_with_the_settings_of_its_method():
    config = load(CARTPOLE, ["methods.latent.algorithm.eta=0.5"]).config
    assert config.methods["raw"].reference is not None
    assert config.methods["latent"].reference is None
    assert config.methods["latent"].problem.success == 500


def test_a_resolved_config_says_all_that_was_changed(tmp_path):
    results.write_config(tmp_path, load(CARTPOLE, ["algorithm.eta=0.5"]).config, "")
    config = load(tmp_path / "config.yaml", ["methods.raw.population_size=64"]).config
    assert config.description.endswith(
        "; overridden: algorithm.eta=0.5, methods.raw.population_size=64"
    )
    assert all(method.reference is None for method in config.methods.values())


def test_finished_results_are_read_without_the_names_of_their_plugins(tmp_path):
    text = CARTPOLE.read_text().replace("name: control", "name: strange, mine: 3")
    path = tmp_path / "config.yaml"
    path.write_text(re.sub(r"(?s)problem:\n.*?\n\n", "problem: {name: strange, mine: 3}\n\n", text))
    with pytest.raises(cfg.ConfigError) as error:
        load(path)
    assert error.value.problems[0].advice == "names of your own: --plugin FILE"
    problem = load(path, registry=None).config.methods["raw"].problem
    assert problem == {"name": "strange", "mine": 3}
    assert registry.title(problem) == "strange"
    assert registry.measure(problem) == "fitness"
    assert registry.measured(problem) == problem


def test_a_problem_says_its_title_and_how_it_is_met_where_it_is_registered():
    problem = load(CARTPOLE).config.methods["raw"].problem
    assert registry.title(problem) == registry.title(problem.model_dump()) == "CartPole-v1"
    assert registry.measure(problem) == "reward"
    assert registry.measured(problem) == {
        "name": "control", "environment": "CartPole-v1", "parameters": None, "max_steps": 500
    }  # fmt: skip
    bbob = load(REPOSITORY / "configs" / "bbob.yaml").config.methods["latent"].problem
    assert registry.title(bbob) == "BBOB f15, 12 dimensions"
    assert "scale" not in registry.measured(bbob)


@pytest.mark.parametrize(("section", "shown"), [("success: 500", "success, %"), ("", "reward")])
def test_a_table_shows_rewards_where_no_success_is_defined(section, shown):
    path = REPOSITORY / "configs" / "cartpole_cmaes.yaml"
    changes = [] if section else ["problem.success=null"]
    config = load(path, changes).config
    (name,) = config.methods
    kept = {"fitness": np.full((2, 3, 4), 50.0)}
    kept |= {"success_rate": np.zeros((2, 3))} if section else {}
    console = Console(record=True, width=80)
    console.print(*table.of_run([summarise(name, config, kept)]))
    text = console.export_text()
    assert shown in text
    assert ("success" in text) == bool(section)


def test_the_axis_of_a_control_task_is_its_reward(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *_, **__: drawn.append(self)
    )
    for number, (name, label) in enumerate(
        (("cartpole_exact", "reward"), ("two_peaks", "fitness"))
    ):
        config = load(REPOSITORY / "configs" / f"{name}.yaml", ["figure.ylabel=null"]).config
        assert config.figure.ylabel is None
        folder = results.create(tmp_path / str(number), "")
        results.write_config(folder, config, "")
        for method in config.methods:
            results.write_arrays(folder / f"{method}.npz", {"fitness": np.ones((2, 3, 4))})
        figure.draw(folder)
        assert drawn[-1].axes[0].get_ylabel() == label


def test_a_setting_without_its_section_is_told_where_it_belongs():
    for change, meant in (
        ("environment=Acrobot-v1", "problem.environment"),
        ("eta=0.5", "algorithm.eta"),
    ):
        with pytest.raises(cfg.ConfigError) as error:
            load(CARTPOLE, [change])
        assert error.value.problems[0].advice == f"did you mean {meant}?"


def test_a_config_without_a_description_says_what_was_overridden(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(re.sub("(?m)^description: .*\n", "", CARTPOLE.read_text()))
    assert load(path, ["algorithm.eta=0.5"]).config.description == "overridden: algorithm.eta=0.5"


def test_a_sweep_has_a_point_for_each_of_its_settings_and_a_run_has_one(tmp_path):
    run = load(CARTPOLE)
    assert run.sweep is None
    assert [(point.number, point.settings) for point in run.points] == [(0, {})]
    assert run.config == run.points[0].config
    swept = load(CARTPOLE, ["sweep={grid: {algorithm.eta: [0.0, 1.0]}}"])
    assert [point.settings for point in swept.points] == [
        {"algorithm.eta": 0.0},
        {"algorithm.eta": 1.0},
    ]
    with pytest.raises(cfg.ConfigError, match="a sweep; run it with `diffevo-jax sweep"):
        assert swept.config
