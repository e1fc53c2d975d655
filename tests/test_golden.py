"""The numbers of the published code, and of the paper's formula, reproduced in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de

pytestmark = pytest.mark.promised

FLOOR = 1e-9  # the constant of the published code
SOURCE = {"E": "D", "F": "C", "I": "B"}  # groups that share x and fitness with another


_estimate_x0 = jax.jit(de.estimate_x0, static_argnames="floor")


def _inputs(golden, group):
    source = SOURCE.get(group, group)
    x, fitness = golden[f"{source}_x"], golden[f"{source}_fitness"]
    z = golden.get(f"{group}_latent")
    rows = golden["large_group_rows"] if group in "DE" else np.arange(len(x))
    return x, fitness, z, rows


def _published_normaliser(x, fitness, z, alpha):
    """Z / (Z + 1e-9): the published code also adds its constant to the sum of weights."""
    z = x if z is None else z
    difference = z[:, None] - np.sqrt(alpha) * z[None]
    p = np.exp(-np.sum(difference**2, -1) / (2 * (1 - alpha)))
    total = np.sum((fitness + FLOOR)[None] * (p + FLOOR), axis=1) / (1 / len(x) + FLOOR)
    return (total / (total + FLOOR))[:, None]


@jax.jit
def _step(x, x0, alpha_t, alpha_prev):
    return de.ddim_step(jax.random.key(0), x, x0, alpha_t=alpha_t, alpha_prev=alpha_prev, eta=0.0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("group", list("ABCDEFGHI"))
def test_floored_estimate_and_step_are_the_published_codes(golden, group):
    x, fitness, z, rows = _inputs(golden, group)
    log_weight = np.log(fitness)
    settings = zip(golden[f"{group}_alpha_t"], golden[f"{group}_alpha_prev"], strict=True)
    for s, (alpha_t, alpha_prev) in enumerate(settings):
        x0 = _estimate_x0(x, log_weight, alpha_t, z_t=z, floor=FLOOR)
        x0 = x0 * _published_normaliser(x, fitness, z, alpha_t)
        np.testing.assert_allclose(x0[rows], golden[f"{group}_x0_ref"][s], rtol=0, atol=1e-9)
        stepped = _step(x, x0, alpha_t, alpha_prev)
        np.testing.assert_allclose(
            stepped[rows], golden[f"{group}_x_next_ref"][s], rtol=0, atol=1e-9
        )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("group", list("ABCDEFGHI"))
def test_exact_estimate_and_step_are_equation_8(golden, group):
    x, fitness, z, rows = _inputs(golden, group)
    settings = zip(golden[f"{group}_alpha_t"], golden[f"{group}_alpha_prev"], strict=True)
    for s, (alpha_t, alpha_prev) in enumerate(settings):
        x0 = _estimate_x0(x, np.log(fitness), alpha_t, z_t=z)
        np.testing.assert_allclose(x0[rows], golden[f"{group}_x0_exact"][s], rtol=0, atol=1e-9)
        if f"{group}_x_next_exact" in golden:
            stepped = _step(x, x0, alpha_t, alpha_prev)
            np.testing.assert_allclose(
                stepped[rows], golden[f"{group}_x_next_exact"][s], rtol=0, atol=1e-9
            )


@pytest.mark.usefixtures("x64")
def test_a_projection_gives_the_golden_latents(golden):
    for group in "EFI":
        x, _, z, _ = _inputs(golden, group)
        projected = de.latent.project(jnp.asarray(x), jnp.asarray(golden[f"{group}_proj"].T))
        np.testing.assert_allclose(projected, z, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["linear", "cosine", "ddpm"])
@pytest.mark.parametrize("num_levels", [10, 25, 100])
def test_schedules_are_the_published_ones(golden, kind, num_levels):
    schedule = getattr(de.schedules, kind)(num_levels)
    np.testing.assert_allclose(schedule.alpha, golden[f"sched_{kind}_{num_levels}"], atol=1e-14)
    np.testing.assert_allclose(schedule.alpha + schedule.one_minus_alpha, 1, atol=1e-15)


def test_two_peaks_is_the_golden_landscape(golden):
    fitness = de.landscapes.two_peaks(jnp.asarray(golden["H_x"], jnp.float32))
    np.testing.assert_allclose(fitness, golden["H_fitness"], rtol=2e-6)  # float32 exp
