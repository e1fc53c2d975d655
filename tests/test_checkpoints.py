"""Checkpoints and `--resume`: what a run loses when it is killed, and when its disk fails."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from diffevo_jax.runner import checkpoints, results, run
from diffevo_jax.runner import config as cfg
from diffevo_jax.runner.cli import app

CONFIG = """\
name: saved
description: two methods, five calls each, a checkpoint every second generation
repeats: 5
population: 32
problem: {kind: function, name: two_peaks, success: 0.5}
evolution:
  schedule: {name: cosine, num_levels: 30}
  fitness_map: {name: boltzmann, temperature: 0.1}
checkpoint: {every: 2}
methods:
  plain: {label: plain}
  latent: {label: latent, evolution: {latent_dim: 1}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A cache directory of compiled programs, so that a run that starts again starts quickly."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "saved.yaml"
    path.write_text(CONFIG)
    return path


def _environment(home: Path, devices: int = 1) -> dict[str, str]:
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(home), "XLA_FLAGS": flags}


def _command(config: Path, out: Path, *overrides: str) -> list[str]:
    command = [sys.executable, "-m", "diffevo_jax.runner.cli", "run", str(config)]
    settings = [part for override in overrides for part in ("--set", override)]
    return [*command, "--out", str(out), "--resume", *settings]


def _run(config: Path, out: Path, home: Path, *overrides: str, devices: int = 1) -> str:
    done = subprocess.run(
        _command(config, out, *overrides),
        env=_environment(home, devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def _assert_same(out: Path, expected: Path) -> None:
    for name in ("plain", "latent"):
        with np.load(out / f"{name}.npz") as a, np.load(expected / f"{name}.npz") as b:
            assert set(a.files) == set(b.files)
            for key in a.files:
                np.testing.assert_array_equal(a[key], b[key], err_msg=f"{name}: {key}")
    assert (out / "metrics.csv").read_bytes() == (expected / "metrics.csv").read_bytes()
    assert json.loads((out / "environment.json").read_text())["status"] == "complete"
    assert not (out / "checkpoints").exists()


def _kill_and_resume(config: Path, tmp_path: Path, home: Path, kills: int, *overrides: str) -> None:
    """Run once in one go, and once killed at random moments; both end in the same files."""
    _run(config, tmp_path / "whole", home, *overrides)
    out, moments, killed, saved = tmp_path / "killed", random.Random(0), 0, set()
    while killed < kills:
        process = subprocess.Popen(
            _command(config, out, *overrides),
            env=_environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lock = out / "checkpoints" / "lock"
        while process.poll() is None and not (
            lock.exists() and lock.read_text().startswith(f"process {process.pid} ")
        ):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 4))  # into tracing, the repeats, a save, or the last files
        process.kill()
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, f"ended after {killed} kills: {output}"
        killed += 1
        saved.add(tuple(sorted(path.name for path in out.glob("checkpoints/progress/*"))))
    assert len(saved) > 1  # the run went on between the kills
    _run(config, out, home, *overrides)
    _assert_same(out, tmp_path / "whole")
    assert len(json.loads((out / "environment.json").read_text())["resumed"]) == kills


def test_a_run_killed_at_any_moment_goes_on_to_the_same_files(config, tmp_path, home):
    _kill_and_resume(config, tmp_path, home, 3)


@pytest.mark.slow
def test_a_run_killed_twenty_times_goes_on_to_the_same_files(config, tmp_path, home):
    _kill_and_resume(config, tmp_path, home, 20, "evolution.schedule.num_levels=150")
