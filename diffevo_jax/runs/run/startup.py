"""What the command line sets before JAX starts: compilation cache, CPU devices, CUDA graphs."""

import contextlib
import importlib.util
import os
from pathlib import Path


def cache_folder() -> Path:
    """Where compiled programs are kept: diffevo-jax/xla in the user's cache directory (XDG)."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".cache"
    return base / "diffevo-jax" / "xla"


def prepare(*, cache: bool) -> None:
    """Set all of it. cache: keep compiled programs."""
    use_all_cores()
    use_graphs()
    if cache:
        keep_compiled()


def keep_compiled() -> None:
    """Keep compiled programs in `cache_folder`, or where JAX_COMPILATION_CACHE_DIR says.

    A folder that can't be written costs nothing but the saving: JAX warns and compiles.
    """
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def use_all_cores() -> None:
    """Let the CPU count as one device a core, so that repeats run side by side.

    One program runs on one core for the most part: a step of a roll-out is too short to share.
    Without effect on accelerators, and once JAX has started.
    """
    import jax

    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return  # the user has said how many
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(RuntimeError):  # JAX has started: it keeps its devices
        jax.config.update("jax_num_cpu_devices", max(1, cores or 1))


def use_graphs() -> None:
    """Let a GPU run whole loops and branches by itself, as CUDA graphs.

    Else each turn of a loop has the host wait for the card. Without effect where jax has no GPU
    plugin, where the user's XLA_FLAGS say otherwise, and once JAX has started.
    """
    flag, flags = "--xla_gpu_enable_command_buffer", os.environ.get("XLA_FLAGS", "")
    if any(importlib.util.find_spec(f"jax_cuda{n}_plugin") for n in (12, 13)) and flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}=+WHILE,+CONDITIONAL".strip()
