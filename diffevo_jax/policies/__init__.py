"""Policies: networks whose parameters are a flat genome. A file each; `policy` says what one is."""

from diffevo_jax.policies.gru import GRU as GRU
from diffevo_jax.policies.gru import gru as gru
from diffevo_jax.policies.linen import linen_policy as linen_policy
from diffevo_jax.policies.mlp import MLP as MLP
from diffevo_jax.policies.mlp import mlp as mlp
from diffevo_jax.policies.policy import Batched as Batched
from diffevo_jax.policies.policy import Policy as Policy
from diffevo_jax.policies.policy import from_apply as from_apply
