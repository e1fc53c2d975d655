"""The champion of a run: its file, its use in Python, and `diffevo-jax rollout`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import diffevo_jax as de
from diffevo_jax.environments._names import OWN
from diffevo_jax.runs import load_champion, load_run
from diffevo_jax.runs.cli import app
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.config.schema import ConfigError
from diffevo_jax.runs.results import champion
from diffevo_jax.runs.run import engine
from diffevo_jax.tasks.task import seen

CONFIG = """\
name: champions
description: a pendulum
repeats: 2
population_size: 8
problem:
  name: control
  environment: Pendulum-v1
  parameters: {max_torque: 3.0}
  policy: {name: mlp, hidden: [3]}
  observations: normalised
  max_steps: 20
  success: -100
algorithm: {name: denoising_evolution, schedule: {name: geometric, num_levels: 3, end: 0.1}}
methods:
  plain: {label: plain}
"""


def _cli(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("champion")
    (place / "champions.yaml").write_text(CONFIG)
    result = _cli("run", place / "champions.yaml", "--out", place / "out")
    assert result.exit_code == 0, result.output
    return place / "out"


def test_the_champion_of_a_run_is_the_best_reevaluated_policy_of_all(folder):
    best_of_all, run = load_champion(folder), load_run(folder)
    methods: dict[str, Any] = run.methods
    means = {
        (name, repeat): returns.mean()
        for name, method in methods.items()
        for repeat, returns in enumerate(method.reevaluated_return)
    }
    best = max(means, key=lambda each: means[each])
    assert (best_of_all.method, best_of_all.repeat) == best
    np.testing.assert_array_equal(best_of_all.genome, methods[best[0]].reevaluated_genome[best[1]])
    kept = load_champion(folder / "champion.npz")
    np.testing.assert_array_equal(kept.genome, best_of_all.genome)
    assert kept.problem == best_of_all.problem


def test_a_champions_controller_acts_as_the_run_did(folder):
    loaded: Any = load_champion(folder, method="plain", repeat=1)
    assert (loaded.method, loaded.repeat) == ("plain", 1)
    assert loaded.task.environment.params.max_torque == 3.0
    statistics: Any = load_run(folder).methods["plain"].statistics
    np.testing.assert_array_equal(loaded.statistics.mean, statistics.mean[1])
    observation = jnp.array([0.5, -0.2, 1.0])
    action = jax.jit(loaded.controller())(observation)
    _, outputs = loaded.policy.apply(
        loaded.policy.unflatten(loaded.genome),
        (),
        seen(loaded.task, loaded.statistics, observation),
    )
    np.testing.assert_allclose(action, 3 * np.tanh(outputs), rtol=1e-5)
    returns = de.tasks.make_returns(loaded.task, loaded.policy, num_episodes=64)
    again = jax.jit(returns)(jax.random.key(1), loaded.genome[None], loaded.statistics)
    # 164 episodes of one policy, half of them drawn by the run.
    error = np.hypot(*(np.std(each) / len(each) ** 0.5 for each in (again[0], loaded.returns)))
    assert abs(again.mean() - loaded.returns.mean()) < 4 * error


def test_rollout_reports_records_and_draws(folder, tmp_path):
    record, picture = tmp_path / "new" / "episodes.npz", tmp_path / "new" / "episodes.gif"
    result = _cli(
        *("rollout", folder, "--episodes", 16, "--shown", 2, "--record", record, "--draw", picture)
    )
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("Pendulum-v1: ")
    assert [line.split()[0] for line in lines[1:5]] == ["return", "range", "steps", "success"]
    with np.load(record) as arrays:
        assert arrays["observations"].shape == (2, 21, 3)
        assert arrays["actions"].shape == (2, 20, 1)
        assert arrays["state.theta"].shape == (2, 21)
        np.testing.assert_array_equal(arrays["length"], 20)
    assert picture.read_bytes()[:3] == b"GIF"
    same = _cli("rollout", folder / "champion.npz", "--episodes", 16)
    assert same.output.splitlines() == lines[:5]
    other = _cli("rollout", folder, "--episodes", 16, "--seed", 1)
    assert other.output.splitlines()[1] != lines[1]


def test_what_has_no_champion_says_what_to_do(folder, tmp_path):
    for arguments, message in (
        ((folder, "--method", "tall"), "--method tall: expected one of plain"),
        ((folder, "--repeat", 7), "seen plain 0, plain 1"),
        ((folder / "champion.npz", "--repeat", 1), "a run's folder has those of other repeats"),
        ((folder / "plain.npz",), "not readable as a champion"),
        ((folder, "--draw", "a.png"), "a.png: expected a name that ends in .gif, .mp4, .html"),
        ((folder, "--record", "a.csv"), "a.csv: expected a name that ends in .npz"),
        ((folder, "--draw", tmp_path / "a.html"), "expected NAME.gif or NAME.mp4"),
        ((tmp_path,), "not a run folder"),
    ):
        result = _cli("rollout", *arguments, "--episodes", 1)
        assert result.exit_code == 2, result.output
        assert message in result.output
    function = "problem: {name: function, function: two_peaks}\n"
    head, _, rest = CONFIG.partition("problem:\n")
    (tmp_path / "f.yaml").write_text(head + function + rest[rest.index("algorithm") :])
    assert _cli("run", tmp_path / "f.yaml", "--out", tmp_path / "f").exit_code == 0
    assert not (tmp_path / "f" / "champion.npz").exists()
    with pytest.raises(ConfigError, match="seen none"):
        load_champion(tmp_path / "f")


def test_an_environment_of_a_plugin_comes_back_with_it(tmp_path):
    plugin = tmp_path / "balance.py"
    plugin.write_text(
        "import jax, jax.numpy as jnp\n"
        "import diffevo_jax as de\n"
        "class Hold(de.environments.Environment):\n"
        "    actions, max_steps = (-1.0, 1.0), 5\n"
        "    def reset(self, key):\n"
        "        x = jax.random.normal(key, (1,))\n"
        "        return x, x\n"
        "    def step(self, key, state, action):\n"
        "        x = state + action\n"
        "        return de.environments.Transition(x, x, -jnp.abs(x[0]))\n"
        "de.environments.register('hold', Hold)\n"
    )
    config = CONFIG.replace("Pendulum-v1", "hold").replace("  parameters: {max_torque: 3.0}\n", "")
    (tmp_path / "hold.yaml").write_text(config)
    settings = load(tmp_path / "hold.yaml").config
    with pytest.raises(ValueError, match="'hold'"):
        engine.build(settings)
    out = tmp_path / "out"
    (out / "plugins").mkdir(parents=True)
    kept = plugin.rename(out / "plugins" / plugin.name)
    genome = np.zeros((1, 10), np.float32)  # one input, three hidden units, one output
    arrays = {"reevaluated_genome": genome, "reevaluated_return": np.zeros((1, 2))}
    arrays |= {f"observation_{name}": np.zeros((1, 1)) for name in de.tasks.Statistics._fields}
    champion.write(out, settings, {"plain": arrays})
    result = _cli("rollout", out / "champion.npz", "--episodes", 4)
    assert result.exit_code == 2
    assert f"keeps them: --plugin {kept}" in result.output
    again = _cli("rollout", out / "champion.npz", "--episodes", 4, "--plugin", kept)
    assert again.exit_code == 0, again.output
    engine.build(settings)
    del OWN["hold"]
