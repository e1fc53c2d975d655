"""The command line: run, list, figure, info. What a command needs is imported when it runs."""

from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="diffevo-jax",
    help="Diffusion Evolution in JAX: evolutionary search as denoising.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_BAD_INPUT = 2
_INTERRUPTED = 130


def main() -> None:
    """Entry point of the `diffevo-jax` command."""
    app()


@app.command()
def run(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A YAML file, or a name from `list`.")
    ],
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Override a setting; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for the results.", show_default="runs/NAME-DATE-TIME"),
    ] = None,
) -> None:
    """Run a config: evolve every method over every repeat, save the results, draw the figure."""
    with _errors_for_people():
        from diffevo_jax.runner.config import find_config, load_config

        path = find_config(config)
        settings = load_config(path, override)

        from rich.console import Console

        from diffevo_jax.runner import figure, results
        from diffevo_jax.runner import run as runner

        for method in settings.methods.values():
            runner.build(method, settings.population)  # what can't be built leaves no folder
        folder = results.create(out, settings.name)
        console = Console()
        console.print(f"{settings.description}\n{settings.repeats} repeats -> {folder}")
        source = " ".join([str(path), *(f"--set {text}" for text in override or [])])
        try:
            with _progress_bar(settings, console) as progress:
                summaries = runner.run(settings, folder, source=source, progress=progress)
        except KeyboardInterrupt:
            console.print(f"Interrupted. The repeats that had finished are in {folder}")
            raise typer.Exit(_INTERRUPTED) from None
        for line in _table(summaries):
            console.print(line)
        for drawn in figure.draw(folder):
            console.print(f"[dim]{drawn}[/dim]", highlight=False)


@app.command("list")
def list_configs() -> None:
    """List the configs that come with the package, one line each."""
    with _errors_for_people():
        from diffevo_jax.runner.config import config_folder, load_config

        paths = sorted(config_folder().glob("*.yaml"))
        width = max((len(path.stem) for path in paths), default=0)
        for path in paths:
            typer.echo(f"{path.stem:<{width}}  {load_config(path).description}")


@app.command("figure")
def draw_figure(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
) -> None:
    """Draw a run folder's figure again, from its files alone."""
    with _errors_for_people():
        from diffevo_jax.runner import figure

        for path in figure.draw(folder):
            typer.echo(path)


@app.command()
def info() -> None:
    """Show versions, devices, and the kernel that would run on them."""
    from diffevo_jax import estimator
    from diffevo_jax.runner.results import environment

    seen = environment()
    for name, version in seen["versions"].items():
        typer.echo(f"{name:<12} {version}")
    typer.echo(f"{'device':<12} {seen['device_count']} x {seen['device']} ({seen['backend']})")
    typer.echo(f"{'estimator':<12} {estimator.choose()}: {estimator.why()}")


@contextmanager
def _errors_for_people():
    """Turn what a user can mend into one message and exit code 2."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        from diffevo_jax.runner.config import ConfigError
        from diffevo_jax.runner.run import Stopped

        if not isinstance(error, ConfigError | Stopped):
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(_BAD_INPUT) from None


@contextmanager
def _progress_bar(settings, console):
    """One bar over all methods, repeats and generations."""
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console) as bar:
        tasks = {
            name: bar.add_task(
                method.label, total=settings.repeats * method.evolution.schedule.num_levels
            )
            for name, method in settings.methods.items()
        }

        def progress(name: str, repeats: int, generations: int, compiling: bool) -> None:
            method = settings.methods[name]
            done = repeats * method.evolution.schedule.num_levels + generations
            note = "  [dim]compiling[/dim]" if compiling else ""
            bar.update(tasks[name], completed=done, description=method.label + note)

        yield progress


def _table(summaries):
    """The last generation of each method, beside the reference where there is one."""
    from rich.table import Table

    table = Table(title="Last generation, mean ± standard error over repeats", title_justify="left")
    table.add_column("method")
    for heading in ("genes", "repeats", "mean fitness", "median"):
        table.add_column(heading, justify="right")
    success = any(summary.success for summary in summaries)
    reference = any(summary.success and summary.reference for summary in summaries)
    if success:
        table.add_column("success", justify="right")
    if reference:
        table.add_column("reference", justify="right")
        table.add_column("difference", justify="right")
    for summary in summaries:
        row = [summary.label, f"{summary.num_genes:,}", str(summary.repeats)]
        row += [f"{summary.mean[0]:.4g} ± {summary.mean[1]:.2g}", f"{summary.median:.4g}"]
        if success:
            row.append(_percent(summary.success))
        if reference and summary.success and summary.reference:
            expected = (summary.reference.success_rate, summary.reference.standard_error)
            error = (summary.success[1] ** 2 + expected[1] ** 2) ** 0.5
            row += [_percent(expected), f"{(summary.success[0] - expected[0]) / error:+.1f} s.e."]
        table.add_row(*row)
    yield table
    for source in dict.fromkeys(s.reference.source for s in summaries if s.reference):
        yield f"[dim]reference: {source}[/dim]"


def _percent(value_and_error) -> str:
    if value_and_error is None:
        return ""
    return f"{100 * value_and_error[0]:.1f} ± {100 * value_and_error[1]:.1f} %"
