"""The progress of a minimisation: rich's bar, or lines of text without rich."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec


@contextmanager
def progress_bar(evaluations: int | None) -> Iterator[Callable[[int, float], None]]:
    """Yield the function (evaluations done, best cost) that shows them; None shows nothing."""
    if evaluations is None:
        yield lambda done, best: None
    elif find_spec("rich") is not None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = BarColumn(), MofNCompleteColumn(), TextColumn("best {task.fields[best]:.6g}")
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("", total=evaluations, best=float("nan"))
            yield lambda done, best: bar.update(task, completed=done, best=best)
    else:
        tenths = 0

        def show(done: int, best: float) -> None:
            nonlocal tenths
            if 10 * done // evaluations > tenths:
                tenths = 10 * done // evaluations
                print(f"{done}/{evaluations} evaluations, best {best:.6g}", file=sys.stderr)

        yield show
