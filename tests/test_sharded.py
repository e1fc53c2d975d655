"""Populations split over virtual devices: what one device computes, at a share of its memory."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import loop_x0
from jax.sharding import AxisType, Mesh

import diffevo_jax as de
from diffevo_jax.kernels import lattice, sharded

KEY = jax.random.key(3)
LEVELS = jnp.array([0.999, 0.5, 1e-2, 1e-4])  # 1 - alpha: early to late
# A third less time to compile; passes of LLVM, not those that split and plan memory.
QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0}
KINDS = ("cloud", "clusters", "clusters in order", "half the weights zero", "floor")


def _mesh(devices: int) -> Mesh:
    """Of eight devices, a mesh with two axes: individuals are split over both."""
    if devices == 8:
        return Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("hosts", "devices"))
    return Mesh(jax.devices()[:devices], ("individuals",))


@pytest.fixture
def choose(monkeypatch):
    """Choose the way that supports come to a device."""
    return lambda way: monkeypatch.setattr(
        sharded, "GATHERED_BYTES", {"gather": 2**26, "ring": 0}[way]
    )


@pytest.fixture
def ring(choose):
    choose("ring")


def _case(kind: str, n: int, genes: int, dim: int) -> dict[str, Any]:
    key_x, key_w = jax.random.split(KEY)
    x, log_weight = jax.random.normal(key_x, (n, genes)), 3 * jax.random.normal(key_w, (n,))
    first = jnp.arange(n) % 2 == 0 if kind == "clusters" else jnp.arange(n) < n // 2
    if "clusters" in kind:  # in order: whole devices hold a single one
        x = 0.1 * x + jnp.where(first, 1.0, -1.0)[:, None]
    if "zero" in kind:
        log_weight = jnp.where(first, -jnp.inf, log_weight)
    z = None
    if dim < genes:
        z = de.latent.project(x, de.latent.random_projection(KEY, genes, dim))
    return {"x_t": x, "log_weight": log_weight, "z_t": z}


def _solve(mesh: Mesh | None, implementation: str, options: dict[str, Any] | None):
    """(case, floor, levels) -> posteriors, compiled once for all cases of a shape."""

    def posterior(case, floor, one_minus_alpha):
        return de.estimate_posterior(
            **case,
            alpha_t=1 - one_minus_alpha,
            one_minus_alpha=one_minus_alpha,
            floor=floor,
            implementation=implementation,
            mesh=mesh,
        )

    return jax.jit(
        lambda case, floor, levels: jax.lax.map(partial(posterior, case, floor), levels),
        compiler_options=options,
    )


def _check(n, genes, dim, devices, *, dtype, rms, most):
    """Any number of devices against one; differences in units of the population's spread."""
    with jax.enable_x64(dtype == jnp.float64):
        # In float64 the formula itself stands for what one device computes.
        double = dtype == jnp.float64
        options = QUICK if double else None
        one = _solve(None, "dense" if double else "auto", options)
        many, levels = _solve(_mesh(devices), "auto", options), LEVELS.astype(dtype)
        for kind in KINDS:
            floor = jnp.asarray(1e-9 if kind == "floor" else 0, dtype)
            case = jax.tree.map(lambda a: a.astype(dtype), _case(kind, n, genes, dim))
            expected, actual = one(case, floor, levels), many(case, floor, levels)
            assert actual.x0.dtype == dtype
            spread = float(jnp.std(case["x_t"]))
            difference = (np.asarray(actual.x0) - np.asarray(expected.x0)) / spread
            assert np.sqrt(np.mean(difference**2, axis=(1, 2))).max() < rms, kind
            assert np.abs(difference).max() < most, kind
            np.testing.assert_allclose(
                actual.effective_sample_size, expected.effective_sample_size, rtol=20 * most
            )
            np.testing.assert_allclose(
                actual.log_evidence, expected.log_evidence, rtol=most, atol=20 * most
            )


@pytest.mark.parametrize(
    ("way", "n", "genes", "dim", "devices"),
    [
        ("gather", 48, 2, 2, 1),
        ("gather", 49, 58, 2, 2),
        ("ring", 48, 58, 58, 3),
        ("ring", 49, 1200, 2, 5),
        ("ring", 49, 2, 2, 8),
    ],
)
def test_in_float64_any_number_of_devices_computes_the_formula(choose, way, n, genes, dim, devices):
    choose(way)
    # Hundreds of roundings of float64, amplified by levels of 1 - alpha = 1e-4.
    _check(n, genes, dim, devices, dtype=jnp.float64, rms=1e-11, most=1e-10)


