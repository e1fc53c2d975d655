"""The Pallas kernels in Pallas' interpreters against the float64 loop, and lowered for their chips.

What an interpreter cannot show, registers, banks and time, needs the machine.
"""

import math
import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import loop_x0, make_problem

# Not public yet, neither in jax 0.10 nor in 0.11.
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

from diffevo_jax.estimator import gpu, tpu
from diffevo_jax.estimator.posterior import normalised
from diffevo_jax.estimator.types import Problem

KEY = jax.random.key(5)
LEVELS = (0.999, 0.5, 1e-2, 1e-4, 1e-6)  # 1 - alpha
# Blocks so small that every case has several, and several parts, the last one with padding.
KERNELS = {
    "gpu": partial(
        gpu.part, queries_per_thread=1, key_block=16, parts=2, interpret=InterpretGPUParams()
    ),
    "tpu": partial(tpu.part, query_block=128, key_block=128, interpret=True),
}
# The interpreter of GPUs takes seconds to compile: tests that can share a shape share it.
SOLVE = {
    name: jax.jit(lambda problem, kernel=kernel: normalised(kernel(problem), problem))
    for name, kernel in KERNELS.items()
}
EVERY = pytest.mark.parametrize("kernel", KERNELS)
LOWER = [(gpu, "cuda", "@mosaic_gpu_v2("), (tpu, "tpu", "@tpu_custom_call(")]


def _population(n, dim, key=KEY):
    key_x, key_w = jax.random.split(key)
    return jax.random.normal(key_x, (n, dim)), 3 * jax.random.normal(key_w, (n,))


def _solve(kernel, problem: Problem):
    return SOLVE[kernel](problem)


def _problem(x, log_weight, one_minus_alpha=0.5, z=None) -> Problem:
    return make_problem(x if z is None else z, x, log_weight, one_minus_alpha)


@pytest.mark.parametrize(
    ("kernel", "n", "dim", "levels"),
    [
        ("gpu", 24, 2, LEVELS),
        ("gpu", 10, 16, (1e-2,)),
        ("gpu's running shift", 24, 2, (0.9, 1e-3)),
        *(("tpu", 140, dim, LEVELS) for dim in (1, 2, 3, 16)),
    ],
)
def test_float32_agrees_with_a_float64_loop(kernel, n, dim, levels):
    kernel, same = kernel[:3], "running" not in kernel
    x, log_weight = _population(n, dim)
    clusters = 0.1 * x + jnp.where(jnp.arange(len(x)) % 2 == 0, 1.0, -1.0)[:, None]
    for population in (x, clusters):
        for one_minus_alpha in levels:
            exact = float(jnp.float32(one_minus_alpha))
            expected = loop_x0(population, log_weight, 1 - exact, spread=exact)
            # 1e-5 of the population's spread, what the estimator promises in float32.
            bound = 1e-5 * float(jnp.std(population))
            problem = _problem(population, log_weight, one_minus_alpha)
            problem = problem if same else replace(problem, own=None)
            x0 = _solve(kernel, problem).x0
            np.testing.assert_allclose(x0, expected, rtol=0, atol=bound)


@EVERY
def test_a_support_of_its_own_gives_average_evidence_and_sample_size(kernel):
    """More queries than keys, keys in a latent space, a key in seven without weight."""
    x, log_weight = _population(190, 5)
    z = x[:, :3] / 2
    log_weight = log_weight.at[::7].set(-jnp.inf)
    n = 130  # two blocks
    problem = _problem(x[n:], log_weight[n:], 0.2, z[n:])
    problem = replace(problem, query=z[:n], own=None)
    posterior = _solve(kernel, problem)
    alone = log_weight.at[:n].set(jnp.nan)  # queries that take no part
    expected = loop_x0(x, alone, 0.8, z=z, spread=0.2)[:n]
    np.testing.assert_allclose(posterior.x0, expected, rtol=0, atol=1e-5)

    places = np.asarray(z, np.float64)
    distance = np.sum((places[:n, None] - math.sqrt(0.8) * places[None, n:]) ** 2, axis=-1)
    w = np.exp(np.asarray(log_weight[n:], np.float64) - distance / 0.4)
    np.testing.assert_allclose(posterior.log_evidence, np.log(w.sum(1)), rtol=0, atol=1e-5)
    sample_size = w.sum(1) ** 2 / (w**2).sum(1)
    np.testing.assert_allclose(posterior.effective_sample_size, sample_size, rtol=2e-5)


@EVERY
def test_weights_of_sixty_decades_keep_the_best_whichever_block_it_is_in(kernel):
    x, _ = _population(24, 2)
    ladder = jnp.linspace(math.log(1e-30), math.log(1e30), len(x))
    for log_weight in (ladder, ladder[::-1]):
        posterior = _solve(kernel, _problem(x, log_weight, 0.9))
        np.testing.assert_allclose(
            posterior.x0, loop_x0(x, log_weight, 0.1, spread=0.9), rtol=0, atol=2e-5
        )  # log weights up to 69 round by 4e-6
        assert bool(jnp.all(jnp.isfinite(posterior.log_evidence)))


