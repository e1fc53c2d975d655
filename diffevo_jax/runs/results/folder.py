"""Run folders: what a run leaves behind, written once and never overwritten.

config.yaml        the resolved config; `diffevo-jax run` takes it again
plugins/           the files that it was run with, if any (`--plugin`)
environment.json   versions, device, git commit, times, and whether the run is complete
metrics.csv        tidy: a row per method, repeat and generation
METHOD.npz         fitness [S, T, N], success_rate [S, T] where the problem has one; the best
                   individual of all generations, best_genome [S, D] and best_fitness [S]; of
                   control tasks the last generation's best, reevaluated_genome [S, D], and its
                   fresh episodes, reevaluated_return, reevaluated_success [S, E]; of normalised
                   observations observation_steps, _mean and _variance [S, ...]; of the repeats
                   whose populations are kept, final_population [S', N, D] and what else the
                   method leaves: final_x0 [S', N, D], archive_points, ...
tensorboard/       with --log tensorboard, scalars of every generation (`scalars.py`)
figure.png, .pdf   drawn from the files above alone
archive.png, .pdf  where behaviour fills archives: QD score, coverage and heat maps
checkpoints/       until the run is complete, what `--resume` needs (`checkpoints.py`)

Each file but metrics.csv is written whole or not at all, so that a killed run leaves none damaged.
"""

import csv
import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
import zipfile
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diffevo_jax.runs.config import yaml as yaml_loader
from diffevo_jax.runs.config.schema import ConfigError, RunConfig
from diffevo_jax.runs.results.fields import ARRAYS, METRICS, metrics
from diffevo_jax.runs.results.files import (
    Arrays,
    holds_only,
    quoted,
    replace,
    write_arrays,
    write_whole,
)

# What a run that was killed before its config.yaml may leave.
_BEGUN = ("checkpoints", "checkpoints/lock", "config.yaml.partial", "plugins", "plugins/*")
_VERSIONS = ("diffevo-jax", "jax", "jaxlib", "flax", "gymnax", "evosax", "numpy")


def create(out: Path | None, name: str, *, resume: bool = False) -> Path:
    """Make a new run folder: `out`, or runs/NAME-DATE-TIME.

    resume: take `out` as it is where it holds a run, or nothing but the beginning of one.
    Raises ConfigError if it exists otherwise.
    """
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    stems = itertools.chain([stem], (f"{stem}-{count}" for count in itertools.count(2)))
    for folder in [out] if out is not None else (Path("runs") / each for each in stems):
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"--out {folder}: {error.strerror or error}") from None
    assert out is not None
    begun = out.is_dir() and is_begun(out)
    if begun and resume:
        return out
    reason = "exists and is no run folder, it holds no config.yaml; choose another folder"
    if begun:
        reason = (
            "exists, and a run is never overwritten; choose another folder, or go on with what it "
            "holds: --resume"
        )
    elif not out.is_dir():
        reason = "expected a folder; seen a file"
    raise ConfigError(f"--out {out}: {reason}")


def is_begun(folder: Path) -> bool:
    """Whether a folder holds a run, or no more than a run leaves that was killed at its start."""
    return (folder / "config.yaml").exists() or holds_only(folder, *_BEGUN)


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds a run that did not come to its end."""
    return (folder / "config.yaml").is_file() and (
        read_environment(folder).get("status") != "complete"
    )


def write_config(folder: Path, config: RunConfig | dict[str, Any], source: str) -> None:
    """Save a run's resolved config, or that of a sweep as it was called, ready to run again."""
    command, data = "sweep", config
    if isinstance(config, RunConfig):
        command, data = "run", config.model_dump()
    path = folder / "config.yaml"
    header = f"# diffevo-jax {command} {quoted(path)}\n# From {' '.join(source.split())}\n"
    write_whole(path, header + yaml_loader.dump(data))


def write_environment(folder: Path, record: dict[str, Any]) -> None:
    """Save versions, device and commit beside what the run says of itself."""
    record["written"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_whole(folder / "environment.json", json.dumps(record, indent=2) + "\n")


def read_environment(folder: Path) -> dict[str, Any]:
    """Read what a run says of itself; nothing where it had not come to that."""
    try:
        return json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise ConfigError(f"{folder / 'environment.json'}: not readable: {error}") from None


def write_method(folder: Path, name: str, repeats: Arrays, populations: Arrays) -> None:
    """Add a method's rows to metrics.csv and save its arrays; once they are there, it is whole.

    repeats: arrays of `fields`, `[S, ...]`. populations: those that are kept, `[S', ...]`.
    """
    path = folder / "metrics.csv"
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["method", "repeat", "generation", *METRICS])
        if new:
            writer.writeheader()
        for repeat, generation in np.ndindex(repeats["fitness"].shape[:2]):
            place = {"method": name, "repeat": repeat, "generation": generation + 1}
            writer.writerow(place | metrics(repeats, repeat, generation))
    kept = {key: value for key, value in repeats.items() if key in ARRAYS}
    write_arrays(folder / f"{name}.npz", kept | populations)


