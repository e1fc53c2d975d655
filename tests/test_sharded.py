"""Populations split over virtual devices: what one device computes, at a share of its memory."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import loop_x0
from jax.sharding import AxisType, Mesh

import diffevo_jax as de
from diffevo_jax.estimator import compensated, sharded

KEY = jax.random.key(3)
LEVELS = jnp.array([0.999, 0.5, 1e-2, 1e-4])  # 1 - alpha: early to late
KINDS = ("cloud", "clusters", "clusters in order", "half the weights zero", "floor")


def _mesh(devices: int) -> Mesh:
    return Mesh(jax.devices()[:devices], ("individuals",))


@pytest.fixture(params=["gather", "ring"])
def way(request, monkeypatch):
    if request.param == "ring":
        monkeypatch.setattr(sharded, "GATHERED_BYTES", 0)
    return request.param


@pytest.fixture
def ring(monkeypatch):
    monkeypatch.setattr(sharded, "GATHERED_BYTES", 0)


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


def _solve(mesh: Mesh | None, floor=0.0):
    """(case, levels) -> posteriors, compiled once for all cases of a shape."""

    def posterior(case, one_minus_alpha):
        return de.estimate_posterior(
            **case,
            alpha_t=1 - one_minus_alpha,
            one_minus_alpha=one_minus_alpha,
            floor=floor,
            mesh=mesh,
        )

    return jax.jit(lambda case, levels: jax.lax.map(partial(posterior, case), levels))


def _check(n, genes, dim, devices, *, dtype, rms, most):
    """Any number of devices against one; differences in units of the population's spread."""
    with jax.enable_x64(dtype == jnp.float64):
        levels = LEVELS.astype(dtype)
        for floor in (0.0, 1e-9):
            one, many = _solve(None, floor), _solve(_mesh(devices), floor)
            for kind in KINDS[:-1] if floor == 0 else KINDS[-1:]:
                case = jax.tree.map(lambda a: a.astype(dtype), _case(kind, n, genes, dim))
                expected, seen = one(case, levels), many(case, levels)
                assert seen.x0.dtype == dtype
                spread = float(jnp.std(case["x_t"]))
                difference = (np.asarray(seen.x0) - np.asarray(expected.x0)) / spread
                assert np.sqrt(np.mean(difference**2, axis=(1, 2))).max() < rms, kind
                assert np.abs(difference).max() < most, kind
                np.testing.assert_allclose(
                    seen.effective_sample_size, expected.effective_sample_size, rtol=20 * most
                )
                np.testing.assert_allclose(
                    seen.log_evidence, expected.log_evidence, rtol=most, atol=20 * most
                )


# Each number of devices, dividing N and not, with each d and D; the product of all is slow.
SHAPES = [(48, 2, 2, 1), (48, 58, 58, 2), (49, 2, 2, 3), (49, 1200, 2, 5), (49, 58, 2, 8)]


@pytest.mark.parametrize(("n", "genes", "dim", "devices"), SHAPES)
def test_in_float64_any_number_of_devices_computes_what_one_does(way, n, genes, dim, devices):
    # A thousand roundings of float64, amplified by levels of 1 - alpha = 1e-4.
    _check(n, genes, dim, devices, dtype=jnp.float64, rms=1e-12, most=1e-11)


