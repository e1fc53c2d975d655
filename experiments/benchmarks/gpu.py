"""The first hour on a GPU, in 8 minutes: is it right, is it fast, and which settings are fastest.

    make bench-gpu PYTHON=python3    # writes experiments/benchmarks/results/gpu-<card>.json
    PYTHONPATH=. python3 experiments/benchmarks/gpu.py right kernel    # some stages

Every stage says what to expect on an H100: figures from compiled code (`make check-gpu`), not
measured. A number far from them is a finding. Loops and branches run as CUDA graphs; to compare,
`XLA_FLAGS=--xla_gpu_enable_command_buffer=` turns graphs off. Needs jax, numpy and absl; roll-outs
need gymnax and flax. Without a GPU it runs in small, to try this script.
"""

import argparse
import importlib.util
import inspect
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from diffevo_jax.runs.run import startup

startup.use_graphs()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from timing import device, interleaved, print_row  # noqa: E402

import diffevo_jax as de  # noqa: E402
from diffevo_jax.kernels import platforms  # noqa: E402
from diffevo_jax.kernels.geometry import make_frame  # noqa: E402
from diffevo_jax.kernels.types import Operands  # noqa: E402

ON_GPU = jax.default_backend() == "gpu"
KERNEL = platforms._card_kernel()
RESULTS = Path(__file__).parent / "results"

Rows = Iterator[dict[str, Any]]


def milliseconds(**calls: Callable[[], Any]) -> dict[str, float]:
    """Medians of calls in turn."""
    seconds = interleaved(calls, rounds=9 if ON_GPU else 1)
    return {f"{name}_ms": 1e3 * value for name, value in seconds.items()}


def population(n: int, genes: int = 2) -> tuple[jax.Array, jax.Array]:
    """Genomes `[n, D]` and mild log weights."""
    x = jax.random.normal(jax.random.key(0), (n, genes))
    return x, -jnp.sum(x[:, :2] ** 2, axis=1) / 2


def estimate(x, z, log_weight, spread, *, same: bool = True, implementation: str = "auto", **more):
    """The posterior; same: whether the queries are known to be the supports."""
    support = {} if same else {"support": x, "z_support": z}
    return de.estimate_posterior(
        x,
        log_weight,
        1 - spread,
        one_minus_alpha=spread,
        z_t=z,
        implementation=implementation,
        **support,
        **more,
    )


def right() -> Rows:
    """The compiled kernel and XLA's tiles against float64: expect errors of a spread below 1e-5.

    Beyond: 16 roundings of the log weights that decide, which are large far from the heavy.
    """
    implementations = ("gpu", "tiled") if KERNEL else ("tiled",)
    names = ("same", "implementation")
    solve = jax.jit(estimate, static_argnames=names)
    random = np.random.default_rng(0)
    shapes = [(24, 2, 2), (513, 2, 2), (1500, 1, 1), (1500, 3, 5), (1500, 2, 58), (1500, 16, 64)]
    for n, dim, genes in shapes if ON_GPU else shapes[:1]:
        z, x = (random.normal(size=(n, size)).astype(np.float32) for size in (dim, genes))
        log_weight = 3 * random.normal(size=n).astype(np.float32)
        side = np.where(np.arange(n) % 2 == 0, np.float32(1), np.float32(-1))[:, None]
        zeros = np.where(np.arange(n) % 3 == 1, -np.inf, log_weight).astype(np.float32)
        cases = {
            "cloud": (z, log_weight),
            "clusters": (0.1 * z + side, log_weight),
            "far from zero": (z + 8, log_weight),
            "a third without weight": (z, zeros),
        }
        for implementation in implementations:
            for same in (True, False):
                row: dict[str, Any] = {"n": n, "d": dim, "genes": genes}
                row |= {"implementation": implementation, "one_shift": same}
                for name, (places, weights) in cases.items():
                    row[name], allowed = 0.0, 1e-5
                    for spread in map(np.float32, (0.9, 0.5, 1e-2, 1e-4)):
                        x0 = solve(
                            x, places, weights, spread, same=same, implementation=implementation
                        ).x0
                        exact, peak = in_float64(x, places, weights, spread)
                        allowed = max(allowed, 16 * np.finfo(np.float32).eps * peak)
                        error = float(np.abs(np.asarray(x0) - exact).max() / x.std())
                        row[name] = max(row[name], error)
                    row["right"] = bool(row.get("right", True) and row[name] < allowed)
                yield row
    x = random.normal(size=(700, 2)).astype(np.float32)
    nothing = np.full(700, -np.inf, np.float32)
    x0 = solve(x, x, nothing, np.float32(0.5), implementation=implementations[0]).x0
    yield {"no weight: x0 = x": True, "right": bool((x0 == x).all())}
    levels, log_weight = np.array([0.9, 0.5, 1e-3], np.float32), x[:, 0]
    one = partial(solve, x, x, log_weight, implementation=implementations[0])
    many = jax.jit(jax.vmap(lambda spread: one(spread).x0))(levels)
    error = max(float(jnp.abs(many[i] - one(s).x0).max()) for i, s in enumerate(levels))
    yield {"vmap, largest difference": error, "right": error < 1e-5}


