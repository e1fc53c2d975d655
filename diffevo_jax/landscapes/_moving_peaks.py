"""Branke's moving peaks: a landscape that changes while it is searched."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Count, NonNegative

BOX = 100.0  # points live in [0, BOX]^D
HEIGHTS, WIDTHS = (30.0, 70.0), (1.0, 12.0)


def moving_peaks(
    key: jax.Array,
    *,
    num_genes: Count = 5,
    num_peaks: Count = 10,
    num_changes: Count = 10,
    shift: NonNegative = 1.0,
    height_severity: NonNegative = 7.0,
    width_severity: NonNegative = 1.0,
) -> tuple[Callable[[jax.Array, jax.Array], jax.Array], jax.Array]:
    """Make a landscape of cones that move (Branke 1999; the defaults are its scenario 2).

    f(x, c) = max_i H_i - W_i |x - p_i|, after the c-th change
    H_i += height_severity N(0, 1), W_i += width_severity N(0, 1), p_i += shift v / |v|

    v is uniform in direction; what would leave [0, 100]^D, [30, 70] or [1, 12] is reflected.

    Returns the fitness, (change [], points `[N, D]`) -> `[N]`, where change counts from 0 to
    num_changes, and the highest fitness after each change, `[num_changes + 1]`.
    """
    key_place, key_move = jax.random.split(key)
    middle = jnp.full(num_peaks, 50.0), jnp.full(num_peaks, 6.0)
    start = jax.random.uniform(key_place, (num_peaks, num_genes), maxval=BOX), *middle

    def change(peaks, key):
        place, height, width = peaks
        keys = jax.random.split(key, 3)
        direction = jax.random.normal(keys[0], place.shape)
        direction /= jnp.linalg.norm(direction, axis=1, keepdims=True)
        moved = (
            _reflected(place + shift * direction, 0.0, BOX),
            _reflected(
                height + height_severity * jax.random.normal(keys[1], height.shape), *HEIGHTS
            ),
            _reflected(width + width_severity * jax.random.normal(keys[2], width.shape), *WIDTHS),
        )
        return moved, moved

    _, later = jax.lax.scan(change, start, jax.random.split(key_move, num_changes))
    places, heights, widths = jax.tree.map(
        lambda first, rest: jnp.concatenate([first[None], rest]), start, later
    )

    def fitness_fn(change: jax.Array, points: jax.Array) -> jax.Array:
        distance = jnp.linalg.norm(points[:, None] - places[change], axis=2)
        return jnp.max(heights[change] - widths[change] * distance, axis=1)

    return fitness_fn, jnp.max(heights, axis=1)


def _reflected(value: jax.Array, low: float, high: float) -> jax.Array:
    value = low + jnp.abs(value - low)
    return jnp.clip(high - jnp.abs(high - value), low, high)
