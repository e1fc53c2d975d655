"""The Pallas kernels against the float64 loop: in Pallas' interpreters, and on a card if there.

Lowered for their chips on any machine; registers and instructions are `make check-gpu`'s.
"""

import math
import re
import sys
from dataclasses import replace
from functools import partial

import jax
import jax.experimental.pallas
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import loop_x0, make_operands

# Not public yet, neither in jax 0.10 nor in 0.11.
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

import diffevo_jax as de
from diffevo_jax.kernels import _walk, gpu, platforms, tpu, triton
from diffevo_jax.kernels.posterior import normalised
from diffevo_jax.kernels.types import Operands
from diffevo_jax.parts import Posterior

pytestmark = pytest.mark.promised

LEVELS = (0.999, 0.5, 1e-2, 1e-4, 1e-6)  # 1 - alpha
# In interpreters blocks so small that every case has several, and several parts, the last one with
# padding; and few supports at once, for what is unrolled takes its time to compile.
KERNELS = {
    "gpu": partial(
        gpu.part, queries_per_thread=1, supports_at_once=4, parts=2, interpret=InterpretGPUParams()
    ),
    "gpu, compiled": gpu.part,
    "triton": partial(
        triton.part, queries_per_thread=1, supports_at_once=2, parts=2, interpret=True
    ),
    "triton, compiled": triton.part,
    "tpu": partial(tpu.part, query_block=128, support_block=128, interpret=True),
}


def _posterior(kernel, operands: Operands) -> Posterior:
    return normalised(kernel(operands), operands)


# The interpreter of GPUs takes seconds to compile: tests that can share a shape share it.
SOLVE = {name: jax.jit(partial(_posterior, kernel)) for name, kernel in KERNELS.items()}
MAKE = jax.jit(make_operands, static_argnames="own")
# The walk through the supports is that of "gpu"; three tests run it by Triton's launch always.
EVERY = pytest.mark.parametrize(
    "kernel",
    [pytest.param(name, marks=pytest.mark.slow if name == "triton" else ()) for name in KERNELS],
)
A100 = jax.sharding.AbstractDevice("NVIDIA A100-SXM4-40GB", num_cores=108, platform="gpu")
LOWER = [
    (gpu, "cuda", "@mosaic_gpu_v2("),
    (triton, "cuda", "@__gpu$xla.gpu.triton("),
    (tpu, "tpu", "@tpu_custom_call("),
]


