"""Fitness from Python in a pool of processes: numbers, failures, and a whole run."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import workers
from conftest import REPOSITORY

import diffevo_jax as de
from diffevo_jax.checks import InputError
from diffevo_jax.optimize import host

POPULATION = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
BAD = POPULATION.copy()
BAD[[1, 3, 4], 0] = 101, 102, 103


def test_a_run_goes_on_without_those_that_fail_and_names_them():
    evolution = de.presets.paper(de.schedules.cosine(3), fitness_map=de.fitness.boltzmann(1.0))
    step = jax.jit(evolution.step)
    with host.pool(workers.evaluate, num_workers=1) as fitness_of:
        good = fitness_of(POPULATION)
        np.testing.assert_allclose(
            good.fitness, [workers.evaluate(x) for x in POPULATION], rtol=1e-6
        )
        assert good.failures == ()

        bad = fitness_of(jax.numpy.asarray(BAD))
        assert [failure.individual for failure in bad.failures] == [1, 3, 4]
        np.testing.assert_array_equal(np.isnan(bad.fitness), [0, 1, 0, 1, 1, 0])
        np.testing.assert_array_equal(bad.fitness[[0, 2, 5]], good.fitness[[0, 2, 5]])
        first, unsendable, process = (failure.error for failure in bad.failures)
        assert isinstance(first, ZeroDivisionError)
        assert "Unsendable: lost at 102" in str(unsendable)
        assert isinstance(process, subprocess.CalledProcessError)
        assert "in evaluate" in bad.failures[0].traceback

        state, info = step(
            jax.random.key(0),
            evolution.init(jax.random.key(0), jax.numpy.asarray(POPULATION)),
            bad.fitness,
        )
        assert int(info.num_invalid) == 3
        assert np.isfinite(state.population).all()


def test_an_evolution_completes_and_counts_evaluations_that_raise():
    evolution = de.presets.paper(de.schedules.cosine(4), fitness_map=de.fitness.boltzmann(1))
    step = jax.jit(evolution.step)
    state = evolution.init(jax.random.key(0), jax.random.normal(jax.random.key(0), (32, 2)))
    raised = missing = 0
    with host.pool(workers.sometimes, num_workers=1) as fitness_of:
        for key in jax.random.split(jax.random.key(1), 4):
            evaluation = fitness_of(state.population)
            state, info = step(key, state, evaluation.fitness)
            assert int(info.num_invalid) == (~np.isfinite(evaluation.fitness)).sum()
            raised += len(evaluation.failures)
            missing += int(info.num_invalid)
    assert 0 < raised < missing
    assert int(state.t) == 0
    assert np.isfinite(state.population).all()


def test_a_failure_stops_the_run_by_choice_with_the_workers_traceback():
    with (
        host.pool(workers.evaluate, num_workers=1, stop_on_error=True) as fitness_of,
        pytest.raises(
            host.HostError, match="individual 1: ZeroDivisionError: no such lab"
        ) as error,
    ):
        fitness_of(BAD)
    assert error.value.failure.individual == 1
    assert re.search(r"workers.py.*in evaluate", str(error.value))


def test_a_point_whose_worker_dies_fails_alone():
    points: list[str | int] = list(range(50))
    bad = {7: "exit 0", 20: "kill", 30: "sys.exit", 31: "interrupt", 32: "lock"}
    for index, how in bad.items():
        points[index] = how
    with host.executor(workers.ends, num_workers=2) as submit:
        futures = [submit(point) for point in points]
        errors = [future.exception() for future in futures]
        for index, error in enumerate(errors):
            assert (error is None) == (index not in bad)
        assert [type(errors[index]) for index in bad] == [
            host.WorkerDied,
            host.WorkerDied,
            RuntimeError,
            RuntimeError,
            TypeError,
        ]
        assert [str(errors[index]) for index in bad] == [
            "the worker process died with exit code 0",
            "the worker process died with exit code -9 (Killed)",
            "SystemExit: enough",
            "KeyboardInterrupt",
            "cannot pickle '_thread.lock' object",
        ]
        assert "in ends" in errors[30].__notes__[-1]  # pyright: ignore

        for process in multiprocessing.active_children():  # they have nothing to do
            process.kill()
            process.join()
        assert submit(1).result() == 1


def test_a_worker_that_dies_at_each_call_fails_each_individual_and_the_run_goes_on():
    population = np.full((2, 2), 104.0)
    with host.pool(workers.evaluate, num_workers=1) as fitness_of:
        fitness, failures = fitness_of(population)
    assert np.isnan(fitness).all()
    assert [str(failure.error) for failure in failures] == [
        "the worker process died with exit code 1"
    ] * 2


def _running(text: str) -> list[int]:
    """The ids of processes with a text in their command line."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if text in line]


def test_an_evaluation_that_never_returns_is_ended_with_what_it_started():
    # A process takes more than a second to start, and the first point has it all the same.
    with host.executor(workers.sleeps, num_workers=1, timeout=1) as submit:
        quick, never, after = submit(0.2), submit(4321.5), submit(0.1)
        assert quick.result() == 0.2
        with pytest.raises(TimeoutError, match=r"the evaluation took longer than 1 s"):
            never.result()
        assert after.result() == 0.1
    assert _running("time.sleep(4321.5)") == []


