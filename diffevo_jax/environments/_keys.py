"""PRNG keys for libraries that keep them in their states, as numbers."""

import jax


def raw_key(key: jax.Array) -> jax.Array:
    """Return a key of JAX's older style, two numbers drawn with `key`, of either style."""
    return jax.random.bits(key, (2,), "uint32")
