"""Runs held against each other, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from diffevo_jax.runs.cli import app
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.report import table
from diffevo_jax.runs.results import folder as results

CONFIG = """\
name: two
repeats: 4
population_size: 8
description: two methods
problem: {name: function, function: two_peaks, success: 0.5}
methods: {plain: {label: plain}, latent: {label: projected, algorithm: {latent_dim: 1}}}
algorithm: {name: paper, schedule: {num_levels: 3}}
"""


@pytest.fixture
def make(tmp_path):
    """Make a run folder without a run: fitness `[S, T, N]` whose last generations are known."""
    (tmp_path / "two.yaml").write_text(CONFIG)

    def made(name: str, *overrides: str, lift: float = 0.0, repeats: int = 4) -> Path:
        folder = results.create(tmp_path / name, "")
        config = load(tmp_path / "two.yaml", list(overrides)).config
        results.write_config(folder, config, "")
        numbers = np.random.default_rng(config.seed)
        for method in config.methods:
            noise = numbers.normal(size=(repeats, 1, 1))  # of a repeat
            fitness = noise + lift * np.arange(1, repeats + 1)[:, None, None] + np.zeros((1, 3, 8))
            arrays = {"fitness": fitness, "success_rate": (fitness > 0).mean(axis=2)}
            results.write_arrays(folder / f"{method}.npz", arrays)
        return folder

    return made


def _cli(*args):
    return CliRunner().invoke(app, ["compare", *map(str, args)], catch_exceptions=False)


def test_runs_of_one_seed_are_paired_and_others_are_not(make):
    first, raised, other = make("a"), make("b", lift=0.1), make("c", "seed=1", lift=0.1)
    lines = table.load_rows([first, raised, other], ["plain"])
    ((a, b, c),), left = table.groups(lines)
    assert not left
    paired = table.difference(b, table.reference(b, [a, b, c]), "fitness_mean")
    # The noise of a repeat is in both and goes: 0.1, 0.2, 0.3, 0.4 are left.
    assert paired.pairs == 4
    assert paired.value == pytest.approx(0.25)
    assert paired.error == pytest.approx(np.std([0.1, 0.2, 0.3, 0.4], ddof=1) / 2)
    unpaired = table.difference(c, table.reference(c, [a, b, c]), "fitness_mean")
    assert unpaired.pairs == 0
    spread = [np.std(line.numbers["fitness_mean"], ddof=1) / 2 for line in (a, c)]
    assert unpaired.error == pytest.approx(np.hypot(spread[0], spread[1]))


def test_a_run_of_fewer_repeats_is_paired_over_those(make):
    lines = table.load_rows([make("a"), make("b", lift=0.1, repeats=3)], ["plain"])
    found = table.difference(lines[1], lines[0], "fitness_mean")
    assert found.pairs == 3


def test_repeats_without_a_number_are_left_out_of_a_difference(make):
    a, b = table.load_rows([make("a"), make("b", lift=0.1)], ["plain"])
    numbers = list(b.numbers["fitness_mean"])
    b.numbers["fitness_mean"] = [np.nan, *numbers[1:]]
    found = table.difference(b, a, "fitness_mean")
    assert found.pairs == 3
    assert found.value == pytest.approx(np.mean([0.2, 0.3, 0.4]))
    b.numbers["fitness_mean"] = [np.nan] * 4
    assert np.isnan(table.difference(b, a, "fitness_mean").value)


def test_a_method_is_held_against_the_first_runs_and_within_a_run_against_the_first(make):
    a, b = make("a"), make("b")
    ((*group,),), _ = table.groups(table.load_rows([a, b]))
    assert [line.label for line in group] == [
        "a: plain",
        "b: plain",
        "a: projected",
        "b: projected",
    ]
    references = [table.reference(line, group).label for line in group]
    assert references == ["a: plain", "a: plain", "a: projected", "a: projected"]
    ((*group,),), _ = table.groups(table.load_rows([a]))
    assert [table.reference(line, group).label for line in group] == ["plain", "plain"]


def test_the_command_prints_differences_with_their_pairs_and_draws_one_file(make, tmp_path):
    out = tmp_path / "new" / "both.png"
    result = _cli(make("a"), make("b", lift=0.1), "--out", out)
    assert result.exit_code == 0, result.output
    row = next(line for line in result.output.splitlines() if line.startswith(" b: plain"))
    assert row.split()[-4:] == ["+0.25", "±", "0.065", "4"]
    assert "success, %" in result.output
    assert str(out) in result.output.replace("\n", "")
    assert out.stat().st_size > 10_000


def test_what_cannot_be_compared_is_refused_with_what_differs(make, tmp_path):
    a, b = make("a"), make("b", "problem.function=himmelblau")
    for args, message in (
        (
            [a, b],
            "a: plain and b: plain measure different things: problem.function is two_peaks and ",
        ),
        ([a, a], "given twice; expected different run folders"),
        ([a, "--method", "plain"], "expected two runs or more, or one of several methods; seen"),
        ([a, b, "--method", "plian"], "--method plian: no such method; did you mean 'plain'?"),
        ([a, tmp_path / "none"], "no such folder; the newest near it: "),
        ([a, make("c"), "--out", tmp_path / "x.nothing"], "--out"),
    ):
        result = _cli(*args)
        assert result.exit_code == 2, result.output
        assert message in result.output
    assert "himmelblau. Run both on one problem, by --set, or draw" in _cli(a, b).output
    alone = _cli(make("d", "methods.latent.problem.function=rosenbrock"))
    assert "plain and projected measure different things: problem.function" in alone.output


def test_settings_that_say_how_do_not_keep_runs_apart_and_evaluations_are_told(make):
    a, b = make("a"), make("b", "problem.scale=2.0", "population_size=16", "problem.success=0.9")
    result = _cli(a, b, "--method", "plain", "--out", a / "c.png")
    assert result.exit_code == 0, result.output
    assert "Evaluations differ: a: plain 24, b: plain 48." in result.output


def test_methods_on_problems_of_their_own_are_grouped_and_the_lonely_left_out(make):
    own = "methods.latent.problem.function=rosenbrock"
    a, b = make("a", own), make("b", "methods.latent.problem.function=beale")
    shared, left = table.groups(table.load_rows([a, b]))
    assert [[line.label for line in group] for group in shared] == [["a: plain", "b: plain"]]
    assert [line.label for line in left] == ["a: projected", "b: projected"]
    shared, left = table.groups(table.load_rows([a, make("c", own)]))
    assert [len(group) for group in shared] == [2, 2]
    assert not left