def test_what_is_unfinished_at_the_end_of_the_context_is_cancelled():
    with host.executor(workers.sleeps, num_workers=1) as submit:
        done, running, waiting = submit(0.0), submit(1000), submit(0.0)
        done.result()
        begin = time.monotonic()
    assert time.monotonic() - begin < 2  # 0.1 s where the cores are free
    assert done.result() == 0
    for future in (running, waiting):
        with pytest.raises(CancelledError):
            future.result(timeout=0)
    with pytest.raises(RuntimeError, match="ended with their context"):
        submit(0.0)


def test_global_random_states_differ_between_workers_of_a_script_that_seeds_them():
    with host.executor(workers.draws, num_workers=2) as submit:
        found: dict[int, tuple[float, float]] = {}
        while len(found) < 2:
            for future in [submit(0.1), submit(0.1)]:
                process, *numbers = future.result()
                found.setdefault(process, tuple(numbers))
    first, second = found.values()
    assert first[0] != second[0]
    assert first[1] != second[1]


SCRIPT = """
import time
from diffevo_jax.optimize import host

def evaluate(x):
    time.sleep(x)
    return x

if __name__ == "__main__":
    try:
        with host.executor(evaluate, num_workers=2) as submit:
            futures = [submit(x) for x in (0, 0, 1000, 1000, 1000)]
            futures[1].result()
            try:
                print("ready", flush=True)
                futures[-1].result()
            finally:
                begin = time.monotonic()
    except KeyboardInterrupt:
        quick = time.monotonic() - begin < 2
        print([future.result() for future in futures if not future.exception(0)], quick)
"""


@pytest.fixture
def script(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A script of two workers, in a process group of its own, that waits for a slow point."""
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    while "ready" not in (line := process.stdout.readline()):
        assert line
    yield process
    process.kill()


# Quiet in processes that are still importing, as they are at once, and in those that evaluate.
@pytest.mark.parametrize("seconds", [0, 4])
def test_ctrl_c_is_quiet_and_keeps_what_was_finished(script, seconds):
    time.sleep(seconds)
    os.killpg(script.pid, signal.SIGINT)
    output, errors = script.communicate(timeout=300)
    assert output.splitlines()[-1] == "[0, 0] True"
    assert errors == ""
    assert script.returncode == 0


def test_workers_end_with_a_parent_that_is_killed(script):
    script.kill()
    script.communicate(timeout=300)  # returns when all have ended, who hold its pipes


def test_a_script_that_never_leaves_the_context_ends(tmp_path):
    script = tmp_path / "entered.py"
    script.write_text(
        "from diffevo_jax.optimize import host\n"
        "if __name__ == '__main__':\n"
        "    context = host.executor(abs, num_workers=1)\n"
        "    print(context.__enter__()(-1).result())\n"
    )
    command = [sys.executable, str(script)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (process.returncode, process.stdout, process.stderr) == (0, "1\n", "")


def test_a_function_that_cannot_be_loaded_is_an_error_at_the_start():
    with (
        pytest.raises(ImportError, match="no such simulator"),
        host.executor(workers.Unloadable(), num_workers=1),
    ):
        pass


@pytest.mark.parametrize("setting", ["num_workers", "timeout"])
def test_no_workers_and_no_time_are_refused(setting, refuses):
    for value in (0, "1"):
        settings: dict[str, Any] = {setting: value}
        with refuses(setting), host.pool(workers.evaluate, **settings):
            pass


def test_a_lambda_is_sent_whole_and_what_cannot_be_sent_is_named():
    with host.pool(lambda genome: genome.sum(), num_workers=1) as fitness_of:
        np.testing.assert_allclose(fitness_of(POPULATION).fitness, POPULATION.sum(1), rtol=1e-6)
    lock = threading.Lock()
    with (
        pytest.raises(InputError) as error,
        host.pool(lambda genome: lock.locked(), num_workers=1),
    ):
        pass
    assert error.value.path == "evaluate"
    assert "lock" in error.value.seen


def test_a_script_without_a_main_guard_ends_with_the_reason(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from diffevo_jax.optimize import host\n"
        "with host.pool(abs, num_workers=1) as fitness_of:\n"
        "    pass\n"
    )
    process = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert process.returncode == 1
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: the worker processes do not start")
    assert last.endswith('belongs under `if __name__ == "__main__":`')


def test_a_population_of_another_shape_is_refused(refuses):
    with host.pool(workers.evaluate, num_workers=1) as fitness_of, refuses("population"):
        fitness_of(np.zeros(2))


def test_the_example_evolves_a_policy_in_gymnasium():
    command = [sys.executable, str(REPOSITORY / "experiments" / "host_fitness.py")]
    output = subprocess.run(
        [*command, "--workers", "1"], capture_output=True, text=True, check=True
    ).stdout
    means = [float(mean) for mean in re.findall(r"mean return (\d+)", output)]
    assert len(means) == 10
    assert means[-1] > 2 * means[0]
