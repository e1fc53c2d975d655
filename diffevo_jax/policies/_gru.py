"""A recurrent policy: a gated recurrent unit and a linear read-out."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffevo_jax.checks import Count, InputError
from diffevo_jax.policies._linen import linen_policy
from diffevo_jax.policies._policy import Policy


class GRU(nn.Module):
    """A gated recurrent unit in Flax Linen, read out by a Dense layer.

    hidden: size H of the carry. num_outputs: A.
    """

    hidden: int
    num_outputs: int

    @nn.compact
    def __call__(self, carry: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map carry `[H]` and observation `[O]` to the next carry and outputs `[A]`."""
        carry, features = nn.GRUCell(self.hidden)(carry, observation)
        return carry, nn.Dense(self.num_outputs)(features)

    @nn.nowrap
    def initialize_carry(self, key: jax.Array, input_shape: tuple[int, ...]) -> jax.Array:
        """Carry of an episode's first step: zeros `[H]`."""
        return jnp.zeros(self.hidden)


def gru(num_inputs: int, num_outputs: int, *, hidden: Count = 8) -> Policy:
    """Make a policy with a memory: a gated recurrent unit, whose state a linear layer reads.

    hidden: size of the state, which is 0 as an episode begins.

    Raises InputError on sizes below 1. Source: Cho et al., 1406.1078, as Flax's `GRUCell` has it.
    """
    sizes = (num_inputs, hidden, num_outputs)
    if min(sizes) < 1:
        raise InputError("num_inputs, hidden, num_outputs", "sizes of 1 or more", sizes)
    return linen_policy(GRU(hidden, num_outputs), num_inputs)
