"""The report as one HTML file that needs nothing beside it."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path

from experiments import tables
from experiments.report_words import READING, TITLE, Lead, Part, caption, paragraphs
from experiments.rows import Cell, Row, Section, Table

STYLE = """
:root { color-scheme: light; --ink: #222; --soft: #5f5f5f; --line: #ddd; --far: #b23000; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 60rem; color: var(--ink);
  background: #fff; font: 1.0625rem/1.55 Georgia, "STIX Two Text", "Times New Roman", serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 1rem 0; }
h2 { font-size: 1.4rem; line-height: 1.25; margin: 3rem 0 .6rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
p, ul { max-width: 42rem; }
ul { padding-left: 1.2rem; }
a { color: #0b6a8c; }
code { font: .875em/1.4 ui-monospace, Menlo, Consolas, monospace; background: #f4f4f2;
  padding: .1em .3em; border-radius: 3px; overflow-wrap: anywhere; }
figure { margin: 1.5rem 0; }
img { display: block; width: 56rem; max-width: 100%; height: auto; }
figcaption, .made, caption { color: var(--soft); font-size: .95rem; }
figcaption { margin-top: .5rem; max-width: 42rem; }
.wide { overflow-x: auto; margin: 1.25rem 0; }
figure .wide { margin: 0; }
.wide img { min-width: 36rem; }
table { border-collapse: collapse; font-size: .95rem; line-height: 1.3;
  font-variant-numeric: tabular-nums lining-nums; }
caption { text-align: left; font-weight: bold; padding: .3rem 0; color: var(--ink); }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; font-weight: normal; color: var(--soft); max-width: 8rem; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
tbody th { font-weight: normal; min-width: 5.5rem; }
td small { display: block; font-size: .85em; color: var(--soft); white-space: nowrap; }
td.far { color: var(--far); font-weight: bold; }
.flat td, .flat th { text-align: left; }
summary { cursor: pointer; color: #0b6a8c; margin: 1rem 0; }
.problem { border-left: 3px solid var(--far); padding-left: .8rem; }
@media (max-width: 40rem) {
  table { font-size: .8rem; } th, td { padding-right: .5rem; } tbody th { max-width: 7rem; }
  h1 { font-size: 1.5rem; }
}
@media print { body { max-width: none; font-size: 10pt; } figure, tr { break-inside: avoid; } }
"""


def page(parts: list[Part], top: Lead) -> str:
    """Render the report as one HTML file, pictures included."""
    links = "".join(
        f'<li><a href="#{part.name}">{html.escape(part.title)}</a>'
        + (f" (missing: {_inline(part.problem)})" if part.problem else "")
        + "</li>\n"
        for part in parts
    )
    differing = "".join(f"<li>{_inline(line)}</li>\n" for line in top.differing)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{TITLE}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{TITLE}</h1>\n<p class="made">{_inline(top.stamp)}</p>\n'
        + "".join(f"<p>{_inline(text)}</p>\n" for text in top.words)
        + (_table(top.summary) if top.summary else "")
        + (f"<p>What differs, by method:</p>\n<ul>\n{differing}</ul>\n" if differing else "")
        + "".join(map(_table, top.headlines))
        + f"<p>{_inline(READING)}</p>\n"
        + f'<nav aria-label="Contents">\n<ul>\n{links}</ul>\n</nav>\n'
        + "".join(map(_part, parts))
        + "</main>\n</body>\n</html>\n"
    )


def _part(part: Part) -> str:
    code = f"<code>{html.escape(part.command)}</code>"
    made = ", ".join(filter(None, [code, html.escape(part.made)]))
    head = (
        f'<section>\n<h2 id="{part.name}">{html.escape(part.title)}</h2>\n'
        f'<p class="made">{made}</p>\n'
    )
    if part.section is None:
        return f'{head}<p class="problem">Missing: {_inline(part.problem)}</p>\n</section>\n'
    return f"{head}{_section(part.section)}</section>\n"


def _section(section: Section) -> str:
    text = "".join(f"<p>{_inline(each)}</p>\n" for each in paragraphs(section.text))
    figures = "".join(map(_figure, section.figures))
    found = tables.matrices(section.rows)
    shown = "".join(map(_table, found))
    if section.folded and found:
        names = "; ".join(table.title for table in found)
        shown = _folded(f"Tables: {names}", shown)
    return text + figures + shown + _flat(section.rows)


def _figure(path: Path) -> str:
    words = caption(path)
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    width, height = picture_size(path)
    # A picture scrolls in its box on a phone, where it would be too small to read.
    return (
        f'<figure>\n<div class="wide"><img src="data:image/{path.suffix[1:]};base64,{data}" '
        f'width="{width}" height="{height}" alt="{html.escape(tables.first_sentence(words))}">'
        f"</div>\n<figcaption>{_inline(words)}</figcaption>\n</figure>\n"
    )


def _table(table: Table) -> str:
    title = f"<caption>{_inline(table.title)}</caption>\n" if table.title else ""
    body = "".join(
        f'<tr><th scope="row">{_inline(line[0].text)}</th>'
        + "".join(map(_cell, line[1:]))
        + "</tr>\n"
        for line in table.lines
    )
    return _scrolling(f"<table>\n{title}{_head(table.head)}<tbody>\n{body}</tbody>\n</table>\n")


def _cell(cell: Cell) -> str:
    beside = f"({cell.beside}) {cell.apart}".strip() if cell.beside else ""
    beside = f"<small>{html.escape(beside)}</small>" if beside else ""
    text = _inline(cell.text).replace(" ± ", "&nbsp;±&nbsp;")
    return f"<td{_far(bool(cell.apart))}>{text}{beside}</td>"


def _far(far: bool) -> str:
    return ' class="far"' if far else ""


def _flat(rows: Sequence[Row]) -> str:
    """Every number with its errors, folded away; columns that say nothing are left out."""
    if not rows:
        return ""
    lines = tables.flat(rows)
    used = [i for i in range(len(tables.HEADINGS)) if any(line[i] for line in lines)]
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{_far(row.far and tables.HEADINGS[i] == 'in s.e.')}>{_inline(line[i])}</td>"
            for i in used
        )
        + "</tr>\n"
        for row, line in zip(rows, lines, strict=True)
    )
    head = _head([tables.HEADINGS[i] for i in used])
    table = f'<table class="flat">\n{head}<tbody>\n{body}</tbody>\n</table>\n'
    starred = any("*" in cell for line in lines for cell in line)
    note = "<p>* The reference's own error is not known.</p>\n" if starred else ""
    return _folded(f"Every number with its standard error ({len(rows)})", _scrolling(table) + note)


def _head(head: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{_inline(text)}</th>' for text in head)
    return f"<thead><tr>{cells}</tr></thead>\n"


def _folded(summary: str, content: str) -> str:
    return f"<details>\n<summary>{_inline(summary)}</summary>\n{content}</details>\n"


def _scrolling(table: str) -> str:
    """A box that scrolls where the table is wider than the page; the page never does."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="table">\n{table}</div>\n'


def _inline(text: str) -> str:
    """Escape a text; what stands in backticks becomes code, between double stars bold."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of a PNG or GIF file, from its header."""
    with path.open("rb") as file:
        head = file.read(24)
    if head.startswith(b"\x89PNG"):
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head.startswith(b"GIF8"):
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    raise ValueError(f"{path}: expected a PNG or GIF file")
