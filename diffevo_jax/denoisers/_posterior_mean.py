"""The paper's denoiser: the posterior mean of x0 under a kernel (Eq. 8, Algorithm 2)."""

from typing import Any

import jax

from diffevo_jax.checks import InputError
from diffevo_jax.kernels._gaussian import gaussian
from diffevo_jax.parts import Denoiser, Kernel, Level, Posterior, Weights

GAUSSIAN = gaussian()  # the default kernel


def posterior_mean(kernel: Kernel = GAUSSIAN) -> Denoiser:
    """Average the population, weighted by fitness and by a kernel in the distance.

    kernel: from `kernels`, or your own `Kernel`. The paper's, a Gaussian, by default.

    Raises InputError on what is no kernel.
    """
    check_kernel(kernel)

    def estimate(
        key: jax.Array, memory: Any, x_t: jax.Array, weights: Weights, level: Level
    ) -> tuple[Any, Posterior]:
        memory = kernel.follow(memory, x_t, weights.log_weight)
        return memory, kernel.average(memory, x_t, weights.log_weight, level)

    return Denoiser(kernel.init, estimate)


def check_kernel(kernel: Kernel) -> None:
    """Raise InputError on what is no `Kernel`."""
    if not isinstance(kernel, Kernel):
        raise InputError("kernel", "a Kernel, such as de.kernels.gaussian()", f"{kernel!r:.80}")
