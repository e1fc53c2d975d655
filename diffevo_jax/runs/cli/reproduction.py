"""`diffevo-jax reproduce`."""

import signal
from pathlib import Path
from typing import Annotated

import typer

import diffevo_jax
from diffevo_jax.runs.cli.common import INTERRUPTED, Cache, errors_for_people, interrupt


def reproduce(
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this figure or table; may be repeated."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few repeats: minutes, and wide errors.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the report; what is finished in it is kept.",
            show_default="runs/reproduce, with --quick runs/reproduce-quick",
        ),
    ] = None,
    cache: Cache = True,
) -> None:
    """Run every figure and table of the paper, and report them beside the published numbers."""
    with errors_for_people():
        from diffevo_jax.runs.run import startup

        startup.use_all_cores()
        startup.use_graphs()
        if cache:
            startup.keep_compiled()
        signal.signal(signal.SIGTERM, interrupt)
        try:
            failed = _from_clone("reproduce").reproduce(only, quick=quick, out=out, say=typer.echo)
        except KeyboardInterrupt:
            typer.echo("Interrupted. The same command goes on from what is finished.")
            raise typer.Exit(INTERRUPTED) from None
    if failed:
        typer.echo(f"error: not reproduced: {', '.join(failed)}; the report says why", err=True)
        raise typer.Exit(1)


def _from_clone(name: str):
    """Import one of the experiments, which a clone of the repository has and the package has not.

    Raises ConfigError where there is no clone.
    """
    import importlib
    import sys

    root = Path(diffevo_jax.__file__).resolve().parent.parent
    if not (root / "experiments" / f"{name}.py").is_file():
        from diffevo_jax.runs.config.schema import ConfigError

        raise ConfigError(
            f"{name} needs a clone of the repository, with its folder experiments/, installed by "
            "`pip install --editable .`; this is the package alone"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module(f"experiments.{name}")
