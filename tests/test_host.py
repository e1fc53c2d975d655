"""Fitness from Python in a pool of processes: numbers, failures, and a whole run."""

import os
import random
import re
import subprocess
import sys
import threading
from typing import Any

import jax
import numpy as np
import pytest
from conftest import REPOSITORY

import diffevo_jax as de
from diffevo_jax.checks import InputError
from diffevo_jax.optimize import host


class Unsendable(Exception):
    """An exception that does not survive pickling."""

    def __init__(self, genome, reason):
        super().__init__(f"{reason} at {genome[0]:.0f}")


def evaluate(genome: np.ndarray) -> float:
    match round(float(genome[0])):
        case 101:
            raise ZeroDivisionError("no such lab")
        case 102:
            raise Unsendable(genome, "lost")
        case 103:
            return float(subprocess.run(["false"], check=True).returncode)
        case 104:
            os._exit(1)
    return -float(((genome - 0.5) ** 2).sum())


def sometimes(genome: np.ndarray) -> float:
    """Fitness of a laboratory that fails for about a quarter of the genomes, each in its way."""
    draw = random.Random(genome.tobytes())
    match draw.randrange(16):
        case 0:
            raise OSError("no connection")
        case 1:
            raise ZeroDivisionError
        case 2:
            return float("nan")
        case 3:
            return float("-inf")
    return -float((genome**2).sum())


POPULATION = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
BAD = POPULATION.copy()
BAD[[1, 3, 4], 0] = 101, 102, 103


def test_a_run_goes_on_without_those_that_fail_and_names_them():
    evolution = de.presets.paper(de.schedules.cosine(3), fitness_map=de.fitness.boltzmann(1.0))
    step = jax.jit(evolution.step)
    with host.pool(evaluate, num_workers=2) as fitness_of:
        good = fitness_of(POPULATION)
        np.testing.assert_allclose(good.fitness, [evaluate(x) for x in POPULATION], rtol=1e-6)
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
    with host.pool(sometimes, num_workers=1, chunk=8) as fitness_of:
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
        host.pool(evaluate, num_workers=1, stop_on_error=True, chunk=3) as fitness_of,
        pytest.raises(
            host.HostError, match="individual 1: ZeroDivisionError: no such lab"
        ) as error,
    ):
        fitness_of(BAD)
    assert error.value.failure.individual == 1
    assert re.search(r"test_host.py.*in evaluate", str(error.value))


def test_a_worker_that_dies_is_an_error_and_no_hang():
    population = POPULATION[:1].copy()
    population[0, 0] = 104
    with (
        host.pool(evaluate, num_workers=1) as fitness_of,
        pytest.raises(host.HostError, match=r"individual 0: Broken(?s:.*) died"),
    ):
        fitness_of(population)


@pytest.mark.parametrize("setting", ["num_workers", "chunk"])
def test_no_workers_and_no_individuals_at_a_time_are_refused(setting):
    settings: dict[str, Any] = {setting: 0}
    with pytest.raises(InputError) as error, host.pool(evaluate, **settings):
        pass
    assert (error.value.path, error.value.seen) == (setting, "0")


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


def test_a_population_of_another_shape_is_refused():
    with host.pool(evaluate, num_workers=1) as fitness_of, pytest.raises(InputError) as error:
        fitness_of(np.zeros(2))
    assert (error.value.path, error.value.seen) == ("population", "(2,)")


def test_the_example_evolves_a_policy_in_gymnasium():
    command = [sys.executable, str(REPOSITORY / "experiments" / "host_fitness.py")]
    output = subprocess.run(
        [*command, "--workers", "1"], capture_output=True, text=True, check=True
    ).stdout
    means = [float(mean) for mean in re.findall(r"mean return (\d+)", output)]
    assert len(means) == 10
    assert means[-1] > 2 * means[0]
