"""Every figure and table of the paper, side by side with the published numbers, as one report.

    python -m experiments.reproduce                 # everything, into runs/reproduce
    python -m experiments.reproduce --only fig4     # one part
    python -m experiments.reproduce --quick         # few repeats, into runs/reproduce-quick

`diffevo-jax reproduce` is the same. A part is a module beside this file with TITLE, run(folder,
quick=...), which computes and saves, and section(folder), which reads that folder alone. What is
finished is not run again. A part that fails does not stop the others.
"""

import argparse
import importlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import diffevo_jax as de
from diffevo_jax.checks import nearest
from diffevo_jax.runs.config.schema import ConfigError
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.run import startup
from experiments import report

# In the paper's order; then any other module that has a section for the report.
_PAPER = ("fig2", "fig3", "fig4", "temperature", "schedules", "control")
_MODULES = sorted(Path(__file__).parent.glob("*.py"))
_FOUND = [path.stem for path in _MODULES if "\ndef section(" in path.read_text(encoding="utf-8")]
NAMES = (*_PAPER, *(name for name in _FOUND if name not in _PAPER))
STAMP = "part.json"
ABSENT = "not in this checkout"
TEXT = "Every figure and table of the paper, beside the published numbers."
# Raise it when a part's files change their meaning: folders written before are then left alone.
FORMAT = 2


class Stamp(NamedTuple):
    """What a part's folder says of itself: what wrote it, how, and whether it is complete.

    commit: of the checkout that computed it; empty where that is not known. remark: nothing writes
    it; who knows more of how it was computed puts it in by hand, and the report says it.
    """

    version: str
    quick: bool
    status: str
    seconds: float = 0.0
    format: int = FORMAT
    commit: str = ""
    remark: str = ""


_KINDS = (str, bool, str, float | int, int, str, str)


def reproduce(
    only: list[str] | None = None,
    *,
    quick: bool = False,
    out: Path | None = None,
    say: Callable[[str], Any] = print,
) -> list[str]:
    """Run the parts that are asked for, and write report.html and report.md on all in the folder.

    only: names out of NAMES; None or empty is all. out: folder of the report, one folder a part.

    Returns the names of the parts asked for that failed or were skipped. Raises ConfigError on an
    unknown name.
    """
    for name in only or []:
        if name not in NAMES:
            hint = nearest(name, NAMES) or "."
            raise ConfigError(f"--only {name}: no such part{hint} Parts: {', '.join(NAMES)}")
    out = out or Path("runs") / ("reproduce-quick" if quick else "reproduce")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror or error}") from None

    parts, failed = [], []
    for name in NAMES:
        asked = name in only if only else True
        part = _part(name, out / name, asked=asked, quick=quick, say=say)
        parts.append(part)
        # A part that this checkout lacks is a failure only where it was asked for by name.
        if part.problem and asked and (only or part.problem != ABSENT):
            failed.append(name)
    for path in report.write(out, parts, quick=quick):
        say(f"{path}")
    return failed


def find(name: str) -> Any | None:
    """Import a part's module; None where this checkout has no such file."""
    if not (Path(__file__).parent / f"{name}.py").exists():
        return None
    return importlib.import_module(f"experiments.{name}")


def _part(name: str, folder: Path, *, asked: bool, quick: bool, say: Callable) -> report.Part:
    """Run a part where needed, and read what its folder holds."""
    command = f"diffevo-jax reproduce --only {name}{' --quick' if quick else ''}"
    title, made = name, ""

    def lacking(problem: str) -> report.Part:
        say(f"{name}: {problem}")
        return report.Part(name, title, command, None, problem, made)

    try:
        module = find(name)
        if module is None:
            return lacking(ABSENT)
        title = module.TITLE
        problem = unusable(folder, quick=quick)
        if problem:
            return lacking(problem)
        if asked and not _finished(folder):
            say(f"{name}: {title} ...")
            _run(module, folder, quick=quick)
        if not (folder / STAMP).exists():
            return lacking("not run yet")
        if not _finished(folder):
            return lacking(f"{folder} is incomplete ({read_stamp(folder).status}); run it again")
        made = _made(read_stamp(folder))
        try:
            section = module.section(folder)
        except Exception as error:  # damaged files, as a rule: no place in the code helps there
            reason = f"{type(error).__name__}: {error}"
            return lacking(f"{folder} is not readable ({reason}); remove it to run it again")
        say(f"{name}: {made}")
        return report.Part(name, title, command, section, "", made)
    except Exception as error:  # whatever went wrong with a part, the others go on
        say(traceback.format_exc())
        return lacking(f"failed: {type(error).__name__}: {error}")


