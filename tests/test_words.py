"""Header, references and axes follow what is run."""

import matplotlib.figure
import numpy as np
import pytest
from conftest import REPOSITORY
from rich.console import Console

from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.report import figure, table
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results.record import summarise

CARTPOLE = REPOSITORY / "configs" / "fig4_cartpole.yaml"


def test_another_environment_is_no_figure_of_the_paper():
    config = load(CARTPOLE, ["problem.environment=Acrobot-v1", "repeats=2"]).config
    assert config.description == (
        "fig4_cartpole with problem.environment=Acrobot-v1; no success is defined "
        "(--set problem.success=...)"
    )
    for method in config.methods.values():
        assert method.problem.environment == "Acrobot-v1"
        assert method.problem.success is None
        assert method.reference is None
    assert config.figure == cfg.Figure()
    told = table.header(config, dict.fromkeys(config.methods, 10))
    assert told == "Acrobot-v1: 256 individuals, 10 generations, 2 repeats of 3 methods"


def test_what_is_given_with_another_environment_holds():
    config = load(
        CARTPOLE,
        ["problem.environment=Acrobot-v1", "problem.success=goal", "figure.maximum=0"],
    ).config
    assert {method.problem.success for method in config.methods.values()} == {"goal"}
    assert config.figure == cfg.Figure(maximum=0)
    assert config.description == (
        "fig4_cartpole with problem.environment=Acrobot-v1, problem.success=goal"
    )


@pytest.mark.parametrize(
    "change", ["seed=3", "repeats=2", "checkpoint.every=5", "figure.log=false"]
)
def test_more_repeats_or_another_seed_are_the_same_experiment(change):
    written, config = load(CARTPOLE).config, load(CARTPOLE, [change]).config
    assert config.description == written.description
    assert config.methods == written.methods
    assert config.figure.maximum == 500


def test_another_setting_of_the_algorithm_keeps_the_axes_and_drops_references():
    config = load(CARTPOLE, ["methods.latent.algorithm.eta=0.5"]).config
    assert config.description == "fig4_cartpole with methods.latent.algorithm.eta=0.5"
    assert config.figure.maximum == 500
    assert config.methods["raw"].reference is not None
    assert config.methods["latent"].reference is None
    assert config.methods["latent"].problem.success == 500


def test_a_resolved_config_says_all_that_was_changed(tmp_path):
    results.write_config(tmp_path, load(CARTPOLE, ["algorithm.eta=0.5"]).config, "")
    config = load(tmp_path / "config.yaml", ["population_size=64"]).config
    assert config.description == "fig4_cartpole with algorithm.eta=0.5, population=64"
    assert all(method.reference is None for method in config.methods.values())


@pytest.mark.parametrize(("section", "shown"), [("success: 500", "success, %"), ("", "reward")])
def test_a_table_shows_rewards_where_no_success_is_defined(section, shown):
    path = REPOSITORY / "configs" / "cartpole_cmaes.yaml"
    changes = [] if section else ["problem.environment=Acrobot-v1"]
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
        ("environment=Acrobot-v1", "problem.environment=Acrobot-v1"),
        ("eta=0.5", "algorithm.eta=0.5"),
    ):
        with pytest.raises(cfg.ConfigError, match=f"did you mean --set {meant}"):
            load(CARTPOLE, [change]).config
