"""Projections that follow the search."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import diffevo_jax as de
from diffevo_jax import denoisers, kernels, latent

KEY = jax.random.key(7)
# Gaps between the spreads of directions, for what an iteration finds is as sharp as they are.
POPULATION = jax.random.normal(jax.random.key(1), (24, 5)) * jnp.array([4.0, 2.0, 1.0, 0.1, 0.1])
LOG_WEIGHT = jnp.sin(POPULATION[:, 1]).at[3].set(jnp.nan).at[5].set(-jnp.inf)
BAD = POPULATION.at[3].set(jnp.nan)  # who takes no part may be no number
KERNELS = {"gaussian": kernels.gaussian, "student_t": kernels.student_t}
UNTRAINED = de.training.learner(hidden=(2,))._replace(fit=lambda key, start, *data: start)
DENOISERS = {
    "posterior_mean": denoisers.posterior_mean,
    "niching": denoisers.niching,
    "broadened": denoisers.broadened,
    "archive": partial(denoisers.archive, generations=1),
    "network": partial(denoisers.network, UNTRAINED),
}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_the_active_subspace_is_that_of_all_pairs(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        genomes = BAD.astype(dtype)
        found = np.asarray(latent.active_subspace(2)(genomes, LOG_WEIGHT), np.float64)
    others = np.delete(np.arange(24), [3, 5])
    x, f = (np.asarray(each, np.float64)[others] for each in (genomes, LOG_WEIGHT))
    apart, unlike = x[:, None] - x, f[:, None] - f
    _, vectors = np.linalg.eigh(np.einsum("ij,ijk,ijl->kl", unlike**2, apart, apart))
    np.testing.assert_allclose(found.T @ found, np.eye(2), atol=1e-6)  # float32
    # Ten iterations leave (third eigenvalue / second)^10 outside.
    np.testing.assert_allclose(found @ found.T, vectors[:, -2:] @ vectors[:, -2:].T, atol=1e-4)


@pytest.mark.parametrize("x", [POPULATION, jnp.ones((24, 5)), 1e-15 * POPULATION])
@pytest.mark.parametrize("log_weight", [0.0, -jnp.inf])
def test_where_nobody_differs_directions_are_still_orthonormal(x, log_weight):
    found = latent.active_subspace(2)(x, jnp.full(24, log_weight))
    np.testing.assert_allclose(found.T @ found, np.eye(2), atol=1e-6)


def _weights(fitness):
    weigh = partial(de.fitness.weigh, de.fitness.standardised())
    return de.Weights(weigh(fitness), fitness, weigh)


@pytest.mark.parametrize(
    ("denoiser", "kernel"), [(name, "gaussian") for name in DENOISERS] + [("niching", "student_t")]
)
def test_a_denoiser_takes_distances_in_this_generations_projection(denoiser, kernel):
    weights = _weights(jnp.sin(POPULATION[:, 1]))
    level = de.Level(jnp.asarray(1), *map(jnp.float32, (0.6, 0.4, 0.9, 0.1)))
    follow = latent.active_subspace(1)
    fixed = follow(POPULATION, weights.log_weight)

    def estimate(projection):
        made = DENOISERS[denoiser](KERNELS[kernel](projection=projection))
        return made.estimate(KEY, made.init(KEY, POPULATION), POPULATION, weights, level)

    memory, posterior = estimate(follow)
    chex.assert_trees_all_close(posterior, estimate(fixed)[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.tree.leaves(memory)[-1], fixed, atol=1e-6)
    assert not jnp.allclose(posterior.log_evidence, estimate(None)[1].log_evidence, atol=0.1)


def _run(key, temperature, follow=None, **mesh):
    algorithm = de.denoising_evolution(
        de.schedules.cosine(3),
        fitness_map=de.fitness.standardised(temperature),
        denoiser=denoisers.posterior_mean(
            kernels.gaussian(projection=follow or latent.active_subspace(1))
        ),
        **mesh,
    )
    return de.evolve(key, algorithm, lambda x: jnp.sin(x[:, 1]), POPULATION).state


def test_a_batch_a_mesh_and_gradients_take_it():
    def mean(temperature, key):
        state = _run(key, temperature)
        return state.population.mean(), state

    keys = jax.random.split(KEY, 2)
    slopes, states = jax.jit(jax.vmap(jax.grad(mean, has_aux=True), (None, 0)))(0.3, keys)
    assert np.all(np.isfinite(slopes) & (slopes != 0))
    mesh = Mesh(jax.devices()[:8], ("individuals",))
    split = jax.jit(partial(_run, mesh=mesh))(keys[1], 0.3)
    # Rounding of three levels in float32 in two programs.
    chex.assert_trees_all_close(split, jax.tree.map(lambda leaf: leaf[1], states), atol=1e-3)


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("latent_dim", lambda: latent.active_subspace(0)),
        ("latent_dim", lambda: latent.active_subspace(1.5)),  # pyright: ignore
        ("latent_dim", lambda: _run(KEY, 0.3, latent.active_subspace(6))),
        (
            "latent_dim",
            lambda: kernels.gaussian(projection=latent.active_subspace(1), latent_dim=1),
        ),
        ("num_genes", lambda: latent.random_projection(KEY, 5.0, 2)),  # pyright: ignore
        ("projection", lambda: kernels.gaussian(projection=lambda x: x.T)),  # pyright: ignore
        ("projection", lambda: _run(KEY, 0.3, lambda x, log_weight: np.linalg.qr(x)[1])),
        ("projection", lambda: _run(KEY, 0.3, lambda x, log_weight: x)),
        ("projection", lambda: _run(KEY, 0.3, lambda x, log_weight: (x.T, log_weight))),
    ],
)
def test_what_cannot_be_followed_is_refused(path, call, refuses):
    with refuses(path):
        call()
