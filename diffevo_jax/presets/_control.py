"""Preset for control tasks."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax

from diffevo_jax import policies, schedules, tasks
from diffevo_jax.algorithm import Algorithm
from diffevo_jax.checks import Count, Number, Positive, check_count, check_key
from diffevo_jax.denoisers._broadened import broadened
from diffevo_jax.denoising import denoising_evolution
from diffevo_jax.fitness import standardised
from diffevo_jax.kernels._gaussian import gaussian
from diffevo_jax.latent import random_projection
from diffevo_jax.policies import Policy
from diffevo_jax.samplers._ddim import ddim
from diffevo_jax.tasks.evaluation import Task


class Control(NamedTuple):
    """What `evolve` takes, and what its result is read with.

    population: the initial one, `[N, D]`. fitness_fn: (key, population) -> (fitness, aux), of
        `tasks.make_fitness`. policy: what a genome times the scale fills.
    returns: (key, population `[N, D]`) -> returns of one fresh episode each, `[N, 1]`.
    """

    algorithm: Algorithm
    fitness_fn: Callable[[jax.Array, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
    population: jax.Array
    policy: Policy
    returns: Callable[[jax.Array, jax.Array], jax.Array]


def control(
    key: jax.Array,
    task: Task | str,
    *,
    hidden: Sequence[int] = (8,),
    policy: Policy | None = None,
    population_size: Count = 128,
    num_levels: Count = 20,
    latent_dim: Count = 2,
    scale: Positive = 3.0,
    shared_starts: Count = 2,
    temperature: Positive = 0.1,
    success: Number | Literal["goal"] | None = None,
) -> Control:
    """Make ready to evolve a network for a control task; the defaults are 2,560 episodes.

        control = de.presets.control(key, "CartPole-v1")
        evolved = de.evolve(key_run, control.algorithm, control.fitness_fn, control.population,
                            has_key=True, has_aux=True)
        last, fitness = evolved.state.population, evolved.kept[-1]
        returns = de.presets.reevaluate(key_new, control, last[fitness.argmax()])

    Beside the published settings: smaller generations and more of them, genomes times 3, starts
    that individuals share and whose luck is taken out, returns in standard deviations, a kernel
    broad enough for .3 of the weights' sample size, and a last generation without noise. The best
    of that one is worth more than `evolved.best`, which may owe its place to luck.

    key: of the projection and the initial population. task: of `tasks.make_task`, or an
    environment's name, cut at 500 steps as published. hidden: layers of the network.
    policy: a network in its place, of `policies`, for the task's inputs and outputs.
    success, shared_starts: of `tasks.make_fitness`.

    Raises ValueError, naming the argument, expected and seen.
    """
    check_key(key)
    population_size = check_count("population_size", population_size, least=2)
    if isinstance(hidden, int):
        raise ValueError(f"hidden: expected the layers' sizes, ({hidden},) for one; seen {hidden}")
    if not isinstance(task, str | Task):
        raise ValueError(
            f"task: expected an environment's name, or a Task of make_task; seen {task!r:.60}"
        )
    if isinstance(task, str):
        task = tasks.make_task(task, max_steps=500)
    if policy is None:
        policy = policies.mlp((task.num_inputs, *hidden, task.num_outputs))
    policy = policies.scaled(policy, scale)
    key_projection, key_population = jax.random.split(key)
    projection = random_projection(key_projection, policy.num_genes, latent_dim)
    algorithm = denoising_evolution(
        schedules.cosine(num_levels, clean=True),
        fitness_map=standardised(temperature),
        denoiser=broadened(gaussian(projection=projection), share=0.3),
        sampler=ddim(1.0),
    )
    fitness_fn = tasks.make_fitness(task, policy, success=success, shared_starts=shared_starts)
    population = jax.random.normal(key_population, (population_size, policy.num_genes))
    returns = tasks.make_returns(task, policy)
    return Control(algorithm, fitness_fn, population, policy, returns)


def reevaluate(
    key: jax.Array, control: Control, genome: jax.Array, *, num_episodes: Count = 100
) -> jax.Array:
    """Roll out one individual, `[D]`, for fresh episodes: what it is worth, luck aside.

    Returns the episodes' returns, `[num_episodes]`.
    """
    return control.returns(key, jax.numpy.tile(genome, (num_episodes, 1)))[:, 0]
