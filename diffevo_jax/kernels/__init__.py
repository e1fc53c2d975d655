"""The x0 posterior mean: the two public functions, and the checks of their arguments."""

import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from diffevo_jax.checks import NonNegative, check_number, is_traced
from diffevo_jax.kernels import platforms as kernels
from diffevo_jax.kernels.posterior import AUTO as AUTO
from diffevo_jax.kernels.posterior import IMPLEMENTATIONS, posterior
from diffevo_jax.kernels.types import Posterior as Posterior
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
        it. None is float32 to all digits, on NVIDIA cards by three passes of TF32;
        `jax.lax.DotAlgorithmPreset.TF32_TF32_F32` is one, which rounds genomes and weights to 11
        bits.
    mesh: split individuals, and supports, over all axes of this mesh; None keeps them where they
        are. The result is split likewise where the mesh's devices divide N (`sharding`).

    Returns x0, `[N, D]`, inside the convex hull of the support: what exact arithmetic gives for log
    weights L_ij that are off by 4 eps max_j |L_ij|, eps the dtype's, the promise of a softmax. In
    float32 that is 1e-5 of the population's spread where those that count are within 1e2 of each
    other. Where nobody has weight, x0_i = x_i. Raises ValueError on shapes that do not fit and,
    outside jit, on values out of range and genomes that are not finite.
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

    sample_size: False leaves the sums for the sample size out, for a tenth of the time; it is NaN.
    """
    given = dict(x_t=x_t, z_t=z_t, support=support, z_support=z_support)
    x_t = jnp.asarray(x_t)
    _check_numbers(alpha_t, one_minus_alpha, floor)
    if not jnp.issubdtype(x_t.dtype, jnp.floating):
        raise ValueError(f"x_t: expected floating-point genomes; seen {x_t.dtype}")
    # Half precision loses the best, and the floor.
    dtype = jnp.promote_types(x_t.dtype, jnp.float32)
    query = _first(z_t, x_t).astype(dtype)
    key = _first(z_support, support, z_t, x_t).astype(dtype)
    value = _first(support, x_t).astype(dtype)
    log_weight = jnp.asarray(log_weight).astype(dtype)
    if (z_support is None) != (support is None or z_t is None):
        raise ValueError("z_support: expected exactly when both support and z_t are given")
    _check_shapes(x_t, query, key, value, log_weight)
    for name, array in given.items():
        _check_finite(name, array)
    if implementation not in IMPLEMENTATIONS:
        known = ", ".join(IMPLEMENTATIONS)
        raise ValueError(f"implementation: expected one of {known}; seen {implementation!r}")
    kernels.check(implementation, query.shape[1], value.shape[1], dtype)
    rows = x_t, query, key, value, log_weight
    if mesh is not None:
        check_mesh(mesh)
        rows = (split(array, mesh) for array in rows)
    without_floor = isinstance(floor, int | float) and floor == 0
    return posterior(
        *rows,
        jnp.asarray(alpha_t, dtype),
        jnp.asarray(1 - alpha_t if one_minus_alpha is None else one_minus_alpha, dtype),
        None if without_floor else jnp.asarray(floor, dtype),
        implementation=implementation,
        precision=precision,
        mesh=mesh,
        latent=z_t is not None,
        among_supports=support is None,
        sample_size=sample_size,
    )


def _first(*arrays):
    return next(jnp.asarray(array) for array in arrays if array is not None)


def _check_numbers(alpha_t, one_minus_alpha, floor) -> None:
    # Beside an exact 1 - alpha, either of the two may round to 1 and still be a level.
    ends = "()" if one_minus_alpha is None else "(]"
    check_number("alpha_t", alpha_t, 0, 1, closed=ends)
    if one_minus_alpha is not None:
        check_number("one_minus_alpha", one_minus_alpha, 0, 1, closed=ends)
    check_number("floor", floor, 0, math.inf, closed="[)")


def _check_shapes(x_t, query, key, value, log_weight) -> None:
    if x_t.ndim != 2 or len(x_t) < 2:
        raise ValueError(f"x_t: expected shape [N, D] with N >= 2; seen {x_t.shape}")
    n, genes = x_t.shape
    if query.ndim != 2 or len(query) != n:
        raise ValueError(f"z_t: expected shape [N, d] with N = {n}; seen {query.shape}")
    if value.ndim != 2 or value.shape[1] != genes or not len(value):
        raise ValueError(f"support: expected shape [M, D] with D = {genes}; seen {value.shape}")
    m, dim = len(value), query.shape[1]
    if key.shape != (m, dim):
        raise ValueError(f"z_support: expected shape ({m}, {dim}); seen {key.shape}")
    if log_weight.shape != (m,):
        raise ValueError(
            f"log_weight: expected shape ({m},), one per individual; seen {log_weight.shape}"
        )


def _check_finite(name: str, array) -> None:
    if array is None or is_traced(array) or not getattr(array, "is_fully_addressable", True):
        return
    with jax.ensure_compile_time_eval():  # on the device; also where the caller is traced
        bad = ~jnp.all(jnp.isfinite(jnp.asarray(array)), axis=1)
        count, first = int(jnp.sum(bad)), int(jnp.argmax(bad))
    if count:
        raise ValueError(
            f"{name}: expected finite genomes; seen {count} rows with NaN or infinity, the "
            f"first in row {first}"
        )
