"""Pages that are made when the site is built, from results, the report and the notebooks.

benchmarks/    a page for each JSON file in experiments/benchmarks/results
gallery.md     every picture of the report and of the pages, with the command that makes it
commands.md    the commands of `diffevo-jax` with their options, as it declares them
notebooks/     copies of notebooks/*.ipynb, with the output that is stored in them
"""

import ast
import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

REPOSITORY = Path(__file__).parent.parent
BENCHMARKS = REPOSITORY / "experiments" / "benchmarks"

Row = dict[str, Any]

# Long tables of results, as matrices: one for each `by`, rows by columns, a text of each entry.
PIVOTS: dict[str, tuple[list[str], str, str, Callable[[Row], str]]] = {
    "bbob": (
        ["genes", "evaluations"],
        "function",
        "method",
        lambda row: f"{row['area']:.3f} ± {row['error']:.3f}",
    ),
    "bbob_few": (
        ["genes", "evaluations"],
        "function",
        "method",
        lambda row: f"{row['area']:.3f} ± {row['error']:.3f}",
    ),
    "discrete": (
        ["evaluations"],
        "function",
        "method",
        lambda row: f"{row['best']:.4g} ± {row['best_error']:.2g}",
    ),
    "minimize": (
        ["cost"],
        "method",
        "function",
        lambda row: f"{row['median']:.2g} ({row['quartile_1']:.2g}, {row['quartile_3']:.2g})",
    ),
    "minimize_few": (
        ["genes", "evaluations"],
        "method",
        "function",
        lambda row: f"{row['median']:.2g} ({row['quartile_1']:.2g}, {row['quartile_3']:.2g})",
    ),
    "pyribs": (
        [],
        "emitter",
        "domain",
        lambda row: f"{row['qd_score']:.1f} ± {row['qd_score_error']:.1f}, {row['coverage']:.0f} %",
    ),
}
# Short titles, and the pages that say what the numbers mean.
READ = {
    "bbob": ("BBOB", "minimize.md"),
    "bbob_few": ("BBOB at few evaluations", "minimize.md"),
    "calls": ("The same call again", "minimize.md"),
    "compilation": ("Compilation", "estimator.md"),
    "control_preset": ("Control preset", "presets.md"),
    "discrete": ("Bits", "discrete.md"),
    "estimator": ("The x0 estimate", "estimator.md"),
    "first_call": ("First calls of minimize", "minimize.md"),
    "fitness_maps": ("Fitness maps", "settings.md"),
    "gpu": ("On a GPU", "estimator.md"),
    "journal": ("Journals of minimize", "minimize.md"),
    "latents": ("Latent spaces that follow the search", "variants.md"),
    "learned": ("Denoisers that learn", "howto/learned.md"),
    "loop": ("Whole runs", "rollouts.md"),
    "minimize": ("minimize and others", "minimize.md"),
    "minimize_few": ("minimize at few evaluations", "minimize.md"),
    "minimize_valleys": ("minimize where valleys are many", "minimize.md"),
    "moving": ("Moving peaks", "sampling.md"),
    "observations": ("Normalised observations", "presets.md"),
    "optima": ("All optima", "minimize.md"),
    "peers": ("Peers and their settings", "howto/peers.md"),
    "planning": ("Planning", "planning.md"),
    "pyribs": ("Quality-diversity", "diversity.md"),
    "rollouts": ("Roll-outs", "rollouts.md"),
    "sample": ("Draws from densities", "sampling.md"),
    "lattice": ("Many individuals", "scaling.md"),
    "scaling": ("Many devices", "scaling.md"),
    "settings": ("Settings", "settings.md"),
    "tuning": ("Tuning a model", "minimize.md"),
    "tuning_mixed": ("Numbers and categories", "minimize.md"),
}
# Results of another setting of a script: the script, how it is called, what it measures.
OF_ANOTHER = {
    "bbob_few": (
        "bbob",
        "--few --genes 5 --seeds 5",
        "`minimize` and others on BBOB; in 20-D by `--few --genes 20 --seeds 2`.",
    ),
    "minimize_few": ("minimize", "--few --seeds 5", "`minimize` and others at few evaluations."),
    "minimize_valleys": (
        "minimize",
        "--valleys --seeds 40",
        "`minimize` and others on Levy's and Ackley's functions.",
    ),
    "tuning_mixed": (
        "tuning",
        "--mixed",
        "`minimize` and others on functions of numbers, whole numbers and categories.",
    ),
}
# What ± is, where it is no standard error.
SPREAD = {"sample": "Means ± standard deviation over runs."}
# Pictures of the pages: title, page, command. Those of the report tell theirs themselves.
PICTURES = {
    "told.gif": (
        "Cart-poles that stand where they are told",
        "howto/learned.md",
        "python experiments/benchmarks/learned.py --gif docs/told.gif",
    ),
    "fig4_cartpole.png": (
        "Reward against generation on cart-pole",
        "start.md",
        "diffevo-jax run configs/fig4_cartpole.yaml --set repeats=100",
    ),
    "settings.png": (
        "Score against individuals, levels and temperature",
        "settings.md",
        "python experiments/benchmarks/settings.py --only levels",
    ),
    "frontier.png": (
        "Peaks kept against the best cost",
        "settings.md",
        "python experiments/benchmarks/settings.py --only frontier",
    ),
    "search.png": (
        "A search of hyperparameters",
        "howto/tuning.md",
        "diffevo-jax search digits.jsonl --plot search.png",
    ),
    "anytime.png": (
        "Score against budget",
        "settings.md",
        "python experiments/benchmarks/settings.py --only anytime",
    ),
    "diversity.png": (
        "Archives of the best of every behaviour",
        "diversity.md",
        "python experiments/benchmarks/pyribs.py --draw",
    ),
    "scaling.png": (
        "Seconds an estimate against individuals",
        "scaling.md",
        "python experiments/benchmarks/lattice.py --draw",
    ),
    "sampling.png": (
        "Draws from a mixture, a banana and a ring",
        "sampling.md",
        "python experiments/benchmarks/sample.py --draw",
    ),
}


