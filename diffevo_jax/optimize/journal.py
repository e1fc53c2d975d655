"""A search's evaluations on disk, as they end: JSON lines, a header first.

    {"format":"diffevo-jax search 1","version":"0.1.0","parameters":...,"seed":0,...}
    {"evaluations":2000}
    {"x":[0.25,-1.5],"cost":0.123,"seconds":4.56}

A line of evaluations is a budget, one of `restart` a search that begins anew with so many
evaluations known; an evaluation may also have `broken`, `error`, `seconds`, and its `number` with
how many were `handed` out by then. Strict JSON in UTF-8: NaN and infinity are null, and every float
is read back to the bit.
"""

import json
import math
import os
import time
import warnings
import weakref
from collections.abc import Iterable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

import numpy as np

import diffevo_jax
from diffevo_jax.checks import InputError

try:
    import fcntl
except ModuleNotFoundError:  # not of Unix
    fcntl: Any = None
try:
    import msvcrt
except ModuleNotFoundError:  # not of Windows
    msvcrt: Any = None
try:
    import orjson
except ModuleNotFoundError:  # the standard library writes the same, ten times slower
    orjson: Any = None

FORMAT = "diffevo-jax search 1"
SYNC_SECONDS = 1.0  # the least time between two waits for the disk
NUMBERS = ("cost", "broken", "seconds")  # of an evaluation
FAR = 2**40  # where Windows locks a byte: others cannot read what it locks


class Journal:
    """A file of records that one process appends to.

    An append returns when the operating system has the records: a process that is killed loses
    none. The disk has them a second later at most, while more are appended, and on `close`: a power
    cut loses no more than the last of them. A new file is made where there is none.

    path: the file. header: what the records belong to; a file there must have the same.
    records: those that the file had when it was opened. A last line that was cut is dropped.

    Raises InputError on a file that is no journal, has another header or a broken line, or that
    another process writes, and leaves it as it is; OSError where an append cannot be written: the
    file ends with the append before.

        with Journal("search.jsonl", {"seed": 0}) as journal:
            journal.append({"x": [0.25, -1.5], "cost": 0.123})
    """

    records: list[dict]

    def __init__(self, path: str | os.PathLike, header: dict):
        first = _line({"format": FORMAT, "version": diffevo_jax.__version__, **header})
        self._path = Path(path)
        self._synced = -math.inf
        self._lock_file = None
        self._handle = _opened(self._path)
        _here.add(self)
        try:
            self._lock_file = _lock(self._handle, self._path)
            data = self._path.read_bytes()
            if first.startswith(data):  # new, or killed before it had its header
                self.records, self._size = [], 0
                os.ftruncate(self._handle, 0)
                self._write(first)
            else:
                there, self.records, self._size = _parsed(self._path, data)
                _check_same(self._path, there, json.loads(first))
                os.ftruncate(self._handle, self._size)
        except BaseException:
            self._release()
            raise

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def append(self, record: dict) -> None:
        """Write one record; arrays and NumPy's numbers are lists and numbers in the file."""
        self._write(_line(record))

    def append_all(self, records: Iterable[dict]) -> None:
        """Write records at once, all or none, for less than an append each."""
        self._write(b"".join(map(_line, records)))

    def append_points(self, x: np.ndarray, costs: np.ndarray) -> None:
        """Write `{"x": [...], "cost": ...}` for each of x `[N, P]` and costs `[N]`, finite ones.

        Their text is made at once: objects for each record take twice as long.
        """
        points = _text(x)[2:-2].split(b"],[")
        pairs = zip(points, _text(costs)[1:-1].split(b","), strict=True)
        self._write(b'{"x":[' + b'}\n{"x":['.join(map(b'],"cost":'.join, pairs)) + b"}\n")

    def close(self) -> None:
        """Wait for the disk, close the file and let other processes have it."""
        if self._handle >= 0:
            try:
                os.fsync(self._handle)
            finally:
                self._release()

    def _write(self, text: bytes) -> None:
        """Write whole lines or nothing."""
        try:
            left = text
            while left:
                left = left[os.write(self._handle, left) :]
            self._size += len(text)
            now = time.monotonic()
            if now - self._synced >= SYNC_SECONDS:
                os.fsync(self._handle)
                self._synced = now
        except BaseException as error:
            self._cut()
            if not isinstance(error, OSError):
                raise
            kept = "what was evaluated before is kept: make room, and the same call goes on"
            raise OSError(error.errno, f"{error.strerror}; {kept}", str(self._path)) from error

    def _cut(self) -> None:
        """Take half a line away."""
        with suppress(OSError):  # then the next opening does
            os.ftruncate(self._handle, self._size)

    def _release(self) -> None:
        """Close the file as it is, and with it its lock."""
        os.close(self._handle)
        self._handle = -1
        if self._lock_file is not None:
            self._lock_file.unlink()


def read(path: str | os.PathLike) -> tuple[dict, list[dict]]:
    """Read a journal's header and records, also while a process writes it.

    Raises InputError on a file that is no journal or has a broken line; OSError.
    """
    header, records, _ = _parsed(Path(path), Path(path).read_bytes())
    return header, records


def read_search(path: str | os.PathLike) -> tuple[dict, list[dict]]:
    """Read the journal of a search: `read`, whose records are looked at by `check_records`."""
    header, records = read(path)
    check_records(path, header, records)
    return header, records


