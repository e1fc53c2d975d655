"""Samplers: from clean targets to the next population. A file each; `base` says what one is."""

from diffevo_jax.samplers.ddim import ddim as ddim
from diffevo_jax.samplers.dpm_solver import dpm_solver as dpm_solver
