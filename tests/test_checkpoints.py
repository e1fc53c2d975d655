"""Checkpoints and `--resume`: what a run keeps when it is killed, and when its disk fails."""

import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from conftest import REPOSITORY, xla_flags
from typer.testing import CliRunner

from diffevo_jax.runs.cli import app
from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.results import files as folders
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results.record import Record
from diffevo_jax.runs.run import checkpoints, jobs
from diffevo_jax.runs.run import engine as run
from experiments import reproduce

pytestmark = pytest.mark.usefixtures("one_device")

CONFIG = """\
name: saved
description: two methods of five repeats
repeats: 5
population_size: 32
problem: {name: function, function: two_peaks, success: 0.5}
algorithm:
  name: paper
  schedule: {name: cosine, num_levels: 40}
  fitness_map: {name: boltzmann, temperature: 0.1}
checkpoint: {every: 8}
methods:
  plain: {label: plain}
  latent: {label: latent, algorithm: {latent_dim: 1}}
"""
# What `diffevo-jax run CONFIG --out FOLDER --resume` does, but for the figure, which takes seconds;
# it stops as by Ctrl-C at a method and numbers of finished repeats and generations, if any.
DRIVER = """
import sys
from pathlib import Path
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.run import engine as run

path, out, *stop = sys.argv[1:]
def progress(*at):
    if [str(number) for number in at[:3]] == stop:
        raise KeyboardInterrupt

settings = load(Path(path)).config
folder = results.create(Path(out), settings.name, resume=True)
run.run(settings, run.build(settings), folder, progress=progress)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "saved.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Path:
    """A run in one go, without a checkpoint: what every other must end in.

    On a CPU chunks of any length give the same bits, so that checkpoints change nothing either.
    """
    out = tmp_path_factory.mktemp("whole") / "out"
    _run(config, out, "checkpoint.every=null")
    return out


@pytest.fixture(scope="module")
def interrupted(config, tmp_path_factory) -> Path:
    """A run that has ended in its second method, in the middle of a call; copy it."""
    out = tmp_path_factory.mktemp("interrupted") / "out"
    assert run._per_call(5, 1) == 1
    with pytest.raises(KeyboardInterrupt):
        _run(config, out, stop=("latent", 1, 24))
    return out


def _run(path: Path, out: Path, *overrides: str, stop=None, at=lambda *_: None, say=print):
    """Start or resume a run in this process; stop it, or call `at`, where it has come so far."""

    def progress(*seen) -> None:
        at(*seen[:3])
        if seen[:3] == stop:
            raise KeyboardInterrupt

    settings = load(path, list(overrides)).config
    folder = results.create(out, settings.name, resume=True)
    return run.run(settings, run.build(settings), folder, progress=progress, say=say)


def _start(path: Path, out: Path, *stop: object, devices: int = 1) -> subprocess.Popen:
    """Start or resume a run in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(path), str(out), *map(str, stop)],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": xla_flags(f"--xla_force_host_platform_device_count={devices}"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _cli(*arguments: object):
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)


def _assert_same(out: Path, expected: Path) -> None:
    """Both are complete, and every array and every row is the same, bit for bit."""
    for name in ("plain", "latent"):
        with np.load(out / f"{name}.npz") as a, np.load(expected / f"{name}.npz") as b:
            assert set(a.files) == set(b.files)
            for key in a.files:
                np.testing.assert_array_equal(a[key], b[key], err_msg=f"{name}: {key}")
    assert (out / "metrics.csv").read_bytes() == (expected / "metrics.csv").read_bytes()
    assert json.loads((out / "environment.json").read_text())["status"] == "complete"
    assert not (out / "checkpoints").exists()


def _steps(out: Path) -> list[Path]:
    found = (out / "checkpoints" / "progress").iterdir()
    return sorted((path for path in found if path.name.isdigit()), key=lambda path: int(path.name))


# Killed


