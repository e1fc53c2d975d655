"""From checked arguments to the posterior: clean, sum, add the floor, divide.

What is common to all kernels and implementations stands here, once. They only sum (`types.Sums`).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from diffevo_jax.kernels import dense, platforms, sharded, tiled
from diffevo_jax.kernels.exp2 import LOG2E
from diffevo_jax.kernels.geometry import make_frame
from diffevo_jax.kernels.types import NO_WEIGHT, Operands, Sums, merge
from diffevo_jax.parts import Posterior

# Takes the fastest for the shapes and the platform.
AUTO = "auto"
IMPLEMENTATIONS: dict[str, Callable[..., Sums]] = {
    AUTO: platforms.fastest,
    "dense": dense.part,
    "gpu": platforms.on_gpu,
    "lattice": platforms.on_lattice,
    "tiled": platforms.on_xla,
    "tpu": platforms.on_tpu,
}


class Rows(NamedTuple):
    """What is averaged, of one dtype of float32 or wider, not cleaned yet.

    x_t: `[N, D]`, what x0 is where no support has weight. query: places, `[N, d]`.
    place, value, log_weight: those of the supports, as in `Operands`.
    """

    x_t: jax.Array
    query: jax.Array
    place: jax.Array
    value: jax.Array
    log_weight: jax.Array


# Compiled here as well, so that calls outside jit do not trace the loops anew every time.
@partial(
    jax.jit,
    static_argnames=(
        *("implementation", "precision", "mesh", "latent", "among_supports"),
        *("still", "sample_size"),
    ),
)
def gaussian(
    rows: Rows,
    alpha: jax.Array,
    one_minus_alpha: jax.Array,
    floor: jax.Array | None,
    *,
    implementation: str,
    mesh: Mesh | None,
    **settings,
) -> Posterior:
    """Average under a Gaussian, with a floor `[]` or None; settings as for `posterior`."""
    log_floor = None if floor is None else jnp.log(floor)
    add_up = partial(_add_up, log_floor=log_floor, implementation=implementation, mesh=mesh)
    return posterior(rows, alpha, one_minus_alpha, add_up, log_floor=log_floor, **settings)


def posterior(
    rows: Rows,
    alpha: jax.Array,
    one_minus_alpha: jax.Array,
    add_up: Callable[[Operands], Sums],
    *,
    log_floor: jax.Array | None = None,
    precision: jax.lax.PrecisionLike = None,
    latent: bool,
    among_supports: bool,
    still: bool = False,
    sample_size: bool = True,
) -> Posterior:
    """Average the supports for each query, by the weights that `add_up` sums.

    add_up: operands, cleaned -> sums over all supports at every query.
    log_floor: log of the floor under the fitness weights, `[]`; None is a floor of 0.
    among_supports: whether the queries are the supports. Other settings as in `Operands`.
    """
    x_t, query, place, value, log_weight = rows
    # What is not finite takes no part.
    usable, good = _finite(query), _finite(place) & _finite(value)
    if among_supports:
        usable &= good
    # NaN stands for no fitness: it is left out of the average, whatever the floor.
    missing = jnp.isnan(log_weight) | ~good
    log_g = jnp.where(missing, -jnp.inf, log_weight)
    if log_floor is not None:
        log_g = jnp.where(missing, -jnp.inf, jnp.logaddexp(log_g, log_floor))
    # Weights are relative: an offset of all would only cost their differences digits.
    largest = jax.lax.stop_gradient(jnp.max(log_g))
    largest = jnp.where(jnp.isneginf(largest), 0, largest)
    log_g = jnp.where(jnp.isneginf(log_g), NO_WEIGHT, log_g - largest)
    query, place, value = _without(~usable, query), _without(~good, place), _without(~good, value)
    operands = Operands(
        query=query,
        place=place,
        value=value,
        log_weight=log_g,
        alpha=alpha,
        one_minus_alpha=one_minus_alpha,
        own=log_g if among_supports else None,
        frame=make_frame(place, value, centred=value.shape[1] < tiled.MANY_GENES),
        precision=precision,
        latent=latent,
        still=still,
        sample_size=sample_size,
    )
    result = normalised(add_up(operands), operands)
    log_evidence = jnp.where(usable, result.log_evidence + largest, -jnp.inf)
    no_weight = jnp.isneginf(log_evidence)
    return Posterior(
        x0=jnp.where(no_weight[:, None], x_t, result.x0.astype(x_t.dtype)),
        log_evidence=log_evidence,
        effective_sample_size=jnp.where(usable, result.effective_sample_size, 0),
    )


def normalised(sums: Sums, operands: Operands) -> Posterior:
    """Divide by the weights; where there is none, x0 is the frame's centre.

    The sample size is NaN where the sums of squares were not needed.
    """
    bits = sums.shift - sums.offset
    no_weight = (sums.weight == 0) | (bits < LOG2E * NO_WEIGHT / 2)
    weight = jnp.where(no_weight, 1, sums.weight)
    squares = jnp.nan if sums.squares is None else jnp.where(no_weight, 1, sums.squares)
    return Posterior(
        x0=operands.frame.centre + sums.total / weight[:, None],
        log_evidence=jnp.where(no_weight, -jnp.inf, (jnp.log2(weight) + bits) / LOG2E),
        effective_sample_size=jnp.where(no_weight, 0, weight / squares * weight),
    )


def _finite(rows: jax.Array) -> jax.Array:
    # Where a number is not, 0 times it is NaN: one pass, and no array of booleans is stored.
    return jnp.sum(0 * rows, axis=1) == 0


def _without(bad: jax.Array, rows: jax.Array) -> jax.Array:
    return jnp.where(bad[:, None], 0, rows)


def _add_up(
    operands: Operands, log_floor: jax.Array | None, implementation: str, mesh: Mesh | None
) -> Sums:
    """Sum with an implementation, over a mesh, with a floor."""
    if implementation == "dense":  # has the floor inside
        return by_formula(operands, partial(dense.gaussian, log_floor=log_floor), dense.part, mesh)
    part, summed = _differentiable(implementation), operands
    if log_floor is not None and operands.sample_size:
        # The average of g itself rides along as one more gene; the sample size needs it.
        g = jnp.exp(operands.log_weight)[:, None]
        centre = operands.frame.centre
        centre = jnp.pad(centre, (0, 1)) if centre.ndim else centre
        summed = replace(
            operands,
            value=jnp.concatenate([operands.value, g], axis=1),
            frame=operands.frame._replace(centre=centre),
        )
    if mesh is None:
        sums = part(summed)
    else:
        sums = sharded.sums(part, summed, mesh, ring=sharded.is_large(summed))
    return sums if log_floor is None else _add_floor(sums, operands, log_floor)


def by_formula(
    operands: Operands,
    log_kernel: Callable[[Operands], dense.LogKernel],
    part: Callable[[Operands, dense.LogKernel], Sums],
    mesh: Mesh | None,
) -> Sums:
    """Sum a kernel's formula over a mesh, by `dense.part` or `dense.in_blocks`."""

    def whole(operands: Operands) -> Sums:
        return part(operands, log_kernel(operands))

    return whole(operands) if mesh is None else sharded.sums(whole, operands, mesh, ring=False)


