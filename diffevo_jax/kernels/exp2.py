"""2^x of negative x, as fast as the platform can."""

import math

import jax
import jax.numpy as jnp

LOG2E = math.log2(math.e)


@jax.custom_jvp
def exp2(x: jax.Array) -> jax.Array:
    """2^x for x <= 0. On a CPU two to three times as fast as XLA's, to 1e-7 in float32.

    An x above 0, which only rounding makes, counts as 0; below -126, as -126 or less.
    """
    if x.dtype != jnp.float32:
        return _exp2(x)
    return jax.lax.platform_dependent(x, cpu=_exp2_polynomial, default=_exp2)


@exp2.defjvp
def _exp2_jvp(primals, tangents):
    y = exp2(*primals)
    return y, y * (math.log(2) * tangents[0])


def _exp2(x: jax.Array) -> jax.Array:
    return jnp.exp2(jnp.minimum(x, 0))


def _exp2_polynomial(x: jax.Array) -> jax.Array:
    x = jnp.clip(x, -126, 0)
    whole = jnp.round(x)
    part = x - whole
    power = jnp.full_like(x, _EXP2_COEFFICIENTS[0])
    for coefficient in _EXP2_COEFFICIENTS[1:]:
        power = power * part + coefficient
    # The whole part is added to the exponent's bits.
    exponent = jax.lax.bitcast_convert_type(whole + _UNITS, jnp.int32) << 23
    bits = jax.lax.bitcast_convert_type(power, jnp.int32) + exponent
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


# The last bit of a float32 of this size counts ones.
_UNITS = 1.5 * 2**23
# Least relative error on [-1/2, 1/2], by Lawson's iteration: 7.5e-8 before rounding.
_EXP2_COEFFICIENTS = (
    0.0013276466634124517,
    0.009675540961325169,
    0.05550713464617729,
    0.24022120237350464,
    0.6931469440460205,
    1.0000001192092896,
)