def _kill_and_resume(config: Path, out: Path, kills: int) -> None:
    """Kill a run at random moments, and let it end."""
    moments, lock = random.Random(0), out / "checkpoints" / "lock"
    for kill in range(kills):
        before = _saved(out)
        process = _start(config, out)
        mine = f"process {process.pid} "
        while process.poll() is None and not (lock.exists() and lock.read_text().startswith(mine)):
            time.sleep(0.01)
        # One in three while it starts again; the others while it runs, in a save or between two.
        while process.poll() is None and kill % 3 and _saved(out) == before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 2 if kill % 3 == 0 else 0.5))
        process.kill()
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
    process = _start(config, out)
    output, _ = process.communicate()
    assert process.returncode == 0, output


def _saved(out: Path) -> set[str]:
    return {str(path) for path in out.glob("checkpoints/*/*")}


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_to_the_same_files(config, whole, tmp_path):
    _kill_and_resume(config, tmp_path / "out", 1)
    _assert_same(tmp_path / "out", whole)
    assert len(results.read_environment(tmp_path / "out")["resumed"]) == 1


@pytest.mark.slow
def test_a_run_killed_twenty_times_goes_on_to_the_same_files(tmp_path):
    longer = tmp_path / "longer.yaml"
    longer.write_text(
        CONFIG.replace("every: 8", "every: 1").replace("num_levels: 40", "num_levels: 100")
    )
    _run(longer, tmp_path / "whole", "checkpoint.every=null")
    _kill_and_resume(longer, tmp_path / "out", 20)
    _assert_same(tmp_path / "out", tmp_path / "whole")


def test_an_interrupted_run_keeps_the_newest_checkpoints_and_goes_on(
    config, whole, interrupted, tmp_path
):
    assert len(_steps(interrupted)) == cfg.Checkpoint().keep
    assert results.finished_repeats(interrupted) == {"plain": 5, "latent": 1}
    out = shutil.copytree(interrupted, tmp_path / "out")
    seen = []
    _run(config, out, at=lambda *at: seen.append(at))
    assert ("latent", 1, 16) in seen  # of the newest checkpoint, not of the start
    assert ("latent", 1, 8) not in seen
    assert ("plain", 0, 0) not in seen
    _assert_same(out, whole)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(config, whole, tmp_path):
    process = _start(config, tmp_path / "out", "plain", 0, 5 * 24, devices=2)
    output, _ = process.communicate()
    assert "KeyboardInterrupt" in output
    say = []
    _run(config, tmp_path / "out", say=say.append)
    # Another number of devices is another program, which rounds otherwise: seen 6e-6.
    for name in ("plain", "latent"):
        a, b = (results.read_arrays(folder / f"{name}.npz") for folder in (tmp_path / "out", whole))
        for key in b:
            np.testing.assert_allclose(a[key], b[key], rtol=1e-3, atol=1e-5, err_msg=key)


# Damaged


def test_of_a_damaged_newest_checkpoint_the_one_before_is_used_and_said_so(
    config, whole, interrupted, tmp_path
):
    newest = _steps(interrupted)[-1]
    files = [path.relative_to(newest) for path in newest.rglob("*") if path.is_file()]
    fell_back = 0
    for length in (0.5, 0):
        for file in files:
            out = shutil.copytree(interrupted, tmp_path / f"{file.name}-{length}")
            damaged = out / "checkpoints" / "progress" / newest.name / file
            os.truncate(damaged, int(length * damaged.stat().st_size))
            said = []
            saver = checkpoints.Checkpoints(out, cfg.Checkpoint(), said.append)
            found = saver.restore("latent", 1)
            saver.close()
            assert found is not None
            # Some files are not needed to read it.
            assert found.generation == (8 if said else 16), file
            fell_back += bool(said)
            shutil.rmtree(out)
    assert fell_back > 5


