"""The x0 estimate: error, speed with mild weights and with those of real runs, against other ways.

    make bench        # on a CPU: writes experiments/benchmarks/results/estimator-<device>.json
    make bench-gpu    # the same on a GPU, with larger populations

Every comparison is interleaved in one run, after a warm-up, and its ratio is of medians; errors are
against float64. evosax, and KeOps through torch, are compared where they are installed. Needs only
jax and numpy besides diffevo_jax.
"""

import argparse
import importlib.util
import json
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from timing import compiled, device, interleaved, print_row

import diffevo_jax as de

RESULTS = Path(__file__).parent / "results"
KEY = jax.random.key(0)
# The middle of a run; late, distances leave the matmul for direct differences.
LEVELS = {"middle": 0.5, "late": 1e-2}  # 1 - alpha


class Case(NamedTuple):
    """N individuals of D genes, distances in d dimensions."""

    n: int
    genes: int
    dim: int


CASES = [Case(512, 2, 2), Case(4096, 2, 2), Case(16384, 2, 2), Case(4096, 58, 58)]
CASES += [Case(1024, 17_410, 2)]
LARGE = [Case(65_536, 2, 2), Case(16_384, 17_410, 2), Case(1_000_000, 2, 2)]  # on a GPU
MOST_DENSE = 16_384  # N x N float32: 1 GiB


def mild(z: jax.Array) -> jax.Array:
    """Log weights within a few nats of each other."""
    return -jnp.sum(z**2, axis=1) / z.shape[1]


def steep(z: jax.Array) -> jax.Array:
    """Log weights of a steep function, -100 |z|^2."""
    return -100 * jnp.sum(z**2, axis=1)


def returns(z: jax.Array) -> jax.Array:
    """Log weights of cart-pole at temperature 1: returns of 9 to 500, one in a hundred at 500."""
    steps = 9 + jnp.round(15 * jax.random.exponential(KEY, z.shape[:1]))
    return jnp.minimum(steps, 500).at[: len(z) // 100].set(500) - 500


def inputs(case: Case, weigh=mild) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Genomes `[N, D]`, places `[N, d]`, log weights `[N]`."""
    key_x, key_z = jax.random.split(KEY)
    x = jax.random.normal(key_x, (case.n, case.genes))
    z = x if case.genes == case.dim else jax.random.normal(key_z, (case.n, case.dim))
    return x, z, weigh(z)


def ours(implementation: str, one_minus_alpha: float):
    """`estimate_x0` as a function of genomes, places and log weights."""

    def estimate(x, z, log_weight):
        return de.estimate_x0(
            x,
            log_weight,
            1 - one_minus_alpha,
            one_minus_alpha=one_minus_alpha,
            z_t=z,
            implementation=implementation,
        )

    return estimate


def attention(one_minus_alpha: float):
    """The same as one head of attention with a bias a key, `jax.nn.dot_product_attention`."""
    alpha = 1 - one_minus_alpha

    def estimate(x, z, log_weight):
        width = max(x.shape[1], z.shape[1])
        query = z * (np.sqrt(alpha) / one_minus_alpha)
        bias = log_weight - alpha * jnp.sum(z**2, axis=1) / (2 * one_minus_alpha)

        def head(array):
            return jnp.pad(array, [(0, 0), (0, width - array.shape[1])])[None, :, None]

        average = jax.nn.dot_product_attention(
            head(query), head(z), head(x), bias=bias[None, None, None], scale=1.0
        )
        return average[0, :, 0, : x.shape[1]]

    return estimate


def evosax(one_minus_alpha: float):
    """The estimate of evosax's DiffusionEvolution."""
    from evosax.algorithms.population_based.diffusion_evolution import estimate_x_0

    def estimate(x, z, log_weight):
        return estimate_x_0(x, z, jnp.exp(log_weight), jnp.float32(1 - one_minus_alpha))

    return estimate


def keops(case: Case, one_minus_alpha: float) -> Callable[[], Any]:
    """The same in KeOps' generated C++ or CUDA, on torch's tensors."""
    import torch  # pyright: ignore[reportMissingImports]
    from pykeops.torch import LazyTensor  # pyright: ignore[reportMissingImports]

    place = "cuda" if torch.cuda.is_available() else "cpu"
    x, z, log_weight = (torch.tensor(np.array(array), device=place) for array in inputs(case))
    keys = LazyTensor(float(np.sqrt(1 - one_minus_alpha)) * z[None])
    distance = ((LazyTensor(z[:, None]) - keys) ** 2).sum(-1)
    exponent = LazyTensor(log_weight[None, :, None]) - distance / (2 * one_minus_alpha)
    values = LazyTensor(x[None].contiguous())

    def call():
        average = exponent.sumsoftmaxweight(values, axis=1)
        if place == "cuda":
            torch.cuda.synchronize()
        return np.asarray(average.cpu())

    return call


def exact(case: Case, one_minus_alpha: float, rows: np.ndarray) -> np.ndarray:
    """The formula in float64 for some individuals, `[rows, D]`."""
    x, z, log_weight = (np.asarray(array, np.float64) for array in inputs(case))
    x0 = np.empty((len(rows), case.genes))
    for row, i in enumerate(rows):
        difference = z[i] - np.sqrt(1 - one_minus_alpha) * z
        log_w = log_weight - np.sum(difference**2, axis=1) / (2 * one_minus_alpha)
        w = np.exp(log_w - log_w.max())
        x0[row] = w @ x / w.sum()
    return x0


def limits() -> dict[str, float]:
    """What the machine reaches: powers of two and floating-point operations a second."""
    from diffevo_jax.kernels.exp2 import exp2

    terms, size = 64, 2**16 if jax.default_backend() == "cpu" else 2**24

    @jax.jit
    def powers(x):
        return sum(exp2(x - k) for k in range(1, terms + 1))

    side = 2048 if jax.default_backend() == "cpu" else 8192
    square = jnp.ones((side, side))
    product = jax.jit(partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST))
    x = jnp.linspace(0, 1, size)
    seconds = interleaved(
        {"powers": lambda: powers(x), "matmul": lambda: product(square, square)}, 11
    )
    return {
        "exp2_per_second": terms * size / seconds["powers"],
        "flops": 2 * side**3 / seconds["matmul"],
    }


