"""Noise schedules: alpha [T], and 1 - alpha [T] computed in float64 before it is rounded.

Index 0 is the cleanest level and T - 1 the noisiest, as in DDPM; a run walks from T - 1 down to 0.
1 - alpha travels beside alpha because a float32 alpha near 1 has lost it: at 1 - alpha = 1e-6 the
difference formed afterwards is wrong by 1.3 %.
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.checks import (
    InputError,
    Interval,
    Number,
    check_array,
    check_count,
    check_number,
    concrete,
    is_traced,
)

MOST_LEVELS = 1_000_000  # more are a slip
Levels = Annotated[int, Interval(2, MOST_LEVELS)]
NOISIEST = 0.999  # 1 - alpha where `geometric` begins
CLEAN = 1e-4  # factor on 1 - alpha of its last level, where that is clean
Noise = Annotated[Number, Interval(0, NOISIEST, "()")]
EXPECTED = "a schedule, such as de.schedules.cosine(25), or alpha [T]"


class Schedule(NamedTuple):
    """Signal levels of a run. Stack several of equal length to `vmap` over schedules.

    alpha: `[T]`, DDPM's cumulative alpha-bar, strictly decreasing, inside (0, 1).
    one_minus_alpha: `[T]`, 1 - alpha to full relative precision.
    """

    alpha: jax.Array
    one_minus_alpha: jax.Array


def from_alpha(alpha) -> Schedule:
    """Make a schedule of your own.

    alpha: `[T]`, strictly decreasing inside (0, 1), T >= 2. Concrete values are read in float64:
        pass a float64 NumPy array to keep 1 - alpha exact. A traced array keeps its own precision.

    Raises InputError when concrete values are not such a schedule.
    """
    if is_traced(alpha):
        return Schedule(alpha, 1 - alpha)
    try:
        alpha = np.asarray(alpha, np.float64)
    except (TypeError, ValueError):
        raise InputError("schedule", EXPECTED, f"{alpha!r:.80}") from None
    _check_alpha(alpha)
    return Schedule(jnp.asarray(alpha, float), jnp.asarray(1 - alpha, float))


def check_schedule(schedule: Schedule) -> Schedule:
    """Return a schedule of JAX arrays; where they are concrete, check that they are levels.

    Raises InputError as `from_alpha` does.
    """
    alpha, one_minus_alpha = map(concrete, schedule)
    # Float32 rounds neighbours near 1 to one alpha; their 1 - alpha still differs.
    if alpha is not None and one_minus_alpha is not None and alpha.shape == one_minus_alpha.shape:
        if alpha.ndim != 1 or alpha.size < 2:
            _check_alpha(alpha)
        levels = np.stack([alpha, one_minus_alpha])
        if not np.all((levels > 0) & (levels <= 1)):
            values = f"values from {levels.min():g} to {levels.max():g}"
            raise InputError("schedule", "alpha and 1 - alpha in (0, 1)", values)
        if not np.all((np.diff(alpha) < 0) | (np.diff(one_minus_alpha) > 0)):
            _check_alpha(alpha)
        off = np.max(np.abs(alpha + one_minus_alpha - 1))
        if not off < 0.01:
            raise InputError("schedule", "1 - alpha beside alpha", f"numbers that are {off:g} off")
    return Schedule(*(check_array("schedule", levels, EXPECTED) for levels in schedule))


def _check_levels(num_levels: Levels) -> int:
    """Return a number of levels; raise InputError where it is none."""
    return check_count("num_levels", num_levels, 2, MOST_LEVELS)


def _check_alpha(alpha: np.ndarray) -> None:
    if alpha.ndim == 0:
        raise InputError("schedule", EXPECTED, f"the number {alpha:g}")
    if alpha.ndim != 1 or alpha.size < 2:
        raise InputError("schedule", "alpha of shape [T], T >= 2", f"shape {alpha.shape}")
    if not np.all((alpha > 0) & (alpha < 1)):
        values = f"values from {alpha.min():g} to {alpha.max():g}"
        raise InputError("schedule", "0 < alpha < 1", values)
    if not np.all(np.diff(alpha) < 0):
        i = int(np.argmax(np.diff(alpha) >= 0))
        raise InputError(
            "schedule",
            "alpha strictly decreasing (index 0 is the cleanest level)",
            f"alpha[{i}] = {alpha[i]:g}, alpha[{i + 1}] = {alpha[i + 1]:g}",
        )


def linear(num_levels: Levels) -> Schedule:
    """Alpha equally spaced from 1 - 1e-4 down to 1e-8 (the published code's default)."""
    num_levels = _check_levels(num_levels)
    return from_alpha(np.linspace(1 - 1e-4, 1e-8, num_levels))


def cosine(num_levels: Levels, *, clean: bool = False) -> Schedule:
    """The accelerated schedule of every published benchmark and control task.

    alpha_t = ((1 + cos(pi t / (T - 1))) / 2 + 1e-3) 0.999 / 1.001, from 0.999 down to 9.98e-4.

    clean: end at alpha = 1 - 1e-9 instead: the last generation evaluated is x0 itself, where 0.999
        leaves noise of 0.03.
    """
    num_levels = _check_levels(num_levels)
    t = np.arange(num_levels)
    alpha = ((1 + np.cos(np.pi * t / (num_levels - 1))) / 2 + 1e-3) * 0.999 / 1.001
    return from_alpha(np.where(clean & (t == 0), 1 - 1e-9, alpha))


def nichol(num_levels: Levels) -> Schedule:
    """The cosine schedule of improved DDPM (Nichol and Dhariwal, 2102.09672), offset and all.

    alpha_t = f((t + 1) / T) / f(0), f(s) = cos^2((s + .008) / 1.008 pi / 2); no level has more than
    a thousand times the signal of the next.
    """
    num_levels = _check_levels(num_levels)
    s = np.arange(num_levels + 1) / num_levels
    f = np.cos((s + 0.008) / 1.008 * np.pi / 2) ** 2
    kept = np.maximum(f[1:] / f[:-1], 1e-3)
    return from_alpha(np.cumprod(kept))


def ddpm(num_levels: Levels) -> Schedule:
    """DDPM's schedule of linearly growing betas (Ho et al. 2020), scaled to T levels.

    alpha_t = exp(-b s - g s^2) with s = (t + 1) / T, b and g such that alpha falls from 1 - 1e-4
    to 1e-4.
    """
    num_levels = _check_levels(num_levels)
    end = 1e-4
    log_start = -np.log1p(-end)
    b = (num_levels**2 * log_start + np.log(end)) / (num_levels - 1)
    g = -num_levels * (num_levels * log_start + np.log(end)) / (num_levels - 1)
    s = (np.arange(num_levels) + 1) / num_levels
    return from_alpha(np.exp(-b * s - g * s**2))


def geometric(num_levels: Levels, *, end: Noise = 1e-4, clean: bool = False) -> Schedule:
    """Noise that falls by the same factor at every level, as an evolution strategy's step sizes.

    1 - alpha_t = end (0.999 / end)^(t / (T - 1)), from `end` up to 0.999.

    end: 1 - alpha of the last level, in (0, 0.999), or traced: the square of its noise.
    clean: a hundredth of that noise at the last level: the last generation evaluated is x0 itself,
        as in the last step of DDPM, which in many genes is much better than what lies around it.

    Use it with noise that does not remember, `samplers.ddim(freshness=1)`: with DDPM's noise a
    population stands still before it has searched. So it does where `end` is too low for the number
    of evaluations, by which `diffusion_evolution` sets it.
    """
    num_levels = _check_levels(num_levels)
    check_number("end", end, 0, NOISIEST, closed="()")
    last = np.where(clean & (np.arange(num_levels) == 0), CLEAN, 1.0)
    if is_traced(end):
        one_minus_alpha = jnp.geomspace(end, NOISIEST, num_levels) * last
        return Schedule(1 - one_minus_alpha, one_minus_alpha)
    one_minus_alpha = np.geomspace(end, NOISIEST, num_levels) * last
    return Schedule(jnp.asarray(1 - one_minus_alpha, float), jnp.asarray(one_minus_alpha, float))