def _run(module: Any, folder: Path, *, quick: bool) -> None:
    """Run a part, or what is left of it; its stamp says how far it came."""
    begun = (folder / STAMP).exists()
    before = read_stamp(folder) if begun else Stamp(de.__version__, quick, "", commit=_commit())
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()

    def stamp(status: str) -> None:
        seconds = before.seconds + time.perf_counter() - begin
        write_stamp(folder, before._replace(status=status, seconds=seconds))

    stamp("begun and not ended")
    try:
        module.run(folder, quick=quick)
    except BaseException as error:
        stamp(f"stopped by {type(error).__name__}")
        raise
    stamp("complete")


def _commit() -> str:
    return (results.environment()["git_commit"] or "")[:9]


def _made(stamp: Stamp) -> str:
    """How a part was computed, in words."""
    seconds = stamp.seconds
    took = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    of = f"of commit {stamp.commit}" if stamp.commit not in ("", _commit()) else ""
    return ", ".join(filter(None, [f"computed in {took}", of, stamp.remark]))


def unusable(folder: Path, *, quick: bool) -> str:
    """Say why a folder can be neither read nor added to; empty where it can."""
    if not (folder / STAMP).exists():
        if folder.is_dir() and not results.holds_only(folder, f"{STAMP}.partial"):
            return f"skipped {folder}: it holds files and no {STAMP} that says what wrote them"
        return ""
    try:
        stamp = read_stamp(folder)
    except (ValueError, TypeError, OSError, RecursionError) as error:
        return f"skipped {folder}: {STAMP} is not readable ({error})"
    if (stamp.version, stamp.format) != (de.__version__, FORMAT):
        return (
            f"skipped {folder}: from version {stamp.version}, format {stamp.format}; this is "
            f"{de.__version__}, format {FORMAT}. Move it away, or choose another --out"
        )
    if stamp.quick != quick:
        kinds = ("full", "quick")
        return (
            f"skipped {folder}: it holds a {kinds[stamp.quick]} run and this is a {kinds[quick]} "
            "one. Choose another --out"
        )
    return ""


def read_stamp(folder: Path) -> Stamp:
    """Read what a part's folder says of itself. Raises TypeError on other fields or types."""
    stamp = Stamp(**json.loads((folder / STAMP).read_text(encoding="utf-8")))
    for name, value, kind in zip(Stamp._fields, stamp, _KINDS, strict=True):
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected {kind}; seen {value!r:.60}")
    return stamp


def write_stamp(folder: Path, stamp: Stamp) -> None:
    """Say in a part's folder what wrote it."""
    results.write_whole(folder / STAMP, json.dumps(stamp._asdict(), indent=2) + "\n")


def _finished(folder: Path) -> bool:
    return (folder / STAMP).exists() and read_stamp(folder).status == "complete"


def main(arguments: list[str] | None = None) -> int:
    """Run what a command line names; returns its exit code."""
    parser = argparse.ArgumentParser(prog="diffevo-jax reproduce", description=TEXT)
    parser.add_argument("--only", action="append", metavar="NAME", help="this part; repeatable")
    parser.add_argument("--quick", action="store_true", help="few repeats: minutes, wide errors")
    parser.add_argument("--out", type=Path, help="folder of the report; keeps what is finished")
    parser.add_argument("--cache", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(arguments)
    out = options.out and options.out.expanduser()  # shells leave ~ as it is in --out=~/x

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    startup.prepare(cache=options.cache)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        failed = reproduce(options.only, quick=options.quick, out=out, say=_say)
    except KeyboardInterrupt:
        _say("Interrupted. The same command goes on from what is finished.")
        return 130
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if failed:
        names = ", ".join(failed)
        print(f"error: not reproduced: {names}; the report says why", file=sys.stderr)
    return 1 if failed else 0


def _say(line: Any) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