def in_float64(x, z, log_weight, spread) -> tuple[np.ndarray, float]:
    """Eq. 8, one individual at a time, and the largest size of a log weight that decides."""
    x, z, log_weight, spread = (np.asarray(a, np.float64) for a in (x, z, log_weight, spread))
    shrink, x0, peak = spread / (1 + np.sqrt(1 - spread)), np.empty_like(x), 0.0
    for i in range(len(z)):
        difference = (z[i] - z) + shrink * z
        log_w = log_weight - np.sum(difference**2, axis=1) / (2 * spread)
        w = np.exp(log_w - log_w.max())
        x0[i] = w @ x / w.sum()
        peak = max(peak, abs(log_w.max()))
    return x0, peak


def kernel() -> Rows:
    """The kernel alone at d = D = 2: expect 1.2 to 1.6 ms at N = 65536 with one shift, 1.6 to 2.

    For cards before Hopper, which take another kernel, nothing was worked out.
    """
    if KERNEL is None:
        print("no card from Ampere on: no kernel")
        return
    part = KERNEL.part

    def call(n: int, same: bool = True, /, **settings):
        x, log_weight = population(n)

        @jax.jit
        def run(x, log_weight):
            half = jnp.float32(0.5)
            own = log_weight if same else None
            frame = make_frame(x, x, centred=True)
            highest = jax.lax.Precision.HIGHEST
            operands = Operands(
                query=x,
                place=x,
                value=x,
                log_weight=log_weight,
                alpha=half,
                one_minus_alpha=half,
                own=own,
                frame=frame,
                precision=highest,
                latent=False,
                still=False,
                sample_size=False,
            )
            return part(operands, **settings)

        return lambda: run(x, log_weight)

    for n in (512, 16_384, 16_500, 65_536):
        yield {"n": n, **milliseconds(one_shift=call(n), running_shift=call(n, False))}
    for n in (16_384, 65_536):
        for each in (2, 4, 8):
            for supports in (4, 8):
                for blocks in (660, 1320, 2640):
                    parts = max(1, round(blocks * each * 128 / n))
                    settings = dict(queries_per_thread=each, supports_at_once=supports, parts=parts)
                    yield {"n": n, **settings, **milliseconds(kernel=call(n, **settings))}


