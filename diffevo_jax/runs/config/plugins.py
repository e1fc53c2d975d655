"""Users' own files: they register names for configs as they are loaded (`registry.register`).

A config never runs code by itself: a file is loaded where the command line names it, kept beside
the results in the folder plugins/, and compared with that by `--resume`.
"""

import sys
import traceback
import types
from collections.abc import Iterable
from pathlib import Path

from diffevo_jax.checks import nearest
from diffevo_jax.environments._names import OWN
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.config.schema import ConfigError
from diffevo_jax.runs.results.files import write_whole

FOLDER = "plugins"


def load(paths: Iterable[Path]) -> dict[str, str]:
    """Run the files, which register their names. Returns file name -> source.

    One that has been run is not run again. Raises ConfigError on a file that is missing, fails, or
    registers nothing or what another has registered; the registry is then as it was.
    """
    sources = {}
    for path in paths:
        if path.suffix != ".py":
            raise ConfigError(f"--plugin {path}: expected a Python file, NAME.py")
        try:
            source = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            near = nearest(str(path), path.parent.glob("*.py"))
            raise ConfigError(f"--plugin {path}: no such file{near}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--plugin {path}: {error}") from None
        if path.name in sources:
            raise ConfigError(f"--plugin {path}: expected files of different names; seen two")
        sources[path.name] = source
        if registry.plugins.get(path.name, ("", None))[1] != source:
            _run(path, source)
    return sources


def _run(path: Path, source: str) -> None:
    file, before, own = str(path.resolve()), dict(registry.entries), dict(OWN)
    module = types.ModuleType(f"diffevo_jax_plugin_{path.stem}")
    module.__file__ = file
    sys.modules[module.__name__] = module  # for pickle, which a process pool needs
    try:
        exec(compile(source, file, "exec"), vars(module))
        if registry.entries == before and own == OWN:
            raise ValueError("registers nothing; see diffevo_jax.runs.config.registry.register")
    except (Exception, SystemExit) as error:
        registry.entries = before
        OWN.clear()
        OWN.update(own)
        del sys.modules[module.__name__]
        lines = [frame.lineno for frame in _frames(error, {file})]
        line = getattr(error, "lineno", None) or (lines and lines[-1])  # of a SyntaxError, or ours
        where = f", line {line}" if line else ""
        raise ConfigError(f"--plugin {path}{where}: {_message(error)}") from error
    registry.plugins[path.name] = (file, source)


def located(error: Exception) -> str | None:
    """What an error says, and where in a plugin it came up; None where no plugin is in use."""
    if not registry.plugins:
        return None
    frames = _frames(error, {file for file, _ in registry.plugins.values()})
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return _message(error) + where


def _message(error: BaseException) -> str:
    """The beginning of what an error says, after its type where it is none for users."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:297]}..."
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _frames(error: BaseException, files: set[str]) -> list[traceback.FrameSummary]:
    """The places in some files that an error came through."""
    return [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files]


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
    for name in {**there, **sources}:
        if name not in there:
            advice = f"made without plugin {name}; leave that one out, or choose another folder"
            raise ConfigError(f"{folder}: {advice}")
        if there[name] != sources.get(name):
            seen = "has another text of it" if name in sources else "does not name it"
            raise ConfigError(
                f"{folder}: made with plugin {name}, and this call {seen}; go on with --plugin "
                f"{folder / FOLDER / name}, or choose another folder"
            )