def write(folder: Path) -> None:
    """Write all of them into the folder, replacing only what has changed."""
    pages = {f"benchmarks/{name}.md": text for name, text in benchmark_pages().items()}
    pages |= {"gallery.md": gallery(), "commands.md": commands()}
    files = {name: text.encode() for name, text in pages.items()}
    # Notebooks, and the pictures that they open with.
    for path in sorted((REPOSITORY / "notebooks").rglob("*")):
        if path.suffix in (".ipynb", ".png", ".gif") and ".ipynb_checkpoints" not in path.parts:
            files[str(path.relative_to(REPOSITORY))] = path.read_bytes()
    for old in folder.rglob("*"):
        if old.is_file() and str(old.relative_to(folder)) not in files:
            old.unlink()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)


# Benchmarks


def benchmark_pages() -> dict[str, str]:
    """Name to text of every benchmark's page."""
    return {
        path.stem: benchmark_page(path) for path in sorted((BENCHMARKS / "results").glob("*.json"))
    }


def benchmark_page(path: Path) -> str:
    """Say what was measured, on what, by which command, and show all numbers."""
    results = json.loads(path.read_text())
    stem, _, device = path.stem.partition("-")
    name, options, measured = OF_ANOTHER.get(stem, (stem, "", ""))
    script = BENCHMARKS / f"{name}.py"
    docstring = ast.get_docstring(ast.parse(script.read_text())) or ""
    first, _, rest = docstring.partition("\n\n")
    title, page = READ.get(stem, (stem.replace("_", " ").capitalize(), None))
    if device not in ("", "cpu"):
        title = f"{title}: {device}"
    commands = re.findall(r"^    (\S.*)$", rest, re.M)
    if options:
        commands = [f"python experiments/benchmarks/{name}.py {options}"]
        first, rest = measured, ""
    prose = re.sub(r"(?:^    .*\n?)+", "", rest, flags=re.M).strip()
    lines = [f"# {title}", "", *first.splitlines(), "", "```", *commands, "```", ""]
    lines += [f"*{_device(results)}*", "", re.sub(r"\\?\|", r"\\|", prose), ""]
    if page is not None:
        lines += [f"What the numbers mean: [](../../{page}).", ""]
    if stem in SPREAD:
        lines += [SPREAD[stem], ""]
    results = {k: v for k, v in results.items() if k not in (*DEVICE, "versions")}
    if stem in PIVOTS:
        lines += _pivoted(results["rows"], *PIVOTS[stem])
    else:
        for name, rows in _tables(results):
            if name:
                lines += [f"## {name.replace('_', ' ').capitalize()}", ""]
            lines += _table(rows)
    shown = path.relative_to(REPOSITORY)
    return "\n".join([*lines, f"All numbers: [{shown}](../../../{shown}).", ""])


