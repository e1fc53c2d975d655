"""Answers in one call: `minimize`, `maximize`, and `ask_tell` for a loop of your own."""

from diffevo_jax.optimize.api import maximize as maximize
from diffevo_jax.optimize.api import minimize as minimize
from diffevo_jax.optimize.pure import search as search
from diffevo_jax.optimize.result import Optimum as Optimum
from diffevo_jax.optimize.result import Result as Result
from diffevo_jax.optimize.session import AskTell as AskTell
from diffevo_jax.optimize.session import ask_tell as ask_tell
