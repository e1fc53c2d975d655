"""`python -m diffevo_jax.runner.cli`, the same as `diffevo-jax`."""

from diffevo_jax.runner.cli import app

app(prog_name="diffevo-jax")