def _differentiable(implementation: str) -> Callable[..., Sums]:
    """Give an implementation derivatives, of any order, forwards and backwards.

    They are those of XLA's sums at the same shift, which need not look for a maximum.
    """

    @partial(jax.custom_jvp, nondiff_argnums=(1,))
    def solve(operands: Operands, axes: tuple[str, ...] = ()) -> Sums:
        return sharded.over_all(IMPLEMENTATIONS[implementation], operands, axes)

    @solve.defjvp
    def _(axes, primals, tangents):
        result = solve(*primals, axes)
        shift = jax.lax.stop_gradient(result.shift)

        def sums(operands: Operands) -> Sums:
            at_shift = partial(platforms.on_xla, shift=shift)
            return sharded.over_all(at_shift, operands, axes)

        tangent = jax.jvp(sums, primals, tangents)[1]
        return result, tangent._replace(shift=jnp.zeros_like(shift))

    return solve


def _add_floor(sums: Sums, operands: Operands, log_floor: jax.Array) -> Sums:
    """Add a floor to every Gaussian term: g_j (p_ij + floor) = g_j p_ij + floor g_j.

    The second term is the same for all queries: O((N + M) D). sums: with g as the last gene where
    the sample size is needed.
    """
    g, value = jnp.exp(operands.log_weight), operands.value
    total = jnp.matmul(g, value - operands.frame.centre, precision=jax.lax.Precision.HIGHEST)
    n, genes = len(sums.weight), value.shape[1]
    constant = Sums(
        shift=LOG2E * log_floor + sums.offset,
        offset=sums.offset,
        weight=jnp.broadcast_to(jnp.sum(g), (n,)),
        squares=jnp.broadcast_to(jnp.sum(g**2), (n,)),
        total=jnp.broadcast_to(total, (n, genes)),
    )
    both = merge(sums._replace(total=sums.total[:, :genes]), constant)
    if both.squares is None:
        return both
    # (a + b)^2 = a^2 + b^2 + 2 a b, where sum_j a_ij b_j = floor sum_j w_ij g_j
    product = jnp.exp2(sums.shift - both.shift) * jnp.exp2(constant.shift - both.shift)
    return both._replace(squares=both.squares + 2 * product * sums.total[:, genes])
