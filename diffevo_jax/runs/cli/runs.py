"""`diffevo-jax run`."""

import signal
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from diffevo_jax.runs.cli.common import (
    INTERRUPTED,
    Cache,
    Override,
    Plugin,
    Repeats,
    Seed,
    errors_for_people,
    interrupt,
    with_named,
)


class Log(StrEnum):
    """What a run also writes as it goes."""

    tensorboard = "tensorboard"


def run(
    config: Annotated[
        str,
        typer.Argument(metavar="CONFIG", help="A YAML file, a name from `list`, or a run folder."),
    ],
    override: Override = None,
    seed: Seed = None,
    repeats: Repeats = None,
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for the results.", show_default="runs/NAME-DATE-TIME"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run that --out holds; start it where there is none."
        ),
    ] = False,
    plugin: Plugin = None,
    log: Annotated[
        Log | None,
        typer.Option(help="Also write scalars as it goes, into OUT/tensorboard."),
    ] = None,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed",
            help="One of many processes that share each population; which one say SLURM, Open MPI "
            "or the next three.",
        ),
    ] = False,
    coordinator: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where process 0 can be reached.")
    ] = None,
    processes: Annotated[int | None, typer.Option(help="How many processes there are.")] = None,
    process: Annotated[int | None, typer.Option(help="Which one this is, from 0.")] = None,
    cache: Cache = True,
) -> None:
    """Run a config: evolve every method over every repeat, save the results, draw the figure."""
    with errors_for_people():
        from diffevo_jax.runs.config import plugins
        from diffevo_jax.runs.config.experiment import load
        from diffevo_jax.runs.config.files import find_config, shown

        override = with_named(override, seed=seed, repeats=repeats)
        path, out = _to_resume(config, out) if resume else (find_config(config), out)

        from diffevo_jax.runs.results import folder as results
        from diffevo_jax.runs.results import scalars
        from diffevo_jax.runs.run import engine as runner
        from diffevo_jax.runs.run import processes as many
        from diffevo_jax.runs.run import startup

        # Before the config is read: Gymnax, which knows the tasks, starts JAX.
        startup.use_all_cores()
        startup.use_graphs()
        if cache:
            startup.keep_compiled()
        many.connect(distributed, coordinator, processes, process)

        source = " ".join([shown(path), *(f"--set {text}" for text in override)])
        with many.ending_together(), errors_for_people():
            if log is not None:
                scalars.check()
            sources = plugins.load(plugin or ())
            settings = load(path, override).config
            programs = runner.build(settings, mesh=many.mesh() if distributed else None)
            if not resume and results.is_unfinished(Path(config)):
                typer.echo(
                    f"{config} is unfinished; this is a new run of its config. "
                    f"`diffevo-jax run {config} --resume` goes on with it."
                )
            folder = many.on_first(results.create, out, settings.name, resume=resume)
            _run_into(folder, settings, programs, source, sources, log)


def _run_into(folder: Path, settings, programs, source, sources, log: Log | None) -> None:
    """Run into a folder; show progress, results and figure."""
    from rich.console import Console

    from diffevo_jax.runs.report import display, figure
    from diffevo_jax.runs.results import scalars
    from diffevo_jax.runs.run import engine as runner
    from diffevo_jax.runs.run.processes import is_first, on_first

    console = Console(markup=False, quiet=not is_first())
    lengths = {name: program.num_levels for name, program in programs.items()}
    console.print(
        f"{settings.description or settings.name}\n{display.header(settings, lengths)} -> {folder}"
    )
    signal.signal(signal.SIGTERM, interrupt)  # a scheduler's time limit keeps the results too
    try:
        with ExitStack() as held:
            progress = held.enter_context(display.progress_bar(settings, lengths, console))
            logged = scalars.nowhere
            if log is not None and is_first():
                logged = held.enter_context(scalars.tensorboard(folder))
                console.print(f"tensorboard --logdir {folder / scalars.FOLDER}", style="dim")
            summaries = runner.run(
                settings,
                programs,
                folder,
                source=source,
                sources=sources,
                progress=progress,
                say=console.print,
                log=logged,
            )
    except KeyboardInterrupt:
        if is_first():
            console.print(f"Interrupted. {_kept(folder)}")
            console.print(f"`diffevo-jax run {folder} --resume` goes on.")
        raise typer.Exit(INTERRUPTED) from None
    except runner.Stopped as stopped:
        raise runner.Stopped(f"{stopped}\n{on_first(_kept, folder)}") from None
    for line in display.table(summaries):
        console.print(line)
    if is_first():
        for drawn in figure.draw(folder):
            console.print(drawn, style="dim", highlight=False)


def _to_resume(config: str, out: Path | None) -> tuple[Path, Path]:
    """Config and folder of a run to resume: given by both, or by its folder alone."""
    from diffevo_jax.runs.config.files import find_config
    from diffevo_jax.runs.config.schema import ConfigError
    from diffevo_jax.runs.results import folder as results

    folder = Path(config)
    if (folder / "config.yaml").is_file():
        return folder / "config.yaml", out or folder
    if out is None:
        message = (
            f"--resume: expected a run folder, or a config and its --out FOLDER; seen {config}"
        )
        if folder.is_dir() and results.is_begun(folder):
            message = (
                f"--resume: {folder} holds no config yet; start it with its config: "
                f"`diffevo-jax run CONFIG --out {folder} --resume`"
            )
        raise ConfigError(message)
    return find_config(config), out


def _times(repeats: int) -> str:
    return "1 repeat" if repeats == 1 else f"{repeats} repeats"


def _kept(folder: Path) -> str:
    """Say what a run that ended early has kept."""
    from diffevo_jax.runs.results import folder as results

    done = results.finished_repeats(folder)
    kept = ", ".join(f"{_times(count)} of {name}" for name, count in done.items() if count)
    return f"Kept in {folder}: {kept or 'the config; no repeat had finished'}."
