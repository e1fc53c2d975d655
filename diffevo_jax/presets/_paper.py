"""The paper's algorithm, by name: Algorithm 1, and Algorithm 2 with a latent space."""

import jax
from jax.sharding import Mesh
from jax.typing import ArrayLike

from diffevo_jax.algorithm import Algorithm
from diffevo_jax.checks import Count, Fraction, NonNegative
from diffevo_jax.denoisers._posterior_mean import posterior_mean
from diffevo_jax.denoising import STANDARDISED, denoising_evolution
from diffevo_jax.fitness import FitnessMap
from diffevo_jax.kernels._gaussian import gaussian
from diffevo_jax.latent import Following
from diffevo_jax.samplers._ddim import ddim
from diffevo_jax.schedules import Schedule


def paper(
    schedule: Schedule | ArrayLike,
    *,
    fitness_map: FitnessMap = STANDARDISED,
    eta: Fraction = 1.0,
    projection: jax.Array | Following | None = None,
    latent_dim: Count | None = None,
    floor: NonNegative = 0.0,
    mesh: Mesh | None = None,
) -> Algorithm:
    """Configure Diffusion Evolution as published, latent with a latent space (2410.02543).

    It is `denoising_evolution` with the paper's denoiser and sampler, `denoisers.posterior_mean`
    and `samplers.ddim`. Its steps remember their noise: they keep many optima, and hardly search
    in more genes than a few, however long. `diffusion_evolution` has the settings that do.

    schedule: from `schedules`, or alpha `[T]` of your own, strictly decreasing inside (0, 1).
    fitness_map: (fitness `[N]`, valid `[N]`), higher is better, to log weight `[N]`; from
        `fitness`. The default, `standardised`, takes fitness of any sign and unit. The paper's are
        `identity`, which leaves negative fitness out (`Info.num_invalid`, `Info.selected`), and
        `boltzmann`.
    eta: noise, in [0, 1]. The paper's control tasks use 1, its benchmarks 0.1; 0 is deterministic.
    projection: `[D, d]`, takes the distances in z = x @ projection (paper Algorithm 2); or one that
        follows the search, see `kernels.gaussian`. None takes them in genome space.
    latent_dim: d of a random projection in its place, drawn in `init` with its key.
    floor: 1e-9 reproduces the published code, see `estimate_x0`.
    mesh: split the individuals over all axes of this mesh, in `init` and `step`, and keep them
        split; None keeps them where they are. See `sharding`.

    Settings may be traced: the factory runs under jit, vmap and grad.
    Raises InputError, here or in `init` and `step`, naming the argument, expected and seen.
    """
    kernel = gaussian(projection=projection, latent_dim=latent_dim, floor=floor)
    return denoising_evolution(
        schedule,
        fitness_map=fitness_map,
        denoiser=posterior_mean(kernel),
        sampler=ddim(eta),
        mesh=mesh,
    )
