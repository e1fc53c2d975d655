"""The smaller commands: init, sums of sweeps, animate, scalars; and fitness of the host's."""

import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL.GifImagePlugin import GifImageFile
from typer.testing import CliRunner

import diffevo_jax as de
from diffevo_jax.runs import load_run, load_sweep
from diffevo_jax.runs.cli import app
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.config.files import starters
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.report import animate, figure
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results import scalars, table
from diffevo_jax.runs.results.record import Summary
from diffevo_jax.runs.run import engine as run
from diffevo_jax.runs.run import jobs

pytestmark = pytest.mark.usefixtures("one_device")

TINY = """\
name: tiny
description: two peaks
repeats: 3
population_size: 16
problem: {name: function, function: two_peaks, scale: 2.0}
algorithm: {name: paper, schedule: {num_levels: 4}}
methods: {plain: {label: plain}, latent: {label: latent, algorithm: {latent_dim: 1}}}
"""


def _cli(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)


@pytest.fixture
def restored_registry():
    """What a plugin registers is gone after the test."""
    before = dict(registry.entries), dict(registry.plugins)
    yield
    registry.entries, registry.plugins = before


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """A run of two methods, and what it logged."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "tiny.yaml").write_text(TINY)
    config = load(folder / "tiny.yaml").config
    out = results.create(folder / "out", "")
    with scalars.tensorboard(out) as log:
        run.run(config, run.build(config), out, log=log)
    return out


def test_version_is_the_packages():
    assert _cli("--version").output == f"diffevo-jax {de.__version__}\n"


# A config to start from


@pytest.mark.parametrize("problem", starters())
def test_a_starter_runs_as_it_is_and_mentions_every_setting_of_its_sections(problem, tmp_path):
    path = tmp_path / "mine.yaml"
    result = _cli("init", "mine", "--problem", problem, "--out", path)
    assert result.output == f"{path}: run it with `diffevo-jax run {path}`\n"
    text = path.read_text()
    assert text.startswith(f"# diffevo-jax run {path}\n")
    config = load(path).config
    run.build(config)
    assert config.name == "mine"
    method = config.methods["evolution"]
    assert method.problem.name == problem
    sections = [config, config.figure, config.checkpoint, method]
    for kind in ("problem", "algorithm"):
        sections += [each for *_, each in registry.sections(kind, getattr(method, kind))]
    for section in sections:
        for setting in type(section).model_fields:
            assert re.search(rf"\b{setting}:", text), setting


@pytest.mark.parametrize("problem", starters())
def test_what_a_starter_says_of_defaults_is_so(problem, tmp_path):
    path = tmp_path / "mine.yaml"
    _cli("init", "mine", "--problem", problem, "--out", path)
    method = load(path).config.methods["evolution"]
    setting = re.compile(r"^( *)# ([a-z0-9_]+: [^ ]+)$")
    lines = [setting.sub(r"\1\2", line) for line in path.read_text().splitlines()]
    assert sum(map(lambda line: setting.match(line) is not None, path.read_text().splitlines())) > 5
    path.write_text("\n".join(lines))
    again = load(path).config.methods["evolution"]
    assert (again.problem, again.algorithm) == (method.problem, method.algorithm)


def test_a_starter_never_writes_over_a_file_and_names_what_is_wrong(tmp_path):
    (tmp_path / "mine.yaml").write_text("mine")
    for args, message in (
        (["mine", "--out", tmp_path / "mine.yaml"], "exists; choose another NAME or --out FILE"),
        (["a b", "--out", tmp_path / "x.yaml"], "NAME: expected letters, digits, - and _; seen"),
        (["x", "--problem", "funktion"], "expected one of bbob, control, function; seen funktion;"),
    ):
        result = _cli("init", *args)
        assert result.exit_code == 2
        assert message in result.output
    assert (tmp_path / "mine.yaml").read_text() == "mine"


@pytest.mark.parametrize("problem", starters())
def test_a_starters_sweep_is_one(problem, tmp_path):
    path = tmp_path / "mine.yaml"
    _cli("init", "mine", "--problem", problem, "--out", path)
    before, sweep = path.read_text().split("# sweep:\n")
    path.write_text(before + "sweep:\n" + sweep.replace("# ", ""))
    assert len(load(path).points) == 9


def test_a_starters_name_may_have_its_suffix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _cli("init", "mine.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
    assert load(Path("mine.yaml")).config.name == "mine"


# Seeds and repeats


def test_seed_and_repeats_have_options_of_their_own(ran, tmp_path):
    config = ran.parent / "tiny.yaml"
    out = tmp_path / "out"
    result = _cli("run", config, "--seed", 5, "--repeats", 1, "--out", out, "--no-cache")
    assert result.exit_code == 0, result.output
    assert "two peaks, 2 dimensions: 16 individuals, 4 generations, 1 repeat of 2" in result.output
    loaded = load_run(out)
    assert (loaded.config.seed, loaded.config.repeats) == (5, 1)


# Sums of sweeps


def _swept(tmp_path: Path, section: str, text: str = TINY) -> Path:
    """Run a sweep of tiny points in this process."""
    path = tmp_path / "sweep.yaml"
    path.write_text(text + f"sweep: {section}\n")
    folder = tmp_path / "swept"
    assert not jobs.sweep(path, executor="debug", out=folder, cache=False, say=lambda _: None)
    return folder


def test_a_sweep_is_summed_up_and_drawn_by_plot(tmp_path):
    grid = "{algorithm.eta: [0.0, 1.0], problem.function: [two_peaks, two_steps]}"
    folder = _swept(tmp_path, f"{{grid: {grid}}}")
    result = _cli("plot", folder)
    assert result.exit_code == 0, result.output
    assert {"summary.csv", "figure.png", "figure.pdf"} <= {path.name for path in folder.iterdir()}
    _, rows = table.summaries(folder)
    assert len(rows) == 4 * 2
    for row in rows:
        assert row.point is not None
        saved = [r for r in load_sweep(folder)[row.point].rows if r["method"] == row.method]
        values = np.array([r["fitness_mean"] for r in saved])
        assert row.value("fitness_mean") == pytest.approx(
            (values.mean(), values.std(ddof=1) / 3**0.5)
        )
        assert row.settings.keys() == {"algorithm.eta", "problem.function"}
    shown = [line.split() for line in result.output.splitlines() if line.startswith(" 0 ")]
    assert [line[:3] for line in shown[:2]] == [["0", "two_peaks", m] for m in ("plain", "latent")]
    # Other landscapes are panels of their own; eta is a number along x.
    loaded = load(folder / "config.yaml")
    panels = figure.sweep_panels(loaded, rows)
    assert [(title, axis.key) for title, axis, _ in panels] == [
        ("two_peaks", "algorithm.eta"),
        ("two_steps", "algorithm.eta"),
    ]
    assert list(panels[0][2]) == ["plain", "latent"]


def _rows(columns: list[str], *settings: tuple) -> list[Summary]:
    problem = {"name": "function", "function": "two_peaks"}
    return [
        Summary(
            method="plain",
            label="plain",
            problem=problem,
            repeats=2,
            numbers={"fitness_mean": [-1.0, 1.0]},
            point=i,
            settings=dict(zip(columns, each, strict=True)),
        )
        for i, each in enumerate(settings)
    ]


def test_settings_that_follow_from_others_are_left_out_and_drawn_ones_are_not():
    points = [{"a": 1, "b": "x", "c": 0}, {"a": 1, "b": "x", "c": 1}, {"a": 2, "b": "y", "c": 0}]
    assert table.varying(points, drawn=False) == ["a", "c"]
    assert table.varying(points, drawn=True) == ["a", "b", "c"]


def test_random_points_get_a_panel_a_setting_and_lists_a_place_a_point(tmp_path):
    path = tmp_path / "sweep.yaml"
    draw = "{algorithm.eta: {uniform: [0, 1]}, problem.scale: {uniform: [1, 2]}}"
    path.write_text(TINY + f"sweep: {{random: {{points: 3, draw: {draw}}}}}\n")
    columns = ["algorithm.eta", "problem.scale"]
    rows = _rows(columns, (0.1, 1.2), (0.3, 1.1), (0.2, 1.9))
    panels = figure.sweep_panels(load(path), rows)
    assert [(axis.key, axis.joined) for _, axis, _ in panels] == [(key, False) for key in columns]
    path.write_text(TINY + "sweep: {list: [{problem.function: ackley}, {population_size: 8}]}\n")
    rows = _rows(["problem.function", "population_size"], ("ackley", None), (None, 8))
    ((_, axis, _),) = figure.sweep_panels(load(path), rows)
    assert axis.places == {"ackley": 0, "population size 8": 1}
    assert [axis.place(row) for row in rows] == [0, 1]


def test_what_is_drawn_log_uniform_stands_on_a_logarithmic_axis(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    path = tmp_path / "sweep.yaml"
    draw = "{algorithm.eta: {uniform: [0, 1]}, problem.scale: {log_uniform: [1, 4]}}"
    path.write_text(TINY + f"sweep: {{random: {{points: 3, draw: {draw}}}}}\n")
    columns = ["algorithm.eta", "problem.scale"]
    rows = _rows(columns, (0.1, 1.2), (0.3, 1.1), (0.2, 3.9))
    list(figure.draw_sweep(tmp_path, load(path), rows))
    assert [axes.get_xscale() for axes in drawn[0].axes] == ["linear", "log"]


def test_a_sweep_without_a_finished_point_says_how_to_go_on(tmp_path):
    (tmp_path / "config.yaml").write_text(TINY + "sweep: {grid: {seed: [0, 1]}}\n")
    result = _cli("plot", tmp_path)
    assert result.exit_code == 2
    assert "no point of this sweep has finished; `diffevo-jax sweep" in result.output


# Moving pictures


def test_a_repeat_evolved_again_is_the_runs(ran):
    config, loaded = load(ran / "config.yaml").config, load_run(ran)
    said, kept = [], loaded.methods["latent"]
    method, keys = config.methods["latent"], de.batch.seed_keys(config.seed, 3)
    populations, _ = animate._evolve_again(method, keys[2], kept.fitness[2], said.append)
    assert populations.shape == (4, 16, 2)
    assert kept.final_population is not None
    np.testing.assert_allclose(populations[-1], kept.final_population[2], rtol=1e-4, atol=1e-6)
    assert not said
    animate._evolve_again(method, keys[1], kept.fitness[0], said.append)
    assert said[0].startswith("note: from generation 1 on this repeat goes another way")


def test_animate_draws_a_population_on_its_landscape(ran):
    result = _cli("animate", ran, "--repeat", 1)
    assert result.exit_code == 0, result.output
    assert "Of plain alone; --method NAME takes another of plain, latent." in result.output
    with GifImageFile(ran / "animation.gif") as picture:
        assert picture.n_frames == 4
        assert picture.size[0] >= 800


def test_animate_names_what_the_run_does_not_hold(ran):
    for args, message in (
        (["--method", "latnt"], "--method latnt: no such method; did you mean 'latent'?"),
        (["--repeat", 3], "--repeat 3: expected 0 to 2, a finished repeat"),
        (["--out", ran / "a.avi"], "expected NAME.gif or NAME.mp4; seen"),
    ):
        result = _cli("animate", ran, *args)
        assert result.exit_code == 2
        assert message in result.output.replace("\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment", ["CartPole-v1", "Acrobot-v1", "MountainCarContinuous-v0", "Pendulum-v1"]
)
def test_animate_draws_best_policies_and_generations(environment, tmp_path):
    path = tmp_path / "again.yaml"
    problem = (
        f"{{name: control, environment: {environment}, policy: {{hidden: [2]}}, max_steps: 30}}"
    )
    path.write_text(TINY.replace(TINY.splitlines()[4], f"problem: {problem}"))
    config = load(path, ["repeats=1", "problem.max_steps=30"]).config
    out = results.create(tmp_path / "out", "")
    run.run(config, run.build(config), out)
    for options in ([], ["--generation", "1", "--generation", "4", "--episodes", "2"]):
        result = _cli("animate", out, *options)
        assert result.exit_code == 0, result.output
        with GifImageFile(out / "animation.gif") as picture:
            assert picture.n_frames > 2
    result = _cli("animate", out, "--generation", 5)
    assert "--generation 5: expected 1 to 4" in result.output


# Scalars


def _scalars(file: Path) -> dict[tuple[str, int], float]:
    """Read an event file: records of a length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

    data, found = file.read_bytes(), {}
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        found |= {(each.tag, event.step): each.simple_value for each in event.summary.value}
        data = data[16 + length :]
    return found


