"""Bad input that breaks nothing: 500 broken configs and run folders, and fitness that fails.

Each case is drawn from its number alone, so that a failing one can be run again by itself.
"""

import json
import random
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import pytest
import submitit  # noqa: F401  # its first import closes log handlers, pytest's in a test
import typer
import yaml
from conftest import REPOSITORY
from typer.testing import CliRunner

import diffevo_jax as de
from diffevo_jax.runs.cli import app
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.run import engine as run
from diffevo_jax.runs.run import jobs
from experiments import reproduce

# A sweep of many shapes traces each before it runs: minutes, of those that a fault leaves valid. So
# do large environments and covariances: seconds.
LONG = ("control.yaml", "control_large.yaml", "fig3.yaml", "schedules.yaml", "temperature.yaml")
LONG += ("brax_inverted_pendulum.yaml", "cartpole_cmaes.yaml", "control_preset.yaml")
CONFIGS = [p for p in sorted((REPOSITORY / "configs").glob("*.yaml")) if p.name not in LONG]
TINY = """\
name: tiny
description: two peaks
repeats: 2
population_size: 6
problem: {name: function, function: two_peaks, success: 0.5}
algorithm: {name: paper, schedule: {num_levels: 3}, fitness_map: {name: identity}}
"""

JUNK = (
    *(None, True, "", "x", "1e3", "ø\u2028\u202e", "x" * 10_000, "\0", "../..", "{[", "%s{0}"),
    *(-1, 0, 1, 2**31, 2**32, 2**63, 10**30, -(10**30), 1e-320, 1e308, 0.5),
    *(float("nan"), float("inf"), float("-inf"), [], {}, [[]], [None], [1, 2], {"a": {}}),
    *({"name": "cosine"}, {"name": "control"}, [{"grid": {}}], "cosine", "identity", "Acrobot-v1"),
)
TEXTS = (
    b"",
    b"\0\0\0",
    b"\xff\xfe\x00",
    b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    b"[" * 20_000,
    b"{" * 20_000,
    b"a: " * 500 + b"1",
    b"- " * 5_000,
    b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    b"<<: 1\n",
    b"? [a]\n: 1\n",
    b"!!python/object/apply:os.system [ls]",
    b"2001-01-01: 3\n",
    b"name: !!binary aaaa\n",
    b"a: 1\n---\nb: 2\n",
    b"\t- a",
    b"%YAML 9.9\n---\na: 1\n",
    b"1" * 10_000,
    b'{"status": "complete"}',
    b"null",
)


def _places(node) -> list[tuple]:
    """Every (parent, key) of a tree of dicts and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    found = [(node, key) for key, _ in items]
    for parent, key in list(found):
        if isinstance(parent[key], dict | list):
            found += _places(parent[key])
    return found


def _break_tree(draw: random.Random, tree: dict) -> dict:
    for _ in range(draw.randint(1, 3)):
        places = _places(tree)
        if not places:
            break
        parent, key = draw.choice(places)
        match draw.randrange(6):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[draw.choice([f"{key}s", str(key)[1:], "ø", "sweep", "study"])] = parent[key]
            case 2 if isinstance(parent, dict):
                parent[f"{key}x"] = parent.pop(key)
            case 3:
                other, place = draw.choice(places)
                parent[key], other[place] = other.get(place) if isinstance(other, dict) else 1, 7
            case 4:
                for _ in range(draw.randint(1, 60)):
                    parent[key] = [parent[key]] if draw.random() < 0.5 else {"a": parent[key]}
            case _:
                parent[key] = draw.choice(JUNK)
    return tree


def _break_bytes(draw: random.Random, content: bytes) -> bytes:
    match draw.randrange(5):
        case 0:
            return draw.choice(TEXTS)
        case 1:
            return content[: draw.randrange(len(content) + 1)]
        case 2:
            at = draw.randrange(len(content) + 1)
            return content[:at] + draw.randbytes(draw.randint(1, 40)) + content[at:]
        case 3:
            lines = content.splitlines(keepends=True)
            draw.shuffle(lines)
            return b"".join(lines)
        case _:
            at = draw.randrange(len(content) + 1)
            return content[:at] + draw.choice(TEXTS) + content[at:]


def _files(folder: Path) -> dict[str, bytes]:
    """What a folder holds, links and all."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"no file"
        for path in sorted(folder.rglob("*"))
    }


def _call(case: int, *args: object) -> int:
    """Call the command line; whatever the input, an exit code and a message."""
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    crashed = result.exception is not None and not isinstance(result.exception, SystemExit)
    assert not crashed, f"case {case}: {args}: {result.exception!r}"
    assert "Traceback" not in result.output, f"case {case}: {args}"
    assert result.exit_code in (0, 1, 2), f"case {case}: {args}: {result.output}"
    assert result.exit_code == 0 or "error: " in result.output, f"case {case}: {args}"
    assert len(result.output) < 200_000, f"case {case}: {args}"
    return result.exit_code


