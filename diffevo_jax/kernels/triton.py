"""The walk through the supports as a Triton kernel: GPUs from Ampere on, taken before Hopper.

Pallas' Triton backend is deprecated since jax 0.11, so all that depends on it is in this file;
where jax has it no longer, `platforms` takes XLA's tiles.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton

from diffevo_jax.kernels import _walk
from diffevo_jax.kernels._walk import MOST_DIMENSIONS as MOST_DIMENSIONS
from diffevo_jax.kernels._walk import MOST_GENES as MOST_GENES
from diffevo_jax.kernels._walk import fits as fits
from diffevo_jax.kernels.types import Operands, Sums

BACKEND = "Triton"


def part(operands: Operands, *, interpret: bool = False, **settings: Any) -> Sums:
    """Sum over the supports at every query of `operands`.

    interpret: whether to run without a GPU. settings: those of `_walk.part`.
    """

    def launch(walk, result, grid):
        def body(*refs):
            walk(*(pl.program_id(axis) for axis in range(3)), *refs)

        return pl.pallas_call(
            body,
            out_shape=result,
            grid=grid,
            compiler_params=pltriton.CompilerParams(num_warps=_walk.THREADS // 32, num_stages=1),
            interpret=interpret,
        )

    if interpret:
        return _walk.part(operands, launch, **settings)
    return _walk.part(operands, launch, exp2=_exp2, fma=_fma, **settings)


def _exp2(x: jax.Array) -> jax.Array:
    """Take the card's own power of two; libdevice's has two more for subnormal numbers."""
    return _instruction("ex2.approx.ftz.f32 $0, $1;", x)


def _fma(a, b, c) -> jax.Array:
    """Compute a b + c in one instruction; Triton makes it two."""
    return _instruction("fma.rn.ftz.f32 $0, $1, $2, $3;", *jnp.broadcast_arrays(a, b, c))


def _instruction(asm: str, *args: jax.Array) -> jax.Array:
    (result,) = pltriton.elementwise_inline_asm(
        asm,
        args=args,
        constraints=",".join(["=f", *("f" for _ in args)]),
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(args[0].shape, args[0].dtype)],
    )
    return result
