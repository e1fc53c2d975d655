"""From checked arguments to the posterior: clean, sum, add the floor, divide.

What is common to all implementations stands here, once. They only sum (`types.Sums`).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from diffevo_jax.kernels import dense, kernels, sharded, tiled
from diffevo_jax.kernels.exp2 import LOG2E
from diffevo_jax.kernels.geometry import make_frame
from diffevo_jax.kernels.types import NO_WEIGHT, Posterior, Problem, Sums, merge

# Takes the fastest for the shapes and the platform.
AUTO = "auto"
IMPLEMENTATIONS: dict[str, Callable[..., Sums]] = {
    AUTO: kernels.fastest,
    "dense": dense.part,
    "gpu": kernels.on_gpu,
    "tiled": kernels.on_xla,
    "tpu": kernels.on_tpu,
}


# Compiled here as well, so that calls outside jit do not trace the loops anew every time.
@partial(
    jax.jit,
    static_argnames=(
        *("implementation", "precision", "mesh", "latent", "among_supports", "sample_size"),
    ),
)
def posterior(
    x_t: jax.Array,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    log_weight: jax.Array,
    alpha: jax.Array,
    one_minus_alpha: jax.Array,
    floor: jax.Array | None,
    *,
    implementation: str,
    precision: jax.lax.PrecisionLike,
    mesh: Mesh | None,
    latent: bool,
    among_supports: bool,
    sample_size: bool,
) -> Posterior:
    """Posterior of a population x_t, `[N, D]`.

    query, key, value, log_weight, alpha, one_minus_alpha, precision, latent, sample_size: of the
    `Problem`, not cleaned yet. floor: a number, `[]`; None is 0. among_supports: whether the
    queries are the supports.
    """
    # What is not finite takes no part.
    usable, good = _finite(query), _finite(key) & _finite(value)
    if among_supports:
        usable &= good
    # NaN is "no fitness": out of the average altogether, whatever the floor.
    missing = jnp.isnan(log_weight) | ~good
    log_g, log_floor = jnp.where(missing, -jnp.inf, log_weight), None
    if floor is not None:
        log_floor = jnp.log(floor)
        log_g = jnp.where(missing, -jnp.inf, jnp.logaddexp(log_g, log_floor))
    # Weights are relative: an offset of all would only cost their differences digits.
    largest = jax.lax.stop_gradient(jnp.max(log_g))
    largest = jnp.where(jnp.isneginf(largest), 0, largest)
    log_g = jnp.where(jnp.isneginf(log_g), NO_WEIGHT, log_g - largest)
    query, key, value = _without(~usable, query), _without(~good, key), _without(~good, value)
    problem = Problem(
        query=query,
        key=key,
        value=value,
        log_weight=log_g,
        alpha=alpha,
        one_minus_alpha=one_minus_alpha,
        own=log_g if among_supports else None,
        frame=make_frame(key, value, centred=value.shape[1] < tiled.MANY_GENES),
        precision=precision,
        latent=latent,
        sample_size=sample_size,
    )
    sums = _sum(problem, log_floor, implementation, mesh)

    result = normalised(sums, problem)
    log_evidence = jnp.where(usable, result.log_evidence + largest, -jnp.inf)
    no_weight = jnp.isneginf(log_evidence)
    return Posterior(
        x0=jnp.where(no_weight[:, None], x_t, result.x0.astype(x_t.dtype)),
        log_evidence=log_evidence,
        effective_sample_size=jnp.where(usable, result.effective_sample_size, 0),
    )


def normalised(sums: Sums, problem: Problem) -> Posterior:
    """Divide by the weights; where there is none, x0 is the frame's centre.

    The sample size is NaN where the sums of squares were not wanted.
    """
    bits = sums.shift - sums.offset
    no_weight = (sums.weight == 0) | (bits < LOG2E * NO_WEIGHT / 2)
    weight = jnp.where(no_weight, 1, sums.weight)
    squares = jnp.nan if sums.squares is None else jnp.where(no_weight, 1, sums.squares)
    return Posterior(
        x0=problem.frame.centre + sums.total / weight[:, None],
        log_evidence=jnp.where(no_weight, -jnp.inf, (jnp.log2(weight) + bits) / LOG2E),
        effective_sample_size=jnp.where(no_weight, 0, weight / squares * weight),
    )


def _finite(rows: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(rows), axis=1)


def _without(bad: jax.Array, rows: jax.Array) -> jax.Array:
    return jnp.where(bad[:, None], 0, rows)


def _sum(problem: Problem, log_floor, implementation: str, mesh: Mesh | None) -> Sums:
    """Sums by an implementation, over a mesh, with a floor."""
    formula = implementation == "dense"  # has the floor inside
    part, summed = _differentiable(implementation), problem
    if formula:
        part = partial(dense.part, log_floor=log_floor)
    elif log_floor is not None and problem.sample_size:
        # The average of g itself rides along as one more gene; the sample size needs it.
        g = jnp.exp(problem.log_weight)[:, None]
        centre = problem.frame.centre
        summed = replace(
            problem,
            value=jnp.concatenate([problem.value, g], axis=1),
            frame=problem.frame._replace(centre=jnp.pad(centre, (0, 1)) if centre.ndim else centre),
        )
    if mesh is None:
        sums = part(summed)
    else:
        sums = sharded.sums(part, summed, mesh, ring=not formula and sharded.is_large(summed))
    return sums if formula or log_floor is None else _add_floor(sums, problem, log_floor)


def _differentiable(implementation: str) -> Callable[..., Sums]:
    """An implementation with derivatives, of any order, forwards and backwards.

    They are those of XLA's sums at the shift found: nothing is searched for there.
    """

    @partial(jax.custom_jvp, nondiff_argnums=(1,))
    def solve(problem: Problem, axes: tuple[str, ...] = ()) -> Sums:
        return sharded.over_all(IMPLEMENTATIONS[implementation], problem, axes)

    @solve.defjvp
    def _(axes, primals, tangents):
        result = solve(*primals, axes)
        shift = jax.lax.stop_gradient(result.shift)

        def sums(problem: Problem) -> Sums:
            at_shift = partial(kernels.on_xla, shift=shift)
            return sharded.over_all(at_shift, problem, axes)

        tangent = jax.jvp(sums, primals, tangents)[1]
        return result, tangent._replace(shift=jnp.zeros_like(shift))

    return solve


def _add_floor(sums: Sums, problem: Problem, log_floor: jax.Array) -> Sums:
    """Add a floor to every Gaussian term: g_j (p_ij + floor) = g_j p_ij + floor g_j.

    The second term is the same for all queries: O((N + M) D). sums: with g as the last gene where
    the sample size is wanted.
    """
    g, value = jnp.exp(problem.log_weight), problem.value
    total = jnp.matmul(g, value - problem.frame.centre, precision=jax.lax.Precision.HIGHEST)
    n, genes = len(sums.weight), value.shape[1]
    everybody = Sums(
        shift=LOG2E * log_floor + sums.offset,
        offset=sums.offset,
        weight=jnp.broadcast_to(jnp.sum(g), (n,)),
        squares=jnp.broadcast_to(jnp.sum(g**2), (n,)),
        total=jnp.broadcast_to(total, (n, genes)),
    )
    both = merge(sums._replace(total=sums.total[:, :genes]), everybody)
    if both.squares is None:
        return both
    # (a + b)^2 = a^2 + b^2 + 2 a b, where sum_j a_ij b_j = floor sum_j w_ij g_j
    product = jnp.exp2(sums.shift - both.shift) * jnp.exp2(everybody.shift - both.shift)
    return both._replace(squares=both.squares + 2 * product * sums.total[:, genes])
