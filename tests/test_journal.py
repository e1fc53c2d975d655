"""The journal of a search: what is on disk when a process, a disk or a user gets in between."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de
from diffevo_jax.checks import InputError
from diffevo_jax.optimize import journal as module
from diffevo_jax.optimize.journal import Journal, read

HEADER = {"parameters": [{"name": "x[0]", "low": -1.0}], "maximize": False, "seed": 0}
RECORDS = [{"x": [0.1 * i, -1.5], "cost": i / 7} for i in range(5)]


@pytest.fixture(params=["json", "orjson"])
def _encoder(request, monkeypatch):
    """Both encoders: the standard library's and the quick one."""
    if request.param == "json":
        monkeypatch.setattr(module, "orjson", None)
    else:
        pytest.importorskip("orjson")


def _written(path: Path, records=RECORDS) -> bytes:
    with Journal(path, HEADER) as journal:
        journal.append_all(records)
    return path.read_bytes()


FOREIGN = {
    '{"x": [0.1], "cost": 1.0}': "x with 2 parameters",
    '{"x": "a", "cost": 1.0}': "x with 2 parameters",
    '{"x": [0.1, [0.2]], "cost": 1.0}': "x with 2 parameters",
    '{"x": {"x[0]": 0.1, "z": 0.2}, "cost": 1.0}': "x with 2 parameters",
    "{}": "x with 2 parameters",
    '{"x": [0.1, 0.2]}': "a cost beside x",
    '{"x": [0.1, 0.2], "cost": "low"}': "numbers or null",
    '{"x": [0.1, 0.2], "cost": 1.0, "broken": true}': "numbers or null",
    '{"x": [0.1, 0.2], "cost": 1.0, "error": 3}': "a text for error",
    '{"x": [0.1, 0.2], "cost": 1.0, "number": 7}': "both number and handed",
    '{"x": [0.1, 0.2], "cost": 1.0, "number": 7, "handed": 3}': "below what was handed out",
    '{"evaluations": "many"}': "a whole number of evaluations",
    '{"restart": -1}': "a whole number of restart",
}


@pytest.mark.parametrize("line", FOREIGN, ids=str)
def test_a_line_that_no_search_has_written_is_named_and_the_file_stays(line, tmp_path):
    path = tmp_path / "a.jsonl"
    search: dict[str, Any] = {"bounds": [(-1, 1)] * 2, "evaluations": 20, "journal": path}
    de.minimize(_sphere, **search)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:6], line, *lines[7:], ""]))
    edited = path.read_bytes()
    expected = rf"journal: expected .*{FOREIGN[line]}.* in line 7 of .*a\.jsonl; mend or delete"
    for call in (lambda: de.minimize(_sphere, **search), lambda: module.read_search(path)):
        with pytest.raises(InputError, match=expected):
            call()
    with pytest.raises(InputError, match="line 7"):
        de.minimize(_sphere, search["bounds"], evaluations=20, known=path)
    assert path.read_bytes() == edited


def test_a_point_outside_of_the_bounds_is_named_before_anything_is_written(tmp_path):
    path = tmp_path / "a.jsonl"
    search: dict[str, Any] = {"bounds": [(-1, 1)] * 2, "evaluations": 20, "journal": path}
    de.minimize(_sphere, **search)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:6], '{"x":[5.0,5.0],"cost":1.0}', *lines[7:], ""]))
    edited = path.read_bytes()
    with pytest.raises(InputError, match="journal, point 4: expected a point inside bounds"):
        de.minimize(_sphere, **search)
    assert path.read_bytes() == edited


def _sphere(x: np.ndarray) -> float:
    return float(x @ x)


# The file


def test_the_first_line_is_the_header_and_each_other_a_record(tmp_path):
    header, *lines = _written(tmp_path / "a.jsonl").decode().splitlines()
    mine = {"format": "diffevo-jax search 1", "version": de.__version__}
    assert json.loads(header) == mine | HEADER
    assert [json.loads(line) for line in lines] == RECORDS


@pytest.mark.usefixtures("_encoder")
def test_every_float_is_read_back_to_the_bit(tmp_path):
    bits = np.random.default_rng(0).integers(2**64, size=3000, dtype=np.uint64)
    numbers = np.concatenate([bits.view(np.float64), [0.0, -0.0, 5e-324, 1.7976931348623157e308]])
    numbers = numbers[np.isfinite(numbers)]
    _written(tmp_path / "a", [{"x": numbers}, {"x": numbers.tolist()}, {"x": list(numbers)}])
    for record in read(tmp_path / "a")[1]:
        assert np.array(record["x"]).tobytes() == numbers.tobytes()


