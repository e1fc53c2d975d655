"""Genomes and policies: any pytree, both Flax interfaces, the paper's parameter counts."""

from collections.abc import Callable
from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import diffevo_jax as de

KEY = jax.random.key(0)
OBSERVATION = jnp.array([0.1, -0.2, 0.3, 0.4])


def test_a_pytree_goes_to_a_genome_and_back():
    params = {"b": jnp.arange(3.0), "a": [jnp.ones((2, 2)), jnp.zeros(())]}
    codec = de.genome.codec(params)
    genome = codec.flatten(params)
    assert genome.shape == (codec.num_genes,) == (8,)
    np.testing.assert_array_equal(genome, [1, 1, 1, 1, 0, 0, 1, 2])  # tree order, row-major
    chex.assert_trees_all_equal(codec.unflatten(genome), params)
    population = jnp.stack([genome, 2 * genome])
    batch = jax.vmap(codec.unflatten)(population)
    assert batch["a"][0].shape == (2, 2, 2)
    np.testing.assert_array_equal(jax.vmap(codec.flatten)(batch), population)


def test_leaves_come_back_in_their_own_types():
    params = {"a": jnp.ones(2, jnp.float16), "b": jnp.ones((1, 2), jnp.bfloat16)}
    codec = de.genome.codec(params)
    chex.assert_trees_all_equal_dtypes(codec.unflatten(jnp.zeros(4)), params)


def test_flax_linen_parameters_are_a_genome():
    module = nn.Sequential([nn.Dense(8), nn.tanh, nn.Dense(2)])
    variables = module.init(KEY, OBSERVATION)
    codec = de.genome.codec(variables)
    assert codec.num_genes == 58
    chex.assert_trees_all_equal(codec.unflatten(codec.flatten(variables)), variables)

    policy = de.policies.linen_policy(module, 4)
    outputs = policy.apply(policy.unflatten(codec.flatten(variables)), (), OBSERVATION)[1]
    np.testing.assert_allclose(outputs, np.asarray(module.apply(variables, OBSERVATION)), rtol=1e-5)


class NnxMlp(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(4, 8, rngs=rngs)
        self.out = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, observation):
        return self.out(nnx.relu(self.hidden(observation)))


def test_flax_nnx_parameters_are_a_genome():
    model = NnxMlp(nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    policy = de.policies.from_apply(lambda p, obs: nnx.merge(graphdef, p)(obs), params, 4)
    assert (policy.num_inputs, policy.num_outputs, policy.num_genes) == (4, 2, 58)
    genome = de.genome.codec(params).flatten(params)
    outputs = policy.apply(policy.unflatten(genome), (), OBSERVATION)[1]
    np.testing.assert_allclose(outputs, model(OBSERVATION), rtol=1e-5)  # sums of eight
    population = jnp.stack([genome, -genome])
    batch = jax.vmap(lambda g: policy.apply(policy.unflatten(g), (), OBSERVATION)[1])(population)
    np.testing.assert_allclose(batch[0], outputs, rtol=1e-5)


@pytest.mark.parametrize(("sizes", "num_genes"), [((4, 8, 2), 58), ((4, 128, 128, 2), 17_410)])
def test_the_papers_policies_have_the_papers_parameter_counts(sizes, num_genes):
    policy = de.policies.mlp(sizes)
    assert policy.num_genes == num_genes
    assert policy.apply(policy.unflatten(jnp.zeros(num_genes)), (), OBSERVATION)[1].shape == (2,)


def test_an_mlp_is_dense_layers_with_the_activation_between():
    policy = de.policies.mlp((4, 8, 2), activation=jnp.tanh)
    params = policy.unflatten(jax.random.normal(KEY, (58,)))
    first, second = params["params"]["Dense_0"], params["params"]["Dense_1"]
    hidden = np.tanh(OBSERVATION @ first["kernel"] + first["bias"])
    expected = hidden @ second["kernel"] + second["bias"]
    np.testing.assert_allclose(policy.apply(params, (), OBSERVATION)[1], expected, rtol=1e-5)


def test_latent_directions_have_unit_length():
    projection = de.latent.random_projection(KEY, 58, 3)
    assert projection.shape == (58, 3)
    np.testing.assert_allclose(jnp.linalg.norm(projection, axis=0), 1, rtol=1e-6)
    for dims in ((4, 1), (4, 4)):
        assert de.latent.random_projection(KEY, *dims).shape == dims


def test_a_projection_is_taken_at_full_precision():
    """An accelerator's default for float32 keeps 8 to 11 bits."""
    x, projection = jnp.ones((5, 4)), jnp.ones((4, 2))
    assert "HIGHEST" in str(jax.make_jaxpr(de.latent.project)(x, projection))


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("template['a']", lambda: de.genome.codec({"a": jnp.arange(3)})),
        ("template", lambda: de.genome.codec({})),
        ("genome", lambda: de.genome.codec(jnp.ones(3)).unflatten(jnp.ones(4))),
        ("params", lambda: de.genome.codec(jnp.ones(3)).flatten(jnp.ones(4))),
        ("sizes", lambda: de.policies.mlp((4,))),
        ("sizes", lambda: de.policies.mlp((4, 0, 2))),
        ("apply", lambda: de.policies.from_apply(lambda p, o: p.sum(), jnp.ones(3), 4)),
        ("latent_dim", lambda: de.latent.random_projection(KEY, 4, 5)),
        ("latent_dim", lambda: de.latent.random_projection(KEY, 4, 0)),
    ],
)
def test_what_does_not_fit_is_named(path, call, refuses):
    with refuses(path):
        call()


