"""The x0 posterior mean and the density of a mixture, and the checks of their arguments."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffevo_jax.checks import (
    InputError,
    NonNegative,
    Positive,
    check_array,
    check_number,
    concrete,
    is_traced,
)
from diffevo_jax.kernels import lattice, platforms
from diffevo_jax.kernels.posterior import AUTO, IMPLEMENTATIONS, Rows, gaussian
from diffevo_jax.parts import Posterior
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
    floor: NonNegative = 0.0,
    implementation: str = AUTO,
    precision: jax.lax.PrecisionLike = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Estimate each individual's clean target as a fitness- and distance-weighted average.

    x0_i = sum_j w_ij x_j / sum_j w_ij
    w_ij = g_j exp(-|z_i - sqrt(alpha) z_j|^2 / (2 (1 - alpha)))

    This is Eq. 8 of Zhang et al. (arXiv 2410.02543), computed in log space. Without `floor` an
    offset of `log_weight` changes nothing.

    x_t: population, `[N, D]`, N >= 2. Under jit an individual whose genes are not all finite takes
        no part and keeps them; its log-evidence is -inf. What distances are taken by, z_t where
        there is one, must be small enough to be squared.
    log_weight: log g_j, `[N]` (`[M]` with a support); -inf weighs zero, NaN takes no part (not
        even with a floor).
    alpha_t: signal level, a number in (0, 1).
    z_t: latent coordinates for the distances, `[N, d]`; None takes them in genome space.
    support: individuals j to average over, `[M, D]`, an archive for example; None is the population
        itself. z_support: their latent coordinates, `[M, d]`, exactly when there is a `z_t`.
    one_minus_alpha: 1 - alpha_t to full precision (`schedules.Schedule` has it); None subtracts.
    floor: added to every g_j and every Gaussian term. The published code has 1e-9, which decides
        whether high-dimensional runs without a latent space work; the paper's formula has 0. With
        a floor the scale of g matters: `fitness.boltzmann` sets its maximum to 1.
    implementation: "auto" takes the fastest for the shapes and the platform that the function is
        compiled for: "lattice" (many individuals in d <= 3: N + nodes, not N x M, sums), "gpu"
        (Ampere and newer) or "tpu", kernels for few dimensions and genes, or "tiled" (XLA,
        everywhere). All have O(N + M) memory. "dense" is the formula, N x M.
    precision: that of the matmul with genomes of 1024 genes or more, as `jax.lax.dot` takes it.
        None is float32 to all digits, on NVIDIA cards by three passes of TF32;
        `jax.lax.DotAlgorithmPreset.TF32_TF32_F32` is one, which rounds genomes and weights to 11
        bits.
    mesh: split individuals, and supports, over all axes of this mesh; None keeps them where they
        are. The result is split likewise where the mesh's devices divide N (`sharding`).

    Returns x0, `[N, D]`, inside the convex hull of the support: what exact arithmetic gives for log
    weights L_ij that are off by 4 eps max_j |L_ij|, eps the dtype's, the promise of a softmax. In
    float32 that is 1e-5 of the population's spread where those that count are within 1e2 of each
    other. Where no support has weight, x0_i = x_i. Raises InputError on shapes that do not fit and,
    outside jit, on values out of range, genomes that are not finite and kernels of other machines.
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
        sample_size=False,
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
    floor: NonNegative = 0.0,
    implementation: str = AUTO,
    precision: jax.lax.PrecisionLike = None,
    mesh: Mesh | None = None,
    sample_size: bool = True,
) -> Posterior:
    """Do what `estimate_x0` does, and return log-evidence and effective sample size beside x0.

    sample_size: False leaves the sums for the sample size out, which take half as long as the
        average; it is NaN. From a lattice it is within 1e-3.
    """
    _check_numbers(alpha_t, one_minus_alpha, floor)
    check_implementation(implementation)
    rows = make_rows(x_t, log_weight, z_t, support, z_support, mesh)
    dtype = rows.value.dtype
    (n, dim), (m, genes) = rows.query.shape, rows.value.shape
    platforms.check(implementation, n, m, dim, genes, dtype)
    if not any(map(is_traced, rows)):
        platforms.check_machine(implementation)
        if implementation == "lattice":
            lattice.check_places(rows.query, alpha_t, one_minus_alpha)
    without_floor = isinstance(floor, int | float) and floor == 0
    return gaussian(
        rows,
        jnp.asarray(alpha_t, dtype),
        jnp.asarray(1 - alpha_t if one_minus_alpha is None else one_minus_alpha, dtype),
        None if without_floor else jnp.asarray(floor, dtype),
        implementation=implementation,
        mesh=mesh,
        precision=precision,
        latent=z_t is not None,
        among_supports=support is None,
        sample_size=sample_size,
    )


def log_density(
    points: jax.Array, centres: jax.Array, sigma: Positive, *, mesh: Mesh | None = None
) -> jax.Array:
    """Compute the log density of a mixture of Gaussians, log mean_i N(x; mu_i, sigma^2 I).

    points: x, `[M, D]`. centres: mu, `[N, D]`. sigma: a number above 0, or traced.
    mesh: split the points, and the centres, over all axes of this mesh.

    Returns `[M]`, in O(N + M) memory, with derivatives. Raises InputError on shapes that do not
    fit and a sigma out of range.
    """
    check_number("sigma", sigma, 0, math.inf, closed="()")
    points = check_array("points", points, "an array [M, D]")
    centres = check_array("centres", centres, "an array [N, D]")
    if points.ndim != 2:
        raise InputError("points", "shape [M, D]", points.shape)
    if centres.ndim != 2 or not len(centres) or centres.shape[1] != points.shape[1]:
        raise InputError("centres", f"shape [N, D] with D = {points.shape[1]}", centres.shape)
    size, genes = centres.shape
    # Averages of one gene, of which only the evidence is needed.
    rows = make_rows(points[:, :1], jnp.zeros(size), points, centres[:, :1], centres, mesh)
    dtype = rows.value.dtype
    evidence = gaussian(
        rows,
        jnp.ones((), dtype),
        jnp.asarray(sigma, dtype) ** 2,
        None,
        implementation=AUTO,
        mesh=mesh,
        latent=True,
        among_supports=False,
        still=True,
        sample_size=False,
    ).log_evidence
    return evidence - math.log(size) - genes * (jnp.log(sigma) + math.log(2 * math.pi) / 2)


def check_implementation(implementation: str) -> None:
    """Raise InputError unless it is the name of an implementation."""
    if implementation not in IMPLEMENTATIONS:
        names = ", ".join(IMPLEMENTATIONS)
        raise InputError("implementation", f"one of {names}", repr(implementation))


def make_rows(
    x_t: jax.Array,
    log_weight: jax.Array,
    z_t: jax.Array | None = None,
    support: jax.Array | None = None,
    z_support: jax.Array | None = None,
    mesh: Mesh | None = None,
) -> Rows:
    """Check what is averaged, `estimate_x0`'s arguments, and split it over a mesh."""
    arrays = dict(x_t=x_t, z_t=z_t, support=support, z_support=z_support)
    x_t = check_array("x_t", x_t, "a population [N, D]")
    log_weight = check_array("log_weight", log_weight, "log weights [N]")
    if not jnp.issubdtype(x_t.dtype, jnp.floating):
        raise InputError("x_t", "floating-point genomes", x_t.dtype)
    if (z_support is None) != (support is None or z_t is None):
        shape = "none" if z_support is None else f"shape {jnp.shape(z_support)}"
        raise InputError("z_support", "exactly when both support and z_t are set", shape)
    # Half precision loses the best, and the floor.
    dtype = jnp.promote_types(x_t.dtype, jnp.float32)
    rows = Rows(
        x_t,
        query=_first(z_t, x_t).astype(dtype),
        place=_first(z_support, support, z_t, x_t).astype(dtype),
        value=_first(support, x_t).astype(dtype),
        log_weight=log_weight.astype(dtype),
    )
    _check_shapes(rows)
    for name, array in arrays.items():
        _check_rows(name, array, jnp.isfinite, "finite genomes", "NaN or infinity")
    # What distances are taken between: their squares must be numbers.
    limit = float(jnp.finfo(dtype).max) ** 0.5 / (4 * max(rows.place.shape[1], 1) ** 0.5)
    for name in ("x_t", "support") if z_t is None else ("z_t", "z_support"):
        near = f"genomes within {limit:.0e} of 0, for distances between them"
        _check_rows(name, arrays[name], lambda row: abs(row) < limit, near, "numbers beyond")
    if (weights := concrete(rows.log_weight)) is not None and np.any(weights == np.inf):
        raise InputError("log_weight", "log weights below infinity", "infinity")
    if mesh is None:
        return rows
    check_mesh(mesh)
    return Rows(*(split(array, mesh) for array in rows))