def drop_rows(folder: Path, *, keep: Iterable[str]) -> None:
    """Leave only the rows of these methods in metrics.csv: of the others they may be cut short."""
    path = folder / "metrics.csv"
    if path.exists():
        header, *rows = path.read_bytes().splitlines(keepends=True) or [b""]
        kept = tuple(f"{name},".encode() for name in keep)
        text = b"".join([header, *(row for row in rows if row.startswith(kept))])
        replace(path, lambda file: file.write(text)) if kept else path.unlink()


def read_arrays(path: Path, *names: str) -> Arrays:
    """Read the arrays of a .npz, all of them or those of the names. Raises ConfigError."""
    try:
        zipfile.ZipFile(path).close()  # of what is none NumPy says how to unpickle it
        with np.load(path) as file:
            return {name: file[name] for name in file.files if name in names or not names}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"{path}: not readable as results: {error}") from None


def load(folder: Path, *names: str) -> tuple[RunConfig, dict[str, Arrays]]:
    """Read a run folder: its config, and the arrays of each method that has any.

    names: the arrays to read; none reads all.
    Raises ConfigError when it is not a run folder or holds no results.
    """
    from diffevo_jax.runs.config import experiment

    if folder_kind(folder) == "sweep":
        raise ConfigError(
            f"{folder}: the folder of a sweep, not of a run; its results.csv has a row per point, "
            f"method and repeat, and `diffevo-jax plot {quoted(folder)}` draws it"
        )
    config = experiment.load(folder / "config.yaml", registry=None).config
    paths = {name: folder / f"{name}.npz" for name in config.methods}
    arrays = {name: read_arrays(path, *names) for name, path in paths.items() if path.exists()}
    for name, each in arrays.items():
        fitness = each.get("fitness", np.zeros(0))
        if fitness.ndim != 3 or fitness.size == 0 or fitness.dtype.kind not in "fiu":
            raise ConfigError(
                f"{paths[name]}: not readable as results: fitness: expected numbers of shape "
                f"[S, T, N]; seen {fitness.dtype} of shape {fitness.shape}"
            )
    if not arrays:
        raise ConfigError(f"{folder}: holds no results; no repeat had finished")
    return config, arrays


def folder_kind(folder: Path) -> Literal["run", "sweep"]:
    """Say what a folder holds. Raises ConfigError, with what to do, where it is neither."""
    config = folder / "config.yaml"
    if config.is_file():
        try:
            data = yaml_loader.read(config)
        except (OSError, yaml_loader.YamlError) as error:
            raise ConfigError(f"{config}: {error}") from None
        return "sweep" if isinstance(data, dict) and "sweep" in data else "run"
    problem = "expected a run folder; seen a file" if folder.exists() else "no such folder"
    inside = folder.parent
    if folder.is_dir():
        problem, inside = "not a run folder, it holds no config.yaml", folder
    near = sorted(inside.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime)
    names = ", ".join(str(path.parent) for path in near[:-4:-1])
    advice = "`diffevo-jax run CONFIG` makes one and prints its name"
    raise ConfigError(f"{folder}: {problem}; {f'the newest near it: {names}' if near else advice}")


def finished_repeats(folder: Path) -> dict[str, int]:
    """Read how many repeats of each method a run folder holds."""
    methods = read_environment(folder).get("methods", {})
    return {name: method["finished_repeats"] for name, method in methods.items()}


def environment() -> dict[str, Any]:
    """Versions, devices and the commit of the code."""
    import jax

    devices = jax.devices()
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _VERSIONS},
        },
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "backend": jax.default_backend(),
        "device": devices[0].device_kind,
        "device_count": len(devices),
        **settings_of_jax(),
        "git_commit": _git_commit(),
    }


def settings_of_jax() -> dict[str, Any]:
    """Whether JAX computes in 64 bits, and its generator of keys: other ones are other numbers."""
    import jax

    settings: Any = jax.config
    return {
        "x64": bool(settings.jax_enable_x64),
        "generator": str(settings.jax_default_prng_impl),
    }


def other_settings_of_jax(there: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Those that an environment.json has otherwise: the variable that sets it -> (there, here)."""
    variables = {"x64": "JAX_ENABLE_X64", "generator": "JAX_DEFAULT_PRNG_IMPL"}
    return {
        variables[key]: (there[key], value)
        for key, value in settings_of_jax().items()
        if there.get(key) not in (None, value)
    }


def _version(name: str) -> str | None:
    """Version of a package; None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the checkout that the package runs from, with + for changes; None elsewhere."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    git = partial(subprocess.run, cwd=root, capture_output=True, text=True, check=True)
    try:
        commit = git(["git", "rev-parse", "HEAD"]).stdout.strip()
        return commit + ("+" if git(["git", "status", "--porcelain"]).stdout else "")
    except (OSError, subprocess.CalledProcessError):
        return None
