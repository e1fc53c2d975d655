"""The estimate against a float64 loop, its laws, and its errors."""

import math
import re
from dataclasses import replace
from functools import partial
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import loop, loop_x0, make_operands

import diffevo_jax as de
from diffevo_jax.kernels import lattice, log_density, nearby, tiled
from diffevo_jax.kernels.exp2 import exp2
from diffevo_jax.kernels.geometry import guided
from diffevo_jax.kernels.types import NO_WEIGHT

KEY = jax.random.key(3)
EVERY = pytest.mark.parametrize("implementation", ["dense", "tiled"])


def _case(n=65, dim=2, seed=3):
    """A population and log weights; of NumPy, which compiles nothing for each shape."""
    draw = np.random.default_rng(seed)
    return jnp.asarray(draw.normal(size=(n, dim))), jnp.asarray(3 * draw.normal(size=n))


@pytest.mark.promised
@EVERY
@pytest.mark.parametrize(
    ("dim", "floor"),
    [
        *((dim, 0.0) for dim in (1, 2, 3, 16, 58, 256)),
        *((2, 1e-9), (256, 1e-9)),  # few dimensions, and so many that they are chunked
        *(pytest.param(dim, 1e-9, marks=pytest.mark.slow) for dim in (1, 3, 16, 58)),
    ],
)
def test_float32_agrees_with_a_float64_loop(dim, floor, implementation):
    x, log_weight = _case(dim=dim)
    estimate = jax.jit(
        lambda one_minus_alpha, x: de.estimate_x0(
            x,
            log_weight,
            1 - one_minus_alpha,
            one_minus_alpha=one_minus_alpha,
            floor=floor,
            implementation=implementation,
        )
    )
    clusters = 0.1 * x + jnp.where(jnp.arange(len(x)) % 2 == 0, 1.0, -1.0)[:, None]
    for population in (x, clusters):
        for one_minus_alpha in (0.999, 0.5, 1e-2, 1e-4, 1e-6):
            x0 = estimate(one_minus_alpha, population)
            exact = float(jnp.float32(one_minus_alpha))
            expected = loop_x0(population, log_weight, 1 - exact, floor=floor, spread=exact)
            # 1e-5 of the population spread; a floor is weighed against the evidence, a sum of d
            # rounded terms; so are the formula's own log weights.
            rounded = implementation == "dense" or floor > 0
            bound = (3e-5 if rounded and dim > 16 else 1e-5) * float(jnp.std(population))
            np.testing.assert_allclose(x0, expected, rtol=0, atol=bound)


@pytest.mark.promised
@pytest.mark.parametrize("dim", [2, 1100])
@pytest.mark.parametrize("n", [2, 7, 513])
def test_tiles_of_any_size_agree_with_the_loop(n, dim):
    x, log_weight = _case(n=n, dim=dim)
    z = x[:, :2]
    problem = make_operands(z, x, log_weight, 0.2)
    expected = loop_x0(x, log_weight, 0.8, z=z)
    for blocks in (tiled.CPU, tiled.Blocks(3, 8, 3 * n, 16), tiled.Blocks(64, 512, 64 * n, 1)):
        sums = jax.jit(lambda p=problem, b=blocks: tiled.part(p, blocks=b))()
        x0 = problem.frame.centre + sums.total / sums.weight[:, None]
        np.testing.assert_allclose(x0, expected, rtol=0, atol=1e-5)


@pytest.mark.promised
def test_only_tiles_that_count_are_summed_term_by_term(monkeypatch):
    """Four narrow clusters of 128 in 20 dimensions: two of eight tiles for every block of 64."""
    tiles = []

    def counting(operands):
        geometry = guided(operands)

        def add_squares(*args):
            jax.debug.callback(lambda: tiles.append(1))
            return geometry.add_squares(*args)

        return geometry._replace(add_squares=add_squares)

    monkeypatch.setattr(tiled, "guided", counting)
    noise, log_weight = _case(n=512, dim=20)
    x = jnp.asarray(np.repeat(_case(n=4, dim=20)[0], 128, axis=0) + 0.01 * np.asarray(noise))
    problem = make_operands(x, x, log_weight, 1e-4)
    blocks = tiled.Blocks(64, 64, 2**22, 16, skip=True)
    sums = jax.jit(lambda: tiled.part(problem, blocks=blocks))()
    jax.effects_barrier()
    assert len(tiles) == 16
    x0 = problem.frame.centre + sums.total / sums.weight[:, None]
    expected = loop_x0(x, log_weight, 1 - 1e-4, spread=float(jnp.float32(1e-4)))
    np.testing.assert_allclose(x0, expected, rtol=0, atol=1e-5)  # of a spread of 1
    twice = jax.tree.map(lambda a: np.stack([a, a]), problem)
    both = jax.jit(jax.vmap(lambda operands: tiled.part(operands, blocks=blocks)))(twice)
    total, weight = np.asarray(both.total), np.asarray(both.weight)
    np.testing.assert_allclose(total[1] / weight[1][:, None], x0 - problem.frame.centre, atol=1e-6)


