"""Compile for an H100 without one: what the GPU would run, as tables; fail where it got worse.

    make check-gpu    # a minute, after one of installation

Of the kernel, from its machine code: registers, spills, instructions a pair in its two inner loops.
Of an estimate and of a generation, from XLA's schedule: kernels, CUDA graphs (command buffers), and
loops and branches outside of them, for each of which the host waits for the card.

jax compiles for a card that it is only told of. It takes jax-cuda13-plugin and jax-cuda13-pjrt of
jax's version, nvidia-cuda-nvcc (ptxas), nvidia-nvvm and nvidia-cuda-nvdisasm; no driver.
"""

import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# d, D, whether squares of weights are summed: most instructions a pair with one shift, and running.
KERNELS = {
    (1, 1, False): (6.44, 8.94),
    (1, 1, True): (7.44, 10.19),
    (2, 2, False): (9.69, 12.32),
    (2, 2, True): (10.69, 13.57),
    (2, 3, True): (11.69, 14.69),
    (4, 4, True): (16.94, 20.07),
    (8, 8, True): (29.44, 33.07),
    (2, 16, True): (25.63, 32.88),
    (16, 16, True): (54.82, 62.07),
    (2, 30, True): (40.63, 51.57),
    (2, 58, False): (77.13, 97.13),
    (2, 58, True): (79.13, 100.13),
    (16, 64, True): (219.25, 248.25),
}
# N, d, D: whole estimates and generations. The last are XLA's tiles.
PROGRAMS = [(512, 2, 2), (65_536, 2, 2), (65_536, 2, 58), (512, 58, 58), (65_536, 58, 58)]
GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,WHILE,CONDITIONAL"
# As XLA writes down what it finds in a card: an H100 SXM.
H100 = """gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  clock_rate_ghz: 1.98 device_address_bits: 64
  cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
  device_vendor: "NVIDIA Corporation" name: "NVIDIA H100 80GB HBM3" driver_version: "13.0.0"
  runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0" dnn_version: "9.12.0" }
platform_name: "CUDA" dnn_version_info { major: 9 minor: 12 }
device_description_str: "NVIDIA H100 80GB HBM3" """
REGISTERS = 65_536  # of a multiprocessor


def loops(path: Path) -> Iterator[Counter]:
    """Opcodes of each loop of a disassembled kernel."""
    opcodes: list[str] = []
    starts: dict[str, int] = {}
    for line in path.read_text().splitlines():
        if label := re.match(r"\s*\.(L_x_\d+):", line):
            starts[label[1]] = len(opcodes)
        elif code := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z]\w*)(.*)", line):
            opcodes.append(code[1])
            target = re.search(r"\.(L_x_\d+)", code[2])
            if code[1] == "BRA" and target and target[1] in starts:
                yield Counter(opcodes[starts[target[1]] :])


