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
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffevo_jax import baselines as baselines
    from diffevo_jax import batch as batch
    from diffevo_jax import denoisers as denoisers
    from diffevo_jax import drawings as drawings
    from diffevo_jax import fitness as fitness
    from diffevo_jax import genome as genome
    from diffevo_jax import interop as interop
    from diffevo_jax import latent as latent
    from diffevo_jax import metrics as metrics
    from diffevo_jax import optimize as optimize
    from diffevo_jax import policies as policies
    from diffevo_jax import presets as presets
    from diffevo_jax import problems as problems
    from diffevo_jax import samplers as samplers
    from diffevo_jax import schedules as schedules
    from diffevo_jax import sharding as sharding
    from diffevo_jax.base import Denoiser as Denoiser
    from diffevo_jax.base import Level as Level
    from diffevo_jax.base import Move as Move
    from diffevo_jax.base import Sampler as Sampler
    from diffevo_jax.base import Weights as Weights
    from diffevo_jax.denoising import Info as Info
    from diffevo_jax.denoising import State as State
    from diffevo_jax.denoising import denoising_evolution as denoising_evolution
    from diffevo_jax.denoising import diffusion_evolution as diffusion_evolution
    from diffevo_jax.estimator import Posterior as Posterior
    from diffevo_jax.estimator import estimate_posterior as estimate_posterior
    from diffevo_jax.estimator import estimate_x0 as estimate_x0
    from diffevo_jax.evolution import Algorithm as Algorithm
    from diffevo_jax.evolution import Best as Best
    from diffevo_jax.evolution import Evolved as Evolved
    from diffevo_jax.evolution import Running as Running
    from diffevo_jax.evolution import begin as begin
    from diffevo_jax.evolution import evolve as evolve
    from diffevo_jax.evolution import make_generation as make_generation
    from diffevo_jax.optimize.api import maximize as maximize
    from diffevo_jax.optimize.api import minimize as minimize
    from diffevo_jax.optimize.result import Result as Result
    from diffevo_jax.runner.loading import load_run as load_run
    from diffevo_jax.samplers.ddim import ddim_mean as ddim_mean
    from diffevo_jax.samplers.ddim import ddim_sigma as ddim_sigma
    from diffevo_jax.samplers.ddim import ddim_step as ddim_step

__version__ = "0.1.0"

# Loaded at first use, so that `diffevo-jax --help` need not wait for jax and flax.
_MODULES = (
    *("baselines", "batch", "denoisers", "drawings", "fitness", "genome", "interop"),
    *("latent", "metrics", "optimize", "policies", "presets", "problems", "samplers", "schedules"),
    "sharding",
)
_HOMES = {
    "Denoiser": "base",
    "Level": "base",
    "Move": "base",
    "Sampler": "base",
    "Weights": "base",
    "Info": "denoising",
    "State": "denoising",
    "denoising_evolution": "denoising",
    "diffusion_evolution": "denoising",
    "Posterior": "estimator",
    "estimate_posterior": "estimator",
    "estimate_x0": "estimator",
    "Algorithm": "evolution",
    "Best": "evolution",
    "Evolved": "evolution",
    "Running": "evolution",
    "begin": "evolution",
    "evolve": "evolution",
    "make_generation": "evolution",
    "maximize": "optimize.api",
    "minimize": "optimize.api",
    "Result": "optimize.result",
    "load_run": "runner.loading",
    "ddim_mean": "samplers.ddim",
    "ddim_sigma": "samplers.ddim",
    "ddim_step": "samplers.ddim",
}


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        try:
            return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        except ModuleNotFoundError as error:
            if not _HOMES[name].startswith("runner"):
                raise
            message = f'{name} needs {error.name}: pip install "diffevo-jax[run]"'
            raise ModuleNotFoundError(message) from None
    module = sys.modules[__name__]  # from which Python makes its "Did you mean"
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'", name=name, obj=module)


def __dir__() -> list[str]:
    return [*_MODULES, *_HOMES, "__version__"]
