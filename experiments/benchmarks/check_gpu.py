"""Compile for cards without one: what a GPU would run, as tables; fail where it got worse.

    make check-gpu    # three minutes, after one of installation

Of the kernels, Mosaic's for an H100 and Triton's for cards before it, from their machine code:
registers, spills, instructions a pair in the two inner loops.
Of an estimate and of a generation, from XLA's schedule: kernels, CUDA graphs (command buffers), and
loops and branches outside of them, for each of which the host waits for the card.

jax compiles for a card that it is only told of. It takes jax-cuda13-plugin and jax-cuda13-pjrt of
jax's version, nvidia-cuda-nvcc (ptxas), nvidia-nvvm and nvidia-cuda-nvdisasm; no driver.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

# d, D, whether squares of weights are summed: most instructions a pair with one shift, and running.
MOSAIC = {
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
TRITON = {
    (1, 1, False): (7.04, 9.69),
    (1, 1, True): (8.07, 10.94),
    (2, 2, False): (10.44, 13.19),
    (2, 2, True): (11.44, 14.44),
    (2, 3, True): (12.69, 15.82),
    (4, 4, True): (18.44, 21.69),
    (8, 8, True): (32.44, 36.19),
    (2, 16, True): (29.13, 36.63),
    (16, 16, True): (60.75, 68.25),
    (2, 30, True): (46.75, 57.75),
    (2, 58, False): (89.25, 109.75),
    (2, 58, True): (91.25, 112.75),
    (16, 64, True): (243.5, 273.0),
}
MOST_TIMES_IDEAL = 1.4  # instructions a pair at d = D = 2
# Card, N, d, D: whole estimates and generations. Those of 58 dimensions are XLA's tiles.
PROGRAMS = [
    ("H100", 512, 2, 2),
    ("H100", 65_536, 2, 2),
    ("H100", 65_536, 2, 58),
    ("H100", 512, 58, 58),
    ("H100", 65_536, 58, 58),
    ("A100", 65_536, 2, 2),
]
GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,WHILE,CONDITIONAL"


class Card(NamedTuple):
    """What XLA asks of a card. Bandwidth in bytes a second; memory and caches in bytes."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    threads: int
    cores: int
    shared: int
    bandwidth: int
    cache: int
    memory: int
    clock_ghz: float


CARDS = {
    "H100": Card(
        "NVIDIA H100 80GB HBM3", (9, 0), 132, 2048, 128, 233_472, 3_352_320_000_000,
        52_428_800, 84_942_979_072, 1.98,
    ),
    "A100": Card(
        "NVIDIA A100-SXM4-40GB", (8, 0), 108, 2048, 64, 167_936, 1_555_000_000_000,
        41_943_040, 42_949_672_960, 1.41,
    ),
    "RTX 3090": Card(
        "NVIDIA GeForce RTX 3090", (8, 6), 82, 1536, 128, 102_400, 936_000_000_000,
        6_291_456, 25_769_803_776, 1.695,
    ),
    "RTX 4090": Card(
        "NVIDIA GeForce RTX 4090", (8, 9), 128, 1536, 128, 102_400, 1_008_000_000_000,
        75_497_472, 25_769_803_776, 2.52,
    ),
}  # fmt: skip
REGISTERS = 65_536  # of a multiprocessor


def target(card: Card) -> str:
    """Write a card down as XLA does."""
    major, minor = card.capability
    features = "ACCELERATED_FEATURES" if major >= 9 else "NONE"
    return f"""gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: {card.threads}
  shared_memory_per_block: 49152 shared_memory_per_core: {card.shared}
  shared_memory_per_block_optin: {card.shared - 1024} core_count: {card.multiprocessors}
  fpus_per_core: {card.cores}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: {REGISTERS} registers_per_block_limit: {REGISTERS}
  memory_bandwidth: {card.bandwidth} l2_cache_size: {card.cache} device_memory_size: {card.memory}
  clock_rate_ghz: {card.clock_ghz} device_address_bits: 64
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {features} }}
  device_vendor: "NVIDIA Corporation" name: "{card.name}" driver_version: "13.0.0"
  runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0" dnn_version: "9.12.0" }}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 12 }}
device_description_str: "{card.name}" """


def mosaic_code(folder: Path) -> tuple[str, str]:
    """What ptxas says of Mosaic's kernel, and its machine code."""
    (report,), (sass,) = folder.glob("*.ptxas"), folder.glob("*.sass*")
    return report.read_text(), sass.read_text()


