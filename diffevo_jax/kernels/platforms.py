"""Which implementation runs on which platform."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any, NoReturn

import jax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from diffevo_jax.kernels import tiled
from diffevo_jax.kernels.types import Problem, Sums

# Mosaic GPU needs Hopper, TF32 Ampere.
LEAST_COMPUTE_CAPABILITY = 9.0
LEAST_TENSOR_CAPABILITY = 8.0


def fastest(problem: Problem) -> Sums:
    """The fastest for the platform that the function is lowered for.

    A CUDA card is known only where it is present: lowering for one elsewhere (`jax.export`) takes
    the tiles, which run on all.
    """
    shape = problem.query.shape[1], problem.value.shape[1], problem.value.dtype
    branches = _tiles()
    if _compute_capability() >= LEAST_COMPUTE_CAPABILITY and _gpu().fits(*shape):
        branches["cuda"] = lambda problem, _: on_gpu(problem)
    if _tpu().fits(*shape):
        branches["tpu"] = lambda problem, _: on_tpu(problem)
    return jax.lax.platform_dependent(problem, None, **branches)


def on_xla(problem: Problem, shift: jax.Array | None = None) -> Sums:
    """XLA's tiles, in the sizes of the platform that the function is lowered for."""
    return jax.lax.platform_dependent(problem, shift, **_tiles())


def _tiles() -> dict[str, Callable[[Problem, jax.Array | None], Sums]]:
    """XLA's tiles by platform."""

    def tiles(blocks: tiled.Blocks):
        return lambda problem, shift: tiled.part(problem, blocks=blocks, shift=shift)

    def on_cpu(problem: Problem, shift: jax.Array | None) -> Sums:
        small = len(problem.query) <= tiled.SMALL.query
        return tiles(tiled.SMALL if small else tiled.CPU)(problem, shift)

    tensor_cores = _compute_capability() >= LEAST_TENSOR_CAPABILITY
    return {
        "cpu": on_cpu,
        "cuda": tiles(tiled.NVIDIA if tensor_cores else tiled.ACCELERATOR),
        "default": tiles(tiled.ACCELERATOR),
    }


def on_gpu(problem: Problem) -> Sums:
    """The Mosaic GPU kernel. Raises ValueError where it is lowered for anything but CUDA."""
    return jax.lax.platform_dependent(problem, cuda=_gpu().part, default=partial(_refused, "gpu"))


def on_tpu(problem: Problem) -> Sums:
    """The Pallas TPU kernel. Raises ValueError where it is lowered for anything but a TPU."""
    return jax.lax.platform_dependent(problem, tpu=_tpu().part, default=partial(_refused, "tpu"))


def _refused(implementation: str, problem: Problem) -> Sums:
    alpha = _elsewhere.bind(problem.alpha, implementation=implementation)
    return tiled.part(replace(problem, alpha=alpha), blocks=tiled.ACCELERATOR)


def _refuse(context: Any, *_: Any, implementation: str) -> NoReturn:
    seen = ", ".join(context.module_context.platforms)
    raise ValueError(
        f"implementation: {implementation!r} is a kernel for a {implementation.upper()}, and this "
        f"runs on: {seen}; 'auto' takes the fastest of each platform, 'tiled' runs on all"
    )


# Which platform it will be is known when a function is lowered, and no earlier.
_elsewhere = Primitive("elsewhere")
_elsewhere.def_abstract_eval(lambda alpha, **_: alpha)
batching.defvectorized(_elsewhere)
mlir.register_lowering(_elsewhere, _refuse)


def check(implementation: str, dim: int, genes: int, dtype) -> None:
    """Raise ValueError where a kernel does not take such arrays, or this machine's card not it.

    Without a card nothing is known of it: lowering for one elsewhere is allowed.
    """
    seen = _compute_capability() if implementation == "gpu" else 0
    if 0 < seen < LEAST_COMPUTE_CAPABILITY:
        raise ValueError(
            f"implementation: 'gpu' needs compute capability {LEAST_COMPUTE_CAPABILITY} (Hopper) "
            f"or higher; seen {seen}; 'auto' takes any"
        )
    module = {"gpu": _gpu, "tpu": _tpu}.get(implementation)
    if module is None or module().fits(dim, genes, dtype):
        return
    raise ValueError(
        f"implementation: {implementation!r} takes float32 with at most "
        f"{module().MOST_DIMENSIONS} dimensions and {module().MOST_GENES} genes; seen "
        f"{dtype}, {dim} and {genes}; 'auto' takes any"
    )


def explain() -> str:
    """Which implementation "auto" takes on this machine's default device, and why, in one line."""
    platform = jax.default_backend()
    tiles = "tiled: XLA in tiles, exact with O(N) memory"
    if platform == "tpu":
        few = f"d <= {_tpu().MOST_DIMENSIONS}, D <= {_tpu().MOST_GENES}"
        return f"tpu: the Pallas kernel for {few}; {tiles} beyond"
    if platform != "gpu":
        return f"{tiles} (kernels exist for GPUs from Hopper on and for TPUs; this is a {platform})"
    seen = _compute_capability()
    if seen < LEAST_COMPUTE_CAPABILITY:
        return f"{tiles} (the kernel needs compute capability 9.0, Hopper; this card has {seen})"
    few = f"d <= {_gpu().MOST_DIMENSIONS}, D <= {_gpu().MOST_GENES}"
    return f"gpu: the Pallas Mosaic kernel for {few}; {tiles} beyond"


def _compute_capability() -> float:
    """The least of this machine's CUDA cards; 0 without one."""
    try:
        devices = jax.local_devices(backend="cuda")
    except RuntimeError:
        return 0.0
    return min(float(getattr(device, "compute_capability", 0)) for device in devices)


# Imported where used: Pallas takes a second to load, and its GPU half may change under us.
def _gpu() -> ModuleType:
    from diffevo_jax.kernels import gpu

    return gpu


def _tpu() -> ModuleType:
    from diffevo_jax.kernels import tpu

    return tpu
