"""A network of one's own on a game of MinAtar, as a plugin: configs may name what it registers.

    diffevo-jax run experiments/my_problem.yaml --plugin experiments/my_problem.py

A policy's factory is given the shape of the observations and the number of outputs; its other
parameters are settings of the config, validated from their annotations.
"""

import flax.linen as nn
import jax

import diffevo_jax as de
from diffevo_jax.checks import Count
from diffevo_jax.runs.config.registry import register


class CNN(nn.Module):
    """A convolution and a dense layer over a game's grid, `[H, W, C]` to `[num_outputs]`."""

    channels: int
    num_outputs: int

    @nn.compact
    def __call__(self, grid: jax.Array) -> jax.Array:
        """Map one observation to one output an action."""
        x = nn.relu(nn.Conv(self.channels, (3, 3), strides=2)(grid))
        return nn.Dense(self.num_outputs)(x.ravel())


@register("policy", "cnn")
def cnn(
    *, input_shape: tuple[int, ...], num_outputs: int, channels: Count = 8
) -> de.policies.Policy:
    """A small convolutional network. channels: of its one convolution."""
    if len(input_shape) != 3:
        raise ValueError(f"expected a game's grid, with observations: raw; seen {input_shape}")
    return de.policies.linen_policy(CNN(channels, num_outputs), input_shape)