def _valid(*_: object, **__: object) -> None:
    """Stand for the run of an input that has passed all checks."""
    raise typer.Exit(0)


@pytest.fixture
def checks_only(monkeypatch):
    """End a command where it would begin to run, write or draw; trace what is the same once."""
    build, built = run.build, {}

    def build_once(config, **settings):
        if (key := repr(config)) not in built:
            built[key] = build(config, **settings)
        return built[key]

    monkeypatch.setattr(run, "build", build_once)
    monkeypatch.setattr(jobs.program, "build", build_once)
    monkeypatch.setattr(results, "create", _valid)
    monkeypatch.setattr(jobs, "_submit", _valid)
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *_, **__: self.draw_without_rendering()
    )
    monkeypatch.setattr(reproduce, "_run", lambda *_, **__: None)
    monkeypatch.setattr(reproduce.startup, "prepare", lambda *, cache: None)


def test_100_broken_configs_are_refused_with_a_message(tmp_path, checks_only):
    codes = []
    for case in range(100):
        draw = random.Random(case)
        folder = tmp_path / str(case)
        folder.mkdir()
        path, source = folder / "config.yaml", draw.choice(CONFIGS)
        content = source.read_bytes()
        if draw.random() < 0.6:
            tree = _break_tree(draw, yaml.safe_load(content))
            content = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False).encode()
        else:
            content = _break_bytes(draw, content)
        if draw.random() < 0.03:
            path.mkdir()
        elif draw.random() < 0.97:
            path.write_bytes(content)
        before = _files(folder)
        swept = b"sweep" in content or draw.random() < 0.2
        command = ["sweep" if swept else "run", path, "--out", folder / "out"]
        if draw.random() < 0.2:
            key = draw.choice(("algorithm.eta", "problem", "methods", "a..b", "sweep.grid", "seed"))
            command += ["--set", f"{key}={draw.choice(JUNK)}".replace("\0", "")]
        codes.append(_call(case, *command))
        shutil.rmtree(folder / "out", ignore_errors=True)
        assert _files(folder) == before, case
    # Some mutations leave a config valid; most do not.
    assert codes.count(2) > 66


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run folder and a sweep's folder, without having run."""
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "tiny.yaml"
    path.write_text(TINY)
    config = load(path).config
    made = folder / "run"
    made.mkdir()
    results.write_config(made, config, "tiny.yaml")
    record = {"status": "complete", "methods": {"diffusion_evolution": {"finished_repeats": 2}}}
    results.write_environment(made, record)
    arrays = {"fitness": np.random.default_rng(0).uniform(size=(2, 3, 6))}
    results.write_method(made, "diffusion_evolution", arrays, {})
    path.write_text(TINY.replace("repeats: 2\n", "") + "sweep: {grid: {seed: [1, 2, 3]}}\n")
    with pytest.MonkeyPatch.context() as patch:
        row = {"method": "diffusion_evolution", "repeat": 0}
        patch.setattr(
            jobs,
            "run_points",
            lambda points, **_: (jobs.PointResult(p, [row], {}) for p in points),
        )
        jobs.sweep(path, executor="debug", out=folder / "sweep", say=lambda _: None)
    (folder / "sweep" / "submitted.json").write_text('{"7": [0]}')
    part = folder / "report" / "fig4"
    part.mkdir(parents=True)
    reproduce.write_stamp(part, reproduce.Stamp(de.__version__, True, "complete"))
    for name in ("small", "large"):
        shutil.copytree(made, part / name)
    for name in ("cmaes", "process"):
        shutil.copy(made / "diffusion_evolution.npz", part / f"{name}.npz")
    return folder


def _break_arrays(draw: random.Random, path: Path) -> None:
    """Put other arrays into an .npz file."""
    shape = tuple(draw.choice((0, 1, 2, 5)) for _ in range(draw.randrange(5)))
    values = draw.choice((np.nan, np.inf, -np.inf, 0, -1.0, True, "text", b"b", 1j, 1e308))
    array = np.full(shape, values)
    if draw.random() < 0.1:
        array = np.array([{"not": "numbers"}], object)
    name = draw.choice(("fitness", "fitness", "fitness", "other"))
    np.savez(path, **{name: array})  # pyright: ignore[reportArgumentType]


