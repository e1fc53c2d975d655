"""`diffevo-jax list` and `init`: configs to run, and to start from."""

from pathlib import Path
from typing import Annotated

import typer

from diffevo_jax.runs.cli.common import errors_for_people


def list_configs() -> None:
    """List the configs that come with the package, under the command that runs them."""
    with errors_for_people():
        from diffevo_jax.runs.config.files import config_folder, summaries

        found = summaries(config_folder())
        width = max((len(name) for name, _, _ in found), default=0)
        for command in ("run", "sweep"):
            typer.echo(f"diffevo-jax {command} NAME")
            for name, kind, description in found:
                if kind == command:
                    typer.echo(f"  {name:<{width}}  {description}")
        typer.echo("diffevo-jax reproduce\n  every figure and table of the paper, in a clone")


def init(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The experiment's name.")
    ] = "my_experiment",
    problem: Annotated[
        str, typer.Option(metavar="KIND", help="function, control or bbob.")
    ] = "control",
    out: Annotated[
        Path | None, typer.Option(help="The new file.", show_default="NAME.yaml")
    ] = None,
) -> None:
    """Write a commented config to start from: it runs as it is, and says what may be set."""
    with errors_for_people():
        from diffevo_jax.runs.config.files import starter
        from diffevo_jax.runs.config.schema import ConfigError
        from diffevo_jax.runs.results.files import write_whole

        path = out or Path(f"{name}.yaml")
        text = starter(name, problem, path)
        if path.exists():
            raise ConfigError(f"{path}: exists; choose another NAME or --out FILE")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
        typer.echo(f"{path}: run it with `diffevo-jax run {path}`")
