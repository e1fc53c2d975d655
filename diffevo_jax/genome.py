"""From any pytree of parameters to a flat genome, and back."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.checks import InputError


class Codec(NamedTuple):
    """A pair of inverse functions between a parameter pytree and its genome.

    num_genes: D.
    flatten: pytree -> `[D]`, leaves in tree order, each row-major.
    unflatten: `[D]` -> pytree with the template's structure, shapes and dtypes. Under `vmap` both
        take whole populations.
    """

    num_genes: int
    flatten: Callable[[Any], jax.Array]
    unflatten: Callable[[jax.Array], Any]


def codec(template: Any) -> Codec:
    """Make the codec for pytrees like `template`.

    template: parameters of any library as a pytree of floating-point arrays, or of
        `jax.ShapeDtypeStruct` (from `jax.eval_shape`, which allocates nothing). For Flax Linen pass
        the collection `params`; for Flax NNX the first state of `nnx.split(model, nnx.Param, ...)`.

    Raises InputError on leaves that are not floating-point arrays, on running averages of Flax's
    BatchNorm, and in the functions on pytrees and genomes that do not fit the template.
    """
    _check_no_averages(template)
    paths_and_leaves, treedef = jax.tree_util.tree_flatten_with_path(template)
    shapes, dtypes = [], []
    for path, leaf in paths_and_leaves:
        if not (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)):
            raise InputError(
                f"template{jax.tree_util.keystr(path)}",
                "a floating-point array",
                getattr(leaf, "dtype", type(leaf).__name__),
                "take only what is to evolve: of a Flax NNX model "
                "`nnx.split(model, nnx.Param, ...)`, as policies.from_apply shows",
            )
        shapes.append(tuple(leaf.shape))
        dtypes.append(leaf.dtype)
    if not shapes:
        raise InputError("template", "at least one array of parameters", "none")
    sizes = [math.prod(shape) for shape in shapes]
    num_genes = sum(sizes)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]

    def flatten(params: Any) -> jax.Array:
        leaves, structure = jax.tree_util.tree_flatten(params)
        leaf_shapes = [jnp.shape(leaf) for leaf in leaves]
        if structure != treedef or leaf_shapes != shapes:
            raise InputError(
                "params",
                f"the template's structure {treedef} with shapes {shapes}",
                f"{structure} with shapes {leaf_shapes}",
            )
        return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])

    def unflatten(genome: jax.Array) -> Any:
        if genome.shape != (num_genes,):
            raise InputError("genome", f"shape ({num_genes},)", genome.shape)
        leaves = [
            genome[start : start + size].reshape(shape).astype(dtype)
            for start, size, shape, dtype in zip(starts, sizes, shapes, dtypes, strict=True)
        ]
        return jax.tree_util.tree_unflatten(treedef, leaves)

    return Codec(num_genes, flatten, unflatten)


def _check_no_averages(template: Any) -> None:
    """Raise InputError on BatchNorm's running averages: as a gene a variance would go below 0."""

    def is_average(node: Any) -> bool:  # NNX's, by its name: NNX takes a second to import
        return any(kind.__name__ == "BatchStat" for kind in type(node).__mro__)

    for path, node in jax.tree_util.tree_flatten_with_path(template, is_leaf=is_average)[0]:
        if is_average(node) or jax.tree_util.DictKey("batch_stats") in path:
            raise InputError(
                f"template{jax.tree_util.keystr(path)}",
                "a parameter",
                "an average that BatchNorm keeps",
                "take only what is to evolve: of a Flax Linen module the collection `params`, as "
                "policies.linen_policy does; of a Flax NNX model `nnx.split(model, nnx.Param, "
                "...)`, as policies.from_apply shows",
            )