def compare(case: Case, level: str, limit: dict[str, float], rounds: int) -> dict[str, Any]:
    """A row: errors, seconds, ratios, share of the limits."""
    one_minus_alpha = LEVELS[level]
    arguments = inputs(case)
    implementations = ["auto", "tiled"] if jax.default_backend() != "cpu" else ["auto"]
    functions = {name: ours(name, one_minus_alpha) for name in implementations}
    if case.n <= MOST_DENSE and case.genes < 1000:
        functions["dense"] = ours("dense", one_minus_alpha)
    if case.n <= MOST_DENSE:
        functions["attention"] = attention(one_minus_alpha)
        if importlib.util.find_spec("evosax"):
            functions["evosax"] = evosax(one_minus_alpha)
    calls, compile_seconds = {}, 0.0
    for name, function in functions.items():
        calls[name], seconds = compiled(function, *arguments)
        compile_seconds = seconds if name == "auto" else compile_seconds
    for weigh in (returns, steep):
        calls[weigh.__name__], _ = compiled(functions["auto"], *inputs(case, weigh))
    if importlib.util.find_spec("pykeops") and case.genes < 1000:
        calls["keops"] = keops(case, one_minus_alpha)

    rows = np.linspace(0, case.n - 1, 16 if case.n * case.genes > 1e8 else 64).astype(int)
    expected, spread = exact(case, one_minus_alpha, rows), float(jnp.std(arguments[0]))
    errors = {
        name: float(np.abs(np.asarray(call())[rows] - expected).max() / spread)
        for name, call in calls.items()
        if name not in ("returns", "steep")
    }
    seconds = interleaved(calls, rounds)
    pairs = case.n**2 / seconds["auto"]
    flops = 2 * (case.genes + (case.dim if case.dim > 16 else 0)) * pairs
    return {
        **case._asdict(),
        "level": level,
        "seconds": seconds["auto"],
        "compile_seconds": compile_seconds,
        "pairs_per_second": pairs,
        "share_of_exp_limit": pairs / limit["exp2_per_second"],
        "share_of_matmul_limit": flops / limit["flops"],
        # Of the time with mild weights: those of other ways, and ours with weights of real runs.
        **{f"times_{name}": s / seconds["auto"] for name, s in seconds.items() if name != "auto"},
        **{f"error_{name}": error for name, error in errors.items()},
    }


def memory(case: Case, implementation: str) -> dict[str, Any]:
    """Growth of resident memory by one estimate, MiB, in a process of its own."""
    command = [sys.executable, __file__, "--memory", *map(str, case), implementation]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {**case._asdict(), "implementation": implementation, **json.loads(output)}


def measure_memory(case: Case, implementation: str) -> dict[str, float]:
    """In this process: resident growth beyond a small estimate's, and seconds of the call."""
    estimate = ours(implementation, LEVELS["middle"])
    compiled(estimate, *inputs(Case(1024, case.genes, case.dim)))[0]()
    arguments = jax.block_until_ready(inputs(case))
    call, _ = compiled(estimate, *arguments)
    before, peak, done = resident(), 0.0, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    jax.block_until_ready(call())
    seconds = time.perf_counter() - begin
    done.set()
    watcher.join()
    return {"resident_growth_mib": max(peak, resident()) - before, "seconds": seconds}


def resident() -> float:
    """This process's resident memory, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description="error, speed and memory of the x0 estimate")
    parser.add_argument("--output", type=Path, help="JSON file; default: results/ by device name")
    parser.add_argument("--quick", action="store_true", help="the smallest cases, few rounds")
    parser.add_argument("--memory", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        *sizes, implementation = arguments.memory
        print(json.dumps(measure_memory(Case(*map(int, sizes)), implementation)))
        return

    on_cpu = jax.default_backend() == "cpu"
    report: dict[str, Any] = device()
    report["limits"] = limits()
    print_row(report["limits"])
    report["speed"] = []
    for case in CASES[:2] if arguments.quick else CASES + ([] if on_cpu else LARGE):
        for level in LEVELS if case.n < 20_000 and case.genes < 1000 else ["middle"]:
            rounds = 3 if arguments.quick or case.n > 8192 else 9
            report["speed"].append(compare(case, level, report["limits"], rounds))
            print_row(report["speed"][-1])
    if on_cpu:
        large = Case(4096 if arguments.quick else 65_536, 2, 2)
        cases = [(large, "auto"), (Case(4096, 2, 2), "dense")]
        report["memory"] = [memory(*case) for case in cases]
        for row in report["memory"]:
            print_row(row)
    else:
        statistics = jax.local_devices()[0].memory_stats() or {}
        report["peak_bytes"] = statistics.get("peak_bytes_in_use")
    name = re.sub(r"\W+", "-", report["device"]).strip("-").lower()
    output = arguments.output or RESULTS / f"estimator-{name}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
