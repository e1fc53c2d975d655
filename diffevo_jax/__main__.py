"""`python -m diffevo_jax`, the same as `diffevo-jax`."""

from diffevo_jax.runs import main

main()
