"""PRNG keys for libraries that keep them in their states, as numbers."""

import jax


def raw_key(key: jax.Array) -> jax.Array:
    """Return a key of JAX's older style, numbers drawn with `key`, of either style.

    They are as many as the generator takes that JAX gives keys of that style to.
    """
    return jax.random.bits(key, jax.random.PRNGKey(0).shape, "uint32")