def test_one_shift_and_the_running_one_agree_on_a_gpu():
    """Whether queries are the keys decides which shift a block of queries may take."""
    x, log_weight = _population(24, 2)
    problem = _problem(x, log_weight, 0.9)
    one, running = (_solve("gpu", p) for p in (problem, replace(problem, own=None)))
    for a, b in zip(one, running, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@EVERY
def test_where_nobody_has_weight_there_is_no_evidence(kernel):
    x, _ = _population(24, 2)
    posterior = _solve(kernel, _problem(x, jnp.full(len(x), -jnp.inf)))
    np.testing.assert_array_equal(posterior.log_evidence, -jnp.inf)
    np.testing.assert_array_equal(posterior.effective_sample_size, 0)
    assert bool(jnp.all(jnp.isfinite(posterior.x0)))


@EVERY
def test_a_population_far_from_zero_keeps_its_digits(kernel):
    x, log_weight = _population(24, 2)
    x = x + jnp.array([512.0, 0.0])
    posterior = _solve(kernel, _problem(x, log_weight, 1e-3))
    expected = loop_x0(x, log_weight, 1 - 1e-3, spread=1e-3)
    # The result itself is a float32 beside 512, whose next is 6e-5 away.
    np.testing.assert_allclose(posterior.x0[:, 0], expected[:, 0], rtol=0, atol=6e-5)
    np.testing.assert_allclose(posterior.x0[:, 1], expected[:, 1], rtol=0, atol=2e-5)


@EVERY
def test_vmap_is_a_loop(kernel):
    x, _ = _population(20, 2)
    log_weight = 3 * jax.random.normal(KEY, (3, len(x)))
    spread = jnp.array([0.9, 0.5, 1e-3])

    @jax.jit
    @jax.vmap
    def solve(log_weight, spread):
        return SOLVE[kernel](_problem(x, log_weight, spread)).x0

    batch = solve(log_weight, spread)
    for i in range(3):
        expected = loop_x0(x, log_weight[i], 1 - float(spread[i]), spread=float(spread[i]))
        np.testing.assert_allclose(batch[i], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("module", "platform", "call"), LOWER)
@pytest.mark.parametrize("shape", [(65536, 2, 2), (1000, 3, 5), (1, 1, 1), (700, 16, 16)])
def test_kernels_lower_for_their_machine_without_an_array_of_all_pairs(
    shape, module, platform, call
):
    n, dim, genes = shape
    queries, pairs = max(n // 2, 1), n * max(n // 2, 1)

    def solve(x, log_weight):
        problem = _problem(x, log_weight, z=x[:, :dim])
        return module.part(replace(problem, query=x[:queries, :dim], own=None))

    x = jax.ShapeDtypeStruct((n, max(dim, genes)), jnp.float32)
    log_weight = jax.ShapeDtypeStruct((n,), jnp.float32)
    text = jax.export.export(jax.jit(solve), platforms=[platform])(x, log_weight).mlir_module()
    assert call in text
    sizes = [
        math.prod(int(size) for size in dims.split("x")[:-1])
        for dims in re.findall(r"tensor<([0-9x]+x)f32>", text)
    ]
    assert n <= max(sizes)
    assert n < 1000 or max(sizes) < max(pairs / 20, 2**19)


@pytest.mark.parametrize(("module", "platform", "call"), LOWER)
def test_kernels_lower_under_vmap_scan_jit_and_64_bits(module, platform, call):
    @jax.vmap
    def generations(x, log_weight):
        def generation(x, spread):
            return module.part(_problem(x, log_weight, spread)).total, None

        return jax.lax.scan(generation, x, jnp.linspace(0.1, 0.9, 5, dtype=x.dtype))[0]

    x = jax.ShapeDtypeStruct((3, 300, 2), jnp.float32)
    log_weight = jax.ShapeDtypeStruct((3, 300), jnp.float32)
    for wide in (False, True):
        with jax.enable_x64(wide):
            exported = jax.export.export(jax.jit(generations), platforms=[platform])(x, log_weight)
        assert exported.mlir_module().count(call) == 1


@pytest.mark.parametrize("module", [gpu, tpu])
def test_kernels_say_which_problems_they_take(module):
    x, log_weight = _population(4, 2)
    assert module.fits(_problem(x, log_weight))
    double = jnp.zeros((4, module.MOST_GENES + 1))
    assert not module.fits(_problem(double, log_weight, z=x))
    wide = jnp.zeros((4, module.MOST_DIMENSIONS + 1))
    assert not module.fits(_problem(x, log_weight, z=wide))
    assert not module.fits(_problem(x.astype(jnp.bfloat16), log_weight))