def test_scalars_are_the_runs_metrics(ran):
    loaded = load_run(ran)
    for name, method in loaded.methods.items():
        for repeat in range(3):
            (file,) = (ran / "tensorboard" / name / f"{repeat:03d}").iterdir()
            seen = _scalars(file)
            for metric, tag in (("fitness_mean", "fitness/mean"), ("alpha", "alpha")):
                values = [seen[tag, generation] for generation in range(1, 5)]
                np.testing.assert_allclose(values, method.metrics[metric][repeat], rtol=1e-6)


def test_scalars_without_their_package_say_what_to_install(ran, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    result = _cli("run", ran, "--log", "tensorboard", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert 'pip install "diffevo-jax[tensorboard]"' in result.output
    assert not (tmp_path / "out").exists()


# Fitness of the host


HOST = """\
import jax
import numpy as np
from diffevo_jax.problem import Problem
from diffevo_jax.runs.config.registry import register


def simulator(population):  # NumPy, one genome after the other
    return np.array([-np.sum(genome**2) for genome in population], np.float32)


@register("problem", "hosted")
def hosted() -> Problem:
    def fitness(population):
        shape = jax.ShapeDtypeStruct(population.shape[:1], population.dtype)
        return jax.pure_callback(simulator, shape, population, vmap_method="sequential")

    return Problem(3, fitness, reevaluate=lambda key, population: (fitness(population), {}))
"""


def test_the_best_of_a_hosts_fitness_is_kept_and_evaluated_again(tmp_path, restored_registry):
    (tmp_path / "hosted.py").write_text(HOST)
    (tmp_path / "tiny.yaml").write_text(
        TINY.replace("{name: function, function: two_peaks, scale: 2.0}", "{name: hosted}")
    )
    out = tmp_path / "out"
    plugin = ("--plugin", tmp_path / "hosted.py")
    set_ = ("--set", "save_populations=0", "--set", "repeats=2")
    result = _cli("run", tmp_path / "tiny.yaml", *plugin, *set_, "--out", out, "--no-cache")
    assert result.exit_code == 0, result.output
    for method in load_run(out).methods.values():  # without the plugin
        assert method.best_genome.shape == (2, 3)
        expected = -np.sum(method.best_genome**2, axis=1)
        np.testing.assert_allclose(method.best_fitness, expected, rtol=1e-5)
        assert method.reevaluated_genome is not None
        assert method.reevaluated_return is not None
        again = -np.sum(method.reevaluated_genome**2, axis=1)
        np.testing.assert_allclose(method.reevaluated_return.mean(axis=1), again, rtol=1e-5)
