"""Many runs as one program: the same numbers alone or in a batch."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffevo_jax as de

pytestmark = pytest.mark.promised

SETTINGS = {"eta": [0.0, 1.0], "temperature": [0.1, 0.5, 1.0]}


def _final_fitness(key, setting: Any = None):
    setting = setting or {"eta": 0.5, "temperature": 0.2}
    evolution = de.presets.paper(
        de.schedules.cosine(5),
        eta=setting["eta"],
        fitness_map=de.fitness.boltzmann(setting["temperature"]),
        projection=setting.get("projection"),
    )
    key_init, key_run = jax.random.split(key)
    population = jax.random.normal(key_init, (16, 2)) * setting.get("scaling", 1.0)
    state, fitness, _ = de.evolve(key_run, evolution, de.landscapes.two_peaks, population)
    return state.population, fitness


def test_a_seed_draws_the_same_numbers_alone_or_in_a_batch():
    many = de.batch.seed_keys(3, 5)
    alone = de.batch.seed_keys(3, 1, first=4)
    expected = jax.random.fold_in(jax.random.key(3), 4)
    for key in (many[4], alone[0]):
        np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(expected))


def test_one_by_one_a_seed_gives_bit_for_bit_what_it_gives_alone():
    keys = de.batch.seed_keys(0, 4)
    mapped = jax.jit(
        lambda keys: de.batch.run_many(_final_fitness, keys, mapping=de.batch.one_by_one)
    )
    together = mapped(keys)
    for k in range(4):
        for batched, alone in zip(together, mapped(keys[k : k + 1]), strict=True):
            np.testing.assert_array_equal(batched[k], alone[0])
        for batched, alone in zip(together, jax.jit(_final_fitness)(keys[k]), strict=True):
            np.testing.assert_array_equal(batched[k], alone)


def test_together_is_one_by_one_up_to_rounding():
    keys, settings = de.batch.seed_keys(0, 3), de.batch.grid(**SETTINGS)
    runs = [
        jax.jit(lambda m=mapping: de.batch.run_many(_final_fitness, keys, settings, mapping=m))()
        for mapping in (de.batch.one_by_one, de.batch.together)
    ]
    assert runs[0][1].shape == (6, 3, 5, 16)
    for a, b in zip(*runs, strict=True):
        # Five steps in float32 that divide by 1 - alpha.
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_every_setting_of_a_grid_meets_every_seed():
    projections = jnp.stack([jnp.eye(2), jnp.eye(2)[::-1], 2 * jnp.eye(2)])
    settings = de.batch.grid(**SETTINGS, projection=projections, scaling=[0.5, 1.0])
    assert settings["projection"].shape == (36, 2, 2)
    keys = de.batch.seed_keys(1, 2)
    results = jax.jit(lambda: de.batch.run_many(_final_fitness, keys, settings))()
    one = jax.jit(_final_fitness)
    for g in (0, 17, 35):
        setting = {name: values[g] for name, values in settings.items()}
        for s in range(2):
            np.testing.assert_allclose(
                results[1][g, s], one(keys[s], setting)[1], rtol=1e-4, atol=1e-5
            )
    order = [
        (float(e), float(t)) for e, t in zip(settings["eta"], settings["temperature"], strict=True)
    ]
    assert order[0] == order[5] == (0.0, pytest.approx(0.1))
    assert order[6] == (0.0, 0.5)


def test_a_device_that_is_named_runs_them():
    device = jax.devices()[2]
    keys = de.batch.seed_keys(0, 3)
    found = de.batch.run_many(lambda key: jax.random.normal(key), keys, devices=[device])
    assert found.devices() == {device}
    np.testing.assert_array_equal(found, jax.vmap(jax.random.normal)(keys))


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("num_seeds", lambda: de.batch.seed_keys(0, 0)),
        ("seed", lambda: de.batch.seed_keys(cast(Any, jax.random.key(0)), 2)),
        ("seed", lambda: de.batch.seed_keys(cast(Any, "a"), 2)),
        ("first", lambda: de.batch.seed_keys(0, 2, first=-1)),
        ("eta", lambda: de.batch.grid(eta=[])),
        ("eta", lambda: de.batch.grid(eta=0.5)),
        ("eta", lambda: de.batch.grid(eta=[[1, 2], [3]])),
        ("eta", lambda: de.batch.grid(eta=["small", "large"])),
        (
            "settings",
            lambda: de.batch.run_many(
                _final_fitness, de.batch.seed_keys(0, 2), {"a": np.ones(2), "b": np.ones(3)}
            ),
        ),
    ],
)
def test_what_is_no_batch_is_named(path, call, refuses):
    with refuses(path):
        call()
