"""What a run shows on the console: a bar while it runs, then the last generation as a table."""

import math
from collections.abc import Iterable
from contextlib import contextmanager

from rich import box
from rich import progress as bars
from rich.table import Table
from rich.text import Text

from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.config.schema import RunConfig
from diffevo_jax.runs.run.program import EPISODES


def header(config: RunConfig, lengths: dict[str, int]) -> str:
    """Say what is run: on which problem, how many individuals, generations and repeats.

    lengths: generations, by method.
    """
    methods = list(config.methods.values())
    problems = list(dict.fromkeys(registry.title(method.problem) for method in methods))
    titles = "; ".join(problems[:3]) + ("; ..." if len(problems) > 3 else "")
    repeats = "1 repeat" if config.repeats == 1 else f"{config.repeats} repeats"
    many = "" if len(methods) == 1 else f" of {len(methods)} methods"
    return (
        f"{titles}: {_span(method.population_size for method in methods)} individuals, "
        f"{_span(lengths.values())} generations, {repeats}{many}"
    )


def _span(numbers: Iterable[int]) -> str:
    numbers = sorted(set(numbers))
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"


@contextmanager
def progress_bar(settings, lengths, console):
    """One bar a method over its repeats and generations; none where nothing is run.

    lengths: generations of a repeat, by method.
    """
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
    )
    bar, tasks = bars.Progress(*columns, console=console), {}

    def progress(name: str, repeats: int, generations: int, compiling: bool) -> None:
        if not tasks:
            for each, method in settings.methods.items():
                total = settings.repeats * lengths[each]
                tasks[each] = bar.add_task(method.label, total=total)
            bar.start()
        method = settings.methods[name]
        done = repeats * lengths[name] + generations
        note = "  compiling" if compiling else ""
        bar.update(tasks[name], completed=done, description=method.label + note)

    try:
        yield progress
    finally:
        if tasks:
            bar.stop()


def table(summaries):
    """The last generation of each method, beside the reference where there is one, and its best."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    success = any(summary.success for summary in summaries)
    with_reference = any(summary.success and summary.reference for summary in summaries)
    # Beside references there is no room for what none of them is of.
    with_mean = not (with_reference and all(summary.success for summary in summaries))
    measures = {summary.measure for summary in summaries}
    headings = [measures.pop() if len(measures) == 1 else "fitness"] if with_mean else []
    headings += ["success, %"] if success else []
    if with_reference:
        headings += ["reference, %", "apart", "published"]
    shown.add_column("method")
    for heading in ("genes", *headings):
        shown.add_column(heading, justify="right", no_wrap=True)
    for summary in summaries:
        row = [summary.label, _count(summary.num_genes)]
        row += [plus_minus(summary.mean, ".4g")] if with_mean else []
        row += [percent(summary.success)] if success else []
        if with_reference and summary.success and summary.reference:
            expected = (summary.reference.success_rate, summary.reference.standard_error)
            error = math.hypot(summary.success[1] or 0, expected[1])
            published = summary.reference.published
            row.append(percent(expected))
            apart = summary.success[0] - expected[0]
            row.append(f"{apart / error:+.1f} s.e." if summary.success[1] and error else "-")
            row.append("-" if published is None else f"{100 * published:.1f}")
        shown.add_row(*(Text(cell) for cell in row))
    yield "\nLast generation, mean ± standard error over repeats"
    yield shown
    if with_reference:
        for summary in summaries:
            if summary.reference:
                yield f"reference, {summary.label}: {summary.reference.source}"
    if any(summary.again for summary in summaries):
        yield f"\nIts best individual over {EPISODES} fresh episodes"
        yield _of_best(summaries)


def _of_best(summaries) -> Table:
    """Return and success of each method's best individual, re-evaluated."""
    success = any(summary.again_success for summary in summaries)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("method")
    for heading in ("return", *(["success, %"] if success else [])):
        shown.add_column(heading, justify="right", no_wrap=True)
    for summary in summaries:
        row = [summary.label, "-" if summary.again is None else plus_minus(summary.again, ".4g")]
        row += [percent(summary.again_success)] if success else []
        shown.add_row(*(Text(cell) for cell in row))
    return shown


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def percent(value_and_error) -> str:
    """A rate ± its standard error in percent; - where there is none."""
    if value_and_error is None:
        return "-"
    value, error = value_and_error
    return plus_minus((100 * value, None if error is None else 100 * error), ".1f")


def plus_minus(value_and_error, digits: str) -> str:
    """Value ± standard error; the value alone where a single repeat gives no error."""
    value, error = value_and_error
    return f"{value:{digits}}" if error is None else f"{value:{digits}} ± {error:.2g}"
