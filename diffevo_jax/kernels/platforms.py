"""Which implementation runs on which platform."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import jax

from diffevo_jax.checks import InputError
from diffevo_jax.kernels import lattice, nearby, tiled
from diffevo_jax.kernels.types import Operands, Sums

# Compute capabilities. Mosaic GPU needs Hopper; Triton, and TF32, Ampere.
LEAST_MOSAIC_CAPABILITY = 9.0
LEAST_TRITON_CAPABILITY = 8.0
LEAST_TENSOR_CAPABILITY = 8.0
# Individuals from which on an accelerator takes the lattice: by arithmetic, a millisecond's work of
# all pairs on a Hopper; not measured. And queries that fill one.
LEAST_FOR_LATTICE = 2**17
QUERIES_AT_ONCE = 8192


def fastest(operands: Operands) -> Sums:
    """Sum with the fastest implementation for the platform that the function is lowered for.

    What a CUDA card can do is known only where it is present: lowering for one elsewhere
    (`jax.export`) takes the tiles, which run on all.
    """
    branches = _over_all_pairs(operands)
    if lattice.takes(operands):
        for platform in branches:
            if platform == "cpu" or len(operands.query) >= LEAST_FOR_LATTICE:
                branches[platform] = lambda operands, _: on_lattice(operands)
    return jax.lax.platform_dependent(operands, None, **branches)


def on_lattice(operands: Operands) -> Sums:
    """Sum at the nodes of a lattice, by the platform's sums over all pairs."""

    def on_cpu(operands: Operands, count: jax.Array) -> Sums:
        return nearby.part(operands, count)

    def in_blocks(add_up: Callable[[Operands, jax.Array | None], Sums]):
        """Sum at the first of the queries, as many at once as fill an accelerator."""

        def part(operands: Operands, count: jax.Array) -> Sums:
            def block(query: jax.Array) -> Sums:
                return add_up(replace(operands, query=query), None)

            n, size = len(operands.query), min(QUERIES_AT_ONCE, len(operands.query))
            query = tiled.cut(operands.query, size, mode="edge")
            sums = nearby.first(block, query, -(-count // size))
            return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], sums)

        return part

    branches = {name: in_blocks(part) for name, part in _over_all_pairs(operands).items()}
    return lattice.part(
        operands,
        lambda operands, count: jax.lax.platform_dependent(
            operands, count, **branches | {"cpu": on_cpu}
        ),
    )


def _over_all_pairs(operands: Operands) -> dict[str, Callable[[Operands, jax.Array | None], Sums]]:
    """Make each platform's fastest sums over all pairs."""
    shape = operands.query.shape[1], operands.value.shape[1], operands.value.dtype
    branches = _tiles()
    kernel = _card_kernel()
    if kernel and kernel.fits(*shape):
        branches["cuda"] = lambda operands, _: on_gpu(operands)
    if _tpu().fits(*shape):
        branches["tpu"] = lambda operands, _: on_tpu(operands)
    return branches


def on_xla(operands: Operands, shift: jax.Array | None = None) -> Sums:
    """Sum with XLA's tiles, in the sizes of the platform that the function is lowered for."""
    return jax.lax.platform_dependent(operands, shift, **_tiles())


def _tiles() -> dict[str, Callable[[Operands, jax.Array | None], Sums]]:
    """Make the sums by XLA's tiles for each platform."""

    def tiles(blocks: tiled.Blocks):
        return lambda operands, shift: tiled.part(operands, blocks=blocks, shift=shift)

    def on_cpu(operands: Operands, shift: jax.Array | None) -> Sums:
        small = len(operands.query) <= tiled.SMALL.query
        return tiles(tiled.SMALL if small else tiled.CPU)(operands, shift)

    tensor_cores = _compute_capability() >= LEAST_TENSOR_CAPABILITY
    default = tiles(tiled.ACCELERATOR)  # where it is the same function, it is traced once
    cuda = tiles(tiled.NVIDIA) if tensor_cores else default
    return {"cpu": on_cpu, "cuda": cuda, "default": default}


def on_gpu(operands: Operands) -> Sums:
    """Sum with the kernel for this machine's cards; lowering it for others is an error of JAX's."""
    kernel = _gpu()
    assert kernel is not None  # `check` was asked
    return jax.lax.platform_dependent(operands, cuda=kernel.part)


