"""Policies: networks whose parameters are a flat genome."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from diffevo_jax import genome


class Lanes(NamedTuple):
    """A network for L genomes at once, each on its own E observations.

    load: genomes `[L, D]` -> weights, in the layout that `apply` reads.
    apply: (weights, observations `[O, E, L]`) -> outputs `[A, E, L]`.
    """

    load: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array], jax.Array]


class Policy(NamedTuple):
    """A network to evolve.

    num_inputs: observation size O. num_outputs: output size A. num_genes: D.
    unflatten: genome `[D]` -> parameters.
    apply: (parameters, observation `[O]`) -> outputs `[A]`.
    lanes: the same network for many genomes at once, where it can be faster than `apply` under
        `vmap`; None where there is no such form. Both give the same up to rounding.
    """

    num_inputs: int
    num_outputs: int
    num_genes: int
    unflatten: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array], jax.Array]
    lanes: Lanes | None = None


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
    policy = linen_policy(MLP(tuple(sizes[1:]), activation), sizes[0])
    lanes = _narrow_lanes if max(sizes) <= WIDEST_NARROW else _wide_lanes
    return policy._replace(lanes=lanes(policy, sizes, activation))


# Sums over fewer inputs are written out, with the lanes as the vectors; longer ones are matrix
# products by lane. Measured on a CPU: 2.5 times a product's speed at 8 inputs, 0.1 times at 128.
WIDEST_NARROW = 32


def _layers(policy: Policy, genomes: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Kernels `[L, I, O]` and biases `[L, O]` of an MLP's layers."""
    params = jax.vmap(policy.unflatten)(genomes)["params"]
    layers = [params[f"Dense_{i}"] for i in range(len(params))]
    return [(layer["kernel"], layer["bias"]) for layer in layers]


def _narrow_lanes(policy: Policy, sizes: Sequence[int], activation: Callable) -> Lanes:
    """Lanes as the last axis throughout: a step is a few vector operations of length L."""

    def load(genomes: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        layers = _layers(policy, genomes)
        return [(kernel.transpose(1, 2, 0)[:, :, None], bias.T[:, None]) for kernel, bias in layers]

    def apply(weights: list[tuple[jax.Array, jax.Array]], x: jax.Array) -> jax.Array:
        for i, (kernel, bias) in enumerate(weights):
            x = x if i == 0 else activation(x)
            x = sum((kernel[j] * x[j] for j in range(1, sizes[i])), kernel[0] * x[0]) + bias
        return x

    return Lanes(load, apply)


def _wide_lanes(policy: Policy, sizes: Sequence[int], activation: Callable) -> Lanes:
    """Lanes first: a matrix product by lane, which reads each lane's weights once in order."""
    few = 8  # inputs that are summed written out, and outputs whose kernel is kept transposed

    def load(genomes: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        layers = _layers(policy, genomes)
        return [
            (kernel.transpose(0, 2, 1) if outputs <= few else kernel, bias[:, None])
            for (kernel, bias), outputs in zip(layers, sizes[1:], strict=True)
        ]

    def apply(weights: list[tuple[jax.Array, jax.Array]], x: jax.Array) -> jax.Array:
        x = x.T
        for i, (kernel, bias) in enumerate(weights):
            x = x if i == 0 else activation(x)
            if sizes[i + 1] <= few:
                x = jnp.einsum("loi,lei->leo", kernel, x)
            elif sizes[i] <= few:
                terms = (kernel[:, None, j] * x[:, :, j, None] for j in range(1, sizes[i]))
                x = sum(terms, kernel[:, None, 0] * x[:, :, 0, None])
            else:
                x = jnp.einsum("lei,lio->leo", x, kernel)
            x = x + bias
        return x.T

    return Lanes(load, apply)


def linen_policy(module: nn.Module, num_inputs: int) -> Policy:
    """Make a policy of any Flax Linen module that maps an observation `[O]` to outputs `[A]`.

    Its collection `params` becomes the genome; others, such as `batch_stats`, stay as initialised
    (from key 0). It is called in evaluation: make it with `Dropout(..., deterministic=True)` and
    `BatchNorm(use_running_average=True)`.

    Raises ValueError when it draws random numbers or changes a collection as it is called.
    """
    observation, key = jnp.zeros(num_inputs), jax.random.key(0)
    constants = {}

    def apply(params: Any, observation: jax.Array) -> jax.Array:
        outputs: Any = module.apply({**constants, **params}, observation)
        return outputs

    try:
        shapes = jax.eval_shape(module.init, key, observation)
        if set(shapes) - {"params"}:
            constants = {k: v for k, v in module.init(key, observation).items() if k != "params"}
        return from_apply(apply, {"params": shapes.get("params", {})}, num_inputs)
    except (flax.errors.InvalidRngError, flax.errors.ModifyScopeVariableError) as error:
        raise ValueError(
            "module: expected one that neither draws random numbers nor changes a collection as it "
            "is called; make it for evaluation, with Dropout(..., deterministic=True) and "
            f"BatchNorm(use_running_average=True). Flax says: {error}"
        ) from None


def from_apply(apply: Callable[[Any, jax.Array], Any], template: Any, num_inputs: int) -> Policy:
    """Make a policy of any pure function (parameters, observation `[O]`) -> outputs `[A]`.

    template: parameters, or their shapes, as `genome.codec` takes them. For Flax NNX, where `rest`
        holds what is not evolved, such as the averages of BatchNorm and the keys of Dropout:

        model.eval()
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        from_apply(lambda params, obs: nnx.merge(graphdef, params, rest)(obs), params, num_inputs)

    Raises ValueError when the template holds more than parameters, or the outputs are no vector.
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