class NnxDeep(nnx.Module):
    """A network with a layer of a kind between two others."""

    def __init__(self, between: Callable[[nnx.Rngs], nnx.Module] | None = None):
        rngs = nnx.Rngs(0)
        self.hidden, self.out = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
        self.between = between(rngs) if between else nnx.relu

    def __call__(self, observation):
        return self.out(self.between(self.hidden(observation)))


NNX = {
    "plain": (NnxDeep, 58),
    "dropout": (partial(NnxDeep, lambda rngs: nnx.Dropout(0.5, rngs=rngs)), 58),
    "batch_norm": (partial(NnxDeep, lambda rngs: nnx.BatchNorm(8, rngs=rngs)), 58 + 16),
}


@pytest.mark.parametrize(("make", "num_genes"), NNX.values(), ids=NNX)
def test_the_recipe_for_nnx_evolves_parameters_alone(make, num_genes):
    model, num_inputs = make(), 4
    names = {"model": model, "nnx": nnx, "num_inputs": num_inputs}
    names["from_apply"] = de.policies.from_apply
    doc = de.policies.from_apply.__doc__ or ""
    recipe = doc[doc.index("model.eval()") : doc.index("and for a recurrent")].split("\n")
    *lines, call = [line.strip() for line in recipe if line.strip()]
    exec("\n".join(lines), names)
    policy = eval(call, names)
    assert policy.num_genes == num_genes
    genome = de.genome.codec(names["params"]).flatten(names["params"])
    population = jnp.stack([genome, -genome, jax.random.normal(KEY, genome.shape)])
    run = jax.jit(jax.vmap(lambda g: policy.apply(policy.unflatten(g), (), OBSERVATION)[1]))
    outputs = run(population)
    np.testing.assert_allclose(outputs[0], model(OBSERVATION), rtol=1e-5)  # model.eval() was called
    assert np.isfinite(outputs).all()


LINEN = {
    "dropout": (lambda evaluate: nn.Dropout(0.5, deterministic=evaluate), 58),
    "batch_norm": (lambda evaluate: nn.BatchNorm(use_running_average=evaluate), 58 + 16),
}


@pytest.mark.parametrize(("between", "num_genes"), LINEN.values(), ids=LINEN)
def test_a_linen_policy_evolves_params_alone_and_refuses_training(between, num_genes):
    module = nn.Sequential([nn.Dense(8), between(True), nn.Dense(2)])
    policy = de.policies.linen_policy(module, 4)
    assert policy.num_genes == num_genes
    variables = module.init(KEY, OBSERVATION)
    params = {"params": variables["params"]}
    genome = de.genome.codec(params).flatten(params)
    outputs = jax.vmap(lambda g: policy.apply(policy.unflatten(g), (), OBSERVATION)[1])(
        jnp.stack([genome, jax.random.normal(KEY, genome.shape)])
    )
    np.testing.assert_allclose(
        outputs[0], np.asarray(module.apply(variables, OBSERVATION)), rtol=1e-5
    )
    assert np.isfinite(outputs).all()
    training = nn.Sequential([nn.Dense(8), between(False), nn.Dense(2)])
    with pytest.raises(de.InputError) as error:
        de.policies.linen_policy(training, 4)
    assert error.value.path == "module"
    assert "Flax says" in error.value.seen
    assert "Dropout(..., deterministic=True)" in error.value.advice


@pytest.mark.parametrize(
    ("template", "place", "seen", "advice"),
    [
        (
            *(lambda: nnx.split(NNX["dropout"][0]())[1], "'count'"),
            *("uint32", "nnx.split(model, nnx.Param, ...)"),
        ),
        (
            *(lambda: nnx.split(NNX["batch_norm"][0]())[1], "'mean'"),
            *("an average that BatchNorm keeps", "nnx.split(model, nnx.Param, ...)"),
        ),
        (
            *(lambda: nn.BatchNorm(use_running_average=True).init(KEY, OBSERVATION), "batch_stats"),
            *("an average that BatchNorm keeps", "`params`"),
        ),
    ],
    ids=["dropout", "nnx", "linen"],
)
def test_what_is_no_parameter_is_refused_with_the_way_out(template, place, seen, advice):
    with pytest.raises(de.InputError) as error:
        de.genome.codec(template())
    assert error.value.path.startswith("template")
    assert place in error.value.path
    assert error.value.seen == seen
    assert advice in error.value.advice