@pytest.mark.promised
@pytest.mark.parametrize(("n", "genes", "dim", "most"), [(97, 2, 2, 1e-5), (49, 1200, 1200, 5e-5)])
def test_in_float32_devices_agree_to_1e_6_of_the_spread(ring, n, genes, dim, most):
    # Root of the mean square. The largest of all numbers, by rounding of float32's exponents, which
    # compilers fuse in other ways for other shapes: seen 5e-6; 2e-5 where half the weights are zero
    # and individuals 600 nats away decide, whose last digits are 7e-5 nats.
    _check(n, genes, dim, 3, dtype=jnp.float32, rms=1e-6, most=most)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["gather", "ring"])
@pytest.mark.parametrize("devices", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("n", [240, 241])
@pytest.mark.parametrize(
    ("genes", "dim"), [(2, 2), (58, 2), (58, 58), (1200, 2), (1200, 58), (1200, 1200)]
)
def test_every_number_of_devices_agrees_with_one(choose, way, n, genes, dim, devices):
    choose(way)
    # Largest single number: 1.0e-5, at 58 genes in 2 dimensions and 1 - alpha = 1e-4.
    _check(n, genes, dim, devices, dtype=jnp.float32, rms=1e-6, most=2e-5)


def test_weights_of_nothing_and_genes_that_are_no_numbers_take_no_part(ring):
    case = _case("cloud", 49, 3, 3)
    estimate = jax.jit(lambda x, w: de.estimate_posterior(x, w, 0.5, mesh=_mesh(3)))
    posterior = estimate(case["x_t"], jnp.full(49, -jnp.inf))
    np.testing.assert_array_equal(posterior.x0, case["x_t"])
    assert np.all(np.isneginf(posterior.log_evidence))
    np.testing.assert_array_equal(posterior.effective_sample_size, 0)

    x = case["x_t"].at[7, 1].set(jnp.nan)
    posterior = estimate(x, case["log_weight"])
    good = np.arange(49) != 7
    expected = loop_x0(x[good], case["log_weight"][good], 0.5)
    np.testing.assert_allclose(posterior.x0[good], expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(posterior.x0[7], x[7])
    assert posterior.log_evidence[7] == -np.inf


def test_a_support_of_its_own_is_split_as_well(ring):
    """Neither the queries nor the archive in shares of one size; outside jit."""
    case = _case("cloud", 50, 4, 2)
    x, z = case["x_t"], case["z_t"]
    arguments = dict(
        z_t=z[:19], support=x[19:], z_support=z[19:], log_weight=case["log_weight"][19:]
    )
    estimate = partial(de.estimate_posterior, x[:19], alpha_t=0.7, floor=1e-4, **arguments)
    actual, expected = estimate(mesh=_mesh(3)), estimate(implementation="dense")
    for one, other in zip(actual[:3], expected[:3], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)  # float32 against float32


@pytest.mark.parametrize(
    ("way", "genes"),
    [("ring", 2), *(pytest.param(way, 1100, marks=pytest.mark.slow) for way in ("gather", "ring"))],
)
def test_gradients_are_those_of_the_formula(choose, way, genes):
    choose(way)
    with jax.enable_x64(True):
        case = _case("half the weights zero", 10, genes, 2)
        x, log_weight = case["x_t"].astype(float), case["log_weight"].astype(float)

        def loss(x, log_weight, alpha, mesh):
            posterior = de.estimate_posterior(
                x,
                log_weight,
                alpha,
                z_t=None if genes == 2 else x[:, :2],
                floor=1e-3,
                implementation="auto" if mesh else "dense",
                mesh=mesh,
            )
            return jnp.sum(posterior.x0**2) + jnp.sum(posterior.log_evidence)

        gradient = jax.grad(loss, (0, 1, 2))
        gradient = jax.jit(gradient, static_argnums=3, compiler_options=QUICK)
        one, many = (gradient(x, log_weight, 0.6, mesh) for mesh in (None, _mesh(3)))
        for actual, expected in zip(many, one, strict=True):
            assert np.all(np.isfinite(actual))
            np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["gather", "ring"])
def test_a_lattice_on_every_device_is_the_tiles_on_one(choose, way):
    choose(way)
    case = _case("clusters", lattice.LEAST_QUERIES[1], 2, 2)
    one, many = (
        de.estimate_posterior(**case, alpha_t=0.8, mesh=mesh, implementation=implementation)
        for mesh, implementation in ((None, "tiled"), (_mesh(4), "lattice"))
    )
    np.testing.assert_allclose(many.x0, one.x0, rtol=0, atol=1e-5)
    np.testing.assert_allclose(many.log_evidence, one.log_evidence, rtol=0, atol=1e-5)
    np.testing.assert_allclose(many.effective_sample_size, one.effective_sample_size, rtol=1e-3)


# Whole runs


@cache
def _run(mesh: Mesh | None):
    evolution = de.presets.paper(
        de.schedules.cosine(6), fitness_map=de.fitness.boltzmann(0.1), mesh=mesh
    )
    population = jax.random.normal(KEY, (48, 2))
    run = jax.jit(lambda x: de.evolve(KEY, evolution, de.landscapes.two_peaks, x))
    return run(population)


@pytest.mark.parametrize(
    ("way", "devices"), [pytest.param("gather", 8, marks=pytest.mark.slow), ("ring", 5)]
)
def test_a_run_on_many_devices_is_the_run_on_one(choose, way, devices):
    """The same random numbers included; each step adds float32's rounding."""
    choose(way)
    (actual, fitness, _), (expected, expected_fitness, _) = _run(_mesh(devices)), _run(None)
    # Two programs, whose sums round otherwise: seen 8e-6 of a spread of 1 after six levels.
    np.testing.assert_allclose(actual.population, expected.population, rtol=0, atol=2e-5)
    np.testing.assert_allclose(fitness, expected_fitness, rtol=0, atol=2e-5)
    assert int(actual.t) == 0


def _compiled_step(devices: int, n: int, genes: int):
    mesh = _mesh(devices)
    rows = de.sharding.rows(mesh)
    evolution = de.presets.paper(
        de.schedules.cosine(5), fitness_map=de.fitness.boltzmann(1.0), mesh=mesh
    )
    generation = de.make_generation(
        evolution, lambda x: -jnp.sum(x**2, axis=1), keep=lambda info: info.x0
    )
    step = jax.jit(lambda x, key: generation(de.begin(KEY, evolution, x), key))
    population = jax.ShapeDtypeStruct((n, genes), jnp.float32, sharding=rows)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return step.lower(population, key).compile(compiler_options=QUICK), rows


def test_a_device_holds_its_share_of_everything(ring):
    """Of population, estimate and random numbers, at any time of a step."""
    n, genes = 16_384, 48
    compiled, rows = _compiled_step(8, n, genes)
    running, x0 = compiled.output_shardings
    assert running.state.population.is_equivalent_to(rows, 2)
    assert x0.is_equivalent_to(rows, 2)
    # Arrays of all genes, or of their random bits, whole or in halves.
    whole = [f"[{n},{genes}]", f"[{genes},{n}]", f"[{n * genes}]", f"[{n * genes // 2}]"]
    program = compiled.as_text() or ""
    assert f"[{n // 8},{genes}]" in program
    assert not [shape for shape in whole if shape in program]

    def size(compiled) -> int:
        memory = compiled.memory_analysis()
        return (
            memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        )

    # A quarter; the rest is for two tiles, of weights and of distances, whatever the share.
    assert size(compiled) < 0.32 * size(_compiled_step(2, n, genes)[0])


def test_roll_outs_on_many_devices_draw_what_one_device_draws(refuses):
    task = de.tasks.make_task("CartPole-v1", max_steps=50)
    policy = de.policies.mlp((4, 4, 2))
    returns = de.tasks.make_returns(task, policy, num_episodes=2)
    population = jax.random.normal(KEY, (13, policy.num_genes))
    expected = jax.jit(returns, compiler_options=QUICK)(KEY, population)
    assert len(np.unique(expected)) > 5
    split = de.sharding.over_individuals(returns, _mesh(4))
    split = jax.jit(split, compiler_options=QUICK)
    np.testing.assert_array_equal(split(KEY, population), expected)
    with refuses("key"):
        returns(jax.random.split(KEY, 12), population)


def test_outside_jit_a_population_moves_to_the_mesh():
    mesh = _mesh(4)
    evolution = de.presets.paper(de.schedules.cosine(5), mesh=mesh)
    state = evolution.init(KEY, jax.device_put(jnp.ones((8, 2)), jax.devices()[6]))
    assert state.population.sharding.is_equivalent_to(de.sharding.rows(mesh), 2)


def test_what_is_no_mesh_is_named(refuses):
    with refuses("mesh"):
        de.presets.paper(de.schedules.cosine(5), mesh=8)  # pyright: ignore
    explicit = jax.make_mesh((2,), ("i",), axis_types=(AxisType.Explicit,))
    with refuses("mesh"):
        de.estimate_x0(jnp.ones((4, 2)), jnp.zeros(4), 0.5, mesh=explicit)
