"""Sums and maxima over all supports, where each device of a mesh holds a share of them.

Without axes there is one device, and they return what they are given.
"""

import jax

Axes = tuple[str, ...]


def total(x: jax.Array, axes: Axes) -> jax.Array:
    """Sum over the devices."""
    return jax.lax.psum(x, axes) if axes else x


def mean(x: jax.Array, axes: Axes) -> jax.Array:
    """Mean over the devices."""
    return jax.lax.pmean(x, axes) if axes else x


def highest(x: jax.Array, axes: Axes) -> jax.Array:
    """Largest over the devices."""
    return jax.lax.pmax(x, axes) if axes else x


def every(x: jax.Array, axes: Axes) -> jax.Array:
    """What each device has, `[P, ...]`."""
    return jax.lax.all_gather(x, axes) if axes else x[None]


def total_of_mine(x: jax.Array, axes: Axes) -> jax.Array:
    """Of `[P n, ...]`, n rows a device, each device the sums of its own, `[n, ...]`."""
    return jax.lax.psum_scatter(x, axes, tiled=True) if axes else x


def mine(x: jax.Array, axes: Axes) -> jax.Array:
    """Of `[P n, ...]`, the same on all devices, each device its own n rows."""
    if not axes:
        return x
    rows = len(x) // jax.lax.axis_size(axes)
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axes) * rows, rows)
