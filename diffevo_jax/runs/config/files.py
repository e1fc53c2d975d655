"""Where configs are: those of the package by name, others by path."""

import contextlib
from pathlib import Path

from diffevo_jax.runs.config import yaml as yaml_loader


def config_folder() -> Path:
    """The folder of the configs that come with the package: in a checkout, or installed."""
    package = Path(__file__).resolve().parent.parent
    installed, checkout = package / "configs", package.parent / "configs"
    return installed if installed.is_dir() else checkout


def shown(path: Path) -> str:
    """A config as messages name it: one of the package by its name, any other by its path."""
    return path.stem if path.parent == config_folder() else str(path)


def find_config(name: str) -> Path:
    """A file or a run's or sweep's folder, or else a config of the package, by its file name."""
    path = Path(name)
    if (path / "config.yaml").is_file():
        return path / "config.yaml"
    shipped = {path.stem: path for path in config_folder().glob("*.yaml")}
    if name.removesuffix(".yaml") in shipped and not path.is_file():
        return shipped[name.removesuffix(".yaml")]
    return path


def summaries(folder: Path) -> list[tuple[str, str, str]]:
    """Read what the configs of a folder say of themselves; the rest is checked where they run.

    Name, the command that runs it, and description of each.
    """
    found = []
    for path in sorted(folder.glob("*.yaml")):
        command, told = "run", "not readable"
        with contextlib.suppress(OSError, yaml_loader.YamlError):
            data = yaml_loader.read(path)
            if isinstance(data, dict):
                command = "sweep" if "sweep" in data else "run"
                told = str(data.get("description", ""))
        found.append((path.stem, command, told))
    return found
