"""How any Flax Linen module becomes a policy."""

from collections.abc import Sequence
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from diffevo_jax.checks import InputError
from diffevo_jax.policies._policy import Policy, as_shape, from_apply


def linen_policy(
    module: nn.Module, input_shape: int | Sequence[int], *, initial_state: Any = None
) -> Policy:
    """Make a policy of any Flax Linen module that maps an observation to outputs `[A]`.

    A recurrent one is called as Flax's cells are: (carry, observation) -> (carry, outputs).

    input_shape: shape of an observation; a number O stands for (O,).
    initial_state: carry of a recurrent module as an episode begins. None calls the module's
        `initialize_carry`, which Flax's cells have; a module without it carries nothing.

    Its collection `params` becomes the genome; others, such as `batch_stats`, stay as initialised
    (from key 0). It is called in evaluation: make it with `Dropout(..., deterministic=True)` and
    `BatchNorm(use_running_average=True)`.

    Raises InputError when it draws random numbers or changes a collection as it is called, and
    when its carry changes its shapes or types.
    """
    shape, key = as_shape(input_shape), jax.random.key(0)
    initialize: Any = getattr(module, "initialize_carry", None)
    if initial_state is None:
        initial_state = initialize(key, shape) if initialize else ()
    recurrent = bool(jax.tree.leaves(initial_state))
    inputs = (initial_state, jnp.zeros(shape)) if recurrent else (jnp.zeros(shape),)
    constants = {}

    def apply(params: Any, *inputs: Any) -> Any:
        return module.apply({**constants, **params}, *inputs)

    try:
        shapes = jax.eval_shape(module.init, key, *inputs)
        if set(shapes) - {"params"}:
            constants = {k: v for k, v in module.init(key, *inputs).items() if k != "params"}
        template = {"params": shapes.get("params", {})}
        return from_apply(apply, template, shape, initial_state=initial_state)
    except (flax.errors.InvalidRngError, flax.errors.ModifyScopeVariableError) as error:
        raise InputError(
            "module",
            "one that neither draws random numbers nor changes a collection as it is called",
            f"one of which Flax says: {error}",
            "make it for evaluation, with Dropout(..., deterministic=True) and "
            "BatchNorm(use_running_average=True)",
        ) from None