def waits(folder: Path) -> dict[str, int]:
    """Of the largest program: kernels, graphs, and host waits.

    These are branches, and loops of unknown length, that are not inside a graph.
    """

    def largest(pattern: str) -> str:
        return max(folder.glob(pattern), key=lambda path: path.stat().st_size).read_text()

    counts = dict.fromkeys(("kernels", "graphs"), 0)
    on_host, depth_of_graph = Counter(), None
    for line in largest("*thunk_sequence_after_thunk_passes.txt").splitlines():
        if not (thunk := re.match(r"(\s*)\d+: k(\w+)", line)):
            continue
        depth, kind = len(thunk[1]), thunk[2]
        if depth_of_graph is not None and depth <= depth_of_graph:
            depth_of_graph = None
        if kind == "CommandBuffer":
            depth_of_graph = depth
            counts["graphs"] += 1
        elif kind in ("While", "Conditional"):
            on_host[kind] += depth_of_graph is None
        elif kind in ("CustomKernel", "Kernel", "CustomCall", "Gemm", "CublasLtMatmul"):
            counts["kernels"] += 1
    # XLA's schedule does not say which loops know their length; its program does.
    program = largest("*gpu_after_optimizations.txt").splitlines()
    unknown = sum(" while(" in line and "known_trip_count" not in line for line in program)
    return {**counts, "host waits": on_host["Conditional"] + min(on_host["While"], unknown)}


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print rows as Markdown."""
    print("\n| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print(
            "| "
            + " | ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values())
            + " |"
        )


def main() -> None:
    """Compile, print, and fail where the numbers are worse than noted."""
    dumps = Path(tempfile.mkdtemp())
    (packages,) = importlib.util.find_spec("nvidia").submodule_search_locations  # pyright: ignore
    os.environ.update(
        JAX_PLATFORMS="cpu",
        JAX_SKIP_CUDA_CONSTRAINTS_CHECK="1",
        MOSAIC_GPU_DUMP_TO=f"{dumps}/kernel",
        MOSAIC_GPU_DUMP_PTXAS="1",
        MOSAIC_GPU_DUMP_SASS="1",
        PATH=f"{packages}/cu13/bin:{os.environ['PATH']}",
        XLA_FLAGS=f"--xla_dump_to={dumps}/program --xla_dump_hlo_as_text",
    )
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    import diffevo_jax as de
    from diffevo_jax.kernels import gpu, platforms
    from diffevo_jax.kernels.geometry import make_frame
    from diffevo_jax.kernels.types import Operands

    (device,) = topologies.get_topology_desc(
        platform="cuda", topology_name="h100", target_config=H100, topology="1x1x1"
    ).devices
    # "auto" asks the machine's cards.
    platforms._compute_capability = lambda: 9.0

    def shape(*size, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(size, dtype, sharding=SingleDeviceSharding(device))

    def compile(function, *args, graphs: str | None = None):
        for name in ("kernel", "program"):
            shutil.rmtree(dumps / name, ignore_errors=True)
            (dumps / name).mkdir()
        options: dict[str, str | bool] = {}
        if graphs:
            options["xla_gpu_enable_command_buffer"] = graphs
        lowered = jax.jit(function).trace(*args).lower(lowering_platforms=("cuda",))
        lowered.compile(compiler_options=options or None)

    def kernel(dim: int, genes: int, squared: bool) -> dict[str, Any]:
        def part(x, z, log_weight, alpha, one_minus_alpha):
            frame = make_frame(z, x, centred=True)
            return gpu.part(
                Operands(
                    query=z,
                    place=z,
                    value=x,
                    log_weight=log_weight,
                    alpha=alpha,
                    one_minus_alpha=one_minus_alpha,
                    own=log_weight,
                    frame=frame,
                    precision=None,
                    latent=True,
                    still=False,
                    sample_size=squared,
                )
            )

        n = 65_536
        compile(part, shape(n, genes), shape(n, dim), shape(n), shape(), shape())
        (report,) = (dumps / "kernel").glob("*.ptxas")
        text = report.read_text()
        registers = max(map(int, re.findall(r"Used (\d+) registers", text)))
        (sass,) = (dumps / "kernel").glob("*.sass*")
        # A power of two a pair; with a running shift one more a query and round.
        each = gpu.QUERIES_PER_THREAD
        chunks, at_once = gpu.split_genes(dim, genes)
        pairs = each * gpu.supports_in_flight(dim, at_once)
        sizes = {count["MUFU"]: chunks * sum(count.values()) / pairs for count in loops(sass)}
        return {
            "d": dim,
            "D": genes,
            "squares": "yes" if squared else "no",
            "registers": registers,
            "spilled bytes": sum(map(int, re.findall(r"(\d+) bytes spill", text))),
            "instructions a pair, one shift": sizes[pairs],
            "ideal": 2 * dim + 3 + squared + genes,
            "running shift": sizes[pairs + each],
            "blocks a multiprocessor": REGISTERS // (-(-registers // 8) * 8 * 128),
        }

    def program(n: int, dim: int, genes: int) -> Iterator[tuple[str, Any, list]]:
        projection = None if dim == genes else jnp.ones((genes, dim))
        algorithm = de.presets.paper(
            de.schedules.cosine(100), fitness_map=de.fitness.boltzmann(1.0), projection=projection
        )

        def estimate(x, log_weight, alpha, one_minus_alpha):
            z = None if projection is None else x @ projection
            return de.estimate_x0(x, log_weight, alpha, z_t=z, one_minus_alpha=one_minus_alpha)

        def generation(seed, x, t, fitness):
            key = jax.random.key(seed)
            state = algorithm.init(key, x)._replace(t=t)
            return algorithm.step(key, state, fitness)

        yield "estimate", estimate, [shape(n, genes), shape(n), shape(), shape()]
        integers = shape(dtype=jnp.uint32), shape(dtype=jnp.int32)
        yield "generation", generation, [integers[0], shape(n, genes), integers[1], shape(n)]

    worse, rows = [], []
    for case, (one, running) in KERNELS.items():
        rows.append(kernel(*case))
        if rows[-1]["spilled bytes"]:
            worse.append(f"the kernel for d, D, squares = {case} spills registers")
        seen = rows[-1]["instructions a pair, one shift"], rows[-1]["running shift"]
        if seen[0] > one or seen[1] > running:
            worse.append(
                f"the kernel for d, D, squares = {case} has {seen[0]:.2f} and {seen[1]:.2f} "
                f"instructions a pair, noted are {one} and {running}"
            )
    print_table(rows)

    rows = []
    for case in PROGRAMS:
        for name, function, args in program(*case):
            row: dict[str, Any] = {"program": name, **dict(zip(("N", "d", "D"), case, strict=True))}
            compile(function, *args)
            row["host waits by default"] = waits(dumps / "program")["host waits"]
            compile(function, *args, graphs=GRAPHS)
            row.update(waits(dumps / "program"))
            rows.append(row)
            if row["host waits"]:
                worse.append(f"{name} at N, d, D = {case}: the host waits")
    print_table(rows)
    shutil.rmtree(dumps)
    sys.exit("\n".join(["", *worse]) if worse else 0)


if __name__ == "__main__":
    main()