@pytest.mark.promised
@EVERY
def test_log_weights_may_span_sixty_decades(implementation):
    """Wide weights take the running shift, narrow ones the single shift: both are exact."""
    x, _ = _case(n=200)
    for key, width in zip(jax.random.split(KEY, 3), (0.0, 30.0, 69.0), strict=True):
        log_weight = jax.random.uniform(key, (200,), minval=-width, maxval=width)
        for alpha in (0.1, 0.9, 0.999):
            x0 = de.estimate_x0(x, log_weight, alpha, implementation=implementation)
            np.testing.assert_allclose(x0, loop_x0(x, log_weight, alpha), rtol=0, atol=1e-5)


@EVERY
def test_a_support_of_its_own_is_averaged_over(implementation):
    """Queries and an archive: the same as the archive's rows in one larger loop."""
    queries, _ = _case(n=9, dim=3)
    support, log_weight = _case(n=31, dim=3, seed=8)
    projection = de.latent.random_projection(KEY, 3, 2)
    for z in (lambda _: None, lambda x: de.latent.project(jnp.asarray(x), projection)):
        posterior = de.estimate_posterior(
            queries,
            log_weight,
            0.7,
            z_t=z(queries),
            support=support,
            z_support=z(support),
            floor=1e-4,
            implementation=implementation,
        )
        for i, query in enumerate(np.asarray(queries)):
            together = np.concatenate([query[None], support])
            alone = np.concatenate([[np.nan], log_weight])
            expected = loop_x0(together, alone, 0.7, z=z(together), floor=1e-4)[0]
            np.testing.assert_allclose(posterior.x0[i], expected, rtol=0, atol=1e-5)
        assert posterior.log_evidence.shape == posterior.effective_sample_size.shape == (9,)


def test_distances_are_taken_in_the_latent_space_and_the_average_in_genome_space():
    x, log_weight = _case(dim=17)
    z = de.latent.project(x, de.latent.random_projection(KEY, 17, 3))
    x0 = de.estimate_x0(x, log_weight, 0.7, z_t=z)
    np.testing.assert_allclose(x0, loop_x0(x, log_weight, 0.7, z=z), rtol=0, atol=1e-5)


@EVERY
@pytest.mark.parametrize("floor", [0.0, 1e-2])
def test_log_evidence_and_effective_sample_size_are_those_of_the_weights(floor, implementation):
    x, log_weight = _case()
    posterior = de.estimate_posterior(
        x, log_weight, 0.9, floor=floor, implementation=implementation
    )
    difference = np.asarray(x, float)[:, None] - np.sqrt(0.9) * np.asarray(x, float)[None]
    p = np.exp(-np.sum(difference**2, -1) / 0.2)
    w = (np.exp(np.asarray(log_weight, float)) + floor) * (p + floor)
    np.testing.assert_allclose(posterior.log_evidence, np.log(w.sum(1)), rtol=1e-5, atol=1e-5)
    ess = w.sum(1) ** 2 / (w**2).sum(1)
    np.testing.assert_allclose(posterior.effective_sample_size, ess, rtol=1e-4)


def test_the_sample_size_may_be_left_out():
    x, log_weight = _case()
    for floor in (0.0, 1e-2):
        whole = de.estimate_posterior(x, log_weight, 0.9, floor=floor)
        less = de.estimate_posterior(x, log_weight, 0.9, floor=floor, sample_size=False)
        assert np.all(np.isnan(less.effective_sample_size))
        np.testing.assert_allclose(less.x0, whole.x0, rtol=0, atol=1e-6)
        np.testing.assert_allclose(less.log_evidence, whole.log_evidence, rtol=0, atol=1e-6)


@pytest.mark.promised
@EVERY
def test_an_offset_of_the_log_weights_changes_nothing(implementation):
    """Up to 1e5, where float32 holds steps of 1/128: these log weights bear it without rounding."""
    x, log_weight = _case()
    log_weight = jnp.round(64 * log_weight) / 64
    estimate = jax.jit(
        lambda log_weight: de.estimate_posterior(x, log_weight, 0.5, implementation=implementation)
    )
    at_rest = estimate(log_weight)
    for offset in (-1e5, -1000.0, 64.0, 2e4, 1e5):
        moved = estimate(log_weight + offset)
        np.testing.assert_allclose(moved.x0, at_rest.x0, rtol=0, atol=1e-6)
        np.testing.assert_allclose(
            moved.log_evidence, at_rest.log_evidence + offset, rtol=1e-6, atol=1e-6
        )


@pytest.mark.promised
def test_latent_runs_keep_their_digits_late():
    """Genomes that are no function of the places: what neighbours weigh shows in full."""
    n, spread = 513, 1e-3
    x, log_weight = _case(n=n, dim=30)
    z = jax.random.normal(jax.random.key(9), (n, 2))
    for one_minus_alpha in (spread, spread / 10, spread / 1000):
        exact = float(jnp.float32(one_minus_alpha))
        x0 = de.estimate_x0(x, log_weight, 1 - exact, one_minus_alpha=exact, z_t=z)
        expected = loop_x0(x, log_weight, 1 - exact, z=z, spread=exact)
        np.testing.assert_allclose(x0, expected, rtol=0, atol=1e-5)


