"""Problems to evolve on: landscapes (`functions`, `bbob`), tasks (`control`), Python (`host`)."""

from diffevo_jax.problems import bbob as bbob
from diffevo_jax.problems import control as control
from diffevo_jax.problems import functions as functions
from diffevo_jax.problems import host as host
from diffevo_jax.problems.functions import ackley as ackley
from diffevo_jax.problems.functions import beale as beale
from diffevo_jax.problems.functions import himmelblau as himmelblau
from diffevo_jax.problems.functions import rastrigin as rastrigin
from diffevo_jax.problems.functions import rosenbrock as rosenbrock
from diffevo_jax.problems.functions import two_peaks as two_peaks
from diffevo_jax.problems.functions import two_steps as two_steps
from diffevo_jax.problems.moving_peaks import moving_peaks as moving_peaks
from diffevo_jax.problems.problem import Problem as Problem
