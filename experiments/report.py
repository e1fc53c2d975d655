"""The report: one HTML file that needs nothing beside it, and Markdown beside its pictures."""

import os
from collections.abc import Iterator
from pathlib import Path

from diffevo_jax.runs.results import folder as results
from experiments import report_html, tables
from experiments.report_words import (
    NUMBERS,
    READING,
    TITLE,
    Lead,
    Part,
    caption,
    lead,
    paragraphs,
    sections,
)
from experiments.rows import Cell, Section, Table


def write(folder: Path, parts: list[Part], *, quick: bool) -> list[Path]:
    """Write report.html, report.md and numbers.csv into a folder, and return their paths."""
    top = lead(parts, quick=quick)
    pages = {
        folder / "report.html": report_html.page(parts, top),
        folder / "report.md": to_markdown(parts, folder, top),
        folder / NUMBERS: tables.to_csv(sections(parts)),
    }
    for path, text in pages.items():
        results.write_whole(path, text)
    return list(pages)


# Markdown


def to_markdown(parts: list[Part], folder: Path, top: Lead) -> str:
    """Render the report as Markdown whose pictures lie beside it, under `folder`."""
    blocks = [f"# {TITLE}", top.stamp, "## Summary", *top.words]
    if top.summary:
        blocks.append(_markdown_table(top.summary))
    if top.differing:
        blocks += ["What differs, by method:", "\n".join(f"* {line}" for line in top.differing)]
    for table in top.headlines:
        blocks += [f"**{table.title}**", _markdown_table(table)]
    where = f"[{NUMBERS}]({NUMBERS}) has every number with its error, repeats and reference."
    blocks.append(f"{READING} {where}")
    missing = [part for part in parts if part.section is None]
    if missing:
        blocks.append("Missing from this report:")
        blocks.append("\n".join(f"* {part.name}: {part.problem}" for part in missing))
    for part in parts:
        made = ", ".join(filter(None, [f"`{part.command}`", part.made]))
        blocks += [f"## {part.title}", made]
        if part.section is None:
            blocks.append(f"Missing: {part.problem}")
        else:
            blocks += _markdown_section(part.section, folder)
    return "\n\n".join(blocks) + "\n"


def _markdown_section(section: Section, folder: Path) -> Iterator[str]:
    yield from paragraphs(section.text)
    for figure in section.figures:
        words = caption(figure)
        path = Path(os.path.relpath(figure, folder)).as_posix()
        # The caption stands below; a picture's own text says which it is.
        yield f"![{tables.first_sentence(words)}]({path})"
        yield f"*{words}*"
    found = tables.matrices(section.rows)
    if section.folded and found:
        names = "; ".join(table.title for table in found)
        yield f"<details>\n<summary>Tables: {names}</summary>"
    for table in found:
        yield _markdown_table(table._replace(head=[f"**{table.title}**", *table.head[1:]]))
    if section.folded and found:
        yield "</details>"


def _markdown_table(table: Table) -> str:
    lines = [table.head, ["---", *("---:" for _ in table.head[1:])]]
    lines += [[_markdown_cell(cell) for cell in line] for line in table.lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    text = cell.text.replace("|", r"\|").replace("*", r"\*")
    beside = ", ".join(filter(None, [cell.beside, cell.apart]))
    return (f"**{text}**" if cell.apart else text) + (f" ({beside})" if beside else "")
