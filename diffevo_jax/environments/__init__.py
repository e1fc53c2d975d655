"""Environments for policies: those of four libraries by name, or one of your own."""

from diffevo_jax.environments._brax import brax as brax
from diffevo_jax.environments._environment import Environment as Environment
from diffevo_jax.environments._environment import Transition as Transition
from diffevo_jax.environments._gymnax import gymnax as gymnax
from diffevo_jax.environments._jumanji import jumanji as jumanji
from diffevo_jax.environments._names import make as make
from diffevo_jax.environments._names import register as register
from diffevo_jax.environments._playground import playground as playground

__all__ = [  # for `help`
    "Environment",
    "Transition",
    "brax",
    "gymnax",
    "jumanji",
    "make",
    "playground",
    "register",
]
