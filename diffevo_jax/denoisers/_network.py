"""Learned denoisers: a network trained on the generations so far, alone or beside a kernel."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffevo_jax.checks import Count, InputError, check_count
from diffevo_jax.denoisers._posterior_mean import GAUSSIAN, check_kernel
from diffevo_jax.parts import Denoiser, Kernel, Learned, Level, Posterior, Weights
from diffevo_jax.training._learner import (
    HELD_OUT,
    HELD_ROWS,
    LEARNER,
    Buffer,
    Learner,
    Leaves,
    Trained,
    check_one_of,
    draw_rows,
    empty_buffer,
    push,
    select,
    split_weight,
)

SURE = 1.0  # standard errors by which the network has to be ahead of the kernel


class Taught(NamedTuple):
    """What a learned denoiser remembers: generations, the network, and the kernel's memory."""

    buffer: Buffer
    trained: Trained
    kernel: Any


def network(
    learner: Learner = LEARNER,
    kernel: Kernel = GAUSSIAN,
    *,
    capacity: Count | None = None,
    leaves: Leaves = "oldest",
    continuous: bool = True,
) -> Denoiser:
    """Estimate x0 by a network that every generation trains on the weighted ones so far.

    As `posterior_mean` it predicts the mean of the individuals that x_t may have come from, but by
    a smooth function of few parameters, which answers where no individual is. Training is part of
    the compiled step and by far its largest (docs/howto/learned.md).

    learner: the network and its training, from `training.learner`.
    kernel: tells evidence and sample size, and makes the estimate where training ends without a
        number; then `Info.learned.diverged` is true, and `evolve` says so.
    capacity: rows of the buffer, at least N; N by default, the present generation alone.
    leaves: "oldest" or "weakest", who makes room in it.
    continuous: go on with the last generation's network, not with a fresh one.

    Gradients take the network as constant. Raises InputError, naming the argument.
    """
    return _learned(learner, kernel, capacity, leaves, continuous, mixed=False)


def hybrid(
    learner: Learner = LEARNER,
    kernel: Kernel = GAUSSIAN,
    *,
    capacity: Count | None = None,
    leaves: Leaves = "oldest",
    continuous: bool = True,
) -> Denoiser:
    """Estimate x0 by a kernel and a network, each by as much as it is worth.

    x0 = (1 - c) kernel + c network,   c = <x0* - kernel, network - kernel> / |network - kernel|^2

    c, cut to [0, 1], has the least squared error over individuals x0* that neither was shown,
    noised to the present level and weighted by fitness. It is 0 for a network that has learned
    nothing, and grows as it does; `Info.learned.share` tells it.

    Arguments are those of `network`. Raises InputError, naming the argument.
    """
    return _learned(learner, kernel, capacity, leaves, continuous, mixed=True)


def _learned(
    learner: Learner,
    kernel: Kernel,
    capacity: int | None,
    leaves: Leaves,
    continuous: bool,
    *,
    mixed: bool,
) -> Denoiser:
    if not isinstance(learner, Learner):
        raise InputError("learner", "a Learner, from de.training.learner", f"{learner!r:.80}")
    check_kernel(kernel)
    check_one_of("leaves", leaves, Leaves)
    if capacity is not None:
        check_count("capacity", capacity)

    def init(key: jax.Array, population: jax.Array) -> Taught:
        key_network, key_kernel = jax.random.fold_in(key, 1), key
        buffer = empty_buffer(len(population) if capacity is None else capacity, population)
        trained = learner.init(key_network, population.shape[1])
        return Taught(buffer, trained, kernel.init(key_kernel, population))

    def estimate(
        key: jax.Array, memory: Taught, x_t: jax.Array, weights: Weights, level: Level
    ) -> tuple[Taught, Posterior]:
        key_fresh, key_fit, key_split, key_rows, key_noise = jax.random.split(key, 5)
        buffer = push(memory.buffer, x_t, weights.fitness, leaves=leaves)
        memory = memory._replace(kernel=kernel.follow(memory.kernel, x_t, weights.log_weight))
        log_weight = select(buffer, weights.weigh)
        weight = jnp.exp(log_weight - jnp.max(log_weight))
        held_out = jax.random.uniform(key_split, weight.shape) < HELD_OUT
        start = memory.trained if continuous else learner.init(key_fresh, x_t.shape[1])
        data = buffer.genomes, buffer.conditions, weight, held_out
        trained = jax.lax.stop_gradient(learner.fit(key_fit, start, *data))

        def clean(x: jax.Array) -> jax.Array:
            return learner.clean(trained, x, None, level.alpha, level.one_minus_alpha)

        def worth(sample_size: jax.Array) -> jax.Array:
            """The share c of the network, on held-out individuals."""
            trains, held = split_weight(weight, held_out)
            luck = jax.random.uniform(key_rows, (min(HELD_ROWS, len(weight)),))
            x0 = buffer.genomes[draw_rows(luck, held)]
            noise = jax.random.normal(key_noise, x0.shape, x0.dtype)
            x = jnp.sqrt(level.alpha) * x0 + jnp.sqrt(level.one_minus_alpha) * noise
            x = x.astype(x_t.dtype)
            guess = clean(x)

            def share(known: jax.Array) -> jax.Array:
                support = {"support": buffer.genomes}
                average = kernel.average(memory.kernel, x, jnp.log(known), level, **support).x0
                ahead = guess - average
                gain, size = (jnp.sum(each * ahead, axis=1) for each in (x0 - average, ahead))
                total = jnp.where(jnp.sum(size) > 0, jnp.sum(size), 1)
                mean = jnp.sum(gain) / total
                error = jnp.sqrt(jnp.sum((gain - mean * size) ** 2)) / total
                return jnp.clip(mean - SURE * error, 0, 1)

            # The kernel knows each individual by itself as well, which is no knowledge where it
            # knows it by nobody else.
            alone = 1 / jnp.maximum(sample_size, 1) ** 2
            return alone * share(trains) + (1 - alone) * share(weight)

        posterior = kernel.average(memory.kernel, x_t, weights.log_weight, level)
        share = (
            jax.lax.stop_gradient(worth(jnp.mean(posterior.effective_sample_size)))
            if mixed
            else jnp.ones(())
        )
        share = jnp.where(trained.diverged, 0.0, share)
        both = (1 - share) * posterior.x0 + share * clean(x_t)
        x0 = jnp.where(trained.diverged, posterior.x0, both)
        learned = Learned(share, trained.loss, trained.diverged)
        memory = Taught(buffer, trained, memory.kernel)
        return memory, posterior._replace(x0=x0.astype(x_t.dtype), learned=learned)

    return Denoiser(init, estimate)
