"""Many runs as one program: seeds and settings as a leading axis.

    def final_fitness(key, setting):
        evolution = de.presets.paper(alpha, eta=setting["eta"])
        ...
        return fitness.mean()

    keys = de.batch.seed_keys(0, 100)
    settings = de.batch.grid(eta=[0.0, 0.5, 1.0], temperature=[0.1, 1.0])
    means = jax.jit(lambda: de.batch.run_many(final_fitness, keys, settings))()  # [6, 100]

How the axis is walked is a choice of function: `one_by_one` is `lax.map`, `together` is `vmap`,
and `by_platform`, the default, takes the first on a CPU and the second on an accelerator. On a CPU
one by one is faster (each run keeps its arrays in the cache and ends its loops on its own), and
each run gives bit for bit what it gives alone. Together they fill an accelerator, and sums may
round differently.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from diffevo_jax.checks import InputError, check_array, check_count

Mapping = Callable[[Callable], Callable]


def seed_keys(seed: int, num_seeds: int, *, first: int = 0) -> jax.Array:
    """Keys `[S]` of the runs first, first + 1, ...: run k has the same key in every batch.

    Raises InputError unless num_seeds is 1 or more, and seed and first 0 or more.
    """
    check_count("seed", seed, least=0)
    check_count("num_seeds", num_seeds)
    check_count("first", first, least=0)
    numbers = jnp.arange(first, first + num_seeds)
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)


def individual_keys(key: jax.Array, size: int) -> jax.Array:
    """Keys `[N]` of a population's individuals, from one key or from N, which stay as they are.

    From one key they are `jax.random.split(key, N)`: individual i has the same in any population.
    Raises InputError on another number of keys.
    """
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if key.ndim == (0 if typed else 1):  # an old-style key is two numbers
        return jax.random.split(key, size)
    if len(key) != size:
        raise InputError("key", f"one key, or {size}, one for each individual", len(key))
    return key


def grid(**axes: Sequence | ArrayLike) -> dict[str, jax.Array]:
    """Every combination of the axes' values: name -> `[G, ...]`, the last axis varying fastest.

    A value may be an array, a projection `[D, d]` for example.
    Raises InputError on an axis without values, or whose values are no array together.
    """
    expected = "a sequence of one or more values, numbers or arrays of one shape"
    arrays = {name: check_array(name, values, expected) for name, values in axes.items()}
    for name, values in arrays.items():
        if values.ndim == 0 or not len(values):
            raise InputError(name, expected, axes[name])
    picks = np.array(list(itertools.product(*(range(len(v)) for v in arrays.values()))))
    return {name: values[picks[:, i]] for i, (name, values) in enumerate(arrays.items())}


def one_by_one(function: Callable) -> Callable:
    """Map over the leading axis of every argument, one after the other: `lax.map`."""
    return lambda *args: jax.lax.map(lambda each: function(*each), args)


def together(function: Callable) -> Callable:
    """Map over the leading axis of every argument, all at once: `vmap`."""
    return jax.vmap(function)


def by_platform(function: Callable) -> Callable:
    """Map one by one on a CPU, together on an accelerator."""
    return one_by_one(function) if jax.default_backend() == "cpu" else together(function)


def run_many(
    function: Callable[..., Any],
    keys: jax.Array,
    settings: Any = None,
    *,
    mapping: Mapping = by_platform,
    devices: Sequence[Any] | None = None,
) -> Any:
    """Run `function` for every key and setting: (key) or (key, setting) -> pytree.

    keys: `[S]`, see `seed_keys`. settings: pytree of `[G, ...]`, see `grid`; each is run with every
        key, so that settings are compared on the same random numbers.
    mapping: `one_by_one`, `together` or `by_platform`.
    devices: share the runs out among these; None leaves them on one.

    Returns a pytree of `[S, ...]`, or of `[G, S, ...]` with settings. Plain and pure: jit it.
    Raises InputError when the settings' leading axes differ.
    """
    mapped = over_devices(mapping(function), devices or [None])
    if settings is None:
        return mapped(keys)
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(settings)}
    if len(lengths) != 1 or lengths == {()}:
        raise InputError("settings", "arrays with one leading axis in common", sorted(lengths))
    (num_settings,) = lengths.pop()
    num_seeds = len(keys)
    setting, seed = np.divmod(np.arange(num_settings * num_seeds), num_seeds)
    flat = mapped(keys[seed], jax.tree.map(lambda leaf: jnp.asarray(leaf)[setting], settings))
    return jax.tree.map(lambda x: x.reshape(num_settings, num_seeds, *x.shape[1:]), flat)


def over_devices(function: Callable, devices: Sequence[Any]) -> Callable:
    """Share out the leading axis of every argument among the devices; they need not divide it.

    function: a mapped one, such as `one_by_one(run)`.
    """
    if list(devices) == [None]:
        return function
    mesh = jax.sharding.Mesh(np.array(devices), ("runs",))
    rows = PartitionSpec("runs")
    mapped = jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)

    def shared(*args):
        size = len(jax.tree.leaves(args)[0])
        if size % len(devices) == 0:
            return mapped(*args)
        # The last run, repeated, fills up the last device's share.
        index = np.minimum(np.arange(-(-size // len(devices)) * len(devices)), size - 1)
        filled = jax.tree.map(lambda leaf: leaf[index], args)
        return jax.tree.map(lambda leaf: leaf[:size], mapped(*filled))

    return shared
