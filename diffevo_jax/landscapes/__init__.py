"""Landscapes to evolve on: the paper's, BBOB's, moving peaks, domains of behaviour, bits."""

from diffevo_jax.landscapes import bbob as bbob
from diffevo_jax.landscapes import discrete as discrete
from diffevo_jax.landscapes import domains as domains
from diffevo_jax.landscapes import functions as functions
from diffevo_jax.landscapes._moving import generalised_moving_peaks as generalised_moving_peaks
from diffevo_jax.landscapes._moving import moving_peaks as moving_peaks
from diffevo_jax.landscapes._problem import make_problem as make_problem
from diffevo_jax.landscapes.functions import ackley as ackley
from diffevo_jax.landscapes.functions import beale as beale
from diffevo_jax.landscapes.functions import himmelblau as himmelblau
from diffevo_jax.landscapes.functions import rastrigin as rastrigin
from diffevo_jax.landscapes.functions import rosenbrock as rosenbrock
from diffevo_jax.landscapes.functions import two_peaks as two_peaks
from diffevo_jax.landscapes.functions import two_steps as two_steps

__all__ = [  # for `help`
    "ackley",
    "bbob",
    "beale",
    "discrete",
    "domains",
    "functions",
    "generalised_moving_peaks",
    "himmelblau",
    "make_problem",
    "moving_peaks",
    "rastrigin",
    "rosenbrock",
    "two_peaks",
    "two_steps",
]