def _population(n: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Drawn by NumPy: jax would compile for every shape."""
    random = np.random.default_rng(5)
    x, log_weight = random.normal(size=(n, dim)), 3 * random.normal(size=n)
    return x.astype(np.float32), log_weight.astype(np.float32)


# Compute capabilities.
NEEDED = {
    "gpu, compiled": platforms.LEAST_MOSAIC_CAPABILITY,
    "triton, compiled": platforms.LEAST_TRITON_CAPABILITY,
}


def _need_card(kernel: str) -> None:
    needed, seen = NEEDED.get(kernel, 0), platforms._compute_capability()
    if seen < needed:
        pytest.skip(f"needs a card of compute capability {needed} or higher; seen {seen}")


def _solve(kernel: str, operands: Operands) -> Posterior:
    _need_card(kernel)
    return SOLVE[kernel](operands)


def _lowered(function, platform: str, *args) -> str:
    """The program for a machine elsewhere: an A100, where Triton asks which card it is."""
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=A100)
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def _operands(
    x, log_weight, one_minus_alpha=0.5, z=None, query=None, same=True, sample_size=True
) -> Operands:
    """same: whether the queries are known to be the supports."""
    z = x if z is None else z
    operands = MAKE(z, x, log_weight, one_minus_alpha, own=same and query is None)
    return replace(
        operands, query=operands.query if query is None else query, sample_size=sample_size
    )


@pytest.mark.parametrize(
    ("kernel", "n", "dim", "levels"),
    [
        ("gpu", 24, 2, LEVELS),
        *(("gpu, compiled", 1500, dim, LEVELS) for dim in (1, 2, 3, 16)),
        ("triton", 24, 2, LEVELS),
        *(("triton, compiled", 1500, dim, LEVELS) for dim in (1, 2, 3, 16)),
        *(("tpu", 140, dim, LEVELS) for dim in (1, 2, 3, 16)),
    ],
)
def test_float32_agrees_with_a_float64_loop(kernel, n, dim, levels):
    _need_card(kernel)
    x, log_weight = _population(n, dim)
    clusters = 0.1 * x + np.where(np.arange(n) % 2 == 0, np.float32(1), np.float32(-1))[:, None]
    for population in (x, clusters):
        for one_minus_alpha in levels:
            exact = float(jnp.float32(one_minus_alpha))
            expected = loop_x0(population, log_weight, 1 - exact, spread=exact)
            # 1e-5 of the population's spread, what the estimator promises in float32.
            bound = 1e-5 * float(np.std(population))
            x0 = _solve(kernel, _operands(population, log_weight, one_minus_alpha)).x0
            np.testing.assert_allclose(x0, expected, rtol=0, atol=bound)


@EVERY
def test_a_support_of_its_own_gives_average_evidence_and_sample_size(kernel):
    """More queries than supports, these in a latent space, one in seven without weight."""
    _need_card(kernel)
    x, log_weight = _population(150, 5)
    z = x[:, :3] / 2
    log_weight[::7] = -np.inf
    n = 130  # two blocks
    operands = _operands(x[n:], log_weight[n:], 0.2, z[n:], query=z[:n])
    posterior = _solve(kernel, operands)
    alone = np.where(np.arange(150) < n, np.nan, log_weight)  # queries take no part
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
    ladder = np.linspace(math.log(1e-30), math.log(1e30), len(x), dtype=np.float32)
    for log_weight in (ladder, ladder[::-1]):
        posterior = _solve(kernel, _operands(x, log_weight, 0.9))
        np.testing.assert_allclose(
            posterior.x0, loop_x0(x, log_weight, 0.1, spread=0.9), rtol=0, atol=2e-5
        )  # log weights up to 69 round by 4e-6
        assert np.all(np.isfinite(posterior.log_evidence))


@pytest.mark.parametrize("kernel", ["gpu", "gpu, compiled", "triton", "triton, compiled"])
def test_one_shift_and_the_running_one_agree_on_a_gpu(kernel):
    """Whether queries are the supports decides which shift a block of queries may take."""
    x, log_weight = _population(24, 2)
    for one_minus_alpha in (0.9, 1e-3):
        one, running = (
            _solve(kernel, _operands(x, log_weight, one_minus_alpha, same=same))
            for same in (True, False)
        )
        for a, b in zip(one[:3], running[:3], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", ["gpu", "gpu, compiled", "triton", "triton, compiled"])
def test_genes_beyond_a_gpus_registers_are_averaged_in_chunks(kernel):
    _need_card(kernel)
    x, log_weight = _population(10, 17)  # two chunks of 9, the last one with padding
    z = x[:, :16]
    operands = _operands(x, log_weight, z=z, sample_size=False)
    sums = jax.jit(KERNELS[kernel])(operands)
    assert sums.squares is None
    x0 = operands.frame.centre + sums.total / sums.weight[:, None]
    np.testing.assert_allclose(x0, loop_x0(x, log_weight, 0.5, z=z), rtol=0, atol=1e-5)


@EVERY
def test_without_weights_there_is_no_evidence(kernel):
    x, _ = _population(24, 2)
    posterior = _solve(kernel, _operands(x, np.full(len(x), -np.inf, np.float32)))
    np.testing.assert_array_equal(posterior.log_evidence, -jnp.inf)
    np.testing.assert_array_equal(posterior.effective_sample_size, 0)
    assert np.all(np.isfinite(posterior.x0))


@EVERY
def test_a_population_far_from_zero_keeps_its_digits(kernel):
    x, log_weight = _population(24, 2)
    x = x + np.array([512, 0], np.float32)
    posterior = _solve(kernel, _operands(x, log_weight, 1e-3))
    expected = loop_x0(x, log_weight, 1 - 1e-3, spread=1e-3)
    # The result itself is a float32 beside 512, whose next is 6e-5 away.
    np.testing.assert_allclose(posterior.x0[:, 0], expected[:, 0], rtol=0, atol=6e-5)
    np.testing.assert_allclose(posterior.x0[:, 1], expected[:, 1], rtol=0, atol=2e-5)


@EVERY
def test_vmap_is_a_loop(kernel):
    x, _ = _population(20, 2)
    log_weight = np.stack([_population(20 + i, 2)[1][:20] for i in range(3)])
    spread = np.array([0.9, 0.5, 1e-3], np.float32)

    _need_card(kernel)

    @jax.jit
    @jax.vmap
    def solve(log_weight, spread):
        return _posterior(KERNELS[kernel], _operands(x, log_weight, spread)).x0

    batch = solve(log_weight, spread)
    for i in range(3):
        expected = loop_x0(x, log_weight[i], 1 - float(spread[i]), spread=float(spread[i]))
        np.testing.assert_allclose(batch[i], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("module", "platform", "call"), LOWER)
@pytest.mark.parametrize("shape", [(65536, 2, 2), (1000, 3, 5), (1, 1, 1), (700, 16, 64)])
def test_kernels_lower_for_their_machine_without_an_array_of_all_pairs(
    shape, module, platform, call
):
    n, dim, genes = shape
    queries, pairs = max(n // 2, 1), n * max(n // 2, 1)

    def solve(x, log_weight):
        z = x[:, :dim]
        return module.part(_operands(x, log_weight, z=z, query=z[:queries]))

    x = jax.ShapeDtypeStruct((n, max(dim, genes)), jnp.float32)
    log_weight = jax.ShapeDtypeStruct((n,), jnp.float32)
    text = _lowered(solve, platform, x, log_weight)
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
            return module.part(_operands(x, log_weight, spread)).total, None

        return jax.lax.scan(generation, x, jnp.linspace(0.1, 0.9, 5, dtype=x.dtype))[0]

    x = jax.ShapeDtypeStruct((3, 300, 2), jnp.float32)
    log_weight = jax.ShapeDtypeStruct((3, 300), jnp.float32)
    for wide in (False, True):
        with jax.enable_x64(wide):
            assert _lowered(generations, platform, x, log_weight).count(call) == 1


@pytest.mark.parametrize("module", [gpu, triton, tpu])
def test_kernels_say_which_problems_they_take(module):
    fits = partial(module.fits, dtype=jnp.float32)
    assert fits(2, 2)
    assert not fits(2, module.MOST_GENES + 1)
    assert not fits(module.MOST_DIMENSIONS + 1, 2)
    assert not module.fits(2, 2, jnp.bfloat16)


def test_many_genes_keep_float32s_digits_by_tensor_cores(monkeypatch):
    """Three passes of TF32 on cards that have it; doubles, and cards before, are not rounded."""
    monkeypatch.setattr(platforms, "_compute_capability", lambda: 8.0)

    def program(genes, dtype):
        x, z = (jax.ShapeDtypeStruct((6, size), dtype) for size in (genes, 2))
        log_weight = jax.ShapeDtypeStruct((6,), dtype)
        estimate = jax.jit(lambda x, z, w: de.estimate_x0(x, w, 0.5, z_t=z))
        return jax.export.export(estimate, platforms=["cuda"])(x, z, log_weight).mlir_module()

    assert re.search(
        r"lhs_precision_type = tf32.*num_primitive_operations = 3", program(1100, "f4")
    )
    with jax.enable_x64(True):
        assert "tf32" not in program(1100, "f8")
    monkeypatch.setattr(platforms, "_compute_capability", lambda: 7.5)
    assert "tf32" not in program(1101, "f4")


def _estimate_for_card(capability: float, implementation: str) -> str:
    # As many individuals as no other program: jax keeps what it has traced for a shape.
    n = round(10 * capability)
    x, log_weight = (jax.ShapeDtypeStruct(size, jnp.float32) for size in ((n, 2), (n,)))
    return _lowered(
        lambda x, w: de.estimate_x0(x, w, 0.5, implementation=implementation), "cuda", x, log_weight
    )


@pytest.mark.parametrize(
    ("capability", "kernel", "said"),
    [
        (7.5, None, "tiled: .* needs compute capability 8.0 .Ampere.; this card has 7.5"),
        (8.0, triton, "gpu: the Pallas Triton kernel for d <= 16, D <= 64; tiled"),
        (8.9, triton, "gpu: the Pallas Triton kernel"),
        (9.0, gpu, "gpu: the Pallas Mosaic kernel"),
    ],
)
def test_a_card_takes_the_kernel_of_its_generation(capability, kernel, said, monkeypatch):
    monkeypatch.setattr(platforms, "_compute_capability", lambda: capability)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert re.match(said, platforms.explain())
    for implementation in ("auto", "gpu") if kernel else ("auto",):
        text = _estimate_for_card(capability, implementation)
        assert [module for module, _, call in LOWER if call in text] == [kernel] * (
            kernel is not None
        )


def test_a_card_without_a_kernel_is_named_in_an_error(refuses, monkeypatch):
    monkeypatch.setattr(platforms, "_compute_capability", lambda: 7.5)
    with refuses("implementation"):
        _estimate_for_card(7.5, "gpu")


def test_cards_before_hopper_take_tiles_where_jax_has_no_triton(refuses, monkeypatch):
    monkeypatch.setattr(platforms, "_compute_capability", lambda: 8.6)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    monkeypatch.delattr(jax.experimental.pallas, "triton")
    monkeypatch.delitem(sys.modules, "diffevo_jax.kernels.triton")
    monkeypatch.delattr(de.kernels, "triton")
    said = "tiled: .* needs compute capability 9.0 .Hopper.; this card has 8.6"
    assert re.match(said, platforms.explain())
    assert "triton" not in _estimate_for_card(8.6, "auto")
    with refuses("implementation"):
        _estimate_for_card(8.6, "gpu")


def test_parts_of_a_gpus_supports_are_of_one_size():
    """Padding is work: at N = 16500 it once was 94 % more."""
    sizes = []

    def launch(walk, result, grid):
        def kernel(queries, enough, support, slope):
            sizes.append(support.shape[1])
            return jnp.zeros(result.shape)

        return kernel

    for n in (600, 16_500, 33_000, 65_536):
        x, log_weight = (jax.ShapeDtypeStruct(size, jnp.float32) for size in ((n, 2), (n,)))
        jax.eval_shape(lambda *args: _walk.part(_operands(*args), launch), x, log_weight)
        assert n <= sizes[-1] < 1.05 * n
