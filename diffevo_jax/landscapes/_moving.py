"""Moving peaks: landscapes that change while they are searched."""

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.checks import Count, NonNegative

BOX = 100.0  # points live in [0, BOX]^D
HIGHEST = jax.lax.Precision.HIGHEST
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

    places, heights, widths = _history(change, start, key_move, num_changes)

    def fitness_fn(change: jax.Array, points: jax.Array) -> jax.Array:
        distance = jnp.linalg.norm(points[:, None] - places[change], axis=2)
        return jnp.max(heights[change] - widths[change] * distance, axis=1)

    return fitness_fn, jnp.max(heights, axis=1)


def generalised_moving_peaks(
    key: jax.Array,
    *,
    num_genes: Count = 5,
    num_peaks: Count = 10,
    num_changes: Count = 10,
    shift: NonNegative = 1.0,
    height_severity: NonNegative = 7.0,
    width_severity: NonNegative = 1.0,
    angle_severity: NonNegative = math.pi / 9,
    tau_severity: NonNegative = 0.2,
    eta_severity: NonNegative = 10.0,
) -> tuple[Callable[[jax.Array, jax.Array], jax.Array], jax.Array]:
    """Make peaks that are rotated, ill-conditioned and rugged, and move (Yazdani et al. 2022).

    f(x, c) = max_i H_i - sqrt(sum_j (W_ij T_i(R_i (x - p_i))_j)^2)
    T_i(y) = y exp(tau_i (sin(a log |y|) + sin(b log |y|))), (a, b) = eta_i1, eta_i2 for y > 0, or
    eta_i3, eta_i4 for y < 0

    "Benchmarking continuous dynamic optimization: survey and generalized test suite", IEEE
    Transactions on Cybernetics 52(5), one function without modules. R_i is a rotation, drawn once,
    followed by one through an angle in every plane of two genes. At each change p_i moves as in
    `moving_peaks`, and N(0, 1) times its severity is added to each H_i, W_ij, angle, tau_i and
    eta_ij. Ranges of H and W are those of `moving_peaks`; those of tau, [.1, 1], and eta, [0, 50],
    are of the authors' code of 2023. All begin uniform in their ranges.

    Returns what `moving_peaks` does, for points in the same box.
    """
    key_place, key_turn, key_rest, key_move = jax.random.split(key, 4)
    ranges = HEIGHTS, WIDTHS, (-math.pi, math.pi), (0.1, 1.0), (0.0, 50.0)
    shapes = (num_peaks,), (num_peaks, num_genes), (num_peaks,), (num_peaks,), (num_peaks, 4)
    severities = height_severity, width_severity, angle_severity, tau_severity, eta_severity
    rest = tuple(
        jax.random.uniform(key, shape, minval=low, maxval=high)
        for key, shape, (low, high) in zip(
            jax.random.split(key_rest, 5), shapes, ranges, strict=True
        )
    )
    place = jax.random.uniform(key_place, (num_peaks, num_genes), maxval=BOX)
    turned = jax.random.orthogonal(key_turn, num_genes, (num_peaks,))

    def change(peaks, key):
        key_direction, *keys = jax.random.split(key, 6)
        direction = jax.random.normal(key_direction, place.shape)
        direction /= jnp.linalg.norm(direction, axis=1, keepdims=True)
        moved = [_reflected(peaks[0] + shift * direction, 0.0, BOX)]
        for key, value, severity, (low, high) in zip(
            keys, peaks[1:], severities, ranges, strict=True
        ):
            noise = severity * jax.random.normal(key, value.shape)
            moved.append(_reflected(value + noise, low, high))
        return tuple(moved), tuple(moved)

    history = _history(change, (place, *rest), key_move, num_changes)
    places, heights, widths, angles, taus, etas = history
    turns = jax.vmap(jax.vmap(lambda angle: _turn(angle, num_genes)))(angles)
    rotations = jnp.matmul(turned, turns, precision=HIGHEST)

    def fitness_fn(change: jax.Array, points: jax.Array) -> jax.Array:
        offsets = points[:, None] - places[change]
        turned = jnp.einsum("pij,npj->npi", rotations[change], offsets, precision=HIGHEST)
        log_size = jnp.log(jnp.maximum(jnp.abs(turned), 1e-30))
        eta = etas[change][:, None]
        waves = jnp.sin(eta * log_size[..., None])
        waves = jnp.where(turned > 0, waves[..., 0] + waves[..., 1], waves[..., 2] + waves[..., 3])
        rugged = turned * jnp.exp(taus[change][:, None] * waves)
        distance = jnp.linalg.norm(widths[change] * rugged, axis=2)
        return jnp.max(heights[change] - distance, axis=1)

    return fitness_fn, jnp.max(heights, axis=1)


def _turn(angle: jax.Array, num_genes: int) -> jax.Array:
    """Rotate by an angle in every plane of two genes, one after the other, `[D, D]`."""
    planes = np.array(list(combinations(range(num_genes), 2)), int).reshape(-1, 2)
    one = jnp.eye(num_genes)
    kept, turned = one[planes[:, 0]], one[planes[:, 1]]  # [P, D]
    even = kept[:, :, None] * kept[:, None] + turned[:, :, None] * turned[:, None]
    odd = kept[:, :, None] * turned[:, None] - turned[:, :, None] * kept[:, None]

    def turn(rotation: jax.Array, plane: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        even, odd = plane
        step = one + (jnp.cos(angle) - 1) * even + jnp.sin(angle) * odd
        return jnp.matmul(rotation, step, precision=HIGHEST), None

    return jax.lax.scan(turn, one, (even, odd))[0]


def _history(change: Callable, start: Any, key: jax.Array, num_changes: int) -> Any:
    """The peaks before any change and after each, `[num_changes + 1, ...]`."""
    _, later = jax.lax.scan(change, start, jax.random.split(key, num_changes))
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, later)


def _reflected(value: jax.Array, low: float, high: float) -> jax.Array:
    value = low + jnp.abs(value - low)
    return jnp.clip(high - jnp.abs(high - value), low, high)