@pytest.mark.usefixtures("_encoder")
def test_arrays_and_numbers_of_numpy_and_jax_become_json(tmp_path):
    record = {
        "x": {"w": np.ones((2, 2), np.float32), "n": np.int64(3), "on": np.bool_(True)},
        "cost": np.float32(0.1),
        "pair": (jnp.float32(0.5), np.float64(0.25)),
        "kind": np.str_("größe"),
    }
    assert "größe".encode() in _written(tmp_path / "a", [record])
    (seen,) = read(tmp_path / "a")[1]
    x = {"w": [[1.0, 1.0], [1.0, 1.0]], "n": 3, "on": True}
    expected = {"x": x, "cost": float(np.float32(0.1)), "pair": [0.5, 0.25], "kind": "größe"}
    assert seen == expected


@pytest.mark.usefixtures("_encoder")
def test_nan_and_infinity_are_null(tmp_path):
    costs = [np.nan, np.inf, -np.inf, float("nan"), np.float32("nan"), np.array([1.0, np.nan])]
    _written(tmp_path / "a", [{"cost": cost} for cost in costs])
    seen = [record["cost"] for record in read(tmp_path / "a")[1]]
    assert seen == [None] * 5 + [[1.0, None]]


@pytest.mark.usefixtures("_encoder")
def test_what_is_rare_in_json_is_read_back(tmp_path):
    records = [{"error": "a\nb\r\u2028\x00\udc80"}, {"n": 2**80}, {"x": {1: 2}}, {}]
    _written(tmp_path / "a", records)
    assert read(tmp_path / "a")[1] == [*records[:2], {"x": {"1": 2}}, {}]
    with Journal(tmp_path / "a", HEADER) as journal, pytest.raises(TypeError):
        journal.append_all([{"x": 1}, {"x": object()}])
    assert len(read(tmp_path / "a")[1]) == 4


# Opened again


def test_a_second_opening_has_the_records_and_goes_on(tmp_path):
    before = _written(tmp_path / "a")
    with Journal(tmp_path / "a", HEADER) as journal:
        assert journal.records == RECORDS
        journal.append({"cost": 9})
    assert (tmp_path / "a").read_bytes() == before + b'{"cost":9}\n'


@pytest.mark.parametrize("number", [0.1, 1e300, 3, None, "größe", [1.5, "a"], {"a": [-2.5]}])
def test_both_encoders_write_the_same(number, monkeypatch):
    pytest.importorskip("orjson")
    quick = module._line({"x": number})
    monkeypatch.setattr(module, "orjson", None)
    assert module._line({"x": number}) == quick


def test_a_header_is_the_same_whatever_its_arrays_were_and_in_any_version(tmp_path):
    with Journal(tmp_path / "a", {"bounds": np.ones((1, 2)), "pair": (1, 2)}):
        pass
    text = (tmp_path / "a").read_text().replace(de.__version__, "0.0.9")
    (tmp_path / "a").write_text(text)
    with Journal(tmp_path / "a", {"pair": [1, 2], "bounds": [[1.0, 1.0]]}) as journal:
        journal.append({})
    assert "0.0.9" in (tmp_path / "a").read_text()


def test_another_header_is_refused_by_the_field_that_differs(tmp_path, monkeypatch, refuses):
    monkeypatch.chdir(tmp_path)
    before = _written(Path("a.jsonl"))
    long = ", ".join(f"'parameter {i}': (0, 1)" for i in range(40))
    other = long.replace("30': (0, 1)", "30': (0, 2)")
    with Journal("long.jsonl", {"bounds": long}):
        pass
    for path, header in (
        ("a.jsonl", HEADER | {"seed": 3}),
        ("a.jsonl", HEADER | {"noisy": True}),
        ("a.jsonl", {"parameters": HEADER["parameters"], "maximize": False}),
        ("long.jsonl", {"bounds": other}),
    ):
        with refuses("journal"):
            Journal(path, header)
    assert Path("a.jsonl").read_bytes() == before


@pytest.mark.parametrize("where", ["first", "last"])
def test_a_cut_at_any_byte_loses_the_cut_line_alone(tmp_path, where):
    whole = _written(tmp_path / "a")
    lines = whole.splitlines(keepends=True)
    start = 0 if where == "first" else len(whole) - len(lines[-1])
    kept = RECORDS[:-1] if where == "last" else []
    for end in range(start, start + len(lines[0 if where == "first" else -1])):
        (tmp_path / "a").write_bytes(whole[:end])
        if where == "last":
            assert read(tmp_path / "a")[1] == kept
            assert (tmp_path / "a").read_bytes() == whole[:end]
        with Journal(tmp_path / "a", HEADER) as journal:
            assert journal.records == kept
            journal.append({"cost": 0})
        assert read(tmp_path / "a")[1] == [*kept, {"cost": 0}]


