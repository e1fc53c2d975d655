"""Configs, runs and the command line: what they leave behind, and what they say of bad input."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import matplotlib.figure
import numpy as np
import pytest
import yaml
from conftest import PLAIN_CLI, REPOSITORY
from rich.console import Console
from typer.testing import CliRunner

import diffevo_jax as de
from diffevo_jax.runs.cli import app
from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config import yaml as yaml_loader
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.report import figure, table
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results.fields import mean_and_error
from diffevo_jax.runs.results.loading import quartiles
from diffevo_jax.runs.run import engine as run
from diffevo_jax.runs.run import startup

pytestmark = pytest.mark.usefixtures("one_device")

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
SWEEPS = [path for path in CONFIGS if "\nsweep:" in path.read_text()]
RUNS = [path for path in CONFIGS if path not in SWEEPS]
TINY = """\
# A run of milliseconds.
name: tiny
description: two peaks
repeats: 3
population_size: 16
problem: {name: function, function: two_peaks, success: 0.5}
algorithm:
  name: paper
  schedule: {name: cosine, num_levels: 4}
  fitness_map: {name: boltzmann, temperature: 1e-1}
methods:
  plain: {label: plain}
  latent: {label: latent, algorithm: {latent_dim: 1}}
"""


@pytest.fixture
def tiny(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def _cli(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)


def _run(path: Path, folder: Path, *overrides: str, **kwargs):
    config = load(path, list(overrides)).config
    folder = results.create(folder, config.name)
    return run.run(config, run.build(config), folder, **kwargs)


# What a run leaves behind


def test_a_run_folder_holds_all_that_it_promises(tiny, tmp_path):
    out = tmp_path / "out"
    result = _cli("run", tiny, "--out", out)
    assert result.exit_code == 0, result.output
    assert "plain" in result.output
    assert "success, %" in result.output
    names = {path.name for path in out.iterdir()}
    expected = {"config.yaml", "environment.json", "metrics.csv", "figure.png", "figure.pdf"}
    assert names == expected | {"plain.npz", "latent.npz"}

    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 4  # methods, repeats, generations
    saved = np.load(out / "latent.npz")
    assert saved["fitness"].shape == (3, 4, 16)
    assert saved["final_population"].shape == (3, 16, 2)
    assert saved["best_genome"].shape == (3, 2)
    np.testing.assert_array_equal(saved["best_fitness"], saved["fitness"].max((1, 2)))
    np.testing.assert_array_equal(saved["success_rate"], np.mean(saved["fitness"] >= 0.5, axis=2))
    last = next(
        r for r in rows if (r["method"], r["repeat"], r["generation"]) == ("latent", "1", "4")
    )
    np.testing.assert_allclose(
        float(last["fitness_mean"]), saved["fitness"][1, 3].mean(), rtol=1e-5
    )
    assert float(last["success_rate"]) == np.mean(saved["fitness"][1, 3] >= 0.5)
    # Compiled twice, and exp of a large distance amplifies the rounding.
    np.testing.assert_allclose(
        de.landscapes.two_peaks(saved["final_population"][2]), saved["fitness"][2, 3], atol=1e-5
    )

    record = json.loads((out / "environment.json").read_text())
    assert record["status"] == "complete"
    assert record["versions"]["jax"] == jax.__version__
    assert record["methods"]["plain"]["finished_repeats"] == 3
    assert record["methods"]["plain"]["compile_seconds"] > 0


def test_the_resolved_config_runs_again_to_the_same_numbers(tiny, tmp_path):
    _run(tiny, tmp_path / "a", "algorithm.eta=0.5", "methods.latent.algorithm.eta=0.25")
    _run(tmp_path / "a" / "config.yaml", tmp_path / "b")
    first, second = (load(tmp_path / name / "config.yaml").config for name in "ab")
    assert first == second
    assert first.methods["plain"].algorithm.eta == 0.5
    assert first.methods["latent"].algorithm.eta == 0.25
    for method in ("plain", "latent"):
        a, b = (np.load(tmp_path / name / f"{method}.npz")["fitness"] for name in "ab")
        np.testing.assert_array_equal(a, b)


def test_chunks_of_generations_change_nothing(tiny, tmp_path, monkeypatch):
    settings = "algorithm.schedule.num_levels=5", "methods={plain: {label: plain}}"
    _run(tiny, tmp_path / "a", *settings)
    monkeypatch.setattr(run, "GENERATIONS_PER_CHUNK", 3)  # of 3 and of 2
    _run(tiny, tmp_path / "b", *settings)
    a, b = (np.load(tmp_path / name / "plain.npz")["fitness"] for name in "ab")
    np.testing.assert_array_equal(a, b)  # on a CPU


def test_the_repeats_of_a_call_change_nothing(tiny, tmp_path, monkeypatch):
    assert run._per_call(3, 1) == 3
    _run(tiny, tmp_path / "a")
    monkeypatch.setattr(run, "REPEATS_PER_CALL", 1)
    _run(tiny, tmp_path / "b")
    for method in ("plain", "latent"):
        a, b = (np.load(tmp_path / name / f"{method}.npz") for name in "ab")
        for name in a.files:  # a loop of one turn is another program, which rounds otherwise
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("repeats", "devices", "per_call"), [(100, 2, 4), (3, 1, 3), (3, 2, 4), (1, 1, 1), (9, 2, 2)]
)
def test_a_call_takes_as_many_repeats_as_fill_up_least(repeats, devices, per_call):
    assert run._per_call(repeats, devices) == per_call


def test_a_second_process_compiles_nothing_and_any_number_of_cores_gives_the_same(tiny, tmp_path):
    folder = tmp_path / "home"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(folder)}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    environment["XLA_FLAGS"] += " --xla_force_host_platform_device_count=3"
    tiny.write_text(TINY.replace("  plain: {label: plain}\n", ""))  # one method's compilation
    seconds = {}
    for name in ("first", "second"):
        out = tmp_path / name
        subprocess.run([*PLAIN_CLI, "run", str(tiny), "--out", out], env=environment, check=True)
        assert (folder / "diffevo-jax").exists()
        record = json.loads((out / "environment.json").read_text())
        seconds[name] = sum(method["compile_seconds"] for method in record["methods"].values())
    assert seconds["second"] < seconds["first"] / 2
    _run(tiny, tmp_path / "alone")  # on one device
    a, b = (np.load(tmp_path / name / "latent.npz")["fitness"] for name in ("alone", "second"))
    np.testing.assert_array_equal(a, b)


def test_no_cache_keeps_no_programs(tiny, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(startup, "keep_compiled", lambda: kept.append("kept"))
    monkeypatch.setattr(run, "build", lambda *_, **__: sys.exit(0))
    for options, expected in (["--no-cache"], []), ([], ["kept"]):
        _cli("run", tiny, "--out", tmp_path / "out", *options)
        assert kept == expected


def test_a_control_task_runs_on_every_core(tmp_path):
    code = (
        "import sys, jax; from diffevo_jax.runs import cli; "
        "from diffevo_jax.runs.run import engine; "
        "engine.build = lambda *_, **__: sys.exit(f'{jax.local_device_count()} devices'); "
        "cli.app(['run', 'fig4_cartpole', '--no-cache', '--set', 'methods={raw: {label: raw}}', "
        f"'--out', {str(tmp_path / 'out')!r}])"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert f"{len(os.sched_getaffinity(0))} devices" in result.stderr


def test_the_cache_is_where_xdg_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert startup.cache_folder() == tmp_path / "diffevo-jax" / "xla"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert startup.cache_folder() == Path.home() / ".cache" / "diffevo-jax" / "xla"


def test_a_gpu_runs_loops_as_graphs_unless_xla_flags_say_otherwise(monkeypatch):
    flag = "--xla_gpu_enable_command_buffer"
    for plugin, flags, expected in (
        (None, "--xla_a=1", "--xla_a=1"),
        ("jax_cuda13_plugin", "", f"{flag}=+WHILE,+CONDITIONAL"),
        ("jax_cuda12_plugin", "--xla_a=1", f"--xla_a=1 {flag}=+WHILE,+CONDITIONAL"),
        ("jax_cuda13_plugin", f"{flag}=", f"{flag}="),
    ):
        monkeypatch.setenv("XLA_FLAGS", flags)
        monkeypatch.setattr(
            startup.importlib.util, "find_spec", lambda name, plugin=plugin: name == plugin
        )
        startup.use_graphs()
        assert os.environ["XLA_FLAGS"] == expected


def test_the_cpu_takes_the_flag_of_gpus_graphs():
    """XLA ends the process at a flag that it does not know."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL"
    code = "import jax; print(jax.devices())"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)


