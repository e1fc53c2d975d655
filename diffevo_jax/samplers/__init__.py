"""Samplers: from clean targets to the next population. A file each; `base` says what one is."""

from diffevo_jax.samplers.ddim import ddim as ddim