def test_permuted_individuals_give_permuted_estimates():
    x, log_weight = _case()
    order = jax.random.permutation(KEY, len(x))
    x0 = de.estimate_x0(x, log_weight, 0.5)
    permuted = de.estimate_x0(x[order], log_weight[order], 0.5)
    np.testing.assert_allclose(permuted, x0[order], rtol=0, atol=1e-5)


@pytest.mark.promised
def test_an_offset_of_population_and_latents_keeps_its_digits():
    x, log_weight = _case()
    z = x
    near = de.estimate_x0(x, log_weight, 0.5, z_t=z)
    far = de.estimate_x0(x + 1024, log_weight, 0.5, z_t=z)
    np.testing.assert_allclose(far - 1024, near, rtol=0, atol=4e-4)  # float32 at 1024: 1.2e-4


@pytest.mark.parametrize("dim", [tiled.MANY_GENES - 1, tiled.MANY_GENES])
def test_a_floor_may_bring_the_gene_that_makes_them_many(dim):
    x, log_weight = _case(n=20, dim=dim)
    z = x[:, :2]
    posterior = de.estimate_posterior(x + 1, log_weight, 0.5, z_t=z, floor=1e-2)
    expected = loop_x0(x + 1, log_weight, 0.5, z=z, floor=1e-2)
    np.testing.assert_allclose(posterior.x0, expected, rtol=0, atol=1e-5)


@EVERY
def test_weight_zero_and_no_weight_take_no_part(implementation):
    x, log_weight = _case()
    for nothing in (-jnp.inf, jnp.nan):
        masked = log_weight.at[10:].set(nothing)
        x0 = de.estimate_x0(x, masked, 0.5, implementation=implementation)
        kept = jnp.concatenate([log_weight[:10], jnp.full(len(x) - 10, -jnp.inf)])
        np.testing.assert_allclose(x0, loop_x0(x, kept, 0.5), rtol=0, atol=1e-5)


@EVERY
def test_a_floor_lifts_a_weight_of_zero_but_not_a_missing_one(implementation):
    x, log_weight = _case(n=4, seed=5)
    settings: dict[str, Any] = dict(floor=1e-2, implementation=implementation)
    lifted = de.estimate_x0(x, log_weight.at[0].set(-jnp.inf), 0.5, **settings)
    missing = de.estimate_x0(x, log_weight.at[0].set(jnp.nan), 0.5, **settings)
    np.testing.assert_allclose(
        lifted, loop_x0(x, log_weight.at[0].set(-np.inf), 0.5, floor=1e-2), rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(
        missing, loop_x0(x, log_weight.at[0].set(np.nan), 0.5, floor=1e-2), rtol=0, atol=1e-5
    )
    assert float(np.abs(lifted - missing).max()) > 1e-4


@EVERY
def test_without_weights_the_estimate_is_the_individual(implementation):
    x, _ = _case()
    nobody = jnp.full(len(x), -jnp.inf)
    posterior = de.estimate_posterior(x, nobody, 0.5, implementation=implementation)
    np.testing.assert_array_equal(posterior.x0, x)
    assert np.all(np.isneginf(posterior.log_evidence))
    np.testing.assert_array_equal(posterior.effective_sample_size, 0)


@EVERY
@pytest.mark.parametrize("dim", [2, 20])
def test_gradients_agree_with_finite_differences_and_stay_finite(dim, implementation):
    with jax.enable_x64(True):
        x, log_weight = _case(n=9, dim=dim)
        x, log_weight = x.astype(float), log_weight.astype(float).at[0].set(-jnp.inf)

        @jax.jit
        def loss(scale, alpha):
            posterior = de.estimate_posterior(
                scale * x, log_weight, alpha, floor=1e-3, implementation=implementation
            )
            return jnp.sum(posterior.x0**2) + jnp.sum(posterior.log_evidence)

        gradient = jax.jit(jax.grad(loss, (0, 1)))(1.0, 0.6)
        h = 1e-6
        numeric = (
            (loss(1 + h, 0.6) - loss(1 - h, 0.6)) / (2 * h),
            (loss(1.0, 0.6 + h) - loss(1.0, 0.6 - h)) / (2 * h),
        )
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6)


@pytest.mark.promised
@pytest.mark.parametrize("dim", [2, 1100])
def test_float32_gradients_of_tiles_are_those_of_the_formula(dim):
    x, log_weight = _case(n=40, dim=dim)

    def loss(implementation, x, log_weight):
        x0 = de.estimate_x0(x, log_weight, 0.7, z_t=x[:, :2], implementation=implementation)
        return jnp.sum(jnp.sin(x0))

    tiles, formula = (
        jax.jit(jax.grad(loss, (1, 2)), static_argnums=0)(name, x, log_weight)
        for name in ("tiled", "dense")
    )
    for a, b in zip(tiles, formula, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * float(jnp.abs(b).max()))