@pytest.mark.parametrize(("n", "genes", "dim", "devices"), [(160, 2, 2, 8), (241, 58, 58, 3)])
def test_in_float32_devices_agree_to_1e_6_of_the_spread(way, n, genes, dim, devices):
    # Root of the mean square. The largest of all numbers, by rounding of float32's exponents, which
    # compilers fuse in other ways for other shapes: 5e-6.
    _check(n, genes, dim, devices, dtype=jnp.float32, rms=1e-6, most=5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("n", [240, 241])
@pytest.mark.parametrize(
    ("genes", "dim"), [(2, 2), (58, 2), (58, 58), (1200, 2), (1200, 58), (1200, 1200)]
)
def test_every_number_of_devices_agrees_with_one(way, n, genes, dim, devices):
    _check(n, genes, dim, devices, dtype=jnp.float32, rms=1e-6, most=1e-5)


@pytest.mark.parametrize("devices", [1, 3])
def test_estimates_from_far_individuals_are_taken_again_across_devices(ring, devices, monkeypatch):
    """Log weights of 1e5 nats, which float32 rounds by hundredths."""
    n, dim = 64, 256
    x = jax.random.normal(KEY, (n, dim))
    log_weight = jnp.where(jnp.arange(n) % 2 == 0, -jnp.inf, jax.random.normal(KEY, (n,)))
    spread = float(jnp.float32(1e-3))
    expected = loop_x0(x, log_weight, 1 - spread, spread=spread)

    def error():
        x0 = de.estimate_x0(x, log_weight, 1 - spread, one_minus_alpha=spread, mesh=_mesh(devices))
        return np.abs(np.asarray(x0) - expected).max()

    assert error() < 1e-5  # what float32 estimates promise
    monkeypatch.setattr(compensated, "TOLERANCE", np.inf)
    jax.clear_caches()
    assert error() > 1e-4


def test_weights_of_nothing_and_genes_that_are_no_numbers_take_no_part(way):
    case = _case("cloud", 49, 3, 3)
    mesh = _mesh(3)
    nobody = jax.jit(lambda x, w: de.estimate_posterior(x, w, 0.5, mesh=mesh))
    posterior = nobody(case["x_t"], jnp.full(49, -jnp.inf))
    np.testing.assert_array_equal(posterior.x0, case["x_t"])
    assert bool(jnp.all(jnp.isneginf(posterior.log_evidence)))
    np.testing.assert_array_equal(posterior.effective_sample_size, 0)

    x = case["x_t"].at[7, 1].set(jnp.nan)
    posterior = nobody(x, case["log_weight"])
    good = np.arange(49) != 7
    expected = loop_x0(x[good], case["log_weight"][good], 0.5)
    np.testing.assert_allclose(posterior.x0[good], expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(posterior.x0[7], x[7])
    assert posterior.log_evidence[7] == -jnp.inf


@pytest.mark.parametrize("floor", [0.0, 1e-4])
def test_a_support_of_its_own_is_split_as_well(way, floor):
    """Neither the queries nor the archive in shares of one size."""
    case = _case("cloud", 50, 4, 2)
    x, z = case["x_t"], case["z_t"]
    arguments = dict(
        z_t=z[:19], support=x[19:], z_support=z[19:], log_weight=case["log_weight"][19:]
    )
    estimate = partial(de.estimate_posterior, x[:19], alpha_t=0.7, floor=floor, **arguments)
    for seen, expected in zip(estimate(mesh=_mesh(3)), estimate(), strict=True):
        np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("dim", [2, 1100])
def test_gradients_are_those_of_one_device(way, dim):
    with jax.enable_x64(True):
        case = _case("half the weights zero", 10, dim, 2 if dim > 2 else dim)
        x, log_weight = case["x_t"].astype(float), case["log_weight"].astype(float)

        def loss(x, log_weight, alpha, mesh):
            z = None if dim == 2 else x[:, :2]
            posterior = de.estimate_posterior(x, log_weight, alpha, z_t=z, floor=1e-3, mesh=mesh)
            return jnp.sum(posterior.x0**2) + jnp.sum(posterior.log_evidence)

        gradient = jax.jit(jax.grad(loss, (0, 1, 2)), static_argnums=3)
        one, many = (gradient(x, log_weight, 0.6, mesh) for mesh in (None, _mesh(3)))
        for seen, expected in zip(many, one, strict=True):
            assert bool(jnp.all(jnp.isfinite(seen)))
            np.testing.assert_allclose(seen, expected, rtol=1e-9, atol=1e-9)


# Whole runs


def _run(mesh: Mesh | None, n: int, eta: float = 1.0):
    evolution = de.diffusion_evolution(
        de.schedules.cosine(6),
        eta=eta,
        fitness_map=de.fitness.boltzmann(0.1),
        mesh=mesh,
    )
    population = jax.random.normal(KEY, (n, 2))
    run = jax.jit(lambda x: de.evolve(KEY, evolution, de.problems.two_peaks, x))
    return run(population)


@pytest.mark.parametrize(("n", "devices"), [(48, 8), (50, 3)])
def test_a_run_on_many_devices_is_the_run_on_one(way, n, devices):
    """The same random numbers included; each step adds float32's rounding."""
    expected, expected_info = _run(None, n)
    seen, info = _run(_mesh(devices), n)
    np.testing.assert_allclose(seen.population, expected.population, rtol=0, atol=5e-6)
    np.testing.assert_allclose(info.fitness, expected_info.fitness, rtol=0, atol=1e-5)
    assert int(seen.t) == 0


@pytest.mark.parametrize("transform", [lambda info: info.x0, lambda info: info.fitness])
def test_population_estimates_and_random_numbers_stay_split(ring, transform):
    """No device holds an array of all individuals at any time of a step."""
    mesh, n, dim = _mesh(8), 4096, 48
    rows = de.sharding.rows(mesh)
    evolution = de.diffusion_evolution(
        de.schedules.cosine(5), fitness_map=de.fitness.boltzmann(1.0), mesh=mesh
    )
    generation = de.make_generation(
        evolution, lambda x: -jnp.sum(x**2, axis=1), transform=transform
    )
    population = jax.ShapeDtypeStruct((n, dim), jnp.float32, sharding=rows)
    key = jax.eval_shape(lambda: jax.random.key(0))
    step = jax.jit(lambda x, key: generation(evolution.init(x), key))
    compiled = step.lower(population, key).compile()
    (state, kept) = compiled.output_shardings
    assert state.population.is_equivalent_to(rows, 2)
    assert not kept.is_fully_replicated
    # Arrays of [N, D], a random bit each or a gene, would be f32[4096,48] or u32[196608].
    whole = [f"[{n},{dim}]", f"[{dim},{n}]", f"[{n * dim}]", f"[{n * dim // 2}]"]
    program = compiled.as_text()
    assert f"[{n // 8},{dim}]" in program
    assert not [shape for shape in whole if shape in program]


def test_memory_of_a_device_falls_with_the_number_of_devices(ring):
    def bytes_of(devices: int) -> int:
        mesh = _mesh(devices)
        rows = de.sharding.rows(mesh)
        evolution = de.diffusion_evolution(de.schedules.cosine(5), mesh=mesh)
        step = jax.jit(lambda key, x, f: evolution.step(key, evolution.init(x), f)[0])
        key = jax.eval_shape(lambda: jax.random.key(0))
        arrays = [
            jax.ShapeDtypeStruct(shape, jnp.float32, sharding=rows)
            for shape in ((65536, 32), (65536,))
        ]
        memory = step.lower(key, *arrays).compile().memory_analysis()
        return (
            memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        )

    # Beside its share a device holds a tile of 512 x 512 weights.
    two, eight = bytes_of(2), bytes_of(8)
    assert eight < two / 4 + 3 * 2**20


def test_roll_outs_on_many_devices_draw_what_one_device_draws():
    task = de.problems.control.make_task("CartPole-v1", max_steps=50)
    policy = de.policies.mlp((4, 4, 2))
    returns = de.problems.control.make_returns(task, policy, num_episodes=2)
    population = jax.random.normal(KEY, (13, policy.num_genes))
    expected = jax.jit(returns)(KEY, population)
    assert len(np.unique(expected)) > 5
    for devices in (1, 4):
        split = jax.jit(de.sharding.over_individuals(returns, _mesh(devices)))
        np.testing.assert_array_equal(split(KEY, population), expected)
    np.testing.assert_array_equal(split(KEY, population[:12]), returns(KEY, population[:12]))
    with pytest.raises(ValueError, match="key: expected one key or one an individual, 13; seen 12"):
        returns(jax.random.split(KEY, 12), population)


def test_individuals_are_split_over_all_axes_of_a_mesh(way):
    mesh = Mesh(np.array(jax.devices()[:6]).reshape(2, 3), ("hosts", "devices"))
    case = _case("cloud", 18, 2, 2)
    seen = jax.jit(lambda x, w: de.estimate_x0(x, w, 0.5, mesh=mesh))(
        case["x_t"], case["log_weight"]
    )
    assert {shard.data.shape for shard in seen.addressable_shards} == {(3, 2)}
    expected = de.estimate_x0(case["x_t"], case["log_weight"], 0.5)
    np.testing.assert_allclose(seen, expected, rtol=0, atol=5e-6)


def test_outside_jit_a_population_moves_to_the_mesh():
    mesh = _mesh(4)
    evolution = de.diffusion_evolution(de.schedules.cosine(5), mesh=mesh)
    state = evolution.init(jax.device_put(jnp.ones((8, 2)), jax.devices()[6]))
    assert state.population.sharding.is_equivalent_to(de.sharding.rows(mesh), 2)
    state, _ = evolution.step(KEY, state, jnp.ones(8))
    assert state.population.sharding.is_equivalent_to(de.sharding.rows(mesh), 2)


def test_what_is_no_mesh_is_named():
    with pytest.raises(ValueError, match=r"mesh: expected a jax.sharding.Mesh.*; seen 8"):
        de.diffusion_evolution(de.schedules.cosine(5), mesh=8)  # pyright: ignore
    explicit = jax.make_mesh((2,), ("i",), axis_types=(AxisType.Explicit,))
    with pytest.raises(ValueError, match="mesh: expected axes of type Auto; seen"):
        de.estimate_x0(jnp.ones((4, 2)), jnp.zeros(4), 0.5, mesh=explicit)
