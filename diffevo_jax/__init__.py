"""Diffusion Evolution in JAX: evolutionary search as denoising.

Notation, the same in every file. N individuals, D genes, d latent dimensions, T levels, S seeds.

    population, x_t   [N, D]  a row is a genome
    fitness           [N]     higher is better, everywhere
    fitness map, g            fitness -> log weight [N]
    alpha_t           []      signal level, rises from about 0 to about 1 during a run
    alpha_prev        []      the level of the next generation: t counts down, as in DDPM
    x0, eps, sigma, eta       clean estimate, noise direction, noise size, its scale in [0, 1]
    projection, z_t   [D, d], [N, d]  latent space for the distances

The method is Zhang, Hartl, Hazan, Levin: Diffusion Models are Evolutionary Algorithms (ICLR 2025,
https://arxiv.org/abs/2410.02543). This is an independent implementation from the paper.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffevo_jax import batch as batch
    from diffevo_jax import fitness as fitness
    from diffevo_jax import genome as genome
    from diffevo_jax import latent as latent
    from diffevo_jax import metrics as metrics
    from diffevo_jax import policies as policies
    from diffevo_jax import problems as problems
    from diffevo_jax import schedules as schedules
    from diffevo_jax import sharding as sharding
    from diffevo_jax.ddim import ddim_sigma as ddim_sigma
    from diffevo_jax.ddim import ddim_step as ddim_step
    from diffevo_jax.estimator import Posterior as Posterior
    from diffevo_jax.estimator import estimate_posterior as estimate_posterior
    from diffevo_jax.estimator import estimate_x0 as estimate_x0
    from diffevo_jax.evolution import Algorithm as Algorithm
    from diffevo_jax.evolution import Info as Info
    from diffevo_jax.evolution import State as State
    from diffevo_jax.evolution import diffusion_evolution as diffusion_evolution
    from diffevo_jax.evolution import evolve as evolve
    from diffevo_jax.evolution import make_generation as make_generation

__version__ = "0.1.0"

# Loaded at first use, so that `diffevo-jax --help` need not wait for jax and flax.
_MODULES = (
    *("batch", "fitness", "genome", "latent", "metrics"),
    *("policies", "problems", "schedules", "sharding"),
)
_HOMES = {
    "ddim_sigma": "ddim",
    "ddim_step": "ddim",
    "Posterior": "estimator",
    "estimate_posterior": "estimator",
    "estimate_x0": "estimator",
    "Algorithm": "evolution",
    "Info": "evolution",
    "State": "evolution",
    "diffusion_evolution": "evolution",
    "evolve": "evolution",
    "make_generation": "evolution",
}


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*_MODULES, *_HOMES, "__version__"]