def test_vmap_of_tiles_is_a_loop():
    x = jax.random.normal(KEY, (3, 50, 20))
    log_weight = jax.random.uniform(KEY, (3, 50), minval=-60, maxval=60)
    alpha = jnp.array([0.1, 0.5, 0.9999])  # both distances, both shifts
    batch = np.asarray(jax.vmap(de.estimate_x0)(x, log_weight, alpha))
    x, log_weight, alpha = jax.device_get((x, log_weight, alpha))
    for i in range(3):
        alone = de.estimate_x0(x[i], log_weight[i], alpha[i])
        np.testing.assert_allclose(batch[i], alone, rtol=0, atol=1e-5)


def test_tiles_never_make_an_array_of_all_pairs():
    """The largest array in the compiled program, forwards and backwards, by its shapes."""
    n = 5000
    shapes = jax.ShapeDtypeStruct((n, 2), jnp.float32), jax.ShapeDtypeStruct((n,), jnp.float32)

    def loss(x, log_weight):
        return jnp.sum(de.estimate_x0(x, log_weight, 0.5) ** 2)

    for function in (de.estimate_x0, jax.grad(loss)):
        arguments = (*shapes, 0.5) if function is de.estimate_x0 else shapes
        text = jax.jit(function).lower(*arguments).as_text()
        sizes = [
            math.prod(int(size) for size in dims.split("x")[:-1])
            for dims in re.findall(r"tensor<([0-9x]+x)f32>", text)
        ]
        assert n < max(sizes) < n * n / 20, max(sizes)


@EVERY
@pytest.mark.parametrize("size", [1e3, 1e5, 1e10])
def test_genomes_of_any_size_stay_finite_under_jit(size, implementation):
    """XLA may round an exponent one way in a maximum and another way in the weight."""
    x = size * jax.random.normal(KEY, (32, 3))
    estimate = jax.jit(
        lambda x: de.estimate_x0(x, x[:, 0] * 0, 0.001, implementation=implementation)
    )
    assert np.all(np.isfinite(estimate(x)))


@pytest.mark.promised
@EVERY
def test_half_precision_keeps_the_best_and_the_floor(implementation):
    x, log_weight = _case(n=16)
    half = x.astype(jnp.bfloat16)
    for floor in (0.0, 1e-9):
        settings: dict[str, Any] = dict(floor=floor, implementation=implementation)
        x0 = de.estimate_x0(half, log_weight, 0.9, **settings)
        assert x0.dtype == jnp.bfloat16
        expected = de.estimate_x0(half.astype(jnp.float32), log_weight, 0.9, **settings)
        np.testing.assert_array_equal(x0, expected.astype(jnp.bfloat16))


@EVERY
def test_the_floors_gradient_passes_by_a_missing_weight(implementation):
    x, log_weight = _case(n=9)

    def loss(floor, log_weight):
        settings: dict[str, Any] = dict(floor=floor, implementation=implementation)
        return de.estimate_x0(x, log_weight.at[0].set(jnp.nan), 0.9, **settings).sum()

    slopes = jax.grad(loss, (0, 1))(1e-3, log_weight)
    assert all(bool(np.all(np.isfinite(slope))) for slope in slopes)


@pytest.mark.promised
def test_exp2_is_exact_to_float32_and_stays_between_0_and_1():
    x = jnp.linspace(-126, 0, 100_001)
    np.testing.assert_allclose(exp2(x), 2.0 ** np.asarray(x, np.float64), rtol=3e-7)
    assert float(exp2(jnp.array([-126.5, -1e30, -jnp.inf])).max()) < 1.2e-38
    # Above 0 is made by rounding alone.
    np.testing.assert_allclose(exp2(jnp.array([1e-7, 200.0])), 1, rtol=3e-7)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("x_t", dict(x_t=jnp.ones(4))),
        ("x_t", dict(x_t=jnp.ones((1, 2)))),
        ("x_t", dict(x_t=jnp.ones((4, 2), int))),
        ("x_t", dict(x_t=jnp.full((4, 2), 1e20))),
        ("support", dict(support=jnp.full((4, 2), -1e20))),
        ("z_t", dict(z_t=jnp.full((4, 1), 1e20))),
        ("log_weight", dict(log_weight=jnp.ones(5))),
        ("log_weight", dict(log_weight=jnp.array([0, jnp.inf, 0, 0]))),
        ("alpha_t", dict(alpha_t=1.0)),
        ("alpha_t", dict(alpha_t=-0.1)),
        ("alpha_t", dict(alpha_t=float("nan"))),
        ("z_t", dict(z_t=jnp.ones((5, 2)))),
        ("floor", dict(floor=-1.0)),
        ("implementation", dict(implementation="fast")),
        ("one_minus_alpha", dict(one_minus_alpha=0.0)),
        ("support", dict(support=jnp.ones((4, 3)))),
        ("log_weight", dict(support=jnp.ones((5, 2)))),
        ("z_support", dict(z_support=jnp.ones((4, 2)))),
        ("z_support", dict(z_t=jnp.ones((4, 1)), support=jnp.ones((4, 2)))),
    ],
)
def test_bad_arguments_are_named(path, change, refuses):
    arguments = dict(x_t=jnp.ones((4, 2)), log_weight=jnp.zeros(4), alpha_t=0.5) | change
    positional = [arguments.pop(name) for name in ("x_t", "log_weight", "alpha_t")]
    with refuses(path):
        de.estimate_x0(*positional, **arguments)


