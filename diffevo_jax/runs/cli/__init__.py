"""The command line. A command imports what it needs, so that --help waits for nothing."""

from typing import Annotated

import typer

from diffevo_jax.runs.cli.configs import init, list_configs
from diffevo_jax.runs.cli.finished import animate, compare, plot
from diffevo_jax.runs.cli.reproduction import reproduce
from diffevo_jax.runs.cli.runs import run
from diffevo_jax.runs.cli.sweeps import sweep

app = typer.Typer(
    name="diffevo-jax",
    help="Diffusion Evolution in JAX: evolutionary search as denoising.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        from diffevo_jax import __version__

        typer.echo(f"diffevo-jax {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Diffusion Evolution in JAX: evolutionary search as denoising."""


def info() -> None:
    """Show versions, devices, and the kernel that would run on them."""
    from diffevo_jax.kernels import platforms as kernels
    from diffevo_jax.runs.results.folder import environment

    seen = environment()
    for name, version in seen["versions"].items():
        typer.echo(f"{name:<12} {version}")
    typer.echo(f"{'device':<12} {seen['device_count']} x {seen['device']} ({seen['backend']})")
    typer.echo(f"{'estimator':<12} {kernels.explain()}")


_COMMANDS = {
    "run": run,
    "sweep": sweep,
    "list": list_configs,
    "init": init,
    "plot": plot,
    "compare": compare,
    "animate": animate,
    "reproduce": reproduce,
    "info": info,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