def _first(*arrays):
    return next(jnp.asarray(array) for array in arrays if array is not None)


def _check_numbers(alpha_t, one_minus_alpha, floor) -> None:
    # Beside an exact 1 - alpha, either of the two may round to 1 and still be a level.
    ends = "()" if one_minus_alpha is None else "(]"
    check_number("alpha_t", alpha_t, 0, 1, closed=ends)
    if one_minus_alpha is not None:
        check_number("one_minus_alpha", one_minus_alpha, 0, 1, closed=ends)
    check_number("floor", floor, 0, math.inf, closed="[)")


def _check_shapes(rows: Rows) -> None:
    x_t, query, place, value, log_weight = rows
    if x_t.ndim != 2 or len(x_t) < 2:
        raise InputError("x_t", "shape [N, D] with N >= 2", x_t.shape)
    n, genes = x_t.shape
    if query.ndim != 2 or len(query) != n:
        raise InputError("z_t", f"shape [N, d] with N = {n}", query.shape)
    if value.ndim != 2 or value.shape[1] != genes or not len(value):
        raise InputError("support", f"shape [M, D] with D = {genes}", value.shape)
    m, dim = len(value), query.shape[1]
    if place.shape != (m, dim):
        raise InputError("z_support", f"shape ({m}, {dim})", place.shape)
    if log_weight.shape != (m,):
        raise InputError("log_weight", f"shape ({m},), one per individual", log_weight.shape)


def _check_rows(
    name: str, array: Any, is_good: Callable[[jax.Array], jax.Array], expected: str, otherwise: str
) -> None:
    """Raise InputError where rows are known and not all of their numbers are good."""
    if array is None or is_traced(array) or not getattr(array, "is_fully_addressable", True):
        return
    with jax.ensure_compile_time_eval():  # on the device; also where the caller is traced
        bad = ~jnp.all(is_good(jnp.asarray(array)), axis=1)
        count, first = int(jnp.sum(bad)), int(jnp.argmax(bad))
    if count:
        rows = f"{count} rows with {otherwise}, the first in row {first}"
        raise InputError(name, expected, rows)
