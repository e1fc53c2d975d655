"""The configs that come with the package: where they are, what they say, and those to start from.

`configs/*.yaml` are found by name; `configs/starters/*.yaml` are what `diffevo-jax init` copies.
"""

import contextlib
import re
from pathlib import Path

from diffevo_jax.checks import InputError, nearest
from diffevo_jax.runs.config import yaml as yaml_loader


def config_folder() -> Path:
    """The folder of the configs that come with the package: in a checkout, or installed."""
    package = Path(__file__).resolve().parents[2]
    installed, checkout = package / "configs", package.parent / "configs"
    return installed if installed.is_dir() else checkout


def shown(path: Path) -> str:
    """A config as messages name it: one of the package by its name, any other by its path."""
    return path.stem if path.parent == config_folder() else str(path)


def _by_name(folder: Path) -> dict[str, Path]:
    """The configs of a folder, by their names."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_config(name: str) -> Path:
    """A file or a run's or sweep's folder, or else a config of the package, by its file name."""
    path = Path(name)
    if (path / "config.yaml").is_file():
        return path / "config.yaml"
    shipped = _by_name(config_folder())
    return path if path.is_file() else shipped.get(name.removesuffix(".yaml"), path)


def hint(path: Path) -> str:
    """Say which config may have been meant by a path where there is none."""
    near = nearest(str(path), [*sorted(path.parent.glob("*.yaml")), *_by_name(config_folder())])
    return near or "; `diffevo-jax list` shows the configs"


def summaries(folder: Path) -> list[tuple[str, str, str]]:
    """Read what the configs of a folder say of themselves; the rest is checked where they run.

    Name, the command that runs it, and description of each.
    """
    lines = []
    for name, path in _by_name(folder).items():
        data = None
        with contextlib.suppress(OSError, yaml_loader.YamlError):
            data = yaml_loader.read(path)
        data = data if isinstance(data, dict) else {"description": "not readable"}
        command = "sweep" if "sweep" in data else "run"
        lines.append((name, command, str(data.get("description", ""))))
    return lines


def starters() -> dict[str, Path]:
    """The configs to start from, by their problems."""
    return _by_name(config_folder() / "starters")


def starter(name: str, problem: str, path: Path) -> str:
    """The text of a commented config of a name, to be written to `path`. Raises InputError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", name):
        raise InputError("NAME", "letters, digits, - and _", repr(name), "see --out")
    known = starters()
    if problem not in known:
        advice = nearest(problem, known).removeprefix("; ")
        raise InputError("--problem", f"one of {', '.join(known)}", problem, advice)
    text = known[problem].read_text(encoding="utf-8")
    text = text.replace("my_experiment.yaml", str(path), 1)
    return text.replace("name: my_experiment\n", yaml_loader.dump({"name": name}), 1)
