"""What both pages of the report say: the parts, the summary on top, captions, paragraphs."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

from diffevo_jax.runs.results import folder as results
from experiments import tables
from experiments.rows import FAR, Section, Table

TITLE = "Diffusion Evolution: the paper's figures and tables"
NUMBERS = "numbers.csv"
# Of this many numbers chance alone makes one differ: 1 / (2 ndtr(-FAR)).
ONE_IN = 370
READING = (
    "A cell is ours, in brackets the reference; where they differ it is **bold**, with the "
    "difference in standard errors (s.e.)."
)


class Part(NamedTuple):
    """A part of the report; without a section, `problem` says why.

    made: how its numbers were computed, in words; empty where there are none.
    """

    name: str
    title: str
    command: str
    section: Section | None
    problem: str
    made: str


def sections(parts: list[Part]) -> dict[str, Section]:
    """The parts that have one, by name."""
    return {part.name: part.section for part in parts if part.section}


class Lead(NamedTuple):
    """What stands on top, where **bold** and `code` are Markdown's.

    differing: a line for each method and reason.
    """

    stamp: str
    words: list[str]
    summary: Table | None
    differing: list[str]
    headlines: list[Table]


def lead(parts: list[Part], *, quick: bool) -> Lead:
    """Sum the report up."""
    seen = results.environment()
    commit = f", commit {seen['git_commit'][:9]}" if seen["git_commit"] else ""
    stamp = (
        f"Written on {date.today()} by diffevo-jax {seen['versions']['diffevo-jax']}{commit}, with "
        f"jax {seen['versions']['jax']} on {seen['device_count']} x {seen['device']}."
    )
    known = sections(parts)
    headlines = [section.headline for section in known.values() if section.headline]
    words = list(_words(known, quick=quick))
    summary = tables.summary(known) if words else None
    return Lead(stamp, words, summary, tables.differing(known), headlines)


def _words(known: dict[str, Section], *, quick: bool) -> Iterator[str]:
    if quick:
        yield (
            "A quick run: few repeats, to see that everything works. Its errors are wide and "
            "themselves uncertain; a full run is what to judge by."
        )
    rows = [row for section in known.values() for row in section.rows]
    compared, apart = sum(row.comparable for row in rows), sum(row.far for row in rows)
    if compared:
        yield (
            f"{compared} numbers have a reference: {compared - apart} agree with it, {apart} "
            f"differ by more than {FAR:g} standard errors of both. Where repeats are few it takes "
            "more, by Welch's t-test at the same odds. Chance alone would make "
            f"{compared / ONE_IN:.1f} differ."
        )


def caption(figure: Path) -> str:
    """A figure's caption from the text file beside it; its name where there is none."""
    path = figure.with_suffix(".txt")
    if path.exists():
        return " ".join(path.read_text(encoding="utf-8").split())
    return figure.stem.replace("_", " ")


def paragraphs(text: str) -> list[str]:
    """A section's text as lines, one a paragraph."""
    return [" ".join(each.split()) for each in re.split(r"\n\s*\n", text) if each.strip()]