def check_records(path: str | os.PathLike, header: dict, records: list[dict]) -> None:
    """Raise InputError on the first record that no search has written: somebody else has."""
    advice = "mend or delete the line, or take another file"
    try:
        names = [each["name"] for each in header["parameters"]]
    except (KeyError, TypeError):
        seen = f"{header.get('parameters')!r:.60} in {path}"
        raise InputError("journal", "parameters in the first line", seen, advice) from None
    for number, record in enumerate(records, 2):
        if expected := _lacks(record, names):
            seen = f"{json.dumps(record):.100} in line {number} of {path}"
            raise InputError("journal", expected, seen, advice)


def _lacks(record: dict, names: list[str]) -> str:
    """Say what a record of a search with these parameters should be; nothing where it is."""
    for field in ("evaluations", "restart"):
        if field in record:
            return "" if _is_whole(record[field]) else f"a whole number of {field}"
    x = record.get("x")
    if isinstance(x, dict):
        is_point = x.keys() <= set(names) and not any(
            isinstance(value, dict | list) for value in x.values()
        )
    else:
        is_point = isinstance(x, list) and len(x) == len(names) and all(map(_is_number, x))
    if not is_point:
        return f"x with {len(names)} parameters"
    if not all(record.get(name) is None or _is_number(record[name]) for name in NUMBERS):
        return f"numbers or null for {', '.join(NUMBERS)}"
    if "cost" not in record:
        return "a cost beside x, null for a failure"
    if not isinstance(record.get("error", ""), str):
        return "a text for error"
    place = record.get("number", 0), record.get("handed", 1)
    if ("number" in record) != ("handed" in record) or not all(map(_is_whole, place)):
        return "both number and handed, whole numbers"
    return "" if place[0] < place[1] else "a number below what was handed out"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


# The journals of this process. A fork has none of them, or its copy would hold the lock for longer.
_here: weakref.WeakSet[Journal] = weakref.WeakSet()


def _forget() -> None:
    for journal in list(_here):
        if journal._handle >= 0:
            os.close(journal._handle)
            journal._handle = -1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    try:
        if path.exists() and not path.is_file():
            raise InputError("journal", "a file", f"{path}, which is none", "name a file in it")
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        advice = "make the folder first"
        raise InputError(
            "journal", "a file in a folder", f"no folder {path.parent}", advice
        ) from None
    except OSError as error:
        expected, seen = "a file that can be written", f"{path}: {error.strerror}"
        advice = "take another place, or let this one be written"
        raise InputError("journal", expected, seen, advice) from None


def _lock(handle: int, path: Path) -> Path | None:
    """Lock a file, or raise InputError; the lock ends with the process.

    Returns the file that stands for the lock, and may outlive it, where the system has none.
    """
    advice = "wait until it ends, or take another file"
    try:
        if fcntl:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt:
            os.lseek(handle, FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            beside = path.with_name(path.name + ".lock")
            advice = f"wait until it ends, or delete {beside} if none does"
            os.close(os.open(beside, os.O_CREAT | os.O_EXCL))
            return beside
    except (BlockingIOError, PermissionError, FileExistsError):
        seen = f"{path}, which another process writes"
        raise InputError("journal", "a file for this process alone", seen, advice) from None
    except OSError as error:
        reason = f"{path} can't be locked ({error.strerror})"
        warnings.warn(f"journal: {reason}: see that one process writes it", stacklevel=4)


def _parsed(path: Path, data: bytes) -> tuple[dict, list[dict], int]:
    """Read header, records, and how many bytes their lines have; a last line that is cut is not."""
    size = data.rfind(b"\n") + 1
    values = []
    for number, line in enumerate(data[:size].split(b"\n")[:-1], 1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if number == 1 and not (isinstance(value, dict) and value.get("format") == FORMAT):
            break
        if not isinstance(value, dict):
            seen = f"{bytes(line[:60])!r} in line {number} of {path}"
            advice = "mend or delete the line, or take another file"
            raise InputError("journal", "a record in every line", seen, advice)
        values.append(value)
    if not values:
        seen = f"{path}, which begins with {data[:40]!r}" if data else f"{path}, which is empty"
        expected = f"a new file, or one whose first line has the format {FORMAT!r}"
        raise InputError("journal", expected, seen, "take another file")
    return values[0], values[1:], size


def _check_same(path: Path, there: dict, ours: dict) -> None:
    """Raise InputError on the first field of the headers that differs, but for the version."""
    for name in {**ours, **there}:
        one, other = (repr(each[name]) if name in each else "nothing" for each in (ours, there))
        if name != "version" and one != other:
            pairs = zip(one, other, strict=False)
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            start = max(same - 20, 0)
            one, other = ("..." * (start > 0) + each[start : same + 60] for each in (one, other))
            seen = f"{other} in {path}, of another search"
            raise InputError("journal", f"{name} {one}", seen, "take another file, or delete it")


def _line(record: dict) -> bytes:
    """Encode a record."""
    if orjson is not None:
        with suppress(TypeError):  # whole numbers of over 64 bits, keys or text beyond UTF-8
            return orjson.dumps(record, _plain, orjson.OPT_APPEND_NEWLINE)
    text = json.dumps(_plain(record), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _text(values: np.ndarray) -> bytes:
    """Encode an array of finite floats."""
    if orjson is not None:
        return orjson.dumps(np.ascontiguousarray(values), None, orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(values.tolist(), separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """Turn arrays and NumPy's numbers into Python's, and what is not finite into None."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
