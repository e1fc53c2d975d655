"""The x0 posterior mean: checks its arguments and chooses an implementation."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffevo_jax.checks import check_number, concrete
from diffevo_jax.estimator import collectives, compensated, dense, kernels, sharded, tiled
from diffevo_jax.estimator.geometry import frame
from diffevo_jax.estimator.types import Part
from diffevo_jax.estimator.types import Posterior as Posterior
from diffevo_jax.estimator.types import Problem as Problem
from diffevo_jax.sharding import check_mesh, split


def estimate_x0(
    x_t: jax.Array,
    log_weight: jax.Array,
    alpha_t,
    *,
    z_t: jax.Array | None = None,
    support: jax.Array | None = None,
    z_support: jax.Array | None = None,
    one_minus_alpha=None,
    floor=0.0,
    implementation: str = "auto",
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Estimate each individual's clean target as a fitness- and distance-weighted average.

    x0_i = sum_j w_ij x_j / sum_j w_ij
    w_ij = g_j exp(-|z_i - sqrt(alpha) z_j|^2 / (2 (1 - alpha)))

    This is Eq. 8 of Zhang et al. (arXiv 2410.02543), computed in log space. Without `floor` an
    offset of `log_weight` changes nothing.

    x_t: population, `[N, D]`, N >= 2. Under jit an individual whose genes are not all finite takes
        no part and keeps them; its log-evidence is -inf.
    log_weight: log g_j, `[N]` (`[M]` with a support); -inf weighs zero, NaN takes no part (not
        even with a floor).
    alpha_t: signal level, a number in (0, 1).
    z_t: latent coordinates for the distances, `[N, d]`; None takes them in genome space.
    support: individuals j to average over, `[M, D]`, an archive for example; None is the population
        itself. z_support: their latent coordinates, `[M, d]`, given exactly when `z_t` is.
    one_minus_alpha: 1 - alpha_t to full precision (`schedules.Schedule` has it); None subtracts.
    floor: added to every g_j and every Gaussian term. The published code has 1e-9, which decides
        whether high-dimensional runs without a latent space work; the paper's formula has 0. With
        a floor the scale of g matters: `fitness.boltzmann` sets its maximum to 1.
    implementation: "auto" takes the fastest for the shapes and the platform that the function is
        compiled for: "gpu" (Hopper and newer) or "tpu", kernels for few dimensions and genes, or
        "tiled" (XLA, everywhere). All have O(N + M) memory. "dense" is the formula, N x M.
    precision: of the matmul with the genomes where there are 1024 or more, as `jax.lax.dot` takes
        it. The default is float32 to all digits; `jax.lax.DotAlgorithmPreset.TF32_TF32_F32` rounds
        genomes and weights to 11 bits and is several times as fast on a GPU.
    mesh: split individuals, and supports, over all axes of this mesh; None keeps them where they
        are. The result is split likewise where the mesh's devices divide N (`sharding`).

    Returns x0, `[N, D]`, inside the convex hull of the support, in float32 to 1e-5 of the
    population's spread. Where nobody has weight, x0_i = x_i. Raises ValueError on shapes that do
    not fit and, outside jit, on values out of range and genomes that are not finite.
    """
    return estimate_posterior(
        x_t,
        log_weight,
        alpha_t,
        z_t=z_t,
        support=support,
        z_support=z_support,
        one_minus_alpha=one_minus_alpha,
        floor=floor,
        implementation=implementation,
        precision=precision,
        mesh=mesh,
    ).x0


def estimate_posterior(
    x_t: jax.Array,
    log_weight: jax.Array,
    alpha_t,
    *,
    z_t: jax.Array | None = None,
    support: jax.Array | None = None,
    z_support: jax.Array | None = None,
    one_minus_alpha=None,
    floor=0.0,
    implementation: str = "auto",
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    mesh: Mesh | None = None,
) -> Posterior:
    """Do what `estimate_x0` does, and return log-evidence and effective sample size beside x0."""
    given = dict(x_t=x_t, z_t=z_t, support=support, z_support=z_support)
    x_t, log_weight = jnp.asarray(x_t), jnp.asarray(log_weight)
    _check_numbers(alpha_t, one_minus_alpha, floor)
    if not jnp.issubdtype(x_t.dtype, jnp.floating):
        raise ValueError(f"x_t: expected floating-point genomes; seen {x_t.dtype}")
    # Half precision loses the best, and the floor.
    dtype = jnp.promote_types(x_t.dtype, jnp.float32)
    problem = Problem(
        query=_first(z_t, x_t).astype(dtype),
        key=_first(z_support, support, z_t, x_t).astype(dtype),
        value=_first(support, x_t).astype(dtype),
        log_weight=log_weight.astype(dtype),
        alpha=jnp.asarray(alpha_t, dtype),
        one_minus_alpha=jnp.asarray(
            1 - alpha_t if one_minus_alpha is None else one_minus_alpha, dtype
        ),
        own=log_weight.astype(dtype) if support is None else None,
        precision=precision,
        latent=z_t is not None,
    )
    _check_shapes(x_t, z_t, support, z_support, problem)
    for name, array in given.items():
        _check_finite(name, array)
    _check_implementation(implementation, problem)
    without_floor = isinstance(floor, int | float) and floor == 0
    arrays, share = problem.arrays(), None
    if mesh is not None:
        check_mesh(mesh)
        ring = implementation != "dense" and sharded.is_large(problem)
        share = sharded.Share(mesh, ring)
        x_t, arrays = (jax.tree.map(partial(split, mesh=mesh), part) for part in (x_t, arrays))
    return _estimate(
        (implementation, problem.static(), share),
        x_t,
        arrays,
        None if without_floor else jnp.asarray(floor, dtype),
    )


