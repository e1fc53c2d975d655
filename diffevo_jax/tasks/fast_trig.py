"""sin and cos on a CPU, where XLA calls a scalar routine for them: as a polynomial, in vectors.

x = n pi + r with |r| <= pi / 2 gives sin(x) = (-1)^n sin(r); cos(x) takes n half-way between whole
numbers. In float32 the largest error is 2e-7 for |x| <= 1e4. Beyond, it is at most |x| / 2^23: what
a change of x by one unit in its last place makes. What is not finite gives NaN.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun

# pi in three parts (Cody and Waite): n times either of the first two is exact for |n| <= 2^13.
PI = (3.140625, 0.0009675025939941406, 1.5099580252808664e-07)
# A little more than pi/2: as far as rounding may take r.
WIDEST = 1.6
# sin(r) = r + r^3 p(r^2), p's coefficients from the highest power: least absolute error up to
# WIDEST, by Lawson's iteration: 6e-9 before rounding.
SIN_COEFFICIENTS = (
    2.5943759283109102e-06,
    -0.0001980401575565338,
    0.008332980796694756,
    -0.16666655242443085,
)
# The last bit of a float32 of this size counts ones.
UNITS = 1.5 * 2**23


def with_fast_trig(function: Callable) -> Callable:
    """Let `function` take sines and cosines of float32 by the polynomial, where it runs on a CPU.

    The choice is that of the platform lowered for; every other platform and precision keeps XLA's.
    Loops, branches and functions that `function` calls are rewritten too.
    """

    def rewritten(*args):
        jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        leaves = jaxpr_as_fun(_rewrite(jaxpr))(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    return rewritten


def _rewrite(value):
    """Replace every sine and cosine in a program, or in a parameter of an equation."""
    if isinstance(value, ClosedJaxpr):
        return value.map_jaxpr(_rewrite_equations)
    if isinstance(value, Jaxpr):
        return _rewrite_equations(value)
    if type(value) is tuple:  # the branches of a switch
        return tuple(map(_rewrite, value))
    return value


def _rewrite_equations(jaxpr: Jaxpr) -> Jaxpr:
    return jaxpr.replace(eqns=list(map(_rewrite_equation, jaxpr.eqns)))


def _rewrite_equation(equation: JaxprEqn) -> JaxprEqn:
    fast = {"sin": sin, "cos": cos}.get(equation.primitive.name)
    if fast is None:
        params = {name: _rewrite(value) for name, value in equation.params.items()}
        return equation.replace(params=params)
    x: Any = equation.invars[0].aval
    if x.dtype != jnp.float32:
        return equation
    (call,) = jax.make_jaxpr(fast)(x).eqns
    return equation.replace(primitive=call.primitive, params=call.params)


def _fast_on_cpu(polynomial: Callable, xla: Callable, derivative: Callable) -> Callable:
    @jax.custom_jvp
    def function(x: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(x, cpu=polynomial, default=xla)

    @function.defjvp
    def _(primals, tangents):
        return function(*primals), derivative(*primals) * tangents[0]

    return jax.jit(function)


def _sin_polynomial(x: jax.Array) -> jax.Array:
    n = jnp.round(x * (1 / math.pi))
    return _sin_near(x, n, _lowest_bit(n))


def _cos_polynomial(x: jax.Array) -> jax.Array:
    n = jnp.round(x * (1 / math.pi) - 0.5)
    return _sin_near(x, n + 0.5, _lowest_bit(n + 1))


def _sin_near(x: jax.Array, n: jax.Array, sign: jax.Array) -> jax.Array:
    """Compute sin(x - n pi), its sign turned where `sign` is set."""
    r = ((x - n * PI[0]) - n * PI[1]) - n * PI[2]
    r = jnp.clip(r, -WIDEST, WIDEST)  # holds huge x, whose n is not exact, to [-1, 1]
    square = r * r
    p = jnp.full_like(x, SIN_COEFFICIENTS[0])
    for coefficient in SIN_COEFFICIENTS[1:]:
        p = p * square + coefficient
    sine = r + r * square * p
    return jax.lax.bitcast_convert_type(_bits(sine) ^ sign, jnp.float32)


def _lowest_bit(whole: jax.Array) -> jax.Array:
    """Put the lowest bit of a whole float32, set where it is odd, in the place of the sign."""
    return _bits(whole + UNITS) << 31


def _bits(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, jnp.int32)


sin = _fast_on_cpu(_sin_polynomial, jnp.sin, jnp.cos)
cos = _fast_on_cpu(_cos_polynomial, jnp.cos, lambda x: -jnp.sin(x))