def test_what_is_no_journal_or_broken_is_refused_and_left_as_it_is(tmp_path, monkeypatch, refuses):
    monkeypatch.chdir(tmp_path)
    first, second, *rest = _written(Path("a.jsonl")).splitlines(keepends=True)
    path = Path("b.jsonl")
    for content in (
        b"my thesis",
        b"my thesis\n",
        b"\x00\xff\n",
        b"[1, 2]\n",
        b'{"x": [1.0], "cost": 2.0}\n',
        first.replace(b"search 1", b"search 2"),
        first + second[:9] + b"\n" + b"".join(rest),
        first + second + b"3\n",
        first + second + b"\n" + b"".join(rest),
        first + b"\x00" * 9 + b"\n",
    ):
        path.write_bytes(content)
        with refuses("journal"):
            Journal(path, HEADER)
        with refuses("journal"):
            read(path)
        assert path.read_bytes() == content
    path.write_bytes(b"")
    with refuses("journal"):
        read(path)


# Places that cannot be written


def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch, refuses):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for path in ("folder", "no/such/a.jsonl"):
        with refuses("journal"):
            Journal(path, HEADER)

    def read_only(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", read_only)
    with refuses("journal"):
        Journal("a.jsonl", HEADER)
    assert not Path("no").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_file_without_permission_is_named(tmp_path, monkeypatch, refuses):
    monkeypatch.chdir(tmp_path)
    _written(Path("a.jsonl"))
    Path("a.jsonl").chmod(0o400)
    with refuses("journal"):
        Journal("a.jsonl", HEADER)


def test_a_full_disk_keeps_what_was_written_before(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "a"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path, HEADER) as journal:
        journal.append_all(RECORDS)
        size = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 25, before[1]))  # 25 bytes of the next
        try:
            with pytest.raises(
                OSError, match="kept: make room, and the same call goes on"
            ) as error:
                journal.append_all(RECORDS)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert error.value.filename == str(path)
        assert path.stat().st_size == size
        journal.append({"cost": 1})
    assert read(path)[1] == [*RECORDS, {"cost": 1}]


def test_half_a_line_that_cannot_be_taken_away_is_dropped_by_the_next_opening(
    tmp_path, monkeypatch
):
    write = os.write

    def half(handle: int, text: bytes) -> int:
        if len(text) < 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, text[:10])

    def stuck(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Journal(tmp_path / "a", HEADER) as journal, monkeypatch.context() as patch:
        journal.append_all(RECORDS)
        patch.setattr(os, "write", half)
        patch.setattr(os, "ftruncate", stuck)
        with pytest.raises(OSError, match="No space left") as error:
            journal.append({"cost": 0.123456789})
    assert error.value.errno == errno.ENOSPC
    assert not (tmp_path / "a").read_bytes().endswith(b"\n")
    assert read(tmp_path / "a")[1] == RECORDS
    with Journal(tmp_path / "a", HEADER) as journal:
        assert journal.records == RECORDS
    assert (tmp_path / "a").read_bytes().endswith(b"\n")


def test_an_interrupt_leaves_no_half_line(tmp_path, monkeypatch):
    write = os.write

    def interrupted(handle: int, text: bytes) -> int:
        write(handle, text[:10])
        raise KeyboardInterrupt

    with Journal(tmp_path / "a", HEADER) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                journal.append({"cost": 0.123456789})
        journal.append(RECORDS[0])
    assert read(tmp_path / "a")[1] == RECORDS[:1]


# Others


def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path, monkeypatch, refuses):
    monkeypatch.chdir(tmp_path)
    with Journal("a.jsonl", HEADER) as journal:
        journal.append(RECORDS[0])
        for header in (HEADER, {}):
            with refuses("journal"):
                Journal("a.jsonl", header)
        assert read("a.jsonl")[1] == RECORDS[:1]
        journal.append(RECORDS[1])
    with Journal("a.jsonl", HEADER) as journal:
        assert journal.records == RECORDS[:2]


def test_windows_locks_a_byte_far_behind_the_records(tmp_path, monkeypatch, refuses):
    monkeypatch.chdir(tmp_path)
    places = []

    class Windows:
        LK_NBLCK = 2

        @staticmethod
        def locking(handle: int, mode: int, count: int) -> None:
            places.append((os.lseek(handle, 0, os.SEEK_CUR), mode, count))
            if len(places) > 1:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(module, "fcntl", None)
    monkeypatch.setattr(module, "msvcrt", Windows)
    with Journal("a.jsonl", HEADER) as journal:
        journal.append(RECORDS[0])
        with refuses("journal"):
            Journal("a.jsonl", HEADER)
    assert places == [(module.FAR, 2, 1)] * 2
    assert read("a.jsonl")[1] == RECORDS[:1]