def test_a_run_is_evolve_with_the_configs_settings(tiny, tmp_path):
    _run(tiny, tmp_path / "out")
    key = jax.random.fold_in(jax.random.key(0), 2)
    key_init, _, key_run = jax.random.split(key, 3)
    algorithm = de.presets.paper(
        de.schedules.cosine(4), fitness_map=de.fitness.boltzmann(0.1), eta=1.0
    )
    population = jax.random.normal(key_init, (16, 2))
    evolve = jax.jit(lambda key, x: de.evolve(key, algorithm, de.landscapes.two_peaks, x).kept)
    saved = np.load(tmp_path / "out" / "plain.npz")["fitness"][2]
    np.testing.assert_allclose(saved, evolve(key_run, population), rtol=1e-4)


def test_a_limit_clips_what_is_evaluated_and_what_goes_on(tiny, tmp_path):
    _run(tiny, tmp_path / "out", "problem.limit=0.5", "problem.scale=2.0")
    saved = np.load(tmp_path / "out" / "plain.npz")
    assert np.abs(saved["final_population"]).max() <= 0.25  # where without it they reach 0.5
    expected = de.landscapes.two_peaks(2 * saved["final_population"])
    np.testing.assert_allclose(saved["fitness"][:, -1], expected, rtol=1e-4)
    assert np.abs(saved["best_genome"]).max() <= 0.25


