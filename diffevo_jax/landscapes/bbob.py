"""The 24 noiseless functions of BBOB, from bbobax (https://github.com/maxencefaldor/bbobax).

Hansen, Finck, Ros, Auger: Real-Parameter Black-Box Optimization Benchmarking 2009: Noiseless
Functions Definitions (INRIA RR-6829). f1 to f24 by number, or by bbobax's name.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Count, InputError, Number, Positive, nearest
from diffevo_jax.landscapes import _problem
from diffevo_jax.problem import Problem

LIMIT = 5.0  # the box is [-LIMIT, LIMIT]^D


class Instance(NamedTuple):
    """A function of BBOB with an optimum and rotations of its own.

    cost_fn: point `[D]` -> cost `[]`, lower is better, in JAX. It is defined outside the box too,
        where about half of the functions add a penalty.
    bounds: the box, `[D, 2]`. x_opt, f_opt: the optimum, `[D]`, and its cost, `[]`.
    """

    cost_fn: Callable[[jax.Array], jax.Array]
    bounds: jax.Array
    x_opt: jax.Array
    f_opt: jax.Array


def make_instance(
    function: int | str, *, num_genes: Count = 10, instance: int | jax.Array = 0
) -> Instance:
    """Draw an instance of one of the 24 functions.

    function: its number, 1 to 24, also as "f15", or its name in bbobax, "rastrigin_rotated".
    num_genes: D, 2 or more. instance: the number that optimum and rotations are drawn from; may be
        traced, for `vmap` over instances.

        sphere = make_instance("sphere", num_genes=12)
        result = minimize(sphere.cost_fn, sphere.bounds, evaluations=2000)
        evolve(key, algorithm, lambda x: -jax.vmap(sphere.cost_fn)(2.5 * x), population)

    f_opt is 0; BBOB's target of 1e-8 needs `jax_enable_x64`.
    Raises InputError on another function or dimension, ModuleNotFoundError without bbobax:
    `pip install "diffevo-jax[bbob]"`.
    """
    try:
        from bbobax import BBOB_PROBLEMS
    except ModuleNotFoundError as error:
        message = f'bbobax is missing ({error}): pip install "diffevo-jax[bbob]"'
        raise ModuleNotFoundError(message) from None
    if num_genes < 2:
        raise InputError("num_genes", "2 or more", num_genes)
    names = list(BBOB_PROBLEMS)
    numbers = {f"{f}{i}": name for i, name in enumerate(names, 1) for f in ("", "f")}
    name = numbers.get(str(function), str(function))
    if name not in names:
        advice = nearest(name, names).removeprefix("; ")
        raise InputError(
            "function", f"1 to 24 or one of {', '.join(names)}", repr(function), advice
        )
    problem = BBOB_PROBLEMS[name](num_dims=num_genes)
    key = jax.random.key(instance)
    params = problem.sample(key)

    def cost_fn(point: jax.Array) -> jax.Array:
        return problem.evaluate(key, point, params).fitness  # the key is for noise: there is none

    bounds = jnp.tile(jnp.array([-LIMIT, LIMIT]), (num_genes, 1))
    return Instance(cost_fn, bounds, params.x_opt, params.f_opt)


def make_problem(
    *,
    function: int | str,
    num_genes: Count = 10,
    instance: int = 0,
    scale: Positive = 2.5,
    limit: Positive | None = None,
    success: Number | None = None,
) -> Problem:
    """Make the problem of an instance, of the genome times `scale`: fitness is -(f - f_opt).

    function, num_genes, instance: see `make_instance`.
    scale: factor on the genome; 2.5 spreads N(0, I) over the box.
    limit: points are clipped to [-limit, limit]; None leaves them, as BBOB does.
    success: fitness from which on an individual has solved it, such as -1e-3.
    """
    drawn = make_instance(function, num_genes=num_genes, instance=instance)
    return _problem.make_problem(
        lambda points: drawn.f_opt - jax.vmap(drawn.cost_fn)(points),
        num_genes=num_genes,
        scale=scale,
        limit=limit,
        success=success,
    )