DEVICE = ("platform", "device", "host", "jax")


def _device(results: Row) -> str:
    if "device" not in results:
        versions = results.get("versions")
        known = ", ".join(f"{k} {v}" for k, v in versions.items()) if versions else ""
        return (
            "Quality over seeds, which does not depend on the device; the file names none"
            f"{', only ' + known if known else ''}."
        )
    name = "CPU" if results["device"] == "cpu" else results["device"]
    return f"Measured on: {name}, {results['host']}, jax {results['jax']}."


def _tables(results: Row) -> Iterable[tuple[str, list[Row]]]:
    """Name and rows of each table in a file, whatever its nesting."""
    rest: Row = {}
    for name, value in results.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield ("" if name == "rows" else name), [_flat(row) for row in value]
        else:
            rest[name] = value
    if rest and all(isinstance(value, dict) for value in rest.values()):
        inner = [value for group in rest.values() for value in group.values()]
        if all(isinstance(value, dict) for value in inner) and not _is_cell(inner[0]):
            yield (
                "",
                [
                    {"": name, "method": key, **_flat(value)}
                    for name, group in rest.items()
                    for key, value in group.items()
                ],
            )
        else:
            yield "", [{"": name, **_flat(group)} for name, group in rest.items()]
    elif rest:
        yield "", [{"": name, "value": value} for name, value in rest.items()]


def _is_cell(value: Any) -> bool:
    return isinstance(value, dict) and {"mean", "error"} <= set(value)


def _flat(row: Row) -> Row:
    """A row whose cells are texts or numbers; a number's error stands beside it."""
    flat: Row = {}
    for name, value in row.items():
        if _is_cell(value):
            flat[name] = _with_error(value["mean"], value["error"])
        elif isinstance(value, dict):
            flat |= {f"{name}, {key}": _text(inner) for key, inner in value.items()}
        elif name == "error" and flat:
            last = list(flat)[-1]
            flat[last] = _with_error(row[last], value)
        elif name.endswith("_error") and name.removesuffix("_error") in flat:
            known = name.removesuffix("_error")
            flat[known] = _with_error(row[known], value)
        else:
            flat[name] = value
    return flat


