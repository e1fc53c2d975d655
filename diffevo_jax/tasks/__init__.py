"""Control tasks, rolled out on the device: what a policy sees and does, returns, trajectories."""

from diffevo_jax.tasks.controller import make_controller as make_controller
from diffevo_jax.tasks.evaluation import Outcome as Outcome
from diffevo_jax.tasks.evaluation import make_fitness as make_fitness
from diffevo_jax.tasks.evaluation import make_outcomes as make_outcomes
from diffevo_jax.tasks.evaluation import make_problem as make_problem
from diffevo_jax.tasks.evaluation import make_returns as make_returns
from diffevo_jax.tasks.statistics import Statistics as Statistics
from diffevo_jax.tasks.task import Task as Task
from diffevo_jax.tasks.task import make_task as make_task
from diffevo_jax.tasks.trajectories import Trajectory as Trajectory
from diffevo_jax.tasks.trajectories import make_trajectories as make_trajectories

__all__ = [  # for `help`
    "Outcome",
    "Statistics",
    "Task",
    "Trajectory",
    "make_controller",
    "make_fitness",
    "make_outcomes",
    "make_problem",
    "make_returns",
    "make_task",
    "make_trajectories",
]
