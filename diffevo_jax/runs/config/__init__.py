"""Run configs: YAML text -> mapping -> points of a sweep -> validated configs of runs."""

from diffevo_jax.runs.config import builtin as builtin  # registers its names
