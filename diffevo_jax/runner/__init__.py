"""Config-driven runs and the `diffevo-jax` command."""

import sys


def main() -> None:
    """Entry point of the `diffevo-jax` command."""
    try:
        from diffevo_jax.runner.cli import app
    except ModuleNotFoundError as error:
        sys.exit(f'error: the command needs {error.name}: pip install "diffevo-jax[all]"')
    app(prog_name="diffevo-jax")
