"""Answers in one call: `minimize`, `maximize`, and `Search` for a loop of your own."""

from diffevo_jax.optimize import host as host
from diffevo_jax.optimize import scores as scores
from diffevo_jax.optimize._minimize import maximize as maximize
from diffevo_jax.optimize._minimize import minimize as minimize
from diffevo_jax.optimize._search import search as search
from diffevo_jax.optimize.ask_tell import Search as Search
from diffevo_jax.optimize.options import Options as Options
from diffevo_jax.optimize.result import MaximizeResult as MaximizeResult
from diffevo_jax.optimize.result import Maximum as Maximum
from diffevo_jax.optimize.result import Optimum as Optimum
from diffevo_jax.optimize.result import Result as Result
from diffevo_jax.optimize.template import choice as choice

__all__ = [  # for `help`
    "MaximizeResult",
    "Maximum",
    "Optimum",
    "Options",
    "Result",
    "Search",
    "choice",
    "host",
    "maximize",
    "minimize",
    "scores",
    "search",
]
