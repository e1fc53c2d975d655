"""Users' own files: they register names for configs as they are loaded (`registry.register`).

A config never runs code by itself: a file is loaded where the command line names it, kept beside
the results in the folder plugins/, and compared with that by `--resume`.
"""

import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from diffevo_jax.runner import registry
from diffevo_jax.runner.config import ConfigError
from diffevo_jax.runner.config_errors import nearest
from diffevo_jax.runner.folders import write_whole

FOLDER = "plugins"
# What has been loaded: file name -> source.
_loaded: dict[str, str] = {}


def load(paths: Iterable[Path]) -> dict[str, str]:
    """Run the files, which register their names. Returns file name -> source.

    One that has been loaded is not run again. Raises ConfigError on a file that is missing, fails,
    or registers nothing or what another has registered; the registry is then as it was.
    """
    sources = {}
    for path in paths:
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            others = [str(other) for other in path.parent.glob("*.py")]
            reason = "no such file" if isinstance(error, FileNotFoundError) else error
            raise ConfigError(f"--plugin {path}: {reason}{nearest(str(path), others)}") from None
        if path.name in sources:
            raise ConfigError(f"--plugin {path}: expected files of different names; seen two")
        sources[path.name] = source
        if _loaded.get(path.name) != source:
            _run(path)
            _loaded[path.name] = source
    return sources


def _run(path: Path) -> None:
    name = f"diffevo_jax_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--plugin {path}: expected a Python file, NAME.py")
    module = importlib.util.module_from_spec(spec)
    before = registry.snapshot()
    sys.modules[name] = module  # for pickle, which a process pool needs
    try:
        spec.loader.exec_module(module)
        if registry.snapshot() == before:
            raise ValueError("registers nothing; see diffevo_jax.runner.registry.register")
    except Exception as error:
        registry.restore(before)
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)]
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        here = [line for line, file in zip(lines, files, strict=True) if file == str(path)]
        line = getattr(error, "lineno", None) or (here[-1] if here else None)
        where = f", line {line}" if line else ""
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ConfigError(f"--plugin {path}{where}: {kind}{error}") from error


def keep(folder: Path, sources: dict[str, str]) -> None:
    """Write the files beside the results."""
    for name, source in sources.items():
        (folder / FOLDER).mkdir(exist_ok=True)
        write_whole(folder / FOLDER / name, source)


def kept(folder: Path) -> list[Path]:
    """The files that a folder keeps."""
    return sorted((folder / FOLDER).glob("*.py"))


def check_same(folder: Path, sources: dict[str, str]) -> None:
    """Raise ConfigError unless a folder keeps these files, to the letter."""
    there = {path.name: path.read_text(encoding="utf-8") for path in kept(folder)}
    if there == sources:
        return
    for name in {**there, **sources}:
        if there.get(name) != sources.get(name):
            seen = "other text" if name in there and name in sources else "one without it"
            raise ConfigError(
                f"{folder}: made with plugin {name}, and this call has {seen}; go on with "
                f"--plugin {folder / FOLDER / name}, or choose another folder"
                if name in there
                else f"{folder}: made without plugin {name}; leave --plugin out, or choose another "
                "folder"
            )
