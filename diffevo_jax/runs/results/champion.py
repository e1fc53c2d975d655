"""champion.npz: the best policy of a run, with all that is needed to use it again."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffevo_jax.policies import Policy
from diffevo_jax.runs.config import builtin
from diffevo_jax.runs.config.plugins import kept
from diffevo_jax.runs.config.registry import registry
from diffevo_jax.runs.config.schema import ConfigError, RunConfig
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.results.files import Arrays, quoted, write_arrays
from diffevo_jax.tasks import Statistics, Task, make_controller

FILE = "champion.npz"
_OBSERVED = [f"observation_{name}" for name in Statistics._fields]


class SavedChampion(NamedTuple):
    """The best policy of a run, or of one of its methods and repeats.

    genome: `[D]`. task, policy: what it plays and what it fills. statistics: of normalised
    observations, else None. returns: of the fresh episodes that it was chosen by, `[E]`; as the
    best of several their mean is a little too good. method, repeat: which one.
    problem: its section of the config.
    """

    genome: jax.Array
    task: Task
    policy: Policy
    statistics: Statistics | None
    returns: np.ndarray
    method: str
    repeat: int
    problem: dict[str, Any]

    def controller(self) -> Any:
        """Make observation -> action, see `tasks.make_controller`."""
        return make_controller(self.task, self.policy, self.genome, self.statistics)


def write(folder: Path, config: RunConfig, arrays: dict[str, Arrays]) -> None:
    """Save the champion of a run's control tasks, if it has any.

    arrays: of all methods, `[S, ...]`. Raises OSError.
    """
    candidates = _candidates(config, arrays)
    if candidates:
        method, repeat = max(candidates, key=lambda each: candidates[each])
        write_arrays(folder / FILE, _pack(config, arrays[method], method, repeat))


def load(path: Path, *, method: str | None = None, repeat: int | None = None) -> SavedChampion:
    """Read a champion of a run's folder or its file, see `runs.load_champion`."""
    if path.is_file():
        if method is not None or repeat is not None:
            raise ConfigError(f"{path}: one champion; a run's folder has those of other repeats")
        return _unpack(path, results.read_arrays(path))
    config, arrays = results.load(path)
    if method is not None and method not in arrays:
        raise ConfigError(f"--method {method}: expected one of {', '.join(arrays)}")
    candidates = _candidates(config, arrays)
    chosen = [
        each for each in candidates if method in (None, each[0]) and repeat in (None, each[1])
    ]
    if not chosen:
        kinds = "a finished repeat of a control task, which has a policy"
        raise ConfigError(f"{path}: expected {kinds}; seen {_list(sorted(candidates))}")
    best = max(chosen, key=lambda each: candidates[each])
    return _unpack(path, _pack(config, arrays[best[0]], *best))


def _candidates(config: RunConfig, arrays: dict[str, Arrays]) -> dict[tuple[str, int], float]:
    """The mean return of each finished repeat's best policy over its fresh episodes."""
    return {
        (name, repeat): float(np.nan_to_num(returns.mean(), nan=-np.inf))
        for name, each in arrays.items()
        if _kind(config.methods[name].problem) == "control"
        for repeat, returns in enumerate(each.get("reevaluated_return", ()))
    }


def _kind(problem: Any) -> str:
    return str(dict(problem).get("name"))


def _pack(config: RunConfig, arrays: Arrays, method: str, repeat: int) -> Arrays:
    problem = config.methods[method].problem
    section = problem if isinstance(problem, dict) else problem.model_dump()
    return {
        "genome": arrays["reevaluated_genome"][repeat],
        "returns": arrays["reevaluated_return"][repeat],
        "problem": np.asarray(json.dumps(section)),
        "method": np.asarray(method),
        "repeat": np.asarray(repeat),
        **{name: arrays[name][repeat] for name in _OBSERVED if name in arrays},
    }


def _unpack(path: Path, arrays: Arrays) -> SavedChampion:
    try:
        settings = json.loads(str(arrays["problem"]))
        genome, returns = arrays["genome"], arrays["returns"]
        method, repeat = str(arrays["method"]), int(arrays["repeat"])
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{path}: not readable as a champion: {error}") from None
    try:
        section: Any = registry.section("problem", settings)
        policy = partial(registry.build, "policy", section.policy, "policy")
        task, network = builtin.make_task(**dict(section) | {"policy": policy})
    except ValueError as error:
        folder = path.parent if path.is_file() else path
        plugins = " ".join(f"--plugin {quoted(file)}" for file in kept(folder))
        hint = f"\nThe run was made with plugins, and keeps them: {plugins}" if plugins else ""
        raise ConfigError(f"{path}: {error}{hint}") from None
    observed = [arrays[name] for name in _OBSERVED if name in arrays]
    statistics = Statistics(*map(jnp.asarray, observed)) if observed else None
    return SavedChampion(
        *(jnp.asarray(genome), task, network, statistics, returns, method, repeat, settings)
    )


def _list(candidates: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{method} {repeat}" for method, repeat in candidates) or "none"