def triton_code(folder: Path, card: Card) -> tuple[str, str]:
    """The same of Triton's kernel, of which XLA leaves PTX."""
    (ptx,) = (path for path in folder.glob("*.ptx") if ".entry body(" in path.read_text())
    arch, binary = "-arch=sm_{}{}".format(*card.capability), ptx.with_suffix(".cubin")

    def call(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, check=True)

    report = call("ptxas", "-v", arch, ptx, "-o", binary).stderr
    return report, call("nvdisasm", "-c", binary).stdout


def loops(sass: str) -> Iterator[Counter]:
    """Opcodes of each loop of a disassembled kernel."""
    opcodes: list[str] = []
    starts: dict[str, int] = {}
    for line in sass.splitlines():
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
    from diffevo_jax.kernels import _walk, gpu, platforms, triton
    from diffevo_jax.kernels.geometry import make_frame
    from diffevo_jax.kernels.types import Operands

    devices = {
        name: topologies.get_topology_desc(
            platform="cuda", topology_name=name, target_config=target(card), topology="1x1x1"
        ).devices[0]
        for name, card in CARDS.items()
    }

    def shape(*size, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(size, dtype)

    def compile(card: str, function, *args, graphs: str | None = None):
        for name in ("kernel", "program"):
            shutil.rmtree(dumps / name, ignore_errors=True)
            (dumps / name).mkdir()
        options: dict[str, str | bool] = {}
        if graphs:
            options["xla_gpu_enable_command_buffer"] = graphs
        # "auto" asks the machine's cards, and jax keeps what it took for the last one.
        major, minor = CARDS[card].capability
        platforms._compute_capability = lambda: major + minor / 10
        jax.clear_caches()
        sharding = SingleDeviceSharding(devices[card])
        args = jax.tree.map(
            lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding), args
        )
        lowered = jax.jit(function).trace(*args).lower(lowering_platforms=("cuda",))
        lowered.compile(compiler_options=options or None)

    def kernel(card: str, dim: int, genes: int, squared: bool) -> dict[str, Any]:
        module = gpu if card == "H100" else triton

        def part(x, z, log_weight, alpha, one_minus_alpha):
            frame = make_frame(z, x, centred=True)
            return module.part(
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
        compile(card, part, shape(n, genes), shape(n, dim), shape(n), shape(), shape())
        if module is gpu:
            report, sass = mosaic_code(dumps / "kernel")
        else:
            report, sass = triton_code(dumps / "program", CARDS[card])
        registers = max(map(int, re.findall(r"Used (\d+) registers", report)))
        # A power of two a pair; with a running shift one more a query and round.
        each = _walk.QUERIES_PER_THREAD
        chunks, at_once = _walk.split_genes(dim, genes)
        pairs = each * _walk.supports_in_flight(dim, at_once)
        sizes = {count["MUFU"]: chunks * sum(count.values()) / pairs for count in loops(sass)}
        return {
            "card": card,
            "d": dim,
            "D": genes,
            "squares": "yes" if squared else "no",
            "registers": registers,
            "spilled bytes": sum(map(int, re.findall(r"(\d+) bytes spill", report))),
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
    for card in CARDS:
        for case, (one, running) in (MOSAIC if card == "H100" else TRITON).items():
            row = kernel(card, *case)
            rows.append(row)
            name = f"{card}: the kernel for d, D, squares = {case}"
            if row["spilled bytes"]:
                worse.append(f"{name} spills registers")
            seen = row["instructions a pair, one shift"], row["running shift"]
            if seen[0] > one or seen[1] > running:
                worse.append(
                    f"{name} has {seen[0]:.2f} and {seen[1]:.2f} instructions a pair, "
                    f"noted are {one} and {running}"
                )
            if case[:2] == (2, 2) and seen[0] > MOST_TIMES_IDEAL * row["ideal"]:
                worse.append(f"{name} has more than {MOST_TIMES_IDEAL} times the ideal")
    print_table(rows)

    rows = []
    for card, *case in PROGRAMS:
        for name, function, args in program(*case):
            row = {"program": name, "card": card, **dict(zip(("N", "d", "D"), case, strict=True))}
            compile(card, function, *args)
            row["host waits by default"] = waits(dumps / "program")["host waits"]
            compile(card, function, *args, graphs=GRAPHS)
            row.update(waits(dumps / "program"))
            rows.append(row)
            if row["host waits"]:
                worse.append(f"{name} for N, d, D = {case} on {card}: the host waits")
    print_table(rows)
    shutil.rmtree(dumps)
    sys.exit("\n".join(["", *worse]) if worse else 0)


if __name__ == "__main__":
    main()