def _table(rows: list[Row]) -> list[str]:
    """Rows as a table; columns that are the same in every one are said once, above it."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    same = [
        name
        for name in columns
        if len(rows) > 3 and name and len({_text(row.get(name, "")) for row in rows}) == 1
    ]
    lines: list[str] = []
    if same:
        fixed = ", ".join(f"{_header(name)} {_text(rows[0][name])}" for name in same)
        lines = [f"In every row: {fixed}.", ""]
    shown = [name for name in columns if name not in same]
    table = [[_header(name) for name in shown]]
    table += [[_text(row.get(name, "")) for name in shown] for row in rows]
    if len(rows) > 24:
        return [*lines, f":::{{dropdown}} {len(rows)} rows", *_markdown(table), ":::", ""]
    return [*lines, *_markdown(table)]


def _pivoted(
    rows: list[Row], by: list[str], row_name: str, column_name: str, cell: Callable[[Row], str]
) -> list[str]:
    groups = list(dict.fromkeys(tuple(row.get(name) for name in by) for row in rows))
    lines: list[str] = []
    for group in groups:
        here = [row for row in rows if tuple(row.get(name) for name in by) == group]
        here = [row for row in here if row_name in row and column_name in row]
        if not here:
            continue
        if by:
            said = ", ".join(f"{name} {_text(v)}" for name, v in zip(by, group, strict=True))
            lines += [f"## {said.capitalize()}", ""]
        first = list(dict.fromkeys((row[row_name], row.get("sigma")) for row in here))
        columns = list(dict.fromkeys(row[column_name] for row in here))
        several = len({name for name, _ in first}) < len(first)
        found = {(row[row_name], row.get("sigma"), row[column_name]): cell(row) for row in here}
        table = [["", *columns]]
        for name, sigma in first:
            label = f"{name}, sigma {sigma:g}" if several and sigma is not None else name
            table.append([label, *(found.get((name, sigma, column), "") for column in columns)])
        lines += _markdown(table)
    return lines


def _markdown(table: list[list[str]]) -> list[str]:
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in table]
    align = ["---" if _words(body, i) else "---:" for i in range(len(head))]
    return [f"| {' | '.join(row)} |" for row in (head, align, *body)] + [""]


def _words(body: list[list[str]], column: int) -> bool:
    return any(re.match(r"[A-Za-z`]", row[column]) for row in body)


def _header(name: str) -> str:
    return name.replace("_", " ")


def _with_error(mean: float, error: float) -> str:
    """The error to two digits, the mean to as many places; of very small ones both to three."""
    if not error:
        return _text(mean)
    if not 1e-4 < error < 1e4:
        return f"{_text(mean)} ± {_text(error)}"
    places = max(0, 1 - math.floor(math.log10(error)))
    return f"{mean:,.{places}f} ± {error:,.{places}f}"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, list):
        if len(value) == 2:
            return _with_error(*value)
        return " / ".join(map(_text, value))
    if isinstance(value, int) or float(value).is_integer():
        return f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.3g}"
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.2e}"


# Gallery


def gallery() -> str:
    """Every picture with the command that makes it; those of the report by its own sections."""
    report = (REPOSITORY / "docs" / "report" / "report.md").read_text()
    lines = [
        "# Gallery",
        "",
        "Each picture with the command that makes it; the heading's page says what it shows.",
        "",
    ]
    for name, (title, page, command) in PICTURES.items():
        lines += [f"## [{title}](../{page})", "", f"`{command}`", ""]
        lines += [f"![{title}](../{name})", ""]
    for section in re.split(r"^## ", report, flags=re.M)[1:]:
        title = section.partition("\n")[0]
        pictures = re.findall(r"!\[([^\]]*)\]\(([^)\s]+\.(?:png|gif))\)", section)
        if not pictures:
            continue
        command = re.search(r"`(diffevo-jax reproduce[^`]*)`", section)
        lines += [f"## {title}", "", *([f"`{command[1]}`", ""] if command else [])]
        for caption, path in pictures:
            alt = caption.replace("\n", " ")
            lines += [f"![{alt}](../report/{path})", "", f"*{alt}*", ""]
    return "\n".join(lines)


# The command


def commands() -> str:
    """Every command of `diffevo-jax` with its arguments and options, as Typer tells them."""
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from diffevo_jax.runs.cli import app

    group = get_command(app)
    context = typer.Context(group, info_name="diffevo-jax")
    text = get_docs_for_click(obj=group, ctx=context, name="diffevo-jax", title="The command")
    # Its list of commands is cut short; each has its section below.
    return re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n", "", text)
