"""The registry: settings from signatures, plugins, and what both say of bad input."""

from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax
import pytest
from conftest import REPOSITORY
from test_runner import TINY
from typer.testing import CliRunner

import diffevo_jax as de
from diffevo_jax.checks import Count, InputError, Positive
from diffevo_jax.runs import load_sweep
from diffevo_jax.runs.cli import app
from diffevo_jax.runs.config import schema as cfg
from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.run import jobs, program

pytestmark = pytest.mark.usefixtures("one_device")

PLUGIN = '''\
import jax.numpy as jnp
import diffevo_jax as de
from diffevo_jax.checks import Positive
from diffevo_jax.runs.config.registry import register

@register("fitness_map", "steep")
def steep(power: Positive = 2.0):
    """Weight = f^power."""
    return lambda fitness, valid: power * jnp.log(fitness)

@register("problem", "bowl")
def bowl(*, centre: float = 0.0):
    """A bowl in three dimensions."""
    def fitness_fn(population):
        return jnp.exp(-jnp.sum((population - centre) ** 2, axis=1))
    return de.Problem(3, fitness_fn)

@register("denoiser", "growing")
def growing():
    """A memory that gains a number a step."""
    inner = de.denoisers.posterior_mean()
    def estimate(key, memory, x_t, weights, level):
        _, posterior = inner.estimate(key, (), x_t, weights, level)
        return jnp.append(memory, 0.0), posterior
    return de.Denoiser(lambda key, population: jnp.zeros(1), estimate)

@register("policy", "swelling")
def swelling(*, num_inputs: int, num_outputs: int):
    """A state that gains a number a step."""
    def apply(params, state, observation):
        return jnp.append(state, 0.0), params @ observation
    template = jnp.zeros((num_outputs, num_inputs))
    return de.policies.from_apply(apply, template, num_inputs, initial_state=jnp.zeros(1))
'''
STEEP = ("--set", "algorithm.fitness_map={name: steep}")


def _restore(entries: dict) -> None:
    """Leave the registry with these entries alone, and no plugin."""
    registry.entries, registry.plugins = dict(entries), {}


@pytest.fixture(autouse=True)
def _forgets():
    """Leave the registry as it was."""
    before = dict(registry.entries)
    yield
    _restore(before)


@pytest.fixture
def tiny(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("  plain: {label: plain}\n", ""))
    return path


