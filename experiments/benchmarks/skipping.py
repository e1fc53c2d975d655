"""Would it pay to skip blocks of keys whose weights are all below rounding? A study, d = 2.

    python experiments/benchmarks/skipping.py

The plain tiled sums against the same with a test for each tile: boxes around its queries and keys
bound the weights, and a tile that cannot reach 2^-40 of its queries' own weights is left out. Tiles
are only ever far apart where the population is sorted, by its first coordinate here.
"""

import jax
import jax.numpy as jnp
from timing import compiled, interleaved

from diffevo_jax.kernels.exp2 import exp2

N, BLOCK, BITS = 16_384, 512, 40
LOG2E = 1.4426950408889634


def estimate(x, log_weight, one_minus_alpha, *, skip: bool, sort: bool):
    """x0 `[N, 2]` with one shift a query, its own weight."""
    order = jnp.argsort(x[:, 0]) if sort else jnp.arange(len(x))
    x, bits = x[order], LOG2E * log_weight[order]
    scale = jnp.sqrt(LOG2E / (2 * one_minus_alpha))
    u, v = scale * x, scale * jnp.sqrt(1 - one_minus_alpha) * x
    own = bits - jnp.sum((u - v) ** 2, axis=1)
    blocks = len(x) // BLOCK
    rows = jnp.concatenate([x, jnp.ones((len(x), 1))], axis=1)
    rows = jnp.swapaxes(rows.reshape(blocks, BLOCK, 3), 1, 2)
    keys, bits = v.reshape(blocks, BLOCK, 2), bits.reshape(blocks, BLOCK)
    supports = keys, bits, rows, keys.min(axis=1), keys.max(axis=1), bits.max(axis=1)

    def block(args):
        query, shift = args
        low, high = query.min(axis=1), query.max(axis=1)

        def tile(sums, support):
            key, bits, rows, key_low, key_high, most = support

            def add(sums):
                distance = sum((query[None, k] - key[:, k, None]) ** 2 for k in range(2))
                return sums + rows @ exp2((bits[:, None] - shift) - distance)

            if not skip:
                return add(sums), None
            gap = jnp.maximum(0, jnp.maximum(key_low - high, low - key_high))
            far = most - jnp.sum(gap**2) < shift.min() - BITS
            return jax.lax.cond(far, lambda sums: sums, add, sums), None

        return jax.lax.scan(tile, jnp.zeros((3, BLOCK)), supports)[0]

    queries = jnp.swapaxes(u.reshape(blocks, BLOCK, 2), 1, 2)
    sums = jax.lax.map(block, (queries, own.reshape(blocks, BLOCK)))
    sums = jnp.swapaxes(sums, 1, 2).reshape(-1, 3)
    return jnp.zeros_like(x).at[order].set(sums[:, :2] / sums[:, 2:])


def main() -> None:
    """Print how many times as fast as plain sums, by level."""
    x = jax.random.normal(jax.random.key(0), (N, 2))
    log_weight = -jnp.sum(x**2, axis=1) / 2
    for one_minus_alpha in (0.5, 1e-1, 1e-2, 1e-3, 1e-4):
        variants = {
            "plain": dict(skip=False, sort=False),
            "skipping": dict(skip=True, sort=False),
            "sorted and skipping": dict(skip=True, sort=True),
        }
        calls = {}
        for name, settings in variants.items():
            call = compiled(
                lambda *args, settings=settings: estimate(*args, **settings),
                x,
                log_weight,
                jnp.float32(one_minus_alpha),
            )
            calls[name] = call[0]
        seconds = interleaved(calls, 5)
        ratios = {name: seconds["plain"] / value for name, value in seconds.items()}
        print(f"1 - alpha = {one_minus_alpha:g}: {ratios}", flush=True)


if __name__ == "__main__":
    main()