def _break_folder(draw: random.Random, folder: Path) -> None:
    """Damage one or two files of a folder, or the folder itself."""
    if draw.random() < 0.05:
        shutil.rmtree(folder)
        if draw.random() < 0.7:
            folder.write_bytes(draw.choice(TEXTS))
        return
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in draw.sample(paths, draw.randint(1, 2)):
        match draw.randrange(6):
            case 0:
                path.unlink()
            case 1:
                path.unlink()
                path.mkdir()
            case 2:
                path.unlink()
                path.symlink_to(draw.choice((path, "/dev/null", "missing")))
            case 3 if path.suffix == ".npz":
                _break_arrays(draw, path)
            case 3 if path.suffix == ".json":
                tree = _break_tree(draw, json.loads(path.read_text()))
                path.write_text(json.dumps(tree))
            case 3 if path.suffix == ".yaml":
                tree = _break_tree(draw, yaml.safe_load(path.read_text()))
                path.write_text(yaml.safe_dump(tree))
            case _:
                path.write_bytes(_break_bytes(draw, path.read_bytes()))


def test_150_broken_run_and_sweep_folders_stay_as_they_are(whole, tmp_path, checks_only):
    codes = []
    config = tmp_path / "tiny.yaml"
    config.write_bytes((whole / "tiny.yaml").read_bytes())
    for case in range(1000, 1150):
        draw = random.Random(case)
        name = draw.choice(("run", "sweep"))
        folder = tmp_path / str(case)
        shutil.copytree(whole / name, folder)
        _break_folder(draw, folder)
        before = _files(folder) if folder.is_dir() else folder.exists() and folder.read_bytes()
        if name == "sweep":
            codes.append(_call(case, "sweep", config, "--executor", "debug", "--out", folder))
        else:
            codes.append(_call(case, "plot", folder))
            _call(case, "run", folder / "config.yaml", "--out", tmp_path / "out")
        if codes[-1] == 2:  # a sweep that goes on writes its tables
            after = _files(folder) if folder.is_dir() else folder.exists() and folder.read_bytes()
            assert after == before, case
    assert codes.count(2) > 75


def test_50_broken_report_folders_are_said_to_be_broken(whole, tmp_path, checks_only, capsys):
    codes = []
    for case in range(2000, 2050):
        draw = random.Random(case)
        out = tmp_path / str(case)
        shutil.copytree(whole / "report", out)
        _break_folder(draw, out / "fig4")
        before = _files(out / "fig4") if (out / "fig4").is_dir() else None
        codes.append(reproduce.main(["--only", "fig4", "--quick", "--out", str(out)]))
        output = "".join(capsys.readouterr())
        assert "error: " in output, case
        assert "Traceback" not in output, case
        if before is not None:
            assert _files(out / "fig4") == before, case
    assert set(codes) == {1}


def test_what_may_not_be_read_is_named(whole, monkeypatch):
    def denied(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", denied)
    monkeypatch.setattr(Path, "read_bytes", denied)
    for command in (
        ("run", whole / "run" / "config.yaml"),
        ("plot", whole / "run"),
        ("sweep", whole / "tiny.yaml", "--out", whole / "sweep"),
    ):
        assert _call(0, *command) == 2


# Fitness that fails


def _faulty(key: jax.Array, population: jax.Array) -> jax.Array:
    """Two peaks, with NaN or an infinity for about a quarter of the individuals."""
    fitness = de.landscapes.two_peaks(population)
    fault = jax.random.randint(key, fitness.shape, 0, 12)
    for number, value in enumerate((jnp.nan, jnp.inf, -jnp.inf)):
        fitness = jnp.where(fault == number, value, fitness)
    return fitness


def test_a_run_completes_and_counts_random_faults():
    key_init, key_run = jax.random.split(jax.random.key(0))
    population = jax.random.normal(key_init, (64, 2))
    evolution = de.presets.paper(de.schedules.cosine(20), fitness_map=de.fitness.identity, eta=0.1)
    state, info, _ = de.evolve(
        key_run, evolution, _faulty, population, has_key=True, keep=lambda info: info
    )
    faults = ~np.isfinite(info.fitness)
    np.testing.assert_array_equal(info.num_invalid, faults.sum(axis=1))
    assert faults.sum(axis=1).min() > 0
    assert np.isfinite(state.population).all()
    assert np.all(info.selected)
    # Up from 0.2: with a quarter of the fitness missing the population still finds the peaks.
    assert de.landscapes.two_peaks(state.population).mean() > 0.4


def test_the_runner_completes_and_counts_faults(tmp_path, monkeypatch):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    faults = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 0, 0, 0])
    monkeypatch.setattr(
        de.landscapes.functions, "two_peaks", lambda x: jnp.exp(-jnp.sum(x**2, axis=1)) + faults
    )
    config = load(path).config
    folder = results.create(tmp_path / "out", "tiny")
    (summary,) = run.run(config, run.build(config), folder)
    assert 0 < summary.values["fitness_mean"][0] <= 1
    lines = (folder / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("num_invalid")
    assert [line.split(",")[column] for line in lines[1:]] == ["3"] * 2 * 3
