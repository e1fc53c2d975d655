"""A genome's policy as a plain function, to use outside the roll-outs."""

from collections.abc import Callable
from typing import Any

import jax

from diffevo_jax.checks import InputError
from diffevo_jax.policies import Policy
from diffevo_jax.tasks.statistics import Statistics
from diffevo_jax.tasks.task import Task, check_fit, check_statistics, seen


def make_controller(
    task: Task, policy: Policy, genome: jax.Array, statistics: Statistics | None = None
) -> Callable[..., Any]:
    """Make observation -> action of a genome, `[D]`, both as the environment has them.

    Of a policy with a memory it is (memory, observation) -> (memory, action), and begins at
    `policy.initial_state`.

    statistics: of normalised observations, such as `evolved.memory`; they become part of it.

    Raises InputError on a genome, policy or statistics that do not fit.
    """
    check_fit(task, policy, 1)
    statistics = check_statistics(task, statistics)
    if genome.shape != (policy.num_genes,):
        raise InputError("genome", f"shape [D] with D = {policy.num_genes} genes", genome.shape)
    weights = policy.unflatten(genome)

    def act(memory: Any, observation: jax.Array) -> tuple[Any, jax.Array]:
        memory, outputs = policy.apply(weights, memory, seen(task, statistics, observation))
        return memory, task.act(outputs)

    if jax.tree.leaves(policy.initial_state):
        return act
    return lambda observation: act((), observation)[1]
