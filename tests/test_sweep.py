"""Sweeps: points, batched programs, jobs and tables, and going on from what is finished."""

import csv
import json
import os
import re
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import submitit
from conftest import REPOSITORY
from typer.testing import CliRunner

import diffevo_jax as de
from diffevo_jax.checks import InputError
from diffevo_jax.runs.cli import app
from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.results import files as folders
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results import table
from diffevo_jax.runs.run import engine as run
from diffevo_jax.runs.run import jobs
from diffevo_jax.runs.run import program as programs

pytestmark = pytest.mark.usefixtures("one_device")

HEAD = """\
name: tiny
description: two peaks, swept
population_size: 8
problem: {name: function, function: two_peaks, success: 0.5}
algorithm:
  name: paper
  schedule: {name: cosine, num_levels: 3}
  fitness_map: {name: boltzmann, temperature: 0.1}
"""
GRID = "{grid: {algorithm.eta: [0.0, 1.0], problem.scale: [1.0, 2.0]}}"
TWO_SHAPES = "{grid: {population_size: [8, 12], algorithm.eta: [0.0, 1.0]}}"


@pytest.fixture
def tiny(tmp_path) -> Path:
    return _write(tmp_path / "tiny.yaml", GRID, f"repeats: 3\n{HEAD}")


def _write(path: Path, section: str, head: str = HEAD) -> Path:
    path.write_text(f"{head}sweep: {section}\n")
    return path


@pytest.fixture
def pretend(monkeypatch):
    """Have jobs make rows up, for tests of what surrounds them."""

    def run_points(points, *, runs_per_call):
        for point in points:
            row = {"method": "made_up", "repeat": 0, "fitness_mean": 0.5}
            yield jobs.PointResult(point, [row], {})

    monkeypatch.setattr(jobs, "run_points", run_points)


def _sweep(path: Path, out: Path, *overrides: str, **settings) -> tuple[list[str], list[str]]:
    """Sweep in this process; returns the failed points and what was said."""
    said: list[str] = []
    settings = {"executor": "debug", **settings}
    failed = jobs.sweep(path, list(overrides), out=out, say=said.append, **settings)
    return failed, said


def _rows(out: Path, name: str = "results.csv") -> list[dict[str, str]]:
    with (out / name).open(newline="") as file:
        return list(csv.DictReader(file))


def _numbers(row: dict[str, str]) -> dict[str, str]:
    """A row without what differs from call to call."""
    return {key: value for key, value in row.items() if key != "seconds"}


# Points


def test_a_grid_takes_every_combination_the_last_key_fastest(tiny):
    points = load(tiny).points
    seen = [tuple(point.settings.values()) for point in points]
    assert seen == [(0.0, 1.0), (0.0, 2.0), (1.0, 1.0), (1.0, 2.0)]
    method = points[2].config.methods["diffusion_evolution"]
    assert (method.algorithm.eta, method.problem.scale) == (1.0, 1.0)
    assert points[2].config.repeats == 3


def test_a_list_takes_its_mappings_one_by_one(tiny):
    _write(tiny, "{list: [{algorithm.eta: 0.5, population_size: 16}, {seed: 7}]}")
    points = load(tiny).points
    methods = [point.config.methods["diffusion_evolution"] for point in points]
    assert [method.population_size for method in methods] == [16, 8]
    assert [point.config.seed for point in points] == [0, 7]