def on_tpu(operands: Operands) -> Sums:
    """Sum with the Pallas TPU kernel; lowering it for anything but a TPU is an error of JAX's."""
    return jax.lax.platform_dependent(operands, tpu=_tpu().part)


def check_machine(implementation: str) -> None:
    """Raise InputError where this machine's default device is not the kernel's."""
    if implementation not in ("gpu", "tpu"):
        return
    platform = jax.default_backend()
    if implementation != platform:
        raise InputError(
            "implementation",
            f"one of this machine, a {platform}",
            f"{implementation!r}, the kernel for a {implementation.upper()}",
            "'auto' takes the fastest of each platform, 'tiled' runs on all",
        )


def check(implementation: str, n: int, m: int, dim: int, genes: int, dtype) -> None:
    """Raise InputError where a kernel does not take such arrays, or the card cannot run it.

    A machine without a card may lower for one elsewhere.
    """
    if implementation == "lattice":
        lattice.check(n, m, dim, dtype)
    if implementation not in ("gpu", "tpu"):
        return
    module = _gpu() if implementation == "gpu" else _tpu()
    if module is None:
        raise InputError(
            "implementation",
            f"a card of {_least_card()} or higher for 'gpu'",
            _compute_capability(),
            "'auto' takes any",
        )
    if module.fits(dim, genes, dtype):
        return
    raise InputError(
        "implementation",
        f"float32 with at most {module.MOST_DIMENSIONS} dimensions and {module.MOST_GENES} "
        f"genes for {implementation!r}",
        f"{dtype}, {dim} and {genes}",
        "'auto' takes any",
    )


def explain() -> str:
    """Say in one line what "auto" takes on this machine's default device, and why."""
    on_cpu = jax.default_backend() == "cpu"
    least = (
        f"d <= {dim} from {number if on_cpu else max(number, LEAST_FOR_LATTICE):,} individuals on"
        for dim, number in zip((2, 3), lattice.LEAST_QUERIES[1:], strict=True)
    )
    return f"{_explain_all_pairs()}; lattice: {', '.join(least)}"


def _explain_all_pairs() -> str:
    platform = jax.default_backend()
    tiles = "tiled: XLA in tiles, exact with O(N) memory"
    if platform == "tpu":
        few = f"d <= {_tpu().MOST_DIMENSIONS}, D <= {_tpu().MOST_GENES}"
        return f"tpu: the Pallas kernel for {few}; {tiles} beyond"
    if platform != "gpu":
        return f"{tiles} (kernels exist for GPUs from Ampere on and for TPUs; this is a {platform})"
    kernel = _card_kernel()
    if kernel is None:
        seen = _compute_capability()
        return f"{tiles} (the kernel needs {_least_card()}; this card has {seen})"
    few = f"d <= {kernel.MOST_DIMENSIONS}, D <= {kernel.MOST_GENES}"
    return f"gpu: the Pallas {kernel.BACKEND} kernel for {few}; {tiles} beyond"


def _compute_capability() -> float:
    """Return the least compute capability of this machine's CUDA cards; 0 without one."""
    try:
        devices = jax.local_devices(backend="cuda")
    except RuntimeError:
        return 0.0
    return min(float(getattr(device, "compute_capability", 0)) for device in devices)


# Imported where used: Pallas takes a second to load, and its GPU half may change under us.
def _gpu() -> ModuleType | None:
    """Import what "gpu" names: the kernel of this machine's cards, of Hopper's without a card."""
    return _card_kernel() if _compute_capability() else _mosaic()


def _card_kernel() -> ModuleType | None:
    """Import the kernel of this machine's cards, None where it has none."""
    capability = _compute_capability()
    if capability >= LEAST_MOSAIC_CAPABILITY:
        return _mosaic()
    return _triton() if capability >= LEAST_TRITON_CAPABILITY else None


def _mosaic() -> ModuleType:
    from diffevo_jax.kernels import gpu

    return gpu


def _triton() -> ModuleType | None:
    try:
        from diffevo_jax.kernels import triton
    except ImportError:  # jax has announced that it will leave
        return None
    return triton


def _tpu() -> ModuleType:
    from diffevo_jax.kernels import tpu

    return tpu


def _least_card() -> str:
    """Name the oldest cards that this jax has a kernel for."""
    return f"compute capability {'8.0 (Ampere)' if _triton() else '9.0 (Hopper)'}"
