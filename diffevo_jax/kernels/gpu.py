"""The walk through the supports as a Mosaic GPU kernel: Hopper GPUs and newer.

Mosaic GPU is unstable by its makers' own word, so all that depends on it is in this file.
"""

from typing import Any

import jax
from jax.experimental.pallas import mosaic_gpu as plgpu

from diffevo_jax.kernels import _walk
from diffevo_jax.kernels._walk import MOST_DIMENSIONS as MOST_DIMENSIONS
from diffevo_jax.kernels._walk import MOST_GENES as MOST_GENES
from diffevo_jax.kernels._walk import fits as fits
from diffevo_jax.kernels.types import Operands, Sums

BACKEND = "Mosaic"


def part(
    operands: Operands,
    *,
    queries_per_thread: int = _walk.QUERIES_PER_THREAD,
    interpret: Any = None,
    **settings: Any,
) -> Sums:
    """Sum over the supports at every query of `operands`.

    interpret: Pallas' parameters for a run without a GPU. settings: those of `_walk.part`.
    """
    layout = plgpu.Layout.WG_STRIDED(
        (queries_per_thread * _walk.THREADS,), vec_size=min(4, queries_per_thread)
    )
    names = ("blocks", "parts", "chunks")

    def launch(walk, result, grid):
        def body(*refs):
            walk(*(jax.lax.axis_index(name) for name in names), *refs)

        return plgpu.kernel(
            body,
            out_type=result,
            grid=grid,
            grid_names=names,
            compiler_params=plgpu.CompilerParams(
                approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Lane
            ),
            interpret=interpret,
        )

    def held(array):
        # Pallas' interpreter has no layouts; in jax 0.10 it refuses to see one.
        return array if interpret else plgpu.layout_cast(array, layout)

    return _walk.part(
        operands, launch, queries_per_thread=queries_per_thread, held=held, **settings
    )