@EVERY
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_under_jit_bad_genes_stay_with_their_individual(bad, implementation):
    """Nobody else sees them, and they are told apart by an evidence of zero."""
    x, log_weight = _case(n=30, dim=3)
    broken = x.at[4, 1].set(bad).at[20].set(bad)
    good = np.delete(np.arange(30), [4, 20])
    for floor in (0.0, 1e-3):
        posterior = jax.jit(
            lambda x, floor=floor: de.estimate_posterior(
                x, log_weight, 0.7, floor=floor, implementation=implementation
            )
        )(broken)
        expected = loop_x0(x[good], log_weight[good], 0.7, floor=floor)
        np.testing.assert_allclose(posterior.x0[good], expected, rtol=0, atol=1e-5)
        x0, bad_genes = np.asarray(posterior.x0), np.asarray(broken)
        np.testing.assert_array_equal(x0[[4, 20]], bad_genes[[4, 20]])
        np.testing.assert_array_equal(np.isneginf(posterior.log_evidence).nonzero()[0], [4, 20])


@pytest.mark.parametrize("floor", [0.0, 1e-3])
def test_bad_genes_among_many_stay_with_their_individual_and_out_of_gradients(floor):
    x, log_weight = _case(n=30, dim=1100)
    z = x[:, :2]
    broken = x.at[4, 1000].set(jnp.nan)
    good = np.delete(np.arange(30), 4)

    @jax.jit
    def estimate(x):
        return de.estimate_x0(x, log_weight, 0.7, z_t=z, floor=floor)

    expected = loop_x0(x[good], log_weight[good], 0.7, z=z[good], floor=floor)
    np.testing.assert_allclose(np.asarray(estimate(broken))[good], expected, rtol=0, atol=1e-5)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(estimate(x)[good] ** 2)))(broken)
    assert np.all(np.isfinite(np.asarray(slope)[good]))


def test_points_and_centres_of_a_density_are_named(refuses):
    points = jnp.ones((3, 2))
    for centres in (jnp.ones((4, 3)), jnp.ones(4), jnp.ones((0, 2))):
        with refuses("centres"):
            log_density(points, centres, 1.0)
    with refuses("points"):
        log_density(jnp.ones(3), points, 1.0)


def test_bad_genes_are_named_where_they_are_known(refuses):
    x, log_weight = _case(n=30, dim=3)
    with refuses("x_t"):
        de.estimate_x0(x.at[4, 1].set(jnp.nan), log_weight, 0.5)
    with refuses("z_t"):
        de.estimate_x0(x, log_weight, 0.5, z_t=x.at[3:5].set(jnp.inf))
    far = de.estimate_x0(1e20 * x, log_weight, 0.5, z_t=x)  # no distance is taken between them
    np.testing.assert_allclose(far, 1e20 * de.estimate_x0(x, log_weight, 0.5, z_t=x), rtol=1e-5)


def test_the_platform_chooses_the_implementation():
    """Lowered for a TPU the kernel is called, for a CPU or another card the tiles; by force any."""
    x = jax.ShapeDtypeStruct((300, 2), jnp.float32)
    log_weight = jax.ShapeDtypeStruct((300,), jnp.float32)

    def program(platform, implementation="auto", x=x):
        def scanned(x, log_weight):
            def generation(x, alpha):
                return de.estimate_x0(x, log_weight, alpha, implementation=implementation), None

            return jax.lax.scan(generation, x, jnp.array([0.3, 0.6]))[0]

        lowered = jax.jit(jax.vmap(scanned, (0, None)))
        batch = jax.ShapeDtypeStruct((3, *x.shape), x.dtype)
        return jax.export.export(lowered, platforms=[platform])(batch, log_weight).mlir_module()

    assert "tpu_custom_call" in program("tpu")
    assert "tpu_custom_call" not in program("tpu", "tiled")
    assert "custom_call" not in re.sub("custom_call @(mhlo.)?topk", "", program("cpu"))
    assert "mosaic_gpu" not in program("cuda")  # no card here, so that it may be an older one
    assert "mosaic_gpu" in program("cuda", "gpu")
    many = jax.ShapeDtypeStruct((300, 600), jnp.float32)
    assert "tpu_custom_call" not in program("tpu", x=many)


@pytest.mark.parametrize("name", ["gpu", "tpu"])
def test_a_kernel_on_another_machine_says_what_to_take(name):
    x = jnp.ones((8, 2))

    def generations(x):
        def generation(x, alpha):
            return de.estimate_x0(x, jnp.zeros(8), alpha, implementation=name), None

        return jax.lax.scan(generation, x, jnp.array([0.3, 0.6]))[0]

    calls = (
        lambda: de.estimate_x0(x, jnp.zeros(8), 0.5, implementation=name),
        lambda: de.kernels.gaussian(implementation=name),
    )
    for call in calls:
        with pytest.raises(de.InputError) as error:
            call()
        assert error.value.path == "implementation"
        assert name in error.value.seen
        assert "a cpu" in error.value.expected
        assert "'auto' takes the fastest" in error.value.advice
    # Traced, it may be for another machine: `jax.export` can lower it. On this one JAX refuses.
    with pytest.raises(NotImplementedError, match="not found for platform cpu"):
        jax.jit(jax.vmap(generations))(x[None])


