"""Denoisers: from a weighted population to clean targets; see `parts.Denoiser`."""

from diffevo_jax.denoisers._archive import archive as archive
from diffevo_jax.denoisers._behaviour import behaviour as behaviour
from diffevo_jax.denoisers._broadened import broadened as broadened
from diffevo_jax.denoisers._consensus import consensus as consensus
from diffevo_jax.denoisers._network import hybrid as hybrid
from diffevo_jax.denoisers._network import network as network
from diffevo_jax.denoisers._niching import niching as niching
from diffevo_jax.denoisers._posterior_mean import posterior_mean as posterior_mean

__all__ = [  # for `help`
    "archive",
    "behaviour",
    "broadened",
    "consensus",
    "hybrid",
    "network",
    "niching",
    "posterior_mean",
]
