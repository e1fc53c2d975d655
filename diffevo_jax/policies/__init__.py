"""Policies: networks whose parameters are a flat genome; see `Policy`."""

from diffevo_jax.policies._gru import GRU as GRU
from diffevo_jax.policies._gru import gru as gru
from diffevo_jax.policies._linen import linen_policy as linen_policy
from diffevo_jax.policies._mlp import MLP as MLP
from diffevo_jax.policies._mlp import mlp as mlp
from diffevo_jax.policies._policy import Batched as Batched
from diffevo_jax.policies._policy import Policy as Policy
from diffevo_jax.policies._policy import from_apply as from_apply
from diffevo_jax.policies._policy import scaled as scaled

__all__ = [  # for `help`
    "GRU",
    "MLP",
    "Batched",
    "Policy",
    "from_apply",
    "gru",
    "linen_policy",
    "mlp",
    "scaled",
]
