"""The DDIM step of Diffusion Evolution (paper Algorithm 1; Song et al., 2010.02502).

Its noise has a dial. A step draws x_prev ~ N(mean, sigma^2 I) along and around the noise eps that
an individual already has; how much of that it keeps is the share `remembered`:

    remembered = (1 - freshness) (1 - eta^2 (1 - kept)),   kept = alpha_t (1 - alpha_prev)
                                                                  / (alpha_prev (1 - alpha_t))
    sigma^2    = (1 - alpha_prev) (1 - remembered)

eta = 0 remembers all (deterministic DDIM), eta = 1 what DDPM does, and freshness = 1 nothing. For
data at one point all of them keep the marginals of diffusion. For a population that is its own
model they are different searches, see docs/settings.md.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from diffevo_jax.batch import individual_keys
from diffevo_jax.checks import Fraction, InputError, check_number, concrete
from diffevo_jax.parts import Level, Move, Sampler, no_memory
from diffevo_jax.sharding import over_individuals

# The most genes moved at a time on a CPU: 1 to 2 MiB, a core's second-level cache, through which
# random bits pass many times on their way to normal numbers. Twice as fast as all at once at
# N = 256, D = 17410.
CPU_BLOCK = 2**19


def ddim(
    eta: Fraction = 1.0,
    *,
    freshness: Fraction = 0.0,
    fresh_below: Fraction = 1.0,
    centred: bool = False,
    mirrored: bool = False,
) -> Sampler:
    """Take a DDIM step towards the clean targets.

    eta: noise, in [0, 1], or traced; 0 is deterministic, 1 is DDPM's noise.
    freshness: how much of the noise that DDPM's step still remembers is drawn anew, in [0, 1], or
        traced; 1 is x_prev ~ N(sqrt(alpha_prev) x0, (1 - alpha_prev) I), without memory. Memory
        keeps individuals where they are, fresh noise lets them search (`ddim_sigma`).
    fresh_below: freshness counts at levels with 1 - alpha_prev of at most this, and is 0 above;
        1 is all of them.
    centred: take the mean of the targets for the origin. The process of the paper draws every
        generation towards 0, by sqrt(alpha_prev); over many levels that holds a population back
        whose optimum is elsewhere. With it the whole run moves with a problem that is moved.
    mirrored: individuals i and i + N // 2 draw one noise with opposite signs (mirrored sampling,
        Brockhoff et al. 2010, https://doi.org/10.1007/978-3-642-15844-5_2; antithetic pairs of
        OpenES), so that around one target the population's mean is that target.

    Raises InputError on numbers out of range, and on an eta below 1 beside a freshness above 0.
    """
    _check_noise(eta, freshness)
    check_number("fresh_below", fresh_below, 0, 1)
    everywhere = _is(fresh_below, 1) or _is(freshness, 0)

    def move(
        key: jax.Array, memory: Any, x_t: jax.Array, x0: jax.Array, level: Level
    ) -> tuple[Any, Move]:
        settings = {
            "alpha_t": level.alpha,
            "alpha_prev": level.alpha_prev,
            "eta": eta,
            "freshness": freshness
            if everywhere
            else jnp.where(level.one_minus_alpha_prev <= fresh_below, freshness, 0.0),
            "one_minus_alpha_t": level.one_minus_alpha,
            "one_minus_alpha_prev": level.one_minus_alpha_prev,
        }

        def step(
            keys: jax.Array,
            population: tuple[jax.Array, jax.Array, jax.Array | None],
            *origin: jax.Array,
        ) -> jax.Array:
            x_t, x0, sign = population
            return ddim_step(keys, x_t, x0, *origin, sign=sign, **settings)

        split_step = step if level.mesh is None else over_individuals(step, level.mesh)
        origin = (_mean(x0),) if centred else ()
        keys, sign = _in_pairs(key, len(x_t)) if mirrored else (key, None)
        moved = split_step(keys, (x_t, x0, sign), *origin)
        # The mean and sigma are computed only where a denoiser reads them.
        mean = ddim_mean(x_t, x0, *origin, **settings)
        return memory, Move(moved, mean, ddim_sigma(**settings))

    return Sampler(no_memory, move)


def ddim_sigma(
    alpha_t,
    alpha_prev,
    *,
    eta,
    freshness: Fraction = 0.0,
    one_minus_alpha_t=None,
    one_minus_alpha_prev=None,
) -> jax.Array:
    """Compute the standard deviation of the noise that one step adds (Eq. 16 of DDIM).

    sigma^2 = (1 - freshness) eta^2 (1 - alpha_prev) / (1 - alpha_t) (1 - alpha_t / alpha_prev)
              + freshness (1 - alpha_prev)

    alpha_t, alpha_prev: signal level before and after the step, alpha_t < alpha_prev.
    eta: in [0, 1]; 0 is deterministic, 1 is DDPM's noise.
    freshness: in [0, 1], from the noise of eta to wholly fresh noise; see `ddim`.
    one_minus_alpha_t, one_minus_alpha_prev: 1 - alpha to full precision; None subtracts.
    """
    one_minus_t = 1 - alpha_t if one_minus_alpha_t is None else one_minus_alpha_t
    one_minus_prev = 1 - alpha_prev if one_minus_alpha_prev is None else one_minus_alpha_prev
    if _is(freshness, 1):
        return jnp.sqrt(one_minus_prev)
    # 1 - alpha_t / alpha_prev, from the side that keeps its digits: alpha near 0, 1 - alpha near 1.
    noisy = 1 - alpha_t / alpha_prev
    rise = jnp.where(alpha_t < 0.5, noisy, (one_minus_t - one_minus_prev) / alpha_prev)
    sigma = eta * jnp.sqrt(one_minus_prev / one_minus_t * rise)
    if _is(freshness, 0):
        return sigma
    return _root((1 - freshness) * sigma**2 + freshness * one_minus_prev)


def ddim_mean(
    x_t: jax.Array,
    x0: jax.Array,
    origin: jax.Array | None = None,
    *,
    alpha_t,
    alpha_prev,
    eta,
    freshness: Fraction = 0.0,
    one_minus_alpha_t=None,
    one_minus_alpha_prev=None,
) -> jax.Array:
    """Compute where a step goes without its noise, `[N, D]`; arguments as for `ddim_step`."""
    if origin is not None:
        x_t, x0 = x_t - origin, x0 - origin
    clean = jnp.sqrt(alpha_prev) * x0 if origin is None else origin + jnp.sqrt(alpha_prev) * x0
    if _is(freshness, 1):
        return clean
    one_minus_t = 1 - alpha_t if one_minus_alpha_t is None else one_minus_alpha_t
    one_minus_prev = 1 - alpha_prev if one_minus_alpha_prev is None else one_minus_alpha_prev
    # What is left of 1 - alpha_prev beside sigma^2, in a form that never cancels.
    kept = alpha_t * one_minus_prev / (alpha_prev * one_minus_t)
    direction = jnp.sqrt(one_minus_prev * (1 - eta**2 + eta**2 * kept))
    if not _is(freshness, 0):
        direction *= _root(1 - freshness)
    eps = (x_t - jnp.sqrt(alpha_t) * x0) / jnp.sqrt(one_minus_t)
    return clean + direction * eps


def ddim_step(
    key: jax.Array,
    x_t: jax.Array,
    x0: jax.Array,
    origin: jax.Array | None = None,
    *,
    alpha_t,
    alpha_prev,
    eta,
    freshness: Fraction = 0.0,
    sign: jax.Array | None = None,
    one_minus_alpha_t=None,
    one_minus_alpha_prev=None,
) -> jax.Array:
    """Move the population one level towards its clean estimate.

    eps    = (x_t - sqrt(alpha_t) x0) / sqrt(1 - alpha_t)
    x_prev = sqrt(alpha_prev) x0 + sqrt(1 - alpha_prev - sigma^2) eps + sigma N(0, I)

    key: one PRNG key, or keys `[N]`; `jax.random.split(key, N)` gives what key gives.
        Not used when eta and freshness are the Python number 0.
    x_t: population now, `[N, D]`. x0: its clean estimate, `[N, D]`.
    origin: `[D]`, x_t and x0 are taken from there; None is 0.
    sign: of each individual's noise, `[N]`; None is +.
    Other arguments as for `ddim_sigma`. Returns x_prev, `[N, D]`.
    """
    levels = {
        "alpha_t": alpha_t,
        "alpha_prev": alpha_prev,
        "eta": eta,
        "freshness": freshness,
        "one_minus_alpha_t": one_minus_alpha_t,
        "one_minus_alpha_prev": one_minus_alpha_prev,
    }

    if _is(eta, 0) and _is(freshness, 0):
        return ddim_mean(x_t, x0, origin=origin, **levels)
    sigma = ddim_sigma(**levels)
    mean = partial(ddim_mean, origin=origin, **levels)

    def individual(args) -> jax.Array:
        key, x_t, x0, sign = args
        noise = sigma if sign is None else sigma * sign
        return mean(x_t, x0) + noise * jax.random.normal(key, x_t.shape, x_t.dtype)

    population = individual_keys(key, len(x_t)), x_t, x0, sign
    # A power of two, as most populations are: a remainder would cost a copy of the rest.
    rows = 2 ** max(0, (CPU_BLOCK // x_t.shape[1]).bit_length() - 1)
    if rows >= len(x_t):
        return jax.vmap(individual)(population)
    return jax.lax.platform_dependent(
        population,
        cpu=partial(jax.lax.map, individual, batch_size=rows),
        default=jax.vmap(individual),
    )


def _in_pairs(key: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Give the second half of the individuals the keys of the first, and the sign -, `[N]` each.

    The last of an odd number has a key of its own.
    """
    index, half = jnp.arange(size), size // 2
    second = (index >= half) & (index < 2 * half)
    keys = individual_keys(key, size)[jnp.where(second, index - half, index)]
    return keys, jnp.where(second, -1.0, 1.0)


def _check_noise(eta: Fraction, freshness: Fraction) -> None:
    check_number("eta", eta, 0, 1)
    check_number("freshness", freshness, 0, 1)
    remembers, forgets = concrete(eta), concrete(freshness)
    if remembers is not None and forgets is not None and remembers < 1 and forgets > 0:
        raise InputError(
            "eta",
            "1 beside a freshness above 0",
            eta,
            "eta below 1 remembers more than DDPM's step, freshness less; set one of the two",
        )


def _mean(x0: jax.Array) -> jax.Array:
    """Average the targets that are numbers, `[D]`."""
    finite = jnp.all(jnp.isfinite(x0), axis=1)
    total = jnp.sum(jnp.where(finite[:, None], x0, 0).astype(float), axis=0)
    return (total / jnp.maximum(jnp.sum(finite), 1)).astype(x0.dtype)


def _is(setting: Any, number: int) -> bool:
    """Whether a setting is a number of Python's, and this one."""
    return isinstance(setting, int | float) and setting == number


def _root(square: Fraction) -> jax.Array:
    """Take the square root, whose gradient at 0 is 0 in the place of infinity."""
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