# Compiled here as well, so that calls outside jit do not trace the loops anew every time.
@partial(jax.jit, static_argnums=0)
def _estimate(settings: tuple, x_t, arrays, floor) -> Posterior:
    implementation, static, share = settings
    problem = Problem(**arrays, **dict(static))
    # Many genes are cleaned where they are multiplied, for nothing where they are clean.
    later = implementation != "dense" and tiled.has_many_genes(problem)
    # Genomes that are places as well travel once, and clean.
    later &= share is None or problem.latent
    problem, usable = _contain(problem, value=not later)
    problem = problem._replace(frame=frame(problem))
    solve = IMPLEMENTATIONS[implementation]
    if share is None:
        posterior = solve(problem, floor)
    else:
        posterior = sharded.posterior(solve, problem, floor, share)
    log_evidence = jnp.where(usable, posterior.log_evidence, -jnp.inf)
    nobody = jnp.isneginf(log_evidence)
    return Posterior(
        x0=jax.lax.cond(
            jnp.any(nobody),
            lambda: jnp.where(nobody[:, None], x_t, posterior.x0),
            lambda: posterior.x0,
        ).astype(x_t.dtype),
        log_evidence=log_evidence,
        effective_sample_size=jnp.where(nobody, 0, posterior.effective_sample_size),
    )


def _contain(problem: Problem, *, value: bool) -> tuple[Problem, jax.Array]:
    """The problem without its supports that are not finite, and which queries are, `[N]`.

    value: whether their genomes become 0, or only their weight.
    """

    def clean(rows: jax.Array, array: jax.Array) -> jax.Array:
        return jnp.where(rows[:, None], array, 0)

    finite = tiled.finite_rows
    query = finite(problem.query)
    keys = finite(problem.key) & finite(problem.value)
    own = problem.own
    if own is not None:
        query &= keys
        own = jnp.where(keys, own, jnp.nan)
    contained = problem._replace(
        query=clean(query, problem.query),
        key=clean(keys, problem.key),
        value=clean(keys, problem.value) if value else problem.value,
        log_weight=jnp.where(keys, problem.log_weight, jnp.nan),
        own=own,
    )
    return contained, query


def _floor_apart(posterior: Callable[[Problem], Posterior]):
    """Add a floor to an implementation of the formula without one, for O((N + M) D).

    With G = g + floor, (g_j + floor) (p_ij + floor) = G_j p_ij + floor G_j: the estimate is a mix
    of the local mean, of evidence Z_i, and the G-weighted mean of all, of evidence floor sum_j G_j.
    With many genes one matmul is all the work: there, the floor joins the weights before it.
    """

    def with_floor(problem: Problem, floor) -> Posterior:
        log_floor = -jnp.inf if floor is None else jnp.log(floor)

        def lifted(log_weight: jax.Array) -> jax.Array:
            missing = jnp.isnan(log_weight)
            log_g = jnp.where(missing, -jnp.inf, log_weight)
            if floor is None:
                return log_g
            return jnp.where(missing, -jnp.inf, jnp.logaddexp(log_g, log_floor))

        log_g = lifted(problem.log_weight)
        own = None if problem.own is None else lifted(problem.own)
        problem = problem._replace(log_weight=log_g, own=own)
        if floor is None:
            return posterior(problem)

        if tiled.has_many_genes(problem):
            return posterior(problem._replace(log_floor=log_floor))

        axes = problem.axes
        highest = collectives.highest(jnp.max(jax.lax.stop_gradient(log_g)), axes)
        highest = jnp.where(jnp.isneginf(highest), 0, highest)
        g = jnp.exp(log_g - highest)
        # The average of G itself rides along as one more gene; the sample size needs it.
        value = jnp.concatenate([problem.value, g[:, None]], axis=1)
        local = posterior(problem._replace(value=value))

        total = collectives.total(jnp.sum(g), axes)
        everybody = jnp.where(total == 0, 1, total)
        centre = collectives.mean(jnp.mean(problem.value, axis=0), axes)
        overall = centre + collectives.total(g @ (problem.value - centre), axes) / everybody
        squares = collectives.total(jnp.sum(g**2), axes)
        log_z = local.log_evidence
        log_all = log_floor + highest + jnp.log(total)
        log_evidence = jnp.logaddexp(log_z, log_all)
        nobody = jnp.isneginf(log_evidence)
        base = jnp.where(nobody, 0, log_evidence)
        near, far = jnp.exp(log_z - base), jnp.exp(log_all - base)
        # sum_j w_ij^2 over (sum_j w_ij)^2, with w_ij = G_j p_ij + floor G_j squared out
        share = near**2 / jnp.maximum(local.effective_sample_size, 1)
        share += 2 * near * jnp.exp(log_floor + highest - base) * local.x0[:, -1]
        share += far**2 * squares / everybody**2
        return Posterior(
            x0=near[:, None] * local.x0[:, :-1] + far[:, None] * overall,
            log_evidence=log_evidence,
            effective_sample_size=jnp.where(nobody, 0, 1 / jnp.where(nobody, 1, share)),
        )

    return with_floor


