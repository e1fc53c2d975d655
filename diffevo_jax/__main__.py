"""`python -m diffevo_jax`, the same as `diffevo-jax`."""

from diffevo_jax.runner import main

main()
