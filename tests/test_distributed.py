"""One population shared by many devices and many processes: on the loopback address, on CPUs."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import PLAIN_CLI, xla_flags
from typer.testing import CliRunner

from diffevo_jax.runs.cli import app
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.run import engine as run
from diffevo_jax.runs.run import processes

CONFIG = """\
name: shared
description: a population over devices
repeats: 1
population_size: 32
problem: {name: function, function: two_peaks}
algorithm:
  name: paper
  schedule: {name: cosine, num_levels: 20}
  fitness_map: {name: boltzmann, temperature: 0.1}
  latent_dim: 1
checkpoint: {every: 2}
"""
CONTROL = """\
name: control
description: roll-outs over devices
repeats: 1
population_size: 30
problem: {name: control, environment: CartPole-v1, policy: {hidden: [2]}, max_steps: 20}
algorithm: {name: paper, schedule: {num_levels: 2}, fitness_map: {name: identity}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "shared.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory) -> Path:
    """The run of one device."""
    out = tmp_path_factory.mktemp("alone") / "out"
    _run_alone(config, out)
    return out


def _run_alone(config: Path, out: Path) -> None:
    settings = load(config).config
    run.run(settings, run.build(settings), results.create(out, settings.name))


def _run_over_eight(config: Path, out: Path) -> None:
    settings = load(config).config
    programs = run.build(settings, mesh=processes.mesh())
    run.run(settings, programs, results.create(out, settings.name))


def _environment() -> dict[str, str]:
    flags = xla_flags("--xla_force_host_platform_device_count=1")
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def _start(config: Path, out: Path, count: int) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*PLAIN_CLI, "run", str(config), "--resume"]
    command += ["--out", str(out), "--distributed", "--coordinator", f"127.0.0.1:{port}"]
    return [
        subprocess.Popen(
            [*command, "--processes", str(count), "--process", str(number)],
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(count)
    ]


def _finish(processes: list[subprocess.Popen]) -> list[str]:
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return outputs


def _method(out: Path) -> dict[str, np.ndarray]:
    return results.read_arrays(out / "diffusion_evolution.npz")


def _assert_close(out: Path, expected: Path) -> None:
    seen, wanted = _method(out), _method(expected)
    spread = wanted["final_population"].std()
    # The first generation is drawn alike; then sums over shards round otherwise, by 1e-7 of the
    # spread a step. Seen 1.3e-6 after all 20 levels, and 2.4e-6 after 100.
    np.testing.assert_allclose(seen["fitness"][:, :2], wanted["fitness"][:, :2], atol=1e-6)
    np.testing.assert_allclose(
        seen["final_population"], wanted["final_population"], atol=2e-5 * spread
    )


def test_a_population_over_eight_devices_evolves_as_on_one(config, alone, tmp_path):
    _run_over_eight(config, tmp_path / "out")
    _assert_close(tmp_path / "out", alone)
    assert results.read_environment(tmp_path / "out")["device_count"] == 8


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_run_of_one_device_goes_on_over_eight(config, alone, tmp_path, repeats, monkeypatch):
    """A single repeat goes on where it was; several that ran side by side start again."""
    path, out = tmp_path / "more.yaml", tmp_path / "out"
    path.write_text(config.read_text().replace("repeats: 1", f"repeats: {repeats}"))
    settings = load(path).config
    monkeypatch.setattr(jax, "local_devices", lambda **_: jax.devices()[:1])

    def stop(_: str, done: int, generations: int, __: bool) -> None:
        if (done, generations) == (0, 12 * repeats):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(settings, run.build(settings), results.create(out, ""), progress=stop)
    seen, said = [], []
    programs = run.build(settings, mesh=processes.mesh())
    run.run(settings, programs, out, progress=lambda *at: seen.append(at[2]), say=said.append)
    again = [line for line in said if "they start again" in line]
    assert len(again) == (repeats > 1)
    assert (0 < min(done for done in seen if done) <= 2) == (repeats > 1)
    np.testing.assert_allclose(
        _method(out)["fitness"][:1], _method(alone)["fitness"], rtol=1e-3, atol=1e-4
    )


@pytest.mark.slow
def test_roll_outs_over_devices_and_processes_draw_as_on_one(tmp_path):
    path = tmp_path / "control.yaml"
    path.write_text(CONTROL)
    _run_alone(path, tmp_path / "alone")
    _run_over_eight(path, tmp_path / "eight")
    _finish(_start(path, tmp_path / "two", 2))
    first, *others = (_method(tmp_path / n)["fitness"][:, 0] for n in ("alone", "eight", "two"))
    # An individual's episodes are drawn alike wherever it lies; steps are counted, not rounded.
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_all_resume(config, alone, tmp_path):
    out = tmp_path / "out"
    _kill_one(config, out)
    outputs = _finish(_start(config, out, 2))
    _assert_close(out, alone)
    # The first process writes and talks; the other does neither.
    assert "Last generation" in outputs[0]
    assert "Last generation" not in outputs[1]
    assert len((out / "metrics.csv").read_text().splitlines()) == 1 + 20
    assert results.read_environment(out)["device_count"] == 2
    assert not (out / "checkpoints").exists()


def _kill_one(config: Path, out: Path) -> None:
    """Kill the second of two processes in the middle of a run."""
    first, second = _start(config, out, 2)
    while first.poll() is None and not list(out.glob("checkpoints/progress/[0-9]*")):
        time.sleep(0.01)
    second.kill()
    begin = time.monotonic()
    output, _ = first.communicate(timeout=120)
    second.communicate()
    assert time.monotonic() - begin < 60
    assert first.returncode == 1
    assert "error: another process has ended, or can't be reached" in output
    assert "--resume" in output
    assert results.read_environment(out)["status"].startswith("stopped")


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_evolve_as_one_device_and_resume_bit_for_bit(config, alone, tmp_path, count):
    _finish(_start(config, tmp_path / "whole", count))
    _assert_close(tmp_path / "whole", alone)
    if count == 2:
        _kill_one(config, tmp_path / "killed")
        _finish(_start(config, tmp_path / "killed", 2))
        seen, expected = (_method(tmp_path / name) for name in ("killed", "whole"))
        for name in expected:
            np.testing.assert_array_equal(seen[name], expected[name])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--processes 2", "--processes: expected together with --distributed"),
        (
            "--distributed --processes 2 --process 0",
            "expected all of --coordinator, --processes, --process or none of them; missing "
            "--coordinator",
        ),
        (
            "--distributed --coordinator here:1 --processes 2 --process 2",
            "--process: expected 0 to 1, of --processes 2; seen 2",
        ),
        (
            "--distributed --coordinator here --processes 2 --process 1",
            "--coordinator: expected HOST:PORT; seen here",
        ),
    ],
)
def test_flags_that_do_not_fit_together_are_named(config, tmp_path, flags, message):
    command = ["run", str(config), "--out", str(tmp_path / "out"), *flags.split()]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_without_a_cluster_distributed_says_what_to_give(config, tmp_path):
    command = [sys.executable, "-m", "diffevo_jax", "run", str(config)]
    known = ("SLURM", "OMPI", "PMIX", "JAX_COORD", "KUBERNETES")
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--distributed"],
        env={name: value for name, value in _environment().items() if not name.startswith(known)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "--distributed: no cluster found" in done.stderr
    assert "--coordinator HOST:PORT --processes N --process I" in done.stderr