def _refined(part: Callable[[Problem], Part]):
    """Take again what float32 cannot decide, and give the implementation its derivatives.

    They are those of the tiled sums at the evidence found: of any order, forwards and backwards.
    """

    @partial(jax.custom_jvp, nondiff_argnums=(0,))
    def refined(settings: tuple, arrays: dict) -> Posterior:
        problem = Problem(**arrays, **dict(settings))
        return compensated.refine(problem, sharded.over_all(part, problem).posterior())

    @refined.defjvp
    def _(settings: tuple, primals, tangents):
        result = refined(settings, *primals)

        def sums(arrays: dict) -> Posterior:
            problem = Problem(**arrays, **dict(settings))
            given = partial(tiled.given_evidence, log_evidence=result.log_evidence)
            return sharded.over_all(given, problem).posterior()

        return result, jax.jvp(sums, primals, tangents)[1]

    def solve(problem: Problem) -> Posterior:
        return refined(problem.static(), problem.arrays())

    return solve


IMPLEMENTATIONS = {
    "auto": _floor_apart(_refined(kernels.by_platform)),
    "dense": dense.posterior,
    "gpu": _floor_apart(_refined(kernels.on_gpu)),
    "tiled": _floor_apart(_refined(tiled.part)),
    "tpu": _floor_apart(_refined(kernels.on_tpu)),
}


def _first(*arrays):
    return next(jnp.asarray(array) for array in arrays if array is not None)


def _check_numbers(alpha_t, one_minus_alpha, floor) -> None:
    # Beside an exact 1 - alpha, either of the two may round to 1 and still be a level.
    ends = "()" if one_minus_alpha is None else "(]"
    check_number("alpha_t", alpha_t, 0, 1, closed=ends)
    if one_minus_alpha is not None:
        check_number("one_minus_alpha", one_minus_alpha, 0, 1, closed=ends)
    check_number("floor", floor, 0, math.inf, closed="[)")


def _check_shapes(x_t, z_t, support, z_support, problem: Problem) -> None:
    if x_t.ndim != 2 or len(x_t) < 2:
        raise ValueError(f"x_t: expected shape [N, D] with N >= 2; seen {x_t.shape}")
    if (z_support is None) != (support is None or z_t is None):
        raise ValueError("z_support: expected exactly when both support and z_t are given")
    n, genes = x_t.shape
    if problem.query.ndim != 2 or len(problem.query) != n:
        raise ValueError(f"z_t: expected shape [N, d] with N = {n}; seen {problem.query.shape}")
    if problem.value.ndim != 2 or problem.value.shape[1] != genes or not len(problem.value):
        raise ValueError(
            f"support: expected shape [M, D] with D = {genes}; seen {problem.value.shape}"
        )
    m, dim = len(problem.value), problem.query.shape[1]
    if problem.key.shape != (m, dim):
        raise ValueError(f"z_support: expected shape ({m}, {dim}); seen {problem.key.shape}")
    if problem.log_weight.shape != (m,):
        raise ValueError(
            f"log_weight: expected shape ({m},), one per individual; "
            f"seen {problem.log_weight.shape}"
        )


def _check_implementation(implementation: str, problem: Problem) -> None:
    if implementation not in IMPLEMENTATIONS:
        known = ", ".join(IMPLEMENTATIONS)
        raise ValueError(f"implementation: expected one of {known}; seen {implementation!r}")
    # A floor brings one more gene.
    kernels.check(implementation, problem)


def _check_finite(name: str, array) -> None:
    known = None if array is None else concrete(array)
    if known is None:
        return
    bad = np.flatnonzero(~np.isfinite(known.astype(np.float64, copy=False)).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{name}: expected finite genomes; seen {len(bad)} rows with NaN or infinity, the "
            f"first in row {bad[0]}"
        )
