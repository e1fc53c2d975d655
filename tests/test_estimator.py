"""The estimate against a float64 loop, its laws, and its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import loop_x0

import diffevo_jax as de

KEY = jax.random.key(3)


def _case(n=65, dim=2, key=KEY):
    key_x, key_w = jax.random.split(key)
    return jax.random.normal(key_x, (n, dim)), 3 * jax.random.normal(key_w, (n,))


@pytest.mark.parametrize("floor", [0.0, 1e-9])
@pytest.mark.parametrize("one_minus_alpha", [0.999, 0.5, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("dim", [1, 2, 16, 58])
def test_float32_agrees_with_a_float64_loop(dim, one_minus_alpha, floor):
    x, log_weight = _case(dim=dim)
    x0 = de.estimate_x0(
        x, log_weight, 1 - one_minus_alpha, one_minus_alpha=one_minus_alpha, floor=floor
    )
    expected = loop_x0(x, log_weight, 1 - one_minus_alpha, floor=floor)
    # 1e-5 of the population spread is the project's bound for any float32 implementation.
    np.testing.assert_allclose(x0, expected, rtol=0, atol=1e-5 * float(jnp.std(x)))


def test_distances_are_taken_in_the_latent_space_and_the_average_in_genome_space():
    x, log_weight = _case(dim=17)
    z = de.latent.project(x, de.latent.random_projection(KEY, 17, 3))
    x0 = de.estimate_x0(x, log_weight, 0.7, z_t=z)
    np.testing.assert_allclose(x0, loop_x0(x, log_weight, 0.7, z=z), rtol=0, atol=1e-5)


def test_log_evidence_and_effective_sample_size_are_those_of_the_weights():
    x, log_weight = _case()
    posterior = de.estimate_posterior(x, log_weight, 0.9)
    difference = x[:, None] - np.sqrt(0.9) * x[None]
    w = np.exp(log_weight[None] - np.sum(difference**2, -1) / 0.2).astype(np.float64)
    np.testing.assert_allclose(posterior.log_evidence, np.log(w.sum(1)), rtol=1e-5, atol=1e-5)
    ess = w.sum(1) ** 2 / (w**2).sum(1)
    np.testing.assert_allclose(posterior.effective_sample_size, ess, rtol=1e-4)


def test_an_offset_of_the_log_weights_changes_nothing():
    x, log_weight = _case()
    x0 = de.estimate_x0(x, log_weight, 0.5)
    for offset in (-1000.0, 64.0):  # exp(1000) overflows; 64 keeps float32's digits of log_weight
        moved = de.estimate_x0(x, log_weight + offset, 0.5)
        np.testing.assert_allclose(moved, x0, rtol=0, atol=2e-4)  # digits lost in the offset itself


def test_permuted_individuals_give_permuted_estimates():
    x, log_weight = _case()
    order = jax.random.permutation(KEY, len(x))
    x0 = de.estimate_x0(x, log_weight, 0.5)
    permuted = de.estimate_x0(x[order], log_weight[order], 0.5)
    np.testing.assert_allclose(permuted, x0[order], rtol=0, atol=1e-5)


def test_an_offset_of_population_and_latents_keeps_its_digits():
    x, log_weight = _case()
    z = x
    near = de.estimate_x0(x, log_weight, 0.5, z_t=z)
    far = de.estimate_x0(x + 1024, log_weight, 0.5, z_t=z)
    np.testing.assert_allclose(far - 1024, near, rtol=0, atol=4e-4)  # float32 at 1024: 1.2e-4


def test_weight_zero_and_no_weight_take_no_part():
    x, log_weight = _case()
    for nothing in (-jnp.inf, jnp.nan):
        masked = log_weight.at[10:].set(nothing)
        x0 = de.estimate_x0(x, masked, 0.5)
        kept = jnp.concatenate([log_weight[:10], jnp.full(len(x) - 10, -jnp.inf)])
        np.testing.assert_allclose(x0, loop_x0(x, kept, 0.5), rtol=0, atol=1e-5)


def test_a_floor_lifts_a_weight_of_zero_but_not_a_missing_one():
    x, log_weight = _case(n=4)
    lifted = de.estimate_x0(x, log_weight.at[0].set(-jnp.inf), 0.5, floor=1e-2)
    missing = de.estimate_x0(x, log_weight.at[0].set(jnp.nan), 0.5, floor=1e-2)
    np.testing.assert_allclose(
        lifted, loop_x0(x, log_weight.at[0].set(-np.inf), 0.5, floor=1e-2), rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(
        missing, loop_x0(x, log_weight.at[0].set(np.nan), 0.5, floor=1e-2), rtol=0, atol=1e-5
    )
    assert float(jnp.abs(lifted - missing).max()) > 1e-4


def test_where_nobody_has_weight_the_estimate_is_the_individual():
    x, _ = _case()
    posterior = de.estimate_posterior(x, jnp.full(len(x), -jnp.inf), 0.5)
    np.testing.assert_array_equal(posterior.x0, x)
    assert bool(jnp.all(jnp.isneginf(posterior.log_evidence)))
    np.testing.assert_array_equal(posterior.effective_sample_size, 0)


def test_gradients_agree_with_finite_differences_and_stay_finite():
    with jax.enable_x64(True):
        x, log_weight = _case(n=9)
        x, log_weight = x.astype(float), log_weight.astype(float).at[0].set(-jnp.inf)

        def loss(scale, alpha):
            posterior = de.estimate_posterior(scale * x, log_weight, alpha, floor=1e-3)
            return jnp.sum(posterior.x0**2) + jnp.sum(posterior.log_evidence)

        gradient = jax.jit(jax.grad(loss, (0, 1)))(1.0, 0.6)
        loss = jax.jit(loss)
        h = 1e-6
        numeric = (
            (loss(1 + h, 0.6) - loss(1 - h, 0.6)) / (2 * h),
            (loss(1.0, 0.6 + h) - loss(1.0, 0.6 - h)) / (2 * h),
        )
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(x_t=jnp.ones(4)), r"x_t: expected shape \[N, D\].*seen \(4,\)"),
        (dict(x_t=jnp.ones((1, 2))), "N >= 2"),
        (dict(x_t=jnp.ones((4, 2), int)), "x_t: expected floating-point.*int32"),
        (dict(log_weight=jnp.ones(5)), r"log_weight: expected shape \(4,\).*seen \(5,\)"),
        (dict(alpha_t=1.0), r"alpha_t: expected a number in \(0, 1\); seen 1.0"),
        (dict(alpha_t=-0.1), "alpha_t"),
        (dict(alpha_t=float("nan")), "alpha_t"),
        (dict(z_t=jnp.ones((5, 2))), r"z_t: .* N = 4; seen \(5, 2\)"),
        (dict(floor=-1.0), "floor: expected a number of 0 or more; seen -1.0"),
        (dict(implementation="fast"), "expected one of auto, dense; seen 'fast'"),
        (dict(one_minus_alpha=0.0), "one_minus_alpha"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = dict(x_t=jnp.ones((4, 2)), log_weight=jnp.zeros(4), alpha_t=0.5) | change
    positional = [arguments.pop(name) for name in ("x_t", "log_weight", "alpha_t")]
    with pytest.raises(ValueError, match=message):
        de.estimate_x0(*positional, **arguments)
