"""One population on 1 to 8 devices: memory, bytes between them, agreement; and what saving costs.

    python experiments/benchmarks/scaling.py --output results.json

Strong scaling splits one population over more devices, weak scaling gives each device as many
individuals. Without accelerators the devices are virtual ones of the CPU. They share its cores, so
that seconds say nothing there; memory, as the compiler counts it for each device, does, and so do
the bytes that collectives bring to it.

A checkpoint's cost is the processor time, of all threads, by which a run that saves often exceeds
one that does not, for each checkpoint; its share is that of one a minute, the default.
"""

import argparse
import json
import math
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from timing import device, print_row

import diffevo_jax as de
from diffevo_jax.kernels import sharded

LATENT = 2
# An array type, or a tuple of them, in front of the collectives that the estimate uses.
COLLECTIVE = re.compile(r"= (\S.*?) (collective-permute|all-gather)(?:-start)?\(")
ARRAY = re.compile(r"(?:f|u|s)32\[([0-9,]*)\]")


def program(mesh: Mesh | None, n: int, genes: int) -> Any:
    """One compiled step, (key, population, fitness) -> (population, its estimate)."""
    evolution = de.presets.paper(
        de.schedules.cosine(10),
        fitness_map=de.fitness.boltzmann(1.0),
        projection=de.latent.random_projection(jax.random.key(1), genes, LATENT),
        mesh=mesh,
    )

    def step(key, population, fitness):
        state, info = evolution.step(key, evolution.init(key, population), fitness)
        return state.population, info.x0

    rows = None if mesh is None else de.sharding.rows(mesh)
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=rows) for shape in ((n, genes), (n,))
    ]
    return jax.jit(step).lower(jax.random.key(0), *shapes).compile()


def received(compiled: Any, devices: int) -> int:
    """Bytes that collectives of the estimate bring to a device in one step, large ones only."""
    total = 0
    for types, kind in COLLECTIVE.findall(compiled.as_text()):
        size = sum(
            4 * math.prod(int(length) for length in shape.split(",") if length)
            for shape in ARRAY.findall(types)
        )
        # A ring passes its share on once for every device; of a gather all but a share is new.
        total += size * devices if kind == "collective-permute" else size * (devices - 1) // devices
    return total


def measure(way: str, scaling: str, devices: int, n: int, genes: int) -> dict[str, Any]:
    """A row: memory a device, bytes received, difference from one device."""
    sharded.GATHERED_BYTES = {"ring": 0, "gather": 2**40}[way]
    jax.clear_caches()
    mesh = Mesh(jax.devices()[:devices], ("individuals",))
    key_x, key_f, key = jax.random.split(jax.random.key(0), 3)
    population = np.asarray(jax.random.normal(key_x, (n, genes)))
    fitness = np.asarray(3 * jax.random.normal(key_f, (n,)))
    compiled = program(mesh, n, genes)
    memory = compiled.memory_analysis()
    split = [jax.device_put(x, de.sharding.rows(mesh)) for x in (population, fitness)]
    result = jax.block_until_ready(compiled(key, *split))
    begin = time.perf_counter()
    jax.block_until_ready(compiled(key, *split))
    seconds = time.perf_counter() - begin
    expected = program(None, n, genes)(key, population, fitness)
    difference = np.concatenate(
        [np.asarray(a) - np.asarray(b) for a, b in zip(result, expected, strict=True)]
    )
    sizes = {
        name: getattr(memory, f"{name}_size_in_bytes") for name in ("argument", "output", "temp")
    }
    row = {
        "way": way,
        "scaling": scaling,
        "devices": devices,
        "n": n,
        "genes": genes,
        "dim": LATENT,
        **{f"{name}_mib": size / 2**20 for name, size in sizes.items()},
        "total_mib": sum(sizes.values()) / 2**20,
        "received_mib": received(compiled, devices) / 2**20,
        "difference_rms": float(np.sqrt(np.mean(difference**2)) / population.std()),
        "difference_most": float(np.abs(difference).max() / population.std()),
        "seconds_sharing_cores": seconds,
    }
    print_row(row)
    return row


def checkpoint(n: int, genes: int, generations: int, every: int) -> dict[str, Any]:
    """A row: processor seconds a checkpoint, the first one's import of Orbax shared by all."""
    config = f"""
name: checkpoint_cost
description: what saving costs
seed: 0
repeats: 1
population_size: {n}
problem: {{name: function, function: rastrigin, num_genes: {genes}}}
algorithm:
  name: paper
  schedule: {{num_levels: {generations}}}
  fitness_map: {{name: boltzmann}}
  latent_dim: 2
save_populations: 0
methods: {{diffusion_evolution: {{label: Diffusion Evolution}}}}
figure: {{ylabel: fitness}}
"""

    def seconds(every: int) -> float:
        """Processor time of one run in a process of its own; compiled before."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config.yaml"
            path.write_text(config)
            command = [sys.executable, "-m", "diffevo_jax", "run", str(path)]
            command += ["--out", f"{folder}/run", "--set", f"checkpoint.every={every}"]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    for steps in (every, generations):  # keeps the compiled programs
        seconds(steps)
    rounds = [(seconds(every), seconds(generations)) for _ in range(5)]
    often, never = (statistics.median(times) for times in zip(*rounds, strict=True))
    saves = generations // every - 1
    row = {
        "n": n,
        "genes": genes,
        "saves": saves,
        "cpu_seconds_a_checkpoint": (often - never) / saves,
        "share_at_one_a_minute": (often - never) / saves / 60,
    }
    print_row(row)
    return row


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description="one population on 1 to 8 devices")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--quick", action="store_true", help="small populations")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 8)  # of a CPU; accelerators are as many as there are
    counts = [devices for devices in (1, 2, 4, 8) if devices <= len(jax.devices())]
    n, genes = (2048, 64) if arguments.quick else (16_384, 256)
    rows = [
        measure(way, scaling, devices, n if scaling == "strong" else n // 8 * devices, genes)
        for way in ("ring", "gather")
        for scaling in ("strong", "weak")
        for devices in counts
    ]
    cases = [(4096, 2, 200, 10)] if arguments.quick else [(4096, 2, 200, 10), (256, 17_410, 40, 4)]
    saving = [checkpoint(*case) for case in cases]
    if arguments.output:
        report = {**device(), "rows": rows, "checkpoints": saving}
        arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
