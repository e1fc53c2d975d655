"""Diffusion Evolution in JAX: evolutionary search as denoising.

Notation, the same in every file. N individuals, D genes, d latent dimensions, T levels, S seeds.

    population, x_t   [N, D]  a row is a genome
    fitness           [N]     higher is better, everywhere
    fitness map, g            fitness, valid [N] -> log weight [N]
    alpha_t           []      signal level, rises from about 0 to about 1 during a run
    alpha_prev        []      the level of the next generation: t counts down, as in DDPM
    x0, eps, sigma, eta       clean estimate, noise direction, noise size, its scale in [0, 1]
    projection, z_t   [D, d], [N, d]  latent space for the distances

The method is Zhang, Hartl, Hazan, Levin: Diffusion Models are Evolutionary Algorithms (ICLR 2025,
https://arxiv.org/abs/2410.02543). This is an independent implementation from the paper.
"""

from diffevo_jax import archives as archives
from diffevo_jax import baselines as baselines
from diffevo_jax import batch as batch
from diffevo_jax import conditions as conditions
from diffevo_jax import denoisers as denoisers
from diffevo_jax import discrete as discrete
from diffevo_jax import drawings as drawings
from diffevo_jax import environments as environments
from diffevo_jax import evosax as evosax
from diffevo_jax import fitness as fitness
from diffevo_jax import genome as genome
from diffevo_jax import kernels as kernels
from diffevo_jax import landscapes as landscapes
from diffevo_jax import latent as latent
from diffevo_jax import metrics as metrics
from diffevo_jax import optimize as optimize
from diffevo_jax import policies as policies
from diffevo_jax import presets as presets
from diffevo_jax import samplers as samplers
from diffevo_jax import schedules as schedules
from diffevo_jax import sharding as sharding
from diffevo_jax import tasks as tasks
from diffevo_jax import training as training
from diffevo_jax.algorithm import Algorithm as Algorithm
from diffevo_jax.algorithm import Best as Best
from diffevo_jax.algorithm import Evolved as Evolved
from diffevo_jax.algorithm import Running as Running
from diffevo_jax.algorithm import begin as begin
from diffevo_jax.algorithm import evolve as evolve
from diffevo_jax.algorithm import make_algorithm as make_algorithm
from diffevo_jax.algorithm import make_generation as make_generation
from diffevo_jax.checks import InputError as InputError
from diffevo_jax.denoising import Info as Info
from diffevo_jax.denoising import State as State
from diffevo_jax.denoising import denoising_evolution as denoising_evolution
from diffevo_jax.diffusion import diffusion_evolution as diffusion_evolution
from diffevo_jax.discrete import discrete_evolution as discrete_evolution
from diffevo_jax.kernels import estimate_posterior as estimate_posterior
from diffevo_jax.kernels import estimate_x0 as estimate_x0
from diffevo_jax.optimize import Result as Result
from diffevo_jax.optimize import maximize as maximize
from diffevo_jax.optimize import minimize as minimize
from diffevo_jax.parts import Denoiser as Denoiser
from diffevo_jax.parts import Kernel as Kernel
from diffevo_jax.parts import Learned as Learned
from diffevo_jax.parts import Level as Level
from diffevo_jax.parts import Move as Move
from diffevo_jax.parts import Posterior as Posterior
from diffevo_jax.parts import Sampler as Sampler
from diffevo_jax.parts import Weights as Weights
from diffevo_jax.parts import no_memory as no_memory
from diffevo_jax.problem import Problem as Problem
from diffevo_jax.problem import reevaluate as reevaluate
from diffevo_jax.samplers import ddim_mean as ddim_mean
from diffevo_jax.samplers import ddim_sigma as ddim_sigma
from diffevo_jax.samplers import ddim_step as ddim_step

__version__ = "0.1.0"