def test_without_locks_a_file_beside_stands_for_one(tmp_path, monkeypatch, refuses):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "fcntl", None)
    monkeypatch.setattr(module, "msvcrt", None)
    with Journal("a.jsonl", HEADER):
        with refuses("journal"):
            Journal("a.jsonl", HEADER)
        assert Path("a.jsonl.lock").exists()
    assert not Path("a.jsonl.lock").exists()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.warns(UserWarning, match="can't be locked"):
        Journal(tmp_path / "a", HEADER).close()


# Importing JAX takes seconds, so the process that is killed is forked each time.
KILLS = """
import os, random, signal, struct, sys, time
from diffevo_jax.optimize.journal import Journal, read

draw = random.Random(0)

def record(i):
    return {"i": i, "x": [i / 7]}

def write(path, pipe):
    with Journal(path, {}) as journal:
        i = len(journal.records)
        while True:
            count = 5 if i % 3 else 1
            if count == 1:
                journal.append(record(i))
            else:
                journal.append_all(map(record, range(i, i + count)))
            i += count
            os.write(pipe, struct.pack("q", i))

for kill in range(20):
    path = sys.argv[1] + str(kill % 5)
    reader, pipe = os.pipe()
    child = os.fork()
    if child == 0:
        write(path, pipe)
    os.close(pipe)
    returned = os.read(reader, 8)
    time.sleep(draw.uniform(0, 0.005))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as rest:
        returned += rest.read()
    (count,) = struct.unpack("q", returned[-8:])
    records = read(path)[1]
    assert count <= len(records) <= count + 5, (count, len(records))
    assert records == [record(i) for i in range(len(records))]
print(len(records))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks what it kills")
def test_twenty_kills_lose_nothing_that_append_returned_for(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", KILLS, str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_that_lives_on_does_not_hold_the_file(tmp_path):
    script = """
import os, signal, sys
from diffevo_jax.optimize.journal import Journal

reader, pipe = os.pipe()
owner = os.fork()
if owner == 0:
    journal = Journal(sys.argv[1], {})
    child = os.fork()
    if child == 0:
        os.write(pipe, b"%d" % os.getpid())
        signal.pause()
    signal.pause()
child = int(os.read(reader, 20))
os.kill(owner, signal.SIGKILL)
os.waitpid(owner, 0)
try:
    Journal(sys.argv[1], {}).close()
finally:
    os.kill(child, signal.SIGKILL)
"""
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# What it costs


def test_the_disk_is_waited_for_at_most_once_a_second_and_at_the_end(tmp_path, monkeypatch):
    clock, syncs = [100.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(os, "fsync", lambda handle: syncs.append(round(clock[0] - 100, 3)))
    with Journal(tmp_path / "a", HEADER) as journal:
        for _ in range(50):
            clock[0] += 0.0505
            journal.append(RECORDS[0])
    assert syncs == [0, 1.01, 2.02, 2.525]


@pytest.mark.usefixtures("_encoder")
def test_points_that_end_together_are_the_lines_that_records_would_be(tmp_path):
    random = np.random.default_rng(0)
    for shape in ((1, 1), (1, 3), (7, 1), (40, 5)):
        x = random.normal(size=shape) * 10.0 ** random.integers(-300, 300, shape)
        x[0, 0] = 2.0
        records = [{"x": row, "cost": cost} for row, cost in zip(x, x.sum(axis=1), strict=True)]
        with Journal(tmp_path / "a", {}) as journal:
            journal.append_all(records)
        with Journal(tmp_path / "b", {}) as journal:
            journal.append_points(np.asfortranarray(x), x.sum(axis=1))
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_append_is_one_write_that_has_happened_when_it_returns(tmp_path, monkeypatch):
    write, sizes = os.write, []

    def counted(handle: int, text: bytes) -> int:
        sizes.append(len(text))
        return write(handle, text)

    monkeypatch.setattr(os, "write", counted)
    with Journal(tmp_path / "a", HEADER) as journal:
        before = len(sizes)
        journal.append(RECORDS[0])
        assert len(sizes) == before + 1
        journal.append_all(RECORDS)
        assert len(sizes) == before + 2
        assert (tmp_path / "a").stat().st_size == sum(sizes)