def test_the_next_method_waits_for_what_the_one_before_is_saving(tmp_path, monkeypatch):
    said = []
    saver = checkpoints.Checkpoints(tmp_path, cfg.Checkpoint(), said.append)
    deleter = saver._open()._checkpoint_deleter
    delete = deleter.delete_steps
    monkeypatch.setattr(deleter, "delete_steps", lambda steps: (time.sleep(0.5), delete(steps)))
    for step in (8, 16, 24):  # the third, when it ends, deletes the first
        carry = [np.arange(3.0)]
        call = checkpoints.Call("plain", 0, 1, step, carry, [{"fitness": np.zeros((1, step))}])
        saver.save(step, lambda: None, call)
    assert saver.restore("latent", 0) is None
    assert _steps(tmp_path) == []
    saver.close()
    assert said == []


def test_repeats_whose_file_is_damaged_run_again(config, whole, interrupted, tmp_path):
    out = shutil.copytree(interrupted, tmp_path / "out")
    (file,) = (out / "checkpoints" / "repeats" / "latent").glob("*.npz")
    os.truncate(file, file.stat().st_size // 2)
    os.truncate(out / "plain.npz", 100)
    said = []
    _run(config, out, say=said.append)
    assert f"{file}: not readable" in said[-1]
    assert "plain.npz: not readable" in said[-2]
    _assert_same(out, whole)


def test_a_full_disk_is_named_and_what_was_saved_before_it_stays(config, whole, tmp_path):
    out, said = tmp_path / "out", []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_up(*at) -> None:  # no file can be written beyond 100 bytes, much as on a full disk
        if at == ("plain", 1, 16):
            while not (out / "checkpoints" / "progress" / "48").exists():
                time.sleep(0.01)  # it is written in the background
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))

    try:
        with pytest.raises(OSError, match=r"File too large: '.+'"):
            _run(config, out, at=fill_up, say=said.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(said) > 5
    assert all(re.match("checkpoint not saved .* the run goes on", line) for line in said)
    # The oldest may still be there, for it is removed in the background.
    assert [path.name for path in _steps(out)][-2:] == ["32", "48"]
    seen = []
    _run(config, out, at=lambda *at: seen.append(at))
    assert seen[:2] == [("plain", 1, 0), ("plain", 1, 8)]
    _assert_same(out, whole)


def test_an_array_of_size_0_is_saved_beside_others(tmp_path):
    carry = [np.arange(4.0).reshape(2, 2), np.zeros((2, 0, 3), np.float32), np.zeros((2, 1))]
    call = checkpoints.Call("latent", 0, 2, 3, carry, [{"fitness": np.ones((2, 3, 4))}])
    said = []
    saving = checkpoints.Checkpoints(tmp_path, cfg.Checkpoint(), said.append)
    saving.save(6, lambda: None, call)
    restored = saving.restore("latent", 0)
    saving.close()
    assert said == []
    assert restored is not None
    for there, here in zip(restored.carry, carry, strict=True):
        np.testing.assert_array_equal(there, here)
        assert there.dtype == here.dtype


@pytest.mark.parametrize("change", ["dtype", "shape", "number"])
def test_a_checkpoint_of_other_arrays_is_said_to_be_of_its_version(
    config, interrupted, tmp_path, monkeypatch, change
):
    out = shutil.copytree(interrupted, tmp_path / "out")
    restore = checkpoints.Checkpoints.restore

    def other(*args):
        saved = restore(*args)
        assert saved is not None
        first, *rest = saved.carry
        changed = {
            "dtype": [first.astype(np.float16), *rest],
            "shape": [first[..., None], *rest],
            "number": [*saved.carry, first],
        }
        return saved._replace(carry=changed[change], version="0.0.1")

    monkeypatch.setattr(checkpoints.Checkpoints, "restore", other)
    with pytest.raises(cfg.ConfigError, match=r"its checkpoint is of version 0\.0\.1") as error:
        _run(config, out)
    assert "\n" not in str(error.value)
    assert results.read_environment(out)["status"].startswith("stopped: methods.latent")


def test_repeats_of_many_files_are_read_each_once(tmp_path):
    record, numbers = Record(tmp_path), np.arange(5)
    for first, end, kept in ((0, 2, 2), (2, 4, 3), (4, 5, 3)):  # populations of the first three
        record.add({"best_fitness": numbers[first:end]}, {"final_population": numbers[first:kept]})
        record.save()
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        f"{first:06}.npz" for first in (0, 2, 4)
    ]
    repeats, populations = Record.load(tmp_path, print).stacked()
    np.testing.assert_array_equal(repeats["best_fitness"], numbers)
    np.testing.assert_array_equal(populations["final_population"], numbers[:3])


