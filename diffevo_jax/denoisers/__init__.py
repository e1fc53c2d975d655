"""Denoisers: from a weighted population to clean targets. A file each; `base` says what one is."""

from diffevo_jax.denoisers.posterior_mean import posterior_mean as posterior_mean
