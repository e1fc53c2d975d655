"""`diffevo-jax sweep`."""

import signal
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
    plain_console,
    with_named,
)


class Executor(StrEnum):
    """Where the jobs of a sweep run, by submitit's names."""

    local = "local"
    slurm = "slurm"
    debug = "debug"


def sweep(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A YAML file with a section `sweep`, or a name.")
    ],
    executor: Annotated[
        Executor,
        typer.Option(
            help="local: one job after the other; slurm: an array; debug: in this process."
        ),
    ] = Executor.local,
    override: Override = None,
    seed: Seed = None,
    repeats: Repeats = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the sweep; what is finished in it is kept.", show_default="runs/NAME"
        ),
    ] = None,
    only: Annotated[
        list[int] | None,
        typer.Option(metavar="POINT", help="Only this point; may be repeated."),
    ] = None,
    plugin: Plugin = None,
    cache: Cache = True,
) -> None:
    """Run every point of a sweep that is not finished, many as one program, into one table."""
    with errors_for_people():
        import jax

        from diffevo_jax.runs.config.files import find_config
        from diffevo_jax.runs.report import sweep_summary
        from diffevo_jax.runs.run.sweep import sweep as run_sweep

        path = find_config(config)
        override = with_named(override, seed=seed, repeats=repeats)

        if executor is not Executor.debug:
            jax.config.update("jax_platforms", "cpu")  # accelerators are for the jobs
        signal.signal(signal.SIGTERM, interrupt)
        try:
            failed = run_sweep(
                path,
                override,
                executor=executor.value,
                out=out,
                only=only or (),
                plugin=plugin or (),
                cache=cache,
                say=typer.echo,
                finish=lambda folder: sweep_summary.show(folder, plain_console(), if_any=True),
            )
        except KeyboardInterrupt:
            typer.echo("Interrupted. The same command goes on from what is finished.")
            raise typer.Exit(INTERRUPTED) from None
    for line in failed:
        typer.echo(f"failed: {line}", err=True)
    if failed:
        raise typer.Exit(1)