# Refused


def test_a_folder_that_no_system_can_lock_is_named_and_used(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    said = []
    _run(config, tmp_path / "out", "repeats=1", "checkpoint.every=null", say=said.append)
    assert [line for line in said if "can't be locked on this system" in line] == said


def test_a_second_run_in_the_same_folder_is_refused(config, interrupted, tmp_path):
    out = shutil.copytree(interrupted, tmp_path / "out")
    with folders.lock(out / "checkpoints" / "lock", out, print):
        result = _cli("run", out, "--resume")
    assert result.exit_code == 2
    assert f"{out}: in use by process {os.getpid()} on " in result.output
    again = _cli("run", config, "--out", out)
    assert again.exit_code == 2
    assert "exists, and a run is never overwritten" in again.output
    assert "--resume" in again.output


def test_a_run_of_another_config_is_refused_and_its_keys_are_named(config, interrupted, tmp_path):
    out = shutil.copytree(interrupted, tmp_path / "out")
    changes = ["--set", "algorithm.eta=0.5", "--set", "checkpoint.keep=9"]
    result = _cli("run", config, "--out", out, "--resume", *changes, "--set", "seed=1")
    assert result.exit_code == 2
    assert "holds a run of another config" in result.output
    named = [line.strip() for line in result.output.splitlines() if " here" in line]
    assert named == [
        "seed: 0 there, 1 here",
        "methods.plain.algorithm.eta: 1.0 there, 0.5 here",
        "methods.latent.algorithm.eta: 1.0 there, 0.5 here",
        "checkpoint.keep: 2 there, 9 here",
    ]


@pytest.mark.parametrize("generator", ["rbg", "unsafe_rbg"])
def test_a_run_does_not_go_on_with_another_generator_of_keys(interrupted, tmp_path, generator):
    out = shutil.copytree(interrupted, tmp_path / "out")
    with jax.default_prng_impl(generator):
        result = _cli("run", out, "--resume")
    assert result.exit_code == 2
    expected = f"JAX_DEFAULT_PRNG_IMPL: threefry2x32 there, {generator} here"
    assert result.output.splitlines()[-1].strip() == expected


def test_what_results_are_held_against_is_no_other_config(config, interrupted, tmp_path):
    out = shutil.copytree(interrupted, tmp_path / "out")
    reference = "reference: {success_rate: 1, standard_error: 0, source: x}"
    text = config.read_text().replace("label: latent,", f"label: latent, {reference},")
    other = tmp_path / "other.yaml"
    other.write_text(text)
    assert "reference" in text
    output = _cli("run", other, "--out", out, "--resume", "--set", "algorithm.eta=0.5").output
    named = [line.strip() for line in output.splitlines() if " here" in line]
    assert named == [
        "methods.plain.algorithm.eta: 1.0 there, 0.5 here",
        "methods.latent.algorithm.eta: 1.0 there, 0.5 here",
    ]


@pytest.mark.usefixtures("undrawn")
def test_a_new_run_of_an_unfinished_folder_says_that_resume_goes_on(interrupted, tmp_path):
    result = _cli("run", interrupted, "--out", tmp_path / "out", "--repeats", "1")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{interrupted} is unfinished; this is a new run")
    again = _cli("run", tmp_path / "out", "--out", tmp_path / "again")
    assert "unfinished" not in again.output


def test_resume_needs_a_folder_with_a_run(config, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_text("data")
    for arguments, message in (
        ((config, "--resume"), "--resume: expected a run folder, or a config and its --out FOLDER"),
        ((tmp_path / "other", "--resume"), "expected a run folder"),
        ((config, "--out", tmp_path / "other", "--resume"), "exists and is no run folder"),
    ):
        result = _cli("run", *arguments)
        assert result.exit_code == 2
        assert message in result.output


def test_a_complete_run_says_so_and_stays_as_it_is(whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    result = _cli("run", out, "--resume")
    assert result.exit_code == 0, result.output
    assert "complete already" in result.output
    assert "success, %" in result.output
    assert before.items() <= {path.name: path.read_bytes() for path in out.iterdir()}.items()


# When


def test_a_run_shorter_than_a_minute_saves_nothing_on_the_way(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)  # importing it fails
    said = []
    _run(config, tmp_path / "out", "checkpoint.every=null", say=said.append)
    assert said == []


def test_without_a_count_checkpoints_cost_a_hundredth_of_the_run_at_most(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    saver = checkpoints.Checkpoints(tmp_path, cfg.Checkpoint(), print)

    def seconds_until_due() -> float:
        begin = now[0]
        while not saver.due(10**6):
            now[0] += 1
        return now[0] - begin

    def write(seconds: float) -> None:
        now[0] += seconds

    for cost, seconds in ((0.0, 60), (0.5, 60), (3.0, 300 - 3)):
        seconds_until_due()
        saver.save(1, partial(write, cost), None)
        assert seconds_until_due() == pytest.approx(seconds, abs=1)


@pytest.mark.parametrize(
    ("every", "longest", "expected"),
    [
        (None, 50, [50, 100]),
        (40, 50, [40, 80, 100]),
        (70, 50, [35, 70, 100]),
        (200, 50, [50, 100]),
        (None, 25, [25, 50, 75, 100]),
        (None, 1, list(range(1, 101))),
    ],
)
def test_chunks_end_at_each_checkpoint_and_at_their_longest(every, longest, expected):
    assert run._stops(100, every, longest) == expected


def test_chunks_of_large_populations_are_short():
    program = run.build(load(REPOSITORY / "configs" / "two_peaks.yaml").config)["power"]
    assert [run._longest(n, program) for n in (512, 10_000, 100_000, 10**7)] == [50, 50, 1, 1]


# Killed at every step: processes that kill themselves as they change a file

TINY = """\
name: tiny
description: a run whose evolution is made up
population_size: 4
problem: {name: function, function: two_peaks}
algorithm: {name: paper, schedule: {num_levels: 2}, fitness_map: {name: identity}}
checkpoint: {every: 1}
"""
# Python's C functions that change files or locks. What is within a file counts only once the file
# is renamed, so that writing into it is no step of its own.
STEPS = {"mkdir", "rmdir", "open", "flock", "truncate", "rename", "replace", "unlink"}


def kill_at_every_step(folder: Path) -> None:
    """Kill a run, a sweep and a report at each step, start them again, and compare their files.

    In a process of its own, in which JAX does not start: one with threads can't be copied. Prints
    the files that the killed ones left.
    """
    jax.process_count, jax.process_index = lambda: 1, lambda: 0
    record = dict.fromkeys(checkpoints._MATTERS)
    kept = {name: np.ones((1, 2), int) for name in ("num_invalid", "selected")}
    kept |= {name: np.ones((1, 2)) for name in ("alpha", "effective_sample_size")}

    class MadeUp:
        def __init__(self, name, *_, **__):
            self.name = name

        def begin(self, first):
            return checkpoints.Call(self.name, first, 1, 0, None, [])

        def advanced(self, call):
            return call._replace(generation=4, kept=[{"fitness": np.ones((1, 2, 4))}])

        def ending(self, call):
            return call.kept[0] | kept, {}

    part = SimpleNamespace(
        TITLE="made up",
        run=lambda folder, quick: (folder / "number").write_text("1"),
        section=lambda folder: None,
    )
    left = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)  # the kernel keeps what it was given
        patch.setattr(results, "environment", lambda: record)
        patch.setattr(run, "MethodRunner", MadeUp)
        patch.setattr(jobs.program, "build", lambda _: None)
        patch.setattr(
            jobs, "run_points", lambda points, **_: (jobs.PointResult(p, [], {}) for p in points)
        )
        patch.setattr(reproduce, "find", {"fig2": part}.get)
        patch.setattr(reproduce.report, "write", lambda *_, **__: [])
        for start in (_start_run, _start_sweep, _start_report):
            _enter(folder / start.__name__)
            start()
            whole, found = _contents(), left.setdefault(start.__name__, [])
            for step in itertools.count():
                _enter(folder / f"{start.__name__}-{step}")
                if not _killed(start, step):
                    break
                found.append(sorted(_contents()))
                start()
                assert _contents() == whole, (start, step, found[-1])
    print(json.dumps(left))


def _start_run() -> None:
    settings = load(Path("tiny.yaml")).config
    out = results.create(Path("out"), "tiny", resume=True)
    programs: Any = {
        name: SimpleNamespace(mesh=None, num_genes=2, num_levels=4) for name in settings.methods
    }
    run.run(settings, programs, out, say=lambda _: None)


def _start_sweep() -> None:
    jobs.sweep(Path("sweep.yaml"), executor="debug", out=Path("out"), say=lambda _: None)


def _start_report() -> None:
    assert reproduce.reproduce(["fig2"], out=Path("out"), say=lambda _: None) == []


def _enter(folder: Path) -> None:
    folder.mkdir()
    os.chdir(folder)
    Path("tiny.yaml").write_text(TINY)
    Path("sweep.yaml").write_text(TINY + "sweep: {grid: {seed: [1, 2]}}")


def _contents() -> dict[str, bytes]:
    """Files in out/ by their paths; of those that tell the time, or where they are, only these."""
    return {
        path.relative_to("out").as_posix(): b""
        if path.suffix == ".json" or not path.is_file()
        else path.read_bytes().replace(str(Path.cwd()).encode(), b"")
        for path in Path("out").rglob("*")
    }


def _killed(start: Callable[[], None], step: int) -> bool:
    """Whether a copy of this process could be killed at a step: else it had ended before."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL)
        return code != 0
    ahead = [None] * step

    def watch(frame, event, function) -> None:
        if event == "c_call" and function.__name__ in STEPS:
            if not ahead:
                os.kill(os.getpid(), signal.SIGKILL)
            ahead.pop()

    code = 1
    try:
        sys.setprofile(watch)
        start()
        code = 0
    finally:
        os._exit(code)


def test_what_is_killed_at_any_step_goes_on_to_the_same_files(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, test_checkpoints as tests; from pathlib import Path;"
            "tests.kill_at_every_step(Path(sys.argv[1]))",
            tmp_path,
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests"))),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout)
    # The states of a run's start, all before its config.yaml is there.
    for files in ([], ["checkpoints"], ["checkpoints", "checkpoints/lock"]):
        assert files in left["_start_run"]
    assert ["checkpoints", "checkpoints/lock", "config.yaml.partial"] in left["_start_run"]
    assert ["config.yaml.partial", "points"] in left["_start_sweep"]
    assert ["fig2", "fig2/part.json.partial"] in left["_start_report"]


def test_a_start_that_was_killed_is_told_apart_from_anybodys_files(config, tmp_path):
    out = tmp_path / "out"
    (out / "checkpoints").mkdir(parents=True)
    for name in ("checkpoints/lock", "config.yaml.partial"):
        (out / name).write_text("process 1 on here")
    by_folder = _cli("run", out, "--resume")
    assert by_folder.exit_code == 2
    assert f"{out} holds no config yet" in by_folder.output
    assert f"`diffevo-jax run CONFIG --out {out} --resume`" in by_folder.output
    assert results.create(out, "saved", resume=True) == out
    with pytest.raises(cfg.ConfigError, match=r"never overwritten.*--resume"):
        results.create(out, "saved")
    for name in ("notes.txt", "checkpoints/mine"):
        (out / name).write_text("data")
        with pytest.raises(cfg.ConfigError, match="exists and is no run folder"):
            results.create(out, "saved", resume=True)
        (out / name).unlink()
