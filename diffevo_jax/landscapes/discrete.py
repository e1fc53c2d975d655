"""Landscapes of bits: points `[N, D]` of 0 and 1 -> fitness `[N]`, higher is better.

`nk`, `max_cut`, `max_sat` and `targets` draw an instance by its key, and return its function.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Count, InputError, Positive, Share, check_count, check_number

Landscape = Callable[[jax.Array], jax.Array]


def onemax(x: jax.Array) -> jax.Array:
    """Count the ones: best at D, where all are."""
    return jnp.sum(x, axis=1).astype(float)


def leading_ones(x: jax.Array) -> jax.Array:
    """Count the ones before the first zero: best at D."""
    return jnp.sum(jnp.cumprod(x, axis=1), axis=1).astype(float)


def traps(x: jax.Array, size: Count = 5) -> jax.Array:
    """Concatenated traps (Deb and Goldberg): u ones of a block's k give k - 1 - u, or k for all k.

    Best at D, where all are ones; every step but the last leads to zeros. Raises InputError where D
    is no multiple of the blocks' size k.
    """
    check_count("size", size, least=2)
    if x.shape[1] % size:
        raise InputError("x", f"a multiple of {size} genes", x.shape)
    ones = jnp.sum(x.reshape(len(x), -1, size), axis=2)
    return jnp.sum(jnp.where(ones == size, size, size - 1 - ones), axis=1).astype(float)


def nk(key: jax.Array, *, num_genes: Count, neighbours: Count) -> Landscape:
    """Draw one of Kauffman's NK landscapes: the mean of D numbers in [0, 1].

    Each is drawn for every state of a gene and of K others, the neighbours, drawn too. Raises
    InputError unless K is below D.
    """
    if check_count("neighbours", neighbours) >= check_count("num_genes", num_genes):
        raise InputError("neighbours", f"fewer than the {num_genes} genes", neighbours)
    key_others, key_table = jax.random.split(key)
    genes = jnp.arange(num_genes)

    def draw(key: jax.Array, gene: jax.Array) -> jax.Array:
        others = gene + 1 + jax.random.permutation(key, num_genes - 1)[:neighbours]
        return jnp.append(others % num_genes, gene)

    read = jax.vmap(draw)(jax.random.split(key_others, num_genes), genes)
    digit = 2.0 ** jnp.arange(neighbours + 1)
    digits = jnp.zeros((num_genes, num_genes)).at[read.T, genes].set(digit[:, None])
    table = jax.random.uniform(key_table, (num_genes, 2 ** (neighbours + 1)))

    def fitness_fn(x: jax.Array) -> jax.Array:
        entry = jnp.matmul(x.astype(float), digits, precision="highest").astype(int)
        return jnp.mean(table[genes, entry], axis=1)

    return fitness_fn


def max_cut(key: jax.Array, *, num_genes: Count, density: Share = 0.1) -> Landscape:
    """Draw a graph of D nodes, each edge with a probability: count the edges between both sides."""
    check_count("num_genes", num_genes)
    check_number("density", density, 0, 1, closed="(]")
    edges = jnp.triu(jax.random.bernoulli(key, density, (num_genes, num_genes)), 1)
    edges = (edges | edges.T).astype(float)
    return lambda x: jnp.sum((x.astype(float) @ edges) * (1 - x), axis=1)


def max_sat(key: jax.Array, *, num_genes: Count, ratio: Positive = 4.2) -> Landscape:
    """Draw clauses of three variables, so many for each of D, and count those that are true."""
    check_count("num_genes", num_genes, least=3)
    check_number("ratio", ratio, 0, float("inf"), closed="()")
    clauses = jnp.arange(round(ratio * num_genes))
    key_variable, key_sign = jax.random.split(key)

    def draw(key: jax.Array) -> jax.Array:
        return jax.random.permutation(key, num_genes)[:3]

    variables = jax.vmap(draw)(jax.random.split(key_variable, len(clauses)))
    signs = jax.random.rademacher(key_sign, variables.shape).astype(float)
    literals = jnp.zeros((num_genes, len(clauses))).at[variables.T, clauses].set(signs.T)
    negated = jnp.sum(signs < 0, axis=1)
    return lambda x: jnp.sum(x.astype(float) @ literals + negated > 0.5, axis=1).astype(float)


def targets(places: jax.Array) -> Landscape:
    """Likeness to the nearest of some genomes `[M, D]`: the share of equal sites, 1 at a target."""
    return lambda x: jnp.max(jnp.mean(x[:, None] == places, axis=2), axis=1)
