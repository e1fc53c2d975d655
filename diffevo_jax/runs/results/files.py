"""Folders of results: files written whole, one process at a time, settings told apart."""

import fnmatch
import os
import shlex
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from diffevo_jax.runs.config.schema import ConfigError

Arrays = dict[str, np.ndarray]


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all. Raises OSError."""
    replace(path, lambda file: file.write(text.encode()))


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Save arrays as .npz, whole or not at all. Raises OSError."""
    replace(path, lambda file: np.savez(file, **arrays))  # pyright: ignore[reportArgumentType]


def replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file whole or not at all, also where the machine stops."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # a full disk names none
        raise


def holds_only(folder: Path, *patterns: str) -> bool:
    """Whether a folder holds nothing, or nothing but what its path in it says, `plugins/*`."""
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    return all(any(fnmatch.fnmatchcase(path, each) for each in patterns) for path in paths)


@contextmanager
def lock(path: Path, folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder alone by a file in it, or by itself; freed however the process ends.

    A file says who holds it. A file system without locks is named and stops nothing.
    Raises ConfigError when another process holds it.
    """
    path.parent.mkdir(exist_ok=True)
    try:
        import fcntl
    except ModuleNotFoundError:  # not of Unix
        say(f"note: {folder} can't be locked on this system: see that one process uses it")
        yield
        return
    named = path != folder
    handle = os.open(path, os.O_RDWR | os.O_CREAT if named else os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 1000).decode() if named else ""
            raise ConfigError(
                f"{folder}: in use by {holder or 'another process'}; wait until it ends, or "
                "choose another folder"
            ) from None
        except OSError as error:
            say(f"note: {folder} can't be locked ({error.strerror}): see that one process uses it")
        if named:
            os.truncate(path, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        os.close(handle)


def quoted(path: str | Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def differences(there: Any, here: Any) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, by their dotted keys: (there, here), "nothing" where there is none."""
    there, here, missing = flat(there), flat(here), "nothing"
    return {
        key: (there.get(key, missing), here.get(key, missing))
        for key in {**there, **here}
        if there.get(key, missing) != here.get(key, missing)
    }


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted keys."""
    if not isinstance(settings, dict) or not settings:
        return {prefix: settings}
    leaves = {}
    for key, value in settings.items():
        leaves |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves
