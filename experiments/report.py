"""The report: one HTML file that needs nothing beside it, and Markdown beside its pictures."""

import base64
import html
import math
import os
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

from diffevo_jax.runner import results
from experiments.rows import FAR, Row, Section

HEADINGS = ("quantity", "reference", "ours", "difference", "in s.e.", "note")


class Part(NamedTuple):
    """A part of the report; without a section, `problem` says why.

    seconds: what its computation took; None where there is none.
    """

    name: str
    title: str
    command: str
    section: Section | None
    problem: str
    seconds: float | None


def write(folder: Path, parts: list[Part], *, quick: bool) -> list[Path]:
    """Write report.html and report.md into a folder, and return their paths."""
    pages = {
        folder / "report.html": to_html(parts, quick=quick),
        folder / "report.md": to_markdown(parts, folder, quick=quick),
    }
    for path, text in pages.items():
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    return list(pages)


# Numbers


def cells(row: Row) -> list[str]:
    """A row's cells as text, one for each of HEADINGS."""
    digits = _digits(row)
    reference = between = in_errors = "-"
    if row.reference is not None:
        reference = _number(row.reference, row.reference_error, digits)
        between = f"{row.difference:+.{digits}f}"
        # An error that only we know makes the reference look exact: the mark says so.
        mark = "" if row.reference_error else "*"
        in_errors = "-" if math.isnan(row.in_errors) else f"{row.in_errors:+.1f}{mark}"
        in_errors = "equal" if row.equal else in_errors
    ours = _number(row.ours, row.ours_error, digits)
    return [row.quantity, reference, ours, between, in_errors, row.note]


def _digits(row: Row) -> int:
    """Decimals that show the larger error to two figures, or four figures of a bare number."""
    errors = [e for e in (row.ours_error, row.reference_error) if e and math.isfinite(e)]
    if errors:
        return min(6, max(0, 1 - math.floor(math.log10(max(errors)))))
    largest = max(abs(row.ours), abs(row.reference or 0))
    if not math.isfinite(largest) or largest == 0 or largest >= 1000:
        return 0
    return min(6, max(0, 3 - math.floor(math.log10(largest)))) if largest != int(largest) else 0


def _number(value: float, error: float | None, digits: int) -> str:
    if math.isnan(value):
        return "-"
    known = error is not None and math.isfinite(error)
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if known else "")


def counts(parts: list[Part]) -> tuple[int, int]:
    """How many rows can be held against a reference, and how many of them are far from it."""
    rows = [row for part in parts if part.section for row in part.section.rows]
    return sum(row.comparable for row in rows), sum(row.far for row in rows)


# Words both share


def _lead(parts: list[Part], *, quick: bool) -> Iterator[str]:
    seen = results.environment()
    compared, apart = counts(parts)
    commit = f", commit {seen['git_commit'][:9]}" if seen["git_commit"] else ""
    yield (
        f"diffevo-jax {seen['versions']['diffevo-jax']}{commit}, jax {seen['versions']['jax']} on "
        f"{seen['device_count']} x {seen['device']}; written {date.today()}."
    )
    if quick:
        yield (
            "A quick run: few repeats, to see that everything works. Its errors are wide and "
            "themselves uncertain; a full run is what to judge by."
        )
    yield (
        "Each table has the published number, or the one measured by running the authors' code, "
        "beside ours, both ± their standard error over repeats where it is known. “In s.e.” is the "
        "difference in units of both errors combined, or “equal” where both agree to four digits; "
        f"* marks a reference whose error is unknown. {compared} rows can be compared so; {apart} "
        f"differ by more than {FAR:g} standard errors."
    )


def _missing(parts: list[Part]) -> list[Part]:
    return [part for part in parts if part.section is None]


def _took(part: Part) -> str:
    return "" if part.seconds is None else f"computed in {_duration(part.seconds)}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def caption(figure: Path) -> str:
    """A figure's caption from the text file beside it; its name where there is none."""
    path = figure.with_suffix(".txt")
    if path.exists():
        return " ".join(path.read_text(encoding="utf-8").split())
    return figure.stem.replace("_", " ")


# HTML

STYLE = """
:root { color-scheme: light; --ink: #222; --soft: #6b6b6b; --line: #ddd; --far: #b23000; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 60rem; color: var(--ink);
  background: #fff; font: 1.0625rem/1.55 Georgia, "STIX Two Text", "Times New Roman", serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 1rem 0; }
h2 { font-size: 1.4rem; line-height: 1.25; margin: 3rem 0 .6rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
p, ul { max-width: 42rem; }
a { color: #0b6a8c; }
code { font: .875em/1.4 ui-monospace, Menlo, Consolas, monospace; background: #f4f4f2;
  padding: .1em .3em; border-radius: 3px; overflow-wrap: anywhere; }
figure { margin: 1.5rem 0; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { color: var(--soft); font-size: .95rem; margin-top: .5rem; }
.wide { overflow-x: auto; margin: 1.25rem 0; }
figure .wide { margin: 0; }
.wide img { min-width: 40rem; }
table { border-collapse: collapse; font-size: .95rem; line-height: 1.35;
  font-variant-numeric: tabular-nums lining-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; white-space: nowrap; }
td:first-child { min-width: 11rem; }
td:last-child { min-width: 12rem; color: var(--soft); padding-right: 0; }
tr.far td.n:nth-child(5) { color: var(--far); font-weight: bold; }
.made { color: var(--soft); font-size: .95rem; }
.problem { border-left: 3px solid var(--far); padding-left: .8rem; }
@media (min-width: 60rem) { td:first-child { min-width: 14rem; } }
@media print { body { max-width: none; font-size: 10pt; } figure, tr { break-inside: avoid; } }
"""


def to_html(parts: list[Part], *, quick: bool) -> str:
    """Render the report as one HTML file, pictures included."""
    lead = "".join(f"<p>{_inline(text)}</p>\n" for text in _lead(parts, quick=quick))
    links = "".join(
        f'<li><a href="#{part.name}">{html.escape(part.title)}</a>'
        + (f" (missing: {_inline(part.problem)})" if part.problem else "")
        + "</li>\n"
        for part in parts
    )
    body = "".join(map(_html_part, parts))
    title = "Diffusion Evolution: the paper's figures and tables"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n{lead}"
        f'<nav aria-label="Contents">\n<ul>\n{links}</ul>\n</nav>\n{body}'
        "</main>\n</body>\n</html>\n"
    )


def _html_part(part: Part) -> str:
    made = ", ".join(filter(None, [f"<code>{html.escape(part.command)}</code>", _took(part)]))
    head = (
        f'<section>\n<h2 id="{part.name}">{html.escape(part.title)}</h2>\n'
        f'<p class="made">{made}</p>\n'
    )
    if part.section is None:
        return f'{head}<p class="problem">Missing: {_inline(part.problem)}</p>\n</section>\n'
    text = "".join(f"<p>{_inline(each)}</p>\n" for each in _paragraphs(part.section.text))
    figures = "".join(map(_html_figure, part.section.figures))
    return f"{head}{text}{figures}{_html_table(part.section.rows)}</section>\n"


def _html_figure(path: Path) -> str:
    words = caption(path)
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    width, height = picture_size(path)
    shown = f' style="width: {width // 2}px"' if path.suffix == ".png" else ""
    # A wide picture scrolls in its box on a phone, where it would be too small to read.
    box = "wide" if width > 2 * height and path.suffix == ".png" else "box"
    return (
        f'<figure>\n<div class="{box}"><img src="data:image/{path.suffix[1:]};base64,{data}" '
        f'width="{width}" height="{height}"{shown} alt="{html.escape(_plain(words))}"></div>\n'
        f"<figcaption>{_inline(words)}</figcaption>\n</figure>\n"
    )


def _html_table(rows: list[Row]) -> str:
    if not rows:
        return ""
    head = "".join(
        f"<th{_numeric(i)} scope='col'>{text}</th>".replace("'", '"')
        for i, text in enumerate(HEADINGS)
    )
    body = "".join(
        ('<tr class="far">' if row.far else "<tr>")
        + "".join(f"<td{_numeric(i)}>{_inline(text)}</td>" for i, text in enumerate(cells(row)))
        + "</tr>\n"
        for row in rows
    )
    # The box scrolls where the table is wider than the page; the page never does.
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="table">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )


def _numeric(column: int) -> str:
    return ' class="n"' if 1 <= column <= 4 else ""


def _inline(text: str) -> str:
    """Escape a text; what stands in backticks becomes code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _plain(text: str) -> str:
    return text.replace("`", "")


def _paragraphs(text: str) -> list[str]:
    return [" ".join(each.split()) for each in re.split(r"\n\s*\n", text) if each.strip()]


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of a PNG or GIF file, from its header."""
    with path.open("rb") as file:
        head = file.read(24)
    if head.startswith(b"\x89PNG"):
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head.startswith(b"GIF8"):
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    raise ValueError(f"{path}: expected a PNG or GIF file")


# Markdown


def to_markdown(parts: list[Part], folder: Path, *, quick: bool) -> str:
    """Render the report as Markdown whose pictures lie beside it, under `folder`."""
    lines = ["# Diffusion Evolution: the paper's figures and tables", ""]
    for text in _lead(parts, quick=quick):
        lines += [text.replace("*", r"\*"), ""]
    if _missing(parts):
        lines += ["Missing from this report:", ""]
        lines += [f"* {part.name}: {part.problem}" for part in _missing(parts)] + [""]
    for part in parts:
        lines += [
            f"## {part.title}",
            "",
            ", ".join(filter(None, [f"`{part.command}`", _took(part)])),
        ]
        lines += [""]
        if part.section is None:
            lines += [f"Missing: {part.problem}", ""]
            continue
        for text in _paragraphs(part.section.text):
            lines += [text, ""]
        for figure in part.section.figures:
            words = caption(figure)
            path = Path(os.path.relpath(figure, folder)).as_posix()
            lines += [f"![{_plain(words)}]({path})", "", f"*{words}*", ""]
        if part.section.rows:
            lines += ["| " + " | ".join(HEADINGS) + " |", "|---|---:|---:|---:|---:|---|"]
            for row in part.section.rows:
                texts = [text.replace("|", r"\|").replace("*", r"\*") for text in cells(row)]
                texts[4] = f"**{texts[4]}**" if row.far else texts[4]
                lines += ["| " + " | ".join(texts) + " |"]
            lines += [""]
    return "\n".join(lines)
