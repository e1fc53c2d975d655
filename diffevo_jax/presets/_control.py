"""Preset for control tasks."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax

from diffevo_jax import policies, schedules, tasks
from diffevo_jax.algorithm import Algorithm
from diffevo_jax.checks import Count, InputError, Number, Positive, check_count, check_key
from diffevo_jax.denoisers._broadened import broadened
from diffevo_jax.denoising import denoising_evolution
from diffevo_jax.fitness import standardised
from diffevo_jax.kernels._gaussian import gaussian
from diffevo_jax.latent import random_projection
from diffevo_jax.policies import Policy
from diffevo_jax.problem import Problem
from diffevo_jax.samplers._ddim import ddim
from diffevo_jax.tasks.task import Observations, Task


class Control(NamedTuple):
    """What `evolve` takes after its key, and the policy that a genome fills.

    problem: see `tasks.make_problem`. population: the initial one, `[N, D]`.
    """

    algorithm: Algorithm
    problem: Problem
    population: jax.Array
    policy: Policy


def control(
    key: jax.Array,
    task: Task | str,
    *,
    observations: Observations = "scaled",
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
    """Configure the evolution of a network for a control task; by default of 2,560 episodes.

        control = de.presets.control(key, "CartPole-v1")
        evolved = de.evolve(key_run, control.algorithm, control.problem, control.population)
        last, fitness = evolved.state.population, evolved.kept[-1]
        returns = de.reevaluate(key_new, control.problem, last[fitness.argmax()])

    Beside the published settings: smaller generations and more of them, genomes times 3, starts
    that individuals share and whose luck is taken out, returns in standard deviations, a kernel
    broad enough for .3 of the weights' sample size, and a last generation without noise. The best
    of that one is worth more than `evolved.best`, which may owe its place to luck.

    key: draws the projection and the initial population. task: see `tasks.make_task`; or an
        environment's name, and then observations are what `make_task` calls them. With
        "normalised", `de.reevaluate` takes memory=evolved.memory.
    hidden: sizes of the network's hidden layers.
    policy: a network in its place, from `policies`, for the task's inputs and outputs.
    scale: factor on the genome before it fills the network, see `policies.scaled`.
    success, shared_starts: see `tasks.make_fitness`.

    Raises InputError, naming the argument, expected and seen.
    """
    check_key(key)
    population_size = check_count("population_size", population_size, least=2)
    if isinstance(hidden, int):
        raise InputError("hidden", f"the layers' sizes, ({hidden},) for one", hidden)
    if not isinstance(task, str | Task):
        raise InputError("task", "an environment's name, or a Task of make_task", f"{task!r:.60}")
    if isinstance(task, str):
        task = tasks.make_task(task, observations=observations)
    elif observations != "scaled":
        raise InputError("observations", "none beside a Task, which has its own", observations)
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
    problem = tasks.make_problem(task, policy, success=success, shared_starts=shared_starts)
    population = jax.random.normal(key_population, (population_size, policy.num_genes))
    return Control(algorithm, problem, population, policy)