def test_a_run_that_does_not_select_says_what_to_change(tiny, tmp_path):
    said = []
    nobody = "algorithm.fitness_map={name: identity}", "problem.scale=1e6"  # far from the peaks
    tiny.write_text(TINY.split("  latent")[0])
    _run(tiny, tmp_path / "a", *nobody, say=said.append)
    _run(tiny, tmp_path / "b", "algorithm.fitness_map.temperature=1e-9", say=said.append)
    infinite = "problem: {name: bbob, function: f1, num_genes: 2, scale: 1e30}\n"
    pepg = "algorithm: {name: pepg, num_generations: 2}\nmethods: {plain: {label: plain}}\n"
    tiny.write_text(TINY.split("problem")[0] + infinite + pepg)
    _run(tiny, tmp_path / "c", say=said.append)
    assert len(said) == 3
    assert said[0].startswith("plain: in 3 of 3 repeats nothing was selected")
    assert said[1].startswith("plain: in 3 of 3 repeats no individual learned from others")
    assert said[2].startswith("plain: in 3 of 3 repeats nothing was selected")


def test_a_config_without_a_fitness_map_takes_fitness_of_any_sign_and_unit(tiny, tmp_path):
    plain = TINY.split("  latent")[0].replace(", success: 0.5", "")
    tiny.write_text(plain.replace("  fitness_map: {name: boltzmann, temperature: 1e-1}\n", ""))
    overrides = "problem.function=rastrigin", "algorithm.fitness_map={temperature: 0.3}"
    (method,) = load(tiny, list(overrides)).config.methods.values()
    expected = {"name": "standardised", "temperature": 0.3, "robust": False}
    assert method.algorithm.fitness_map.model_dump() == expected
    _run(tiny, tmp_path / "default")
    tiny.write_text(plain.replace("name: boltzmann", "name: standardised"))
    _run(tiny, tmp_path / "named")
    a, b = (np.load(tmp_path / name / "plain.npz")["fitness"] for name in ("default", "named"))
    np.testing.assert_allclose(a, b, rtol=1e-4)


def test_fewer_populations_are_saved_on_request(tiny, tmp_path):
    _run(tiny, tmp_path / "out", "save_populations=1", "methods.latent.save_populations=0")
    assert np.load(tmp_path / "out" / "plain.npz")["final_population"].shape == (1, 16, 2)
    latent = np.load(tmp_path / "out" / "latent.npz")
    assert latent.files == ["fitness", "success_rate", "best_genome", "best_fitness"]
    assert latent["best_genome"].shape == (3, 2)  # of all repeats


CONTROL = """\
name: again
description: a small network on cart-pole
repeats: 2
seed: 5
population_size: 8
problem: {name: control, environment: CartPole-v1, policy: {hidden: [2]}, success: 15}
algorithm: {name: paper, schedule: {num_levels: 4}}
checkpoint: {every: 2}
"""


def test_the_best_individual_of_a_control_task_is_rolled_out_again(tmp_path):
    path = tmp_path / "again.yaml"
    path.write_text(CONTROL)
    (whole,) = _run(path, tmp_path / "whole")
    saved = np.load(tmp_path / "whole" / "diffusion_evolution.npz")
    best = saved["final_population"][[0, 1], saved["fitness"][:, -1].argmax(axis=1)]
    np.testing.assert_array_equal(saved["reevaluated_genome"], best)

    task = de.tasks.make_task("CartPole-v1", max_steps=500)
    returns = jax.jit(de.tasks.make_returns(task, de.policies.mlp((4, 2, 2))))
    for repeat, key in enumerate(de.batch.seed_keys(5, 2)):
        expected = returns(jax.random.fold_in(key, 3), np.tile(best[repeat], (100, 1)))[:, 0]
        np.testing.assert_array_equal(saved["reevaluated_return"][repeat], expected)
    success = saved["reevaluated_return"] >= 15
    np.testing.assert_array_equal(saved["reevaluated_success"], success)
    assert whole.value("reevaluated_return") == mean_and_error(
        saved["reevaluated_return"].mean(axis=1, dtype=float)
    )
    assert whole.value("reevaluated_success") == mean_and_error(success.mean(axis=1))
    console = Console(record=True, width=100)
    console.print(*table.of_run([whole]))
    shown = console.export_text().split("Its best individual over 100 fresh episodes")[1]
    assert f"{saved['reevaluated_return'].mean(dtype=float):.4g} ±" in shown
    assert f"{100 * success.mean():.1f} ±" in shown


@pytest.mark.slow
def test_a_control_task_killed_at_its_end_goes_on_to_the_same_numbers(tmp_path):
    path = tmp_path / "again.yaml"
    path.write_text(CONTROL)
    (whole,) = _run(path, tmp_path / "whole")
    saved = np.load(tmp_path / "whole" / "diffusion_evolution.npz")

    def stop(_: str, repeats: int, generations: int, __: bool) -> None:
        if (repeats, generations) == (0, 2 * 4):
            raise KeyboardInterrupt

    config = load(path).config
    with pytest.raises(KeyboardInterrupt):
        run.run(config, run.build(config), results.create(tmp_path / "cut", ""), progress=stop)
    assert list((tmp_path / "cut" / "checkpoints" / "progress").iterdir())
    assert run.run(config, run.build(config), tmp_path / "cut") == [whole]
    again = np.load(tmp_path / "cut" / "diffusion_evolution.npz")
    assert again.files == saved.files
    for name in again.files:
        np.testing.assert_array_equal(again[name], saved[name])


