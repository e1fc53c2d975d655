"""Kernels: how much individuals count for each other, and the averages that follow."""

from diffevo_jax.kernels._estimate import estimate_posterior as estimate_posterior
from diffevo_jax.kernels._estimate import estimate_x0 as estimate_x0
from diffevo_jax.kernels._estimate import log_density as log_density
from diffevo_jax.kernels._gaussian import gaussian as gaussian
from diffevo_jax.kernels._isotropic import isotropic as isotropic
from diffevo_jax.kernels._isotropic import student_t as student_t

__all__ = [  # for `help`
    "estimate_posterior",
    "estimate_x0",
    "gaussian",
    "isotropic",
    "log_density",
    "student_t",
]