def whole() -> Rows:
    """Estimates: expect 0.03 to 0.1 ms at N = 512, 1.4 to 1.9 at 65536, 400 at a million."""

    def call(x, log_weight, spread=0.5, **settings):
        run = jax.jit(partial(estimate, **settings))
        return lambda: run(x, x[:, :2], log_weight, jnp.float32(spread)).x0

    for n in (512, 4096, 16_384, 65_536, 1_000_000) if ON_GPU else (256,):
        x, log_weight = population(n)
        # Returns of 9 to 500 at temperature 1: far from what one shift serves.
        returns = 9 + jnp.round(15 * jax.random.exponential(jax.random.key(1), (n,)))
        returns = jnp.minimum(returns, 500).at[: n // 100].set(500)
        calls = {"auto": call(x, log_weight), "real_weights": call(x, returns, 1e-3)}
        if n <= 4096:
            calls["dense"] = call(x, log_weight, implementation="dense")
        if n <= 65_536:
            calls["tiled"] = call(x, log_weight, implementation="tiled")
        yield {"n": n, "genes": 2, **milliseconds(**calls)}
    n = 2**17 if ON_GPU else 256
    x, log_weight = population(n, 58)  # cart-pole: two latent dimensions
    calls = {name: call(x, log_weight, implementation=name) for name in ("auto", "tiled")}
    yield {"n": n, "genes": 58, **milliseconds(**calls)}
    x, log_weight = population(*((16_384, 17_410) if ON_GPU else (64, 1024)))
    presets = jax.lax.DotAlgorithmPreset
    precisions = {"float32": jax.lax.Precision.HIGHEST}
    if ON_GPU:
        precisions |= {"three_tf32": presets.TF32_TF32_F32_X3, "tf32": presets.TF32_TF32_F32}
    calls = {"default": call(x, log_weight)}
    calls |= {name: call(x, log_weight, precision=value) for name, value in precisions.items()}
    yield {"n": len(x), "genes": x.shape[1], **milliseconds(**calls)}


def rollout() -> Rows:
    """Cart-pole: expect 5 to 8 ms at 512, 20 to 25 ms at 2^17 full length: 2.5e9 to 3e9 steps/s."""
    if importlib.util.find_spec("gymnax") is None:
        print("no gymnax: no roll-outs")
        return
    from rollouts import populations

    task, policy = de.tasks.make_task("CartPole-v1"), de.policies.mlp((4, 8, 2))
    returns = jax.jit(de.tasks.make_returns(task, policy))
    for n in (512, 8192, 2**17) if ON_GPU else (64,):
        for name, x in populations(policy, n).items():
            call = partial(returns, jax.random.key(0), x)
            row = milliseconds(rollout=call)
            steps = float(jnp.sum(call())) / row["rollout_ms"] * 1e3
            yield {"n": n, "population": name, **row, "steps_per_second": steps}


def evolve() -> Rows:
    """100 generations at N = 512: expect 4 to 6 ms."""
    algorithm = de.presets.paper(
        de.schedules.cosine(100 if ON_GPU else 5), fitness_map=de.fitness.boltzmann(1.0), eta=0.1
    )

    def run(key, x):
        evolved = de.evolve(
            key, algorithm, lambda x: -jnp.sum(x**2, axis=1), x, keep=lambda info: info.t
        )
        return evolved.state.population

    (x, _), key = population(512), jax.random.key(0)
    keys = jax.random.split(key, 64 if ON_GPU else 2)
    one, many = jax.jit(run), jax.jit(jax.vmap(run, (0, None)))
    calls = {"one": lambda: one(key, x), f"{len(keys)}_seeds": lambda: many(keys, x)}
    yield milliseconds(**calls)


STAGES = {stage.__name__: stage for stage in (right, kernel, whole, rollout, evolve)}


def main() -> None:
    """Run the stages in order and write JSON after each."""
    parser = argparse.ArgumentParser(description="the first hour on a GPU")
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"of {', '.join(STAGES)}")
    parser.add_argument("--output", type=Path, help="JSON file; default: results/ by card")
    arguments = parser.parse_args()
    if unknown := set(arguments.stages) - set(STAGES):
        parser.error(f"stage: expected some of {', '.join(STAGES)}; seen {', '.join(unknown)}")
    report: dict[str, Any] = {**device(), "estimator": platforms.explain()}
    print_row(report)
    if ON_GPU:
        fields = "name,driver_version,clocks.sm,clocks.max.sm,power.limit"
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        report["card"] = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        print(report["card"])
    name = re.sub(r"\W+", "-", report["device"]).strip("-").lower()
    output = arguments.output or RESULTS / f"gpu-{name}.json"
    wrong = 0
    for stage in arguments.stages or STAGES:
        print(f"\n{stage}: {inspect.getdoc(STAGES[stage])}", flush=True)
        begin, report[stage] = time.perf_counter(), []
        for row in STAGES[stage]():
            print_row(row)
            report[stage].append(row)
            wrong += not row.get("right", True)
        print(f"{time.perf_counter() - begin:.0f} s")
        output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {output}")
    sys.exit(f"{wrong} results are wrong" if wrong else 0)


if __name__ == "__main__":
    main()