def test_random_points_stay_in_their_intervals_and_more_keep_the_first(tiny):
    def points(num: int, seed: int = 0) -> list[dict]:
        draw = (
            "{algorithm.eta: {uniform: [0.2, 0.4]}, population_size: {choice: [8, 16]}, "
            "algorithm.fitness_map.temperature: {log_uniform: [0.01, 10]}}"
        )
        _write(tiny, f"{{random: {{points: {num}, seed: {seed}, draw: {draw}}}}}")
        return [point.settings for point in load(tiny).points]

    few, many = points(5), points(60)
    assert many[:5] == few
    assert points(5, seed=1) != few
    eta, size, temperature = np.array([list(point.values()) for point in many]).T
    assert eta.min() >= 0.2
    assert eta.max() <= 0.4
    assert set(size) == {8, 16}
    # Half of a log-uniform draw lies below sqrt(0.01 * 10) = 0.32: 30 +- 4 of 60.
    assert 15 < (temperature < 0.32).sum() < 45


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{}", "sweep: expected one of grid, list, random; seen none"),
        ("3", "sweep: expected keys and values; seen int 3"),
        ("{gird: {seed: [1]}}", "seen 'gird'; did you mean 'grid'?"),
        (
            "{grid: {seed: [1]}, list: [{seed: 1}]}",
            "expected one of grid, list, random; seen grid, list",
        ),
        ("{grid: {seed: 1}}", "sweep.grid.seed: expected a list; seen int 1"),
        ("{grid: {seed: []}}", "sweep.grid.seed: expected at least 1"),
        ("{grid: {a..b: [1]}}", "expected letters"),
        (
            "{grid: {algorithm.etta: [1]}}",
            "point 0 (algorithm.etta=1): algorithm.etta: expected one of the keys",
        ),
        ("{grid: {algorithm.eta: [0, 2]}}", "point 1 (algorithm.eta=2): algorithm.eta: expected"),
        ("{grid: {methods.diffusion: [1]}}", "methods.diffusion"),
        ("{grid: {name: [a, b]}}", "name: expected a setting of the algorithm or its problem"),
        (
            "{grid: {algorithm.latent_dim: [1, 9]}}",
            "point 1 (algorithm.latent_dim=9): tiny: method",
        ),
        ("{grid: {seed: [1]}, seeds: 2}", "sweep.seeds: expected one of the keys grid, list"),
        ("{random: {points: 2}}", "random.draw: expected a value"),
        ("{random: {points: 2, draw: {seed: {}}}}", "expected one of uniform, log_uniform, choice"),
        ("{random: {points: 2, draw: {seed: {uniform: [2, 1]}}}}", "low below high"),
        ("{random: {points: 2, draw: {seed: {log_uniform: [0, 1]}}}}", "an interval above 0"),
        ("{random: {points: 1000000, draw: {seed: {choice: [1]}}}}", "random.points: expected"),
        (
            f"{{grid: {{seed: {[*range(101)]}, population_size: {[*range(2, 102)]}}}}}",
            "expected at most 10000 points; seen 10100",
        ),
        ('{grid: {seed: [1]}, slurm: {partition: "a\\nb"}}', "slurm.partition: expected one line"),
    ],
)
def test_a_bad_sweep_gets_one_clear_message_before_anything_runs(tiny, tmp_path, section, message):
    _write(tiny, section)
    arguments = ["sweep", str(tiny), "--executor", "debug", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "tiny" in result.output.splitlines()[0]
    assert not (tmp_path / "out").exists()


def test_a_grids_dotted_key_on_the_command_line_is_shown_how(tiny):
    _write(tiny, GRID)
    arguments = ["sweep", str(tiny), "--set", "sweep.grid.algorithm.eta=[0.5]"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 2
    assert '--set "sweep.grid={algorithm.eta: [...]}"' in result.output


def test_a_slip_in_a_methods_name_makes_no_new_method(tiny):
    _write(tiny, "{grid: {methods.latnt.algorithm.eta: [0.5]}}")
    methods = "methods={plain: {label: plain}, latent: {algorithm: {latent_dim: 1}}}"
    with pytest.raises(cfg.ConfigError, match="seen latnt; did you mean 'latent'"):
        load(tiny, [methods])


def test_run_and_sweep_name_each_other(tiny):
    with pytest.raises(cfg.ConfigError, match="run it with `diffevo-jax sweep"):
        assert load(tiny).config
    spaced = tiny.rename(tiny.parent / "a sweep.yaml")
    with pytest.raises(cfg.ConfigError, match=r"`diffevo-jax sweep '.*a sweep\.yaml'`"):
        assert load(spaced).config
    spaced.write_text(HEAD)
    with pytest.raises(cfg.ConfigError, match=r"missing key 'sweep'.*`diffevo-jax run '.*yaml'`"):
        _sweep(spaced, tiny.parent / "out")


# What a sweep computes


def test_a_sweep_gives_what_its_points_give_as_runs_and_alone(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "REPEATS_PER_CALL", 3)  # calls that cut through points
    _write(
        tiny, "{grid: {algorithm.eta: [0.0, 0.7], seed: [0, 4294967295]}}", f"repeats: 5\n{HEAD}"
    )
    traced = []
    make_program = programs.make_program
    monkeypatch.setattr(
        programs, "make_program", lambda *a, **kw: traced.append(a) or make_program(*a, **kw)
    )
    failed, said = _sweep(tiny, tmp_path / "out")
    assert failed == []
    assert "4 of 4 points to run, jobs: 1" in said[0]
    # Made to see that it fits, for its sizes, and to trace start and chunk: once for all points.
    assert len(traced) == 4
    rows = _rows(tmp_path / "out")
    assert [(row["point"], row["repeat"]) for row in rows] == [
        (str(point), str(repeat)) for point in range(4) for repeat in range(5)
    ]

    config = load(tiny).points[3].config
    folder = results.create(tmp_path / "run", "run")
    run.run(config, run.build(config), folder)
    fitness = np.load(folder / "diffusion_evolution.npz")["fitness"]
    seen = [row for row in rows if row["point"] == "3"]
    assert {(row["algorithm.eta"], row["seed"]) for row in seen} == {("0.7", "4294967295")}
    means = [float(row["fitness_mean"]) for row in seen]
    # A number as data rounds otherwise than one compiled in.
    np.testing.assert_allclose(means, fitness[:, -1].mean(axis=1), rtol=1e-4)
    best = [float(row["fitness_best"]) for row in seen]
    np.testing.assert_allclose(best, fitness.max(axis=(1, 2)), rtol=1e-4)
    rates = [float(row["success_rate"]) for row in seen]
    np.testing.assert_allclose(rates, (fitness[:, -1] >= 0.5).mean(axis=1))

    _sweep(tiny, tmp_path / "one", only=[2])
    alone = [_numbers(row) for row in _rows(tmp_path / "one")]
    assert {row["point"] for row in alone} == {"2"}
    assert alone == [_numbers(row) for row in rows if row["point"] == "2"]  # bit for bit


@pytest.mark.slow
def test_a_sweep_rolls_the_best_individual_out_again_as_its_runs_do(tmp_path):
    path = tmp_path / "again.yaml"
    path.write_text(
        """
name: again
description: a small network on cart-pole
population_size: 8
problem: {name: control, environment: CartPole-v1, policy: {hidden: [2]}, max_steps: 30}
algorithm: {name: paper, schedule: {num_levels: 3}}
repeats: 2
sweep: {list: [{problem.success: 15}]}
"""
    )
    assert _sweep(path, tmp_path / "out")[0] == []
    rows = _rows(tmp_path / "out")
    config = load(path).points[0].config
    folder = results.create(tmp_path / "run", "run")
    run.run(config, run.build(config), folder)
    saved = np.load(folder / "diffusion_evolution.npz")
    for name in ("reevaluated_return", "reevaluated_success"):
        seen = [float(row[name]) for row in rows]
        np.testing.assert_allclose(seen, saved[name].mean(axis=1), rtol=1e-6)


def test_a_sweep_names_the_points_that_selected_nobody(tiny, tmp_path):
    _write(tiny, "{list: [{problem.scale: 1.0}, {problem.scale: 1e6}, {problem.scale: 2e6}]}")
    nobody = HEAD.replace("{name: boltzmann, temperature: 0.1}", "{name: identity}")
    tiny.write_text(tiny.read_text().replace(HEAD, nobody))
    _, said = _sweep(tiny, tmp_path / "out")
    advice = [line for line in said if "nothing was selected" in line]
    assert [line.partition(":")[0] for line in advice] == ["points 1, 2"]
    _, again = _sweep(tiny, tmp_path / "out")  # nothing is left to run
    assert advice[0] in again


def test_advice_that_differs_in_its_numbers_alone_is_one_line(tiny, tmp_path, monkeypatch):
    def run_points(points, *, runs_per_call):
        for point in points:
            advice = (f"from generation {point.number + 5} on", "another")[: 1 + point.number % 2]
            yield jobs.PointResult(point, [], {}, advice=advice)

    monkeypatch.setattr(jobs, "run_points", run_points)
    _, said = _sweep(tiny, tmp_path / "out")
    lines = ["points 0, 1, 2, 3: from generation 5 on", "points 1, 3: another"]
    assert [line for line in said if line.startswith("points")] == lines


def test_numbers_are_data_and_all_else_makes_a_shape(tiny):
    methods = {
        "eta": 0.3,
        "floor": 1e-9,
        "fitness_map.temperature": 3.0,
        "schedule.num_levels": 4,
        "latent_dim": 1,
    }
    bare = tiny.with_name("bare.yaml")
    bare.write_text(HEAD)
    base = load(bare, ["algorithm.floor=1e-8"]).config
    shape, numbers = programs.take_apart(base.methods["diffusion_evolution"])
    assert numbers == {
        "algorithm.eta": 1.0,
        "algorithm.floor": 1e-8,
        "algorithm.fitness_map.temperature": 0.1,
        "problem.scale": 1.0,
        "problem.success": 0.5,
    }
    for key, value in methods.items():
        floor = [] if key == "floor" else ["algorithm.floor=1e-8"]
        overrides = [*floor, f"algorithm.{key}={value}"]
        other = load(bare, overrides).config
        same = programs.take_apart(other.methods["diffusion_evolution"])[0] == shape
        assert same == (key in ("eta", "floor", "fitness_map.temperature")), key
    without = load(bare).config.methods["diffusion_evolution"]
    assert programs.take_apart(without)[0] != shape  # no floor is another program


def test_scale_is_data_to_a_control_task(tmp_path):
    path = tmp_path / "cartpole.yaml"
    path.write_text(
        """
name: cartpole
description: scale as data
population_size: 4
problem: {name: control, environment: CartPole-v1, policy: {hidden: [2]}}
algorithm: {name: paper, schedule: {num_levels: 2}, fitness_map: {name: boltzmann}}
sweep: {grid: {problem.scale: [1.0, 30.0]}}
"""
    )
    loaded = load(path)
    assert len(jobs.group(loaded)) == 1
    program = programs.with_data(loaded.points[0].config.methods["diffusion_evolution"])
    numbers = {name: jnp.ones(()) for name in ("algorithm.eta", "problem.scale")}

    def one_run(key, numbers):
        carry, keys = program.start(key, numbers)
        carry, kept = program.advance(carry, keys, numbers)
        assert program.reevaluate is not None
        return kept, program.reevaluate(key, carry, numbers)

    kept, outcomes = jax.eval_shape(one_run, jax.random.key(0), numbers)
    assert kept["fitness"].shape == (2, 4)
    assert outcomes["reevaluated_return"].shape == (100,)


def test_points_per_job_cuts_a_shape_into_jobs(tiny):
    numbers = [
        [p.number for p in job] for job in jobs.group(load(tiny, ["sweep.points_per_job=3"]))
    ]
    assert numbers == [[0, 1, 2], [3]]


# Going on, and failing


def test_finished_points_are_skipped_on_the_next_call(tiny, tmp_path, pretend):
    out = tmp_path / "out"
    _sweep(tiny, out, only=[1, 3])
    before = {path: path.read_bytes() for path in (out / "points").iterdir()}
    assert len(before) == 2
    failed, said = _sweep(tiny, out, "sweep.slurm={time: 5}")  # how to share out may change
    assert failed == []
    assert "2 of 4 points to run" in said[0]
    assert len(_rows(out)) == 4
    assert all(path.read_bytes() == content for path, content in before.items())
    assert "0 of 4 points to run, jobs: 0" in _sweep(tiny, out)[1][0]


def test_a_job_that_fails_is_listed_stops_no_other_and_runs_again(
    tiny, tmp_path, monkeypatch, pretend
):
    _write(tiny, TWO_SHAPES)
    out = tmp_path / "out"
    command = ["sweep", str(tiny), "--executor", "debug", "--out", str(out)]
    run_points = jobs.run_points

    def fails(points, **settings):
        if points[0].config.methods["diffusion_evolution"].population_size == 12:
            raise MemoryError("too large\nby far")
        return run_points(points, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "run_points", fails)
        result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 1
    for line in (
        "failed: point 2 (population_size=12, algorithm.eta=0.0): MemoryError: too large\n",
        "failed: point 3 (population_size=12, algorithm.eta=1.0): MemoryError: too large\n",
    ):
        assert line in result.output
    assert [row["point"] for row in _rows(out, "failed.csv")] == ["2", "3"]
    assert _rows(out, "failed.csv")[0]["error"] == "MemoryError: too large"
    assert {row["point"] for row in _rows(out)} == {"0", "1"}

    again = CliRunner().invoke(app, [*command, "--only", "3"], catch_exceptions=False)
    assert again.exit_code == 0, again.output
    assert {row["point"] for row in _rows(out)} == {"0", "1", "3"}
    assert [row["point"] for row in _rows(out, "failed.csv")] == ["2"]
    rest = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "1 of 4 points to run" in rest.output
    assert {row["point"] for row in _rows(out)} == {"0", "1", "2", "3"}
    assert _rows(out, "failed.csv") == []


def test_a_point_whose_fitness_has_no_weight_fails_alone(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(
        de.landscapes.functions, "two_peaks", lambda x: 10 - jnp.sum(x**2, axis=1), raising=True
    )
    _write(tiny, "{grid: {problem.scale: [0.1, 100.0], algorithm.eta: [0.0, 1.0]}}")
    out = tmp_path / "out"
    failed, said = _sweep(tiny, out, "algorithm.fitness_map={name: identity}")
    assert "jobs: 1" in said[0]  # all four are one program
    assert [line.split(":")[0] for line in failed] == [
        "point 2 (problem.scale=100.0, algorithm.eta=0.0)",
        "point 3 (problem.scale=100.0, algorithm.eta=1.0)",
    ]
    assert "Use boltzmann" in failed[0]
    assert {row["point"] for row in _rows(out)} == {"0", "1"}


def test_fitness_that_is_no_number_is_counted_in_the_table(tiny, tmp_path, monkeypatch):
    def faulty(x):
        fitness = jnp.exp(-jnp.sum(x**2, axis=1))
        return fitness.at[0].set(jnp.nan).at[1].set(jnp.inf).at[2].set(-jnp.inf)

    monkeypatch.setattr(de.landscapes.functions, "two_peaks", faulty)
    out = tmp_path / "out"
    _write(tiny, "{grid: {algorithm.eta: [1.0]}}", f"repeats: 2\n{HEAD}")
    methods = "methods={plain: {label: p}, latent: {label: l, algorithm: {latent_dim: 1}}}"
    assert _sweep(tiny, out, methods)[0] == []
    rows = _rows(out)
    assert [row["method"] for row in rows] == ["plain", "plain", "latent", "latent"]
    assert {row["num_invalid"] for row in rows} == {str(3 * 3)}  # individuals, generations
    assert all(0 < float(row["fitness_best"]) <= 1 for row in rows)


def test_the_folder_of_another_sweep_is_refused_and_the_keys_named(tiny, tmp_path, pretend):
    out = tmp_path / "out"
    _sweep(tiny, out, only=[0])
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for overrides, message in (
        (["algorithm.eta=0.5"], "they differ in algorithm.eta. Choose"),
        (["repeats=4", "seed=2"], "they differ in repeats, seed. Choose"),
    ):
        with pytest.raises(cfg.ConfigError, match=re.escape(message)):
            _sweep(tiny, out, *overrides)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_text("data")
    with pytest.raises(cfg.ConfigError, match="not a sweep's folder"):
        _sweep(tiny, tmp_path / "other")
    with pytest.raises(cfg.ConfigError, match="expected a folder; seen a file"):
        _sweep(tiny, tmp_path / "other" / "precious")
    with pytest.raises(cfg.ConfigError, match="--only 4: expected the number of a point, 0 to 3"):
        _sweep(tiny, out, only=[4])
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["precious"]


def test_a_damaged_or_an_older_point_is_named_before_anything_runs(
    tiny, tmp_path, monkeypatch, pretend
):
    out = tmp_path / "out"
    _sweep(tiny, out, only=[0])
    path = out / "points" / "0000.json"
    whole = path.read_text()
    for damaged in ("", whole[:-30], "[" * 100_000, '{"status": "finished"}'):
        path.write_text(damaged)
        with pytest.raises(cfg.ConfigError, match=r"0000.json: not readable .*; remove it"):
            _sweep(tiny, out)
        assert path.read_text() == damaged
    path.write_text(whole)
    monkeypatch.setattr(de, "__version__", "9.9")
    with pytest.raises(cfg.ConfigError, match=r"point 0 .* was run by version .*; this is 9.9"):
        _sweep(tiny, out)


def test_a_sweep_does_not_go_on_with_another_generator_of_keys_or_precision(
    tiny, tmp_path, pretend
):
    out = tmp_path / "out"
    _sweep(tiny, out, only=[0])
    for other, message in (
        (jax.default_prng_impl("rbg"), "JAX_DEFAULT_PRNG_IMPL=threefry2x32; this is rbg"),
        (jax.enable_x64(True), "JAX_ENABLE_X64=False; this is True"),
    ):
        with other, pytest.raises(cfg.ConfigError, match=f"point 0 .* was run with {message}"):
            _sweep(tiny, out)


def test_two_calls_at_once_do_not_share_a_folder(tiny, tmp_path, pretend):
    out = tmp_path / "out"
    _sweep(tiny, out, only=[0])
    with folders.lock(out, out, print), pytest.raises(cfg.ConfigError, match="in use by"):
        _sweep(tiny, out)
    assert _sweep(tiny, out)[0] == []


def test_a_job_queued_again_goes_on_with_what_is_left(tiny, tmp_path, pretend):
    out = tmp_path / "out"
    _sweep(tiny, out)
    (out / "points" / "0002.json").unlink()
    kept = {path: path.stat().st_mtime_ns for path in (out / "points").iterdir()}
    jobs.Job(out, (0, 1, 2, 3), None, False, False).checkpoint().result()
    assert (out / "points" / "0002.json").exists()
    assert all(path.stat().st_mtime_ns == changed for path, changed in kept.items())


# Executors


def test_a_job_sees_the_devices_that_the_caller_saw(tiny, tmp_path, monkeypatch, pretend):
    out = tmp_path / "out"
    _sweep(tiny, out, only=[0])
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    for seen in ("0,1", None):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as submitit leaves it
        jobs.Job(out, (), seen, False, False)()
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == seen


def test_a_local_sweep_runs_in_processes_of_its_own(tiny, tmp_path):
    out = tmp_path / "out"
    failed, said = _sweep(tiny, out, "repeats=1", executor="local")
    assert failed == []
    assert re.fullmatch(r"job \d+: 4 points, 0 failed", said[1])
    assert len(_rows(out)) == 4
    record = json.loads((out / "points" / "0000.json").read_text())
    assert record["environment"]["versions"]["diffevo-jax"] == de.__version__
    assert list((out / "jobs").glob("*_log.out"))


def test_a_job_that_dies_leaves_its_points_failed_with_its_last_words(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(submitit.LocalJob, "_results_timeout_s", 0)
    (tmp_path / "points").mkdir()
    points = list(load(tiny).points)

    def dies() -> None:
        print("killed: out of memory", file=sys.stderr, flush=True)
        os._exit(9)

    job = submitit.LocalExecutor(tmp_path / "jobs").submit(dies)
    jobs._wait(tmp_path, job, points[1:3], cancel=True)
    for point in points[1:3]:
        record = table.read_point(tmp_path, point)
        assert record is not None
        assert record.status == "failed"
        assert record.error == "its job ended in FINISHED: killed: out of memory"
    assert table.read_point(tmp_path, points[0]) is None


def test_ctrl_c_ends_a_local_job(tiny, tmp_path):
    cancelled = []

    def interrupted():
        raise KeyboardInterrupt

    job = SimpleNamespace(exception=interrupted, cancel=lambda check: cancelled.append(check))
    with pytest.raises(KeyboardInterrupt):
        jobs._wait(tmp_path, job, [], cancel=True)
    assert cancelled == [False]
    with pytest.raises(KeyboardInterrupt):
        jobs._wait(tmp_path, job, [], cancel=False)
    assert cancelled == [False]


# A cluster of one machine: sbatch keeps the script, returns, and runs it; srun runs what follows
# its options; sacct says whether that has ended.
SBATCH = """\
#!/bin/bash
bin=$(dirname "$0")
cp "$1" "$bin/script-$(ls "$bin" | grep -c script)"
run() { SLURM_JOB_ID=7 bash "$1"; touch "$bin/ended"; }
if [ ! -e "$bin/hold" ]; then run "$1" > "$bin/log" 2>&1 & fi
echo Submitted batch job 7
"""
SRUN = """\
#!/bin/bash
while [[ "$1" == --* ]]; do case $1 in --output|--error) shift;; esac; shift; done
exec "$@"
"""
SACCT = """\
#!/bin/bash
[ -e "$(dirname "$0")/ended" ] && state=COMPLETED || state=RUNNING
printf "JobID|State|NodeList\\n7|$state|a\\n7_0|$state|a\\n7_1|$state|a\\n"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


SLURM = "sweep.slurm={time: 33, partition: gpu, gpus_per_node: 1, setup: [export SET_UP=1]}"


def test_slurm_gets_a_script_with_the_sweeps_options_and_runs_it(tiny, tmp_path, cluster):
    out = tmp_path / "out"
    failed, said = _sweep(tiny, out, SLURM, "repeats=1", executor="slurm")
    assert failed == []
    assert said[1] == "job 7: 4 points, 0 failed"
    assert all("no individual learned from others" in line for line in said[2:])  # of 8, at eta 0
    assert len(_rows(out)) == 4
    (script,) = cluster.glob("script-*")
    for line in ("job-name=tiny", "time=33", "partition=gpu", "gpus-per-node=1"):
        assert f"#SBATCH --{line}\n" in script.read_text()
    assert "\nexport SET_UP=1\n" in script.read_text()
    assert not (out / "submitted.json").exists()


def test_more_jobs_than_an_array_of_slurm_may_have_are_refused_before_anything_is_written(
    tiny, tmp_path, cluster, monkeypatch, pretend
):
    (cluster / "scontrol").write_text("#!/bin/bash\necho 'MaxArraySize            = 3'\n")
    (cluster / "scontrol").chmod(stat.S_IRWXU)
    out = tmp_path / "out"
    with pytest.raises(InputError) as error:
        _sweep(tiny, out, "sweep.points_per_job=1", executor="slurm")
    assert error.value.path == "sweep.points_per_job"
    assert error.value.seen == "4 jobs"
    assert "at most 3 jobs" in error.value.expected
    assert not out.exists()
    _sweep(tiny, out, "sweep.points_per_job=1", only=[0])  # what is finished is no job
    monkeypatch.setattr(jobs, "_submit", lambda *_: iter(()))
    assert "jobs: 3" in _sweep(tiny, out, "sweep.points_per_job=1", executor="slurm")[1][0]


def test_jobs_left_in_the_queue_are_waited_for_and_not_submitted_again(
    tiny, tmp_path, cluster, monkeypatch, pretend
):
    _write(tiny, TWO_SHAPES)
    out = tmp_path / "out"
    (cluster / "hold").touch()

    def interrupt(job):
        raise KeyboardInterrupt

    def run_now(job):
        jobs.Job(*job.submission().function)()

    with monkeypatch.context() as patch:
        patch.setattr(submitit.SlurmJob, "exception", interrupt)
        with pytest.raises(KeyboardInterrupt):
            _sweep(tiny, out, executor="slurm")
    assert json.loads((out / "submitted.json").read_text()) == {"7_0": [0, 1], "7_1": [2, 3]}
    monkeypatch.setattr(submitit.SlurmJob, "exception", run_now)
    failed, said = _sweep(tiny, out, executor="slurm")
    assert failed == []
    assert "0 of 4 points to run" in said[0]
    assert len(_rows(out)) == 4
    (script,) = cluster.glob("script-*")
    assert "#SBATCH --array=0-1%2\n" in script.read_text()  # a job for each shape
    assert not (out / "submitted.json").exists()


def test_no_slurm_bad_options_and_no_submitit_are_said(tiny, tmp_path, cluster, monkeypatch):
    out = tmp_path / "out"
    with pytest.raises(cfg.ConfigError, match=r"--executor slurm: (?s:.*)'partitoin'"):
        _sweep(tiny, out, "sweep.slurm={partitoin: gpu}", executor="slurm")
    (cluster / "sbatch").write_text("#!/bin/bash\necho 'invalid partition' >&2\nexit 1\n")
    with pytest.raises(cfg.ConfigError, match=r"--executor slurm: (?s:.*)invalid partition"):
        _sweep(tiny, out, "sweep.slurm={partition: gpu}", executor="slurm")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(cfg.ConfigError, match=r"--executor slurm: .*are you indeed on a slurm"):
        _sweep(tiny, out, executor="slurm")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(cfg.ConfigError, match=r'pip install "diffevo-jax\[sweep\]"'):
        _sweep(tiny, out, executor="local")
    assert list((out / "points").iterdir()) == []


def test_the_shipped_sweep_is_two_jobs():
    loaded = load(REPOSITORY / "configs" / "sweep_cartpole.yaml")
    assert [len(job) for job in jobs.group(loaded)] == [9, 9]
