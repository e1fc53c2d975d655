"""What a policy is, and how any pure function becomes one."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax import genome
from diffevo_jax.checks import InputError, Positive, check_number


class Batched(NamedTuple):
    """A network for L genomes at once, each on its own E observations.

    load: genomes `[L, D]` -> weights, in the layout that `apply` reads.
    apply: (weights, state `[..., E, L]`, observations `[..., E, L]`) -> (state,
        outputs `[A, E, L]`).
    """

    load: Callable[[jax.Array], Any]
    apply: Callable[[Any, Any, jax.Array], tuple[Any, jax.Array]]


class Policy(NamedTuple):
    """A network to evolve.

    input_shape: shape of an observation, (O,) for a vector. num_outputs: output size A.
    num_genes: D. unflatten: genome `[D]` -> parameters.
    apply: (parameters, state, observation) -> (state, outputs `[A]`).
    initial_state: what `apply` carries from step to step, as an episode begins: any pytree; () for
        a network without memory.
    batched: the same network for many genomes at once, where it can be faster than `apply` under
        `vmap`; None where there is no such form. Both give the same up to rounding.
    """

    input_shape: tuple[int, ...]
    num_outputs: int
    num_genes: int
    unflatten: Callable[[jax.Array], Any]
    apply: Callable[[Any, Any, jax.Array], tuple[Any, jax.Array]]
    initial_state: Any = ()
    batched: Batched | None = None

    @property
    def num_inputs(self) -> int:
        """Numbers in an observation."""
        return math.prod(self.input_shape)


def from_apply(
    apply: Callable[..., Any],
    template: Any,
    input_shape: int | Sequence[int],
    *,
    initial_state: Any = (),
) -> Policy:
    """Make a policy of any pure function.

    apply: (parameters, observation) -> outputs `[A]`, or with an initial state
        (parameters, state, observation) -> (state, outputs `[A]`).
    template: parameters, or their shapes, as `genome.codec` takes them.
    input_shape: shape of an observation; a number O stands for (O,).
    initial_state: state of a recurrent network as an episode begins, a pytree of arrays.

    For Flax NNX, where `rest` holds what is not evolved, such as the averages of BatchNorm and the
    keys of Dropout:

        model.eval()
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)
        from_apply(lambda params, obs: nnx.merge(graphdef, params, rest)(obs), params, num_inputs)

    and for a recurrent one, whose carry comes first as in Flax's cells:

        from_apply(lambda params, state, obs: nnx.merge(graphdef, params, rest)(state, obs),
                   params, num_inputs, initial_state=jnp.zeros(hidden))

    Raises InputError when the template holds more than parameters, the outputs are no vector, or
    the state changes its structure, shapes or types from one step to the next.
    """
    params = genome.codec(template)
    shape = as_shape(input_shape)
    initial_state = jax.tree.map(jnp.asarray, initial_state)
    recurrent = bool(jax.tree.leaves(initial_state))

    def step(params: Any, state: Any, observation: jax.Array) -> tuple[Any, jax.Array]:
        return apply(params, state, observation) if recurrent else ((), apply(params, observation))

    observation = jax.ShapeDtypeStruct(shape, jnp.zeros(()).dtype)
    result = jax.eval_shape(step, template, initial_state, observation)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise InputError("apply", "(state, outputs)", _shapes(result))
    state, outputs = result
    if getattr(outputs, "ndim", None) != 1:
        expected = f"outputs of shape [A] from an observation of shape {shape}"
        raise InputError("apply", expected, _shapes(outputs))
    before, after = _shapes(initial_state), _shapes(state)
    if recurrent and after != before:
        raise InputError("apply", f"a state that stays as the initial one, {before}", after)
    return Policy(shape, outputs.shape[0], params.num_genes, params.unflatten, step, initial_state)


def scaled(policy: Policy, scale: Positive) -> Policy:
    """Make the policy whose network is filled with `scale` times the genome.

    Genomes begin as N(0, I), and Diffusion Evolution keeps about that spread: the scale is what
    decides how large the weights of the network can become.

    scale: a number above 0, or traced. Raises InputError when it is not.
    """
    check_number("scale", scale, 0, math.inf, closed="()")
    check_policy(policy)
    inner = policy.batched
    batched = None if inner is None else inner._replace(load=lambda x: inner.load(scale * x))
    return policy._replace(unflatten=lambda x: policy.unflatten(scale * x), batched=batched)


def check_policy(policy: Any) -> None:
    """Raise InputError on what is no policy."""
    if not isinstance(policy, Policy):
        raise InputError(
            "policy", "a Policy, such as de.policies.mlp((4, 8, 2))", f"{policy!r:.60}"
        )


def as_shape(input_shape: int | Sequence[int]) -> tuple[int, ...]:
    """Return a shape, a number O as (O,); raise InputError unless all sizes are 1 or more."""
    shape = (input_shape,) if isinstance(input_shape, int) else tuple(input_shape)
    if any(size < 1 for size in shape):
        raise InputError("input_shape", "sizes of 1 or more", shape)
    return shape


def check_genomes(policy: Policy, population: jax.Array) -> None:
    """Raise InputError unless a population is `[N, D]` with the policy's D."""
    if population.ndim != 2 or population.shape[1] != policy.num_genes:
        expected = f"shape [N, D] with D = {policy.num_genes} genes"
        raise InputError("population", expected, population.shape)


def _shapes(tree: Any) -> Any:
    """Put its type and shape in the place of each leaf, to compare and to print."""
    return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)
