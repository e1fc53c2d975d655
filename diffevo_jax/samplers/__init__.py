"""Samplers: from clean targets to the next population; see `parts.Sampler`."""

from diffevo_jax.samplers._ddim import ddim as ddim
from diffevo_jax.samplers._ddim import ddim_mean as ddim_mean
from diffevo_jax.samplers._ddim import ddim_sigma as ddim_sigma
from diffevo_jax.samplers._ddim import ddim_step as ddim_step
from diffevo_jax.samplers._dpm_solver import dpm_solver as dpm_solver

__all__ = [  # for `help`
    "ddim",
    "ddim_mean",
    "ddim_sigma",
    "ddim_step",
    "dpm_solver",
]
