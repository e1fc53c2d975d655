"""Policies: networks whose parameters are a flat genome."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffevo_jax import genome


class Policy(NamedTuple):
    """A network to evolve.

    num_inputs: observation size O. num_outputs: output size A. num_genes: D.
    unflatten: genome `[D]` -> parameters.
    apply: (parameters, observation `[O]`) -> outputs `[A]`.
    """

    num_inputs: int
    num_outputs: int
    num_genes: int
    unflatten: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array], jax.Array]


class MLP(nn.Module):
    """A multilayer perceptron in Flax Linen: Dense layers, `activation` between them.

    features: sizes of the hidden layers and of the output.
    """

    features: Sequence[int]
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, observation: jax.Array) -> jax.Array:
        """Map observation `[..., O]` to outputs `[..., A]`."""
        x = observation
        for size in self.features[:-1]:
            x = self.activation(nn.Dense(size)(x))
        return nn.Dense(self.features[-1])(x)


def mlp(sizes: Sequence[int], *, activation: Callable[[jax.Array], jax.Array] = nn.relu) -> Policy:
    """Make an MLP policy.

    sizes: inputs, hidden layers, outputs. The paper's cart-pole policies are (4, 8, 2) with 58
        parameters and (4, 128, 128, 2) with 17,410, both with ReLU.

    Raises ValueError unless sizes holds at least two numbers of 1 or more.
    """
    if len(sizes) < 2 or any(size < 1 for size in sizes):
        raise ValueError(
            f"sizes: expected inputs, any hidden layers, outputs, each >= 1; seen {tuple(sizes)}"
        )
    return linen_policy(MLP(tuple(sizes[1:]), activation), sizes[0])


def linen_policy(module: nn.Module, num_inputs: int) -> Policy:
    """Make a policy of any Flax Linen module that maps an observation `[O]` to outputs `[A]`."""
    observation = jax.ShapeDtypeStruct((num_inputs,), jnp.zeros(()).dtype)
    variables = jax.eval_shape(module.init, jax.random.key(0), observation)
    return from_apply(module.apply, variables, num_inputs)


def from_apply(apply: Callable[[Any, jax.Array], Any], template: Any, num_inputs: int) -> Policy:
    """Make a policy of any pure function (parameters, observation `[O]`) -> outputs `[A]`.

    template: parameters, or their shapes, as `genome.codec` takes them. For Flax NNX:

        graphdef, params = nnx.split(model)
        from_apply(lambda params, obs: nnx.merge(graphdef, params)(obs), params, num_inputs)

    Raises ValueError when the outputs are not a vector.
    """
    params = genome.codec(template)
    observation = jax.ShapeDtypeStruct((num_inputs,), jnp.zeros(()).dtype)
    outputs = jax.eval_shape(apply, template, observation)
    if getattr(outputs, "ndim", None) != 1:
        raise ValueError(
            f"apply: expected outputs of shape [A] from an observation of shape ({num_inputs},); "
            f"seen {outputs}"
        )
    return Policy(num_inputs, outputs.shape[0], params.num_genes, params.unflatten, apply)
