"""What commands share: options, errors told to people, how they end."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

Cache = Annotated[
    bool,
    typer.Option(help="Keep compiled programs in the user's cache directory for the next run."),
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="A Python file that registers names for configs; it is run. May be repeated.",
    ),
]
Override = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Override a setting; may be repeated."),
]
Seed = Annotated[int | None, typer.Option(help="In place of the config's seed.")]
Repeats = Annotated[int | None, typer.Option(help="In place of the config's repeats.")]

BAD_INPUT = 2
INTERRUPTED = 130


def with_named(override: list[str] | None, **settings: int | None) -> list[str]:
    """Overrides, and those that have an option of their own."""
    named = [f"{key}={value}" for key, value in settings.items() if value is not None]
    return [*(override or []), *named]


def plain_console() -> "Console":
    """One that prints words as they are."""
    from rich.console import Console

    return Console(markup=False, highlight=False)


def interrupt(*_: object) -> None:
    """Handle a signal as Ctrl-C."""
    raise KeyboardInterrupt


@contextmanager
def errors_for_people():
    """Turn what a user can mend into one message and exit code 2."""
    try:
        yield
    except (ValueError, RuntimeError, OSError, MemoryError, ModuleNotFoundError) as error:
        from diffevo_jax.runs.config.schema import ConfigError
        from diffevo_jax.runs.run.engine import Stopped

        message = str(error)
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in message:
            message = f"out of memory; a smaller population or genome may fit\n{message}"
        elif (
            not isinstance(error, ConfigError | Stopped | OSError) and "pip install" not in message
        ):
            raise
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(BAD_INPUT) from None