def test_a_latent_space_of_too_many_dimensions_is_named_as_the_config_names_it(tiny, tmp_path):
    config = load(tiny, ["methods.latent.algorithm.latent_dim=3"]).config
    with pytest.raises(cfg.ConfigError, match=r"algorithm\.latent_dim: expected 1 to 2, .*seen 3"):
        run.build(config)


def test_a_kernel_for_another_machine_is_named_before_the_run_with_advice(tiny, tmp_path):
    tiny.write_text(
        TINY.split("methods:")[0].split("algorithm:")[0]
        + "algorithm: {name: denoising_evolution, schedule: {num_levels: 4}, "
        "denoiser: {kernel: {implementation: gpu}}, sampler: {}}\n"
    )
    message = r"kernel\.implementation: expected .* a cpu; seen 'gpu'.*; 'auto' takes"
    with pytest.raises(cfg.ConfigError, match=message):
        _run(tiny, tmp_path / "out")


def test_a_figure_is_drawn_from_the_folder_alone(tiny, tmp_path):
    _run(tiny, tmp_path / "out")
    for name in ("metrics.csv", "environment.json"):
        (tmp_path / "out" / name).unlink()
    moved = (tmp_path / "out").rename(tmp_path / "elsewhere")
    assert _cli("plot", moved).exit_code == 0
    assert (moved / "figure.png").stat().st_size > 10_000
    assert (moved / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_a_figure_takes_the_fitness_that_is_no_number_out():
    fitness = np.full((1, 2, 4), np.nan)
    fitness[0, :, :2] = [[1, 3], [5, 7]]
    np.testing.assert_allclose(quartiles(fitness)[1], [2, 6])


# Ending early


def test_an_interrupted_run_keeps_what_is_finished(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "REPEATS_PER_CALL", 1)

    def progress(name, repeats, generations, compiling):
        if (name, repeats, generations) == ("latent", 1, 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(tiny, tmp_path / "out", progress=progress)
    record = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert record["status"] == "interrupted"
    assert results.finished_repeats(tmp_path / "out") == {"plain": 3, "latent": 1}
    assert np.load(tmp_path / "out" / "latent.npz")["fitness"].shape == (1, 4, 16)
    with (tmp_path / "out" / "metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) == (3 + 1) * 4
    assert len(figure.draw(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    "sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_ctrl_c_and_a_schedulers_end_say_what_they_kept(tiny, tmp_path, sent):
    out = tmp_path / "out"
    command = [*PLAIN_CLI, "run", str(tiny)]
    compiled = tmp_path / "compiled"
    process = subprocess.Popen(
        [*command, "--out", str(out), "--set", "repeats=1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(compiled)},
        # A job in a shell's background hands its children an ignored Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(compiled.glob("jit_advance_repeats*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)  # into the repeats
    process.send_signal(sent)
    try:
        output, _ = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "Interrupted. Kept in" in output
    assert results.finished_repeats(out)["plain"] == len(np.load(out / "plain.npz")["fitness"]) > 0


@pytest.mark.usefixtures("undrawn")
def test_a_negative_fitness_under_identity_stops_the_run_with_advice(tmp_path):
    path = tmp_path / "car.yaml"
    path.write_text(
        """
name: car
description: returns below zero
population_size: 4
problem: {name: control, environment: MountainCar-v0, policy: {hidden: [2]}, max_steps: 5}
algorithm: {name: paper, schedule: {num_levels: 2}, fitness_map: {name: identity}}
"""
    )
    out = tmp_path / "out"
    result = _cli("run", path, "--out", out)
    assert result.exit_code == 2
    assert "went down to -5" in result.output
    assert "--set algorithm.fitness_map.name=boltzmann" in result.output
    assert json.loads((out / "environment.json").read_text())["status"].startswith("stopped")
    advised = _cli("run", path, "--set", "algorithm.fitness_map.name=boltzmann", "--out", out / "b")
    assert advised.exit_code == 0, advised.output


def test_an_existing_folder_is_never_overwritten(tiny, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("data")
    result = _cli("run", tiny, "--out", out)
    assert result.exit_code == 2
    assert f"--out {out}: exists" in result.output
    assert [path.name for path in out.iterdir()] == ["precious"]


def test_two_runs_in_one_second_get_two_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {results.create(None, "name") for _ in range(5)}
    assert len(folders) == 5


# Configs


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_starts_with_its_command(path):
    config = load(path).config
    assert config.name == path.stem
    assert path.read_text().startswith(f"# diffevo-jax run configs/{path.name}\n")
    assert set(run.build(config)) == set(config.methods)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_is_valid_and_starts_with_its_command(path):
    assert load(path).name == path.stem
    assert path.read_text().startswith(f"# diffevo-jax sweep configs/{path.name}\n")


def test_the_cart_pole_config_has_the_papers_settings():
    config = load(REPOSITORY / "configs" / "fig4_cartpole.yaml").config
    programs = run.build(config)
    assert [program.num_genes for program in programs.values()] == [58, 58, 17_410]
    for method in config.methods.values():
        assert method.algorithm.schedule.model_dump() == {
            "name": "cosine",
            "num_levels": 10,
            "clean": False,
        }
        assert method.algorithm.fitness_map.model_dump() == {"name": "boltzmann", "temperature": 1}
        assert (method.algorithm.eta, method.algorithm.floor) == (1.0, 1e-9)
        assert method.population_size == 256


def test_yaml_numbers_are_those_of_yaml_1_2():
    read = yaml_loader.load
    assert read("[1e-3, 1E5, -2.5e+1, .5e1, 3, 1.5]") == [1e-3, 1e5, -25.0, 5.0, 3, 1.5]
    assert read("[0o17, 0x1f, -3, +4, 0, 1.]") == [15, 31, -3, 4, 0, 1.0]
    texts = ["e3", "1e", "a1e5", "yes", "off", "2024-01-02", "1.2.3", "<<"]
    assert read(f"[{', '.join(texts)}]") == texts
    assert read("[true, null, ~, .inf, '010', \"1:30:00\"]") == [
        *(True, None, None, float("inf"), "010", "1:30:00"),
    ]


@pytest.mark.parametrize(
    "number", ["010", "08", "-01", "1_0", "1_000.5", "1:30:00", "190:20:30.15", "0b11"]
)
def test_a_number_that_yaml_1_1_reads_otherwise_is_refused_with_its_line(number):
    with pytest.raises(yaml_loader.YamlError, match=f"^line 2: {number} is another number"):
        yaml_loader.load(f"a: 1\nseed: {number}")
    assert yaml_loader.load(yaml_loader.dump({"a": number})) == {"a": number}


@pytest.mark.parametrize(
    ("old", "new", "path", "expected", "seen"),
    [
        ("repeats: 3", "repeat: 3", "repeat", "one of the keys name,", "'repeat'"),
        (
            "temperature: 1e-1",
            "temprature: 1",
            "algorithm.fitness_map.temprature",
            "one of the",
            "",
        ),
        ("name: cosine", "name: cosin", "algorithm.schedule.name", "one of cosine, lin", "'cosin'"),
        ("name: boltzmann", "name: boltzman", "algorithm.fitness_map.name", "one of stand", ""),
        ("function: two_peaks", "function: two_peak", "problem.function", "one of two_peaks,", ""),
        ("name: function", "name: fun", "problem.name", "one of function, bbob, control", "'fun'"),
        ("name: function, ", "", "problem.name", "one of function, bbob, control", "nothing"),
        ("repeats: 3", "repeats: 0", "repeats", "1 or more", "int 0"),
        ("repeats: 3", "repeats: many", "repeats", "a whole number", "'many'"),
        ("repeats: 3", "repeats: 2.5", "repeats", "a whole number", "float 2.5"),
        ("repeats: 3", "repeats: true", "repeats", "a whole number", "bool True"),
        ("population_size: 16", "population_size: 1", "population_size", "2 or more", "int 1"),
        ("population_size: 16\n", "", "population_size", "a value", "nothing"),
        ("num_levels: 4", "num_levels: 1", "algorithm.schedule.num_levels", "2 or more", "int 1"),
        (", num_levels: 4", "", "algorithm.schedule.num_levels", "a value", "nothing"),
        ("1e-1", "-1", "algorithm.fitness_map.temperature", "a number above 0", "int -1"),
        ("1e-1", ".nan", "algorithm.fitness_map.temperature", "a finite number", "float nan"),
        ("latent_dim: 1", "latent_dim: 0", "methods.latent.algorithm.latent_dim", "1 or more", ""),
        ("name: tiny", "name: ../tiny", "name", "letters, digits, - and _", "'../tiny'"),
        ("plain: {", "a/b: {", "methods.a/b", "letters, digits, - and _", "'a/b'"),
        ("plain: {", "a.b: {", "methods.a.b", "letters, digits, - and _", "'a.b'"),
        ("population_size: 16", "population_size: 16\nalgoritm: 3", "algoritm", "one of the", ""),
        ("success: 0.5", "success: .nan", "problem.success", "a finite number", "float nan"),
        ("success: 0.5", "num_genes: 0", "problem.num_genes", "1 or more", "int 0"),
        ("{label: plain}", "7", "methods.plain", "keys and values", "int 7"),
    ],
)
def test_a_bad_setting_is_an_error_with_its_place_and_what_was_expected_and_seen(
    tiny, old, new, path, expected, seen
):
    assert old in TINY
    tiny.write_text(TINY.replace(old, new))
    with pytest.raises(cfg.ConfigError) as error:
        load(tiny)
    (problem,) = error.value.problems
    assert problem.path == path
    assert problem.expected.startswith(expected)
    assert problem.seen.startswith(seen)
    assert str(error.value) == f"{tiny}: {problem}"


@pytest.mark.parametrize(
    ("old", "new", "meant"),
    [
        ("repeats: 3", "repeat: 3", "repeats"),
        ("temperature: 1e-1", "temprature: 1", "temperature"),
        ("name: cosine", "name: cosin", "cosine"),
        ("function: two_peaks", "function: two_peak", "two_peaks"),
        ("population_size: 16", "population_size: 16\nalgoritm: 3", "algorithm"),
    ],
)
def test_the_nearest_name_is_said(tiny, old, new, meant):
    tiny.write_text(TINY.replace(old, new))
    with pytest.raises(cfg.ConfigError) as error:
        load(tiny)
    assert [each.advice for each in error.value.problems] == [f"did you mean '{meant}'?"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("latent_dim: 1", "latent_dim: 3", "methods.latent: algorithm.latent_dim: expected 1 to"),
        ("repeats: 3", "repeats: 3\nrepeats: 4", "line 5: key 'repeats' is given twice"),
        ("repeats: 3", "repeats: [3", "tiny.yaml: line"),
        ("repeats: 3", "3: 3", "line 4: key 3 is not a string"),
        ("repeats: 3", "repeats: 03", "line 4: 03 is another number"),
        ("description: two peaks", "description: &a b\nname: *a", "aliases"),
        (TINY, "- a\n- b\n", "expected keys and values; seen list ['a', 'b']"),
        (TINY, "", "expected keys and values; seen nothing"),
        (TINY, "\x00", "tiny.yaml"),
        ("repeats: 3", "repeats: !!python/object:os.system 3", "could not determine a constructor"),
        ("repeats: 3", "repeats: !!timestamp 2024-13-45", "not readable as YAML"),
    ],
)
def test_a_bad_config_gets_one_clear_message(tiny, tmp_path, old, new, message):
    assert old in TINY
    tiny.write_text(TINY.replace(old, new))
    result = _cli("run", tiny, "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert "tiny" in result.output.splitlines()[0]  # the file, or the run's name
    assert not (tmp_path / "out").exists()


def test_a_bad_environment_lists_the_known_ones_and_the_nearest(tmp_path):
    config = (REPOSITORY / "configs" / "fig4_cartpole.yaml").read_text()
    path = tmp_path / "bad.yaml"
    path.write_text(config.replace("CartPole-v1", "CartPole-v0"))
    output = _cli("run", path).output
    assert "problem.environment: expected one of CartPole-v1, Pendulum-v1" in output
    assert "seen 'CartPole-v0'; did you mean 'CartPole-v1'?" in output
    path.write_text(config.replace("name: mlp", "name: mpl"))
    with pytest.raises(cfg.ConfigError) as error:
        load(path)
    (problem,) = error.value.problems  # once, not once a method
    assert (problem.path, problem.expected) == ("problem.policy.name", "one of mlp, gru")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algorithm.eta", "--set algorithm.eta: expected a.b=c"),
        ("=1", "--set =1: expected a.b=c"),
        ("a..b=1", "--set a..b=1: expected a.b=c"),
        ("repeats=[1", "--set repeats=[1: line 1"),
        ("repeats=1_0", "--set repeats=1_0: line 1: 1_0 is another number"),
    ],
)
def test_an_override_that_is_none_is_named(tiny, override, message):
    result = _cli("run", tiny, "--set", override)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("override", "path", "expected", "advice"),
    [
        ("algorithm.etta=1", "algorithm.etta", "one of the keys name, schedule", "'eta'"),
        ("algorithm.eta=2", "algorithm.eta", "1 or less", ""),
        ("repeats.x=1", "repeats", "a whole number", ""),
        ("methods.plian.algorithm.eta=1", "methods", "one of plain, latent", "'plain'"),
        ("methods.plain.algorithm.eta=2", "methods.plain.algorithm.eta", "1 or less", ""),
    ],
)
def test_a_wrong_override_is_named_once(tiny, override, path, expected, advice):
    with pytest.raises(cfg.ConfigError) as error:
        load(tiny, [override])
    (problem,) = error.value.problems
    assert problem.path == path
    assert problem.expected.startswith(expected)
    assert advice in problem.advice


def test_an_override_adds_a_method_that_is_given_whole(tiny):
    third = "methods.third={label: third, algorithm: {eta: 0.5}}"
    methods = load(tiny, [third, "methods.third.algorithm.floor=1e-3"]).config.methods
    assert list(methods) == ["plain", "latent", "third"]
    assert (methods["third"].algorithm.eta, methods["third"].algorithm.floor) == (0.5, 1e-3)


@pytest.mark.usefixtures("undrawn")
def test_a_config_needs_no_description(tiny, tmp_path):
    tiny.write_text(re.sub("(?m)^description: .*\n", "", TINY))
    result = _cli("run", tiny, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("tiny\n")


def test_a_config_of_the_package_is_called_by_its_name():
    result = _cli("run", "two_peaks", "--set", "algorithm.eta=3")
    assert result.output.startswith("error: two_peaks: algorithm.eta: expected 1 or less")
    assert "run it with `diffevo-jax sweep sweep_cartpole`" in _cli("run", "sweep_cartpole").output


def test_another_choice_replaces_its_section_and_nothing_else(tiny):
    overridden = load(tiny, ["algorithm.fitness_map.name=identity"]).config
    fitness_map = overridden.methods["latent"].algorithm.fitness_map
    assert fitness_map.model_dump() == {"name": "identity"}
    schedule = ["algorithm.schedule.num_levels=5", "algorithm.schedule.name=linear"]
    renamed = load(tiny, ["name=other", *schedule]).config  # in either order
    assert (renamed.name, renamed.repeats) == ("other", 3)
    schedule = renamed.methods["plain"].algorithm.schedule
    assert schedule.model_dump() == {"name": "linear", "num_levels": 5}
    same = load(tiny, ["algorithm.name=paper"]).config  # the one that it has
    assert same.methods == load(tiny).config.methods
    problem = load(tiny, ["problem.function=beale"]).config.methods["plain"].problem
    assert (problem.name, problem.function, problem.success) == ("function", "beale", 0.5)


def test_an_override_of_a_shared_setting_leaves_a_method_its_own(tiny):
    methods = load(tiny, ["algorithm.latent_dim=2", "algorithm.eta=0.25"]).config.methods
    assert [method.algorithm.latent_dim for method in methods.values()] == [2, 1]
    assert [method.algorithm.eta for method in methods.values()] == [0.25, 0.25]


def test_of_two_overrides_of_one_setting_the_later_wins(tiny):
    twice = ["algorithm.eta=0.5", "algorithm.eta=0.25", "population_size=8", "population_size=4"]
    config = load(tiny, twice).config
    assert config.description.endswith("overridden: algorithm.eta=0.25, population_size=4")
    assert {method.algorithm.eta for method in config.methods.values()} == {0.25}
    assert {method.population_size for method in config.methods.values()} == {4}


def test_an_override_that_no_method_takes_is_an_error_that_names_one_that_works(tiny, tmp_path):
    results.write_config(tmp_path, load(tiny).config, "")
    resolved = tmp_path / "config.yaml"  # states everything in every method
    with pytest.raises(cfg.ConfigError) as error:
        load(resolved, ["algorithm.eta=0.25"])
    (problem,) = error.value.problems
    assert problem.path == "algorithm.eta"
    assert "`--set methods.plain.algorithm.eta=0.25`" in problem.advice
    methods = load(resolved, ["methods.plain.algorithm.eta=0.25"]).config.methods
    assert [method.algorithm.eta for method in methods.values()] == [0.25, 1.0]


def test_an_override_of_a_shared_setting_leaves_other_optimisers_alone(tiny):
    cma_es = "  cma: {label: CMA-ES, algorithm: {name: cma_es, num_generations: 4}}\n"
    tiny.write_text(TINY + cma_es)
    methods = load(tiny, ["algorithm.eta=0.25", "problem.scale=2.0"]).config.methods
    assert methods["plain"].algorithm.eta == methods["latent"].algorithm.eta == 0.25
    assert methods["cma"].algorithm.name == "cma_es"
    assert {method.problem.scale for method in methods.values()} == {2.0}


@pytest.mark.usefixtures("undrawn")
def test_what_looks_like_a_number_or_markup_survives_a_run(tiny, tmp_path):
    tiny.write_text(TINY.replace("label: plain", 'label: "1e-3"').replace("latent: {", '"1e5": {'))
    override = ["--set", 'description="[/b] $x [red]y[/red]"', "--set", "repeats=\n  1"]
    result = _cli("run", tiny, "--out", tmp_path / "out", *override)
    assert result.exit_code == 0, result.output
    assert "[/b] $x [red]y[/red]" in result.output
    assert set(load(tmp_path / "out" / "config.yaml").config.methods) == {"plain", "1e5"}


def test_a_damaged_result_or_an_unreadable_label_is_named(tiny, tmp_path):
    result = _cli("run", tiny, "--out", tmp_path / "out", "--set", "figure.ylabel=$\\frac$")
    assert result.exit_code == 2
    assert "figure:" in result.output
    assert results.finished_repeats(tmp_path / "out") == {"plain": 3, "latent": 3}
    (tmp_path / "out" / "plain.npz").write_bytes(b"")
    result = _cli("plot", tmp_path / "out")
    assert result.exit_code == 2
    assert "plain.npz: not readable" in result.output


def test_a_missing_file_names_its_nearest_neighbour(tiny, tmp_path):
    result = _cli("run", tmp_path / "tinny.yaml")
    assert result.exit_code == 2
    assert "no such file; did you mean" in result.output
    for path in (tmp_path, "", ".", "/", "x" * 5000, "two_peak"):
        result = _cli("run", path)
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
    assert "did you mean 'two_peaks'?" in result.output
    assert "not a run folder" in _cli("plot", tmp_path).output


def test_list_shows_every_config_with_its_line_under_its_command():
    runs, _, rest = _cli("list").output.partition("diffevo-jax sweep NAME\n")
    assert runs.startswith("diffevo-jax run NAME\n")
    sweeps = rest.partition("diffevo-jax reproduce")[0]
    for text, paths in ((runs, RUNS), (sweeps, SWEEPS)):
        lines = [line for line in text.splitlines() if line.startswith("  ")]
        assert [line.split()[0] for line in lines] == [path.stem for path in paths]
        assert all(len(line.split(None, 1)[1]) > 20 for line in lines)


def test_info_shows_versions_device_and_kernel():
    output = _cli("info").output
    assert jax.__version__ in output
    assert "estimator" in output


# Start-up


def test_importing_the_library_leaves_the_runners_packages_alone():
    code = (
        "import sys, diffevo_jax as de; de.evolve, de.policies, de.tasks; "
        "print([m for m in ('gymnax', 'gymnasium', 'matplotlib', 'pydantic', 'typer') "
        "if m in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_help_waits_for_the_face_alone_and_every_public_name_is_there():
    code = (
        "import sys, diffevo_jax, typer; before = set(sys.modules); import diffevo_jax.runs.cli; "
        "print(sorted(set(sys.modules) - before))"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "['diffevo_jax.runs', 'diffevo_jax.runs.cli']"
    shown = re.findall(r"import \w+ as (\w+)", (REPOSITORY / "diffevo_jax/__init__.py").read_text())
    assert all(getattr(de, name) for name in shown)
    with pytest.raises(AttributeError, match="no attribute 'evolv'"):
        de.evolv  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_the_library_never_imports_experiments():
    for path in (REPOSITORY / "diffevo_jax").rglob("*.py"):
        assert "import experiments" not in path.read_text()
        assert "from experiments" not in path.read_text()


def test_resolved_configs_are_plain_yaml(tiny, tmp_path):
    _run(tiny, tmp_path / "out")
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["name"] == "tiny"


# As a new user would


@pytest.mark.usefixtures("undrawn")
def test_a_run_folder_runs_again_and_a_complete_one_draws_no_bar(tiny, tmp_path):
    out = tmp_path / "out"
    first = _cli("run", tiny, "--out", out, "--set", "repeats=1")
    assert "━━━" in first.output  # the bars
    again = _cli("run", out, "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    np.testing.assert_array_equal(
        *(np.load(folder / "plain.npz")["fitness"] for folder in (out, tmp_path / "again"))
    )
    resumed = _cli("run", out, "--resume")
    assert "complete already" in resumed.output
    assert "━━━" not in resumed.output
    # A damaged file is said to be run again, and nothing says that the run is complete.
    (out / "plain.npz").write_bytes(b"")
    resumed = _cli("run", out, "--resume")
    assert "The method runs again." in resumed.output
    assert "complete already" not in resumed.output
    assert "━━━" in resumed.output


@pytest.mark.usefixtures("undrawn")
def test_printed_commands_run_when_they_are_pasted(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    result = _cli("run", tiny, "--out", "~/a long name/" + 8 * "of many words ", "--repeats", 1)
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "a long name").iterdir()
    command = (folder / "config.yaml").read_text().splitlines()[0].removeprefix("# ")
    assert shlex.split(command) == ["diffevo-jax", "run", str(folder / "config.yaml")]
    record = json.loads((folder / "environment.json").read_text())
    results.write_environment(folder, record | {"status": "stopped"})
    result = _cli("run", folder, "--out", tmp_path / "b")
    (command,) = re.findall("`(.*)`", result.output)
    assert shlex.split(command) == ["diffevo-jax", "run", str(folder), "--resume"]


def test_a_folder_that_is_no_runs_is_said_to_be_none(tmp_path):
    result = _cli("run", tmp_path)
    assert result.exit_code == 2
    assert f"{tmp_path}: a folder without a config.yaml" in result.output


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fig4", "; did you mean 'fig4_cartpole'?"),
        ("two_peak", "; did you mean 'two_peaks'?"),
        ("cartpol", "; did you mean 'cartpole_cmaes'?"),
        ("nothing_near", "; `diffevo-jax list` shows the configs"),
    ],
)
def test_a_hint_names_the_nearest_config(name, hint):
    with pytest.raises(cfg.ConfigError) as raised:
        load(Path(name))
    assert str(raised.value) == f"{name}: no such file{hint}"


@pytest.fixture
def drawn(tiny, tmp_path, monkeypatch):
    """Draw fitness `[S, T, N]` as a run's, with settings of `figure`; returns the axes."""
    figures = []
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *_, **__: figures.append(self)
    )

    def draw(fitness: np.ndarray, *overrides: str) -> Any:
        results.write_config(tmp_path, load(tiny, list(overrides)).config, "")
        results.write_arrays(tmp_path / "plain.npz", {"fitness": fitness})
        figure.draw(tmp_path)
        return figures[-1].axes[0]

    return draw


def test_on_a_log_axis_fitness_of_any_sign_is_seen(drawn):
    fitness = np.linspace(1, 9, 2 * 3 * 4).reshape(2, 3, 4)
    ticks = ("figure.log=true", "figure.ticks=[2, 4]")
    axes = drawn(fitness, *ticks)
    assert axes.get_yscale() == "log"
    np.testing.assert_array_equal(axes.get_yticks(), [2, 4])
    for values in (-100 * fitness, fitness - 5, 0 * fitness):
        axes = drawn(values, *ticks)
        median = np.median(values, axis=(0, 2))
        np.testing.assert_allclose(axes.lines[0].get_ydata(), median)
        low, high = axes.get_ylim()
        assert axes.get_yscale() == "linear"
        assert low < median.min() <= median.max() < high < 20  # no room for ticks of a log axis
    assert drawn(fitness, *ticks, "figure.maximum=-1").get_yscale() == "linear"