def test_a_kernel_names_what_it_does_not_take(refuses):
    x = jnp.ones((8, 20))
    for name in ("gpu", "tpu"):
        with refuses("implementation"):
            de.estimate_x0(jnp.ones((8, 600)), jnp.zeros(8), 0.5, implementation=name)
    with refuses("implementation"):
        de.estimate_x0(x, jnp.zeros(8), 0.5, implementation="gpu")


# Of NumPy, which compiles nothing for each shape.
POPULATIONS = {
    "spread": lambda x: x,
    "clusters": lambda x: 0.1 * x + np.where(np.arange(len(x)) % 2 == 0, 1.0, -1.0)[:, None],
}
WEIGHTS = {
    "mild": lambda draw, n: 3 * draw.normal(size=n),
    "sixty decades": lambda draw, n: draw.uniform(-69.1, 69.1, n),
    "half of them zero": lambda draw, n: np.where(
        (draw.random(n) < 0.5) | (np.arange(n) == 0),
        3 * draw.normal(size=n) * (np.arange(n) > 0),
        -np.inf,
    ),
}


def _excess(n, dim, population, weights, seed=3, implementation="auto", rows=128):
    """How far x0 is from float64's beyond what the contract allows, over the spread, by level.

    rows: of so many individuals, spread over the population: float64 takes its time.
    """
    rows = np.arange(0, n, max(1, n // rows))
    draw = np.random.default_rng(seed)
    x = POPULATIONS[population](draw.normal(size=(n, dim))).astype(np.float32)
    log_weight = WEIGHTS[weights](draw, len(x)).astype(np.float32)
    for one_minus_alpha in LEVELS:
        exact = float(np.float32(one_minus_alpha))
        x0 = _estimate(x, log_weight, exact, implementation=implementation)
        expected, allowed = loop(x, log_weight, 1 - exact, spread=exact, rows=rows)
        yield float((np.abs(np.asarray(x0)[rows] - expected) - allowed).max() / np.std(x))


LEVELS = (0.5, 0.1, 1e-2, 1e-3, 1e-4, 1e-6)


@partial(jax.jit, static_argnames="implementation")
def _estimate(x, log_weight, one_minus_alpha, implementation="auto"):
    return de.estimate_x0(
        x,
        log_weight,
        1 - one_minus_alpha,
        one_minus_alpha=one_minus_alpha,
        implementation=implementation,
    )


def _rounding(dim: int) -> float:
    """Beside the log weights': of the sums and the genomes, and of a matmul for the distances."""
    return 3e-6 if dim <= tiled.CPU.direct else 1e-5


@pytest.mark.promised
@pytest.mark.parametrize(
    "dim", [2, 16, 58, *(pytest.param(d, marks=pytest.mark.slow) for d in (1, 3, 256))]
)
def test_float32_is_exact_for_log_weights_off_by_their_last_digits(dim):
    """The contract: 4 eps of the largest log weight that counts, whatever the weights."""
    for n in (2, 513):
        for population in POPULATIONS:
            for weights in WEIGHTS:
                worst = max(_excess(n, dim, population, weights))
                assert worst <= _rounding(dim), (n, population, weights, worst)


@pytest.mark.promised
@pytest.mark.slow
@pytest.mark.parametrize("dim", [1, 2, 3, 16, 58, 256])
def test_float32_keeps_the_contract_in_a_large_population(dim):
    for population in POPULATIONS:
        for weights in WEIGHTS:
            worst = max(_excess(4096, dim, population, weights))
            assert worst <= _rounding(dim), (population, weights, worst)


@pytest.mark.promised
@pytest.mark.parametrize("dim", [2, *(pytest.param(d, marks=pytest.mark.slow) for d in (1, 3))])
@pytest.mark.parametrize("population", ["clusters", pytest.param("spread", marks=pytest.mark.slow)])
def test_a_lattice_keeps_the_contract(dim, population):
    n = lattice.LEAST_QUERIES[dim - 1]
    for weights in WEIGHTS:
        worst = max(_excess(n, dim, population, weights, implementation="lattice", rows=32))
        assert worst <= _rounding(dim), (weights, worst)


MANY = lattice.LEAST_QUERIES[1]


def _many(dim: int, genes: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Genomes and places in two clusters, and weights that rise towards one of them."""
    draw = np.random.default_rng(4)
    x = 0.2 * draw.normal(size=(MANY, genes)) + draw.choice([-1, 1], size=(MANY, 1))
    return jnp.asarray(x), jnp.asarray(x[:, :dim]), jnp.asarray(3 * x[:, 0])


@jax.jit
def _by_tiles(x, log_weight, alpha, z, floor=0.0):
    """What tiles give for every 16th individual."""
    few = slice(None, None, 16)
    settings: dict[str, Any] = {"support": x, "z_support": z, "floor": floor}
    return de.estimate_posterior(
        x[few], log_weight, alpha, z_t=z[few], implementation="tiled", **settings
    )


@pytest.mark.promised
def test_a_lattice_has_latents_a_floor_and_the_sample_size_as_tiles_have():
    x, z, log_weight = _many(2, 5)
    log_weight = log_weight.at[:100].set(-jnp.inf).at[100:200].set(jnp.nan)

    @jax.jit
    def by_lattice(x, log_weight, alpha, z):
        one = de.estimate_posterior(
            x, log_weight, alpha, z_t=z, floor=1e-3, implementation="lattice"
        )
        return jax.tree.map(lambda leaf: leaf[::16], one)

    for alpha in (0.2, 0.9):
        one = by_lattice(x, log_weight, alpha, z)
        other = _by_tiles(x, log_weight, alpha, z, floor=1e-3)
        np.testing.assert_allclose(one.x0, other.x0, rtol=0, atol=1e-5)
        np.testing.assert_allclose(one.log_evidence, other.log_evidence, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            one.effective_sample_size, other.effective_sample_size, rtol=1e-3
        )


COUNTS: list[int] = []


@jax.jit
def _sum_and_count(place, x, log_weight, one_minus_alpha):
    def add_up(operands, count):
        jax.debug.callback(lambda count: COUNTS.append(int(count)), count, ordered=True)
        return nearby.part(operands, count)

    problem = make_operands(place, x, log_weight, one_minus_alpha)
    return lattice.part(replace(problem, sample_size=False), add_up).total


def _places_summed_at(*arguments) -> list[int]:
    """How many nodes of each lattice, and at last how many queries in full."""
    COUNTS.clear()
    _sum_and_count(*arguments)
    jax.effects_barrier()
    return list(COUNTS)


def test_a_lattice_sums_at_fewer_places_than_there_are_individuals():
    x, z, log_weight = _many(2, 2)
    *nodes, left = _places_summed_at(z, x, log_weight, 0.5)
    assert 81 < nodes[0] < MANY / 10
    assert left < MANY / 50
    # A ridge between steep slopes, which the first lattice cannot decide.
    *nodes, left = _places_summed_at(z, x, 60 * jnp.abs(x[:, 0]), 0.5)
    assert len(nodes) > 1
    assert sum(nodes) < MANY / 4
    assert left < MANY / 50
    # Late, each is alone; far from each other, the box around them is too large.
    assert _places_summed_at(z, x, log_weight, 1e-5) == [0, MANY]
    assert _places_summed_at(1e9 * z, x, log_weight, 0.5) == [0, MANY]


@pytest.mark.slow
def test_a_lattice_under_vmap_and_its_derivatives_are_those_of_each_alone():
    x, z, log_weight = _many(2, 2)

    def by_lattice(alpha):
        return de.estimate_x0(x, log_weight, alpha, z_t=z, implementation="lattice")[::16]

    def by_tiles(alpha):
        return _by_tiles(x, log_weight, alpha, z).x0

    alphas = jnp.array([0.3, 0.8])
    np.testing.assert_allclose(
        jax.jit(jax.vmap(by_lattice))(alphas),
        jax.jit(jax.vmap(by_tiles))(alphas),
        rtol=0,
        atol=1e-5,
    )
    slope = jax.jvp(by_lattice, (0.5,), (1.0,))[1]
    step = 1e-2  # of a smooth function, beside float32's rounding
    numeric = (by_lattice(0.5 + step) - by_lattice(0.5 - step)) / (2 * step)
    np.testing.assert_allclose(slope, numeric, rtol=0, atol=1e-2 * float(jnp.max(jnp.abs(slope))))


def test_auto_takes_the_lattice_from_its_worth_on():
    def program(n):
        def x0(x):
            return de.estimate_x0(x, jnp.zeros(n), 0.5)

        return jax.jit(x0).lower(jax.ShapeDtypeStruct((n, 2), jnp.float32)).as_text()

    assert "stablehlo.sort" in program(MANY)
    assert "stablehlo.sort" not in program(MANY - 1)


def test_a_lattice_names_what_it_does_not_take(refuses):
    x, z, log_weight = _many(2, 4)
    some, equal = slice(0, 100), jnp.ones_like(z)

    def estimate(x, log_weight, **settings):
        de.estimate_x0(x, log_weight, 0.5, implementation="lattice", **settings)

    for call in (
        lambda: estimate(x, log_weight),  # four dimensions
        lambda: estimate(z[some], log_weight[some]),
        lambda: estimate(x, log_weight, z_t=equal),
        lambda: estimate(x, log_weight, z_t=1e6 * z),
    ):
        with refuses("implementation"):
            call()
    with refuses("implementation"):  # of arrays that are known while the caller is traced
        jax.jit(lambda: estimate(x, log_weight, z_t=equal))()
    with jax.enable_x64(True), refuses("implementation"):
        estimate(z.astype(float), log_weight)
    # "auto" takes them all.
    for place in (equal, 1e6 * z):
        one = de.estimate_x0(x, log_weight, 0.5, z_t=place)[::16]
        np.testing.assert_allclose(one, _by_tiles(x, log_weight, 0.5, place).x0, rtol=0, atol=1e-5)


@pytest.mark.promised
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(
    shape=st.sampled_from([(2, 1), (17, 2), (3, 16), (17, 16)]),
    seed=st.integers(0, 2**31 - 1),
    log_spread=st.floats(math.log(1e-6), math.log(0.5)),
    scale=st.floats(1e-3, 1e3),
    offset=st.sampled_from([0.0, 1.0, -8.0]),
    population=st.sampled_from(sorted(POPULATIONS)),
    weights=st.sampled_from(sorted(WEIGHTS)),
)
@hypothesis.example(  # log weights of 1e11, whose products round by thousands
    shape=(3, 16),
    seed=0,
    log_spread=-12.0,
    scale=232.0,
    offset=0.0,
    population="clusters",
    weights="half of them zero",
)
def test_any_population_and_weights_agree_with_the_loop(
    shape, seed, log_spread, scale, offset, population, weights
):
    draw = np.random.default_rng(seed)
    x = POPULATIONS[population](draw.normal(size=shape))
    x = (scale * (x + offset)).astype(np.float32)
    log_weight = WEIGHTS[weights](draw, len(x)).astype(np.float32)
    exact = float(np.float32(math.exp(log_spread)))
    x0 = _estimate(x, log_weight, exact)
    expected, allowed = loop(x, log_weight, 1 - exact, spread=exact)
    # A population far from 0 is stored with an error of its distance's last digit.
    bound = 1e-5 * (float(np.std(x)) + scale * abs(offset) / 8)
    assert bool(np.all(np.abs(x0 - expected) <= bound + allowed))


# Dimensions of the places, genes, blocks so small that each loop has several rounds and padding.
@pytest.mark.parametrize(
    ("dim", "genes", "blocks"),
    [
        (2, 3, tiled.Blocks(3, 8, 1, 16)),
        (17, 17, tiled.Blocks(3, 8, 1, 1)),  # a matmul, and a shift that rises from tile to tile
        (17, 17, tiled.Blocks(3, 8, 1, 64)),
        (2, 1024, tiled.Blocks(1, 8, 3 * 13, 16)),
        (2, 1024, tiled.Blocks(1, 8, 13 * 13, 16)),
    ],
)
def test_the_sums_by_tiles_are_those_of_the_weights(dim, genes, blocks):
    key_x, key_w = jax.random.split(KEY)
    x, alpha = jax.random.normal(key_x, (13, genes)), 0.2
    # Far below the 0 of a padded support that were counted.
    log_weight = (10 * jax.random.normal(key_w, (13,)) - 60).at[4].set(NO_WEIGHT)
    z = x[:, :dim]
    problem = make_operands(z, x, log_weight, 1 - alpha)
    difference = np.asarray(z, float)[:, None] - np.sqrt(alpha) * np.asarray(z, float)
    exponents = np.asarray(log_weight, float) - np.sum(difference**2, axis=2) / (2 * (1 - alpha))
    largest = exponents.max(axis=1)
    w = np.exp(exponents - largest[:, None])
    evidence = largest + np.log(w.sum(axis=1))

    @jax.jit
    def sums(problem, shift=None):
        return tiled.part(problem, blocks=blocks, shift=shift)

    first = sums(problem)
    for result in jax.device_get((first, sums(problem, first.shift))):
        bits = np.log2(result.weight) + (result.shift - result.offset)
        np.testing.assert_allclose(bits * np.log(2), evidence, rtol=1e-5, atol=1e-4)
        x0 = np.asarray(problem.frame.centre) + result.total / result.weight[:, None]
        np.testing.assert_allclose(x0, w @ np.asarray(x) / w.sum(axis=1)[:, None], atol=1e-5)
        sample_size = result.weight**2 / result.squares
        np.testing.assert_allclose(sample_size, w.sum(1) ** 2 / (w**2).sum(1), rtol=1e-4)
        # The largest weight is 1, so that none leaves float32's exponents.
        np.testing.assert_allclose(result.weight, w.sum(axis=1), rtol=1e-4)
    assert jax.eval_shape(sums, replace(problem, sample_size=False)).squares is None
    with jax.enable_x64(True):  # float32 stays so where float64 is the default
        assert jax.eval_shape(partial(tiled.part, blocks=blocks), problem).total.dtype == x.dtype


@pytest.mark.promised
@pytest.mark.parametrize(
    ("blocks", "dtype", "precision"),
    [
        (tiled.CPU, jnp.float32, "HIGHEST"),
        (tiled.NVIDIA, jnp.float32, "TF32_TF32_F32_X3"),
        (tiled.NVIDIA, jnp.float64, "HIGHEST"),
    ],
)
def test_a_matmul_with_many_genes_keeps_all_digits_wherever_it_runs(blocks, dtype, precision):
    with jax.enable_x64(True):
        x = jnp.ones((3, 1024), dtype)
        problem = replace(make_operands(x[:, :2], x, x[:, 0], 0.5), precision=None)
        assert precision in str(jax.make_jaxpr(partial(tiled.part, blocks=blocks))(problem))