@pytest.fixture
def plugin(tmp_path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


def _cli(*args, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def _results(out: Path) -> dict[Path, bytes]:
    """The files of a run but for the lock."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != "lock")
    return {path: path.read_bytes() for path in files}


# Settings


def test_settings_are_the_parameters_of_the_factory():
    @registry.register("fitness_map", "many")
    def many(
        *,
        key,
        size: Count,
        scale: Positive = 2.0,
        shape: Literal["round", "square"] = "round",
        sizes: list[Count] | None = None,
        table: dict[str, float] | None = None,
        loud: bool = False,
        precision: jax.lax.PrecisionLike = None,
    ):
        return lambda fitness: (size, scale, shape, sizes, table, loud, precision)

    written = {"name": "many", "size": 3, "table": {"a": 1.5}}
    section = registry.section("fitness_map", written)
    assert section.model_dump() == {
        "name": "many",
        "size": 3,
        "scale": 2.0,
        "shape": "round",
        "sizes": None,
        "table": {"a": 1.5},
        "loud": False,
    }
    built = registry.build("fitness_map", section, "here", key=None)
    assert built(0.0) == (3, 2.0, "round", None, {"a": 1.5}, False, None)
    assert registry.entry("fitness_map", section).traced == ("scale",)


def _register_picky() -> None:
    @registry.register("fitness_map", "picky")
    def picky(
        *,
        key,
        size: Count,
        scale: Positive = 2.0,
        shape: Literal["round", "square"] = "round",
        sizes: list[Count] | None = None,
        goal: Positive | Literal["best"] | None = None,
    ):
        if size == 7:
            raise InputError("size", "no seven", 7)
        return de.fitness.identity


@pytest.mark.parametrize(
    ("changes", "path", "expected", "seen"),
    [
        ("{size: 0}", "size", "1 or more", "int 0"),
        ("{size: 1.5}", "size", "a whole number", "float 1.5"),
        ("{}", "size", "a value, for it has no default", "nothing"),
        ("{size: 1, scale: 0}", "scale", "a number above 0", "int 0"),
        ("{size: 1, scale: .inf}", "scale", "a finite number", "float inf"),
        ("{size: 1, shape: rond}", "shape", "one of round, square", "'rond'"),
        ("{size: 1, sizes: 3}", "sizes", "a list", "int 3"),
        ("{size: 1, sizes: [0]}", "sizes.0", "1 or more", "int 0"),
        ("{size: 1, goal: bst}", "goal", "a number or one of best", "'bst'"),
        ("{size: 1, sclae: 2}", "sclae", "one of the keys name, size, scale, shape, sizes, goal",
         "'sclae'"),
        ("{size: 1, key: 2}", "key", "one of the keys name, size, scale, shape, sizes, goal",
         "'key'"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_what_was_expected_and_seen(
    tiny, changes, path, expected, seen
):
    _register_picky()
    override = f"algorithm.fitness_map={changes.replace('{', '{name: picky, ', 1)}"
    with pytest.raises(cfg.ConfigError) as error:
        load(tiny, [override])
    problems = {each.path: each for each in error.value.problems}
    problem = problems.pop(f"algorithm.fitness_map.{path}")
    assert (problem.expected, problem.seen) == (expected, seen)
    assert not problems


def test_what_a_factory_refuses_is_named_by_its_place(tiny):
    _register_picky()
    output = _cli("run", tiny, "--set", "algorithm.fitness_map={name: picky, size: 7}", code=2)
    assert "algorithm.fitness_map.size: expected no seven; seen 7" in output


def test_a_method_may_have_the_name_of_a_section(tiny):
    tiny.write_text(TINY.replace("plain: {label: plain}", "problem: {label: 3}"))
    with pytest.raises(cfg.ConfigError) as error:
        load(tiny)
    assert [each.path for each in error.value.problems] == ["methods.problem.label"]


@pytest.mark.parametrize(
    ("arguments", "path", "expected"),
    [
        (("schedul", "mine"), "kind", "one of problem, policy, algorithm"),
        (("fitness_map", "identity"), "fitness_map 'identity'", "a new name"),
        (("fitness_map", ""), "fitness_map", "a name of letters"),
        (("fitness_map", "a b"), "fitness_map", "a name of letters"),
        (("fitness_map", 3), "fitness_map", "a name of letters"),
    ],
)
def test_a_bad_registration_is_refused(arguments, path, expected):
    with pytest.raises(InputError) as error:
        registry.register(*arguments, lambda: None)  # pyright: ignore
    assert error.value.path == path
    assert error.value.expected.startswith(expected)


def test_a_factory_that_a_config_cannot_call_is_refused():
    def unannotated(size):
        return size

    def many(*sizes: int):
        return sizes

    def with_default(size=2.0):
        return size

    def out_of_range(scale: Positive = -1.0):
        return scale

    def reserved(model_size: int):
        return model_size

    def named(name: int):
        return name

    for factory, expected, seen in (
        (unannotated, "an annotation", "none"),
        (with_default, "an annotation", "none"),
        (many, "named parameters", "*sizes: int"),
        (out_of_range, "a default of its type and range", "-1.0"),
        (reserved, "parameters that can be settings", "'model_size'"),
        (named, "parameters that can be settings", "'name'"),
        (3, "a factory, a function", "3"),
    ):
        with pytest.raises(InputError) as error:
            registry.register("fitness_map", "mine", factory)  # pyright: ignore[reportArgumentType]
        assert error.value.path.startswith("fitness_map 'mine'")
        assert error.value.expected.startswith(expected)
        assert error.value.seen == seen
        assert "mine" not in registry.names("fitness_map")
    with pytest.raises(InputError, match=r"parameter 'key': .* what a run gives, mesh"):
        registry.register("problem", "mine", lambda *, key: None)  # a problem is one for all


def test_every_part_of_an_algorithm_is_a_section(tiny):
    override = (
        "algorithm={name: denoising_evolution, schedule: {num_levels: 4}, "
        "fitness_map: {name: boltzmann}, "
        "denoiser: {kernel: {projection: {name: active_subspace, latent_dim: 1}}}, "
        "sampler: {name: ddim, eta: 0.5}}"
    )
    tiny.write_text(TINY.split("methods:")[0])
    config = load(tiny, [override]).config
    (method,) = config.methods.values()
    shape, numbers = program.take_apart(method)
    assert numbers == {
        "algorithm.fitness_map.temperature": 1.0,
        "algorithm.sampler.eta": 0.5,
        "algorithm.sampler.fresh_below": 1.0,
        "problem.scale": 1.0,
        "problem.success": 0.5,
    }
    assert "denoiser" in shape


PEER = "algorithm={name: evosax, strategy: Open_ES, num_generations: 4, sigma: 0.5, "


def _one_method(tiny, *overrides):
    tiny.write_text(TINY.split("methods:")[0])
    (method,) = load(tiny, list(overrides)).config.methods.values()
    return method


def test_an_optimizer_is_a_section_whose_learning_rate_is_a_number_to_the_program(tiny):
    method = _one_method(
        tiny,
        PEER + "optimizer: {name: adam, learning_rate: 0.1, b1: 0.8}, shaping: centered_rank}",
    )
    _, numbers = program.take_apart(method)
    assert numbers["algorithm.sigma"] == 0.5
    assert numbers["algorithm.optimizer.learning_rate"] == 0.1
    sizes: dict[str, Any] = {"population_size": 16, "num_genes": 2}
    ours = de.evosax.strategy(
        "Open_ES",
        **sizes,
        num_generations=4,
        sigma=0.5,
        optimizer=optax.adam(0.1, b1=0.8),
        shaping="centered_rank",
    )
    key = jax.random.key(0)
    population = jax.random.normal(key, (16, 2))
    built = registry.build("algorithm", method.algorithm, "algorithm", key=key, **sizes)
    stepped = [
        algorithm.step(key, algorithm.init(key, population), population[:, 0])[0]
        for algorithm in (ours, built)
    ]
    np.testing.assert_array_equal(stepped[0].population, stepped[1].population)
    assert stepped[0].strategy.mean[0] == pytest.approx(0.1, rel=1e-4)  # Adam's first step, uphill


@pytest.mark.parametrize(
    ("settings", "path", "expected", "seen", "advice"),
    [
        ("optimizer: {name: adm, learning_rate: 0.1}", "algorithm.optimizer.name",
         "one of ", "adm", "did you mean 'adam'?"),
        ("optimizer: {learning_rate: 0.1}", "algorithm.optimizer.name", "one of ", "nothing", ""),
        ("optimizer: {name: adam}", "algorithm.optimizer.learning_rate",
         "a value, for it has no default", "nothing", ""),
        ("optimizer: {name: adam, learning_rate: -1}", "algorithm.optimizer.learning_rate",
         "a number above 0", "int -1", ""),
        ("optimizer: {name: sgd, learning_rate: 0.1, beta: 1}", "algorithm.optimizer.beta",
         "one of the keys name, learning_rate, momentum, nesterov", "'beta'", ""),
        ("optimizer: adam", "algorithm.optimizer", "keys and values", "adam", ""),
        ("shaping: centred_rank", "algorithm.shaping", "one of identity, ", "centred_rank",
         "did you mean 'centered_rank'?"),
        ("tuned: true", "algorithm.tuned", "one of function, control", "bool True", ""),
    ],
)  # fmt: skip
def test_a_peers_wrong_setting_is_one_message(tiny, settings, path, expected, seen, advice):
    with pytest.raises(cfg.ConfigError) as error:
        _one_method(tiny, PEER + settings + "}")
    (problem,) = error.value.problems
    assert problem.path == path
    assert problem.expected.startswith(expected)
    assert (problem.seen.strip("'"), problem.advice) == (seen.strip("'"), advice)


def test_what_a_strategy_refuses_is_named_by_its_place(tiny):
    tiny.write_text(TINY.split("methods:")[0])
    for change, message in (
        ("strategy: SNES, shaping: centered_rank", "algorithm.shaping: expected weights"),
        ("strategy: CMA_ES, optimizer: {name: sgd, learning_rate: 1}",
         "algorithm.optimizer: expected none"),
    ):  # fmt: skip
        override = f"algorithm={{name: evosax, num_generations: 4, {change}}}"
        assert message in _cli("run", tiny, "--set", override, code=2)


# Plugins


def test_a_plugin_is_run_kept_and_compared_on_resume(tiny, plugin, tmp_path):
    out = tmp_path / "out"
    assert "names of your own: --plugin FILE" in _cli("run", tiny, *STEEP, code=2)
    command = ("run", tiny, "--out", out, "--plugin", plugin, *STEEP)
    assert "success" in _cli(*command)
    assert (out / "plugins" / "mine.py").read_text() == PLUGIN
    assert "complete already" in _cli("run", out, "--resume", "--plugin", plugin)
    kept = out / "plugins" / "mine.py"
    assert "complete already" in _cli("run", out, "--resume", "--plugin", kept)
    assert "figure.png" in _cli("plot", out)  # drawn without it


@pytest.mark.usefixtures("undrawn")
def test_another_plugin_is_refused_on_resume_and_nothing_changes(tiny, plugin, tmp_path):
    out = tmp_path / "out"
    without = dict(registry.entries)
    _cli("run", tiny, "--out", out, "--plugin", plugin, *STEEP)
    before = _results(out)
    _restore(without)
    plugin.write_text(PLUGIN + "\n")
    output = _cli("run", out, "--resume", "--plugin", plugin, code=2)
    assert "made with plugin mine.py, and this call has another text" in output
    assert f"--plugin {out / 'plugins' / 'mine.py'}" in output
    _restore(without)
    assert "--plugin FILE" in _cli("run", out, "--resume", code=2)
    assert before == _results(out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_such\n", "mine.py, line 1: ModuleNotFoundError: No module named"),
        ("x = 1\n\ny = 1 / 0\n", "mine.py, line 3: ZeroDivisionError: division by zero"),
        ("def f(:\n", "mine.py, line 1: SyntaxError"),
        ("x = 1\n", "mine.py: registers nothing"),
        (PLUGIN.replace('"steep"', '"power"'), "line 6: fitness_map 'power': expected a new name"),
        (PLUGIN.replace('"problem"', '"problm"'), "kind: expected one of problem, policy"),
        (PLUGIN.replace(": Positive = 2.0", ""), "parameter 'power': expected an annotation"),
    ],
)
def test_a_plugin_that_fails_is_named_with_its_line(tiny, plugin, tmp_path, text, message):
    plugin.write_text(text)
    before = dict(registry.entries)
    output = _cli("run", tiny, "--out", tmp_path / "out", "--plugin", plugin, code=2)
    assert f"error: --plugin {plugin}" in output
    assert message in output
    assert registry.entries == before
    assert not (tmp_path / "out").exists()


def test_a_plugin_that_is_missing_names_its_neighbour(tiny, plugin):
    output = _cli("run", tiny, "--plugin", plugin.with_name("mines.py"), code=2)
    assert f"no such file; did you mean '{plugin}'?" in output


@pytest.mark.usefixtures("undrawn")
def test_a_problem_of_ones_own_runs(tiny, plugin, tmp_path):
    _cli(
        *("run", tiny, "--out", tmp_path / "out", "--plugin", plugin),
        *("--set", "problem={name: bowl, centre: 0.5}"),
    )
    saved = np.load(tmp_path / "out" / "latent.npz")
    assert saved["final_population"].shape == (3, 16, 3)
    expected = np.exp(-np.sum((saved["final_population"] - 0.5) ** 2, axis=2))
    np.testing.assert_allclose(saved["fitness"][:, -1], expected, rtol=1e-4)


def test_a_memory_that_changes_its_shape_is_one_message(tiny, plugin, tmp_path):
    output = _cli(
        *("run", tiny, "--out", tmp_path / "out", "--plugin", plugin),
        *("--set", "methods.latent.algorithm={name: denoising_evolution, schedule: "),
        code=2,
    )
    assert "--set" in output  # half a value
    output = _cli(
        *("run", tiny, "--out", tmp_path / "out", "--plugin", plugin),
        "--set",
        "methods.latent.algorithm={name: denoising_evolution, schedule: {num_levels: 3}, "
        "fitness_map: {name: identity}, denoiser: {name: growing}, sampler: {name: ddim}}",
        code=2,
    )
    assert "methods.latent: algorithm.denoiser: expected a memory that keeps its" in output
    assert "float32[1]" in output
    assert "float32[2]" in output


def test_a_policys_state_that_changes_its_shape_is_one_message(tiny, plugin, tmp_path):
    output = _cli(
        *("run", tiny, "--out", tmp_path / "out", "--plugin", plugin, "--set"),
        "problem={name: control, environment: CartPole-v1, policy: {name: swelling}}",
        code=2,
    )
    assert "problem.policy" in output
    assert "state" in output
    assert not (tmp_path / "out").exists()


WRONG = '''\
import numpy as np, jax.numpy as jnp, diffevo_jax as de
from diffevo_jax.runs.config.registry import register

def raising(fitness, valid):
    raise TypeError("inner boom")

def problem(fitness_fn, size=2, **settings):
    return lambda: de.Problem(size, fitness_fn, **settings)

def ones(x):
    return jnp.ones(len(x))

class Denoises:
    """A denoiser whose estimate is `result`."""
    def __new__(cls, result):
        return lambda: de.Denoiser(de.no_memory, lambda key, memory, x_t, weights, level: result)

register("fitness_map", "raises", lambda: raising)
register("fitness_map", "none", lambda: None)
register("algorithm", "none", lambda: None)
register("problem", "none", lambda: None)
register("problem", "numpy", problem(lambda x: np.sum(np.asarray(x))))
register("problem", "no_genes", problem(ones, 0))
register("problem", "shapeless", problem(lambda x: (ones(x), {"success": "yes"}), has_aux=True))
register("problem", "no_aux", problem(ones, has_aux=True))
register("denoiser", "no_pair", Denoises(3))
register("denoiser", "no_posterior", Denoises(((), 3)))
register("denoiser", "another_shape", Denoises(((), de.Posterior(jnp.ones(3), 0.0, 0.0))))
register("sampler", "no_move", lambda: de.Sampler(de.no_memory, lambda *_: ((), jnp.ones(3))))
register("algorithm", "grows", lambda: de.baselines.map_elites(
    population_size=16, num_genes=2, num_generations=3)._replace(step=lambda *_: ((), ())))
'''
DENOISING = (
    "algorithm={name: denoising_evolution, schedule: {num_levels: 3}, fitness_map: {name: "
    "identity}, denoiser: {name: DENOISER}, sampler: {name: SAMPLER}}"
)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algorithm.fitness_map={name: raises}", "TypeError: inner boom (mine.py, line 5)"),
        ("algorithm.fitness_map={name: none}", "fitness_map: expected its factory to return a f"),
        ("algorithm={name: none}", "algorithm: expected its factory to return a diffevo_jax Algo"),
        ("problem={name: none}", "problem: expected its factory to return a diffevo_jax Problem"),
        ("problem={name: numpy}", "fitness_fn: expected a function in JAX"),
        ("problem={name: no_genes}", "problem: expected num_genes of 1 or more; seen 0"),
        ("problem={name: shapeless}", "problem: expected success (16,); seen str"),
        ("problem={name: no_aux}", "fitness_fn: expected (fitness, aux), as has_aux=True says"),
        (DENOISING.replace("DENOISER", "no_pair").replace("SAMPLER", "ddim"), "denoiser: expected"),
        (DENOISING.replace("DENOISER", "no_posterior").replace("SAMPLER", "ddim"), "Posterior"),
        (DENOISING.replace("DENOISER", "another_shape").replace("SAMPLER", "ddim"), "x0 of shape"),
        (
            DENOISING.replace("DENOISER", "posterior_mean").replace("SAMPLER", "no_move"),
            "(memory, Move)",
        ),
        ("algorithm={name: grows}", "Error"),
    ],
)
def test_what_a_plugin_makes_is_tried_before_anything_is_written(
    tiny, plugin, tmp_path, override, message
):
    plugin.write_text(WRONG)
    tiny.write_text(TINY.replace("  latent: {label: latent, algorithm: {latent_dim: 1}}\n", ""))
    command = ("run", tiny, "--out", tmp_path / "out", "--plugin", plugin, "--set", override)
    output = _cli(*command, code=2)
    assert message in output
    assert "methods.plain: " in output
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_sweep_runs_keeps_and_compares_its_plugin(tiny, plugin, tmp_path):
    out, without = tmp_path / "out", dict(registry.entries)
    overrides = ["sweep.grid={algorithm.fitness_map.power: [1.0, 2.0]}", STEEP[1]]

    def call(**settings):
        _restore(without)
        return jobs.sweep(
            tiny, overrides, executor="local", out=out, say=lambda line: None, **settings
        )

    assert call(plugin=[plugin]) == []
    assert len(load_sweep(out)) == 2
    _restore(without)  # as in a process that has not loaded the plugin
    assert len(load_sweep(out)) == 2
    assert (out / "plugins" / "mine.py").read_text() == PLUGIN
    with pytest.raises(cfg.ConfigError, match="names of your own: --plugin FILE"):
        call()
    plugin.write_text(PLUGIN + "\n")
    with pytest.raises(
        cfg.ConfigError, match=r"made with plugin mine\.py, and this call has another"
    ):
        call(plugin=[plugin])


@pytest.mark.usefixtures("undrawn")
def test_the_readmes_example_runs_as_a_run_and_as_a_sweep(tmp_path):
    folder = REPOSITORY / "experiments"
    small = [
        *("population_size=8", "repeats=1", "problem.max_steps=3"),
        *("algorithm.schedule.num_levels=2", "problem.policy.channels=1"),
    ]
    command = [folder / "my_problem.yaml", "--plugin", folder / "my_problem.py"]
    sets = [part for setting in small for part in ("--set", setting)]
    _cli("run", *command, *sets, "--out", tmp_path / "run")
    assert np.load(tmp_path / "run" / "diffusion_evolution.npz")["fitness"].shape == (1, 2, 8)
    grid = "sweep.grid={problem.policy.channels: [1]}"  # one more would compile for seconds
    _cli("sweep", *command, *sets, "--set", grid, "--out", tmp_path / "s", "--executor", "debug")
    assert (tmp_path / "s" / "results.csv").read_text().count("\n") == 2
